"""The life of an application: first release, upgrade, same again, bad releases, rollback and forward again."""

from __future__ import annotations

import re

import pytest

from runbook_site import Site, tree


@pytest.mark.smoke
@pytest.mark.requirement("DEP-12", "TRF-03", "BG-04")
def test_first_release_then_an_upgrade(site: Site) -> None:
    site.release("1.0.0")
    site.release("1.1.0")
    first = site.deploy("1.0.0", watch_seconds=2, watch_interval_seconds=0.5)
    assert first.code == 0, first.output
    assert first.outcome == "deployed"
    assert site.answers() == {"1.0.0"}
    second = site.deploy("1.1.0", watch_seconds=2, watch_interval_seconds=0.5)
    assert second.code == 0, second.output
    assert site.answers() == {"1.1.0"}
    assert second.report and second.report["requests"]["sent"] > 0
    assert second.report["requests"]["failed"] == 0
    assert site.slots() == {t: {"blue": "1.0.0", "green": "1.1.0"} for t in site.lab.names}
    assert site.live() == "1.1.0"
    assert [record["outcome"] for record in site.history()] == ["deployed", "deployed"]
    record = site.history()[-1]
    assert record["triggered_by"]["user"] and record["triggered_by"]["pid"]
    assert len(record["artifacts"]["backend"]["sha256"]) == 64
    assert [phase["phase"] for phase in record["phases"]] == ["stage", "start", "shift", "watch", "verify"]


@pytest.mark.requirement("DEP-19", "XC-01")
def test_same_release_again_changes_nothing(site: Site) -> None:
    before = tree(site.lab.root / "targets", site.lab.root / "router", site.state)
    again = site.deploy("1.1.0", "-v")
    assert again.code == 0, again.output
    assert "nothing to do" in again.output
    assert "changed:" not in again.output
    assert tree(site.lab.root / "targets", site.lab.root / "router", site.state) == before


@pytest.mark.requirement("XC-01")
def test_check_mode_predicts_and_changes_nothing(site: Site) -> None:
    site.release("1.1.5")
    before = tree(site.lab.root / "targets", site.lab.root / "router", site.state)
    predicted = site.deploy("1.1.5", "--check", "--diff")
    assert predicted.code == 0, predicted.output
    assert tree(site.lab.root / "targets", site.lab.root / "router", site.state) == before
    assert re.search(r'^- +"green": 100', predicted.output, re.M) and re.search(
        r'^\+ +"blue": 100', predicted.output, re.M
    )
    assert "1.1.0 -> 1.1.5" in predicted.output


@pytest.mark.requirement("BG-03", "DEP-11")
def test_release_that_never_gets_healthy_takes_no_traffic(site: Site) -> None:
    site.release("1.2.0", never_ready=True)
    bad = site.deploy("1.2.0", accounting_requests_per_second=100)
    assert bad.code != 0
    assert bad.outcome == "failed"
    assert site.answers() == {"1.1.0"}
    assert site.slots() == {t: {"blue": "", "green": "1.1.0"} for t in site.lab.names}
    assert bad.report and list(bad.report["requests"]["by_version"]) == ["1.1.0"]
    assert bad.report["requests"]["sent"] > 0 and bad.report["requests"]["failed"] == 0
    assert "never took traffic" in bad.output and 'expected "ok"' in bad.output


@pytest.mark.requirement("BG-03", "HC-18")
def test_release_that_says_another_version_takes_no_traffic(site: Site) -> None:
    site.release("1.2.1", wrong_version="9.9.9")
    bad = site.deploy("1.2.1")
    assert bad.code != 0
    assert bad.outcome == "failed"
    assert site.answers() == {"1.1.0"}
    assert "9.9.9" in bad.output


def test_release_that_does_not_start_shows_its_last_words(site: Site) -> None:
    site.release("1.2.2", fail_to_start=True)
    bad = site.deploy("1.2.2")
    assert bad.code != 0
    assert bad.outcome == "failed"
    assert "last log lines of target1/backend" in bad.output
    assert site.answers() == {"1.1.0"}


@pytest.mark.requirement("BG-12")
def test_release_that_turns_bad_is_taken_back_by_the_watch(site: Site) -> None:
    site.release("1.3.0", errors_percent=60, after_seconds=1)
    bad = site.deploy(
        "1.3.0",
        watch_seconds=30,
        watch_interval_seconds=0.5,
        watch_window_seconds=3,
        accounting_requests_per_second=100,
    )
    assert bad.code != 0
    assert bad.outcome == "rolled_back"
    assert site.answers() == {"1.1.0"}
    assert site.live() == "1.1.0"
    assert bad.report and "error rate" in bad.report["failure"]
    assert any('relation "reports" does not exist' in line for log in bad.report["log"].values() for line in log)


@pytest.mark.requirement("XC-01")
def test_rollback_in_check_mode_predicts_and_changes_nothing(site: Site) -> None:
    before = tree(site.lab.root / "targets", site.lab.root / "router", site.state)
    predicted = site.rollback("--check", "--diff")
    assert predicted.code == 0, predicted.output
    assert "1.1.0 -> 1.0.0" in predicted.output
    assert tree(site.lab.root / "targets", site.lab.root / "router", site.state) == before


@pytest.mark.requirement("RB-04")
def test_rollback_goes_to_the_verified_release_before(site: Site) -> None:
    back = site.rollback()
    assert back.code == 0, back.output
    assert back.outcome == "restored"
    assert site.answers() == {"1.0.0"}
    assert site.live() == "1.0.0"


def test_rollback_with_nothing_to_go_back_to_is_an_error(site: Site) -> None:
    before = tree(site.lab.root / "targets", site.lab.root / "router", site.state)
    nothing = site.rollback()
    assert nothing.code != 0
    assert "there is nothing to roll back to" in nothing.output
    assert tree(site.lab.root / "targets", site.lab.root / "router", site.state) == before


@pytest.mark.requirement("RB-28", "RB-03")
def test_rollback_of_the_rollback_goes_forward_by_name(site: Site) -> None:
    forward = site.rollback(rollback_to="1.1.0")
    assert forward.code == 0, forward.output
    assert site.answers() == {"1.1.0"}
    assert site.live() == "1.1.0"


@pytest.mark.requirement("RB-02", "BG-11")
def test_status_says_what_is_live_and_changes_nothing(site: Site) -> None:
    before = tree(site.lab.root / "targets", site.lab.root / "router", site.state)
    status = site.status()
    assert status.code == 0, status.output
    assert "1.1.0 (1.1.0-" in status.output and "is live in green, all agree" in status.output
    for outcome in ("deployed", "failed", "rolled_back", "restored"):
        assert outcome in status.output
    assert tree(site.lab.root / "targets", site.lab.root / "router", site.state) == before
