# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Traffic by weight through the runtime API of HAProxy: raise the new servers, lower the old, prove, or go back.

Nothing is reloaded. HAProxy forgets what it was told when it restarts, so each change is also kept in the server
state file that it reads at start.

Private: may change at any time.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import ipaddress
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Optional

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
    explained,
    failed,
    upstreams_from,
    weights,
)

# command(words of one command) -> HAProxy's answer
Command = Callable[[str], str]
# resolve(host name) -> its addresses as this host knows them
Resolve = Callable[[str], "set[str]"]

READY, DRAIN, MAINT = "ready", "drain", "maint"
HIGHEST_WEIGHT = 256
LOCK_SECONDS = 10.0
POLL_SECONDS = 0.05

# Bits of srv_admin_state. That a server was `disabled` in the configuration is remembered even after it was enabled.
_FORCED_MAINT, _DISABLED_ONCE, _FORCED_DRAIN = 0x01, 0x04, 0x08
_STARTING, _RUNNING = 1, 2  # of srv_op_state

_DENIED = "HAProxy lets this socket only look: add `level admin` to its `stats socket` line and reload HAProxy"


def talk(path: PathLike, seconds: float = 5.0) -> Command:
    """One connection per command, as HAProxy's socket wants it, and each answered within ``seconds``."""

    def command(words: str) -> str:
        received = b""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(seconds)
                connection.connect(str(path))
                connection.sendall(f"{words}\n".encode("ascii"))
                deadline = time.monotonic() + seconds
                while True:
                    connection.settimeout(max(0.001, deadline - time.monotonic()))
                    part = connection.recv(65536)
                    if not part:
                        break
                    received += part
        except OSError as error:
            raise RunbookError(f"socket_path: {_why(path, seconds, error)}") from error
        # A complete answer ends with an empty line; half of one must not become half of a state file.
        if received != b"\n" and not received.endswith(b"\n\n"):
            raise RunbookError(f"socket_path: HAProxy ended in the middle of its answer to `{words}`; see its log")
        return received.decode("utf-8", "replace").strip("\n")

    return command


def _why(path: PathLike, seconds: float, error: OSError) -> str:
    if isinstance(error, socket.timeout):
        return f"HAProxy did not answer at {path} within {seconds:g} s; it hangs or is overloaded"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return (
            f"there is no socket {path}: start HAProxy, or give the path of the `stats socket` line in its "
            f"configuration, for example `stats socket {path} mode 660 level admin`"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"no permission to use {path}: use become, or join the group that the `stats socket` line names "
            f"({error.strerror})"
        )
    if error.errno in (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE):
        return f"nobody answers at {path}: HAProxy is not running, or was started with another socket"
    return f"{path} is no socket of HAProxy's runtime API ({error.strerror or error})"


def resolve_here(name: str) -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


@dataclass(frozen=True)
class Server:
    """One server of one backend as HAProxy has it now."""

    backend: str
    name: str
    address: str
    host_name: str
    port: int
    state: str
    weight: int
    usable: bool
    backup: bool = False
    sessions: int = 0

    @property
    def key(self) -> str:
        return f"{self.backend}/{self.name}"

    @property
    def share(self) -> Share:
        return Share(self.state, self.weight)

    def __str__(self) -> str:
        where = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.key} {where}:{self.port}"


@dataclass(frozen=True)
class Share:
    """What a server is to be, or was: its state and its weight."""

    state: str
    weight: int

    @property
    def traffic(self) -> int:
        return self.weight if self.state == READY else 0

    def same(self, other: Share) -> bool:
        """The weight of a server without traffic says nothing."""
        return self.state == other.state and (self.weight == other.weight or self.state != READY)


@dataclass(frozen=True)
class Plan:
    """The servers as they are and what they shall be; keys are ``backend/server``."""

    servers: tuple[Server, ...]
    wanted: Mapping[str, Share]
    slots: Mapping[str, str]
    pending: bool = False
    unsaid: bool = False

    @property
    def changed(self) -> bool:
        return self.pending or self.unsaid or any(not one.share.same(self.wanted[one.key]) for one in self.servers)

    def to_dict(self, confirmed: Sequence[Mapping[str, Any]] = (), **more: Any) -> dict[str, Any]:
        return {
            "changed": self.changed,
            "before": self._text({one.key: one.share for one in self.servers}),
            "after": self._text(self.wanted),
            "confirmed": list(confirmed),
            "restored": False,
            "connections_cut": 0,
            "down": [],
            **more,
        }

    def _text(self, shares: Mapping[str, Share]) -> str:
        lines = []
        for one in self.servers:
            share, slot = shares[one.key], self.slots.get(one.key, "not listed")
            lines.append(f"{one} ({slot}) " + (f"{READY} {share.weight}" if share.state == READY else share.state))
        return "".join(f"{line}\n" for line in lines)


def servers_of(command: Command, backend: str) -> list[Server]:
    """The servers of one backend, as `show servers state` gives them."""
    lines = command(f"show servers state {backend}").splitlines()
    if lines and "find backend" in lines[0]:
        raise UnknownBackendError(backend)
    if len(lines) < 2 or lines[0] != "1" or not lines[1].startswith("# "):
        said = lines[0] if lines else "nothing"
        raise RunbookError(f"socket_path: `show servers state` was answered with {said!r}; HAProxy 2.4 to 3.x is known")
    names = lines[1][2:].split()
    found = []
    for line in filter(None, lines[2:]):
        one = dict(zip(names, line.split()))
        admin = int(one["srv_admin_state"])
        state = MAINT if admin & _FORCED_MAINT else DRAIN if admin & _FORCED_DRAIN else READY
        found.append(
            Server(
                backend,
                one["srv_name"],
                one["srv_addr"],
                one["srv_fqdn"].strip("-"),
                int(one["srv_port"]),
                state,
                int(one["srv_uweight"]),
                not admin & ~_DISABLED_ONCE and int(one["srv_op_state"]) in (_STARTING, _RUNNING),
            )
        )
    return found


def counters(command: Command) -> dict[str, tuple[bool, int]]:
    """Of each ``backend/server`` whether it is a backup, and its open sessions, as `show stat` gives them."""
    text = command("show stat -1 4 -1")
    rows = csv.DictReader(text.lstrip("# ").splitlines())
    return {f"{row['pxname']}/{row['svname']}": (row["bck"] == "1", int(row["scur"] or 0)) for row in rows}


class UnknownBackendError(RunbookError):
    """HAProxy has no backend of this name."""


def _server_line(member: Member) -> str:
    name = re.sub(r"[^A-Za-z0-9]+", "_", f"{member.slot}_{member.address}_{member.port}")
    return f"server {name} {member.server} disabled"


class Router:
    """The backends of one application in one HAProxy. ``home`` is our own directory on that host, never HAProxy's."""

    def __init__(
        self,
        command: Command,
        home: PathLike,
        state_path: Optional[PathLike] = None,
        write: Callable[[PathLike, str], None] = write_atomic,
        resolve: Resolve = resolve_here,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._command = command
        self.home = Path(home)
        self.state_path = Path(os.path.realpath(state_path)) if state_path else None
        self._write = write
        self._resolve = resolve
        self._clock = clock
        self._sleep = sleep
        self._said = self.home / "haproxy.json"  # what the last shift was asked for
        # Exists from before the first command until the shift is proven and done; holds what was proven last.
        self._pending = self.home / "haproxy.pending.json"

    # -- look -----------------------------------------------------------------------------------------------------

    def read(self, upstreams: Sequence[Upstream] = ()) -> dict[str, Any]:
        """Weights per slot as HAProxy has them now. Without ``upstreams`` those of the last shift are looked for."""
        said = read_json(self._said)
        known = list(upstreams) or upstreams_from((said or {}).get("upstreams", []))
        self._refuse_lower_level()
        servers, members = self._match(known)
        found: dict[str, int] = dict.fromkeys(weights(known), 0)
        for one in servers:
            # A server that is in no list gets nothing from the first shift on: then its traffic is somebody's mistake.
            slot = members[one.key].slot if one.key in members else "unlisted"
            if one.key in members or (said and one.share.traffic):
                found[slot] = max(found.get(slot, 0), one.share.traffic)
        # Only what a shift has been told of: the servers of a target that is new wait for their first one.
        told = {m.server for one in upstreams_from((said or {}).get("upstreams", [])) for m in one.members}
        ours = [(one, members[one.key]) for one in servers if one.key in members]
        return {
            "weights": dict(sorted(found.items())),
            "below": [str(s) for s, m in ours if m.server in told and s.share.traffic < found[m.slot]],
            "note": (said or {}).get("note", {}),
            "servers": [
                {**asdict(one), "slot": members[one.key].slot if one.key in members else ""} for one in servers
            ],
            "down": self._down(servers),
            "pending": self._pending.exists(),
        }

    def plan(self, upstreams: Sequence[Upstream], note: Mapping[str, Any]) -> Plan:
        for member in (member for upstream in upstreams for member in upstream.members):
            if member.weight > HIGHEST_WEIGHT:
                raise RunbookError(f"members: HAProxy knows weights of 0 to {HIGHEST_WEIGHT}, not {member.weight}")
        self._refuse_lower_level()
        if self.state_path and not self.state_path.parent.is_dir():
            raise RunbookError(f"state_path: the directory {self.state_path.parent} does not exist; create it")
        if self.state_path and not os.access(self.state_path.parent, os.W_OK | os.X_OK):
            raise RunbookError(f"state_path: no permission to write in {self.state_path.parent}; use become")
        servers, members = self._match(upstreams)
        wanted = {}
        for one in servers:  # those that are no member are taken out, like those with weight 0
            weight = members[one.key].weight if one.key in members else 0
            wanted[one.key] = Share(READY, weight) if weight else Share(MAINT, one.weight)
        said = read_json(self._said)
        same = bool(said) and _lasting(said) == _lasting(self._to_say(upstreams, note))
        slots = {key: member.slot for key, member in members.items()}
        return Plan(tuple(servers), wanted, slots, self._pending.exists(), not same or not self._kept(servers))

    def _refuse_lower_level(self) -> None:
        if "admin" not in self._command("show cli level").split():
            raise RunbookError(f"socket_path: {_DENIED}")

    def _match(self, upstreams: Sequence[Upstream]) -> tuple[list[Server], dict[str, Member]]:
        """All servers of our backends, and which of them are members: told by address and port, because the names are
        the user's."""
        count = counters(self._command)
        servers: list[Server] = []
        members: dict[str, Member] = {}
        missing: list[str] = []
        for upstream in upstreams:
            try:
                found = servers_of(self._command, upstream.name)
            except UnknownBackendError:
                lines = "".join(f"\n    {_server_line(member)}" for member in upstream.members)
                missing.append(
                    f"HAProxy has no backend {upstream.name}; add to its configuration:\n"
                    f"backend {upstream.name}\n    balance roundrobin{lines}"
                )
                continue
            lacking = []
            for member in upstream.members:
                own = self._find(member, found)
                if len(own) > 1:
                    raise RunbookError(
                        f"backend {upstream.name}: HAProxy has {' and '.join(one.name for one in own)} for "
                        f"{member.server}; keep one of them"
                    )
                if own:
                    members[own[0].key] = member
                else:
                    lacking.append(member)
            if lacking:
                lines = "".join(f"\n    {_server_line(member)}" for member in lacking)
                missing.append(
                    f"HAProxy has no server for {', '.join(m.server for m in lacking)} in backend "
                    f"{upstream.name}; add to it:{lines}"
                )
            for one in found:
                backup, sessions = count.get(one.key, (False, 0))
                if not backup or one.key in members:  # a backup that is no member shows the user's sorry page
                    servers.append(_with(one, backup, sessions))
        if missing:
            raise RunbookError("\n".join([*missing, "and reload HAProxy. Nothing has been touched"]))
        return servers, members

    def _find(self, member: Member, servers: Sequence[Server]) -> list[Server]:
        near = [one for one in servers if one.port == member.port]
        own = [one for one in near if _same_address(one.address, member.address) or one.host_name == member.address]
        if own or not near:
            return own
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(member.address)
            return []
        addresses = self._resolve(member.address)
        return [one for one in near if any(_same_address(one.address, address) for address in addresses)]

    def _now(self, plan: Plan) -> dict[str, Server]:
        """The same servers again, a moment later."""
        count = counters(self._command)
        names = sorted({one.backend for one in plan.servers})
        found = {one.key: one for name in names for one in servers_of(self._command, name)}
        gone = sorted({one.key for one in plan.servers} - set(found))
        if gone:
            raise RunbookError(f"HAProxy was given another configuration meanwhile: {', '.join(gone)} is gone")
        return {one.key: _with(found[one.key], *count.get(one.key, (False, 0))) for one in plan.servers}

    @staticmethod
    def _down(servers: Sequence[Server]) -> list[str]:
        return [str(one) for one in servers if one.share.traffic and not one.usable]

    # -- change ---------------------------------------------------------------------------------------------------

    def shift(
        self,
        upstreams: Sequence[Upstream],
        note: Mapping[str, Any],
        confirm: Confirm,
        confirm_seconds: float = 15.0,
        drain_seconds: float = 30.0,
    ) -> dict[str, Any]:
        """Arrange the traffic and prove it, or put the old weights back: traffic first, explanation after."""
        plan = self.plan(upstreams, note)
        if not plan.changed:
            results = list(confirm(0.0))
            if not failed(results):
                return plan.to_dict(results, down=self._down(plan.servers))
        said = self._to_say(upstreams, note)
        previous = self._remember(plan)
        results = []
        try:
            write_json(self._said, said)
            deadline = self._clock() + confirm_seconds
            self._raise(plan.servers, plan.wanted)
            self._await_usable(plan, deadline)
            self.keep()  # before anything is lowered: restarted in between, HAProxy knows the new servers too
            self._lower(plan.servers, plan.wanted, DRAIN)
            self.keep()
            results = list(confirm(max(0.0, deadline - self._clock())))
            if failed(results):
                raise RunbookError(f"after the shift the router does not answer as it should: {explained(results)}")
        except Exception as error:
            restored, outcome = self._put_back(plan, previous)
            if not isinstance(error, (RunbookError, OSError)):
                raise
            details = getattr(error, "details", {})
            raise RunbookError(
                f"{error}. {outcome}",
                **{
                    **details,
                    "restored": restored,
                    "confirmed": results,
                    "weights": self._weights(plan, previous["shares"]) if restored else {},
                },
            ) from error
        # Proven: from here on what is killed goes on to this state, and is put back to it.
        write_json(self._pending, {"shares": _plain(plan.wanted), "said": said}, 0o600)
        cut = self._retire(plan, drain_seconds)
        self.keep()
        self._forget()
        down = self._down(list(self._now(plan).values()))
        return {**plan.to_dict(results, connections_cut=cut, down=down), "changed": True}

    def _raise(self, servers: Sequence[Server], wanted: Mapping[str, Share]) -> None:
        for one in servers:
            share = wanted[one.key]
            if share.traffic > one.share.traffic:
                if share.weight != one.weight:
                    self._tell(one.key, f"weight {share.weight}")
                if one.state != READY:
                    self._tell(one.key, f"state {READY}")

    def _lower(self, servers: Sequence[Server], wanted: Mapping[str, Share], state: str = "") -> None:
        """Less for those that keep some; for the others ``state``, or their own."""
        for one in servers:
            share = wanted[one.key]
            if share.state == READY:
                if one.state == READY and share.weight < one.weight:
                    self._tell(one.key, f"weight {share.weight}")
                elif one.state != READY and not share.weight:  # was ready with weight 0 and goes back to it
                    self._tell(one.key, f"weight {share.weight}")
                    self._tell(one.key, f"state {READY}")
            elif one.state != share.state and (one.state == READY or not state):
                self._tell(one.key, f"state {state or share.state}")

    def _tell(self, key: str, what: str) -> None:
        answer = self._command(f"set server {key} {what}").strip()
        if not answer:
            return
        if "ermission denied" in answer:
            answer = _DENIED
        elif "static LB algorithm" in answer:
            answer = f"{answer} Use `balance roundrobin` or `balance leastconn` in backend {key.partition('/')[0]}"
        elif answer.startswith("No such"):
            answer = f"HAProxy was given another configuration meanwhile: {answer}"
        raise RunbookError(f"HAProxy refuses `set server {key} {what}`: {answer.rstrip('.')}")

    def _await_usable(self, plan: Plan, deadline: float) -> None:
        """Until each backend that is to have traffic has a server that takes it: only then others may be lowered."""
        while True:
            now = self._now(plan)
            waiting = {one.backend for one in now.values() if plan.wanted[one.key].traffic}
            waiting -= {one.backend for one in now.values() if plan.wanted[one.key].traffic and one.usable}
            if not waiting:
                return
            if self._clock() >= deadline:
                down = [str(one) for one in now.values() if plan.wanted[one.key].traffic and not one.usable]
                raise RunbookError(f"HAProxy's own checks say that no new server is up: {', '.join(down)}")
            self._sleep(POLL_SECONDS)

    def _retire(self, plan: Plan, drain_seconds: float) -> int:
        """Servers without traffic: wait for their sessions, then maintenance; the number of sessions that were cut.

        A drained server still gets the requests that a cookie pins to it; in maintenance it gets none.
        """
        leaving = [one.key for one in plan.servers if plan.wanted[one.key].state == MAINT and one.state != MAINT]
        deadline = self._clock() + drain_seconds
        while leaving:
            if not sum(self._sessions(key) for key in leaving) or self._clock() >= deadline:
                break
            self._sleep(POLL_SECONDS)
        for key in leaving:
            self._tell(key, f"state {MAINT}")
        cut = 0
        for key in leaving:
            sessions = self._sessions(key)
            if sessions:
                answer = self._command(f"shutdown sessions server {key}").strip()
                if answer:
                    raise RunbookError(f"HAProxy refuses `shutdown sessions server {key}`: {answer}")
                cut += sessions
        return cut

    def _sessions(self, key: str) -> int:
        return counters(self._command).get(key, (False, 0))[1]

    # -- what outlives us and HAProxy -----------------------------------------------------------------------------

    def keep(self) -> None:
        """Write what HAProxy reads at its next start: all its servers, as they are now."""
        if self.state_path is None:
            return
        with self._locked(self.state_path):
            self._write(self.state_path, self._command("show servers state") + "\n")

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """The file has the servers of everybody: another application's shift must not be overwritten with older."""
        fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = self._clock() + LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self._clock() >= deadline:
                        raise RunbookError(f"state_path: {path} has been locked for {LOCK_SECONDS:g} s") from None
                    self._sleep(POLL_SECONDS)
            yield
        finally:
            os.close(fd)

    def _kept(self, servers: Sequence[Server]) -> bool:
        """Whether the state file says of our servers what HAProxy has now."""
        if self.state_path is None:
            return True
        try:
            text = self.state_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return False
        for backend in {one.backend for one in servers}:
            kept = {one.key: one.share for one in _of_file(text, backend)}
            for one in servers:
                if one.backend == backend and (one.key not in kept or not kept[one.key].same(one.share)):
                    return False
        return True

    def _to_say(self, upstreams: Sequence[Upstream], note: Mapping[str, Any]) -> dict[str, Any]:
        return {"upstreams": [asdict(one) for one in upstreams], "note": dict(note)}

    def _remember(self, plan: Plan) -> dict[str, Any]:
        """What was proven last, kept on disk until the new weights are: a killed run loses nothing."""
        known: Optional[dict[str, Any]] = read_json(self._pending)
        if known is None:
            self.home.mkdir(parents=True, exist_ok=True)
            known = {"shares": _plain({one.key: one.share for one in plan.servers}), "said": read_json(self._said)}
            write_json(self._pending, known, 0o600)
        return known

    def _forget(self) -> None:
        self._pending.unlink()
        fsync_directory(self.home)

    def _put_back(self, plan: Plan, previous: Mapping[str, Any]) -> tuple[bool, str]:
        old = {key: Share(**share) for key, share in previous["shares"].items()}
        wanted = {key: old.get(key, share) for key, share in plan.wanted.items()}
        if all(share.same(plan.wanted[key]) for key, share in wanted.items()):
            return False, "These weights are the ones proven last, so they stay"
        outcome = "The old weights could not be put back"
        try:
            now = tuple(self._now(plan).values())
            self._raise(now, wanted)
            self._lower(now, wanted)
            outcome = "The old weights are back, but would not survive a restart of HAProxy"
            self.keep()
            if previous["said"] is None:
                with contextlib.suppress(FileNotFoundError):
                    self._said.unlink()
            else:
                write_json(self._said, previous["said"])
            self._forget()
        except (RunbookError, OSError) as error:
            return False, f"{outcome}: {error}"
        return True, "The old weights are back"

    @staticmethod
    def _weights(plan: Plan, shares: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
        found: dict[str, int] = {}
        for key, slot in plan.slots.items():
            found[slot] = max(found.get(slot, 0), Share(**shares[key]).traffic if key in shares else 0)
        return dict(sorted(found.items()))


def _with(one: Server, backup: bool, sessions: int) -> Server:
    return Server(**{**asdict(one), "backup": backup, "sessions": sessions})


def _plain(shares: Mapping[str, Share]) -> dict[str, dict[str, Any]]:
    return {key: asdict(share) for key, share in shares.items()}


def _lasting(said: Mapping[str, Any]) -> Any:
    """Without the fencing number: the same traffic arranged by a later run is the same. Tuples as JSON has them."""
    note = {key: value for key, value in said["note"].items() if key != "fence"}
    return note, [{**one, "members": list(one["members"])} for one in said["upstreams"]]


def _same_address(one: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(one) == ipaddress.ip_address(other)
    except ValueError:
        return False


def _of_file(text: str, backend: str) -> list[Server]:
    """The servers of one backend in a state file; none when it can't be read."""
    lines = text.splitlines()
    own = [line for line in lines[2:] if line.split()[1:2] == [backend]]
    try:
        return servers_of(lambda _words: "\n".join([*lines[:2], *own]), backend)
    except (RunbookError, ValueError, KeyError):
        return []


# -- HAProxy's configuration, which is the user's ---------------------------------------------------------------------


def forgetful(config: Optional[str], config_path: str, state_path: str, backends: Sequence[str]) -> str:
    """Why HAProxy would forget the weights at its next restart; empty when it would not. ``config`` is its text."""
    if not state_path:
        return "state_path: is empty, so HAProxy forgets the weights when it is restarted or reloaded"
    lines = (
        f"add `server-state-file {state_path}` to `global` and `load-server-state-from-file global` to `defaults` of "
        f"{config_path}"
    )
    if config is None:
        return (
            f"config_path: {config_path} cannot be read, so it is not known whether HAProxy keeps the weights; {lines}"
        )
    base, named, loads, loading = "", "", {}, False
    section: tuple[str, str] = ("", "")
    defaults: dict[str, bool] = {}
    for line in config.splitlines():
        words = [word.strip("\"'") for word in line.partition("#")[0].split()]
        if not words:
            continue
        if words[0] in ("global", "defaults", "backend", "listen", "frontend", "userlist", "peers", "resolvers"):
            section = (words[0], words[1] if len(words) > 1 else "")
            if words[0] == "defaults":
                loading = defaults[section[1]] = False
            elif words[0] in ("backend", "listen"):
                parent = words[words.index("from") + 1] if "from" in words[:-1] else None
                loads[section[1]] = loading if parent is None else defaults.get(parent, False)
        elif words[0] == "server-state-base" and len(words) > 1:
            base = words[1]
        elif words[0] == "server-state-file" and len(words) > 1:
            named = words[1]
        elif words[0] == "load-server-state-from-file" and len(words) > 1:
            on = words[1] == "global"
            if section[0] == "defaults":
                loading = defaults[section[1]] = on
            else:
                loads[section[1]] = on
    where = os.path.join(base, named)
    cold = [name for name in backends if not loads.get(name)]
    if not named or cold:
        what = "names no server-state-file" if not named else f"backend {', '.join(cold)} does not load the state file"
        return f"config_path: {config_path} {what}, so HAProxy forgets the weights when it restarts; {lines}"
    # By file name only, where the path is not one of this host: a container may see the file at another.
    apart = os.path.basename(where) != os.path.basename(state_path) or (
        os.path.isdir(os.path.dirname(where)) and os.path.realpath(where) != os.path.realpath(state_path)
    )
    if apart and "$" not in where:
        return f"state_path: is {state_path}, but HAProxy reads {where} when it starts; set it to that"
    return ""


def read_config(path: PathLike) -> Optional[str]:
    """HAProxy's configuration, a file or a directory of .cfg files; None when it can't be read."""
    place = Path(path)
    try:
        files = sorted(place.glob("*.cfg")) if place.is_dir() else [place]
        return "\n".join(one.read_text(encoding="utf-8", errors="replace") for one in files) or None
    except OSError:
        return None
