"""One namespace with one application, its inventory, and what is really there, asked with kubectl."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any, Optional

import images
import yaml

from runbook_site import CHECKOUT, PLAYBOOK, Play, version_at

NODE = os.environ.get("RUNBOOK_KUBERNETES_NODE", "127.0.0.1")
HOST = "cluster1"


class Site:
    """Every play ends within ``timeout`` seconds or fails the test."""

    def __init__(self, kubeconfig: str, directory: Path, start_seconds: float = 30) -> None:
        self.start_seconds = start_seconds
        self.kubeconfig = kubeconfig
        self.directory = directory
        self.reports = directory / "reports"
        self.state = directory / "state"
        self.namespace = f"runbook-test-{random.randrange(16**6):06x}"
        config = self.json("config", "view")
        self.context = config["current-context"]
        self.server = config["clusters"][0]["cluster"]["server"]
        self.kubectl("create", "namespace", self.namespace)
        self.port = self._free_node_port()
        self.url = f"http://{NODE}:{self.port}"
        self.inventory = directory / "inventory.yml"
        self.inventory.write_text(yaml.safe_dump(self._inventory()), encoding="utf-8")

    def close(self) -> None:
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
            "app_url": self.url,
            "app_state_dir": str(self.state),
            "accounting_path": "/",
            "accounting_keep_alive": "false",
            "runtime_kubernetes_kubeconfig": self.kubeconfig,
            "runtime_kubernetes_context": self.context,
            "runtime_kubernetes_namespace": self.namespace,
            "runtime_kubernetes_expected_server": self.server,
            "runtime_kubernetes_pre_stop_seconds": 2,
            "runtime_kubernetes_resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
            "router_kubernetes_services": {"backend": {"type": "NodePort", "node_port": self.port}},
            "app_services": [
                {
                    "name": "backend",
                    "port": 8080,
                    "image": images.DEMO,
                    "environment": {"GREETING": "hello"},
                    "secrets": {"API_TOKEN": "not-to-be-seen-{{ app_version }}"},
                    "files": {"conf/settings.ini": "version={{ app_version }}\n"},
                    "health": {"path": "/health", "expect": {"status": "ok"}},
                    "version": {"path": "/version", "key": "version"},
                    "start_seconds": self.start_seconds,
                    "stop_seconds": 5,
                    "drain_seconds": 5,
                }
            ],
        }
        hosts = {HOST: {}}
        groups = {name: {"hosts": hosts} for name in ("targets", "routers")}
        return {"all": {"vars": variables, "children": {**groups, "state": {"hosts": {"state1": {}}}}}}

    # -- plays ----------------------------------------------------------------------------------------------------

    def release(self, version: str, **faults: Any) -> None:
        images.build(version, faults)

    def environment(self) -> dict[str, str]:
        plain = {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_") and k != "KUBECONFIG"}
        return {**plain, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}

    def command(self, verb: str, *options: str, **variables: Any) -> list[str]:
        given = {
            "app_report_dir": str(self.reports),
            "watch_seconds": 0,
            "accounting_requests_per_second": 50,
            **variables,
        }
        playbook = str(CHECKOUT / "playbooks" / f"{verb}.yml")
        return [str(PLAYBOOK), playbook, "-i", str(self.inventory), "-e", json.dumps(given), *options]

    def start(self, verb: str, *options: str, **variables: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(verb, *options, **variables),
            cwd=CHECKOUT,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, verb: str, *options: str, timeout: float = 240, **variables: Any) -> Play:
        before = set(self.reports.glob("*.json"))
        process = self.start(verb, *options, **variables)
        try:
            output, _nothing = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        new = sorted(set(self.reports.glob("*.json")) - before)
        report = json.loads(new[0].read_text(encoding="utf-8")) if new else None
        return Play(process.returncode, output, report)

    def deploy(self, version: str, *options: str, **variables: Any) -> Play:
        return self.run("deploy", *options, app_version=version, **variables)

    def rollback(self, *options: str, **variables: Any) -> Play:
        return self.run("rollback", *options, **{"app_reason": "a test", **variables})

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

    def answers(self, count: int = 12) -> set[str]:
        """The versions that answer through the Service, each on a new connection."""
        return {version_at(self.url) for _time in range(count)}

    def slots(self) -> dict[str, str]:
        """Version by slot, where all pods are ready."""
        found = {}
        for one in self.objects("deployments"):
            labels, status = one["metadata"]["labels"], one.get("status", {})
            if status.get("readyReplicas") == one["spec"]["replicas"]:
                found[labels["signalbox.runbook/slot"]] = one["metadata"]["annotations"]["signalbox.runbook/version"]
        return found

    def selector(self, service: str = "demo-backend") -> dict[str, str]:
        return dict(self.json("get", "service", service, namespaced=True)["spec"]["selector"])

    def snapshot(self) -> dict[str, str]:
        """Every object of the namespace with its resourceVersion: what "nothing touched" is compared by."""
        kinds = "configmaps,secrets,services,deployments,pods,poddisruptionbudgets"
        return {
            f"{one['kind']} {one['metadata']['name']}": one["metadata"]["resourceVersion"]
            for one in self.objects(kinds)
        }

    def history(self) -> list[dict[str, Any]]:
        path = self.state / "history.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def live(self) -> Optional[str]:
        for record in reversed(self.history()):
            if record["outcome"] in ("deployed", "restored"):
                return str(record["to"]["version"])
        return None
