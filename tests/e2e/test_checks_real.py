"""Checks against what they are made for: TLS and HTTP servers, PostgreSQL, Redis."""

from __future__ import annotations

import http.server
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._checks import Result, ask, ask_all, parse
from ansible_collections.signalbox.runbook.plugins.module_utils._checks_kind import World
from ansible_collections.signalbox.runbook.plugins.module_utils._checks_tls import certificate
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Problems

from certificates import NOW, Issued, Quiet, serving, showing

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
    from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

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


class App(http.server.BaseHTTPRequestHandler):
    """What it answers is in the path."""

    protocol_version = "HTTP/1.1"
    everybody: Optional[threading.Barrier] = None
    allowed = 5  # requests until it refuses, and how many were let through
    window_seconds = 1.0
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
            self.answer(200, b'{"status": "healthy", "version": "1.4.2", "services": {"db": {"status": "up"}}}')
        elif path == "/slow":
            with self.lock:
                self.seen.append(0.0)
                late = len(self.seen) == 10
            time.sleep(0.4 if late else 0)
            self.answer(200)
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


@pytest.mark.requirement("PRE-24", "PRE-31", "HC-14")
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
    limits = {"p50_ms": ">= 200", "p95_ms": ">= 200"}
    result = asked(check="http", url=f"{app}/slow", fail_when=limits)
    assert len(App.seen) == 10
    assert result.status == "fail" and result.measured["p50_ms"] < 200 <= result.measured["p95_ms"]
    assert result.measured["max_ms"] == result.measured["p99_ms"] == result.measured["p95_ms"] >= 400
    assert re.search(r"p95 \d+ ms >= 200 ms", result.text), result.text
    App.seen.clear()
    assert asked(check="http", url=f"{app}/slow", fail_when={"p50_ms": ">= 200"}).status == "pass"


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
    assert result.measured["limited"] == 12 - App.allowed and result.measured["answered"] == 12
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
import resource, sys
from ansible_collections.signalbox.runbook.plugins.module_utils._checks import ask_all, parse
from ansible_collections.signalbox.runbook.plugins.module_utils._checks_kind import World
given = [{"name": str(i), "check": "http", "url": sys.argv[1], "timeout_seconds": 60} for i in range(1000)]
results = ask_all(parse(given, "checks", []), World())
print(sum(result.measured.get("status") == 200 for result in results), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("path", ["/health", "/endless"])
def test_a_thousand_endpoints_in_bounded_memory(app: str, path: str) -> None:
    out = subprocess.run(
        [sys.executable, "-c", THOUSAND, app + path], capture_output=True, text=True, timeout=300, check=True
    ).stdout
    answered, kib = map(int, out.split())
    assert answered == 1000 and kib * 1024 < 150e6, out
