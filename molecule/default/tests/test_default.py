"""What supervisor says of every target, and what users get."""

from __future__ import annotations

import json
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

testinfra_hosts = ["local://"]
TARGETS = ("target1", "target2", "target3")


@pytest.fixture(scope="module")
def lab(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "ports.json").read_text(encoding="utf-8")))


def test_users_get_what_was_deployed_last(lab: dict[str, Any], versions: Callable[[str], set[str]]) -> None:
    assert versions(f"http://127.0.0.1:{lab['front']}") == {"1.1.0"}


@pytest.mark.parametrize("target", TARGETS)
def test_only_the_live_slot_has_a_process(
    host: Host, lab: dict[str, Any], versions: Callable[[str], set[str]], target: str
) -> None:
    """Not the first release, which the bad one replaced, and not the bad one."""
    socket = f"unix://{lab['supervisor_sockets'][target]}"
    listed = host.run("%s -m supervisor.supervisorctl -s %s status", sys.executable, socket).stdout.splitlines()
    assert [line.split()[:2] for line in listed] == [["demo-backend-green", "RUNNING"]]
    assert versions(f"http://127.0.0.1:{lab['targets'][target]['green']}") == {"1.1.0"}
    with pytest.raises(urllib.error.URLError, match="refused"):
        versions(f"http://127.0.0.1:{lab['targets'][target]['blue']}")


@pytest.mark.parametrize("target", TARGETS)
def test_secrets_are_read_by_the_owner_only(host: Host, root: Path, target: str) -> None:
    paths = host.check_output("find %s -name env -type f", str(root / "targets" / target / "releases")).split()
    assert paths
    for path in paths:
        assert host.file(path).mode == 0o600
