"""Checks: how they are written, what is refused, what comes of what was measured."""

from __future__ import annotations

import dataclasses
import math
import os
import threading
from dataclasses import replace
from typing import Any, Callable, Optional

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _checks
from ansible_collections.signalbox.runbook.plugins.module_utils._checks import (
    KINDS,
    Result,
    ask_all,
    judge,
    mend,
    parse,
    secrets_of,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._checks_kind import Args, Kind, Measured, World
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Problems

LEAST: dict[str, dict[str, Any]] = {  # the options without which there is no check
    "disk": {},
    "memory": {},
    "cpu": {},
    "file": {"path": "/etc/hostname"},
    "environment": {"required": ["DATABASE_URL"]},
    "log": {"path": "/var/log/app.log", "pattern": "error"},
    "command": {"argv": ["true"]},
    "process": {"pattern": "worker"},
    "unit": {"unit": "app.service"},
    "dns": {"host": "app.test", "addresses": ["192.0.2.1"]},
    "tcp": {"port": 80},
    "certificate": {"host": "app.test"},
    "http": {"url": "http://app.test/", "security_headers": ["X-Frame-Options"]},
    "https_redirect": {"url": "http://app.test/"},
    "csrf": {"url": "http://app.test/"},
    "rate_limit": {"url": "http://app.test/"},
    "postgres": {},
    "redis": {},
    "prometheus": {"url": "http://prometheus.test", "query": "up", "fail_when": {"value": "< 1"}},
    "report": {"path": "/r.xml", "format": "junit"},
}


def one(check: str, **more: Any) -> _checks.Check:
    problems = Problems()
    checks = parse([{"name": "it", "check": check, **LEAST[check], **more}], "checks", problems)
    assert not problems, problems
    return checks[0]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"fail_when": {}}, 'checks[0].fail_when: is missing; say when the number is bad, for example {value: "> 0"}'),
        ({"query": " "}, "checks[0].query: must have 1 to 4000 characters, not 0"),
        ({"query": "x" * 4001}, "checks[0].query: must have 1 to 4000 characters, not 4001"),
        ({"url": "prometheus:9090"}, "checks[0].url: must"),
        ({"url": "http://p.test?a=b"}, "checks[0].url: must be without a query"),
        ({"password": "geheim"}, "checks[0].user: is missing; there is a password"),
        ({"user": "u", "token": "geheim"}, "checks[0].user: is there beside token; keep one"),
    ],
)
def test_a_query_that_can_not_be_asked_is_refused(given: dict[str, Any], says: str) -> None:
    (problem,) = refused({"name": "it", "check": "prometheus", **LEAST["prometheus"], **given})
    assert problem.startswith(says) and "geheim" not in problem


def refused(*given: Any) -> list[str]:
    problems = Problems()
    assert len(parse(list(given), "checks", problems)) < len(given)
    assert problems
    return list(problems)


# Reading


def test_every_kind_can_be_asked_with_its_least_options_and_its_defaults_are_limits_of_what_it_measures() -> None:
    assert set(LEAST) == set(KINDS)
    for name, kind in KINDS.items():
        asked = one(name)
        assert {limit.name for limit in asked.fail_when} <= set(kind.measures), name
        assert asked.fail_when, f"{name} could never fail"
        assert not set(kind.options) & set(_checks.COMMON)
        assert asked.advice.endswith(".") and asked.blocking and asked.weight == 1
        # What a query means is known to who wrote it, so this one has no limits of its own.
        own = "fail_when of the check" if name == "prometheus" else f"default of check {name}"
        assert set(asked.sources.values()) == {own}
        assert judge(asked, RunbookError("nobody knows")).text.endswith(": not measured: nobody knows")


def test_options_of_one_name_have_one_type_and_secrecy_in_all_kinds() -> None:
    """The module has one option for all of them."""
    seen: dict[str, tuple[Any, ...]] = {}
    for kind in KINDS.values():
        for key, spec in kind.options.items():
            form = (spec["type"], spec.get("elements"), spec.get("no_log", False))
            assert seen.setdefault(key, form) == form, key


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "a", "check": "dsik"}, "checks[0].check: 'dsik' is no kind of check; did you mean disk?"),
        ({"name": "a", "check": "zzz"}, "checks[0].check: 'zzz' is no kind of check; there are certificate, command,"),
        ({"name": "a", "check": 7}, "checks[0].check: '7' is no kind of check"),
        ({"name": "a"}, "checks[0].check: is missing; give one of certificate,"),
        ({"check": "disk"}, "checks[0].name: is missing; give a name that no other check has"),
        ({"name": "", "check": "disk"}, "checks[0].name: is empty; give a name that no other check has"),
        ({"name": "a", "check": "disk", "paht": "/"}, "checks[0].paht: unknown key; did you mean path?"),
        ({"name": "a", "check": "disk", "path": "var"}, "checks[0].path: must be absolute, not 'var'"),
        ({"name": "a", "check": "disk", "path": ["/"]}, "checks[0].path: must be a string, not a list"),
        (
            {"name": "a", "check": "disk", "fail_when": {"free_percnt": "< 1"}},
            "checks[0].fail_when.free_percnt: is not measured here; did you mean free_percent?",
        ),
        ({"name": "a", "check": "disk", "fail_when": {"free_percnt": None}}, "checks[0].fail_when.free_percnt: is not"),
        ({"name": "a", "check": "disk", "fail_when": {"free_percent": "20"}}, "unit is in the name"),
        ({"name": "a", "check": "disk", "fail_when": {"free_percent": 20}}, "unit is in the name"),
        ({"name": "a", "check": "disk", "fail_when": {"free_percent": "< 20 %"}}, "unit is in the name"),
        ({"name": "a", "check": "disk", "warn_when": {"free_percent": "< nan"}}, "unit is in the name"),
        ({"name": "a", "check": "disk", "warn_when": "< 20"}, "checks[0].warn_when: must be a mapping"),
        ({"name": "a", "check": "disk", "timeout_seconds": 0}, "timeout_seconds: must be above 0 and at most 3600"),
        ({"name": "a", "check": "disk", "timeout_seconds": "soon"}, "timeout_seconds: must be a number, not 'soon'"),
        ({"name": "a", "check": "disk", "weight": -1}, "checks[0].weight: must be 0 or more, not -1"),
        ({"name": "a", "check": "disk", "blocking": "perhaps"}, "checks[0].blocking: must be true or false"),
        ({"name": "a", "check": "cpu", "sample_seconds": 9}, "sample_seconds: must be from 0.1 to timeout_seconds (5)"),
        ({"name": "a", "check": "certificate"}, "checks[0].host: give either host or path"),
        ({"name": "a", "check": "certificate", "host": "h", "path": "/c"}, "checks[0].host: give either host or path"),
        ({"name": "a", "check": "certificate", "host": "h", "port": 0}, "checks[0].port: must be from 1 to 65535"),
        (
            {"name": "a", "check": "certificate", "path": "/c", "fail_when": {"chain_valid": "< 1"}},
            "checks[0].fail_when.chain_valid: is not measured here",
        ),
        ({"name": "a", "check": "tcp"}, "checks[0].port: is missing; give a port"),
        (
            {"name": "a", "check": "dns", "host": "h", "addresses": ["h"]},
            "addresses[0]: must be an IP address, not 'h'",
        ),
        ({"name": "a", "check": "http"}, "checks[0].url: is missing"),
        ({"name": "a", "check": "http", "url": "ftp://h/"}, "checks[0].url: must be http://host[:port]/path or https"),
        ({"name": "a", "check": "http", "url": "http://h/", "status": [99]}, "status: must be a whole number from 100"),
        (
            {"name": "a", "check": "http", "url": "http://h/", "body": "("},
            "checks[0].body: is not a regular expression",
        ),
        ({"name": "a", "check": "http", "url": "http://h/", "samples": 0}, "samples: must be from 1 to 1000, not 0"),
        (
            {"name": "a", "check": "http", "url": "http://h/", "headers": {"Authorization": "x"}},
            "checks[0].headers.Authorization: would be logged",
        ),
        (
            {"name": "a", "check": "http", "url": "http://h/", "numbers": {"status": "a.b"}},
            "checks[0].numbers.status: must be a name of your own with its unit",
        ),
        (
            {"name": "a", "check": "http", "url": "http://h/", "numbers": {"up_seconds": "a..b"}},
            "checks[0].numbers.up_seconds: must be a dotted path",
        ),
        ({"name": "a", "check": "https_redirect", "url": "https://h/"}, "checks[0].url: must begin with http://"),
        ({"name": "a", "check": "rate_limit", "url": "http://h/", "burst": 10**9}, "burst: must be from 1 to 1000"),
        ({"name": "a", "check": "postgres", "query": "SELECT 1; DROP TABLE x"}, "query: must be one statement"),
        ({"name": "a", "check": "postgres", "ssl_mode": "on"}, "checks[0].ssl_mode: must be one of disable, allow,"),
        ({"name": "a", "check": "postgres", "uri": "postgres://u:hush@/x"}, "checks[0].uri: must be like postgres://"),
        ({"name": "a", "check": "redis", "password": ["hush"]}, "checks[0].password: must be a string, not the value"),
        ({"name": "a", "check": "environment", "required": []}, "checks[0].required: must name at least one key"),
        ({"name": "a", "check": "environment", "required": ["A=hush"]}, "required[0]: must be the name of a key alone"),
        ({"name": "a", "check": "log", "path": "/l", "pattern": "["}, "checks[0].pattern: is not a regular expression"),
        ({"name": "a", "check": "command", "argv": "rm -rf"}, "checks[0].argv: must be a list, not 'rm -rf'"),
        ({"name": "a", "check": "command", "argv": []}, "checks[0].argv: must be the program and its arguments"),
        (
            {"name": "a", "check": "report", "path": "/r", "format": "xml"},
            "checks[0].format: must be one of cobertura,",
        ),
        (
            {"name": "a", "check": "report", "path": "/r", "format": "sarif", "fail_when": {"tests_failed": "> 0"}},
            "checks[0].fail_when.tests_failed: is not measured here",
        ),
        ("disk", "checks[0]: must be a mapping with name, check and its options"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_that_begins_with_its_key(given: Any, words: str) -> None:
    (problem,) = refused(given)
    assert problem.startswith("checks[0]") and words in problem
    assert "hush" not in problem and "\n" not in problem


def test_all_that_is_wrong_is_said_at_once_and_the_second_of_a_name_is_named() -> None:
    problems = refused(
        {"name": "a", "check": "disk"}, {"name": "a", "check": "memory"}, {"name": "b", "check": "x", "path": 1}
    )
    assert problems[0] == "checks[1].name: 'a' is the name of checks[0] already"
    assert problems[1].startswith("checks[2].check: ")
    whole = Problems()
    assert parse({"name": "a"}, "app_checks", whole) == [] and whole == ["app_checks: must be a list of checks"]


def test_a_limit_replaces_the_default_of_its_name_null_removes_one_and_each_keeps_its_source() -> None:
    asked = one("disk", fail_when={"free_percent": "< 5"}, source="agreed with operations")
    assert [str(limit) for limit in asked.fail_when] == ["free_percent < 5", "free_inodes_percent <= 5"]
    assert set(asked.sources.values()) == {"default of check disk", "agreed with operations"}
    assert [str(limit) for limit in one("disk", fail_when={"free_inodes_percent": None}).fail_when] == [
        "free_percent <= 20"
    ]
    assert set(one("disk", source="runbook 000").sources.values()) == {"runbook 000"}
    assert set(one("disk", warn_when={"free_bytes": "< 1e9"}).sources.values()) == {
        "default of check disk",
        "warn_when of the check",
    }


def test_percentiles_are_of_ten_samples_unless_said_otherwise() -> None:
    assert one("http").args["samples"] == 1
    assert one("http", fail_when={"p95_ms": "> 200"}).args["samples"] == 10
    assert one("http", fail_when={"p95_ms": "> 200"}, samples=3).args["samples"] == 3


@pytest.mark.parametrize("check", ["postgres", "redis"])
def test_a_uri_fills_the_options_and_its_password_is_a_secret(check: str) -> None:
    scheme = {"postgres": "postgresql", "redis": "rediss"}[check]
    asked = one(check, uri=f"{scheme}://me:hu%2Fsh@db.test:7/name?sslmode=require")
    found = {key: asked.args[key] for key in ("host", "port", "user", "password")}
    assert found == {"host": "db.test", "port": 7, "user": "me", "password": "hu/sh"}
    assert asked.args.get("ssl_mode") == ("require" if check == "postgres" else None)
    assert asked.args.get("tls") == (True if check == "redis" else None)
    assert "hu/sh" in secrets_of(asked)


# Judging


@pytest.mark.parametrize(
    ("values", "status", "text"),
    [
        ({"free_percent": 12.1, "free_inodes_percent": 90}, "fail", "/: free 12.1 % <= 20 %"),
        ({"free_percent": 19.96, "free_inodes_percent": 90}, "fail", "/: free 19.96 % <= 20 %"),
        ({"free_percent": 20.0, "free_inodes_percent": 90}, "fail", "/: free 20 % <= 20 %"),
        ({"free_percent": 25.0, "free_inodes_percent": 90}, "warn", "/: free 25 % < 30 %"),
        ({"free_percent": 30.0, "free_inodes_percent": 90}, "pass", "/: free 30 %, free inodes 90 %"),
        ({"free_percent": 30.0}, "missing", "/: free inodes not measured"),
        ({"free_percent": math.nan, "free_inodes_percent": 90}, "missing", "/: free not measured"),
        ({"free_percent": math.nan, "free_inodes_percent": 1}, "fail", "/: free inodes 1 % <= 5 %"),
        ({"free_percent": "many", "free_inodes_percent": 90}, "missing", "/: free not measured"),
        ({}, "missing", "/: free, free inodes not measured"),
    ],
)
def test_the_worst_counts_and_what_is_not_known_is_never_a_pass(values: Any, status: str, text: str) -> None:
    result = judge(one("disk", warn_when={"free_percent": "< 30"}), Measured(values))
    assert (result.status, result.text) == (status, text)
    assert bool(result.advice) == (status != "pass")
    assert result.limit and result.source


def test_a_failure_names_value_limit_source_and_what_to_do() -> None:
    asked = one("redis", fail_when={"hit_rate_percent": "<= 80"}, source="002, high latency", advice="Warm it up.")
    result = judge(asked, Measured({"connected": 1, "written": 1, "used_memory_percent": 1, "hit_rate_percent": 42.0}))
    assert result.to_dict() == {
        "name": "it",
        "check": "redis",
        "status": "fail",
        "measured": {"connected": 1, "written": 1, "used_memory_percent": 1, "hit_rate_percent": 42.0},
        "text": "127.0.0.1:6379: hit rate 42 % <= 80 %",
        "limit": "hit_rate_percent <= 80",
        "source": "002, high latency",
        "advice": "Warm it up.",
        "blocking": True,
        "weight": 1,
        "remedied": False,
    }


def test_numbers_are_shown_with_their_unit() -> None:
    asked = one("memory", fail_when={"available_bytes": "< 2147483648", "used_percent": None})
    result = judge(asked, Measured({"available_bytes": 1536 * 1024**2}))
    assert result.text == "memory: available 1.5 GiB < 2 GiB"
    asked = one("file", fail_when={"age_hours": "> 24", "exists": None})
    assert judge(asked, Measured({"age_hours": 30.25})).text == "/etc/hostname: age 30.2 h > 24 h"


# Asking


def with_kind(monkeypatch: pytest.MonkeyPatch, ask: Callable[[Args, World], Measured]) -> None:
    monkeypatch.setitem(KINDS, "disk", dataclasses.replace(KINDS["disk"], ask=ask))


def many(count: int, **more: Any) -> list[_checks.Check]:
    problems = Problems()
    given = [{"name": f"c{i}", "check": "disk", "path": f"/{i}", **more} for i in range(count)]
    checks = parse(given, "checks", problems)
    assert not problems
    return checks


def good(free: float = 50.0) -> Measured:
    return Measured({"free_percent": free, "free_inodes_percent": 50.0})


def test_no_check_waits_for_another_up_to_the_bound_and_the_order_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each comes back only when all of them are there at once."""
    together = threading.Barrier(100)

    def ask(args: Args, _world: World) -> Measured:
        together.wait(30)
        return good(float(args["path"][1:]))

    with_kind(monkeypatch, ask)
    results = ask_all(many(100, timeout_seconds=60), World())
    assert [result.measured["free_percent"] for result in results] == [float(i) for i in range(100)]


def test_no_more_than_the_bound_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def ask(_args: Args, _world: World) -> Measured:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.001)
        with lock:
            now -= 1
        return good()

    with_kind(monkeypatch, ask)
    results = ask_all(many(200), World(), at_once=7)
    assert len(results) == 200 and {result.status for result in results} == {"pass"}
    assert 1 < most <= 7


def test_what_does_not_come_back_is_missing_and_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    never, others = threading.Event(), threading.Semaphore(0)

    def ask(args: Args, _world: World) -> Measured:
        if args["path"] in ("/0", "/1"):
            never.wait(60)
        others.release()
        return good()

    with_kind(monkeypatch, ask)
    results = ask_all(many(6, timeout_seconds=0.05), World(), at_once=2, grace_seconds=0.05)
    never.set()
    assert [result.status for result in results] == ["missing"] * 2 + ["pass"] * 4
    assert results[0].text == "/0: not measured: it did not come back within 0.05 s"


def test_a_fault_of_ours_is_missing_and_not_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(args: Args, _world: World) -> Measured:
        if args["path"] == "/1":
            raise KeyError("hush")
        return good()

    with_kind(monkeypatch, ask)
    results = ask_all(many(3), World())
    assert [result.status for result in results] == ["pass", "missing", "pass"]
    assert "KeyError in this check, which is a bug" in results[1].text and "hush" not in results[1].text


def test_secrets_are_in_nothing_that_comes_of_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: Optional[RunbookError] = None

    def ask(args: Args, _world: World) -> Measured:
        if raised:
            raise raised
        word = args["password"]
        return Measured({"connected": 0, "version": f"v {word}", "list": [word]}, {"connected": f"-ERR {word}"})

    monkeypatch.setitem(KINDS, "redis", dataclasses.replace(KINDS["redis"], ask=ask))
    asked = one("redis", password="hush-hush")
    results = ask_all([asked], World())
    raised = RunbookError("no hush-hush here")
    results += ask_all([asked], World())
    assert "hush" not in repr(results)
    assert [result.status for result in results] == ["fail", "missing"]
    assert "-ERR (hidden)" in results[0].text and "no (hidden) here" in results[1].text


def test_nothing_asked_is_nothing() -> None:
    assert ask_all([], World()) == []


def test_a_kind_needs_no_more_than_what_is_measured_and_how() -> None:
    kind = Kind(measures={"x": ""}, ask=lambda _a, _w: good(), subject=lambda _a: "x", advice="")
    assert kind.options == {} and kind.seconds({"timeout_seconds": 3}) == 3.0


# Mending


class Mender:
    """Commands that are run, and a disk that is full until one of them was."""

    def __init__(self, code: int = 0) -> None:
        self.ran: list[tuple[list[str], float, Any]] = []
        self.code = code

    def run(self, argv: Any, seconds: float, cwd: Any = None, env: Any = None) -> tuple[int, str, str]:
        self.ran.append((list(argv), seconds, cwd))
        return self.code, "", "first line\nno rule to make target\n" if self.code else ""

    def statvfs(self, _path: str) -> Any:
        free = 500 if self.ran else 10
        return os.statvfs_result((4096, 4096, 1000, free, free, 1000, 500, 500, 0, 255))


REMEDY = [{"argv": ["make", "clean"], "chdir": "/srv/app"}, {"argv": ["make", "gc"], "timeout_seconds": 5}]


def mended(mender: Mender, **more: Any) -> list[Result]:
    asked = [one("disk", remedy=REMEDY, **more)]
    world = World(run=mender.run, statvfs=mender.statvfs)
    return mend(asked, ask_all(asked, world), world)


@pytest.mark.requirement("BLD-10")
def test_what_fails_is_mended_once_and_asked_again() -> None:
    mender = Mender()
    (result,) = mended(mender)
    assert mender.ran == [(["make", "clean"], 600.0, "/srv/app"), (["make", "gc"], 5.0, None)]
    assert result.status == "pass" and result.remedied
    assert "after make clean, make gc (before: /: free 1 % <= 20 %)" in result.text


@pytest.mark.requirement("BLD-10")
def test_a_remedy_that_fails_is_told_and_the_next_command_is_not_run() -> None:
    mender = Mender(2)
    (result,) = mended(mender)
    assert len(mender.ran) == 1 and result.status == "fail" and result.remedied
    assert result.text.endswith("its remedy failed: make clean ended with 2: no rule to make target")


def test_what_passes_or_is_not_known_is_not_mended() -> None:
    mender = Mender()
    asked = [one("disk", remedy=REMEDY), one("file", path="/gone", remedy=REMEDY)]
    world = World(run=mender.run, statvfs=lambda _p: os.statvfs_result((4096, 4096, 9, 9, 9, 9, 9, 9, 0, 255)))
    before = ask_all(asked, world)
    assert mend(asked[:1], before[:1], world) == before[:1] and mender.ran == []
    unknown = [replace(before[0], status="missing")]
    assert mend(asked[:1], unknown, world) == unknown and mender.ran == []


@pytest.mark.parametrize(
    ("remedy", "says"),
    [
        ([{"argv": []}], "checks[0].remedy[0].argv: is empty; give a program and its arguments"),
        ([{}], "checks[0].remedy[0].argv: is missing; give program and arguments"),
        ([{"argv": ["x"], "timeout_seconds": 0}], "checks[0].remedy[0].timeout_seconds: must be above 0"),
        ([{"argv": ["x"], "shell": True}], "checks[0].remedy[0].shell: unknown key"),
        (["make clean"], "checks[0].remedy[0]: must be a mapping"),
    ],
)
def test_a_remedy_that_can_not_be_run_is_refused(remedy: Any, says: str) -> None:
    (problem,) = refused({"name": "it", "check": "disk", "remedy": remedy})
    assert problem.startswith(says)
