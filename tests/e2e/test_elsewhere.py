"""The same life on hosts that are another machine to Ansible: the journal is a module there, archives are uploaded."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbook_site import CHECKOUT, PLAYBOOK, Site, as_elsewhere, make_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for made in make_site(tmp_path_factory.mktemp("elsewhere"), 2):
        as_elsewhere(made)
        yield made


def last_run(site: Site) -> list[str]:
    path = max((site.state / "runs").iterdir(), key=lambda one: int(one.stem))
    return [json.loads(line)["event"] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.smoke
def test_deploy_upgrade_bad_release_and_rollback(site: Site) -> None:
    site.release("1.0.0")
    site.release("1.1.0")
    site.release("1.2.0", never_ready=True)
    for version in ("1.0.0", "1.1.0"):
        play = site.deploy(version, watch_seconds=2, watch_interval_seconds=0.5)
        assert play.code == 0, play.output
        assert site.answers() == {version}
        assert last_run(site)[0] == "open" and last_run(site)[-1] == "end"
    again = site.deploy("1.1.0")
    assert again.code == 0 and "nothing to do" in again.output
    bad = site.deploy("1.2.0")
    assert bad.code != 0 and bad.outcome == "failed"
    assert site.answers() == {"1.1.0"}
    back = site.rollback()
    assert back.code == 0, back.output
    assert site.answers() == {"1.0.0"}
    assert [record["outcome"] for record in site.history()] == ["deployed", "deployed", "failed", "restored"]


def test_a_held_lease_is_refused_in_the_same_words(site: Site) -> None:
    lease = site.state / "lease.json"
    held = json.loads(lease.read_text(encoding="utf-8"))
    far = {**held, "released": False, "expires": held["expires"] + 10_000_000, "holder": {"user": "bo", "host": "b1"}}
    before = lease.read_bytes()
    try:
        lease.write_text(json.dumps(far), encoding="utf-8")
        play = site.deploy("1.1.0")
        assert play.code != 0
        assert f"run {held['run']} of bo@b1 holds the lease since " in play.output
        assert site.answers() == {"1.0.0"}
    finally:
        lease.write_bytes(before)
    # A journal that can't be read is named too, and nothing is begun.
    history = Path(site.state) / "history.jsonl"
    kept = history.read_bytes()
    try:
        history.write_text("not ours\n", encoding="utf-8")
        play = site.deploy("1.1.0")
        assert play.code != 0 and f"the journal in {site.state} cannot be read" in play.output
    finally:
        history.write_bytes(kept)


def asked(site: Site, host: str, connection: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What one module answers over a connection."""
    words = [
        str(PLAYBOOK.with_name("ansible")),
        host,
        "-i",
        str(site.inventory),
        "-e",
        f"ansible_connection={connection}",
    ]
    words += ["-m", f"signalbox.runbook.{name}", "-a", json.dumps(arguments)]
    done = subprocess.run(
        words, cwd=CHECKOUT, env=site.environment(), capture_output=True, text=True, timeout=60, check=False
    )
    answer = json.loads(done.stdout.partition(" => ")[2])
    return {key: value for key, value in answer.items() if not key.startswith("_ansible") and key != "invocation"}


TIMES = ("duration_ms", "disk_free_bytes", "seconds", "date")


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def test_a_module_answers_the_same_in_place_and_carried_there(site: Site) -> None:
    """Here its answer is asked for in the process of Ansible, elsewhere by the module; also where it refuses."""
    home, ports = site.lab.home("target1"), site.lab.ports
    target = {
        "home": str(home),
        "application": "demo",
        "supervisor_socket": ports["supervisor_sockets"]["target1"],
        "supervisor_conf_dir": str(home / "supervisor.d"),
        "services": [{"name": "backend", "ports": ports["targets"]["target1"]}],
    }
    slot = {key: target[key] for key in target if key not in ("services",)}
    include = {"path": str(site.lab.root / "router" / "runbook.conf"), "state": "read"}
    for host, name, arguments in (
        ("target1", "target_info", target),
        ("target1", "target_info", {**target, "supervisor_socket": "/nowhere/sock"}),
        ("target1", "slot", {**slot, "fence": 0, "slot": "blue", "state": "stopped"}),
        ("target1", "release_prune", {"home": str(home), "fence": 0, "remove": []}),
        ("router1", "nginx_upstream", {**include, "probes": [{"url": f"{site.lab.front_url}/version"}]}),
        ("router1", "nginx_upstream", {**include, "probes": [{"url": "ftp://no"}]}),
    ):
        here, there = (asked(site, host, connection, name, arguments) for connection in ("local", "elsewhere"))
        assert without_times(here) == without_times(there), name
        assert "msg" in here or len(here) > 3, here
