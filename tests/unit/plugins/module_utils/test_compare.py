# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools
import math

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._compare import (
    Comparison,
    Policy,
    cles,
    compare,
    mean_ratio,
    p_greater,
    score,
    u_statistic,
)
from hypothesis import given
from hypothesis import strategies as st

NAN = float("nan")
FEW = [100, 104, 97, 101, 99, 103, 98, 102]


def pairs(control, experiment):
    """U by its definition."""
    return sum((after > before) + (after == before) / 2 for after in experiment for before in control)


def by_all_orders(control, experiment):
    """The exact probability: of all ways to say which values are the experiment's, how many are as far out."""
    values = [*experiment, *control]
    seen = pairs(control, experiment)
    every = list(itertools.combinations(range(len(values)), len(experiment)))
    far = 0
    for chosen in every:
        after = [values[i] for i in chosen]
        before = [values[i] for i in range(len(values)) if i not in chosen]
        far += pairs(before, after) >= seen
    return far / len(every)


DISTINCT = st.lists(st.integers(-1000, 1000), min_size=2, max_size=9, unique=True)


@given(DISTINCT, st.data())
def test_small_samples_are_exact(values, data):
    cut = data.draw(st.integers(1, len(values) - 1))
    control, experiment = values[:cut], values[cut:]
    assert p_greater(control, experiment) == pytest.approx(by_all_orders(control, experiment), abs=1e-12)


SAMPLES = st.lists(st.integers(0, 6), min_size=1, max_size=30)


@given(SAMPLES, SAMPLES)
def test_u_is_what_it_is_by_its_definition(control, experiment):
    assert u_statistic(control, experiment) == pairs(control, experiment)
    other, way = experiment, control
    assert u_statistic(control, experiment) + u_statistic(other, way) == len(control) * len(experiment)
    assert cles(control, experiment) == pairs(control, experiment) / (len(control) * len(experiment))


@given(SAMPLES, SAMPLES)
def test_it_is_a_probability_that_falls_with_the_distance(control, experiment):
    near, far = p_greater(control, experiment), p_greater(control, [value + 7 for value in experiment])
    assert 0 <= far <= near <= 1


@pytest.mark.parametrize("seed", range(6))
def test_equal_values_come_near_to_all_orders(seed):
    """With ties it is an approximation: within a tenth of all orders even for six values on a side."""
    control = [(seed * 7 + i * i) % 4 for i in range(6)]
    experiment = [(seed * 5 + i * 3) % 4 + 1 for i in range(6)]
    assert p_greater(control, experiment) == pytest.approx(by_all_orders(control, experiment), abs=0.1)


@pytest.mark.parametrize(
    ("control", "experiment", "u", "p"),
    [  # What SciPy 1.17.1 says: mannwhitneyu(experiment, control, alternative="greater")
        ([9.488239, 11.022863, 9.547808, 9.369863], [9.139964, 10.573396, 13.223835, 11.848293, 13.073758], 15,
            0.14285714285714285),
        (
            [10.497805, 10.789539, 10.370653, 6.667875, 11.710502, 11.01277, 10.997636, 6.617271],
            [7.512224, 9.220769, 10.063621, 11.610892, 10.908177, 12.04195, 9.715531, 11.617406],
            35,
            0.39922299922299914,
        ),
        # Ties: method="asymptotic".
        ([1, 1, 4, 3, 2], [6, 1, 1, 3, 4, 3], 18.5, 0.28521869318142223),
        ([1, 5, 4, 2, 3, 5, 2, 2, 0, 1, 0, 1], [4, 2, 3, 2, 4, 5, 5, 1, 4], 75.5, 0.06447467842748807),
        (
            [5, 2, 5, 0, 5, 0, 3, 5, 1, 3, 1, 3, 5, 2, 0, 5, 3, 3, 3, 5, 0, 5, 1, 1, 1, 0, 1, 4, 3, 5],
            [2, 5, 5, 4, 6, 3, 2, 5, 5, 2, 1, 1, 6, 6, 1, 5, 6, 2, 4, 2, 2, 1, 3, 2, 3, 5, 2, 5, 3, 3],
            550,
            0.06693567758039318,
        ),
        ([0, 0, 10, 0, 0, 10, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11, 0], 54, 0.7638069213090362),
    ],
)  # fmt: skip
def test_it_agrees_with_scipy(control, experiment, u, p):
    assert u_statistic(control, experiment) == u
    assert p_greater(control, experiment) == pytest.approx(p, rel=1e-9)


def test_fifty_on_a_side_are_exact_still():
    """As SciPy counts it, and not by the normal distribution, which says 0.0006 here."""
    control, experiment = list(range(0, 100, 2)), list(range(21, 121, 2))
    assert p_greater(control, experiment) == pytest.approx(0.0005275082355568331, rel=1e-9)


# -- one metric -------------------------------------------------------------------------------------------------


def shifted(by, values=None):
    return [value * by for value in values or FEW]


def words(control, experiment, **policy):
    found = compare(control, experiment, Policy(**policy))
    return found.word, found.critical


@pytest.mark.parametrize(
    ("experiment", "policy", "answer"),
    [
        (FEW, {}, ("pass", False)),
        (shifted(1.1), {}, ("pass", False)),  # within the tolerance of a quarter
        (shifted(1.1), {"tolerance": 0.0}, ("high", False)),
        (shifted(1.5), {}, ("high", False)),
        (shifted(0.5), {}, ("low", False)),
        (shifted(1.5), {"direction": "decrease"}, ("pass", False)),
        (shifted(0.5), {"direction": "increase"}, ("pass", False)),
        (shifted(0.5), {"direction": "decrease"}, ("low", False)),
        (shifted(1.5), {"allowed_increase": 2.0}, ("pass", False)),
        (shifted(0.5), {"allowed_decrease": 0.4}, ("pass", False)),
        (shifted(1.5), {"critical_increase": 1.4}, ("high", True)),
        (shifted(1.5), {"critical_increase": 1.6}, ("high", False)),
        (shifted(0.5), {"critical_decrease": 0.6}, ("low", True)),
        (shifted(0.5), {"critical_decrease": 0.4}, ("low", False)),
        (shifted(1.5), {"critical": True}, ("high", True)),
        (shifted(1.5), {"effect": "cles"}, ("high", False)),
        (shifted(1.5), {"effect": "cles", "allowed_increase": 1.0}, ("pass", False)),
        (shifted(0.5), {"effect": "cles", "critical_decrease": 0.1}, ("low", True)),
        (shifted(1.5), {"confidence": 0.9999}, ("nodata", False)),  # 8 and 8 can't be that sure: 1 of 12870 orders
    ],
)
def test_a_canary(experiment, policy, answer):
    if policy.get("confidence") == 0.9999:
        experiment, policy = experiment[:4], {**policy}
    assert words(FEW, experiment, **policy) == answer


def test_few_values_that_can_never_differ_are_no_data():
    found = compare([1, 2, 3], [101, 102, 103], Policy())
    assert (found.word, found.reason) == ("nodata", "3 and 3 values can't differ with a confidence of 0.98")
    assert words([1, 2, 3, 4], [101, 102, 103, 104]) == ("high", False)


def test_missing_values():
    gaps = [None, NAN, *shifted(1.5)]
    assert words([*FEW, None], gaps) == ("high", False)
    assert words(FEW, [None, NAN]) == ("nodata", False)
    assert words([], FEW, critical=True) == ("nodata", True)
    assert words(FEW, [None] * 8, missing="replace") == ("low", False)
    assert words([None] * 8, [NAN] * 8, missing="replace") == ("pass", False)
    assert words([], [], missing="replace") == ("nodata", False)
    assert words(FEW, [math.inf] * 8) == ("nodata", False)


def test_a_control_of_nothing():
    """No error before and some after: the ratio is infinite, and beyond whatever is allowed."""
    found = compare([0] * 8, [1, 2, 3, 1, 2, 3, 1, 2], Policy(allowed_increase=100))
    assert (found.word, found.effect) == ("high", math.inf)
    assert found.reason.startswith("higher than the control: median 2 instead of 0, mean_ratio inf, p ")
    assert words([0] * 8, [0] * 8) == ("pass", False)
    assert words([0] * 20, [0] * 19 + [1]) == ("pass", False)  # one in twenty is chance
    assert words([0] * 8, [-1, -2, -3, -1, -2, -3, -1, -2]) == ("low", False)


@pytest.mark.parametrize(
    ("control", "experiment", "ratio"),
    [
        ([10], [15], 1.5),
        ([10], [5], 0.5),
        ([0], [0], 1),
        ([0], [1], math.inf),
        ([0], [-1], -math.inf),
        ([-10], [-5], 1.5),
    ],
)
def test_mean_ratio(control, experiment, ratio):
    assert mean_ratio(control, experiment) == ratio


VALUES = st.lists(st.none() | st.floats(-1e6, 1e6) | st.just(NAN), max_size=12)


@given(
    VALUES,
    VALUES,
    st.builds(
        Policy,
        direction=st.sampled_from(["increase", "decrease", "either"]),
        tolerance=st.floats(0, 1),
        confidence=st.floats(0.5, 0.999),
        effect=st.sampled_from(["mean_ratio", "cles"]),
        missing=st.sampled_from(["remove", "replace"]),
        allowed_increase=st.none(),
        allowed_decrease=st.none(),
        critical_increase=st.none(),
        critical_decrease=st.none(),
        critical=st.booleans(),
    ),
)
def test_it_always_answers(control, experiment, policy):
    found = compare(control, experiment, policy)
    assert found.word in ("pass", "high", "low", "nodata")
    assert found.reason
    if policy.direction == "increase":
        assert found.word != "low"
    if policy.direction == "decrease":
        assert found.word != "high"
    if found.word == "pass":
        assert not found.critical
    same = compare(control, control, policy)
    assert same.word == ("pass" if control and (policy.missing == "replace" or same.word != "nodata") else "nodata")


@given(st.lists(st.floats(1, 1000), min_size=4, max_size=10), st.lists(st.floats(1, 1000), min_size=4, max_size=10))
def test_the_other_way_round_is_the_other_word(control, experiment):
    policy = Policy(tolerance=0.0, effect="cles")
    words = {"high": "low", "low": "high"}
    other, way = experiment, control
    there, back = compare(control, experiment, policy).word, compare(other, way, policy).word
    assert back == words.get(there, there)


# -- several metrics --------------------------------------------------------------------------------------------


def metrics(**given):
    """name: group and word."""
    return {
        name: (text.split()[0], Comparison(text.split()[1], "why", "critical" in text)) for name, text in given.items()
    }


@pytest.mark.parametrize(
    ("given", "weights", "percent", "groups"),
    [
        ({"a": "errors pass", "b": "errors pass"}, {}, 100, {"errors": 100}),
        ({"a": "errors pass", "b": "errors high"}, {}, 50, {"errors": 50}),
        ({"a": "errors pass", "b": "errors nodata"}, {}, 100, {"errors": 100}),
        ({"a": "errors pass", "b": "latency high"}, {"errors": 80, "latency": 20}, 80, {"errors": 100, "latency": 0}),
        ({"a": "errors pass", "b": "latency high"}, {"errors": 60}, 60, {"errors": 100, "latency": 0}),  # 40 is left
        ({"a": "errors pass", "b": "latency low"}, {}, 50, {"errors": 100, "latency": 0}),
        ({"a": "errors pass", "b": "latency nodata"}, {"errors": 20, "latency": 80}, 100, {"errors": 100}),
        ({"a": "errors pass", "b": "latency high critical"}, {"errors": 99}, 0, {"errors": 100, "latency": 0}),
        ({"a": "errors pass", "b": "latency nodata critical"}, {"errors": 99}, 0, {"errors": 100}),
        ({"a": "errors nodata"}, {}, None, {}),
        ({}, {}, None, {}),
        ({"a": "errors pass"}, {"errors": 0}, None, {"errors": 100}),
    ],
)
def test_the_score(given, weights, percent, groups):
    found = score(metrics(**given), weights)
    assert (found.percent, found.groups) == (percent, groups)
    assert found.reason


def test_the_score_names_who_is_to_blame():
    assert score(metrics(a="x pass", b="x high"), {}).reason == "not passed: b"
    assert score(metrics(a="x pass", b="x high critical"), {}).reason == "b is critical: why"
