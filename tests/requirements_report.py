# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Says which rows of docs/requirements.md tests carry; `make requirements` runs it.

A row is carried by ``@pytest.mark.requirement("HC-01")`` on a test, or by a comment ``# HC-01`` in molecule/.
An ID that the ledger does not have is an error.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
SECTION = re.compile(r"## \d+\. ([A-Z]+): (.+)")
ROW = re.compile(r"\| ([A-Z]+-\d+) \|")


def ledger(text: str) -> dict[str, list[str]]:
    """Section title to its IDs. Annexes repeat rows and do not count."""
    sections: dict[str, list[str]] = {}
    prefix = ""
    rows: list[str] = []
    for line in text.splitlines():
        if line.startswith("## "):
            heading = SECTION.match(line)
            prefix, rows = (heading[1] + "-", []) if heading else ("", [])
            if heading:
                sections[f"{heading[1]}: {heading[2]}"] = rows
        elif prefix and (row := ROW.match(line)) and row[1].startswith(prefix):
            rows.append(row[1])
    return sections


def marks(path: Path) -> Iterator[tuple[str, str]]:
    """(ID, place) of every ``pytest.mark.requirement(...)``, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.requirement"):
            continue
        place = f"{path.relative_to(CHECKOUT)}:{node.lineno}"
        for argument in node.args:
            # What is no literal string is shown as it stands, and so is unknown.
            yield (str(argument.value) if isinstance(argument, ast.Constant) else ast.unparse(argument)), place


def comments(path: Path, prefixes: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        for found in re.findall(rf"\b(?:{prefixes})-\d+\b", line.partition("#")[2]):
            yield found, f"{path.relative_to(CHECKOUT)}:{number}"


def main() -> int:
    sections = ledger((CHECKOUT / "docs" / "requirements.md").read_text(encoding="utf-8"))
    rows = [row for section in sections.values() for row in section]
    carried = [mark for path in sorted((CHECKOUT / "tests").rglob("*.py")) for mark in marks(path)]
    for path in sorted((CHECKOUT / "molecule").rglob("*")):
        if path.is_file():
            carried += comments(path, "|".join(title.partition(":")[0] for title in sections))
    covered = {row for row, place in carried}
    for title, section in sections.items():
        print(f"{len(covered.intersection(section)):4} of {len(section):3}  {title}")
    problems = [f"{place}: {row} is no row of docs/requirements.md" for row, place in carried if row not in rows]
    problems += [f"docs/requirements.md: {row} stands twice" for row in sorted({r for r in rows if rows.count(r) > 1})]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(f"requirements: {len(covered.intersection(rows))} of {len(rows)} rows carried by tests")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
