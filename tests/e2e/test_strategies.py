"""Canary with a hold, rolling and recreate on three real targets; promote, abort, cleanup and recover."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import local
from runbook_site import Play, Site, make_site, version_at

LOAD = {"accounting_requests_per_second": 250, "accounting_connections": 10}
AT_LEAST = 10_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for made in make_site(tmp_path_factory.mktemp("strategies"), 3):
        for version in ("1.0.0", "1.1.0"):
            made.release(version)
            play = made.deploy(version)
            assert play.code == 0, play.output
        yield made


def done(play: Play, outcome: str) -> dict[str, Any]:
    assert play.code == 0, play.output
    assert play.report and play.outcome == outcome, play.output
    return play.report


# -- canary -----------------------------------------------------------------------------------------------------

CANARY = {
    "app_strategy": "canary",
    "app_steps": [{"weight": 10, "hold": True}, {"weight": 50}, {"weight": 100}],
    "watch_seconds": 2,
    "watch_interval_seconds": 0.5,
}


@pytest.mark.requirement("CAN-06")
def test_a_held_canary_gets_its_share_and_nothing_else_begins(site: Site) -> None:
    site.release("1.2.0")
    play = site.deploy("1.2.0", **CANARY, **LOAD)
    done(play, "held")
    assert "HELD after " in play.output and "promote.yml goes on, abort.yml takes it back" in play.output
    assert site.live() == "1.1.0"
    asked = Counter(version_at(site.lab.front_url) for _time in range(AT_LEAST))
    assert set(asked) == {"1.1.0", "1.2.0"}
    assert 0.08 <= asked["1.2.0"] / AT_LEAST <= 0.12, asked
    status = site.status()
    assert "all agree" in status.output
    assert "held: 1.2.0 in blue at blue 10 %, green 90 %" in status.output
    for verb, given in (("deploy", {"app_version": "1.1.0"}), ("rollback", {"app_reason": "x"}), ("cleanup", {})):
        refused = site.run(verb, **given)
        assert refused.code != 0
        assert "1.2.0 in blue is held at blue 10 %, green 90 % since run 3" in refused.output
        assert "Nothing has been touched" in refused.output
    assert set(site.answers(60)) == {"1.1.0", "1.2.0"}


def test_a_canary_is_taken_back(site: Site) -> None:
    report = done(site.run("abort"), "aborted")
    assert report["to"]["version"] == "1.2.0"
    assert site.answers(40) == {"1.1.0"}
    assert site.slots() == {target: {"blue": "", "green": "1.1.0"} for target in site.lab.names}
    assert "all agree" in site.status().output
    nothing = site.run("abort")
    assert nothing.code != 0 and "there is nothing to abort" in nothing.output


def test_a_canary_is_promoted_to_the_end(site: Site) -> None:
    done(site.deploy("1.2.0", **CANARY), "held")
    report = done(site.run("promote", **CANARY, **LOAD), "deployed")
    assert [phase["name"] for phase in report["phases"]] == ["shift", "watch", "shift", "watch", "verify"]
    assert report["requests"]["failed"] == 0 and report["requests"]["sent"] > 500
    assert site.answers() == {"1.2.0"} and site.live() == "1.2.0"
    done(site.rollback(), "restored")
    assert site.answers() == {"1.1.0"}


def test_a_canary_that_turns_bad_is_taken_back_by_its_watch(site: Site) -> None:
    site.release("1.2.9", errors_percent=100)
    play = site.deploy("1.2.9", **{**CANARY, "watch_seconds": 20}, **LOAD, watch_failure_limit=0)
    assert play.code != 0 and play.outcome == "rolled_back", play.output
    assert site.answers(40) == {"1.1.0"} and site.live() == "1.1.0"


# -- cleanup and recover ----------------------------------------------------------------------------------------


@pytest.mark.requirement("BG-05")
def test_cleanup_waits_for_the_soak_then_stops_the_other_slot(site: Site) -> None:
    site.release("1.3.0")
    done(site.deploy("1.3.0"), "deployed")
    early = site.run("cleanup", app_soak_minutes=60)
    assert early.code != 0 and "is live for less than 60 min" in early.output
    assert {slots["green"] for slots in site.slots().values()} == {"1.1.0"}
    done(site.run("cleanup"), "cleaned")
    assert site.slots() == {target: {"blue": "1.3.0", "green": ""} for target in site.lab.names}
    again = site.run("cleanup")
    assert again.code == 0 and "nothing to do" in again.output
    done(site.rollback(), "restored")
    assert site.answers() == {"1.1.0"}


def test_recover_starts_what_does_not_run(site: Site) -> None:
    nothing = site.run("recover")
    assert nothing.code == 0 and "nothing to do: no run is unfinished" in nothing.output
    socket = Path(site.lab.ports["supervisor_sockets"]["target2"])
    local.supervisor(socket).stopProcess("demo-backend-green")
    assert site.slot("target2", "green") == ""
    assert "target2 does not run 1.1.0" in site.status().output
    checked = site.run("recover", "--check")
    assert checked.code == 0 and site.slot("target2", "green") == ""
    play = site.run("recover")
    done(play, "recovered")
    assert "1.1.0 in green does not run on target2: it is started again" in play.output
    assert site.slot("target2", "green") == "1.1.0"
    assert "all agree" in site.status().output


# -- in place ---------------------------------------------------------------------------------------------------

ROLLING = {"app_strategy": "rolling", "app_batch_watch_seconds": 1, "watch_seconds": 2, "watch_interval_seconds": 0.5}


def test_rolling_has_one_release_at_a_time(site: Site) -> None:
    site.release("2.1.0")
    for play, outcome in (
        (site.deploy("2.1.0", **ROLLING, **LOAD), "deployed"),
        (site.rollback(**ROLLING, **LOAD), "restored"),
        (site.rollback(rollback_to="2.1.0", **ROLLING, **LOAD), "restored"),
    ):
        requests = done(play, outcome)["requests"]
        assert (requests["failed"], requests["connections_cut"]) == (0, 0)
    assert site.answers() == {"2.1.0"} and site.live() == "2.1.0"
    slots = [sorted(held.values()) for held in site.slots().values()]
    assert slots == [["", "2.1.0"]] * 3, "in place means one at a time"


def test_a_bad_release_goes_no_further_than_its_batch(site: Site) -> None:
    live = site.live()
    site.release("2.8.0", never_ready=True)
    play = site.deploy("2.8.0", **ROLLING, **LOAD)
    assert play.code != 0, play.output
    assert play.report and play.report["requests"]["failed"] == 0
    assert site.answers() == {live} and site.live() == live
    assert [sorted(held.values()) for held in site.slots().values()] == [["", live]] * 3
    assert "all agree" in site.status().output


def test_recreate_reports_its_gap(site: Site) -> None:
    site.release("3.0.0")
    play = site.deploy("3.0.0", **{**ROLLING, "app_strategy": "recreate"}, **LOAD, watch_error_rate_percent=100)
    report = done(play, "deployed")
    assert report["requests"]["failed"] > 0 and report["requests"]["longest_gap_ms"] > 500
    assert site.answers() == {"3.0.0"}
    assert json.dumps(report["requests"]["failed"]) in play.output.replace(",", "")
