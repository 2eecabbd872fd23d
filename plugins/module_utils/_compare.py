# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A canary against its control: whether one metric of it is worse, by the test of Mann and Whitney.

Pure functions. Private: may change at any time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils._limits import shown

PASS, HIGH, LOW, NODATA = "pass", "high", "low", "nodata"
EXACT = 50  # above so many values on a side the normal approximation is as good
Value = Optional[float]


class Policy(NamedTuple):
    """``direction``: which difference is bad: increase, decrease or either.

    ``tolerance`` is the part of the control's median that a difference must be beyond before it counts. ``effect`` is
    ``mean_ratio`` (mean of the experiment to that of the control, 1 is none) or ``cles`` (how often a value of the
    experiment is above one of the control, 0.5 is none). A difference counts where the effect is beyond ``allowed``;
    beyond ``critical`` the metric is critical even where it would not be.
    """

    direction: str = "either"
    tolerance: float = 0.25
    confidence: float = 0.98
    effect: str = "mean_ratio"
    allowed_increase: Optional[float] = None
    allowed_decrease: Optional[float] = None
    critical_increase: Optional[float] = None
    critical_decrease: Optional[float] = None
    missing: str = "remove"
    critical: bool = False


class Comparison(NamedTuple):
    """``critical`` says whether this alone fails the whole. ``p_value`` is that of the side that was asked last."""

    word: str
    reason: str
    critical: bool = False
    effect: Optional[float] = None
    p_value: Optional[float] = None


class Score(NamedTuple):
    """Percent of the weight whose metrics pass; None where nothing was measured."""

    percent: Optional[float]
    groups: Mapping[str, float]
    reason: str


# -- the test ---------------------------------------------------------------------------------------------------


def u_statistic(control: Sequence[float], experiment: Sequence[float]) -> float:
    """In how many pairs the value of the experiment is the greater one; equal ones count half."""
    ranks = _ranks([*experiment, *control])
    size = len(experiment)
    return sum(ranks[:size]) - size * (size + 1) / 2


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the middle of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    begin = 0
    while begin < len(order):
        end = begin
        while end < len(order) and values[order[end]] == values[order[begin]]:
            end += 1
        for place in order[begin:end]:
            ranks[place] = (begin + 1 + end) / 2
        begin = end
    return ranks


def p_greater(control: Sequence[float], experiment: Sequence[float]) -> float:
    """How likely the experiment is so much above the control by chance alone.

    Exact without equal values, otherwise by the normal distribution with the variance that equal values leave.
    """
    first, second = len(experiment), len(control)
    u = u_statistic(control, experiment)
    repeated = [n for n in Counter([*control, *experiment]).values() if n > 1]
    if not repeated and max(first, second) <= EXACT:
        ways = _arrangements(first, second)
        return sum(ways[math.ceil(u) :]) / sum(ways)
    whole = first + second
    ties = sum(n**3 - n for n in repeated)
    variance = first * second / 12 * (whole + 1 - ties / (whole * (whole - 1)))
    if variance <= 0:
        return 1.0
    z = (u - first * second / 2 - 0.5) / math.sqrt(variance)
    return 0.5 * math.erfc(z / math.sqrt(2))


def _arrangements(first: int, second: int) -> list[int]:
    """For each U in how many orders of the values it comes out: the coefficients of a Gaussian binomial."""
    length = first * second + 1
    ways = [1] + [0] * (length - 1)
    for i in range(1, first + 1):
        step = second + i
        for u in range(length - 1, step - 1, -1):  # times 1 - q^(second + i)
            ways[u] -= ways[u - step]
        for u in range(i, length):  # over 1 - q^i
            ways[u] += ways[u - i]
    return ways


def cles(control: Sequence[float], experiment: Sequence[float]) -> float:
    """How often a value of the experiment is above one of the control."""
    return u_statistic(control, experiment) / (len(control) * len(experiment))


def mean_ratio(control: Sequence[float], experiment: Sequence[float]) -> float:
    """Mean of the experiment to that of the control. From a control of 0 every step is infinite; where the control is
    negative, above 1 is still more and below 1 still less."""
    before, after = math.fsum(control) / len(control), math.fsum(experiment) / len(experiment)
    if before == after:
        return 1.0
    if before == 0:
        return math.inf if after > 0 else -math.inf
    return 1 + (after - before) / abs(before)


# -- one metric -------------------------------------------------------------------------------------------------


def compare(control: Sequence[Value], experiment: Sequence[Value], policy: Policy) -> Comparison:
    """Whether the experiment is too high or too low against its control, and why."""
    before, after = _present(control, policy.missing), _present(experiment, policy.missing)
    for name, values in (("control", before), ("experiment", after)):
        if not values:
            return Comparison(NODATA, f"the {name} has no values", policy.critical)
    if sorted(before) == sorted(after) or len({*before, *after}) == 1:
        return Comparison(PASS, "both have the same values", False, cles(before, after) if _is_cles(policy) else 1.0)
    most = 1 - policy.confidence
    if 1 / math.comb(len(before) + len(after), len(before)) >= most:
        text = f"{len(before)} and {len(after)} values can't differ with a confidence of {policy.confidence:g}"
        return Comparison(NODATA, text, policy.critical)
    return _judge(before, after, policy, most)


def _judge(before: Sequence[float], after: Sequence[float], policy: Policy, most: float) -> Comparison:
    effect = (cles if _is_cles(policy) else mean_ratio)(before, after)
    none = 0.5 if _is_cles(policy) else 1.0
    within = policy.tolerance * abs(_median(before))
    p_value = 1.0
    for word, sign, allowed, critical in (
        (HIGH, 1, policy.allowed_increase, policy.critical_increase),
        (LOW, -1, policy.allowed_decrease, policy.critical_decrease),
    ):
        if policy.direction == {HIGH: "decrease", LOW: "increase"}[word]:
            continue
        # Seen from the side that is asked for, worse is always more.
        p_value = p_greater([sign * value for value in before], [sign * value - within for value in after])
        least = none if allowed is None else allowed
        if p_value < most and sign * effect > sign * least:
            critically = critical is not None and sign * effect >= sign * critical
            reason = _said(word, before, after, policy, effect, p_value)
            return Comparison(word, reason, policy.critical or critically, effect, p_value)
    reason = f"no difference that counts: {policy.effect} {_number(effect)}, p {p_value:.3g}"
    return Comparison(PASS, reason, False, effect, p_value)


def _said(
    word: str, before: Sequence[float], after: Sequence[float], policy: Policy, effect: float, p_value: float
) -> str:
    more = "higher" if word == HIGH else "lower"
    medians = f"median {shown(_median(after))} instead of {shown(_median(before))}"
    return f"{more} than the control: {medians}, {policy.effect} {_number(effect)}, p {p_value:.3g}"


def _is_cles(policy: Policy) -> bool:
    return policy.effect == "cles"


def _present(values: Sequence[Value], missing: str) -> list[float]:
    """``replace`` takes a missing value for 0: nothing counted is nothing happened. What is not finite is missing."""
    known = [float(value) if value is not None and math.isfinite(value) else None for value in values]
    if missing == "replace":
        return [0.0 if value is None else value for value in known]
    return [value for value in known if value is not None]


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return low if low == high else (low + high) / 2


def _number(value: float) -> str:
    return f"{value:.3g}"


# -- several metrics --------------------------------------------------------------------------------------------


def score(metrics: Mapping[str, tuple[str, Comparison]], group_weights: Mapping[str, float]) -> Score:
    """Metrics by name with their group. A group's part is how many of its metrics pass; those without data don't count.

    Weights are percent; groups without one share what is left of 100. Groups without data leave theirs to the others.
    A critical metric that does not pass makes the whole 0.
    """
    members: dict[str, list[Comparison]] = {}
    for group, comparison in metrics.values():
        members.setdefault(group, []).append(comparison)
    parts: dict[str, float] = {}
    for group, comparisons in members.items():
        measured = [one for one in comparisons if one.word != NODATA]
        if measured:
            parts[group] = round(100 * sum(one.word == PASS for one in measured) / len(measured), 3)
    for name, (_group, comparison) in metrics.items():
        if comparison.critical and comparison.word != PASS:
            return Score(0.0, parts, f"{name} is critical: {comparison.reason}")
    if not parts:
        return Score(None, {}, "no metric has data")
    unnamed = [group for group in members if group not in group_weights]
    rest = max(0.0, 100 - sum(group_weights.get(group, 0) for group in members)) / len(unnamed) if unnamed else 0.0
    weights = {group: float(group_weights.get(group, rest)) for group in parts}
    whole = math.fsum(weights.values())
    if whole <= 0:
        return Score(None, parts, "no group that has data has a weight")
    percent = round(math.fsum(weights[group] * part for group, part in parts.items()) / whole, 3)
    bad = [name for name, (_group, one) in metrics.items() if one.word in (HIGH, LOW)]
    return Score(percent, parts, f"not passed: {', '.join(bad)}" if bad else "all that was measured passed")
