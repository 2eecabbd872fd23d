"""``ansible-playbook`` killed at every step of its journal, on every backend; one more run converges.

The moments come out of the journal of a run that nobody disturbed, so a new step is killed too without anyone
remembering it. Every second time all that the run started is killed with it, in the middle of the step.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from backends import Place, slots
from chaos import Users, events, kill_all, kill_at, kill_main, moments, one_version, run_numbers, unfinished, wait_for

VARIABLES = {
    "watch_seconds": 1,
    "watch_interval_seconds": 0.2,
    "watch_window_seconds": 1,
    "watch_failure_limit": 0,
    "watch_p95_ms": 30_000,
    "app_keep_releases": 1,  # every run has something to prune
    "app_lease_wait_seconds": 3600,  # nobody waits for the dead
}
NUMBERS = count(1)


def upgrade(site: Any) -> str:
    version = f"1.{next(NUMBERS)}.0"
    site.release(version)
    done = site.deploy(version, **VARIABLES)
    assert done.code == 0, done.output
    return version


@pytest.mark.slow
@pytest.mark.requirement("BG-11")
def test_deploy_killed_at_every_step(place: Place) -> None:
    site = place.site
    for _time in range(3):  # so that an upgrade has every phase
        old = upgrade(site)
    points = moments(events(site, run_numbers(site)[-1]))
    assert {"stage", "shift", "watch", "verify", "commit"} <= {point.phase for point in points}
    for number, point in enumerate(points):
        version = f"1.{next(NUMBERS)}.0"
        site.release(version)
        kill = kill_all if number % 2 else kill_main
        when = f"{old} -> {version}, {kill.__name__} at {point.name}"
        with Users(site) as users:
            killed = kill_at(site, point, kill, "deploy", app_version=version, **VARIABLES)
            try:
                if place.backend.in_place:  # a batch may have the new release already
                    assert site.answers() <= {old, version}, when
                else:
                    assert one_version(site, old, version), when
                if point.event == "end":  # all is done but the report
                    wait_for("its record", lambda: not unfinished(site))
                again = site.deploy(version, **VARIABLES)
                assert again.code == 0, f"{when}:\n{again.output}"
            finally:
                killed.communicate(timeout=60)
        assert set(users.seen) <= {old, version}, f"{when}: {dict(users.seen)}"
        assert site.answers() == {version} and site.live() == version and unfinished(site) == [], when
        same = site.deploy(version, **VARIABLES)
        assert same.code == 0 and "nothing to do" in same.output, f"{when}:\n{same.output}"
        assert "all agree" in site.status().output, when
        before = {record["to"]["version"] for record in site.history() if record["outcome"] == "deployed"}
        for target, versions in slots(site).items():
            assert set(versions.values()) <= {version, "", *before}, f"{when}: {target} {versions}"
        assert site.strays() == [], when
        old = version
