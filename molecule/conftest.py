"""What the verifiers of several scenarios ask."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def root() -> Path:
    """The directory of the lab."""
    return Path(os.environ["RUNBOOK_LOCAL_ROOT"])


@pytest.fixture(scope="session")
def name(root: Path) -> str:
    """`lab_name` of the inventory."""
    return f"runbook-molecule-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"


@pytest.fixture(scope="session")
def versions() -> Callable[[str], set[str]]:
    """The versions that answer there, each time on a new connection: enough to meet every target."""

    def ask(url: str) -> set[str]:
        found = set()
        for _time in range(12):
            with urllib.request.urlopen(f"{url}/version", timeout=5) as answer:
                found.add(str(json.load(answer)["version"]))
        return found

    return ask
