"""Sites for the tests of this directory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))

from runbook_site import Site, make_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three targets behind one router; fresh for each test module."""
    yield from make_site(tmp_path_factory.mktemp("site"), 3)


@pytest.fixture(scope="module")
def small_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One target behind one router."""
    yield from make_site(tmp_path_factory.mktemp("small"), 1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two targets behind one router."""
    yield from make_site(tmp_path_factory.mktemp("pair"), 2)
