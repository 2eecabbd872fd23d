"""Which cluster the tests use."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

LAB = Path(__file__).resolve().parents[1] / "lab" / "kubernetes.sh"
WHY_NOT = "there is no cluster: tests/lab/kubernetes.sh starts one (root, Docker, Debian 12), or set KUBECONFIG"


def found() -> str:
    """The path of KUBECONFIG, or of the lab's where it runs; otherwise empty."""
    if os.environ.get("KUBECONFIG"):
        return os.environ["KUBECONFIG"]
    return subprocess.run([str(LAB), "running"], capture_output=True, text=True, check=False).stdout.strip()


def kubeconfig() -> str:
    """What is found; otherwise the test is skipped."""
    return found() or pytest.skip(WHY_NOT)
