# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import itertools

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._limits import Limit
from ansible_collections.signalbox.runbook.plugins.module_utils._verdict import (
    OFF,
    Measurement,
    Metric,
    Policy,
    Tally,
    Verdict,
    assess,
    overall,
    verdict,
)
from hypothesis import given
from hypothesis import strategies as st

LETTERS = {
    "s": "successful",
    "f": "failed",
    "i": "inconclusive",
    "e": "error",
    "r": "running",
    "n": "no_data",
}


def measured(letters, every=1.0):
    return [Measurement(LETTERS[letter], i * every) for i, letter in enumerate(letters)]


def judged(letters, ended=False, extended=False, every=1.0, **policy):
    found = verdict(measured(letters, every), Policy(**policy), ended, extended)
    return found.status, found.by, found.number, found.limit


@pytest.mark.parametrize(
    ("letters", "policy", "answer"),
    [
        ("", {}, ("pending", "", None, None)),
        ("r", {}, ("running", "", None, None)),
        ("s", {}, ("running", "", None, None)),
        ("f", {}, ("failed", "failure_limit", 1, 0)),
        ("sf", {"failure_limit": 1}, ("running", "", None, None)),
        ("fsf", {"failure_limit": 1}, ("failed", "failure_limit", 2, 1)),  # not only in a row
        ("ffff", {"failure_limit": OFF}, ("running", "", None, None)),
        ("fsfsf", {"failure_limit": OFF, "consecutive_failure_limit": 1}, ("running", "", None, None)),
        ("fsff", {"failure_limit": OFF, "consecutive_failure_limit": 1}, ("failed", "consecutive_failure_limit", 2, 1)),
        ("i", {}, ("inconclusive", "inconclusive_limit", 1, 0)),
        ("isi", {"inconclusive_limit": 1}, ("inconclusive", "inconclusive_limit", 2, 1)),
        ("iiii", {"inconclusive_limit": OFF}, ("running", "", None, None)),
        ("eeee", {}, ("running", "", None, None)),
        ("eeeee", {}, ("error", "consecutive_error_limit", 5, 4)),
        ("eeeeseeee", {}, ("running", "", None, None)),  # not in a row
        ("eeee" * 9, {"consecutive_error_limit": OFF}, ("running", "", None, None)),
        ("ss", {"consecutive_success_limit": 2}, ("successful", "consecutive_success_limit", 2, 2)),
        ("ses", {"consecutive_success_limit": 2}, ("running", "", None, None)),
        ("srs", {"consecutive_success_limit": 2}, ("successful", "consecutive_success_limit", 2, 2)),
        ("sss", {"count": 3}, ("successful", "count", 3, 3)),
        ("seess", {"count": 3}, ("successful", "count", 3, 3)),  # an error is no measurement
        ("sfs", {"count": 3, "failure_limit": 1}, ("successful", "count", 3, 3)),
        # A streak that is not reached at count: nothing is known, unless failures never end it.
        (
            "sfs",
            {"count": 3, "failure_limit": 1, "consecutive_success_limit": 2},
            ("inconclusive", "consecutive_success_limit", 1, 2),
        ),
        (
            "sfs",
            {"count": 3, "failure_limit": OFF, "consecutive_success_limit": 2},
            ("failed", "consecutive_success_limit", 1, 2),
        ),
        (
            "ffss",
            {"count": 4, "failure_limit": OFF, "consecutive_success_limit": 2},
            ("successful", "consecutive_success_limit", 2, 2),
        ),
        # The order of the limits: one measurement that is over several of them.
        ("f", {"consecutive_failure_limit": 0, "count": 1}, ("failed", "failure_limit", 1, 0)),
        ("s", {"consecutive_success_limit": 1, "count": 1}, ("successful", "consecutive_success_limit", 1, 1)),
        # The first that decides has decided.
        ("sf", {"count": 1}, ("successful", "count", 1, 1)),
        ("fs", {"consecutive_success_limit": 1}, ("failed", "failure_limit", 1, 0)),
    ],
)
def test_one_metric(letters, policy, answer):
    assert judged(letters, **policy) == answer


@pytest.mark.parametrize(
    ("letters", "policy", "answer"),
    [
        ("sss", {}, ("successful", "ended", 3, None)),
        ("sss", {"count": 5}, ("successful", "ended", 3, 5)),
        ("sr", {}, ("successful", "ended", 1, None)),
        ("fs", {"failure_limit": 1}, ("successful", "ended", 2, None)),
        ("f", {}, ("failed", "failure_limit", 1, 0)),
        ("ss", {"consecutive_success_limit": 3}, ("inconclusive", "consecutive_success_limit", 2, 3)),
        ("ss", {"consecutive_success_limit": 3, "failure_limit": OFF}, ("failed", "consecutive_success_limit", 2, 3)),
        ("", {}, ("failed", "minimum_samples", 0, 1)),
        ("nn", {"no_data": "fail"}, ("failed", "minimum_samples", 0, 1)),
        ("nn", {"no_data": "pass"}, ("successful", "minimum_samples", 0, 1)),
        ("nn", {"no_data": "inconclusive"}, ("inconclusive", "minimum_samples", 0, 1)),
        ("nn", {"no_data": "extend"}, ("running", "minimum_samples", 0, 1)),
        ("nsns", {"no_data": "extend", "minimum_samples": 3}, ("running", "minimum_samples", 2, 3)),
        ("nsnss", {"no_data": "extend", "minimum_samples": 3}, ("successful", "ended", 5, None)),
        # Data that stays away at the end is none, however much there was before.
        ("s" * 9 + "nnnn", {}, ("successful", "ended", 13, None)),
        ("s" * 9 + "nnnnn", {}, ("failed", "no_data", 5, 4)),
        ("s" * 9 + "nnnnn", {"no_data": "inconclusive"}, ("inconclusive", "no_data", 5, 4)),
        ("s" * 9 + "nnnnn", {"no_data": "extend"}, ("running", "no_data", 5, 4)),
        ("s" * 9 + "nnnnns", {}, ("successful", "ended", 15, None)),
        # No answer is never a pass, whatever no data means.
        ("nne", {"no_data": "pass"}, ("error", "minimum_samples", 0, 1)),
        ("ssse", {"no_data": "pass"}, ("error", "ended", 1, 4)),
        ("ssses", {}, ("successful", "ended", 4, None)),
    ],
)
def test_ended_early(letters, policy, answer):
    assert judged(letters, ended=True, **policy) == answer


@pytest.mark.requirement("PDW-20")
def test_no_more_time_to_wait_for_data():
    assert judged("nn", True, True, no_data="extend") == ("inconclusive", "minimum_samples", 0, 1)
    found = verdict(measured("n"), Policy(no_data="extend"), True, True)
    assert found.text == "0 samples, minimum_samples is 1; no_data is extend"


def test_the_reason_is_in_words():
    assert verdict(["failed"] * 3, Policy(failure_limit=2)).text == "3 failed, failure_limit is 2"
    row = Policy(failure_limit=OFF, consecutive_failure_limit=1)
    assert verdict(["failed"] * 2, row).text == "2 failed in a row, consecutive_failure_limit is 1"
    assert verdict(["error"] * 5, Policy()).text == "5 errors in a row, consecutive_error_limit is 4"
    assert verdict(["successful"], Policy(count=1)).text == "1 measured, count is 1"
    with pytest.raises(ValueError, match="'ok' is no measurement; there are successful, failed"):
        verdict(["ok"], Policy())


@pytest.mark.requirement("HC-41", "PDW-12")
def test_a_failure_counts_when_it_has_lasted():
    """More than two minutes, asked every 10 s: the first that counts is the one 120 s after the first."""
    lasting = {"for_seconds": 120, "every": 10}
    assert judged("s" + "f" * 12, **lasting)[0] == "running"
    assert judged("s" + "f" * 13, **lasting) == ("failed", "failure_limit", 1, 0)
    assert judged("f" * 12 + "s" + "f" * 12, **lasting)[0] == "running"
    assert judged("f" * 6 + "e" + "f" * 6, **lasting)[0] == "failed", "an error is no break"
    assert judged("f" * 6 + "n" + "f" * 12, **lasting)[0] == "running"
    assert judged("s" + "f" * 14, failure_limit=1, **lasting) == ("failed", "failure_limit", 2, 1)
    # Ended while it failed is no success.
    assert judged("s" + "f" * 4, ended=True, **lasting) == ("inconclusive", "for_seconds", 30, 120)
    assert judged("sff", count=3, **lasting) == ("inconclusive", "for_seconds", 10, 120)


@pytest.mark.parametrize(
    ("letters", "policy", "open_still"),
    [
        ("", {}, False),
        ("sf", {"failure_limit": 2}, True),
        ("fs", {"failure_limit": 2}, False),
        ("fn", {"failure_limit": 2}, False),
        ("sf", {"failure_limit": OFF}, False),  # whatever comes, it never fails
        ("sf", {"failure_limit": OFF, "consecutive_failure_limit": 2}, True),
        ("sf", {"for_seconds": 60}, True),
        ("se", {}, True),
        ("se", {"consecutive_error_limit": OFF}, False),
    ],
)
def test_what_is_undecided(letters, policy, open_still):
    tally = Tally(Policy(**policy))
    for measurement in measured(letters):
        tally.add(measurement)
    assert tally.undecided is open_still


# -- the whole table --------------------------------------------------------------------------------------------


def expected(letters, policy, ended, extended):
    """The same rules said another way: for each beginning of the measurements, by counting letters."""
    for length in range(1, len(letters) + 1):
        found = decision(letters[:length], policy, False, False)
        if found:
            return found
    if ended:
        return decision(letters, policy, True, extended)
    return "running" if letters else "pending"


def decision(letters, policy, ended, extended):
    told = letters.replace("r", "")
    without_errors = told.replace("e", "")
    failing = len(without_errors) - len(without_errors.rstrip("f"))
    errors = len(told) - len(told.rstrip("e"))
    successes = len(told) - len(told.rstrip("s"))
    samples = len(without_errors.replace("n", ""))
    if policy.failure_limit != OFF and told.count("f") > policy.failure_limit:
        return "failed"
    if policy.consecutive_failure_limit != OFF and failing > policy.consecutive_failure_limit:
        return "failed"
    if policy.inconclusive_limit != OFF and told.count("i") > policy.inconclusive_limit:
        return "inconclusive"
    if policy.consecutive_error_limit != OFF and errors > policy.consecutive_error_limit:
        return "error"
    streak = policy.consecutive_success_limit
    enough = samples >= policy.minimum_samples
    if streak is not None and successes >= streak and enough:
        return "successful"
    at_count = policy.count is not None and len(without_errors) >= policy.count
    if not (at_count or ended):
        return None
    if not enough:
        if errors:
            return "error"
        if policy.no_data == "extend" and not extended:
            return "running" if ended else None
        return {"fail": "failed", "pass": "successful"}.get(policy.no_data, "inconclusive")
    if errors and ended:
        return "error"
    lost = len(without_errors) - len(without_errors.rstrip("n"))
    if ended and policy.consecutive_error_limit != OFF and lost > policy.consecutive_error_limit:
        if policy.no_data == "extend" and not extended:
            return "running"
        return {"fail": "failed", "pass": "successful"}.get(policy.no_data, "inconclusive")
    if streak is not None:
        return "failed" if policy.failure_limit == OFF else "inconclusive"
    return "successful"


def test_every_state_and_every_event():
    """Every row of up to three measurements under every combination of the limits."""
    rows = ["".join(row) for length in range(4) for row in itertools.product("sfiern", repeat=length)]
    limits = itertools.product((0, 1, OFF), (0, OFF), (0, OFF), (1, OFF), (None, 2), (None, 3), ("fail", "extend"))
    checked = 0
    for a, b, c, d, e, f, g in limits:
        policy = Policy(a, b, c, d, e, f, 0.0, g)
        for row in rows:
            measurements = [LETTERS[letter] for letter in row]
            for ended in (False, True):
                assert verdict(measurements, policy, ended).status == expected(row, policy, ended, False), (row, policy)
                checked += 1
    assert checked == len(rows) * 2 * 192


POLICY_KEYS = [key.name for key in dataclasses.fields(Policy)]
ROWS = st.text(alphabet="sfiern", max_size=30)
LIMITS = st.integers(-1, 5)
POLICIES = st.builds(
    Policy,
    failure_limit=LIMITS,
    consecutive_failure_limit=LIMITS,
    inconclusive_limit=LIMITS,
    consecutive_error_limit=LIMITS,
    consecutive_success_limit=st.none() | st.integers(1, 5),
    count=st.none() | st.integers(1, 20),
    for_seconds=st.just(0.0),
    no_data=st.sampled_from(["fail", "pass", "inconclusive", "extend"]),
    minimum_samples=st.integers(0, 5),
)


@given(ROWS, POLICIES, st.booleans(), st.booleans())
def test_it_agrees_with_the_rules_said_another_way(letters, policy, ended, extended):
    found = verdict(measured(letters), policy, ended, extended)
    assert found.status == expected(letters, policy, ended, extended)
    if found.ended:  # what decided is always said
        assert found.by in (*POLICY_KEYS, "ended")
        assert found.number is not None
        assert found.text


@given(ROWS, ROWS, POLICIES)
def test_what_has_decided_has_decided(letters, more, policy):
    found = verdict(measured(letters), policy)
    if found.ended:
        assert verdict(measured(letters + more), policy) == found


@given(ROWS, POLICIES, st.booleans())
def test_it_is_never_successful_without_data_unless_the_policy_says_so(letters, policy, extended):
    found = verdict(measured(letters), dataclasses.replace(policy, minimum_samples=1), True, extended)
    if found.status == "successful" and policy.no_data != "pass":
        assert set(letters) & set("sfi")
    if found.status == "successful":
        assert not letters.replace("r", "").endswith("e") or found.by != "ended"


@given(st.lists(st.tuples(st.sampled_from("sfin"), st.floats(0.1, 100))), st.floats(1, 300))
def test_a_failure_counts_only_after_its_time(steps, for_seconds):
    at, since, shall_fail, measurements = 0.0, None, False, []
    for letter, after in steps:
        at += after
        measurements.append(Measurement(LETTERS[letter], at))
        since = (at if since is None else since) if letter == "f" else None
        shall_fail = shall_fail or (since is not None and at - since >= for_seconds)
    policy = Policy(for_seconds=for_seconds, inconclusive_limit=OFF)
    assert (verdict(measurements, policy).status == "failed") == shall_fail


# -- values -----------------------------------------------------------------------------------------------------

FAIL = (Limit("error_percent", ">", 10), Limit("p95_ms", ">", 2000))
WARN = (Limit("error_percent", ">", 5),)


@pytest.mark.parametrize(
    ("values", "status", "text"),
    [
        (
            {"error_percent": 1, "p95_ms": 120.4},
            "successful",
            "error_percent 1 (limit > 10), p95_ms 120.4 (limit > 2000)",
        ),
        ({"error_percent": 10, "p95_ms": 120}, "inconclusive", "error_percent 10 > 5"),
        ({"error_percent": 10.5, "p95_ms": 120}, "failed", "error_percent 10.5 > 10"),
        ({"error_percent": 7, "p95_ms": 2001}, "failed", "p95_ms 2001 > 2000"),  # fail first
        ({"error_percent": 1}, "no_data", "no value of p95_ms"),
        ({"error_percent": 11}, "failed", "error_percent 11 > 10"),  # what is bad stays bad
        ({"error_percent": float("nan"), "p95_ms": 1}, "no_data", "no value of error_percent"),
        ({"error_percent": float("inf"), "p95_ms": 1}, "failed", "error_percent inf > 10"),
        ({}, "no_data", "no value of error_percent, p95_ms"),
    ],
)
def test_values_against_their_limits(values, status, text):
    found = assess(values, FAIL, WARN, 7.0)
    assert found[:4] == (status, 7.0, text, ())
    assert found.value is None if status == "no_data" else f" {found.value:g}" in f" {found.text}"


# -- several metrics --------------------------------------------------------------------------------------------


def metric(status, **more):
    return Metric(Verdict(status, "x", 1, 0, f"it is {status}"), **more)


def whole(pass_percent=None, warn_percent=None, **metrics):
    found = overall(metrics, pass_percent, warn_percent)
    return found.status, found.name


@pytest.mark.parametrize(
    ("letters", "answer"),
    [
        ({"a": "successful", "b": "successful"}, ("successful", "a")),
        ({"a": "successful", "b": "running"}, ("running", "b")),
        ({"a": "failed", "b": "running"}, ("running", "b")),  # one that runs keeps the whole running
        ({"a": "pending", "b": "pending"}, ("pending", "a")),
        ({"a": "pending", "b": "successful"}, ("running", "a")),
        ({"a": "inconclusive", "b": "successful"}, ("inconclusive", "a")),
        ({"a": "inconclusive", "b": "error"}, ("error", "b")),
        ({"a": "error", "b": "failed", "c": "failed"}, ("failed", "b")),
    ],
)
def test_the_worst_is_named(letters, answer):
    assert whole(**{name: metric(status) for name, status in letters.items()}) == answer


def test_shadows_only_report():
    found = overall({"a": metric("successful"), "b": metric("failed", shadow=True)})
    assert (found.status, list(found.shadows)) == ("successful", ["b"])
    running = overall({"a": metric("successful"), "b": metric("running", shadow=True)})
    assert running.status == "successful"
    assert whole(a=metric("failed", shadow=True)) == ("inconclusive", "")
    assert whole() == ("inconclusive", "")


@pytest.mark.parametrize(
    ("statuses", "status", "percent"),
    [
        (["successful"] * 4, "successful", 100),
        (["successful", "successful", "successful", "inconclusive"], "inconclusive", 87.5),
        (["successful", "successful", "successful", "failed"], "inconclusive", 75),
        (["successful", "successful", "inconclusive", "failed"], "failed", 62.5),
        (["successful", "successful", "successful", "error"], "inconclusive", 75),
    ],
)
def test_weights(statuses, status, percent):
    found = overall({str(i): metric(word) for i, word in enumerate(statuses)}, 90, 75)
    assert (found.status, found.percent) == (status, percent)


def test_weights_count():
    assert whole(90, a=metric("successful", weight=9), b=metric("failed")) == ("successful", "b")
    assert whole(91, a=metric("successful", weight=9), b=metric("failed")) == ("failed", "b")
    assert whole(1, a=metric("successful", weight=0)) == ("failed", "")


def test_a_key_metric_fails_everything():
    metrics = {"a": metric("successful", weight=99), "b": metric("failed", key=True)}
    found = overall(metrics, 50)
    assert (found.status, found.name, found.percent) == ("failed", "b", 99)
    assert found.text == "key metric: it is failed"
    assert whole(50, a=metric("successful", weight=99), b=metric("error", key=True)) == ("error", "b")
    assert whole(50, a=metric("successful", weight=99), b=metric("inconclusive", key=True)) == ("successful", "b")


STATUSES = st.sampled_from(["successful", "inconclusive", "error", "failed", "running", "pending"])
METRICS = st.dictionaries(
    st.sampled_from("abcdef"), st.builds(metric, STATUSES, shadow=st.booleans(), key=st.booleans()), min_size=1
)


@given(METRICS, st.none() | st.floats(0, 100))
def test_the_whole(metrics, pass_percent):
    found = overall(metrics, pass_percent)
    counting = {name: one.verdict.status for name, one in metrics.items() if not one.shadow}
    words = set(counting.values())
    if words & {"running", "pending"}:
        assert found.status == ("pending" if words == {"pending"} else "running")
    elif counting and pass_percent is None:
        order = ["successful", "inconclusive", "error", "failed"]
        assert found.status == max(words, key=order.index)
        assert counting[found.name] == found.status
    elif counting:
        key_words = {one.verdict.status for one in metrics.values() if one.key and not one.shadow}
        if key_words & {"failed", "error"}:
            assert found.status in key_words
        else:
            assert (found.status == "successful") == (found.percent >= pass_percent)
    else:
        assert found.status == "inconclusive"
    assert all(metrics[name].shadow for name in found.shadows)
