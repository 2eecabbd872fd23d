"""``ansible-playbook`` killed while it changes real hosts; one more run of the same command converges."""

from __future__ import annotations

from itertools import count

import pytest
from chaos import Moment, agrees, events, kill_all, kill_at, kill_main, moments, one_version, run_numbers

from node_site import NodeSite

VARIABLES = {"watch_seconds": 1, "watch_interval_seconds": 0.2, "watch_window_seconds": 1, "watch_failure_limit": 0}
NUMBERS = count(1)


@pytest.fixture(scope="module")
def live(site: NodeSite) -> NodeSite:
    for _time in range(2):
        version = f"1.{next(NUMBERS)}.0"
        site.release(version)
        done = site.deploy(version, **VARIABLES)
        assert done.code == 0, done.output
    return site


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "everything"), [("start", True), ("shift", False), ("verify", True), ("commit", False)]
)
def test_deploy_killed_and_run_again(live: NodeSite, phase: str, everything: bool) -> None:
    """With its ssh connections in the middle of a step, or ansible-playbook alone as soon as it means to do it."""
    journal = next(
        lines
        for lines in (events(live, number) for number in reversed(run_numbers(live)))
        if any(event.get("phase") == phase and event["event"] == "intent" for event in lines)
    )
    moment: Moment = next(m for m in moments(journal) if m.phase == phase and m.event == "intent")
    version, old = f"1.{next(NUMBERS)}.0", live.live()
    assert old
    live.release(version)
    killed = kill_at(live, moment, kill_all if everything else kill_main, "deploy", app_version=version, **VARIABLES)
    try:
        assert one_version(live, old, version)
        again = live.deploy(version, **VARIABLES)
        assert again.code == 0, again.output
    finally:
        killed.communicate(timeout=60)
    agrees(live, version, f"killed at {moment.name}")
    release = live.history()[-1]["to"]["release"]
    for target in live.lab.names:
        assert live.link(target, "current") == f"releases/{release}"
        slots = sorted(f"demo-backend-{slot}.service" for slot, held in live.slots()[target].items() if held)
        assert live.enabled(target) == slots, "a boot would start just what runs"
