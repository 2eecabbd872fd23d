# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Traffic by weight through one include file of nginx: write, test, reload, prove, or put the old one back.

Private: may change at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _command
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._files import (
    PathLike,
    fsync_directory,
    read_json,
    write_atomic,
    write_json,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._upstreams import (
    Confirm,
    Member,
    Upstream,
    below,
    explained,
    failed,
    upstreams_from,
    weights,
)

__all__ = ["Member", "Upstream", "upstreams_from", "weights"]  # known here too, to whoever uses nginx only

HEADER = "# Written by signalbox.runbook; changes are overwritten."
NOTE = "# runbook: "
SETTLE_SECONDS = 1.0  # from a reload until only new workers take connections, where they can't be seen

# run(words, timeout in seconds) -> (exit code, stdout, stderr)
Run = Callable[[Sequence[str], float], "tuple[int, str, str]"]
# what tells one process from every other: number and start time, because numbers are used again
Process = tuple[int, int]

_MESSAGE = re.compile(r"nginx: (\[(?:emerg|alert|crit|error)\] .*)")
_NOT_RUNNING = re.compile(r'invalid PID number|No such process|\[error\] open\(\) "[^"]*" failed \(2:')
_UPSTREAM_LINE = re.compile(r"upstream (\S+) \{")
_SERVER_LINE = re.compile(r"\s+server (\S+):(\d+) (?:weight=(\d+)[^;]*|down); # (\S+)")


class NotRunningError(RunbookError):
    """There is no nginx that could be reloaded."""


@dataclass(frozen=True)
class Plan:
    """The file as it is (None: absent) and as it shall be."""

    before: Optional[str]
    after: str
    pending: bool = False

    @property
    def changed(self) -> bool:
        """A change that only the fencing number would make is none."""
        return self.pending or not _same(self.before, self.after)

    def to_dict(self, confirmed: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        kept = _same(self.before, self.after)  # such a file keeps the fencing number of the run that wrote it
        return {
            "changed": self.changed,
            "before": self.before or "",
            "after": (self.before or "") if kept else self.after,
            "confirmed": list(confirmed),
            "restored": False,
        }


def _block(upstream: Upstream) -> str:
    live = [member for member in upstream.members if member.weight]
    # nginx takes a failed member out for ten seconds and sends its share to the others. That helps among targets of
    # one slot. It would be wrong for a lone live member (nothing is left: ten seconds of 502 after one failure, since
    # the idle slot's `down` members count as company) and between slots (the watch would not see the bad release).
    passive = len(live) > 1 and len({member.slot for member in live}) == 1
    lines = [f"upstream {upstream.name} {{"]
    for member in sorted(upstream.members, key=lambda m: (m.slot, m.address, m.port)):
        state = "down" if not member.weight else f"weight={member.weight}" + ("" if passive else " max_fails=0")
        lines.append(f"    server {member.server} {state}; # {member.slot}")
    if not upstream.members:
        lines.append("    server 127.0.0.1:9 down;")  # an upstream needs a server; this one answers 502
    lines += ["    keepalive 32;", "}"]
    return "\n".join(lines)


def render(upstreams: Sequence[Upstream], note: Mapping[str, Any]) -> str:
    """The include file. The note goes into a comment: what a later inspection cannot see from the members."""
    body = "\n".join(_block(upstream) for upstream in sorted(upstreams, key=lambda one: one.name))
    said = {**{key: value for key, value in note.items() if key != "digest"}, "weights": weights(upstreams)}
    # Without the fencing number: the same traffic arranged by a later run is the same file.
    lasting = json.dumps({key: value for key, value in said.items() if key != "fence"}, sort_keys=True)
    said["digest"] = hashlib.sha256(f"{lasting}\n{body}".encode()).hexdigest()[:16]
    return f"{HEADER}\n{NOTE}{json.dumps(said, sort_keys=True)}\n{body}\n"


def _parsed(text: str) -> Optional[tuple[list[Upstream], dict[str, Any]]]:
    lines = text.splitlines()
    if not lines or lines[0].strip() != HEADER:
        return None
    note: dict[str, Any] = {}
    members: dict[str, list[Member]] = {}
    name = ""
    for line in lines[1:]:
        opening, server = _UPSTREAM_LINE.fullmatch(line), _SERVER_LINE.fullmatch(line)
        with contextlib.suppress(RunbookError, ValueError):  # edited by hand: read what can be read
            if line.startswith(NOTE):
                value = json.loads(line[len(NOTE) :])
                note = value if isinstance(value, dict) else {}
            elif opening:
                name = opening.group(1)
                members[name] = []
            elif server and name:
                address, port, weight, slot = server.groups()
                members[name].append(Member(address.strip("[]"), int(port), slot, int(weight or 0)))
    upstreams = []
    for name, found in members.items():
        with contextlib.suppress(RunbookError):
            upstreams.append(Upstream(name, tuple(found)))
    return upstreams, note


def parse(text: str) -> Optional[dict[str, Any]]:
    """What a file of ours says; None when it is not ours. ``intact`` is False when it was edited by hand."""
    parsed = _parsed(text)
    if parsed is None:
        return None
    upstreams, note = parsed
    return {
        "weights": weights(upstreams),
        "below": below(upstreams),
        "note": {key: value for key, value in note.items() if key not in ("weights", "digest")},
        "upstreams": [asdict(one) for one in upstreams],
        "intact": text == render(upstreams, note),
    }


def _same(before: Optional[str], after: str) -> bool:
    """Whether both send the same traffic and say the same, whoever wrote them."""
    old, new = _parsed(before or ""), _parsed(after)
    if old is None or new is None or before != render(*old):
        return False
    return bool(old[1].get("digest") == new[1].get("digest"))


def read(path: PathLike) -> Optional[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def inspect(path: PathLike) -> dict[str, Any]:
    """The include file as it is on disk; whether nginx has loaded it only an answer through the router tells."""
    text = read(path)
    state = parse(text) if text is not None else None
    return {
        "exists": text is not None,
        "ours": state is not None,
        **(state or {"weights": {}, "below": [], "note": {}, "upstreams": [], "intact": False}),
    }


def run_command(words: Sequence[str], timeout: float) -> tuple[int, str, str]:
    """Run a command without a shell or a terminal; it and all it started are ended after ``timeout`` seconds."""
    return _command.run(
        words,
        timeout,
        lambda error: (
            f"command: {words[0]!r} cannot be run ({error.strerror}); give the words that run nginx on this host"
        ),
        f"command: `{' '.join(words)}` did not end within {timeout:g} s",
        env={**os.environ, "LC_ALL": "C"},
    )


class Router:
    """One include file of one nginx. ``home`` is our own directory on that host, never nginx's."""

    def __init__(
        self,
        path: PathLike,
        home: PathLike,
        command: Sequence[str] = ("nginx",),
        pid_path: Optional[PathLike] = None,
        run: Run = run_command,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        command_seconds: float = 30.0,
        proc: PathLike = "/proc",
    ) -> None:
        if not command:
            raise RunbookError("command: must name the program, for example [nginx]")
        self.path = Path(os.path.realpath(path))  # a rename would replace a symbolic link, not the file behind it
        self.home = Path(home)
        self.command = list(command)
        self.pid_path = Path(pid_path) if pid_path else None
        self._run = run
        self._clock = clock
        self._sleep = sleep
        self._command_seconds = command_seconds
        self._proc = Path(proc)
        # Exists from before the file is written until nginx is proven to serve it; holds the content last proven.
        self._pending = self.home / f"{self.path.name}.pending.json"

    def plan(self, upstreams: Sequence[Upstream], note: Mapping[str, Any]) -> Plan:
        before = read(self.path)
        if before and before.strip() and parse(before) is None:
            raise RunbookError(
                f"path: {self.path} exists and was not written by signalbox.runbook; it is left as it is: "
                "give a path of its own, or remove that file first"
            )
        if not self.path.parent.is_dir():
            raise RunbookError(f"path: the directory {self.path.parent} does not exist; create it and include it")
        return Plan(before, render(upstreams, note), pending=self._pending.exists())

    def test(self) -> None:
        code, out, err = self._run([*self.command, "-t"], self._command_seconds)
        if code:
            raise RunbookError(f"nginx refuses the configuration: {_messages(out, err)}")

    def reload(self) -> None:
        code, out, err = self._run([*self.command, "-s", "reload"], self._command_seconds)
        if code and _NOT_RUNNING.search(out + err):
            raise NotRunningError(f"nginx is not running, so nothing was reloaded: start it ({_messages(out, err)})")
        if code:
            raise RunbookError(f"nginx cannot be reloaded: {_messages(out, err)}")

    def shift(
        self, upstreams: Sequence[Upstream], note: Mapping[str, Any], confirm: Confirm, confirm_seconds: float = 15.0
    ) -> dict[str, Any]:
        """Arrange the traffic and prove it, or put the old file back: traffic first, explanation after."""
        plan = self.plan(upstreams, note)
        if not plan.changed:
            results = list(confirm(0.0))
            if not failed(results):
                return plan.to_dict(results)
        previous = self._remember(plan)
        reloading = plan.pending  # after a crash nobody knows what nginx has loaded
        results = []
        try:
            if not _same(plan.before, plan.after):
                write_atomic(self.path, plan.after)
            self.test()
            serving = self.serving()
            reloading = True
            self.reload()
            reloaded = self._clock()
            deadline = reloaded + confirm_seconds
            self._await_new(serving, deadline)
            results = list(confirm(max(0.0, deadline - self._clock())))
            if serving is None and not failed(results):
                # It may have been an old worker that answered; by then none of them takes new connections any more.
                self._sleep(max(0.0, reloaded + SETTLE_SECONDS - self._clock()))
                results = list(confirm(max(0.0, deadline - self._clock())))
            if failed(results):
                raise RunbookError(f"after the reload the router does not answer as it should: {explained(results)}")
        except Exception as error:
            restored, outcome = self._put_back(previous, plan.after, reloading, confirm_seconds)
            if not isinstance(error, RunbookError):
                raise
            hint = self._include_hint() if results else ""
            raise RunbookError(
                ". ".join(part for part in (str(error), hint, outcome) if part),
                restored=restored,
                confirmed=results,
                weights=(parse(previous or "") or {}).get("weights", {}) if restored else {},
            ) from error
        self._forget()
        return {**plan.to_dict(results), "changed": True}

    def serving(self) -> Optional[frozenset[Process]]:
        """The workers that accept connections; None where that cannot be known (no pid path, another namespace)."""
        if self.pid_path is None:
            return None
        try:
            master = int(self.pid_path.read_text(encoding="ascii"))
            if "nginx: master" not in self._title(master):
                return None
            numbers = [int(name) for name in os.listdir(self._proc) if name.isdigit()]
        except (OSError, ValueError):
            return None
        found = set()
        for number in numbers:
            with contextlib.suppress(OSError, ValueError, IndexError):  # it ended while we looked
                stat = (self._proc / str(number) / "stat").read_text(encoding="utf-8", errors="replace")
                values = stat.rpartition(")")[2].split()
                title = self._title(number) if int(values[1]) == master else ""
                if "nginx: worker process" in title and "shutting down" not in title:
                    found.add((number, int(values[19])))
        return frozenset(found) or None

    def _title(self, number: int) -> str:
        return (self._proc / str(number) / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")

    def _await_new(self, old: Optional[frozenset[Process]], deadline: float) -> None:
        """Until only workers started after the reload accept connections.

        `nginx -s reload` succeeds as soon as the signal is sent, and two releases of one version answer alike: where
        the workers can be seen, they are the proof.
        """
        while old:
            now = self.serving()
            if now and not now & old:
                return
            if self._clock() >= deadline:
                raise RunbookError("nginx still serves with its old workers after the reload; its error log says why")
            self._sleep(0.01)

    def _remember(self, plan: Plan) -> Optional[str]:
        """The content last proven, kept on disk until the new one is: a killed run loses nothing."""
        known = read_json(self._pending)
        if known is None:
            self.home.mkdir(parents=True, exist_ok=True)
            write_json(self._pending, {"path": str(self.path), "content": plan.before}, 0o600)
            return plan.before
        if known["path"] != str(self.path):
            raise RunbookError(f"home: {self.home} belongs to {known['path']}; every include file needs its own home")
        content: Optional[str] = known["content"]
        return content

    def _forget(self) -> None:
        self._pending.unlink()
        fsync_directory(self.home)

    def _put_back(self, previous: Optional[str], tried: str, reloading: bool, seconds: float) -> tuple[bool, str]:
        if previous is not None and _same(previous, tried):
            return False, "The file already had this content and keeps it"
        outcome = f"The old content of {self.path} is back"
        try:
            if previous is not None:
                write_atomic(self.path, previous)
            else:
                with contextlib.suppress(FileNotFoundError):
                    self.path.unlink()
                fsync_directory(self.path.parent)
            if reloading:
                self.test()
                serving = self.serving()
                with contextlib.suppress(NotRunningError):  # it will start with the old content
                    self.reload()
                    self._await_new(serving, self._clock() + seconds)
                    outcome += " and reloaded"
            self._forget()
        except (RunbookError, OSError) as error:
            return False, f"The old content of {self.path} could not be made active again: {error}"
        if not reloading:
            try:
                self.test()
            except RunbookError:
                outcome += "; nginx refuses the configuration with it as well, so the cause is in another file"
        return True, outcome

    def _include_hint(self) -> str:
        """The usual mistake of a first shift. By file name, because a container may see the file at another path."""
        with contextlib.suppress(RunbookError):
            code, out, _err = self._run([*self.command, "-T"], self._command_seconds)
            if not code and not re.search(rf"^# configuration file (?:.*/)?{re.escape(self.path.name)}:$", out, re.M):
                return f"nginx does not read {self.path}: add `include {self.path};` to its http block"
        return ""


def _messages(out: str, err: str) -> str:
    """nginx's own lines about the cause; else the last lines of whatever ran it (sudo, docker)."""
    lines = [line.strip() for line in f"{err}\n{out}".splitlines() if line.strip()]
    own = [match.group(1) for match in map(_MESSAGE.search, lines) if match]
    return "; ".join(own or lines[-3:]) or "it said nothing"
