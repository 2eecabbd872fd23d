# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pyinfra peer: what playbooks/deploy.yml and rollback.yml do to targets and router, without plan and records.

Usage: BENCH_SITE=site.json pyinfra -y peer_inventory.py peer_pyinfra.py --data verb=deploy --data version=1.1.0
"""

import shlex
from io import StringIO
from pathlib import Path

from pyinfra import config, host, inventory, logger
from pyinfra.facts.server import Command
from pyinfra.operations import files, server

SLOTS = ("blue", "green")
data = host.data
verb, version = data.verb, str(data.version)
systemd = data.manager == "systemd"
config.SUDO = systemd
config.FAIL_PERCENT = 0  # one that fails stops all; otherwise the router would go on without it


def value(key: str) -> str:
    """Shell words that print what a key of a JSON object is."""
    return f"""sed -n 's/.*"{key}": *"\\([^"]*\\)".*/\\1/p'"""


def answer(url: str) -> str:
    """Shell words that print the version that answers at ``url``; nothing when nobody does."""
    return f"curl -fsS -m 5 {url}/version 2>/dev/null | {value('version')} || true"


def live_slot() -> str:
    """The slot that the router sends the traffic to: it has the port that is not down."""
    router = inventory.get_group("routers")[0]
    text = router.get_fact(Command, f"cat {data.include}") or ""
    first = data.members[0]
    return next((slot for slot in SLOTS if f":{first[slot]};" in text), "")


def until(test: str, tries: int, what: str, pause: float = 0.2) -> str:
    return (
        f"for i in $(seq {tries}); do if {test}; then exit 0; fi; sleep {pause}; done; "
        f"echo {shlex.quote(what)} >&2; exit 1"
    )


def healthy(slot: str) -> str:
    """As ours: supervisord calls the process RUNNING, which it does only after startsecs, and it answers."""
    port = getattr(data, slot)
    if systemd:
        running = f"systemctl is-active --quiet {data.application}-{slot}"
    else:
        running = f"{data.supervisorctl} -s unix://{data.socket} status demo-{slot} | grep -q RUNNING"
    return (
        f"{running} && "
        f'[ "$(curl -fsS -m 5 http://127.0.0.1:{port}/health 2>/dev/null | {value("status")})" = ok ] && '
        f'[ "$({answer(f"http://127.0.0.1:{port}")})" = {version} ]'
    )


def program(slot: str, release: str) -> tuple[str, str]:
    """The file of what runs a slot, and what is in it."""
    port = getattr(data, slot)
    if systemd:
        return f"/etc/systemd/system/{data.application}-{slot}.service", (
            f"[Service]\nExecStart=/bin/sh {release}/run\nWorkingDirectory={release}/app\nUser={data.user}\n"
            f"Environment=PORT={port} SLOT={slot}\nRestart=always\nTimeoutStopSec=5\n"
            f"[Install]\nWantedBy=multi-user.target\n"
        )
    return f"{data.conf_dir}/demo-{slot}.conf", (
        f"[program:demo-{slot}]\ncommand=/bin/sh {release}/run\ndirectory={release}/app\n"
        f'environment=PORT="{port}",SLOT="{slot}"\nautostart=true\nautorestart=true\nstartsecs=1\n'
        f"stopwaitsecs=5\nstopasgroup=true\nkillasgroup=true\nredirect_stderr=true\n"
        f"stdout_logfile={data.home}/{slot}.log\n"
    )


def stage(slot: str) -> None:
    release = f"{data.home}/releases/{version}"
    archive = Path(data.artifacts) / f"demo-{version}.tar.gz"
    digest = Path(f"{archive}.sha256").read_text(encoding="ascii").split()[0]
    uploaded = f"{release}/app.tar.gz"
    files.directory(name="Make the release", path=f"{release}/app", mode="0755")
    files.put(name="Upload the archive", src=str(archive), dest=uploaded)
    server.shell(
        name="Check and unpack it",
        commands=[f"echo '{digest}  {uploaded}' | sha256sum -c --quiet && tar -xzf {uploaded} -C {release}/app"],
    )
    owner = data.user if systemd else None
    lines = [f"export {key}={shlex.quote(value)}" for key, value in {**data.secrets, "PYTHONUNBUFFERED": "1"}.items()]
    files.put(
        name="Write the environment",
        src=StringIO("\n".join(lines) + "\n"),
        dest=f"{release}/env",
        mode="0600",
        user=owner,
    )
    run = (
        f'#!/bin/sh\nset -eu\n. {release}/env\nexport RELEASE={version}\nexec {data.python} server.py --port "$PORT"\n'
    )
    files.put(name="Write what runs it", src=StringIO(run), dest=f"{release}/run", mode="0755")
    dest, conf = program(slot, release)
    files.put(name="Write the program of the slot", src=StringIO(conf), dest=dest, mode="0600")


def prove(slot: str, start: bool) -> None:
    unit = f"{data.application}-{slot}"
    commands = []
    if start and systemd:
        # It calls a process active at once; ours waits for the same second.
        commands = [f"systemctl daemon-reload && systemctl enable --quiet {unit}", f"systemctl restart {unit}; sleep 1"]
    elif start:
        commands = [f"{data.supervisorctl} -s unix://{data.socket} update"]
    commands.append(until(healthy(slot), 75 if start else 3, f"{slot} of {data.name} does not get healthy"))
    server.shell(name="Start the slot and prove it" if start else "Prove the slot", commands=commands)


def shift(slot: str) -> None:
    """Runs on the router: the include file, and back again when nginx or the answers are not right."""
    other = SLOTS[1 - SLOTS.index(slot)]
    members = "".join(
        f"    server {one['address']}:{one[slot]};\n    server {one['address']}:{one[other]} down;\n"
        for one in data.members
    )
    upstream = f"upstream {data.application}_backend {{\n{members}    keepalive 32;\n}}\n"
    files.put(name="Write the upstream", src=StringIO(upstream), dest=data.include, mode="0644")
    asked = f'n=0; while [ $n -lt 5 ] && [ "$({answer(data.front)})" = {version} ]; do n=$((n+1)); done; [ $n = 5 ]'
    server.shell(
        name="Reload nginx and prove it",
        commands=[
            f"{data.nginx} -t && {data.nginx} -s reload",
            until(asked, 300, f"the router does not answer with {version}", 0.05),
        ],
    )


live = live_slot()
idle = "green" if live == "blue" else "blue"
where = data.front if "routers" in host.groups else f"http://127.0.0.1:{data.get(live)}"
if live and host.get_fact(Command, answer(where)) == version:
    logger.info("nothing to do")
else:
    if "targets" in host.groups:
        if verb == "deploy":
            stage(idle)
        prove(idle, start=verb == "deploy")
    # pyinfra orders the operations of each host, not those of one host after those of another. One that all share
    # keeps the traffic back until every target is proven.
    server.shell(name="Every target is proven", commands=["true"])
    if "routers" in host.groups:
        shift(idle)
    if verb == "deploy":
        # A router hides a target that ended once it had traffic: asked once more, as ours are.
        server.shell(name="The traffic has moved", commands=["true"])
        if "targets" in host.groups:
            prove(idle, start=False)
