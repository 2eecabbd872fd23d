"""A namespace of a real cluster for each module of this directory, and plays run against it as a user runs them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[0] / "lab"), str(HERE.parents[0] / "chaos")]

from cluster import kubeconfig
from kubernetes_site import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Site]:
    start_seconds = getattr(request.module, "START_SECONDS", 30)
    store = getattr(request.module, "STORE", "directory")
    made = Site(kubeconfig(), tmp_path_factory.mktemp("kubernetes"), start_seconds, store)
    try:
        yield made
    finally:
        made.close()
