"""What the lab of nodes leaves behind, and what it does not take from others."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

import nodes

DEAD, LIVING, OTHER = (f"runbook-lab-test-{os.getpid()}-{name}" for name in ("dead", "living", "other"))


@pytest.fixture
def networks() -> Iterator[None]:
    """One of a lab whose process is gone, one of a lab that runs, one of somebody else."""
    problem = nodes.why_not()
    if problem:
        pytest.skip(problem)
    gone = subprocess.Popen(["true"])
    owner = f"{gone.pid}/{nodes.started(gone.pid) or 1}"
    gone.wait()
    here = f"{os.getpid()}/{nodes.started(os.getpid())}"
    try:
        for name, labels in ((DEAD, ("node", owner)), (LIVING, ("node", here)), (OTHER, None)):
            marks = [f"--label={nodes.LABEL}={labels[0]}", f"--label={nodes.LABEL}.owner={labels[1]}"] if labels else []
            nodes.docker("network", "create", *marks, name)
        yield
    finally:
        nodes.docker("network", "rm", DEAD, LIVING, OTHER, check=False)


def test_only_what_a_killed_lab_left_is_removed(networks: None) -> None:
    assert nodes.remove_leftovers() is True
    there = nodes.docker("network", "ls", "--format", "{{.Name}}").split()
    assert DEAD not in there
    assert {LIVING, OTHER} <= set(there)


def test_without_an_engine_the_reason_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    assert nodes.why_not().startswith("no nodes: no Docker Engine answers (")
    monkeypatch.setenv("PATH", "")
    assert nodes.why_not() == "no nodes: docker is not installed"
