"""One site for each row of the table, fresh for each module."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from backends import BACKENDS, Backend, Place


@pytest.fixture(scope="module", params=BACKENDS, ids=[one.name for one in BACKENDS])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    backend: Backend = request.param
    with backend.make(tmp_path_factory.mktemp(backend.name)) as site:
        site.variables["accounting_keep_alive"] = backend.keep_alive[0]
        yield Place(site, backend)
