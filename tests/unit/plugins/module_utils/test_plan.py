# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans, and runs of them by the engine in a world of plain data."""

from __future__ import annotations

import copy
import json

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import (
    _engine,
    _plan,
    _reality,
    _records,
    _steps,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._journal import Journal
from hypothesis import given, settings
from hypothesis import strategies as st
from runbook_world import (
    IDS,
    MODELS,
    ROUTERS,
    SECRET,
    TARGETS,
    CrashError,
    World,
    answer,
    crashed,
    live_on,
    models,
    phases,
    place,
    refused,
    weights,
)


@pytest.fixture
def world():
    return World()


# -- plans ------------------------------------------------------------------------------------------------------


def test_first_deploy(world):
    plan = world.plan("deploy", "1.0")
    assert phases(plan) == ["stage", "start", "shift", "watch", "verify"]
    assert [step["id"] for step in plan["steps"]] == ["01-stage", "02-start", "03-shift", "04-watch", "05-verify"]
    hosts = [[*TARGETS], [*TARGETS], [*ROUTERS], ["localhost"], [*TARGETS]]
    assert [step["hosts"] for step in plan["steps"]] == hosts
    assert (plan["from"], plan["to"]) == (None, place("1.0", "blue"))
    assert weights(plan) == [{"blue": 100}]
    assert [(step["id"], step["verb"], step["after"]) for step in plan["revert"]] == [
        ("06-revert", "shift", "shift"),
        ("07-revert", "retire", "start"),
    ]
    assert weights(plan, "revert") == [{}]
    assert world.carry_out(plan) == "deployed"
    assert world.serves() == ("1.0", "blue")


def test_upgrade_takes_the_other_slot_and_can_go_back(world):
    live_on(world, "1.0")
    plan = world.plan("deploy", "2.0")
    assert (plan["from"], plan["to"]) == (place("1.0", "blue"), place("2.0", "green"))
    assert phases(plan) == ["stage", "start", "shift", "watch", "verify"]
    assert weights(plan) == [{"green": 100}]
    assert weights(plan, "revert") == [{"blue": 100}]
    start = plan["steps"][1]["args"]["web1"]
    assert (start["slot"], start["live_slot"]) == ("green", "blue")
    assert [(s["name"], s["port"]) for s in start["services"]] == [("backend", 13001), ("frontend", 13002)]
    assert start["services"][0]["probes"][-1]["versions"] == ["2.0"]
    assert plan["steps"][0]["args"]["web1"]["present"] is False
    assert plan["steps"][0]["args"]["web1"]["in_use"] == [IDS["1.0"]]
    assert plan["success"] == "deployed"
    live_on(world, "2.0", "3.0")
    assert world.serves() == ("3.0", "blue")


def test_the_same_again_has_no_steps(world):
    live_on(world, "1.0", "2.0")
    before = copy.deepcopy(world.__dict__)
    plan = world.plan("deploy", "2.0")
    assert (plan["steps"], plan["revert"], plan["budget_seconds"]) == ([], [], 0)
    assert plan["to"] == plan["from"] == place("2.0", "green")
    assert world.carry_out(plan) is None
    assert world.__dict__ == before
    assert _plan.banner(plan)[1] == "nothing to do: it is live"


def test_a_version_that_was_live_before_is_not_made_again(world):
    live_on(world, "1.0", "2.0")
    plan = world.plan("deploy", "1.0")
    assert plan["steps"][0]["args"]["web1"]["present"] is True
    assert plan["to"] == place("1.0", "blue")


@pytest.mark.parametrize(
    ("illness", "note"),
    [
        ("stopped", "web2 does not run it"),
        ("gone", "web2 does not run it"),
        ("another", "web2 does not run it"),
        ("probe", "web2: backend version: refused"),
        ("router", "lb2: frontend version: refused"),
    ],
)
def test_live_but_ill_is_made_anew_in_the_other_slot(world, illness, note):
    live_on(world, "1.0")
    targets, routers = world.info()
    slot = targets["web2"]["slots"]["blue"]
    if illness == "stopped":
        slot["running"] = False
    elif illness == "gone":
        targets["web2"]["slots"]["blue"] = None
    elif illness == "another":
        slot["release"] = IDS["2.0"]
    elif illness == "probe":
        slot["answers"] = [{"name": "backend version", "passed": False, "problem": "refused", "observed": None}]
    else:
        routers["lb2"]["answers"] = [answer(None, "refused")]
    request = {"verb": "deploy", "version": "1.0", "reason": "cure"}
    plan = _plan.make(request, MODELS["1.0"], targets, routers, world.read())
    assert plan["notes"] == [f"1.0 is live but not well, so it is made anew: {note}"]
    assert (plan["from"], plan["to"]) == (place("1.0", "blue"), place("1.0", "green"))
    assert phases(plan) == ["stage", "start", "shift", "watch", "verify"]
    assert weights(plan, "revert") == [{"blue": 100}]


def test_a_live_release_with_a_sick_data_store_is_not_made_anew_but_said(world):
    live_on(world, "1.0")
    ill = {"name": "backend health", "passed": False, "problem": "HTTP 503", "observed": 503}
    world.targets["web2"]["slots"]["blue"]["answers"] = [ill]
    plan = world.plan("deploy", "1.0")
    assert plan["steps"] == []
    assert _plan.banner(plan)[1:] == ["nothing to do: it is live", "but not well: web2: backend health: HTTP 503"]


def test_an_ill_live_release_can_be_replaced_by_another(world):
    live_on(world, "1.0")
    world.targets["web2"]["slots"]["blue"]["running"] = False
    assert phases(world.plan("deploy", "2.0")) == ["stage", "start", "shift", "watch", "verify"]


def test_steps_of_the_strategy(world):
    steps = [{"weight": 5, "watch_seconds": 10}, {"weight": 50}, {"weight": 100, "watch_seconds": 0}]
    live_on(world, "1.0")
    plan = world.plan("deploy", "2.0", app_steps=steps)
    assert phases(plan) == ["stage", "start", "shift", "watch", "shift", "watch", "shift", "verify"]
    assert weights(plan) == [{"green": 5, "blue": 95}, {"green": 50, "blue": 50}, {"green": 100}]
    shifts = [step["args"]["lb1"]["confirm"][0]["versions"] for step in plan["steps"] if step["phase"] == "shift"]
    assert shifts == [["2.0", "1.0"], ["2.0", "1.0"], ["2.0"]]
    watches = [step["args"]["localhost"] for step in plan["steps"] if step["phase"] == "watch"]
    assert [(watch["seconds"], watch["probes"][0]["versions"]) for watch in watches] == [
        (10, ["2.0", "1.0"]),
        (60, ["2.0", "1.0"]),  # without an own length that of watch_seconds
    ]
    assert world.carry_out(plan) == "deployed"
    assert world.serves() == ("2.0", "green")


def test_a_first_deploy_has_nothing_to_share_the_traffic_with(world):
    plan = world.plan("deploy", "1.0", app_steps=[{"weight": 5, "watch_seconds": 10}, {"weight": 100}])
    assert weights(plan) == [{"blue": 100}]


def test_without_a_watch_there_is_no_watch_step(world):
    assert phases(world.plan("deploy", "1.0", watch_seconds=0)) == ["stage", "start", "shift", "verify"]


def test_each_host_has_its_own_runtime_and_router(world):
    mixed = models("1.0")
    mixed["web2"] = {**mixed["web2"], "app_runtime": "compose", "compose_files": [], "runtime_compose_variables": {}}
    mixed["web2"]["app_services"] = [{**s, "artifact": None, "image": "shop"} for s in mixed["web2"]["app_services"]]
    mixed["lb2"] = {**mixed["lb2"], "app_router": "haproxy"}
    request = {"verb": "deploy", "version": "1.0", "reason": "x"}
    plan = _plan.make(request, mixed, *world.info(), world.read())
    roles = {step["phase"]: step["roles"] for step in plan["steps"]}
    runtimes = {"web1": "signalbox.runbook.runtime_host", "web2": "signalbox.runbook.runtime_compose"}
    assert roles["stage"] == roles["start"] == roles["verify"] == runtimes
    assert roles["shift"] == {"lb1": "signalbox.runbook.router_nginx", "lb2": "signalbox.runbook.router_haproxy"}
    assert roles["watch"] == {"localhost": "signalbox.runbook.watch"}
    assert plan["artifacts"]["backend"] == {"python": ["clickview==1.0"], "image": "shop"}


def test_routers_of_their_own_host_only(world):
    local = models("1.0", app_router_members="local")
    targets, _routers = world.info()
    routers = {host: {"weights": {}, "answers": []} for host in TARGETS}
    request = {"verb": "deploy", "version": "1.0", "reason": "x"}
    plan = _plan.make(request, local, targets, routers, world.read())
    shift = next(step for step in plan["steps"] if step["phase"] == "shift")
    assert shift["hosts"] == [*TARGETS]
    members = {host: {m["address"] for m in shift["args"][host]["upstreams"][0]["members"]} for host in TARGETS}
    assert members == {"web1": {"10.0.0.1"}, "web2": {"10.0.0.2"}}


# -- rollbacks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("standing", [True, False])
def test_rollback_goes_to_the_previous_release_at_once(world, standing):
    live_on(world, "1.0", "2.0")
    if not standing:  # stopped since, or replaced: it is started from the release that is still there
        for info in world.targets.values():
            info["slots"]["blue"] = None
    plan = world.plan("rollback")
    assert (plan["from"], plan["to"]) == (place("2.0", "green"), place("1.0", "blue"))
    assert phases(plan) == ["start", "shift", "verify"]
    assert weights(plan) == [{"blue": 100}]
    assert plan["success"] == "restored"
    assert world.carry_out(plan) == "restored"
    assert world.serves() == ("1.0", "blue")


def test_rollback_by_name_and_forward_again(world):
    live_on(world, "1.0", "2.0", "3.0")
    assert world.go("rollback", wanted="1.0") == "restored"
    assert world.serves() == ("1.0", "green")
    assert "there is nothing to roll back to" in refused(world.plan, "rollback")
    assert world.go("rollback", wanted=IDS["3.0"]) == "restored"
    assert world.serves() == ("3.0", "blue")
    assert world.plan("rollback")["to"]["version"] == "2.0"


def test_rollback_to_a_release_that_a_target_has_no_more(world):
    live_on(world, "1.0", "2.0")
    world.targets["web2"]["releases"] = [{"id": IDS["2.0"]}]
    assert refused(world.plan, "rollback") == (
        f"1.0 ({IDS['1.0']}) is no longer on web2, so no rollback can go to it; nothing has been touched. "
        "Deploy it instead: deploy.yml -e app_version=1.0"
    )


# -- refusals ---------------------------------------------------------------------------------------------------


def test_who_can_not_be_reached_is_named_and_nothing_is_planned(world):
    live_on(world, "1.0")
    targets, routers = world.info()
    targets["web2"] = {"problem": "is unreachable (no route to host)"}
    routers["lb1"] = {"problem": "permission denied"}
    request = {"verb": "deploy", "version": "2.0", "reason": "x"}
    assert refused(_plan.make, request, MODELS["2.0"], targets, routers, world.read()) == (
        "2 of 4 hosts can't take part, so none does; nothing has been touched. "
        "web2: is unreachable (no route to host); lb1: permission denied"
    )


def test_a_host_that_is_target_and_router_must_answer_as_both():
    for looks in (({"a": {"problem": "no"}}, {"a": {}}), ({"a": {}}, {"a": {"problem": "no"}})):
        assert refused(_plan.reachable, *looks).startswith("1 of 1 hosts can't take part")
    _plan.reachable({"a": {}}, {"a": {}})


@pytest.mark.parametrize(
    ("real", "seen", "sentence"),
    [
        ({"green": 100}, "1.0", "lb2 sends green 100 % instead of blue 100 %"),
        ({"blue": 50, "green": 50}, "1.0", "lb2 sends blue 50 %, green 50 % instead of blue 100 %"),
        ({}, None, "lb2 sends no traffic instead of blue 100 %"),
        ({"blue": 100}, "0.9", "lb2 answers '0.9' to frontend version, not 1.0"),
    ],
)
def test_drift_stops_or_is_put_back(world, real, seen, sentence):
    live_on(world, "1.0")
    targets, routers = world.info()
    routers["lb2"] = {"weights": real, "answers": [answer(seen)] if seen else []}
    request = {"verb": "deploy", "version": "2.0", "reason": "x"}
    assert refused(_plan.make, request, MODELS["2.0"], targets, routers, world.read()) == (
        f"what is live is not what the records say (1.0 in blue): {sentence}. Nothing has been touched. "
        "Find out who changed it; -e app_drift=restore puts the routers back first"
    )
    restore = models("2.0", app_drift="restore")
    plan = _plan.make(request, restore, targets, routers, world.read())
    assert phases(plan) == ["settle", "stage", "start", "shift", "watch", "verify"]
    assert weights(plan) == [{"blue": 100}, {"green": 100}]
    assert plan["notes"] == [f"drift: {sentence}"]
    same = {"verb": "deploy", "version": "1.0", "reason": "x"}
    plan = _plan.make(same, models("1.0", app_drift="restore"), targets, routers, world.read())
    assert phases(plan) == ["settle"]  # the release itself is well


def test_traffic_before_the_first_deploy_is_drift(world):
    world.send("lb1", {"blue": 100})
    assert "(no release): lb1 sends blue 100 % instead of no traffic" in refused(world.plan, "deploy", "1.0")


def test_a_router_without_answer_is_no_drift(world):
    live_on(world, "1.0")
    targets, routers = world.info()
    routers["lb1"]["answers"] = [answer(None, "timed out")]
    request = {"verb": "deploy", "version": "2.0", "reason": "cure"}
    plan = _plan.make(request, MODELS["2.0"], targets, routers, world.read())
    assert phases(plan) == ["stage", "start", "shift", "watch", "verify"]


@pytest.mark.requirement("BG-11")
def test_the_record_knows_slot_version_and_time_and_reality_that_differs_stops_the_run(world, tmp_path):
    live_on(world, "1.0")
    journal = Journal(tmp_path, lambda: 1763726400.0)
    journal.open({"user": "anna"}, "deploy", 60, 0, world.plan("deploy", "2.0"))
    assert world.go("deploy", "2.0") == "deployed"
    journal.close(1, 1, [], {**world.history[-1]})
    read = Journal(tmp_path).read()
    assert read["history"][0]["ended"] == 1763726400.0
    assert {read["history"][0][key]["slot"]: read["history"][0][key]["version"] for key in ("from", "to")} == {
        "blue": "1.0",
        "green": "2.0",
    }
    assert _records.live(read["history"]) == place("2.0", "green")
    targets, routers = world.info()
    request = {"verb": "deploy", "version": "3.0", "reason": "x"}
    assert _plan.make(request, MODELS["3.0"], targets, routers, read)["to"] == place("3.0", "blue")
    routers["lb1"]["weights"] = {"blue": 100}
    assert "lb1 sends blue 100 % instead of green 100 %" in refused(
        _plan.make, request, MODELS["3.0"], targets, routers, read
    )


# -- retention --------------------------------------------------------------------------------------------------


def test_there_is_a_prune_step_only_when_something_goes(world):
    keep = {"app_keep_releases": 2}
    for version, expected in (("1.0", []), ("2.0", []), ("3.0", ["1.0"]), ("4.0", ["2.0"])):
        plan = world.plan("deploy", version, **keep)
        removed = [step["args"]["web1"]["remove"] for step in plan["steps"] if step["phase"] == "commit"]
        assert removed == ([[IDS[one] for one in expected]] if expected else [])
        assert world.carry_out(plan) == "deployed"
    present = [release["id"] for release in world.targets["web1"]["releases"]]
    assert present == [IDS["3.0"], IDS["4.0"]]
    assert phases(world.plan("rollback")) == ["start", "shift", "verify"]  # what it needs is still there


def test_pinned_releases_stay_and_only_the_hosts_that_have_something_take_part(world):
    more = {"app_keep_releases": 1, "app_pinned_releases": ["1.0"]}
    live_on(world, "1.0", "2.0", "3.0")
    plan = world.plan("deploy", "4.0", **more)
    prune = plan["steps"][-1]
    assert prune["args"]["web1"]["remove"] == [IDS["2.0"]]
    assert prune["text"] == "1 old releases removed"
    world.targets["web1"]["releases"] = [{"id": IDS[v]} for v in ("1.0", "3.0")]
    assert world.plan("deploy", "4.0", **more)["steps"][-1]["hosts"] == ["web2"]


# -- current and previous ---------------------------------------------------------------------------------------


def linked(world):
    """What the links of every target say; they are as the last commit step made them."""
    return {host: (info["links"]["current"], info["links"]["previous"]) for host, info in world.targets.items()}


@pytest.fixture
def linking(world):
    for info in world.targets.values():
        info["links"] = {"current": "", "previous": "", "problem": ""}
    plain = world._prune

    def prune(host, args, bad):
        if args["remove"]:
            plain(host, args, bad)
        present = {release["id"] for release in world.targets[host]["releases"]}
        assert set(filter(None, args["links"].values())) <= present
        world.targets[host]["links"] = {**args["links"], "problem": ""}

    world._prune = prune
    return world


@pytest.mark.requirement("REL-03")
def test_links_name_what_is_live_and_where_a_rollback_goes(linking):
    live_on(linking, "1.0")
    assert set(linked(linking).values()) == {(IDS["1.0"], "")}
    live_on(linking, "2.0", "3.0")
    assert set(linked(linking).values()) == {(IDS["3.0"], IDS["2.0"])}
    assert linking.go("deploy", "4.0", bad=[("02-start", "web2")]) == "failed"
    assert set(linked(linking).values()) == {(IDS["3.0"], IDS["2.0"])}, "a release that failed is never named"
    assert linking.go("rollback") == "restored"
    assert set(linked(linking).values()) == {(IDS["2.0"], IDS["1.0"])}


@pytest.mark.requirement("REL-03")
def test_links_change_only_after_the_point_of_no_return(linking):
    live_on(linking, "1.0", "2.0")
    plan = linking.plan("deploy", "3.0")
    assert [step["phase"] for step in plan["steps"] if any("links" in args for args in step["args"].values())] == [
        "commit"
    ]
    assert plan["steps"][-1]["text"] == "current is linked"


def test_links_that_a_killed_run_left_are_put_right_by_the_next(linking):
    live_on(linking, "1.0", "2.0")
    linking.targets["web2"]["links"] = {"current": IDS["1.0"], "previous": "", "problem": ""}
    plan = linking.plan("deploy", "2.0")
    assert [(step["phase"], step["hosts"]) for step in plan["steps"]] == [("commit", ["web2"])]
    assert linking.carry_out(plan) == "deployed"
    assert set(linked(linking).values()) == {(IDS["2.0"], IDS["1.0"])}
    assert linking.plan("deploy", "2.0")["steps"] == []
    assert _records.choose_rollback_target(linking.history)["release"] == IDS["1.0"]


def test_without_links_nothing_is_planned_for_them(world):
    live_on(world, "1.0", "2.0")
    assert phases(world.plan("deploy", "3.0")) == ["stage", "start", "shift", "watch", "verify"]


# -- plain data, budget, banner ---------------------------------------------------------------------------------


def every_plan():
    world = World()
    plans = [world.plan("deploy", "1.0")]
    live_on(world, "1.0", "2.0", "3.0")
    steps = [{"weight": 5}, {"weight": 100}]
    plans += [
        world.plan("deploy", "3.0"),
        world.plan("deploy", "4.0", app_keep_releases=1, app_steps=steps),
        world.plan("rollback"),
    ]
    world.until_crash = 11
    with pytest.raises(CrashError):
        world.go("deploy", "4.0")
    world.until_crash = None
    return [*plans, world.plan("deploy", "4.0"), world.plan("deploy", "3.0")]


@pytest.mark.requirement("REC-07")
def test_plans_are_plain_data_without_secrets_and_so_is_what_the_journal_keeps(tmp_path):
    for number, plan in enumerate(every_plan()):
        text = json.dumps(plan)
        assert json.loads(text) == plan
        assert SECRET not in text
        assert "clickview==1.0" not in json.dumps({**plan, "artifacts": {}})  # it only names what it is made of
        assert all(step["timeout_seconds"] >= step["budget_seconds"] + 30 for step in plan["steps"] + plan["revert"])
        assert plan["budget_seconds"] == sum(step["budget_seconds"] for step in plan["steps"])
        ids = [step["id"] for step in [*plan["steps"], *plan["revert"]]]
        assert len(set(ids)) == len(ids)
        journal = Journal(tmp_path / str(number), lambda: 1763726400.0)
        journal.open({"user": "anna"}, plan["reason"], 60, 0, plan, settled=plan["settles"])
        journal.close(1, 1, [], _engine.record(_engine.begin(plan, 0), None, {}))
    kept = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any('"plan"' in text for text in kept)
    assert not [text for text in kept if SECRET in text]


def test_budgets(world):
    live_on(world, "1.0", "2.0", "3.0", "4.0", "5.0")
    plan = world.plan("deploy", "6.0")
    budgets = {step["phase"]: step["budget_seconds"] for step in plan["steps"]}
    shift = _steps.SHIFT_SECONDS
    once_more = _steps.VERIFY_SECONDS
    assert budgets == {
        "stage": 600,
        "start": 2 * (20 + 5 + 10),
        "shift": shift,
        "watch": 90,
        "verify": once_more,
        "commit": 120,
    }
    assert plan["budget_seconds"] == 600 + 70 + shift + 90 + once_more + 120


def test_waiting_until_a_process_of_systemd_is_stable_has_its_time(world):
    more = {"runtime_host_manager": "systemd", "runtime_host_stable_seconds": 4}
    start = next(step for step in world.plan("deploy", "1.0", **more)["steps"] if step["phase"] == "start")
    assert start["budget_seconds"] == 2 * (20 + 5 + 10) + 2 * 4


def test_banner(world):
    most = _plan.duration(600 + 70 + _steps.SHIFT_SECONDS + 90 + _steps.VERIFY_SECONDS)
    assert _plan.banner(world.plan("deploy", "1.0")) == [
        f"clickview (none) -> 1.0   production   blue-green, 2 targets   at most {most}",
        f"release {IDS['1.0']} in blue on web1, web2",
        "  01-stage    1.0   on web1, web2",
        "  02-start    blue 1.0 healthy   on web1, web2",
        "  03-shift    blue 100 %   on lb1, lb2",
        "  04-watch    60 s",
        "  05-verify   blue 1.0 still healthy   on web1, web2",
        "rollback: none, this is the first release; a failure leaves no traffic",
    ]
    live_on(world, "1.0")
    assert _plan.banner(world.plan("deploy", "1.0"))[1] == "nothing to do: it is live"
    lines = _plan.banner(world.plan("deploy", "2.0", app_steps=[{"weight": 10}, {"weight": 100}]))
    assert lines[0].startswith("clickview 1.0 -> 2.0   production   blue-green, 2 targets   at most ")
    assert "  03-shift    blue 90 %, green 10 %   on lb1, lb2" in lines
    assert lines[-1] == "rollback: 1.0 stays in blue; going back is one shift"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (60, "1 min 0 s"), (790, "13 min 10 s")]
)
def test_duration(seconds, text):
    assert _plan.duration(seconds) == text


# -- runs that did not end --------------------------------------------------------------------------------------


def events_of(verb, bad=()):
    """(world before the run, its plan, all its events) of a run from 2.0 in green to blue."""
    world = live_on(World(), "1.0", "2.0")
    before = copy.deepcopy(world)
    plan = world.plan(verb, "3.0")
    world.carry_out(plan, bad)
    return before, plan, world.runs[3]


RUNS = {
    "deploy": events_of("deploy"),
    "rollback": events_of("rollback"),
    "deploy that fails to start": events_of("deploy", [("02-start", "web2")]),
    "deploy that fails its watch": events_of("deploy", [("04-watch", "localhost")]),
    "rollback that fails to shift": events_of("rollback", [("02-shift", "lb2")]),
}
CUTS = [(name, length) for name, (_world, _plan_, events) in RUNS.items() for length in range(len(events) + 1)]


def reality(plan, old, new):
    """Targets on which the old and the new place stand or not; one that is gone is gone on web2 only."""
    targets = {host: {"releases": [], "slots": {"blue": None, "green": None}} for host in TARGETS}
    for one, stands in ((plan["from"], old), (plan["to"], new)):
        for host in TARGETS:
            running = stands or host == "web1"
            targets[host]["slots"][one["slot"]] = {"release": one["release"], "version": "", "running": running}
    return targets


@pytest.mark.parametrize(("old", "new"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize(("name", "length"), CUTS)
def test_a_run_cut_short_anywhere_is_settled_by_the_rules(name, length, old, new):
    before, plan, events = RUNS[name]
    cut = events[:length]
    unfinished = [{"run": 3, "events": cut}]
    targets, live = reality(plan, old, new), _records.live(before.history)
    settled, records = _reality.settle(unfinished, live, targets)
    words = [event["event"] for event in cut]
    moved = any(event["event"] == "intent" and event["phase"] == "shift" for event in cut)
    failed = any(event["event"] == "result" and not event["ok"] for event in cut)
    passed = "committed" in words
    forward = passed or (plan["verb"] == "rollback" and moved and not failed)
    finished = (forward and (new or not old)) or (moved and new and not old)
    assert settled == (plan["to"] if finished else plan["from"])
    assert [(record["run"], record["outcome"]) for record in records] == [
        (3, plan["success"] if finished else "interrupted")
    ]
    if length:
        assert (records[0]["from"], records[0]["to"], records[0]["verb"]) == (plan["from"], plan["to"], plan["verb"])
        why = records[0]["reason"].partition(": ")[2]
        assert ("watch had passed" in why) == (passed and finished)
        assert ("moved no traffic" in why) == (not moved)
    else:
        assert records[0]["to"]["release"] == ""


def test_a_first_deploy_that_did_not_end_leaves_no_traffic(world):
    world.until_crash = 11
    with pytest.raises(CrashError):
        world.go("deploy", "1.0")
    world.until_crash = None
    assert world.weights["lb1"] == {"blue": 100}
    plan = world.plan("deploy", "1.0")
    assert phases(plan) == ["settle", "settle", "stage", "start", "shift", "watch", "verify"]
    assert weights(plan) == [{}, {"blue": 100}]
    assert plan["notes"] == ["run 1 did not end; traffic goes to no release first"]
    assert world.carry_out(plan) == "deployed"
    assert world.agrees()


@pytest.mark.parametrize("strategy", ["blue_green", "rolling", "recreate"])
def test_a_settled_live_place_that_does_not_run_is_started_again_from_its_release(world, strategy):
    live_on(world, "1.0")
    assert crashed(world, 3, "deploy", "2.0")
    world.targets["web1"]["slots"]["blue"]["running"] = False
    plan = world.plan("recover", app_strategy=strategy)
    assert plan["notes"][1] == "1.0 in blue does not run on web1: it is started again"
    assert world.carry_out(plan) == "recovered"
    assert world.serves() == ("1.0", "blue")
    assert world.agrees() and world.read()["unfinished"] == []


@pytest.mark.parametrize("strategy", ["rolling", "recreate"])
def test_what_settling_started_again_is_stopped_before_the_next_release_replaces_it(world, strategy):
    """Killed while it replaced the live release on web1, where nothing was left in its slot."""
    live_on(world, "1.0")
    assert crashed(world, 3, "deploy", "2.0")
    world.targets["web1"]["slots"]["blue"] = None
    plan = world.plan("deploy", "2.0", app_strategy=strategy)
    assert "1.0 in blue does not run on web1: it is started again" in plan["notes"]
    stopped = [s for s in plan["steps"] if (s["phase"], s["verb"]) == ("replace", "retire")]
    assert sorted(host for step in stopped for host in step["hosts"]) == sorted(world.targets)


def test_a_settled_live_place_that_is_gone_from_disk_is_named(world):
    live_on(world, "1.0")
    assert crashed(world, 3, "deploy", "2.0")
    world.targets["web1"]["slots"]["blue"] = None
    world.targets["web1"]["releases"] = []
    assert refused(world.plan, "deploy", "2.0") == (
        "1.0 in blue is to be live, but neither runs nor is on disk any more on web1; nothing has been touched. "
        "Bring its release directory back there, then run this again"
    )


@pytest.mark.parametrize("at", range(1, 24))
@pytest.mark.parametrize(
    ("first", "again", "ends"),
    [
        (("deploy", "3.0"), ("deploy", "3.0"), "3.0"),  # the same command again finishes it
        (("deploy", "3.0"), ("rollback",), "2.0"),  # nobody wants it any more
        (("deploy", "3.0"), ("deploy", "4.0"), "4.0"),
        (("rollback",), ("rollback",), "1.0"),
        (("rollback",), ("deploy", "3.0"), "3.0"),
    ],
)
def test_after_a_crash_anywhere_the_next_command_does_what_it_says(at, first, again, ends):
    world = live_on(World(), "1.0", "2.0")
    if not crashed(world, at, *first):
        assert at >= 10
        return
    assert world.go(*again) in ("deployed", "restored", None)
    assert world.agrees()
    assert world.read()["unfinished"] == []
    assert world.serves()[0] == ends


@pytest.mark.parametrize("second", range(16))
@pytest.mark.parametrize("at", range(0, 14, 2))
def test_a_crash_while_a_crash_is_settled(at, second):
    world = live_on(World(), "1.0", "2.0")
    crashed(world, at, "deploy", "3.0")
    crashed(world, second, "deploy", "3.0")
    assert world.go("deploy", "3.0") in ("deployed", None)
    assert world.serves()[0] == "3.0"
    assert world.agrees()
    runs = [record["run"] for record in world.history]
    assert sorted(runs) == sorted(set(runs))


def test_a_rollback_that_only_undid_a_run_did_not_leave_the_live_release(world):
    live_on(world, "1.0", "2.0")
    assert crashed(world, 9, "deploy", "3.0")
    assert world.go("rollback") == "restored"
    assert world.serves() == ("2.0", "green")
    live_on(world, "4.0")
    assert world.plan("rollback")["to"]["version"] == "2.0"


@pytest.mark.parametrize(
    ("observed", "passed", "wanted"),
    [
        ("1.0", True, ["shift"]),
        ("9.9", True, ["start", "shift", "verify"]),
        ("1.0", False, ["start", "shift", "verify"]),
    ],
)
def test_a_rollback_to_a_slot_that_stands_and_answers_is_one_shift(world, observed, passed, wanted):
    live_on(world, "1.0", "2.0")
    for info in world.targets.values():
        answer = {
            "name": "backend version",
            "passed": passed,
            "observed": observed,
            "problem": "" if passed else "slow",
        }
        info["slots"]["blue"]["answers"] = [answer]
    assert phases(world.plan("rollback")) == wanted


def test_when_settling_fails_nothing_else_is_done_and_the_next_run_says_so(world):
    live_on(world, "1.0", "2.0")
    assert crashed(world, 11, "deploy", "3.0")  # one router of two has moved
    assert world.go("deploy", "3.0", bad=[("01-settle", "lb1")]) == "failed"
    assert world.weights == {"lb1": {"blue": 100}, "lb2": {"green": 100}}
    assert _records.live(world.history) == place("2.0", "green")
    assert "lb1 sends blue 100 % instead of green 100 %" in refused(world.plan, "deploy", "3.0")
    assert world.go("deploy", "3.0", app_drift="restore") == "deployed"
    assert world.agrees()


def test_when_the_way_back_fails_what_may_have_traffic_is_not_stopped(world):
    live_on(world, "1.0")
    plan = world.plan("deploy", "2.0")
    assert world.carry_out(plan, [("04-watch", "localhost"), ("06-revert", "lb2")]) == "revert_failed"
    assert world.weights == {"lb1": {"blue": 100}, "lb2": {"green": 100}}
    assert all(info["slots"]["green"]["running"] for info in world.targets.values())
    assert "lb2 sends green 100 % instead of blue 100 %" in refused(world.plan, "deploy", "2.0")
    assert world.go("recover") == "recovered"
    assert world.agrees()
    assert not any(world.targets[host]["slots"]["green"] for host in TARGETS)
    assert world.go("recover") is None


def test_what_a_lost_target_still_runs_of_the_release_that_failed_is_stopped_by_recover(world):
    live_on(world, "1.0", "2.0")
    plan = world.plan("deploy", "3.0")
    start, back = plan["steps"][1]["id"], plan["revert"][-1]["id"]
    assert world.carry_out(plan, [(start, "web1"), (back, "web2")]) == "revert_failed"
    assert world.serves() == ("2.0", "green")
    assert world.go("recover") == "recovered"
    assert world.agrees() and not any(world.targets[host]["slots"]["blue"] for host in TARGETS)


@pytest.mark.requirement("BG-12")
def test_a_trigger_during_the_watch_switches_back_to_the_slot_that_stands_without_deploying(world):
    live_on(world, "1.0")
    before = copy.deepcopy(world.targets["web1"]["slots"]["blue"])
    plan = world.plan("deploy", "2.0", app_steps=[{"weight": 10}, {"weight": 100}])
    assert world.carry_out(plan, [("04-watch", "localhost")]) == "rolled_back"
    events = [event["phase"] for event in world.runs[2] if event["event"] == "intent"]
    assert events == ["stage", "start", "shift", "watch", "revert", "revert"]
    assert world.serves() == ("1.0", "blue")
    assert world.targets["web1"]["slots"] == {"blue": before, "green": None}


ACTS = st.tuples(
    st.sampled_from(["deploy", "deploy", "deploy", "rollback"]),
    st.sampled_from(sorted(MODELS)),
    st.sampled_from(["previous", *sorted(MODELS)]),
    st.none() | st.integers(0, 24),
    st.none() | st.tuples(st.integers(0, 7), st.integers(0, 1)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ACTS, max_size=8))
def test_any_life_of_an_application(acts):
    """Deploys and rollbacks that fail or crash anywhere, again and again: no slot with traffic is ever touched, no
    traffic goes to what does not run (the world asserts both), and after a run that ended records and routers agree.
    """
    world = World()
    for verb, version, wanted, crash_at, failure in acts:
        try:
            plan = world.plan(verb, version, wanted, app_keep_releases=1, watch_seconds=5)
        except RunbookError as error:
            sentence = str(error)
            assert sentence.startswith(("there is nothing to roll back", "rollback_to: ")) or (
                "is no longer on" in sentence and wanted != "previous"
            )
            continue
        bad = []
        if failure and failure[0] < len(plan["steps"]):
            step = plan["steps"][failure[0]]
            bad = [(step["id"], step["hosts"][failure[1] % len(step["hosts"])])]
        settles = bool(bad) and bad[0][0].endswith("settle")
        world.until_crash = crash_at
        try:
            outcome = world.carry_out(plan, [] if settles else bad)
        except CrashError:
            continue
        finally:
            world.until_crash = None
        failed = bool(bad) and not settles and not bad[0][0].endswith("commit")
        assert outcome in (("failed", "rolled_back") if failed else ("deployed", "restored", None))
        assert world.agrees()
        assert world.read()["unfinished"] == []
        if outcome in ("deployed", "restored"):
            assert world.serves()[0] == plan["to"]["version"]
        if outcome == "deployed" and plan["from"] and plan["from"]["release"] != plan["to"]["release"]:
            back = _records.choose_rollback_target(world.history)["release"]  # the way back was not removed
            assert back == plan["from"]["release"]
            assert all(back in {one["id"] for one in info["releases"]} for info in world.targets.values())
        if live := _records.live(world.history):
            assert all(live["release"] in {one["id"] for one in info["releases"]} for info in world.targets.values())
