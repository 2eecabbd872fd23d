"""Hunting "wrong but green": whatever is done to a site behind its back, a run that exits 0 tells the truth."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chaos import Users, agrees, await_event, intends, run_numbers, unfinished, wait_for

import local
from runbook_site import Play, Site, tree

WATCH = {"watch_seconds": 6, "watch_interval_seconds": 0.3, "watch_window_seconds": 2, "watch_failure_limit": 1}


@pytest.fixture(scope="module")
def live(site: Site) -> Site:
    for version in ("1.0.0", "1.1.0"):
        site.release(version)
        done = site.deploy(version)
        assert done.code == 0, done.output
    return site


def reload_nginx(site: Site) -> None:
    subprocess.run([*site.lab.ports["nginx_command"], "-s", "reload"], check=True, timeout=30, capture_output=True)


def include(site: Site) -> Path:
    return site.lab.root / "router" / "runbook.conf"


def turned_round(text: str) -> str:
    """The include file with the traffic in the other slot."""
    marks = re.sub(r"(server \S+) weight=\d+[^;]*;", r"\1 LIVE;", text)
    return marks.replace(" down;", " weight=100;").replace(" LIVE;", " down;")


def answers_become(site: Site, version: str) -> None:
    wait_for(f"{version} answers", lambda: site.answers(6) == {version}, 20, 0.1)


def everything(site: Site) -> dict[str, tuple[int, int, bytes]]:
    return tree(site.lab.root / "targets", site.lab.root / "router", site.state)


def truthful(site: Site, play: Play, new: str, old: str) -> None:
    """Exit 0 means that ``new`` answers everywhere, anything else that ``old`` does; never a mixture."""
    expected = new if play.code == 0 else old
    assert site.answers() == {expected}, play.output
    assert site.live() == expected, play.output
    slot = next(r["to"]["slot"] for r in reversed(site.history()) if r["outcome"] in ("deployed", "restored"))
    found = {target: versions[slot] for target, versions in site.slots().items()}
    assert set(found.values()) == {expected}, f"{found}\n{play.output}"
    assert unfinished(site) == []


@pytest.mark.slow
@pytest.mark.requirement("BG-11")
@pytest.mark.parametrize("where", ["file and nginx", "file only", "nginx only"])
def test_router_that_was_turned_by_hand_stops_the_run_until_told_to_restore(live: Site, where: str) -> None:
    text = include(live).read_text(encoding="utf-8")
    include(live).write_text(turned_round(text), encoding="utf-8")
    if where != "file only":
        reload_nginx(live)
        answers_become(live, "1.0.0")
    if where == "nginx only":
        include(live).write_text(text, encoding="utf-8")
    answered = live.answers()
    before = everything(live)
    stopped = live.deploy("1.1.0")
    assert stopped.code != 0, stopped.output
    assert "what is live is not what the records say (1.1.0 in" in stopped.output
    assert "Nothing has been touched" in stopped.output
    assert everything(live) == before
    assert live.answers() == answered
    restored = live.deploy("1.1.0", app_drift="restore")
    assert restored.code == 0, restored.output
    agrees(live, "1.1.0", f"restored after {where}")


@pytest.mark.slow
def test_router_turned_back_by_hand_during_the_watch(live: Site) -> None:
    live.release("1.2.0")
    last = run_numbers(live)[-1]
    text = include(live).read_text(encoding="utf-8")
    process = live.start("deploy", app_version="1.2.0", **WATCH)
    try:
        await_event(live, last, intends("watch"))
        include(live).write_text(text, encoding="utf-8")
        reload_nginx(live)
        said = process.communicate(timeout=90)[0]
    finally:
        process.kill()
    assert process.returncode != 0, said
    truthful(live, Play(process.returncode, said, None), "1.2.0", "1.1.0")


def disturb(site: Site, version: str, phase: str, what: Callable[[], Any], **variables: Any) -> Play:
    """A deploy during which ``what`` is done as soon as the phase is intended."""
    last = run_numbers(site)[-1]
    process = site.start("deploy", app_version=version, **variables)
    try:
        await_event(site, last, intends(phase))
        what()
        said = process.communicate(timeout=120)[0]
    finally:
        process.kill()
    return Play(process.returncode, said, None)


@pytest.mark.slow
@pytest.mark.parametrize(("version", "phase"), [("2.1.0", "stage"), ("2.2.0", "watch")])
def test_target_is_rebooted_during_the_run(live: Site, version: str, phase: str) -> None:
    """Its supervisord and all its slots end and come back."""
    live.release(version)
    old = live.live()
    assert old
    platform = local.supervisor(live.lab._socket("platform"))

    def reboot() -> None:
        platform.stopProcess("target2")
        platform.startProcess("target2")

    with Users(live) as users:
        done = disturb(live, version, phase, reboot, **WATCH)
    assert set(users.seen) <= {old, version, "no answer"}, dict(users.seen)
    truthful(live, done, version, old)


@pytest.mark.slow
@pytest.mark.requirement("DEP-11")
@pytest.mark.parametrize(("number", "phase", "seconds"), [(1, "shift", 0), (2, "shift", 6), (3, "watch", 6)])
def test_new_slot_of_one_target_ends_after_it_was_proven(live: Site, number: int, phase: str, seconds: int) -> None:
    """nginx takes a dead target out of the traffic: hardly a request fails, and only asking each target tells."""
    version = f"3.{number}.0"
    live.release(version)
    slot = next(r["to"]["slot"] for r in reversed(live.history()) if r["outcome"] in ("deployed", "restored"))
    idle = "green" if slot == "blue" else "blue"
    supervisor = local.supervisor(Path(live.lab.ports["supervisor_sockets"]["target2"]))
    old = live.live()
    assert old
    done = disturb(
        live,
        version,
        phase,
        lambda: supervisor.stopProcess(f"demo-backend-{idle}"),
        **{**WATCH, "watch_seconds": seconds},
    )
    truthful(live, done, version, old)
