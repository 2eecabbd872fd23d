"""Real releases and slots on the Docker Engine of this machine. Everything made here has a prefix of its own."""

from __future__ import annotations

import io
import json
import secrets
import socket
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _compose
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.modules import compose_project

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lab"))

import images
from engine import PREFIX, docker, remove_ours, why_not

SHORT_FILE = 'FROM {base}\nCOPY app.py /app.py\nENV BUILT_VERSION={version}\nCMD ["python3", "/app.py"]\n'
COMPOSE = "services:\n  api:\n    image: anything\n    ports: ['9:9']\n"
DEFAULTS = {
    key: option.get("default", None if option["type"] != "bool" else False)
    for key, option in compose_project.ARGUMENTS.items()
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if HERE in item.path.parents]
    reason = why_not() if ours else ""
    for item in ours if reason else []:
        item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def cleaned() -> Iterator[None]:
    """Whatever a test leaves is removed: containers, networks and images with our prefix, and nothing else."""
    yield
    remove_ours()


def build(version: str, name: str = "api", built: str = "") -> str:
    """An image of app.py that answers ``built`` as its version; its id."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        images.add(archive, "app.py", (HERE / "app.py").read_bytes())
        text = SHORT_FILE.format(base=images.base(), version=built or version)
        images.add(archive, "Dockerfile", text.encode())
    reference = f"{PREFIX}-{name}:{version}"
    images.run("docker", "build", "--quiet", "--tag", reference, "-", input=context.getvalue())
    return docker("image", "inspect", "--format", "{{.Id}}", reference)


def free_ports(count: int) -> list[int]:
    servers = [socket.socket() for _time in range(count)]
    for server in servers:
        server.bind(("127.0.0.1", 0))
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


class Place:
    """One target: a home, a project and two ports for each of its services."""

    def __init__(self, home: Path, name: str, services: tuple[str, ...] = ("api",)) -> None:
        self.home = home
        self.project = f"{PREFIX}-{name}"
        numbers = iter(free_ports(2 * len(services)))
        self.ports = {service: {"blue": next(numbers), "green": next(numbers)} for service in services}
        self.fence = 0

    def call(self, state: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
        self.fence += state != "read"
        fixed = {"home": str(self.home), "application": "shop", "project": self.project, "fence": self.fence}
        services = [
            {**{key: option.get("default") for key, option in compose_project.SERVICE_OPTIONS.items()}, **service}
            for service in arguments.pop("services", [])
        ]
        given = {**DEFAULTS, **fixed, "services": services, "state": state, **arguments}
        return compose_project.arrange(given, check)

    def stage(
        self,
        version: str,
        image: str = "",
        contents: Optional[list[str]] = None,
        variables: Optional[dict[str, str]] = None,
        release: str = "",
        check: bool = False,
        environment: Optional[dict[str, str]] = None,
        secret: Optional[dict[str, str]] = None,
        **more: Any,
    ) -> dict[str, Any]:
        made = [
            {
                "name": name,
                "image": image or f"{PREFIX}-api",
                "container_port": 8080,
                "environment": environment or {},
                "secrets": secret or {},
            }
            for name in self.ports
        ]
        contents = contents or [COMPOSE.replace("api", "{}").format(next(iter(self.ports)))]
        files = [{"content": text} for text in contents]
        digest = _compose.digest(made, files, variables or {})
        return self.call(
            "staged",
            check,
            release={"id": release or f"{version}-00000001", "version": version, "digest": digest},
            services=made,
            files=[f"/srv/compose.{number}.yml" for number, _text in enumerate(contents)],
            contents=contents,
            variables=variables or {},
            **more,
        )

    def services(self, slot: str, version: str = "", **limits: Any) -> list[dict[str, Any]]:
        probes = [
            {"name": "health", "url": "http://127.0.0.1:{port}/health", "expect": {"status": "ok"}, "successes": 2},
            {"name": "version", "url": "http://127.0.0.1:{port}/version", "version_path": "version"},
        ]
        probes[1]["versions"] = [version] if version else []
        return [
            {
                "name": name,
                "port": ports[slot],
                "start_seconds": 30.0,
                "stop_seconds": 2.0,
                "drain_seconds": 2.0,
                "probes": probes,
                **limits,
            }
            for name, ports in self.ports.items()
        ]

    def start(self, slot: str, version: str, live: str = "", release: str = "", **limits: Any) -> dict[str, Any]:
        chosen = {"id": release or f"{version}-00000001", "version": version}
        check = limits.pop("check", False)
        services = self.services(slot, version, **limits)
        return self.call("started", check, slot=slot, live_slot=live, release=chosen, services=services)

    def prove(self, slot: str, version: str) -> dict[str, Any]:
        release = {"id": f"{version}-00000001", "version": version}
        return self.call("proven", slot=slot, release=release, services=self.services(slot, version))

    def stop(self, slot: str, live: str = "", **limits: Any) -> dict[str, Any]:
        return self.call("stopped", slot=slot, live_slot=live, services=self.services(slot, **limits))

    def read(self, **more: Any) -> dict[str, Any]:
        services = [
            {"name": n, "ports": p, "probes": self.services("blue")[0]["probes"]} for n, p in self.ports.items()
        ]
        return self.call("read", services=services, **more)

    def container(self, slot: str, service: str = "") -> str:
        return f"{self.project}-{slot}-{service or next(iter(self.ports))}-1"

    def answer(self, slot: str, path: str = "/version") -> dict[str, Any]:
        port = next(iter(self.ports.values()))[slot]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return dict(json.load(reply))

    def down(self) -> None:
        for slot in ("blue", "green"):
            docker("compose", "-p", f"{self.project}-{slot}", "down", "--timeout", "0")


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    made = Place(tmp_path / "home", f"p{secrets.token_hex(2)}")
    yield made
    made.down()


@pytest.fixture(scope="session")
def built(cleaned: None) -> dict[str, str]:
    """The ids of the images that most tests use."""
    return {version: build(version) for version in ("1.0", "1.1")}


def refusal(call: Any, *arguments: Any, **more: Any) -> str:
    with pytest.raises(RunbookError) as caught:
        call(*arguments, **more)
    return str(caught.value)
