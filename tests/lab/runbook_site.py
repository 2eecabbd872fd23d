"""A real site for end-to-end tests: the local lab, its inventory, and plays run as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / "tests" / "lab"), str(CHECKOUT / "tests" / "apps")]

import build as app
import local

PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"


class Play(NamedTuple):
    code: int
    output: str
    report: Optional[dict[str, Any]]

    @property
    def outcome(self) -> str:
        return str(self.report["outcome"]) if self.report else "none"


class Plays:
    """The verbs against one inventory, as a user runs them, and what they leave. Every play ends within ``timeout``
    seconds or fails the test."""

    timeout = 180.0
    artifacts: Path  # where releases are built
    front_url: str  # where users ask

    def __init__(self, directory: Path, inventory: Path, state: Path) -> None:
        self.directory = directory
        self.inventory = inventory
        self.reports = directory / "reports"
        self.state = state
        self.settings: dict[str, str] = {}  # more of Ansible's environment variables
        self.variables: dict[str, Any] = {}  # given to every play

    def release(self, version: str, **faults: Any) -> Any:
        return app.build(version, faults, self.artifacts)[0]

    def environment(self) -> dict[str, str]:
        plain = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        return {**plain, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", **self.settings}

    def command(self, verb: str, *options: str, **variables: Any) -> list[str]:
        given = {
            "app_report_dir": str(self.reports),
            "watch_seconds": 0,
            "accounting_requests_per_second": 50,
            **self.variables,
            **variables,
        }
        playbook = str(CHECKOUT / "playbooks" / f"{verb}.yml")
        return [str(PLAYBOOK), playbook, "-i", str(self.inventory), "-e", json.dumps(given), *options]

    def start(self, verb: str, *options: str, **variables: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(verb, *options, **variables),
            cwd=CHECKOUT,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, verb: str, *options: str, timeout: Optional[float] = None, **variables: Any) -> Play:
        before = set(self.reports.glob("*.json"))
        process = self.start(verb, *options, **variables)
        try:
            output, _nothing = process.communicate(timeout=timeout or self.timeout)
        except subprocess.TimeoutExpired as late:
            process.kill()
            output = process.communicate()[0]
            raise AssertionError(f"{verb} did not end within {late.timeout:g} s:\n{output}") from None
        new = sorted(set(self.reports.glob("*.json")) - before)
        report = json.loads(new[0].read_text(encoding="utf-8")) if new else None
        return Play(process.returncode, output, report)

    def deploy(self, version: str, *options: str, **variables: Any) -> Play:
        return self.run("deploy", *options, app_version=version, **variables)

    def rollback(self, *options: str, **variables: Any) -> Play:
        return self.run("rollback", *options, **{"app_reason": "a test", **variables})

    def status(self) -> Play:
        return self.run("status")

    def answers(self, count: int = 12) -> set[str]:
        """The versions that answer users, each time on a new connection: enough to meet every target."""
        return {version_at(self.front_url) for _time in range(count)}

    def strays(self) -> list[str]:
        """What is left of ours beside the slots that answer."""
        return []

    # -- the journal, past the collection ----------------------------------------------------------------------------

    def run_numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in (self.state / "runs").glob("*.jsonl"))

    def events(self, run: int) -> list[dict[str, Any]]:
        path = self.state / "runs" / f"{run}.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def lease(self) -> str:
        """The lease as text."""
        path = self.state / "lease.json"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def history(self) -> list[dict[str, Any]]:
        path = self.state / "history.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def live(self) -> Optional[str]:
        """The version that the records say is live."""
        for record in reversed(self.history()):
            if record["outcome"] in ("deployed", "restored"):
                return str(record["to"]["version"])
        return None


class Site(Plays):
    """The local lab with its inventory."""

    def __init__(self, lab: local.Lab, directory: Path) -> None:
        super().__init__(directory, lab.write_inventory(directory / "inventory"), lab.root / "state")
        self.lab = lab
        self.artifacts = lab.root / "artifacts"
        self.front_url = lab.front_url

    # -- what is really there, asked past the collection -------------------------------------------------------

    def slot(self, target: str, slot: str) -> str:
        """The version that answers in a slot of a target; empty when nobody does."""
        return version_at(f"http://127.0.0.1:{self.lab.ports['targets'][target][slot]}")

    def slots(self) -> dict[str, dict[str, str]]:
        return {t: {slot: self.slot(t, slot) for slot in ("blue", "green")} for t in self.lab.names}

    def everything(self) -> dict[str, Any]:
        """What "nothing touched" is compared by."""
        return tree(self.lab.root / "targets", self.lab.root / "router", self.state)


def version_at(base: str) -> str:
    try:
        with urllib.request.urlopen(f"{base}/version", timeout=5) as answer:
            return str(json.load(answer)["version"])
    except (urllib.error.URLError, OSError, ValueError, KeyError):
        return ""


def tree(*roots: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file below the roots with mode, size and content: what "nothing touched" is compared by."""
    found = {}
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink() and path.suffix not in (".log", ".lock"):
                found[str(path)] = (path.stat().st_mode, path.stat().st_size, path.read_bytes())
    return found


def make_site(directory: Path, targets: int, router: str = "nginx") -> Iterator[Site]:
    with local.Lab(directory / "lab", targets=targets, router=router) as lab:
        yield Site(lab, directory)


def as_elsewhere(site: Site, **hosts: dict[str, str]) -> None:
    """Every host of the site is another machine to Ansible from now on; ``hosts`` have more variables."""
    path = site.inventory / "hosts.yml"
    inventory = json.loads(path.read_text(encoding="utf-8"))
    inventory["all"]["vars"]["ansible_connection"] = "elsewhere"
    for group in inventory["all"]["children"].values():
        for host in group["hosts"]:
            group["hosts"][host] = hosts.get(host, {})
    path.write_text(json.dumps(inventory), encoding="utf-8")
    site.settings = {"ANSIBLE_CONNECTION_PLUGINS": str(CHECKOUT / "tests" / "lab" / "connection")}
