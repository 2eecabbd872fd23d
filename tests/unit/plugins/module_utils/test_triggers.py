# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _presets, _triggers, _verdict
from ansible_collections.signalbox.runbook.plugins.module_utils._prometheus import Reading
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Problems, check
from ansible_collections.signalbox.runbook.plugins.module_utils._triggers import Trigger
from ansible_collections.signalbox.runbook.plugins.module_utils._watch import BUILTIN, Measurement, Watch, plan
from ansible_collections.signalbox.runbook.plugins.plugin_utils import _controller as controller
from hypothesis import given
from hypothesis import strategies as st

OPTIONS = controller.specs()["watch_"]
LEDGER = Path(__file__).resolve().parents[4] / "docs" / "requirements.md"
SECRET = "s3cr3t-Value"
URL = "http://metrics.test:9090"

REQUESTS = {"name": "errors", "metric": "requests", "fail_when": {"error_percent": "> 10"}}
QUERY = {"name": "share", "metric": "prometheus", "query": "share", "fail_when": {"error_percent": "> 10"}}
PROBE = {"name": "health", "metric": "probe"}


def model(*triggers, **more):
    """A watch of a minute by these triggers alone, as the argument specification completes it."""
    problems = Problems()
    given = {
        "watch_seconds": 60,
        "watch_builtin": False,
        "watch_prometheus_url": URL,
        "watch_triggers": copy.deepcopy(list(triggers)),
        **more,
    }
    completed = check(given, OPTIONS, "", problems)
    if not problems:
        _triggers.settle(completed, OPTIONS, problems)
    return completed, list(problems)


def trigger(**more) -> Trigger:
    completed, problems = model({**REQUESTS, **more})
    assert problems == []
    return _triggers.made(completed)[0]


# -- the rules --------------------------------------------------------------------------------------------------

FIRST = "watch_triggers[0]"
WRONG = {
    "no name": ({"name": ...}, [f"{FIRST}.name: is missing; give Name of the trigger, in lower-case letters, digits,"
                                " hyphens and underscores"]),
    "bad name": ({"name": "My Errors"}, [f"{FIRST}.name: 'My Errors' must be lower-case letters, digits, hyphens and"
                                         " underscores, a letter first"]),
    "unknown metric": ({"metric": "statsd"}, [f"{FIRST}.metric: must be one of requests, probe, prometheus,"
                                              " not 'statsd'"]),
    "unknown key": ({"for": 60}, [f"{FIRST}.for: unknown key"]),
    "no limit": ({"fail_when": {}}, [f"{FIRST}.fail_when: is missing; give what is measured and when it is bad,"
                                     ' like {p95_ms: "> 500"}']),
    "limit without relation": ({"fail_when": {"p95_ms": "2000"}}, [
        f"{FIRST}.fail_when.p95_ms: '2000' must be a relation and a number in quotes, for example \"< 10\";"
        " the unit is in the name"]),
    "limit with a unit": ({"fail_when": {"p95_ms": "> 2 s"}}, [
        f"{FIRST}.fail_when.p95_ms: '> 2 s' must be a relation and a number in quotes, for example \"< 10\";"
        " the unit is in the name"]),
    "limit of what nobody measures": ({"fail_when": {"p95": "> 2"}}, [
        f"{FIRST}.fail_when.p95: is not measured here; did you mean p95_ms?; measured are connections_cut,"
        " error_percent, failed, longest_gap_ms, p50_ms, p95_ms, p99_ms, sent, times_baseline"]),
    "time that goes backwards": ({"for_seconds": -1}, [f"{FIRST}.for_seconds: must be at least 0, not -1"]),
    "no pause": ({"interval_seconds": 0}, [f"{FIRST}.interval_seconds: must be at least 0.1, not 0"]),
    "limit below off": ({"failure_limit": -2}, [f"{FIRST}.failure_limit: must be at least 0, or -1 for no limit,"
                                                " not -2"]),
    "no measurement": ({"count": 0}, [f"{FIRST}.count: must be at least 1, not 0",
                                      f"{FIRST}.count: 0 is less than minimum_samples, 1"]),
    "fewer than wanted": ({"count": 2, "minimum_samples": 3}, [f"{FIRST}.count: 2 is less than minimum_samples, 3"]),
    "unknown policy": ({"no_data": "ok"}, [f"{FIRST}.no_data: must be one of fail, pass, inconclusive, extend,"
                                           " not 'ok'"]),
    "no weight": ({"weight": 0}, [f"{FIRST}.weight: must be more than 0, not 0; shadow counts for nothing"]),
    "key and shadow": ({"key": True, "shadow": True}, [
        f"{FIRST}.key: fails everything, but a shadow only reports; keep one"]),
    "query for requests": ({"query": "up"}, [f"{FIRST}.query: is for the metric prometheus, not for requests;"
                                             " remove it"]),
    "probe for requests": ({"probe": {"url": "http://x/"}}, [f"{FIRST}.probe: is for the metric probe, not for"
                                                             " requests; remove it"]),
    "baseline without floor": ({"fail_when": {"times_baseline": "> 10"}}, [
        f"{FIRST}.baseline_floor: must be more than 0: the least that times_baseline divides by, where it was"
        " nothing before"]),
    "floor without baseline": ({"baseline_floor": 1}, [f"{FIRST}.baseline_floor: is for a limit of times_baseline,"
                                                       " and there is none; remove it"]),
    "late": ({"initial_delay_seconds": 60}, ["watch_triggers: initial_delay_seconds of errors must be less than"
                                             " watch_seconds, 60"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_trigger(case):
    changes, sentences = WRONG[case]
    raw = {**REQUESTS, **changes}
    assert model({key: value for key, value in raw.items() if value is not ...})[1] == sentences


OTHERS = {
    "no query": ([{**QUERY, "query": " "}], {}, [
        f"{FIRST}.query: is missing; give a query to Prometheus that gives one number"]),
    "long query": ([{**QUERY, "query": "x" * 4001}], {}, [
        f"{FIRST}.query: has 4001 characters, at most 4000; use a recording rule"]),
    "two names for one number": ([{**QUERY, "warn_when": {"rate": "> 5"}}], {}, [
        f"{FIRST}: a query gives one number, but the limits call it error_percent and rate; keep one"]),
    "no Prometheus": ([QUERY], {"watch_prometheus_url": None}, [
        f"watch_prometheus_url: is missing; the trigger share asks Prometheus ({FIRST})"]),
    "credentials in a URL": ([QUERY], {"watch_prometheus_url": f"http://me:{SECRET}@metrics.test"}, [
        "watch_prometheus_url: must not hold a user or password, it is logged; send it in secret_headers"]),
    "query in a URL": ([QUERY], {"watch_prometheus_url": f"{URL}/?x=1"}, [
        "watch_prometheus_url: must be without a query, like http://127.0.0.1:9090"]),
    "password of nobody": ([QUERY], {"watch_prometheus_password": SECRET}, [
        "watch_prometheus_user: is missing; there is a watch_prometheus_password"]),
    "token and user": ([QUERY], {"watch_prometheus_token": SECRET, "watch_prometheus_user": "me"}, [
        "watch_prometheus_user: is there beside watch_prometheus_token; keep one"]),
    "token that is a list": ([QUERY], {"watch_prometheus_token": [SECRET]}, [
        "watch_prometheus_token: must be a string, not the value"]),
    "endless question": ([QUERY], {"watch_prometheus_timeout_seconds": 61}, [
        "watch_prometheus_timeout_seconds: must be above 0 and at most 60, not 61"]),
    "the same name twice": ([REQUESTS, REQUESTS], {}, [
        "watch_triggers[1].name: errors is the name of another trigger"]),
    "secrets of a probe": ([{**PROBE, "probe": {"url": URL, "secret_headers": {"Authorization": SECRET}}}], {}, [
        f"{FIRST}.probe.secret_headers: holds secrets and plans are shown; use a path that needs none"]),
    "bad probe": ([{**PROBE, "probe": {"url": URL, "status": [2]}}], {}, [
        f"{FIRST}.probe: probe {URL}: status must be a whole number from 100 to 599, not 2"]),
    "nothing watched": ([], {}, [
        "watch_builtin: is false and no trigger is there that counts, so nothing would be watched"]),
    "only shadows": ([{**REQUESTS, "shadow": True}], {}, [
        "watch_builtin: is false and no trigger is there that counts, so nothing would be watched"]),
    "unknown preset": ([], {"watch_presets": ["dotmak"]}, [
        "watch_presets[0]: 'dotmak' is no preset; did you mean dotmac?; there are clickview_compose, clickview_k8s,"
        " complinist, case_management, dotmac"]),
    "preset twice": ([], {"watch_presets": ["case_management", "case_management"]}, [
        "watch_presets[1]: case_management is there twice"]),
    "preset without Prometheus": ([], {"watch_presets": ["dotmac"], "watch_prometheus_url": None}, [
        "watch_prometheus_url: is missing; the trigger dotmac-security-alert asks Prometheus (watch_presets[0])"]),
    "percent above all": ([REQUESTS], {"watch_pass_percent": 101}, [
        "watch_pass_percent: must be 0 to 100 percent, not 101"]),
    "warning above passing": ([REQUESTS], {"watch_pass_percent": 75, "watch_warn_percent": 90}, [
        "watch_warn_percent: must come with watch_pass_percent, and not be above it"]),
    "warning alone": ([REQUESTS], {"watch_warn_percent": 90}, [
        "watch_warn_percent: must come with watch_pass_percent, and not be above it"]),
    "phase of nothing": ([REQUESTS], {"watch_phases": [{"seconds": 60, "progress_seconds": 0}]}, [
        "watch_phases[0].progress_seconds: must be at least 1, not 0"]),
    "negative extension": ([REQUESTS], {"watch_extend_seconds": -1}, [
        "watch_extend_seconds: must be at least 0, not -1"]),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_what_is_wrong_with_the_watch(case):
    triggers, more, sentences = OTHERS[case]
    found = model(*triggers, **more)[1]
    assert found == sentences
    assert not any(SECRET in sentence for sentence in found)


def test_a_model_is_settled_once():
    """What the plan hands on says itself what it comes to: settled again, it stays as it is."""
    completed, problems = model(QUERY, watch_presets=["dotmac"], watch_phases=[
        {"seconds": 1800, "progress_seconds": 300}, {"seconds": 5400, "progress_seconds": 900}])  # fmt: skip
    assert problems == []
    assert completed["watch_seconds"] == 7200
    names = ["dotmac-health", "dotmac-errors", "dotmac-p95", "dotmac-security-alert", "share"]
    assert [found.name for found in _triggers.made(completed)] == names
    again = copy.deepcopy(completed)
    assert _triggers.settle(again, OPTIONS, problems) == _triggers.made(completed)
    assert (again, problems) == (completed, [])


def test_secrets_are_in_no_result():
    completed, _problems = model(QUERY, watch_prometheus_user="me", watch_prometheus_password=SECRET)
    assert SECRET in str(completed)
    assert SECRET not in str(controller.open_values(completed, "watch_"))


# -- presets ----------------------------------------------------------------------------------------------------


def ledger(row):
    return next(line for line in LEDGER.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {row} |"))


def preset(name):
    completed, problems = model(watch_presets=[name])
    assert [problem for problem in problems if "nothing would be watched" not in problem] == []
    return {found.name.removeprefix(f"{name}-"): found for found in _triggers.made(completed)}


@pytest.mark.requirement("PDW-12", "PDW-13", "PDW-14", "PDW-15", "PDW-16", "PDW-17")
def test_presets_have_the_numbers_of_the_runbooks():
    """Against the rows of the ledger: each sentence there is what a trigger here is made of."""
    sizes = {"1 minute": 60, "2 minutes": 120, "5 minutes": 300}
    row = ledger("PDW-12")
    assert "000 any failure in the deploy script" in row
    assert preset("clickview_compose")["health"].policy.failure_limit == 0
    lasting = re.search(r"003 failures for more than (2 minutes)", row)
    assert preset("case_management")["health"].policy.for_seconds == sizes[lasting[1]]
    attempts = re.search(r"004 more than (\d) consecutive attempts", row)
    assert preset("dotmac")["health"].policy.consecutive_failure_limit == int(attempts[1])
    assert preset("dotmac")["health"].policy.failure_limit == _verdict.OFF

    row = ledger("PDW-13")
    for name, source in (("case_management", "003"), ("dotmac", "004")):
        percent, lasting = re.search(rf"{source} above (\d+)% for more than (\d minutes?)", row).groups()
        errors = preset(name)["errors"]
        assert [str(limit) for limit in errors.fail_when] == [f"error_percent > {percent}"]
        assert errors.policy.for_seconds == sizes[lasting]

    times = re.search(r"above (\d+) times normal", ledger("PDW-14"))[1]
    spike = preset("complinist")["errors"]
    assert [str(limit) for limit in spike.fail_when] == [f"times_baseline > {times}"]
    assert spike.baseline_floor > 0

    most, lasting = re.search(r"P95 exceeds (\d+) ms for more than (\d minutes)", ledger("PDW-15")).groups()
    slow = preset("dotmac")["p95"]
    assert [str(limit) for limit in slow.fail_when] == [f"p95_ms > {most}"]
    assert slow.policy.for_seconds == sizes[lasting]
    assert "p95" not in preset("complinist")

    assert "critical security alert fires" in ledger("PDW-16")
    alert = preset("dotmac")["security-alert"]
    assert alert.query == 'count(ALERTS{alertstate="firing",severity="critical",category="security"}) or vector(0)'
    assert [str(limit) for limit in alert.fail_when] == ["firing > 0"]
    assert alert.policy.failure_limit == 0

    assert "critical service unavailability" in ledger("PDW-17")
    for name in ("case_management", "complinist"):
        assert [str(limit) for limit in preset(name)["unavailable"].fail_when] == ["error_percent >= 100"]

    errors, latency = ledger("ALR-03"), ledger("ALR-07")
    assert "002 above 5%" in errors
    assert "002 P95 above 500 ms" in latency
    reported = preset("clickview_k8s").values()
    assert [str(found.fail_when[0]) for found in reported] == ["error_percent > 5", "p95_ms > 500"]
    assert all(found.shadow for found in reported)  # it has no automatic rollback


def test_labels_of_alerts_are_data():
    completed, problems = model(watch_presets=["dotmac"], watch_security_alerts='team="security"')
    assert problems == []
    assert 'ALERTS{alertstate="firing",team="security"}' in completed["watch_triggers"][3]["query"]
    assert "{watch_security_alerts}" in _presets.PRESETS["dotmac"][3]["query"]


# -- one measurement --------------------------------------------------------------------------------------------


def account(sent=100, error_percent=0.0, p95_ms=120.0, **failures):
    latencies = {"p50_ms": p95_ms, "p95_ms": p95_ms, "p99_ms": p95_ms}
    return {"sent": sent, "error_percent": error_percent, **latencies, "failures": failures}


def test_requests():
    errors = trigger()
    good = _triggers.of_requests(errors, account(), None, 10, 3.0)
    assert good == _verdict.Measurement("successful", 3.0, "error_percent 0 (limit > 10)", (), 0.0)
    bad = _triggers.of_requests(errors, account(error_percent=12.5, http_5xx=12), None, 10, 3.0)
    assert bad == _verdict.Measurement("failed", 3.0, "error_percent 12.5 > 10", ("failed: 12 http_5xx",), 12.5)
    few = _triggers.of_requests(errors, account(sent=9, error_percent=100.0), None, 10, 3.0)
    assert few == _verdict.Measurement("no_data", 3.0, "9 requests, 10 needed")


def test_of_requests_that_are_all_in_vain_none_is_fast():
    slow = trigger(fail_when={"p95_ms": "> 2000"})
    found = _triggers.of_requests(slow, account(error_percent=100.0, p95_ms=None, timeout=100), None, 10, 3.0)
    assert found == _verdict.Measurement("failed", 3.0, "p95_ms inf > 2000", ("failed: 100 timeout",), math.inf)


@pytest.mark.parametrize(
    ("rate", "baseline", "status", "text"),
    [
        (9.9, 1.0, "successful", "times_baseline 9.9 (limit > 10)"),
        (10.5, 1.0, "failed", "times_baseline 10.5 > 10"),
        (4.0, 0.0, "successful", "times_baseline 8 (limit > 10)"),  # of nothing: of the floor
        (6.0, 0.0, "failed", "times_baseline 12 > 10"),
        (6.0, None, "failed", "times_baseline 12 > 10"),  # nobody was asked before
        (0.0, 0.0, "successful", "times_baseline 0 (limit > 10)"),
    ],
)
def test_times_the_baseline(rate, baseline, status, text):
    spike = trigger(fail_when={"times_baseline": "> 10"}, baseline_floor=0.5)
    found = _triggers.of_requests(spike, account(error_percent=rate), baseline, 10, 0.0)
    assert (found.status, found.text) == (status, text)
    completed, _problems = model({**QUERY, "fail_when": {"times_baseline": "> 10"}, "baseline_floor": 0.5})
    asked = _triggers.of_prometheus(_triggers.made(completed)[0], Reading(rate), Reading(baseline), 0.0)
    assert (asked.status, asked.text) == (status, text)


def test_probes():
    completed, _problems = model(PROBE)
    (health,) = _triggers.made(completed)
    good = SimpleNamespace(name="a", passed=True, problem="", duration_ms=5)
    bad = SimpleNamespace(name="b", passed=False, problem="HTTP 503", duration_ms=9)
    assert _triggers.of_probes(health, [good], 1.0) == _verdict.Measurement(
        "successful", 1.0, "failed 0 (limit > 0)", (), 0
    )
    found = _triggers.of_probes(health, [good, bad], 1.0)
    assert found == _verdict.Measurement("failed", 1.0, "failed 1 > 0: b: HTTP 503", ("b: HTTP 503",), 1)


@pytest.mark.parametrize(
    ("now", "before", "status", "text"),
    [
        (Reading(12.0), None, "failed", "error_percent 12 > 10"),
        (Reading(2.0), None, "successful", "error_percent 2 (limit > 10)"),
        (Reading(None, "", "the query is NaN"), None, "no_data", "the query is NaN"),
        (Reading(None, "it is down"), None, "error", "it is down"),
        (Reading(2.0), Reading(None, "it was down"), "error", "it was down"),
    ],
)
def test_prometheus(now, before, status, text):
    completed, _problems = model(QUERY)
    found = _triggers.of_prometheus(_triggers.made(completed)[0], now, before, 4.0)
    assert found == _verdict.Measurement(
        status, 4.0, text, (), now.value if status in ("successful", "failed") else None
    )


# -- the watch as it goes ---------------------------------------------------------------------------------------


def watch(*triggers, **more):
    completed, problems = model(*triggers, **more)
    assert problems == []
    return Watch(plan(completed["watch_seconds"], completed))


LETTERS = {"s": "successful", "f": "failed", "i": "inconclusive", "e": "error", "n": "no_data"}


def go(going, rows, every=2.0, builtin=""):
    """One letter each ``every`` seconds for every trigger, the last of them for ever; how it ended, and when."""
    elapsed, step = 0.0, 0
    while True:
        for name in going.due(elapsed):
            letters = builtin if name == BUILTIN else rows[name]
            letter = letters[min(step, len(letters) - 1)]
            if name == BUILTIN:
                word = {"s": "ok", "f": "failed", "n": "no_data"}[letter]
                going.took(name, Measurement(word, f"requests {word}"))
            else:
                going.took(name, _verdict.Measurement(LETTERS[letter], elapsed, f"it {LETTERS[letter]}"))
        found = going.judge(elapsed)
        if found.word != "running":
            return found.word, elapsed, found.text, found.trigger
        elapsed, step = elapsed + every, step + 1
        assert elapsed < 10_000


def test_all_good_ends_with_the_window():
    assert go(watch(REQUESTS, QUERY), {"errors": "s", "share": "s"}) == (
        "passed", 60, "trigger errors: it successful; trigger share: it successful", "")  # fmt: skip


def test_one_that_fails_decides_at_once_and_is_named():
    word, at, text, name = go(watch(REQUESTS, QUERY), {"errors": "s", "share": "sssf"})
    assert (word, at, text, name) == ("failed", 6, "trigger share: it failed", "share")


@pytest.mark.requirement("PDW-13")
def test_it_must_last():
    """Above the limit for a minute; the watch itself may be shorter, and goes on until it is decided."""
    lasting = {**REQUESTS, "for_seconds": 60}
    found = go(watch(lasting), {"errors": "ss" + "f"})
    assert found == ("failed", 64, "trigger errors: it failed for 60 s (limit 60 s)", "errors")
    assert go(watch(lasting, watch_seconds=10), {"errors": "ss" + "f"})[:2] == ("failed", 64)
    assert go(watch(lasting, watch_seconds=10), {"errors": "ss" + "f" * 20 + "s"})[:2] == ("passed", 44)
    assert go(watch(lasting), {"errors": "sf" * 15 + "s"})[0] == "passed"


@pytest.mark.requirement("HC-41", "PDW-12")
def test_more_than_three_attempts_in_a_row():
    four = {**PROBE, "failure_limit": -1, "consecutive_failure_limit": 3}
    found = go(watch(four), {"health": "fffs" + "ffff"})
    assert found == ("failed", 14, "trigger health: it failed, 4 times in a row (limit 3)", "health")
    assert go(watch(four), {"health": "fffs" * 5 + "s"})[0] == "passed"


def test_shadows_only_report():
    found = go(watch(REQUESTS, {**QUERY, "shadow": True}), {"errors": "s", "share": "f"})
    assert found == ("passed", 60, "trigger errors: it successful; shadow share: it failed", "")


@pytest.mark.requirement("PDW-20")
def test_no_answer_is_attention_and_fails_unless_the_inventory_says_otherwise():
    word, at, text, name = go(watch(REQUESTS, QUERY), {"errors": "s", "share": "sse"})
    assert (word, at, name) == ("failed", 12, "share")
    assert text == "trigger share: attention: it error, 5 errors in a row (limit 4)"
    word, at, text, _name = go(watch(REQUESTS, QUERY, watch_on_error="stay"), {"errors": "s", "share": "sse"})
    assert (word, at) == ("attention", 60)
    assert text == "attention: trigger share: attention: it error, 5 errors in a row (limit 4)"
    # An answer that is missing at the end is waited for.
    assert go(watch(QUERY), {"share": "s" * 30 + "e"})[:2] == ("failed", 68)
    assert go(watch(QUERY), {"share": "s" * 30 + "es"})[:2] == ("passed", 62)


def test_unclear_is_attention_and_stays_unless_the_inventory_says_otherwise():
    found = go(watch(QUERY), {"share": "si"})
    assert found == ("attention", 60, "attention: trigger share: it inconclusive (1 inconclusive, inconclusive_limit"
                                      " is 0)", "")  # fmt: skip
    assert go(watch(QUERY, watch_on_inconclusive="fail"), {"share": "si"})[:2] == ("failed", 2)


def test_one_that_means_failure_is_not_hidden_by_a_worse_one_that_does_not():
    """No answer stays here, but what is unclear fails, and that is only known at the end."""
    unknown = {**REQUESTS, "no_data": "inconclusive"}
    going = watch(unknown, QUERY, watch_on_error="stay", watch_on_inconclusive="fail")
    assert go(going, {"errors": "n", "share": "e"})[:2] == ("failed", 60)
    assert go(watch(unknown, QUERY, watch_on_error="stay"), {"errors": "n", "share": "e"})[:2] == ("attention", 60)


@pytest.mark.parametrize(
    ("policy", "word", "at"), [("fail", "failed", 60), ("pass", "passed", 60), ("inconclusive", "attention", 60),
                               ("extend", "attention", 90)]
)  # fmt: skip
def test_no_data(policy, word, at):
    going = watch({**QUERY, "no_data": policy}, watch_extend_seconds=30)
    assert go(going, {"share": "n"})[:2] == (word, at)


@pytest.mark.requirement("PDW-20")
@pytest.mark.parametrize(
    ("policy", "word", "at"),
    [("fail", "failed", 60), ("pass", "passed", 60), ("inconclusive", "attention", 60), ("extend", "attention", 90)],
)
def test_data_that_is_lost_on_the_way(policy, word, at):
    going = watch({**QUERY, "no_data": policy}, watch_extend_seconds=30)
    found = go(going, {"share": "s" * 20 + "n"})
    assert found[:2] == (word, at)
    assert "no data: it no_data (none in the last " in found[2]


def test_extended_until_there_is_enough():
    going = watch({**QUERY, "no_data": "extend", "minimum_samples": 3}, watch_extend_seconds=30)
    assert go(going, {"share": "n" * 35 + "s"})[:2] == ("passed", 74)


@pytest.mark.parametrize(
    ("policy", "word", "at"), [("fail", "failed", 60), ("inconclusive", "attention", 60), ("extend", "attention", 90)]
)
def test_no_requests(policy, word, at):
    """What watch_no_data says of the requests that are watched without a trigger."""
    going = watch(watch_builtin=True, watch_no_data=policy, watch_extend_seconds=30)
    found = go(going, {}, builtin="n")
    assert found[:2] == (word, at)
    assert "no data: requests no_data" in found[2]


def test_requests_and_triggers_together():
    going = watch(QUERY, watch_builtin=True)
    assert go(going, {"share": "s"}, builtin="s")[:3] == (
        "passed", 60, "requests ok; trigger share: it successful")  # fmt: skip
    assert go(watch(QUERY, watch_builtin=True), {"share": "s"}, builtin="ssf")[:3] == (
        "failed", 8, "requests failed, 3 times in a row")  # fmt: skip
    word, _at, text, _name = go(watch(QUERY, watch_builtin=True, watch_on_error="stay"), {"share": "e"}, builtin="s")
    assert (word, text.count("attention: trigger share")) == ("attention", 1)


def test_weights_decide_at_the_end():
    heavy, light = {**REQUESTS, "weight": 3}, {**QUERY, "weight": 1}
    limits = {"watch_pass_percent": 90, "watch_warn_percent": 75}
    assert go(watch(heavy, light, **limits), {"errors": "s", "share": "f"})[:2] == ("attention", 60)
    found = go(watch(heavy, light, **limits), {"errors": "f", "share": "s"})
    assert found == ("failed", 60, "trigger errors: it failed (25 % of the weight, pass_percent is 90,"
                                   " warn_percent 75)", "errors")  # fmt: skip
    key = {**light, "key": True}
    assert go(watch(heavy, key, **limits), {"errors": "s", "share": "f"})[:2] == ("failed", 0)


def test_each_is_asked_by_its_own_interval_and_not_twice_at_once():
    slow = {**QUERY, "interval_seconds": 10, "initial_delay_seconds": 5}
    going = watch(REQUESTS, slow)
    assert (going.due(0), going.next_seconds()) == (["errors"], 5)
    assert going.due(4) == []  # the first has not answered
    going.took("errors", _verdict.Measurement("successful", 4))
    assert (going.due(4), going.due(5)) == (["errors"], ["share"])
    assert going.due(50) == []
    assert going.next_seconds() == float("inf")


def test_who_is_content_is_not_asked_any_more():
    going = watch({**REQUESTS, "count": 3})
    assert go(going, {"errors": "sssf"})[:2] == ("passed", 60)
    assert going.measurements == 3


def test_the_line_of_progress_says_how_near_each_is():
    going = watch({**REQUESTS, "for_seconds": 60}, QUERY, PROBE, watch_phases=[
        {"seconds": 1800, "progress_seconds": 300}, {"seconds": 5400, "progress_seconds": 900}])  # fmt: skip
    going.took("errors", _verdict.Measurement("failed", 0.0, "error_percent 12 > 10"))
    going.took("errors", _verdict.Measurement("failed", 20.0, "error_percent 12 > 10"))
    going.took("share", _verdict.Measurement("error", 20.0, "no answer"))
    assert going.text() == (
        "errors: error_percent 12 > 10 for 20 of 60 s   share: no answer, 1 in a row of 4 that are borne"
        "   health: not measured yet"
    )
    assert [going.progress_seconds(at) for at in (0, 1799, 1800, 9000)] == [300, 300, 900, 900]
    assert watch(QUERY).progress_seconds(5) == 10
    many = [{**REQUESTS, "name": f"t{i}"} for i in range(7)]
    assert watch(*many).text().endswith("   3 more")


@pytest.mark.requirement("PDW-01")
def test_what_was_measured_is_kept():
    going = watch(REQUESTS, {**QUERY, "failure_limit": -1})
    for i, value in enumerate([1.5, None, math.inf]):
        going.took("errors", _verdict.Measurement("successful", float(i), "x", (), value))
    assert going.series() == {
        "errors": [(0.0, 1.5, "successful"), (1.0, None, "successful"), (2.0, None, "successful")],
        "share": [],
    }
    for i in range(5000):
        going.took("share", _verdict.Measurement("failed", float(i), "x", (), float(i)))
    kept = going.series()["share"]
    assert 60 <= len(kept) <= 120
    assert (kept[0][0], kept[-1][0]) == (0.0, 4999.0)
    assert json.loads(json.dumps(kept, allow_nan=False))


ROWS = st.text(alphabet="sfien", min_size=1, max_size=60)


@given(
    ROWS,
    ROWS,
    st.sampled_from(["fail", "pass", "inconclusive", "extend"]),
    st.integers(-1, 3),
    st.integers(-1, 3),
    st.sampled_from([0.0, 10.0, 100.0]),
)
def test_it_always_ends_in_time_and_for_a_reason(one, other, policy, failures, row, lasting):
    limits = {"no_data": policy, "failure_limit": failures, "consecutive_failure_limit": row, "for_seconds": lasting}
    going = watch({**REQUESTS, **limits}, QUERY)
    word, at, text, name = go(going, {"errors": one, "share": other})
    assert at <= 60 + going.plan.beyond_seconds + 2
    assert text
    if word == "passed":
        assert at >= 60
        assert set(one) & set("sfi") or policy == "pass"
        assert "s" in other
        assert not name
    else:
        assert (word == "failed") == bool(name)


def test_a_step_has_time_for_what_its_triggers_may_need():
    completed, _problems = model({**REQUESTS, "for_seconds": 300, "failure_limit": 2})
    assert _triggers.beyond_seconds(completed, _triggers.made(completed)) == 300 + 5 * (2 + 5)
    shadow, _problems = model(PROBE, {**REQUESTS, "for_seconds": 300, "shadow": True})
    assert _triggers.beyond_seconds(shadow, _triggers.made(shadow)) == 5 * (2 + 5)
    long, _problems = model({**QUERY, "no_data": "extend"}, watch_extend_seconds=600)
    assert _triggers.beyond_seconds(long, _triggers.made(long)) == 600
