"""How often a deployment reaches for a target: counted where it happens, at the target's Python."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import make_site

from runbook_site import Site

MOST = 6


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two targets, whose Python writes a line for each time that it is started by Ansible."""
    for made in make_site(tmp_path_factory.mktemp("counted"), 2):
        hosts = made.inventory / "hosts.yml"
        inventory = json.loads(hosts.read_text(encoding="utf-8"))
        for group in inventory["all"]["children"].values():
            for host in group["hosts"]:
                python = made.directory / f"python-{host}"
                log = made.directory / f"started-{host}"
                script = f'#!/bin/sh\necho "$*" >> {log}\nexec {sys.executable} "$@"\n'
                python.write_text(script, encoding="utf-8")
                python.chmod(0o755)
                group["hosts"][host] = {"ansible_python_interpreter": str(python)}
        hosts.write_text(json.dumps(inventory), encoding="utf-8")
        yield made


def counted(site: Site) -> dict[str, int]:
    """How often each host's Python was started since the last time."""
    found = {}
    for log in sorted(site.directory.glob("started-*")):
        found[log.name.partition("-")[2]] = len(log.read_text(encoding="utf-8").splitlines())
        log.unlink()
    return found


def releases(site: Site, target: str) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in Path(site.lab.home(target), "releases").iterdir())


def test_a_deploy_needs_at_most_six_modules_on_a_target(site: Site) -> None:
    """The longest way: the release is made, started, takes the traffic, and an old one is removed."""
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        site.release(version)
        counted(site)
        play = site.deploy(version, app_keep_releases=1)
        assert play.code == 0, play.output
        count = counted(site)
        assert set(count) == {"target1", "target2", "router1"}  # the state host is this machine: asked in place
        assert count["target1"] == count["target2"]
        assert 3 <= count["target1"] <= MOST, count
    assert play.report and "commit" in [phase["name"] for phase in play.report["phases"]]
    assert releases(site, "target1") == releases(site, "target2") == ["1.1.0", "1.2.0"]


def test_a_rollback_needs_at_most_six_modules_on_a_target(site: Site) -> None:
    counted(site)
    play = site.rollback()
    assert play.code == 0, play.output
    assert 1 <= counted(site)["target1"] <= MOST
