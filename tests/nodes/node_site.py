"""A real site of nodes: hosts with systemd behind Debian's nginx, reached over ssh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import build as app
import nodes
from runbook_site import Site, version_at

HOME = "/srv/demo"
TOKEN = "nodes-4f1c9e77-token"


class NodeSite(Site):
    """What ``Site`` is for the local lab; the journal is on the controller."""

    lab: nodes.Nodes  # type: ignore[assignment]

    def __init__(self, lab: nodes.Nodes, directory: Path) -> None:
        super().__init__(lab, directory)  # type: ignore[arg-type]
        self.state = directory / "state"
        self.artifacts = directory / "artifacts"
        self._write_variables()

    def _write_variables(self) -> None:
        for group, variables in self.groups().items():
            path = self.inventory / "group_vars" / f"{group}.yml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(variables, indent=1), encoding="utf-8")

    def groups(self) -> dict[str, dict[str, Any]]:
        """The variables of each group of the inventory."""
        service = {
            "name": "backend",
            "port": nodes.PORTS["blue"],
            "artifact": {
                "archive": "{{ nodes_archive }}",
                "sha256": "{{ lookup('file', nodes_archive ~ '.sha256') | split | first }}",
            },
            "command": 'python3 server.py --port "$PORT"',
            "environment": {"PYTHONUNBUFFERED": "1"},
            "secrets": {"API_TOKEN": TOKEN},
            "health": {"path": "/health", "expect": {"status": "ok"}},
            "version": {"path": "/version", "key": "version"},
            "start_seconds": "{{ test_start_seconds | default(15) }}",
            "stop_seconds": 5,
            "drain_seconds": 5,
        }
        everywhere = {
            "nodes_archive": f"{self.artifacts}/demo-{{{{ app_version }}}}.tar.gz",
            "app_name": "demo",
            "app_environment": "nodes",
            "app_router": self.lab.routing,
            "app_url": self.lab.front_url,
            "app_router_url": "http://127.0.0.1",
            "app_home": HOME,
            "app_state_dir": str(self.state),
            "app_services": [service],
            "accounting_path": "/",
        }
        targets = {
            "app_address": "{{ ansible_host }}",
            "runtime_host_manager": "systemd",
            "runtime_host_user": "demo",
            "runtime_host_stable_seconds": 2,
            "runtime_host_links": True,
        }
        routers = {"router_nginx_pid_path": "/run/nginx.pid"} if self.lab.routing == "nginx" else {}
        return {"all": everywhere, "targets": targets, "routers": routers}

    def release(self, version: str, **faults: Any) -> Path:
        return app.build(version, faults, self.artifacts, app.PLAIN)[0]

    # -- what is really there, asked past the collection -------------------------------------------------------

    def slot(self, target: str, slot: str) -> str:
        return version_at(f"http://{self.lab.addresses[target]}:{nodes.PORTS[slot]}")

    def unit(self, target: str, slot: str, *properties: str) -> list[str]:
        """Properties of the unit of a slot, as systemd tells them; empty for what it does not know."""
        asked = f"systemctl show --property={','.join(properties)} demo-backend-{slot}.service"
        told = dict(line.split("=", 1) for line in self.lab.sh(target, asked).splitlines())
        return [told.get(name, "") for name in properties]

    def enabled(self, target: str) -> list[str]:
        """The units of ours that a boot starts."""
        listed = "ls /etc/systemd/system/multi-user.target.wants | grep ^demo-"
        return self.lab.sh(target, listed, check=False).split()

    def strays(self) -> list[str]:
        """Units that a boot would start although nobody answers there, and the other way round."""
        found = []
        for target, held in self.slots().items():
            units = sorted(f"demo-backend-{slot}.service" for slot, version in held.items() if version)
            if self.enabled(target) != units:
                found.append(f"{target}: {self.enabled(target)} are enabled, {units} run")
        return found

    def link(self, target: str, name: str) -> str:
        return self.lab.sh(target, f"readlink {HOME}/{name}", check=False)

    def everything(self) -> dict[str, str]:
        """Everything of ours on the disks of all nodes, with mode, owner and time: what "nothing touched" means."""
        places = f"{HOME} /etc/systemd/system /etc/nginx /var/lib/haproxy /var/lib/runbook"
        find = f"find {places} ! -name '*.lock' -printf '%p %y %m %u %s %T@ %l\\n' 2>/dev/null | sort"
        return {host: self.lab.sh(host, find, check=False) for host in self.lab.hosts}
