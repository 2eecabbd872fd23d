"""Requests at a fixed rate, each on a connection of its own, never repeated: what users of a Service notice."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Optional
from urllib.parse import urlsplit


class Load:
    """``rate`` requests per second to ``url`` from a thread, for as long as the block lasts, ``count`` at least and
    three times that at most; the results are there after it."""

    def __init__(self, url: str, rate: float, count: int, timeout: float = 10.0) -> None:
        parts = urlsplit(url)
        self.host, self.port, self.path = str(parts.hostname), int(parts.port or 80), parts.path or "/"
        self.rate, self.count, self.timeout = rate, count, timeout
        self.versions: Counter[str] = Counter()
        self.failures: list[tuple[float, str]] = []
        self.sent = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if kind:
            self.count = 0
        self._stop.set()
        self.join()

    def join(self) -> None:
        self._thread.join(self.count / self.rate + self.timeout + 60)
        assert not self._thread.is_alive(), "the load did not end"

    async def _run(self) -> None:
        began = time.monotonic()
        tasks = set()
        for number in range(self.count * 3):
            if self._stop.is_set() and number >= self.count:
                break
            wait = began + number / self.rate - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            self.sent += 1
            task = asyncio.create_task(self._one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks)

    async def _one(self) -> None:
        try:
            self.versions[await asyncio.wait_for(self._ask(), self.timeout)] += 1
        except Exception as error:
            self.failures.append((time.time(), repr(error)))

    async def _ask(self) -> str:
        # From a loopback address of its own: a source port that is used again within two minutes meets what the
        # kernel still tracks of the connection before, and that is not what is tested here.
        own = (f"127.0.{self.sent % 250}.{self.sent // 250 % 250 + 2}", 0) if self.host == "127.0.0.1" else None
        reader, writer = await asyncio.open_connection(self.host, self.port, local_addr=own)
        try:
            head = f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode())
            answer = await reader.read()
            head_bytes, _blank, body = answer.partition(b"\r\n\r\n")
            status = head_bytes.split(b" ", 2)[1:2]
            if status != [b"200"]:
                raise OSError(f"status {status}")
            return str(json.loads(body)["version"])
        finally:
            writer.close()
