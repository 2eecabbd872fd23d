# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks as data: what is asked on a host, its limits, and what came of it. Private: may change at any time."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Optional, Union

from ansible_collections.signalbox.runbook.plugins.module_utils import (
    _checks_host,
    _checks_http,
    _checks_net,
    _checks_postgres,
    _checks_prometheus,
    _checks_redis,
    _checks_reports,
    _checks_tls,
    _limits,
    _probe,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._checks_kind import Kind, Measured, World
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._limits import Limit
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Problems, Spec, check, closest

KINDS: dict[str, Kind] = {
    **_checks_host.KINDS,
    **_checks_net.KINDS,
    **_checks_tls.KINDS,
    **_checks_http.KINDS,
    **_checks_postgres.KINDS,
    **_checks_redis.KINDS,
    **_checks_prometheus.KINDS,
    **_checks_reports.KINDS,
}
REMEDY_SECONDS = 600.0  # what a command of a remedy may take, unless it says otherwise
# Commands that may mend what a check finds, one after the other.
REMEDY: dict[str, Spec] = {
    "argv": {"type": "list", "elements": "str", "required": True, "description": "program and arguments"},
    "chdir": {"type": "str"},
    "timeout_seconds": {"type": "float", "default": REMEDY_SECONDS},
}
COMMON: dict[str, Spec] = {
    "name": {"type": "str", "required": True, "description": "a name that no other check has"},
    "check": {"type": "str", "required": True, "description": "the kind of check, for example disk"},
    "fail_when": {"type": "dict", "default": {}},
    "warn_when": {"type": "dict", "default": {}},
    "timeout_seconds": {"type": "float"},
    "source": {"type": "str"},
    "advice": {"type": "str"},
    "blocking": {"type": "bool", "default": True},
    "weight": {"type": "float", "default": 1},
    "remedy": {"type": "list", "elements": "dict", "default": [], "options": REMEDY},
}
# All of them as one module takes them; which kind has which, and its defaults, is checked by `parse`.
OPTIONS: dict[str, dict[str, Any]] = {
    key: {part: spec[part] for part in ("type", "elements", "no_log") if part in spec}
    for options in (COMMON, *(kind.options for kind in KINDS.values()))
    for key, spec in options.items()
}
FAIL_WHEN, WARN_WHEN = "fail_when", "warn_when"
PASS, WARN, FAIL, MISSING = "pass", "warn", "fail", "missing"
AT_ONCE = 128
GRACE_SECONDS = 1.0  # what a check gets to tell by itself that its time is over
SHOWN_NAMES = 4
LINE_SHOWN = 200
UNITS = {"_percent": " %", "_ms": " ms", "_seconds": " s", "_hours": " h", "_bytes": ""}
SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True)
class Check:
    name: str
    kind: str
    args: Mapping[str, Any]  # options of the kind, name and timeout_seconds
    fail_when: tuple[Limit, ...]
    warn_when: tuple[Limit, ...]
    sources: Mapping[tuple[str, str], str]  # by fail_when or warn_when, and what is measured
    advice: str
    blocking: bool
    weight: float
    remedy: tuple[Mapping[str, Any], ...] = ()

    @property
    def seconds(self) -> float:
        """How long all of it may take, without the remedy."""
        return KINDS[self.kind].seconds(self.args)

    @property
    def remedy_seconds(self) -> float:
        """How long the remedy may take, and asking again."""
        return sum(float(step["timeout_seconds"]) for step in self.remedy) + (self.seconds if self.remedy else 0.0)


@dataclass(frozen=True)
class Result:
    """``missing`` is what could not be measured: never a pass."""

    name: str
    check: str
    status: str
    measured: dict[str, Any]
    text: str
    limit: str
    source: str
    advice: str
    blocking: bool
    weight: float
    remedied: bool = False  # whether its remedy was run, or begun

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


# Reading


def parse(given: Any, path: str, problems: Problems) -> list[Check]:
    """The checks of a list; what is wrong with them is noted, and those that are wrong are left out."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        problems.say(path, "must be a list of checks")
        return []
    checks: list[Check] = []
    where: dict[str, str] = {}
    for i, raw in enumerate(given):
        here = f"{path}[{i}]"
        before = len(problems)
        parsed = _one(raw, here, problems)
        name = raw.get("name") if isinstance(raw, Mapping) else None
        if isinstance(name, str) and name:
            if name in where:
                problems.say(f"{here}.name", f"{name!r} is the name of {where[name]} already")
            where.setdefault(name, here)
        if parsed and len(problems) == before:
            checks.append(parsed)
    return checks


def _one(raw: Any, here: str, problems: Problems) -> Optional[Check]:
    if not isinstance(raw, Mapping):
        problems.say(here, "must be a mapping with name, check and its options")
        return None
    kind = KINDS.get(raw["check"]) if isinstance(raw.get("check"), str) else None
    if kind is None:
        if raw.get("check") is None:
            problems.say(f"{here}.check", f"is missing; give one of {', '.join(sorted(KINDS))}")
        else:
            near = closest(str(raw["check"]), KINDS)
            known = near or f"; there are {', '.join(sorted(KINDS))}"
            problems.say(f"{here}.check", f"{str(raw['check'])[:40]!r} is no kind of check{known}")
        return None
    before = len(problems)
    done = check(raw, {**COMMON, **kind.options}, here, problems)
    if not done["name"] and raw.get("name") is not None and len(problems) == before:
        problems.say(f"{here}.name", "is empty; give a name that no other check has")
    if done["timeout_seconds"] is None:
        done["timeout_seconds"] = kind.timeout_seconds
    elif not 0 < done["timeout_seconds"] <= 3600:
        problems.say(f"{here}.timeout_seconds", f"must be above 0 and at most 3600, not {done['timeout_seconds']:g}")
    if done["weight"] is not None and done["weight"] < 0:
        problems.say(f"{here}.weight", f"must be 0 or more, not {done['weight']:g}")
    for i, step in enumerate(done["remedy"] or ()):
        if step and step["argv"] == []:
            problems.say(f"{here}.remedy[{i}].argv", "is empty; give a program and its arguments")
        if step and step["timeout_seconds"] is not None and not 0 < step["timeout_seconds"] <= 3600:
            text = f"must be above 0 and at most 3600, not {step['timeout_seconds']:g}"
            problems.say(f"{here}.remedy[{i}].timeout_seconds", text)
    if len(problems) > before:
        for key in (FAIL_WHEN, WARN_WHEN):  # what is wrong with the limits is said with the rest
            own = {name: text for name, text in (done[key] or {}).items() if text is not None}
            _limits.parse(own, kind.measures, f"{here}.{key}", problems)
        return None
    wanted = {limit for key in (FAIL_WHEN, WARN_WHEN) for limit in done[key]}
    kind.finish(done, wanted, lambda key, problem: problems.say(f"{here}.{key}", problem))
    measures = kind.measured(done, kind.measures)
    limits: dict[str, tuple[Limit, ...]] = {}
    sources: dict[tuple[str, str], str] = {}
    for key, defaults in ((FAIL_WHEN, kind.fail_when), (WARN_WHEN, kind.warn_when)):
        own = {name: text for name, text in done[key].items() if text is not None}
        # A limit replaces the default of the same name, and null removes it; the other defaults stay.
        kept = {name: text for name, text in defaults.items() if name in measures and name not in done[key]}
        given_limits = _limits.parse(own, measures, f"{here}.{key}", problems)
        default_limits = _limits.parse(kept, measures, f"{here}.{key}", problems)
        _known({name for name, text in done[key].items() if text is None}, kind, f"{here}.{key}", problems)
        limits[key] = (*given_limits, *default_limits)
        default = f"default of check {raw['check']}"
        for limit in default_limits:
            sources[key, limit.name] = default if wanted or not done["source"] else done["source"]
        for limit in given_limits:
            sources[key, limit.name] = done["source"] or f"{key} of the check"
    if len(problems) > before:
        return None
    return Check(
        name=done["name"],
        kind=str(raw["check"]),
        args={key: done[key] for key in (*kind.options, "name", "timeout_seconds")},
        fail_when=limits[FAIL_WHEN],
        warn_when=limits[WARN_WHEN],
        sources=sources,
        advice=done["advice"] or kind.advice,
        blocking=done["blocking"],
        weight=done["weight"],
        remedy=tuple(done["remedy"]),
    )


def _known(removed: Collection[str], kind: Kind, path: str, problems: Problems) -> None:
    for name in sorted(removed):
        if name not in kind.measures:
            problems.say(f"{path}.{name}", f"is not measured here{closest(name, kind.measures)}")


# Judging


def judge(asked: Check, measured: Union[Measured, RunbookError]) -> Result:
    """What is bad counts before what is not known, so that a service that is down is not only "missing"."""
    if isinstance(measured, RunbookError):
        return _result(asked, MISSING, {}, f"{_subject(asked)}: not measured: {measured}", FAIL_WHEN, asked.fail_when)
    values = measured.values
    limit = _limits.broken(asked.fail_when, values)
    if limit:
        return _result(asked, FAIL, values, _clause(asked, limit, measured), FAIL_WHEN, (limit,))
    for role, limits in ((FAIL_WHEN, asked.fail_when), (WARN_WHEN, asked.warn_when)):
        unknown = _limits.missing(limits, values)
        if unknown:
            text = f"{_subject(asked)}: {', '.join(map(_words, unknown))} not measured"
            return _result(asked, MISSING, values, text, role, [one for one in limits if one.name in unknown])
    limit = _limits.broken(asked.warn_when, values)
    if limit:
        return _result(asked, WARN, values, _clause(asked, limit, measured), WARN_WHEN, (limit,))
    names = dict.fromkeys(one.name for one in (*asked.fail_when, *asked.warn_when)) or dict.fromkeys(
        name for name in KINDS[asked.kind].measures if _limits.number(values.get(name)) is not None
    )
    shown = ", ".join(_valued(name, values[name]) for name in list(names)[:SHOWN_NAMES])
    return _result(asked, PASS, values, f"{_subject(asked)}: {shown}", FAIL_WHEN, asked.fail_when)


def _subject(asked: Check) -> str:
    return KINDS[asked.kind].subject(asked.args)


def _words(name: str) -> str:
    for unit in UNITS:
        if name.endswith(unit):
            name = name[: -len(unit)]
            break
    return name.replace("_", " ")


def _amount(name: str, value: float, exact: bool = False) -> str:
    show = (lambda number: f"{number:.7g}") if exact else _limits.shown
    if name.endswith("_bytes"):
        size, number = 0, float(value)
        while abs(number) >= 1024 and size < len(SIZES) - 1:
            size, number = size + 1, number / 1024
        return f"{show(number)} {SIZES[size]}"
    return show(value) + next((sign for unit, sign in UNITS.items() if name.endswith(unit)), "")


def _valued(name: str, value: float) -> str:
    return f"{_words(name)} {_amount(name, value)}"


def _clause(asked: Check, limit: Limit, measured: Measured) -> str:
    number = _limits.number(measured.values[limit.name]) or 0.0
    shown, bound = _amount(limit.name, number), _amount(limit.name, limit.value)
    if shown == bound and number != limit.value:  # 19.96 % is not 20 %
        shown = _amount(limit.name, number, exact=True)
    clause = f"{_words(limit.name)} {shown} {limit.relation} {bound}"
    more = measured.said.get(limit.name)
    return f"{_subject(asked)}: {more} ({clause})" if more else f"{_subject(asked)}: {clause}"


def _result(asked: Check, status: str, values: dict[str, Any], text: str, role: str, limits: Sequence[Limit]) -> Result:
    sources = dict.fromkeys(asked.sources[role, limit.name] for limit in limits)
    return Result(
        name=asked.name,
        check=asked.kind,
        status=status,
        measured=values,
        text=text,
        limit=", ".join(map(str, limits)),
        source="; ".join(sources) or f"default of check {asked.kind}",
        advice="" if status == PASS else asked.advice,
        blocking=asked.blocking,
        weight=asked.weight,
    )


# Asking


def ask(asked: Check, world: World) -> Result:
    """One check, in the time that it takes. No secret is in what comes of it."""
    hidden = secrets_of(asked)
    try:
        measured = KINDS[asked.kind].ask(asked.args, world)
    except RunbookError as error:
        return judge(asked, RunbookError(_probe.masked(str(error), hidden)))
    return judge(asked, Measured(*(_probe.masked(part, hidden) for part in measured)))


def secrets_of(asked: Check) -> list[str]:
    """The values of options that are not logged, the longest first."""
    found: set[str] = set()

    def add(value: Any) -> None:
        if isinstance(value, Mapping):
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            for member in value:
                add(member)
        elif value is not None and str(value).strip():
            found.add(str(value))

    for key, spec in KINDS[asked.kind].options.items():
        if spec.get("no_log"):
            add(asked.args.get(key))
    return sorted(found, key=len, reverse=True)


def ask_all(
    checks: Sequence[Check], world: World, at_once: int = AT_ONCE, grace_seconds: float = GRACE_SECONDS
) -> list[Result]:
    """All checks, ``at_once`` together, in their order. One that does not come back is left behind and is missing.

    What blocks in the kernel (a dead network disk) can't be ended; its thread dies with the process.
    """
    results: list[Optional[Result]] = [None] * len(checks)
    waiting = deque(range(len(checks)))
    running: dict[int, float] = {}
    done: queue.SimpleQueue[tuple[int, Result]] = queue.SimpleQueue()

    def work(number: int) -> None:
        try:
            result = ask(checks[number], world)
        except Exception as error:  # a fault of ours must not leave the others without an answer
            result = judge(checks[number], RunbookError(f"{type(error).__name__} in this check, which is a bug"))
        done.put((number, result))

    while waiting or running:
        while waiting and len(running) < at_once:
            number = waiting.popleft()
            running[number] = world.clock() + checks[number].seconds + grace_seconds
            try:
                threading.Thread(target=work, args=(number,), daemon=True).start()
            except RuntimeError:  # no thread is to be had now
                del running[number]
                if not running:
                    raise RunbookError("not a single thread can be started on this host") from None
                waiting.appendleft(number)
                break
        try:
            number, result = done.get(timeout=max(0.0, min(running.values()) - world.clock()))
            if running.pop(number, None) is not None:
                results[number] = result
        except queue.Empty:
            pass
        now = world.clock()
        for number in [number for number, end in running.items() if end <= now]:
            del running[number]
            late = f"it did not come back within {checks[number].seconds:g} s"
            results[number] = judge(checks[number], RunbookError(late))
    return [result for result in results if result is not None]


# Mending


def mend(checks: Sequence[Check], results: Sequence[Result], world: World) -> list[Result]:
    """Each check that failed and has a remedy: its commands, once, and then the question again.

    What could not be measured is not mended: nobody knows what is wrong with it.
    """
    return [
        _mended(asked, result, world) if result.status == FAIL and asked.remedy else result
        for asked, result in zip(checks, results)
    ]


def _mended(asked: Check, before: Result, world: World) -> Result:
    done: list[str] = []
    for step in asked.remedy:
        command = " ".join(step["argv"])
        try:
            code, out, err = world.run(step["argv"], step["timeout_seconds"], step["chdir"])
            said = [line.strip() for line in (err or out).splitlines() if line.strip()] or ["it said nothing"]
            problem = f"{command} ended with {code}: {said[-1][:LINE_SHOWN]}" if code else ""
        except RunbookError as error:
            problem = str(error)
        if problem:
            return replace(before, text=f"{before.text}; its remedy failed: {problem}", remedied=True)
        done.append(command)
    after = ask(asked, world)
    return replace(after, text=f"{after.text}; after {', '.join(done)} (before: {before.text})", remedied=True)
