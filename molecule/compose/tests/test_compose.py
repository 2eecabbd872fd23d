"""What the Docker Engine of this machine says, and what users get."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

testinfra_hosts = ["local://"]
TARGETS = ("target1", "target2")


@pytest.fixture
def live(host: Host, name: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """`docker inspect` of the container that must be live on a target."""
    return dict(host.docker(f"{name}-{request.param}-green-backend-1").inspect())


def test_users_get_what_was_deployed_last(root: Path, versions: Callable[[str], set[str]]) -> None:
    front = json.loads((root / "ports.json").read_text(encoding="utf-8"))["front"]
    assert versions(f"http://127.0.0.1:{front}") == {"1.1.0"}


def test_only_the_live_slots_have_containers(host: Host, name: str) -> None:
    """Not the first release, which the bad one replaced, and not the bad one."""
    listed = host.check_output("docker ps --all --filter name=%s --format {{.Names}}", name).split()
    assert sorted(listed) == [f"{name}-{target}-green-backend-1" for target in TARGETS]


@pytest.mark.parametrize("live", TARGETS, indirect=True)
def test_the_live_container_runs_the_image_of_the_release(host: Host, name: str, live: dict[str, Any]) -> None:
    assert live["State"]["Running"] and live["RestartCount"] == 0
    assert live["Image"] == host.check_output("docker image inspect --format {{.Id}} %s:1.1.0", name)
    assert live["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


@pytest.mark.parametrize("live", TARGETS, indirect=True)
def test_the_live_container_is_reached_from_this_machine_only(host: Host, live: dict[str, Any]) -> None:
    (bound,) = live["NetworkSettings"]["Ports"]["8080/tcp"]
    assert bound["HostIp"] == "127.0.0.1"
