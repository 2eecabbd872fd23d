"""A namespace of a real cluster for each module of this directory, and plays run against it as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[0] / "lab"), str(HERE.parents[0] / "chaos")]

from kubernetes_site import Site

LAB = HERE.parent / "lab" / "kubernetes.sh"


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    """That of KUBECONFIG, or of the lab where it runs."""
    if os.environ.get("KUBECONFIG"):
        return os.environ["KUBECONFIG"]
    found = subprocess.run([str(LAB), "running"], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(
            "there is no cluster: tests/lab/kubernetes.sh starts one (root, Docker, Debian 12), or set KUBECONFIG"
        )
    return found.stdout.strip()


@pytest.fixture(scope="module")
def site(kubeconfig: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Site]:
    start_seconds = getattr(request.module, "START_SECONDS", 30)
    made = Site(kubeconfig, tmp_path_factory.mktemp("kubernetes"), start_seconds)
    try:
        yield made
    finally:
        made.close()
