"""A worker that may run in one slot only, beside a service with traffic: real processes, asked all the time."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml
from backends import BACKENDS, BAD_LATER, WATCH, KubernetesSite, Place, slots
from compose_site import ComposeSite
from docker_site import DockerSite

from node_site import NodeSite
from runbook_site import version_at

ABOVE = 1  # the worker's ports, above those of the service


@pytest.fixture(scope="module")
def working(place: Place) -> Place:
    """The site with a second service: the same program, exclusive and without traffic."""
    site = place.site
    if place.backend.in_place:
        pytest.skip("one release at a time anyway")
    if place.backend.name.startswith("mixed"):
        pytest.skip("each runtime has a row of its own")
    if any(place.backend.name.replace("haproxy", "nginx") == one.name for one in BACKENDS if one != place.backend):
        pytest.skip("the runtime moves it, whatever the router: shown behind nginx")
    path = site.inventory / "group_vars" / "all.yml" if site.inventory.is_dir() else site.inventory
    model = yaml.safe_load(path.read_text(encoding="utf-8"))
    services = model.get("app_services") or model["all"]["vars"]["app_services"]
    worker = {**copy.deepcopy(services[0]), "name": "worker", "exclusive": True, "routed": False}
    if "ports" in worker:
        for slot, port in worker["ports"].items():
            worker["ports"][slot] = f"{{{{ {port.strip('{} ')} | int + {ABOVE} }}}}"
        worker["port"] = worker["ports"]["blue"]
    elif isinstance(site, NodeSite):
        worker["port"] += ABOVE
    services.append(worker)
    path.write_text(yaml.safe_dump(model, width=1000), encoding="utf-8")
    if isinstance(site, (ComposeSite, DockerSite)):
        for file in site.files.iterdir():
            text = yaml.safe_load(file.read_text(encoding="utf-8"))
            text["services"]["worker"] = copy.deepcopy(text["services"]["backend"])
            file.write_text(yaml.safe_dump(text), encoding="utf-8")
    return place


def targets(place: Place) -> list[str]:
    return list(slots(place.site))


def workers(place: Place, target: str) -> dict[str, str]:
    """Version of the worker by slot, of those that run."""
    site = place.site
    if isinstance(site, KubernetesSite):
        return site.workers("worker")
    if isinstance(site, NodeSite):
        host, ports = site.lab.addresses[target], {"blue": 8001, "green": 18001}
    else:
        host, ports = "127.0.0.1", site.lab.ports["targets"][target]
    found = {slot: version_at(f"http://{host}:{port + ABOVE}") for slot, port in ports.items()}
    return {slot: version for slot, version in found.items() if version}


class Looks(threading.Thread):
    """Who works, asked all the time."""

    def __init__(self, place: Place) -> None:
        super().__init__(daemon=True)
        self.place = place
        self.both: list[Any] = []
        self.count = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.05):
            for target in targets(self.place):
                found = workers(self.place, target)
                self.count += 1
                if len(found) > 1:
                    self.both.append((target, found))


@contextmanager
def never_both(place: Place) -> Iterator[None]:
    looks = Looks(place)
    looks.start()
    try:
        yield
    finally:
        looks.ended.set()
        looks.join(timeout=30)
    assert looks.count > 10
    assert looks.both == []


def all_work(place: Place, version: str) -> None:
    for target in targets(place):
        assert list(workers(place, target).values()) == [version], target
    assert place.site.answers() == {version}
    assert "all agree" in place.site.status().output


@pytest.mark.requirement("BG-13")
def test_the_worker_moves_with_the_traffic_and_back(working: Place) -> None:
    site = working.site
    for version in ("1.0.0", "1.1.0"):
        site.release(version)
        with never_both(working):
            done = site.deploy(version, **WATCH)
        assert done.code == 0, done.output
        all_work(working, version)
    assert "worker stopped in blue" in done.output and "worker healthy in green" in done.output
    again = site.deploy("1.1.0", "-v")
    assert again.code == 0 and "nothing to do" in again.output and "changed:" not in again.output
    with never_both(working):
        back = site.rollback()
    assert back.code == 0, back.output
    all_work(working, "1.0.0")


@pytest.mark.requirement("BG-13", "BG-12")
def test_a_release_that_is_taken_back_gives_the_worker_back(working: Place) -> None:
    site = working.site
    site.release("1.3.0", errors_percent=60, after_seconds=1)
    with never_both(working):
        bad = site.deploy("1.3.0", **BAD_LATER)
    assert bad.outcome == "rolled_back", bad.output
    all_work(working, "1.0.0")
