# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The journal and the lease: what runs intended and did, and who may change things now.

Everything lies in one directory of the state host and is judged by that host's clock alone:

* ``lease.json``: the lease and the last fencing number given out,
* ``runs/<n>.jsonl``: intents and results of run n, appended and synced one line at a time,
* ``history.jsonl``: one record per finished run.

A run is unfinished while ``history.jsonl`` has no record of it; that line is the commit point.
Private: may change at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._files import fsync_directory, read_json, write_json
from ansible_collections.signalbox.runbook.plugins.module_utils._records import brief

Record = dict[str, Any]

# The options of the module journal, which the controller's own calls are completed by as well.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "directory": {"type": "path", "required": True},
    "state": {"type": "str", "required": True, "choices": ["read", "opened", "written", "renewed", "closed"]},
    "wait_seconds": {"type": "float", "default": 0},
    "recent": {"type": "int", "default": 20},
    "ttl_seconds": {"type": "float", "default": 60},
    "run": {"type": "int", "default": 0},
    "fence": {"type": "int", "default": 0},
    "holder": {"type": "dict", "default": {}},
    "reason": {"type": "str", "default": ""},
    "basis": {"type": "int", "default": 0},
    "dead_fence": {"type": "int", "default": 0},
    "plan": {"type": "dict", "default": {}},
    "settled": {"type": "list", "elements": "dict", "default": []},
    "events": {"type": "list", "elements": "dict", "default": []},
    "record": {"type": "dict", "default": {}},
}


def call(given: Mapping[str, Any]) -> Record:
    """What one call of the module returns: the journal is read, or changed as ``state`` says."""
    directory, state = given["directory"], given["state"]
    journal = Journal(Path(directory))
    try:
        if state == "read":
            read = journal.read(given["wait_seconds"])
            return {"changed": False, **read, "history": brief(read["history"], given["recent"])}
        result = {"changed": state != "renewed", "run": given["run"], "fence": given["fence"]}
        if state == "opened":
            words = ("holder", "reason", "ttl_seconds", "basis", "plan", "events", "settled", "dead_fence")
            return {**result, **journal.open(**{word: given[word] for word in words})}
        own = (given["run"], given["fence"], given["events"])
        if state == "closed":
            return {**result, **journal.close(*own, given["record"])}
        return {**result, **journal.write(*own, given["ttl_seconds"])}
    except (OSError, ValueError) as error:
        verb = "read" if state == "read" else "written"
        raise RunbookError(f"the journal in {directory} cannot be {verb}: {error}") from error


def utc(seconds: float) -> str:
    """ISO 8601 in UTC, whole seconds."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_lines(text: str) -> list[Record]:
    """The whole lines of a JSON-lines file. A last line cut short by a crash never happened."""
    lines = text.split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def lease_problem(lease: Mapping[str, Any], now: float) -> str:
    """Why a lease that is held can't be had, for the operator."""
    holder = lease["holder"]
    who = f"{holder.get('user', '?')}@{holder.get('host', '?')}"
    return (
        f"run {lease['run']} of {who} holds the lease since {utc(lease['since'])} ({now - lease['since']:.0f} s): "
        f"{lease['reason']}. It ends by itself {max(0.0, lease['expires'] - now):.0f} s from now unless renewed. "
        "Wait for it with -e app_lease_wait_seconds=600"
    )


class Journal:
    def __init__(
        self,
        directory: Path,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.directory = directory
        self.clock = clock
        self.sleep = sleep

    # -- reading ------------------------------------------------------------------------------------------------

    def lease(self) -> Optional[Record]:
        """The lease as it stands, or None when nobody holds a valid one."""
        lease: Optional[Record] = read_json(self.directory / "lease.json")
        if not lease or lease["released"]:
            return None
        return {**lease, "expired": self.clock() >= lease["expires"]}

    def history(self) -> list[Record]:
        with contextlib.suppress(FileNotFoundError):
            return parse_lines((self.directory / "history.jsonl").read_text(encoding="utf-8"))
        return []

    def events(self, run: int) -> list[Record]:
        return parse_lines((self.directory / "runs" / f"{run}.jsonl").read_text(encoding="utf-8"))

    def runs(self) -> list[int]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(int(p.stem) for p in (self.directory / "runs").iterdir() if p.stem.isdigit())
        return []

    def read(self, wait_seconds: float = 0) -> Record:
        """Everything a plan needs to know; waits up to ``wait_seconds`` for somebody else's lease to end."""
        deadline = self.clock() + wait_seconds
        lease = self.lease()
        while lease and not lease["expired"] and self.clock() < deadline:
            self.sleep(0.5)
            lease = self.lease()
        # Before all else: a run that begins while the rest is read then makes this reading stale, not wrong.
        fence = (read_json(self.directory / "lease.json") or {}).get("fence", 0)
        history = self.history()
        finished = {record["run"] for record in history}
        unfinished = [run for run in self.runs() if run not in finished]
        return {
            "now": self.clock(),
            "lease": lease,
            "fence": fence,
            "history": history,
            "unfinished": [{"run": run, "events": self.events(run)} for run in unfinished],
        }

    # -- writing ------------------------------------------------------------------------------------------------

    def open(
        self,
        holder: Mapping[str, Any],
        reason: str,
        ttl_seconds: float,
        basis: int,
        plan: Mapping[str, Any],
        events: Sequence[Mapping[str, Any]] = (),
        settled: Sequence[Record] = (),
        dead_fence: int = 0,
    ) -> Record:
        """Take the lease and begin a run.

        ``basis`` is the fencing number that the plan was made from: when another run came between, the plan is
        stale and refused. ``settled`` are the records of unfinished runs that this plan deals with. ``dead_fence``
        names a lease whose holder the caller knows to be dead; it is taken over before its time to live ends.
        """
        # Only here: a directory that is gone during a run is lost, and must not be begun anew.
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        with self._locked():
            now = self.clock()
            lease = self.lease()
            if lease and not lease["expired"] and lease["fence"] != dead_fence:
                raise RunbookError(lease_problem(lease, now), lease=lease)
            last = read_json(self.directory / "lease.json") or {"fence": 0}
            history = self.history()
            ended = {record["run"] for record in history} & {record["run"] for record in settled}
            if last["fence"] != basis or ended:  # ended: the run to settle was alive after all and ended by itself
                raise RunbookError(
                    f"another run ({last.get('run')}) came between the plan and its start; nothing has been touched, "
                    "run the same command again",
                    stale=True,
                )
            (self.directory / "runs").mkdir(parents=True, exist_ok=True)
            runs = self.runs()
            run = max([runs[-1] if runs else 0, *(record["run"] for record in history[-1:])]) + 1
            fence = last["fence"] + 1
            # First the lease, then the run, then the records of those it settles: after a crash between them the
            # next run finds one more unfinished run, never one that nobody settles.
            self._write_lease(run, fence, holder, reason, now, now, ttl_seconds)
            opening = {"event": "open", "run": run, "fence": fence, "plan": plan}
            for event in (opening, *events):
                self._append(self._run_file(run), {**event, "at": now})
            fsync_directory(self.directory / "runs")
            for record in settled:
                self._append(self.directory / "history.jsonl", {**record, "settled_by": run, "ended": now})
            return {"run": run, "fence": fence, "at": now}

    def write(self, run: int, fence: int, events: Sequence[Mapping[str, Any]], ttl_seconds: float) -> Record:
        """Append intents and results, and renew the lease for ``ttl_seconds``."""
        with self._locked():
            lease = self._own(run, fence)
            now = self.clock()
            for event in events:
                self._append(self._run_file(run), {**event, "at": now})
            self._write_lease(run, fence, lease["holder"], lease["reason"], lease["since"], now, ttl_seconds)
            return {"at": now}

    def close(self, run: int, fence: int, events: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> Record:
        """End the run: its record goes into the history and the lease is released."""
        with self._locked():
            lease = self._own(run, fence)
            now = self.clock()
            for event in events:
                self._append(self._run_file(run), {**event, "at": now})
            self._append(self.directory / "history.jsonl", {**record, "run": run, "fence": fence, "ended": now})
            write_json(self.directory / "lease.json", {**lease, "released": True, "expires": now})
            return {"at": now}

    # -- parts --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            fd = os.open(self.directory / "journal.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise RunbookError(
                f"this run no longer holds the lease: nobody does, because the journal in {self.directory} is gone. "
                "Bring it back, then run the same command again"
            ) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # held for milliseconds only; the lease is what lasts
            yield
        finally:
            os.close(fd)

    def _own(self, run: int, fence: int) -> Record:
        lease: Optional[Record] = read_json(self.directory / "lease.json")
        if not lease or lease["fence"] != fence or lease["run"] != run or lease["released"]:
            held = lease and not lease["released"]
            now_held = f"run {lease['run']} with fencing number {lease['fence']}" if lease and held else "nobody"
            raise RunbookError(
                f"run {run} (fencing number {fence}) no longer holds the lease: {now_held} does. "
                "It must not change anything any more; ansible-playbook status.yml shows what is live",
                fenced=True,
            )
        return lease

    def _run_file(self, run: int) -> Path:
        return self.directory / "runs" / f"{run}.jsonl"

    def _write_lease(
        self, run: int, fence: int, holder: Any, reason: str, since: float, now: float, ttl_seconds: float
    ) -> None:
        write_json(
            self.directory / "lease.json",
            {
                "run": run,
                "fence": fence,
                "holder": holder,
                "reason": reason,
                "since": since,
                "renewed": now,
                "expires": now + ttl_seconds,
                "released": False,
            },
        )

    def _append(self, path: Path, value: Mapping[str, Any]) -> None:
        line = json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        with os.fdopen(fd, "r+b") as stream:
            stream.seek(0, os.SEEK_END)
            end = stream.tell()
            if end:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":  # a crash cut the last line short: it never happened
                    stream.seek(0)
                    stream.truncate(stream.read().rfind(b"\n") + 1)
                    stream.seek(0, os.SEEK_END)
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())
