"""A real site for end-to-end tests: the local lab, its inventory, and plays run as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
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


class Site:
    """One lab with its inventory. Every play ends within ``timeout`` seconds or fails the test."""

    def __init__(self, lab: local.Lab, directory: Path) -> None:
        self.lab = lab
        self.directory = directory
        self.inventory = lab.write_inventory(directory / "inventory")
        self.reports = directory / "reports"
        self.state = lab.root / "state"
        self.settings: dict[str, str] = {}  # more of Ansible's environment variables

    def release(self, version: str, **faults: Any) -> Path:
        return app.build(version, faults, self.lab.root / "artifacts")[0]

    def environment(self) -> dict[str, str]:
        plain = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        return {**plain, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", **self.settings}

    def command(self, verb: str, *options: str, **variables: Any) -> list[str]:
        given = {
            "app_report_dir": str(self.reports),
            "watch_seconds": 0,
            "accounting_requests_per_second": 50,
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

    def run(self, verb: str, *options: str, timeout: float = 180, **variables: Any) -> Play:
        before = set(self.reports.glob("*.json"))
        process = self.start(verb, *options, **variables)
        try:
            output, _nothing = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        new = sorted(set(self.reports.glob("*.json")) - before)
        report = json.loads(new[0].read_text(encoding="utf-8")) if new else None
        return Play(process.returncode, output, report)

    def deploy(self, version: str, *options: str, **variables: Any) -> Play:
        return self.run("deploy", *options, app_version=version, **variables)

    def rollback(self, *options: str, **variables: Any) -> Play:
        return self.run("rollback", *options, **{"app_reason": "a test", **variables})

    def status(self) -> Play:
        return self.run("status")

    # -- what is really there, asked past the collection -------------------------------------------------------

    def answers(self, count: int = 12) -> set[str]:
        """The versions that answer through the router, over enough requests to meet every target."""
        return {version_at(self.lab.front_url) for _time in range(count)}

    def slot(self, target: str, slot: str) -> str:
        """The version that answers in a slot of a target; empty when nobody does."""
        return version_at(f"http://127.0.0.1:{self.lab.ports['targets'][target][slot]}")

    def slots(self) -> dict[str, dict[str, str]]:
        return {t: {slot: self.slot(t, slot) for slot in ("blue", "green")} for t in self.lab.names}

    def history(self) -> list[dict[str, Any]]:
        path = self.state / "history.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def live(self) -> Optional[str]:
        """The version that the records say is live."""
        for record in reversed(self.history()):
            if record["outcome"] in ("deployed", "restored"):
                return str(record["to"]["version"])
        return None


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
