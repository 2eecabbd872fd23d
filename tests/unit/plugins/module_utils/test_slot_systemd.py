# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a slot concludes from what systemd tells; ``tests/nodes`` has it with a real systemd."""

from __future__ import annotations

import json

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _release
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._slot import Slot
from ansible_collections.signalbox.runbook.plugins.module_utils._supervisor import Supervisor
from ansible_collections.signalbox.runbook.plugins.module_utils._systemd import Systemd

RELEASE = {"id": "1.0-aaaa", "version": "1.0"}
SERVICES = [{"name": "api", "port": 1, "start_seconds": 5, "stop_seconds": 5, "drain_seconds": 0}]


class Units:
    """systemctl over units in memory: those in the directory exist, and orders take effect at once."""

    def __init__(self, directory):
        self.directory = directory
        self.running = {}  # name -> [pid, restarts]
        self.enabled = set()
        self.elsewhere = {}  # name -> (LoadState, FragmentPath)
        self.loaded = set()
        self.started = []

    def __call__(self, argv, timeout):
        if argv[0] == "journalctl":
            return 0, "its last line\n", ""
        verb, *words = [word for word in argv[1:] if not word.startswith("--")]
        names = [word[: -len(".service")] for word in words]
        if verb == "show":
            return 0, "\n".join(self.show(name) for name in names), ""
        if verb == "daemon-reload":
            self.loaded = {path.name[: -len(".service")] for path in self.directory.glob("*.service")}
        for name in names:
            if verb == "start":
                self.running[name] = [len(self.started) + 100, 0]
                self.started.append(name)
            elif verb == "stop":
                self.running.pop(name, None)
            elif verb == "enable":
                self.enabled.add(name)
            elif verb == "disable":
                self.enabled.discard(name)
        return 0, "", ""

    def show(self, name):
        pid, restarts = self.running.get(name, [0, 0])
        load, path = self.elsewhere.get(name, ("not-found", ""))
        if name in self.loaded:
            load, path = "loaded", self.directory / f"{name}.service"
        told = {
            "LoadState": load,
            "FragmentPath": path,
            "UnitFileState": "enabled" if name in self.enabled else "disabled",
            "ActiveState": "active" if pid else "inactive",
            "SubState": "running" if pid else "dead",
            "Result": "success",
            "NRestarts": restarts,
            "MainPID": pid,
            "ExecMainStartTimestampMonotonic": 1_000_000 if pid else 0,
        }
        return "".join(f"{key}={value}\n" for key, value in told.items())


class Place:
    def __init__(self, path):
        self.home, self.units_dir = path / "home", path / "units"
        self.units_dir.mkdir()
        self.units = Units(self.units_dir)
        tree = self.home / "releases" / RELEASE["id"]
        (tree / "api" / "app").mkdir(parents=True)
        (tree / "api" / "run").write_text("exec true\n")
        (tree / "api" / "env").write_text("")
        head = {"format": 1, "id": tree.name, "version": "1.0", "digest": "", "made_at": "", "services": {}}
        (tree / "manifest.json").write_text(json.dumps({**head, "files": _release._inventory(tree)}))

    def slot(self, name="blue", **more):
        manager = Systemd(str(self.units_dir), stable_seconds=3, run=self.units, monotonic=lambda: 100.0)
        nobody = {"established": lambda _ports: 0, "holders": lambda _ports: []}
        return Slot(self.home, "shop", name, manager, self.units_dir, **nobody, **more)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def fails(call, *arguments, **more):
    with pytest.raises(RunbookError) as caught:
        call(*arguments, **more)
    return caught.value


def test_a_slot_is_a_unit_that_a_boot_starts_until_it_is_stopped(place):
    assert place.slot().start(RELEASE, SERVICES)["changed"] is True
    assert place.slot().start(RELEASE, SERVICES)["changed"] is False
    assert place.units.started == ["shop-api-blue"] and place.units.enabled == {"shop-api-blue"}
    assert place.slot().info()["services"]["api"]["state"] == "RUNNING"
    stopped = place.slot().stop(SERVICES)
    assert stopped == {"changed": True, "connections_cut": 0, "log": {"api": ["its last line"]}}
    assert (place.units.running, place.units.enabled, place.units.loaded) == ({}, set(), set())
    assert list(place.units_dir.iterdir()) == []
    assert place.slot().stop(SERVICES)["changed"] is False


@pytest.mark.requirement("REL-06")
def test_a_restart_after_the_start_is_seen_although_it_runs_again(place):
    place.slot().start(RELEASE, SERVICES)
    assert place.slot().prove(RELEASE, SERVICES)["changed"] is False
    place.units.running["shop-api-blue"] = [500, 2]
    error = fails(place.slot().prove, RELEASE, SERVICES)
    assert "restarted, 2 times since its start" in str(error)
    assert "journalctl --unit=shop-api-blue.service" in error.details["diagnosis"][0]["fix"]


def test_restarts_of_long_ago_do_not_count_against_a_slot_that_stands(place):
    place.slot().start(RELEASE, SERVICES)
    place.units.running["shop-api-blue"] = [500, 2]
    assert place.slot().start(RELEASE, SERVICES)["changed"] is False
    assert place.slot().prove(RELEASE, SERVICES)["changed"] is False


def test_what_is_masked_or_of_somebody_else_is_neither_started_nor_stopped(place):
    for load, path, said in (("masked", "/dev/null", "is masked"), ("loaded", "/lib/x.service", "is another unit")):
        place.units.elsewhere = {"shop-api-blue": (load, path)}
        place.units.running = {"shop-api-blue": [7, 0]}
        assert said in str(fails(place.slot().start, RELEASE, SERVICES))
        assert said in place.slot().refused(["api"])
        assert place.slot().stop(SERVICES)["changed"] is False
        assert place.units.running == {"shop-api-blue": [7, 0]} and place.units.started == []


def test_a_unit_file_of_somebody_else_is_refused(place):
    (place.units_dir / "shop-api-blue.service").write_text("[Service]\nExecStart=/bin/true\n")
    assert "was not written for" in str(fails(place.slot().start, RELEASE, SERVICES))
    assert "was not written for" in place.slot().refused(["api"])


def test_what_was_started_under_supervisor_is_not_taken_for_gone(place):
    place.slot().start(RELEASE, SERVICES)
    record = place.home / "slots" / "blue.json"
    old = {key: value for key, value in json.loads(record.read_text()).items() if key != "manager"}
    record.write_text(json.dumps(old))  # as it was written before there was a choice
    said = "blue was started under supervisor, but runtime_host_manager is systemd"
    assert said in str(fails(place.slot().start, RELEASE, SERVICES))
    assert said in place.slot().refused(["api"])
    assert said in place.slot().survey([], True)["problem"]
    supervised = Slot(place.home, "shop", "blue", Supervisor("/none"), place.units_dir)
    assert supervised.record()["release"] == RELEASE["id"]


def test_a_release_that_was_made_for_another_user_is_refused(place):
    assert "there is no user nobody-like-this" in str(
        fails(place.slot(user="nobody-like-this").start, RELEASE, SERVICES)
    )
    assert "was made for another user than nobody" in str(fails(place.slot(user="nobody").start, RELEASE, SERVICES))
    assert place.units.started == []
