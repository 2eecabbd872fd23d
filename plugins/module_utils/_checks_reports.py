# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports of tests, scanners and browsers, read as numbers. Private: may change at any time.

They come from elsewhere: a document type, from which entities could grow, is refused, the size is bounded, and XML is
read as a stream, so that no tree is built.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from datetime import datetime, timezone
from typing import Any, Callable, NamedTuple, NoReturn, Optional
from xml.parsers import expat

from ansible_collections.signalbox.runbook.plugins.module_utils._checks_kind import (
    Args,
    Kind,
    Measured,
    Say,
    World,
    within,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

MOST_BYTES = 256 * 1024 * 1024
DEPTH = 100  # of elements; a real report has less than ten
NAMES_SHOWN = 5
NAME_SHOWN = 120
CATEGORIES = ("performance", "accessibility", "best-practices", "seo", "pwa")
SEVERITIES = ("critical", "high", "medium", "low")
LEVELS = {"error": "high", "warning": "medium", "note": "low"}  # of SARIF, for rules that no score is known of
CHUNK = 64 * 1024


class Report(NamedTuple):
    values: dict[str, Any]
    said: dict[str, str]
    made: Optional[float]  # when, in seconds since 1970, where the report itself says it


Start = Callable[[str, Mapping[str, str]], None]
End = Callable[[str], None]


def _no_doctype(*_declaration: Any) -> NoReturn:
    raise RunbookError("it has a DOCTYPE, which is refused because entities can grow without end")


def _stream(data: bytes, root: Collection[str], start: Start, end: End) -> None:
    """Calls ``start`` and ``end`` for each element."""
    parser = expat.ParserCreate(namespace_separator=" ")
    depth = 0

    def opened(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEPTH:
            raise RunbookError(f"its elements are more than {DEPTH} deep")
        name = name.rpartition(" ")[2]
        if depth == 1 and name not in root:
            raise RunbookError(f"it begins with <{name[:NAME_SHOWN]}>, not with <{'> or <'.join(root)}>")
        start(name, attributes)

    def closed(name: str) -> None:
        nonlocal depth
        depth -= 1
        end(name.rpartition(" ")[2])

    parser.StartDoctypeDeclHandler = _no_doctype
    parser.StartElementHandler = opened
    parser.EndElementHandler = closed
    try:
        for at in range(0, len(data), CHUNK):
            parser.Parse(data[at : at + CHUNK], False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise RunbookError(f"it is not whole XML ({error})") from None
    except LookupError:
        raise RunbookError("its encoding is not known") from None


def junit(data: bytes) -> Report:
    """Counts the cases themselves: the totals of a suite are optional, and differ from tool to tool."""
    run = failed = skipped = 0
    state = ""
    inside = False
    name = ""
    names: list[str] = []
    times: list[float] = []

    def start(element: str, attributes: Mapping[str, str]) -> None:
        nonlocal inside, state, name
        if element == "testcase":
            inside, state = True, ""
            name = ".".join(filter(None, [attributes.get("classname"), attributes.get("name")]))
        elif inside and element in ("failure", "error"):
            state = "failed"
        elif inside and element == "skipped":
            state = state or "skipped"
        elif element == "testsuite":
            when = moment(attributes.get("timestamp"))
            if when is not None:
                times.append(when)

    def end(element: str) -> None:
        nonlocal inside, run, failed, skipped
        if element != "testcase":
            return
        inside = False
        skipped += state == "skipped"
        run += state != "skipped"
        failed += state == "failed"
        if state == "failed" and len(names) < NAMES_SHOWN:
            names.append(name[:NAME_SHOWN])

    _stream(data, ("testsuites", "testsuite"), start, end)
    values: dict[str, Any] = {"tests_run": run, "tests_failed": failed, "tests_skipped": skipped}
    if run:
        values["pass_percent"] = 100.0 * (run - failed) / run
    values["failed_tests"] = names
    more = f" and {failed - len(names)} more" if failed > len(names) else ""
    said = {
        "tests_failed": f"{failed} of {run} tests failed: {', '.join(names)}{more}",
        "tests_run": "no test was run" if not run else f"only {run} tests were run",
    }
    return Report(values, said, max(times, default=None))


def cobertura(data: bytes) -> Report:
    """The rates that the root has; where it has none, the lines are counted."""
    top: dict[str, str] = {}
    lines = covered = 0

    def start(element: str, attributes: Mapping[str, str]) -> None:
        nonlocal lines, covered
        if element == "coverage" and not top:
            top.update(attributes)
            top.setdefault("version", "")
        elif element == "line":
            lines += 1
            covered += attributes.get("hits", "0") not in ("0", "")

    _stream(data, ("coverage",), start, lambda _element: None)
    values: dict[str, Any] = {}
    rate = _rate(top.get("line-rate"))
    if rate is None and lines:
        rate = covered / lines
    if rate is not None:
        values["covered_percent"] = 100 * rate
    branches = _rate(top.get("branch-rate"))
    if branches is not None:
        values["branches_covered_percent"] = 100 * branches
    stamp = top.get("timestamp", "")
    made = float(stamp) if stamp.isdecimal() and len(stamp) < 15 else None
    return Report(values, {}, made / 1000 if made and made > 1e11 else made)  # some write milliseconds


def _rate(text: Optional[str]) -> Optional[float]:
    try:
        rate = float(text or "")
    except ValueError:
        return None
    return rate if 0 <= rate <= 1 else None


def _document(data: bytes) -> Mapping[str, Any]:
    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number of JSON")

    try:
        document = json.loads(data, parse_constant=constant)
    except RecursionError:
        raise RunbookError("its JSON is nested too deep") from None
    except ValueError as error:
        raise RunbookError(f"it is not whole JSON ({error})") from None
    if not isinstance(document, dict):
        raise RunbookError("it is not a JSON object")
    return document


def _members(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _member(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def sarif(data: bytes) -> Report:
    """Findings by severity: ``security-severity`` of the rule as GitHub reads it, else the level."""
    document = _document(data)
    if not isinstance(document.get("runs"), list):
        raise RunbookError("it has no runs, so it is not SARIF")
    found = dict.fromkeys(SEVERITIES, 0)
    names: dict[str, list[str]] = {severity: [] for severity in SEVERITIES}
    times: list[float] = []
    for run in _members(document["runs"]):
        tool = _member(run, "tool")
        components = [_member(tool, "driver"), *_members(_member(tool, "extensions"))]
        rules = {
            str(rule.get("id")): rule for part in reversed(components) for rule in _members(_member(part, "rules"))
        }
        for call in _members(run.get("invocations")):
            when = moment(call.get("endTimeUtc"), utc=True)
            if when is not None:
                times.append(when)
            if call.get("executionSuccessful") is False:
                raise RunbookError("the scanner says that it did not come to its end")
        driver_rules = _members(_member(tool, "driver", "rules"))
        for result in _members(run.get("results")):
            # Accepted by everybody who was asked, or gone since the baseline.
            told = _members(result.get("suppressions"))
            accepted = bool(told) and all(one.get("status") in (None, "accepted") for one in told)
            if accepted or result.get("baselineState") == "absent" or result.get("kind") in ("pass", "notApplicable"):
                continue
            rule = _rule(result, rules, driver_rules)
            severity = _severity(result, rule)
            if severity:
                found[severity] += 1
                identity = str(result.get("ruleId") or _member(rule, "id") or "no rule")[:NAME_SHOWN]
                if identity not in names[severity] and len(names[severity]) < NAMES_SHOWN:
                    names[severity].append(identity)
    values: dict[str, Any] = {f"findings_{severity}": number for severity, number in found.items()}
    said = {
        f"findings_{severity}": f"{found[severity]} {severity} findings: {', '.join(names[severity])}"
        for severity in SEVERITIES
    }
    return Report(values, said, max(times, default=None))


def _rule(
    result: Mapping[str, Any], by_id: Mapping[str, Mapping[str, Any]], by_number: list[Mapping[str, Any]]
) -> Mapping[str, Any]:
    """By its id, which may have parts behind slashes that the rule does not have, or by its number."""
    for identity in (result.get("ruleId"), _member(result, "rule", "id")):
        name = str(identity)
        while name:
            if name in by_id:
                return by_id[name]
            name = name.rpartition("/")[0]
    index = result.get("ruleIndex")
    return by_number[index] if isinstance(index, int) and 0 <= index < len(by_number) else {}


def _severity(result: Mapping[str, Any], rule: Mapping[str, Any]) -> str:
    for properties in (result.get("properties"), rule.get("properties")):
        try:
            score = float(_member(properties, "security-severity"))
        except (TypeError, ValueError):
            continue
        return (
            "critical" if score >= 9 else "high" if score >= 7 else "medium" if score >= 4 else "low" if score else ""
        )
    level = result.get("level") or _member(rule, "defaultConfiguration", "level") or "warning"
    return LEVELS.get(str(level), "")


def lighthouse(data: bytes) -> Report:
    document = _document(data)
    if not isinstance(document.get("categories"), dict):
        raise RunbookError("it has no categories, so it is not of Lighthouse")
    wrong = _member(document, "runtimeError", "code")
    if wrong not in (None, "NO_ERROR"):
        raise RunbookError(f"Lighthouse says {str(wrong)[:NAME_SHOWN]}: the page was not measured")
    values: dict[str, Any] = {}
    for category in CATEGORIES:
        score = _member(document["categories"], category, "score")
        if isinstance(score, (int, float)) and not isinstance(score, bool) and 0 <= score <= 1:
            values[f"score_{category.replace('-', '_')}_percent"] = round(100.0 * score, 6)
    values["page"] = str(document.get("finalDisplayedUrl") or document.get("finalUrl") or "")[:NAME_SHOWN]
    return Report(values, {}, moment(document.get("fetchTime")))


def moment(text: Any, utc: bool = False) -> Optional[float]:
    """Seconds since 1970 of an ISO 8601 time; None without a zone, unless it is known to be ``utc``."""
    if not isinstance(text, str):
        return None
    # Python 3.9 reads neither Z nor other than three or six digits of a second.
    plain = re.sub(
        r"\.(\d+)", lambda match: "." + match.group(1)[:6].ljust(6, "0"), text.strip().replace("Z", "+00:00")
    )
    try:
        when = datetime.fromisoformat(plain)
    except ValueError:
        return None
    if when.tzinfo is None:
        if not utc:
            return None
        when = when.replace(tzinfo=timezone.utc)
    return when.timestamp()


FORMATS: dict[str, tuple[Callable[[bytes], Report], tuple[str, ...]]] = {
    "junit": (junit, ("tests_run", "tests_failed", "tests_skipped", "pass_percent")),
    "cobertura": (cobertura, ("covered_percent", "branches_covered_percent")),
    "sarif": (sarif, tuple(f"findings_{severity}" for severity in SEVERITIES)),
    "lighthouse": (lighthouse, tuple(f"score_{category.replace('-', '_')}_percent" for category in CATEGORIES)),
}


def _report(args: Args, world: World) -> Measured:
    path = args["path"]
    read, _names = FORMATS[args["format"]]
    data = world.read(path, args["max_bytes"])
    try:
        made = world.stat(path).st_mtime
        report = read(data)
    except OSError as error:
        raise RunbookError(f"{path} can't be asked: {error.strerror}") from None
    except RunbookError as error:
        raise RunbookError(f"{path}: {error}") from None
    # A copy is new, what it says need not be; one that claims to come from the future is not believed.
    made = min(made, report.made) if report.made is not None else made
    age = (world.now() - made) / 3600
    return Measured(
        {**report.values, "age_hours": max(0.0, age)},
        {**report.said, "age_hours": f"it is {age:.1f} hours old, so it may be that of another release"},
    )


def _finish(args: dict[str, Any], _names: Collection[str], say: Say) -> None:
    if isinstance(args["path"], str) and not args["path"].startswith("/"):
        say("path", f"must be absolute, not {args['path']!r}")
    within(args, say, 1, MOST_BYTES, "max_bytes")


def _measured(args: Args, _names: Collection[str]) -> Collection[str]:
    return (*FORMATS[args["format"]][1], "age_hours") if args["format"] in FORMATS else ()


KINDS: dict[str, Kind] = {
    "report": Kind(
        options={
            "path": {"type": "str", "required": True, "description": "path of the report on the host"},
            "format": {
                "type": "str",
                "required": True,
                "choices": sorted(FORMATS),
                "description": f"one of {', '.join(sorted(FORMATS))}",
            },
            "max_bytes": {"type": "int", "default": 32 * 1024 * 1024},
        },
        measures={
            "tests_run": "cases that were run (JUnit XML)",
            "tests_failed": "cases with a failure or an error",
            "tests_skipped": "cases that were skipped",
            "pass_percent": "part of the cases run that did not fail; not measured where none was run",
            "covered_percent": "covered lines (Cobertura)",
            "branches_covered_percent": "covered branches",
            "findings_critical": "open findings with a security-severity of 9 or more (SARIF)",
            "findings_high": "those of 7 or more, and of rules without it those of level error",
            "findings_medium": "those of 4 or more, or of level warning",
            "findings_low": "those below, or of level note",
            "score_performance_percent": "score of the category (Lighthouse)",
            "score_accessibility_percent": "score of the category",
            "score_best_practices_percent": "score of the category",
            "score_seo_percent": "score of the category",
            "score_pwa_percent": "score of the category, which newer versions do not have",
            "age_hours": "how old it is, by what it says itself where it says when, or by its file if that is older",
        },
        fail_when={
            "tests_failed": "> 0",  # BLD-02
            "tests_run": "< 1",
            "findings_critical": "> 0",  # PRE-44: no critical and no high one
            "findings_high": "> 0",
            "score_performance_percent": "< 95",  # PRE-45, HC-29
            "age_hours": "> 24",
        },
        subject=lambda args: str(args["path"]),
        advice="Make the report anew with the release that is to be deployed, and correct what it names.",
        ask=_report,
        finish=_finish,
        measured=_measured,
    ),
}
