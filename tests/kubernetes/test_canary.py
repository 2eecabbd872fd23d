"""A part of the traffic on a real cluster: by numbers of pods through the Service, and the objects of an Ingress."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from chaos import await_event, kill_all, run_numbers
from kubernetes_site import HOST, Site
from load import Load

from runbook_site import Play

START_SECONDS = 90  # ten pods begin at once on one node
REPLICAS = {"runtime_kubernetes_replicas": 10}
CANARY = {
    **REPLICAS,
    "app_strategy": "canary",
    "app_steps": [{"weight": 10, "hold": True}, {"weight": 50}, {"weight": 100}],
    "accounting_requests_per_second": 0,
}
AT_LEAST = 10_000
SLOT = "signalbox.runbook/slot"


def done(play: Play, outcome: str) -> dict[str, Any]:
    assert play.code == 0, play.output
    assert play.report and play.outcome == outcome, play.output
    return play.report


def phases(site: Site) -> list[str]:
    return [phase["phase"] for phase in site.history()[-1]["phases"]]


def ready_pods(site: Site) -> dict[str, int]:
    """Ready pods by slot, those on their way out left out."""
    found: dict[str, int] = {}
    for pod in site.objects("pods"):
        conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", ())}
        if conditions.get("Ready") == "True" and not pod["metadata"].get("deletionTimestamp"):
            slot = pod["metadata"]["labels"][SLOT]
            found[slot] = found.get(slot, 0) + 1
    return found


def endpoints(site: Site, service: str = "demo-backend") -> dict[str, int]:
    """Ready endpoints of a Service by slot, as the cluster has them."""
    slots = {pod["metadata"]["name"]: pod["metadata"]["labels"][SLOT] for pod in site.objects("pods")}
    found: dict[str, int] = {}
    for one in site.objects("endpointslices"):
        if one["metadata"]["labels"].get("kubernetes.io/service-name") != service:
            continue
        for member in one["endpoints"] or ():
            if member["conditions"].get("ready"):
                slot = slots[member["targetRef"]["name"]]
                found[slot] = found.get(slot, 0) + 1
    return found


def scale(site: Site, slot: str, count: int) -> None:
    site.kubectl("scale", "deployment", f"demo-backend-{slot}", f"--replicas={count}", namespaced=True)
    site.kubectl("rollout", "status", "deployment", f"demo-backend-{slot}", "--timeout=60s", namespaced=True)
    deadline = time.monotonic() + 30
    while endpoints(site).get(slot, 0) != count and time.monotonic() < deadline:
        time.sleep(0.2)
    assert endpoints(site)[slot] == count


@pytest.fixture(scope="module", autouse=True)
def first(site: Site) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        site.release(version)
    done(site.deploy("1.0.0", runtime_kubernetes_replicas=3), "deployed")


# -- by numbers of pods -----------------------------------------------------------------------------------------


def test_a_share_that_can_not_be_is_refused_by_the_plan(site: Site) -> None:
    before = site.everything()
    refused = site.deploy("1.1.0", **{**CANARY, "runtime_kubernetes_replicas": 3})
    assert refused.code != 0
    assert (
        "app_steps[0].weight: 10 % of 3 replicas of backend can't be; 33.3 % is possible. Give "
        "runtime_kubernetes_replicas 10, or another weight. Nothing has been touched"
    ) in refused.output, refused.output
    assert site.everything() == before
    done(site.deploy("1.0.0", **REPLICAS), "deployed")
    assert ready_pods(site) == {"blue": 3, "green": 10}


@pytest.mark.requirement("CAN-01")
def test_a_held_canary_gets_its_share_and_stays_as_it_is(site: Site) -> None:
    with Load(site.front_url + "/", rate=100, count=3000) as load:
        done(site.deploy("1.1.0", **CANARY), "held")
    assert load.failures == [] and load.sent >= 3000
    assert ready_pods(site) == {"blue": 1, "green": 9} == endpoints(site)
    assert SLOT not in site.selector()
    with Load(site.front_url + "/", rate=250, count=AT_LEAST) as load:
        pass
    assert load.failures == [] and load.sent == AT_LEAST
    assert set(load.versions) == {"1.0.0", "1.1.0"}
    assert 0.08 <= load.versions["1.1.0"] / AT_LEAST <= 0.12, load.versions
    status = site.run("status")
    assert "all agree" in status.output, status.output
    assert "held: 1.1.0 in blue at blue 10 %, green 90 %" in status.output
    before = site.everything()
    again = site.run("recover", "-v", **CANARY)
    assert again.code == 0 and "nothing to do" in again.output and "changed:" not in again.output, again.output
    refused = site.deploy("1.2.0", **CANARY)
    assert refused.code != 0 and "is held at blue 10 %, green 90 %" in refused.output
    assert site.everything() == before


def test_pods_that_somebody_added_by_hand_are_seen(site: Site) -> None:
    scale(site, "blue", 3)
    status = site.run("status")
    assert f"{HOST} sends blue 25 %, green 75 % instead of blue 10 %, green 90 %" in status.output, status.output
    before = site.everything()
    stopped = site.run("promote", **CANARY)
    assert stopped.code != 0 and "sends blue 25 %, green 75 %" in stopped.output
    assert site.everything() == before
    done(site.run("recover", **CANARY), "recovered")
    assert ready_pods(site) == {"blue": 1, "green": 9} == endpoints(site)
    assert "all agree" in site.run("status").output


@pytest.mark.requirement("CAN-04")
def test_a_canary_is_promoted_and_the_way_back_is_one_shift(site: Site) -> None:
    with Load(site.front_url + "/", rate=100, count=4000) as load:
        done(site.run("promote", **CANARY), "deployed")
        assert phases(site) == ["shift", "shift", "verify"]
        assert site.answers() == {"1.1.0"} and site.live() == "1.1.0"
        # The stable release is the new one, and only what cleanup.yml does removes the old one.
        assert ready_pods(site) == {"blue": 10, "green": 10} and endpoints(site) == {"blue": 10}
        before = site.everything()
        again = site.deploy("1.1.0", "-v", **CANARY)
        assert again.code == 0 and "nothing to do" in again.output and "changed:" not in again.output, again.output
        assert site.everything() == before
        done(site.rollback(**CANARY), "restored")
        assert phases(site) == ["shift"]
    assert load.failures == [] and load.sent >= 4000
    assert set(load.versions) == {"1.0.0", "1.1.0"}
    assert endpoints(site) == {"green": 10}


@pytest.mark.requirement("CAN-05")
def test_a_canary_is_taken_back_and_nothing_of_it_is_an_endpoint(site: Site) -> None:
    with Load(site.front_url + "/", rate=100, count=4000) as load:
        done(site.deploy("1.2.0", **CANARY), "held")
        assert endpoints(site) == {"blue": 1, "green": 9}
        done(site.run("abort", **CANARY), "aborted")
        assert endpoints(site) == {"green": 10} == ready_pods(site)
        assert [one["metadata"]["name"] for one in site.objects("deployments")] == ["demo-backend-green"]
    assert load.failures == [] and load.versions["1.2.0"] > 0
    assert site.answers() == {"1.0.0"}
    assert "all agree" in site.run("status").output


@pytest.mark.requirement("CAN-05")
def test_a_canary_that_turns_bad_is_taken_back_by_its_watch(site: Site) -> None:
    site.release("1.3.0", errors_percent=60, after_seconds=1)
    bad = site.deploy(
        "1.3.0",
        **{
            **CANARY,
            "app_steps": [{"weight": 50}, {"weight": 100}],
            "watch_seconds": 30,
            "watch_interval_seconds": 0.5,
            "watch_window_seconds": 3,
            "accounting_requests_per_second": 50,
        },
    )
    assert bad.code != 0 and bad.outcome == "rolled_back", bad.output
    assert endpoints(site) == {"green": 10} == ready_pods(site)
    assert site.answers() == {"1.0.0"} and site.live() == "1.0.0"


@pytest.mark.parametrize(("number", "seconds"), [(1, 0.5), (1, 3.0), (2, 2.0), (3, 2.0)])
def test_killed_in_the_middle_of_a_shift_the_next_run_settles_it(site: Site, number: int, seconds: float) -> None:
    steps = [{"weight": 10}, {"weight": 50}, {"weight": 100}]
    assert site.live() == "1.0.0"
    last = max(run_numbers(site), default=0)
    with Load(site.front_url + "/", rate=50, count=2000) as load:
        process = site.start("deploy", **{**CANARY, "app_version": "1.1.0", "app_steps": steps})
        step = f"{number + 2:02d}-shift"  # after stage and start
        await_event(site, last, lambda event: event["event"] == "intent" and event["step"] == step)
        time.sleep(seconds)
        kill_all(process)
        process.communicate()
        settled = site.deploy("1.0.0", **{**CANARY, "app_steps": steps})
        assert settled.code == 0, settled.output
    assert load.failures == []
    assert site.answers() == {"1.0.0"} and site.live() == "1.0.0"
    assert endpoints(site) == {"green": 10} == ready_pods(site)
    assert site.history()[-1]["outcome"] != "held" and "interrupted" in [r["outcome"] for r in site.history()[-2:]]
    assert "all agree" in site.run("status").output


# -- by an Ingress ----------------------------------------------------------------------------------------------

# No ingress controller runs in the lab: what is tested is the objects, checked by the API server, and what stands
# behind them. That ingress-nginx shares the traffic by them is its own promise.
BY_INGRESS = {
    **CANARY,
    "runtime_kubernetes_replicas": 2,
    "router_kubernetes_share": "ingress",
    "router_kubernetes_ingress": "front",
}
NGINX = "nginx.ingress.kubernetes.io/"


def front(site: Site, service: str = "demo-backend") -> None:
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"name": "http"}}}}
    other = {"path": "/x", "pathType": "Exact", "backend": {"service": {"name": "another", "port": {"number": 1}}}}
    obj = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": "front",
            "annotations": {"kubernetes.io/ingress.class": "nginx", f"{NGINX}rewrite-target": "/", "owner/x": "y"},
        },
        "spec": {"rules": [{"host": "shop.test", "http": {"paths": [path, other]}}]},
    }
    site.kubectl("apply", "-f", "-", namespaced=True, given=json.dumps(obj))


def canaries(site: Site) -> list[str]:
    return [
        f"{one['kind']} {one['metadata']['name']}"
        for one in site.objects("ingresses.networking.k8s.io,services")
        if "canary" in one["metadata"]["name"]
    ]


def test_an_ingress_that_can_not_carry_it_is_refused(site: Site) -> None:
    before = site.everything()
    absent = site.deploy("1.1.0", **BY_INGRESS)
    assert absent.code != 0
    assert f"router_kubernetes_ingress: there is no Ingress front in {site.namespace}" in absent.output, absent.output
    front(site, "somebody-else")
    elsewhere = site.deploy("1.1.0", **BY_INGRESS)
    assert "has no rule that leads to Service demo-backend" in elsewhere.output, elsewhere.output
    assert site.everything() == before


def test_a_canary_ingress_stands_beside_the_users(site: Site) -> None:
    front(site)
    play = site.deploy("1.1.0", **BY_INGRESS)
    done(play, "held")
    assert "Ingress front-canary says 10 %" in play.output and "was not asked" in play.output
    made = site.json("get", "ingress.networking.k8s.io", "front-canary", namespaced=True)
    notes = made["metadata"]["annotations"]
    assert {k: v for k, v in notes.items() if not k.startswith("signalbox")} == {
        "kubernetes.io/ingress.class": "nginx",
        f"{NGINX}rewrite-target": "/",
        f"{NGINX}canary": "true",
        f"{NGINX}canary-weight": "10",
    }
    stable = site.json("get", "ingress.networking.k8s.io", "front", namespaced=True)
    paths = [rule["http"]["paths"] for rule in (*stable["spec"]["rules"], *made["spec"]["rules"])]
    assert [path["backend"]["service"]["name"] for path in paths[0]] == ["demo-backend", "another"]
    assert [path["backend"]["service"]["name"] for path in paths[1]] == ["demo-backend-canary"]
    assert endpoints(site) == {"green": 10} and endpoints(site, "demo-backend-canary") == {"blue": 2}
    assert site.answers() == {"1.0.0"}
    assert "blue 10 %, green 90 %" in site.run("status", **BY_INGRESS).output
    before = site.everything()
    again = site.run("recover", "-v", **BY_INGRESS)
    assert "nothing to do" in again.output and "changed:" not in again.output and site.everything() == before


@pytest.mark.requirement("CAN-05")
def test_a_canary_ingress_is_taken_back(site: Site) -> None:
    done(site.run("abort", **BY_INGRESS), "aborted")
    assert canaries(site) == [] and endpoints(site) == {"green": 10} == ready_pods(site)


def test_a_canary_ingress_is_promoted(site: Site) -> None:
    with Load(site.front_url + "/", rate=100, count=4000) as load:
        done(site.deploy("1.1.0", **BY_INGRESS), "held")
        site.kubectl("annotate", "ingress", "front-canary", f"{NGINX}canary-weight=20", "--overwrite", namespaced=True)
        drifted = site.run("promote", **BY_INGRESS)
        assert "sends blue 20 %, green 80 % instead of blue 10 %, green 90 %" in drifted.output, drifted.output
        done(site.run("promote", **{**BY_INGRESS, "app_drift": "restore"}), "deployed")
    assert load.failures == [] and set(load.versions) == {"1.0.0", "1.1.0"}
    assert canaries(site) == [] and endpoints(site) == {"blue": 2} and ready_pods(site) == {"blue": 2, "green": 10}
    assert site.answers() == {"1.1.0"} and "all agree" in site.run("status", **BY_INGRESS).output


# -- autoscalers ------------------------------------------------------------------------------------------------

SCALED = {
    "runtime_kubernetes_replicas": 2,
    "runtime_kubernetes_autoscaling": {"min": 2, "max": 6, "cpu_percent": 70},
    "accounting_requests_per_second": 0,
}


def test_an_autoscaler_stands_beside_its_slot_and_nothing_fights_it(site: Site) -> None:
    done(site.deploy("1.2.0", **SCALED), "deployed")
    slot = site.selector()[SLOT]
    scaler = site.json("get", "horizontalpodautoscaler.v1.autoscaling", f"demo-backend-{slot}", namespaced=True)
    assert scaler["spec"]["scaleTargetRef"]["name"] == f"demo-backend-{slot}"
    limits = ("minReplicas", "maxReplicas", "targetCPUUtilizationPercentage")
    assert [scaler["spec"][key] for key in limits] == [2, 6, 70]
    assert len(site.objects("horizontalpodautoscalers")) == 1  # the release before had none
    scale(site, slot, 4)  # what an autoscaler does
    assert "all agree" in site.run("status", **SCALED).output
    again = site.deploy("1.2.0", "-v", **SCALED)
    assert "nothing to do" in again.output and "changed:" not in again.output, again.output
    assert endpoints(site) == {slot: 4}
    site.release("1.4.0")
    done(site.deploy("1.4.0", **SCALED), "deployed")
    assert site.selector()[SLOT] != slot
    assert endpoints(site) == {site.selector()[SLOT]: 4}, "as many as the live one had by then"
    refused = site.deploy("1.1.0", **{**CANARY, **SCALED})
    assert refused.code != 0 and "where an autoscaler sets their number" in refused.output, refused.output


def test_an_autoscaler_goes_with_its_slot(site: Site) -> None:
    done(site.run("cleanup", **SCALED), "cleaned")
    slot = site.selector()[SLOT]
    names = [one["metadata"]["name"] for one in site.objects("horizontalpodautoscalers")]
    assert names == [f"demo-backend-{slot}"] and ready_pods(site) == {slot: 4}
