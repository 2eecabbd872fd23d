"""Hosts whose clocks are wrong. The lease is judged by the state host's clock alone, and nothing by two clocks."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

import pytest

from runbook_site import Site, as_elsewhere, make_site

HOUR = 3600
SKEW = {"target1": HOUR, "target2": -26 * HOUR, "router1": 40 * 24 * HOUR, "state1": -3 * HOUR}
# What a module asks the time by. The clock of a machine can't be wrong for some of its processes only.
WRONG = """\
import time
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + {skew}
time.time_ns = lambda: _time_ns() + {skew} * 10**9
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for made in make_site(tmp_path_factory.mktemp("clocks"), 2):
        pythons = {}
        for host, skew in SKEW.items():
            place = made.directory / "python" / host
            place.mkdir(parents=True)
            (place / "sitecustomize.py").write_text(WRONG.format(skew=skew), encoding="utf-8")
            script = f'#!/bin/sh\nPYTHONPATH="{place}:$PYTHONPATH" exec "{sys.executable}" "$@"\n'
            (place / "python3").write_text(script, encoding="utf-8")
            (place / "python3").chmod(0o755)
            pythons[host] = {"ansible_python_interpreter": str(place / "python3")}
        as_elsewhere(made, **pythons)
        yield made


def test_a_life_on_hosts_whose_clocks_differ_by_weeks(site: Site) -> None:
    for version in ("1.0.0", "1.1.0"):
        site.release(version)
        play = site.deploy(version, watch_seconds=2, watch_interval_seconds=0.5)
        assert play.code == 0, play.output
        assert site.answers() == {version}
        assert play.report and 0 < play.report["duration_s"] < 600, "the times of a run are those of one clock"
    again = site.deploy("1.1.0")
    assert again.code == 0 and "nothing to do" in again.output, again.output
    back = site.rollback()
    assert back.code == 0, back.output
    assert site.answers() == {"1.0.0"}
    assert "all agree" in site.status().output
    assert [record["outcome"] for record in site.history()] == ["deployed", "deployed", "restored"]
    assert site.history()[-1]["ended"] < time.time() - 2 * HOUR, "written by a host whose clock is right"


def test_a_lease_is_over_when_the_state_host_says_so(site: Site) -> None:
    """By the controller's clock this one ended hours ago; by the clock that gave it, it has a minute left."""
    lease = site.state / "lease.json"
    before = lease.read_bytes()
    held = json.loads(before)
    holder = {"user": "bo", "host": "b1"}
    try:
        lease.write_text(
            json.dumps({**held, "released": False, "expires": held["renewed"] + 600, "holder": holder}),
            encoding="utf-8",
        )
        refused = site.deploy("1.1.0")
        assert refused.code != 0 and "of bo@b1 holds the lease since" in refused.output, refused.output
        lease.write_text(
            json.dumps({**held, "released": False, "expires": held["renewed"] - 600, "holder": holder}),
            encoding="utf-8",
        )
        taken = site.deploy("1.1.0")
        assert taken.code == 0, taken.output
    finally:
        if site.live() != "1.1.0":
            lease.write_bytes(before)
