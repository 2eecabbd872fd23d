# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo application: a small HTTP service with PostgreSQL and Redis behind it, and faults on demand.

Usage: server.py --port PORT [--host 0.0.0.0] [--without-stores]

Beside this file: VERSION, and faults.json when the release is a bad one. From the environment: DATABASE_URL and
REDIS_URL (both hold a password), SLOT, RELEASE, and FAULTS (JSON) which goes over faults.json. With
``--without-stores`` it needs neither and has no checks of them.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import redis.asyncio
from aiohttp import web
from faults import Faults, parse

LOG = logging.getLogger("demo")
CHECK_SECONDS = 2.0
LEAK_LIMIT_MB = 512  # a demo must not take the machine with it
BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """Counts in the Prometheus text format."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.requests: Counter[tuple[str, int]] = Counter()
        self.seconds: dict[str, float] = {}
        self.buckets: dict[str, list[int]] = {}

    def add(self, path: str, status: int, seconds: float) -> None:
        self.requests[path, status] += 1
        self.seconds[path] = self.seconds.get(path, 0.0) + seconds
        counts = self.buckets.setdefault(path, [0] * (len(BUCKETS) + 1))
        counts[bisect.bisect_left(BUCKETS, seconds)] += 1

    def text(self, info: Mapping[str, str], uptime: float) -> str:
        labels = ",".join(f'{key}="{value}"' for key, value in info.items())
        lines = ["# TYPE demo_info gauge", f"demo_info{{{labels}}} 1"]
        lines += ["# TYPE demo_uptime_seconds gauge", f"demo_uptime_seconds {uptime:.3f}"]
        lines += ["# TYPE process_resident_memory_bytes gauge", f"process_resident_memory_bytes {resident_bytes()}"]
        lines += ["# TYPE http_requests_in_flight gauge", f"http_requests_in_flight {self.in_flight}"]
        lines.append("# TYPE http_requests_total counter")
        for (path, status), count in sorted(self.requests.items()):
            lines.append(f'http_requests_total{{path="{path}",code="{status}"}} {count}')
        lines.append("# TYPE http_request_duration_seconds histogram")
        for path, counts in sorted(self.buckets.items()):
            total = 0
            for bound, count in zip((*BUCKETS, "+Inf"), counts):
                total += count
                lines.append(f'http_request_duration_seconds_bucket{{path="{path}",le="{bound}"}} {total}')
            lines.append(f'http_request_duration_seconds_sum{{path="{path}"}} {self.seconds[path]:.6f}')
            lines.append(f'http_request_duration_seconds_count{{path="{path}"}} {total}')
        return "\n".join(lines) + "\n"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Demo:
    def __init__(self, version: str, faults: Faults, environ: Mapping[str, str], stores: bool = True) -> None:
        self.faults = faults
        self.stores = stores
        self.visits = 0
        self.info = {
            "version": faults.wrong_version or version,
            "release": environ.get("RELEASE", ""),
            "slot": environ.get("SLOT", ""),
        }
        self.environ = environ
        self.metrics = Metrics()
        self.started = time.monotonic()
        self.first_visit: float | None = None
        self.bad_visits = 0
        self.hoard: list[bytes] = []
        # Both connect when they are first needed: a missing dependency is for /health to report, not a crash.
        self.redis = redis.asyncio.from_url(
            environ["REDIS_URL"] if stores else "redis://",
            socket_timeout=CHECK_SECONDS,
            socket_connect_timeout=CHECK_SECONDS,
        )
        self.database: asyncpg.Pool | None = None

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self.measure])
        app.router.add_get("/", self.greet)
        app.router.add_get("/version", self.version)
        app.router.add_get("/health", self.health)
        app.router.add_get("/ready", self.ready)
        app.router.add_get("/live", self.live)
        app.router.add_get("/metrics", self.show_metrics)
        app.cleanup_ctx.append(self.lifetime)
        return app

    async def lifetime(self, _app: web.Application) -> AsyncIterator[None]:
        if self.stores:
            self.database = await asyncpg.create_pool(
                self.environ["DATABASE_URL"],
                min_size=0,
                max_size=5,
                timeout=CHECK_SECONDS,
                command_timeout=CHECK_SECONDS,
            )
        tasks = [asyncio.create_task(self.leak()), asyncio.create_task(self.crash())]
        LOG.info("started version=%(version)s release=%(release)s slot=%(slot)s", self.info)
        yield
        for task in tasks:
            task.cancel()
        if self.database:
            await self.redis.aclose()
            self.database.terminate()
        LOG.info("stopped after %d requests", sum(self.metrics.requests.values()))

    # Endpoints

    async def greet(self, _request: web.Request) -> web.Response:
        if self.first_visit is None:
            self.first_visit = time.monotonic()
        if time.monotonic() - self.first_visit >= self.faults.after_seconds:
            await self.misbehave()
        self.visits += 1
        visits = await self.redis.incr("demo:visits") if self.stores else self.visits
        info = self.info
        return web.json_response({"app": "demo", "version": info["version"], "slot": info["slot"], "visits": visits})

    async def version(self, _request: web.Request) -> web.Response:
        return web.json_response(self.info)

    async def live(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def ready(self, _request: web.Request) -> web.Response:
        good, _checks = await self.check()
        return web.json_response({"status": "ready" if good else "not ready"}, status=200 if good else 503)

    async def health(self, _request: web.Request) -> web.Response:
        good, checks = await self.check()
        body = {
            "status": "ok" if good else "degraded",
            "version": self.info["version"],
            "uptime": round(time.monotonic() - self.started, 3),
            "checks": checks,
        }
        return web.json_response(body, status=200 if good else 503)

    async def show_metrics(self, _request: web.Request) -> web.Response:
        text = self.metrics.text(self.info, time.monotonic() - self.started)
        return web.Response(body=text.encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    # Dependencies

    async def check(self) -> tuple[bool, dict[str, dict[str, Any]]]:
        checks = {}
        if self.database:
            names = ("database", "redis")
            results = await asyncio.gather(
                self.check_one(lambda: self.database.fetchval("SELECT 1")), self.check_one(self.redis.ping)
            )
            checks = dict(zip(names, results))
        if self.faults.never_ready:
            checks["warmup"] = {"status": "failed", "problem": "the cache is still being warmed up"}
        return all(item["status"] == "ok" for item in checks.values()), checks

    async def check_one(self, ask: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
        begun = time.monotonic()
        try:
            await asyncio.wait_for(ask(), CHECK_SECONDS)
        except Exception as error:
            return {"status": "failed", "problem": describe(error)}
        return {"status": "ok", "ms": round((time.monotonic() - begun) * 1000, 1)}

    # Faults

    async def misbehave(self) -> None:
        faults = self.faults
        if not (faults.slow_ms or faults.errors_percent):
            return
        self.bad_visits += 1
        if self.bad_visits == 1:
            LOG.warning("fault begins: errors_percent=%g slow_ms=%g", faults.errors_percent, faults.slow_ms)
        if faults.slow_ms:
            await asyncio.sleep(faults.slow_ms / 1000)
        share = faults.errors_percent / 100
        if int(self.bad_visits * share) > int((self.bad_visits - 1) * share):
            if not self.database:
                raise RuntimeError('relation "reports" does not exist')
            # What a release does whose migration was forgotten: the real error of the real database.
            await self.database.fetchval("SELECT count(*) FROM reports")

    async def leak(self) -> None:
        step = int(self.faults.leak_mb_per_second * 1_000_000 / 10)
        if step:
            LOG.warning("fault begins: leak_mb_per_second=%g", self.faults.leak_mb_per_second)
        while step and step * len(self.hoard) < LEAK_LIMIT_MB * 1_000_000:
            self.hoard.append(b"\x01" * step)  # not zeros: the pages must really be taken
            await asyncio.sleep(0.1)

    async def crash(self) -> None:
        seconds = self.faults.crash_after_seconds
        if seconds:
            await asyncio.sleep(seconds)
            LOG.error("fault: crash after %g s", seconds)
            os._exit(70)

    # Every request

    @web.middleware
    async def measure(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        begun = time.perf_counter()
        status = 500
        self.metrics.in_flight += 1
        try:
            response = await handler(request)
            status = response.status
            return response
        except web.HTTPException as error:
            status = error.status
            raise
        except Exception as error:
            LOG.error("%s %s failed: %s", request.method, request.path, describe(error))
            return web.json_response({"error": "internal error"}, status=500)
        finally:
            self.metrics.in_flight -= 1
            resource = request.match_info.route.resource
            # Only our own paths become labels: a scanner must not fill the memory.
            self.metrics.add(resource.canonical if resource else "other", status, time.perf_counter() - begun)


def describe(error: BaseException) -> str:
    return str(error) or type(error).__name__


def main() -> int:
    parser = argparse.ArgumentParser(description="The demo application.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1", help="in a container: 0.0.0.0")
    parser.add_argument("--without-stores", action="store_true")
    parser.add_argument("--grace-seconds", type=float, default=4.0, help="for requests in flight at SIGTERM")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    here = Path(__file__).resolve().parent
    try:
        version = (here / "VERSION").read_text(encoding="utf-8").strip()
        bad = here / "faults.json"
        raw = json.loads(bad.read_text(encoding="utf-8")) if bad.exists() else {}
        faults = parse({**raw, **json.loads(os.environ.get("FAULTS") or "{}")})
        demo = Demo(version, faults, os.environ, not arguments.without_stores)
        if demo.stores and "DATABASE_URL" not in os.environ:
            raise KeyError("DATABASE_URL")
    except KeyError as error:
        LOG.error("cannot start: %s is not set", error.args[0])
        return 1
    except (OSError, ValueError) as error:
        LOG.error("cannot start: %s", error)
        return 1
    if faults.fail_to_start:
        LOG.error("cannot start: settings.payment_key is missing")
        return 1
    try:
        # An idle connection outlives nginx's own keep-alive (60 s), so it is nginx that closes first: no race.
        web.run_app(
            demo.application(),
            host=arguments.host,
            port=arguments.port,
            print=None,
            access_log=None,
            keepalive_timeout=75.0,
            shutdown_timeout=arguments.grace_seconds,
        )
    except OSError as error:
        LOG.error("cannot start: port %d: %s", arguments.port, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
