"""The table of backends: one row for each way in which an application can run and be routed to.

A row makes a site and says what differs. The scenarios of this directory know nothing else about it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / part) for part in ("lab", "apps", "chaos", "compose", "nodes", "kubernetes")]

import docker_nodes
import engine
from chaos import wait_for
from cluster import kubeconfig
from compose_site import ComposeSite, ContainerSite, make_site
from docker_site import NOWHERE, docker_site
from kubernetes_site import Site as KubernetesSite
from package_site import PackageSite

import local
import nodes
from node_site import NodeSite
from runbook_site import Plays, Site

WATCH = {"watch_seconds": 2, "watch_interval_seconds": 0.5}
BAD_LATER = {
    "watch_seconds": 30,
    "watch_interval_seconds": 0.5,
    "watch_window_seconds": 3,
    "accounting_requests_per_second": 100,
}


def archive(recorded: dict[str, Any]) -> bool:
    return len(recorded["sha256"]) == 64


class Backend(NamedTuple):
    name: str
    make: Callable[[Path], contextlib.AbstractContextManager[Any]]
    restart: Callable[[Any], None]  # whatever can be restarted here: hosts, process managers, containers, pods
    nowhere: str  # what is said of a release whose code is nowhere
    in_place: bool = False  # one release at a time on a host
    code: Callable[[dict[str, Any]], bool] = archive  # whether a record says which code it was
    unready: str = 'expected "ok"'  # what is said of a release that never gets healthy
    requests: int = 200  # per second, which it carries on a small machine beside all else
    path: str = "/"  # what is asked for
    keep_alive: tuple[str, ...] = ("true", "false")  # where connections that are kept survive a shift
    strategies: tuple[str, ...] = ("blue_green", "canary", "rolling")
    # Whether the scenarios of a life count every request. On the one-node cluster of the lab a few of thousands got no
    # answer, for a reason that is not known yet: there only test_no_request_lost insists.
    counts_lost: bool = True
    counts_cut: bool = True  # connections that a stop cuts; those of a pod nobody can see from outside

    @property
    def load(self) -> dict[str, Any]:
        return {
            "accounting_requests_per_second": self.requests,
            "accounting_connections": 12,
            "accounting_path": self.path,
        }


class Place(NamedTuple):
    """A row of the table, and the site that was made of it."""

    site: Any
    backend: Backend


# -- processes of supervisor on this machine --------------------------------------------------------------------


def supervised(router: str) -> Callable[[Path], contextlib.AbstractContextManager[Site]]:
    @contextlib.contextmanager
    def make(directory: Path) -> Iterator[Site]:
        with local.Lab(directory / "lab", targets=2, router=router) as lab:
            yield Site(lab, directory)

    return make


def restart_supervisor(site: Site) -> None:
    """The supervisord of a target with all it runs, and the router."""
    platform = local.supervisor(site.lab._socket("platform"))
    for name in (site.lab.names[0], "router"):
        platform.stopProcess(name, False)  # it ends when all that it runs has ended
        wait_for(f"the end of {name}", lambda name=name: platform.getProcessInfo(name)["pid"] == 0, every=0.2)
        platform.startProcess(name)
    site.lab._wait_ready()


# -- hosts with systemd over ssh --------------------------------------------------------------------------------


def hosts(router: str) -> Callable[[Path], contextlib.AbstractContextManager[NodeSite]]:
    @contextlib.contextmanager
    def make(directory: Path) -> Iterator[NodeSite]:
        problem = nodes.why_not()
        if problem:
            pytest.skip(problem)
        with nodes.Nodes(directory / "lab", targets=2, router=router) as lab:
            yield NodeSite(lab, directory)

    return make


@contextlib.contextmanager
def packaged(directory: Path) -> Iterator[NodeSite]:
    """The application as a Debian package: one version at a time on a host."""
    with hosts("nginx")(directory) as site:
        site.release = PackageSite(site).release  # type: ignore[method-assign]
        yield site


def boot(site: NodeSite) -> None:
    for host in (site.lab.names[0], site.lab.router):
        site.lab.restart(host)


# -- projects of Docker Compose ---------------------------------------------------------------------------------


def composed(
    router: str, kind: type[ComposeSite] = ComposeSite
) -> Callable[[Path], contextlib.AbstractContextManager[ComposeSite]]:
    @contextlib.contextmanager
    def make(directory: Path) -> Iterator[ComposeSite]:
        problem = engine.why_not()
        if problem:
            pytest.skip(problem)
        try:
            with contextlib.contextmanager(make_site)(directory, f"conf-{router}", 2, router, kind) as site:
                if router == "nginx" and kind is ComposeSite:
                    put_nginx_in_a_container(site)
                yield site
        finally:
            engine.remove_ours()

    return make


@contextlib.contextmanager
def mixed(directory: Path) -> Iterator[ComposeSite]:
    """One target runs processes under supervisor, the other containers: a fleet on its way from one to the other."""
    with composed("haproxy")(directory) as site:
        on_hosts = site.inventory / "host_vars" / site.lab.names[0]
        on_hosts.mkdir(parents=True)
        for name in ("all.yml", "targets.yml"):
            shutil.copy(local.INVENTORY / "group_vars" / name, on_hosts)
        (on_hosts / "runtime.yml").write_text("app_runtime: host\n", encoding="utf-8")
        in_containers = site.release

        def release(version: str, **faults: Any) -> Path:
            Site.release(site, version, **faults)
            return in_containers(version, **faults)

        site.release = release  # type: ignore[method-assign]
        yield site


def restart_both(site: ComposeSite) -> None:
    restart_containers(site)
    restart_supervisor(site)


NGINX = """\
worker_processes 1;
pid /run/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    include /etc/nginx/runbook/*.conf;
    server {
        listen 127.0.0.1:PORT;
        location / {
            proxy_pass http://demo_backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }
}
"""


def put_nginx_in_a_container(site: ComposeSite) -> None:
    """In place of the lab's own nginx: our include file in a directory that is mounted, nginx called by exec."""
    if not nodes.image_exists():
        nodes.make_image()
    local.supervisor(site.lab._socket("platform")).stopProcess("router")
    directory = site.directory / "nginx"
    (directory / "runbook").mkdir(parents=True)
    (directory / "nginx.conf").write_text(NGINX.replace("PORT", str(site.lab.ports["front"])), encoding="utf-8")
    (directory / "runbook" / "runbook.conf").write_text(nodes.INCLUDE, encoding="utf-8")
    name = f"{site.project}-nginx"
    mounts = [
        "-v",
        f"{directory}/nginx.conf:/etc/nginx/nginx.conf:ro",
        "-v",
        f"{directory}/runbook:/etc/nginx/runbook:ro",
    ]
    engine.docker(
        *("run", "--detach", "--name", name, "--network", "host", *mounts),
        *(nodes.image_name(), "nginx", "-g", "daemon off;"),
    )
    routers = {
        "router_nginx_home": str(directory),
        "router_nginx_include_path": str(directory / "runbook" / "runbook.conf"),
        "router_nginx_command": ["docker", "exec", name, "nginx"],
    }
    (site.inventory / "group_vars" / "routers.yml").write_text(json.dumps(routers), encoding="utf-8")


def restart_containers(site: ComposeSite) -> None:
    """Every container of ours, one after the other: as an engine does that is itself restarted."""
    for name in sorted(site.containers()):
        if engine.docker("inspect", "--format", "{{.State.Running}}", name) == "true":
            engine.docker("restart", "--time", "5", name)
    if site.lab.router == "haproxy":
        platform = local.supervisor(site.lab._socket("platform"))
        platform.stopProcess("router")
        platform.startProcess("router")


@contextlib.contextmanager
def docker_hosts(directory: Path) -> Iterator[NodeSite]:
    """Each target is a host with its own Docker Engine; images come by digest from a registry."""
    problem = docker_nodes.why_not()
    if problem:
        pytest.skip(problem)
    try:
        with docker_site(directory) as site:
            yield site
    finally:
        engine.remove_ours()


# -- Kubernetes -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def cluster(directory: Path, store: str = "kubernetes") -> Iterator[KubernetesSite]:
    site = KubernetesSite(kubeconfig(), directory, store=store)
    site.variables["runtime_kubernetes_image_pull_policy"] = "Never"  # images are built where the cluster runs
    try:
        yield site
    finally:
        site.close()


@contextlib.contextmanager
def canaries(directory: Path) -> Iterator[KubernetesSite]:
    """Every deploy goes by shares of replicas. The journal is in a directory here."""
    with cluster(directory, "directory") as site:
        steps = [{"weight": 50}, {"weight": 100}]
        site.variables.update(app_strategy="canary", app_steps=steps, runtime_kubernetes_replicas=2)
        yield site


def delete_pods(site: KubernetesSite) -> None:
    site.kubectl("delete", "pods", "--all", "--wait=true", namespaced=True)


def image(recorded: dict[str, Any]) -> bool:
    return bool(recorded["image"])


def image_and_archive(recorded: dict[str, Any]) -> bool:
    return image(recorded) and archive(recorded)


def by_digest(recorded: dict[str, Any]) -> bool:
    return "@sha256:" in recorded["image"]


def package(recorded: dict[str, Any]) -> bool:
    return bool(recorded["apt"]["version"])


NEW_CONNECTIONS: dict[str, Any] = {"keep_alive": ("false",)}
COMPOSE: dict[str, Any] = {"code": image, "requests": 150, "path": "/version"}
KUBERNETES: dict[str, Any] = {
    "code": image,
    "unready": "statuscode: 503",
    "requests": 100,
    "counts_cut": False,
    "counts_lost": False,
    **NEW_CONNECTIONS,
}
NO_IMAGE = "9.9.9 of backend can't be pulled"
NO_PULL = "ErrImageNeverPull"
NO_FILE = "9.9.9.tar.gz"
BACKENDS = [
    Backend("supervisor-nginx", supervised("nginx"), restart_supervisor, NO_FILE, requests=400),
    Backend("supervisor-haproxy", supervised("haproxy"), restart_supervisor, NO_FILE, requests=400),
    # nginx older than 1.27.4 cuts idle connections when it reloads, whatever is behind it.
    Backend("systemd-nginx", hosts("nginx"), boot, NO_FILE, **NEW_CONNECTIONS),
    Backend("systemd-haproxy", hosts("haproxy"), boot, NO_FILE),
    Backend("apt-nginx", packaged, boot, "demo 9.9.9-1", True, package, strategies=("rolling",), **NEW_CONNECTIONS),
    Backend("compose-nginx", composed("nginx"), restart_containers, NO_IMAGE, **COMPOSE, **NEW_CONNECTIONS),
    Backend("compose-haproxy", composed("haproxy"), restart_containers, NO_IMAGE, **COMPOSE),
    Backend("mixed-haproxy", mixed, restart_both, NO_FILE, **{**COMPOSE, "code": image_and_archive}),
    Backend("container-nginx", composed("nginx", ContainerSite), restart_supervisor, NO_IMAGE, **COMPOSE),
    Backend("docker-hosts-haproxy", docker_hosts, boot, NOWHERE, code=by_digest, requests=150),
    Backend("kubernetes-service", cluster, delete_pods, NO_PULL, strategies=("blue_green",), **KUBERNETES),
    Backend("kubernetes-canary", canaries, delete_pods, NO_PULL, strategies=("canary",), **KUBERNETES),
]


def slots(site: Plays) -> dict[str, dict[str, str]]:
    """The version that answers in each slot of each target; empty for nobody."""
    found = site.slots()  # type: ignore[attr-defined]
    if isinstance(site, KubernetesSite):
        return {"cluster": {"blue": "", "green": "", **found}}
    return dict(found)
