"""``ansible-playbook`` killed at every step of its journal.

The steps come out of the journal of a run that nobody disturbed, so a new one is killed too without anyone
remembering it. Afterwards the old or the new version serves on every target, one more run of the same command
converges, and the journal says what is real. The killed process is not even reaped: its number still exists.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from itertools import count
from typing import Any, Callable

import pytest
from chaos import (
    Moment,
    Users,
    agrees,
    events,
    kill_all,
    kill_at,
    kill_main,
    moments,
    one_version,
    run_numbers,
    unfinished,
    wait_for,
)

from runbook_site import Site

VARIABLES = {
    "watch_seconds": 1,
    "watch_interval_seconds": 0.2,
    "watch_window_seconds": 1,
    "watch_failure_limit": 0,
    "app_keep_releases": 1,  # every run has something to prune
}
NUMBERS = count(1)


@pytest.fixture(scope="module")
def live(pair: Site) -> Iterator[Site]:
    """Three releases, so that an upgrade has every phase."""
    for _time in range(3):
        upgrade(pair)
    yield pair


def upgrade(site: Site, **faults: Any) -> str:
    version = f"1.{next(NUMBERS)}.0"
    site.release(version, **faults)
    done = site.deploy(version, **VARIABLES)
    assert (done.code == 0) != bool(faults), done.output
    return version


def undisturbed(site: Site) -> list[Moment]:
    return moments(events(site, run_numbers(site)[-1]))


def standing(site: Site) -> str:
    """The version that is live."""
    version = site.live()
    assert version
    return version


def crash(
    site: Site,
    moment: Moment,
    kill: Callable[[subprocess.Popen[str]], None],
    verb: str,
    to: str,
    then: str = "",
    mixed: bool = False,
    **variables: Any,
) -> None:
    """Kill a run to ``to`` at ``moment`` and run the same again, or deploy ``then``: a good one after a bad one."""
    old = standing(site)
    goal = old if then and moment.event == "end" else then or to
    when = f"{verb} {old} -> {to}, {kill.__name__} at {moment.name}"
    command = {**VARIABLES, **variables}
    with Users(site) as users:
        killed = kill_at(site, moment, kill, verb, **command)
        try:
            if mixed:  # in place, a batch may have the new release already; nobody is without an answer
                assert site.answers() <= {old, to}, when
            else:
                assert one_version(site, old, to), when
            if moment.event == "end":  # all is done but the report; "the one before" would be another one now
                wait_for("its record", lambda: not unfinished(site))
            else:
                again = site.deploy(then, **VARIABLES) if then else site.run(verb, **command)
                assert again.code == 0, f"{when}:\n{again.output}"
        finally:
            killed.communicate(timeout=60)
    assert set(users.seen) <= {old, to, goal}, f"{when}: {dict(users.seen)}"
    assert sum(users.seen.values()) >= 5, f"{when}: {dict(users.seen)}"
    agrees(site, goal, when)


def crash_deploy(site: Site, moment: Moment, kill: Callable[[subprocess.Popen[str]], None]) -> None:
    version = f"1.{next(NUMBERS)}.0"
    site.release(version)
    crash(site, moment, kill, "deploy", version, app_version=version)


@pytest.mark.slow
def test_deploy_killed_at_every_step(live: Site) -> None:
    points = undisturbed(live)
    assert {"stage", "start", "shift", "watch", "commit"} <= {point.phase for point in points}
    for point in points:
        crash_deploy(live, point, kill_main)


@pytest.mark.slow
def test_deploy_killed_with_all_its_modules_in_the_middle_of_a_step(live: Site) -> None:
    upgrade(live)
    for point in undisturbed(live):
        if point.phase in ("stage", "start", "shift", "commit"):
            crash_deploy(live, point, kill_all)


@pytest.mark.slow
def test_rolling_deploy_killed_at_every_step(live: Site) -> None:
    """In place there is no old slot beside the new one: settling may not take the traffic of every target at once."""
    rolling = {"app_strategy": "rolling", "app_batch_watch_seconds": 0}
    version = f"1.{next(NUMBERS)}.0"
    live.release(version)
    first = live.deploy(version, **VARIABLES, **rolling)
    assert first.code == 0, first.output
    points = undisturbed(live)
    ours = [point for point in points if point.phase in ("drain", "replace", "shift", "watch")]  # the others as above
    assert len(ours) > 8
    for point in ours:
        version = f"1.{next(NUMBERS)}.0"
        live.release(version)
        crash(live, point, kill_main, "deploy", version, mixed=True, app_version=version, **rolling)


@pytest.mark.slow
def test_rollback_killed_at_every_step(live: Site) -> None:
    old = standing(live)
    new = upgrade(live)
    back = live.rollback(**VARIABLES)
    assert back.code == 0, back.output
    points = undisturbed(live)
    assert "shift" in {point.phase for point in points}
    for point in points:
        forward = live.rollback(rollback_to=new, **VARIABLES)
        assert forward.code == 0, forward.output
        crash(live, point, kill_main, "rollback", old, app_reason="a test")


@pytest.mark.slow
@pytest.mark.requirement("BG-12")
def test_bad_release_whose_way_back_is_killed(live: Site) -> None:
    upgrade(live, errors_percent=100)
    points = undisturbed(live)
    watched = next(number for number, point in enumerate(points) if point.phase == "watch")
    assert {point.phase for point in points[watched + 1 :]} >= {"revert"}
    for point in points[watched + 1 :]:
        bad, good = f"1.{next(NUMBERS)}.0", f"1.{next(NUMBERS)}.0"
        live.release(bad, errors_percent=100)
        live.release(good)
        crash(live, point, kill_main, "deploy", bad, then=good, app_version=bad)
