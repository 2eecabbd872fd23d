# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pure core of the Kubernetes backends: manifests, what the state of a rollout means, one small cluster in memory.

The memory answers requests as the API does (names, conflicts, resourceVersions); what a real one does with them is
tested in tests/kubernetes.
"""

from __future__ import annotations

import base64
import copy
import json
import re

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _kubernetes_objects as objects
from ansible_collections.signalbox.runbook.plugins.module_utils import _kubernetes_rollout as rollout
from ansible_collections.signalbox.runbook.plugins.module_utils._diagnosis import Answer, Failure
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_api import (
    Api,
    Cluster,
    ConflictError,
    ForbiddenError,
    Reached,
    UnreachableError,
    choose,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_release import Releases
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_service import (
    Services,
    members,
    old_members,
    parts,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._probe import Request
from kubernetes_memory import CORE, Memory

CONFIG = {
    "current-context": "staging",
    "contexts": [
        {"name": "staging", "context": {"cluster": "a", "user": "u", "namespace": "other"}},
        {"name": "production", "context": {"cluster": "b", "user": "u"}},
        {"name": "broken", "context": {"cluster": "gone"}},
    ],
    "clusters": [
        {"name": "a", "cluster": {"server": "https://a:6443"}},
        {"name": "b", "cluster": {"server": "https://b:6443/"}},
    ],
}
SERVICE = {
    "name": "api",
    "image": "registry/api:1.0.0",
    "command": None,
    "environment": {"GREETING": "hello"},
    "secrets": {"TOKEN": "very-secret"},
    "files": {"conf/a.ini": "x=1\n", "b": "y"},
    "settings": {"replicas": 2, "resources": {"requests": {"cpu": "50m"}}, "deployment": {}},
}
RELEASE = {"id": "1.0.0-0a1b2c3d", "version": "1.0.0", "digest": "d1"}
STARTED = {
    "name": "api",
    "port": 8080,
    "start_seconds": 30.0,
    "stop_seconds": 10.0,
    "probes": [
        {"name": "api health", "url": "http://127.0.0.1:{port}/health", "status": [200], "timeout_seconds": 5.0},
        {
            "name": "api version",
            "url": "http://127.0.0.1:{port}/version",
            "version_path": "version",
            "versions": ["1.0.0"],
        },
    ],
}
IN_CLUSTER = {
    "image_pull_policy": "IfNotPresent",
    "image_pull_secrets": [],
    "pre_stop_seconds": 5.0,
    "sleep_action": False,
    "files_path": "/etc/app",
}


# -- which cluster ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", ["", "prodction", "broken"])
def test_a_context_is_named_or_nothing_is_done(context):
    with pytest.raises(RunbookError) as error:
        choose(CONFIG, context)
    assert str(error.value).startswith("context: ")


def test_the_current_context_never_counts():
    assert choose(CONFIG, "production") == Cluster("production", "https://b:6443/")


def test_the_server_must_be_the_expected_one():
    assert choose(CONFIG, "production", "https://b:6443").server == "https://b:6443/"
    with pytest.raises(RunbookError, match=r"leads to https://a:6443, not to https://b:6443"):
        choose(CONFIG, "staging", "https://b:6443")


# -- names ------------------------------------------------------------------------------------------------------


def test_names_are_limited_and_stay_different():
    long = [objects.name("a" * 31, "b" * 31, slot) for slot in objects.SLOTS]
    assert len(set(long)) == 2 and all(len(one) <= objects.NAME_LIMIT for one in long)
    assert objects.name("shop", "api", "blue") == "shop-api-blue"


@pytest.mark.parametrize("text", ["1.0.0-0a1b2c3d", "1.0.0+build-0a1b2c3d", "v" * 70, "1.0_", "_"])
def test_every_release_id_makes_a_label(text):
    value = objects.label(text)
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", value)
    assert objects.label(text + "x") != value


def test_a_changed_value_makes_other_objects_and_the_same_makes_the_same():
    before = objects.config_objects("shop", SERVICE)
    assert before == objects.config_objects("shop", copy.deepcopy(SERVICE))
    after = objects.config_objects("shop", {**SERVICE, "secrets": {"TOKEN": "another"}})
    changed = {key for key in before if before[key]["metadata"]["name"] != after[key]["metadata"]["name"]}
    assert changed == {"secret"}
    assert all(one["immutable"] for one in before.values())


def test_what_a_service_has_not_makes_no_object():
    bare = {**SERVICE, "environment": {}, "secrets": {}, "files": {}}
    assert objects.config_objects("shop", bare) == {}


def test_no_secret_is_in_the_manifest_of_a_release():
    made = objects.manifest("shop", "test", RELEASE, [SERVICE], "now")
    text = json.dumps(objects.manifest_object(made))
    assert "very-secret" not in text and base64.b64encode(b"very-secret").decode() not in text
    assert objects.read_manifest(objects.manifest_object(made)) == made


@pytest.mark.parametrize("data", [{}, {"release.json": "{"}, {"release.json": "[]"}, {"release.json": '{"format": 2}'}])
def test_what_is_no_manifest_is_none(data):
    assert objects.read_manifest({"data": data}) is None


# -- a Deployment -----------------------------------------------------------------------------------------------


def made(**settings):
    service = {**SERVICE, "settings": {**SERVICE["settings"], **settings}}
    return objects.manifest("shop", "test", RELEASE, [service], "now")


def test_the_default_deployment():
    one = objects.deployment(made(), STARTED, "green", IN_CLUSTER, 7, "then")
    assert one["metadata"]["name"] == "shop-api-green"
    assert one["metadata"]["annotations"][objects.FENCE] == "7"
    selected = one["spec"]["selector"]["matchLabels"]
    assert selected == objects.labels("shop", "api", "green")
    template = one["spec"]["template"]
    assert (selected | {objects.RELEASE: RELEASE["id"]}).items() <= template["metadata"]["labels"].items()
    container = template["spec"]["containers"][0]
    assert container["image"] == "registry/api:1.0.0" and "command" not in container
    assert {one["name"]: one["value"] for one in container["env"]} == {
        "PORT": "8080",
        "SLOT": "green",
        "RELEASE": RELEASE["id"],
        "DEPLOYED_VERSION": "1.0.0",
        "DEPLOYED_AT": "then",
    }
    assert [next(iter(ref)) for ref in container["envFrom"]] == ["configMapRef", "secretRef"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/health", "port": 8080, "scheme": "HTTP"}
    assert "httpGet" not in container["livenessProbe"]  # a data store that is down restarts nothing
    assert container["lifecycle"]["preStop"] == {"exec": {"command": ["sleep", "5"]}}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    assert template["spec"]["automountServiceAccountToken"] is False
    assert template["spec"]["terminationGracePeriodSeconds"] == 16
    assert one["spec"]["progressDeadlineSeconds"] > STARTED["start_seconds"]
    items = template["spec"]["volumes"][0]["secret"]["items"]
    assert [item["path"] for item in items] == ["b", "conf/a.ini"]


def test_newer_clusters_sleep_by_themselves():
    one = objects.deployment(made(), STARTED, "green", {**IN_CLUSTER, "sleep_action": True}, 7, "then")
    hook = one["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]
    assert hook == {"sleep": {"seconds": 5}}


def test_an_own_deployment_is_kept_except_for_what_makes_the_slot():
    own = {
        "metadata": {"name": "mine", "labels": {"team": "red"}, "annotations": {"a": "b"}},
        "spec": {
            "replicas": 9,
            "selector": {"matchLabels": {"app": "mine"}},
            "template": {
                "metadata": {"labels": {"app": "mine"}},
                "spec": {
                    "nodeSelector": {"disk": "fast"},
                    "containers": [
                        {"name": "sidecar", "image": "sidecar:1"},
                        {
                            "name": "api",
                            "image": "old:1",
                            "env": [{"name": "PORT", "value": "1"}, {"name": "A", "value": "2"}],
                        },
                    ],
                },
            },
        },
    }
    before = copy.deepcopy(own)
    one = objects.deployment(made(deployment=own), STARTED, "blue", IN_CLUSTER, 7, "then")
    assert own == before
    assert one["metadata"]["name"] == "shop-api-blue" and one["metadata"]["labels"]["team"] == "red"
    assert one["spec"]["replicas"] == 2
    assert one["spec"]["selector"]["matchLabels"] == objects.labels("shop", "api", "blue")
    pod = one["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"disk": "fast"}
    assert [c["image"] for c in pod["containers"]] == ["sidecar:1", "registry/api:1.0.0"]
    assert [e["value"] for e in pod["containers"][1]["env"] if e["name"] in ("PORT", "A")] == ["2", "8080"]
    assert one["spec"]["template"]["metadata"]["labels"]["app"] == "mine"


def test_a_probe_that_the_kubelet_can_not_ask_becomes_a_connection():
    probes = [{"name": "x", "url": "http://127.0.0.1:{port}/", "status": [401]}]
    assert "tcpSocket" in objects.readiness({**STARTED, "probes": probes})


# -- a rollout --------------------------------------------------------------------------------------------------


def deployment(replicas=2, ready=2, generation=1, observed=1, updated=None, conditions=()):
    status = {
        "observedGeneration": observed,
        "replicas": replicas,
        "updatedReplicas": replicas if updated is None else updated,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "conditions": list(conditions),
    }
    return {"metadata": {"name": "d", "generation": generation}, "spec": {"replicas": replicas}, "status": status}


def pod(name="p1", ready=True, leaving=False, waiting="", message="", terminated=None, restarts=0, **more):
    state = {"waiting": {"reason": waiting, "message": message}} if waiting else {"running": {}}
    container = {"name": "api", "image": "registry/api:1", "state": state, "restartCount": restarts}
    if terminated:
        container["lastState"] = {"terminated": terminated}
    metadata = {"name": name, **({"deletionTimestamp": "now"} if leaving else {})}
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}, *more.pop("conditions", [])]
    status = {"phase": "Running", "conditions": conditions, "containerStatuses": [container], **more}
    return {"metadata": metadata, "status": status}


def test_a_rollout_stands_when_all_is_ready_and_seen():
    assert rollout.stands(deployment(), [pod("p1"), pod("p2")])


@pytest.mark.parametrize(
    ("held", "pods"),
    [
        (deployment(generation=2), [pod("p1"), pod("p2")]),
        (deployment(updated=1), [pod("p1"), pod("p2")]),
        (deployment(ready=1), [pod("p1"), pod("p2")]),
        (deployment(), [pod("p1"), pod("p2", ready=False)]),
        (deployment(), [pod("p1"), pod("p2", leaving=True)]),
        (deployment(), [pod("p1")]),
        (deployment(), [pod("p1"), pod("p2"), pod("p3")]),
        (deployment(replicas=0, ready=0), []),
    ],
)
def test_a_rollout_does_not_stand_otherwise(held, pods):
    assert not rollout.stands(held, pods)


@pytest.mark.parametrize(
    ("one", "kind", "never", "words"),
    [
        (pod(ready=False, waiting="ErrImageNeverPull", message="not present"), "image", True, "ErrImageNeverPull"),
        (pod(ready=False, waiting="ImagePullBackOff", message="Back-off"), "image", True, "registry/api:1"),
        (pod(ready=False, waiting="ErrImagePull", message="x"), "image", False, "not be pulled yet"),
        (
            pod(ready=False, waiting="CreateContainerConfigError", message="secret gone"),
            "container",
            True,
            "secret gone",
        ),
        (
            pod(ready=False, waiting="CrashLoopBackOff", restarts=2, terminated={"exitCode": 1, "reason": "Error"}),
            "process",
            True,
            "exit 1); it is in CrashLoopBackOff",
        ),
        (
            pod(restarts=1, terminated={"exitCode": 137, "reason": "OOMKilled"}),
            "process",
            True,
            "exit 137, OOMKilled",
        ),
        (pod(ready=False, phase="Failed", reason="Evicted"), "pod", True, "Evicted"),
        (
            pod(
                ready=False,
                phase="Pending",
                conditions=[{"type": "PodScheduled", "reason": "Unschedulable", "message": "0/1 nodes"}],
            ),
            "unschedulable",
            False,
            "0/1 nodes",
        ),
        (pod(ready=False), "not_ready", False, "runs but is not ready"),
    ],
)
def test_every_state_of_a_pod_has_its_reason(one, kind, never, words):
    found = rollout.causes(deployment(ready=0), [one])
    assert [(cause.kind, cause.never) for cause in found] == [(kind, never)]
    assert words in found[0].problem


def test_a_pod_on_its_way_out_says_nothing():
    assert rollout.causes(deployment(), [pod(ready=False, leaving=True, waiting="CrashLoopBackOff")]) == []


def test_only_events_that_tell_why_are_told():
    events = [
        {"reason": "Unhealthy", "message": "Readiness probe failed:\n 503", "lastTimestamp": "2026-01-01T00:00:01Z"},
        {"reason": "MissingClusterDNS", "message": "no DNS", "lastTimestamp": "2026-01-01T00:00:02Z"},
    ]
    assert rollout.unready_reason(events) == "Readiness probe failed: 503"
    assert rollout.unready_reason([]) == ""


def test_a_pod_has_ended_when_no_process_is_left():
    assert rollout.ended(pod(leaving=True, waiting="ContainerCreating"))
    assert not rollout.ended(pod(leaving=True))
    assert not rollout.ended(pod(waiting="ContainerCreating"))


def test_the_words_of_a_quota_are_kept():
    message = 'pods "x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=3, limited: pods=3'
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    found = rollout.causes(deployment(ready=0, conditions=[failure]), [])
    assert message in found[0].problem and "quota" in found[0].fix


def test_pods_that_say_the_same_say_it_once_and_the_final_word_comes_first():
    pods = [pod("p1", ready=False), pod("p2", ready=False), pod("p3", ready=False, waiting="ErrImageNeverPull")]
    assert [cause.kind for cause in rollout.causes(deployment(ready=0), pods)] == ["image", "not_ready"]


# -- a cluster in memory ----------------------------------------------------------------------------------------


def releases(memory, fence=1, **more):
    return Releases(memory.api(), "shop", "test", fence, dict(IN_CLUSTER), sleep=lambda _s: None, now=lambda: 0, **more)


def test_a_release_is_staged_once_and_its_manifest_comes_last():
    memory = Memory()
    assert releases(memory).stage(RELEASE, [SERVICE])["changed"]
    assert [change.split()[1] for change in memory.changes] == [
        "ConfigMap",
        "ConfigMap",
        "Secret",
        "Secret",
        "ConfigMap",
    ]
    assert memory.changes[-1].split()[2].startswith("shop-release-")
    memory.changes.clear()
    assert not releases(memory).stage(RELEASE, [SERVICE])["changed"]
    assert memory.changes == []


def test_a_release_is_never_changed():
    memory = Memory()
    releases(memory).stage(RELEASE, [SERVICE])
    with pytest.raises(RunbookError, match="another digest"):
        releases(memory).stage({**RELEASE, "digest": "d2"}, [SERVICE])


def test_a_damaged_release_is_not_started_and_is_made_anew():
    memory = Memory()
    releases(memory).stage(RELEASE, [SERVICE])
    secret = next(path for path in memory.held if "/secrets/shop-api-secret" in path)
    del memory.held[secret]
    assert releases(memory).read([])["foreign"] and not releases(memory).read([])["releases"]
    with pytest.raises(RunbookError, match="is not whole"):
        releases(memory).start("blue", RELEASE, [STARTED])
    assert releases(memory).stage(RELEASE, [SERVICE])["changed"]
    assert [one["id"] for one in releases(memory).read([])["releases"]] == [RELEASE["id"]]


def test_check_mode_writes_nothing():
    memory = Memory()
    assert releases(memory).stage(RELEASE, [SERVICE], check_mode=True)["changed"]
    assert memory.changes == []


def test_an_older_fence_is_refused_before_anything():
    memory = Memory()
    releases(memory, fence=5).stage(RELEASE, [SERVICE])
    memory.changes.clear()
    for change in (
        lambda: releases(memory, fence=4).stage({**RELEASE, "id": "2"}, [SERVICE]),
        lambda: releases(memory, fence=4).stop("green"),
    ):
        with pytest.raises(RunbookError) as error:
            change()
        assert error.value.details["fenced"]
    assert memory.changes == []


def test_a_fence_that_is_overtaken_while_it_is_written_is_refused():
    memory = Memory()
    releases(memory, fence=5).take_fence()

    def overtake(method, path):
        memory.before = lambda *_: None
        releases(memory, fence=9).take_fence()

    memory.before = overtake
    with pytest.raises(RunbookError) as error:
        releases(memory, fence=6).take_fence()
    assert error.value.details["fenced"]
    assert releases(memory).seen_fence() == 9


def test_the_live_slot_is_neither_started_nor_stopped():
    memory = Memory()
    with pytest.raises(RunbookError, match="takes the traffic"):
        releases(memory).stop("blue", live_slot="blue")
    with pytest.raises(RunbookError, match="takes the traffic"):
        releases(memory).start("blue", RELEASE, [STARTED], live_slot="blue")


def test_another_environment_in_the_namespace_is_refused():
    memory = Memory()
    releases(memory).take_fence()
    with pytest.raises(RunbookError, match="a namespace of its own"):
        Releases(memory.api(), "shop", "production", 2).take_fence()


def test_pruning_keeps_what_another_release_needs():
    memory = Memory()
    second = {"id": "2.0.0-aaaaaaaa", "version": "2.0.0", "digest": "d2"}
    releases(memory).stage(RELEASE, [SERVICE])
    releases(memory).stage(second, [{**SERVICE, "secrets": {"TOKEN": "another"}}])
    assert releases(memory).prune([RELEASE["id"]], [second["id"]])["removed"] == [RELEASE["id"]]
    assert [one["id"] for one in releases(memory).read([])["releases"]] == [second["id"]]
    releases(memory).manifest(second["id"])
    assert len([path for path in memory.held if "/secrets/shop-api-secret" in path]) == 1


def test_what_is_needed_is_not_pruned():
    memory = Memory()
    releases(memory).stage(RELEASE, [SERVICE])
    with pytest.raises(RunbookError, match="still needed"):
        releases(memory).prune([RELEASE["id"]], [RELEASE["id"]])


# -- traffic ----------------------------------------------------------------------------------------------------


def test_weights_are_the_whole_traffic_or_none():
    assert parts({}) == {} and parts({"blue": 0, "green": 100}) == {"green": 100}
    assert parts({"blue": 90, "green": 10}) == {"blue": 90, "green": 10}
    for bad in ({"blue": 90, "green": 20}, {"blue": 50}, {"red": 100}, {"blue": 110, "green": -10}):
        with pytest.raises(RunbookError, match="weights: "):
            parts(bad)


def test_members_of_a_service():
    endpoints = [
        {"targetRef": {"name": "a"}, "conditions": {"ready": True}},
        {"targetRef": {"name": "b"}, "conditions": {"ready": False}},
    ]
    assert members([{"endpoints": endpoints}, {"endpoints": None}]) == {"a"}
    assert old_members({"subsets": [{"addresses": [{"targetRef": {"name": "a"}}], "notReadyAddresses": [{}]}]}) == {"a"}
    assert old_members(None) == set()


def site(*slots, services=("api", "web")):
    """A cluster with ready pods in ``slots``; Endpoints follow the selectors as soon as they are looked at."""
    memory = Memory()
    for slot in slots:
        for service in services:
            one = pod(f"{service}-{slot}")
            one["kind"] = "Pod"
            one["metadata"]["labels"] = objects.labels("shop", service, slot, "r")
            memory.put(f"{CORE}/pods/{service}-{slot}", one)
    call = memory.__call__

    class Following(Memory):
        def __call__(self, method, path, body, headers, seconds):
            if "/endpoints/" in path:
                name = path.rsplit("/", 1)[1]
                chosen = memory.held[f"{CORE}/services/{name}"]["spec"]["selector"]
                named = [
                    o["metadata"]["name"]
                    for o in memory.held.values()
                    if o["kind"] == "Pod" and chosen.items() <= o["metadata"]["labels"].items()
                ]
                return self._answer(200, {"subsets": [{"addresses": [{"targetRef": {"name": n}} for n in named]}]})
            return call(method, path, body, headers, seconds)

    following = Following()
    return memory, following.api()


def router(api, fence=1):
    clock = iter(range(10**6))
    services = [{"name": "api", "port": 1}, {"name": "web", "port": 2}]
    return Services(api, "shop", "test", services, fence, clock=lambda: float(next(clock)), sleep=lambda _s: None)


def good(_deadline):
    return [{"name": "x", "passed": True, "problem": ""}]


def bad(_deadline):
    return [{"name": "x", "passed": False, "problem": "9.9.9 answers"}]


def selectors(memory):
    return {
        p.rsplit("-", 1)[1]: o["spec"]["selector"][objects.SLOT]
        for p, o in memory.held.items()
        if o["kind"] == "Service"
    }


@pytest.mark.requirement("BG-08")
def test_all_services_switch_in_one_operation():
    memory, api = site("blue", "green")
    first = router(api).shift({"blue": 100}, "r", "1", good, 30)
    assert first["changed"] and selectors(memory) == {"api": "blue", "web": "blue"}
    assert router(api).read()["weights"] == {"blue": 100}
    again = router(api).shift({"blue": 100}, "r", "1", good, 30)
    assert not again["changed"]
    router(api, 2).shift({"green": 100}, "r", "1", good, 30)
    assert selectors(memory) == {"api": "green", "web": "green"}


@pytest.mark.requirement("BG-08")
def test_a_slot_without_ready_pods_gets_nothing():
    memory, api = site("blue")
    router(api).shift({"blue": 100}, "r", "1", good, 30)
    with pytest.raises(RunbookError, match="green has no ready pod of r for api, web"):
        router(api).shift({"green": 100}, "r", "1", good, 30)
    assert selectors(memory) == {"api": "blue", "web": "blue"}


def test_what_does_not_answer_is_put_back():
    memory, api = site("blue", "green")
    router(api).shift({"blue": 100}, "r", "1", good, 30)
    with pytest.raises(RunbookError, match=r"9\.9\.9 answers.*The old selectors are back") as error:
        router(api).shift({"green": 100}, "r", "1", bad, 30)
    assert error.value.details["restored"] and error.value.details["weights"] == {"blue": 100}
    assert selectors(memory) == {"api": "blue", "web": "blue"}


def test_a_service_that_can_not_be_changed_takes_the_others_back():
    memory, api = site("blue", "green")
    router(api).shift({"blue": 100}, "r", "1", good, 30)

    def meddle(method, path):
        if path.endswith("/shop-web"):
            memory.before = lambda *_: None
            memory.put(path, memory.held[path])  # somebody else writes it at this moment

    memory.before = meddle
    with pytest.raises(RunbookError, match="at this very moment"):
        router(api).shift({"green": 100}, "r", "1", good, 30)
    assert selectors(memory) == {"api": "blue", "web": "blue"}


def test_a_first_shift_that_fails_leaves_no_service():
    memory, api = site("blue")
    with pytest.raises(RunbookError, match="The Services made for it are removed"):
        router(api).shift({"blue": 100}, "r", "1", bad, 30)
    assert selectors(memory) == {}


def test_no_weights_is_no_traffic():
    memory, api = site("blue")
    router(api).shift({"blue": 100}, "r", "1", good, 30)
    router(api).shift({}, "", "", lambda _d: [], 30)
    assert selectors(memory) == {"api": "none", "web": "none"} and router(api).read()["weights"] == {}


def test_a_service_of_somebody_else_is_not_touched():
    memory, api = site("blue")
    memory.put(
        f"{CORE}/services/shop-api",
        {"kind": "Service", "metadata": {"name": "shop-api"}, "spec": {"selector": {"a": "b"}}},
    )
    with pytest.raises(RunbookError, match="is not managed by signalbox"):
        router(api).shift({"blue": 100}, "r", "1", good, 30)
    assert memory.changes == []


def test_a_newer_run_keeps_an_older_one_from_its_services():
    memory, api = site("blue", "green")
    router(api, 5).shift({"blue": 100}, "r", "1", good, 30)
    with pytest.raises(RunbookError) as error:
        router(api, 4).shift({"green": 100}, "r", "1", good, 30)
    assert error.value.details["fenced"] and selectors(memory) == {"api": "blue", "web": "blue"}


# -- the API's words --------------------------------------------------------------------------------------------


def answering(status, document, content="application/json"):
    body = document.encode() if isinstance(document, str) else json.dumps(document).encode()
    return Api(
        lambda *_: Reached(status, {"Content-Type": content}, body),
        "shop",
        Cluster("c", "https://s"),
        sleep=lambda _s: None,
    )


@pytest.mark.parametrize(
    ("status", "document", "kind", "words"),
    [
        (
            403,
            {"kind": "Status", "message": 'cannot list resource "pods"'},
            ForbiddenError,
            'cannot list resource "pods"',
        ),
        (401, {"kind": "Status", "message": "Unauthorized"}, RunbookError, "does not accept the credentials of c"),
        (409, {"kind": "Status", "message": "modified"}, ConflictError, "modified"),
        (422, {"kind": "Status", "message": "spec.replicas: Invalid"}, RunbookError, "spec.replicas: Invalid"),
        (502, "dial tcp: connection refused", UnreachableError, "dial tcp: connection refused"),
        (200, "<html>", RunbookError, "does not answer as a Kubernetes API server does"),
    ],
)
def test_what_the_api_refuses_is_one_sentence_with_its_words(status, document, kind, words):
    with pytest.raises(kind) as error:
        answering(status, document).get("Pod", "p")
    assert words in str(error.value) and "\n" not in str(error.value)


def ask_pod(api):
    return api.fetch(Request("GET", "http://pod1:8080/health?a=b", {}, 5, True, None))


def test_the_answer_of_a_pod_is_its_own_and_not_that_of_the_api():
    own = ask_pod(answering(503, {"status": "degraded"}))
    assert isinstance(own, Answer) and own.status == 503
    status = {"kind": "Status", "apiVersion": "v1", "message": "error trying to reach service: connection refused"}
    assert ask_pod(answering(503, status)) == Failure("refused", status["message"])


def test_a_pod_is_asked_through_the_api_server():
    asked = []

    def call(method, path, body, headers, seconds):
        asked.append(path)
        return Reached(200, {}, b"{}")

    ask_pod(Api(call, "shop", Cluster("c", "s")))
    assert asked == ["/api/v1/namespaces/shop/pods/pod1:8080/proxy/health?a=b"]
