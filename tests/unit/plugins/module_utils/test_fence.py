# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fence, and the files that it and the journal are made of."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _files
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._fence import fenced, read_fence

fork = multiprocessing.get_context("fork")
LONG = 60  # only ever waited for when something is broken


class Clock:
    def __init__(self):
        self.now, self.slept = 50.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def test_numbers_only_rise(tmp_path):
    home = tmp_path / "app" / "web"
    assert read_fence(home) == 0
    with fenced(home, 3):
        assert read_fence(home) == 3
    with fenced(home, 3):  # the same run again
        pass
    with fenced(home, 7):
        pass
    assert (home / "fence").read_text() == "7\n"
    entered = []
    with pytest.raises(RunbookError) as caught, fenced(home, 6):
        entered.append(True)
    assert str(caught.value) == (
        "fencing number 6 is older than 7: this run lost its lease to a newer one and must not change anything any more"
    )
    assert caught.value.details == {"fenced": True}
    assert entered == []
    assert read_fence(home) == 7


def test_the_number_is_recorded_even_when_the_change_fails(tmp_path):
    with pytest.raises(ValueError, match="broken"), fenced(tmp_path, 4):
        raise ValueError("broken")
    assert read_fence(tmp_path) == 4
    with fenced(tmp_path, 5):  # and the lock is free again
        pass


def test_files_are_for_the_owner_only_and_nothing_else_is_left(tmp_path):
    with fenced(tmp_path, 1):
        pass
    assert sorted(os.listdir(tmp_path)) == ["fence", "fence.lock"]
    assert {os.stat(tmp_path / name).st_mode & 0o777 for name in os.listdir(tmp_path)} == {0o600}


@pytest.mark.parametrize("text", ["", "x\n", "-1\n"])
def test_a_fence_file_that_is_no_number_counts_as_none(tmp_path, text):
    (tmp_path / "fence").write_text(text)
    assert read_fence(tmp_path) == 0
    with fenced(tmp_path, 1):
        assert read_fence(tmp_path) == 1


def hold(home, number, pipe):
    with fenced(home, number):
        pipe.send("in")
        pipe.poll(LONG)


@pytest.fixture
def holder(tmp_path):
    """Another process that is inside its change; a word through the pipe lets it end."""
    pipe, its_end = fork.Pipe()
    process = fork.Process(target=hold, args=(tmp_path, 5, its_end))
    process.start()
    assert pipe.poll(LONG)
    assert pipe.recv() == "in"
    yield process, pipe
    if process.is_alive():
        pipe.send("end")
    process.join(LONG)


def test_another_process_waits_and_gives_up_in_time(tmp_path, holder):
    clock, entered = Clock(), []
    with pytest.raises(RunbookError) as caught, fenced(tmp_path, 6, 2, clock, clock.sleep):
        entered.append(True)
    assert str(caught.value) == (
        f"another change of {tmp_path} has been going on for more than 2 s; this one was not started"
    )
    assert entered == []
    assert sum(clock.slept) == pytest.approx(2, abs=0.06)
    assert read_fence(tmp_path) == 5  # a number that never got in is not recorded


def test_another_process_gets_in_when_the_first_is_done(tmp_path, holder):
    process, pipe = holder
    clock = Clock()

    def sleep(seconds):
        if len(clock.slept) == 3:
            pipe.send("end")
            process.join(LONG)
        clock.sleep(seconds)

    with fenced(tmp_path, 6, LONG, clock, sleep):
        assert read_fence(tmp_path) == 6
    assert len(clock.slept) >= 4


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    process, _pipe = holder
    os.kill(process.pid, signal.SIGKILL)
    process.join(LONG)
    assert process.exitcode == -signal.SIGKILL
    clock = Clock()
    with fenced(tmp_path, 5, 0, clock, clock.sleep):  # not even one wait
        pass
    assert clock.slept == []


def test_two_homes_do_not_wait_for_each_other(tmp_path, holder):
    with fenced(tmp_path / "other", 1, 0):
        pass


def test_threads_exclude_each_other_too(tmp_path):
    inside, most = [], []

    def change(number):
        with fenced(tmp_path, 1):
            inside.append(number)
            most.append(len(inside))
            os.stat(tmp_path)
            inside.remove(number)

    threads = [threading.Thread(target=change, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert most == [1] * 8


# -- files that are whole or absent -----------------------------------------------------------------------------


def test_a_file_is_replaced_with_its_mode(tmp_path):
    path = tmp_path / "a.json"
    _files.write_json(path, {"b": 1, "a": [1]}, 0o600)
    assert _files.read_json(path) == {"a": [1], "b": 1}
    assert path.stat().st_mode & 0o777 == 0o600
    _files.write_atomic(path, b"\xff", 0o640)
    assert path.read_bytes() == b"\xff"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["a.json"]
    assert _files.read_json(tmp_path / "none.json") is None


@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "a"
    _files.write_atomic(path, "old")

    def broken(*_args):
        raise OSError("disk full")

    monkeypatch.setattr(os, call, broken)
    with pytest.raises(OSError, match="disk full"):
        _files.write_atomic(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_reader_sees_the_old_or_the_new_never_a_part(tmp_path):
    path = tmp_path / "a"
    contents = {letter * 200_000 for letter in "ab"}
    _files.write_atomic(path, "a" * 200_000)
    stop, seen = threading.Event(), []

    def read():
        while not stop.is_set():
            seen.append(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(20):
        _files.write_atomic(path, "ab"[i % 2] * 200_000)
    stop.set()
    reader.join(LONG)
    assert seen
    assert set(seen) <= contents
