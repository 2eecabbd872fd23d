"""No request is lost: the collection's own account, and clients of the test's own that it knows nothing about."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from runbook_site import Site, make_site

LOAD = {"accounting_requests_per_second": 400, "accounting_connections": 12}
AT_LEAST = 10_000
ROUNDS = 8


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two targets behind one router, of each kind."""
    yield from make_site(tmp_path_factory.mktemp(f"requests-{request.param}"), 2, request.param)


class Answer(NamedTuple):
    version: str
    began: float
    ended: float
    problem: str


class Client(threading.Thread):
    """Asks again and again on one connection, for as long as the server keeps it, and never asks twice.

    http.client opens a new connection only after an answer that said the old one ends; a connection that is lost
    under a request is a failed request.
    """

    def __init__(self, port: int, pause: float, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self.pause = pause
        self.stop = stop
        self.answers: list[Answer] = []

    def run(self) -> None:
        while not self.stop.is_set():
            self.answers.append(self.ask())
            self.stop.wait(self.pause)
        self.connection.close()

    def ask(self) -> Answer:
        began = time.time()
        version, problem = "", ""
        try:
            self.connection.request("GET", "/")
            answer = self.connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                version = str(json.loads(body)["version"])
            else:
                problem = f"status {answer.status}"
        except (OSError, http.client.HTTPException) as error:
            problem = f"{type(error).__name__}: {error}"
            self.connection.close()
        return Answer(version, began, time.time(), problem)


@contextmanager
def clients(port: int, count: int, pause: float) -> Iterator[list[Client]]:
    stop = threading.Event()
    running = [Client(port, pause, stop) for _time in range(count)]
    for client in running:
        client.start()
    try:
        yield running
    finally:
        stop.set()
        for client in running:
            client.join(timeout=30)


def answers_of(running: list[Client]) -> list[Answer]:
    return [answer for client in running for answer in client.answers]


def failed(running: list[Client]) -> list[str]:
    return [answer.problem for answer in answers_of(running) if answer.problem]


def let_services_say(site: Site) -> None:
    """The inventory of the lab, with the limits of the service as variables of the command line."""
    path = site.inventory / "group_vars" / "all.yml"
    text = path.read_text(encoding="utf-8")
    for key in ("drain_seconds", "stop_seconds"):
        text, count = re.subn(rf"{key}: (\d+)", rf'{key}: "{{{{ test_{key} | default(\1) }}}}"', text)
        assert count == 1
    path.write_text(text, encoding="utf-8")


@pytest.mark.requirement("DEP-08")
@pytest.mark.parametrize("keep_alive", ["true", "false"])
def test_ten_thousand_requests_through_deploys_and_rollbacks(site: Site, keep_alive: str) -> None:
    site.release("1.0.0")
    site.release("1.1.0")
    first = site.deploy("1.0.0")
    assert first.code == 0, first.output
    load = {**LOAD, "accounting_keep_alive": keep_alive}
    sent, runs = 0, []
    with clients(site.lab.ports["front"], 3, 0.02) as independent:
        for _time in range(ROUNDS):
            deployed = site.deploy("1.1.0", watch_seconds=9, watch_interval_seconds=0.5, **load)
            restored = site.rollback(**load)
            for play, outcome in ((deployed, "deployed"), (restored, "restored")):
                assert play.code == 0, play.output
                assert play.report and play.outcome == outcome
                runs.append(play.report["requests"])
            sent = sum(run["sent"] for run in runs)
            if sent >= AT_LEAST:
                break
    assert sent >= AT_LEAST
    assert [run["failed"] for run in runs] == [0] * len(runs), [run["failures"] for run in runs]
    assert [run["connections_cut"] for run in runs] == [0] * len(runs)
    assert {version for run in runs for version in run["by_version"]} == {"1.0.0", "1.1.0"}
    assert failed(independent) == []
    assert len(answers_of(independent)) > 500
    assert {answer.version for answer in answers_of(independent)} == {"1.0.0", "1.1.0"}


@pytest.mark.requirement("REL-10")
def test_slow_requests_outlive_the_shift_and_the_stop(site: Site) -> None:
    """A release that answers slowly is taken back by the watch: its slot stops while it still owes answers."""
    let_services_say(site)
    site.release("2.1.0", slow_ms=6000)
    limits = {"accounting_requests_per_second": 5, "accounting_connections": 40, "accounting_timeout_seconds": 20}
    watch = {"watch_seconds": 60, "watch_interval_seconds": 0.5, "watch_window_seconds": 4, "watch_p95_ms": 2400}
    with clients(site.lab.ports["front"], 6, 0.1) as waiting:
        taken_back = site.deploy("2.1.0", test_drain_seconds=20, **watch, **limits)
    assert taken_back.outcome == "rolled_back", taken_back.output
    assert taken_back.report and "p95" in taken_back.report["failure"], taken_back.report["failure"]
    assert taken_back.report["requests"]["failed"] == 0, taken_back.report["requests"]
    assert failed(waiting) == []
    back = [phase for phase in taken_back.report["phases"] if phase["name"] == "revert"]
    # nginx leaves requests in flight to the stop; HAProxy lets them end within the shift before it.
    stop = back[0 if site.lab.router == "haproxy" else -1]
    stop_began = site.history()[-1]["started"] + stop["started_s"]
    answered_while_stopping = [
        answer for answer in answers_of(waiting) if answer.version == "2.1.0" and answer.ended > stop_began
    ]
    assert answered_while_stopping, "no request was in flight when the slot was stopped: this test proved nothing"
    assert taken_back.report["requests"]["connections_cut"] == 0


@pytest.mark.requirement("REL-10")
def test_connections_cut_are_counted(site: Site) -> None:
    """Those that need longer than drain_seconds are cut, and the record says how many were."""
    site.release("3.0.0", slow_ms=60_000)
    live = site.live()
    with clients(site.lab.ports["front"], 3, 0.1) as stuck:
        taken_back = site.deploy(
            "3.0.0",
            watch_seconds=60,
            watch_interval_seconds=0.5,
            watch_window_seconds=4,
            accounting_requests_per_second=10,
            accounting_timeout_seconds=1,
            test_drain_seconds=1,
            test_stop_seconds=2,
        )
    assert taken_back.outcome == "rolled_back", taken_back.output
    assert len(failed(stuck)) == 3, "each client had one request at the slot, which never answered"
    assert site.history()[-1]["connections_cut"] >= 3
    assert site.answers(3) == {live}
