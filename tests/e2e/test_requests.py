"""Slow requests outlive the shift and the stop; those that are cut are counted."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from clients import answers_of, clients, failed

from runbook_site import Site, make_site


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two targets behind one router, of each kind, with 1.0.0 live."""
    for made in make_site(tmp_path_factory.mktemp(f"requests-{request.param}"), 2, request.param):
        let_services_say(made)
        made.release("1.0.0")
        first = made.deploy("1.0.0")
        assert first.code == 0, first.output
        yield made


def let_services_say(site: Site) -> None:
    """The inventory of the lab, with the limits of the service as variables of the command line."""
    path = site.inventory / "group_vars" / "all.yml"
    text = path.read_text(encoding="utf-8")
    for key in ("drain_seconds", "stop_seconds"):
        text, count = re.subn(rf"{key}: (\d+)", rf'{key}: "{{{{ test_{key} | default(\1) }}}}"', text)
        assert count == 1
    path.write_text(text, encoding="utf-8")


@pytest.mark.requirement("REL-10")
def test_slow_requests_outlive_the_shift_and_the_stop(site: Site) -> None:
    """A release that answers slowly is taken back by the watch: its slot stops while it still owes answers."""
    site.release("2.1.0", slow_ms=6000)
    limits = {"accounting_requests_per_second": 5, "accounting_connections": 40, "accounting_timeout_seconds": 20}
    watch = {"watch_seconds": 60, "watch_interval_seconds": 0.5, "watch_window_seconds": 4, "watch_p95_ms": 2400}
    with clients(site.front_url, 6, 0.1) as waiting:
        taken_back = site.deploy("2.1.0", test_drain_seconds=20, **watch, **limits)
    assert taken_back.outcome == "rolled_back", taken_back.output
    assert taken_back.report and "p95" in taken_back.report["failure"], taken_back.report["failure"]
    assert taken_back.report["requests"]["failed"] == 0, taken_back.report["requests"]
    assert failed(waiting) == []
    back = [phase for phase in taken_back.report["phases"] if phase["name"] == "revert"]
    # nginx leaves requests in flight to the stop; HAProxy lets them end within the shift before it.
    stop = back[0 if site.lab.router == "haproxy" else -1]
    stop_began = site.history()[-1]["started"] + stop["started_s"]
    answered_while_stopping = [
        answer for answer in answers_of(waiting) if answer.version == "2.1.0" and answer.ended > stop_began
    ]
    assert answered_while_stopping, "no request was in flight when the slot was stopped: this test proved nothing"
    assert taken_back.report["requests"]["connections_cut"] == 0


@pytest.mark.requirement("REL-10")
def test_connections_cut_are_counted(site: Site) -> None:
    """Those that need longer than drain_seconds are cut, and the record says how many were."""
    site.release("3.0.0", slow_ms=60_000)
    live = site.live()
    with clients(site.front_url, 3, 0.1) as stuck:
        taken_back = site.deploy(
            "3.0.0",
            watch_seconds=60,
            watch_interval_seconds=0.5,
            watch_window_seconds=4,
            accounting_requests_per_second=10,
            accounting_timeout_seconds=1,
            test_drain_seconds=1,
            test_stop_seconds=2,
        )
    assert taken_back.outcome == "rolled_back", taken_back.output
    assert len(failed(stuck)) == 3, "each client had one request at the slot, which never answered"
    assert site.history()[-1]["connections_cut"] >= 3
    assert site.answers(3) == {live}
