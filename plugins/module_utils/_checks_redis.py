# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of Redis and what speaks its protocol, without a package. Private: may change at any time."""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
from collections.abc import Collection
from typing import Any, Optional, Union

from ansible_collections.signalbox.runbook.plugins.module_utils._checks_kind import (
    Args,
    Deadline,
    Kind,
    Measured,
    Say,
    World,
    place,
    take_uri,
    why,
    within,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

ANSWER_BYTES = 1024 * 1024
KEY_SECONDS = 60  # a key that could not be removed removes itself

Reply = Union[str, int, None]


class Redis:
    """One connection: RESP2, only the answers that single commands have."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        self._buffer = b""

    def __call__(self, *words: str) -> Reply:
        encoded = [word.encode() for word in words]
        data = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
        self._sock.settimeout(self._deadline.left())
        self._sock.sendall(b"*%d\r\n" % len(words) + data)
        line = self._take(b"\r\n").decode("utf-8", "replace")
        kind, rest = line[:1], line[1:]
        if kind == "+":
            return rest
        if kind == "-":
            raise RunbookError(rest)
        try:
            number = int(rest)
        except ValueError:
            number = -2
        if kind == ":" and number != -2:
            return number
        if kind == "$" and -1 <= number <= ANSWER_BYTES:
            return None if number < 0 else self._take_exactly(number + 2)[:-2].decode("utf-8", "replace")
        raise RunbookError("what answers does not speak the protocol of Redis")

    def _more(self) -> None:
        self._sock.settimeout(self._deadline.left())
        data = self._sock.recv(65536)
        if not data:
            raise ConnectionResetError(0, "the connection was closed")
        self._buffer += data
        if len(self._buffer) > ANSWER_BYTES + 65536:
            raise RunbookError("the answer has more than 1 MiB")

    def _take(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._more()
        line, _end, self._buffer = self._buffer.partition(end)
        return line

    def _take_exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data


def _open(args: Args, world: World, deadline: Deadline) -> socket.socket:
    if args["socket_path"]:
        plain = socket.socket(socket.AF_UNIX)
        try:
            plain.settimeout(deadline.left())
            plain.connect(args["socket_path"])
        except BaseException:
            plain.close()
            raise
        return plain
    plain = world.connect(args["host"], args["port"], deadline.left())
    if not args["tls"]:
        return plain
    try:
        context = ssl.create_default_context(cafile=args["ca_path"])
        if not args["validate_certs"]:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        plain.settimeout(deadline.left())
        return context.wrap_socket(plain, server_hostname=args["host"])
    except BaseException:
        plain.close()
        raise


def _info(redis: Redis) -> dict[str, str]:
    text = redis("INFO")
    if not isinstance(text, str):
        raise RunbookError("INFO is not answered with text")
    return {name: value for name, colon, value in (line.partition(":") for line in text.splitlines()) if colon}


def _count(info: dict[str, str], name: str) -> int:
    value = info.get(name, "")
    return int(value) if value.isdecimal() else 0


def _write(redis: Redis) -> str:
    """Empty, or why a key can't be written. It is ours alone, and removed again."""
    key, value = f"runbook:check:{secrets.token_hex(8)}", secrets.token_hex(8)
    try:
        redis("SET", key, value, "NX", "EX", str(KEY_SECONDS))
        found = redis("GET", key)
        removed = redis("DEL", key)
    except RunbookError as error:
        return str(error)
    if found != value:
        return "what was read is not what was written"
    return "" if removed == 1 else "the key was gone before it was removed"


def _hit_rate(args: Args, world: World, redis: Redis, before: dict[str, str]) -> Optional[float]:
    hits, misses = _count(before, "keyspace_hits"), _count(before, "keyspace_misses")
    if args["sample_seconds"]:
        world.sleep(args["sample_seconds"])
        after = _info(redis)
        hits, misses = _count(after, "keyspace_hits") - hits, _count(after, "keyspace_misses") - misses
    return 100.0 * hits / (hits + misses) if hits + misses > 0 else None


def _redis(args: Args, world: World) -> Measured:
    deadline = Deadline(args, world)
    started = world.clock()
    try:
        sock = _open(args, world, deadline)
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or (error.reason or str(error)).replace("_", " ").lower()
        return Measured({"connected": 0}, {"connected": f"TLS failed: {reason}"})
    except OSError as error:
        return Measured({"connected": 0}, {"connected": why(error, deadline.seconds)})
    with contextlib.closing(sock):
        redis = Redis(sock, deadline)
        try:
            return _ask(args, world, redis, started)
        except OSError as error:
            return Measured({"connected": 0}, {"connected": why(error, deadline.seconds)})


def _ask(args: Args, world: World, redis: Redis, started: float) -> Measured:
    try:
        if args["password"] is not None:
            redis("AUTH", *([args["user"]] if args["user"] else []), args["password"])
        asked = world.clock()
        pong = redis("PING")
    except RunbookError as error:
        return Measured({"connected": 0}, {"connected": str(error)})
    values: dict[str, Any] = {
        "connected": int(pong == "PONG"),
        "connect_ms": (asked - started) * 1000,
        "ping_ms": (world.clock() - asked) * 1000,
    }
    said = {"connected": f"PING is answered with {pong!r}"}
    info = _info(redis)  # before the key of ours is read, which would count as a hit
    rate = _hit_rate(args, world, redis, info)
    if rate is not None:
        values["hit_rate_percent"] = rate
    used, most = _count(info, "used_memory"), _count(info, "maxmemory")
    most = most or _count(info, "total_system_memory")
    values.update(version=info.get("redis_version", ""), used_memory_bytes=used)
    values["clients"] = _count(info, "connected_clients")
    if most:
        values["used_memory_percent"] = 100.0 * used / most
    if info.get("role") == "slave":
        values["primary_link_up"] = int(info.get("master_link_status") == "up")
        said["primary_link_up"] = "it is a replica whose link to the primary is down"
    if args["write"]:
        fault = _write(redis)
        values["written"] = int(not fault)
        said["written"] = fault
    return Measured(values, said)


def _finish(args: dict[str, Any], _names: Collection[str], say: Say) -> None:
    query = take_uri(args, say, ("redis", "rediss"))
    args["tls"] = args["tls"] or query.get("scheme") == "rediss"
    within(args, say, 1, 65535, "port")
    timeout = args["timeout_seconds"]
    if timeout and args["sample_seconds"] and not 0 <= args["sample_seconds"] < timeout:
        say("sample_seconds", f"must be from 0 to below timeout_seconds ({timeout:g}), not {args['sample_seconds']:g}")


KINDS: dict[str, Kind] = {
    "redis": Kind(
        options={
            "uri": {"type": "str", "no_log": True},
            "host": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "default": 6379},
            "socket_path": {"type": "str"},
            "user": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "tls": {"type": "bool", "default": False},
            "validate_certs": {"type": "bool", "default": True},
            "ca_path": {"type": "str"},
            "write": {"type": "bool", "default": True},
            "sample_seconds": {"type": "float", "default": 0},
        },
        measures={
            "connected": "1 when PING is answered with PONG",
            "connect_ms": "how long connection and log-in took",
            "ping_ms": "how long PING took",
            "written": "1 when a key of ours was written, read and removed; only with write",
            "hit_rate_percent": "reads that found their key, since the start or while it was sampled; not measured "
            "where nobody read",
            "used_memory_bytes": "memory of its data",
            "used_memory_percent": "the same of maxmemory, or of the host's memory where that is not set",
            "clients": "connections, with this one",
            "primary_link_up": "1 when a replica has its link to the primary; not measured of a primary",
        },
        fail_when={"connected": "< 1", "written": "< 1"},  # HC-06. HC-40 has no default: an idle cache has no rate
        warn_when={"used_memory_percent": ">= 90"},
        subject=lambda args: args["socket_path"] or place(args),
        advice="See whether Redis runs and takes this password, and whether it may write.",
        ask=_redis,
        finish=_finish,
        measured=lambda args, names: [name for name in names if args["write"] or name != "written"],
    ),
}
