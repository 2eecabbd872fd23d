"""The network is cut in the middle of a run: everybody else goes back, who is lost is named, the next run mends it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from chaos import agrees, await_event, intends, run_numbers, unfinished, wait_for

from node_site import NodeSite

WITHOUT_KEEPALIVE = "-o ControlMaster=no -o ControlPath=none"


@pytest.fixture(scope="module")
def live(site: NodeSite) -> NodeSite:
    for version in ("1.0.0", "1.1.0"):
        site.release(version)
    first = site.deploy("1.0.0")
    assert first.code == 0, first.output
    return site


@contextmanager
def cut_off(site: NodeSite, host: str) -> Iterator[None]:
    """The host goes on, but nobody hears of it."""
    site.lab.link(host, "down")
    try:
        yield
    finally:
        site.lab.link(host, "up")
        wait_for("the network", lambda: site.status().code == 0, 60, 1)  # ssh may keep a dead connection for a while


def deploy_cut(site: NodeSite, host: str, phase: str, **variables: object) -> str:
    """What a deploy of 1.1.0 says that loses ``host`` as ``phase`` begins."""
    last = run_numbers(site)[-1]
    run = site.start("deploy", app_version="1.1.0", **variables)
    try:
        await_event(site, last, intends(phase))
        with cut_off(site, host):
            said = run.communicate(timeout=300)[0]
    finally:
        run.kill()
    assert run.returncode != 0, said
    assert "Traceback" not in said
    return said


@pytest.mark.requirement("DEP-11")
def test_a_target_is_lost_while_the_release_starts(live: NodeSite) -> None:
    said = deploy_cut(live, "target2", "start")
    assert "target2: is unreachable" in said, said
    assert live.answers() == {"1.0.0"} and live.live() == "1.0.0"
    mended = live.run("recover")
    assert mended.code == 0, mended.output
    agrees(live, "1.0.0", "after the network came back")
    assert live.strays() == []


def test_a_host_that_says_nothing_does_not_hold_the_run_for_ever(live: NodeSite) -> None:
    """ssh alone waits without end for a host that is gone while a module runs there."""
    live.release("1.2.0", never_ready=True)
    live.settings = {"ANSIBLE_SSH_ARGS": WITHOUT_KEEPALIVE}
    run = live.start("deploy", app_version="1.2.0", test_start_seconds=15)
    try:
        starts = ["loaded", "active"]
        wait_for("the start", lambda: live.unit("target2", "green", "LoadState", "ActiveState") == starts, every=0.2)
        with cut_off(live, "target2"):
            said = run.communicate(timeout=400)[0]
    finally:
        run.kill()
        live.settings = {}
    assert run.returncode != 0 and "Traceback" not in said, said
    assert re.search(r"target2: gave no answer for \d+ s", said), said
    assert "recover.yml puts everything back to 1.0.0" in said, said
    assert live.answers() == {"1.0.0"}
    mended = live.run("recover")
    assert mended.code == 0, mended.output
    agrees(live, "1.0.0", "after the network came back")


@pytest.mark.requirement("BG-11")
def test_the_router_is_lost_while_it_shifts(live: NodeSite) -> None:
    said = deploy_cut(live, "router1", "shift")
    assert "router1: is unreachable" in said, said
    assert "the way back failed" in said or "never took traffic" in said, said
    assert len(live.answers()) == 1, "either all has moved or nothing"
    mended = live.run("recover")
    assert mended.code == 0, mended.output
    assert unfinished(live) == []
    agrees(live, "1.0.0", "after the network came back")
    assert live.strays() == []
    done = live.deploy("1.1.0")
    assert done.code == 0, done.output
    assert live.answers() == {"1.1.0"}
