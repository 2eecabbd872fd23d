# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo: a real application on three local targets, deployed, upgraded under load, saved from two bad releases.

`make demo` runs it. Everything is real: PostgreSQL, Redis, nginx, supervisor, the application and the requests.
It ends with an error when any run ends otherwise than it says here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / "tests" / "lab"), str(CHECKOUT / "tests" / "apps"), str(CHECKOUT / "build/collections")]

from ansible_collections.signalbox.runbook.plugins.module_utils import _report

import build as app
import local


class Run(NamedTuple):
    story: str
    playbook: str
    version: str
    outcome: str
    faults: dict[str, Any] = {}
    variables: dict[str, Any] = {}


LOAD = {"accounting_requests_per_second": 200, "accounting_connections": 10}
WATCH = {**LOAD, "watch_seconds": 8, "watch_interval_seconds": 1, "watch_window_seconds": 4}

RUNS = [
    Run("the first release", "deploy", "1.0.0", "deployed", {}, {**WATCH, "watch_seconds": 3}),
    Run("an upgrade, blue-green, under 200 requests/s", "deploy", "1.1.0", "deployed", {}, WATCH),
    Run(
        "a release that never gets healthy: no request ever reaches it",
        "deploy",
        "1.2.0",
        "failed",
        {"never_ready": True},
        {**WATCH},
    ),
    Run(
        "a release that turns bad after the switch: the watch takes it back",
        "deploy",
        "1.3.0",
        "rolled_back",
        {"errors_percent": 60, "after_seconds": 3},
        {**WATCH, "watch_seconds": 20},
    ),
    Run("back to 1.0.0 by hand", "rollback", "1.0.0", "restored", {}, {**LOAD, "app_reason": "the demo goes back"}),
]


def play(playbook: str, variables: dict[str, Any], reports: Path, root: Path) -> int:
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        f"playbooks/{playbook}.yml",
        "-i",
        "inventories/local",
    ]
    given = {**variables, "app_report_dir": str(reports)}
    environment = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "RUNBOOK_LOCAL_ROOT": str(root)}
    shown = " ".join(f"-e {key}={value}" for key, value in variables.items() if key.startswith("app_"))
    print(f"$ ansible-playbook {command[1]} -i inventories/local {shown}", flush=True)
    return subprocess.run([*command, "-e", json.dumps(given)], cwd=CHECKOUT, env=environment, check=False).returncode


def report_of(reports: Path, before: set[Path]) -> dict[str, Any]:
    new = sorted(set(reports.glob("*.json")) - before)
    if len(new) != 1:
        raise SystemExit(f"demo: expected one new report in {reports}, found {len(new)}")
    found: dict[str, Any] = json.loads(new[0].read_text(encoding="utf-8"))
    return found


def check(run: Run, code: int, report: dict[str, Any]) -> list[str]:
    """What is not as it has to be after this run."""
    wrong = []
    if report["outcome"] != run.outcome:
        wrong.append(f"outcome {report['outcome']} instead of {run.outcome}")
    if (code == 0) != (run.outcome in ("deployed", "restored")):
        wrong.append(f"exit code {code}")
    asked = report["requests"]
    if not asked["sent"]:
        wrong.append("nobody asked")
    if run.outcome == "failed" and run.version in asked["by_version"]:
        wrong.append(f"{asked['by_version'][run.version]} requests reached {run.version}")
    if run.outcome != "rolled_back" and asked["failed"]:
        wrong.append(f"{asked['failed']} requests failed")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=CHECKOUT / "build" / "demo")
    directory = parser.parse_args().directory.resolve()
    root = directory / "lab"
    local.Lab(root).remove()  # what an earlier demo, or one that was killed, left behind
    shutil.rmtree(directory, ignore_errors=True)
    reports = directory / "reports"
    reports.mkdir(parents=True)
    found, wrong = [], []
    print("starting PostgreSQL, Redis, nginx and three targets ...", flush=True)
    with local.Lab(root, targets=3) as lab:
        print(f"the application will answer at {lab.front_url}\n", flush=True)
        for number, run in enumerate(RUNS, 1):
            print(f"=== {number}. {run.story}", flush=True)
            if run.playbook == "deploy":
                app.build(run.version, run.faults, root / "artifacts")
            variables = {**({"app_version": run.version} if run.playbook == "deploy" else {}), **run.variables}
            before = set(reports.glob("*.json"))
            code = play(run.playbook, variables, reports, root)
            report = report_of(reports, before)
            found.append(report)
            wrong += [f"{run.playbook} {run.version}: {problem}" for problem in check(run, code, report)]
            print(flush=True)
        print("=== 6. what is live now", flush=True)
        if play("status", {}, reports, root):
            wrong.append("status.yml failed")
    summary = {"runs": found}
    (directory / "report.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (directory / "report.html").write_text(_report.page(found), encoding="utf-8")
    print(f"\n{'run':<10}{'version':<10}{'outcome':<13}{'seconds':>8}{'sent':>8}{'failed':>8}{'gap ms':>8}{'cut':>6}")
    for run, report in zip(RUNS, found):
        asked = report["requests"]
        gap = "-" if asked["longest_gap_ms"] is None else f"{asked['longest_gap_ms']:.0f}"
        print(
            f"{run.playbook:<10}{report['version']:<10}{report['outcome']:<13}{report['duration_s']:>8.1f}"
            f"{asked['sent']:>8}{asked['failed']:>8}{gap:>8}{asked['connections_cut']:>6}"
        )
    print(f"\n{directory / 'report.json'}\n{directory / 'report.html'}")
    for problem in wrong:
        print(f"demo: WRONG: {problem}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
