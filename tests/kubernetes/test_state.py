"""The journal and the lease in the namespace itself: nothing is kept on any host."""

from __future__ import annotations

import json
import os
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from chaos import Users, events, kill_all, kill_at, kill_main, moments, one_version, run_numbers, unfinished, wait_for
from kubernetes_site import LABEL, Site
from rights import LEASES, RIGHTS, as_user

STORE = "kubernetes"
QUICK = {"accounting_requests_per_second": 0}
KEEP = {**QUICK, "app_keep_releases": 50}  # so that every deploy has the same steps
DAY = 86_400
NUMBERS = count()


@pytest.fixture(scope="module", autouse=True)
def first(site: Site) -> None:
    for version in ("1.0.0", "1.1.0"):
        site.release(version)


@pytest.fixture
def later(site: Site, tmp_path: Path) -> Any:
    """The clock of the controller is a day ahead."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import time\nreal = time.time\ntime.time = lambda: real() + {DAY}\n", encoding="utf-8"
    )
    site.settings["PYTHONPATH"] = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    yield
    del site.settings["PYTHONPATH"]


def lease(site: Site) -> Any:
    return json.loads(site.lease())


def patch(site: Site, change: dict[str, Any]) -> None:
    site.kubectl("patch", "lease", "demo-runbook", "--type=merge", "--patch", json.dumps(change), namespaced=True)


@pytest.mark.smoke
def test_deploy_upgrade_rollback_and_status(site: Site) -> None:
    for version in ("1.0.0", "1.1.0"):
        done = site.deploy(version, **QUICK)
        assert done.code == 0, done.output
    back = site.rollback(**QUICK)
    assert back.code == 0, back.output
    assert site.answers() == {"1.0.0"} and site.live() == "1.0.0"
    status = site.status()
    assert "all agree" in status.output and "lease: free" in status.output, status.output
    assert [record["outcome"] for record in site.history()] == ["deployed", "deployed", "restored"]
    assert run_numbers(site) == [1, 2, 3] and unfinished(site) == []
    assert not site.state.exists()
    assert lease(site)["spec"]["leaseTransitions"] == 2


@pytest.mark.parametrize("verb", ["recover", "cleanup"])
def test_verbs_that_tidy_up(site: Site, verb: str) -> None:
    done = site.run(verb, **QUICK)
    assert done.code == 0, done.output
    assert site.answers() == {"1.0.0"} and unfinished(site) == []


def test_second_run_names_the_first_which_kubectl_shows_too(site: Site) -> None:
    process = site.start("deploy", app_version="1.1.0", app_reason="the first of two", watch_seconds=10)
    try:
        wait_for("the lease", lambda: "the first of two" in site.lease(), every=0.05)
        run = run_numbers(site)[-1]
        assert f", run {run} " in site.kubectl("get", "lease", "demo-runbook", namespaced=True)
        second = site.deploy("1.0.0", **QUICK)
        assert second.code != 0
        assert f"run {run} of " in second.output and "the first of two" in second.output, second.output
    finally:
        output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert site.answers() == {"1.1.0"}


def test_of_two_started_at_once_one_deploys(site: Site) -> None:
    before = len(site.history())
    both = [site.start("deploy", app_version="1.0.0", **QUICK) for _one in range(2)]
    said = [process.communicate(timeout=180)[0] for process in both]
    assert sorted(process.returncode == 0 for process in both) == [False, True], "\n".join(said)
    lost = said[0] if both[0].returncode else said[1]
    assert "holds the lease since" in lost or "came between the plan and its start" in lost, lost
    assert len(site.history()) == before + 1
    assert site.answers() == {"1.0.0"}


def fresh(site: Site) -> str:
    version = f"2.{next(NUMBERS)}.0"
    site.release(version)
    return version


@pytest.fixture(scope="module")
def undisturbed(site: Site) -> list[dict[str, Any]]:
    """The journal of a deploy that nobody killed."""
    done = site.deploy(fresh(site), **KEEP)
    assert done.code == 0, done.output
    return events(site, run_numbers(site)[-1])


@pytest.mark.parametrize("kill", [kill_main, kill_all])
@pytest.mark.parametrize("word", ["open", "shift", "committed", "end"])
def test_killed_at_a_write_of_its_journal_the_next_run_converges(
    site: Site, undisturbed: list[dict[str, Any]], word: str, kill: Any
) -> None:
    old, new = str(site.live()), fresh(site)
    points = moments(undisturbed)
    if word == "open":
        point = points[0]
    elif word == "committed":
        line = next(number for number, event in enumerate(undisturbed, 1) if event["event"] == word)
        point = next(one for one in points if one.lines >= line)
    else:
        point = next(one for one in points if word in (one.event, one.phase))
    with Users(site) as users:
        killed = kill_at(site, point, kill, "deploy", app_version=new, **KEEP)
        try:
            one_version(site, old, new)
            done = site.deploy(new, app_lease_wait_seconds=150, **KEEP)
            assert done.code == 0, done.output
        finally:
            killed.communicate(timeout=60)
    assert set(users.seen) <= {old, new}, users.seen
    assert site.answers() == {new} and site.live() == new and unfinished(site) == []
    numbers = [record["run"] for record in site.history()]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))


def test_clock_of_the_controller_does_not_count(site: Site, later: None) -> None:
    """A run that just began elsewhere does not look as if its lease had ended yesterday, and no time is of tomorrow."""
    began = time.time()
    done = site.deploy(fresh(site), **QUICK)
    assert done.code == 0, done.output
    times = [event["at"] for event in events(site, run_numbers(site)[-1])] + [site.history()[-1]["ended"]]
    assert all(began - 2 <= at <= time.time() + 2 for at in times), times
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    held = {"holderIdentity": "zoe@far-away", "acquireTime": now, "renewTime": now, "leaseDurationSeconds": 60}
    told = {f"{LABEL}holder": json.dumps({"user": "zoe", "host": "far-away"})}
    patch(site, {"spec": held, "metadata": {"annotations": told}})
    refused = site.deploy("1.0.0", **QUICK)
    assert refused.code != 0 and "of zoe@far-away holds the lease since" in refused.output, refused.output
    patch(site, {"spec": {"holderIdentity": None}})


def test_rights_that_are_documented_are_enough(site: Site) -> None:
    new = fresh(site)
    done = site.deploy(new, **QUICK, **as_user(site, "deployer", [*RIGHTS, LEASES]))
    assert done.code == 0, done.output
    assert site.answers() == {new}


def test_who_may_not_is_told_the_verb_and_the_kind_and_nothing_is_touched(site: Site) -> None:
    before = site.everything()
    refused = site.deploy("1.0.0", **QUICK, **as_user(site, "without-leases", RIGHTS))
    assert refused.code != 0
    assert 'cannot get resource "leases"' in refused.output and "othing has been touched" in refused.output
    assert site.everything() == before


def test_lease_that_was_deleted_does_not_begin_its_numbers_again(site: Site) -> None:
    site.kubectl("delete", "lease", "demo-runbook", namespaced=True)
    new = fresh(site)
    done = site.deploy(new, **QUICK)
    assert done.code == 0, done.output
    assert site.answers() == {new} and "all agree" in site.status().output
