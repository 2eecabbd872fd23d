# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A part of the traffic in Kubernetes: how many replicas it is, in which order they change, and where a run may die.

The cluster in memory has a controller of Deployments and endpoints; the real ones are asked in tests/kubernetes.
"""

from __future__ import annotations

import copy
import json

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _kubernetes_objects as objects
from ansible_collections.signalbox.runbook.plugins.module_utils import _kubernetes_plan as plan
from ansible_collections.signalbox.runbook.plugins.module_utils import _kubernetes_rollout as rollout
from ansible_collections.signalbox.runbook.plugins.module_utils import _shares
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_release import Releases
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_scale import Scales
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_service import Services
from hypothesis import given
from hypothesis import strategies as st
from kubernetes_memory import CORE, Memory

APPS = "/apis/apps/v1/namespaces/shop/deployments"
NETWORKING = "/apis/networking.k8s.io/v1/namespaces/shop/ingresses"
AUTOSCALING = "/apis/autoscaling/v1/namespaces/shop/horizontalpodautoscalers"
RELEASES = {"blue": "1", "green": "2"}
TENTH = {"blue": 90, "green": 10}
HALF = {"blue": 50, "green": 50}

# -- numbers ----------------------------------------------------------------------------------------------------


@given(st.integers(1, 99), st.integers(2, 200))
def test_replicas_add_up_and_are_less_than_one_off(weight, total):
    weights = {"green": weight, "blue": 100 - weight}
    found = _shares.counts(weights, total)
    assert sum(found.values()) == total
    assert min(found.values()) >= 1
    assert all(abs(count - total * weights[slot] / 100) < 1 for slot, count in found.items())
    nearest = all(abs(count - total * weights[slot] / 100) <= 0.5 for slot, count in found.items())
    assert nearest or min(found.values()) == 1
    assert _shares.off(weights, total) < 100 / total


@given(st.integers(1, 99), st.integers(1, 120), st.floats(0, 10))
def test_the_number_that_is_said_to_be_enough_is_enough_and_the_least(weight, total, within):
    weights = {"green": weight, "blue": 100 - weight}
    least = _shares.enough([weights], total, within)
    assert least >= total
    assert _shares.off(weights, least) <= max(within, 1)  # beyond 100 each replica is less than a point
    assert all(_shares.off(weights, number) > within for number in range(total, min(least, 100)))


@given(st.dictionaries(st.sampled_from("abcde"), st.integers(0, 50), min_size=1), st.integers(5, 60))
def test_any_number_of_slots_adds_up(weights, total):
    found = _shares.counts(weights, total) if any(weights.values()) else {}
    assert not found or (sum(found.values()) == total and min(found.values()) >= 1)


def test_one_replica_is_not_shared():
    with pytest.raises(RunbookError, match="1 can't be shared by 2 slots"):
        _shares.counts(TENTH, 1)
    assert _shares.off(TENTH, 1) == 100


def test_counts_are_told_as_percent():
    assert _shares.percents({"blue": 9, "green": 1}) == {"blue": 90, "green": 10}
    assert _shares.percents({"blue": 2, "green": 1}) == {"blue": 67, "green": 33}
    assert _shares.percents({"blue": 1, "green": 0}) == {"blue": 100}
    assert _shares.percents({}) == {}


# -- what the plan refuses --------------------------------------------------------------------------------------

MODEL = {
    "app_router": "kubernetes",
    "app_services": [{"name": "api", "routed": True}, {"name": "worker", "routed": False}],
    "app_steps": [{"weight": 10}, {"weight": 50}, {"weight": 100}],
    "router_kubernetes_share": "replicas",
    "router_kubernetes_share_within_percent": 2,
    "runtime_kubernetes_replicas": 10,
    "runtime_kubernetes_services": {},
    "runtime_kubernetes_autoscaling": None,
}
TO = {"release": "2", "version": "2.0", "slot": "green"}
LIVE = {"release": "1", "version": "1.0", "slot": "blue"}


def holding(release, full, autoscaled=False):
    return {"release": release, "services": {"api": {"replicas": 1, "full": full, "autoscaled": autoscaled}}}


def check(changes=(), weights=(10, 50, 100), blue=None, green=None, router=(), **more):
    live = more.get("live", LIVE)
    slots = {"blue": blue or holding("1", 2), "green": green}
    plan.check({**MODEL, **dict(changes)}, "c1", list(weights), slots, live, TO, dict(router))


def refusal(**given):
    with pytest.raises(RunbookError) as error:
        check(**given)
    text = str(error.value)
    assert text.endswith("Nothing has been touched") and "\n" not in text
    return text


def test_a_share_that_can_be_is_not_refused():
    check()
    check({"runtime_kubernetes_replicas": 2}, blue=holding("1", 10))  # as many as the release that has more
    check({"runtime_kubernetes_replicas": 2}, green=holding("2", 10))  # a held one has what it was made with
    check({"runtime_kubernetes_replicas": 1}, weights=[100])
    check({"runtime_kubernetes_replicas": 1}, live=None)
    check({"runtime_kubernetes_replicas": 1, "app_router": "nginx"})
    check({"runtime_kubernetes_replicas": 1, "app_services": [{"name": "new", "routed": True}]})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"runtime_kubernetes_replicas": 3},
            "app_steps[0].weight: 10 % of 3 replicas of api can't be; 33.3 % is possible. Give "
            "runtime_kubernetes_replicas 10, or another weight. Nothing has been touched",
        ),
        (
            {"runtime_kubernetes_replicas": 9},  # 1 of 9 is 11.1 %, but 50 % is 55.6 %
            "app_steps[1].weight: 50 % of 9 replicas of api can't be; 55.6 % is possible. Give "
            "runtime_kubernetes_replicas 10, or another weight. Nothing has been touched",
        ),
        (
            {"runtime_kubernetes_services": {"api": {"replicas": 1}}, "runtime_kubernetes_replicas": 10},
            "app_steps[0].weight: 10 % of 2 replicas of api can't be; 50 % is possible. Give "
            "runtime_kubernetes_services.api.replicas 10, or another weight. Nothing has been touched",
        ),
    ],
)
def test_a_share_that_can_not_be_is_one_sentence(changes, said):
    assert refusal(changes=changes) == said


def test_one_replica_has_no_share():
    said = refusal(changes={"runtime_kubernetes_replicas": 1}, blue=holding("1", 1))
    assert "10 % of 1 replicas of api can't be; no share is possible" in said


def test_replicas_and_an_autoscaler_do_not_go_together():
    scaled = {"min": 2, "max": 9, "cpu_percent": 80}
    assert "where an autoscaler sets their number (2.0 has one, on c1)" in refusal(
        changes={"runtime_kubernetes_autoscaling": scaled}
    )
    assert "(1.0 has one, on c1)" in refusal(blue=holding("1", 2, True))
    check({"runtime_kubernetes_autoscaling": scaled, "runtime_kubernetes_services": {"api": {"autoscaling": {}}}})
    check({"runtime_kubernetes_autoscaling": scaled}, weights=[100])
    check({"runtime_kubernetes_autoscaling": scaled, "router_kubernetes_share": "ingress"})


def test_an_ingress_that_can_not_carry_a_weight_is_refused():
    problem = {"ingress": {"name": "front", "problem": "there is no Ingress front in shop"}}
    said = refusal(changes={"router_kubernetes_share": "ingress"}, router=problem)
    assert said == "router_kubernetes_ingress: there is no Ingress front in shop (on c1). Nothing has been touched"
    check({"router_kubernetes_share": "ingress"}, weights=[100], router=problem)


# -- a cluster whose controllers work ---------------------------------------------------------------------------


class KilledError(BaseException):
    """The run ends here."""


class Living(Memory):
    """Pods follow their Deployments, a step further with each request; Endpoints follow selectors and pods."""

    def __init__(self, full=10, services=("api",), stuck=()):
        super().__init__()
        self.full, self.services, self.stuck = full, services, set(stuck)
        self.serial = 0
        self.least = {}  # service to the smallest number of members that its Service ever had
        self.dies_at = None
        self.frozen = False  # nothing follows any more
        self.stale = None  # endpoints that nobody brings up to date
        self.most = {}  # slot to the most pods that get ready
        for service in services:
            self.deploy(service, "blue", full)

    def deploy(self, service, slot, replicas, full=None, **notes):
        name = objects.slot_name("shop", service, slot)
        said = {objects.RELEASE_ID: RELEASES[slot], objects.REPLICAS: str(full or self.full), **notes}
        chosen = {**objects.MANAGED, **objects.labels("shop", service, slot, RELEASES[slot])}
        self.put(
            f"{APPS}/{name}",
            {
                "kind": "Deployment",
                "metadata": {"name": name, "labels": chosen, "annotations": said},
                "spec": {"replicas": replicas, "template": {"spec": {"containers": [{"name": service}]}}},
            },
        )
        for _time in range(3):
            self.tick()

    def pods(self, service, slot=""):
        chosen = objects.labels("shop", service, slot).items()
        return {p: o for p, o in self.held.items() if o["kind"] == "Pod" and chosen <= o["metadata"]["labels"].items()}

    def tick(self):
        if self.frozen:
            return
        for one in [o for o in self.held.values() if o["kind"] == "Deployment"]:
            labels, wanted = one["metadata"]["labels"], one["spec"]["replicas"]
            service, slot = labels[objects.SERVICE], labels[objects.SLOT]
            pods = self.pods(service, slot)
            for number, (path, pod) in enumerate(pods.items()):
                if slot not in self.stuck and number < self.most.get(slot, 10**6):
                    pod["status"]["conditions"][0]["status"] = "True"
                    self.held[path] = pod
            for path in list(pods)[wanted:]:
                del self.held[path]
            for _number in range(wanted - len(pods)):
                self.serial += 1
                name = f"{service}-{slot}-{self.serial}"
                status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}
                spec = {"containers": [{"name": service}]}
                metadata = {"name": name, "labels": labels}
                pod = {"kind": "Pod", "metadata": metadata, "spec": spec, "status": status}
                self.put(f"{CORE}/pods/{name}", pod)
            ready = len([p for p in self.pods(service, slot).values() if rollout.ready(p)])
            one["status"] = {
                "observedGeneration": 1,
                **dict.fromkeys(("replicas", "updatedReplicas"), wanted),
                **dict.fromkeys(("readyReplicas", "availableReplicas"), ready),
            }
        for service in self.services:
            members = self.members(f"shop-{service}")
            if members is not None:
                self.least[service] = min(self.least.get(service, 10**6), len(members))

    def members(self, service):
        there = self.held.get(f"{CORE}/services/{service}")
        if there is None:
            return None
        chosen = there["spec"]["selector"].items()
        pods = [o for o in self.held.values() if o["kind"] == "Pod" and rollout.ready(o)]
        return [o["metadata"]["name"] for o in pods if chosen <= o["metadata"]["labels"].items()]

    def __call__(self, method, path, body, headers, seconds):
        if self.dies_at is not None and "dryRun" not in path:
            if self.dies_at == 0:
                raise KilledError
            self.dies_at -= 1
        if path.startswith("/apis/networking.k8s.io") and "namespaces" not in path:
            return self._answer(200, {"versions": [{"version": "v1"}], "resources": [{"kind": "Ingress"}]})
        if path.startswith("/apis/autoscaling") and "namespaces" not in path:
            kind = {"kind": "HorizontalPodAutoscaler"}
            return self._answer(200, {"versions": [{"version": "v2"}, {"version": "v1"}], "resources": [kind]})
        if "/endpoints/" in path:
            names = self.stale or self.members(path.rsplit("/", 1)[1]) or ()
            named = [{"targetRef": {"name": name}} for name in names]
            answer = self._answer(200, {"subsets": [{"addresses": named}]})
        else:
            answer = super().__call__(method, path, body, headers, seconds)
        self.tick()
        return answer

    def shares(self, service="api"):
        return {slot: n for slot in ("blue", "green") if (n := len(self.pods(service, slot)))}

    def selector(self, service="api"):
        return self.held[f"{CORE}/services/shop-{service}"]["spec"]["selector"].get(objects.SLOT, "both")


def router(living, fence=1, **more):
    clock = iter(range(10**6))
    services = [{"name": name, "port": 80} for name in living.services]
    return Services(
        living.api(),
        "shop",
        "test",
        services,
        fence,
        clock=lambda: float(next(clock)),
        sleep=lambda _s: living.tick(),
        **more,
    )


def good(_deadline):
    return [{"name": "x", "passed": True, "problem": ""}]


def bad(_deadline):
    return [{"name": "x", "passed": False, "problem": "9.9.9 answers"}]


def shift(living, weights, fence=1, confirm=good, **more):
    to = "green" if weights.get("green") else "blue"
    own = {key: more.pop(key) for key in ("ingress", "scale_seconds") if key in more}
    held = {slot: RELEASES[slot] for slot in weights}
    return router(living, fence, **own).shift(
        weights, more.pop("release", RELEASES[to]), to, confirm, 300, releases=held, **more
    )


def canary(**more):
    living = Living(**more)
    shift(living, {"blue": 100})
    for service in living.services:
        living.deploy(service, "green", 1)
    living.least.clear()
    return living


@pytest.mark.requirement("CAN-01")
def test_a_tenth_is_one_pod_of_ten():
    living = canary()
    first = shift(living, TENTH)
    assert first["changed"] and first["text"] == "blue 90 %, green 10 % by pods: api blue 9, green 1"
    assert living.shares() == {"blue": 9, "green": 1} and living.selector() == "both"
    assert router(living).read()["weights"] == TENTH and router(living).read()["intact"]
    assert living.least == {"api": 10}, "never fewer than the live release has"
    living.changes.clear()
    assert not shift(living, TENTH)["changed"] and living.changes == []


@pytest.mark.requirement("CAN-04")
def test_a_promotion_goes_on_by_pods_and_the_old_slot_stays_whole():
    living = canary()
    shift(living, TENTH)
    shift(living, HALF)
    assert living.shares() == {"blue": 5, "green": 5} and router(living).read()["weights"] == HALF
    done = shift(living, {"green": 100}, standby=["blue"])
    assert living.shares() == {"blue": 10, "green": 10} and living.selector() == "green"
    assert router(living).read()["weights"] == {"green": 100} and "text" not in done
    assert objects.SHARES not in living.held[f"{CORE}/services/shop-api"]["metadata"]["annotations"]
    assert living.least == {"api": 10}
    living.changes.clear()
    assert not shift(living, {"green": 100}, standby=["blue"])["changed"] and living.changes == []


@pytest.mark.requirement("CAN-05")
def test_a_canary_is_taken_back_and_is_no_endpoint_any_more():
    living = canary()
    shift(living, HALF)
    shift(living, {"blue": 100}, back=True)
    assert living.shares() == {"blue": 10, "green": 5} and living.selector() == "blue"
    assert all("blue" in name for name in living.members("shop-api"))
    assert living.least == {"api": 10}


def test_a_slot_that_is_too_large_shrinks_before_it_gets_traffic():
    living = canary()
    living.deploy("api", "green", 10)
    shift(living, TENTH)
    assert living.shares() == {"blue": 9, "green": 1}
    assert [c.split()[1:] for c in living.changes if "PUT" in c][-4:-2] != [], living.changes
    widened = next(i for i, c in enumerate(living.changes) if c == "PUT Service shop-api" and i > 2)
    assert "PUT Deployment shop-api-green" in living.changes[:widened]
    assert "PUT Deployment shop-api-blue" in living.changes[widened:]


def test_the_release_with_more_replicas_says_how_many_there_are():
    living = Living(full=4)
    shift(living, {"blue": 100})
    living.deploy("api", "green", 1, full=10)
    living.least.clear()
    shift(living, TENTH)
    assert living.shares() == {"blue": 9, "green": 1}
    shift(living, {"green": 100}, standby=["blue"])
    assert living.shares() == {"blue": 4, "green": 10}
    assert living.least["api"] >= 4


def test_what_a_share_added_goes_again_and_what_somebody_added_stays():
    living = Living(full=4)
    living.deploy("api", "blue", 6, full=4)
    shift(living, {"blue": 100})
    assert living.shares() == {"blue": 6}
    living.deploy("api", "green", 1, full=10)
    shift(living, TENTH)
    assert living.shares() == {"blue": 9, "green": 1}
    shift(living, {"blue": 100}, back=True)
    assert living.shares() == {"blue": 4, "green": 1}
    living.changes.clear()
    assert not shift(living, {"blue": 100}, back=True)["changed"] and living.changes == []


def test_somebody_who_scales_by_hand_is_seen():
    living = canary()
    shift(living, TENTH)
    living.deploy("api", "green", 3)
    assert router(living).read()["weights"] == {"blue": 75, "green": 25}
    shift(living, TENTH, fence=2)
    assert living.shares() == {"blue": 9, "green": 1} and router(living).read()["weights"] == TENTH


def test_services_with_other_numbers_share_each_by_its_own():
    living = canary(services=("api", "web"))
    for slot in ("blue", "green"):
        living.deploy("web", slot, 20 if slot == "blue" else 2, full=20)
    shift(living, TENTH)
    assert living.shares("api") == {"blue": 9, "green": 1} and living.shares("web") == {"blue": 18, "green": 2}
    assert router(living).read()["weights"] == TENTH and router(living).read()["intact"]


def test_a_service_that_only_the_new_release_has_is_not_shared():
    living = canary(services=("api", "web"))
    del living.held[f"{APPS}/shop-web-blue"]
    for path in living.pods("web", "blue"):
        del living.held[path]
    living.deploy("web", "green", 10)
    shift(living, TENTH)
    assert living.selector("web") == "green" and living.shares("web") == {"green": 10}
    assert router(living).read()["weights"] == TENTH
    assert not shift(living, TENTH)["changed"]


def test_what_does_not_answer_is_put_back_with_its_pods():
    living = canary()
    with pytest.raises(RunbookError, match=r"9\.9\.9 answers.*The old selectors are back") as error:
        shift(living, TENTH, confirm=bad)
    assert error.value.details["weights"] == {"blue": 100}
    assert living.shares() == {"blue": 10, "green": 1} and living.selector() == "blue"
    shift(living, TENTH)
    with pytest.raises(RunbookError, match="The old selectors are back") as error:
        shift(living, HALF, confirm=bad)
    assert error.value.details["weights"] == TENTH and living.shares() == {"blue": 9, "green": 1}
    with pytest.raises(RunbookError, match="The old selectors are back"):
        shift(living, {"green": 100}, confirm=bad)
    assert router(living).read()["weights"] == TENTH and living.least == {"api": 10}


def test_pods_that_do_not_get_ready_get_no_traffic():
    living = canary()
    living.stuck = {"green"}
    with pytest.raises(RunbookError, match=r"green of api has 1 of 5 pods ready.*Nothing was moved") as error:
        shift(living, HALF, scale_seconds=20)
    assert error.value.details["restored"]
    assert living.shares() == {"blue": 10, "green": 1} and living.selector() == "blue"


def test_a_way_back_goes_on_with_the_pods_that_there_are():
    living = canary()
    shift(living, HALF)
    living.stuck = {"blue"}
    with pytest.raises(RunbookError, match="blue of api has 5 of 10 pods ready"):
        shift(living, {"blue": 100}, scale_seconds=20)
    assert living.selector() == "both"
    gone = shift(living, {"blue": 100}, scale_seconds=20, back=True)
    assert living.selector() == "blue" and "blue of api has 5 of 10 pods ready" in gone["text"]


def test_a_standby_that_can_not_stand_does_not_undo_what_is_live():
    living = canary()
    shift(living, HALF)
    living.stuck = {"blue"}
    done = shift(living, {"green": 100}, standby=["blue"], scale_seconds=20)
    assert living.selector() == "green"
    assert done["text"].startswith("green 100 %. the way back does not stand: blue of api has 5 of 10 pods ready")


def test_an_autoscaler_is_not_fought():
    living = canary()
    note = {rollout.AUTOSCALED: "2-20"}
    living.deploy("api", "green", 7, **note)
    with pytest.raises(RunbookError, match="an autoscaler sets the number of pods of api"):
        shift(living, TENTH)
    shift(living, {"green": 100}, standby=["blue"])
    assert living.shares() == {"blue": 10, "green": 7}


def test_endpoints_that_do_not_follow_are_told_and_put_back():
    living = canary()
    living.stale = ["api-blue-1"]
    with pytest.raises(RunbookError, match=r"sends to api-blue-1 instead of .*The old selectors are back"):
        shift(living, TENTH)
    assert living.shares() == {"blue": 10, "green": 1} and living.selector() == "blue"
    with pytest.raises(RunbookError, match=r"sends to api-blue-1 instead of"):
        shift(living, {"green": 100})


def test_a_slot_that_lacks_a_pod_serves_and_says_so():
    living = canary()
    next(iter(living.pods("api", "blue").values()))["status"]["conditions"][0]["status"] = "False"
    living.frozen = True
    seen = releases(living).read([])["slots"]["blue"]
    assert seen["running"] and not seen["healthy"]
    assert [(a["name"], a["problem"]) for a in seen["answers"]] == [("api pods", "9 of 10 pods are ready")]
    for pod in living.pods("api", "blue").values():
        pod["status"]["conditions"][0]["status"] = "False"
    assert not releases(living).read([])["slots"]["blue"]["running"]


def test_an_older_run_scales_nothing():
    living = canary()
    living.held[f"{APPS}/shop-api-green"]["metadata"]["annotations"][objects.FENCE] = "5"
    with pytest.raises(RunbookError) as error:
        Scales(living.api(), "shop", 4).set("api", "green", 3)
    assert error.value.details["fenced"] and living.shares() == {"blue": 10, "green": 1}
    shift(living, TENTH, fence=7)
    with pytest.raises(RunbookError) as error:
        shift(living, HALF, fence=6)
    assert error.value.details["fenced"] and living.shares() == {"blue": 9, "green": 1}


def test_check_mode_moves_nothing():
    living = canary()
    living.changes.clear()
    assert shift(living, TENTH, check_mode=True)["changed"] and living.changes == []
    assert router(living).read()["weights"] == {"blue": 100}


@pytest.mark.parametrize("moves", [[TENTH], [TENTH, HALF], [TENTH, HALF, {"green": 100}]])
def test_killed_at_any_moment_the_live_release_serves_and_the_next_run_settles_it(moves):
    number = 0
    while True:
        living = canary()
        for weights in moves[:-1]:
            shift(living, weights, 2, standby=[])
        living.dies_at = number
        try:
            shift(living, moves[-1], 3, standby=["blue"])
            break
        except KilledError:
            living.dies_at, living.frozen = None, True
        found = Releases(living.api(), "shop", "test", 4).read([])["slots"]
        assert found["blue"]["running"], (number, found)
        assert router(living).read()["weights"], number
        living.frozen = False
        shift(living, {"blue": 100}, 4, back=True)
        assert living.selector() == "blue" and living.shares()["blue"] == 10, number
        assert all("blue" in name for name in living.members("shop-api")), number
        assert living.least == {"api": 10}, number
        assert not shift(living, {"blue": 100}, 4, back=True)["changed"], number
        number += 1
    assert number > 20


# -- by an Ingress ----------------------------------------------------------------------------------------------


def front(*services, **notes):
    paths = [
        {"path": f"/{s}", "pathType": "Prefix", "backend": {"service": {"name": s, "port": {"number": 80}}}}
        for s in (*services, "somebody-else")
    ]
    notes = {
        "nginx.ingress.kubernetes.io/rewrite-target": "/",
        "nginx.ingress.kubernetes.io/canary-by-header": "x-canary",
        "cert-manager.io/cluster-issuer": "letsencrypt",
        **notes,
    }
    spec = {
        "ingressClassName": "nginx",
        "tls": [{"hosts": ["shop.test"], "secretName": "tls"}],
        "rules": [{"host": "shop.test", "http": {"paths": paths}}],
    }
    return {"kind": "Ingress", "metadata": {"name": "front", "annotations": notes, "labels": {}}, "spec": spec}


def fronted(**more):
    living = canary(**more)
    for service in living.services:
        living.deploy(service, "green", 10)
    living.put(f"{NETWORKING}/front", front(*(f"shop-{s}" for s in living.services)))
    living.least.clear()
    return living


def test_an_ingress_beside_the_users_carries_the_weight():
    living = fronted()
    done = shift(living, TENTH, ingress="front")
    assert living.selector() == "blue" and living.shares() == {"blue": 10, "green": 10}
    assert "was not asked" in done["text"] and "Ingress front-canary says 10 %" in done["text"]
    made = living.held[f"{NETWORKING}/front-canary"]
    notes = made["metadata"]["annotations"]
    assert notes["nginx.ingress.kubernetes.io/canary"] == "true"
    assert notes["nginx.ingress.kubernetes.io/canary-weight"] == "10"
    assert notes["nginx.ingress.kubernetes.io/rewrite-target"] == "/" and "cert-manager.io/cluster-issuer" not in notes
    assert "nginx.ingress.kubernetes.io/canary-by-header" not in notes
    assert made["spec"]["ingressClassName"] == "nginx" and "tls" not in made["spec"]
    assert objects.led_to(made) == {"shop-api-canary"}
    assert living.held[f"{CORE}/services/shop-api-canary"]["spec"]["selector"] == objects.selector(
        "shop", "api", "green", "2"
    )
    assert router(living, ingress="front").read()["weights"] == TENTH
    living.changes.clear()
    assert not shift(living, TENTH, ingress="front")["changed"] and living.changes == []
    assert shift(living, HALF, ingress="front")["changed"]
    assert router(living, ingress="front").read()["weights"] == HALF


def test_at_100_the_selector_moves_first_and_then_the_ingress_goes():
    living = fronted()
    shift(living, TENTH, ingress="front")
    living.changes.clear()
    shift(living, {"green": 100}, ingress="front", standby=["blue"])
    assert living.changes == [
        "PUT Service shop-api",
        "DELETE Ingress front-canary",
        "DELETE Service shop-api-canary",
    ]
    assert router(living, ingress="front").read()["weights"] == {"green": 100}


@pytest.mark.requirement("CAN-05")
def test_a_canary_of_an_ingress_is_taken_back():
    living = fronted()
    shift(living, TENTH, ingress="front")
    shift(living, {"blue": 100}, ingress="front", back=True)
    assert not [path for path in living.held if "canary" in path]
    assert living.selector() == "blue" and router(living, ingress="front").read()["weights"] == {"blue": 100}


def test_killed_at_any_moment_with_an_ingress_it_is_settled():
    for moves in ([TENTH], [TENTH, HALF], [TENTH, {"green": 100}]):
        number = 0
        while True:
            living = fronted(services=("api", "web"))
            for weights in moves[:-1]:
                shift(living, weights, 2, ingress="front")
            living.dies_at = number
            try:
                shift(living, moves[-1], 3, ingress="front")
                break
            except KilledError:
                living.dies_at = None
            shift(living, {"blue": 100}, 4, ingress="front", back=True)
            assert not [path for path in living.held if "canary" in path], number
            assert {living.selector("api"), living.selector("web")} == {"blue"}, number
            number += 3
        assert number > 10


def test_a_failed_shift_leaves_no_ingress_or_the_one_before():
    living = fronted()
    with pytest.raises(RunbookError, match="The old selectors are back"):
        shift(living, TENTH, ingress="front", confirm=bad)
    assert not [path for path in living.held if "canary" in path]
    shift(living, TENTH, ingress="front")

    def meddle(method, path):
        if method == "PUT" and path.endswith("front-canary"):
            living.before = lambda *_: None
            living.put(path, living.held[path])

    living.before = meddle
    with pytest.raises(RunbookError, match="The old selectors are back"):
        shift(living, HALF, ingress="front")
    assert router(living, ingress="front").read()["weights"] == TENTH


@pytest.mark.parametrize(
    ("ingress", "said"),
    [
        (None, "there is no Ingress front in shop"),
        (front("another"), "has no rule that leads to Service shop-api"),
        (
            front(
                "shop-api",
                **{"nginx.ingress.kubernetes.io/canary": "true", "nginx.ingress.kubernetes.io/canary-weight": "5"},
            ),
            "is a canary itself",
        ),
    ],
)
def test_an_ingress_that_will_not_do_is_told(ingress, said):
    living = canary()
    if ingress:
        living.put(f"{NETWORKING}/front", ingress)
    assert said in router(living, ingress="front").read()["ingress"]["problem"]


def test_what_others_made_under_our_names_is_not_touched():
    living = fronted()
    living.put(
        f"{CORE}/services/shop-api-canary", {"kind": "Service", "metadata": {"name": "shop-api-canary"}, "spec": {}}
    )
    before = copy.deepcopy(living.held[f"{CORE}/services/shop-api-canary"])
    with pytest.raises(RunbookError, match="Service shop-api-canary in shop was not made by signalbox"):
        shift(living, TENTH, ingress="front")
    assert living.held[f"{CORE}/services/shop-api-canary"] == before


def test_an_ingress_of_somebody_else_takes_our_service_back():
    living = fronted()
    living.put(f"{NETWORKING}/front-canary", {**front("shop-api"), "metadata": {"name": "front-canary"}})
    with pytest.raises(RunbookError, match="Ingress front-canary in shop was not made by signalbox"):
        shift(living, TENTH, ingress="front")
    assert f"{CORE}/services/shop-api-canary" not in living.held and f"{NETWORKING}/front-canary" in living.held


def test_the_older_form_of_an_ingress_is_led_elsewhere_too():
    old = {"backend": {"serviceName": "shop-api", "servicePort": 80}}
    stable = {"metadata": {"name": "front"}, "spec": {"rules": [{"http": {"paths": [old]}}]}}
    made = objects.canary_ingress("shop", stable, {"shop-api": "c"}, 5, 1)
    assert made["spec"]["rules"][0]["http"]["paths"] == [{"backend": {"serviceName": "c", "servicePort": 80}}]


# -- a slot that begins with a part, and autoscalers -------------------------------------------------------------

SERVICE = {
    "name": "api",
    "image": "registry/api:2",
    "command": None,
    "environment": {},
    "secrets": {},
    "files": {},
    "settings": {"replicas": 10, "resources": {"requests": {"cpu": "50m"}}, "deployment": {}},
}
RELEASE = {"id": "2", "version": "2.0", "digest": "d"}
STARTED = {
    "name": "api",
    "port": 80,
    "start_seconds": 300.0,
    "stop_seconds": 5.0,
    "probes": [{"name": "api version", "url": "http://127.0.0.1:{port}/version"}],
}
SCALED = {"min": 2, "max": 20, "cpu_percent": 70}


class Passed:
    passed = True

    def to_dict(self):
        return {"name": "x", "passed": True}


def releases(living, fence=2):
    clock = iter(range(10**6))
    cluster = {"image_pull_policy": "Never", "image_pull_secrets": [], "pre_stop_seconds": 1, "files_path": "/etc/app"}
    return Releases(
        living.api(),
        "shop",
        "test",
        fence,
        cluster,
        ask=lambda probes, **_more: [Passed() for _probe in probes],
        clock=lambda: float(next(clock)),
        sleep=lambda _s: living.tick(),
    )


def staged(living, **settings):
    service = {**SERVICE, "settings": {**SERVICE["settings"], **settings}}
    releases(living).stage(RELEASE, [service])
    return living


def test_a_slot_begins_with_as_many_pods_as_its_share_needs():
    living = staged(Living())
    assert releases(living).start("green", RELEASE, [STARTED], "blue", shares={"api": 10})["changed"]
    assert living.shares() == {"blue": 10, "green": 1}
    seen = releases(living).read([])["slots"]["green"]
    assert seen["running"] and seen["services"]["api"]["full"] == 10 and not seen["services"]["api"]["autoscaled"]
    assert not releases(living).start("green", RELEASE, [STARTED], "blue", shares={"api": 10})["changed"]
    shift(living, {"green": 100}, 3)
    assert living.shares()["green"] == 10, "a slot with all traffic has all its pods"


def test_a_slot_with_all_traffic_or_with_nobody_beside_it_begins_with_all():
    for live, shares in (("", {"api": 10}), ("blue", {}), ("blue", {"other": 10})):
        living = staged(Living())
        releases(living).start("green", RELEASE, [STARTED], live, shares=shares)
        assert living.shares()["green"] == 10


def test_the_first_share_is_of_as_many_as_the_release_that_has_more():
    living = staged(Living(), replicas=4)
    releases(living).start("green", RELEASE, [STARTED], "blue", shares={"api": 50})
    assert living.shares() == {"blue": 10, "green": 5}


def test_a_slot_with_an_autoscaler_is_started_only_when_all_pods_it_begins_with_are_ready():
    living = staged(Living(), autoscaling=SCALED)
    living.most["green"] = 3
    with pytest.raises(RunbookError, match="api of 2 is not healthy in green"):
        releases(living).start("green", RELEASE, [STARTED], "blue")


def test_an_autoscaler_stands_beside_its_slot_and_goes_with_it():
    living = staged(Living(full=7), autoscaling=SCALED, replicas=3)
    releases(living).start("green", RELEASE, [STARTED], "blue")
    assert living.shares()["green"] == 7, "as many as the live one has by now"
    made = living.held[f"{AUTOSCALING}/shop-api-green"]
    assert made["spec"]["minReplicas"] == 2 and made["spec"]["targetCPUUtilizationPercentage"] == 70
    deployment = living.held[f"{APPS}/shop-api-green"]
    deployment["spec"]["replicas"] = 5  # the autoscaler's doing
    living.tick()
    assert releases(living).read([])["slots"]["green"]["running"]
    assert not releases(living).start("green", RELEASE, [STARTED], "blue")["changed"]
    assert living.shares()["green"] == 5
    releases(living).prove("green", RELEASE, [STARTED])
    releases(living).stop("green", "blue")
    assert not [path for path in living.held if "green" in path]


def test_a_slot_that_lost_its_autoscaler_is_started_anew():
    living = staged(Living(), autoscaling=SCALED)
    releases(living).start("green", RELEASE, [STARTED], "blue")
    del living.held[f"{AUTOSCALING}/shop-api-green"]
    assert releases(living).start("green", RELEASE, [STARTED], "blue")["changed"]
    assert f"{AUTOSCALING}/shop-api-green" in living.held


def test_an_autoscaler_has_the_form_of_its_api_version():
    newer = objects.autoscaler("shop", "api", "green", SCALED, "v2")["spec"]
    assert newer["metrics"][0]["resource"] == {
        "name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 70},
    }
    assert "targetCPUUtilizationPercentage" not in newer


def test_shares_that_nobody_can_read_are_none():
    living = canary()
    shift(living, TENTH)
    living.held[f"{CORE}/services/shop-api"]["metadata"]["annotations"][objects.SHARES] = json.dumps([1])
    assert router(living).read()["weights"] == TENTH  # by what is there
