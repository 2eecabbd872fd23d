"""What the cluster says, and what users get."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host

testinfra_hosts = ["local://"]
LABEL = "signalbox.runbook/"


@pytest.fixture
def objects(host: Host, name: str) -> Callable[[str], list[dict[str, Any]]]:
    """Every object of a kind in the namespace."""
    return lambda kind: list(json.loads(host.check_output(f"kubectl -n {name} get {kind} -o json"))["items"])


@pytest.fixture
def pods(objects: Callable[[str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Those that are not on their way out: the cluster takes its time with these."""
    return [pod for pod in objects("pods") if "deletionTimestamp" not in pod["metadata"]]


def test_users_get_what_was_deployed_last(
    objects: Callable[[str], list[dict[str, Any]]], versions: Callable[[str], set[str]]
) -> None:
    (service,) = objects("services")
    assert versions(f"http://127.0.0.1:{service['spec']['ports'][0]['nodePort']}") == {"1.1.0"}


def test_only_the_live_slot_has_a_deployment_and_it_is_ready(objects: Callable[[str], list[dict[str, Any]]]) -> None:
    """Not the first release, which the bad one replaced, and not the bad one."""
    (deployment,) = objects("deployments")
    assert deployment["metadata"]["name"] == "demo-backend-green"
    assert deployment["metadata"]["annotations"][f"{LABEL}version"] == "1.1.0"
    assert deployment["status"]["readyReplicas"] == deployment["spec"]["replicas"] == 2


def test_the_service_leads_to_the_ready_pods_of_the_live_slot(
    objects: Callable[[str], list[dict[str, Any]]], pods: list[dict[str, Any]]
) -> None:
    (service,) = objects("services")
    assert service["spec"]["selector"][f"{LABEL}slot"] == "green"
    (endpoints,) = objects("endpoints")
    (subset,) = endpoints["subsets"]
    live = {pod["metadata"]["uid"] for pod in pods}
    assert {address["targetRef"]["uid"] for address in subset["addresses"]} == live
    assert len(pods) == 2 and "notReadyAddresses" not in subset


def test_pods_run_the_image_of_the_release_and_not_as_root(host: Host, name: str, pods: list[dict[str, Any]]) -> None:
    image = host.check_output("docker image inspect --format {{.Id}} %s:1.1.0", name)
    assert pods
    for pod in pods:
        (status,) = pod["status"]["containerStatuses"]
        assert status["imageID"].endswith(image) and status["restartCount"] == 0
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


def test_secrets_are_in_no_object_but_secrets(host: Host, name: str) -> None:
    kinds = "deployments,pods,configmaps,services"
    assert "not-to-be-read" not in host.check_output(f"kubectl -n {name} get {kinds} -o yaml")
