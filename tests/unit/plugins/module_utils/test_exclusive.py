# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Workers that run in one slot only: the world of plain data asserts that none ever runs in both, and that those of
the live release run whenever a run has ended."""

from __future__ import annotations

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _model, _records, _status
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from hypothesis import given, settings
from hypothesis import strategies as st
from runbook_world import SPECS, CrashError, World, crashed, live_on, models, phases

WORKERS = {"exclusive": ("mailer", "clock")}
CANARY = {**WORKERS, "app_strategy": "canary", "app_steps": [{"weight": 10, "hold": True}, {"weight": 100}]}
ROLLING = {**WORKERS, "app_strategy": "rolling"}


def two_releases(**more):
    return live_on(World(**{**WORKERS, **more}), "1.0", "2.0")


def services(world, slot, target="web1"):
    found = world.targets[target]["slots"][slot]
    return sorted(found["services"]) if found else []


@pytest.mark.requirement("BG-13")
def test_they_move_once_the_new_release_has_all_traffic_and_before_the_watch():
    world = two_releases()
    assert services(world, "green") == ["backend", "clock", "frontend", "mailer"]
    assert services(world, "blue") == ["backend", "frontend"]
    plan = world.plan("deploy", "3.0")
    assert phases(plan) == ["stage", "start", "shift", "take_over", "take_over", "watch", "verify"]
    assert [step["text"] for step in plan["steps"][3:5]] == [
        "mailer, clock stopped in green",
        "mailer, clock healthy in blue",
    ]
    assert world.carry_out(plan) == "deployed" and world.agrees()
    assert services(world, "green") == ["backend", "frontend"]


def test_the_first_release_starts_all_of_them_at_once():
    assert phases(World(**WORKERS).plan("deploy", "1.0")) == ["stage", "start", "shift", "watch", "verify"]


def test_they_stay_with_the_old_release_while_a_canary_is_held():
    world = live_on(World(**CANARY), "1.0")
    assert world.go("deploy", "2.0") == "held"
    assert services(world, "blue") == ["backend", "clock", "frontend", "mailer"]
    assert services(world, "green") == ["backend", "frontend"]
    assert world.go("promote") == "deployed" and world.agrees()
    assert services(world, "blue") == ["backend", "frontend"]


def test_a_rollback_to_a_slot_that_stands_takes_them_along():
    world = two_releases()
    for info in world.targets.values():
        info["slots"]["blue"]["answers"] = [
            {"name": "frontend version", "passed": True, "observed": "1.0", "problem": ""}
        ]
    plan = world.plan("rollback")
    assert phases(plan) == ["shift", "take_over", "take_over"]
    assert world.carry_out(plan) == "restored" and world.agrees()


@pytest.mark.requirement("BG-13", "DEP-11")
@pytest.mark.parametrize("settings_", [WORKERS, ROLLING])
@pytest.mark.parametrize("verb", ["deploy", "rollback"])
def test_whatever_fails_they_run_with_the_old_release(verb, settings_):
    run = (verb, "3.0") if verb == "deploy" else (verb,)
    plan = live_on(World(**settings_), "1.0", "2.0").plan(*run)
    for step, host in [(one["id"], host) for one in plan["steps"] for host in one["hosts"]]:
        world = live_on(World(**settings_), "1.0", "2.0")
        assert world.carry_out(world.plan(*run), [(step, host)]) in ("failed", "rolled_back"), step
        assert world.serves()[0] == "2.0" and world.agrees(), step


@pytest.mark.requirement("BG-13")
@pytest.mark.parametrize(
    "again", [("deploy", "3.0"), ("deploy", "2.0"), ("rollback",), ("recover",), ("deploy", "4.0")]
)
@pytest.mark.parametrize("first", [("deploy", "3.0"), ("rollback",)])
def test_killed_anywhere_one_more_run_converges(first, again):
    at = 0
    while True:
        world = two_releases()
        if not crashed(world, at, *first):
            assert at > 8
            break
        try:
            plan = world.plan(*again)
        except RunbookError as error:
            assert "nothing to roll back to" in str(error)
            plan = world.plan("recover")
        assert world.carry_out(plan) in ("deployed", "restored", "recovered", None), at
        assert world.agrees() and world.read()["unfinished"] == [], at
        at += 1


@pytest.mark.parametrize("at", range(2, 24, 2))
@pytest.mark.parametrize("second", range(0, 14, 2))
def test_killed_while_that_is_settled(at, second):
    world = two_releases()
    crashed(world, at, "deploy", "3.0")
    crashed(world, second, "recover")
    assert world.go("deploy", "3.0") in ("deployed", None)
    assert world.serves()[0] == "3.0" and world.agrees()


def test_one_that_does_not_run_is_told_and_started_again():
    world = two_releases()
    world.targets["web2"]["slots"]["green"]["services"].discard("clock")
    targets, routers = world.info()
    told = _status.overview(targets, routers, world.read())
    assert told["problems"] == ["web2 does not run clock of 2.0"]
    assert world.plan("deploy", "2.0")["steps"], "to say that there is nothing to do would be wrong"
    plan = world.plan("recover")
    assert [(step["verb"], step["hosts"]) for step in plan["steps"]] == [("start", ["web2"])]
    assert world.carry_out(plan) == "recovered" and world.agrees()
    assert world.go("recover") is None


def test_one_that_runs_beside_the_live_slot_is_told_and_stopped():
    world = two_releases()
    world.targets["web1"]["slots"]["blue"]["services"].add("clock")
    targets, routers = world.info()
    told = _status.overview(targets, routers, world.read())
    assert told["problems"] == ["web1 runs clock in blue, beside the live green"]
    assert world.go("recover") == "recovered"
    assert services(world, "blue") == ["backend", "frontend"]


ACTS = st.tuples(
    st.sampled_from(["deploy", "deploy", "deploy", "rollback", "promote", "abort", "cleanup", "recover"]),
    st.sampled_from(["1.0", "2.0", "3.0"]),
    st.sampled_from([WORKERS, ROLLING, CANARY]),
    st.none() | st.integers(0, 30),
    st.none() | st.tuples(st.integers(0, 12), st.integers(0, 1)),
)


@pytest.mark.requirement("BG-13")
@settings(max_examples=150, deadline=None)
@given(st.lists(ACTS, max_size=9))
def test_any_life(acts):
    world = World()
    for verb, version, strategy, crash_at, failure in acts:
        world.settings = {"app_keep_releases": 1, **strategy}
        try:
            plan = world.plan(verb, version)
        except RunbookError:
            continue
        step = plan["steps"][failure[0]] if failure and failure[0] < len(plan["steps"]) else None
        bad = [(step["id"], step["hosts"][failure[1] % len(step["hosts"])])] if step else []
        if step and step["phase"] == "settle":
            bad = []
        world.until_crash = crash_at
        try:
            world.carry_out(plan, bad)
        except CrashError:
            continue
        finally:
            world.until_crash = None
        if not _records.held(world.history):
            assert world.agrees()


def problems_of(**service):
    values = {
        "app_name": "shop",
        "app_environment": "test",
        "app_version": "1.0",
        "app_home": "/srv/shop",
        "app_state_dir": "/var/lib/shop",
        "app_url": "http://app.test",
        "app_services": [
            {
                "name": name,
                "port": port,
                "artifact": {"python": ["shop==1.0"]},
                "command": "serve",
                "health": {"path": "/health"},
                "version": {"path": "/version"},
                **more,
            }
            for name, port, more in (
                ("web", 3001, service.pop("web", {})),
                ("worker", 3002, {"exclusive": True, "routed": False, **service}),
            )
        ],
    }
    return list(_model.load(values, SPECS, "deploy")[1])


def test_what_can_not_be_is_refused():
    assert problems_of() == []
    assert problems_of(routed=True) == [
        "app_services[1].exclusive: a service with traffic runs in both slots while it moves; set routed to false"
    ]
    assert problems_of(web={"depends_on": ["worker"]}) == [
        "app_services[0].depends_on: worker is exclusive, so it starts later; remove it there, or make both exclusive"
    ]


def test_which_they_are():
    assert _model.exclusives(models("1.0", exclusive=("mailer",))["web1"]) == ["mailer"]
