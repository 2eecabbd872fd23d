# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._watch import (
    Measurement,
    Policy,
    clock,
    measure,
    progress,
    verdict,
)
from ansible_collections.signalbox.runbook.plugins.plugin_utils._controller import specs
from hypothesis import given
from hypothesis import strategies as st

POLICY = Policy(seconds=60)
WORDS = {"o": "ok", "f": "failed", "n": "no_data"}


def measurements(letters):
    return [Measurement(WORDS[letter], f"{WORDS[letter]} {i}") for i, letter in enumerate(letters)]


def judged(letters, elapsed, **policy):
    return verdict(measurements(letters), elapsed, POLICY._replace(**policy))


@pytest.mark.parametrize(
    ("letters", "elapsed", "limit", "word"),
    [
        ("", 0, 2, "running"),
        ("o", 10, 2, "running"),
        ("f", 10, 0, "failed"),  # nothing is borne
        ("of", 10, 0, "failed"),
        ("f", 10, 1, "running"),
        ("ff", 10, 1, "failed"),
        ("ff", 10, 2, "running"),
        ("off", 10, 2, "running"),
        ("fff", 10, 2, "failed"),
        ("offf", 10, 2, "failed"),
        ("ffof", 10, 2, "running"),  # not in a row
        ("ffnff", 10, 2, "running"),  # no data says nothing bad, so the row is broken
        ("ffofff", 10, 2, "failed"),
        ("o", 59.9, 2, "running"),
        ("o", 60, 2, "passed"),
        ("o", 600, 2, "passed"),
        ("ffo", 60, 2, "passed"),
        ("ofo", 60, 2, "passed"),
        ("of", 60, 2, "running"),  # time is over, but something is wrong: it goes on
        ("off", 62, 2, "running"),
        ("offo", 64, 2, "passed"),
        ("offf", 64, 2, "failed"),
        ("fff", 60, 2, "failed"),
        ("on", 60, 2, "passed"),
        ("ofn", 60, 2, "passed"),
        ("n", 60, 2, "failed"),
        ("nnnn", 60, 2, "failed"),
        ("fn", 60, 2, "failed"),  # never a good measurement
        ("", 60, 2, "failed"),
    ],
)
def test_verdicts(letters, elapsed, limit, word):
    assert judged(letters, elapsed, failure_limit=limit)[0] == word


def test_reasons():
    assert judged("o", 1) == ("running", "")
    assert judged("fff", 1) == ("failed", "failed 2, 3 times in a row")
    assert judged("f", 1, failure_limit=0) == ("failed", "failed 0")
    assert judged("non", 60) == ("passed", "ok 1")
    assert judged("nn", 60) == (
        "failed",
        "no data: no_data 1; see accounting_requests_per_second, or set watch_no_data",
    )
    assert judged("", 60)[1].startswith("no data: nothing was measured; ")
    assert judged("n", 60, no_data="pass") == ("passed", "no data, which passes by watch_no_data")


def test_no_data_that_passes_does_not_pass_what_failed():
    assert judged("nf", 60, no_data="pass")[0] == "running"
    assert judged("nff", 60, no_data="pass", failure_limit=1)[0] == "failed"
    assert judged("fn", 60, no_data="pass")[0] == "passed"


@pytest.mark.requirement("HC-41")
def test_attempts_and_minutes_are_both_counts_of_failures_in_a_row():
    """ "More than 3 consecutive attempts" is a limit of 3; "unhealthy for more than 1 minute", asked every 2 s, one
    of 30: the 31st failure in a row comes 60 s after the first."""
    attempts = {"failure_limit": 3}
    assert judged("offf", 8, **attempts)[0] == "running"
    assert judged("offff", 10, **attempts)[0] == "failed"
    minute = {"failure_limit": 30, "seconds": 600}
    assert judged("o" + "f" * 30, 62, **minute)[0] == "running"
    assert judged("o" + "f" * 31, 64, **minute)[0] == "failed"
    assert judged("o" + "f" * 30 + "o" + "f" * 30, 126, **minute)[0] == "running"


LETTERS = st.text(alphabet="ofn", max_size=40)
POLICIES = st.builds(
    Policy,
    seconds=st.integers(0, 60),
    failure_limit=st.integers(0, 5),
    no_data=st.sampled_from(["fail", "pass"]),
)


@given(LETTERS, st.floats(0, 100), POLICIES)
def test_it_never_passes_while_something_is_wrong_or_nothing_is_known(letters, elapsed, policy):
    word, why = verdict(measurements(letters), elapsed, policy)
    streak = len(letters) - len(letters.rstrip("f"))
    if word == "passed":
        assert streak == 0
        assert elapsed >= policy.seconds
        assert "o" in letters or policy.no_data == "pass"
    assert (word == "failed") == (
        streak > policy.failure_limit
        or (elapsed >= policy.seconds and not streak and "o" not in letters and policy.no_data == "fail")
    )
    assert bool(why) == (word != "running")


@given(LETTERS, POLICIES)
def test_it_always_ends(letters, policy):
    """Whatever is measured after the window: at the latest the row of failures is full, or broken."""
    letters += "f" * (policy.failure_limit + 1)
    assert verdict(measurements(letters), policy.seconds, policy)[0] == "failed"
    for last in "on":
        assert verdict(measurements(letters + last), policy.seconds, policy)[0] != "running"


# -- one measurement --------------------------------------------------------------------------------------------


def account(sent=100, error_percent=0.0, p95_ms=100.0, **failures):
    return {"sent": sent, "error_percent": error_percent, "p95_ms": p95_ms, "failures": failures}


@pytest.mark.parametrize(
    ("given_account", "word", "text"),
    [
        (account(), "ok", "errors 0.0 % (limit 10 %)   p95 100 ms (limit 2000 ms)"),
        (account(error_percent=10.0), "ok", "errors 10.0 % (limit 10 %)   p95 100 ms (limit 2000 ms)"),
        (account(error_percent=10.01), "failed", "error rate 10.0 % > 10 %"),
        (account(error_percent=100.0, p95_ms=9999.0), "failed", "error rate 100.0 % > 10 %"),
        (account(p95_ms=2000.0), "ok", "errors 0.0 % (limit 10 %)   p95 2000 ms (limit 2000 ms)"),
        (account(p95_ms=2000.5), "failed", "p95 2000 ms > 2000 ms"),
        (account(p95_ms=2501.0), "failed", "p95 2501 ms > 2000 ms"),
        (account(p95_ms=None), "ok", "errors 0.0 % (limit 10 %)"),
        (account(sent=10), "ok", "errors 0.0 % (limit 10 %)   p95 100 ms (limit 2000 ms)"),
        (account(sent=9), "no_data", "9 requests in 10 s, 10 needed"),
        (account(sent=9, error_percent=100.0), "no_data", "9 requests in 10 s, 10 needed"),
        (account(sent=0, p95_ms=None), "no_data", "0 requests in 10 s, 10 needed"),
    ],
)
def test_measurements(given_account, word, text):
    measured = measure(given_account, [], POLICY)
    assert (measured.word, measured.text) == (word, text)


def test_failures_are_told_by_their_kind():
    measured = measure(account(error_percent=20.0, http_5xx=15, timeout=5), [], POLICY)
    assert measured.diagnosis == ("failed: 15 http_5xx, 5 timeout",)


@pytest.mark.parametrize("sent", [0, 100])
def test_a_probe_that_fails_outweighs_the_requests(sent):
    measured = measure(account(sent=sent), ["frontend version: HTTP 500", "other"], POLICY)
    assert measured == Measurement("failed", "frontend version: HTTP 500", ("frontend version: HTTP 500", "other"))


@given(st.integers(0, 50), st.floats(0, 100), st.none() | st.floats(0, 5000), st.floats(0, 100), st.integers(1, 4000))
def test_measurements_follow_their_limits(sent, rate, p95, most, limit):
    policy = POLICY._replace(error_rate_percent=most, p95_ms=limit)
    word = measure(account(sent, rate, p95), [], policy).word
    good = rate <= most and (p95 is None or p95 <= limit)
    assert word == ("no_data" if sent < 10 else "ok" if good else "failed")


def test_the_defaults_are_those_that_the_role_documents():
    options = specs()["watch_"]
    for name, value in Policy(seconds=60)._asdict().items():
        assert options["watch_seconds" if name == "seconds" else f"watch_{name}"]["default"] == value


# -- words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elapsed", "seconds", "line"),
    [
        (0, 60, "------------ 00:00 of 01:00   x"),
        (30, 60, "######------ 00:30 of 01:00   x"),
        (59.9, 60, "###########- 00:59 of 01:00   x"),
        (60, 60, "############ 01:00 of 01:00   x"),
        (90, 60, "############ 01:30 of 01:00   x"),
        (0, 0, "############ 00:00 of 00:00   x"),
    ],
)
def test_progress(elapsed, seconds, line):
    assert progress(elapsed, seconds, "x") == line


@pytest.mark.parametrize(("seconds", "text"), [(0, "00:00"), (61.9, "01:01"), (3600, "60:00")])
def test_clock(seconds, text):
    assert clock(seconds) == text
