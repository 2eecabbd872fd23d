"""The life of an application, the same on every backend: upgrades, the same again, bad releases, ways back."""

from __future__ import annotations

import re

import pytest
from backends import BAD_LATER, WATCH, Place, slots
from chaos import wait_for

from runbook_site import Play

HURRIED = {"test_start_seconds": 12}  # where the inventory leaves more to the first start


def held(place: Place, live: str, beside: str) -> None:
    """Which versions the slots of every target have, and that nothing else of ours is there; in place, nothing stands
    beside the live one."""
    slot = next(r["to"]["slot"] for r in reversed(place.site.history()) if r["outcome"] in ("deployed", "restored"))
    idle = "green" if slot == "blue" else "blue"
    for target, versions in slots(place.site).items():
        assert versions == {slot: live, idle: "" if place.backend.in_place else beside}, target
    assert place.site.strays() == []


def none_lost(place: Place, play: Play) -> None:
    assert play.report, play.output
    requests = play.report["requests"]
    assert requests["failed"] == 0 or not place.backend.counts_lost, requests
    assert requests["failed"] <= 5, requests


def refused(play: Play, outcome: str) -> None:
    assert play.code != 0, play.output
    assert play.outcome == outcome, play.output
    assert "Traceback" not in play.output


@pytest.mark.smoke
@pytest.mark.requirement("DEP-12", "TRF-03", "BG-01", "BG-04", "BG-07")
def test_first_release_then_an_upgrade(place: Place) -> None:
    site = place.site
    site.release("1.0.0")
    site.release("1.1.0")
    first = site.deploy("1.0.0", **WATCH)
    assert first.code == 0, first.output
    assert first.outcome == "deployed"
    assert site.answers() == {"1.0.0"}
    held(place, "1.0.0", "")
    second = site.deploy("1.1.0", **WATCH)
    assert second.code == 0, second.output
    assert second.outcome == "deployed"
    assert site.answers() == {"1.1.0"} and site.live() == "1.1.0"
    held(place, "1.1.0", "1.0.0")
    assert second.report and second.report["requests"]["sent"] > 0
    none_lost(place, second)
    assert second.report["requests"]["connections_cut"] == 0
    assert [record["outcome"] for record in site.history()] == ["deployed", "deployed"]
    record = site.history()[-1]
    assert record["triggered_by"]["user"] and record["triggered_by"]["pid"]
    assert place.backend.code(record["artifacts"]["backend"]), record["artifacts"]
    if not place.backend.in_place:
        phases = list(dict.fromkeys(phase["phase"] for phase in record["phases"]))
        assert phases[:5] == ["stage", "start", "shift", "watch", "verify"]


@pytest.mark.smoke
@pytest.mark.requirement("DEP-19", "XC-01")
def test_same_release_again_changes_nothing(place: Place) -> None:
    before = place.site.everything()
    again = place.site.deploy("1.1.0", "-v")
    assert again.code == 0, again.output
    assert "nothing to do" in again.output and "changed:" not in again.output
    assert not re.search(r"changed=[1-9]", again.output)
    assert place.site.everything() == before


@pytest.mark.requirement("XC-01")
def test_check_mode_predicts_and_changes_nothing(place: Place) -> None:
    place.site.release("1.1.5")
    before = place.site.everything()
    predicted = place.site.deploy("1.1.5", "--check", "--diff")
    assert predicted.code == 0, predicted.output
    assert "1.1.0 -> 1.1.5" in predicted.output
    assert re.search(r'^- +"green": 100', predicted.output, re.M)
    assert re.search(r'^\+ +"blue": 100', predicted.output, re.M)
    assert place.site.everything() == before
    back = place.site.rollback("--check", "--diff")
    assert back.code == 0, back.output
    assert "1.1.0 -> 1.0.0" in back.output
    assert place.site.everything() == before


@pytest.mark.smoke
@pytest.mark.requirement("BG-03", "DEP-11")
def test_release_that_never_gets_healthy_takes_no_traffic(place: Place) -> None:
    place.site.release("1.2.0", never_ready=True)
    bad = place.site.deploy("1.2.0", accounting_requests_per_second=100, **HURRIED)
    refused(bad, "failed")
    assert place.site.answers() == {"1.1.0"}
    held(place, "1.1.0", "")
    assert bad.report and list(bad.report["requests"]["by_version"]) == ["1.1.0"]
    assert bad.report["requests"]["sent"] > 0
    none_lost(place, bad)
    assert "never took traffic" in bad.output and place.backend.unready in bad.output
    assert "all agree" in place.site.status().output


@pytest.mark.requirement("BG-03", "HC-18")
def test_release_that_says_another_version_takes_no_traffic(place: Place) -> None:
    place.site.release("1.2.1", wrong_version="9.9.9")
    bad = place.site.deploy("1.2.1", **HURRIED)
    refused(bad, "failed")
    assert "9.9.9" in bad.output
    assert place.site.answers() == {"1.1.0"}
    held(place, "1.1.0", "")


def test_release_that_does_not_start_shows_its_last_words(place: Place) -> None:
    place.site.release("1.2.2", fail_to_start=True)
    bad = place.site.deploy("1.2.2")
    refused(bad, "failed")
    assert re.search(r"last log lines of \w+/backend", bad.output), bad.output
    assert re.search(r"(settings.payment_key|SIGNING_KEY) is missing", bad.output), bad.output
    assert place.site.answers() == {"1.1.0"}
    held(place, "1.1.0", "")


def test_release_whose_code_is_nowhere_is_named(place: Place) -> None:
    bad = place.site.deploy("9.9.9")
    assert bad.code != 0 and bad.outcome in ("none", "failed"), bad.output
    assert place.backend.nowhere in bad.output, bad.output
    assert place.site.answers() == {"1.1.0"}
    held(place, "1.1.0", "")


@pytest.mark.smoke
@pytest.mark.requirement("BG-12")
def test_release_that_turns_bad_is_taken_back_by_the_watch(place: Place) -> None:
    place.site.release("1.3.0", errors_percent=60, after_seconds=1)
    bad = place.site.deploy("1.3.0", **BAD_LATER)
    refused(bad, "rolled_back")
    assert place.site.answers() == {"1.1.0"} and place.site.live() == "1.1.0"
    assert bad.report and "error rate" in bad.report["failure"]
    assert bad.report["requests"]["connections_cut"] == 0
    said = [line for log in bad.report["log"].values() for line in log]
    assert any(re.search('relation "reports" does not exist|this visit fails', line) for line in said), said
    held(place, "1.1.0", "")


def test_second_run_names_the_first(place: Place) -> None:
    """While one run goes on, another ends with who, since when and why."""
    place.site.release("1.4.0")
    first = place.site.start("deploy", app_version="1.4.0", app_reason="the first of two", watch_seconds=8)
    try:
        wait_for("the lease", lambda: "the first of two" in place.site.lease(), every=0.05)
        second = place.site.deploy("1.0.0")
        assert second.code != 0, second.output
        assert "the first of two" in second.output and "since" in second.output, second.output
    finally:
        output = first.communicate(timeout=120)[0]
    assert first.returncode == 0, output
    assert place.site.answers() == {"1.4.0"}


@pytest.mark.smoke
@pytest.mark.requirement("RB-04", "BG-09")
def test_rollback_goes_to_the_verified_release_before(place: Place) -> None:
    *_older, before, live = [r["to"]["version"] for r in place.site.history() if r["outcome"] == "deployed"]
    assert place.site.live() == live
    back = place.site.rollback()
    assert back.code == 0, back.output
    assert back.outcome == "restored"
    none_lost(place, back)
    assert place.site.answers() == {before} and place.site.live() == before
    held(place, before, live)


@pytest.mark.requirement("RB-28", "RB-03")
def test_rollback_of_the_rollback_goes_forward_by_name(place: Place) -> None:
    forward = place.site.rollback(rollback_to="1.4.0")
    assert forward.code == 0, forward.output
    assert place.site.answers() == {"1.4.0"} and place.site.live() == "1.4.0"
    older = place.site.rollback(rollback_to="1.0.0")
    assert older.code == 0, older.output
    assert place.site.answers() == {"1.0.0"} and place.site.live() == "1.0.0"


def test_rollback_with_nothing_to_go_back_to_is_an_error(place: Place) -> None:
    before = place.site.everything()
    nothing = place.site.rollback()
    assert nothing.code != 0
    assert "there is nothing to roll back to" in nothing.output
    assert place.site.everything() == before


def test_what_is_restarted_comes_back_as_it_was(place: Place) -> None:
    place.backend.restart(place.site)
    wait_for("an answer", lambda: place.site.answers() == {"1.0.0"}, every=0.2)
    live = wait_for("the slots", lambda: all("1.0.0" in v.values() for v in slots(place.site).values()), every=0.2)
    assert live
    again = place.site.deploy("1.0.0")
    assert again.code == 0 and "nothing to do" in again.output, again.output


@pytest.mark.requirement("RB-02", "BG-11")
def test_status_says_what_is_live_and_changes_nothing(place: Place) -> None:
    before = place.site.everything()
    status = place.site.status()
    assert status.code == 0, status.output
    assert re.search(r"1\.0\.0 \(1\.0\.0-\w+\) is live in (blue|green), all agree", status.output)
    for outcome in ("deployed", "failed", "rolled_back", "restored"):
        assert outcome in status.output
    assert place.site.everything() == before
