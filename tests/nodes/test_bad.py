"""Releases that are bad on real hosts, and hosts on which nothing may be touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from node_site import HOME, NodeSite

UNITS = "/etc/systemd/system"


@pytest.fixture(scope="module")
def live(site: NodeSite) -> NodeSite:
    """1.0.0 is live in blue, and green is empty. The disk of target2 is a small one."""
    site.lab.sh("target2", f"mkdir -p {HOME} && mount -t tmpfs -o size=4m,mode=755 tmpfs {HOME}")
    site.release("1.0.0")
    first = site.deploy("1.0.0")
    assert first.code == 0, first.output
    return site


def still_live(site: NodeSite) -> None:
    """1.0.0 serves as before, and of the bad release no unit is left that a boot could start."""
    assert site.answers() == {"1.0.0"}
    assert site.live() == "1.0.0"
    for target in site.lab.names:
        assert site.unit(target, "green", "LoadState", "ActiveState") == ["not-found", "inactive"]
        assert site.enabled(target) == ["demo-backend-blue.service"]
        assert site.unit(target, "blue", "NRestarts") == ["0"]


@pytest.mark.requirement("REL-06")
def test_a_service_that_crashes_again_and_again_takes_no_traffic(live: NodeSite) -> None:
    """Its probes pass each time; only that it was restarted tells."""
    live.release("1.1.0", crash_after_seconds=1)
    bad = live.deploy("1.1.0")
    assert bad.code != 0 and bad.outcome == "failed", bad.output
    assert "exit-code, exit status 70" in bad.output or "ended and was restarted" in bad.output
    assert "fault: crash after 1 s" in bad.output, "its last words"
    still_live(live)


def test_a_service_that_crashes_once_it_has_traffic_is_taken_back(live: NodeSite) -> None:
    live.release("1.5.0", crash_after_seconds=8)
    bad = live.deploy(
        "1.5.0",
        watch_seconds=30,
        watch_interval_seconds=0.5,
        watch_window_seconds=3,
        accounting_requests_per_second=50,
    )
    assert bad.code != 0, bad.output
    assert bad.outcome in ("rolled_back", "failed"), bad.output  # failed: the start took longer than the 8 s
    still_live(live)


@contextmanager
def made(site: NodeSite, target: str, make: str, undo: str) -> Iterator[None]:
    site.lab.sh(target, make)
    try:
        yield
    finally:
        site.lab.sh(target, undo)


REFUSED = [
    (
        "masked",
        "systemctl mask --quiet demo-backend-green.service",
        "systemctl unmask --quiet demo-backend-green.service",
        "demo-backend-green.service is masked, so it cannot start",
    ),
    (
        "vendor's unit",
        "printf '[Service]\\nExecStart=/bin/true\\n' > /lib/systemd/system/demo-backend-green.service; "
        "systemctl daemon-reload",
        "rm /lib/systemd/system/demo-backend-green.service; systemctl daemon-reload",
        "is another unit, /lib/systemd/system/demo-backend-green.service",
    ),
    (
        "administrator's unit",
        f"printf '[Service]\\nExecStart=/bin/true\\n' > {UNITS}/demo-backend-green.service; systemctl daemon-reload",
        f"rm {UNITS}/demo-backend-green.service; systemctl daemon-reload",
        f"{UNITS}/demo-backend-green.service was not written for {HOME}",
    ),
    (
        "real directory at current",
        f"mv {HOME}/current {HOME}/kept && mkdir {HOME}/current",
        f"rmdir {HOME}/current && mv {HOME}/kept {HOME}/current",
        f"{HOME}/current is no symbolic link, so it is not replaced",
    ),
    (
        "no systemctl",
        "mv /usr/bin/systemctl /usr/bin/systemctl.away",
        "mv /usr/bin/systemctl.away /usr/bin/systemctl",
        "there is no systemctl on this host",
    ),
]


@pytest.mark.parametrize(("make", "undo", "said"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_host_that_can_not_take_part_is_refused_before_anything(
    live: NodeSite, make: str, undo: str, said: str
) -> None:
    live.release("2.0.0")
    target = live.lab.names[1]
    with made(live, target, make, undo):
        before = live.everything()
        refused = live.deploy("2.0.0")
        assert refused.code != 0
        assert said in refused.output.replace("\n", " "), refused.output
        assert "nothing has been touched" in refused.output
        assert live.everything() == before
    still_live(live)


def test_without_root_nothing_is_touched(live: NodeSite) -> None:
    before = live.everything()
    refused = live.deploy("2.0.0", ansible_become=False)
    assert refused.code != 0
    assert "ansible_become" in refused.output, refused.output
    assert live.everything() == before


def test_a_user_that_does_not_exist_stops_the_run_before_traffic(live: NodeSite) -> None:
    refused = live.deploy("2.0.0", runtime_host_user="nobody-like-this")
    assert refused.outcome == "failed", refused.output
    assert "there is no user nobody-like-this on this host" in refused.output
    still_live(live)


@pytest.mark.requirement("DEP-11")
def test_a_disk_that_is_full_leaves_nothing_half_made(live: NodeSite) -> None:
    def releases() -> list[list[str]]:
        return [live.lab.sh(target, f"ls -A {HOME}/releases").split() for target in live.lab.names]

    live.release("2.1.0")
    before = releases()
    with made(live, "target2", f"head -c 8M /dev/zero > {HOME}/filled || true", f"rm {HOME}/filled"):
        bad = live.deploy("2.1.0")
        assert bad.outcome == "failed", bad.output
        assert bad.report and bad.report["failure"].startswith("target2: "), bad.report
        assert "No space left on device" in bad.report["failure"]
        assert "Traceback" not in bad.output
        still_live(live)
        assert releases()[1] == before[1]
    done = live.deploy("2.1.0")
    assert done.code == 0, done.output
    assert live.answers() == {"2.1.0"}
