"""How often a deployment reaches for a target: counted where it happens, at the target's Python."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook_site import Site, as_elsewhere, make_site

MOST = 6


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two targets, whose Python writes a line for each time that it is started by Ansible."""
    for made in make_site(tmp_path_factory.mktemp("counted"), 2):
        counting = {}
        for host in (*made.lab.names, "router1", "state1"):
            python = made.directory / f"python-{host}"
            log = made.directory / f"started-{host}"
            python.write_text(f'#!/bin/sh\necho "$*" >> {log}\nexec {sys.executable} "$@"\n', encoding="utf-8")
            python.chmod(0o755)
            counting[host] = {"ansible_python_interpreter": str(python)}
        as_elsewhere(made, **counting)
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
        assert set(count) == {"target1", "target2", "router1", "state1"}
        assert count["target1"] == count["target2"]
        assert 3 <= count["target1"] <= MOST, count
    assert play.report and "commit" in [phase["name"] for phase in play.report["phases"]]
    assert releases(site, "target1") == releases(site, "target2") == ["1.1.0", "1.2.0"]


def test_a_rollback_needs_at_most_six_modules_on_a_target(site: Site) -> None:
    counted(site)
    play = site.rollback()
    assert play.code == 0, play.output
    assert 1 <= counted(site)["target1"] <= MOST


def test_on_this_machine_no_python_is_started_but_for_making_the_release(site: Site) -> None:
    hosts = site.inventory / "hosts.yml"
    hosts.write_text(hosts.read_text(encoding="utf-8").replace('"elsewhere"', '"local"'), encoding="utf-8")
    site.release("1.3.0")
    counted(site)
    assert site.deploy("1.3.0").code == 0
    assert counted(site) == {"target1": 1, "target2": 1}
    assert site.rollback().code == 0
    assert counted(site) == {}
