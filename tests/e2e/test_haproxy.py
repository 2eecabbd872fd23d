"""The life of an application behind HAProxy: the same engine, another router."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _haproxy

import local
from runbook_site import Site, make_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two targets behind one HAProxy, with 1.0.0 in blue and 1.1.0 live in green."""
    for made in make_site(tmp_path_factory.mktemp("haproxy"), 2, "haproxy"):
        for version in ("1.0.0", "1.1.0"):
            made.release(version)
            done = made.deploy(version)
            assert done.code == 0, done.output
            assert "WARNING" not in done.output
        yield made


def weights(site: Site) -> dict[str, int]:
    """Servers with traffic, as HAProxy says itself."""
    command = _haproxy.talk(site.lab.ports["haproxy_socket"])
    return {
        one.name: one.weight
        for one in _haproxy.servers_of(command, "demo_backend")
        if one.state == "ready" and one.usable
    }


@pytest.mark.requirement("XC-01")
def test_check_mode_predicts_and_changes_nothing(site: Site) -> None:
    site.release("1.1.5")
    before = site.everything()
    predicted = site.deploy("1.1.5", "--check", "--diff")
    assert predicted.code == 0, predicted.output
    assert site.everything() == before
    assert re.search(r'^- +"green": 100', predicted.output, re.M)
    assert re.search(r'^\+ +"blue": 100', predicted.output, re.M)


def test_haproxy_restarted_has_the_same_weights(site: Site) -> None:
    before = weights(site)
    assert before == {"target1_green": 100, "target2_green": 100}
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


@pytest.mark.requirement("BG-12", "RB-04")
def test_weights_after_a_way_back(site: Site) -> None:
    """HAProxy says itself who has traffic: after the watch took a release back, after a rollback and forward."""
    site.release("1.3.0", errors_percent=60, after_seconds=1)
    bad = site.deploy(
        "1.3.0",
        watch_seconds=30,
        watch_interval_seconds=0.5,
        watch_window_seconds=3,
        accounting_requests_per_second=100,
    )
    assert bad.outcome == "rolled_back", bad.output
    assert weights(site) == {"target1_green": 100, "target2_green": 100}
    back = site.rollback()
    assert back.code == 0, back.output
    assert weights(site) == {"target1_blue": 100, "target2_blue": 100}
    forward = site.rollback(rollback_to="1.1.0")
    assert forward.code == 0, forward.output
    assert weights(site) == {"target1_green": 100, "target2_green": 100}


def test_weights_that_somebody_changed_are_seen_and_can_be_restored(site: Site) -> None:
    command = _haproxy.talk(site.lab.ports["haproxy_socket"])
    for target in site.lab.names:
        command(f"set server demo_backend/{target}_green state maint")
    command("set server demo_backend/target1_blue state ready")
    site.release("1.4.0")
    stopped = site.deploy("1.4.0")
    assert stopped.code != 0
    assert "router1 sends blue 100 % instead of green 100 %" in stopped.output, stopped.output
    assert site.status().code == 0
    mended = site.deploy("1.4.0", app_drift="restore")
    assert mended.code == 0, mended.output
    assert site.answers() == {"1.4.0"}


def test_wrong_socket_is_one_sentence(site: Site) -> None:
    before = site.everything()
    wrong = site.deploy("1.0.0", router_haproxy_socket_path="/nowhere/admin.sock")
    assert wrong.code != 0
    assert "socket_path: there is no socket /nowhere/admin.sock: start HAProxy" in wrong.output, wrong.output
    assert "othing has been touched" in wrong.output
    assert "Traceback" not in wrong.output
    assert site.everything() == before


def test_missing_servers_are_named_before_anything_is_touched(site: Site) -> None:
    before = site.everything()
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
    assert site.everything() == before
