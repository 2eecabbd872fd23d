# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a kind of check is, and the world that it asks. Private: may change at any time."""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Callable, NamedTuple, Optional
from urllib.parse import parse_qsl, unquote, urlsplit

from ansible_collections.signalbox.runbook.plugins.module_utils import _command, _probe
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Spec

Args = Mapping[str, Any]
Say = Callable[[str, str], None]  # notes what is wrong with one option of a check

SECONDS = 5.0  # what a check may take unless it says otherwise


class Measured(NamedTuple):
    """``values`` by the names of the kind's ``measures``, and what else is worth knowing.

    ``said`` has for a name the sentence that says more than its number: "connection refused".
    """

    values: dict[str, Any]
    said: Mapping[str, str] = {}


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """An ordinary file: a pipe could block for ever."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise RunbookError(f"{path} is not an ordinary file")
            yield stream
    except OSError as error:
        raise RunbookError(f"{path} can't be read: {error.strerror}") from None


def _read(path: str, limit: int) -> bytes:
    """The whole of a file; more than ``limit`` bytes are refused."""
    with _opened(path) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise RunbookError(f"{path} has more than {limit:,} bytes")
    return data


def _read_end(path: str, limit: int, start: int = 0) -> bytes:
    """The whole lines in the last ``limit`` bytes, from ``start`` on; a file that is shorter has begun anew since."""
    with _opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        start = max(start if start <= size else 0, size - limit)
        stream.seek(max(0, start - 1))
        data = stream.read(limit + 1)
    return data.partition(b"\n")[2] if start else data


def _run(
    argv: Sequence[str], seconds: float, cwd: Optional[str] = None, env: Optional[Mapping[str, str]] = None
) -> tuple[int, str, str]:
    return _command.run(
        argv,
        seconds,
        lambda error: f"cannot run {argv[0]}: {error.strerror}",
        f"{argv[0]} did not end within {seconds:.3g} s and was stopped",
        cwd=cwd,
        env=env,
    )


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) != os.getpid()]


def _connect(host: str, port: int, seconds: float) -> socket.socket:
    """A TCP connection, name resolution included in the time."""
    until = time.monotonic() + seconds

    def left() -> float:
        remaining = until - time.monotonic()
        if remaining <= 0:
            raise socket.timeout("timed out")
        return remaining

    return _probe.connect(_probe.addresses(host, port, left()), left)


def _driver() -> Any:
    for name in ("psycopg", "psycopg2"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise RunbookError("the Python package psycopg (or psycopg2) is not there; on Debian it is python3-psycopg2")


@dataclass(frozen=True)
class World:
    """All that checks ask, as callables."""

    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    read: Callable[[str, int], bytes] = _read
    read_end: Callable[[str, int, int], bytes] = _read_end
    stat: Callable[[str], os.stat_result] = os.stat
    statvfs: Callable[[str], os.statvfs_result] = os.statvfs
    cpus: Callable[[], int] = _cpus
    pids: Callable[[], list[int]] = _pids  # of all processes but this one
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    run: Callable[..., tuple[int, str, str]] = _run
    addresses: Callable[[str, int, float], list[tuple[Any, ...]]] = _probe.addresses
    connect: Callable[[str, int, float], socket.socket] = _connect
    fetch: Callable[[_probe.Request], _probe.Reply] = _probe.fetch
    driver: Callable[[], Any] = _driver  # DB-API with the connection parameters of libpq


def _all(_args: Args, measures: Collection[str]) -> Collection[str]:
    return measures


def _whole(args: Args) -> float:
    return float(args["timeout_seconds"])


def _fine(_args: dict[str, Any], _names: Collection[str], _say: Say) -> None:
    pass


@dataclass(frozen=True)
class Kind:
    """One sort of check. ``ask`` raises a RunbookError, one sentence, when it can't measure."""

    measures: Mapping[str, str]  # name, which carries the unit, to description
    ask: Callable[[Args, World], Measured]
    subject: Callable[[Args], str]  # what is asked, for people
    advice: str
    options: Mapping[str, Spec] = field(default_factory=dict)
    fail_when: Mapping[str, str] = field(default_factory=dict)
    warn_when: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float = SECONDS
    seconds: Callable[[Args], float] = _whole  # how long all of it may take
    # Which of the measures there are with these options.
    measured: Callable[[Args, Collection[str]], Collection[str]] = _all
    # What the option specs can't say; may complete the options. Gets the names that have limits.
    finish: Callable[[dict[str, Any], Collection[str], Say], None] = _fine


class Deadline:
    """How much of a check's time is left."""

    def __init__(self, args: Args, world: World) -> None:
        self.seconds = float(args["timeout_seconds"])
        self._clock = world.clock
        self._end = world.clock() + self.seconds

    def left(self) -> float:
        """Seconds that are left; socket.timeout when there are none."""
        remaining = self._end - self._clock()
        if remaining <= 0:
            raise socket.timeout("timed out")
        return remaining


def within(args: Mapping[str, Any], say: Say, low: float, high: float, *keys: str) -> None:
    """Notes options that are out of range."""
    for key in keys:
        value = args.get(key)
        if isinstance(value, (int, float)) and not low <= value <= high:
            say(key, f"must be from {low:g} to {high:g}, not {value:g}")


def why(error: OSError, seconds: float) -> str:
    """The sentence for a connection that did not come about, or broke."""
    if isinstance(error, socket.gaierror):
        return f"the host name does not resolve ({error.strerror})"
    if isinstance(error, (socket.timeout, TimeoutError)):
        return f"no answer within {seconds:.3g} s"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return str(error.strerror or error)


def take_uri(args: dict[str, Any], say: Say, schemes: Collection[str]) -> dict[str, str]:
    """Fills host, port, user, password and database from ``uri``; the answer is its scheme and query."""
    if args.get("uri") is None:
        return {}
    try:
        parts = urlsplit(args["uri"])
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in schemes or not parts.hostname:  # it may hold a password
        say("uri", f"must be like {min(schemes, key=len)}://user:password@host:port/name")
        return {}
    taken = {
        "host": parts.hostname,
        "port": port,
        "user": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "database": unquote(parts.path.strip("/")) or None,
    }
    args.update({key: value for key, value in taken.items() if value is not None})
    return {"scheme": parts.scheme, **dict(parse_qsl(parts.query))}


def place(args: Args) -> str:
    """host:port"""
    host = str(args["host"])
    return f"{f'[{host}]' if ':' in host else host}:{args['port']}"
