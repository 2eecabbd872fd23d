# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs scenarios of molecule one after the other; `make test-molecule` runs it. Usage: molecule.py SCENARIO...

One whose lab can't be on this machine is skipped, and a line says why.
"""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).resolve().parent
CHECKOUT = TESTS.parent
sys.path[:0] = [str(TESTS / "lab"), str(TESTS / "kubernetes")]

import cluster
import engine

import nodes

WHY_NOT: dict[str, Callable[[], str]] = {
    "systemd": nodes.why_not,
    "compose": engine.why_not,
    "kubernetes": lambda: "" if cluster.found() else cluster.WHY_NOT,
}


def run(scenario: str) -> int:
    """One process each: with `molecule test --all` nothing runs after the first that fails."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        # Molecule's own is in the home directory, and two checkouts with one name would share it.
        "MOLECULE_EPHEMERAL_DIRECTORY": str(CHECKOUT / "build" / "molecule-state" / scenario),
    }
    if scenario == "kubernetes":
        environment["KUBECONFIG"] = cluster.found()
    command = ["molecule", "test", "--scenario-name", scenario]
    return subprocess.run(command, cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL, check=False).returncode


def main(scenarios: list[str]) -> int:
    suite = ET.Element("testsuite", name="molecule")
    told = []
    for scenario in scenarios:
        case = ET.SubElement(suite, "testcase", name=scenario)
        reason = WHY_NOT.get(scenario, str)()
        if reason:
            ET.SubElement(case, "skipped", message=reason)
            told.append(f"skipped {scenario}: {reason}")
        elif run(scenario):
            ET.SubElement(case, "failure", message="see the output")
            told.append(f"failed {scenario}")
        else:
            told.append(f"passed {scenario}")
    failures = len(list(suite.iter("failure")))
    counts = {"tests": len(scenarios), "failures": failures, "skipped": len(list(suite.iter("skipped")))}
    suite.attrib.update({key: str(value) for key, value in counts.items()})
    results = CHECKOUT / "build" / "results" / f"test-molecule-{scenarios[0]}.xml"
    results.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(suite).write(results)
    print(*told, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if sys.argv[1:] else "usage: molecule.py SCENARIO...")
