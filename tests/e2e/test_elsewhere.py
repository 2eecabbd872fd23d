"""The same life on hosts that are another machine to Ansible: the journal is a module there, archives are uploaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import make_site

from runbook_site import CHECKOUT, Site

CONNECTIONS = CHECKOUT / "tests" / "lab" / "connection"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for made in make_site(tmp_path_factory.mktemp("elsewhere"), 2):
        hosts = made.inventory / "hosts.yml"
        inventory = json.loads(hosts.read_text(encoding="utf-8"))
        inventory["all"]["vars"]["ansible_connection"] = "elsewhere"
        hosts.write_text(json.dumps(inventory), encoding="utf-8")
        made.settings = {"ANSIBLE_CONNECTION_PLUGINS": str(CONNECTIONS)}
        yield made


def last_run(site: Site) -> list[str]:
    path = max((site.state / "runs").iterdir(), key=lambda one: int(one.stem))
    return [json.loads(line)["event"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_deploy_upgrade_bad_release_and_rollback(site: Site) -> None:
    site.release("1.0.0")
    site.release("1.1.0")
    site.release("1.2.0", never_ready=True)
    for version in ("1.0.0", "1.1.0"):
        play = site.deploy(version, watch_seconds=2, watch_interval_seconds=0.5)
        assert play.code == 0, play.output
        assert site.answers() == {version}
        assert last_run(site)[0] == "open" and last_run(site)[-1] == "end"
    again = site.deploy("1.1.0")
    assert again.code == 0 and "nothing to do" in again.output
    bad = site.deploy("1.2.0")
    assert bad.code != 0 and bad.outcome == "failed"
    assert site.answers() == {"1.1.0"}
    back = site.rollback()
    assert back.code == 0, back.output
    assert site.answers() == {"1.0.0"}
    assert [record["outcome"] for record in site.history()] == ["deployed", "deployed", "failed", "restored"]


def test_a_held_lease_is_refused_in_the_same_words(site: Site) -> None:
    lease = site.state / "lease.json"
    held = json.loads(lease.read_text(encoding="utf-8"))
    far = {**held, "released": False, "expires": held["expires"] + 10_000_000, "holder": {"user": "bo", "host": "b1"}}
    before = lease.read_bytes()
    try:
        lease.write_text(json.dumps(far), encoding="utf-8")
        play = site.deploy("1.1.0")
        assert play.code != 0
        assert f"run {held['run']} of bo@b1 holds the lease since " in play.output
        assert site.answers() == {"1.0.0"}
    finally:
        lease.write_bytes(before)
    # A journal that can't be read is named too, and nothing is begun.
    history = Path(site.state) / "history.jsonl"
    kept = history.read_bytes()
    try:
        history.write_text("not ours\n", encoding="utf-8")
        play = site.deploy("1.1.0")
        assert play.code != 0 and f"the journal in {site.state} cannot be read" in play.output
    finally:
        history.write_bytes(kept)
