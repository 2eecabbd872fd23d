# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab of Docker hosts: nodes of which each target has a Docker Engine of its own, and one serves images.

The targets' image is the nodes' with Debian's docker.io and docker-registry, and the Compose plugin of this machine.
A target knows the node `registry` by that name and trusts it without TLS on port 5000; this machine pushes to the same
registry by a port of the loopback. A container is not privileged here either: it has SYS_ADMIN, NET_ADMIN and a volume.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import nodes
from local import LabError, is_free
from nodes import LABEL, docker

HERE = Path(__file__).resolve().parent
IMAGE = "runbook-lab-docker-node"
PORT = 5000  # of the registry, on the network of the nodes
WRAPPER = "runc-any-oom-score"
# cgroups are made by the node's own systemd, inside of the node's; so this holds for cgroup v1 and v2. A pull is tried
# once, so that a registry that is away is said at once. Containers outlive their Engine, as they should in production.
DAEMON = {
    "exec-opts": ["native.cgroupdriver=systemd"],
    "storage-driver": "overlay2",
    "insecure-registries": [f"registry:{PORT}"],
    "max-download-attempts": 1,
    "live-restore": True,
    "runtimes": {WRAPPER: {"path": f"/usr/local/sbin/{WRAPPER}"}},
    "default-runtime": WRAPPER,
}
REGISTRY = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": "/var/lib/docker-registry"}}}
FILE = """\
FROM {node}
LABEL {label}=image
RUN apt-get update -q && apt-get install -q -y --no-install-recommends docker.io iptables docker-registry \\
 && apt-get clean && rm -rf /var/lib/apt/lists/* \\
 && systemctl disable --quiet docker.service docker.socket containerd.service docker-registry.service
COPY docker-compose /usr/libexec/docker/cli-plugins/docker-compose
COPY daemon.json /etc/docker/daemon.json
COPY registry.json /etc/docker/registry/config.yml
COPY {wrapper} /usr/local/sbin/{wrapper}
"""


def compose_plugin() -> str:
    """Where this machine has the Compose plugin; empty when it has none."""
    template = '{{range .ClientInfo.Plugins}}{{if eq .Name "compose"}}{{.Path}}{{end}}{{end}}'
    return docker("info", "--format", template, check=False)


def why_not() -> str:
    """Why there can be no Docker hosts on this machine, in one sentence; empty when there can."""
    problem = nodes.why_not()
    if problem:
        return problem
    if "name=rootless" in docker("info", "--format", "{{.SecurityOptions}}"):
        return "no Docker hosts: the Docker Engine runs without root, and then none runs in its containers"
    if not compose_plugin():
        return "no Docker hosts: there is no Compose plugin; as root, tests/lab/docker.sh installs it"
    return ""


def recipe() -> dict[str, bytes]:
    """All that the image is made of, but for the packages."""
    text = FILE.format(node=nodes.image_name(), label=LABEL, wrapper=WRAPPER)
    return {
        "Dockerfile": text.encode(),
        "docker-compose": Path(compose_plugin()).read_bytes(),
        "daemon.json": f"{json.dumps(DAEMON, indent=1)}\n".encode(),
        "registry.json": json.dumps({**REGISTRY, "http": {"addr": f":{PORT}"}}).encode(),
        WRAPPER: b"#!/usr/bin/env python3\n" + (HERE / "runc_any_oom_score.py").read_bytes(),
    }


def make_image() -> str:
    """The image of a target, made when it is not there."""
    parts = recipe()
    name = f"{IMAGE}:{hashlib.sha256(b''.join(parts.values())).hexdigest()[:12]}"
    if docker("image", "ls", "--quiet", name):
        return name
    with tempfile.TemporaryDirectory(prefix="runbook-docker-node-") as directory:
        for part, content in parts.items():
            path = Path(directory) / part
            path.write_bytes(content)
            path.chmod(0o644 if path.suffix or part == "Dockerfile" else 0o755)
        docker("build", "--network", "host", "--tag", name, directory, timeout=nodes.BUILD_SECONDS)
    for old in docker("image", "ls", "--quiet", "--filter", f"before={name}", IMAGE).split():
        docker("image", "rm", old, check=False)  # of an older recipe; one that is in use stays
    return name


class DockerNodes(nodes.Nodes):
    """``with DockerNodes(root, targets=3) as lab``: Docker hosts behind a router, and the registry that serves them."""

    registry = "registry"

    def __init__(self, root: Path, targets: int = 3, router: str = "haproxy") -> None:
        super().__init__(root, targets, router)
        self.push_port = 0
        self.image = ""

    @property
    def hosts(self) -> list[str]:
        return [*super().hosts, self.registry]

    def why_not(self) -> str:
        return why_not()

    def _make_images(self) -> None:
        super()._make_images()
        self.image = make_image()
        self.push_port = next(port for port in range(28500, 28600) if is_free(port))

    def _image(self, host: str) -> str:
        return super()._image(host) if host == self.router else self.image

    def _options(self, host: str) -> list[str]:
        options = super()._options(host)
        if host == self.registry:
            options += ["-p", f"127.0.0.1:{self.push_port}:{PORT}"]
        elif host != self.router:
            options += ["--cap-add", "NET_ADMIN", "-v", "/var/lib/docker"]  # overlay2 needs a real file system
            options += ["--add-host", f"{self.registry}:{self.addresses[self.registry]}"]
        return options

    def up(self) -> None:
        super().up()
        self.sh(self.registry, "systemctl enable --quiet --now docker-registry.service")
        for name in self.names:
            self.start_engine(name, "enable --now")

    def start_engine(self, host: str, how: str = "start") -> None:
        try:
            self.sh(host, f"systemctl {how} docker.socket docker.service")
        except LabError:
            said = self.sh(host, "journalctl --quiet --no-pager -u docker.service -o cat -n 5", check=False)
            raise LabError(f"the Docker Engine of {host} does not start: {said}") from None

    def stop_engine(self, host: str) -> None:
        self.sh(host, "systemctl stop docker.socket docker.service")

    def push(self, image: str, tag: str) -> str:
        """Push an image of this machine's Engine; its digest in the registry."""
        repository = f"127.0.0.1:{self.push_port}/{tag.partition(':')[0]}"
        reference = f"127.0.0.1:{self.push_port}/{tag}"
        docker("tag", image, reference)
        try:
            docker("push", "--quiet", reference, timeout=300.0)
            found = json.loads(docker("image", "inspect", "--format", "{{json .RepoDigests}}", reference))
        finally:
            docker("image", "rm", reference)
        return next(str(one).partition("@")[2] for one in found if one.startswith(f"{repository}@"))
