"""Services with versions of their own: one of them is deployed and rolled back, the other stays what it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import yaml

from runbook_site import Play, Site, make_site, version_at


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """backend and frontend on two targets, each with a variable for its version; frontend depends on backend."""
    for made in make_site(tmp_path_factory.mktemp("services"), 2):
        path = made.inventory / "group_vars" / "all.yml"
        model = yaml.safe_load(path.read_text(encoding="utf-8"))
        backend = model["app_services"][0]
        services = []
        for name, above in (("frontend", 1), ("backend", 0)):
            version = f"{{{{ {name}_version }}}}"
            archive = f"{{{{ local_root }}}}/artifacts/demo-{version}.tar.gz"
            digest = f"{{{{ lookup('file', {name}_archive ~ '.sha256') | split | first }}}}"
            model[f"{name}_archive"] = archive
            ports = {slot: f"{{{{ local_ports.{slot} | int + {above} }}}}" for slot in ("blue", "green")}
            one = {**backend, "name": name, "ports": ports, "port": ports["blue"], "routed": name == "backend"}
            one["artifact"] = {"archive": f"{{{{ {name}_archive }}}}", "sha256": digest}
            one["version"] = {"path": "/version", "key": "version", "value": version}
            one["depends_on"] = ["backend"] if name == "frontend" else []
            services.append(one)
        model.update(app_services=services, backend_version="1.0.0", frontend_version="1.0.0")
        path.write_text(yaml.safe_dump(model, width=1000), encoding="utf-8")
        for version in ("1.0.0", "1.1.0"):
            made.release(version)
        yield made


def done(play: Play) -> None:
    assert play.code == 0, play.output


def versions(site: Site) -> set[tuple[str, str]]:
    """(backend, frontend) of the live slot on every target."""
    slot = [r for r in site.history() if r["outcome"] in ("deployed", "restored")][-1]["to"]["slot"]
    found = set()
    for target in site.lab.names:
        port = site.lab.ports["targets"][target][slot]
        found.add((version_at(f"http://127.0.0.1:{port}"), version_at(f"http://127.0.0.1:{port + 1}")))
    return found


def orders(site: Site, slot: str, starts: int, stops: int) -> None:
    """As the supervisor of each target has written it down."""
    for target in site.lab.names:
        log = (site.lab.root / "log" / f"{target}.log").read_text(encoding="utf-8", errors="replace")
        assert re.findall(rf"spawned: 'demo-(\w+)-{slot}'", log) == ["backend", "frontend"] * starts, log
        assert re.findall(rf"stopped: demo-(\w+)-{slot}", log) == ["frontend", "backend"] * stops, log


@pytest.mark.requirement("APP-14")
def test_they_start_in_the_order_of_their_dependencies_and_stop_in_reverse(site: Site) -> None:
    done(site.deploy("monday"))
    assert versions(site) == {("1.0.0", "1.0.0")}
    done(site.deploy("tuesday", frontend_version="1.1.0"))
    done(site.run("cleanup"))
    orders(site, "blue", 1, 1)
    orders(site, "green", 1, 0)
    done(site.deploy("thursday", frontend_version="1.0.0", app_strategy="rolling"))
    assert versions(site) == {("1.0.0", "1.0.0")}
    orders(site, "green", 1, 1)
    orders(site, "blue", 2, 1)
    done(site.rollback(app_strategy="rolling"))


def test_one_is_deployed_and_the_other_stays_what_it_was(site: Site) -> None:
    assert versions(site) == {("1.0.0", "1.1.0")}
    done(site.deploy("wednesday", frontend_version="1.1.0", backend_version="1.1.0"))
    assert versions(site) == {("1.1.0", "1.1.0")}
    again = site.deploy("wednesday", frontend_version="1.1.0", backend_version="1.1.0")
    assert again.code == 0 and "nothing to do" in again.output


def test_a_rollback_takes_back_what_that_release_changed(site: Site) -> None:
    done(site.rollback())
    assert versions(site) == {("1.0.0", "1.1.0")}
    assert site.live() == "tuesday"
    done(site.rollback(rollback_to="monday"))
    assert versions(site) == {("1.0.0", "1.0.0")}
    assert json.loads((site.state / "history.jsonl").read_text().splitlines()[-1])["to"]["answers"] == {
        "backend": "1.0.0",
        "frontend": "1.0.0",
    }
