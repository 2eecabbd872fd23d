# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo application against the lab's real PostgreSQL and Redis: each endpoint, each fault, a graceful end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.signalbox.runbook.tests.apps.build import build
from ansible_collections.signalbox.runbook.tests.lab.local import Lab, is_free

WAIT_SECONDS = 20.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab"), targets=0) as lab:
        yield lab


class App:
    """One running server, unpacked from a built artifact as a release would be."""

    def __init__(self, directory: Path, lab: Lab, faults: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        archive, _digest = build("1.2.0", faults, directory / "artifacts")
        with tarfile.open(archive) as content:
            content.extractall(directory / "app", filter="data")
        self.port = free_port()
        self.log = directory / "log"
        own = {
            "DATABASE_URL": lab.database_url,
            "REDIS_URL": lab.redis_url,
            "SLOT": "blue",
            "RELEASE": "1.2.0-abcd1234",
        }
        command = [sys.executable, "server.py", "--port", str(self.port)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=directory / "app",
                env={"PATH": os.environ["PATH"], **own, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def json(self, path: str) -> tuple[int, Any]:
        status, body = self.get(path)
        return status, json.loads(body)

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else 0.0

    def alive(self) -> bool:
        assert self.process.poll() is None, self.text()
        try:
            return self.get("/live")[0] == 200
        except OSError:
            return False

    def text(self) -> str:
        return self.log.read_text()


Start = Callable[..., App]


@pytest.fixture
def start(lab: Lab, tmp_path: Path) -> Iterator[Start]:
    apps: list[App] = []

    def run(*, wait: bool = True, environment: Mapping[str, str] | None = None, **faults: Any) -> App:
        app = App(tmp_path, lab, faults, environment or {})
        apps.append(app)
        if wait:
            until(app.alive)
        return app

    yield run
    for app in apps:
        app.process.kill()
        app.process.wait(WAIT_SECONDS)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_to_end(command: list[str], directory: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
    )


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.05)


def test_it_answers_with_version_slot_and_dependencies(start: Start) -> None:
    app = start()
    status, health = app.json("/health")
    assert (status, health["status"], health["version"]) == (200, "ok", "1.2.0")
    assert health["uptime"] > 0
    assert {name: check["status"] for name, check in health["checks"].items()} == {"database": "ok", "redis": "ok"}
    assert app.json("/version") == (200, {"version": "1.2.0", "release": "1.2.0-abcd1234", "slot": "blue"})
    assert app.json("/ready") == (200, {"status": "ready"})
    assert app.json("/live") == (200, {"status": "alive"})
    assert app.get("/nothing")[0] == 404


def test_it_greets_and_counts_visits_in_redis(start: Start) -> None:
    app = start()
    _status, first = app.json("/")
    status, second = app.json("/")
    assert status == 200
    assert second == {"app": "demo", "version": "1.2.0", "slot": "blue", "visits": first["visits"] + 1}


def test_metrics_count_by_path_and_code_and_unknown_paths_together(start: Start) -> None:
    app = start()
    for path in ("/", "/", "/no/such", "/nor/this"):
        app.get(path)
    assert app.metric('http_requests_total{path="/",code="200"}') == 2
    assert app.metric('http_requests_total{path="other",code="404"}') == 2
    assert app.metric('http_request_duration_seconds_bucket{path="/",le="+Inf"}') == 2
    assert app.metric('demo_info{version="1.2.0",release="1.2.0-abcd1234",slot="blue"}') == 1


@pytest.mark.parametrize(("variable", "broken"), [("DATABASE_URL", "database"), ("REDIS_URL", "redis")])
def test_a_missing_dependency_is_named_and_its_password_is_not(start: Start, variable: str, broken: str) -> None:
    schemes = {"DATABASE_URL": "postgresql://demo:{}@127.0.0.1:{}/demo", "REDIS_URL": "redis://:{}@127.0.0.1:{}/0"}
    app = start(environment={variable: schemes[variable].format("sesame", free_port())})
    status, text = app.get("/health")
    health = json.loads(text)
    assert (status, health["status"]) == (503, "degraded")
    assert {name for name, check in health["checks"].items() if check["status"] != "ok"} == {broken}
    assert health["checks"][broken]["problem"]
    assert app.json("/ready")[0] == 503
    assert app.json("/live")[0] == 200
    assert "sesame" not in text + app.text()


@pytest.mark.parametrize("variable", ["DATABASE_URL", "REDIS_URL"])
def test_a_missing_setting_is_named(lab: Lab, tmp_path: Path, variable: str) -> None:
    archive, _digest = build("1.2.0", {}, tmp_path)
    with tarfile.open(archive) as content:
        content.extractall(tmp_path / "app", filter="data")
    both = {"DATABASE_URL": lab.database_url, "REDIS_URL": lab.redis_url}
    environment = {"PATH": os.environ["PATH"], **{key: value for key, value in both.items() if key != variable}}
    command = [sys.executable, "server.py", "--port", "1"]
    ended = run_to_end(command, tmp_path / "app", environment)
    assert ended.returncode == 1
    assert f"{variable} is not set" in ended.stdout


def test_fault_fail_to_start(start: Start) -> None:
    app = start(wait=False, fail_to_start=True)
    assert app.process.wait(WAIT_SECONDS) == 1
    assert "cannot start" in app.text()


def test_fault_never_ready(start: Start) -> None:
    app = start(never_ready=True)
    for _time in range(3):
        status, health = app.json("/health")
        assert (status, health["status"]) == (503, "degraded")
    assert health["checks"]["database"]["status"] == "ok"
    assert app.json("/ready")[0] == 503
    assert app.json("/version")[1]["version"] == "1.2.0"


def test_fault_wrong_version(start: Start) -> None:
    app = start(wrong_version="9.9.9")
    assert {app.json(path)[1]["version"] for path in ("/version", "/health", "/")} == {"9.9.9"}


def test_fault_errors_are_the_databases_own_and_spread_evenly(start: Start) -> None:
    app = start(errors_percent=60)
    codes = [app.get("/")[0] for _time in range(10)]
    assert codes == [200, 500, 200, 500, 500] * 2
    assert app.text().count('GET / failed: relation "reports" does not exist') == 6
    assert app.json("/health")[1]["status"] == "ok"


def test_fault_errors_begin_some_time_after_the_first_visit(start: Start) -> None:
    app = start(errors_percent=100, after_seconds=1.5)
    assert app.get("/")[0] == 200  # whatever time passed since the start
    until(lambda: app.get("/")[0] == 500)
    visited = app.metric('http_requests_total{path="/",code="200"}')
    assert visited >= 2
    assert app.get("/")[0] == 500


def test_fault_slow_hits_visits_only(start: Start) -> None:
    app = start(slow_ms=300)
    assert app.get("/")[0] == 200
    assert app.metric('http_request_duration_seconds_sum{path="/"}') >= 0.3
    app.get("/version")
    assert app.metric('http_request_duration_seconds_bucket{path="/",le="0.25"}') == 0


def test_fault_leak_takes_memory(start: Start) -> None:
    app = start(leak_mb_per_second=50)
    before = app.metric("process_resident_memory_bytes")
    until(lambda: app.metric("process_resident_memory_bytes") > before + 20_000_000)


def test_fault_crash(start: Start) -> None:
    app = start(crash_after_seconds=0.5, wait=False)
    assert app.process.wait(WAIT_SECONDS) == 70
    assert "fault: crash" in app.text()


def test_faults_of_the_environment_go_over_those_of_the_release(start: Start) -> None:
    app = start(wrong_version="9.9.9", never_ready=True, environment={"FAULTS": '{"never_ready": false}'})
    status, health = app.json("/health")
    assert (status, health["version"]) == (200, "9.9.9")


def test_a_misspelt_fault_is_refused(start: Start) -> None:
    app = start(wait=False, environment={"FAULTS": '{"eror_percent": 1}'})
    assert app.process.wait(WAIT_SECONDS) == 1
    assert "fault eror_percent is unknown" in app.text()


def test_sigterm_finishes_the_request_in_flight_closes_idle_connections_and_ends_with_0(start: Start) -> None:
    app = start(slow_ms=1500)
    idle = http.client.HTTPConnection("127.0.0.1", app.port, timeout=10)
    idle.request("GET", "/live")
    idle.getresponse().read()
    answers: list[tuple[int, Any]] = []
    visit = threading.Thread(target=lambda: answers.append(app.json("/")))
    visit.start()
    until(lambda: app.metric("http_requests_in_flight") == 2)  # the visit, and this question itself

    app.process.send_signal(signal.SIGTERM)
    until(lambda: is_free(app.port))  # nothing listens any more
    assert app.process.poll() is None  # but the visit is still being served
    with pytest.raises(ConnectionRefusedError):
        app.get("/live")
    assert idle.sock is not None
    assert idle.sock.recv(1) == b""
    idle.close()

    visit.join(WAIT_SECONDS)
    assert [(status, body["app"]) for status, body in answers] == [(200, "demo")]
    assert app.process.wait(WAIT_SECONDS) == 0
    assert "stopped after" in app.text()


def test_a_taken_port_is_a_clear_line(start: Start) -> None:
    first = start()
    command = [*first.process.args[:-1], str(first.port)]  # type: ignore[index]
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": "postgresql://x/x", "REDIS_URL": "redis://x"}
    directory = first.log.parent / "app"
    ended = run_to_end(command, directory, environment)
    assert ended.returncode == 1
    assert f"cannot start: port {first.port}:" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


def test_the_build_is_reproducible_and_its_checksum_file_is_one(tmp_path: Path) -> None:
    first, digest = build("1.2.0", {"slow_ms": 5}, tmp_path / "a")
    second, again = build("1.2.0", {"slow_ms": 5}, tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    assert digest == again
    assert build("1.2.1", {"slow_ms": 5}, tmp_path / "b")[1] != digest
    assert build("1.2.0", {}, tmp_path / "b")[1] != digest
    subprocess.run(["sha256sum", "-c", f"{first.name}.sha256"], cwd=first.parent, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("version", "faults", "sentence"),
    [
        ("1.2.0", {"never_redy": True}, "fault never_redy is unknown"),
        ("1.2.0", {"never_ready": "yes"}, "must be true or false"),
        ("1.2.0", {"errors_percent": 101}, "at most 100"),
        ("1.2.0", {"slow_ms": -1}, "from 0 up"),
        ("../1", {}, "becomes a file name"),
    ],
)
def test_the_build_refuses(tmp_path: Path, version: str, faults: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build(version, faults, tmp_path)
    assert not list(tmp_path.iterdir())
