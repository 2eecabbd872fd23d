# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab of nodes: hosts with systemd as PID 1, sshd and Python, as containers of a Docker Engine that runs already.

Usage: nodes.py up [--targets 2] [--root build/nodes]
       nodes.py down [--root build/nodes]

Targets and one router with Debian's nginx or HAProxy, on a network of their own. Ansible logs in as `deploy` (sudo
without a password) with a key made for this lab; the host keys are made here too, so known_hosts is known, not
scanned. The image is Debian 12, made with mmdebstrap from the mirror in this machine's own apt sources, without any
registry; a container never is privileged. Linux with cgroup v1 or v2, as root or as a member of the group docker.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import ipaddress
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Optional

from local import CHECKOUT, LabError, haproxy_rest, is_free, write

DEFAULT_ROOT = CHECKOUT / "build" / "nodes"
LABEL = "runbook.lab"
IMAGE = "runbook-lab-node"
SUITE = "bookworm"  # its systemd runs with cgroup v1 and v2
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "iproute2", "procps", "curl", "ca-certificates"),
    *("python3", "python3-venv", "nginx", "haproxy"),
)
# `deploy` is who Ansible logs in as, `demo` who the services run as. Keys and machine id are each node's own.
PREPARE = """
set -e
chroot "$1" useradd --create-home --shell /bin/bash deploy
chroot "$1" useradd --system --no-create-home --shell /usr/sbin/nologin demo
echo 'deploy ALL=(ALL) NOPASSWD: ALL' > "$1/etc/sudoers.d/deploy"
chmod 0440 "$1/etc/sudoers.d/deploy"
mkdir -p -m 0755 "$1/home/deploy/.ssh"
rm -f "$1"/etc/ssh/ssh_host_*_key* "$1"/etc/nginx/sites-enabled/default
: > "$1/etc/machine-id"
chroot "$1" systemctl disable --quiet nginx.service haproxy.service
chroot "$1" systemctl disable --quiet apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer
for unit in systemd-firstboot systemd-udevd systemd-logind console-getty; do
    chroot "$1" systemctl mask --quiet "$unit.service"
done
"""
# systemd wants its cgroups; none of these options makes a container privileged.
BOOT = (
    *("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *("--tmpfs", "/run", "--tmpfs", "/run/lock", "-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "--cgroupns=host"),
    *("--memory", "768m", "--pids-limit", "4096", "--stop-signal", "SIGRTMIN+3"),
)
PORTS = {"blue": 8001, "green": 18001}  # of the demo application in its slots
BUILD_SECONDS = 600.0
BOOT_SECONDS = 90.0
# Both connect to applications that keep connections open; what an unknown upstream answers is a refusal.
NGINX = """server {
    listen 80 default_server;
    location / {
        proxy_pass http://demo_backend;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
    }
}
"""
INCLUDE = (
    "# Written by signalbox.runbook; changes are overwritten.\nupstream demo_backend { server 127.0.0.1:9 down; }\n"
)
HAPROXY = """global
    stats socket /run/haproxy/admin.sock mode 660 level admin
    server-state-file /var/lib/haproxy/server-state
    user haproxy
    group haproxy
"""


def why_not() -> str:
    """Why there can be no nodes on this machine, in one sentence; empty when there can."""
    if shutil.which("docker") is None:
        return "no nodes: docker is not installed"
    try:
        answer = subprocess.run(
            ["docker", "info", "--format", "{{.ServerVersion}}"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "no nodes: the Docker Engine did not answer within 20 s"
    if answer.returncode:
        said = (answer.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        return f"no nodes: no Docker Engine answers ({said})"
    if not image_exists() and shutil.which("mmdebstrap") is None:
        return f"no nodes: mmdebstrap is not installed, and the image {image_name()} has not been made"
    return ""


def docker(*words: str, timeout: float = 60.0, check: bool = True, text: Optional[str] = None) -> str:
    """One docker command; its output, or what it said against it."""
    try:
        done = subprocess.run(
            ["docker", *words], capture_output=True, text=True, input=text, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"docker {words[0]} did not end within {timeout:g} s") from None
    if done.returncode and check:
        raise LabError(f"docker {shlex.join(words[:4])} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout.strip()


# -- the image ----------------------------------------------------------------------------------------------------


def image_name() -> str:
    """Another recipe is another image."""
    recipe = json.dumps([SUITE, PACKAGES, PREPARE])
    return f"{IMAGE}:{SUITE}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"


def image_exists() -> bool:
    return bool(docker("image", "ls", "--quiet", image_name(), check=False))


def mirror() -> str:
    """The Debian mirror that this machine itself uses."""
    sources = Path("/etc/apt")
    for path in (*sorted(sources.glob("sources.list.d/*.sources")), *sorted(sources.glob("sources.list.d/*.list"))):
        found = re.search(r"^(?:URIs:|deb(?: \[.*\])?) +(\S+/debian/?)(?:\s|$)", path.read_text(encoding="utf-8"), re.M)
        if found:
            return found[1]
    with contextlib.suppress(FileNotFoundError):
        text = (sources / "sources.list").read_text(encoding="utf-8")
        found = re.search(r"^deb(?: \[.*\])? +(\S+/debian/?)\s", text, re.M)
        if found:
            return found[1]
    raise LabError("the apt sources of this machine name no Debian mirror to make the image of the nodes from")


def make_image() -> None:
    """Bootstrap into a file, then import it: a bootstrap that fails leaves no image."""
    with tempfile.TemporaryDirectory(prefix="runbook-node-") as directory:
        hook, root = Path(directory) / "prepare", Path(directory) / "root.tar"
        write(hook, f"#!/bin/sh{PREPARE}", 0o755)
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
        command += [f'--customize-hook={hook} "$1"', SUITE, str(root), mirror()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise LabError(f"mmdebstrap did not end within {BUILD_SECONDS:g} s") from None
        if done.returncode:
            raise LabError(f"mmdebstrap failed: {done.stderr.strip()[-800:]}")
        changes = ["--change", 'CMD ["/lib/systemd/systemd"]', "--change", "ENV container=docker"]
        docker("import", *changes, "--change", f"LABEL {LABEL}=image", str(root), image_name(), timeout=BUILD_SECONDS)
    for old in docker("image", "ls", "--quiet", "--filter", f"before={image_name()}", IMAGE).split():
        docker("image", "rm", old, check=False)  # of an older recipe; one that is in use stays


# -- the nodes ----------------------------------------------------------------------------------------------------


class Nodes:
    """``with Nodes(root, targets=2) as lab`` makes the nodes and removes them."""

    def __init__(self, root: Path = DEFAULT_ROOT, targets: int = 2, router: str = "nginx") -> None:
        self.root = Path(root).resolve()
        self.routing = router
        self.names = [f"target{number}" for number in range(1, targets + 1)]
        self.router = "router1"
        self.mark = hashlib.sha256(str(self.root).encode()).hexdigest()[:8]
        self.network = f"runbook-lab-{self.mark}"
        self.addresses: dict[str, str] = {}
        self.front_port = 0
        self.kept = False  # whether it outlives this process

    def __enter__(self) -> Nodes:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.down()

    @property
    def hosts(self) -> list[str]:
        return [*self.names, self.router]

    @property
    def front_url(self) -> str:
        return f"http://127.0.0.1:{self.front_port}"

    def container(self, host: str) -> str:
        return f"{self.network}-{host}"

    # What another kind of nodes has differently

    def why_not(self) -> str:
        return why_not()

    def _make_images(self) -> None:
        if not image_exists():
            make_image()

    def _image(self, host: str) -> str:
        return image_name()

    def _options(self, host: str) -> list[str]:
        """Of docker create."""
        return [*BOOT, *(["-p", f"127.0.0.1:{self.front_port}:80"] if host == self.router else [])]

    # Up and down

    def up(self) -> None:
        """Make every node anew and wait until each has booted and lets Ansible in."""
        problem = self.why_not()
        if problem:
            raise LabError(problem)
        remove_leftovers()
        self.down()
        self.root.mkdir(parents=True, exist_ok=True)
        self._make_images()
        self._make_keys()
        self._make_network()
        self.front_port = next(port for port in range(28000, 32000) if is_free(port))
        for host in self.hosts:
            self._create(host)
        docker("start", *map(self.container, self.hosts))
        self.wait_booted()
        self._prepare_router()
        write(self.root / "nodes.json", json.dumps({"front": self.front_port, "addresses": self.addresses}) + "\n")

    def down(self) -> bool:
        """Remove nodes and network. False when there were none."""
        return remove(f"{LABEL}.root={self.root}")

    def restart(self, host: str) -> None:
        """Reboot a node: its processes end, its disk and its address stay."""
        docker("restart", "--time", "30", self.container(host), timeout=BOOT_SECONDS)
        self.wait_booted(host)

    def wait_booted(self, *hosts: str) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        for host in hosts or self.hosts:
            while True:
                booted = self.sh(host, "systemctl is-system-running; systemctl is-active ssh", check=False).split()
                if booted[:1] in (["running"], ["degraded"]) and booted[-1:] == ["active"]:
                    break
                if time.monotonic() > deadline:
                    failed = self.sh(host, "systemctl --failed --no-legend", check=False)
                    raise LabError(f"{host} has not booted within {BOOT_SECONDS:g} s ({booted}); failed: {failed}")
                time.sleep(0.2)

    def sh(self, host: str, script: str, check: bool = True, timeout: float = 60.0) -> str:
        """What a shell on the node prints, past ssh and Ansible, as root."""
        return docker("exec", self.container(host), "sh", "-c", script, check=check, timeout=timeout)

    def link(self, host: str, state: str) -> None:
        """``down`` cuts a node off from everybody, ``up`` joins it again; it goes on meanwhile. No node may do that
        to itself."""
        where = ["--network", f"container:{self.container(host)}", "--cap-add", "NET_ADMIN", *self._labels()]
        docker("run", "--rm", *where, "--entrypoint", "ip", image_name(), "link", "set", "eth0", state)

    def put(self, host: str, path: str, content: str, mode: int = 0o644) -> None:
        with tempfile.TemporaryDirectory(prefix="runbook-put-") as directory:
            source = Path(directory) / "file"
            write(source, content, mode)
            docker("cp", str(source), f"{self.container(host)}:{path}")

    def _labels(self) -> list[str]:
        owner = "kept" if self.kept else f"{os.getpid()}/{started(os.getpid())}"
        labels = {LABEL: "node", f"{LABEL}.root": str(self.root), f"{LABEL}.owner": owner}
        return [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]

    def _make_network(self) -> None:
        """The engine chooses a free range; only a range that is named allows addresses that stay over a reboot."""
        docker("network", "create", *self._labels(), self.network)
        found = json.loads(docker("network", "inspect", self.network))[0]["IPAM"]["Config"][0]["Subnet"]
        docker("network", "rm", self.network)
        docker("network", "create", "--subnet", found, *self._labels(), self.network)
        hosts = ipaddress.ip_network(found).hosts()
        next(hosts)  # the bridge
        self.addresses = {name: str(next(hosts)) for name in self.hosts}

    def _make_keys(self) -> None:
        for name in ("key", *self.hosts):
            path = self.root / name
            for old in (path, path.with_suffix(".pub")):
                old.unlink(missing_ok=True)
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"runbook lab {name}", "-f", str(path)],
                check=True,
                timeout=30,
                stdin=subprocess.DEVNULL,
            )

    def _create(self, host: str) -> None:
        place = ["--name", self.container(host), "--hostname", host, "--network", self.network]
        place += ["--ip", self.addresses[host]]
        docker("create", *place, *self._labels(), *self._options(host), self._image(host))
        self.put(host, "/etc/ssh/ssh_host_ed25519_key", (self.root / host).read_text(encoding="ascii"), 0o600)
        self.put(host, "/home/deploy/.ssh/authorized_keys", (self.root / "key.pub").read_text(encoding="ascii"))
        known = "".join(
            f"{self.addresses[name]} {(self.root / f'{name}.pub').read_text(encoding='ascii')}" for name in self.hosts
        )
        write(self.root / "known_hosts", known)

    def _prepare_router(self) -> None:
        if self.routing == "haproxy":
            servers = [
                f"    server {name}_{slot} {self.addresses[name]}:{PORTS[slot]} disabled\n"
                for name in self.names
                for slot in ("blue", "green")
            ]
            self.put(self.router, "/etc/haproxy/haproxy.cfg", HAPROXY + haproxy_rest(":80", servers))
            self.sh(self.router, "systemctl enable --now haproxy")
            return
        self.put(self.router, "/etc/nginx/conf.d/runbook.conf", INCLUDE)
        self.put(self.router, "/etc/nginx/sites-enabled/demo", NGINX)
        self.sh(self.router, "systemctl enable --now nginx")

    # Ansible

    def inventory(self) -> dict[str, Any]:
        """Hosts and groups with how to reach them; the state host is the controller."""
        options = ["-o", f"UserKnownHostsFile={self.root / 'known_hosts'}", "-o", "StrictHostKeyChecking=yes"]
        options += ["-o", "IdentitiesOnly=yes", "-o", "GlobalKnownHostsFile=/dev/null"]
        reach = {
            "ansible_user": "deploy",
            "ansible_become": True,
            "ansible_ssh_private_key_file": str(self.root / "key"),
            "ansible_ssh_common_args": shlex.join(options),
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        state = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        groups: dict[str, dict[str, Any]] = {
            "targets": {name: {**reach, "ansible_host": self.addresses[name]} for name in self.names},
            "routers": {self.router: {**reach, "ansible_host": self.addresses[self.router]}},
            "state": {"state1": state},
        }
        return {"all": {"children": {group: {"hosts": hosts} for group, hosts in groups.items()}}}

    def write_inventory(self, directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        write(directory / "hosts.yml", json.dumps(self.inventory(), indent=2) + "\n")  # JSON is YAML too
        return directory


def started(pid: int) -> str:
    """Start time of a process since boot: with its number it never comes twice. Empty when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]


def ours(kind: str, wanted: str) -> Iterator[tuple[str, str]]:
    """Id and owner of our containers or networks with a label."""
    words = ("ps", "--all") if kind == "container" else ("network", "ls")
    listed = docker(*words, "--quiet", "--no-trunc", "--filter", f"label={wanted}").split()
    for found in listed:
        template = "{{json .Config.Labels}}" if kind == "container" else "{{json .Labels}}"
        with contextlib.suppress(LabError):  # gone meanwhile
            labels = json.loads(docker(kind, "inspect", "--format", template, found))
            yield found, str(labels.get(f"{LABEL}.owner", ""))


def remove(wanted: str, dead_only: bool = False) -> bool:
    removed = False
    for kind in ("container", "network"):
        for found, owner in list(ours(kind, wanted)):
            pid, _slash, began = owner.partition("/")
            if dead_only and (owner == "kept" or (pid.isdigit() and started(int(pid)) == began)):
                continue
            force = ["--force", "--volumes"] if kind == "container" else []
            docker(kind, "rm", *force, found)
            removed = True
    return removed


def remove_leftovers() -> bool:
    """What labs left whose process was killed."""
    return remove(f"{LABEL}=node", dead_only=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="The lab of nodes: hosts with systemd and sshd as Docker containers.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="make the nodes anew")
    up.add_argument("--targets", type=int, choices=range(1, 11), default=2, metavar="1..10")
    down = commands.add_parser("down", help="remove them")
    for command in (up, down):
        command.add_argument("--root", type=Path, default=DEFAULT_ROOT)
    arguments = parser.parse_args()
    try:
        if arguments.command == "up":
            lab = Nodes(arguments.root, arguments.targets)
            lab.kept = True
            lab.up()
            inventory = lab.write_inventory(lab.root / "inventory")
            print(f"up: {lab.front_url} -> {', '.join(lab.names)}; inventory {inventory}")
        else:
            print("down" if Nodes(arguments.root).down() else "was down already")
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
