"""Sites for the tests of this directory."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))

import local
from runbook_site import CHECKOUT, Site

CONNECTIONS = CHECKOUT / "tests" / "lab" / "connection"


def make_site(directory: Path, targets: int, router: str = "nginx") -> Iterator[Site]:
    with local.Lab(directory / "lab", targets=targets, router=router) as lab:
        yield Site(lab, directory)


def as_elsewhere(site: Site, **hosts: dict[str, str]) -> None:
    """Every host of the site is another machine to Ansible from now on; ``hosts`` have more variables."""
    path = site.inventory / "hosts.yml"
    inventory = json.loads(path.read_text(encoding="utf-8"))
    inventory["all"]["vars"]["ansible_connection"] = "elsewhere"
    for group in inventory["all"]["children"].values():
        for host in group["hosts"]:
            group["hosts"][host] = hosts.get(host, {})
    path.write_text(json.dumps(inventory), encoding="utf-8")
    site.settings = {"ANSIBLE_CONNECTION_PLUGINS": str(CONNECTIONS)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three targets behind one router; fresh for each test module."""
    yield from make_site(tmp_path_factory.mktemp("site"), 3)


@pytest.fixture(scope="module")
def small_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One target behind one router."""
    yield from make_site(tmp_path_factory.mktemp("small"), 1)
