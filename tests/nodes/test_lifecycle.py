"""A release on real hosts: units that start and stop with their slots, and come back when a host boots."""

from __future__ import annotations

import pytest
from chaos import wait_for

from node_site import HOME, TOKEN, NodeSite
from runbook_site import version_at

WATCH = {"watch_seconds": 2, "watch_interval_seconds": 0.5}


def ids(site: NodeSite) -> dict[str, str]:
    """Version to release id, out of the records."""
    return {record["to"]["version"]: record["to"]["release"] for record in site.history()}


@pytest.mark.smoke
@pytest.mark.requirement("REL-06", "REL-03")
def test_first_release_then_an_upgrade(site: NodeSite) -> None:
    site.release("1.0.0")
    site.release("1.1.0")
    first = site.deploy("1.0.0", **WATCH)
    assert first.code == 0, first.output
    assert site.answers() == {"1.0.0"}
    for target in site.lab.names:
        assert site.link(target, "current") == f"releases/{ids(site)['1.0.0']}"
        assert site.link(target, "previous") == ""
    second = site.deploy("1.1.0", **WATCH)
    assert second.code == 0, second.output
    assert site.answers() == {"1.1.0"}
    assert second.report and second.report["requests"]["sent"] > 0 and second.report["requests"]["failed"] == 0
    assert site.slots() == {t: {"blue": "1.0.0", "green": "1.1.0"} for t in site.lab.names}
    for target in site.lab.names:
        for slot in ("blue", "green"):
            told = site.unit(target, slot, "ActiveState", "SubState", "NRestarts", "UnitFileState", "User")
            assert told == ["active", "running", "0", "enabled", "demo"]
        assert site.link(target, "current") == f"releases/{ids(site)['1.1.0']}"
        assert site.link(target, "previous") == f"releases/{ids(site)['1.0.0']}"


def test_the_secret_is_read_by_the_user_of_the_service_only(site: NodeSite) -> None:
    target = site.lab.names[0]
    release = f"{HOME}/releases/{ids(site)['1.1.0']}/backend"
    assert site.lab.sh(target, f"stat -c '%U %a' {release}/env") == "demo 600"
    assert site.lab.sh(target, f"su -s /bin/sh deploy -c 'cat {release}/env' 2>&1", check=False).count(TOKEN) == 0
    pid = site.unit(target, "green", "MainPID")[0]
    assert TOKEN in site.lab.sh(target, f"tr '\\0' '\\n' < /proc/{pid}/environ")
    seen = site.lab.sh(
        target, "cat /proc/[0-9]*/cmdline; systemctl show 'demo-*'; journalctl; cat /etc/systemd/system/demo-*"
    )
    assert TOKEN not in seen
    assert site.lab.sh(target, f"su -s /bin/sh demo -c 'touch {release}/app/x' 2>&1; ls {release}/app", check=False)
    assert "x" not in site.lab.sh(target, f"ls {release}/app").split()


def test_a_boot_brings_back_the_same_releases_in_the_same_slots(site: NodeSite) -> None:
    target = site.lab.names[0]
    before = site.unit(target, "green", "ExecMainStartTimestampMonotonic")
    site.lab.restart(target)
    wait_for("both slots", lambda: site.slots()[target] == {"blue": "1.0.0", "green": "1.1.0"}, every=0.2)
    assert site.unit(target, "green", "ExecMainStartTimestampMonotonic") != before
    again = site.deploy("1.1.0")
    assert again.code == 0 and "nothing to do" in again.output, again.output


@pytest.mark.requirement("RB-04")
def test_rollback_is_one_shift(site: NodeSite) -> None:
    back = site.rollback()
    assert back.code == 0, back.output
    assert back.outcome == "restored"
    assert [phase["phase"] for phase in site.history()[-1]["phases"]] == ["shift", "commit"]
    assert site.answers() == {"1.0.0"}
    for target in site.lab.names:
        assert site.link(target, "current") == f"releases/{ids(site)['1.0.0']}"
        assert site.link(target, "previous") == "", "there is nothing before it"


@pytest.mark.requirement("REL-10")
def test_a_slot_that_was_stopped_stays_down_after_a_boot(site: NodeSite) -> None:
    """A release that never gets healthy is stopped, and its slot is empty for systemd too."""
    site.release("1.2.0", never_ready=True)
    bad = site.deploy("1.2.0")
    assert bad.outcome == "failed", bad.output
    for target in site.lab.names:
        assert site.unit(target, "green", "LoadState", "ActiveState") == ["not-found", "inactive"]
        assert site.enabled(target) == ["demo-backend-blue.service"]
        assert site.link(target, "current") == f"releases/{ids(site)['1.0.0']}"
    target = site.lab.names[1]
    site.lab.restart(target)
    wait_for("the live slot", lambda: site.slot(target, "blue") == "1.0.0", every=0.2)
    assert site.slots()[target] == {"blue": "1.0.0", "green": ""}
    assert version_at(site.lab.front_url) == "1.0.0"
    assert "all agree" in site.status().output


def test_a_router_that_booted_serves_the_same_release(site: NodeSite) -> None:
    site.lab.restart(site.lab.router)
    wait_for("an answer", lambda: site.answers() == {"1.0.0"}, every=0.2)
    third = site.deploy("1.1.0")
    assert third.code == 0, third.output
    assert site.answers() == {"1.1.0"}
