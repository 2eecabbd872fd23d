"""The two hosts, asked over ssh."""

from __future__ import annotations

from testinfra.host import Host

testinfra_hosts = ["ansible://targets"]
LIVE, IDLE = "demo-backend-green", "demo-backend-blue"


def test_the_live_unit_runs_and_comes_back_after_a_boot(host: Host) -> None:
    unit = host.service(LIVE)
    assert unit.is_running and unit.is_enabled
    told = unit.systemd_properties
    assert told["User"] == "demo"
    process = host.process.get(pid=int(told["MainPID"]))
    assert process.user == "demo" and "server.py --port 18001" in process.args


def test_the_unit_of_the_bad_release_is_neither_running_nor_enabled(host: Host) -> None:
    unit = host.service(IDLE)
    assert not unit.is_running and not unit.is_enabled
    assert not host.socket("tcp://0.0.0.0:8001").is_listening


def test_a_process_was_killed_and_another_runs(host: Host) -> None:
    said = host.check_output("journalctl --unit %s --no-pager --output cat", LIVE)
    assert "code=killed, status=9/KILL" in said
    assert said.rfind(f"Started {LIVE}") > said.rfind("status=9/KILL")


def test_secrets_are_read_by_root_only(host: Host) -> None:
    """By the service through its unit, by others not at all."""
    paths = host.check_output("find /srv/demo/releases -name env").split()
    assert paths
    for path in paths:
        assert host.file(path).mode == 0o600
    assert "not-to-be-read" not in host.check_output("systemctl cat %s", LIVE)
