"""Limits: how they are written, what is refused, what meets them."""

from __future__ import annotations

import math
import operator
from typing import Any

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._limits import broken, missing, number, parse, shown
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Problems
from hypothesis import given
from hypothesis import strategies as st

RELATIONS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)


def limits(given: Any, known: Any = None) -> tuple[Any, Problems]:
    problems = Problems()
    return parse(given, known, "fail_when", problems), problems


@given(st.sampled_from(sorted(RELATIONS)), NUMBERS, NUMBERS)
def test_a_limit_means_what_it_says(relation: str, limit: float, measured: float) -> None:
    parsed, problems = limits({"days": f"{relation} {limit!r}"})
    assert not problems
    assert (broken(parsed, {"days": measured}) is not None) == RELATIONS[relation](measured, limit)


@pytest.mark.parametrize(
    "text", ["10", "10 %", "< 10 %", "< ten", "<", "=> 10", "< 1 2", "", "< nan", "< inf", "< 1e999", 10, None, ["<"]]
)
def test_what_is_no_limit_is_named_with_what_would_be_right(text: Any) -> None:
    parsed, problems = limits({"free_percent": text})
    assert parsed == ()
    (problem,) = problems
    assert problem.startswith("fail_when.free_percent: ") and '"< 10"' in problem and "unit is in the name" in problem


def test_what_is_not_measured_is_refused_with_what_is() -> None:
    _parsed, problems = limits({"free_percnt": "< 10"}, ("free_percent", "free_bytes"))
    assert problems == [
        "fail_when.free_percnt: is not measured here; did you mean free_percent?; measured are free_bytes, free_percent"
    ]


@pytest.mark.parametrize("given", ["< 10", ["< 10"], 3])
def test_limits_are_a_mapping(given: Any) -> None:
    assert "must be a mapping" in limits(given)[1][0]


@pytest.mark.parametrize("value", [math.nan, None, "12", [], {}])
def test_what_is_no_number_meets_no_limit_and_is_missing(value: Any) -> None:
    parsed, _problems = limits({"a": "!= 0", "b": "> 1"})
    assert broken(parsed, {"a": value, "b": 0}) is None
    assert missing(parsed, {"a": value, "b": 0}) == ["a"]


def test_infinity_is_a_number_and_a_boolean_too() -> None:
    parsed, _problems = limits({"a": "> 1"})
    assert broken(parsed, {"a": math.inf}) == parsed[0]
    assert number(True) == 1.0


def test_the_first_limit_that_is_met_is_told() -> None:
    parsed, _problems = limits({"a": "> 1", "b": "> 1"})
    assert str(broken(parsed, {"a": 2, "b": 2})) == "a > 1"


@pytest.mark.parametrize(
    ("value", "text"),
    [(12.44, "12.4"), (1234.5, "1,234"), (0.00312, "0.00312"), (5.0, "5"), (math.inf, "inf"), (-0.5, "-0.5")],
)
def test_numbers_are_shown_as_people_read_them(value: float, text: str) -> None:
    assert shown(value) == text
