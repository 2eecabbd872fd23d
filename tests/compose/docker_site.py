"""A site whose targets are hosts with a Docker Engine each; they pull releases by digest from a registry of the lab."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / part) for part in ("lab", "apps", "nodes")]

import images
from docker_nodes import PORT, DockerNodes
from engine import PREFIX

import build as app
from node_site import NodeSite

REPOSITORY = f"registry:{PORT}/demo"
NOWHERE = f"sha256:{'9' * 64}"  # of a version that was never pushed
FILE = "services:\n  backend:\n    image: demo\n    tmpfs: [/tmp]\n"


class DockerSite(NodeSite):
    lab: DockerNodes

    def __init__(self, lab: DockerNodes, directory: Path) -> None:
        self.files = directory / "compose"  # not in the inventory, of which Ansible takes every file for a part
        self.files.mkdir()
        (self.files / "demo.yml").write_text(FILE, encoding="utf-8")
        self.digests = directory / "digests.json"
        self.digests.write_text("{}", encoding="utf-8")
        super().__init__(lab, directory)

    def groups(self) -> dict[str, dict[str, Any]]:
        groups = super().groups()
        everywhere, targets = groups["all"], groups["targets"]
        (service,) = everywhere["app_services"]
        for key in ("artifact", "command"):
            del service[key]
        digest = f"image_digests[app_version] | default('{NOWHERE}')"
        service.update(
            image=f"{{{{ test_image | default('{REPOSITORY}@' ~ ({digest})) }}}}",
            container_port=8080,
            environment={"PYTHONUNBUFFERED": "1", "USER": "demo"},  # the image has no accounts
            start_seconds="{{ test_start_seconds | default(40) }}",
        )
        everywhere["app_runtime"] = "compose"
        everywhere["image_digests"] = f"{{{{ lookup('file', '{self.digests}') | from_json }}}}"
        del everywhere["nodes_archive"]
        targets = {"app_address": targets["app_address"], "runtime_compose_files": [str(self.files / "demo.yml")]}
        return {"all": everywhere, "targets": targets, "routers": groups["routers"]}

    def release(self, version: str, **faults: Any) -> Path:
        self.publish(version, self.build(version, **faults))
        return self.inventory

    def build(self, version: str, **faults: Any) -> str:
        """The id of an image in the Engine of this machine."""
        return images.build(version, faults, f"{PREFIX}-hosts", source=app.PLAIN)

    def publish(self, version: str, image: str) -> str:
        """Push an image; from now on the inventory means its digest by that version."""
        digest = self.lab.push(image, f"demo:{version}")
        known = json.loads(self.digests.read_text(encoding="utf-8"))
        self.digests.write_text(json.dumps({**known, version: digest}), encoding="utf-8")
        return digest

    # -- what is really there, asked past the collection -------------------------------------------------------

    def containers(self, target: str) -> list[str]:
        return sorted(self.lab.sh(target, "docker ps --all --format '{{.Names}}'").split())

    def strays(self) -> list[str]:
        """Containers of slots that do not answer, and the other way round."""
        found = []
        for target, held in self.slots().items():
            wanted = sorted(f"demo-{slot}-backend-1" for slot, version in held.items() if version)
            if self.containers(target) != wanted:
                found.append(f"{target}: {self.containers(target)} are there, {wanted} answer")
        return found

    def everything(self) -> dict[str, str]:
        """As of other nodes, and every container and image."""
        ask = "docker ps -aq --no-trunc | xargs -r docker inspect -f '{{.Name}} {{.Id}} {{.State.StartedAt}}' | sort"
        ask += "; docker image ls -a --digests --format '{{.Repository}} {{.Tag}} {{.Digest}} {{.ID}}' | sort"
        engines = {f"{target} engine": self.lab.sh(target, ask) for target in self.lab.names}
        return {**super().everything(), **engines}


@contextlib.contextmanager
def docker_site(directory: Path) -> Iterator[DockerSite]:
    """Three Docker hosts behind HAProxy."""
    with DockerNodes(directory / "lab", targets=3, router="haproxy") as lab:
        yield DockerSite(lab, directory)
