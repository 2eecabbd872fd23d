"""Two services of one application: their Services move together or not at all, forward and back."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from kubernetes_site import LABEL, NODE, Site
from rights import RIGHTS, as_user

from runbook_site import version_at

QUICK = {"accounting_requests_per_second": 0}
SERVICES = ("backend", "frontend")


@pytest.fixture(scope="module", autouse=True)
def shop(site: Site) -> None:
    """A frontend beside the backend, which it depends on; each has a Service with a port of its own."""
    inventory = yaml.safe_load(site.inventory.read_text(encoding="utf-8"))
    model = inventory["all"]["vars"]
    (backend,) = model["app_services"]
    port = site._free_node_port()
    frontend = {**backend, "name": "frontend", "depends_on": ["backend"], "url": f"http://{NODE}:{port}"}
    model["app_services"] = [frontend, backend]
    model["router_kubernetes_services"]["frontend"] = {"type": "NodePort", "node_port": port}
    site.inventory.write_text(yaml.safe_dump(inventory), encoding="utf-8")
    for version in ("1.0.0", "1.1.0"):
        site.release(version)


def served(site: Site) -> dict[str, tuple[str, set[str]]]:
    """By service the slot that its selector names, and the versions that answer there."""
    found = {}
    for name in SERVICES:
        port = site.json("get", "service", f"demo-{name}", namespaced=True)["spec"]["ports"][0]["nodePort"]
        answers = {version_at(f"http://{NODE}:{port}") for _time in range(8)}
        found[name] = (site.selector(f"demo-{name}")[f"{LABEL}slot"], answers)
    return found


def both(slot: str, version: str) -> dict[str, tuple[str, set[str]]]:
    return dict.fromkeys(SERVICES, (slot, {version}))


def images(site: Site, slot: str) -> set[str]:
    labelled = (one for one in site.objects("deployments") if one["metadata"]["labels"][f"{LABEL}slot"] == slot)
    return {one["spec"]["template"]["spec"]["containers"][0]["image"] for one in labelled}


@pytest.mark.requirement("TRF-02", "BG-08")
def test_all_services_of_a_release_move_together(site: Site) -> None:
    for slot, version in (("blue", "1.0.0"), ("green", "1.1.0")):
        done = site.deploy(version, **QUICK)
        assert done.code == 0, done.output
        assert served(site) == both(slot, version)
    created = {one["metadata"]["name"]: one["metadata"]["creationTimestamp"] for one in site.objects("deployments")}
    assert created["demo-backend-green"] <= created["demo-frontend-green"], "the backend is there before the frontend"


def test_one_that_can_not_move_keeps_the_other_where_it_was(site: Site) -> None:
    """Whoever deploys may change one of the two Services only."""
    rights: list[Any] = [
        (groups, [kind for kind in kinds if kind != "services"], verbs) for groups, kinds, verbs in RIGHTS
    ]
    weak = as_user(site, "half", [*rights, ([""], ["services"], "get list create")])
    site.kubectl(
        *("create", "role", "one-service", "--verb=update,patch", "--resource=services"),
        "--resource-name=demo-backend",
        namespaced=True,
    )
    site.kubectl("create", "rolebinding", "one-service", "--role=one-service", "--user=half", namespaced=True)
    site.release("1.2.0")
    bad = site.deploy("1.2.0", **QUICK, **weak)
    assert bad.code != 0, bad.output
    assert "demo-frontend" in bad.output and "cannot" in bad.output, bad.output
    assert served(site) == both("green", "1.1.0")
    assert site.live() == "1.1.0"


@pytest.mark.requirement("RB-05", "RB-07")
def test_rollback_takes_all_deployments_to_the_release_that_was_verified(site: Site) -> None:
    """Not to the revision before, which never was good, and not only one of them."""
    site.release("1.3.0", never_ready=True)
    bad = site.deploy("1.3.0", test_start_seconds=10, **QUICK)
    assert bad.code != 0 and bad.outcome == "failed", bad.output
    back = site.rollback(**QUICK)
    assert back.code == 0, back.output
    assert served(site) == both("blue", "1.0.0")
    (image,) = images(site, "blue")
    assert image.endswith(":1.0.0")
    assert "all agree" in site.status().output
