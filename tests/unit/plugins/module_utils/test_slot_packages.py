# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Releases of Debian packages in slots: a real apt over a root of its own, and units in memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _reality, _slot
from ansible_collections.signalbox.runbook.plugins.module_utils._apt import Installed
from ansible_collections.signalbox.runbook.plugins.module_utils._connections import Holder, unit_of
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._release import read_manifest, stage, verify
from ansible_collections.signalbox.runbook.plugins.module_utils._slot import Slot
from ansible_collections.signalbox.runbook.plugins.module_utils._systemd import Systemd
from test_slot_systemd import Units

SERVICES = [{"name": "api", "port": 1, "start_seconds": 60, "stop_seconds": 5, "drain_seconds": 0}]


class Place:
    def __init__(self, world):
        self.world = world
        self.home, self.units_dir = world.path / "home", world.path / "units"
        self.home.mkdir()
        self.units_dir.mkdir()
        self.units = Units(self.units_dir)
        self.taken = []

    def spec(self, version, **apt):
        artifact = {"apt": {"package": "demo", "version": f"{version}-1", **apt}}
        services = [{"name": name, "artifact": artifact, "command": "demo"} for name in ("api", "worker")]
        return {"id": f"{version}-aaaa", "version": version, "services": services}

    def stage(self, version, **options):
        stage(self.spec(version), self.home, run=self.world.run, **options)
        return {"id": f"{version}-aaaa", "version": version}

    def slot(self, name="blue"):
        manager = Systemd(str(self.units_dir), stable_seconds=3, run=self.units, monotonic=lambda: 100.0)
        nobody = {"established": lambda _ports: 0, "holders": lambda _ports: self.taken}
        return Slot(self.home, "shop", name, manager, self.units_dir, run=self.world.run, **nobody)

    def start(self, release, slot="blue"):
        self.world.calls.clear()
        return self.slot(slot).start(release, SERVICES)["changed"]

    def installs(self):
        return [call for call in self.world.calls if call.startswith("apt-get install")]


@pytest.fixture
def place(world):
    world.package("1.0-1")
    world.package("1.1-1")
    return Place(world)


def fails(call, *arguments, **more):
    with pytest.raises(RunbookError) as caught:
        call(*arguments, **more)
    return caught.value


@pytest.mark.requirement("REL-04", "REL-09")
def test_a_release_keeps_the_file_and_its_checksum(place):
    release = place.stage("1.0")
    tree = place.home / "releases" / release["id"]
    deb = place.world.repository / "demo_1.0-1_all.deb"
    manifest = read_manifest(tree)
    for service in ("api", "worker"):
        assert (tree / service / "package.deb").read_bytes() == deb.read_bytes()
        artifact = manifest["services"][service]["artifact"]
        assert artifact["apt"] == {"package": "demo", "version": "1.0-1", "conffiles": "keep"}
        assert manifest["files"][f"{service}/package.deb"]["sha256"] == artifact["sha256"]
        assert "venv" not in (tree / service / "run").read_text()
    assert len([call for call in place.world.calls if call.startswith("apt-get download")]) == 1
    assert place.world.state() == Installed(), "nothing is installed while another release serves"
    (tree / "api" / "package.deb").write_bytes(b"other")
    assert verify(tree) == ["api/package.deb was altered"]
    assert "was changed after it was made, so it is not started: api/package.deb was altered" in str(
        fails(place.start, release)
    )


@pytest.mark.requirement("REL-04")
def test_a_version_that_is_not_there_makes_no_release(place):
    error = fails(place.stage, "2.0")
    assert str(error) == "no repository of this host has demo 2.0-1; there are 1.1-1, 1.0-1"
    assert list((place.home / "releases").iterdir()) == []


def test_a_release_is_refused_where_packages_cannot_be_installed(place, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "only root can install a package" in str(fails(place.stage, "1.0", check=True))
    assert not (place.home / "releases").exists()


def test_two_versions_of_a_package_are_no_release(place):
    spec = place.spec("1.0")
    spec["services"][1]["artifact"] = {"apt": {"package": "demo", "version": "1.1-1"}}
    assert "different artifact.apt of demo" in str(fails(stage, spec, place.home))
    spec["services"][1]["artifact"] = {"apt": {"package": "demo", "version": "latest"}}
    assert "services[1].artifact.apt.version 'latest' is no exact version" in str(fails(stage, spec, place.home))


@pytest.mark.requirement("REL-04")
def test_one_release_after_the_other_and_back(place):
    old, new = place.stage("1.0"), place.stage("1.1")
    held = Installed("hold", "ok", "installed", "1.0-1")
    assert place.start(old) is True
    assert place.world.state() == held
    assert place.start(old) is False
    assert place.installs() == []
    place.slot().stop(SERVICES)
    assert place.world.state() == held, "a stop leaves the package"
    for path in place.world.repository.iterdir():
        path.unlink()
    assert place.start(new, "green") is True
    assert place.world.state() == held._replace(version="1.1-1")
    place.slot("green").stop(SERVICES)
    assert place.start(old) is True
    assert place.world.state() == held
    place.slot().stop(SERVICES)
    assert place.start(old, "green") is True
    assert place.installs() == [], "it is installed already"


@pytest.mark.requirement("REL-04")
def test_another_version_beside_it_is_refused_before_anything_is_touched(place):
    old, new = place.stage("1.0"), place.stage("1.1")
    place.start(old)
    said = "blue runs demo 1.0-1, and a host has one version of a package, so 1.1-1 can't be started beside it"
    assert said in str(fails(place.start, new, "green"))
    assert place.world.state().version == "1.0-1" and place.units.started == ["shop-api-blue"]
    assert place.slot("green").record() is None


def test_what_somebody_upgraded_is_named_and_made_anew(place):
    release = place.stage("1.0")
    place.start(release)
    assert place.slot().survey([], True)["healthy"] is True
    upgrade = str(place.world.repository / "demo_1.1-1_all.deb")
    words = ("apt-get", "install", "--yes", "--allow-change-held-packages", upgrade)
    assert place.world.apt()._call(*words)[0] == 0
    seen = place.slot().survey([], True)
    assert (seen["running"], seen["healthy"]) == (True, False)
    (answer,) = seen["answers"]
    assert answer["problem"] == "demo 1.1-1 is installed, not 1.0-1"
    assert (answer["service"], answer["observed"], answer["passed"]) == ("api", "1.1-1", False)
    info = {"slots": {"blue": seen}, "releases": []}
    live = {"release": release["id"], "version": "1.0", "slot": "blue", "answers": {"api": "1.0"}}
    assert _reality.unwell(live, {"host": info}, {}) == [
        "host: api package version: demo 1.1-1 is installed, not 1.0-1"
    ]
    error = fails(place.slot().prove, release, SERVICES)
    assert str(error) == "demo 1.1-1 is installed, not 1.0-1: somebody changed it during the run"
    assert place.start(release) is True
    assert place.world.state() == Installed("hold", "ok", "installed", "1.0-1")
    assert place.slot().survey([], True)["answers"] == []


def test_a_hold_that_is_gone_is_named(place):
    release = place.stage("1.0")
    place.start(release)
    place.world.apt()._call("apt-mark", "unhold", "demo")
    (answer,) = place.slot().survey([], True)["answers"]
    assert answer["problem"] == "demo 1.0-1 is not held any more, so an upgrade of the host may change it"
    assert not _reality.is_version(answer), "that alone is no reason to start it anew"
    assert place.start(release) is True
    assert place.world.state().held and place.installs() == []


def test_a_unit_of_the_package_that_has_the_port_is_named_with_its_cure(place, monkeypatch):
    units = {"/lib/systemd/system/demo.service": b"[Service]\n"}
    world = place.world
    world.package("2.0-1", more_files=units)
    release = place.stage("2.0")
    monkeypatch.setattr(_slot, "unit_of", lambda pid: "demo.service" if pid == 77 else "")

    def installed():
        return [Holder(1, 77, "demo", "/")] if world.state().status == "installed" else []

    slot = place.slot()
    slot.holders = lambda _ports: installed()
    error = fails(slot.start, release, SERVICES)
    assert str(error) == (
        "port 1 of api is already in use by process 77 (demo) of demo.service, which the package demo brings and "
        "starts: stop it for good with systemctl disable --now demo.service; nothing was started in blue"
    )
    assert place.units.started == [] and slot.record() is None


def test_an_installation_that_fails_starts_nothing(place):
    place.world.package("2.0-1", scripts={"postinst": "exit 3"})
    release = place.stage("2.0")
    error = fails(place.start, release)
    assert str(error).startswith("nothing was started in blue: demo 2.0-1 could not be installed: dpkg: error")
    assert error.details["changed"] is True
    assert place.units.started == [] and place.slot().record() is None


def test_the_time_of_an_installation_is_that_of_the_start(place):
    release = place.stage("1.0")
    now = [0.0]
    slot = place.slot()
    slot.clock = lambda: now[0]
    asked = []
    slot.ask = lambda _probes, **more: asked.append(more["deadline_seconds"]) or []
    slot.run = lambda argv, cwd, env, seconds: (now.__setitem__(0, now[0] + 2), place.world.run(argv, cwd, env, 60))[1]
    slot.start(release, SERVICES)
    assert asked == [60 - now[0]] and 0 < now[0] < 60


def test_the_unit_of_a_process(tmp_path):
    for pid, text in {
        1: "0::/system.slice/demo.service\n",
        2: "12:pids:/system.slice/ssh.service\n1:name=systemd:/system.slice/ssh.service\n0::/\n",
        3: "0::/user.slice/user-0.slice/session-1.scope\n",
    }.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(text)
    assert [unit_of(pid, Path(tmp_path)) for pid in (1, 2, 3, 4)] == ["demo.service", "ssh.service", "", ""]
