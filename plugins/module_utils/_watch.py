# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The watch: what is measured when within a bounded window, and what it comes to.

Pure functions. Private: may change at any time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _triggers, _verdict
from ansible_collections.signalbox.runbook.plugins.module_utils._triggers import Trigger
from ansible_collections.signalbox.runbook.plugins.module_utils._verdict import ERROR, FAILED, INCONCLUSIVE, Verdict

BUILTIN = ""  # the row of what watch_error_rate_percent and its like say
PASSED, ATTENTION, RUNNING = "passed", "attention", "running"
SERIES = 120  # so many points of a trigger are kept; then every second one of them
NEAREST = 4  # so many triggers are in a line of progress


class Policy(NamedTuple):
    seconds: float
    window_seconds: float = 10.0
    error_rate_percent: float = 10.0
    p95_ms: float = 2000.0
    minimum_requests: int = 10
    no_data: str = "fail"
    failure_limit: int = 2
    extend_seconds: float = 60.0


class Measurement(NamedTuple):
    """``word`` is ok, failed or no_data; ``text`` says what was measured and against which limit."""

    word: str
    text: str
    diagnosis: tuple[str, ...] = ()


def measure(account: Mapping[str, Any], problems: Sequence[str], policy: Policy) -> Measurement:
    """One measurement: the requests of the sliding window, and what the probes said."""
    if problems:
        return Measurement("failed", problems[0], tuple(problems))
    sent = account["sent"]
    if sent < policy.minimum_requests:
        return Measurement(
            "no_data", f"{sent} requests in {policy.window_seconds:g} s, {policy.minimum_requests} needed"
        )
    rate, p95 = account["error_percent"], account["p95_ms"]
    text = f"errors {rate:.1f} % (limit {policy.error_rate_percent:g} %)"
    if rate > policy.error_rate_percent:
        kinds = ", ".join(f"{number} {kind}" for kind, number in account["failures"].items())
        return Measurement(
            "failed", f"error rate {rate:.1f} % > {policy.error_rate_percent:g} %", (f"failed: {kinds}",)
        )
    if p95 is not None and p95 > policy.p95_ms:
        return Measurement("failed", f"p95 {p95:.0f} ms > {policy.p95_ms:g} ms")
    return Measurement("ok", text + (f"   p95 {p95:.0f} ms (limit {policy.p95_ms:g} ms)" if p95 is not None else ""))


def verdict(measurements: Sequence[Measurement], elapsed: float, policy: Policy) -> tuple[str, str]:
    """``running``, ``passed``, ``failed`` or ``attention``, and why.

    More failed measurements in a row than ``failure_limit`` end it at once. At the end of the window the last
    measurement must not be a failed one: a watch never passes while something is wrong, it goes on until the row
    is broken or full.
    """
    row = list(itertools.takewhile(lambda measurement: measurement.word == "failed", reversed(measurements)))
    limits = _verdict.Policy(policy.failure_limit, minimum_samples=0)
    found = _verdict.verdict([FAILED] * len(row), limits)
    if found.status == FAILED:
        times = f", {len(row)} times in a row" if len(row) > 1 else ""
        return FAILED, f"{measurements[-1].text}{times}"
    if elapsed < policy.seconds or row:
        return RUNNING, ""
    if any(measurement.word == "ok" for measurement in measurements):
        return PASSED, next(m.text for m in reversed(measurements) if m.word == "ok")
    if policy.no_data == "pass":
        return PASSED, "no data, which passes by watch_no_data"
    last = measurements[-1].text if measurements else "nothing was measured"
    if policy.no_data == "fail":
        return FAILED, f"no data: {last}; see accounting_requests_per_second, or set watch_no_data"
    if policy.no_data == "extend" and elapsed < policy.seconds + policy.extend_seconds:
        return RUNNING, ""
    return ATTENTION, f"no data: {last}"


# -- several triggers -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What is watched, for how long, and what an end without a clear answer does. ``builtin`` is None where only
    triggers count."""

    seconds: float
    builtin: Optional[Policy]
    triggers: tuple[Trigger, ...] = ()
    interval_seconds: float = 2.0
    inconclusive: str = "stay"
    error: str = "fail"
    pass_percent: Optional[float] = None
    warn_percent: Optional[float] = None
    extend_seconds: float = 60.0
    beyond_seconds: float = 0.0
    progress_seconds: float = 10.0
    phases: tuple[tuple[float, float], ...] = ()


class Outcome(NamedTuple):
    """``running``, ``passed``, ``failed`` or ``attention``; ``trigger`` is who decided, if one of them did."""

    word: str
    text: str = ""
    diagnosis: tuple[str, ...] = ()
    trigger: str = ""


def plan(seconds: float, settings: Mapping[str, Any]) -> Plan:
    """The watch of this length that the variables of the role ask for."""
    triggers = tuple(_triggers.made(settings))
    names = ("window_seconds", "error_rate_percent", "p95_ms", "minimum_requests", "no_data", "failure_limit")
    builtin = Policy(
        seconds, **{name: settings[f"watch_{name}"] for name in names}, extend_seconds=settings["watch_extend_seconds"]
    )
    return Plan(
        seconds=seconds,
        builtin=builtin if settings["watch_builtin"] else None,
        triggers=triggers,
        interval_seconds=settings["watch_interval_seconds"],
        inconclusive=settings["watch_on_inconclusive"],
        error=settings["watch_on_error"],
        pass_percent=settings["watch_pass_percent"],
        warn_percent=settings["watch_warn_percent"],
        extend_seconds=settings["watch_extend_seconds"],
        beyond_seconds=_triggers.beyond_seconds(settings, triggers),
        progress_seconds=settings["watch_progress_seconds"],
        phases=tuple((part["seconds"], part["progress_seconds"]) for part in settings["watch_phases"]),
    )


class _Row:
    """One trigger, and how far it is."""

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self.due_seconds = trigger.initial_delay_seconds
        self.asked = False
        self.tally = _verdict.Tally(trigger.policy)
        self.series: list[tuple[float, Optional[float], str]] = []

    def add(self, measurement: _verdict.Measurement) -> None:
        self.tally.add(measurement)
        if len(self.series) >= SERIES:
            del self.series[1::2]
        value = measurement.value
        known = value is not None and math.isfinite(value)  # JSON has no other numbers
        self.series.append((round(measurement.at_seconds, 1), value if known else None, measurement.status))

    @property
    def waits(self) -> bool:
        """Whether it is to be asked again some time."""
        return not self.asked and not self.tally.decided

    def may_end(self, extended: bool) -> bool:
        """Whether more time would say no more."""
        return self.tally.verdict(True, extended).ended and not self.tally.undecided


class Watch:
    """A watch as it goes. Its owner asks what is ``due``, says what it ``took``, and lets it ``judge``; it knows
    neither clock nor network. Times are seconds since it began."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.builtin: list[Measurement] = []
        self._builtin_due = plan.interval_seconds
        self._builtin_asked = False
        self._rows = {trigger.name: _Row(trigger) for trigger in plan.triggers}

    @property
    def measurements(self) -> int:
        return len(self.builtin) + sum(row.tally.number for row in self._rows.values())

    def due(self, elapsed: float) -> list[str]:
        """Who is to be measured now. They are not due again before they were; who is slow is asked less often."""
        found = []
        if self.plan.builtin and not self._builtin_asked and elapsed >= self._builtin_due:
            self._builtin_asked, self._builtin_due = True, elapsed + self.plan.interval_seconds
            found.append(BUILTIN)
        for name, row in self._rows.items():
            if row.waits and elapsed >= row.due_seconds:
                row.asked, row.due_seconds = True, elapsed + row.trigger.interval_seconds
                found.append(name)
        return found

    def next_seconds(self) -> float:
        """When somebody is due next; infinite while all are being asked."""
        waiting = [row.due_seconds for row in self._rows.values() if row.waits]
        if self.plan.builtin and not self._builtin_asked:
            waiting.append(self._builtin_due)
        return min(waiting, default=float("inf"))

    def took(self, name: str, measurement: Any) -> None:
        if name == BUILTIN:
            self._builtin_asked = False
            self.builtin.append(measurement)
            return
        row = self._rows[name]
        row.asked = False
        row.add(measurement)

    def series(self) -> dict[str, list[tuple[float, Optional[float], str]]]:
        """By trigger what was measured: seconds since the watch began, the number, what it was."""
        return {name: list(row.series) for name, row in self._rows.items()}

    def trigger(self, name: str) -> Trigger:
        return self._rows[name].trigger

    # -- judging ------------------------------------------------------------------------------------------------

    def judge(self, elapsed: float) -> Outcome:
        """What the watch has come to. One that fails decides at once, unless the weights do at the end."""
        word, why = PASSED, ""
        if self.plan.builtin:
            word, why = verdict(self.builtin, elapsed, self.plan.builtin)
            if word == FAILED:
                return Outcome(FAILED, why, self.builtin[-1].diagnosis if self.builtin else ())
        for row in self._counting():
            found = row.tally.verdict()
            if self._decides(row.trigger, found):
                return self._fail(row, found)
        extended = elapsed >= self.plan.seconds + self.plan.extend_seconds
        if elapsed < self.plan.seconds + self.plan.beyond_seconds:
            waits = word == RUNNING or not all(row.may_end(extended) for row in self._counting())
            if elapsed < self.plan.seconds or waits:
                return Outcome(RUNNING)
        if word == RUNNING:  # there is no more time for the row of failures that is neither broken nor full
            word, why = FAILED, f"{self.builtin[-1].text}; the watch had no more time" if self.builtin else "no data"
            return Outcome(FAILED, why, self.builtin[-1].diagnosis if self.builtin else ())
        return self._end(word, why)

    def _counting(self) -> list[_Row]:
        return [row for row in self._rows.values() if not row.trigger.shadow]

    def _decides(self, trigger: Trigger, found: Verdict) -> bool:
        if self.plan.pass_percent is not None and not trigger.key:
            return False
        return found.ended and self._means_failure(found.status)

    def _means_failure(self, status: str) -> bool:
        return (
            status == FAILED
            or (status == ERROR and self.plan.error == "fail")
            or (status == INCONCLUSIVE and self.plan.inconclusive == "fail")
        )

    def _fail(self, row: _Row, found: Verdict) -> Outcome:
        last = row.tally.last
        text = f"trigger {row.trigger.name}: {_told(row, found)}"
        return Outcome(FAILED, text, last.diagnosis if last else (), row.trigger.name)

    def _end(self, word: str, why: str) -> Outcome:
        """The window is over, and so is all that would have been waited for."""
        found = {name: row.tally.verdict(True, True) for name, row in self._rows.items()}
        metrics = {
            name: _verdict.Metric(found[name], row.trigger.shadow, row.trigger.key, row.trigger.weight)
            for name, row in self._rows.items()
        }
        counting = self._counting()
        whole = _verdict.overall(metrics, self.plan.pass_percent, self.plan.warn_percent) if counting else None
        if word == ATTENTION and self.plan.inconclusive == "fail":
            return Outcome(FAILED, f"{ATTENTION}: {why}")
        if whole and whole.percent is not None:
            if self._means_failure(whole.status):
                decided = self._rows[whole.name] if whole.name else counting[0]
                failed = self._fail(decided, found[decided.trigger.name])
                return failed._replace(text=f"{failed.text} ({whole.text})")
        else:
            bad = {n: metric for n, metric in metrics.items() if self._means_failure(metric.verdict.status)}
            worst = _verdict.overall(bad).name
            if worst:
                return self._fail(self._rows[worst], found[worst])
        texts = [why] if why and word == PASSED else []
        unclear = [why] if word == ATTENTION else []
        for row in counting:
            said = found[row.trigger.name]
            text = f"trigger {row.trigger.name}: {_told(row, said)}"
            (texts if said.status == _verdict.SUCCESSFUL else unclear).append(text)
        shadows = [f"shadow {n}: {_told(self._rows[n], v)}" for n, v in found.items() if self._bad_shadow(n, v)]
        if word == PASSED and (whole is None or whole.status == _verdict.SUCCESSFUL):
            return Outcome(PASSED, "; ".join([*texts, *unclear, *shadows]))
        return Outcome(ATTENTION, f"{ATTENTION}: " + "; ".join([*unclear, *shadows]))

    def _bad_shadow(self, name: str, found: Verdict) -> bool:
        return self._rows[name].trigger.shadow and found.status != _verdict.SUCCESSFUL

    # -- words --------------------------------------------------------------------------------------------------

    def text(self) -> str:
        """What is watched, and how near each trigger is; those that fail come first."""
        parts = [self.builtin[-1].text] if self.builtin else []
        rows = sorted(self._rows.values(), key=lambda row: not _fails(row))
        parts += [f"{row.trigger.name}: {_near(row)}" for row in rows[:NEAREST]]
        if len(rows) > NEAREST:
            parts.append(f"{len(rows) - NEAREST} more")
        return "   ".join(parts)

    def progress_seconds(self, elapsed: float) -> float:
        """Time between two lines of progress, at this time."""
        end = 0.0
        for seconds, every in self.plan.phases:
            end += seconds
            if elapsed < end:
                return every
        return self.plan.phases[-1][1] if self.plan.phases else self.plan.progress_seconds


def _fails(row: _Row) -> bool:
    return row.tally.last is not None and row.tally.last.status in (FAILED, ERROR)


def _near(row: _Row) -> str:
    last, known, policy = row.tally.last, row.tally.known, row.trigger.policy
    if last is None:
        return "not measured yet"
    if last.status == FAILED and policy.for_seconds:
        return f"{last.text} for {known.failing_seconds:.0f} of {policy.for_seconds:g} s"
    if last.status == FAILED and policy.consecutive_failure_limit != _verdict.OFF:
        return f"{last.text}, {known.failed_row} in a row of {policy.consecutive_failure_limit} that are borne"
    if last.status == ERROR:
        return f"{last.text}, {known.error_row} in a row of {policy.consecutive_error_limit} that are borne"
    return last.text


def _told(row: _Row, found: Verdict) -> str:
    """What was measured, against which limit, and how much of it decided."""
    last = row.tally.last.text if row.tally.last else "nothing was measured"
    policy = row.trigger.policy
    if found.by in ("failure_limit", "consecutive_failure_limit"):
        seconds = row.tally.known.failing_seconds
        lasted = f" for {seconds:.3g} s (limit {policy.for_seconds:g} s)" if policy.for_seconds else ""
        in_a_row = " in a row" if found.by == "consecutive_failure_limit" else ""
        times = f", {found.number:g} times{in_a_row} (limit {found.limit:g})" if found.limit else ""
        return f"{last}{lasted}{times}"
    if found.by in ("minimum_samples", "no_data"):
        return f"{'no answer' if found.status == ERROR else 'no data'}: {last} ({found.text})"
    if found.status == ERROR:
        return f"{ATTENTION}: {last}, {found.number:g} errors in a row (limit {found.limit:g})"
    if found.status == _verdict.SUCCESSFUL:
        return last
    return f"{last} ({found.text})"


# -- words ------------------------------------------------------------------------------------------------------


def progress(elapsed: float, seconds: float, text: str) -> str:
    """One line that says how far the watch is."""
    width = 12
    full = min(width, int(width * elapsed / seconds)) if seconds else width
    return f"{'#' * full}{'-' * (width - full)} {clock(elapsed)} of {clock(seconds)}   {text}"


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:02d}:{rest:02d}"
