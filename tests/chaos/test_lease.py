"""Two runs at once: one changes things, the other waits or ends with a sentence; a dead or late one changes nothing."""

from __future__ import annotations

import getpass
import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._journal import Journal, utc
from chaos import agrees, await_event, events, intends, run_numbers

from runbook_site import CHECKOUT, PLAYBOOK, Site, tree

ELSEWHERE = {"user": "zoe", "host": "far-away", "job": "", "pid": 1, "started": "1", "machine": "another/pid:[1]"}
FENCED = "must not change anything any more"


@pytest.fixture(scope="module")
def live(small_site: Site) -> Site:
    small_site.release("1.0.0")
    first = small_site.deploy("1.0.0")
    assert first.code == 0, first.output
    return small_site


def place(site: Site) -> dict[str, Any]:
    """Release, version and slot that are live."""
    found: dict[str, Any] = site.history()[-1]["to"]
    return found


def everything(site: Site) -> dict[str, tuple[int, int, bytes]]:
    return tree(site.lab.root / "targets", site.lab.root / "router", site.state)


def beside_the_living(site: Site) -> tuple[dict[str, tuple[int, int, bytes]], dict[str, Any]]:
    """Everything while a run goes on: that run renews its lease, which is a new file in the place of the old one."""
    lease = json.loads((site.state / "lease.json").read_text(encoding="utf-8"))
    found = {path: held for path, held in everything(site).items() if not Path(path).name.startswith((".", "lease"))}
    return found, {key: value for key, value in lease.items() if key not in ("expires", "renewed")}


def abandoned(site: Site, ttl_seconds: float) -> tuple[Journal, dict[str, Any]]:
    """A run of another machine that has just begun, and will never be heard of again. The plan is one of a real run."""
    journal = Journal(site.state)
    last = run_numbers(site)[-1]
    live = place(site)
    other = "green" if live["slot"] == "blue" else "blue"
    to = {**live, "release": "9.9.9-00000000", "version": "9.9.9", "slot": other}
    plan = {**events(site, last)[0]["plan"], "from": live, "to": to, "reason": "deploy 9.9.9"}
    step = next(step for step in plan["steps"] if step["phase"] == "start")
    event = {"event": "intent", "step": step["id"], "phase": "start", "hosts": step["hosts"]}
    return journal, journal.open(ELSEWHERE, "deploy 9.9.9", ttl_seconds, journal.read()["fence"], plan, [event])


def module(site: Site, host: str, name: str, arguments: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """One module on a host, as a zombie of an old run would still do it."""
    words = [str(PLAYBOOK.with_name("ansible")), host, "-i", str(site.inventory)]
    words += ["-m", f"signalbox.runbook.{name}", "-a", json.dumps(arguments)]
    return subprocess.run(
        words, cwd=CHECKOUT, env=site.environment(), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.slow
def test_second_run_names_the_holder_or_waits(live: Site) -> None:
    for version in ("1.1.0", "1.2.0"):
        live.release(version)
    last = run_numbers(live)[-1]
    first = live.start("deploy", app_version="1.1.0", app_reason="the long one", watch_seconds=20)
    try:
        run = await_event(live, last, intends("watch"))
        before = beside_the_living(live)
        refused = live.deploy("1.2.0")
        assert first.poll() is None
        assert beside_the_living(live) == before
        waiting = live.start("deploy", app_version="1.2.0", app_lease_wait_seconds=90)
        said = first.communicate(timeout=90)[0]
        assert first.returncode == 0, said
        then = waiting.communicate(timeout=120)[0]
    finally:
        first.kill()
    assert refused.code != 0
    lease = next(line for line in refused.output.splitlines() if "holds the lease" in line)
    since = utc(events(live, run)[0]["at"])
    assert f"run {run} of {getpass.getuser()}@{socket.gethostname()} holds the lease since {since}" in lease
    assert "the long one" in lease and "app_lease_wait_seconds" in lease
    assert waiting.returncode == 0, then
    # What the second one started from is what the first one left: it planned anew after the wait.
    assert [record["to"]["version"] for record in live.history()[-2:]] == ["1.1.0", "1.2.0"]
    assert live.history()[-1]["from"]["version"] == "1.1.0"
    agrees(live, "1.2.0", "after the wait")


@pytest.mark.slow
def test_lease_of_a_dead_run_elsewhere_ends_by_itself_and_its_zombie_is_fenced_out(live: Site) -> None:
    old = place(live)
    live.release("2.0.0")
    journal, zombie = abandoned(live, ttl_seconds=8)
    refused = live.deploy("2.0.0")
    assert refused.code != 0
    assert f"run {zombie['run']} of zoe@far-away holds the lease since" in refused.output
    assert "deploy 9.9.9" in refused.output
    assert live.answers() == {old["version"]}
    taken = live.deploy("2.0.0", app_lease_wait_seconds=60)
    assert taken.code == 0, taken.output
    outcomes = {record["run"]: record["outcome"] for record in live.history()}
    assert outcomes[zombie["run"]] == "interrupted"
    agrees(live, "2.0.0", "after the takeover")

    # The dead run was only slow. It goes on with what it was about to do, under its old fencing number.
    new, lab = place(live), live.lab
    home, router = lab.home("target1"), lab.root / "router"
    before = everything(live)
    run, fence = zombie["run"], zombie["fence"]
    changes: list[tuple[str, Callable[[], Any]]] = [
        ("write", lambda: journal.write(run, fence, [{"event": "result"}], 60)),
        ("close", lambda: journal.close(run, fence, [], {"verb": "deploy", "to": old, "outcome": "deployed"})),
    ]
    for name, change in changes:
        with pytest.raises(RunbookError, match=FENCED) as caught:
            change()
        assert caught.value.details["fenced"], name
    supervisor = {
        "supervisor_socket": lab.ports["supervisor_sockets"]["target1"],
        "supervisor_conf_dir": str(home / "supervisor.d"),
    }
    service = {"name": "backend", "port": lab.ports["targets"]["target1"][old["slot"]]}
    slot = {"home": str(home), "fence": fence, "application": "demo", "slot": old["slot"], **supervisor}
    artifact = {"archive": str(_archive(live, "1.0.0")), "sha256": _digest(live, "1.0.0")}
    member = {"address": "127.0.0.1", "port": service["port"], "slot": old["slot"], "weight": 100}
    late: list[tuple[str, str, dict[str, Any]]] = [
        ("target1", "slot", {**slot, "state": "stopped", "live_slot": new["slot"]}),
        ("target1", "slot", {**slot, "release": {"id": old["release"], "version": "1"}, "services": [service]}),
        ("target1", "release_prune", {"home": str(home), "fence": fence, "remove": [old["release"]], "keep": []}),
        (
            "target1",
            "release",
            {
                "home": str(home),
                "fence": fence,
                "id": "9.9.9-00000000",
                "services": [{"name": "backend", "artifact": artifact, "command": "true"}],
            },
        ),
        (
            "router1",
            "nginx_upstream",
            {
                "path": str(router / "runbook.conf"),
                "home": str(router),
                "fence": fence,
                "command": lab.ports["nginx_command"],
                "upstreams": [{"name": "demo_backend", "members": [member]}],
                "probes": [],
            },
        ),
    ]
    for host, name, arguments in late:
        answer = module(live, host, name, arguments)
        assert answer.returncode != 0 and FENCED in answer.stdout, f"{name}: {answer.stdout}{answer.stderr}"
        assert f"fencing number {fence} is older than" in answer.stdout, name
    assert everything(live) == before
    assert live.answers() == {"2.0.0"}


def _archive(site: Site, version: str) -> Path:
    return site.lab.root / "artifacts" / f"demo-{version}.tar.gz"


def _digest(site: Site, version: str) -> str:
    return Path(f"{_archive(site, version)}.sha256").read_text(encoding="utf-8").split()[0]


@pytest.mark.slow
def test_of_two_started_at_the_same_moment_one_deploys(live: Site) -> None:
    for number in range(3):
        versions = [f"3.{number}.1", f"3.{number}.2"]
        for version in versions:
            live.release(version)
        before = len(live.history())
        both = [live.start("deploy", app_version=version) for version in versions]
        said = [process.communicate(timeout=120)[0] for process in both]
        codes = [process.returncode for process in both]
        assert codes.count(0) == 1, "\n".join(said)
        won = codes.index(0)
        lost = said[1 - won]
        assert "holds the lease since" in lost or "came between the plan and its start" in lost, lost
        assert [record["to"]["version"] for record in live.history()[before:]] == [versions[won]]
        assert live.answers() == {versions[won]}
    agrees(live, versions[won], "after the last race")
