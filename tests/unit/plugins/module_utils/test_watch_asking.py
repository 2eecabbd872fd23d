# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the action plugin of the watch does itself: asking, and reading the samples of the prober."""

from __future__ import annotations

import json
import socket
import time

import pytest
from ansible_collections.signalbox.runbook.plugins.action.watch import _Asked, _Requests, server
from ansible_collections.signalbox.runbook.plugins.module_utils import _triggers
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Problems, check
from ansible_collections.signalbox.runbook.plugins.module_utils._watch import BUILTIN, Watch, plan
from ansible_collections.signalbox.runbook.plugins.plugin_utils import _controller as controller

OPTIONS = controller.specs()["watch_"]


def settings(**given):
    problems = Problems()
    completed = check({"watch_seconds": 60, **given}, OPTIONS, "", problems)
    _triggers.settle(completed, OPTIONS, problems)
    assert problems == []
    return completed


def asking(args=None, **given):
    completed = settings(**given)
    watch = Watch(plan(completed["watch_seconds"], completed))
    return watch, _Asked(watch, completed, {"probes": [], **(args or {})})


def test_who_is_slow_keeps_nobody_waiting():
    """A Prometheus that takes the connection and says nothing: the others are measured again and again meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        query = {"name": "share", "metric": "prometheus", "query": "up", "fail_when": {"up": "< 1"}}
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        watch, asked = asking(watch_prometheus_url=url, watch_triggers=[query], watch_prometheus_timeout_seconds=1)
        elapsed, deadline = 0.0, time.monotonic() + 30
        while not watch._rows["share"].tally.number and time.monotonic() < deadline:
            elapsed += 2.0
            for name in watch.due(elapsed):
                asked.ask(name)
            asked.wait(0.1)
            asked.take(elapsed)
        assert len(watch.builtin) > 1
        last = watch._rows["share"].tally.last
        assert last and last.status == "error"
        assert last.text.endswith("no complete answer within 1 s")


def test_a_fault_of_ours_ends_the_watch_and_is_not_waited_for():
    watch, asked = asking()
    asked.endpoints = [None]
    assert watch.due(2.0) == [BUILTIN]
    asked.ask(BUILTIN)
    asked.wait(10)
    with pytest.raises(AttributeError):
        asked.take(2.0)


def samples(directory, *rows):
    """Start in seconds and whether it was answered."""
    lines = [json.dumps([start, 10.0, ok, "ok" if ok else "http_5xx", "1.0", False, False]) for start, ok in rows]
    with (directory / "samples.jsonl").open("a", encoding="ascii") as stream:
        stream.write("".join(f"{line}\n" for line in lines))


def test_the_baseline_is_what_was_before_the_traffic_moved(tmp_path):
    """Asked since 100 s, the traffic moved 20 s ago, and since then every request fails."""
    now = time.time()
    samples(tmp_path, *((i, i % 10 != 0) for i in range(80)), *((80 + i, False) for i in range(20)))
    requests = _Requests({"directory": str(tmp_path), "started_at": now - 100}, now - 20)
    assert requests.window(1.0, 10.0)["sent"] == 0  # only what came since the watch began
    assert requests.baseline(10) == 10.0
    assert requests.baseline(81) is None
    samples(tmp_path, (100.2, False), (100.4, True))
    account = requests.window(2.0, 10.0)
    assert (account["sent"], account["error_percent"], requests.baseline(10)) == (2, 50.0, 10.0)


def test_without_requests_there_is_no_baseline(tmp_path):
    assert _Requests({}, 5.0).baseline(1) is None
    assert _Requests({"directory": str(tmp_path), "started_at": time.time()}, None).baseline(1) is None


def test_the_server_has_what_the_variables_say():
    found = server(settings(watch_prometheus_url="http://x:9090", watch_prometheus_token="t0ken-Value"))
    assert (found.url, found.token, found.timeout_seconds, found.ca_path) == ("http://x:9090", "t0ken-Value", 5, None)
    assert server(settings()).url == ""
