"""A site whose targets are compose projects: the local lab's router, database and cache, and the Docker Engine.

All targets share the one engine, each with a project name of its own.
"""

from __future__ import annotations

import contextlib
import ipaddress
import selectors
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))

import images
from engine import PREFIX, docker

import local
from runbook_site import Site

FILES = {
    "base.yml": "services:\n  backend:\n    image: demo-app\n    ports: ['8080']\n    tmpfs: [/tmp]\n",
    "prod.yml": "services:\n  backend:\n    environment:\n      GREETING: ${GREETING}\n",
}
MODEL = """\
local_lab: "{{ lookup('file', local_root ~ '/ports.json') | from_json }}"
local_secrets: "{{ lookup('file', local_root ~ '/secrets.json') | from_json }}"
local_ports: "{{ local_lab.targets[inventory_hostname] | default(local_lab.targets.target1) }}"
app_name: demo
app_environment: local
app_runtime: compose
app_url: "http://127.0.0.1:{{ local_lab.front }}"
app_home: "{{ local_root }}/targets/{{ inventory_hostname }}"
app_state_dir: "{{ local_root }}/state"
accounting_path: /
app_services:
  - name: backend
    image: IMAGE
    container_port: 8080
    port: "{{ local_ports.blue }}"
    ports:
      blue: "{{ local_ports.blue }}"
      green: "{{ local_ports.green }}"
    environment:
      FAULTS: "{{ test_faults | default('{}') }}"
    secrets:
      DATABASE_URL: "postgresql://demo:{{ local_secrets.database_password }}@GATEWAY:{{ local_lab.database }}/demo"
      REDIS_URL: "redis://:{{ local_secrets.redis_password }}@GATEWAY:{{ local_lab.redis }}/0"
    health:
      path: /health
      expect:
        status: ok
    version:
      path: /version
      key: version
    start_seconds: "{{ test_start_seconds | default(40) }}"
    stop_seconds: 5
    drain_seconds: 5
"""
TARGETS = """\
runtime_compose_project: "PROJECT-{{ inventory_hostname }}"
runtime_compose_files: ["{{ inventory_dir }}/../compose/base.yml", "{{ inventory_dir }}/../compose/prod.yml"]
runtime_compose_variables:
  GREETING: "{{ test_greeting | default('hello') }}"
"""


# The same images as services of supervisor, without Compose.
CONTAINERS = """\
runtime_host_supervisor_socket: "{{ local_lab.supervisor_sockets[inventory_hostname] }}"
runtime_host_supervisor_conf_dir: "{{ app_home }}/supervisor.d"
runtime_host_container_prefix: "PROJECT-{{ inventory_hostname }}"
"""


class Forwarder:
    """Passes connections on from the address that containers reach to one of the loopback."""

    def __init__(self, address: str, port: int) -> None:
        self.port = port
        self.server = socket.create_server((address, port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._pass, args=(self.server.accept()[0],), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self.port)) as inner:
            other = {client: inner, inner: client}
            with selectors.DefaultSelector() as ready:
                for end in other:
                    ready.register(end, selectors.EVENT_READ)
                while True:
                    for key, _events in ready.select():
                        data = key.fileobj.recv(65536)
                        if not data:
                            return
                        other[key.fileobj].sendall(data)

    def close(self) -> None:
        self.server.close()


class ComposeSite(Site):
    runtime, targets, compose = "compose", TARGETS, FILES

    def __init__(self, lab: local.Lab, directory: Path, name: str, gateway: str) -> None:
        super().__init__(lab, directory)
        self.project = f"{PREFIX}-{name}"
        self.image = f"{PREFIX}-{name}-app"
        self.gateway = gateway
        model = MODEL.replace("IMAGE", self.image).replace("GATEWAY", gateway)
        model = model.replace("app_runtime: compose", f"app_runtime: {self.runtime}")
        (self.inventory / "group_vars" / "all.yml").write_text(model, encoding="utf-8")
        targets = self.targets.replace("PROJECT", self.project)
        (self.inventory / "group_vars" / "targets.yml").write_text(targets, encoding="utf-8")
        self.files = directory / "compose"  # not in the inventory, of which Ansible takes every file for a part
        self.files.mkdir()
        for file, text in self.compose.items():
            (self.files / file).write_text(text, encoding="utf-8")

    def release(self, version: str, **faults: Any) -> Path:
        images.build(version, faults, self.image)
        return self.inventory

    def container(self, target: str, slot: str) -> str:
        return f"{self.project}-{target}-{slot}-backend-1"

    def strays(self) -> list[str]:
        """Containers, running or not, of slots that do not answer."""
        held = self.slots()
        known = {self.container(target, slot) for target in held for slot, version in held[target].items() if version}
        own = f"{self.project}-nginx"
        return sorted(self.containers() - known - {own})

    def everything(self) -> dict[str, Any]:
        names = sorted(self.containers())
        said = docker("inspect", "--format", "{{.Name}} {{.Id}} {{.State.StartedAt}}", *names) if names else ""
        return {**super().everything(), "containers": said}

    def containers(self) -> set[str]:
        names = docker("ps", "--all", "--filter", f"name={self.project}-", "--format", "{{.Names}}")
        return set(names.split())


class ContainerSite(ComposeSite):
    runtime, targets, compose = "host", CONTAINERS, {}

    def container(self, target: str, slot: str) -> str:
        return f"{self.project}-{target}-backend-{slot}"


def make_site(
    directory: Path, name: str, targets: int, router: str = "nginx", kind: type[ComposeSite] = ComposeSite
) -> Iterator[ComposeSite]:
    subnet = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}")
    gateway = str(ipaddress.ip_network(subnet)[1])  # this machine, as containers of any network reach it
    with local.Lab(directory / "lab", targets=targets, router=router) as lab:
        forwarders = [Forwarder(gateway, lab.ports[part]) for part in ("database", "redis")]
        site = kind(lab, directory, name, gateway)
        try:
            yield site
        finally:
            for target in lab.names:
                for slot in ("blue", "green"):
                    docker("compose", "-p", f"{site.project}-{target}-{slot}", "down", "--timeout", "0")
            for forwarder in forwarders:
                forwarder.close()
