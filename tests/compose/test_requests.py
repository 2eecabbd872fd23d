"""No request is lost while compose projects take turns, and a run that is killed is settled by the next."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from compose_site import ComposeSite, make_site
from engine import docker

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chaos"))

from chaos import Moment, Users, events, kill_all, kill_at, kill_main, moments, one_version, run_numbers

# A path without database: the load is for the way there, not for the demo application behind a forwarder.
LOAD = {"accounting_requests_per_second": 150, "accounting_connections": 12, "accounting_path": "/version"}
PATIENT = {"watch_seconds": 15, "watch_interval_seconds": 1, "watch_p95_ms": 30_000}  # not a test of how fast
AT_LEAST = 10_000
ROUNDS = 8


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, cleaned: None) -> Iterator[ComposeSite]:
    for made in make_site(tmp_path_factory.mktemp("compose"), "load", 1):
        for version in ("1.0.0", "1.1.0"):
            made.release(version)
        first = made.deploy("1.0.0")
        assert first.code == 0, first.output
        yield made


@pytest.mark.requirement("DEP-08")
@pytest.mark.parametrize("keep_alive", ["true", "false"])
def test_ten_thousand_requests_through_deploys_and_rollbacks(site: ComposeSite, keep_alive: str) -> None:
    load = {**LOAD, "accounting_keep_alive": keep_alive}
    runs: list[dict[str, object]] = []
    sent = 0
    for _time in range(ROUNDS):
        deployed = site.deploy("1.1.0", **PATIENT, **load)
        restored = site.rollback(**load)
        for play, outcome in ((deployed, "deployed"), (restored, "restored")):
            assert play.code == 0, play.output
            assert play.report and play.outcome == outcome
            runs.append(play.report["requests"])
            sent += play.report["requests"]["sent"]
        if sent >= AT_LEAST:
            break
    print(f"keep_alive={keep_alive}: {sent} requests over {len(runs)} runs")
    assert sent >= AT_LEAST
    assert [run["failed"] for run in runs] == [0] * len(runs), [run["failures"] for run in runs]
    assert [run["connections_cut"] for run in runs] == [0] * len(runs)
    assert {version for run in runs for version in run["by_version"]} == {"1.0.0", "1.1.0"}


@pytest.mark.parametrize(("phase", "kill"), [("start", kill_all), ("shift", kill_main)])
def test_a_killed_run_is_settled_by_the_next(
    site: ComposeSite, phase: str, kill: Callable[[subprocess.Popen[str]], None]
) -> None:
    """In the middle of docker compose up, and when the traffic is about to move."""
    before = site.live()
    assert before
    after = "1.1.0" if before == "1.0.0" else "1.0.0"
    moment = Moment(lines_until(site, phase), f"intent of {phase}", "intent", phase, 2.0)
    with Users(site) as users:
        process = kill_at(site, moment, kill, "deploy", app_version=after, test_greeting=f"killed in {phase}")
        process.wait()
        assert one_version(site, before, after) in (before, after)
        done = site.deploy(after, test_greeting=f"killed in {phase}", app_lease_wait_seconds=120)
        assert done.code == 0, done.output
    assert set(users.seen) <= {before, after}, users.seen
    assert site.answers() == {after} and site.live() == after
    unfinished = [record["outcome"] for record in site.history()][-2:]
    assert unfinished == ["interrupted", "deployed"]
    live = site.history()[-1]["to"]["slot"]
    environment = docker("inspect", "--format", "{{.Config.Env}}", site.container("target1", live))
    assert f"GREETING=killed in {phase}" in environment
    running = docker("ps", "--filter", f"name={site.project}-", "--format", "{{.Names}}").split()
    assert len(running) == 2, running


def lines_until(site: ComposeSite, phase: str) -> int:
    """How many lines the journal of the last deploy that had nothing to settle had when it meant to do that."""
    for run in reversed(run_numbers(site)):
        journal = events(site, run)
        found = [moment.lines for moment in moments(journal) if (moment.event, moment.phase) == ("intent", phase)]
        phases = {event.get("phase") for event in journal}
        if found and "stage" in phases and "settle" not in phases:
            return found[0]
    raise AssertionError(f"no deploy has a step {phase} yet")
