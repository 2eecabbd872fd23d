"""Hosts on which the application is a Debian package of a repository of theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nodes
from debs import build_deb, index
from node_site import NodeSite

APPS = Path(__file__).resolve().parents[1] / "apps"
REPOSITORY = "/srv/repository"
CONFFILE = "/etc/demo/demo.conf"


class PackageSite:
    """The site with a repository on every target, and the application as a package of it."""

    def __init__(self, site: NodeSite) -> None:
        self.site, self.lab = site, site.lab
        self.directory = site.directory / "repository"
        path = site.inventory / "group_vars" / "all.yml"
        variables = json.loads(path.read_text(encoding="utf-8"))
        variables["app_strategy"] = "rolling"
        variables["app_batch_watch_seconds"] = 1
        variables["app_services"][0].update(
            artifact={"apt": {"package": "demo", "version": "{{ app_version }}-1"}},
            command='python3 /opt/demo/server.py --port "$PORT"',
            start_seconds=60,
        )
        path.write_text(json.dumps(variables, indent=1), encoding="utf-8")
        for target in self.lab.names:
            self.lab.sh(target, f"rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*; mkdir -p {REPOSITORY}")
            self.lab.put(target, "/etc/apt/sources.list", f"deb [trusted=yes] file:{REPOSITORY} ./\n")

    def release(self, version: str, **faults: Any) -> None:
        self.publish(version, {"/opt/demo/faults.json": json.dumps(faults).encode()} if faults else None)

    def publish(self, version: str, more: dict[str, bytes] | None = None, **scripts: str) -> None:
        files = {
            "/opt/demo/server.py": (APPS / "plain" / "server.py").read_bytes(),
            "/opt/demo/faults.py": (APPS / "demo" / "faults.py").read_bytes(),
            "/opt/demo/VERSION": f"{version}\n".encode(),
            CONFFILE: f"# of {version}\n".encode(),
            **(more or {}),
        }
        build_deb(self.directory, "demo", f"{version}-1", files, [CONFFILE], scripts, Depends="python3")
        self.offer()

    def withdraw(self, *versions: str) -> None:
        for version in versions:
            (self.directory / f"demo_{version}-1_all.deb").unlink()
        self.offer()

    def offer(self) -> None:
        (self.directory / "Packages").write_text(index(self.directory), encoding="utf-8")
        for target in self.lab.names:
            self.lab.sh(target, f"rm -rf {REPOSITORY}/*")
            nodes.docker("cp", f"{self.directory}/.", f"{self.lab.container(target)}:{REPOSITORY}")

    def packages(self) -> set[str]:
        """What dpkg says on all targets."""
        asked = "dpkg-query -W -f '${Status} ${Version}' demo"
        return {self.lab.sh(target, asked, check=False) for target in self.lab.names}

    def dpkg_log(self) -> dict[str, str]:
        return {target: self.lab.sh(target, "cat /var/log/dpkg.log") for target in self.lab.names}
