"""Which cluster the tests use."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

LAB = Path(__file__).resolve().parents[1] / "lab" / "kubernetes.sh"


def kubeconfig() -> str:
    """That of KUBECONFIG, or of the lab where it runs; otherwise the test is skipped."""
    if os.environ.get("KUBECONFIG"):
        return os.environ["KUBECONFIG"]
    found = subprocess.run([str(LAB), "running"], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(
            "there is no cluster: tests/lab/kubernetes.sh starts one (root, Docker, Debian 12), or set KUBECONFIG"
        )
    return found.stdout.strip()
