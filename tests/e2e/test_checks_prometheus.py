"""Checks that ask a real Prometheus."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._checks import Result, ask, parse
from ansible_collections.signalbox.runbook.plugins.module_utils._checks_kind import World
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Problems

import prometheus
from local import is_free

ALERT = {"alert": "TargetDown", "expr": "up == 0", "labels": {"severity": "critical"}}
FIRED = 'count(count_over_time(ALERTS{alertstate="firing"}[8h])) or vector(0)'


def known(server: prometheus.Prometheus) -> bool:
    """Every target was scraped, and the alert on the one that is down has been raised."""
    up = 'count(up) == 3 and on() min(up{job="itself"}) == 1'
    return bool(server.value(FIRED)) and server.value(up) is not None


def free_port() -> int:
    return next(port for port in random.SystemRandom().sample(range(18000, 32000), 200) if is_free(port))


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[prometheus.Prometheus]:
    """It scrapes itself, and a port where nobody is."""
    try:
        prometheus.binary()
    except prometheus.MissingError as why:
        pytest.skip(str(why))
    own = free_port()
    jobs = {"itself": [f"127.0.0.1:{own}"], "shop": [f"127.0.0.1:{own}", "127.0.0.1:1"]}  # nobody is there
    rules = {"groups": [{"name": "targets", "rules": [ALERT]}]}
    with prometheus.Prometheus(tmp_path_factory.mktemp("prometheus"), own, jobs, 2, rules) as server:
        deadline = time.monotonic() + 30
        while not known(server) and time.monotonic() < deadline:
            time.sleep(0.2)
        yield server


def asked(server: prometheus.Prometheus, **given: Any) -> Result:
    problems = Problems()
    raw = {"name": "it", "check": "prometheus", "url": server.url, **given}
    checks = parse([raw], "checks", problems)
    assert not problems, problems
    return ask(checks[0], World())


@pytest.mark.requirement("PRE-24")
def test_targets_of_the_application_are_up_or_not(metrics: prometheus.Prometheus) -> None:
    up = asked(metrics, query='min(up{job="itself"})', fail_when={"value": "< 1"})
    assert (up.status, up.measured) == ("pass", {"value": 1.0})
    down = asked(metrics, query='min(up{job="shop"})', fail_when={"value": "< 1"})
    assert down.status == "fail" and down.text == 'min(up{job="shop"}): value 0 < 1'
    healthy = {"name": "it", "check": "http", "url": f"{metrics.url}/-/healthy"}
    assert ask(parse([healthy], "checks", Problems())[0], World()).status == "pass"


def test_alerts_of_the_last_shift_are_counted(metrics: prometheus.Prometheus) -> None:
    fired = asked(metrics, query=FIRED, fail_when={"value": "> 0"})
    assert fired.status == "fail" and fired.measured["value"] == 1.0


def test_no_data_is_missing_and_never_a_pass(metrics: prometheus.Prometheus) -> None:
    nothing = asked(metrics, query="up{job='nobody'}", fail_when={"value": "> 0"})
    assert nothing.status == "missing" and "the query has no series" in nothing.text
    wrong = asked(metrics, query="up{", fail_when={"value": "> 0"})
    assert wrong.status == "missing" and "bad_data" in wrong.text
    many = asked(metrics, query="up", fail_when={"value": "< 1"})
    assert many.status == "missing" and "3 series, not one" in many.text


def test_no_prometheus_is_missing(metrics: prometheus.Prometheus) -> None:
    gone = asked(metrics, url="http://127.0.0.1:1", query="up", fail_when={"value": "< 1"})
    assert gone.status == "missing" and "connection refused" in gone.text
