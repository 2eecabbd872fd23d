# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The journal in a namespace: the rules hold there too, whoever else changes its objects between two requests."""

from __future__ import annotations

import json
import socket
import threading
from email.utils import formatdate

import pytest
import test_journal as rules
from ansible_collections.signalbox.runbook.plugins.module_utils import _journal_kubernetes as cluster
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._journal import Rules
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_api import Api, Cluster, Reached
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes_memory import CORE, Memory
from test_journal import HOLDER, NOON, PLAN, Clock, begin, interrupted

LEASE = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/demo-runbook"
SHARED = """
    test_a_run_from_its_opening_to_its_record
    test_a_held_lease_is_refused_with_who_why_and_since_when
    test_a_lease_ends_by_itself
    test_renewing_keeps_it
    test_a_silent_run_that_nobody_took_over_may_go_on
    test_the_lease_of_a_dead_holder_is_taken_over_at_once
    test_no_dead_fence_means_no_takeover
    test_a_plan_from_before_another_run_is_stale
    test_a_plan_that_settles_a_run_which_then_ended_by_itself_is_stale
    test_only_the_holder_writes
    test_waiting_ends_when_the_other_run_ends
    test_waiting_ends_when_the_lease_ends
    test_waiting_ends_when_its_own_time_is_over
    test_without_waiting_nobody_sleeps
    test_a_statement_is_a_record_of_a_run_that_did_nothing
    test_a_statement_waits_for_no_run_and_ends_none
    test_a_plan_from_before_a_statement_is_stale
    test_after_a_run_that_did_not_end_a_statement_leaves_it_to_be_settled
"""
globals().update({name: vars(rules)[name] for name in SHARED.split()})


class Journal(cluster.Objects, Rules):
    """One process that uses the journal. ``before`` and ``after`` are called around its every request."""

    def __init__(self, memory, clock):
        self.before = self.after = lambda method, path: None
        api = Api(self._call, "shop", Cluster("test", "https://test"), sleep=lambda _s: None)
        cluster.Objects.__init__(self, api, "demo", "production", lambda _s: None)
        Rules.__init__(self, self, clock.sleep)
        self.memory, self.server_clock = memory, clock

    def _call(self, method, path, body, headers, seconds):
        self.before(method, path)
        answer = self.memory(method, path, body, headers, seconds)
        self.after(method, path)
        date = formatdate(self.server_clock.now, usegmt=True)
        return Reached(answer.status, {**answer.headers, "Date": date}, answer.body)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def journal(memory, clock):
    return Journal(memory, clock)


def changes(journal):
    """How often ``journal`` asked for a change, counted from now on."""
    seen = []
    journal.before = lambda method, path: method == "GET" or seen.append(path)
    return seen


def converges(memory, clock):
    """Whatever is there, the next run settles it, and each run has one record."""
    clock.now += 1000
    journal = Journal(memory, clock)
    opened = begin(journal)
    journal.close(opened["run"], opened["fence"], [], {"outcome": "deployed"})
    read = journal.read()
    assert read["unfinished"] == [] and read["lease"] is None
    finished = [record["run"] for record in read["history"]]
    assert sorted(finished) == sorted(set(finished)) == list(range(1, opened["run"] + 1))
    return read["history"]


def test_an_empty_namespace(journal, memory):
    assert journal.read() == {"now": NOON, "lease": None, "fence": 0, "history": [], "unfinished": []}
    assert memory.held == {}  # reading makes nothing


def test_the_lease_is_one_that_others_can_read(journal, memory, clock):
    begin(journal)
    clock.now += 10
    journal.write(1, 1, [], 89.5)
    lease = memory.held[LEASE]
    assert lease["spec"] == {
        "holderIdentity": "anna@ops1, run 1",
        "acquireTime": "2025-11-21T12:00:00.000000Z",
        "renewTime": "2025-11-21T12:00:10.000000Z",
        "leaseDurationSeconds": 90,
        "leaseTransitions": 0,
    }
    assert lease["metadata"]["labels"]["signalbox.runbook/app"] == "demo"
    assert lease["metadata"]["annotations"]["signalbox.runbook/reason"] == "deploy 1.3.0"
    journal.close(1, 1, [], {"outcome": "deployed"})
    assert "holderIdentity" not in memory.held[LEASE]["spec"]
    begin(journal)
    assert memory.held[LEASE]["spec"]["leaseTransitions"] == 1


def test_everything_is_labelled_as_ours(journal, memory):
    begin(journal)
    journal.close(1, 1, [], {"outcome": "deployed"})
    names = ["demo-history-1", "demo-run-1", "demo-runbook"]
    assert sorted(obj["metadata"]["name"] for obj in memory.held.values()) == names
    for obj in memory.held.values():
        assert obj["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "signalbox.runbook"


def test_a_label_that_somebody_put_on_the_lease_is_kept_and_disturbs_nobody(journal, memory):
    begin(journal)

    def meddle(method, path):
        journal.before = lambda method, path: None
        lease = memory.held[LEASE]
        memory.put(LEASE, {**lease, "metadata": {**lease["metadata"], "labels": {"team": "shop"}}})

    journal.before = lambda method, path: meddle(method, path) if method == "PUT" and path == LEASE else None
    journal.write(1, 1, [{"event": "result"}], 60)
    assert memory.held[LEASE]["metadata"]["labels"]["team"] == "shop"
    assert [event["event"] for event in journal.events(1)] == ["open", "result"]


# -- two at once ------------------------------------------------------------------------------------------------


class Turns:
    """Two calls in threads of their own, of which one goes on at a time, from one request to the next."""

    def __init__(self, journals, calls):
        self.journals, self.results = journals, [None, None]
        self.go = [threading.Semaphore(0) for _call in calls]
        self.stopped = [threading.Semaphore(0) for _call in calls]
        self.threads = []
        for number, (journal, call) in enumerate(zip(journals, calls)):
            journal.before = lambda method, path, number=number: self._pause(number)
            self.threads.append(threading.Thread(target=self._run, args=(number, call), daemon=True))

    def _pause(self, number):
        self.stopped[number].release()
        assert self.go[number].acquire(timeout=rules.LONG)

    def _run(self, number, call):
        try:
            self.results[number] = call()
        except Exception as error:
            self.results[number] = error
        self.stopped[number].release()

    def play(self, order):
        for number, thread in enumerate(self.threads):
            thread.start()
            assert self.stopped[number].acquire(timeout=rules.LONG)
        for number in [*order, *[0] * 99, *[1] * 99]:
            if self.results[number] is None:
                self.go[number].release()
                assert self.stopped[number].acquire(timeout=rules.LONG)
        for journal, thread in zip(self.journals, self.threads):
            thread.join(rules.LONG)
            journal.before = lambda method, path: None
        return self.results


ORDERS = st.lists(st.integers(0, 1), max_size=24)


@pytest.mark.parametrize("call", ["write", "close"])
@settings(max_examples=150, deadline=None)
@given(order=ORDERS)
def test_of_an_old_holder_and_its_successor_only_one_ever_succeeds(call, order):
    memory, clock = Memory(), Clock()
    old, new = Journal(memory, clock), Journal(memory, clock)
    begin(old)
    clock.now += 61
    basis = new.read()["fence"]
    calls = {
        "write": lambda: old.write(1, 1, [{"event": "committed"}], 60),
        "close": lambda: old.close(1, 1, [{"event": "end"}], {"outcome": "deployed"}),
    }
    late, next_one = Turns(
        [old, new],
        [calls[call], lambda: new.open(HOLDER, "deploy", 60, basis, PLAN, settled=[interrupted(1)])],
    ).play(order)
    records = [record["outcome"] for record in new.history() if record["run"] == 1]
    if isinstance(late, dict):
        assert isinstance(next_one, RunbookError)
        assert records == (["deployed"] if call == "close" else [])
    elif isinstance(next_one, dict):
        assert late.details == {"fenced": True} and "run 2 with fencing number 2 does" in str(late)
        assert records == ["interrupted"]
        assert new.read()["lease"]["run"] == 2
        new.write(2, 2, [{"event": "result"}], 60)
    else:  # a record came between the plan and its start: neither goes on
        assert late.details == {"fenced": True} and next_one.details == {"stale": True}
        assert records == ["deployed"]
    converges(memory, clock)


@settings(max_examples=150, deadline=None)
@given(order=ORDERS, unfinished=st.booleans())
def test_of_two_that_begin_at_once_exactly_one_does(order, unfinished):
    memory, clock = Memory(), Clock()
    both = [Journal(memory, clock), Journal(memory, clock)]
    if unfinished:
        begin(both[0])
        clock.now += 61
    basis = both[0].read()["fence"]
    settled = [interrupted(1)] if unfinished else []
    calls = [lambda one=one: one.open(HOLDER, "deploy", 60, basis, PLAN, settled=settled) for one in both]
    results = Turns(both, calls).play(order)
    won = [one for one in results if isinstance(one, dict)]
    refused = [one for one in results if isinstance(one, RunbookError)]
    assert len(won) == len(refused) == 1
    assert "holds the lease since" in str(refused[0]) or refused[0].details == {"stale": True}
    assert len(both[0].events(won[0]["run"])) == 1
    converges(memory, clock)


@settings(max_examples=150, deadline=None)
@given(order=ORDERS)
def test_an_opening_that_came_to_a_halt_and_was_taken_over_does_not_succeed(order):
    """It holds the lease already, for longer than that lasts, and has not begun its run."""
    memory, clock = Memory(), Clock()
    slow, new = Journal(memory, clock), Journal(memory, clock)

    def halt(method, path):
        if method == "POST" and path.endswith("configmaps"):
            slow.before = pause
            clock.now += 61
            pause(method, path)

    turns = Turns(
        [slow, new],
        [lambda: slow.open(HOLDER, "a", 60, 0, PLAN), lambda: new.open(HOLDER, "b", 60, 1, PLAN)],
    )
    pause, slow.before = slow.before, halt
    first, second = turns.play(order)
    if isinstance(second, dict):
        assert new.events(second["run"])[0]["fence"] == 2
        assert new.read()["lease"]["fence"] == 2
    if isinstance(first, dict):  # then it was through before the other one took the lease
        assert first["run"] == 1 and slow.events(1)[0]["fence"] == 1
        assert not isinstance(second, dict) or second["run"] == 2
    else:
        assert first.details == {"fenced": True}
    converges(memory, clock)


# -- crashes and lost answers -----------------------------------------------------------------------------------


class PowerCutError(Exception):
    pass


CALLS = {
    "open": lambda journal: journal.open(HOLDER, "x", 60, 1, PLAN, [{"event": "a"}], [interrupted(1)]),
    "write": lambda journal: journal.write(1, 1, [{"event": "result"}], 60),
    "close": lambda journal: journal.close(1, 1, [{"event": "end"}], {"outcome": "deployed"}),
}


def after_one_run(memory, clock, call):
    journal = Journal(memory, clock)
    begin(journal)
    clock.now += 61 if call == "open" else 1
    return Journal(memory, clock)


def nth_change(number, then):
    """A hook that lets ``number`` changes pass and does ``then`` at the next one."""
    left = [number]

    def hook(method, path):
        if method == "GET":
            return
        left[0] -= 1
        if left[0] == -1:
            then()

    return hook


def cut():
    raise PowerCutError


def time_out():
    raise socket.timeout


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("call", CALLS)
def test_whenever_a_run_is_killed_the_next_one_settles_all(memory, clock, call, number, when):
    journal = after_one_run(memory, clock, call)
    most = {"open": 4, "write": 2, "close": 3}[call]  # changes that the call makes
    setattr(journal, when, nth_change(number, cut))
    if number < most:
        with pytest.raises(PowerCutError):
            CALLS[call](journal)
    else:
        CALLS[call](journal)
    converges(memory, clock)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("call", CALLS)
def test_a_change_whose_answer_got_lost_is_made_once(memory, clock, call, number, when):
    journal = after_one_run(memory, clock, call)
    setattr(journal, when, nth_change(number, time_out))
    CALLS[call](journal)
    other = Memory()
    CALLS[call](after_one_run(other, Clock(), call))
    assert {p: o.get("data") or o["spec"] for p, o in memory.held.items()} == {
        p: o.get("data") or o["spec"] for p, o in other.held.items()
    }


def test_an_api_that_gives_no_answer_is_named(journal):
    begin(journal)
    journal.before = lambda method, path: time_out()
    with pytest.raises(RunbookError) as caught:
        journal.write(1, 1, [], 60)
    assert str(caught.value) == (
        "the API server https://test (context test) can't be asked to read Lease demo-runbook: no answer within 10 s"
    )


def test_who_may_not_is_told_the_verb_and_the_kind(journal):
    message = 'leases is forbidden: User "ci" cannot create resource "leases"'

    def forbid(method, path, body, headers, seconds):
        if method == "POST":
            return Reached(403, {}, json.dumps({"kind": "Status", "message": message}).encode())
        return Journal._call(journal, method, path, body, headers, seconds)

    journal.api.call = forbid
    with pytest.raises(RunbookError) as caught:
        begin(journal)
    assert str(caught.value) == f"the cluster does not let this user create Lease demo-runbook in shop: {message}"


# -- the clock --------------------------------------------------------------------------------------------------


def test_the_clock_is_the_one_of_the_api_server(journal, clock, monkeypatch):
    monkeypatch.setattr("time.time", lambda: NOON + 10_000_000)
    assert begin(journal)["at"] == NOON
    clock.now += 59.9
    assert journal.read()["now"] == NOON + 59
    with pytest.raises(RunbookError, match="holds the lease"):
        begin(journal)


def test_without_a_date_there_is_no_lease(journal):
    journal.server_clock = None
    journal.api.call = lambda *request: Reached(404, {}, b"{}")
    with pytest.raises(RunbookError, match="https://test answers without a Date header"):
        journal.read()


# -- growth -----------------------------------------------------------------------------------------------------


def runs(journal, count):
    for _run in range(count):
        opened = begin(journal)
        journal.close(opened["run"], opened["fence"], [], {"outcome": "deployed"})


def test_only_the_last_runs_are_kept_and_all_records(journal, memory):
    begin(journal)
    journal.server_clock.now += 61
    runs(journal, cluster.KEEP_RUNS + 3)
    assert journal.runs() == [*range(5, cluster.KEEP_RUNS + 5)]
    assert [record["run"] for record in journal.history()] == [*range(1, cluster.KEEP_RUNS + 5)]


def test_a_run_that_may_not_be_removed_disturbs_nobody(journal, memory, monkeypatch):
    monkeypatch.setattr(cluster, "KEEP_RUNS", 2)
    runs(journal, 2)
    journal.before = lambda method, path: cut_off() if method == "DELETE" else None

    def cut_off():
        raise OSError("refused")

    runs(journal, 2)
    assert journal.runs() == [1, 2, 3, 4]
    journal.before = lambda method, path: None
    runs(journal, 1)
    assert journal.runs() == [4, 5]


def test_the_history_goes_on_in_a_new_chunk_and_the_full_one_never_changes_again(journal, memory, monkeypatch):
    monkeypatch.setattr(cluster, "CHUNK_BYTES", 200)
    runs(journal, 9)
    chunks = [obj for path, obj in sorted(memory.held.items()) if "-history-" in path]
    assert [chunk.get("immutable", False) for chunk in chunks] == [True, True, False]
    assert all(len(chunk["data"]["lines.jsonl"]) <= 200 for chunk in chunks)
    assert [record["run"] for record in journal.history()] == [*range(1, 10)]


def test_a_record_that_is_longer_than_a_chunk_has_its_own(journal, memory, monkeypatch):
    monkeypatch.setattr(cluster, "CHUNK_BYTES", 20)
    runs(journal, 3)
    assert [record["run"] for record in journal.history()] == [1, 2, 3]


def test_a_writer_who_was_late_does_not_write_into_a_chunk_that_was_full(journal, memory, clock, monkeypatch):
    """It read the last chunk before that was closed; the record of its run is in the next one by then."""
    monkeypatch.setattr(cluster, "CHUNK_BYTES", 80)
    runs(journal, 1)
    begin(journal)
    other = Journal(memory, clock)

    def meanwhile(method, path):
        if method == "PUT" and "-history-" in path:
            journal.before = lambda method, path: None
            clock.now += 61
            begin(other)

    journal.before = meanwhile
    with pytest.raises(RunbookError) as caught:
        journal.close(2, 2, [], {"outcome": "deployed"})
    assert caught.value.details == {"fenced": True}
    assert [(record["run"], record["outcome"]) for record in other.history()] == [(1, "deployed"), (2, "interrupted")]


# -- by hand ----------------------------------------------------------------------------------------------------


def test_a_lease_that_was_deleted_is_lost_and_its_numbers_go_on(journal, memory):
    runs(journal, 2)
    begin(journal)
    del memory.held[LEASE]
    with pytest.raises(RunbookError) as caught:
        journal.write(3, 3, [], 60)
    assert str(caught.value) == rules.lost(3, 3, "nobody")
    read = journal.read()
    assert (read["lease"], read["fence"]) == (None, 3)
    assert begin(journal) == {"run": 4, "fence": 4, "at": NOON}


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        (LEASE, lambda obj: obj["metadata"]["annotations"].clear(), "Lease demo-runbook in namespace shop was changed"),
        (LEASE, lambda obj: obj["spec"].pop("renewTime"), "delete lease demo-runbook"),
        (f"{CORE}/configmaps/demo-history-1", lambda obj: obj.pop("data"), "ConfigMap demo-history-1 of the journal"),
        (f"{CORE}/configmaps/demo-history-1", lambda obj: obj["data"].update({"lines.jsonl": "{"}), "is cut short"),
        (f"{CORE}/configmaps/demo-run-2", lambda obj: obj["data"].update({"lines.jsonl": "{\n"}), "lines of JSON"),
    ],
)
def test_what_was_changed_by_hand_is_named(journal, memory, path, change, said):
    runs(journal, 1)
    begin(journal)
    change(memory.held[path])
    with pytest.raises(RunbookError, match=said):
        journal.read()


def test_a_chunk_or_a_run_that_is_gone_is_named(journal, memory, monkeypatch):
    monkeypatch.setattr(cluster, "CHUNK_BYTES", 20)
    runs(journal, 2)
    begin(journal)
    del memory.held[f"{CORE}/configmaps/demo-history-1"]
    with pytest.raises(RunbookError, match="ConfigMap demo-history-1 of the journal is gone from namespace shop"):
        journal.read()
    del memory.held[f"{CORE}/configmaps/demo-run-3"]
    with pytest.raises(RunbookError, match="ConfigMap demo-run-3 of the journal is gone"):
        journal.write(3, 3, [{"event": "x"}], 60)


def test_a_namespace_is_for_one_environment(journal, memory, clock):
    begin(journal)
    other = Journal(memory, clock)
    other.environment = "staging"
    with pytest.raises(RunbookError, match="shop has the journal of demo production, not of staging"):
        other.read()
