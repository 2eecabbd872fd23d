"""The router, asked over ssh, and as users ask it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from testinfra.host import Host

testinfra_hosts = ["ansible://routers"]


def test_users_get_what_was_deployed_last(root: Path, versions: Callable[[str], set[str]]) -> None:
    front = json.loads((root / "nodes.json").read_text(encoding="utf-8"))["front"]
    assert versions(f"http://127.0.0.1:{front}") == {"1.1.0"}


def test_nginx_sends_to_the_live_slot_of_every_target(host: Host, root: Path) -> None:
    addresses = json.loads((root / "nodes.json").read_text(encoding="utf-8"))["addresses"]
    assert host.service("nginx").is_running
    included = host.file("/etc/nginx/conf.d/runbook.conf").content_string
    servers = [line.split() for line in included.splitlines() if line.strip().startswith("server ")]
    serving = {words[1] for words in servers if "down;" not in words}
    assert serving == {f"{addresses[name]}:18001" for name in ("target1", "target2")}
