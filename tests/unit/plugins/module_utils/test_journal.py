# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._journal import (
    Journal,
    lease_problem,
    parse_lines,
    utc,
)
from hypothesis import given
from hypothesis import strategies as st

fork = multiprocessing.get_context("fork")
LONG = 60  # only ever waited for when something is broken

HOLDER = {"user": "anna", "host": "ops1"}
NOON = 1763726400.0  # 2025-11-21T12:00:00Z
PLAN = {"verb": "deploy", "to": {"release": "1.3.0-aa", "version": "1.3.0", "slot": "green"}}


class Clock:
    def __init__(self):
        self.now, self.slept, self.between = NOON, [], []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        """What somebody else does meanwhile is next in ``between``."""
        self.slept.append(seconds)
        self.now += seconds
        if self.between:
            self.between.pop(0)()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def journal(tmp_path, clock):
    return Journal(tmp_path / "state" / "journal", clock, clock.sleep)


def begin(journal, **more):
    """Open a run as the plan does: from what has just been read."""
    read = journal.read()
    given = {"holder": HOLDER, "reason": "deploy 1.3.0", "ttl_seconds": 60, "basis": read["fence"], "plan": PLAN}
    given["settled"] = [interrupted(run["run"]) for run in read["unfinished"]]
    return journal.open(**{**given, **more})


def interrupted(run):
    return {"run": run, "verb": "deploy", "from": None, "to": PLAN["to"], "outcome": "interrupted"}


def lost(run, fence, held):
    return (
        f"run {run} (fencing number {fence}) no longer holds the lease: {held} does. It must not change anything any "
        "more; ansible-playbook status.yml shows what is live"
    )


# -- one run ----------------------------------------------------------------------------------------------------


def test_an_empty_journal(journal):
    assert journal.read() == {"now": NOON, "lease": None, "fence": 0, "history": [], "unfinished": []}
    assert not journal.directory.exists()  # reading makes nothing


def test_a_run_from_its_opening_to_its_record(journal, clock):
    assert begin(journal, events=[{"event": "intent", "step": "01-stage"}]) == {"run": 1, "fence": 1, "at": NOON}
    clock.now += 10
    read = journal.read()
    assert read["lease"] == {
        "run": 1,
        "fence": 1,
        "holder": HOLDER,
        "reason": "deploy 1.3.0",
        "since": NOON,
        "renewed": NOON,
        "expires": NOON + 60,
        "released": False,
        "expired": False,
    }
    assert read["unfinished"] == [
        {
            "run": 1,
            "events": [
                {"event": "open", "run": 1, "fence": 1, "plan": PLAN, "at": NOON},
                {"event": "intent", "step": "01-stage", "at": NOON},
            ],
        }
    ]
    assert journal.write(1, 1, [{"event": "result", "ok": True}], 100) == {"at": NOON + 10}
    assert journal.lease()["expires"] == NOON + 110
    assert journal.lease()["since"] == NOON
    clock.now += 5
    assert journal.close(1, 1, [{"event": "end"}], {"outcome": "deployed", "to": PLAN["to"]}) == {"at": NOON + 15}
    assert journal.read() == {
        "now": NOON + 15,
        "lease": None,
        "fence": 1,
        "history": [{"run": 1, "fence": 1, "outcome": "deployed", "to": PLAN["to"], "ended": NOON + 15}],
        "unfinished": [],
    }
    assert [event["event"] for event in journal.events(1)] == ["open", "intent", "result", "end"]
    assert begin(journal) == {"run": 2, "fence": 2, "at": NOON + 15}


def test_the_journal_is_not_for_everybody(journal):
    begin(journal)
    journal.close(1, 1, [], {"outcome": "deployed"})
    modes = {}
    for directory, _dirs, files in os.walk(journal.directory):
        modes.update({name: os.stat(os.path.join(directory, name)).st_mode & 0o777 for name in files})
    assert os.stat(journal.directory).st_mode & 0o007 == 0
    assert modes["journal.lock"] == 0o600
    assert modes["1.jsonl"] & 0o007 == 0
    assert modes["history.jsonl"] & 0o007 == 0


# -- the lease --------------------------------------------------------------------------------------------------


def test_a_held_lease_is_refused_with_who_why_and_since_when(journal, clock):
    begin(journal)
    clock.now += 25
    with pytest.raises(RunbookError) as caught:
        begin(journal)
    assert str(caught.value) == (
        "run 1 of anna@ops1 holds the lease since 2025-11-21T12:00:00Z (25 s): deploy 1.3.0. "
        "It ends by itself 35 s from now unless renewed. Wait for it with -e app_lease_wait_seconds=600"
    )
    assert caught.value.details["lease"]["holder"] == HOLDER
    assert journal.runs() == [1]
    assert journal.read()["fence"] == 1


def test_a_lease_of_nobody_known_can_still_be_told():
    lease = {"run": 3, "holder": {}, "since": NOON, "expires": NOON - 5, "reason": "x"}
    assert "run 3 of ?@? holds the lease" in lease_problem(lease, NOON)
    assert "It ends by itself 0 s from now" in lease_problem(lease, NOON)


@pytest.mark.parametrize(("passed", "expired"), [(0, False), (59.9, False), (60, True), (1000, True)])
def test_a_lease_ends_by_itself(journal, clock, passed, expired):
    begin(journal)
    clock.now += passed
    assert journal.lease()["expired"] is expired
    if expired:
        assert begin(journal)["fence"] == 2
    else:
        with pytest.raises(RunbookError, match="holds the lease"):
            begin(journal)


def test_renewing_keeps_it(journal, clock):
    begin(journal)
    for _i in range(5):
        clock.now += 50
        journal.write(1, 1, [], 60)
    with pytest.raises(RunbookError, match=r"holds the lease since 2025-11-21T12:00:00Z \(250 s\)"):
        begin(journal)


def test_a_silent_run_that_nobody_took_over_may_go_on(journal, clock):
    begin(journal)
    clock.now += 300
    journal.write(1, 1, [{"event": "result"}], 60)
    assert journal.lease()["expired"] is False


def test_the_lease_of_a_dead_holder_is_taken_over_at_once(journal, clock):
    begin(journal)
    clock.now += 1
    with pytest.raises(RunbookError, match="holds the lease"):
        begin(journal, dead_fence=7)  # some other one is dead
    assert begin(journal, dead_fence=1) == {"run": 2, "fence": 2, "at": NOON + 1}


def test_no_dead_fence_means_no_takeover(journal):
    begin(journal)
    with pytest.raises(RunbookError, match="holds the lease"):
        begin(journal, dead_fence=0)


def test_a_plan_from_before_another_run_is_stale(journal):
    basis = journal.read()["fence"]
    begin(journal)
    journal.close(1, 1, [], {"outcome": "deployed"})
    with pytest.raises(RunbookError) as caught:
        begin(journal, basis=basis)
    assert str(caught.value) == (
        "another run (1) came between the plan and its start; nothing has been touched, run the same command again"
    )
    assert caught.value.details == {"stale": True}
    assert journal.runs() == [1]


def test_a_plan_that_settles_a_run_which_then_ended_by_itself_is_stale(journal):
    """It was only busy while the plan was made: it has its own record, and another would be a lie."""
    begin(journal)
    read = journal.read()
    journal.close(1, 1, [], {"outcome": "deployed"})
    assert read["fence"] == journal.read()["fence"]
    with pytest.raises(RunbookError, match="came between the plan and its start"):
        begin(journal, basis=read["fence"], settled=[interrupted(1)])
    assert [record["outcome"] for record in journal.history()] == ["deployed"]


@pytest.mark.parametrize("part", ["history", "runs", "lease"])
def test_a_run_that_begins_while_the_journal_is_read_makes_the_reading_stale(journal, clock, part):
    class Interrupted(Journal):
        def _meanwhile(self):
            if not journal.runs():
                begin(journal)
                journal.close(1, 1, [], {"outcome": "deployed"})

        def lease(self):
            found = super().lease()
            if part == "lease":
                self._meanwhile()
            return found

        def history(self):
            found = super().history()
            if part == "history":
                self._meanwhile()
            return found

        def runs(self):
            found = super().runs()
            if part == "runs":
                self._meanwhile()
            return found

    read = Interrupted(journal.directory, clock).read()
    if read["fence"] == 1:
        assert [record["run"] for record in read["history"]] == [1]  # all of it was seen
    else:
        with pytest.raises(RunbookError, match="came between"):
            begin(journal, basis=read["fence"])


# -- fencing ----------------------------------------------------------------------------------------------------


def snapshot(directory):
    return {
        os.path.join(where, name): open(os.path.join(where, name), "rb").read()
        for where, _dirs, names in os.walk(directory)
        for name in names
    }


@pytest.mark.parametrize("closed", [False, True])
def test_a_run_that_was_taken_over_can_write_nothing_any_more(journal, clock, closed):
    begin(journal)
    clock.now += 61
    begin(journal)
    held = "run 2 with fencing number 2"
    if closed:
        journal.close(2, 2, [], {"outcome": "deployed"})
        held = "nobody"
    before = snapshot(journal.directory)
    for attempt in (
        lambda: journal.write(1, 1, [{"event": "result"}], 60),
        lambda: journal.write(1, 1, [], 60),
        lambda: journal.close(1, 1, [{"event": "end"}], {"outcome": "deployed"}),
    ):
        with pytest.raises(RunbookError) as caught:
            attempt()
        assert str(caught.value) == lost(1, 1, held)
        assert caught.value.details == {"fenced": True}
    assert snapshot(journal.directory) == before


def test_nothing_is_written_after_the_end(journal):
    begin(journal)
    journal.close(1, 1, [], {"outcome": "deployed"})
    before = snapshot(journal.directory)
    with pytest.raises(RunbookError) as caught:
        journal.close(1, 1, [], {"outcome": "failed"})
    assert str(caught.value) == lost(1, 1, "nobody")
    assert snapshot(journal.directory) == before


@pytest.mark.parametrize(("run", "fence"), [(1, 2), (2, 1), (0, 0)])
def test_only_the_holder_writes(journal, run, fence):
    begin(journal)
    with pytest.raises(RunbookError) as caught:
        journal.write(run, fence, [{"event": "x"}], 60)
    assert str(caught.value) == lost(run, fence, "run 1 with fencing number 1")
    assert journal.runs() == [1]


@pytest.mark.parametrize("call", ["write", "close"])
def test_a_journal_that_is_gone_during_a_run_is_not_begun_anew(journal, call):
    begin(journal)
    shutil.rmtree(journal.directory)
    with pytest.raises(RunbookError, match=r"nobody does, because the journal in .* is gone"):
        journal.write(1, 1, [], 60) if call == "write" else journal.close(1, 1, [], {})
    assert not journal.directory.exists()


def test_nobody_writes_before_the_first_run(journal):
    journal.directory.mkdir(parents=True)
    with pytest.raises(RunbookError, match="nobody does"):
        journal.write(1, 1, [], 60)


# -- waiting ----------------------------------------------------------------------------------------------------


def test_waiting_ends_when_the_other_run_ends(journal, clock):
    begin(journal)
    clock.between = [lambda: None, lambda: None, lambda: journal.close(1, 1, [], {"outcome": "deployed"})]
    read = journal.read(600)
    assert read["lease"] is None
    assert clock.slept == [0.5] * 3
    assert [record["run"] for record in read["history"]] == [1]
    assert read["unfinished"] == []


def test_waiting_ends_when_the_lease_ends(journal, clock):
    begin(journal)
    read = journal.read(600)
    assert read["lease"]["expired"] is True
    assert clock.now == NOON + 60
    assert [run["run"] for run in read["unfinished"]] == [1]


def test_waiting_ends_when_its_own_time_is_over(journal, clock):
    begin(journal, ttl_seconds=1000)
    assert journal.read(10)["lease"]["expired"] is False
    assert sum(clock.slept) == 10


SAID = {"verb": "attest", "gate": "plan", "by": HOLDER, "outcome": "attested"}


def test_a_statement_is_a_record_of_a_run_that_did_nothing(journal, clock):
    first = begin(journal)
    journal.close(first["run"], first["fence"], [], {"verb": "deploy", "outcome": "deployed"})
    noted = journal.note(HOLDER, "attest plan", SAID)
    assert noted == {"run": 2, "fence": 2, "at": NOON}
    read = journal.read()
    assert read["history"][-1] == {**SAID, "run": 2, "fence": 2, "ended": NOON}
    assert read["lease"] is None and read["unfinished"] == [] and read["fence"] == 2
    assert begin(journal, basis=2)["run"] == 3


def test_a_statement_waits_for_no_run_and_ends_none(journal, clock):
    first = begin(journal)
    with pytest.raises(RunbookError, match="holds the lease since"):
        journal.note(HOLDER, "attest plan", SAID)
    assert journal.read()["history"] == []
    journal.write(first["run"], first["fence"], [], 60)


def test_a_plan_from_before_a_statement_is_stale(journal, clock):
    journal.note(HOLDER, "attest plan", SAID)
    with pytest.raises(RunbookError, match="came between"):
        begin(journal, basis=0)


def test_after_a_run_that_did_not_end_a_statement_leaves_it_to_be_settled(journal, clock):
    first = begin(journal, ttl_seconds=60)
    clock.now += 61
    journal.note(HOLDER, "attest plan", SAID)
    assert [run["run"] for run in journal.read()["unfinished"]] == [first["run"]]
    with pytest.raises(RunbookError, match="no longer holds the lease: nobody does"):
        journal.write(first["run"], first["fence"], [], 60)


def test_statements_are_told_apart_from_changes(tmp_path):
    from ansible_collections.signalbox.runbook.plugins.module_utils import _journal

    given = {"directory": str(tmp_path), "run": 0, "fence": 0, "wait_seconds": 0, "recent": 0, "reason": "attest plan"}
    noted = _journal.call({**given, "state": "noted", "holder": HOLDER, "record": SAID})
    assert noted["changed"] and noted["run"] == 1
    read = _journal.call({**given, "state": "read"})
    assert read["history"] == [] and [note["gate"] for note in read["notes"]] == ["plan"]


def test_without_waiting_nobody_sleeps(journal, clock):
    begin(journal)
    journal.read(0)
    assert clock.slept == []


# -- crashes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", ['{"run":2', '{"run":2,"outcome":"deployed"}', "{", "\0\0\0"])
def test_a_last_line_cut_short_never_happened(journal, torn):
    begin(journal)
    journal.close(1, 1, [], {"outcome": "deployed"})
    begin(journal)
    journal.write(2, 2, [{"event": "intent", "step": "01-stage"}], 60)
    for path in (journal.directory / "history.jsonl", journal.directory / "runs" / "2.jsonl"):
        with path.open("a") as stream:
            stream.write(torn)
    assert [record["run"] for record in journal.history()] == [1]
    assert [event["event"] for event in journal.events(2)] == ["open", "intent"]
    journal.close(2, 2, [{"event": "end"}], {"outcome": "failed"})
    assert [(record["run"], record["outcome"]) for record in journal.history()] == [(1, "deployed"), (2, "failed")]
    assert [event["event"] for event in journal.events(2)] == ["open", "intent", "end"]
    assert torn not in (journal.directory / "history.jsonl").read_text().splitlines()


def test_a_run_whose_first_line_was_cut_short_is_unfinished_without_events(journal, clock):
    begin(journal)
    path = journal.directory / "runs" / "1.jsonl"
    path.write_text(path.read_text()[:20])
    clock.now += 61
    assert journal.read()["unfinished"] == [{"run": 1, "events": []}]
    assert begin(journal)["run"] == 2
    assert [record["run"] for record in journal.history()] == [1]


@given(st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=5) | st.integers()), max_size=5), st.data())
def test_any_cut_of_the_lines_gives_a_beginning_of_them(values, data):
    text = "".join(json.dumps(value) + "\n" for value in values)
    cut = parse_lines(text[: data.draw(st.integers(0, len(text)))])
    assert cut == values[: len(cut)]
    assert parse_lines(text) == values


class PowerCutError(Exception):
    pass


class Fragile(Journal):
    """Loses its power at the n-th write: before it, in the middle of the line, or right after it."""

    def __init__(self, directory, clock, dies_at, how):
        super().__init__(directory, clock)
        self.left, self.how, self.cut = dies_at, how, False

    def _die(self, write, tear):
        if self.left:
            self.left -= 1
            return write()
        self.cut = True
        if self.how == "torn":
            tear()
        if self.how == "after":
            write()
        raise PowerCutError

    def _append(self, path, value):
        def tear():
            with path.open("a") as stream:
                stream.write(json.dumps(value)[:9])

        self._die(lambda: super(Fragile, self)._append(path, value), tear)

    def _write_lease(self, *args):
        self._die(lambda: super(Fragile, self)._write_lease(*args), lambda: None)  # it is replaced in one rename


@pytest.mark.parametrize("how", ["before", "torn", "after"])
@pytest.mark.parametrize("dies_at", range(7))
@pytest.mark.parametrize("again", [None, 0, 1, 2, 3, 4])
def test_whenever_the_power_goes_the_next_run_settles_all(tmp_path, clock, how, dies_at, again):
    """Two runs that never ended; the opening of the third loses its power, perhaps that of the fourth too."""
    journal = Journal(tmp_path, clock)
    begin(journal)
    clock.now += 61
    begin(journal, settled=[])
    clock.now += 61
    assert [run["run"] for run in journal.read()["unfinished"]] == [1, 2]
    fences, cuts = [2], 0
    # lease, open, two events, two settled records: the seventh write does not exist
    for at in [dies_at] if again is None else [dies_at, again]:
        fragile = Fragile(tmp_path, clock, at, how)
        try:
            fences.append(begin(fragile, events=[{"event": "a"}, {"event": "b"}])["fence"])
        except PowerCutError:
            cuts += 1
        finally:
            assert fragile.cut == (at < 6)
        clock.now += 61
        read = journal.read()
        known = {record["run"] for record in read["history"]} | {run["run"] for run in read["unfinished"]}
        assert known >= {1, 2}  # none is lost
        assert read["fence"] >= fences[-1]
        fences.append(read["fence"])
    assert cuts or dies_at == 6 or again is not None
    last = begin(journal)
    assert last["fence"] > max(fences)
    read = journal.read()
    assert [run["run"] for run in read["unfinished"]] == [last["run"]]
    finished = [record["run"] for record in read["history"]]
    assert sorted(finished) == sorted(set(finished)) == list(range(1, last["run"]))
    assert journal.runs() == [*range(1, last["run"] + 1)]
    journal.close(last["run"], last["fence"], [], {"outcome": "deployed"})
    assert journal.read()["unfinished"] == []


@pytest.mark.parametrize("how", ["before", "torn", "after"])
@pytest.mark.parametrize("dies_at", range(3))
def test_whenever_the_power_goes_at_the_end_there_is_one_record(journal, clock, how, dies_at):
    opened = begin(journal)
    fragile = Fragile(journal.directory, clock, dies_at, how)
    try:
        fragile.close(1, 1, [{"event": "end"}], {"outcome": "deployed"})
    except PowerCutError:
        pass
    else:
        assert dies_at == 2
    clock.now += 61
    written = dies_at == 2 or (dies_at == 1 and how == "after")
    assert bool(journal.history()) is written
    assert bool(journal.read()["unfinished"]) is not written
    assert begin(journal)["fence"] == opened["fence"] + 1
    assert [record["run"] for record in journal.history()] == [1]


# -- many -------------------------------------------------------------------------------------------------------


def race(directory, rounds, barrier, pipe, name):
    results = []
    for number in range(rounds):
        journal = Journal(directory / str(number))
        barrier.wait(LONG)
        try:
            opened = journal.open({"user": name, "host": "h"}, name, 60, 0, PLAN)
            results.append(("won", opened["run"], opened["fence"]))
        except RunbookError as error:
            results.append(("lost", str(error)))
    pipe.send(results)


def test_of_two_that_race_exactly_one_wins(tmp_path):
    rounds, barrier = 40, fork.Barrier(2)
    runners = []
    for name in ("anna", "ben"):
        pipe, its_end = fork.Pipe()
        process = fork.Process(target=race, args=(tmp_path, rounds, barrier, its_end, name))
        process.start()
        runners.append((name, process, pipe))
    results = {}
    for name, process, pipe in runners:
        assert pipe.poll(LONG)
        results[name] = pipe.recv()
        process.join(LONG)
    for number, pair in enumerate(zip(*results.values())):
        assert sorted(result[0] for result in pair) == ["lost", "won"]
        winner = next(name for name in results if results[name][number][0] == "won")
        refused = next(result for result in pair if result[0] == "lost")
        assert f"run 1 of {winner}@h holds the lease" in refused[1]
        journal = Journal(tmp_path / str(number))
        assert journal.runs() == [1]
        assert len(journal.events(1)) == 1
        assert journal.lease()["holder"]["user"] == winner


def work(directory, name, count, pipe):
    done, deadline = [], time.monotonic() + LONG
    while len(done) < count and time.monotonic() < deadline:
        journal = Journal(directory)
        read = journal.read()
        if read["lease"]:
            continue
        try:
            opened = journal.open({"user": name, "host": "h"}, name, 60, read["fence"], PLAN)
        except RunbookError:
            continue
        journal.write(opened["run"], opened["fence"], [{"event": "result", "by": name}], 60)
        journal.close(opened["run"], opened["fence"], [], {"outcome": "deployed", "by": name})
        done.append(opened["run"])
    pipe.send(done)


@pytest.mark.requirement("REC-07")
def test_many_writers_leave_one_whole_readable_row_each_and_none_is_ever_changed(tmp_path):
    path = tmp_path / "history.jsonl"
    workers = []
    for name in ("anna", "ben", "cem"):
        pipe, its_end = fork.Pipe()
        process = fork.Process(target=work, args=(tmp_path, name, 12, its_end))
        process.start()
        workers.append((name, process, pipe))
    seen, done, deadline = b"", {}, time.monotonic() + 2 * LONG
    while len(done) < len(workers) and time.monotonic() < deadline:
        now = path.read_bytes() if path.exists() else b""
        assert now.startswith(seen)  # append-only: what was there stays as it was
        seen = now
        for name, process, pipe in workers:
            if name not in done and pipe.poll(0.001):
                done[name] = pipe.recv()
                process.join(LONG)
            assert process.is_alive() or process.exitcode == 0
    rows = [json.loads(line) for line in path.read_text().splitlines()]  # plain JSON, no collection needed
    assert [row["run"] for row in rows] == list(range(1, 37))
    assert {name: [row["run"] for row in rows if row["by"] == name] for name in done} == done
    for run in range(1, 37):
        assert [event["event"] for event in Journal(tmp_path).events(run)] == ["open", "result"]


def test_thousands_of_records(journal):
    begin(journal)
    journal.close(1, 1, [], {"outcome": "deployed"})
    path = journal.directory / "history.jsonl"
    with path.open("a") as stream:
        for run in range(2, 5001):
            stream.write(json.dumps({"run": run, "outcome": "deployed", "phases": [{"text": "x" * 40}] * 5}) + "\n")
    read = journal.read()
    assert [record["run"] for record in read["history"]] == list(range(1, 5001))
    assert read["unfinished"] == []
    assert begin(journal)["run"] == 5001  # the files of old runs may be gone
    journal.close(5001, 2, [], {"outcome": "deployed"})
    assert len(journal.history()) == 5001


def test_files_that_are_no_runs_are_left_alone(journal):
    begin(journal)
    (journal.directory / "runs" / "notes.txt").write_text("x")
    (journal.directory / "runs" / ".1.jsonl.swp").write_text("x")
    assert journal.runs() == [1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1970-01-01T00:00:00Z"), (NOON, "2025-11-21T12:00:00Z"), (NOON + 0.999, "2025-11-21T12:00:00Z")],
)
def test_times_are_utc_and_iso_8601_wherever_we_are(monkeypatch, seconds, text):
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert utc(seconds) == text
    finally:
        monkeypatch.undo()
        time.tzset()
