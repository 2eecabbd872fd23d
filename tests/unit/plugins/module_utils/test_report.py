# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._accounting import Sample, summary
from ansible_collections.signalbox.runbook.plugins.module_utils._report import page, series, to_json
from hypothesis import given
from hypothesis import strategies as st

EVIL = "<script>alert('x')</script>\"&\x1b[31mred\x1b[0m\x00"


def sample(start_s, version="1.2.0", kind=None, duration_ms=10.0):
    return Sample(start_s, duration_ms, kind is None, kind or "", None if kind else version, True, kind == "closed")


def samples():
    found = [sample(n / 10, "1.2.0" if n < 100 else "1.3.0") for n in range(200)]
    return [*found, sample(12.35, kind="http_502"), sample(12.36, kind="closed")]


def report(**changes):
    return {
        "run": 13,
        "verb": "deploy",
        "application": "shop",
        "environment": "production",
        "from": {"version": "1.2.0", "release": "1.2.0-aaaa1111"},
        "to": {"version": "1.3.0", "release": "1.3.0-bbbb2222"},
        "outcome": "rolled_back",
        "reason": "deploy 1.3.0",
        "failure": "error rate 38 % is above 10 %",
        "started_at": "2026-02-03T10:00:00Z",
        "ended_at": "2026-02-03T10:00:21Z",
        "duration_s": 21.5,
        "phases": [
            {"name": "plan", "started_s": 0.0, "ended_s": 1.0, "outcome": "ok", "text": "deploy 1.3.0"},
            {"name": "watch", "started_s": 10.0, "ended_s": 14.0, "outcome": "failed", "text": "error rate"},
            {"name": "revert", "started_s": 14.0, "ended_s": 21.5, "outcome": "rolled_back", "text": ""},
        ],
        "requests": summary(samples()),
        "targets": [{"host": "web1", "slot": "blue"}, {"host": "web2", "slot": "green"}],
        "diagnosis": ["port 8102 is taken by pid 4711"],
        "log": {"web2/api": ["OSError: Address already in use"]},
        "samples": series(samples()),
        **changes,
    }


class Reader(HTMLParser):
    """Elements, their attributes, the text; and whether every element is closed in order."""

    VOID = ("meta",)

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.open = []
        self.texts = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and data.strip():
            self.texts.append(data.strip())

    def with_class(self, tag, name):
        return [attrs for found, attrs in self.elements if found == tag and name in attrs.get("class", "").split()]


def test_series_has_a_bucket_for_every_second():
    buckets = series([sample(0.2), sample(0.9, duration_ms=30.0), sample(3.5, kind="timeout")], offset_s=1.5)
    assert buckets == [
        {"t": 1, "sent": 1, "failed": 0, "p95_ms": 10.0, "versions": {"1.2.0": 1}},
        {"t": 2, "sent": 1, "failed": 0, "p95_ms": 30.0, "versions": {"1.2.0": 1}},
        {"t": 3, "sent": 0, "failed": 0, "p95_ms": None, "versions": {}},
        {"t": 4, "sent": 0, "failed": 0, "p95_ms": None, "versions": {}},
        {"t": 5, "sent": 1, "failed": 1, "p95_ms": None, "versions": {}},
    ]
    assert series([]) == []


@given(st.lists(st.tuples(st.floats(0, 200), st.sampled_from(["1", "2", None]), st.booleans())), st.floats(0, 50))
def test_series_loses_no_request(shape, offset):
    found = [sample(start, version, None if ok else "timeout") for start, version, ok in shape]
    buckets = series(found, offset)
    assert sum(bucket["sent"] for bucket in buckets) == len(found)
    assert sum(bucket["failed"] for bucket in buckets) == summary(found)["failed"]
    assert sum(sum(bucket["versions"].values()) for bucket in buckets) == sum(summary(found)["by_version"].values())
    assert [bucket["t"] for bucket in buckets] == list(range(buckets[0]["t"], buckets[-1]["t"] + 1)) if found else True


def test_page_says_what_happened():
    reader = Reader(page([report()]))
    text = " ".join(reader.texts)
    for words in (
        "1.2.0 → 1.3.0",
        "run 13 · deploy · shop · production",
        "rolled back",
        "deploy 1.3.0",
        "error rate 38 % is above 10 %",
        "port 8102 is taken by pid 4711",
        "OSError: Address already in use",
        "web2/api",
        "green",
        "Failed: http 502",
    ):
        assert words in text
    tiles = dict(zip(reader.texts, reader.texts[1:]))
    assert (tiles["Failed"], tiles["Connections cut"]) == ("2", "1")
    assert reader.texts[reader.texts.index("Requests") + 1] == "202"
    assert tiles["Longest gap"] == "100"


def test_phases_lie_on_the_time_axis():
    bars = {}
    reader = Reader(page([report()]))
    for attrs in reader.with_class("rect", "phase"):
        bars[attrs["class"]] = (float(attrs["x"]), float(attrs["x"]) + float(attrs["width"]))
    assert set(bars) == {"phase good", "phase bad", "phase back"}
    assert bars["phase bad"][1] == pytest.approx(bars["phase back"][0], abs=0.05)
    plan, watch = bars["phase good"], bars["phase bad"]
    assert (watch[1] - watch[0]) / (plan[1] - plan[0]) == pytest.approx(4, rel=0.02)
    mark = reader.with_class("path", "mark")
    assert len(mark) == 1, "one second has failures"
    assert watch[0] < float(re.match(r"M([\d.]+)", mark[0]["d"])[1]) < watch[1]


def test_versions_are_stacked_and_failures_drawn():
    reader = Reader(page([report()]))
    assert len(reader.with_class("rect", "v0")) == 10 + 1  # ten seconds of 1.2.0, and the legend
    assert len(reader.with_class("rect", "v1")) == 10 + 1
    assert len(reader.with_class("rect", "v-failed")) == 1 + 1
    assert reader.with_class("rect", "v-none") == []


def test_answers_without_a_version_are_drawn():
    found = [sample(n / 10, None) for n in range(50)]
    reader = Reader(page([report(samples=series(found), requests=summary(found))]))
    assert len(reader.with_class("rect", "v-none")) == 5 + 1


@pytest.mark.parametrize("outcome", ["deployed", "rolled_back", "failed", "stopped", "something_new"])
def test_the_outcome_is_a_word_and_a_sign_not_a_colour_alone(outcome):
    text = Reader(page([report(outcome=outcome, phases=[])])).texts
    assert outcome.replace("_", " ") in text
    assert {"✓", "↩", "✗", "•"} & set(text)


def test_everything_is_escaped():
    evil = report(
        run=EVIL,
        verb=EVIL,
        application=EVIL,
        environment=EVIL,
        outcome=EVIL,
        reason=EVIL,
        failure=EVIL,
        stopped=EVIL,
        tidy_problem=EVIL,
        started_at=EVIL,
        ended_at=EVIL,
        targets=[{EVIL: EVIL}],
        diagnosis=[EVIL],
        log={EVIL: [EVIL]},
        phases=[{"name": EVIL, "started_s": 0, "ended_s": 2, "outcome": EVIL, "text": EVIL}],
        requests={**summary(samples()), "by_version": {EVIL: 1}, "failures": {EVIL: 1}},
        samples=series([sample(0.5, EVIL)]),
        **{"from": {"version": EVIL}, "to": {"version": EVIL}},
    )
    for reports in ([evil], [evil, evil], [{**evil, "targets": [EVIL]}]):
        text = page(reports)
        assert "<script" not in text
        assert not re.search(r"[\x00-\x08\x0b-\x1f]", text)
        assert "[31m" not in text
        reader = Reader(text)
        assert not [attrs for _tag, attrs in reader.elements if any(name.startswith("on") for name in attrs)]
        assert any("<script>alert('x')</script>\"&red" in part for part in reader.texts)


def test_page_needs_nothing_from_elsewhere():
    text = page([report(), report(run=14)])
    assert not re.search(r"https?:|//|@import|<link|<script|<img|<iframe", text)
    assert {attrs.get("href", "#")[0] for _tag, attrs in Reader(text).elements} == {"#"}
    assert set(re.findall(r"url\(([^)]*)\)", text)) == {"#hatch"}


def test_many_runs_have_an_index():
    reader = Reader(page([report(run=number) for number in (1, 2, 3)]))
    links = [attrs["href"] for tag, attrs in reader.elements if tag == "a"]
    assert links == ["#run-1", "#run-2", "#run-3"]
    assert {attrs.get("id") for tag, attrs in reader.elements if tag == "section"} >= {link[1:] for link in links}


def test_a_run_that_knows_little_is_shown_too():
    text = " ".join(Reader(page([{"run": 1, "verb": "deploy", "outcome": "failed", "from": None}])).texts)
    assert "failed" in text
    assert "Requests were not counted during this run." in text
    first = report(requests=None, samples=None, phases=[], log=None, diagnosis=None, targets=None, **{"from": None})
    assert "nothing → 1.3.0" in Reader(page([first])).texts
    assert "No run yet." in Reader(page([])).texts


def test_a_phase_that_did_not_end_reaches_to_the_end():
    phases = [{"name": "watch", "started_s": 5, "ended_s": None, "outcome": "stopped", "text": ""}]
    (drawn,) = Reader(page([report(phases=phases)])).with_class("rect", "phase")
    assert float(drawn["x"]) + float(drawn["width"]) == pytest.approx(986, abs=0.1)


def test_an_hour_is_drawn_in_few_columns_and_no_failure_is_lost():
    found = [sample(second + 0.5, kind="timeout" if second == 1801 else None) for second in range(3600)]
    reader = Reader(page([report(samples=series(found), duration_s=3600)]))
    assert len(reader.with_class("rect", "v0")) <= 241
    assert len(reader.with_class("path", "mark")) == 1


def test_json_is_what_was_given():
    reports = [report(), report(run=14, requests=None)]
    assert json.loads(to_json(reports)) == reports
