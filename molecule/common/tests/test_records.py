"""What every scenario leaves in the records."""

from __future__ import annotations

import json
from pathlib import Path


def test_the_records_tell_the_whole_story(root: Path) -> None:
    lines = (root / "state" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    told = [(record["outcome"], record["to"]["version"]) for record in map(json.loads, lines)]
    assert told == [("deployed", "1.0.0"), ("deployed", "1.1.0"), ("failed", "1.2.0"), ("recovered", "1.1.0")]


def test_nobody_holds_the_lease(root: Path) -> None:
    lease = json.loads((root / "state" / "lease.json").read_text(encoding="utf-8"))
    assert lease["released"], lease
