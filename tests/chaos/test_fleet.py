"""Target k of n fails, for every k: all n stay on, or go back to, the old release. Proven by asking each."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos import Users, agrees, await_event, intends, run_numbers, unfinished

import local
from runbook_site import Play, Site, tree

TARGETS = ("target1", "target2", "target3")
each_target = pytest.mark.parametrize("target", TARGETS)


@pytest.fixture(scope="module")
def live(site: Site) -> Site:
    assert tuple(site.lab.names) == TARGETS
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        site.release(version)
    for version in ("1.0.0", "1.1.0"):
        done = site.deploy(version)
        assert done.code == 0, done.output
    return site


def live_slot(site: Site) -> str:
    return str([r for r in site.history() if r["outcome"] in ("deployed", "restored")][-1]["to"]["slot"])


def idle_slot(site: Site) -> str:
    return "green" if live_slot(site) == "blue" else "blue"


def everything(site: Site) -> dict[str, tuple[int, int, bytes]]:
    return tree(site.lab.root / "targets", site.lab.root / "router", site.state)


def all_on(site: Site, version: str, users: Users) -> None:
    """Every target was asked; what the release that failed has left is stopped everywhere."""
    for target, versions in site.slots().items():
        assert versions[live_slot(site)] == version, f"{target}: {versions}"
        assert versions[idle_slot(site)] in ("", "1.0.0"), f"{target}: {versions}"
    assert site.answers() == {version}
    assert set(users.seen) == {version}, dict(users.seen)
    assert site.live() == version and unfinished(site) == []


def touches_nothing(site: Site, *options: str, verb: str = "deploy") -> Play:
    before = everything(site)
    with Users(site) as users:
        bad = site.run(verb, *options, app_version="1.2.0")
    assert bad.code != 0, bad.output
    assert everything(site) == before, bad.output
    all_on(site, "1.1.0", users)
    return bad


# -- one target can't take part: nobody moves -------------------------------------------------------------------


@contextlib.contextmanager
def moved_away(path: Path) -> Iterator[None]:
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


@pytest.mark.slow
@each_target
def test_supervisor_of_one_target_does_not_answer(live: Site, target: str) -> None:
    with moved_away(Path(live.lab.ports["supervisor_sockets"][target])):
        bad = touches_nothing(live)
    assert f"1 of 4 hosts can't take part, so none does; nothing has been touched. {target}: " in bad.output
    assert "supervisor" in bad.output


@pytest.mark.slow
@each_target
def test_one_target_is_unreachable(live: Site, target: str, tmp_path: Path) -> None:
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    inventory = tmp_path / "away.json"
    inventory.write_text(json.dumps({"all": {"hosts": {target: away}}}), encoding="utf-8")
    bad = touches_nothing(live, "-i", str(inventory))
    assert f"1 of 4 hosts can't take part, so none does; nothing has been touched. {target}: is unreach" in bad.output


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["target1", "targets"])
def test_limit_is_refused(live: Site, limit: str) -> None:
    bad = touches_nothing(live, "--limit", limit)
    assert f"--limit {limit}: leaves out hosts that have to take part" in bad.output
    assert "Nothing has been touched" in bad.output


@pytest.mark.slow
def test_journal_that_cannot_be_written(live: Site) -> None:
    """Even root can't open a directory for writing."""
    (live.state / "journal.lock").unlink()
    (live.state / "journal.lock").mkdir()
    try:
        bad = touches_nothing(live)
    finally:
        (live.state / "journal.lock").rmdir()
    assert "Traceback" not in bad.output
    assert f"the journal in {live.state} cannot be written" in bad.output


@pytest.mark.slow
def test_journal_that_cannot_be_read(live: Site) -> None:
    lease = live.state / "lease.json"
    whole = lease.read_bytes()
    lease.write_bytes(whole[: len(whole) // 2])
    try:
        bad = touches_nothing(live)
    finally:
        lease.write_bytes(whole)
    assert "Traceback" not in bad.output
    assert f"the journal in {live.state} cannot be read" in bad.output


# -- one target fails on the way: all go back -------------------------------------------------------------------


def fails(site: Site, version: str, **variables: object) -> Play:
    with Users(site) as users:
        bad = site.deploy(version, **variables)
    assert bad.code != 0, bad.output
    all_on(site, "1.1.0", users)
    return bad


@pytest.mark.slow
@pytest.mark.requirement("DEP-11")
@each_target
def test_staging_fails_on_one_target(live: Site, target: str) -> None:
    predicted = live.deploy("1.2.0", "--check")
    found = re.search(r"release (1\.2\.0-\w+) in", predicted.output)
    assert found, predicted.output
    obstacle = live.lab.home(target) / "releases" / found.group(1)
    obstacle.parent.mkdir(exist_ok=True)
    for name in TARGETS:  # an earlier case has made it there
        made = live.lab.home(name) / "releases" / found.group(1)
        if made.exists():
            made.rename(live.directory / f"{name}-{target}-removed")
    obstacle.write_text("not a release\n", encoding="utf-8")
    try:
        bad = fails(live, "1.2.0")
    finally:
        obstacle.unlink()
    assert bad.outcome == "failed"
    assert bad.report and bad.report["failure"].startswith(f"{target}: ")
    assert str(obstacle) in bad.report["failure"]


@pytest.mark.slow
@pytest.mark.requirement("DEP-11", "BG-03")
@each_target
def test_start_fails_on_one_target(live: Site, target: str) -> None:
    port = live.lab.ports["targets"][target][idle_slot(live)]
    stop = local.supervisor(Path(live.lab.ports["supervisor_sockets"][target]))
    with contextlib.suppress(Exception):  # the release before stands there only in the first case
        stop.stopProcess(f"demo-backend-{idle_slot(live)}")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with Users(live) as users:
            bad = live.deploy("1.2.0")
    assert bad.code != 0, bad.output
    all_on(live, "1.1.0", users)
    assert bad.outcome == "failed"
    assert bad.report and f"{target}: port {port} of backend is already in use by" in bad.report["failure"]


@pytest.mark.slow
@pytest.mark.requirement("DEP-11", "BG-04")
def test_router_refuses_its_configuration(live: Site) -> None:
    conf = live.lab.root / "router" / "nginx.conf"
    good = conf.read_text(encoding="utf-8")
    conf.write_text(good.replace("http {", "http {\n    no_such_directive on;", 1), encoding="utf-8")
    try:
        bad = fails(live, "1.2.0")
    finally:
        conf.write_text(good, encoding="utf-8")
    assert "no_such_directive" in bad.output
    assert all(not versions[idle_slot(live)] for versions in live.slots().values())


@pytest.mark.slow
def test_state_host_is_lost_during_the_watch(live: Site) -> None:
    last = run_numbers(live)[-1]
    process = live.start("deploy", app_version="1.2.0", watch_seconds=4)
    with Users(live) as users:
        try:
            await_event(live, last, intends("watch"))
            with moved_away(live.state):
                said = process.communicate(timeout=90)[0]
                assert not live.state.exists(), "a journal was begun anew"
        finally:
            process.kill()
        assert process.returncode != 0, said
        assert f"the journal in {live.state}" in said and "Traceback" not in said
        assert live.answers() == {"1.2.0"}
        assert unfinished(live) == [last + 1]
        again = live.deploy("1.2.0")
    assert again.code == 0, again.output
    assert set(users.seen) == {"1.1.0", "1.2.0"}, dict(users.seen)
    agrees(live, "1.2.0", "after the journal came back")


def test_nobody_is_left_behind(live: Site) -> None:
    """After all of this, one run moves everybody."""
    live.release("1.3.0")
    done = live.deploy("1.3.0")
    assert done.code == 0, done.output
    agrees(live, "1.3.0", "at the end")
