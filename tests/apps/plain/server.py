# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo application without packages and data stores, for nodes that have only Python; the same faults.

Usage: server.py --port PORT

Beside this file: faults.py, VERSION, and faults.json when the release is a bad one. SIGTERM lets requests finish.
"""

from __future__ import annotations

import argparse
import getpass
import http.server
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from faults import Faults, parse

HERE = Path(__file__).resolve().parent


class State:
    def __init__(self, version: str, faults: Faults) -> None:
        self.faults = faults
        self.info = {
            "version": faults.wrong_version or version,
            "release": os.environ.get("RELEASE", ""),
            "slot": os.environ.get("SLOT", ""),
            "user": getpass.getuser(),
        }
        self.lock = threading.Lock()
        self.first_visit: float | None = None
        self.bad_visits = 0
        self.ending = False

    def fails(self) -> bool:
        """Whether this visit is one of those that fail, spread evenly."""
        with self.lock:
            now = time.monotonic()
            self.first_visit = self.first_visit or now
            if now - self.first_visit < self.faults.after_seconds:
                return False
            self.bad_visits += 1
            share = self.faults.errors_percent / 100
            return int(self.bad_visits * share) > int((self.bad_visits - 1) * share)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        state, healthy = self.state, not self.state.faults.never_ready
        if path == "/":
            if state.faults.slow_ms:
                time.sleep(state.faults.slow_ms / 1000)
            if state.fails():
                print("error: this visit fails", flush=True)
                self.answer(500, {"error": "internal"})
            else:
                self.answer(200, {"app": "demo", **state.info})
        elif path == "/version":
            self.answer(200, state.info)
        elif path == "/live":
            self.answer(200, {"status": "alive"})
        elif path in ("/health", "/ready"):
            word = ("ok" if path == "/health" else "ready") if healthy else "degraded"
            self.answer(200 if healthy else 503, {"status": word, "version": state.info["version"]})
        else:
            self.answer(404, {"error": "not found"})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.state.ending:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, *request: Any) -> None:
        """A client that went away is no event: its trace would hide what a test looks for."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*request)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    path = HERE / "faults.json"
    faults = parse(json.loads(path.read_text(encoding="utf-8")) if path.exists() else {})
    version = (HERE / "VERSION").read_text(encoding="utf-8").strip()
    if faults.fail_to_start:
        print("error: cannot start: the setting SIGNING_KEY is missing", flush=True)
        return 1
    state = Handler.state = State(version, faults)
    server = Server(("0.0.0.0", port), Handler)

    def end(*_signal: Any) -> None:
        state.ending = True
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    if faults.crash_after_seconds:
        threading.Timer(faults.crash_after_seconds, crash, [faults.crash_after_seconds]).start()
    print("started version={version} slot={slot} user={user}".format(**state.info), flush=True)
    server.serve_forever(poll_interval=0.1)
    print("stopped", flush=True)
    return 0


def crash(seconds: float) -> None:
    print(f"error: fault: crash after {seconds:g} s", flush=True)
    os._exit(70)


if __name__ == "__main__":
    sys.exit(main())
