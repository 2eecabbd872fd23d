"""Triggers of the watch against a real Prometheus that scrapes the demo application; all times are scaled down."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._presets import PRESETS, triggers

import local
import prometheus
from runbook_site import Site, make_site

TOKEN = "t0ken-that-nobody-may-see"
PASSWORD = "only-for-this-test"
HASH = "$2b$04$abcdefghijklmnopqrstuuksBkI1YOOqxWRoEu7YcL.Xb.fRlWgPa"  # bcrypt of it
# Of the requests that users make, over two seconds; the operational endpoints are not theirs.
SHARE = (
    '100 * sum(rate(http_requests_total{path="/",code="500"}[2s]) or vector(0))'
    ' / sum(rate(http_requests_total{path="/"}[2s]))'
)
WATCH: dict[str, Any] = {
    "watch_seconds": 8,
    "watch_interval_seconds": 0.5,
    "watch_window_seconds": 2,
    "watch_progress_seconds": 1,
    "watch_builtin": False,
    "watch_prometheus_timeout_seconds": 2,
}
ERRORS: dict[str, Any] = {
    "name": "errors",
    "metric": "prometheus",
    "query": SHARE,
    "fail_when": {"error_percent": "> 10"},
    "for_seconds": 1.5,
}


EXPOSED = "7.9.0"
SECURITY = {"severity": "critical", "category": "security"}
SCALE = 100  # by which the times of presets are divided


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One target behind one router, with 1.0.0 live."""
    for made in make_site(tmp_path_factory.mktemp("triggers"), 1):
        made.release("1.0.0")
        first = made.deploy("1.0.0")
        assert first.code == 0, first.output
        yield made


@pytest.fixture(scope="module")
def metrics(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[prometheus.Prometheus]:
    """Prometheus, with both slots as its targets, and an alert that one version of the application fires."""
    try:
        prometheus.binary()
    except prometheus.MissingError as why:
        pytest.skip(str(why))
    slots = [f"127.0.0.1:{port}" for port in site.lab.ports["targets"]["target1"].values()]
    alert = {"alert": "Exposed", "expr": f'demo_info{{version="{EXPOSED}"}}', "labels": SECURITY}
    rules = {"groups": [{"name": "security", "rules": [alert]}]}
    place = tmp_path_factory.mktemp("prometheus")
    with prometheus.Prometheus(place, free_port(), {"demo": slots}, rules=rules) as server:
        yield server


def free_port() -> int:
    return next(port for port in random.SystemRandom().sample(range(18000, 32000), 200) if local.is_free(port))


def deploy(site: Site, version: str, url: str, *triggers: dict[str, Any], **more: Any) -> Any:
    known = {"watch_prometheus_url": url, "watch_triggers": list(triggers), "watch_prometheus_token": TOKEN}
    return site.deploy(version, "-v", **{**WATCH, **known, **more})


def failure(play: Any) -> str:
    return str(play.report["failure"])


@pytest.mark.requirement("PDW-01", "PDW-13")
def test_a_release_whose_errors_rise_is_taken_back_by_name(site: Site, metrics: prometheus.Prometheus) -> None:
    live = site.live()
    site.release("2.0.0", errors_percent=40)
    play = deploy(site, "2.0.0", metrics.url, ERRORS)
    assert play.outcome == "rolled_back", play.output
    text = failure(play)
    assert text.startswith("the watch failed: trigger errors: error_percent "), text
    assert "> 10 for " in text, text
    assert "s (limit 1.5 s)" in text, text
    assert any("trigger errors: error_percent" in str(event) for event in site.events(site.run_numbers()[-1]))
    assert "trigger errors: error_percent" in play.output
    series = next(phase["series"]["errors"] for phase in play.report["phases"] if phase["name"] == "watch")
    assert series[-1][1] > 10
    assert series[-1][2] == "failed"
    assert "errors: error_percent" in progress(play), play.output
    assert site.answers(3) == {live}
    everything = [
        play.output,
        *(path.read_text() for path in Path(site.directory).rglob("reports/*") if path.is_file()),
    ]
    assert not any(TOKEN in text for text in everything)


def progress(play: Any) -> str:
    return "\n".join(line for line in play.output.splitlines() if "] watch " in line and "of 00:" in line)


@pytest.mark.requirement("PDW-14")
def test_ten_times_what_it_was_before(site: Site, metrics: prometheus.Prometheus) -> None:
    """The baseline is what Prometheus had before the traffic moved; 8 % are little, but more than ten times of it."""
    site.release("2.1.0", errors_percent=8)
    by_times = {
        "fail_when": {"times_baseline": "> 10"},
        "baseline_floor": 0.1,
        "for_seconds": 1,
    }
    play = deploy(site, "2.1.0", metrics.url, {**ERRORS, "name": "spike", **by_times})
    assert play.outcome == "rolled_back", play.output
    assert failure(play).startswith("the watch failed: trigger spike: times_baseline "), failure(play)
    own = {"name": "own-spike", "metric": "requests", "fail_when": {"times_baseline": "> 10"}, "baseline_floor": 0.1}
    site.release("2.2.0", errors_percent=8)
    play = deploy(site, "2.2.0", metrics.url, {**own, "for_seconds": 1})
    assert play.outcome == "rolled_back", play.output
    assert failure(play).startswith("the watch failed: trigger own-spike: times_baseline "), failure(play)


def test_a_good_release_stays(site: Site, metrics: prometheus.Prometheus) -> None:
    site.release("3.0.0")
    latency = {"name": "p95", "metric": "requests", "fail_when": {"p95_ms": "> 2000"}, "for_seconds": 2}
    health = {"name": "health", "metric": "probe", "probe": {"url": f"{site.front_url}/health"}}
    shadow = {"name": "strict", "metric": "requests", "fail_when": {"p95_ms": "> 0"}, "shadow": True}
    play = deploy(site, "3.0.0", metrics.url, ERRORS, latency, health, shadow)
    assert play.outcome == "deployed", play.output
    assert "trigger errors: error_percent 0 (limit > 10)" in said(play), said(play)
    assert "shadow strict: p95_ms " in said(play), said(play)
    assert "attention" not in said(play)


def said(play: Any) -> str:
    return next(str(phase["text"]) for phase in play.report["phases"] if phase["name"] == "watch")


@pytest.mark.requirement("PDW-20")
def test_prometheus_down_is_attention_and_never_a_pass(site: Site, metrics: prometheus.Prometheus) -> None:
    live = site.live()
    down = f"http://127.0.0.1:{free_port()}"
    site.release("4.0.0")
    play = deploy(site, "4.0.0", down, ERRORS)
    assert play.outcome == "rolled_back", play.output
    text = failure(play)
    assert text.startswith("the watch failed: trigger errors: attention: Prometheus at 127.0.0.1:"), text
    assert text.endswith("connection refused, 5 errors in a row (limit 4)"), text
    assert site.answers(3) == {live}
    play = deploy(site, "4.0.0", down, ERRORS, watch_on_error="stay")
    assert play.outcome == "deployed", play.output
    assert said(play).startswith("attention: trigger errors: attention: Prometheus at 127.0.0.1:"), said(play)
    assert site.answers(3) == {"4.0.0"}


def test_credentials_are_sent_and_never_shown(
    site: Site, metrics: prometheus.Prometheus, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A Prometheus that wants a password; the inventory has it in a variable of its own, as from a vault."""
    version = "4.5.0"
    site.release(version)
    up = {"name": "up", "metric": "prometheus", "query": "vector(1)", "fail_when": {"up": "< 1"}}
    place, port = tmp_path_factory.mktemp("closed"), free_port()
    with prometheus.Prometheus(place, port, {}, users={"watch": HASH}) as closed:
        play = deploy(site, version, closed.url, up, watch_prometheus_token=None)
        assert play.outcome == "rolled_back", play.output
        assert "wants credentials (HTTP 401); give a token, or user and password, 5 errors in a row" in failure(play)
        known = {"watch_prometheus_user": "watch", "watch_prometheus_password": "{{ test_password }}"}
        wrong = deploy(site, version, closed.url, up, **known, test_password="wrong", watch_prometheus_token=None)
        assert "refuses our credentials (HTTP 401)" in failure(wrong)
        good = deploy(site, version, closed.url, up, **known, test_password=PASSWORD, watch_prometheus_token=None)
        assert good.outcome == "deployed", good.output
        assert said(good) == "trigger up: up 1 (limit < 1)"
        assert PASSWORD not in good.output + json.dumps(good.report)


@pytest.mark.parametrize("policy", ["extend", "inconclusive"])
def test_an_idle_service_is_not_taken_back(site: Site, metrics: prometheus.Prometheus, policy: str) -> None:
    """Nobody asks: a share of nothing is NaN, which is no data."""
    version = {"extend": "5.0.0", "inconclusive": "5.1.0"}[policy]
    site.release(version)
    idle = {**ERRORS, "no_data": policy}
    time.sleep(3)  # until the requests of the test before are out of the window
    begun = time.monotonic()
    play = deploy(
        site,
        version,
        metrics.url,
        idle,
        accounting_requests_per_second=0,
        watch_seconds=3,
        watch_extend_seconds=3,
    )
    assert play.outcome == "deployed", play.output
    assert said(play).startswith("attention: trigger errors: no data: the query "), said(play)
    assert site.answers(3) == {version}
    assert time.monotonic() - begun > (6 if policy == "extend" else 3)


def test_no_data_fails_unless_the_inventory_says_otherwise(site: Site, metrics: prometheus.Prometheus) -> None:
    site.release("6.0.0")
    play = deploy(site, "6.0.0", metrics.url, {**ERRORS, "query": "sum(nothing_of_that_name)"}, watch_seconds=2)
    assert play.outcome == "rolled_back", play.output
    assert failure(play) == (
        "the watch failed: trigger errors: no data: the query has no series"
        " (0 samples, minimum_samples is 1; no_data is fail)"
    )
    play = deploy(site, "6.0.0", metrics.url, {**ERRORS, "query": "sum(up"}, watch_seconds=4)
    assert play.outcome == "rolled_back", play.output
    assert "says bad_data: invalid parameter" in failure(play), failure(play)


# What makes each rule of each preset fire: version, faults, and how the failure begins.
RULES = {
    "clickview_compose-health": ("7.1.0", {"errors_percent": 100}, "failed 1 > 0: front page: "),
    "complinist-errors": ("7.2.0", {"errors_percent": 20}, "times_baseline "),
    "complinist-unavailable": ("7.3.0", {"errors_percent": 100}, "error_percent 100 >= 100"),
    "case_management-health": ("7.4.0", {"errors_percent": 100}, "failed 1 > 0: front page: "),
    "case_management-errors": ("7.5.0", {"errors_percent": 30}, "error_percent "),
    "case_management-unavailable": ("7.6.0", {"errors_percent": 100}, "error_percent 100 >= 100"),
    "dotmac-health": ("7.7.0", {"errors_percent": 100}, "failed 1 > 0: front page: "),
    "dotmac-errors": ("7.8.0", {"errors_percent": 30}, "error_percent "),
    "dotmac-p95": ("7.8.1", {"slow_ms": 2500}, "p95_ms "),
    "dotmac-security-alert": (EXPOSED, {}, "firing 1 > 0"),
}


def test_every_rule_that_takes_a_release_back_is_tried() -> None:
    every = {trigger["name"] for name in PRESETS for trigger in triggers(name, "") if not trigger.get("shadow")}
    assert set(RULES) == every


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.requirement("PDW-12", "PDW-13", "PDW-14", "PDW-15", "PDW-16", "PDW-17")
def test_what_a_preset_says_takes_a_release_back(site: Site, metrics: prometheus.Prometheus, rule: str) -> None:
    """The trigger as the preset has it, but for its time."""
    version, faults, begins = RULES[rule]
    selector = ",".join(f'{key}="{value}"' for key, value in SECURITY.items())
    preset = rule.partition("-")[0]
    (chosen,) = [trigger for trigger in triggers(preset, selector) if trigger["name"] == rule]
    chosen["for_seconds"] = chosen.get("for_seconds", 0) / SCALE
    if chosen["metric"] == "probe":  # the faults of the demo are on its front page only
        chosen["probe"] = {"name": "front page", "url": f"{site.front_url}/"}
    live = site.live()
    site.release(version, **faults)
    patient = {"accounting_timeout_seconds": 10, "accounting_requests_per_second": 20, "accounting_connections": 80}
    play = deploy(site, version, metrics.url, chosen, watch_seconds=20, **patient)
    assert play.outcome == "rolled_back", play.output
    assert failure(play).startswith(f"the watch failed: trigger {rule}: {begins}"), failure(play)
    assert any(f"trigger {rule}: " in str(event) for event in site.events(site.run_numbers()[-1]))
    assert site.answers(3) == {live}
    if chosen["for_seconds"]:
        assert f"s (limit {chosen['for_seconds']:g} s)" in failure(play), failure(play)
