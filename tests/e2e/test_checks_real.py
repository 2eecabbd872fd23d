"""Checks against what they are made for: TLS and HTTP servers, PostgreSQL, Redis."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import re
import secrets
import shutil
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._checks import Result, ask, ask_all, parse
from ansible_collections.signalbox.runbook.plugins.module_utils._checks_kind import World
from ansible_collections.signalbox.runbook.plugins.module_utils._checks_tls import certificate
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Problems

psycopg = pytest.importorskip("psycopg")  # not in the environment of the older Ansible

from certificates import NOW, Issued, Quiet, serving, showing
from databases import Postgres, Redis, wait_for

WORLD = World()
PRE_DEPLOY = {"days_left": "<= 30"}  # 004


def asked(world: World = WORLD, **given: Any) -> Result:
    problems = Problems()
    checks = parse([{"name": "it", **given}], "checks", problems)
    assert not problems, problems
    return ask(checks[0], world)


# Certificates


class Authority:
    """A root that is trusted, an intermediate below it, and one that nobody knows."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = Issued("Test Root", authority=True)
        self.middle = Issued("Test Intermediate", self.root, authority=True)
        self.old_middle = Issued("Old Intermediate", self.root, authority=True, lasts=-1)
        self.unknown = Issued("Unknown Root", authority=True)
        directory.mkdir(exist_ok=True)
        self.trusted = directory / "trusted.pem"
        self.trusted.write_bytes(self.root.pem)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


class Silent(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_args: Any) -> None:
        pass


def shown(authority: Authority, tmp_path: Path, own: Issued, *chain: Issued, **given: Any) -> Result:
    with showing(tmp_path, Silent, own, *chain) as port:
        options = {"host": "localhost", "ca_path": str(authority.trusted), **given}
        return asked(check="certificate", port=port, **options)


@pytest.mark.requirement("PRE-25", "HC-19", "CRT-01")
def test_a_good_certificate_passes_and_says_how_long(authority: Authority, tmp_path: Path) -> None:
    result = shown(authority, tmp_path, Issued("app", authority.middle), authority.middle, fail_when=PRE_DEPLOY)
    assert result.status == "pass", result.text
    assert 89.9 < result.measured["days_left"] <= 90 and 89 < result.measured["lifetime_left_percent"] < 91
    assert (result.measured["chain_valid"], result.measured["host_matches"]) == (1, 1)
    assert (result.measured["subject"], result.measured["issuer"]) == ("app", "Test Intermediate")


@pytest.mark.requirement("PRE-25", "CRT-01")
def test_20_days_left_are_enough_to_warn_and_too_few_for_the_gate(authority: Authority, tmp_path: Path) -> None:
    own = Issued("app", authority.middle, lasts=20)
    assert shown(authority, tmp_path, own, authority.middle).status == "warn"
    result = shown(authority, tmp_path, own, authority.middle, fail_when=PRE_DEPLOY, source="004")
    assert result.status == "fail" and "days left 20 <= 30" in result.text and result.source == "004"
    assert shown(authority, tmp_path, Issued("app", authority.middle, lasts=6), authority.middle).status == "fail"
    # Short-lived ones are renewed by what is left of their time.
    short = Issued("app", authority.middle, lasts=4, age=2)
    by_part = {"days_left": None, "lifetime_left_percent": "< 33"}
    result = shown(authority, tmp_path, short, authority.middle, fail_when=by_part, warn_when={"days_left": None})
    assert result.status == "pass", result.text


@pytest.mark.requirement("HC-19")
def test_an_expired_one_is_read_without_being_trusted(authority: Authority, tmp_path: Path) -> None:
    result = shown(authority, tmp_path, Issued("app", authority.middle, lasts=-3), authority.middle)
    assert result.status == "fail" and "it expired 3.0 days ago (days left -3 < 8)" in result.text
    assert (result.measured["chain_valid"], result.measured["host_matches"]) == (1, 1), "only its time is over"
    early = shown(authority, tmp_path, Issued("app", authority.middle, age=-2), authority.middle)
    assert early.status == "fail" and "it is valid only in 2.0 days" in early.text


@pytest.mark.requirement("HC-19")
@pytest.mark.parametrize(
    ("hosts", "asked_for", "matches"),
    [
        (("other.test",), "localhost", 0),
        (("other.test",), "other.test", 1),
        (("*.app.test",), "api.app.test", 1),
        (("*.app.test",), "a.b.app.test", 0),
        (("*.app.test",), "app.test", 0),
        (("*.test",), "app.test", 0),  # as browsers: no star for a whole top-level domain
        (("APP.test",), "app.TEST.", 1),
        (("127.0.0.1",), "127.0.0.1", 1),
        (("localhost",), "127.0.0.1", 0),
        ((), "localhost", 0),  # the common name does not count
    ],
)
def test_a_wrong_host_is_named(
    authority: Authority, tmp_path: Path, hosts: tuple[str, ...], asked_for: str, matches: int
) -> None:
    own = Issued("localhost", authority.middle, hosts=hosts)
    result = shown(authority, tmp_path, own, authority.middle, server_name=asked_for)
    assert (result.measured["host_matches"], result.measured["chain_valid"]) == (matches, 1), result.text
    if not matches:
        assert f"it is for {', '.join(hosts) or 'no host'}, not for {asked_for}" in result.text


@pytest.mark.requirement("HC-19")
def test_what_is_wrong_with_a_chain_is_named(authority: Authority, tmp_path: Path) -> None:
    own = Issued("app", authority.middle)
    result = shown(authority, tmp_path, own)
    assert result.status == "fail" and "the intermediate certificate 'Test Intermediate' is missing" in result.text
    assert result.measured["days_left"] > 89, "its other numbers are there all the same"
    result = shown(authority, tmp_path, Issued("app"))
    assert result.status == "fail" and "the certificate is signed by itself" in result.text
    result = shown(authority, tmp_path, Issued("app", authority.unknown), authority.unknown)
    assert result.status == "fail" and "the issuer 'Unknown Root' is not trusted here" in result.text
    result = shown(authority, tmp_path, Issued("app", authority.old_middle), authority.old_middle)
    assert result.status == "fail" and "a certificate of the chain is out of its time" in result.text
    expired = Issued("app", authority.unknown, lasts=-1)
    result = shown(authority, tmp_path, expired, authority.unknown, fail_when={"days_left": None})
    assert result.status == "fail" and "'Unknown Root' is not trusted here" in result.text


@pytest.mark.requirement("CRT-01")
def test_a_certificate_in_a_file(authority: Authority, tmp_path: Path) -> None:
    path = str(Issued("app", authority.middle, lasts=20).write(tmp_path, authority.middle)[0])
    result = asked(check="certificate", path=path, fail_when=PRE_DEPLOY)
    assert result.status == "fail" and result.text == f"{path}: days left 20 <= 30"
    assert "chain_valid" not in result.measured and "host_matches" not in result.measured
    result = asked(check="certificate", path=path, server_name="other.test")
    assert result.status == "fail" and "not for other.test" in result.text
    Path(path).write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert asked(check="certificate", path=path).status == "missing"
    Path(path).write_text("nothing")
    assert "has no certificate in PEM form" in asked(check="certificate", path=path).text


def test_the_fields_are_those_that_others_read(authority: Authority) -> None:
    for lasts in (90, 40 * 365):  # two digits of the year, and four
        own = Issued("ünïcode & Co", authority.middle, lasts=lasts, hosts=("a.test", "2001:db8::1"))
        read = certificate(own.der)
        assert read.ends == own.certificate.not_valid_after_utc.timestamp()
        assert read.starts == own.certificate.not_valid_before_utc.timestamp()
        assert (read.subject, read.issuer, read.names) == (
            "ünïcode & Co",
            "Test Intermediate",
            ("a.test", "2001:db8::1"),
        )
    assert abs(read.starts - NOW.timestamp()) < 11 * 86400


def test_a_certificate_that_is_cut_or_changed_never_does_more_than_being_refused(authority: Authority) -> None:
    whole = Issued("app", authority.middle).der
    for at in range(len(whole)):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]):
            try:
                certificate(data)
            except RunbookError as error:
                assert "can't be read" in str(error)


def test_what_shows_no_certificate_is_missing(authority: Authority) -> None:
    with serving(Quiet(("127.0.0.1", 0), Silent)) as port:
        result = asked(check="certificate", host="localhost", port=port)
        assert result.status == "missing" and "does not shake hands" in result.text
    result = asked(check="certificate", host="localhost", port=port)
    assert result.status == "missing" and "connection refused" in result.text
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        result = asked(check="certificate", host="127.0.0.1", port=mute.getsockname()[1], timeout_seconds=0.3)
        assert result.status == "missing" and "no answer within 0.3 s" in result.text
    result = asked(check="certificate", host="localhost", port=port, ca_path="/nowhere/at/all")
    assert result.status == "missing"


# HTTP


HEALTH = {
    "status": "healthy",
    "version": "1.4.2",
    "uptime": 12345,
    "ok": True,
    "services": {"db": {"status": "up"}},
    "queues": {"mail": {"oldest": 3}, "sync": {"oldest": 250.0}},
}


class App(http.server.BaseHTTPRequestHandler):
    """What it answers is in the path."""

    protocol_version = "HTTP/1.1"
    everybody: Optional[threading.Barrier] = None
    allowed = 5  # requests until it refuses, and how many were let through
    window_seconds = 2.0
    seen: list[float] = []
    changed: list[str] = []
    lock = threading.Lock()

    def answer(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        if self.path == "/no-head":
            self.answer(405)
        else:
            self.do_GET()

    def do_GET(self) -> None:
        path, _mark, query = self.path.partition("?")
        if path == "/together":
            assert self.everybody
            self.everybody.wait(60)
            self.answer(200, b'{"status": "healthy"}')
        elif path == "/status":
            self.answer(int(query))
        elif path == "/ready":
            self.answer(200, b"ready")
        elif path == "/live":
            self.answer(200, b"alive")
        elif path == "/health":
            self.answer(200, json.dumps(HEALTH).encode())
        elif path == "/slow":
            with self.lock:
                self.seen.append(0.0)
                late = len(self.seen) == 10
            time.sleep(1.1 if late else 0)
            self.answer(200)
        elif path == "/slow-head":
            time.sleep(0.3)
            self.answer(200)
        elif path == "/slow-body":
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            time.sleep(0.3)
            self.wfile.write(b"x" * 5000)
        elif path == "/flaky":
            with self.lock:
                self.seen.append(0.0)
                bad = len(self.seen) == 2
            self.answer(503 if bad else 200)
        elif path == "/limited":
            self.limited()
        elif path == "/loris":
            self.loris()
        elif path == "/endless":
            self.endless()
        elif path == "/headers":
            known = {"s": "Strict-Transport-Security", "c": "Content-Security-Policy", "x": "X-Frame-Options"}
            self.answer(200, **{known[key].lower(): "max-age=1" for key in query})
        elif path in ("/to", "/no-head"):
            self.answer(int(query[:3] or 301), Location=query[4:] or "https://localhost/")
        elif path == "/token":
            self.answer(200 if self.headers["Authorization"] == "Bearer hush-hush" else 401, b"hush-hush")

    def limited(self) -> None:
        with self.lock:
            now = time.monotonic()
            self.seen[:] = [when for when in self.seen if when > now - self.window_seconds]
            full = len(self.seen) >= self.allowed
            if not full:
                self.seen.append(now)
        self.answer(429, Retry_After="1") if full else self.answer(200)

    def loris(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.05)
        except OSError:
            self.close_connection = True

    def endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x" * 65536)
        except OSError:
            self.close_connection = True

    def do_POST(self) -> None:
        self.changed.append(self.path)
        self.answer(403 if self.path == "/guarded" else 200)

    def log_message(self, *_args: Any) -> None:
        pass


@pytest.fixture
def app() -> Iterator[str]:
    App.seen.clear()
    App.changed.clear()
    with serving(Quiet(("127.0.0.1", 0), App)) as port:
        yield f"http://localhost:{port}"


@pytest.mark.requirement("HC-01", "HC-08")
@pytest.mark.parametrize("status", [500, 404, 301, 204])
def test_an_endpoint_that_does_not_answer_200_fails_with_its_status(app: str, status: int) -> None:
    result = asked(check="http", url=f"{app}/status?{status}")
    assert result.status == "fail" and f"Application not responding correctly (HTTP {status})" in result.text
    assert result.measured["status"] == status
    assert asked(check="http", url=f"{app}/status?200").status == "pass"


@pytest.mark.requirement("HC-02", "HC-03")
def test_readiness_and_liveness_by_what_they_say(app: str) -> None:
    for path, word in (("ready", "ready"), ("live", "alive")):
        assert asked(check="http", url=f"{app}/{path}", body=f"^{word}$").status == "pass"
        assert asked(check="http", url=f"{app}/{path}", body="^starting$").status == "fail"


@pytest.mark.requirement("PRE-31", "HC-14")
def test_every_dependency_gets_a_result_of_its_own(app: str) -> None:
    """Of those in 003, and the monitoring before a deploy."""
    problems = Problems()
    given = [
        {"name": "prometheus", "check": "http", "url": f"{app}/status?200"},
        {"name": "api", "check": "http", "url": f"{app}/health", "expect": {"services.*.status": "up"}},
        {
            "name": "mail",
            "check": "http",
            "url": f"{app}/token",
            "secret_headers": {"Authorization": "Bearer hush-hush"},
        },
        {"name": "search", "check": "http", "url": f"{app}/status?503", "blocking": False},
        {"name": "cache", "check": "tcp", "port": 1},
    ]
    results = ask_all(parse(given, "checks", problems), WORLD)
    assert not problems
    assert [result.status for result in results] == ["pass", "pass", "pass", "fail", "fail"]
    assert [result.blocking for result in results] == [True, True, True, False, True]
    assert "hush" not in repr(results)


def test_what_is_not_there_or_silent_is_told_as_the_probe_tells_it(app: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        result = asked(check="http", url=f"http://localhost:{unused.getsockname()[1]}/")
    assert result.status == "fail" and "connection refused" in result.text and "status" not in result.measured
    result = asked(
        check="http", url=f"{app}/health", expect={"status": "healthy"}, version="2.0.0", version_path="version"
    )
    assert result.status == "fail" and "2.0.0" in result.text and result.measured["observed"] == "1.4.2"


@pytest.mark.requirement("HC-07", "HC-25")
def test_percentiles_are_of_ten_samples_by_nearest_rank(app: str) -> None:
    limits = {"p50_ms": ">= 1000", "p95_ms": ">= 1000"}
    result = asked(check="http", url=f"{app}/slow", fail_when=limits)
    assert len(App.seen) == 10
    assert result.status == "fail" and result.measured["p50_ms"] < 1000 <= result.measured["p95_ms"]
    assert result.measured["max_ms"] == result.measured["p99_ms"] == result.measured["p95_ms"]
    assert re.search(r"p95 1,\d+ ms >= 1,000 ms", result.text), result.text
    App.seen.clear()
    assert asked(check="http", url=f"{app}/slow", fail_when={"p50_ms": ">= 1000"}, source="000").status == "pass"


@pytest.mark.requirement("HC-09", "HC-10")
def test_what_the_application_measures_has_limits_too(app: str) -> None:
    given: dict[str, Any] = {"check": "http", "url": f"{app}/health", "expect": {"status": "healthy"}}
    names = {"uptime_seconds": "uptime", "oldest_job_seconds": "queues.*.oldest"}
    wanted = {"version": "1.4.2", "version_path": "version", "numbers": names}
    limits = {"uptime_seconds": "> 20000", "oldest_job_seconds": "> 300"}
    result = asked(**given, **wanted, fail_when=limits)
    assert result.status == "pass", result.text
    assert (result.measured["uptime_seconds"], result.measured["oldest_job_seconds"]) == (12345, 250)
    result = asked(**given, **wanted, fail_when={"uptime_seconds": "> 300"}, source="since the deploy")
    assert result.status == "fail" and "uptime 12,345 s > 300 s" in result.text
    for path in ("version", "nothing", "queues", "ok"):  # text, not there, not a number, true
        result = asked(**given, numbers={"uptime_seconds": path}, fail_when={"uptime_seconds": "< 0"})
        assert result.status == "missing", path
    plain = asked(check="http", url=f"{app}/ready", numbers=names, fail_when=limits)
    assert plain.status == "missing"


@pytest.mark.requirement("HC-26")
def test_where_the_time_of_an_answer_went(app: str, authority: Authority, tmp_path: Path) -> None:
    phases = ("resolve_ms", "connect_ms", "tls_ms", "first_byte_ms")
    measured = asked(check="http", url=f"{app}/slow-body").measured
    assert [name in measured for name in phases] == [True, True, False, True]
    assert measured["max_ms"] >= 300 and measured["size_bytes"] == 5000
    with showing(tmp_path, App, Issued("app", authority.root)) as port:
        given: dict[str, Any] = {"url": f"https://localhost:{port}/slow-head", "ca_path": str(authority.trusted)}
        result = asked(check="http", **given, fail_when={"first_byte_ms": ">= 300"})
    assert result.status == "fail" and "first byte" in result.text
    spent = [result.measured[name] for name in phases]
    assert all(part > 0 for part in spent) and sum(spent) <= result.measured["max_ms"] + 1


def test_one_bad_sample_among_many_fails_unless_that_is_allowed(app: str) -> None:
    result = asked(check="http", url=f"{app}/flaky", samples=4)
    assert result.status == "fail" and "1 of 4 samples: Application not responding correctly (HTTP 503)" in result.text
    App.seen.clear()
    assert asked(check="http", url=f"{app}/flaky", samples=4, fail_when={"failed": "> 1"}).status == "pass"


@pytest.mark.requirement("HC-20")
@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ("scx", []),
        ("sx", ["Content-Security-Policy"]),
        ("c", ["Strict-Transport-Security", "X-Frame-Options"]),
        ("", ["Strict-Transport-Security", "Content-Security-Policy", "X-Frame-Options"]),
    ],
)
def test_every_security_header_that_is_missing_is_listed(app: str, there: str, missing: list[str]) -> None:
    """The server writes them in lower case, as HTTP/2 does."""
    wanted = ["Strict-Transport-Security", "Content-Security-Policy", "X-Frame-Options"]
    result = asked(check="http", url=f"{app}/headers?{there}", security_headers=wanted)
    assert result.status == ("fail" if missing else "pass") and result.measured["missing_headers"] == len(missing)
    if missing:
        assert f"missing header {', '.join(missing)} (" in result.text


@pytest.mark.requirement("HC-22")
@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/to?301", "pass", "redirects 1"),
        ("/to?308:https://LOCALHOST/path", "pass", "redirects 1"),
        ("/no-head?", "pass", "redirects 1"),
        ("/to?302", "fail", "HTTP 302 to https://localhost/, which is not permanent (301 or 308)"),
        ("/to?301:https://other.test/", "fail", "which is not https on localhost"),
        ("/to?301:http://localhost/", "fail", "which is not https on localhost"),
        ("/to?301:/login", "fail", "which is not https on localhost"),
        ("/status?200", "fail", "HTTP 200 and no redirect"),
    ],
)
def test_plain_http_is_sent_to_https_on_the_same_host(app: str, path: str, status: str, words: str) -> None:
    result = asked(check="https_redirect", url=app + path)
    assert result.status == status and words in result.text, result.text


@pytest.mark.requirement("HC-23")
def test_a_change_without_a_token_is_rejected(app: str) -> None:
    assert asked(check="csrf", url=f"{app}/guarded").status == "pass"
    result = asked(check="csrf", url=f"{app}/open")
    assert result.status == "fail" and "POST without a token was answered with HTTP 200, not 403" in result.text
    assert App.changed == ["/guarded", "/open"]
    assert asked(check="csrf", url="http://localhost:1/").status == "missing"


@pytest.mark.requirement("HC-21")
def test_a_burst_meets_the_rate_limit_and_the_service_recovers(app: str) -> None:
    result = asked(check="rate_limit", url=f"{app}/limited", burst=12)
    assert result.status == "pass", result.text
    assert 1 <= result.measured["limited"] <= 12 - App.allowed and result.measured["answered"] == 12
    assert (result.measured["retry_after_seconds"], result.measured["recovered"]) == (1, 1)
    result = asked(check="rate_limit", url=f"{app}/status?200", burst=12)
    assert result.status == "fail" and "none of 12 requests in a row was refused with 429" in result.text
    result = asked(check="rate_limit", url=f"{app}/status?503", burst=3, fail_when={"limited": None})
    assert result.status == "fail" and "3 of 3 requests were answered with an error of the server" in result.text
    result = asked(check="rate_limit", url=f"{app}/status?429", burst=3, recovery_seconds=0.6)
    assert result.status == "fail" and "it still refuses after 0.6 s" in result.text


def test_a_server_that_drips_or_never_ends_is_given_up(app: str) -> None:
    result = asked(check="http", url=f"{app}/loris", timeout_seconds=0.4)
    assert result.status == "fail" and "no complete answer within 0.4 s" in result.text
    result = asked(check="http", url=f"{app}/endless", expect={"status": "healthy"})
    assert result.status == "fail" and "cut at 1 MiB" in result.text and len(repr(result)) < 3000
    assert (
        asked(check="rate_limit", url=f"{app}/loris", burst=3, timeout_seconds=1, recovery_seconds=0.5).status
        == "missing"
    )


def test_a_hundred_endpoints_are_asked_at_once(app: str) -> None:
    """None is answered before all of them are there."""
    App.everybody = threading.Barrier(100)
    problems = Problems()
    given = [
        {
            "name": str(i),
            "check": "http",
            "url": f"{app}/together?{i}",
            "expect": {"status": "healthy"},
            "timeout_seconds": 60,
        }
        for i in range(100)
    ]
    results = ask_all(parse(given, "checks", problems), WORLD)
    assert [(result.name, result.status) for result in results] == [(str(i), "pass") for i in range(100)]


THOUSAND = """\
import re, sys
from ansible_collections.signalbox.runbook.plugins.module_utils._checks import ask_all, parse
from ansible_collections.signalbox.runbook.plugins.module_utils._checks_kind import World
given = [{"name": str(i), "check": "http", "url": sys.argv[1], "timeout_seconds": 60} for i in range(int(sys.argv[2]))]
results = ask_all(parse(given, "checks", []), World())
answered = sum(result.measured.get("status") == 200 for result in results)
print(answered, re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read()).group(1))
"""


@pytest.mark.parametrize(("path", "count"), [("/health", 1000), ("/endless", 300)])
def test_a_thousand_endpoints_or_answers_without_end_in_bounded_memory(app: str, path: str, count: int) -> None:
    command = [sys.executable, "-c", THOUSAND, app + path, str(count)]
    out = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    answered, kib = map(int, out.split())
    assert answered == count and kib * 1024 < 150e6, out


# PostgreSQL

PASSWORD = "hush-" + secrets.token_hex(8)


@pytest.fixture(scope="module")
def primary() -> Iterator[Postgres]:
    directory = Path(tempfile.mkdtemp(prefix="runbook-pg-"))  # not below pytest's, which only root may enter
    try:
        server = Postgres(directory)
        server.make()
        with server.up():
            server.query(
                f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'",
                "CREATE DATABASE app OWNER app",
                "CREATE ROLE reader LOGIN PASSWORD '" + PASSWORD + "'",
                "CREATE DATABASE closed",
                "REVOKE TEMPORARY ON DATABASE closed FROM PUBLIC",
            )
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def on(server: Postgres, world: World = WORLD, **given: Any) -> Result:
    options = {"port": server.port, "user": "app", "password": PASSWORD, "database": "app"}
    # How long it takes here says nothing.
    return asked(world, check="postgres", **{**options, "warn_when": {"query_ms": None}, **given})


@pytest.fixture(params=["psycopg", "psycopg2"])
def driver(request: pytest.FixtureRequest) -> World:
    module = pytest.importorskip(request.param)
    return dataclasses.replace(WORLD, driver=lambda: module)


@pytest.mark.requirement("HC-04", "HC-05")
def test_a_database_is_connected_read_and_written(primary: Postgres, driver: World) -> None:
    result = on(primary, driver)
    assert result.status == "pass", result.text
    measured = result.measured
    assert measured["version"].startswith("PostgreSQL ") and measured["server_time"][:2] == "20"
    assert (measured["connected"], measured["written"], measured["rows"], measured["answer"]) == (1, 1, 1, 1)
    assert (measured["standby"], measured["standbys"], "replication_lag_seconds" in measured) == (0, 0, False)
    assert primary.query("SELECT count(*) FROM pg_class WHERE relname = 'runbook_check'") == [(0,)]
    uri = f"postgresql://app:{PASSWORD}@127.0.0.1:{primary.port}/app?sslmode=disable"
    result = asked(driver, check="postgres", uri=uri, warn_when={"query_ms": None})
    assert result.status == "pass" and PASSWORD not in repr(result)
    assert result.text.startswith(f"127.0.0.1:{primary.port}/app: connected 1")


@pytest.mark.requirement("HC-04")
def test_why_a_database_is_not_connected_is_told_without_its_password(primary: Postgres, driver: World) -> None:
    wrong = on(primary, driver, password="hush-wrong")
    assert wrong.status == "fail" and "password authentication failed" in wrong.text and "hush" not in repr(wrong)
    assert "does not exist" in on(primary, driver, database="nobody").text
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = on(primary, driver, port=unused.getsockname()[1])
    assert refused.status == "fail" and "refused" in refused.text


def test_a_database_that_stays_silent_is_missing() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        problems = Problems()
        given = [{"name": "it", "check": "postgres", "port": mute.getsockname()[1], "timeout_seconds": 0.5}]
        (result,) = ask_all(parse(given, "checks", problems), WORLD, grace_seconds=0.1)
    assert result.status == "missing" and "did not come back within 0.5 s" in result.text


def test_without_a_driver_the_package_is_named() -> None:
    def none() -> Any:
        raise RunbookError("the Python package psycopg (or psycopg2) is not there")

    result = asked(dataclasses.replace(WORLD, driver=none), check="postgres")
    assert result.status == "missing" and "psycopg" in result.text


def test_one_who_may_not_write_fails_unless_nothing_is_written(primary: Postgres, driver: World) -> None:
    result = on(primary, driver, user="reader", database="closed")
    assert result.status == "fail" and "permission denied" in result.text and "(written 0 < 1)" in result.text
    result = on(primary, driver, user="reader", database="closed", write=False)
    assert result.status == "pass" and "written" not in result.measured


@pytest.mark.requirement("HC-28")
def test_a_query_is_timed_and_can_change_nothing(primary: Postgres, driver: World) -> None:
    on_app = {"host": "127.0.0.1", "port": primary.port, "user": "app", "password": PASSWORD, "dbname": "app"}
    with psycopg.connect(**on_app, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS users AS SELECT generate_series(1, 100) AS id")
    result = on(primary, driver, query="EXPLAIN ANALYZE SELECT * FROM users LIMIT 10;")
    assert result.status == "pass" and result.measured["query_ms"] > 0 and result.measured["rows"] > 1
    result = on(primary, driver, query="SELECT pg_sleep(0.2)", fail_when={"query_ms": ">= 100"}, source="000")
    assert result.status == "fail" and re.search(r"query [\d,]+ ms >= 100 ms", result.text), result.text
    for query in ("EXPLAIN ANALYZE DELETE FROM users", "DELETE FROM users", "CREATE TABLE x ()"):
        result = on(primary, driver, query=query)
        assert result.status == "missing" and "read-only transaction" in result.text, result.text
    result = on(primary, driver, query="SELECT count(*) FROM users", fail_when={"answer": "!= 100"})
    assert result.status == "pass", "nothing was deleted"
    result = on(primary, driver, query="SELECT id FROM users WHERE id > 1000")
    assert result.status == "fail" and "rows 0 < 1" in result.text
    result = on(primary, driver, query="SELECT pg_sleep(30)", timeout_seconds=2)
    assert result.status == "missing" and "statement timeout" in result.text


def test_connections_are_counted_also_for_one_who_may_not_see_them(primary: Postgres, driver: World) -> None:
    before = on(primary, driver).measured["connections"]
    held = [
        psycopg.connect(host="127.0.0.1", port=primary.port, user="reader", password=PASSWORD, dbname="app")
        for _time in range(10)
    ]
    try:
        result = on(primary, driver, fail_when={"connections_used_percent": ">= 50"})
        assert result.measured["connections"] == before + 10
        assert result.measured["connections_used_percent"] == 100 * (before + 10) / 20
        assert result.status == "fail" and "connections used" in result.text
    finally:
        for connection in held:
            connection.close()


def test_a_standby_and_how_far_it_is_behind(primary: Postgres) -> None:
    directory = Path(tempfile.mkdtemp(prefix="runbook-pg-"))
    try:
        standby = Postgres(directory, "standby")
        standby.copy_of(primary)
        with standby.up():
            wait_for(lambda: primary.query("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"), "no standby")
            primary.query("DROP TABLE IF EXISTS later, after", "CREATE TABLE after ()")
            wait_for(lambda: standby.query("SELECT 1 FROM pg_class WHERE relname = 'after'"), "it does not follow")
            late = {"replication_lag_seconds": "> 5", "standbys": "< 1"}
            root = {"user": "postgres", "socket_directory": str(primary.directory), "password": None}
            result = on(primary, **root, fail_when=late)
            assert result.status == "pass" and result.measured["standbys"] == 1, result.text
            behind = on(standby, write=False, fail_when={"replication_lag_seconds": "> 1"})
            assert behind.status == "pass" and behind.measured["standby"] == 1, behind.text
            assert "read-only transaction" in on(standby).text
            # Received but not replayed: the time since the last one that was is what it is behind.
            standby.query("SELECT pg_wal_replay_pause()")
            primary.query("CREATE TABLE later ()")
            held = "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()"
            wait_for(lambda: standby.query(held) == [(True,)], "nothing was received")
            wait_for(lambda: on(standby, write=False).measured["replication_lag_seconds"] > 0.2, "it is never behind")
            behind = on(standby, write=False, fail_when={"replication_lag_seconds": "> 0.1"})
            assert behind.status == "fail" and "replication lag" in behind.text
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    alone = on(primary, fail_when={"replication_lag_seconds": "> 5"})
    assert alone.status == "missing", "no standby is no replication"


# Redis


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    server = Redis(tmp_path_factory.mktemp("redis"), PASSWORD)
    with server.up("maxmemory 64mb"):
        yield server


def at(server: Redis, world: World = WORLD, **given: Any) -> Result:
    return asked(world, check="redis", **{"port": server.port, "password": PASSWORD, **given})


@pytest.mark.requirement("HC-06")
def test_redis_answers_and_is_written(cache: Redis) -> None:
    before = cache.client().dbsize()
    result = at(cache)
    assert result.status == "pass", result.text
    assert (result.measured["connected"], result.measured["written"]) == (1, 1)
    assert 0 < result.measured["used_memory_percent"] < 100 and result.measured["version"]
    assert cache.client().dbsize() == before, "the key is removed"
    for given in (
        {"uri": f"redis://:{PASSWORD}@127.0.0.1:{cache.port}/0", "password": None, "port": None},
        {"socket_path": f"{cache.directory}/s"},
        {"user": "default"},
    ):
        result = at(cache, **given)
        assert result.status == "pass" and PASSWORD not in repr(result), result.text


@pytest.mark.requirement("HC-06")
def test_why_redis_is_not_well_is_told_without_its_password(cache: Redis) -> None:
    assert "NOAUTH" in at(cache, password=None).text
    wrong = at(cache, password="hush-wrong")
    assert wrong.status == "fail" and "WRONGPASS" in wrong.text and "hush" not in repr(wrong)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert "connection refused" in at(cache, port=unused.getsockname()[1]).text
    with socket.create_server(("127.0.0.1", 0)) as mail:
        threading.Thread(target=lambda: mail.accept()[0].sendall(b"220 ready\r\n"), daemon=True).start()
        other = at(cache, port=mail.getsockname()[1])
    assert other.status == "fail" and "does not speak the protocol of Redis" in other.text
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        silent = at(cache, port=mute.getsockname()[1], timeout_seconds=0.3)
    assert silent.status == "fail" and "no answer within 0.3 s" in silent.text
    assert "No such file" in at(cache, socket_path="/nowhere/at/all").text


@pytest.mark.requirement("HC-40")
def test_the_hit_rate_is_that_of_the_sample_and_not_since_the_start(cache: Redis) -> None:
    client = cache.client()
    client.set("there", "1")
    client.config_resetstat()
    assert at(cache, fail_when={"hit_rate_percent": "<= 80"}, write=False).status == "missing", "nobody read"
    for _time in range(100):
        client.get("missing")

    def traffic(_seconds: float) -> None:
        for _time in range(9):
            client.get("there")
        client.get("missing")

    world = dataclasses.replace(WORLD, sleep=traffic)
    result = at(cache, world, sample_seconds=1, fail_when={"hit_rate_percent": "<= 80"})
    assert (result.status, result.measured["hit_rate_percent"]) == ("pass", 90)
    result = at(cache, world, sample_seconds=1, fail_when={"hit_rate_percent": "<= 95"})
    assert result.status == "fail" and "hit rate 90 % <= 95 %" in result.text
    since_start = at(cache, fail_when={"hit_rate_percent": "< 50"})
    assert since_start.status == "fail", since_start.text


def test_a_replica_that_can_not_be_written(cache: Redis, tmp_path: Path) -> None:
    replica = Redis(tmp_path, PASSWORD)
    with replica.up(f"replicaof 127.0.0.1 {cache.port}"):
        wait_for(lambda: at(replica, write=False).measured.get("primary_link_up"), "no link")
        result = at(replica)
        assert result.status == "fail" and "READONLY" in result.text
        assert at(replica, write=False, fail_when={"primary_link_up": "< 1"}).status == "pass"
        replica.client().replicaof("127.0.0.1", "1")
        wait_for(lambda: not at(replica, write=False).measured["primary_link_up"], "still a link")
        result = at(replica, write=False, fail_when={"primary_link_up": "< 1"})
        assert "whose link to the primary is down" in result.text


def test_redis_over_tls(cache: Redis, authority: Authority, tmp_path: Path) -> None:
    """Behind what ends TLS for it, as a Redis in the cloud is."""
    for name, own, words in (
        ("good", Issued("redis", authority.root), ""),
        ("stranger", Issued("redis", authority.unknown), "unable to get local issuer certificate"),
        ("old", Issued("redis", authority.root, lasts=-1), "certificate has expired"),
    ):
        with relaying(tmp_path / name, own, cache.port) as port:
            given: dict[str, Any] = {"port": port, "host": "localhost", "ca_path": str(authority.trusted)}
            result = at(cache, tls=True, **given)
            assert result.status == ("fail" if words else "pass") and words in result.text
            assert at(cache, tls=True, validate_certs=False, **given).status == "pass"
            if name == "good":
                uri = f"rediss://:{PASSWORD}@localhost:{port}"
                assert asked(check="redis", uri=uri, ca_path=str(authority.trusted)).status == "pass"
                assert at(cache, **given, timeout_seconds=1).status == "fail", "plain words to a port of TLS"


@contextlib.contextmanager
def relaying(directory: Path, own: Issued, to: int) -> Iterator[int]:
    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            shown, key = own.write(directory)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(shown, key)
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", to)) as behind,
                context.wrap_socket(self.request, server_side=True) as front,
            ):
                threading.Thread(target=self.pump, args=(behind, front), daemon=True).start()
                self.pump(front, behind)

        @staticmethod
        def pump(source: socket.socket, sink: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    sink.sendall(data)
                sink.shutdown(socket.SHUT_WR)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
