# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In one cluster: ours and kubectl, and what moving a Service takes alone."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "lab"), str(TESTS / "kubernetes")]

import cluster_images
import lanes
from chaos import events, run_numbers
from clients import answers_of, clients
from cluster import kubeconfig
from engine import docker
from kubernetes_site import NODE, Site

NEVER = {"runtime_kubernetes_image_pull_policy": "Never"}  # images are built where the cluster runs
WORK = (
    "Two pods of an image that is there already, behind a Service; all are ready before the old ones get less. Each "
    "request of the users has a connection of its own."
)


def service(name: str, port: int, selector: dict[str, str]) -> dict[str, Any]:
    ports = [{"port": 80, "targetPort": 8080, "nodePort": port}]
    spec = {"type": "NodePort", "selector": selector, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


class Kubectl(lanes.Peer):
    name = "kubectl set image"
    kept = False
    lacks = (
        "asking for the version, configuration and secrets of the release, a record, a lock. Its rollback is `kubectl "
        "rollout undo`, which starts pods anew."
    )

    def __init__(self, site: Site) -> None:
        self.site = site
        port = site._free_node_port()
        self.url = f"http://{NODE}:{port}"
        own = {"app": "bare"}
        probe = {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 1}
        container = {
            "name": "backend",
            "image": f"{cluster_images.DEMO}:{lanes.OLD}",
            "imagePullPolicy": "Never",
            "env": [{"name": "PORT", "value": "8080"}],
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
            "readinessProbe": probe,
            "lifecycle": {"preStop": {"exec": {"command": ["sleep", "2"]}}},
        }
        pods = {"metadata": {"labels": own}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 10}}
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        spec = {"replicas": 2, "selector": {"matchLabels": own}, "strategy": rolling, "template": pods}
        deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "bare"}, "spec": spec}
        for one in (deployment, service("bare", port, own)):
            site.kubectl("apply", "-f", "-", namespaced=True, given=json.dumps(one))

    def release(self, version: str, **faults: Any) -> None:
        self.site.release(version, **faults)

    def kubectl(self, *words: str) -> str:
        return shlex.join(["kubectl", "--kubeconfig", self.site.kubeconfig, "-n", self.site.namespace, *words])

    def rolled(self, *words: str) -> list[str]:
        timeout = f"--timeout={lanes.START_SECONDS * 2}s"  # for its pods come one after the other
        status = self.kubectl("rollout", "status", "deployment/bare", timeout)
        return ["sh", "-c", f"{self.kubectl(*words)} && {status}"]

    def deploy(self, version: str) -> list[str]:
        return self.rolled("set", "image", "deployment/bare", f"backend={cluster_images.DEMO}:{version}")

    def rollback(self, to: str) -> list[str]:
        return self.rolled("rollout", "undo", "deployment/bare")


def switches(ours: lanes.Ours, site: Site, rounds: int) -> str:
    """From the decision to the first answer of the other version: the intent in the journal, or kubectl's start."""
    bare = lanes.Peer()
    port = site._free_node_port()
    bare.url = f"http://{NODE}:{port}"
    site.kubectl("apply", "-f", "-", namespaced=True, given=json.dumps(service("switch", port, site.selector())))

    def first(peer: lanes.Peer, version: str, move: Callable[[], float]) -> float:
        with clients(peer.url, 4, 0.01, kept=False) as users:
            time.sleep(0.5)
            decided = move()
            lanes.until(peer, version, "")
        return min(answer.ended for answer in answers_of(users) if answer.version == version) - decided

    def deployed(version: str) -> float:
        _cost, code, output = lanes.measured(ours.deploy(version), ours.environment())
        if code:
            raise SystemExit(output)
        journal = events(site, run_numbers(site)[-1])
        return float(next(one["at"] for one in journal if one["event"] == "intent" and one["phase"] == "shift"))

    def patched() -> float:
        patch = json.dumps({"spec": {"selector": site.selector()}})
        began = time.time()
        site.kubectl("patch", "service", "switch", "-p", patch, namespaced=True)
        return began

    found: dict[str, list[float]] = {"ours": [], "patch": []}
    for number in range(rounds):
        version = f"7.4.{number}"
        ours.release(version)
        found["ours"].append(first(ours, version, functools.partial(deployed, version)))
        found["patch"].append(first(bare, version, patched))
    text = {key: lanes.spread(values) for key, values in found.items()}
    more = statistics.median(found["ours"]) - statistics.median(found["patch"])
    lines = [
        "### Kubernetes, the switch alone",
        "",
        "From the decision to the first answer of the new version through the Service, whose pods are all ready.",
        "",
        "| ours, s | `kubectl patch service`, s | ours to it | ours takes longer by, s |",
        "| --- | --- | --- | --- |",
        f"| {text['ours']} | {text['patch']} | {more / statistics.median(found['patch']) + 1:.2f} | {more:.2f} |",
    ]
    return "\n".join(lines) + "\n"


def places(_arguments: argparse.Namespace) -> list[lanes.Maker]:
    return [kubernetes]


@contextlib.contextmanager
def kubernetes(directory: Path) -> Iterator[lanes.Lane]:
    try:
        site = Site(kubeconfig(), directory, lanes.START_SECONDS)
    except pytest.skip.Exception as skipped:
        raise SystemExit(f"bench: {skipped}") from None
    try:
        ours = lanes.Ours(site, kept=False, **NEVER)
        site.release(lanes.OLD)
        peers = [ours, Kubectl(site)]
        yield lanes.Lane("Kubernetes", WORK, peers, more=lambda rounds: switches(ours, site, rounds))
    finally:
        site.close()
        site.kubectl("wait", "--for=delete", f"namespace/{site.namespace}", "--timeout=60s", check=False)
        for image in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", cluster_images.DEMO).split():
            if image.startswith(f"{cluster_images.DEMO}:7."):
                subprocess.run(["docker", "image", "rm", image], check=False, capture_output=True, timeout=60)
