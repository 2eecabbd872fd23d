"""One namespace with one application, its inventory, and what is really there, asked with kubectl."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import cluster_images
import yaml
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_api import Api, connected

from runbook_site import Plays

NODE = os.environ.get("RUNBOOK_KUBERNETES_NODE", "127.0.0.1")
HOST = "cluster1"
LABEL = "signalbox.runbook/"


class Site(Plays):
    timeout = 240.0

    def __init__(self, kubeconfig: str, directory: Path, start_seconds: float = 30, store: str = "directory") -> None:
        super().__init__(directory, directory / "inventory.yml", directory / "state")
        self.start_seconds = start_seconds
        self.store = store
        self._closing = contextlib.ExitStack()
        self.kubeconfig = kubeconfig
        self.namespace = f"runbook-test-{random.randrange(16**6):06x}"
        config = self.json("config", "view")
        self.context = config["current-context"]
        self.server = config["clusters"][0]["cluster"]["server"]
        self.kubectl("create", "namespace", self.namespace)
        self.port = self._free_node_port()
        self.front_url = f"http://{NODE}:{self.port}"
        self.inventory.write_text(yaml.safe_dump(self._inventory()), encoding="utf-8")

        if store == "kubernetes":
            # Asking once takes kubectl longer than some steps of a run.
            self.api: Api = self._closing.enter_context(connected(self.context, self.namespace, kubeconfig))

    def close(self) -> None:
        self._closing.close()
        self.kubectl("delete", "namespace", self.namespace, "--wait=false")

    def _free_node_port(self) -> int:
        services = self.json("get", "services", "--all-namespaces")["items"]
        taken = {port.get("nodePort") for one in services for port in one["spec"].get("ports", ())}
        return random.choice([port for port in range(30100, 32700) if port not in taken])

    def _inventory(self) -> dict[str, Any]:
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "app_name": "demo",
            "app_environment": "test",
            "app_runtime": "kubernetes",
            "app_router": "kubernetes",
            "app_url": self.front_url,
            **({"app_state_store": self.store} if self.store != "directory" else {"app_state_dir": str(self.state)}),
            "accounting_path": "/",
            "accounting_keep_alive": "false",
            "runtime_kubernetes_kubeconfig": self.kubeconfig,
            "runtime_kubernetes_context": self.context,
            "runtime_kubernetes_namespace": self.namespace,
            "runtime_kubernetes_expected_server": self.server,
            "runtime_kubernetes_resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
            "router_kubernetes_services": {"backend": {"type": "NodePort", "node_port": self.port}},
            "app_services": [
                {
                    "name": "backend",
                    "port": 8080,
                    "image": cluster_images.DEMO,
                    "environment": {"GREETING": "hello"},
                    "secrets": {"API_TOKEN": "not-to-be-seen-{{ app_version }}"},
                    "files": {"conf/settings.ini": "version={{ app_version }}\n"},
                    "health": {"path": "/health", "expect": {"status": "ok"}},
                    "version": {"path": "/version", "key": "version"},
                    "start_seconds": f"{{{{ test_start_seconds | default({self.start_seconds}) }}}}",
                    "stop_seconds": 5,
                    "drain_seconds": 5,
                }
            ],
        }
        hosts = {HOST: {}}
        groups = {name: {"hosts": hosts} for name in ("targets", "routers")}
        return {"all": {"vars": variables, "children": {**groups, "state": {"hosts": {"state1": {}}}}}}

    def release(self, version: str, **faults: Any) -> None:
        cluster_images.build(version, faults)

    def environment(self) -> dict[str, str]:
        return {key: value for key, value in super().environment().items() if key != "KUBECONFIG"}

    # -- the journal, where it is in the namespace ------------------------------------------------------------------

    def _lines(self, part: str) -> dict[int, list[dict[str, Any]]]:
        found = self.api.find("ConfigMap", {f"{LABEL}app": "demo", f"{LABEL}part": part})
        named = {int(one["metadata"]["name"].rpartition("-")[2]): one["data"]["lines.jsonl"] for one in found}
        return {number: [json.loads(line) for line in named[number].splitlines()] for number in sorted(named)}

    def run_numbers(self) -> list[int]:
        return list(self._lines("run")) if self.store == "kubernetes" else super().run_numbers()

    def events(self, run: int) -> list[dict[str, Any]]:
        return self._lines("run")[run] if self.store == "kubernetes" else super().events(run)

    def history(self) -> list[dict[str, Any]]:
        if self.store != "kubernetes":
            return super().history()
        return [record for chunk in self._lines("history").values() for record in chunk]

    def lease(self) -> str:
        return json.dumps(self.api.get("Lease", "demo-runbook")) if self.store == "kubernetes" else super().lease()

    # -- what is really there -------------------------------------------------------------------------------------

    def kubectl(self, *words: str, namespaced: bool = False, given: str = "", check: bool = True) -> str:
        space = ["--namespace", self.namespace] if namespaced else []
        done = subprocess.run(
            ["kubectl", "--kubeconfig", self.kubeconfig, *space, *words],
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def json(self, *words: str, namespaced: bool = False) -> Any:
        return json.loads(self.kubectl(*words, "-o", "json", namespaced=namespaced))

    def objects(self, kind: str) -> list[dict[str, Any]]:
        return list(self.json("get", kind, namespaced=True)["items"])

    def slots(self) -> dict[str, str]:
        """Version by slot, where all pods are ready."""
        found = {}
        for one in self.objects("deployments"):
            labels, status = one["metadata"]["labels"], one.get("status", {})
            if status.get("readyReplicas") == one["spec"]["replicas"]:
                found[labels["signalbox.runbook/slot"]] = one["metadata"]["annotations"]["signalbox.runbook/version"]
        return found

    def strays(self) -> list[str]:
        """Deployments of slots that are not ready."""
        held = self.slots()
        return [
            one["metadata"]["name"]
            for one in self.objects("deployments")
            if one["metadata"]["labels"][f"{LABEL}slot"] not in held
        ]

    def workers(self, service: str) -> dict[str, str]:
        """Version by slot of a service whose processes run there, those that are about to end too."""
        found = {}
        for pod in self.objects("pods"):
            of, slot, release = (pod["metadata"]["labels"].get(LABEL + word) for word in ("service", "slot", "release"))
            if of == service and any("running" in one["state"] for one in pod["status"].get("containerStatuses", ())):
                found[slot] = release.partition("-")[0]
        return found

    def selector(self, service: str = "demo-backend") -> dict[str, str]:
        return dict(self.json("get", "service", service, namespaced=True)["spec"]["selector"])

    def everything(self) -> dict[str, str]:
        """Every object of the namespace with its resourceVersion: what "nothing touched" is compared by."""
        kinds = "configmaps,leases,secrets,services,deployments,pods,poddisruptionbudgets"
        return {
            f"{one['kind']} {one['metadata']['name']}": one["metadata"]["resourceVersion"]
            for one in self.objects(kinds)
        }
