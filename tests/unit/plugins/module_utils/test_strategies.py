# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Strategies that replace in place, releases that are held, and the verbs that tidy up, in the world of plain data."""

from __future__ import annotations

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _model, _plan, _records
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from hypothesis import given, settings
from hypothesis import strategies as st
from runbook_world import ROUTERS, CrashError, World, crashed, live_on, phases, place, refused, weights

HOSTS = ("web1", "web2", "web3")
ROLLING = {"app_strategy": "rolling", "watch_seconds": 5}
RECREATE = {"app_strategy": "recreate", "watch_seconds": 5}
HOLD = {"app_strategy": "canary", "app_steps": [{"weight": 10, "hold": True}, {"weight": 50}, {"weight": 100}]}


def rolling(**more):
    return live_on(World(HOSTS, **{**ROLLING, **more}), "1.0", "2.0")


def steps_of(world, *run):
    plan = world.plan(*run)
    return [(step["id"], host) for step in plan["steps"] for host in step["hosts"]]


# -- sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        (["1"], [1, 1, 1, 1, 1]),
        (["2"], [2, 2, 1]),
        (["1", "2"], [1, 2, 2]),
        (["1", "50%"], [1, 2, 2]),
        (["10%"], [1, 1, 1, 1, 1]),
        (["100 %"], [5]),
        (["9"], [5]),
    ],
)
def test_batches(sizes, found):
    hosts = [f"h{number}" for number in range(5)]
    groups = _model.batches(hosts, sizes)
    assert [len(group) for group in groups] == found
    assert [host for group in groups for host in group] == hosts


# -- rolling ----------------------------------------------------------------------------------------------------


def test_rolling_drains_replaces_proves_and_gives_back_batch_after_batch():
    world = rolling()
    plan = world.plan("deploy", "3.0")
    batch = ["drain", "replace", "replace", "shift"]
    assert phases(plan) == ["stage", *batch, "watch", *batch, "watch", *batch, "watch", "verify"]
    assert [step["verb"] for step in plan["steps"][1:5]] == ["shift", "retire", "start", "shift"]
    assert [step["hosts"] for step in plan["steps"][1:4]] == [[*ROUTERS], ["web1"], ["web1"]]
    assert plan["steps"][1]["text"] == "batch 1 of 3: no traffic for web1"
    assert weights(plan)[:3] == [{"green": 100}, {"blue": 100, "green": 100}, {"blue": 100, "green": 100}]
    assert world.carry_out(plan) == "deployed"
    assert world.serves() == ("3.0", "blue") and world.agrees()
    assert all(info["slots"]["green"] is None for info in world.targets.values())
    assert world.least == 2
    assert _plan.banner(plan)[-1] == "rollback: 2.0 is kept on disk; going back replaces it on its hosts again"


def test_the_first_release_is_started_everywhere():
    world = World(HOSTS, **ROLLING)
    assert phases(world.plan("deploy", "1.0")) == ["stage", "start", "shift", "watch", "verify"]


def test_batches_by_size_and_no_watch_between():
    world = rolling(app_batches=["1", "100%"], app_batch_watch_seconds=0)
    plan = world.plan("deploy", "3.0")
    assert [step["hosts"] for step in plan["steps"] if step["verb"] == "start"] == [["web1"], ["web2", "web3"]]
    assert phases(plan).count("watch") == 1


def test_recreate_has_a_gap_and_says_so():
    world = live_on(World(HOSTS, **RECREATE), "1.0", "2.0")
    plan = world.plan("deploy", "3.0")
    assert phases(plan) == ["stage", "drain", "replace", "replace", "shift", "watch", "verify"]
    assert weights(plan) == [{}, {"blue": 100}]
    assert world.carry_out(plan) == "deployed"
    assert world.least == 0


@pytest.mark.parametrize("strategy", ["rolling", "recreate"])
def test_a_rollback_replaces_in_place_and_can_be_rolled_back(strategy):
    world = live_on(World(HOSTS, app_strategy=strategy), "1.0", "2.0")
    plan = world.plan("rollback")
    assert "watch" not in phases(plan) and "stage" not in phases(plan)
    assert world.carry_out(plan) == "restored"
    assert world.serves()[0] == "1.0" and world.agrees()
    assert world.go("rollback", wanted="2.0") == "restored"
    assert world.serves()[0] == "2.0" and world.agrees()


@pytest.mark.requirement("DEP-11")
@pytest.mark.parametrize("verb", ["deploy", "rollback"])
@pytest.mark.parametrize("strategy", [ROLLING, RECREATE, {**ROLLING, "app_batches": ["1", "2"]}])
def test_whatever_fails_in_place_everybody_gets_the_old_release_back(strategy, verb):
    run = (verb, "3.0") if verb == "deploy" else (verb,)
    for step, host in steps_of(live_on(World(HOSTS, **strategy), "1.0", "2.0"), *run):
        world = live_on(World(HOSTS, **strategy), "1.0", "2.0")
        outcome = world.carry_out(world.plan(*run), [(step, host)])
        assert outcome in ("failed", "rolled_back"), step
        assert world.serves()[0] == "2.0" and world.agrees(), step
        assert world.least >= (0 if strategy is RECREATE else 1)
        assert world.go("deploy", "3.0") == "deployed"


def test_a_bad_batch_gives_its_traffic_up_at_once_to_those_that_are_known_to_be_good():
    world = rolling()
    plan = world.plan("deploy", "3.0")
    bad = [(step["id"], "localhost") for step in plan["steps"] if step["phase"] == "watch"][1]
    assert world.carry_out(plan, [bad]) == "rolled_back"
    first = next(step for step in plan["revert"] if step["after"] == "batch 2")
    members = first["args"]["lb1"]["upstreams"][0]["members"]
    assert {(m["address"], m["slot"]) for m in members if m["weight"]} == {("10.0.0.3", "green")}
    assert world.serves() == ("2.0", "green")


def test_a_target_that_a_way_back_left_without_traffic_is_no_longer_hidden_behind_the_others():
    world = rolling()
    plan = world.plan("deploy", "3.0")
    bad = next(step for step in plan["steps"] if step["verb"] == "start")
    last = [step for step in plan["revert"] if step["after"] == "batch 1"][-1]
    assert world.carry_out(plan, [(bad["id"], "web1"), (last["id"], "lb2")]) == "revert_failed"
    assert world.weights["lb1"] == world.weights["lb2"] == {"green": 100}  # alike, but lb2 sends nothing to web1
    assert "lb2 sends less to web1 green than to the others" in refused(world.plan, "deploy", "2.0")
    assert world.go("recover") == "recovered"
    assert world.serves() == ("2.0", "green") and world.agrees()
    assert world.go("recover") is None


AGAIN = [("deploy", "3.0"), ("rollback",), ("recover",), ("deploy", "4.0")]


@pytest.mark.parametrize("again", AGAIN)
@pytest.mark.parametrize("first", [("deploy", "3.0"), ("rollback",)])
@pytest.mark.parametrize("strategy", [ROLLING, RECREATE])
def test_killed_anywhere_in_place_one_more_run_converges(strategy, first, again):
    at = 0
    while True:
        world = live_on(World(HOSTS, **strategy), "1.0", "2.0")
        before, world.least = world.least, len(HOSTS)
        if not crashed(world, at, *first):
            assert at > 10 and before >= 0
            break
        wanted = {"deploy": again[-1], "rollback": None, "recover": None}[again[0]]
        try:
            plan = world.plan(*again)
        except RunbookError as error:
            assert again[0] == "rollback" and "nothing to roll back to" in str(error)
            plan = world.plan("recover")
        assert world.carry_out(plan) in ("deployed", "restored", "recovered", None), at
        assert world.agrees() and world.read()["unfinished"] == [], at
        if wanted:
            version, slot = world.serves()
            assert version == wanted
            idle = "green" if slot == "blue" else "blue"
            assert not any(info["slots"][idle] for info in world.targets.values()), f"{at}: in place means one"
        if strategy is ROLLING:
            assert world.least >= 1, at
        at += 1


@pytest.mark.parametrize("second", range(0, 24, 3))
@pytest.mark.parametrize("at", range(4, 30, 3))
def test_killed_while_that_is_settled(at, second):
    world = rolling()
    crashed(world, at, "deploy", "3.0")
    crashed(world, second, "recover")
    assert world.go("deploy", "3.0") in ("deployed", None)
    assert world.serves()[0] == "3.0" and world.agrees()


# -- held, promoted, aborted ------------------------------------------------------------------------------------


def held(**more):
    world = live_on(World(HOSTS, **{**HOLD, **more}), "1.0")
    plan = world.plan("deploy", "2.0")
    assert phases(plan) == ["stage", "start", "shift", "watch", "verify"]
    assert (plan["success"], plan["weights"]) == ("held", {"green": 10, "blue": 90})
    assert _plan.banner(plan)[-1] == (
        "then it is held at blue 90 %, green 10 %: promote.yml goes on, abort.yml takes it back"
    )
    assert world.carry_out(plan) == "held"
    assert world.weights["lb1"] == {"green": 10, "blue": 90}
    assert _records.live(world.history) == place("1.0", "blue")
    return world


def test_a_held_release_is_promoted_step_by_step():
    world = held(app_steps=[{"weight": 10, "hold": True}, {"weight": 50, "hold": True}, {"weight": 100}])
    world.history[-1]["artifacts"] = {"backend": {"sha256": "1" * 64}}
    plan = world.plan("promote")
    assert plan["artifacts"] == {"backend": {"sha256": "1" * 64}}, "what becomes live is what was made"
    assert (phases(plan), weights(plan)) == (["shift", "watch", "verify"], [{"green": 50, "blue": 50}])
    assert world.carry_out(plan) == "held"
    assert world.go("promote") == "deployed"
    assert world.serves() == ("2.0", "green") and world.agrees()
    assert _records.choose_rollback_target(world.history)["version"] == "1.0"
    assert "nothing to promote: no release is held, 2.0 in green has all traffic" in refused(world.plan, "promote")


def test_a_watch_that_is_unclear_at_a_part_of_the_traffic_holds_the_release():
    """Going on to more traffic would be taking it for good."""
    steps = [{"weight": 10}, {"weight": 50}, {"weight": 100}]
    world = live_on(World(HOSTS, app_strategy="canary", app_steps=steps), "1.0")
    plan = world.plan("deploy", "2.0")
    first, second, last = (step["id"] for step in plan["steps"] if step["phase"] == "watch")
    world.unclear = (second,)
    assert world.carry_out(plan) == "held"
    assert world.weights["lb1"] == {"green": 50, "blue": 50}
    record = world.history[-1]
    assert (record["outcome"], record["weights"]) == ("held", {"green": 50, "blue": 50})
    assert [step["weight"] for step in record["remaining"]] == [100]
    assert _records.live(world.history) == place("1.0", "blue")
    world.unclear = ()
    promoted = world.plan("promote")
    assert weights(promoted) == [{"green": 100}]
    assert world.carry_out(promoted) == "deployed" and world.serves() == ("2.0", "green")
    assert first != last


def test_a_watch_that_is_unclear_at_all_of_the_traffic_goes_on():
    world = live_on(World(HOSTS, app_strategy="canary", app_steps=[{"weight": 50}, {"weight": 100}]), "1.0")
    plan = world.plan("deploy", "2.0")
    world.unclear = tuple(step["id"] for step in plan["steps"] if step["phase"] == "watch")[-1:]
    assert world.carry_out(plan) == "deployed"


def test_a_held_release_is_taken_back():
    world = held()
    assert world.go("abort") == "aborted"
    assert world.serves() == ("1.0", "blue") and world.agrees()
    assert all(info["slots"]["green"] is None for info in world.targets.values())
    assert "nothing to abort" in refused(world.plan, "abort")
    assert world.go("deploy", "2.0") == "held"


def test_an_abort_restores_no_share_first():
    world = held()
    world.send("lb2", {"blue": 70, "green": 30})  # or a pod is lacking, where shares are made by pods
    plan = world.plan("abort")
    assert weights(plan) == [{"blue": 100}]
    assert world.carry_out(plan) == "aborted"
    assert world.serves() == ("1.0", "blue") and world.agrees()


def test_backends_are_told_of_shares_and_of_what_stays():
    world = live_on(World(HOSTS, **{**HOLD, "app_steps": [{"weight": 10}, {"weight": 100}]}), "1.0")
    plan = world.plan("deploy", "2.0")
    start = next(step for step in plan["steps"] if step["verb"] == "start")
    assert {tuple(args["shares"].values()) for args in start["args"].values()} == {(10,)}
    shifts = [step["args"]["lb1"] for step in plan["steps"] if step["verb"] == "shift"]
    assert [sorted(args["releases"]) for args in shifts] == [["blue", "green"], ["green"]]
    assert [sorted(args["prove"]) for args in shifts] == [["blue", "green"], ["green"]]
    assert [args["standby"] for args in shifts] == [[], ["blue"]] and not any(args["back"] for args in shifts)
    assert [step["args"]["lb1"]["back"] for step in plan["revert"] if step["verb"] == "shift"] == [True]
    whole = world.plan("deploy", "3.0", app_steps=[{"weight": 100}])
    start = next(step for step in whole["steps"] if step["verb"] == "start")
    assert all(args["shares"] == {} for args in start["args"].values())


@pytest.mark.parametrize("run", [("deploy", "3.0"), ("deploy", "2.0"), ("rollback",), ("cleanup",)])
def test_while_a_release_is_held_nothing_else_begins(run):
    world = held()
    sentence = refused(world.plan, *run)
    assert sentence.startswith(
        "2.0 in green is held at blue 90 %, green 10 % since run 2: promote.yml goes on with it "
    )


def test_a_promotion_that_fails_takes_the_release_back():
    for step, host in steps_of(held(), "promote"):
        world = held()
        assert world.carry_out(world.plan("promote"), [(step, host)]) == "rolled_back"
        assert world.serves() == ("1.0", "blue") and world.agrees()
        assert all(info["slots"]["green"] is None for info in world.targets.values())


def test_a_held_release_that_no_longer_runs_is_not_promoted():
    world = held()
    world.targets["web2"]["slots"]["green"]["running"] = False
    assert "is held but does not run on web2" in refused(world.plan, "promote")
    assert world.go("abort") == "aborted"


@pytest.mark.parametrize("first", ["promote", "abort", "recover"])
def test_killed_anywhere_while_a_release_is_held(first):
    at = 0
    while True:
        world = held()
        if first == "recover":
            world.targets["web3"]["slots"]["blue"]["running"] = False
        if not crashed(world, at, first):
            break
        assert world.go("recover") in ("recovered", None)
        if _records.held(world.history):
            assert world.weights["lb1"] == world.weights["lb2"] == {"green": 10, "blue": 90}
            assert world.go("abort") == "aborted"
        assert world.agrees() and world.read()["unfinished"] == []
        assert world.go("deploy", "3.0") == "held"
        at += 1
    assert at > 3 and world.read()["unfinished"] == []


# -- tidying up -------------------------------------------------------------------------------------------------


def test_cleanup_stops_the_other_slot_and_a_rollback_still_works():
    world = live_on(World(HOSTS, app_keep_releases=1), "1.0", "2.0", "3.0")
    plan = world.plan("cleanup")
    assert [step["verb"] for step in plan["steps"]] == ["retire"]
    assert world.carry_out(plan) == "cleaned"
    assert world.serves() == ("3.0", "blue") and world.agrees()
    assert all(info["slots"]["green"] is None for info in world.targets.values())
    assert world.go("cleanup") is None
    assert world.go("rollback") == "restored"
    assert world.serves()[0] == "2.0"


def test_cleanup_waits_for_the_soak():
    world = live_on(World(HOSTS), "1.0", "2.0")
    world.history[-1]["ended"] = 70  # and it is 100 now
    sentence = refused(world.plan, "cleanup", app_soak_minutes=2)
    assert sentence.startswith("app_soak_minutes: 2.0 in green is live for less than 2 min, so the other slot stays ")
    assert "for another 1 min 30 s" in sentence
    assert world.go("cleanup") == "cleaned"


def test_a_killed_cleanup_is_finished_by_the_next():
    for at in range(1, 8):
        world = live_on(World(HOSTS), "1.0", "2.0")
        crashed(world, at, "cleanup")
        assert world.go("cleanup") in ("cleaned", None)
        assert world.agrees() and all(info["slots"]["blue"] is None for info in world.targets.values())


def test_recover_puts_routers_back_and_starts_what_does_not_run():
    world = live_on(World(HOSTS), "1.0", "2.0")
    assert world.go("recover") is None
    world.send("lb2", {"blue": 100})
    for info in world.targets.values():
        info["slots"]["green"]["running"] = False
    world.targets["web2"]["slots"]["blue"] = None
    world.shares["lb2"] = {}
    assert world.go("recover") == "recovered"
    assert world.serves() == ("2.0", "green") and world.agrees()


@pytest.mark.parametrize("verb", ["recover", "cleanup", "promote", "abort"])
def test_before_the_first_release_there_is_nothing_to_tidy_up(verb):
    assert refused(World().plan, verb).startswith(f"there is nothing to {verb}: no release ")


# -- any life ---------------------------------------------------------------------------------------------------

ACTS = st.tuples(
    st.sampled_from(["deploy", "deploy", "deploy", "rollback", "promote", "abort", "cleanup", "recover"]),
    st.sampled_from(["1.0", "2.0", "3.0"]),
    st.sampled_from([ROLLING, RECREATE, HOLD, {}]),
    st.none() | st.integers(0, 30),
    st.none() | st.tuples(st.integers(0, 12), st.integers(0, 2)),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(ACTS, max_size=9))
def test_any_life_with_any_strategy(acts):
    """The world asserts that no slot with traffic is touched and that no traffic goes to what does not run."""
    world = World(HOSTS)
    for verb, version, strategy, crash_at, failure in acts:
        world.settings = {"app_keep_releases": 1, **strategy}
        try:
            plan = world.plan(verb, version)
        except RunbookError as error:
            assert any(
                word in str(error) for word in ("there is nothing to ", "is held ", "rollback_to: ", "is no longer on")
            ), error
            continue
        bad = []
        if failure and failure[0] < len(plan["steps"]):
            step = plan["steps"][failure[0]]
            bad = [(step["id"], step["hosts"][failure[1] % len(step["hosts"])])]
        if bad and bad[0][0].endswith("settle"):
            bad = []
        world.until_crash = crash_at
        try:
            outcome = world.carry_out(plan, bad)
        except CrashError:
            continue
        finally:
            world.until_crash = None
        failed = bool(bad) and not bad[0][0].endswith("commit")
        good = ("deployed", "restored", "held", "aborted", "cleaned", "recovered", None)
        assert outcome in (("failed", "rolled_back") if failed else good)
        assert world.read()["unfinished"] == []
        if not _records.held(world.history):
            assert world.agrees()
    world.settings = {}
    if _records.live(world.history) or world.read()["unfinished"]:
        try:
            world.go("recover")
        except RunbookError as error:
            assert "there is nothing to recover" in str(error)  # the first deploy was cut short: nothing is live
        rest = _records.at_rest(world.history)
        if not world.read()["unfinished"]:
            assert all(weights == rest["weights"] for weights in world.weights.values())
