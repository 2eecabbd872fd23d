# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""On hosts with systemd, over ssh: ours, pyinfra and Capistrano, beside each other on the same hosts."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / part) for part in ("lab", "apps", "nodes")]

import lanes

import local
import nodes
from node_site import TOKEN, NodeSite

HERE = Path(__file__).resolve().parent
STABLE_SECONDS = 1  # the peers wait as long after a start
PACKAGES = ("capistrano", "ruby-ed25519", "ruby-bcrypt-pbkdf")
WORK = (
    "An archive is carried to every host, checked and unpacked; its environment is written; it is started under "
    "systemd, must run for one second, and is asked until health and version are right on every host. Each "
    "request of the users has a connection of its own: Debian's nginx cuts those that are kept when it reloads."
)
UNIT = """[Service]
ExecStart=/usr/bin/python3 server.py --port PORT
WorkingDirectory=HOME/current
EnvironmentFile=HOME/current/env
User=demo
Restart=always
TimeoutStopSec=5
"""


class Over(lanes.Peer):
    """A peer with a place, ports and a front of its own on the hosts of our site."""

    name = ""
    kept = False
    front = 0
    ports: Mapping[str, int] = {}

    def __init__(self, site: NodeSite, directory: Path) -> None:
        self.site = site
        self.directory = directory / self.name
        self.directory.mkdir()
        lab = site.lab
        self.home = f"/srv/{self.name}"
        self.url = f"http://{lab.addresses[lab.router]}:{self.front}"
        facts = {
            "manager": "systemd",
            "application": self.name,
            "user": "demo",
            "python": "/usr/bin/python3",
            "nginx": "nginx",
            "include": f"/etc/nginx/conf.d/{self.name}.conf",
            "front": f"http://127.0.0.1:{self.front}",
            "artifacts": str(site.artifacts),
            "secrets": {"API_TOKEN": TOKEN},
            "router": lab.addresses[lab.router],
            "targets": [
                {"name": name, "address": lab.addresses[name], "home": self.home, **self.ports} for name in lab.names
            ],
            "ssh_user": "deploy",
            "ssh_key": str(lab.root / "key"),
            "ssh_known_hosts_file": str(lab.root / "known_hosts"),
            "ssh_strict_host_key_checking": "yes",
            "home": self.home,
            "unit": self.name,
            **self.ports,
        }
        local.write(self.directory / "site.json", json.dumps(facts), 0o600)
        upstream = nodes.NGINX.replace("80 default_server", str(self.front)).replace("demo_", f"{self.name}_")
        lab.put(lab.router, f"/etc/nginx/sites-enabled/{self.name}", upstream)
        lab.put(lab.router, str(facts["include"]), self.include())
        lab.sh(lab.router, "nginx -t && nginx -s reload")

    def include(self) -> str:
        return nodes.INCLUDE.replace("demo_", f"{self.name}_")

    def release(self, version: str, **faults: Any) -> None:
        self.site.release(version, **faults)

    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "BENCH_SITE": str(self.directory / "site.json")}


class Pyinfra(Over):
    name = "pyinfra"
    lacks = "a plan, a record, a lock, the way back when a step fails. Its rollback names the version."
    front, ports = 8100, {"blue": 8101, "green": 18101}

    def command(self, verb: str, version: str) -> list[str]:
        program = str(Path(sys.executable).parent / "pyinfra")
        files = [str(HERE / "peer_inventory.py"), str(HERE / "peer_pyinfra.py")]
        return [program, "-y", *files, "--data", f"verb={verb}", "--data", f"version={version}"]

    def deploy(self, version: str) -> list[str]:
        return self.command("deploy", version)

    def rollback(self, to: str) -> list[str]:
        return self.command("rollback", to)


class Capistrano(Over):
    name = "capistrano"
    lacks = (
        "a second slot (a link is moved and the service restarted, on all hosts at once), moving traffic, its unit "
        "(written once), a plan, a lock, the way back when a step fails."
    )
    front, ports = 8200, {"port": 8201}

    def __init__(self, site: NodeSite, directory: Path) -> None:
        super().__init__(site, directory)
        (self.directory / "stages").mkdir()
        (self.directory / "stages" / "bench.rb").touch()
        unit = UNIT.replace("HOME", self.home).replace("PORT", str(self.ports["port"]))
        for host in site.lab.names:
            site.lab.put(host, f"/etc/systemd/system/{self.name}.service", unit)
            site.lab.sh(host, f"install -d -o deploy {self.home} && systemctl daemon-reload")

    def include(self) -> str:
        addresses = [self.site.lab.addresses[name] for name in self.site.lab.names]
        servers = "".join(f"    server {address}:{self.ports['port']};\n" for address in addresses)
        return f"upstream {self.name}_backend {{\n{servers}    keepalive 32;\n}}\n"

    def command(self, task: str, version: str) -> list[str]:
        words = ["cap", "-f", str(HERE / "peer_capistrano.rb"), "bench", task]
        return ["env", "-C", str(self.directory), f"VERSION={version}", *words]

    def deploy(self, version: str) -> list[str]:
        return self.command("deploy", version)

    def rollback(self, to: str) -> list[str]:
        return self.command("deploy:rollback", to)


def why_no_capistrano() -> str:
    """Installs it where that can be done."""
    if shutil.which("cap") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *PACKAGES]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(install, check=False, timeout=300, stdout=subprocess.DEVNULL, env=environment)
    return "" if shutil.which("cap") else f"capistrano: not installed (apt-get install {' '.join(PACKAGES)})"


def places(arguments: argparse.Namespace) -> list[lanes.Maker]:
    return [functools.partial(ssh, targets=targets) for targets in sorted(arguments.targets)]


@contextlib.contextmanager
def ssh(directory: Path, targets: int) -> Iterator[lanes.Lane]:
    problem = nodes.why_not()
    if problem:
        raise SystemExit(f"bench: {problem}")
    absent = why_no_capistrano()
    with nodes.Nodes(directory / "lab", targets=targets) as lab:
        site = NodeSite(lab, directory)
        ours = lanes.Ours(
            site, f"http://{lab.addresses[lab.router]}", kept=False, runtime_host_stable_seconds=STABLE_SECONDS
        )
        peers: list[lanes.Peer] = [ours, Pyinfra(site, directory)]
        if not absent:
            peers.append(Capistrano(site, directory))
        for peer in peers:
            peer.asked = 3 * targets
        title = f"systemd over ssh, {targets} {'host' if targets == 1 else 'hosts'} behind nginx"
        yield lanes.Lane(title, WORK, peers, (absent,) if absent else ())
