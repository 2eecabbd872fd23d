"""Releases that are Debian packages, on real hosts: one version at a time, exact, held, and back again."""

from __future__ import annotations

import pytest
from chaos import agrees, kill_all, one_version, wait_for
from package_site import CONFFILE, PackageSite

from node_site import HOME, NodeSite

WATCH = {"watch_seconds": 2, "watch_interval_seconds": 0.5}
UNIT = """[Service]
ExecStart=/usr/bin/python3 /opt/demo/server.py --port {port}
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="module")
def shop(site: NodeSite) -> PackageSite:
    return PackageSite(site)


def serves(shop: PackageSite, version: str) -> None:
    """It answers everywhere, it is what is installed everywhere, held, and status has nothing against it."""
    assert shop.site.answers() == {version}
    assert shop.packages() == {f"hold ok installed {version}-1"}
    status = shop.site.status().output
    assert "all agree" in status, status


@pytest.mark.requirement("REL-04")
def test_first_release_then_an_upgrade(shop: PackageSite) -> None:
    shop.publish("1.0.0")
    shop.publish("1.1.0")
    first = shop.site.deploy("1.0.0", **WATCH)
    assert first.code == 0, first.output
    serves(shop, "1.0.0")
    one, two = shop.lab.names
    shop.lab.sh(one, f"echo mine > {CONFFILE}")
    second = shop.site.deploy("1.1.0", **WATCH)
    assert second.code == 0, second.output
    assert second.report and second.report["requests"]["sent"] > 0 and second.report["requests"]["failed"] == 0
    serves(shop, "1.1.0")
    assert [shop.lab.sh(target, f"cat {CONFFILE}") for target in (one, two)] == ["mine", "# of 1.1.0"]
    for target in shop.lab.names:
        user = shop.site.unit(target, "green", "ActiveState", "User")
        assert user == ["active", "demo"]


@pytest.mark.requirement("DEP-19")
def test_same_release_again_changes_nothing(shop: PackageSite) -> None:
    before = shop.site.everything(), shop.dpkg_log()
    again = shop.site.deploy("1.1.0", "-v")
    assert again.code == 0 and "nothing to do" in again.output, again.output
    assert "changed:" not in again.output
    assert (shop.site.everything(), shop.dpkg_log()) == before


@pytest.mark.requirement("REL-04", "REL-09")
def test_a_version_that_is_not_there_is_refused_while_the_old_one_serves(shop: PackageSite) -> None:
    before = shop.dpkg_log()
    started = [shop.site.unit(target, "green", "MainPID") for target in shop.lab.names]
    refused = shop.site.deploy("9.9.9")
    assert refused.outcome == "failed", refused.output
    said = "no repository of this host has demo 9.9.9-1; there are 1.1.0-1, 1.0.0-1"
    assert said in " ".join(refused.output.split()), refused.output
    serves(shop, "1.1.0")
    assert shop.dpkg_log() == before
    assert [shop.site.unit(target, "green", "MainPID") for target in shop.lab.names] == started
    for target in shop.lab.names:
        assert "9.9.9" not in shop.lab.sh(target, f"ls -A {HOME}/releases")


def test_two_versions_beside_each_other_are_refused(shop: PackageSite) -> None:
    for strategy in ("blue_green", "canary"):
        refused = shop.site.deploy("1.0.0", app_strategy=strategy)
        assert refused.code != 0
        said = f"app_strategy: {strategy} runs two releases beside each other, but a host has one version"
        assert said in " ".join(refused.output.split()), refused.output
    serves(shop, "1.1.0")


@pytest.mark.requirement("REL-04")
def test_rollback_to_a_version_that_the_repository_has_no_longer(shop: PackageSite) -> None:
    shop.withdraw("1.0.0", "1.1.0")
    for target in shop.lab.names:
        shop.lab.sh(target, "apt-get update")
    back = shop.site.rollback()
    assert back.code == 0 and back.outcome == "restored", back.output
    serves(shop, "1.0.0")
    assert shop.lab.sh(shop.lab.names[0], f"cat {CONFFILE}") == "mine"


def test_a_package_that_somebody_upgraded_is_named_and_a_deploy_puts_it_right(shop: PackageSite) -> None:
    shop.publish("1.0.0")
    shop.publish("1.1.0")
    target = shop.lab.names[1]
    shop.lab.sh(target, "apt-get update; apt-get install -y --allow-change-held-packages demo=1.1.0-1")
    status = shop.site.status().output
    assert f"{target}: backend package version: demo 1.1.0-1 is installed, not 1.0.0-1" in status, status
    assert "all agree" not in status
    again = shop.site.deploy("1.0.0")
    assert again.code == 0, again.output
    serves(shop, "1.0.0")
    shop.lab.sh(target, "apt-mark unhold demo")
    assert f"{target}: backend package hold: demo 1.0.0-1 is not held any more" in shop.site.status().output
    shop.lab.sh(target, "apt-mark hold demo")
    serves(shop, "1.0.0")


def test_a_package_that_cannot_be_configured_is_taken_back(shop: PackageSite) -> None:
    shop.publish("1.2.0", postinst="echo no such database >&2; exit 3")
    bad = shop.site.deploy("1.2.0")
    assert bad.code != 0, bad.output
    assert "demo 1.2.0-1 could not be installed" in " ".join(bad.output.split()), bad.output
    assert bad.report and bad.report["requests"]["failed"] == 0
    serves(shop, "1.0.0")


def test_a_unit_of_the_package_on_our_port_is_named_with_what_to_do(shop: PackageSite) -> None:
    live = next(slot for slot in ("blue", "green") if shop.site.slot(shop.lab.names[0], slot))
    port = {"blue": 18001, "green": 8001}[live]
    unit = {"/lib/systemd/system/demo.service": UNIT.format(port=port).encode()}
    shop.publish("1.3.0", unit, postinst="systemctl daemon-reload; systemctl enable --now demo.service; sleep 1")
    bad = shop.site.deploy("1.3.0")
    assert bad.code != 0, bad.output
    said = "of demo.service, which the package demo brings and starts: stop it for good with systemctl disable --now"
    assert said in " ".join(bad.output.split()), bad.output
    target = shop.lab.names[0]
    wanted = "/etc/systemd/system/multi-user.target.wants/demo.service"
    shop.lab.sh(target, f"systemctl stop demo.service; rm {wanted}; systemctl daemon-reload")
    serves(shop, "1.0.0")


@pytest.mark.slow
@pytest.mark.requirement("REL-04")
@pytest.mark.parametrize("reboot", [False, True])
def test_killed_in_the_middle_of_dpkg_the_same_command_converges(shop: PackageSite, reboot: bool) -> None:
    """Everything on the controller is killed, and on the target apt and dpkg too; or the target is booted meanwhile."""
    version, old = ("1.5.0" if reboot else "1.4.0"), shop.site.live()
    if not old:  # this test alone
        old = "1.0.0"
        shop.publish(old)
        first = shop.site.deploy(old)
        assert first.code == 0, first.output
    shop.publish(version, postinst=f"test -e /srv/{version} || sleep 300")
    process = shop.site.start("deploy", app_version=version)
    target = shop.lab.names[0]

    def configuring() -> bool:
        assert process.poll() is None, process.communicate()[0]
        return bool(shop.lab.sh(target, "pgrep -f '[d]emo.postinst'", check=False))

    try:
        wait_for("dpkg at work", configuring, every=0.2)
        kill_all(process)
        if reboot:
            shop.lab.restart(target)
        else:
            shop.lab.sh(target, "kill -9 $(pgrep -x apt-get) $(pgrep -x dpkg) $(pgrep -f '[d]emo.postinst')")
        for host in shop.lab.names:
            shop.lab.sh(host, f"touch /srv/{version}")
        assert one_version(shop.site, old, version)
        again = shop.site.deploy(version)
        assert again.code == 0, again.output
    finally:
        process.communicate(timeout=60)
    agrees(shop.site, version, f"killed in dpkg, reboot {reboot}")
    serves(shop, version)
