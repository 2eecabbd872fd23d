"""Twenty answers are owed by a slot when it is stopped: they come, or they are cut and counted."""

from __future__ import annotations

import pytest
from backends import Place
from clients import answers_of, clients, failed

pytestmark = pytest.mark.slow

AT_ONCE = 20
WATCH = {
    "watch_seconds": 60,
    "watch_interval_seconds": 0.5,
    "watch_window_seconds": 4,
    "watch_p95_ms": 1500,
    "accounting_requests_per_second": 5,
    "accounting_connections": 40,
    "app_batch_watch_seconds": 60,  # where it goes in batches, the first one is taken back
    "router_haproxy_drain_seconds": 5,
}


@pytest.fixture(autouse=True)
def live(place: Place) -> None:
    if place.site.live() is None:
        place.site.release("1.0.0")
        first = place.site.deploy("1.0.0")
        assert first.code == 0, first.output


@pytest.mark.requirement("REL-10")
def test_answers_that_take_a_while_come_before_the_slot_ends(place: Place) -> None:
    """A release that answers slowly is taken back by the watch; it owes twenty answers then."""
    place.site.release("2.1.0", slow_ms=3000)
    with clients(place.site.front_url, AT_ONCE, 0.05, place.backend.keep_alive[0] == "true") as waiting:
        back = place.site.deploy("2.1.0", **WATCH, accounting_timeout_seconds=20)
    assert back.outcome == "rolled_back", back.output
    assert back.report and "p95" in back.report["failure"], back.report["failure"]
    assert failed(waiting) == []
    # What is still open after drain_seconds is counted, although this application answers while it is stopped.
    assert back.report["requests"]["failed"] == 0
    reverted = next(phase for phase in back.report["phases"] if phase["name"] == "revert")
    began = place.site.history()[-1]["started"] + reverted["started_s"]
    late = [answer for answer in answers_of(waiting) if answer.version == "2.1.0" and answer.ended > began]
    assert late, "no answer was owed any more: this test proved nothing"
    assert place.site.answers() == {"1.0.0"}


@pytest.mark.requirement("REL-10")
def test_answers_that_do_not_come_are_cut_and_counted(place: Place) -> None:
    place.site.release("3.0.0", slow_ms=60_000)
    kept = place.backend.keep_alive[0] == "true"
    with clients(place.site.front_url, AT_ONCE, 0.05, kept, patience=90) as stuck:  # they don't give up themselves
        back = place.site.deploy("3.0.0", **WATCH, accounting_timeout_seconds=1)
    assert back.outcome == "rolled_back", back.output
    lost = len(failed(stuck))
    if not place.backend.in_place:  # there, another host of the same batch answers in its place
        assert lost >= AT_ONCE, "each client had one request at the slot, which never answered"
    if place.backend.counts_cut:
        assert place.site.history()[-1]["connections_cut"] >= max(lost, 1)
    assert place.site.answers() == {"1.0.0"}
