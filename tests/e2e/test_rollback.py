"""Rollbacks when things are not as the last deploy left them, and what retention leaves for them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from runbook_site import CHECKOUT, Site

sys.path.insert(0, str(CHECKOUT / "tests" / "lab"))

import local


def release_of(site: Site, version: str) -> Path:
    found = list((site.lab.home("target1") / "releases").glob(f"{version}-*"))
    assert len(found) == 1
    return found[0]


def kept(site: Site) -> set[str]:
    return {path.name.partition("-")[0] for path in (site.lab.home("target1") / "releases").iterdir()}


def stop_process(site: Site, slot: str) -> None:
    """As an operator does who frees memory: past the collection."""
    supervisor = local.supervisor(Path(site.lab.ports["supervisor_sockets"]["target1"]))
    names = [info["name"] for info in supervisor.getAllProcessInfo() if info["name"].endswith(slot)]
    assert len(names) == 1
    assert supervisor.stopProcess(names[0])


def test_old_slot_was_stopped_by_hand(small_site: Site) -> None:
    """The release is whole, so its slot is started again and proven before it gets the traffic."""
    site = small_site
    for version in ("1.0.0", "1.1.0"):
        site.release(version)
        play = site.deploy(version)
        assert play.code == 0, play.output
    assert site.slots() == {"target1": {"blue": "1.0.0", "green": "1.1.0"}}
    stop_process(site, "blue")
    assert site.slot("target1", "blue") == ""
    back = site.rollback()
    assert back.code == 0, back.output
    assert back.outcome == "restored"
    assert back.report and back.report["requests"]["failed"] == 0
    assert site.answers(4) == {"1.0.0"}


def test_release_was_damaged_on_the_target(small_site: Site) -> None:
    """It is refused by name, and what is live stays live."""
    site = small_site
    stop_process(site, "green")
    changed = release_of(site, "1.1.0") / "backend" / "app" / "server.py"
    good = changed.read_bytes()
    changed.write_bytes(good + b"# one line more\n")
    refused = site.rollback(rollback_to="1.1.0")
    assert refused.code != 0
    assert refused.outcome == "failed"
    assert f"release {release_of(site, '1.1.0').name} was changed after it was made" in refused.output
    assert "backend/app/server.py was altered" in refused.output
    assert site.answers(4) == {"1.0.0"}
    assert site.live() == "1.0.0"
    assert refused.report and list(refused.report["requests"]["by_version"]) == ["1.0.0"]

    manifest = release_of(site, "1.1.0") / "manifest.json"
    manifest.rename(manifest.with_name("moved"))
    gone = site.rollback(rollback_to="1.1.0")
    assert gone.code != 0
    assert f"({release_of(site, '1.1.0').name}) is no longer on target1" in gone.output
    assert "nothing has been touched" in gone.output
    assert site.answers(4) == {"1.0.0"}
    manifest.with_name("moved").rename(manifest)
    changed.write_bytes(good)


@pytest.mark.requirement("REL-08")
def test_retention_keeps_live_previous_and_pinned(small_site: Site) -> None:
    site = small_site
    expected = {"2.0.0": {"2.0.0", "1.0.0"}, "2.1.0": {"2.1.0", "2.0.0", "1.0.0"}}
    assert kept(site) == {"1.0.0", "1.1.0"}
    for version, releases in expected.items():
        site.release(version)
        play = site.deploy(version, app_keep_releases=1, app_pinned_releases=["1.0.0"])
        assert play.code == 0, play.output
        assert kept(site) == releases
    back = site.rollback(rollback_to="1.0.0")
    assert back.code == 0, back.output
    assert site.answers(4) == {"1.0.0"}
