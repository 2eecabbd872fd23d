# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What measurements of one metric come to, and what several metrics come to together.

Pure functions. Private: may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional, Union

from ansible_collections.signalbox.runbook.plugins.module_utils._limits import Limit, broken, missing, number

OFF = -1  # of a limit
SUCCESSFUL, FAILED, INCONCLUSIVE, ERROR = "successful", "failed", "inconclusive", "error"
PENDING, RUNNING, NO_DATA = "pending", "running", "no_data"
MEASURED = (SUCCESSFUL, FAILED, INCONCLUSIVE, ERROR, RUNNING, NO_DATA)
# From good to bad; what is on its way is none of them.
WORSE = (SUCCESSFUL, INCONCLUSIVE, ERROR, FAILED)


class Measurement(NamedTuple):
    """One of MEASURED, when it was, and what it was by; ``value`` is the number that its limit was about.

    ``no_data`` is an answer without a sample: it says nothing bad and nothing good. ``error`` is no answer.
    """

    status: str
    at_seconds: float = 0.0
    text: str = ""
    diagnosis: tuple[str, ...] = ()
    value: Optional[float] = None


@dataclass(frozen=True)
class Policy:
    """Limits are the number that is borne; one more decides. -1 turns one off."""

    failure_limit: int = 0
    consecutive_failure_limit: int = OFF
    inconclusive_limit: int = 0
    consecutive_error_limit: int = 4
    consecutive_success_limit: Optional[int] = None
    count: Optional[int] = None
    for_seconds: float = 0.0
    no_data: str = "fail"
    minimum_samples: int = 1


class Verdict(NamedTuple):
    """``by`` names what of the policy decided, ``number`` what was counted and ``limit`` against what."""

    status: str
    by: str = ""
    number: Optional[float] = None
    limit: Optional[float] = None
    text: str = ""

    @property
    def ended(self) -> bool:
        return self.status in WORSE


class Counts(NamedTuple):
    """What is known after some measurements."""

    failed: int = 0
    failed_row: int = 0
    failing_since: Optional[float] = None
    failing_seconds: float = 0.0
    inconclusive: int = 0
    error_row: int = 0
    success_row: int = 0
    no_data_row: int = 0
    measured: int = 0  # without errors, as `count` means it
    samples: int = 0  # with data


def assess(
    measured: Mapping[str, Any],
    fail_when: Sequence[Limit],
    warn_when: Sequence[Limit] = (),
    at_seconds: float = 0.0,
) -> Measurement:
    """Values against their limits, fail first. What a limit asks for and nobody measured is no data, unless another
    limit is broken: what is known to be bad stays bad."""
    for status, limits in ((FAILED, fail_when), (INCONCLUSIVE, warn_when)):
        limit = broken(limits, measured)
        if limit is not None:
            return Measurement(status, at_seconds, against(limit, measured), (), number(measured[limit.name]))
    absent = missing([*fail_when, *warn_when], measured)
    if absent:
        return Measurement(NO_DATA, at_seconds, f"no value of {', '.join(dict.fromkeys(absent))}")
    text = ", ".join(
        f"{limit.name} {figure(measured[limit.name])} (limit {limit.relation} {limit.value:g})"
        for limit in fail_when or warn_when
    )
    first = next(iter([*fail_when, *warn_when]), None)
    return Measurement(SUCCESSFUL, at_seconds, text, (), number(measured[first.name]) if first else None)


def against(limit: Limit, measured: Mapping[str, Any]) -> str:
    return f"{limit.name} {figure(measured[limit.name])} {limit.relation} {limit.value:g}"


def figure(value: float) -> str:
    return f"{float(value):.4g}" if abs(value) < 10000 else f"{float(value):.0f}"


def counted(before: Counts, measurement: Measurement, policy: Policy) -> Counts:
    """One more measurement. A failure counts when it has lasted ``for_seconds`` without a break.

    An error is no answer, so it neither breaks a row of failures nor makes it longer.
    """
    status, at = measurement.status, measurement.at_seconds
    if status == RUNNING:
        return before
    if status == ERROR:
        return before._replace(error_row=before.error_row + 1, success_row=0)
    after = before._replace(error_row=0, measured=before.measured + 1)
    if status == NO_DATA:
        after = after._replace(no_data_row=before.no_data_row + 1)
    else:
        after = after._replace(no_data_row=0, samples=before.samples + 1)
    if status != FAILED:
        after = after._replace(failed_row=0, failing_since=None, failing_seconds=0.0)
        if status == SUCCESSFUL:
            return after._replace(success_row=before.success_row + 1)
        return after._replace(success_row=0, inconclusive=before.inconclusive + (status == INCONCLUSIVE))
    since = at if before.failing_since is None else before.failing_since
    after = after._replace(success_row=0, failing_since=since, failing_seconds=at - since)
    if at - since < policy.for_seconds:
        return after
    return after._replace(failed=before.failed + 1, failed_row=before.failed_row + 1)


class Tally:
    """The measurements of one metric as they come. The first that decides has decided: later ones change nothing."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.known = Counts()
        self.number = 0
        self.last: Optional[Measurement] = None
        self.decided: Optional[Verdict] = None

    def add(self, measurement: Measurement) -> None:
        if measurement.status not in MEASURED:
            raise ValueError(f"{measurement.status!r} is no measurement; there are {', '.join(MEASURED)}")
        if self.decided:
            return
        self.number += 1
        self.last = measurement
        self.known = counted(self.known, measurement, self.policy)
        self.decided = _decided(self.known, self.policy)

    def verdict(self, ended: bool = False, extended: bool = False) -> Verdict:
        """``ended`` says that no more will be measured, or no more than the policy ``extend`` asks for; ``extended``
        that there is no more time for that either."""
        if self.decided:
            return self.decided
        if ended:
            return _at_end(self.known, self.policy, extended, "ended", self.known.measured, None)
        return Verdict(RUNNING if self.number else PENDING)

    @property
    def undecided(self) -> bool:
        """Whether the last answer is bad, or was none, and more of the same would decide: no time to end."""
        if self.decided:
            return False
        if self.known.error_row:
            return self.policy.consecutive_error_limit != OFF
        limits = (self.policy.failure_limit, self.policy.consecutive_failure_limit)
        return self.known.failing_since is not None and limits != (OFF, OFF)


def verdict(
    measurements: Sequence[Union[Measurement, str]], policy: Policy, ended: bool = False, extended: bool = False
) -> Verdict:
    """What all the measurements of one metric come to; see `Tally`."""
    tally = Tally(policy)
    for measurement in measurements:
        tally.add(Measurement(measurement) if isinstance(measurement, str) else measurement)
    return tally.verdict(ended, extended)


def _decided(known: Counts, policy: Policy) -> Optional[Verdict]:
    """The first of the limits that is over, in the order in which they hold."""
    for status, by, count, what in (
        (FAILED, "failure_limit", known.failed, "failed"),
        (FAILED, "consecutive_failure_limit", known.failed_row, "failed in a row"),
        (INCONCLUSIVE, "inconclusive_limit", known.inconclusive, "inconclusive"),
        (ERROR, "consecutive_error_limit", known.error_row, "errors in a row"),
    ):
        limit = getattr(policy, by)
        if limit != OFF and count > limit:
            return Verdict(status, by, count, limit, f"{count} {what}, {by} is {limit}")
    wanted = policy.consecutive_success_limit
    if wanted is not None and wanted != OFF and known.success_row >= wanted and not _lacks(known, policy):
        text = f"{known.success_row} successful in a row, consecutive_success_limit is {wanted}"
        return Verdict(SUCCESSFUL, "consecutive_success_limit", known.success_row, wanted, text)
    if policy.count is not None and known.measured >= policy.count:
        at_count = _at_end(known, policy, False, "count", known.measured, policy.count)
        return at_count if at_count.ended else None
    return None


def _lacks(known: Counts, policy: Policy) -> bool:
    return known.samples < policy.minimum_samples


def _at_end(known: Counts, policy: Policy, extended: bool, by: str, count: int, limit: Optional[int]) -> Verdict:
    """No limit is over and no more is measured."""
    wanted = policy.consecutive_success_limit
    if _lacks(known, policy):
        return _without_data(known, policy, extended)
    if by == "ended" and known.error_row:
        text = f"ended without an answer, {known.error_row} errors in a row"
        return Verdict(ERROR, "ended", known.error_row, policy.consecutive_error_limit, text)
    # Data that came and then stayed away: with as many gaps as errors are borne, nobody knows how it is by now.
    if by == "ended" and OFF != policy.consecutive_error_limit < known.no_data_row:
        text = f"none in the last {known.no_data_row} measurements"
        return _by_policy(policy, extended, "no_data", known.no_data_row, policy.consecutive_error_limit, text)
    if known.failing_since is not None and known.failing_seconds < policy.for_seconds:
        text = f"ended while it failed for {known.failing_seconds:g} s, for_seconds is {policy.for_seconds:g}"
        return Verdict(INCONCLUSIVE, "for_seconds", known.failing_seconds, policy.for_seconds, text)
    if wanted is not None and wanted != OFF:
        status = FAILED if policy.failure_limit == OFF else INCONCLUSIVE
        text = f"{known.success_row} successful in a row, consecutive_success_limit is {wanted}"
        return Verdict(status, "consecutive_success_limit", known.success_row, wanted, text)
    if limit is None:
        return Verdict(SUCCESSFUL, by, count, policy.count, f"{count} measured, {known.failed} failed")
    return Verdict(SUCCESSFUL, by, count, limit, f"{count} measured, count is {limit}")


def _without_data(known: Counts, policy: Policy, extended: bool) -> Verdict:
    """Too few samples: what that means is the policy's word, but no answer at all is an error."""
    text = f"{known.samples} samples, minimum_samples is {policy.minimum_samples}"
    if known.error_row:
        return Verdict(ERROR, "minimum_samples", known.samples, policy.minimum_samples, text)
    return _by_policy(policy, extended, "minimum_samples", known.samples, policy.minimum_samples, text)


def _by_policy(policy: Policy, extended: bool, by: str, number: int, limit: int, text: str) -> Verdict:
    """What no data means."""
    if policy.no_data == "extend" and not extended:
        return Verdict(RUNNING, by, number, limit, text)
    status = {"fail": FAILED, "pass": SUCCESSFUL}.get(policy.no_data, INCONCLUSIVE)
    return Verdict(status, by, number, limit, f"{text}; no_data is {policy.no_data}")


# -- several metrics --------------------------------------------------------------------------------------------


class Metric(NamedTuple):
    """The verdict on one of several metrics. ``shadow`` only reports; ``key`` fails everything; ``weight`` counts
    where the whole is a score."""

    verdict: Verdict
    shadow: bool = False
    key: bool = False
    weight: float = 1.0


class Overall(NamedTuple):
    """``name`` is the metric that decided; ``shadows`` are apart: what each that is not successful came to."""

    status: str
    name: str = ""
    text: str = ""
    percent: Optional[float] = None
    shadows: Mapping[str, Verdict] = {}


def overall(
    metrics: Mapping[str, Metric], pass_percent: Optional[float] = None, warn_percent: Optional[float] = None
) -> Overall:
    """One that is running keeps the whole running; then the worst decides and is named, the first of equals.

    With ``pass_percent`` the weights decide: successful is the whole weight, inconclusive half, the rest nothing; from
    ``warn_percent`` on it is inconclusive, below it failed. A ``key`` that failed or had an error decides before that.
    """
    counting = {name: metric for name, metric in metrics.items() if not metric.shadow}
    shadows = {n: m.verdict for n, m in metrics.items() if m.shadow and m.verdict.status in WORSE[1:]}
    if not counting:
        return Overall(INCONCLUSIVE, "", "no metric counts", None, shadows)
    going = [name for name, metric in counting.items() if not metric.verdict.ended]
    if going:
        fresh = all(metric.verdict.status == PENDING for metric in counting.values())
        return Overall(PENDING if fresh else RUNNING, going[0], "", None, shadows)
    ranks = {name: (WORSE.index(metric.verdict.status), metric.key) for name, metric in counting.items()}
    worst = max(counting, key=lambda name: ranks[name])
    if pass_percent is None:
        found = counting[worst].verdict
        return Overall(found.status, worst, found.text, None, shadows)
    percent = score(counting)
    keys = [n for n, m in counting.items() if m.key and m.verdict.status in (FAILED, ERROR)]
    if keys:
        key = max(keys, key=lambda name: ranks[name])
        found = counting[key].verdict
        return Overall(found.status, key, f"key metric: {found.text}", percent, shadows)
    least = pass_percent if warn_percent is None else warn_percent
    status = SUCCESSFUL if percent >= pass_percent else INCONCLUSIVE if percent >= least else FAILED
    named = "" if ranks[worst][0] == 0 else worst
    limit = f"pass_percent is {pass_percent:g}" + ("" if warn_percent is None else f", warn_percent {warn_percent:g}")
    return Overall(status, named, f"{percent:g} % of the weight, {limit}", percent, shadows)


def score(metrics: Mapping[str, Metric]) -> float:
    """Percent of the weight that is reached."""
    whole = sum(metric.weight for metric in metrics.values())
    if whole <= 0:
        return 0.0
    parts = {SUCCESSFUL: 1.0, INCONCLUSIVE: 0.5}
    reached = sum(metric.weight * parts.get(metric.verdict.status, 0.0) for metric in metrics.values())
    return round(100 * reached / whole, 3)
