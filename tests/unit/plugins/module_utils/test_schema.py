# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Problems, check, closest, convert
from hypothesis import given
from hypothesis import strategies as st


def converted(value, **spec):
    problems = Problems()
    return convert(value, spec, "key", problems), list(problems)


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [
        ("int", 10, 10),
        ("int", "10", 10),
        ("int", " 10 ", 10),
        ("int", "-3", -3),
        ("int", 10.0, 10),
        ("int", "10.0", 10),
        ("int", "1e3", 1000),
        ("int", 2**70 + 1, 2**70 + 1),
        ("float", "0.5", 0.5),
        ("float", 3, 3.0),
        ("bool", True, True),
        ("bool", "true", True),
        ("bool", "Yes", True),
        ("bool", "on", True),
        ("bool", 1, True),
        ("bool", False, False),
        ("bool", "false", False),
        ("bool", "No", False),
        ("bool", "off", False),
        ("bool", "0", False),
        ("str", "1.10", "1.10"),
        ("str", 7, "7"),
        ("str", "", ""),
        ("path", "/srv", "/srv"),
        ("raw", [1], [1]),
        ("raw", 1.5, 1.5),
    ],
)
def test_strings_of_a_survey_become_what_the_spec_says(kind, value, result):
    got, problems = converted(value, type=kind)
    assert (got, problems) == (result, [])
    assert type(got) is type(result)


@pytest.mark.parametrize(
    ("kind", "value", "sentence"),
    [
        ("int", "ten", "key: must be a whole number, not 'ten'"),
        ("int", 1.5, "key: must be a whole number, not 1.5"),
        ("int", "1.5", "key: must be a whole number, not '1.5'"),
        ("int", True, "key: must be a whole number, not True"),
        ("int", "nan", "key: must be a whole number, not 'nan'"),
        ("int", "inf", "key: must be a whole number, not 'inf'"),
        ("int", "", "key: must be a whole number, not ''"),
        ("int", [1], "key: must be a whole number, not a list"),
        ("int", 10**400, "key: must be a whole number, not 1" + "0" * 56 + "..."),
        ("float", "fast", "key: must be a number, not 'fast'"),
        ("float", "nan", "key: must be a number, not 'nan'"),
        ("float", float("inf"), "key: must be a number, not inf"),
        ("float", False, "key: must be a number, not False"),
        ("bool", "maybe", "key: must be true or false, not 'maybe'"),
        ("bool", 2, "key: must be true or false, not 2"),
        ("bool", {}, "key: must be true or false, not a mapping"),
        ("str", 1.1, "key: must be a string, not 1.1"),  # 1.10 in YAML: the zero is already lost
        ("str", True, "key: must be a string, not True"),
        ("str", {"a": "deep secret"}, "key: must be a string, not a mapping"),
        ("dict", "a", "key: must be a mapping, not 'a'"),
        ("dict", ["deep secret"], "key: must be a mapping, not a list"),
        ("list", "a,b", "key: must be a list, not 'a,b'"),
        ("list", {"a": "deep secret"}, "key: must be a list, not a mapping"),
    ],
)
def test_what_can_not_be_converted_is_one_sentence(kind, value, sentence):
    assert converted(value, type=kind) == (None, [sentence])


def test_choices_and_elements():
    assert converted("green", choices=["blue", "green"]) == ("green", [])
    assert converted("red", choices=["blue", "green"]) == (None, ["key: must be one of blue, green, not 'red'"])
    assert converted(["1", 2], type="list", elements="int") == ([1, 2], [])
    assert converted(("a",), type="list") == (["a"], [])
    assert converted([1, "x"], type="list", elements="int") == (
        [1, None],
        ["key[1]: must be a whole number, not 'x'"],
    )
    assert converted({1: "a"}, type="dict") == ({"1": "a"}, [])


@pytest.mark.parametrize("kind", ["int", "bool", "str", "dict", "list"])
def test_a_secret_in_the_wrong_type_is_not_quoted(kind):
    wrong = {"str": 3.25, "dict": "hunter2", "list": "hunter2"}.get(kind, "hunter2")
    _none, problems = converted(wrong, type=kind, no_log=True)
    assert len(problems) == 1
    assert problems[0].endswith(", not the value")


def test_long_values_are_cut():
    _none, problems = converted("x" * 500, type="int")
    assert problems == ["key: must be a whole number, not '" + "x" * 56 + "..."]


OPTIONS = {
    "name": {"type": "str", "required": True, "description": "Name of the thing, for example C(door). More words."},
    "size": {"type": "int", "default": 3},
    "inner": {"type": "dict", "options": {"on": {"type": "bool", "default": True}, "to": {"required": True}}},
    "filled": {"type": "dict", "apply_defaults": True, "options": {"depth": {"type": "int", "default": 1}}},
    "parts": {"type": "list", "elements": "dict", "options": {"n": {"type": "int", "required": True}}},
    "many": {"required": False, "type": "list", "description": ["First line.", "Second line."]},
}


def checked(values, path=""):
    problems = Problems()
    return check(values, OPTIONS, path, problems), list(problems)


def test_missing_options_are_filled_in():
    done, problems = checked({"name": "a"})
    assert problems == []
    assert done == {"name": "a", "size": 3, "inner": None, "filled": {"depth": 1}, "parts": None, "many": None}


def test_none_is_missing():
    assert checked({"name": None, "size": None})[1] == ["name: is missing; give Name of the thing, for example door"]
    assert checked({"name": "a", "size": None})[0]["size"] == 3


def test_paths_of_nested_problems():
    values = {"name": "a", "sise": 1, "inner": {"on": "perhaps", "too": 1}, "parts": [{"n": 1}, {"n": "x"}, 5, {}]}
    assert checked(values, "app")[1] == [
        "app.sise: unknown key; did you mean size?",
        "app.inner.too: unknown key; did you mean to?",
        "app.inner.on: must be true or false, not 'perhaps'",
        "app.inner.to: is missing; give a str",
        "app.parts[1].n: must be a whole number, not 'x'",
        "app.parts[2]: must be a mapping, not 5",
        "app.parts[3].n: is missing; give a int",
    ]


def test_unknown_key_without_a_neighbour_has_no_guess():
    assert checked({"name": "a", "qqqqqqq": 1})[1] == ["qqqqqqq: unknown key"]
    assert closest("nmae", ["name", "size"]) == "; did you mean name?"
    assert closest("zzz", []) == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
TYPES = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "path": str,
    "dict": dict,
    "list": list,
}


@given(JSON, st.sampled_from(sorted(TYPES)))
def test_any_value_is_either_converted_or_a_problem(value, kind):
    got, problems = converted(value, type=kind)
    if kind == "list" and got is not None:
        assert [type(item) in (str, type(None)) for item in got] == [True] * len(got)
        assert len(problems) == got.count(None)
    elif problems:
        assert got is None
        assert problems[0].startswith("key: must be ")
    else:
        assert got.__class__ is TYPES[kind]  # a bool is an int too, but not here


@given(st.dictionaries(st.sampled_from([*OPTIONS, "unknown"]), JSON, max_size=7))
def test_any_mapping_gives_all_options_and_no_others(values):
    done, problems = checked(values)
    assert list(done) == list(OPTIONS)
    assert ("unknown" in values) == any(problem.startswith("unknown: unknown key") for problem in problems)
