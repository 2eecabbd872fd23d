# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The journal and the lease: what runs intended and did, and who may change things now.

``Rules`` say what may happen; a ``Store`` keeps it and has the one clock that everything is judged by. There are two:
``Directory`` here, judged by the clock of the state host, and the objects of ``_journal_kubernetes``. The directory has

* ``lease.json``: the lease and the last fencing number given out,
* ``runs/<n>.jsonl``: intents and results of run n, appended and synced one line at a time,
* ``history.jsonl``: one record per finished run.

A run is unfinished while the history has no record of it; that line is the commit point.
Private: may change at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Optional, Protocol

from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._files import fsync_directory, read_json, write_json
from ansible_collections.signalbox.runbook.plugins.module_utils._records import brief, split

Record = dict[str, Any]

# What the modules of both stores take, documented by the fragment journal.
OPTIONS: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "required": True, "choices": ["read", "opened", "written", "renewed", "closed", "noted"]},
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
NOTE_SECONDS = 30  # of the lease that a statement takes, should nobody give it back

# The options of the module journal, which the controller's own calls are completed by as well.
ARGUMENTS: dict[str, dict[str, Any]] = {"directory": {"type": "path", "required": True}, **OPTIONS}


def call(given: Mapping[str, Any]) -> Record:
    """What one call of the module journal returns."""
    return answer(Journal(Path(given["directory"])), given, given["directory"])


def answer(journal: Rules, given: Mapping[str, Any], where: str) -> Record:
    """The journal is read, or changed as ``state`` says; ``where`` it is, for the operator."""
    state = given["state"]
    try:
        if state == "read":
            read = journal.read(given["wait_seconds"])
            history, notes = split(read["history"])
            return {"changed": False, **read, "history": brief(history, given["recent"]), "notes": notes}
        result = {"changed": state != "renewed", "run": given["run"], "fence": given["fence"]}
        if state == "opened":
            words = ("holder", "reason", "ttl_seconds", "basis", "plan", "events", "settled", "dead_fence")
            return {**result, **journal.open(**{word: given[word] for word in words})}
        if state == "noted":
            return {**result, **journal.note(given["holder"], given["reason"], given["record"])}
        own = (given["run"], given["fence"], given["events"])
        if state == "closed":
            return {**result, **journal.close(*own, given["record"])}
        return {**result, **journal.write(*own, given["ttl_seconds"])}
    except (OSError, ValueError) as error:
        verb = "read" if state == "read" else "written"
        raise RunbookError(f"the journal in {where} cannot be {verb}: {error}") from error


def run_module(module: Any, call: Callable[[Mapping[str, Any]], Record]) -> None:
    """What both modules do with their AnsibleModule."""
    given = module.params
    if module.check_mode and given["state"] != "read":
        module.exit_json(changed=True, at=0.0, run=given["run"], fence=given["fence"])
    try:
        module.exit_json(**call(given))
    except RunbookError as error:
        module.fail_json(msg=str(error), **error.details)


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


def stale(run: Any) -> RunbookError:
    return RunbookError(
        f"another run ({run}) came between the plan and its start; nothing has been touched, "
        "run the same command again",
        stale=True,
    )


def lost(run: int, fence: int, lease: Optional[Mapping[str, Any]]) -> RunbookError:
    """What a run is told that does not hold the lease any more, but another run (or nobody) as ``lease`` says."""
    held = lease and not lease["released"]
    now_held = f"run {lease['run']} with fencing number {lease['fence']}" if lease and held else "nobody"
    return RunbookError(
        f"run {run} (fencing number {fence}) no longer holds the lease: {now_held} does. "
        "It must not change anything any more; ansible-playbook status.yml shows what is live",
        fenced=True,
    )


def line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n"


class Store(Protocol):
    """Where leases, runs and the history lie. Every change is made within ``changing`` and is durable when it returns.
    A change by somebody who does not hold the lease any more must fail, at the latest when ``changing`` ends."""

    def clock(self) -> float:
        """The time, the same for everybody who uses this store."""

    def last_lease(self) -> Optional[Record]:
        """The lease as it was kept last, whoever holds it; None before the first."""

    def runs(self) -> list[int]:
        """Numbers of the runs of which there are events, in their order."""

    def events(self, run: int) -> list[Record]: ...

    def history(self) -> list[Record]: ...

    def changing(self, beginning: bool = False) -> AbstractContextManager[None]:
        """One change; ``beginning`` where the store may not be there yet."""

    def keep_lease(self, lease: Record) -> None: ...

    def begin(self, run: int, events: Sequence[Record]) -> None: ...

    def add(self, run: int, events: Sequence[Record]) -> None: ...

    def add_history(self, records: Sequence[Record]) -> None: ...


class Rules:
    """Who may change things now, and what becomes of a run: the same in every store."""

    def __init__(self, store: Store, sleep: Callable[[float], None] = time.sleep) -> None:
        self.store = store
        self.sleep = sleep

    def lease(self) -> Optional[Record]:
        """The lease as it stands, or None when nobody holds one; an expired one says so."""
        return self._judged(self.store.last_lease())

    def _judged(self, lease: Optional[Record]) -> Optional[Record]:
        if not lease or lease["released"]:
            return None
        return {**lease, "expired": self.store.clock() >= lease["expires"]}

    def read(self, wait_seconds: float = 0) -> Record:
        """Everything a plan needs to know; waits up to ``wait_seconds`` for somebody else's lease to end."""
        deadline = self.store.clock() + wait_seconds
        lease = self.lease()
        while lease and not lease["expired"] and self.store.clock() < deadline:
            self.sleep(0.5)
            lease = self.lease()
        # Before all else: a run that begins while the rest is read then makes this reading stale, not wrong.
        fence = (self.store.last_lease() or {}).get("fence", 0)
        history = self.store.history()
        finished = {record["run"] for record in history}
        unfinished = [run for run in self.store.runs() if run not in finished]
        return {
            "now": self.store.clock(),
            "lease": lease,
            "fence": fence,
            "history": history,
            "unfinished": [{"run": run, "events": self.store.events(run)} for run in unfinished],
        }

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
        with self.store.changing(beginning=True):
            last = self.store.last_lease() or {"fence": 0, "released": True}
            now = self.store.clock()
            lease = self._judged(last)
            if lease and not lease["expired"] and lease["fence"] != dead_fence:
                raise RunbookError(lease_problem(lease, now), lease=lease)
            history = self.store.history()
            ended = {record["run"] for record in history} & {record["run"] for record in settled}
            if last["fence"] != basis or ended:  # ended: the run to settle was alive after all and ended by itself
                raise stale(last.get("run"))
            run, fence = self._next(), last["fence"] + 1
            # First the lease, then the run, then the records of those it settles: after a crash between them the
            # next run finds one more unfinished run, never one that nobody settles.
            self._write_lease(run, fence, holder, reason, now, now, ttl_seconds)
            opening = {"event": "open", "run": run, "fence": fence, "plan": plan}
            self.store.begin(run, [{**event, "at": now} for event in (opening, *events)])
            self.store.add_history([{**record, "settled_by": run, "ended": now} for record in settled])
            return {"run": run, "fence": fence, "at": now}

    def write(self, run: int, fence: int, events: Sequence[Mapping[str, Any]], ttl_seconds: float) -> Record:
        """Append intents and results, and renew the lease for ``ttl_seconds``."""
        with self.store.changing():
            lease = self._own(run, fence)
            now = self.store.clock()
            self.store.add(run, [{**event, "at": now} for event in events])
            self._write_lease(run, fence, lease["holder"], lease["reason"], lease["since"], now, ttl_seconds)
            return {"at": now}

    def close(self, run: int, fence: int, events: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> Record:
        """End the run: its record goes into the history and the lease is released."""
        with self.store.changing():
            lease = self._own(run, fence)
            now = self.store.clock()
            self.store.add(run, [{**event, "at": now} for event in events])
            self.store.add_history([{**record, "run": run, "fence": fence, "ended": now}])
            self.store.keep_lease({**lease, "released": True, "expires": now})
            return {"at": now}

    def note(self, holder: Mapping[str, Any], reason: str, record: Mapping[str, Any]) -> Record:
        """A statement of a person: a record with a number of its own, of a run that changed nothing and has no events.

        The lease is taken for it and given back, so that no run's plan is older than what it was allowed by."""
        with self.store.changing(beginning=True):
            last = self.store.last_lease() or {"fence": 0, "released": True}
            lease, now = self._judged(last), self.store.clock()
            if lease and not lease["expired"]:
                raise RunbookError(lease_problem(lease, now), lease=lease)
            run, fence = self._next(), last["fence"] + 1
            self._write_lease(run, fence, holder, reason, now, now, NOTE_SECONDS)
            self.store.add_history([{**record, "run": run, "fence": fence, "ended": now}])
            written = self.store.last_lease() or {}
            self.store.keep_lease({**written, "released": True, "expires": now})
            return {"run": run, "fence": fence, "at": now}

    def _next(self) -> int:
        runs, history = self.store.runs(), self.store.history()
        return max([0, *runs[-1:], *(int(record["run"]) for record in history[-1:])]) + 1

    def _own(self, run: int, fence: int) -> Record:
        lease = self.store.last_lease()
        if not lease or lease["fence"] != fence or lease["run"] != run or lease["released"]:
            raise lost(run, fence, lease)
        return lease

    def _write_lease(
        self, run: int, fence: int, holder: Any, reason: str, since: float, now: float, ttl_seconds: float
    ) -> None:
        self.store.keep_lease(
            {
                "run": run,
                "fence": fence,
                "holder": holder,
                "reason": reason,
                "since": since,
                "renewed": now,
                "expires": now + ttl_seconds,
                "released": False,
            }
        )


class Directory:
    """The store that is one directory; each change is made under one lock."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self.directory = directory
        self.clock = clock

    def last_lease(self) -> Optional[Record]:
        lease: Optional[Record] = read_json(self.directory / "lease.json")
        return lease

    def history(self) -> list[Record]:
        with contextlib.suppress(FileNotFoundError):
            return parse_lines((self.directory / "history.jsonl").read_text(encoding="utf-8"))
        return []

    def events(self, run: int) -> list[Record]:
        return parse_lines(self._run_file(run).read_text(encoding="utf-8"))

    def runs(self) -> list[int]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(int(p.stem) for p in (self.directory / "runs").iterdir() if p.stem.isdigit())
        return []

    @contextlib.contextmanager
    def changing(self, beginning: bool = False) -> Iterator[None]:
        if beginning:
            # Only here: a directory that is gone during a run is lost, and must not be begun anew.
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o750)
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

    def keep_lease(self, lease: Record) -> None:
        write_json(self.directory / "lease.json", lease)

    def begin(self, run: int, events: Sequence[Record]) -> None:
        (self.directory / "runs").mkdir(parents=True, exist_ok=True)
        self.add(run, events)
        fsync_directory(self.directory / "runs")

    def add(self, run: int, events: Sequence[Record]) -> None:
        for event in events:
            self._append(self._run_file(run), event)

    def add_history(self, records: Sequence[Record]) -> None:
        for record in records:
            self._append(self.directory / "history.jsonl", record)

    def _run_file(self, run: int) -> Path:
        return self.directory / "runs" / f"{run}.jsonl"

    def _append(self, path: Path, value: Mapping[str, Any]) -> None:
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
            stream.write(line(value).encode())
            stream.flush()
            os.fsync(stream.fileno())


class Journal(Directory, Rules):
    """The journal in a directory."""

    def __init__(
        self,
        directory: Path,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        Directory.__init__(self, directory, clock)
        Rules.__init__(self, self, sleep)
