# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _managers, _systemd
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._systemd import (
    Systemd,
    ending,
    parse_show,
    render_unit,
    run_bounded,
    state,
)

# What systemd 252 says of a running service, and of one that does not exist.
RUNNING = {
    "LoadState": "loaded",
    "FragmentPath": "/etc/systemd/system/shop-api-blue.service",
    "UnitFileState": "enabled",
    "ActiveState": "active",
    "SubState": "running",
    "Result": "success",
    "NRestarts": "0",
    "MainPID": "41",
    "ExecMainCode": "0",
    "ExecMainStatus": "0",
    "ExecMainStartTimestampMonotonic": "90000000",
}
ABSENT = {
    "LoadState": "not-found",
    "ActiveState": "inactive",
    "SubState": "dead",
    "Result": "success",
    "MainPID": "0",
    "ExecMainStartTimestampMonotonic": "0",
}


def shown(*units):
    return "\n\n".join("\n".join(f"{key}={value}" for key, value in unit.items()) for unit in units) + "\n"


class Host:
    """Answers for systemctl, and what it was asked."""

    def __init__(self, *units, **answers):
        self.units = list(units)
        self.answers = answers  # verb -> (code, out, err)
        self.asked = []

    def __call__(self, argv, timeout):
        assert timeout > 0
        words = [word for word in argv if word not in ("--no-ask-password", "--no-pager")]
        self.asked.append(" ".join(words))
        if words[0] == "systemctl" and words[1] == "show" and "show" not in self.answers:
            asked = [word for word in words if word.endswith(".service")]
            return 0, shown(*(self.units[: len(asked)])), ""
        return self.answers.get(words[1], (0, "", ""))

    def changes(self):
        return [line for line in self.asked if not line.startswith("systemctl show")]


def systemd(*units, **answers):
    host = Host(*units, **answers)
    return Systemd(run=host, stable_seconds=3, monotonic=lambda: 100.0, now=lambda: 1_000_000.0), host


def test_properties_are_read_unit_by_unit():
    assert parse_show("A=1\nB=x = y\n\nA=\n") == [{"A": "1", "B": "x = y"}, {"A": ""}]
    assert parse_show("") == []


@pytest.mark.parametrize("text", ["no property at all\n", "● shop.service - active\n", "=x\n"])
def test_what_is_no_property_is_refused(text):
    with pytest.raises(RunbookError, match="which is no property"):
        parse_show(text)


@pytest.mark.parametrize(
    ("active", "sub", "up", "word"),
    [
        ("active", "running", 3.0, "RUNNING"),
        ("active", "running", 2.9, "STARTING"),
        ("active", "exited", 60.0, "EXITED"),
        ("active", "start-post", 60.0, "STARTING"),
        ("reloading", "reload", 60.0, "RUNNING"),
        ("activating", "start-pre", 0.0, "STARTING"),
        ("activating", "auto-restart", 60.0, "BACKOFF"),
        ("activating", "auto-restart-queued", 60.0, "BACKOFF"),
        ("deactivating", "stop-sigterm", 60.0, "STOPPING"),
        ("failed", "failed", 60.0, "FATAL"),
        ("inactive", "dead", 0.0, "STOPPED"),
        ("maintenance", "maintenance", 0.0, "MAINTENANCE"),
    ],
)
@pytest.mark.requirement("REL-06")
def test_only_what_is_active_and_stable_is_running(active, sub, up, word):
    assert state({"ActiveState": active, "SubState": sub}, up, 3.0) == word


def test_how_a_process_ended():
    assert ending({"Result": "success"}) == ""
    failed = {"Result": "exit-code", "ExecMainCode": "1", "ExecMainStatus": "70", "NRestarts": "4"}
    assert ending(failed) == "exit-code, exit status 70, restarted 4 times"
    assert ending({"Result": "signal", "ExecMainCode": "2", "ExecMainStatus": "9"}) == "signal, signal 9"
    no_user = {"Result": "exit-code", "ExecMainCode": "1", "ExecMainStatus": "217"}
    assert ending(no_user) == "exit-code, exit status 217, its user does not exist"


def test_info_of_a_running_service():
    manager, host = systemd(RUNNING)
    assert manager.info("shop-api-blue") == {
        "state": "RUNNING",
        "pid": 41,
        "since": 999_990.0,
        "error": "",
        "restarts": 0,
    }
    assert host.changes() == []


def test_a_service_that_was_restarted_just_now_is_not_running_yet():
    manager, _host = systemd({**RUNNING, "ExecMainStartTimestampMonotonic": "99000000", "NRestarts": "7"})
    assert manager.info("shop-api-blue")["state"] == "STARTING"


def test_info_of_what_is_not_there():
    manager, _host = systemd(ABSENT)
    assert manager.info("shop-api-blue") is None
    # Its file is gone, but its process is not: it must not be taken for gone.
    manager, _host = systemd({**RUNNING, "LoadState": "not-found"})
    assert manager.info("shop-api-blue")["state"] == "RUNNING"


def test_numbers_that_systemd_does_not_know():
    manager, _host = systemd({**RUNNING, "MainPID": "[not set]", "ExecMainStartTimestampMonotonic": ""})
    assert manager.info("x") == {"state": "STARTING", "pid": 0, "since": 0, "error": "", "restarts": 0}


def test_a_systemctl_that_tells_less_is_refused():
    manager, _host = systemd({"LoadState": "loaded"})
    with pytest.raises(RunbookError, match=r"tells no ActiveState of x\.service"):
        manager.info("x")
    manager, _host = systemd(show=(0, "", ""))
    with pytest.raises(RunbookError, match="told about 0 units, but was asked about 1"):
        manager.info("x")


def test_a_masked_unit_and_one_of_somebody_else_are_refused():
    masked = {**ABSENT, "LoadState": "masked", "FragmentPath": "/dev/null"}
    foreign = {**RUNNING, "FragmentPath": "/lib/systemd/system/shop-web-blue.service"}
    manager, _host = systemd(masked, foreign, RUNNING)
    refused = manager.refused(["shop-db-blue", "shop-web-blue", "shop-api-blue"])
    assert list(refused) == ["shop-db-blue", "shop-web-blue"]
    assert refused["shop-db-blue"] == (
        "shop-db-blue.service is masked, so it cannot start: systemctl unmask shop-db-blue.service"
    )
    assert "is another unit, /lib/systemd/system/shop-web-blue.service" in refused["shop-web-blue"]
    assert manager.refused([]) == {}


def test_add_enables_what_was_written():
    manager, host = systemd(RUNNING)
    assert manager.add("shop-api-blue")
    assert host.changes() == ["systemctl enable --no-reload --quiet shop-api-blue.service"]


def test_add_refuses_a_unit_that_systemd_does_not_take():
    manager, host = systemd({**ABSENT, "LoadState": "bad-setting", "LoadError": "Invalid argument"})
    with pytest.raises(RunbookError, match=r"does not take .*shop-api-blue\.service \(bad-setting Invalid argument\)"):
        manager.add("shop-api-blue")
    assert host.changes() == []


def test_remove_waits_for_the_end_and_disables():
    manager, host = systemd({**RUNNING, "ActiveState": "deactivating"})
    assert manager.remove("shop-api-blue") is False
    assert host.changes() == []
    manager, host = systemd({**RUNNING, "ActiveState": "failed"})
    assert manager.remove("shop-api-blue") is True
    assert host.changes() == [
        "systemctl disable --no-reload --quiet shop-api-blue.service",
        "systemctl reset-failed shop-api-blue.service",
    ]
    manager, host = systemd({**RUNNING, "ActiveState": "inactive", "UnitFileState": "disabled"})
    assert manager.remove("shop-api-blue") is True
    assert host.changes() == []


def test_remove_does_not_go_on_when_a_unit_stays_enabled():
    manager, _host = systemd({**RUNNING, "ActiveState": "inactive"}, disable=(1, "", "Read-only file system"))
    with pytest.raises(RunbookError, match="Read-only file system"):
        manager.remove("shop-api-blue")


def test_a_start_that_fails_at_once_is_told_by_the_state():
    manager, _host = systemd({**RUNNING, "ActiveState": "failed"}, start=(1, "", "Job for x failed."))
    manager.start("x")
    manager, _host = systemd({**RUNNING, "ActiveState": "inactive"}, start=(4, "", "Unit x.service not found."))
    with pytest.raises(RunbookError, match=r"systemctl start x\.service failed: Unit x\.service not found\."):
        manager.start("x")


def test_the_usual_refusals_say_what_to_do():
    manager, _host = systemd(show=(1, "", "Failed to connect to bus: No such file or directory"))
    with pytest.raises(RunbookError, match=r"finds no systemd on this host .* set runtime_host_manager to supervisor"):
        manager.version()
    manager, _host = systemd(**{"daemon-reload": (1, "", "Failed to reload daemon: Access denied")})
    with pytest.raises(RunbookError, match="only root may do that, so set ansible_become"):
        manager.reload()
    manager, _host = systemd(show=(0, "Version=219\n", ""))
    with pytest.raises(RunbookError, match="systemd 219 is too old, 230 is needed"):
        manager.version()
    manager, _host = systemd(show=(0, "Version=252.39-1~deb12u2\n", ""))
    assert manager.version() == "252"
    manager, _host = systemd(show=(0, "Version=\n", ""))
    with pytest.raises(RunbookError, match="does not tell the version"):
        manager.version()


def test_commands_that_are_missing_or_hang():
    with pytest.raises(RunbookError, match="there is no no-such-systemctl on this host"):
        run_bounded(["no-such-systemctl"], 5)
    with pytest.raises(RunbookError, match=r"did not end within 0\.1 s"):
        run_bounded([sys.executable, "-c", "import time; time.sleep(30)"], 0.1)
    assert run_bounded([sys.executable, "-c", "print(1)"], 30) == (0, "1\n", "")


def test_output_is_read_from_the_journal_since_the_start():
    manager, host = systemd(**{"--quiet": (0, "one\ntwo\n", "")})
    mark = manager.output_mark("shop-api-blue", Path("/unused"))
    assert manager.output("shop-api-blue", Path("/unused"), 20, mark) == ["one", "two"]
    assert host.asked[0] == "journalctl --sync"
    assert "--since=@1000000.000000" in host.asked[1] and "--unit=shop-api-blue.service" in host.asked[1]
    assert manager.output("shop-api-blue", Path("/unused"), 0) == []
    manager, _host = systemd(**{"--quiet": (1, "", "No journal files were found.\n")})
    assert manager.output("x", Path("/unused"), 5) == ["(no log: journalctl says No journal files were found.)"]


def unit(**more):
    given = {
        "name": "shop-api-blue",
        "command": ["/bin/sh", "/srv/shop/releases/1.0-aa/api/run"],
        "directory": "/srv/shop/releases/1.0-aa/api/app",
        "environment": {"PORT": "8001", "SLOT": "blue"},
        "stop_seconds": 7.2,
        **more,
    }
    return render_unit(**given).splitlines()


@pytest.mark.requirement("REL-10")
def test_the_unit_of_a_service():
    lines = unit(user="shop", after=["shop-db-blue"])
    for line in (
        "After=network.target shop-db-blue.service",
        "User=shop",
        "WorkingDirectory=/srv/shop/releases/1.0-aa/api/app",
        'Environment="PORT=8001"',
        'ExecStart="/bin/sh" "/srv/shop/releases/1.0-aa/api/run"',
        "Restart=on-failure",
        "KillMode=mixed",
        "TimeoutStopSec=8",
        "WantedBy=multi-user.target",
    ):
        assert line in lines
    assert not any(line.startswith("User=") for line in unit())


def test_a_unit_that_comes_back_whatever_its_end():
    assert "Restart=always" in unit(always=True)


def test_no_time_to_stop_is_not_for_ever():
    assert "TimeoutStopSec=1" in unit(stop_seconds=0)


def test_what_means_something_to_systemd_is_escaped():
    odd = '/srv/a b/100%/$HOME/"x"\\y'
    lines = unit(command=["/bin/sh", odd], directory="/srv/a b/100%", environment={"A": "50% $x"})
    assert r'ExecStart="/bin/sh" "/srv/a b/100%%/$$HOME/\"x\"\\y"' in lines
    assert "WorkingDirectory=/srv/a b/100%%" in lines
    assert 'Environment="A=50%% $x"' in lines


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"name": "shop api"}, "unit name 'shop api' must be"),
        ({"after": ["../x"]}, "unit name '../x' must be"),
        ({"user": "a\nExecStart=/bin/evil"}, "is no user name"),
        ({"command": ["/bin/sh", "a\nb"]}, "cannot be written for systemd"),
        ({"directory": "/srv/a\nb"}, "cannot be written for systemd"),
        ({"directory": "/srv/a\\"}, "cannot be written for systemd"),
        ({"environment": {"A": "x\ny"}}, "cannot be written for systemd"),
    ],
)
def test_what_cannot_be_written_is_refused(more, message):
    with pytest.raises(RunbookError, match=message):
        unit(**more)


def params(**more):
    return {
        "manager": "systemd",
        "supervisor_socket": None,
        "supervisor_conf_dir": None,
        "systemd_unit_dir": "/etc/systemd/system",
        "stable_seconds": 3.0,
        **more,
    }


def test_managers_out_of_options():
    assert isinstance(_managers.manager_of(params()), Systemd)
    assert _managers.conf_dir_of(params()) == "/etc/systemd/system"
    supervisor = params(manager="supervisor", supervisor_socket="/s", supervisor_conf_dir="/c")
    assert _managers.manager_of(supervisor).kind == "supervisor"
    assert _managers.conf_dir_of(supervisor) == "/c"
    with pytest.raises(RunbookError, match="stable_seconds 601 must be from 0 to 600"):
        _managers.manager_of(params(stable_seconds=601.0))


def test_a_manager_that_cannot_be_used_says_why(tmp_path):
    manager, _host = systemd(show=(0, "Version=252\n", ""))
    assert _managers.manager_state(manager, str(tmp_path))["ok"] is True
    told = _managers.manager_state(manager, str(tmp_path / "none"))
    assert told["ok"] is False and "no directory that this user may write to" in told["problem"]
    manager, _host = systemd(show=(1, "", "System has not been booted with systemd as init system (PID 1)."))
    assert "finds no systemd" in _managers.manager_state(manager, str(tmp_path))["problem"]
    assert os.path.isabs(_systemd.UNIT_DIR)
