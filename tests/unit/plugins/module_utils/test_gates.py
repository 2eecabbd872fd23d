# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gates: what is judged by records and by what people say, and the decision on all of them."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _gates
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Problems
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=timezone.utc).timestamp()
HOUR = 3600.0


def load(*gates: dict[str, Any]) -> _gates.Gates:
    problems = Problems()
    loaded = _gates.load([{"name": gate["check"], **gate} for gate in gates], "app_gates", problems)
    assert not problems, problems
    return loaded


def own(**gate: Any) -> dict[str, Any]:
    return dict(load(gate).own[0])


def wrong(gate: Any, *before: Any) -> list[str]:
    problems = Problems()
    _gates.load([*before, gate], "app_gates", problems)
    return list(problems)


def note(gate: str, kind: str, user: str = "anna", hours_ago: float = 1, **more: Any) -> dict[str, Any]:
    said = {"verb": "attest", "gate": gate, "kind": kind, "version": "1.3.0", "by": {"user": user}, "evidence": ""}
    return {**said, "reason": "", "valid_hours": 0, "ended": NOW - hours_ago * HOUR, **more}


def no_proof(gate: Any, version: str) -> Any:
    raise RunbookError("there is none")


def facts(**more: Any) -> _gates.Facts:
    known: dict[str, Any] = {
        "now": NOW,
        "version": "1.3.0",
        "requester": "carl",
        "notes": [],
        "live": None,
        "history": [],
        "targets": {},
        "application": "shop",
        "code": {},
        "proof": no_proof,
    }
    return _gates.Facts(**{**known, **more})


def status(gate: dict[str, Any], **more: Any) -> str:
    return str(_gates.judge(gate, facts(**more))["status"])


# -- what people say ----------------------------------------------------------------------------------------------

PLAN = {"check": "attestation", "name": "plan", "statement": "the rollback plan is written down"}


@pytest.mark.requirement("PRE-12")
def test_an_attestation_holds_for_its_version_and_for_its_time() -> None:
    gate = own(**PLAN, valid_hours=48)
    assert status(gate) == "missing"
    said = _gates.judge(gate, facts(notes=[note("plan", "attestation", evidence="https://wiki/42")]))
    assert said["status"] == "pass"
    assert said["text"] == "the rollback plan is written down: anna, 2026-11-27T11:00:00Z (https://wiki/42)"
    assert status(gate, notes=[note("plan", "attestation", hours_ago=48)]) == "missing"
    assert status(gate, notes=[note("plan", "attestation", hours_ago=47.9)]) == "pass"
    assert status(gate, notes=[note("plan", "attestation", hours_ago=60, valid_hours=72)]) == "pass"
    assert status(gate, notes=[note("plan", "attestation", version="1.2.9")]) == "missing"
    assert status(gate, notes=[note("other", "attestation")]) == "missing"
    assert status(gate, notes=[note("plan", "waiver")]) == "missing"


def test_an_attestation_may_hold_for_every_version() -> None:
    gate = own(**PLAN, each_version=False)
    assert status(gate, notes=[note("plan", "attestation", version="")]) == "pass"


def test_what_is_missing_says_how_to_say_it() -> None:
    judged = _gates.judge(own(**PLAN), facts())
    assert judged["text"] == "nobody has attested: the rollback plan is written down"
    assert "attest.yml -e app_version=1.3.0 -e 'attest_gate=plan'" in judged["advice"]


@pytest.mark.requirement("ENV-16")
@pytest.mark.parametrize(
    ("users", "expected"),
    [
        ([], "missing"),
        (["anna"], "missing"),
        (["anna", "anna"], "missing"),  # one person twice is one
        (["anna", "carl"], "missing"),  # carl asks for it
        (["anna", "bert"], "pass"),
        (["anna", "bert", "carl"], "pass"),
    ],
)
def test_approvals_are_of_different_people_and_not_of_who_asks(users: list[str], expected: str) -> None:
    gate = own(check="approval", people=2)
    assert status(gate, notes=[note("approval", "approval", user) for user in users]) == expected


def test_who_asks_counts_where_that_is_allowed() -> None:
    assert status(own(check="approval", not_requester=False), notes=[note("approval", "approval", "carl")]) == "pass"


def test_an_approval_is_of_one_version_and_ends() -> None:
    gate = own(check="approval")
    assert status(gate, notes=[note("approval", "approval", version="1.2.0")]) == "missing"
    assert status(gate, notes=[note("approval", "approval", hours_ago=24)]) == "missing"


# -- windows --------------------------------------------------------------------------------------------------------


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


@pytest.mark.requirement("ENV-20", "PRE-43")
@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-27T20:59", "fail"),  # Friday 21:59 in Berlin
        ("2026-11-27T21:00", "pass"),
        ("2026-11-28T02:59", "pass"),  # Saturday 03:59: the span began on Friday
        ("2026-11-28T03:00", "fail"),
        ("2026-11-28T22:00", "fail"),  # Saturday itself has none
        ("2026-11-29T02:00", "fail"),  # Sunday night belongs to Saturday
        ("2026-07-03T19:59", "fail"),  # summer time
        ("2026-07-03T20:00", "pass"),
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_it_begins_on(now: str, expected: str) -> None:
    span = {"days": ["fri"], "from": "22:00", "to": "04:00"}
    assert status(own(check="window", time_zone="Europe/Berlin", allowed=[span]), now=at(now)) == expected


def test_a_window_within_a_day_and_one_until_midnight() -> None:
    day = own(check="window", allowed=[{"from": "09:00", "to": "17:00"}])
    assert status(day, now=at("2026-11-27T09:00")) == "pass"
    assert status(day, now=at("2026-11-27T17:00")) == "fail"
    late = own(check="window", allowed=[{"from": "22:00", "to": "24:00"}])
    assert status(late, now=at("2026-11-27T23:59")) == "pass"
    assert status(late, now=at("2026-11-28T00:00")) == "fail"


def test_a_freeze_wins_over_an_allowed_window_and_says_why() -> None:
    gate = own(
        check="window",
        allowed=[{"from": "00:00", "to": "24:00"}],
        frozen=[{"from": "2026-12-20", "to": "2027-01-03", "reason": "year's end"}],
    )
    assert status(gate, now=at("2026-12-19T23:59")) == "pass"
    judged = _gates.judge(gate, facts(now=at("2027-01-03T23:59")))
    assert judged["status"] == "fail" and "frozen until the end of 2027-01-03: year's end" in judged["text"]
    assert status(gate, now=at("2027-01-04T00:00")) == "pass"


@given(st.integers(0, 7 * 24 * 60 - 1), st.integers(0, 1440), st.integers(0, 1440), st.sets(st.integers(0, 6)))
def test_a_window_is_the_union_of_its_days(minute: int, begin: int, end: int, days: set[int]) -> None:
    """Against a plain model: all minutes of the week that are open, listed."""
    if begin == end or not days:
        return
    length = (end - begin) % 1440 or 1440
    if begin == 1440:
        length = end  # 24:00 is midnight, the end of the day it is said of
    opened = {(day * 1440 + begin + i) % (7 * 1440) for day in days for i in range(length)}
    span = {
        "days": [_gates.DAYS[day] for day in sorted(days)],
        "from": f"{begin // 60:02d}:{begin % 60:02d}",
        "to": f"{end // 60:02d}:{end % 60:02d}",
    }
    monday = at("2026-11-23T00:00")
    expected = "pass" if minute in opened else "fail"
    assert status(own(check="window", allowed=[span]), now=monday + minute * 60) == expected


# -- records --------------------------------------------------------------------------------------------------------

LIVE = {"release": "1.2.0-aaaaaaaa", "version": "1.2.0", "slot": "blue"}


def target(*releases: str, running: str = "") -> dict[str, Any]:
    slot = {"release": running, "version": "1.2.0", "running": True} if running else None
    return {"releases": [{"id": release} for release in releases], "slots": {"blue": slot, "green": None}}


@pytest.mark.requirement("PRE-13")
def test_what_is_live_must_be_whole_everywhere_to_go_back_to() -> None:
    gate = own(check="rollback")
    there = target(LIVE["release"], running=LIVE["release"])
    assert status(gate, live=None) == "warn"
    assert status(gate, live=LIVE, targets={"a": there, "b": there}) == "pass"
    history = [{"outcome": "restored", "duration_s": 2.6}, {"outcome": "restored", "duration_s": 3.2}, {"outcome": "x"}]
    known = _gates.judge(gate, facts(live=LIVE, targets={"a": there}, history=history))
    assert known["text"] == "1.2.0 in blue stands on 1 of 1 targets; the last rollback took 3 s"
    lost = _gates.judge(gate, facts(live=LIVE, targets={"a": there, "b": target(running=LIVE["release"])}))
    assert lost["status"] == "fail" and "not whole on b" in lost["text"]
    unknown = _gates.judge(gate, facts(live=LIVE, targets={"a": there, "b": {"problem": "is unreachable (no route)"}}))
    assert (unknown["status"], unknown["text"]) == ("missing", "b is unreachable (no route)")
    cold = _gates.judge(gate, facts(live=LIVE, targets={"a": there, "b": target(LIVE["release"])}))
    assert cold["status"] == "warn" and "does not run on b" in cold["text"]


RECORD = {
    "application": "shop",
    "environment": "staging",
    "version": "1.3.0",
    "release": "1.3.0-bbbbbbbb",
    "code": {"api": {"sha256": "1" * 64}},
    "run": 12,
    "verified_at": NOW - 2 * HOUR,
}
STAGING = {"check": "promotion", "from": "staging", "proof": "proofs/shop.json"}


def promoted(record: dict[str, Any], text: str = "", **gate: Any) -> dict[str, Any]:
    written = text or _gates.proof(record)
    known = facts(code=RECORD["code"], proof=lambda _gate, _version: _gates.read_proof(written))
    return _gates.judge(own(**STAGING, **gate), known)


@pytest.mark.requirement("ENV-01", "ENV-02")
def test_a_release_is_promoted_once_it_was_verified_elsewhere_and_ran_there_for_a_while() -> None:
    passed = promoted(RECORD, soak_minutes=60)
    assert passed["status"] == "pass" and "verified in staging at 2026-11-27T10:00:00Z (run 12)" in passed["text"]
    early = promoted(RECORD, soak_minutes=121)
    assert early["status"] == "fail" and "120 of 121 min ago" in early["text"]
    assert promoted(RECORD, valid_hours=1)["status"] == "fail"


@pytest.mark.requirement("ENV-01", "BLD-14")
@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"application": "other"}, "is of application other, not shop"),
        ({"environment": "dev"}, "is of environment dev, not staging"),
        ({"version": "1.2.0"}, "is of version 1.2.0, not 1.3.0"),
        ({"code": {"api": {"sha256": "2" * 64}}}, "the code of api is not what staging ran as 1.3.0"),
    ],
)
def test_a_proof_of_something_else_is_none(changed: dict[str, Any], says: str) -> None:
    judged = promoted({**RECORD, **changed})
    assert judged["status"] == "fail" and says in judged["text"]


@given(st.data())
def test_a_proof_that_was_changed_is_refused(data: st.DataObject) -> None:
    text = _gates.proof(RECORD)
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from('x0}" '))
    changed = text[:place] + letter + text[place + 1 :]
    try:
        same = json.loads(changed) == json.loads(text)
    except ValueError:
        same = False
    assert promoted(RECORD, changed)["status"] == ("pass" if same else "missing")


@pytest.mark.requirement("ENV-01")
def test_records_of_the_other_environment_are_a_proof_too() -> None:
    gate = own(check="promotion", **{"from": "staging", "journal": "/var/lib/shop-staging"})
    place = {"release": RECORD["release"], "version": "1.3.0", "slot": "blue"}
    there = {"application": "shop", "environment": "staging", "verb": "deploy", "run": 12, "ended": NOW - HOUR}
    deployed = {**there, "outcome": "deployed", "to": place, "artifacts": {"api": {"sha256": "1" * 64}}}
    later = {**there, "run": 13, "outcome": "failed", "to": place}

    def judged(*history: dict[str, Any]) -> dict[str, Any]:
        known = facts(code=RECORD["code"], proof=lambda _gate, version: _gates.proof_in(history, version))
        return _gates.judge(gate, known)

    assert judged(deployed, later)["status"] == "pass"
    assert "verified in staging at 2026-11-27T11:00:00Z (run 12)" in judged(deployed, later)["text"]
    assert judged(later)["text"] == "/var/lib/shop-staging: 1.3.0 was never verified there"
    other = {**deployed, "artifacts": {"api": {"sha256": "2" * 64}}}
    assert judged(other)["status"] == "fail"
    assert judged({**deployed, "environment": "production"})["status"] == "fail"


def test_without_a_proof_the_gate_is_missing() -> None:
    judged = _gates.judge(own(**STAGING), facts())
    assert judged["status"] == "missing" and judged["text"] == "proofs/shop.json: there is none"


# -- the decision -----------------------------------------------------------------------------------------------------


def row(name: str, status: str = "pass", **more: Any) -> dict[str, Any]:
    given = {"check": "report", "measured": {}, "text": f"{name} text", "limit": "", "source": "", "advice": ""}
    return {"name": name, "status": status, "blocking": True, "weight": 1.0, **given, **more}


@pytest.mark.requirement("BLD-07", "BLD-08", "BLD-09")
def test_the_runbooks_example_is_remediate_at_97_5_percent() -> None:
    names = ("code_quality", "security", "unit_tests", "integration", "e2e_tests", "accessibility")
    rows = [row(name) for name in names]
    rows[2] = row("unit_tests", "fail", measured={"pass_percent": 85.0})
    decision = _gates.decide(rows, [], "1.3.0", NOW, remediable=names)
    assert (decision.word, decision.score_percent, decision.blocking) == ("REMEDIATE", 97.5, ("unit_tests",))
    percents = {found["name"]: found["percent"] for found in decision.rows}
    assert percents == {**dict.fromkeys(names, 100.0), "unit_tests": 85.0}
    assert "(blocking)" in "\n".join(_gates.table(decision))
    everything = _gates.decide([row(name) for name in names], [], "1.3.0", NOW)
    assert (everything.word, everything.score_percent) == ("PROCEED", 100.0)
    assert _gates.decide(rows, [], "1.3.0", NOW).word == "BLOCK"  # nothing says that it can be remedied


def test_an_optional_gate_counts_only_when_it_was_answered() -> None:
    silent = _gates.decide([row("a"), row("performance", "missing", blocking=False)], [], "1", NOW)
    assert (silent.word, silent.score_percent) == ("PROCEED", 100.0)
    slow = _gates.decide([row("a"), row("performance", "fail", blocking=False)], [], "1", NOW)
    assert (slow.word, slow.score_percent) == ("PROCEED", 50.0)


def test_no_gates_proceed() -> None:
    assert _gates.decide([], [], "1", NOW)[:3] == ("PROCEED", 100.0, ())


def test_several_hosts_are_one_row_the_worst_of_them() -> None:
    (merged,) = _gates.merge(
        [row("disk", host="a"), row("disk", "fail", text="8 % free", host="b"), row("disk", "missing", host="c")]
    )
    assert merged["status"] == "missing"
    assert merged["text"] == "b: 8 % free; c: disk text"


STATUSES = st.sampled_from(["pass", "warn", "fail", "missing"])
ROWS = st.lists(
    st.tuples(st.sampled_from("abcd"), STATUSES, st.booleans(), st.floats(0.1, 10)),
    max_size=6,
    unique_by=lambda r: r[0],
)


@given(ROWS, st.sets(st.sampled_from("abcd")), st.sets(st.sampled_from("abcd")))
def test_the_decision_table(rows: list[Any], waived: set[str], remediable: set[str]) -> None:
    given_rows = [row(name, word, blocking=blocking, weight=weight) for name, word, blocking, weight in rows]
    notes = [note(name, "waiver", reason="tonight only") for name in sorted(waived)]
    decision = _gates.decide(given_rows, notes, "1.3.0", NOW, sorted(remediable))
    bad = [n for n, word, blocking, _w in rows if blocking and word in ("fail", "missing") and n not in waived]
    assert list(decision.blocking) == bad
    assert decision.word == ("PROCEED" if not bad else "REMEDIATE" if set(bad) <= remediable else "BLOCK")
    assert 0 <= decision.score_percent <= 100
    assert len(decision.rows) == len(rows)
    lines = _gates.table(decision)
    assert all(any(name in line for line in lines) for name, *_rest in rows)


def test_a_waiver_is_for_one_version_has_a_reason_and_ends() -> None:
    failing = [row("disk", "fail")]
    assert _gates.decide(failing, [note("disk", "waiver", version="1.2.0")], "1.3.0", NOW).word == "BLOCK"
    assert _gates.decide(failing, [note("disk", "waiver", hours_ago=24)], "1.3.0", NOW).word == "BLOCK"
    waived = _gates.decide(failing, [note("disk", "waiver", reason="grows tonight")], "1.3.0", NOW)
    assert waived.word == "PROCEED" and waived.rows[0]["status"] == "waived"
    assert "waived by anna, 2026-11-27T11:00:00Z: grows tonight" in waived.rows[0]["text"]


# -- statements -------------------------------------------------------------------------------------------------------

DISK = {"name": "disk", "check": "disk", "path": "/"}
BY = {"user": "anna", "host": "ops1", "job": ""}


def said(gate: str, version: str = "1.3.0", **given: Any) -> dict[str, Any]:
    full = {"gate": gate, "evidence": "", "waive": False, "reason": "", "valid_hours": 0.0, **given}
    gates = load(PLAN, DISK, {"check": "approval"})
    return _gates.statement([gates], full, version, BY)


def test_a_statement_has_who_what_and_for_which_version() -> None:
    record = said("plan", evidence="https://wiki/42")
    assert record["outcome"] == "attested" and record["by"] == BY and record["version"] == "1.3.0"
    assert said("approval")["outcome"] == "approved"
    waived = said("disk", waive=True, reason="grows tonight")
    assert (waived["kind"], waived["outcome"]) == ("waiver", "waived")
    judged = _gates.judge(load(PLAN).own[0], facts(notes=[{**record, "ended": NOW}]))
    assert judged["status"] == "pass"


@pytest.mark.parametrize(
    ("gate", "given", "says"),
    [
        ("plam", {}, "attest_gate: 'plam' is no gate of this inventory; did you mean plan?; there are: disk, plan"),
        ("disk", {}, "attest_gate: disk is a disk, which is found out, not attested"),
        ("disk", {"waive": True}, "attest_reason: is missing; say why disk"),
        ("disk", {"waive": True, "reason": "  "}, "attest_reason: is missing"),
        ("plan", {"version": ""}, "app_version: is missing; the attestation of plan is for one version"),
        ("plan", {"valid_hours": -1.0}, "attest_valid_hours: must be 0 or more hours, not -1"),
    ],
)
def test_a_statement_that_can_not_be_made_says_why(gate: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(RunbookError) as caught:
        said(gate, **given)
    assert str(caught.value).startswith(says)


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "says"),
    [
        ({"name": "x", "check": "dist"}, "app_gates[0].check: 'dist' is no kind of gate; did you mean disk?"),
        ({"name": "x"}, "app_gates[0].check: None is no kind of gate"),
        ({"check": "window", "frozen": []}, "app_gates[0].name: is missing; give the name of the gate"),
        ({**PLAN, "statement": None}, "app_gates[0].statement: is missing; give what somebody has to attest"),
        ({**PLAN, "valid_days": 2}, "app_gates[0].valid_days: unknown key; did you mean valid_hours?"),
        ({**PLAN, "valid_hours": -1}, "app_gates[0].valid_hours: -1 must be 0 or more"),
        (
            {**PLAN, "phases": ["month"]},
            "app_gates[0].phases[0]: must be one of week, day, hour, deploy, verify, not 'month'",
        ),
        ({**PLAN, "on": "targets"}, "app_gates[0].on: attestation is judged on the controller by the records"),
        ({**PLAN, "on_failure": "ignore"}, "app_gates[0].on_failure: must be one of block, remediate"),
        ({"name": "a", "check": "approval", "people": 0}, "app_gates[0].people: 0 must be 1 or more"),
        ({"name": "a", "check": "approval", "people": "two"}, "app_gates[0].people: must be a whole number"),
        ({"name": "w", "check": "window"}, "app_gates[0]: says neither allowed nor frozen"),
        (
            {"name": "w", "check": "window", "time_zone": "Mars/Base", "allowed": [{"from": "1:00", "to": "2:00"}]},
            "app_gates[0].time_zone: 'Mars/Base' is no time zone",
        ),
        (
            {"name": "w", "check": "window", "allowed": [{"from": "25:00", "to": "2:00"}]},
            "app_gates[0].allowed[0].from: '25:00' must be a time of day",
        ),
        (
            {"name": "w", "check": "window", "allowed": [{"from": "2:00", "to": "2:00"}]},
            "app_gates[0].allowed[0]: begins and ends at the same time",
        ),
        (
            {"name": "w", "check": "window", "allowed": [{"days": ["xmas"], "from": "1:00", "to": "2:00"}]},
            "app_gates[0].allowed[0].days[0]: must be one of mon",
        ),
        (
            {"name": "w", "check": "window", "frozen": [{"from": "2027-01-03", "to": "2026-12-20", "reason": "r"}]},
            "app_gates[0].frozen[0]: ends on 2026-12-20 before it begins on 2027-01-03",
        ),
        (
            {"name": "w", "check": "window", "frozen": [{"from": "20.12.2026", "to": "2027-01-01", "reason": "r"}]},
            "app_gates[0].frozen[0].from: '20.12.2026' must be a day",
        ),
        ({**STAGING, "name": "p", "proof": None}, "app_gates[0]: needs one of proof, a file on the controller, and"),
        ({**STAGING, "name": "p", "journal": "/j"}, "app_gates[0]: needs one of proof, a file on the controller, and"),
        ({**STAGING, "name": "p", "proof": None, "journal": "j"}, "app_gates[0].journal: 'j' must be an absolute path"),
        ({**DISK, "fail_when": {"free": "< 20"}}, "app_gates[0].fail_when.free: is not measured here"),
        ({**DISK, "fail_when": {"free_percent": "20"}}, "app_gates[0].fail_when.free_percent: '20' must be a relation"),
        ({**DISK, "on": "everywhere"}, "app_gates[0].on: must be one of targets, routers, state, controller"),
    ],
)
def test_bad_gates_are_named_by_their_key(gate: dict[str, Any], says: str) -> None:
    problems = wrong(gate)
    assert any(problem.startswith(says) for problem in problems), problems


def test_two_gates_of_one_name_are_refused() -> None:
    assert wrong(DISK, DISK) == ["app_gates[1].name: 'disk' is the name of another gate already"]


# -- who is asked -----------------------------------------------------------------------------------------------------


GROUPS = {"targets": ["t1", "t2"], "routers": ["r1"], "state": ["s1"]}


def test_hosts_are_asked_what_is_theirs_in_that_phase() -> None:
    gates = load(
        {**DISK},
        {**DISK, "name": "certificate", "on": "routers", "phases": ["day", "deploy"]},
        {**DISK, "name": "reports", "on": "controller", "phases": ["hour"]},
        {**DISK, "name": "journal", "on": "state"},
        PLAN,
    )
    models = {host: {"gates": gates} for host in ("t1", "t2", "r1", "s1")}
    asked = _gates.questions(models, GROUPS, "deploy")
    assert asked.asked == {"t1": ["disk"], "t2": ["disk"], "r1": ["certificate"], "s1": ["journal"]}
    both = _gates.questions(models, {**GROUPS, "state": ["r1"]}, "deploy")
    assert both.asked["r1"] == ["certificate", "journal"], "a host may be a router and the state host"
    assert [gate["name"] for gate in asked.own] == ["plan"]
    assert _gates.questions(models, GROUPS, "hour").asked == {"localhost": ["reports"]}
    assert _gates.questions(models, GROUPS, "day").asked == {"r1": ["certificate"]}


def test_a_host_that_says_nothing_of_a_gate_leaves_it_missing() -> None:
    gates = load(DISK, PLAN)
    models = {host: {"gates": gates} for host in ("t1", "t2")}
    asked = _gates.questions(models, {"targets": ["t1", "t2"], "routers": [], "state": ["t1"]}, "deploy")
    args = {**_gates.decision_args(asked, facts()), "asked": asked.asked}
    assert json.loads(json.dumps(args)) == args  # plain data: it is journalled
    answers = {"t1": {"checks": [row("disk", check="disk")]}, "t2": {}}
    decision = _gates.collect(args, answers)
    assert [(found["name"], found["status"]) for found in decision.rows] == [("disk", "missing"), ("plan", "missing")]
    assert decision.rows[0]["text"] == "t2: gave no answer"
    lost = _gates.collect(args, {**answers, "t2": {"unreachable": True, "msg": "No route to host"}})
    assert lost.rows[0]["text"] == "t2: gave no answer: No route to host"


def test_no_secret_of_a_gate_is_in_what_is_journalled() -> None:
    secret = "s3cret-of-redis"
    gates = load({"name": "redis", "check": "redis", "host": "127.0.0.1", "password": secret})
    asked = _gates.questions({"t1": {"gates": gates}}, {"targets": ["t1"], "routers": [], "state": ["t1"]}, "deploy")
    assert secret not in repr((asked, _gates.decision_args(asked, facts())))
