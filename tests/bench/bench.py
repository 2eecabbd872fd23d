# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long deploy, the same deploy again and rollback take, beside pyinfra and a shell script doing the same work.

Usage: bench.py [host] [compose] [kubernetes] [ssh] [--targets 1 3 10] [--rounds 3] [--directory build/bench]
                [--docker-rollout PATH]

Each lane has a lab of its own with the same application, and they take turns. Medians of all rounds; CPU is user and
system time of the command and all it waited for; memory is the peak of the controlling process itself. The rows go
into report.json, in place of earlier ones of the same measure; all others stay. A promise that does not hold is
printed as OVER. The exit status says only whether everything worked.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
sys.path.insert(0, str(CHECKOUT / "tests" / "lab"))

from measure import Cost, measured, median, say

import local
from runbook_site import PLAYBOOK, Site

NAMES = ("host", "compose", "kubernetes", "ssh")
LANE = "host and nginx"
PEERS = ("pyinfra", "shell")
VERBS = ("deploy", "no-op deploy", "rollback")
BASE = "1.0.1"  # what each rollback goes back to
DEPLOY_RATIO = 3.0  # the promises, each for one target
ROLLBACK_SECONDS = 2.0


class Lane:
    """One way to do the work, on a lab of its own."""

    def __init__(self, name: str, lab: local.Lab, directory: Path) -> None:
        self.name = name
        self.site = Site(lab, directory)
        self.directory = directory

    def version(self, version: str) -> None:
        self.site.release(version)

    def command(self, verb: str, version: str) -> tuple[list[str], dict[str, str]]:
        """The command of a verb, and its environment. ``version`` is the one to be live afterwards."""
        given = {"accounting_requests_per_second": 0, "app_version": version}
        if verb == "rollback":
            given = {"accounting_requests_per_second": 0, "app_reason": "a bench"}
        return self.site.command(verb, **given), self.site.environment()

    def do(self, verb: str, version: str) -> Cost:
        nothing = verb == "no-op deploy"
        command, environment = self.command("deploy" if nothing else verb, version)
        cost, output = succeeded(command, environment)
        if nothing != ("nothing to do" in output):
            raise SystemExit(
                f"{self.name}: {verb} of {version} {'did something' if nothing else 'did nothing'}:\n{output}"
            )
        answered = self.site.answers()
        if answered != {version}:
            raise SystemExit(f"{self.name}: after {verb} of {version} {sorted(answered)} answered:\n{output}")
        return cost


class Peer(Lane):
    def __init__(self, name: str, lab: local.Lab, directory: Path) -> None:
        super().__init__(name, lab, directory)
        programs = Path(sys.executable).parent
        self.facts = {
            "manager": "supervisor",
            "application": "demo",
            "python": sys.executable,
            "supervisorctl": str(programs / "supervisorctl"),
            "nginx": shlex.join(lab.ports["nginx_command"]),
            "include": str(lab.root / "router" / "runbook.conf"),
            "front": lab.front_url,
            "artifacts": str(lab.root / "artifacts"),
            "secrets": {"DATABASE_URL": lab.database_url, "REDIS_URL": lab.redis_url},
            "targets": [
                {
                    "name": name,
                    "address": "127.0.0.1",
                    "home": str(lab.home(name)),
                    "socket": lab.ports["supervisor_sockets"][name],
                    "conf_dir": str(lab.home(name) / "supervisor.d"),
                    **lab.ports["targets"][name],
                }
                for name in lab.names
            ],
        }
        local.write(directory / "site.json", json.dumps(self.facts), 0o600)

    def command(self, verb: str, version: str) -> tuple[list[str], dict[str, str]]:
        environment = {**os.environ, "BENCH_SITE": str(self.directory / "site.json")}
        pyinfra = str(Path(sys.executable).parent / "pyinfra")
        files = [str(HERE / "peer_inventory.py"), str(HERE / "peer_pyinfra.py")]
        return [pyinfra, "-y", *files, "--data", f"verb={verb}", "--data", f"version={version}"], environment


class Shell(Peer):
    def __init__(self, name: str, lab: local.Lab, directory: Path) -> None:
        super().__init__(name, lab, directory)
        targets = directory / "targets"
        columns = ("name", "home", "socket", "blue", "green")
        local.write(
            targets, "".join(" ".join(str(one[key]) for key in columns) + "\n" for one in self.facts["targets"])
        )
        words = {key.upper(): self.facts[key] for key in ("python", "supervisorctl", "include", "front", "artifacts")}
        words.update(self.facts["secrets"], TARGETS=str(targets))
        lines = [f"{key}={shlex.quote(value)}" for key, value in words.items()]
        local.write(directory / "site.sh", "\n".join([*lines, f"NGINX=({self.facts['nginx']})", ""]), 0o600)

    def command(self, verb: str, version: str) -> tuple[list[str], dict[str, str]]:
        return ["bash", str(HERE / "peer_shell.sh"), str(self.directory / "site.sh"), verb, version], {**os.environ}


LANES = {"runbook": Lane, "pyinfra": Peer, "shell": Shell}


def succeeded(command: list[str], environment: dict[str, str]) -> tuple[Cost, str]:
    cost, code, output = measured(command, environment)
    if code:
        raise SystemExit(f"{shlex.join(command[:3])} ... ended with {code}:\n{output}")
    return cost, output


def measure(targets: int, rounds: int, directory: Path) -> dict[str, dict[str, Cost]]:
    """Lane to verb to its median cost, and ``start``: what starting ansible-playbook costs."""
    costs: dict[str, dict[str, list[Cost]]] = {name: {verb: [] for verb in VERBS} for name in LANES}
    starts: list[Cost] = []
    with contextlib.ExitStack() as stack:
        lanes = []
        for name, kind in LANES.items():
            home = directory / f"{name}-{targets}"
            lab = local.Lab(home / "lab", targets=targets)
            lab.remove()  # what a bench that was killed left behind
            shutil.rmtree(home, ignore_errors=True)
            stack.callback(shutil.rmtree, home, ignore_errors=True)
            lanes.append(kind(name, stack.enter_context(lab), home))
        empty = directory / "empty.yml"
        local.write(empty, "- hosts: localhost\n  gather_facts: false\n  tasks: []\n")
        for lane in lanes:
            # Both slots full, as they are in the life of an application.
            for version in ("1.0.0", BASE):
                lane.version(version)
                lane.do("deploy", version)
        for number in range(rounds):
            version = f"1.1.{number}"
            for verb in VERBS:
                for lane in lanes[number % len(lanes) :] + lanes[: number % len(lanes)]:
                    lane.version(version)
                    cost = lane.do(verb, BASE if verb == "rollback" else version)
                    costs[lane.name][verb].append(cost)
                    say(f"  {targets:>3} targets  round {number + 1}  {verb:<13} {lane.name:<8} {cost.wall:6.2f} s")
            site = lanes[0].site
            starts.append(succeeded([str(PLAYBOOK), str(empty), "-i", str(site.inventory)], site.environment())[0])
    medians = {name: {verb: median(found) for verb, found in verbs.items()} for name, verbs in costs.items()}
    return {**medians, "start": {"start": median(starts)}}


def rows(targets: int, found: dict[str, dict[str, Cost]]) -> Iterator[dict[str, Any]]:
    size = "1 target" if targets == 1 else f"{targets} targets"
    for verb in VERBS:
        for peer in PEERS:
            ours, theirs = found["runbook"][verb], found[peer][verb]
            limit = DEPLOY_RATIO if (verb, peer, targets) == ("deploy", "pyinfra", 1) else None
            yield row(f"{verb}, {size}", "s", ours.wall, peer, theirs.wall, ratio_limit=limit)
            yield row(f"{verb}, {size}, CPU", "s", ours.cpu, peer, theirs.cpu)
            yield row(f"{verb}, {size}, controller memory", "MB", ours.megabytes, peer, theirs.megabytes)
    rollback, start, peer = found["runbook"]["rollback"], found["start"]["start"], "starting ansible-playbook"
    limit = ROLLBACK_SECONDS if targets == 1 else None
    yield row(
        f"rollback, {size}, above that start", "s", rollback.wall - start.wall, peer, start.wall, ours_limit=limit
    )
    yield row(f"rollback, {size}, above that start, CPU", "s", rollback.cpu - start.cpu, peer, start.cpu)


def row(
    measure: str,
    unit: str,
    ours: float,
    peer: str,
    value: float,
    ratio_limit: Optional[float] = None,
    ours_limit: Optional[float] = None,
) -> dict[str, Any]:
    ratio = ours / value
    found: dict[str, Any] = {
        "lane": LANE,
        "measure": measure,
        "unit": unit,
        "ours": round(ours, 3),
        "peer": peer,
        "peer_value": round(value, 3),
        "ratio": round(ratio, 2),
    }
    if ratio_limit is not None:
        found.update(promise=f"ratio at most {ratio_limit:g}", verdict="PASS" if ratio <= ratio_limit else "OVER")
    if ours_limit is not None:
        found.update(promise=f"at most {ours_limit:g} {unit}", verdict="PASS" if ours <= ours_limit else "OVER")
    return found


def key(one: dict[str, Any]) -> tuple[str, str, str]:
    return one["lane"], one["measure"], one["peer"]


def table(report: list[dict[str, Any]]) -> Iterator[str]:
    yield f"{'measure':<48}{'unit':<5}{'ours':>8}  {'peer':<26}{'theirs':>8}{'ratio':>8}  promise"
    for one in report:
        promise = f"{one['verdict']}: {one['promise']}" if "promise" in one else ""
        yield (
            f"{one['measure']:<48}{one['unit']:<5}{one['ours']:>8.2f}  {one['peer']:<26}"
            f"{one['peer_value']:>8.2f}{one['ratio']:>8.2f}  {promise}"
        ).rstrip()


def host(arguments: argparse.Namespace) -> None:
    missing = [name for name in ("bash", "curl", "jq", "sha256sum", "tar") if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"bench: the peers need {', '.join(missing)}")
    directory = arguments.directory
    busy = os.getloadavg()[0]  # what others were doing: it is in every wall time
    new = [
        {**one, "load_before": round(busy, 1)}
        for targets in arguments.targets
        for one in rows(targets, measure(targets, arguments.rounds, directory))
    ]
    path = directory / "report.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    measured_again = {key(one) for one in new}
    report = [one for one in old if key(one) not in measured_again] + new
    local.write(path, json.dumps(report, indent=1) + "\n")
    say("")
    for line in table(report):
        say(line)
    say(f"\nmedians of {arguments.rounds} rounds, {os.cpu_count()} cores, load before {busy:.1f}\n{path}")
    if busy > 0.5:
        say("The machine was busy, so wall times and verdicts say little; CPU times say more. Run it again when idle.")


def other(name: str, arguments: argparse.Namespace) -> None:
    """A lane that needs Docker or a cluster."""
    import lanes

    lanes.run(name, importlib.import_module(f"lane_{name}").places(arguments), arguments.rounds, arguments.directory)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lanes", nargs="*", metavar="LANE", help=f"{', '.join(NAMES)}; {NAMES[0]} when none is named")
    parser.add_argument("--targets", type=int, nargs="+", default=[1, 3, 10], help="for host and ssh")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=CHECKOUT / "build" / "bench")
    parser.add_argument("--docker-rollout", type=Path, metavar="PATH", help="the program, for compose")
    arguments = parser.parse_args()
    for name in arguments.lanes:
        if name not in NAMES:
            parser.error(f"a lane is one of {', '.join(NAMES)}, not {name}")
    if arguments.rounds < 1 or min(arguments.targets) < 1:
        parser.error("--rounds and --targets must be 1 or more")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every lab is taken down
    arguments.directory = arguments.directory.resolve()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    for name in arguments.lanes or NAMES[:1]:
        host(arguments) if name == "host" else other(name, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
