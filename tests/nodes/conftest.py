"""The site of nodes for the tests of this directory; skipped where there is no Docker Engine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for place in ("lab", "apps", "chaos"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / place))

import nodes
from node_site import NodeSite


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeSite]:
    """Two targets behind one router; fresh for each test module."""
    problem = nodes.why_not()
    if problem:
        pytest.skip(problem)
    directory = tmp_path_factory.mktemp("nodes")
    with nodes.Nodes(directory / "lab", targets=2) as lab:
        yield NodeSite(lab, directory)
