"""The life of an application behind HAProxy: the same engine, another router."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _haproxy
from conftest import make_site

import local
from runbook_site import Site, tree


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two targets behind one HAProxy."""
    yield from make_site(tmp_path_factory.mktemp("haproxy"), 2, "haproxy")


def weights(site: Site) -> dict[str, int]:
    """Servers with traffic, as HAProxy says itself."""
    command = _haproxy.talk(site.lab.ports["haproxy_socket"])
    return {
        one.name: one.weight
        for one in _haproxy.servers_of(command, "demo_backend")
        if one.state == "ready" and one.usable
    }


def everything(site: Site) -> dict[str, tuple[int, int, bytes]]:
    return tree(site.lab.root / "targets", site.lab.root / "router", site.state)


@pytest.mark.requirement("DEP-12", "TRF-03")
def test_first_release_then_an_upgrade(site: Site) -> None:
    site.release("1.0.0")
    site.release("1.1.0")
    first = site.deploy("1.0.0", watch_seconds=2, watch_interval_seconds=0.5)
    assert first.code == 0, first.output
    assert first.outcome == "deployed"
    assert "WARNING" not in first.output
    assert site.answers() == {"1.0.0"}
    assert weights(site) == {"target1_blue": 100, "target2_blue": 100}
    second = site.deploy("1.1.0", watch_seconds=2, watch_interval_seconds=0.5)
    assert second.code == 0, second.output
    assert site.answers() == {"1.1.0"}
    assert weights(site) == {"target1_green": 100, "target2_green": 100}
    assert second.report and second.report["requests"]["sent"] > 0
    assert second.report["requests"]["failed"] == 0
    assert second.report["requests"]["connections_cut"] == 0
    assert site.slots() == {t: {"blue": "1.0.0", "green": "1.1.0"} for t in site.lab.names}
    assert [record["outcome"] for record in site.history()] == ["deployed", "deployed"]


@pytest.mark.requirement("XC-01")
def test_same_release_again_changes_nothing(site: Site) -> None:
    before = everything(site)
    again = site.deploy("1.1.0", "-v")
    assert again.code == 0, again.output
    assert "nothing to do" in again.output
    assert "changed:" not in again.output
    assert everything(site) == before


@pytest.mark.requirement("XC-01")
def test_check_mode_predicts_and_changes_nothing(site: Site) -> None:
    site.release("1.1.5")
    before = everything(site)
    predicted = site.deploy("1.1.5", "--check", "--diff")
    assert predicted.code == 0, predicted.output
    assert everything(site) == before
    assert re.search(r'^- +"green": 100', predicted.output, re.M)
    assert re.search(r'^\+ +"blue": 100', predicted.output, re.M)


def test_haproxy_restarted_has_the_same_weights(site: Site) -> None:
    before = weights(site)
    platform = local.supervisor(site.lab._socket("platform"))
    old = platform.getProcessInfo("router")["pid"]
    platform.stopProcess("router")
    platform.startProcess("router")
    site.lab._wait_ready()
    assert platform.getProcessInfo("router")["pid"] != old
    assert weights(site) == before
    assert site.answers() == {"1.1.0"}
    again = site.deploy("1.1.0")
    assert again.code == 0 and "nothing to do" in again.output, again.output


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
    assert bad.outcome == "rolled_back", bad.output
    assert site.answers() == {"1.1.0"}
    assert site.live() == "1.1.0"
    assert bad.report and "error rate" in bad.report["failure"]
    assert weights(site) == {"target1_green": 100, "target2_green": 100}
    assert bad.report["requests"]["connections_cut"] == 0


@pytest.mark.requirement("RB-04")
def test_rollback_goes_to_the_verified_release_before(site: Site) -> None:
    back = site.rollback()
    assert back.code == 0, back.output
    assert back.outcome == "restored"
    assert site.answers() == {"1.0.0"}
    assert weights(site) == {"target1_blue": 100, "target2_blue": 100}


def test_weights_that_somebody_changed_are_seen_and_can_be_restored(site: Site) -> None:
    command = _haproxy.talk(site.lab.ports["haproxy_socket"])
    for target in site.lab.names:
        command(f"set server demo_backend/{target}_blue state maint")
    command("set server demo_backend/target1_green state ready")
    site.release("1.4.0")
    stopped = site.deploy("1.4.0")
    assert stopped.code != 0
    assert "router1 sends green 100 % instead of blue 100 %" in stopped.output, stopped.output
    assert site.status().code == 0
    mended = site.deploy("1.4.0", app_drift="restore")
    assert mended.code == 0, mended.output
    assert site.answers() == {"1.4.0"}


def test_wrong_socket_is_one_sentence(site: Site) -> None:
    before = everything(site)
    wrong = site.deploy("1.0.0", router_haproxy_socket_path="/nowhere/admin.sock")
    assert wrong.code != 0
    assert "socket_path: there is no socket /nowhere/admin.sock: start HAProxy" in wrong.output, wrong.output
    assert "othing has been touched" in wrong.output
    assert "Traceback" not in wrong.output
    assert everything(site) == before


def test_missing_servers_are_named_before_anything_is_touched(site: Site) -> None:
    before = everything(site)
    path = Path(site.inventory, "group_vars", "targets.yml")
    text = path.read_text(encoding="utf-8")
    try:
        path.write_text(f"{text}app_address: 10.0.0.7\n", encoding="utf-8")
        wrong = site.deploy("1.0.0")
    finally:
        path.write_text(text, encoding="utf-8")
    assert wrong.code != 0
    port = site.lab.ports["targets"]["target1"]["blue"]
    assert f"server blue_10_0_0_7_{port} 10.0.0.7:{port} disabled" in wrong.output, wrong.output
    assert everything(site) == before
