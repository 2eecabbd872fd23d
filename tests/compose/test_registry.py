"""Three hosts with a Docker Engine each, and what becomes of a deploy when their registry or one of them goes away."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import json
import os
import socket
import sys
import tarfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chaos"))

import docker_nodes
import images
from chaos import Users, agrees, await_event, intends, run_numbers
from docker_site import REPOSITORY, DockerSite, docker_site
from engine import PREFIX

from node_site import HOME
from runbook_site import Play

LAYER = 4_000_000  # bytes that can't be compressed
BLOBS = "/var/lib/docker-registry/docker/registry/v2/blobs/sha256"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, cleaned: None) -> Iterator[DockerSite]:
    problem = docker_nodes.why_not()
    if problem:
        pytest.skip(problem)
    with docker_site(tmp_path_factory.mktemp("registry")) as made:
        made.release("1.0.0")
        done = made.deploy("1.0.0")
        assert done.code == 0, done.output
        yield made


def heavy(site: DockerSite, version: str) -> str:
    """The id of a release with a layer that takes a while."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        images.add(archive, "blob", os.urandom(LAYER))
        images.add(archive, "Dockerfile", f"FROM {site.build(version)}\nCOPY blob /blob\n".encode())
    name = f"{PREFIX}-hosts:{version}"
    images.run("docker", "build", "--quiet", "--tag", name, "-", input=context.getvalue())
    return images.run("docker", "image", "inspect", "--format", "{{.Id}}", name)


def manifests(site: DockerSite) -> dict[str, list[dict[str, Any]]]:
    """Of every release of every target; one without is half-made."""
    return {
        target: [
            json.loads(site.lab.sh(target, f"cat {HOME}/releases/{name}/manifest.json"))
            for name in site.lab.sh(target, f"ls -A {HOME}/releases").split()
        ]
        for target in site.lab.names
    }


def refused(site: DockerSite, version: str, **variables: Any) -> str:
    """What a deploy says that fails before anything starts. The old release serves everywhere, nothing is half-made."""
    live = str(site.live())
    standing = {target: site.containers(target) for target in site.lab.names}
    with Users(site) as users:
        bad = site.deploy(version, **variables)
    assert bad.code != 0 and bad.outcome == "failed", bad.output
    assert "Traceback" not in bad.output and bad.report
    assert set(users.seen) == {live} and site.answers() == {live} and site.live() == live
    assert {target: site.containers(target) for target in site.lab.names} == standing
    manifests(site)
    said = str(bad.report["failure"])
    assert "\n" not in said
    return said


def deployed(site: DockerSite, version: str, **variables: Any) -> Play:
    with Users(site) as users:
        done = site.deploy(version, **variables)
    assert done.code == 0 and done.outcome == "deployed", done.output
    assert "no answer" not in users.seen, dict(users.seen)
    return done


def test_a_release_by_digest_is_that_digest_everywhere(site: DockerSite) -> None:
    digest = json.loads(site.digests.read_text(encoding="utf-8"))["1.0.0"]
    by_digest = f"{REPOSITORY}@{digest}"
    assert site.history()[-1]["artifacts"] == {"backend": {"image": by_digest}}
    made = {target: one["services"]["backend"] for target, (one,) in manifests(site).items()}
    assert {(part["reference"], *part["digests"], part["pulled"]) for part in made.values()} == {
        (by_digest, by_digest, True)
    }
    for target, part in made.items():
        runs = site.lab.sh(target, "docker inspect --format '{{.Image}}' demo-blue-backend-1")
        assert runs == part["image_id"]


def test_a_registry_that_is_down(site: DockerSite) -> None:
    site.release("1.1.0")
    site.lab.sh(site.lab.registry, "systemctl stop docker-registry")
    try:
        said = refused(site, "1.1.0")
    finally:
        site.lab.sh(site.lab.registry, "systemctl start docker-registry")
    assert said.startswith(f"target1, target2, target3: the image {REPOSITORY}@sha256:"), said
    assert "of backend can't be pulled" in said and "connection refused" in said
    assert said.endswith("whether the registry answers, and whether this host is logged in there (docker login)"), said


class Cut:
    """A way to the registry that breaks for good once ``limit`` bytes have come from there: or it only goes silent."""

    def __init__(self, address: str, port: int, limit: int, silent: bool) -> None:
        self.port, self.left, self.silent = port, limit, silent
        self.lock = threading.Lock()
        self.sockets = [socket.create_server((address, docker_nodes.PORT))]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self.sockets[0].accept()[0]
                server = socket.create_connection(("127.0.0.1", self.port))
                with self.lock:
                    self.sockets += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(*ends, ends[0] is server), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if counted:
                    with self.lock:
                        self.left -= len(data)
                    if self.left <= 0 and self.silent:
                        return
                    if self.left <= 0:
                        self.close()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with self.lock:
            for one in self.sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()


@contextlib.contextmanager
def by_way_of(site: DockerSite, target: str, limit: int, silent: bool) -> Iterator[Cut]:
    """One target reaches the registry through a ``Cut``, on the side of the network that is this machine."""
    bridge = str(ipaddress.ip_address(site.lab.addresses["target1"]) - 1)
    rename = "sed 's/^.*[[:space:]]{name}$/{address}\\t{name}/' /etc/hosts > /tmp/hosts; cat /tmp/hosts > /etc/hosts"
    cut = Cut(bridge, site.lab.push_port, limit, silent)
    try:
        site.lab.sh(target, rename.format(name=site.lab.registry, address=bridge))
        yield cut
    finally:
        cut.close()
        address = site.lab.addresses[site.lab.registry]
        site.lab.sh(target, rename.format(name=site.lab.registry, address=address))


def test_a_registry_that_goes_away_in_the_middle_of_a_pull(site: DockerSite) -> None:
    """It breaks off; and it keeps the connection, but says nothing more."""
    digest = site.publish("1.2.0", heavy(site, "1.2.0"))
    for silent in (False, True):
        with by_way_of(site, "target2", LAYER // 4, silent) as cut:
            said = refused(site, "1.2.0", runtime_compose_build_seconds=15)
            assert cut.left <= 0, "it was cut"
        assert said.startswith(f"target2: the image {REPOSITORY}@{digest} of backend can't be pulled: "), said
        assert ("did not end within" in said) == silent, said
        assert len(manifests(site)["target2"]) == 1
    deployed(site, "1.2.0")
    assert {versions["green"] for versions in site.slots().values()} == {"1.2.0"}


def test_an_image_that_the_registry_does_not_have_and_one_that_it_changed(site: DockerSite) -> None:
    said = refused(site, "1.3.0", test_image=f"{REPOSITORY}@sha256:{'1' * 64}")
    assert "manifest unknown" in said or "not found" in said, said
    digest = site.publish("1.3.0", heavy(site, "1.3.0"))
    url = f"http://127.0.0.1:{site.lab.push_port}/v2/demo/manifests/{digest}"
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": kind}), timeout=10) as answer:
        layer = json.load(answer)["layers"][-1]["digest"].partition(":")[2]
    damage = f"printf XXXX | dd of={BLOBS}/{layer[:2]}/{layer}/data bs=1 seek={LAYER // 2} conv=notrunc"
    site.lab.sh(site.lab.registry, damage)
    said = refused(site, "1.3.0")
    assert said.startswith(f"target1, target2, target3: the image {REPOSITORY}@{digest} of backend can't be pulled"), (
        said
    )
    assert "verification failed" in said, said


def test_a_tag_that_moves_between_the_pulls_of_two_targets(site: DockerSite) -> None:
    """Each target would have run its own image under one version, and every health check would have been green."""
    tag = f"{REPOSITORY}:1.4.0"
    before = site.publish("1.4.0", site.build("1.4.0", slow_ms=1))
    site.lab.sh("target3", f"docker pull --quiet {tag}")
    after = site.publish("1.4.0", site.build("1.4.0"))
    said = refused(site, "1.4.0", test_image=tag)
    which = f"{after} on target1, target2, but {before} on target3"
    assert f"the image {tag} of backend is {which}: one release must be the same everywhere" in said
    deployed(site, "1.4.0")
    ask = "docker inspect --format '{{.Image}}' demo-blue-backend-1"
    assert len({site.lab.sh(target, ask) for target in site.lab.names}) == 1


def stop_engine(site: DockerSite, target: str) -> None:
    site.lab.stop_engine(target)


def cut_off(site: DockerSite, target: str) -> None:
    """Nobody logs in any more, and who was is thrown out."""
    site.lab.sh(target, "systemctl stop ssh; systemctl kill --kill-whom=all ssh 2>/dev/null", check=False)


@pytest.mark.requirement("DEP-11")
@pytest.mark.parametrize(
    ("version", "fail", "said"),
    [("1.5.0", stop_engine, "the Docker Engine does not answer"), ("1.6.0", cut_off, "is unreachable")],
    ids=["engine", "host"],
)
def test_one_of_three_hosts_fails_while_the_others_start(site: DockerSite, version: str, fail: Any, said: str) -> None:
    live = str(site.live())
    site.release(version)
    last = run_numbers(site)[-1]
    with Users(site) as users:
        process = site.start("deploy", app_version=version)
        try:
            await_event(site, last, intends("start"))
            fail(site, "target2")
            output = process.communicate(timeout=150)[0]
        finally:
            process.kill()
            site.lab.start_engine("target2")
            site.lab.sh("target2", "systemctl start ssh")
        assert process.returncode != 0 and "Traceback" not in output, output
        assert f"target2: {said}" in output, output
        assert site.answers() == {live} and site.live() == live
    assert set(users.seen) == {live}, dict(users.seen)
    deployed(site, version)
    agrees(site, version, f"after {said}")
