# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""On one Docker Engine: ours, `docker compose up`, and docker-rollout."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "lab"), str(TESTS / "compose")]

import engine
import lanes
from compose_site import ComposeSite, make_site

import local
import nodes

HEALTHY = (
    "import json, urllib.request as r; "
    "assert json.load(r.urlopen('http://127.0.0.1:8080/health', timeout=5))['status'] == 'ok'"
)
# What a user of docker-rollout has: a proxy that finds the containers by itself and asks each whether it is well.
PROXY = [
    "    option httpchk GET /health\n",
    "    server-template backend 4 backend:8080 check inter 500ms resolvers docker",
]
RESOLVERS = """ init-addr none

resolvers docker
    nameserver docker 127.0.0.11:53
    timeout resolve 500ms
    hold valid 500ms
    hold obsolete 0s
"""
GLOBAL = "global\n    server-state-file /dev/null\n"
WORK = (
    "One container of an image that is built already, with its environment; it is started, asked until it is healthy, "
    "and gets the traffic. Users keep their connections."
)


class Recreate(lanes.Peer):
    name = "docker compose up"
    lacks = "a router (its port is published), asking for the version, a record, a lock. A rollback names the version."

    def __init__(self, site: ComposeSite, directory: Path, port: int) -> None:
        self.site = site
        self.project = f"{site.project}-{type(self).__name__.lower()}"
        self.directory = directory
        self.file = directory / f"{self.project}.yml"
        self.port = port
        self.url = f"http://127.0.0.1:{self.port}"
        local.write(self.file, json.dumps({"services": self.services()}), 0o600)  # JSON is YAML too

    def services(self) -> dict[str, Any]:
        here = "127.0.0.1"
        return {
            "backend": {
                "image": f"{self.site.image}:${{VERSION}}",
                "environment": {
                    "DATABASE_URL": self.site.lab.database_url.replace(here, self.site.gateway),
                    "REDIS_URL": self.site.lab.redis_url.replace(here, self.site.gateway),
                },
                "tmpfs": ["/tmp"],
                "stop_grace_period": "5s",
                "healthcheck": {
                    "test": ["CMD", "python3", "-c", HEALTHY],
                    "interval": "1s",
                    "retries": lanes.START_SECONDS,
                },
                "ports": [f"{here}:{self.port}:8080"],
            }
        }

    def release(self, version: str, **faults: Any) -> None:
        self.site.release(version, **faults)

    def compose(self, version: str, *words: str) -> list[str]:
        return ["env", f"VERSION={version}", "docker", "compose", "-p", self.project, "-f", str(self.file), *words]

    def deploy(self, version: str) -> list[str]:
        return self.compose(version, "up", "--detach", "--wait", "--wait-timeout", str(lanes.START_SECONDS))

    def rollback(self, to: str) -> list[str]:
        return self.deploy(to)

    def down(self) -> None:
        lanes.measured(self.compose("none", "down", "--timeout", "0"), self.environment())


class Rollout(Recreate):
    name = "docker-rollout"
    lacks = "asking for the version, a record, a lock; no pre-stop hook is given. A rollback names the version."

    def __init__(self, site: ComposeSite, directory: Path, port: int, program: Path) -> None:
        super().__init__(site, directory, port)
        self.program = program
        lanes.measured(self.compose("none", "up", "--detach", "proxy"), self.environment())

    def services(self) -> dict[str, Any]:
        found = super().services()
        published = found["backend"].pop("ports")[0]
        configuration = self.directory / "haproxy.cfg"
        text = GLOBAL + local.haproxy_rest(":8080", PROXY) + RESOLVERS
        configuration.write_text(text, encoding="utf-8")
        found["proxy"] = {
            "image": nodes.image_name(),
            "command": ["haproxy", "-db", "-f", "/haproxy.cfg"],
            "volumes": [f"{configuration}:/haproxy.cfg:ro"],
            "ports": [published],
            "stop_signal": "SIGTERM",
        }
        return found

    def deploy(self, version: str) -> list[str]:
        words = ["rollout", "-f", str(self.file), "-p", self.project, "-t", str(lanes.START_SECONDS), "backend"]
        return ["env", f"VERSION={version}", str(self.program), *words]


def places(arguments: argparse.Namespace) -> list[lanes.Maker]:
    program = arguments.docker_rollout
    if program and not os.access(program, os.X_OK):
        raise SystemExit(f"bench: --docker-rollout {program} is no program that can be run")
    return [functools.partial(compose, docker_rollout=program and program.resolve())]


@contextlib.contextmanager
def compose(directory: Path, docker_rollout: Optional[Path]) -> Iterator[lanes.Lane]:
    problem = engine.why_not()
    if problem:
        raise SystemExit(f"bench: {problem}")
    absent = () if docker_rollout else ("docker-rollout: not given (--docker-rollout PATH)",)
    try:
        with (
            contextlib.contextmanager(make_site)(directory, "bench", 1, "haproxy") as site,
            contextlib.ExitStack() as stack,
        ):
            peers: list[lanes.Peer] = [lanes.Ours(site)]
            ports = [port for port in range(27000, 27100) if local.is_free(port)]
            theirs = [Recreate(site, directory, ports[0])]
            stack.callback(theirs[0].down)
            if docker_rollout:
                if not nodes.image_exists():
                    nodes.make_image()
                theirs.append(Rollout(site, directory, ports[1], docker_rollout))
                stack.callback(theirs[1].down)
            yield lanes.Lane("Docker Compose, behind HAProxy", WORK, [*peers, *theirs], absent)
    finally:
        engine.remove_ours()
