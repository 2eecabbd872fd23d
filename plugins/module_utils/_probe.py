# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask any number of HTTP endpoints at once and say what is wrong. Private: may change at any time."""

from __future__ import annotations

import errno
import http.client
import io
import json
import math
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Union
from urllib.parse import SplitResult, urlsplit

from ansible_collections.signalbox.runbook.plugins.module_utils._diagnosis import (
    Answer,
    Failure,
    diagnose,
    host_and_port,
    status_kind,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

PROBE_OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str"},
    "url": {"type": "str", "required": True},
    "method": {"type": "str", "default": "GET", "choices": ["GET", "HEAD", "OPTIONS"]},
    "status": {"type": "list", "elements": "int", "default": [200]},
    "expect": {"type": "dict", "default": {}},
    "body": {"type": "str"},
    "headers": {"type": "dict", "default": {}},
    "secret_headers": {"type": "dict", "default": {}, "no_log": True},
    "expect_headers": {"type": "dict", "default": {}},
    "version": {"type": "str"},
    "versions": {"type": "list", "elements": "str", "default": []},
    "version_path": {"type": "str", "default": ""},
    "within_ms": {"type": "int"},
    "successes": {"type": "int", "default": 1},
    "timeout_seconds": {"type": "float", "default": 5},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
}

BODY_LIMIT = 1024 * 1024
EXCERPT = 300
HIDDEN = "(hidden)"
SECRET_NAMES = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
# OpenSSL's words for "the peer did not answer in TLS".
NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})
STOP_POLL_SECONDS = 0.5

_MISSING = object()


@dataclass(frozen=True)
class Endpoint:
    """One health question with its expected answer."""

    name: str
    url: str
    method: str = "GET"
    status: list[int] = field(default_factory=lambda: [200])
    expect: dict[str, Any] = field(default_factory=dict)
    body: Optional[str] = None
    headers: dict[str, str] = field(default_factory=dict)
    secret_headers: dict[str, str] = field(default_factory=dict, repr=False)
    expect_headers: dict[str, str] = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)
    version_path: str = ""
    within_ms: Optional[int] = None
    successes: int = 1
    timeout_seconds: float = 5.0
    validate_certs: bool = True
    ca_path: Optional[str] = None


@dataclass(frozen=True)
class Request:
    """What goes over the wire, and how long the whole of it may take."""

    method: str
    url: str
    headers: dict[str, str] = field(repr=False)
    timeout_seconds: float
    validate_certs: bool
    ca_path: Optional[str]


@dataclass(frozen=True)
class Result:
    """The verdict on one endpoint; ``check`` says what ``observed`` and ``expected`` hold."""

    name: str
    target: str
    passed: bool
    observed: Any
    expected: Any
    duration_ms: int
    attempts: int
    problem: str
    kind: str
    fix: str
    evidence: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


Reply = Union[Answer, Failure]
Fetch = Callable[[Request], Reply]


# Validation


def endpoint(raw: Mapping[str, Any]) -> Endpoint:
    """The endpoint that ``raw`` describes; keys that are None count as not given."""
    given = {key: value for key, value in raw.items() if value is not None}
    label = f"probe {given.get('name') or given.get('url') or '(no name)'}"

    def wrong(key: str, why: str) -> RunbookError:
        return RunbookError(f"{label}: {key} {why}")

    unknown = sorted(set(given) - set(PROBE_OPTIONS))
    if unknown:
        raise wrong(unknown[0], f"is not a key of a probe; the keys are {', '.join(sorted(PROBE_OPTIONS))}")

    def get(key: str) -> Any:
        return given.get(key, PROBE_OPTIONS[key].get("default"))

    def text(key: str, value: Any) -> str:
        if not isinstance(value, str):
            raise wrong(key, f"must be a string, not {_shown(value)}; quote it")
        return value

    def whole(key: str, value: Any, low: int, high: float = math.inf) -> int:
        try:
            number = int(value) if not isinstance(value, (bool, float)) else None
        except (TypeError, ValueError):
            number = None
        if number is None or not low <= number <= high:
            limit = f"from {low} to {high:g}" if high < math.inf else f"of at least {low}"
            raise wrong(key, f"must be a whole number {limit}, not {_shown(value)}")
        return number

    def mapping(key: str) -> dict[str, Any]:
        value = get(key)
        if not isinstance(value, Mapping) or not all(isinstance(name, str) and name for name in value):
            raise wrong(key, f"must be a dictionary with names as keys, not {_shown(value)}")
        return dict(value)

    def listed(key: str) -> list[Any]:
        value = get(key)
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            raise wrong(key, f"must be a list, not {_shown(value)}")
        return list(value)

    def pattern(key: str, value: Any) -> str:
        try:
            re.compile(text(key, value))
        except re.error as error:
            raise wrong(key, f"is not a regular expression ({error})") from None
        return str(value)

    def flag(key: str) -> bool:
        value = get(key)
        if not isinstance(value, bool):
            raise wrong(key, f"must be true or false, not {_shown(value)}")
        return value

    def sent(key: str) -> dict[str, str]:
        headers = {}
        for name, value in mapping(key).items():
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise wrong(key, f"has the name {_shown(name)}, which is not a header name")
            # The value may be a secret: it is never part of a message.
            if isinstance(value, bool) or not isinstance(value, (str, int, float)):
                raise wrong(f"{key}.{name}", "must be a string; quote it")
            if not re.fullmatch(r"[\x20-\x7e\xa0-\xff\t]*", str(value)):
                raise wrong(f"{key}.{name}", "must be one line of Latin-1 text")
            headers[name] = str(value)
        return headers

    if not given.get("url"):
        raise wrong("url", "is missing; give one like http://127.0.0.1:8000/health")
    url = text("url", given["url"])
    why = url_fault(url)
    if why:
        # A refused URL may hold a password, so it must not name the probe in the message.
        label = f"probe {given.get('name') or '(no name)'}"
        raise wrong("url", why)

    method = text("method", get("method")).upper()
    if method not in PROBE_OPTIONS["method"]["choices"]:
        raise wrong("method", f"must be GET, HEAD or OPTIONS, not {method}")
    status = [whole("status", value, 100, 599) for value in listed("status")]
    if not status:
        raise wrong("status", "must name at least one HTTP status, like [200]")
    headers, secret_headers = sent("headers"), sent("secret_headers")
    for name in headers:
        if name.lower() in SECRET_NAMES:
            raise wrong(f"headers.{name}", "would be logged: move it to secret_headers")
    versions = [text("versions", value) for value in listed("versions")]
    if "version" in given:
        versions.insert(0, text("version", given["version"]))
    if not all(version.strip() for version in versions):
        raise wrong("version", "is empty; leave it out, or give the version that must answer")
    expect = mapping("expect")
    for path in expect:
        if not all(path.split(".")):
            raise wrong(f"expect.{path}", "is not a dotted path like checks.db.status")
    version_path = text("version_path", get("version_path"))
    if version_path and not all(version_path.split(".")):
        raise wrong("version_path", f"is {_shown(version_path)}, not a dotted path like build.version")
    body = pattern("body", given["body"]) if "body" in given else None
    if method == "HEAD" and (expect or versions or body is not None):
        raise wrong("method", "is HEAD, whose answer has no body for expect, version or body; use GET")
    try:
        timeout_seconds = float(get("timeout_seconds"))
    except (TypeError, ValueError):
        timeout_seconds = 0
    if not 0 < timeout_seconds <= 3600:
        raise wrong("timeout_seconds", f"must be above 0 and at most 3600, not {_shown(get('timeout_seconds'))}")
    return Endpoint(
        name=text("name", given["name"]) if given.get("name") else url,
        url=url,
        method=method,
        status=status,
        expect=expect,
        body=body,
        headers=headers,
        secret_headers=secret_headers,
        expect_headers={
            name: pattern(f"expect_headers.{name}", value) for name, value in mapping("expect_headers").items()
        },
        versions=versions,
        version_path=version_path,
        within_ms=whole("within_ms", given["within_ms"], 1) if "within_ms" in given else None,
        successes=whole("successes", get("successes"), 1),
        timeout_seconds=timeout_seconds,
        validate_certs=flag("validate_certs"),
        ca_path=text("ca_path", given["ca_path"]) if given.get("ca_path") else None,
    )


def url_fault(url: str) -> str:
    """What is wrong with the URL of a request; empty when nothing is."""
    if not re.fullmatch(r"[\x21-\x7e]+", url):
        return "must be ASCII without blanks; percent-encode the rest"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "has no valid host or port; give one like http://127.0.0.1:8000/health"
    if parts.username is not None or parts.password is not None:
        return "must not hold a user or password, it is logged; send it in secret_headers"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "must be http://host[:port]/path or https://host[:port]/path"
    return ""


# Judging an answer


class _Finding(NamedTuple):
    """One thing asked for: what came, what should have come, and what is wrong with it if anything."""

    kind: str
    problem: str
    observed: Any
    expected: Any


def check(asked: Endpoint, answer: Reply) -> tuple[str, str, Any, Any]:
    """(problem, kind, observed, expected); the first two are empty where the answer is the expected one.

    The values are those of what decided: a wrong status, else the most telling fault, else, where nothing is wrong,
    the most telling thing asked for; in this order: version, JSON values, body, headers, latency, status.
    """
    if isinstance(answer, Failure):
        expected = asked.versions or asked.expect or asked.status
        return f"{host_and_port(asked.url)}: {answer.detail}", answer.kind, None, expected
    findings = [_status(asked, answer)]
    if asked.within_ms is not None:
        findings.append(_latency(asked.within_ms, answer))
    if asked.expect_headers:
        findings.append(_headers(asked, answer))
    if asked.body is not None:
        findings.append(_body(asked.body, answer))
    if asked.expect or asked.version_path:
        document, problem = json_of(answer)
        if not problem:
            findings += [_values(asked, document)] if asked.expect else []
            findings += [_version(asked, *resolve(document, asked.version_path)[0])] if asked.version_path else []
        elif asked.expect or asked.versions:
            findings.append(_Finding("not_json", problem, answer.body[:EXCERPT], asked.versions or asked.expect))
    if asked.versions and not asked.version_path:
        findings.append(_version(asked, "the body", answer.body.strip()))

    faults = [finding for finding in findings if finding.problem]
    if not faults:
        return "", "", findings[-1].observed, findings[-1].expected
    decisive = faults[-1]
    if findings[0].problem:
        # Only what the application says of itself adds to a wrong status; the other faults follow from it.
        decisive = findings[0]
        faults = [decisive] + [fault for fault in faults if fault.kind == "expect"]
    return "; ".join(fault.problem for fault in faults), decisive.kind, decisive.observed, decisive.expected


def _status(asked: Endpoint, answer: Answer) -> _Finding:
    if answer.status in asked.status:
        return _Finding("status", "", answer.status, asked.status)
    location = answer.header("location") if 300 <= answer.status < 400 else None
    problem = f"Application not responding correctly (HTTP {answer.status})"
    problem += f": a redirect to {location}" if location else ""
    problem += f"; expected {' or '.join(str(status) for status in asked.status)}"
    return _Finding(status_kind(asked.url, answer), problem, answer.status, asked.status)


def _latency(limit: int, answer: Answer) -> _Finding:
    slow = answer.duration_ms > limit
    problem = f"the answer took {answer.duration_ms} ms; at most {limit} ms allowed" if slow else ""
    return _Finding("slow", problem, answer.duration_ms, limit)


def _headers(asked: Endpoint, answer: Answer) -> _Finding:
    found = {name: answer.header(name) for name in asked.expect_headers}
    shown = {name: _shown_header(name, value) for name, value in found.items()}
    missing = [name for name, value in found.items() if value is None]
    problems = [f"missing header {', '.join(missing)}"] if missing else []
    for name, pattern in asked.expect_headers.items():
        value = found[name]
        if value is not None and not re.search(pattern, value):
            problems.append(f"header {name} is {_shown(shown[name])}, which does not match {pattern!r}")
    return _Finding("header", "; ".join(problems), shown, asked.expect_headers)


def _body(pattern: str, answer: Answer) -> _Finding:
    found = re.search(pattern, answer.body)
    problem = "" if found else f"the body does not match {pattern!r}: {_begins(answer.body)}"
    return _Finding("body", problem, answer.body[:EXCERPT], pattern)


def _values(asked: Endpoint, document: Any) -> _Finding:
    observed: dict[str, Any] = {}
    problems = []
    for path, wanted in asked.expect.items():
        for where, value in resolve(document, path):
            observed[where] = None if value is _MISSING else _limited(value)
            if value is _MISSING:
                problems.append(f"{where} is missing; expected {_shown(wanted)}")
            elif not _same(value, wanted):
                problems.append(f"{where} is {_shown(value)}; expected {_shown(wanted)}")
    return _Finding("expect", "; ".join(problems), observed, asked.expect)


def _version(asked: Endpoint, where: str, value: Any) -> _Finding:
    """Without ``versions`` any version will do: then the answer is only reported."""
    wanted = " or ".join(asked.versions)
    if value is _MISSING:
        problem = f"the version is missing at {where}; expected {wanted}" if wanted else ""
        return _Finding("version", problem, None, asked.versions)
    version = value if isinstance(value, str) else json.dumps(value)
    wrong = wanted and version not in asked.versions
    problem = f"version {_shown(version)} answers; expected {wanted}" if wrong else ""
    return _Finding("version", problem, version[:EXCERPT], asked.versions)


def resolve(document: Any, path: str) -> list[tuple[str, Any]]:
    """Every (concrete path, value) that a dotted path names; ``*`` is every member, and there must be one."""
    found = [("", document)]
    for part in path.split("."):
        reached: list[tuple[str, Any]] = []
        for where, value in found:
            prefix = f"{where}." if where else ""
            if part == "*" and isinstance(value, (dict, list)) and value:
                members = value.items() if isinstance(value, dict) else enumerate(value)
                reached += [(f"{prefix}{name}", member) for name, member in members]
            elif isinstance(value, dict):
                reached.append((prefix + part, value.get(part, _MISSING)))
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                reached.append((prefix + part, value[int(part)]))
            else:
                reached.append((prefix + part, _MISSING))
        found = reached
    return found


def json_of(answer: Answer) -> tuple[Any, str]:
    if not answer.body.strip():
        return None, f"the body is empty (HTTP {answer.status}); JSON was expected"
    try:
        document = json.loads(answer.body, parse_constant=_refuse_constant)
        # Text that is not valid Unicode (lone surrogates) could not be reported.
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        kind = answer.header("content-type") or "no content type"
        cut = ", cut at 1 MiB" if len(answer.body) >= BODY_LIMIT else ""
        return None, f"the body is not JSON ({kind}{cut}): {_begins(answer.body)}"
    return document, ""


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _same(left: Any, right: Any) -> bool:
    """Equality as JSON means it: true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return isinstance(left, bool) and isinstance(right, bool) and left == right
    if isinstance(left, dict) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(_same(*pair) for pair in zip(left, right))
    return bool(left == right)


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _begins(body: str) -> str:
    return f"it begins {_shown(body.strip()[:60])}" if body.strip() else "it is empty"


def _limited(value: Any) -> Any:
    text = json.dumps(value, ensure_ascii=False)
    return value if len(text) <= EXCERPT else text[:EXCERPT] + "…"


def _shown_header(name: str, value: Optional[str]) -> Optional[str]:
    return value if value is None else HIDDEN if name.lower() in SECRET_NAMES else value[:EXCERPT]


# Asking one endpoint once


def fetch(request: Request) -> Reply:
    """One request over a connection of its own: no redirect, no proxy, and all of it within the time limit."""
    started = time.monotonic()
    parts = urlsplit(request.url)
    host = parts.hostname or ""
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)

    def left() -> float:
        remaining = started + request.timeout_seconds - time.monotonic()
        if remaining <= 0:
            raise socket.timeout
        return remaining

    context = None
    if tls:
        try:
            context = _tls_context(request)
        except OSError as error:
            return Failure("tls", f"ca_path {request.ca_path} is not usable ({error.strerror or error})")
    phase = "connect"
    phases: dict[str, float] = {}
    passed = started

    def mark(name: str) -> None:
        nonlocal passed
        now = time.monotonic()
        phases[name], passed = (now - passed) * 1000, now

    sock: Optional[socket.socket] = None
    reached: list[tuple[Any, ...]] = []
    try:
        reached = addresses(host, port, left())
        mark("resolve")
        sock = connect(reached, left)
        mark("connect")
        if context is not None:
            phase = "handshake"
            sock.settimeout(left())
            sock = context.wrap_socket(sock, server_hostname=host)
            mark("tls")
        phase = "answer"
        status, headers, body, size = _exchange(_Bounded(sock, left), request, parts, lambda: mark("first_byte"))
        return Answer(status, headers, body, round((time.monotonic() - started) * 1000), phases, size)
    except (OSError, http.client.HTTPException) as error:
        failure = _failure(error, phase, tls, request.timeout_seconds)
    finally:
        if sock is not None:
            sock.close()
    if failure.kind == "closed" and not tls and phase == "answer" and _speaks_tls(reached, left):
        # Many TLS servers hang up on plain HTTP without a word.
        return Failure("wrong_port", "plain HTTP was sent to a port that speaks TLS")
    return failure


def _tls_context(request: Request) -> ssl.SSLContext:
    path = request.ca_path
    if path and Path(path).is_dir():
        context = ssl.create_default_context(capath=path)
    else:
        context = ssl.create_default_context(cafile=path)
    if not request.validate_certs:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def addresses(host: str, port: int, seconds: float) -> list[tuple[Any, ...]]:
    """getaddrinfo has no time limit of its own, so it gets a thread that may be left behind."""
    outcome: list[Union[list[tuple[Any, ...]], OSError]] = []

    def look_up() -> None:
        try:
            outcome.append(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except OSError as error:
            outcome.append(error)
        except UnicodeError:
            outcome.append(socket.gaierror(socket.EAI_NONAME, "not a valid host name"))

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise socket.gaierror(socket.EAI_AGAIN, f"no answer within {seconds:.3g} s")
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    return outcome[0]


def connect(addresses: Sequence[tuple[Any, ...]], left: Callable[[], float]) -> socket.socket:
    """The first address that accepts; one that stays silent leaves time for the others."""
    problem: OSError = OSError(errno.EADDRNOTAVAIL, "the name has no address")
    for number, (family, kind, protocol, _name, address) in enumerate(addresses):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # an address family that this host does not have
            problem = error
            continue
        try:
            sock.settimeout(left() / (len(addresses) - number))
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            problem = error
    raise problem


class _Bounded(io.RawIOBase):
    """What http.client needs of a socket, with one time limit for all of it instead of one per read."""

    def __init__(self, sock: socket.socket, left: Callable[[], float]) -> None:
        self._sock = sock
        self._left = left

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._left())
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._left())
        return self._sock.recv_into(buffer)

    def close(self) -> None:
        """http.client closes its socket before the body is read; ``fetch`` closes the real one."""


def _exchange(
    bounded: _Bounded, request: Request, parts: SplitResult, began: Callable[[], None]
) -> tuple[int, dict[str, str], str, int]:
    connection = http.client.HTTPConnection(parts.hostname or "")
    connection.sock = bounded
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
    headers = {"Host": parts.netloc, "User-Agent": "signalbox.runbook", "Accept": "*/*", "Accept-Encoding": "identity"}
    replaced = {name.lower() for name in request.headers}
    kept = {name: value for name, value in headers.items() if name.lower() not in replaced}
    for name, value in {**kept, **request.headers, "Connection": "close"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    began()
    data = response.read(BODY_LIMIT)
    if response.length and len(data) < BODY_LIMIT:
        raise http.client.IncompleteRead(data, response.length)
    charset = response.headers.get_content_charset("utf-8")
    try:
        body = data.decode("utf-8-sig" if charset == "utf-8" else charset, "replace")
    except LookupError:
        body = data.decode("utf-8", "replace")
    received: dict[str, str] = {}
    for name, value in response.getheaders():
        received[name.lower()] = f"{received[name.lower()]}, {value}" if name.lower() in received else value
    return response.status, received, body, len(data)


def _failure(error: Exception, phase: str, tls: bool, seconds: float) -> Failure:
    reason = str(getattr(error, "strerror", None) or error)
    if isinstance(error, socket.gaierror):
        return Failure("dns", f"the host name does not resolve ({reason})")
    # Before Python 3.10 socket.timeout is not TimeoutError; the latter is also what the kernel's own limit raises.
    if isinstance(error, (socket.timeout, TimeoutError)):
        what = {"connect": "no connection", "handshake": "no TLS handshake", "answer": "no complete answer"}[phase]
        return Failure("timeout", f"{what} within {seconds:.3g} s")
    if isinstance(error, ConnectionRefusedError):
        return Failure("refused", "connection refused")
    if isinstance(error, ssl.SSLCertVerificationError):
        return Failure("tls", f"the certificate is not trusted: {error.verify_message}")
    if isinstance(error, (ConnectionError, ssl.SSLEOFError)):  # RemoteDisconnected too
        when = "during the TLS handshake" if phase == "handshake" else "before the answer was complete"
        return Failure("closed", f"the connection was closed {when}")
    if isinstance(error, ssl.SSLError):
        if error.reason in NOT_TLS:
            return Failure("wrong_port", "TLS was asked of a port that does not speak it")
        return Failure("tls", f"TLS failed: {(error.reason or reason).replace('_', ' ').lower()}")
    if isinstance(error, http.client.IncompleteRead):
        return Failure("closed", "the connection was closed before the answer was complete")
    if isinstance(error, http.client.BadStatusLine):
        line = str(error)
        if line.startswith("\x15\x03"):  # a TLS alert
            return Failure("wrong_port", "plain HTTP was sent to a port that speaks TLS")
        return Failure("wrong_port", f"what answers does not speak HTTP; it begins {_shown(line[:40])}")
    if isinstance(error, http.client.HTTPException):
        return Failure("wrong_port", f"what answers does not speak proper HTTP ({_shown(reason)})")
    if error.args and error.args[0] in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return Failure("refused", f"the host is unreachable ({reason})")
    return Failure("closed", f"the connection failed ({reason})")


def _speaks_tls(addresses: Sequence[tuple[Any, ...]], left: Callable[[], float]) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with connect(addresses, left) as sock:
            sock.settimeout(left())
            context.wrap_socket(sock).close()
            return True
    except OSError:
        return False


# Asking all


def ask(
    endpoints: Sequence[Endpoint],
    fetch: Fetch = fetch,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    deadline_seconds: float = 0,
    interval_seconds: float = 0.5,
    stop: Callable[[], str] = lambda: "",
) -> list[Result]:
    """Ask all endpoints at once, each until ``successes`` in a row or the common deadline.

    Without a deadline each gets ``successes`` tries and its first failure is final. A reason from ``stop`` ends
    the waiting of all of them.
    """
    if not (math.isfinite(deadline_seconds) and deadline_seconds >= 0):
        raise RunbookError(f"deadline_seconds must be 0 or more seconds, not {deadline_seconds:g}")
    if not (math.isfinite(interval_seconds) and interval_seconds > 0):
        raise RunbookError(f"interval_seconds must be above 0, not {interval_seconds:g}")
    if not endpoints:
        return []
    end = clock() + deadline_seconds if deadline_seconds > 0 else None
    lock = threading.Lock()
    reasons: list[str] = []

    def stopped() -> str:
        with lock:  # a caller's ``stop`` need not be safe for threads; its first reason stands
            if not reasons:
                reasons.extend(filter(None, [stop()]))
            return reasons[0] if reasons else ""

    def wait(seconds: float) -> str:
        while seconds > 0:
            reason = stopped()
            if reason:
                return reason
            sleep(min(seconds, STOP_POLL_SECONDS))
            seconds -= STOP_POLL_SECONDS
        return stopped()

    def one(asked: Endpoint) -> Result:
        row = attempts = 0
        failed: Optional[Result] = None
        while True:
            allowed = asked.timeout_seconds
            if end is not None:
                allowed = max(min(allowed, end - clock()), 0.001)
            attempts += 1
            result = replace(_ask_once(asked, allowed, fetch, clock), attempts=attempts)
            row = row + 1 if result.passed else 0
            if row >= asked.successes:
                return result
            if not result.passed:
                # A last request that was cut short by the deadline says less than the failure before it.
                cut = result.kind == "timeout" and allowed < asked.timeout_seconds
                failed = replace(failed, attempts=attempts) if cut and failed else result
                if end is None:
                    return failed
            late = end is not None and clock() + interval_seconds >= end
            why = f"the deadline of {round(deadline_seconds)} s is over" if late else wait(interval_seconds)
            if why:
                return _given_up(asked, result, failed, row, why)

    if len(endpoints) == 1:
        return [one(endpoints[0])]
    # One thread each: in a queue the slow ones would use up the deadline of those behind them.
    with ThreadPoolExecutor(max_workers=len(endpoints)) as pool:
        return list(pool.map(one, endpoints))


def _ask_once(asked: Endpoint, allowed: float, fetch: Fetch, clock: Callable[[], float]) -> Result:
    headers = {**asked.headers, **asked.secret_headers}
    started = clock()
    request = Request(asked.method, asked.url, headers, allowed, asked.validate_certs, asked.ca_path)
    answer = fetch(request)
    unknown_method = isinstance(answer, Answer) and answer.status in (405, 501) and answer.status not in asked.status
    remaining = allowed - (clock() - started)
    if asked.method == "HEAD" and unknown_method and remaining > 0:
        # Some applications reject HEAD.
        answer = fetch(replace(request, method="GET", timeout_seconds=remaining))
    problem, kind, observed, expected = check(asked, answer)
    duration = answer.duration_ms if isinstance(answer, Answer) else round((clock() - started) * 1000)
    secrets = _secrets(asked)
    return Result(
        name=asked.name,
        target=asked.url,
        passed=not problem,
        observed=masked(observed, secrets),
        expected=expected,
        duration_ms=duration,
        attempts=1,
        problem=masked(problem, secrets),
        kind=kind,
        fix=masked(diagnose(asked.url, kind, answer), secrets),
        evidence=masked(_evidence(asked, answer), secrets),
    )


def _given_up(asked: Endpoint, last: Result, failed: Optional[Result], row: int, why: str) -> Result:
    """The failure to report when the waiting ends: the last one seen, or that the row is not complete."""
    if not last.passed and failed:
        return replace(failed, problem=f"{failed.problem}; gave up after {last.attempts} attempts: {why}")
    before = f"; the failure before was: {failed.problem}" if failed else ""
    return replace(
        failed or last,
        passed=False,
        attempts=last.attempts,
        kind=failed.kind if failed else "timeout",
        problem=f"only {row} of {asked.successes} successes in a row: {why}{before}",
        fix=failed.fix if failed else "Raise the deadline, shorten the interval or ask for fewer successes.",
    )


def _evidence(asked: Endpoint, answer: Reply) -> dict[str, Any]:
    if isinstance(answer, Failure):
        return {"error": answer.detail}
    told = ["content-type", "location", "server"] + [name.lower() for name in asked.expect_headers]
    headers = {name: _shown_header(name, answer.header(name)) for name in dict.fromkeys(told) if answer.header(name)}
    return {"status": answer.status, "headers": headers, "body": answer.body[:EXCERPT]}


def _secrets(asked: Endpoint) -> list[str]:
    """The secret header values and their long words: an application may echo the token without its scheme."""
    values = list(asked.secret_headers.values())
    words = [word for value in values for word in re.split(r"[\s;,=]+", value) if len(word) >= 8]
    return sorted({secret for secret in values + words if secret.strip()}, key=len, reverse=True)


def masked(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, HIDDEN)
        return value
    if isinstance(value, dict):
        return {masked(key, secrets): masked(member, secrets) for key, member in value.items()}
    if isinstance(value, list):
        return [masked(member, secrets) for member in value]
    return value
