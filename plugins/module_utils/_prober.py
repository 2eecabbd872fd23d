# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A program of its own: keeps asking one URL at a constant rate and writes down what it was answered.

Started by path, beside the playbook, so it imports nothing but the standard library. The configuration is one JSON
object on standard input (headers may be secret, so neither argv nor a file); `_accounting.prober_config` makes it.
In ``directory`` it appends one line per request to ``samples.jsonl`` and leaves ``summary.json`` when it ends.

The load is open-loop: request n is due at n/rate whatever became of the others, and its duration and its timeout
count from then; a stall shows as many slow answers, as its users would see it. Nothing is ever retried.

Private: may change at any time.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Optional, cast
from urllib.parse import urlsplit

FLUSH_SECONDS = 0.1
PARENT_SECONDS = 0.5
HEAD_LIMIT = 65536
BODY_KEPT = 1 << 20  # the version is looked for in this much of an answer; the rest is read and dropped
READ_PART = 65536


def process_start(pid: int) -> Optional[int]:
    """When the process started (clock ticks since boot, which tells it from a later owner of its pid); None if gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()  # the name before ")" may hold anything, even spaces
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


class AnswerError(Exception):
    """No good answer; ``cut``: the other side ended an open connection while it owed us one."""

    def __init__(self, kind: str, cut: bool = False) -> None:
        super().__init__(kind)
        self.kind = kind
        self.cut = cut


def connect_failure(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate"
    if isinstance(error, ssl.SSLError):
        return "tls"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionError):
        return "reset"
    if isinstance(error, socket.gaierror):
        return "name"
    return "network"


def value_at(body: bytes, path: list[str]) -> Optional[str]:
    """The scalar at ``path`` in a JSON body as text; None if there is none."""
    try:
        value = json.loads(body)
        for key in path:
            value = value[int(key)] if isinstance(value, list) else value[key]
    except (ValueError, LookupError, TypeError):
        return None
    return None if value is None or isinstance(value, (dict, list)) else str(value)


class Wire(asyncio.Protocol):
    """One connection: the bytes that came, and whether more may come."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.closed = False
        self.expired = False
        self.used = False
        self.transport: Optional[asyncio.Transport] = None
        self._waiter: Optional[asyncio.Future[None]] = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self._wake()

    def eof_received(self) -> None:
        self.closed = True
        self._wake()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self.closed = True
        self._wake()

    def expire(self) -> None:
        self.expired = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def more(self) -> bool:
        """Wait for more bytes; False when the other side is done."""
        have = len(self.buffer)
        while len(self.buffer) == have:
            if self.expired:
                raise AnswerError("timeout")
            if self.closed:
                return False
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return True

    async def until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            if len(self.buffer) > HEAD_LIMIT:
                raise AnswerError("malformed")
            if not await self.more():
                raise AnswerError("truncated", cut=True)
        end = self.buffer.index(mark)
        taken = bytes(self.buffer[:end])
        del self.buffer[: end + len(mark)]
        return taken

    async def exactly(self, size: int) -> bytes:
        """Read ``size`` bytes; return the first of them."""
        kept = bytearray()
        while size > 0:
            if not self.buffer and not await self.more():
                raise AnswerError("truncated", cut=True)
            part = self.buffer[: min(size, READ_PART)]
            del self.buffer[: len(part)]
            size -= len(part)
            kept += part[: max(0, BODY_KEPT - len(kept))]
        return bytes(kept)

    async def rest(self) -> bytes:
        kept = bytearray()
        while True:
            kept += self.buffer[: max(0, BODY_KEPT - len(kept))]
            self.buffer.clear()
            if not await self.more():
                return bytes(kept)

    async def chunks(self) -> bytes:
        kept = bytearray()
        while True:
            size = int((await self.until(b"\r\n")).partition(b";")[0], 16)
            if size == 0:
                while await self.until(b"\r\n"):  # trailers, up to the empty line
                    pass
                return bytes(kept)
            kept += (await self.exactly(size))[: max(0, BODY_KEPT - len(kept))]
            await self.until(b"\r\n")

    async def answer(self) -> tuple[int, bytes, bool]:
        """Read one answer: status, (the beginning of) the body, whether the connection may be used again."""
        if not self.buffer and not await self.more():
            raise AnswerError("closed", cut=True)
        status = 100
        while 100 <= status < 200:
            lines = (await self.until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            protocol, status_text = lines[0].split(" ", 2)[:2]
            status = int(status_text)
        headers = {}
        for line in lines[1:]:
            name, _colon, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        connection = headers.get("connection", "").lower()
        reusable = "close" not in connection and (protocol != "HTTP/1.0" or "keep-alive" in connection)
        if status in (204, 304):
            return status, b"", reusable
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return status, await self.chunks(), reusable
        if "content-length" in headers:
            return status, await self.exactly(int(headers["content-length"])), reusable
        return status, await self.rest(), False

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()  # the answer is in: no need to linger for a polite TLS goodbye


class Client:
    """One of the clients: at most one request and one connection at a time."""

    def __init__(self, config: dict[str, Any], keep_alive: bool) -> None:
        url = urlsplit(config["url"])
        self.host = url.hostname or ""
        self.port = url.port or (443 if url.scheme == "https" else 80)
        self.tls: Optional[ssl.SSLContext] = None
        if url.scheme == "https":
            self.tls = ssl.create_default_context()
            if not config["validate_certs"]:
                self.tls.check_hostname = False
                self.tls.verify_mode = ssl.CERT_NONE
        self.keep_alive = keep_alive
        self.version_path: list[str] = config["version_path"]
        headers = {
            "host": url.netloc,
            "user-agent": "signalbox-runbook-prober",
            "accept": "*/*",
            **{name.lower(): value for name, value in config["headers"].items()},
            "connection": "keep-alive" if keep_alive else "close",
        }
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        self.request = ("\r\n".join(lines) + "\r\n\r\n").encode()
        self.wire: Optional[Wire] = None

    async def ask(self, deadline: float) -> tuple[bool, str, Optional[str], bool, bool]:
        """One request: ok, kind of failure, version that answered, on a connection used before, cut."""
        loop = asyncio.get_running_loop()
        wire, self.wire = self.wire, None
        version = None
        reused = False
        try:
            if loop.time() >= deadline:
                raise AnswerError("timeout")  # no client was free in time
            if wire is not None and (wire.closed or wire.buffer):
                wire.close()  # ended while idle, which any client sees before it asks: not a failure
                wire = None
            if wire is None:
                wire = await self._connect(deadline)
            reused = wire.used
            wire.used = True
            timer = loop.call_at(deadline, wire.expire)
            try:
                cast(asyncio.Transport, wire.transport).write(self.request)
                status, body, reusable = await wire.answer()
            except ValueError:
                raise AnswerError("malformed") from None
            finally:
                timer.cancel()
            if self.version_path:
                version = value_at(body, self.version_path)
            if reusable and self.keep_alive:
                self.wire = wire
            if not 200 <= status < 400:
                raise AnswerError(f"http_{status}")
            return True, "", version, reused, False
        except AnswerError as failure:
            return False, failure.kind, version, reused, failure.cut
        finally:
            if wire is not None and wire is not self.wire:
                wire.close()

    async def _connect(self, deadline: float) -> Wire:
        loop = asyncio.get_running_loop()
        opening = loop.create_connection(
            Wire, self.host, self.port, ssl=self.tls, server_hostname=self.host if self.tls else None
        )
        try:
            return (await asyncio.wait_for(opening, deadline - loop.time()))[1]
        except asyncio.TimeoutError:
            raise AnswerError("timeout") from None
        except OSError as error:
            raise AnswerError(connect_failure(error)) from None


class Prober:
    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.directory = Path(config["directory"])
        self.loop = asyncio.get_running_loop()
        # Offsets count from the `started_at` that the starter noted, so that it can place them on its own clock.
        self.zero = self.loop.time() - max(0.0, time.time() - config["started_at"])
        self.lines: list[str] = []
        self.counts = {"sent": 0, "failed": 0, "connections_cut": 0}
        self.due: asyncio.Queue[Optional[float]] = asyncio.Queue()

    async def pace(self) -> str:
        """Hand out request n at n/rate; return the bound that ended it."""
        begin = self.loop.time()
        for number in range(self.config["max_requests"]):
            elapsed = number / self.config["requests_per_second"]
            if elapsed > self.config["max_seconds"]:
                return "max_seconds"
            await asyncio.sleep(begin + elapsed - self.loop.time())
            self.due.put_nowait(begin + elapsed)
        return "max_requests"

    async def serve(self, client: Client) -> None:
        while True:
            due = await self.due.get()
            if due is None:
                return
            ok, kind, version, reused, cut = await client.ask(due + self.config["timeout_seconds"])
            duration_ms = (self.loop.time() - due) * 1000
            self.counts["sent"] += 1
            self.counts["failed"] += not ok
            self.counts["connections_cut"] += cut
            sample = [round(due - self.zero, 4), round(duration_ms, 2), int(ok), kind, version, int(reused), int(cut)]
            self.lines.append(json.dumps(sample, separators=(",", ":")) + "\n")

    def flush(self) -> None:
        if self.lines:
            text, self.lines = "".join(self.lines), []
            with (self.directory / "samples.jsonl").open("a", encoding="ascii") as stream:
                stream.write(text)

    async def keep(self) -> None:
        """Write samples down; return only when the parent is gone."""
        parent = self.config["parent"]
        next_look = 0.0
        while True:
            self.flush()
            if parent and self.loop.time() >= next_look:
                next_look = self.loop.time() + PARENT_SECONDS
                if process_start(parent["pid"]) != parent["start_time"]:
                    return
            await asyncio.sleep(FLUSH_SECONDS)

    async def work(self, pacing: asyncio.Future[str]) -> str:
        """Ask until the pace ends and what was due by then is answered for; return why it ended."""
        keep_alive = self.config["keep_alive"]
        clients = [
            Client(self.config, keep_alive == "true" or (keep_alive == "both" and number % 2 == 0))
            for number in range(self.config["connections"])
        ]
        serving = [asyncio.ensure_future(self.serve(client)) for client in clients]
        try:
            await asyncio.wait({pacing})
            for _client in clients:
                self.due.put_nowait(None)
            await asyncio.gather(*serving)
            return "stopped" if pacing.cancelled() else pacing.result()
        finally:
            for task in serving:
                task.cancel()

    async def run(self) -> None:
        pacing = asyncio.ensure_future(self.pace())
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, pacing.cancel)
        working = asyncio.ensure_future(self.work(pacing))
        keeping = asyncio.ensure_future(self.keep())
        await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (pacing, working, keeping):
            if not task.cancel():
                task.cancelled() or task.result()  # an error ends the program; its traceback goes to the log
        if not working.done() and self.config["remove_when_orphaned"]:
            shutil.rmtree(self.directory, ignore_errors=True)
            return
        self.flush()
        ended = working.result() if working.done() else "parent_gone"
        summary = {**self.counts, "ended": ended, "ended_s": round(self.loop.time() - self.zero, 3)}
        part = self.directory / "summary.json.part"
        part.write_text(json.dumps(summary), encoding="ascii")
        part.replace(self.directory / "summary.json")


async def main() -> None:
    await Prober(json.load(sys.stdin)).run()


if __name__ == "__main__":
    os.umask(0o077)
    status = 0
    try:
        asyncio.new_event_loop().run_until_complete(main())
    except Exception:
        traceback.print_exc()
        status = 1
    # A name lookup that hangs in its thread would keep the interpreter, and so this program, alive.
    sys.stderr.flush()
    os._exit(status)
