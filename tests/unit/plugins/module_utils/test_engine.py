# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _engine, _reality
from hypothesis import given
from hypothesis import strategies as st

TARGETS, ROUTERS = ["web1", "web2", "web3"], ["lb1", "lb2"]
HOSTS = {
    "settle": ROUTERS,
    "stage": TARGETS,
    "start": TARGETS,
    "shift": ROUTERS,
    "watch": ["localhost"],
    "verify": TARGETS,
    "commit": TARGETS,
}
FULL = ("settle", "stage", "start", "shift", "watch", "shift", "watch", "verify", "commit")
OLD = {"release": "old", "version": "1.0", "slot": "blue", "answers": {}}
NEW = {"release": "new", "version": "2.0", "slot": "green", "answers": {}}


def make(*phases, success="deployed", revert=True):
    steps = [
        {"id": f"{n:02d}-{phase}", "phase": phase, "hosts": HOSTS[phase], "text": f"{phase} done"}
        for n, phase in enumerate(phases, 1)
    ]
    back = [
        {"id": f"{n:02d}-revert", "phase": "revert", "hosts": hosts, "text": "reverted", "after": after}
        for n, (hosts, after) in enumerate([(ROUTERS, "shift"), (TARGETS, "start")], len(steps) + 1)
    ]
    return {
        "verb": "deploy" if success == "deployed" else "rollback",
        "application": "clickview",
        "environment": "production",
        "strategy": "blue_green",
        "reason": "why",
        "from": OLD,
        "to": NEW,
        "success": success,
        "targets": TARGETS,
        "routers": ROUTERS,
        "steps": steps,
        "revert": back if revert else [],
    }


PLAN = make(*FULL)
STEPS = [step["id"] for step in PLAN["steps"]]
REVERT = [step["id"] for step in PLAN["revert"]]


def yes(step):
    return {host: {"step": step["id"], "result": {"failed": False, "changed": True}} for host in step["hosts"]}


# How one host can let a step down: what is left of its outcome, and what is said of it.
STALE = {"step": "00-earlier", "result": {"failed": False}}
KINDS = {
    "failed": ({"result": {"failed": True, "msg": "no room"}}, "no room"),
    "failed task": ({"failed": True, "result": {"msg": "crashed"}}, "crashed"),
    "failed silently": ({"result": {"failed": True}}, "failed without a message"),
    "timed out": (
        {"failed": True, "result": {"failed": True, "msg": "Timed out.", "timedout": {"period": 90, "frame": "x"}}},
        "gave no answer for 90 s; what it does there may still go on",
    ),
    "unreachable": ({"result": {"unreachable": True, "msg": "no route"}}, "is unreachable: no route"),
    "no result": ({"result": None}, "failed without a message"),
    "not known to be good": ({"result": {"changed": True}}, "failed without a message"),
    "no answer": (None, "gave no answer"),
    "stale": (STALE, "gave no answer"),
    "fenced": ({"result": {"failed": True, "fenced": True, "msg": "older than 7"}}, "older than 7"),
}


def told(host, kind):
    return KINDS[kind][1] if host == "localhost" else f"{host}: {KINDS[kind][1]}"


def no(step, host, kind):
    outcomes = yes(step)
    left = KINDS[kind][0]
    outcomes[host] = left and {"step": step["id"], **left}
    return outcomes


class Run:
    """A run of a plan; ``bad`` are the (step, host, kind) that go wrong."""

    def __init__(self, plan, *bad):
        self.bad = {step: (host, kind) for step, host, kind in bad}
        self.state, events = _engine.intent(_engine.begin(plan, 0), 0)
        self.plan, self.events, self.at = plan, list(events), 0

    def step(self):
        self.at += 1
        now = self.state["now"]
        outcomes = no(now, *self.bad[now["id"]]) if now["id"] in self.bad else yes(now)
        before = copy.deepcopy(self.state)
        state, events = _engine.advance(self.state, outcomes, self.at)
        assert self.state == before  # pure: the old state is what it was
        self.state = state
        self.events += events
        return events

    def end(self):
        for _n in range(50):
            if not self.state["now"]:
                break
            self.step()
        assert self.state["now"] is None
        return self

    def intents(self):
        return [event["step"] for event in self.events if event["event"] == "intent"]

    def words(self):
        return [event["event"] for event in self.events]


def run(*bad, plan=None):
    return Run(plan or PLAN, *bad).end()


# -- forward ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "phases",
    [
        FULL,
        ("stage", "start", "shift", "watch"),
        ("start", "shift"),
        ("settle",),
        ("settle", "settle", "stage", "start", "shift", "watch", "commit"),
        ("stage", "start", "shift", "commit"),
    ],
)
@pytest.mark.parametrize("success", ["deployed", "restored"])
def test_every_way_forward_ends_well(phases, success):
    plan = make(*phases, success=success)
    done = run(plan=plan)
    assert _engine.outcome(done.state) == success
    assert done.intents() == [step["id"] for step in plan["steps"]]
    assert (done.state["direction"], done.state["failure"], done.state["stopped"]) == ("forward", None, "")
    assert all(entry["ok"] and entry["changed"] for entry in done.state["done"])
    assert done.words().count("committed") == (1 if "shift" in phases else 0)


def test_each_intent_comes_before_its_result_and_the_result_before_the_next_intent():
    done = run()
    order = [(e["event"], e["step"]) for e in done.events if e["event"] != "committed"]
    assert order == [pair for step in STEPS for pair in (("intent", step), ("result", step))]
    assert [e["hosts"] for e in done.events if e["event"] == "intent"] == [s["hosts"] for s in PLAN["steps"]]


def test_the_first_intent_is_there_before_anything_is_done():
    state, events = _engine.intent(_engine.begin(PLAN, 10.0), 11.0)
    assert state["now"] == PLAN["steps"][0]
    assert events == [{"event": "intent", "step": "01-settle", "phase": "settle", "hosts": ROUTERS}]
    assert [step["id"] for step in state["todo"]] == STEPS[1:]


def test_committed_comes_with_the_vote_on_the_last_change_and_before_the_tidying_up():
    done = run()
    at = done.words().index("committed")
    assert done.events[at - 1] == {"event": "result", "step": "08-verify", "ok": True, "against": {}, "seconds": 1}
    assert done.events[at + 1]["step"] == "09-commit"
    plain = run(plan=make("stage", "start", "shift"))
    assert plain.words()[-2:] == ["result", "committed"]


def test_nothing_to_do_is_done_at_once():
    state, events = _engine.intent(_engine.begin(make(), 0), 0)
    assert (state["now"], events, _engine.outcome(state)) == (None, [], "deployed")
    assert _engine.advance(state, {}, 1) == (state, [])


# -- every failure at every step on every host -------------------------------------------------------------------


FAILURES = [(step, host, kind) for step in PLAN["steps"] for host in step["hosts"] for kind in KINDS]


def way_back(step):
    """The ids of the revert steps that the failure of a step needs."""
    begun = {one["phase"] for one in PLAN["steps"][: STEPS.index(step["id"]) + 1]}
    return [one["id"] for one in PLAN["revert"] if one["after"] in begun]


@pytest.mark.requirement("DEP-11")
@pytest.mark.parametrize(
    ("step", "host", "kind"), FAILURES, ids=[f"{step['id']}-{host}-{kind}" for step, host, kind in FAILURES]
)
def test_any_failure(step, host, kind):
    run = Run(PLAN, (step["id"], host, kind))
    while run.state["now"]["id"] != step["id"]:
        run.step()
    events = run.step()
    said = {host: KINDS[kind][1]}
    assert events[0] == {"event": "result", "step": step["id"], "ok": False, "against": said, "seconds": 1}
    state = run.state
    assert state["done"][-1]["ok"] is False
    assert state["done"][-1]["text"] == told(host, kind)
    if kind == "fenced":
        assert (state["now"], state["todo"], len(events)) == (None, [], 1)
        assert state["stopped"] == "another run has taken the lease over"
        assert _engine.outcome(state) == "stopped"
    elif step["phase"] == "commit":
        assert (state["direction"], state["failure"], state["now"]) == ("forward", None, None)
        assert state["tidy_problem"] == told(host, kind)
        assert _engine.outcome(state) == "deployed"
    else:
        # Back at once: no step that was still to come is begun any more.
        back = way_back(step)
        assert state["direction"] == "revert"
        assert [one["id"] for one in [state["now"], *state["todo"]] if one] == back
        assert state["failure"] == {"step": step["id"], "phase": step["phase"], "hosts": said, "diagnosis": []}
        run.end()
        assert run.intents() == [*STEPS[: STEPS.index(step["id"]) + 1], *back]
        shifted = any(one["phase"] == "shift" for one in PLAN["steps"][: STEPS.index(step["id"]) + 1])
        assert _engine.outcome(run.state) == ("rolled_back" if shifted else "failed")
        assert "committed" not in run.words()


def test_what_a_host_left_of_an_earlier_step_is_not_counted_again():
    run = Run(make("start", "start"))
    outcomes = yes(run.state["now"])
    outcomes["web1"]["result"].update(connections_cut=3, log={"backend": ["line"]}, diagnosis=["old"])
    run.state, _events = _engine.advance(run.state, outcomes, 1)
    later = {**yes(run.state["now"]), "web1": outcomes["web1"]}
    state, _events = _engine.advance(run.state, later, 2)
    assert state["connections_cut"] == 3
    assert state["failure"]["hosts"] == {"web1": "gave no answer"}
    assert state["failure"]["diagnosis"] == []


def test_hosts_that_say_the_same_share_a_sentence():
    run = Run(make("stage"))
    state, _events = _engine.advance(run.state, {"web2": {"step": "01-stage", "result": {"failed": False}}}, 1)
    assert state["done"][-1]["text"] == "web1, web3: gave no answer"


@pytest.mark.parametrize(
    ("names", "which"),
    [
        ((["d1", "i1"], ["d1", "i1"], ["i1"]), ""),
        ((["d1", "i1"], ["d1", "i1"], ["d2", "i1"]), ""),  # pushed twice, and another's store names it otherwise
        ((["d1"], ["d2"], ["d1"]), "d1 on web1, web3, but d2 on web2"),
        ((["d1", "i1"], ["d1", "d2"], ["d2", "i3"]), "d1 on web1, web2, but d2 on web3"),
        ((["d1"], None, ["d2"]), "d1 on web1, but d2 on web3"),
        ((["d1"], None, None), ""),
    ],
)
def test_hosts_that_have_something_different_all_vote_no(names, which):
    run = Run(make("stage", "start"))
    outcomes = yes(run.state["now"])
    for host, known in zip(TARGETS, names):
        if known is not None:
            outcomes[host]["result"]["same"] = {"the image api:2.0 of api": known, "the image db of db": ["d0"]}
    state, events = _engine.advance(run.state, outcomes, 1)
    if which:
        said = f"the image api:2.0 of api is {which}: one release must be the same everywhere, so name it by its digest"
        assert state["failure"]["hosts"] == dict.fromkeys(TARGETS, said)
        assert _engine.outcome(state) == "failed"
        assert [event.get("step") for event in events] == ["01-stage"]
    else:
        assert state["failure"] is None and state["now"]["phase"] == "start"


def test_a_host_that_failed_is_said_rather_than_what_differs():
    run = Run(make("stage", "start"))
    outcomes = no(run.state["now"], "web2", "failed")
    for number, host in enumerate(TARGETS):
        outcomes[host]["result"]["same"] = {"the image": [f"d{number}"]}
    state, _events = _engine.advance(run.state, outcomes, 1)
    assert state["failure"]["hosts"] == {"web2": "no room"}


def test_what_has_to_go_back():
    assert [way_back(step) for step in PLAN["steps"][:4]] == [[], [], REVERT[1:], REVERT]


def test_several_hosts_are_all_named():
    run = Run(PLAN)
    run.step()
    outcomes = {
        "web1": {"step": "02-stage", "result": {"failed": True, "msg": "no room\n", "diagnosis": ["disk 100 %"]}},
        "web2": {"step": "02-stage", "result": {"failed": False}},
    }
    state, events = _engine.advance(run.state, outcomes, 9)
    assert events[0]["against"] == {"web1": "no room", "web3": "gave no answer"}
    assert state["failure"]["hosts"] == {"web1": "no room", "web3": "gave no answer"}
    assert state["failure"]["diagnosis"] == ["disk 100 %"]
    assert state["done"][-1]["text"] == "web1: no room; web3: gave no answer"


@pytest.mark.parametrize("revert", REVERT)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "fenced"])
def test_a_failure_on_the_way_back_stops_there(revert, kind):
    host = {REVERT[0]: "lb2", REVERT[1]: "web3"}[revert]
    done = run(("05-watch", "localhost", "failed"), (revert, host, kind))
    assert _engine.outcome(done.state) == "revert_failed"
    assert done.state["stopped"] == f"the way back failed at {revert}: {told(host, kind)}"
    assert done.state["failure"]["step"] == "05-watch"  # the cause stays the cause
    # Where traffic did not go back, nothing is stopped that may still have it.
    assert done.intents()[-1] == revert
    assert "committed" not in done.words()


@pytest.mark.parametrize("revert", REVERT)
def test_who_is_fenced_out_on_the_way_back_touches_nothing_more(revert):
    host = {REVERT[0]: "lb2", REVERT[1]: "web3"}[revert]
    done = run(("05-watch", "localhost", "failed"), (revert, host, "fenced"))
    assert done.intents()[-1] == revert
    assert done.state["stopped"] == "another run has taken the lease over"
    assert done.state["failure"]["step"] == "05-watch"
    assert _engine.outcome(done.state) == "revert_failed"


def test_a_plan_without_a_way_back_just_ends():
    done = run(("01-settle", "lb1", "failed"), plan=make("settle", revert=False))
    assert _engine.outcome(done.state) == "failed"
    assert done.intents() == ["01-settle"]


# -- any run at all ---------------------------------------------------------------------------------------------


PHASES = st.tuples(
    st.lists(st.just("settle"), max_size=2),
    st.booleans(),
    st.lists(st.tuples(st.just("shift"), st.booleans()), min_size=1, max_size=3),
    st.lists(st.just("commit"), max_size=1),
).map(
    lambda parts: [
        *parts[0],
        *(["stage"] if parts[1] else []),
        "start",
        *(phase for shift, watched in parts[2] for phase in ([shift, "watch"] if watched else [shift])),
        *parts[3],
    ]
)


@given(PHASES, st.sampled_from(["deployed", "restored"]), st.data())
def test_any_run_ends_and_its_journal_says_how(phases, success, data):
    plan = make(*phases, success=success)
    everything = [*plan["steps"], *plan["revert"]]
    bad = []
    for step in data.draw(st.lists(st.sampled_from(everything), max_size=3, unique_by=lambda one: one["id"])):
        bad.append((step["id"], data.draw(st.sampled_from(step["hosts"])), data.draw(st.sampled_from(sorted(KINDS)))))
    done = Run(plan, *bad).end()
    assert done.at <= len(everything)
    intents = done.intents()
    assert len(set(intents)) == len(intents)
    json.dumps(done.state)

    outcome = _engine.outcome(done.state)
    assert outcome in (success, "failed", "rolled_back", "revert_failed", "stopped")
    words = done.words()
    assert words.count("committed") == (1 if outcome == success or _commit_was_fenced(done) else 0)
    if "committed" in words:
        before = [e for e in done.events[: words.index("committed")] if e["event"] == "result"]
        assert all(event["ok"] for event in before)
        changes = [step["id"] for step in plan["steps"] if step["phase"] != "commit"]
        assert [event["step"] for event in before] == changes

    # A later run that finds only these events decides the same.
    targets = {
        host: {
            "slots": {
                "blue": {"release": "old", "running": True},
                "green": {"release": "new", "running": True},
            }
        }
        for host in TARGETS
    }
    opening = {"event": "open", "plan": plan, "at": 0}
    live, records = _reality.settle([{"run": 1, "events": [opening, *done.events]}], OLD, targets)
    if "committed" in words:
        assert (live, records[0]["outcome"]) == (NEW, success)
    else:
        assert (live, records[0]["outcome"]) == (OLD, "interrupted")


def _commit_was_fenced(done):
    return bool(done.state["stopped"]) and done.state["done"][-1]["phase"] == "commit"


# -- what is kept -----------------------------------------------------------------------------------------------


def test_times_texts_and_cut_connections_are_kept():
    state, _events = _engine.intent(_engine.begin(make("start", "shift"), 100.0), 101.0)
    outcomes = yes(state["now"])
    for host, text in (("web1", "green 2.0 healthy"), ("web2", "green 2.0 healthy"), ("web3", "slow but healthy")):
        outcomes[host]["result"].update(text=text, connections_cut=2)
    state, events = _engine.advance(state, outcomes, 104.25)
    assert events[0]["seconds"] == 3.25
    assert state["done"] == [
        {
            "step": "01-start",
            "phase": "start",
            "ok": True,
            "started": 1.0,
            "ended": 4.25,
            "text": "green 2.0 healthy; slow but healthy",
            "changed": True,
        }
    ]
    assert state["connections_cut"] == 6
    state, _events = _engine.advance(state, yes(state["now"]), 105.0)
    assert state["done"][-1]["text"] == "shift done on 2/2"
    assert state["connections_cut"] == 6


def test_the_way_back_has_a_higher_number_than_what_it_takes_back():
    """What is left of a step that timed out may arrive after it, and must be refused then."""
    state = _engine.numbered(Run(make("start", "shift")).state, 7, 41)
    assert (state["run"], state["fence"]) == (7, 41)
    forward = state["host_fence"]
    state, _events = _engine.advance(state, yes(state["now"]), 1)
    assert state["host_fence"] == forward
    state, _events = _engine.advance(state, {}, 2)
    assert state["direction"] == "revert" and state["fence"] == 41
    assert forward < state["host_fence"] < _engine.numbered(state, 8, 42)["host_fence"]


def test_the_last_words_are_those_of_what_failed():
    """In place the old release is stopped first: what it said then explains nothing."""
    run = Run(make("start", "shift"))
    stopped = yes(run.state["now"])
    for outcome in stopped.values():
        outcome["result"]["log"] = {"backend": ["stopped"]}
    state, _events = _engine.advance(run.state, stopped, 1)
    assert state["log"] == {}
    state, _events = _engine.advance(state, {}, 2)
    words = yes(state["now"])
    assert state["now"]["phase"] == "revert"
    for outcome in words.values():
        outcome["result"]["log"] = {"backend": ["no such table"], "quiet": []}
    state, _events = _engine.advance(state, words, 3)
    assert state["log"] == {f"{host}/backend": ["no such table"] for host in words}


def test_the_record():
    done = run(("05-watch", "localhost", "failed"))
    record = _engine.record(done.state, {"sent": 10}, {"holder": "anna"})
    assert record["outcome"] == "rolled_back"
    assert (record["from"], record["to"], record["verb"], record["reason"]) == (OLD, NEW, "deploy", "why")
    assert [entry["step"] for entry in record["phases"]] == [*STEPS[:5], *REVERT]
    assert record["failure"]["hosts"] == {"localhost": "no room"}
    assert (record["requests"], record["holder"], record["stopped"]) == ({"sent": 10}, "anna", "")
    json.dumps(record)


# -- plays ------------------------------------------------------------------------------------------------------


def test_who_takes_part_in_a_play():
    run = Run(PLAN)
    assert _engine.phase_hosts(run.state, ["settle"]) == ["localhost", *ROUTERS]
    assert _engine.phase_hosts(run.state, ["stage"]) == []  # not its turn yet
    assert _engine.phase_hosts(None, ["stage"]) == []
    for _n in range(3):
        run.step()
    assert run.state["now"]["id"] == "04-shift"
    assert _engine.phase_hosts(run.state, ["shift", "watch"]) == ["localhost", *ROUTERS]
    assert _engine.phase_steps(run.state, ["shift", "watch"]) == ["04-shift", "05-watch", "06-shift", "07-watch"]
    assert _engine.takes_part(run.state, "04-shift", "lb1")
    assert not _engine.takes_part(run.state, "04-shift", "web1")
    assert not _engine.takes_part(run.state, "06-shift", "lb1")
    run.end()
    assert _engine.phase_hosts(run.state, ["shift"]) == []
    assert _engine.phase_steps(run.state, ["shift"]) == []
    assert not _engine.takes_part(run.state, "08-commit", "web1")


def test_a_failure_ends_the_play_of_its_phase():
    run = Run(PLAN, ("04-shift", "lb1", "failed"))
    for _n in range(4):
        run.step()
    assert _engine.phase_steps(run.state, ["shift", "watch"]) == []
    assert not _engine.takes_part(run.state, "05-watch", "localhost")
    assert _engine.phase_hosts(run.state, ["commit"]) == []
    assert _engine.phase_hosts(run.state, ["revert"]) == ["localhost", *ROUTERS, *TARGETS]
    assert _engine.phase_steps(run.state, ["revert"]) == REVERT
