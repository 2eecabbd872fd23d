# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of what answers HTTP. Private: may change at any time."""

from __future__ import annotations

import math
import re
import socket
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Union
from urllib.parse import urlsplit

from ansible_collections.signalbox.runbook.plugins.module_utils import _limits, _probe
from ansible_collections.signalbox.runbook.plugins.module_utils._checks_kind import (
    Args,
    Deadline,
    Kind,
    Measured,
    Say,
    World,
    within,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._diagnosis import Answer, Failure, host_and_port
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Spec

# A check has a name and a time limit of its own, counts samples, and has limits for milliseconds.
PROBE = {
    key: {**spec, "type": "str"} if spec["type"] == "path" else spec
    for key, spec in _probe.PROBE_OPTIONS.items()
    if key not in ("name", "timeout_seconds", "within_ms", "successes")
}
SENT: dict[str, Spec] = {key: PROBE[key] for key in ("url", "headers", "secret_headers", "validate_certs", "ca_path")}
PERCENTILES = ("p50_ms", "p95_ms", "p99_ms", "max_ms")
SAMPLES = 10  # HC-07: a single sample is noise
SECURITY_HEADERS = ("Strict-Transport-Security", "Content-Security-Policy", "X-Frame-Options")  # HC-20
TOO_MANY = 429
AT_ONCE = 10
RECOVERY_POLL_SECONDS = 0.5


def percentile(sorted_values: Sequence[float], percent: float) -> float:
    """By nearest rank: a value that was measured."""
    return sorted_values[max(0, math.ceil(percent / 100 * len(sorted_values)) - 1)]


def _endpoint(args: Args, **more: Any) -> _probe.Endpoint:
    given = {key: args[key] for key in PROBE if args.get(key) is not None}
    return _probe.endpoint({**given, "name": args["name"], "timeout_seconds": args["timeout_seconds"], **more})


def _endpoint_fault(args: dict[str, Any], say: Say) -> None:
    """The probe's own checks of its options, said of this check's."""
    if any(args.get(key) is None for key in ("name", "url", "timeout_seconds")):
        return  # said already
    try:
        _endpoint(args)
    except RunbookError as error:
        _label, _colon, rest = str(error).partition(f"probe {args['name']}: ")
        key, _blank, problem = (rest or str(error).partition(": ")[2]).partition(" ")
        say(key, problem)


def _http(args: Args, world: World) -> Measured:
    asked = _endpoint(args)
    took: list[float] = []
    failed = answered = 0
    problem = ""
    values: dict[str, Any] = {}
    missing: list[str] = []
    for number in range(args["samples"]):
        if number and args["interval_ms"]:
            world.sleep(args["interval_ms"] / 1000)
        answer = _send(asked, world, asked.method, asked.timeout_seconds)
        fault, _kind, observed, _expected = _probe.check(asked, answer)
        if isinstance(answer, Answer):
            answered += 1
            values.update(status=answer.status, size_bytes=answer.size_bytes)
            values.update({f"{phase}_ms": round(spent, 3) for phase, spent in answer.phases_ms.items()})
            took.append(float(answer.duration_ms))
            missing = [name for name in args["security_headers"] if not (answer.header(name) or "").strip()]
            values.update(_numbers(args["numbers"], answer))
            if asked.version_path or asked.versions:
                values["observed"] = observed
        if fault:
            failed += 1
            problem = fault  # the last one: what is wrong now
    values["failed"] = failed
    if took:
        took.sort()
        values.update(zip(PERCENTILES, [percentile(took, part) for part in (50, 95, 99, 100)]))
    if answered and args["security_headers"]:
        values["missing_headers"] = len(missing)
    share = f"{failed} of {args['samples']} samples: " if args["samples"] > 1 else ""
    return Measured(values, {"failed": f"{share}{problem}", "missing_headers": f"missing header {', '.join(missing)}"})


def _numbers(paths: Mapping[str, Any], answer: Answer) -> dict[str, float]:
    """What the answer itself measures; of several values of one name the largest. What is no number is left out."""
    document, problem = _probe.json_of(answer) if paths else (None, "")
    found: dict[str, float] = {}
    for name, path in paths.items():
        members = [value for _where, value in _probe.resolve(document, path)] if not problem else []
        numbers = [_limits.number(value) for value in members if not isinstance(value, bool)]
        known = [number for number in numbers if number is not None]
        if known and len(known) == len(members):
            found[name] = max(known)
    return found


def _http_finish(args: dict[str, Any], names: Collection[str], say: Say) -> None:
    if args["samples"] is None:
        args["samples"] = SAMPLES if set(names) & set(PERCENTILES) else 1
    within(args, say, 1, 1000, "samples")
    within(args, say, 0, 60_000, "interval_ms")
    for name, path in args["numbers"].items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in KINDS["http"].measures or name in ("observed",):
            say(f"numbers.{name}", "must be a name of your own with its unit, like uptime_seconds")
        if not isinstance(path, str) or not all(path.split(".")):
            say(f"numbers.{name}", "must be a dotted path into the JSON of the answer, like queue.oldest_job")
    _endpoint_fault(args, say)


def _http_measured(args: Args, names: Collection[str]) -> Collection[str]:
    left_out = set() if args["security_headers"] else {"missing_headers"}
    if not args["url"].lower().startswith("https:"):
        left_out.add("tls_ms")
    return [*(name for name in names if name not in left_out), *args["numbers"]]


def _redirect(args: Args, world: World) -> Measured:
    parts = urlsplit(args["url"])
    answer = _only(args, world, "HEAD")
    location = answer.header("location") or ""
    to = urlsplit(location)
    same = to.scheme == "https" and (to.hostname or "").lower() == (parts.hostname or "").lower()
    permanent = answer.status in (301, 308)
    if answer.status in (301, 302, 303, 307, 308):
        said = f"HTTP {answer.status} to {location or 'nowhere'}"
        said += "" if same else f", which is not https on {parts.hostname}"
        said += "" if permanent else ", which is not permanent (301 or 308)"
    else:
        said = f"HTTP {answer.status} and no redirect"
    return Measured({"redirects": int(same and permanent), "status": answer.status}, {"redirects": said})


def _only(args: Args, world: World, method: str) -> Answer:
    """The answer to one request; one that rejects HEAD is asked with GET."""
    deadline = Deadline(args, world)
    asked = _endpoint(args)
    answer = _send(asked, world, method, deadline.left())
    if method == "HEAD" and isinstance(answer, Answer) and answer.status in (405, 501):
        answer = _send(asked, world, "GET", deadline.left())
    if isinstance(answer, Failure):
        raise RunbookError(f"{host_and_port(asked.url)}: {answer.detail}")
    return answer


def _send(asked: _probe.Endpoint, world: World, method: str, seconds: float) -> Union[Answer, Failure]:
    headers = {**asked.headers, **asked.secret_headers}
    if method not in _probe.PROBE_OPTIONS["method"]["choices"]:
        headers["Content-Length"] = "0"
    return world.fetch(_probe.Request(method, asked.url, headers, seconds, asked.validate_certs, asked.ca_path))


def _plain_only(args: dict[str, Any], _names: Collection[str], say: Say) -> None:
    if isinstance(args["url"], str) and not args["url"].lower().startswith("http://"):
        say("url", "must begin with http://, because that is what has to be redirected")
    else:
        _endpoint_fault(args, say)


def _csrf(args: Args, world: World) -> Measured:
    answer = _only(args, world, args["state_change"])
    rejected = answer.status in args["rejected_with"]
    wanted = " or ".join(str(status) for status in args["rejected_with"])
    said = f"{args['state_change']} without a token was answered with HTTP {answer.status}, not {wanted}"
    return Measured({"rejected": int(rejected), "status": answer.status}, {"rejected": said})


def _rate(args: Args, world: World) -> Measured:
    deadline = Deadline(args, world)
    asked = _endpoint(args)

    def one(_number: int) -> Union[Answer, Failure]:
        try:
            return _send(asked, world, "GET", deadline.left())
        except socket.timeout:
            return Failure("timeout", f"no answer within {deadline.seconds:g} s")

    with ThreadPoolExecutor(max_workers=min(AT_ONCE, args["burst"])) as pool:
        answers = list(pool.map(one, range(args["burst"])))
    came = [answer for answer in answers if isinstance(answer, Answer)]
    if not came:
        failure = next(answer for answer in answers if isinstance(answer, Failure))
        raise RunbookError(f"{host_and_port(asked.url)}: {failure.detail}")
    limited = [answer for answer in came if answer.status == TOO_MANY]
    values: dict[str, Any] = {
        "limited": len(limited),
        "answered": len(came),
        "server_errors": sum(answer.status >= 500 for answer in came),
    }
    said = {
        "limited": f"none of {len(came)} requests in a row was refused with 429",
        "server_errors": f"{values['server_errors']} of {len(came)} requests were answered with an error of the server",
        "recovered": f"it still refuses after {args['recovery_seconds']:g} s",
    }
    told = [answer.header("retry-after") or "" for answer in limited]
    if told and told[-1].isdecimal():
        values["retry_after_seconds"] = int(told[-1])
    values["recovered"] = int(not limited or _recovers(args, world, one))
    return Measured(values, said)


def _recovers(args: Args, world: World, one: Any) -> bool:
    until = world.clock() + args["recovery_seconds"]
    while world.clock() < until:
        world.sleep(RECOVERY_POLL_SECONDS)
        answer = one(0)
        if isinstance(answer, Answer) and answer.status != TOO_MANY and answer.status < 500:
            return True
    return False


def _rate_finish(args: dict[str, Any], _names: Collection[str], say: Say) -> None:
    within(args, say, 1, 1000, "burst")
    timeout = args["timeout_seconds"]
    if timeout:
        within(args, say, 0.5, timeout, "recovery_seconds")
    _endpoint_fault(args, say)


def _url(args: Args) -> str:
    return str(args["url"])


KINDS: dict[str, Kind] = {
    "http": Kind(
        options={
            **PROBE,
            "samples": {"type": "int"},
            "interval_ms": {"type": "int", "default": 0},
            "security_headers": {"type": "list", "elements": "str", "default": []},
            "numbers": {"type": "dict", "default": {}},
        },
        measures={
            "failed": "samples without the expected answer (status, expect, body, expect_headers, version)",
            "status": "HTTP status of the last answer",
            "p50_ms": "half of the answers took at most this long, name resolution and connection included",
            "p95_ms": "95 % of the answers took at most this long",
            "p99_ms": "99 % of the answers took at most this long",
            "max_ms": "the slowest answer",
            "resolve_ms": "of the last answer: until the name was resolved",
            "connect_ms": "from then until it was connected",
            "tls_ms": "from then until TLS was spoken; only with https",
            "first_byte_ms": "from then until status and headers were there",
            "size_bytes": "size of the body, of which no more than 1 MiB is read",
            "missing_headers": "how many of security_headers the last answer lacks; only where they are given",
        },
        seconds=lambda args: float(args["samples"] * (args["timeout_seconds"] + args["interval_ms"] / 1000)),
        fail_when={"failed": "> 0", "missing_headers": "> 0"},  # HC-01: the status is asserted; HC-20: all of them
        subject=_url,
        advice="Ask the URL by hand from this host and read the log of what answers.",
        ask=_http,
        finish=_http_finish,
        measured=_http_measured,
    ),
    "https_redirect": Kind(
        options=SENT,
        measures={
            "redirects": "1 when plain HTTP is answered with 301 or 308 to https on the same host",
            "status": "HTTP status of the answer",
        },
        fail_when={"redirects": "< 1"},  # HC-22
        subject=_url,
        advice="Let the server on port 80 answer with 301 to https on the same host.",
        ask=_redirect,
        finish=_plain_only,
    ),
    "csrf": Kind(
        options={
            **SENT,
            "state_change": {"type": "str", "default": "POST", "choices": ["POST", "PUT", "PATCH", "DELETE"]},
            "rejected_with": {"type": "list", "elements": "int", "default": [403]},
        },
        measures={
            "rejected": "1 when a request that changes something is rejected without a token",
            "status": "HTTP status of the answer",
        },
        fail_when={"rejected": "< 1"},  # HC-23
        subject=_url,
        advice="Turn on the protection against forged requests for this path.",
        ask=_csrf,
        finish=lambda args, _names, say: _endpoint_fault(args, say),
    ),
    "rate_limit": Kind(
        options={
            **SENT,
            "burst": {"type": "int", "default": 20},
            "recovery_seconds": {"type": "float", "default": 10},
        },
        measures={
            "limited": "requests of the burst that were refused with 429",
            "answered": "requests of the burst that were answered",
            "server_errors": "requests of the burst that were answered with 500 or more",
            "retry_after_seconds": "what Retry-After said; only where it was said in seconds",
            "recovered": "1 when it answers again within recovery_seconds",
        },
        fail_when={"limited": "< 1", "server_errors": "> 0", "recovered": "< 1"},  # HC-21
        subject=_url,
        advice="Set a rate limit for this path below the burst, or send a larger burst.",
        ask=_rate,
        finish=_rate_finish,
        timeout_seconds=30,
    ),
}
