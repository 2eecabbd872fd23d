"""Reports of other tools: what they count, and what is refused because it can't be trusted."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any, Union

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._checks import Result, ask, parse
from ansible_collections.signalbox.runbook.plugins.module_utils._checks_kind import World
from ansible_collections.signalbox.runbook.plugins.module_utils._checks_reports import (
    cobertura,
    junit,
    lighthouse,
    moment,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._checks_reports import sarif as sarif_of
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Problems
from hypothesis import given
from hypothesis import strategies as st

Content = Union[str, bytes, dict[str, Any]]


def read(directory: Path, form: str, content: Content, **more: Any) -> Result:
    path = directory / "report"
    text = json.dumps(content) if isinstance(content, dict) else content
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if "age" in more:
        then = time.time() - more.pop("age")
        os.utime(path, (then, then))
    problems = Problems()
    (asked,) = parse([{"name": "it", "check": "report", "path": str(path), "format": form, **more}], "c", problems)
    assert not problems, problems
    return ask(asked, World())


# JUnit XML

PYTEST = """\
<?xml version="1.0" encoding="utf-8"?>
<testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1" skipped="1" tests="5" time="0.1"
 timestamp="2026-01-10T10:00:00.000000+00:00" hostname="ci">
<testcase classname="tests.test_a" name="test_one" time="0.001" />
<testcase classname="tests.test_a" name="test_two" time="0.001"><failure message="1 == 2">trace</failure></testcase>
<testcase classname="tests.test_a" name="test_three"><skipped type="pytest.skip" message="no"/></testcase>
<testcase classname="tests.test_b" name="test_four"><error message="setup failed">trace</error></testcase>
<testcase classname="tests.test_b" name="test_five"><system-out>&lt;failure&gt; is only said</system-out></testcase>
</testsuite></testsuites>
"""
JEST = """\
<testsuites name="jest tests" tests="2" failures="0"><testsuite name="App" tests="2" timestamp="2026-01-10T10:00:00">
<testcase classname="App renders" name="App renders" time="0.01"></testcase><testcase classname="b" name="c" time="0"/>
</testsuite></testsuites>
"""
GRADLE = """\
<testsuite name="a.B" tests="1" skipped="0"><properties/><testcase name="c" classname="a.B"/><system-err/></testsuite>
"""


@pytest.mark.requirement("BLD-11")
def test_junit_counts_the_cases_and_names_those_that_failed(tmp_path: Path) -> None:
    result = read(tmp_path, "junit", PYTEST, fail_when={"age_hours": None})
    found = {name: result.measured[name] for name in ("tests_run", "tests_failed", "tests_skipped", "pass_percent")}
    assert found == {"tests_run": 4, "tests_failed": 2, "tests_skipped": 1, "pass_percent": 50.0}
    assert result.status == "fail"
    assert "2 of 4 tests failed: tests.test_a.test_two, tests.test_b.test_four (tests failed 2 > 0)" in result.text


@pytest.mark.parametrize(("content", "run"), [(JEST, 2), (GRADLE, 1)])
def test_junit_of_other_tools(tmp_path: Path, content: str, run: int) -> None:
    result = read(tmp_path, "junit", content)
    assert (result.status, result.measured["tests_run"], result.measured["pass_percent"]) == ("pass", run, 100.0)


def test_no_test_run_is_no_success(tmp_path: Path) -> None:
    for content in ("<testsuites/>", '<testsuite tests="7"><testcase name="a"><skipped/></testcase></testsuite>'):
        result = read(tmp_path, "junit", content)
        assert result.status == "fail" and "no test was run" in result.text
        result = read(tmp_path, "junit", content, fail_when={"tests_run": None, "pass_percent": "< 100"})
        assert result.status == "missing"


def test_an_old_report_is_not_taken_for_this_releases(tmp_path: Path) -> None:
    result = read(tmp_path, "junit", GRADLE, age=25 * 3600)
    assert result.status == "fail" and "it is 25.0 hours old, so it may be that of another release" in result.text
    assert read(tmp_path, "junit", GRADLE, age=23 * 3600).status == "pass"
    # A copy is new; what it says of itself is not.
    result = read(tmp_path, "junit", PYTEST, fail_when={"tests_failed": None})
    assert result.status == "fail" and "hours old" in result.text
    ahead = PYTEST.replace("2026-01-10", "2999-01-10")
    assert read(tmp_path, "junit", ahead, fail_when={"tests_failed": None}, age=48 * 3600).status == "fail"


# Cobertura

COVERAGE = """\
<?xml version="1.0" ?>
<coverage version="7.4" timestamp="{stamp}" lines-valid="10" lines-covered="8" {rates} complexity="0"><sources/>
<packages><package name="a"><classes><class name="b"><methods/><lines>{lines}</lines></class></classes></package>
</packages></coverage>
"""
LINES = '<line number="1" hits="3"/><line number="2" hits="0"/><line number="3" hits="1"/><line number="4" hits="1"/>'


@pytest.mark.requirement("BLD-13")
def test_coverage_by_its_rates_or_its_lines(tmp_path: Path) -> None:
    stamp = str(int(time.time() * 1000))  # coverage.py writes milliseconds, others seconds
    rates = 'line-rate="0.8" branch-rate="0.5"'
    text = COVERAGE.format(stamp=stamp, rates=rates, lines=LINES)
    result = read(tmp_path, "cobertura", text, fail_when={"covered_percent": "< 85"})
    assert result.status == "fail" and "covered 80 % < 85 %" in result.text
    assert result.measured["branches_covered_percent"] == 50
    assert read(tmp_path, "cobertura", text, fail_when={"covered_percent": "< 80"}).status == "pass"
    counted = COVERAGE.format(stamp=stamp[:-3], rates="", lines=LINES)
    result = read(tmp_path, "cobertura", counted, fail_when={"covered_percent": "< 75"})
    assert (result.status, result.measured["covered_percent"]) == ("pass", 75)
    old = COVERAGE.format(stamp="1700000000", rates=rates, lines="")
    assert "hours old" in read(tmp_path, "cobertura", old).text


def test_coverage_that_nobody_measured_is_missing(tmp_path: Path) -> None:
    for rates in ("", 'line-rate="nan"', 'line-rate="7"', 'line-rate="much"'):
        text = COVERAGE.format(stamp="", rates=rates, lines="")
        assert read(tmp_path, "cobertura", text, fail_when={"covered_percent": "< 1"}).status == "missing"


# SARIF


def sarif(*results: dict[str, Any], **run: Any) -> dict[str, Any]:
    rules = [
        {"id": "worst", "properties": {"security-severity": "9.8"}},
        {"id": "bad", "properties": {"security-severity": "7.0"}},
        {"id": "so-so", "properties": {"security-severity": "5"}},
        {"id": "style", "defaultConfiguration": {"level": "note"}},
    ]
    tool = {"driver": {"name": "scanner", "rules": rules}}
    return {"version": "2.1.0", "runs": [{"tool": tool, "results": list(results), **run}]}


@pytest.mark.requirement("PRE-44")
@pytest.mark.parametrize(
    ("result", "severity", "status"),
    [
        ({"ruleId": "worst"}, "critical", "fail"),
        ({"ruleIndex": 1}, "high", "fail"),
        ({"ruleId": "so-so"}, "medium", "pass"),
        ({"ruleId": "style"}, "low", "pass"),
        ({"ruleId": "of nobody", "level": "error"}, "high", "fail"),
        ({"ruleId": "of nobody"}, "medium", "pass"),  # the level that is not said is warning
        ({"ruleId": "style", "properties": {"security-severity": "9.1"}}, "critical", "fail"),
        ({"ruleId": "worst", "suppressions": [{"kind": "external", "status": "rejected"}]}, "critical", "fail"),
        ({"ruleId": "worst", "suppressions": [{"kind": "inSource"}]}, "", "pass"),
        ({"ruleId": "worst", "suppressions": [{}, {"status": "underReview"}]}, "critical", "fail"),
        ({"ruleId": "bad/part/two"}, "high", "fail"),
        ({"ruleId": "worst", "baselineState": "absent"}, "", "pass"),
        ({"ruleId": "worst", "kind": "pass"}, "", "pass"),
        ({"ruleId": "of nobody", "level": "none"}, "", "pass"),
    ],
)
def test_sarif_counts_open_findings_by_severity(tmp_path: Path, result: Any, severity: str, status: str) -> None:
    found = read(tmp_path, "sarif", sarif(result))
    counts = {name: found.measured[f"findings_{name}"] for name in ("critical", "high", "medium", "low")}
    assert counts == {name: int(name == severity) for name in counts}
    assert found.status == status
    if severity == "critical":
        assert f"1 critical findings: {result['ruleId']} (findings critical 1 > 0)" in found.text


@pytest.mark.requirement("PRE-44")
def test_sarif_limits_are_data_and_a_scan_that_broke_off_is_missing(tmp_path: Path) -> None:
    """001 allows warnings in development; 004 wants a clean scan."""
    findings = sarif({"ruleId": "bad"}, {"ruleId": "so-so"})
    assert read(tmp_path, "sarif", findings, fail_when={"findings_high": None}).status == "pass"
    assert read(tmp_path, "sarif", sarif({"ruleId": "style"}), fail_when={"findings_low": "> 0"}).status == "fail"
    broken = sarif(invocations=[{"executionSuccessful": False}])
    assert "did not come to its end" in read(tmp_path, "sarif", broken).text
    old = sarif(invocations=[{"executionSuccessful": True, "endTimeUtc": "2026-01-10T10:00:00.000Z"}])
    assert "hours old" in read(tmp_path, "sarif", old).text
    other_tool = {"runs": [{"tool": {}, "results": [{"ruleId": 7, "level": ["x"]}, "no"]}, 3]}
    assert read(tmp_path, "sarif", other_tool).status == "pass"


# Lighthouse


def scores(**more: Any) -> dict[str, Any]:
    categories = {"performance": {"score": 0.96}, "accessibility": {"score": 1}, "best-practices": {"score": 0.5}}
    return {"finalDisplayedUrl": "https://app.test/", "categories": {**categories, **more}}


@pytest.mark.requirement("PRE-45", "HC-29")
@pytest.mark.parametrize(("score", "status"), [(0.95, "pass"), (0.94, "fail"), (None, "missing"), (95, "missing")])
def test_lighthouse_scores_are_percent(tmp_path: Path, score: Any, status: str) -> None:
    result = read(tmp_path, "lighthouse", scores(performance={"score": score}))
    assert result.status == status, result.text
    assert result.measured["score_best_practices_percent"] == 50
    if status == "fail":
        assert "score performance 94 % < 95 %" in result.text


@pytest.mark.requirement("HC-29")
def test_lighthouse_can_be_recorded_only_and_a_page_that_did_not_load_is_missing(tmp_path: Path) -> None:
    only = {"score_performance_percent": None}
    assert read(tmp_path, "lighthouse", scores(performance={"score": 0.1}), fail_when=only).status == "pass"
    broken = {**scores(), "runtimeError": {"code": "NO_FCP"}}
    assert "Lighthouse says NO_FCP" in read(tmp_path, "lighthouse", broken).text
    old = {**scores(), "fetchTime": "2026-01-10T10:00:00.123Z"}
    assert "hours old" in read(tmp_path, "lighthouse", old).text


# What is no report

BOMB = """\
<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;">]>
<testsuites>&c;</testsuites>
"""
FILES = """<!DOCTYPE x SYSTEM "file:///etc/passwd"><testsuites/>"""


@pytest.mark.parametrize(
    ("form", "content", "words"),
    [
        ("junit", BOMB, "it has a DOCTYPE, which is refused"),
        ("junit", FILES, "it has a DOCTYPE, which is refused"),
        ("cobertura", BOMB, "it has a DOCTYPE, which is refused"),
        ("junit", BOMB.encode("utf-16"), "it has a DOCTYPE, which is refused"),
        ("junit", "<testsuite>" * 100_000, "more than 100 deep"),
        ("junit", "<testsuite><testcase name='a'>", "it is not whole XML (no element found"),
        ("junit", "", "it is not whole XML"),
        ("junit", "{}", "it is not whole XML"),
        ("junit", '<?xml version="1.0" encoding="klingon"?><testsuites/>', "not"),
        ("junit", "<html><body/></html>", "it begins with <html>, not with <testsuites> or <testsuite>"),
        ("cobertura", PYTEST, "it begins with <testsuites>, not with <coverage>"),
        ("junit", "<testsuites/>" + " " * 2000, "has more than 1,000 bytes"),
        ("sarif", "[" * 100_000, "its JSON is nested too deep"),
        ("sarif", '{"runs":' * 100_000, "its JSON is nested too deep"),
        ("sarif", "{", "it is not whole JSON"),
        ("sarif", b"\xff\xfe\x00", "it is not whole JSON"),
        ("sarif", "[]", "it is not a JSON object"),
        ("sarif", "{}", "it has no runs, so it is not SARIF"),
        ("lighthouse", "{}", "it has no categories, so it is not of Lighthouse"),
        ("lighthouse", '{"categories": {"performance": {"score": NaN}}}', "NaN is no number of JSON"),
        ("lighthouse", '{"categories": {"performance": {"score": 1e999}}}', "score performance not measured"),
    ],
)
def test_what_is_no_report_is_missing_with_one_sentence(
    tmp_path: Path, form: str, content: Content, words: str
) -> None:
    limit = {"max_bytes": 1000} if isinstance(content, str) and content.endswith("  ") else {}
    result = read(tmp_path, form, content, **limit)
    assert result.status == "missing" and words in result.text and len(result.text) < 400, result.text


def test_a_report_that_is_not_there_is_missing() -> None:
    problems = Problems()
    given = [{"name": "it", "check": "report", "path": "/nowhere/at/all", "format": "junit"}]
    assert ask(parse(given, "c", problems)[0], World()).text.endswith(
        "/nowhere/at/all can't be read: No such file or directory"
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:01:00Z", 60),
        ("1970-01-01T01:01:00.5+01:00", 60.5),
        ("1970-01-01T00:01:00.1234567Z", 60.123456),
        ("1970-01-01T00:01:00", None),
        ("yesterday", None),
        (7, None),
    ],
)
def test_times_without_a_zone_are_not_known(text: Any, seconds: Any) -> None:
    assert moment(text) == seconds


WORDS = ["runs", "tool", "driver", "extensions", "rules", "id", "results", "ruleId", "ruleIndex", "rule", "properties"]
WORDS += ["security-severity", "level", "defaultConfiguration", "suppressions", "status", "kind", "baselineState"]
WORDS += ["invocations", "endTimeUtc", "executionSuccessful", "categories", "performance", "score", "fetchTime"]
WORDS += ["runtimeError", "code", "finalUrl"]
LEAF = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["", "error", "9.9", "x"])
)
ANY = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5)
)


@given(ANY, ANY, ANY)
def test_json_of_any_shape_is_read_or_refused(one: Any, two: Any, three: Any) -> None:
    shaped = {"runs": [{"tool": {"driver": {"rules": [one]}}, "results": [two, {"ruleId": three}], "invocations": one}]}
    for document in (one, shaped, {"runs": one}, {"categories": two}, {"categories": {"performance": three}}):
        for reader in (sarif_of, lighthouse):
            with contextlib.suppress(RunbookError):
                for value in reader(json.dumps(document).encode()).values.values():
                    assert isinstance(value, (int, float, str))


@given(st.binary(max_size=50), st.integers(0, 400))
def test_xml_with_any_damage_is_read_or_refused(junk: bytes, at: int) -> None:
    for reader, whole in ((junit, PYTEST), (cobertura, COVERAGE.format(stamp="1", rates="", lines=LINES))):
        data = whole.encode()
        with contextlib.suppress(RunbookError):
            reader(data[:at] + junk + data[at + len(junk) :])
