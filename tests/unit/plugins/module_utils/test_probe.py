# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import ssl
import subprocess
import threading

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _probe
from ansible_collections.signalbox.runbook.plugins.module_utils._diagnosis import diagnose, status_kind
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._probe import (
    Answer,
    Failure,
    ask,
    check,
    endpoint,
    resolve,
)

URL = "http://app.test:8000/health"


def ep(**raw):
    return endpoint({"url": URL, **raw})


def answer(body="", status=200, duration_ms=7, **headers):
    text = body if isinstance(body, str) else json.dumps(body)
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, text, duration_ms)


class World:
    """A clock that only sleeping and fetching move, and answers by the script of their endpoint."""

    def __init__(self, *script, costs=0.0):
        self.now, self.script, self.costs = 100.0, list(script), costs
        self.asked, self.slept = [], []

    def clock(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds

    def fetch(self, request):
        self.asked.append((round(self.now - 100, 3), request))
        self.now += min(self.costs, request.timeout_seconds)
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    def ask(self, asked, **options):
        return ask([asked], fetch=self.fetch, clock=self.clock, sleep=self.sleep, **options)[0]

    def times(self):
        return [when for when, _request in self.asked]


GOOD, BAD = answer({"status": "healthy"}), answer({"status": "starting"}, 503)


# Validation


def test_defaults_and_none_as_not_given():
    assert ep(method=None, status=None, version=None) == _probe.Endpoint(name=URL, url=URL)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"url": None}, "url is missing"),
        ({"url": "ftp://a/b"}, "url must be http://host"),
        ({"url": "http://127.0.0.1:{port}/"}, "url has no valid host or port"),
        ({"url": "http://a:99999/"}, "url has no valid host or port"),
        ({"url": "http://a/b c"}, "url must be ASCII without blanks"),
        ({"url": "http:///health"}, "url must be http://host"),
        ({"colour": "red"}, "colour is not a key of a probe"),
        ({"method": "POST"}, "method must be GET, HEAD or OPTIONS"),
        ({"method": "HEAD", "expect": {"a": 1}}, "method is HEAD, whose answer has no body"),
        ({"status": []}, "status must name at least one"),
        ({"status": 200}, "status must be a list"),
        ({"status": [99]}, "status must be a whole number from 100 to 599, not 99"),
        ({"status": [True]}, "status must be a whole number"),
        ({"expect": ["a"]}, "expect must be a dictionary"),
        ({"expect": {"a..b": 1}}, "expect.a..b is not a dotted path"),
        ({"version_path": ".v"}, "version_path is"),
        ({"version": 1.1}, "version must be a string, not 1.1; quote it"),
        ({"version": " "}, "version is empty"),
        ({"versions": "1.0"}, "versions must be a list"),
        ({"body": "("}, "body is not a regular expression"),
        ({"expect_headers": {"Server": "["}}, "expect_headers.Server is not a regular expression"),
        (
            {"headers": {"Authorization": "Bearer x"}},
            "headers.Authorization would be logged: move it to secret_headers",
        ),
        ({"headers": {"A b": "x"}}, "headers has the name"),
        ({"headers": {"X": "a\r\nEvil: b"}}, "headers.X must be one line"),
        ({"successes": 0}, "successes must be a whole number of at least 1"),
        ({"within_ms": "soon"}, "within_ms must be a whole number"),
        ({"timeout_seconds": 0}, "timeout_seconds must be above 0"),
        ({"timeout_seconds": "nan"}, "timeout_seconds must be above 0"),
        ({"validate_certs": "maybe"}, "validate_certs must be true or false"),
    ],
)
def test_endpoint_names_the_key(raw, words):
    with pytest.raises(RunbookError) as caught:
        endpoint({"name": "api", "url": URL, **raw})
    assert str(caught.value).startswith(f"probe api: {words}")


@pytest.mark.parametrize(
    "raw",
    [
        {"url": "http://me:hunter2hunter2@app.test/"},
        {"url": URL, "secret_headers": {"X-Token": "hunter2hunter2\n"}},
        {"url": URL, "secret_headers": {"X-Token": ["hunter2hunter2"]}},
    ],
)
def test_a_secret_is_not_in_the_error(raw):
    with pytest.raises(RunbookError) as caught:
        endpoint(raw)
    assert "hunter2" not in str(caught.value)


def test_ask_refuses_waits_without_bound():
    for options in ({"deadline_seconds": float("inf")}, {"deadline_seconds": -1}, {"interval_seconds": 0}):
        with pytest.raises(RunbookError, match=next(iter(options))):
            ask([ep()], fetch=lambda request: GOOD, **options)


# Judging


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a", [("a", {"b": [{"c": 1}]})]),
        ("a.b.0.c", [("a.b.0.c", 1)]),
        ("a.b.1.c", [("a.b.1.c", None)]),
        ("a.x.y", [("a.x.y", None)]),
        ("s.*", [("s.one", "up"), ("s.two", "down")]),
        ("a.b.*.c", [("a.b.0.c", 1)]),
        ("e.*", [("e.*", None)]),
    ],
)
def test_resolve(path, found):
    document = {"a": {"b": [{"c": 1}]}, "s": {"one": "up", "two": "down"}, "e": {}}
    assert [(w, None if v is _probe._MISSING else v) for w, v in resolve(document, path)] == found


@pytest.mark.parametrize(
    ("raw", "came", "kind", "words"),
    [
        ({}, answer(), "", ""),
        ({}, answer(status=500), "status", "Application not responding correctly (HTTP 500); expected 200"),
        ({"status": [200, 204]}, answer(status=204), "", ""),
        ({}, answer(status=404), "not_found", "Application not responding correctly (HTTP 404)"),
        ({}, answer(status=302, location="/login"), "status", "(HTTP 302): a redirect to /login"),
        ({}, answer(status=301, Location="https://app.test/health"), "redirect_https", "a redirect to https://app"),
        ({}, answer("Invalid host header", 400), "host_refused", "(HTTP 400)"),
        ({}, answer("<h1>Bad Request (400)</h1>", 400), "host_refused", "(HTTP 400)"),
        ({}, answer("The plain HTTP request was sent to HTTPS port", 400), "wrong_port", "(HTTP 400)"),
        ({"expect": {"status": "ok"}}, answer({"status": "ok"}), "", ""),
        ({"expect": {"status": "ok"}}, answer({"status": "bad"}), "expect", 'status is "bad"; expected "ok"'),
        ({"expect": {"status": "ok"}}, answer({"status": "bad"}, 503), "status", '503); expected 200; status is "bad"'),
        ({"expect": {"a.b": 1}}, answer({"a": 5}), "expect", "a.b is missing; expected 1"),
        ({"expect": {"ok": True}}, answer({"ok": 1}), "expect", "ok is 1; expected true"),
        ({"expect": {"n": 1}}, answer({"n": 1.0}), "", ""),
        ({"expect": {"n": None}}, answer({"n": None}), "", ""),
        ({"expect": {"n": None}}, answer({}), "expect", "n is missing; expected null"),
        ({"expect": {"l": [1, True]}}, answer({"l": [1, 1]}), "expect", "l is [1, 1]; expected [1, true]"),
        ({"expect": {"a": 1}}, answer("  "), "not_json", "the body is empty (HTTP 200); JSON was expected"),
        ({"expect": {"a": 1}}, answer("<html>", content_type="text/html"), "not_json", "is not JSON (text/html)"),
        ({"expect": {"a": 1}}, answer("[" * 100_000), "not_json", "the body is not JSON"),
        ({"expect": {"a": 1}}, answer('{"a": NaN}'), "not_json", "the body is not JSON"),
        ({"expect": {"a": 1}}, answer('{"a": "\\ud800"}'), "not_json", "the body is not JSON"),
        ({"body": "re.dy"}, answer("is ready"), "", ""),
        ({"body": "^ready$"}, answer("starting"), "body", "does not match '^ready$': it begins \"starting\""),
        ({"version": "1.2"}, answer(" 1.2\n"), "", ""),
        ({"version": "1.2"}, answer("1.1"), "version", 'version "1.1" answers; expected 1.2'),
        ({"versions": ["1", "2"]}, answer("3"), "version", "expected 1 or 2"),
        ({"version": "3", "version_path": "v"}, answer({"v": 3}), "", ""),
        ({"version": "3", "version_path": "v"}, answer({}), "version", "the version is missing at v; expected 3"),
        ({"version": "3", "version_path": "v"}, answer("x"), "not_json", "the body is not JSON"),
        ({"within_ms": 7}, answer(), "", ""),
        ({"within_ms": 6}, answer(), "slow", "the answer took 7 ms; at most 6 ms allowed"),
        ({"expect_headers": {"Server": "nginx"}}, answer(server="nginx/1"), "", ""),
        ({"expect_headers": {"Server": "^x$"}}, answer(server="y"), "header", 'Server is "y", which does not match'),
        ({}, Failure("refused", "connection refused"), "refused", "app.test:8000: connection refused"),
    ],
)
def test_check(raw, came, kind, words):
    asked = ep(**raw)
    problem, said, _observed, _expected = check(asked, came)
    assert said == kind
    assert words in problem
    assert bool(problem) == bool(kind)
    assert bool(diagnose(asked.url, said, came)) == bool(kind)


@pytest.mark.parametrize(
    ("raw", "came", "observed", "expected"),
    [
        ({}, answer(status=500), 500, [200]),
        ({}, answer(), 200, [200]),
        ({"expect": {"s.*": "up"}}, answer({"s": {"a": "up", "b": "no"}}), {"s.a": "up", "s.b": "no"}, {"s.*": "up"}),
        ({"version": "1", "version_path": "v"}, answer({"v": "2"}), "2", ["1"]),
        ({"version_path": "v"}, answer({"v": "2"}), "2", []),
        ({"version": "1", "within_ms": 99}, answer("1"), "1", ["1"]),
        ({"within_ms": 99}, answer(), 7, 99),
        ({"version": "1"}, answer("1", 500), 500, [200]),
        ({"version": "1"}, Failure("dns", "x"), None, ["1"]),
    ],
)
def test_observed_and_expected(raw, came, observed, expected):
    assert check(ep(**raw), came)[2:] == (observed, expected)


def test_a_version_path_alone_asks_without_judging():
    for came in (answer("<html>"), answer({}), answer({"v": 1})):
        assert check(ep(version_path="v"), came)[0] == ""


@pytest.mark.requirement("HC-09")
def test_health_json_says_the_observed_status():
    asked = ep(expect={"status": "healthy"})
    assert check(asked, answer({"status": "healthy"}))[0] == ""
    assert "degraded" in check(asked, answer({"status": "degraded"}))[0]
    for body in ("", "<html>", "{", "null", "[]", '"healthy"'):
        problem, kind, _observed, _expected = check(asked, answer(body))
        assert kind in ("not_json", "expect")
        assert "empty" in problem or "not JSON" in problem or "status is missing" in problem


SECURITY = ("Strict-Transport-Security", "Content-Security-Policy", "X-Frame-Options")


@pytest.mark.requirement("HC-20")
def test_all_security_headers_are_wanted_and_the_missing_ones_listed():
    asked = ep(expect_headers=dict.fromkeys(SECURITY, "."))
    lower = dict.fromkeys((name.lower() for name in SECURITY), "x")
    assert check(asked, Answer(200, lower, "", 1))[0] == ""
    problem = check(asked, Answer(200, {"x-frame-options": "DENY"}, "", 1))[0]
    assert problem == "missing header Strict-Transport-Security, Content-Security-Policy"


@pytest.mark.parametrize(
    ("url", "came", "kind", "words"),
    [
        (URL, Failure("refused", "connection refused"), "refused", "listens on app.test:8000"),
        (URL, Failure("refused", "the host is unreachable (x)"), "refused", "firewall"),
        (URL, Failure("timeout", "no connection within 5 s"), "timeout", "firewall"),
        (URL, Failure("timeout", "no complete answer within 5 s"), "timeout", "starting or stuck"),
        (URL, Failure("dns", "x"), "dns", "spelling"),
        ("https://a/", Failure("wrong_port", "x"), "wrong_port", "Port 443 does not speak TLS: use http"),
        (URL, Failure("wrong_port", "a port that speaks TLS"), "wrong_port", "Port 8000 speaks TLS: use https"),
        (URL, Failure("wrong_port", "not HTTP"), "wrong_port", "Another kind of service listens on port 8000"),
        ("https://a/", Failure("tls", "ca_path /x is not usable"), "tls", "ca_path names"),
        ("https://a/", Failure("tls", "certificate has expired"), "tls", "Renew"),
        ("https://a/", Failure("tls", "Hostname mismatch"), "tls", "a name in the certificate"),
        ("https://a/", Failure("tls", "self-signed certificate"), "tls", "Set ca_path"),
        ("https://a/", Failure("tls", "handshake failure"), "tls", "protocol versions"),
        (URL, Failure("closed", "x"), "closed", "crashed"),
        (URL, answer(status=401), "status", "secret_headers"),
        (URL, answer(status=405), "status", "method"),
        (URL, answer(status=429), "status", "less often"),
        (URL, answer(status=502), "status", "behind it"),
        (URL, answer(status=500), "status", "read its log"),
        (URL, answer(status=302, Location="/login"), "status", "ask /login"),
        (URL, answer(status=418), "status", "expected status"),
        (URL, answer(status=301, location="https://a/b"), "redirect_https", "Ask https://a/b instead"),
        (URL, answer("<html>"), "not_json", "A web page"),
        (URL, answer("ok"), "not_json", "JSON health endpoint"),
        (URL, answer(status=404), "not_found", "path /health"),
    ],
)
def test_diagnose_in_one_line(url, came, kind, words):
    fix = diagnose(url, kind, came)
    assert words in fix
    assert "\n" not in fix


def test_https_that_redirects_to_https_is_no_missing_tls():
    assert status_kind("https://a/", answer(status=301, location="https://b/")) == "status"


# Asking, with a clock that only moves by sleeping


def test_without_deadline_the_first_failure_is_final():
    world = World(BAD, GOOD)
    result = world.ask(ep())
    assert (result.passed, result.attempts, world.slept) == (False, 1, [])
    assert result.to_dict()["evidence"] == {"status": 503, "headers": {}, "body": BAD.body}


def test_without_deadline_a_row_takes_exactly_as_many_tries():
    world = World(GOOD)
    assert world.ask(ep(successes=3), interval_seconds=2).attempts == 3
    assert world.times() == [0, 2, 4]


@pytest.mark.requirement("HC-42")
def test_polls_every_five_seconds_until_healthy():
    world = World(BAD, Failure("refused", "connection refused"), BAD, GOOD)
    result = world.ask(ep(expect={"status": "healthy"}), deadline_seconds=60, interval_seconds=5)
    assert (result.passed, result.attempts, result.observed) == (True, 4, {"status": "healthy"})
    assert world.times() == [0, 5, 10, 15]


@pytest.mark.requirement("HC-42")
def test_polls_every_five_seconds_until_the_deadline():
    world = World(BAD)
    result = world.ask(ep(expect={"status": "healthy"}), deadline_seconds=17, interval_seconds=5)
    assert (result.passed, result.attempts, world.times()) == (False, 4, [0, 5, 10, 15])
    assert "HTTP 503" in result.problem
    assert "starting" in result.problem
    assert result.problem.endswith("gave up after 4 attempts: the deadline of 17 s is over")


def test_a_failure_starts_the_row_again():
    world = World(GOOD, GOOD, BAD, GOOD)
    result = world.ask(ep(successes=3), deadline_seconds=60)
    assert (result.passed, result.attempts) == (True, 6)


def test_a_row_that_stays_short_is_a_failure_that_names_the_last_one():
    world = World(BAD, GOOD)
    result = world.ask(ep(successes=9), deadline_seconds=2, interval_seconds=0.5)
    assert (result.passed, result.kind, result.attempts) == (False, "status", 4)
    assert result.problem.startswith("only 3 of 9 successes in a row: the deadline of 2 s is over; the failure before")
    clean = World(GOOD).ask(ep(successes=9), deadline_seconds=2)
    assert (clean.passed, clean.kind) == (False, "timeout")
    assert clean.problem
    assert clean.fix


def test_every_request_fits_into_what_is_left_of_the_deadline():
    world = World(BAD, costs=3.0)
    world.ask(ep(timeout_seconds=5), deadline_seconds=8, interval_seconds=1)
    assert [request.timeout_seconds for _when, request in world.asked] == [5, 4]


def test_a_last_request_cut_short_does_not_hide_why():
    world = World(BAD, Failure("timeout", "no complete answer within 1 s"), costs=3.0)
    result = world.ask(ep(timeout_seconds=5), deadline_seconds=5, interval_seconds=1)
    assert (result.kind, result.attempts) == ("status", 2)
    whole = World(BAD, Failure("timeout", "no complete answer within 1 s")).ask(
        ep(timeout_seconds=1), deadline_seconds=1.6, interval_seconds=0.5
    )
    assert whole.kind == "timeout"


def test_stop_ends_the_waiting_and_is_told():
    world = World(BAD)
    result = world.ask(
        ep(), deadline_seconds=600, interval_seconds=60, stop=lambda: "the process died" if world.now > 103 else ""
    )
    assert (result.passed, result.attempts) == (False, 1)
    assert result.problem.endswith("gave up after 1 attempts: the process died")
    assert world.now < 105


def test_stop_ends_the_waiting_of_all():
    said = threading.Event()

    def fetch(request):
        if "second" in request.url:
            said.set()
        return BAD

    results = ask(
        [ep(url="http://a/first"), ep(url="http://a/second")],
        fetch=fetch,
        deadline_seconds=300,
        interval_seconds=0.01,
        stop=lambda: "enough" if said.is_set() else "",
    )
    assert all(result.problem.endswith("enough") for result in results)


def test_all_are_asked_at_once_and_answered_in_order():
    together = threading.Barrier(20, timeout=30)

    def fetch(request):
        together.wait()  # breaks unless all twenty are in flight
        return answer(request.url)

    results = ask([ep(url=f"http://a/{n}") for n in range(20)], fetch=fetch)
    assert [result.evidence["body"] for result in results] == [f"http://a/{n}" for n in range(20)]
    assert ask([]) == []


def test_head_falls_back_to_get_where_head_is_rejected():
    world = World(answer(status=405), GOOD)
    assert world.ask(ep(method="HEAD")).passed
    assert [request.method for _when, request in world.asked] == ["HEAD", "GET"]
    wanted = World(answer(status=405), GOOD)
    assert wanted.ask(ep(method="HEAD", status=[405])).passed
    assert len(wanted.asked) == 1


def test_secret_headers_are_sent_but_never_told():
    def fetch(request):
        token = request.headers["Authorization"].split()[1]
        return Answer(200, {"set-cookie": "id=s3cretid", "x": token}, json.dumps({"you": token}), 1)

    asked = ep(
        secret_headers={"Authorization": "Bearer abcdefgh12345678"},
        expect={"you": "somebody"},
        expect_headers={"Set-Cookie": "^$", "X": "^$"},
    )
    (result,) = ask([asked], fetch=fetch)
    told = json.dumps(result.to_dict()) + repr(asked)
    assert result.kind == "expect"
    assert "abcdefgh12345678" not in told
    assert "s3cretid" not in told
    assert "(hidden)" in told


# Real servers on this host


class Handler(http.server.BaseHTTPRequestHandler):
    pages = {
        "/health": (200, {"Content-Type": "application/json"}, '{"status": "healthy", "version": "1.4.2"}'),
        "/ready": (200, {}, "ready"),
        "/live": (200, {}, "alive"),
        "/starting": (200, {}, "starting"),
        "/broken": (500, {}, "ready"),
        "/page": (200, {"Content-Type": "text/html"}, "<html>hello</html>"),
        "/empty": (200, {}, ""),
        "/old": (302, {"Location": "/health"}, ""),
        "/bom": (200, {}, '\ufeff{"a": "\u00fc"}'),
        "/map": (200, {}, '{"services": {"auth": "healthy", "billing": "healthy"}}'),
        "/map-bad": (200, {}, '{"services": {"auth": "healthy", "billing": "down"}}'),
        "/version": (200, {}, "1.4.2\n"),
        "/secure": (301, {"Location": "https://127.0.0.1/secure"}, ""),
        "/secure-308": (308, {"Location": "https://127.0.0.1/secure"}, ""),
        "/secure-elsewhere": (301, {"Location": "https://elsewhere.test/secure"}, ""),
        "/secure-302": (302, {"Location": "https://127.0.0.1/secure"}, ""),
        "/huge": (200, {}, "x" * (3 * 1024 * 1024)),
    }

    def do_GET(self):
        if self.headers["Host"] == "refused.test":
            status, headers, text = 400, {}, "Invalid host header"
        elif self.path == "/echo":
            status, headers, text = 200, {}, json.dumps({name.lower(): value for name, value in self.headers.items()})
        else:
            status, headers, text = self.pages.get(self.path, (404, {}, "nothing here"))
        data = text.encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(OSError):  # the asker may have read enough
                self.wfile.write(data)

    def do_HEAD(self):
        self.do_GET()

    def log_message(self, *_args):
        pass


class Server6(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


class QuietServer(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        pass  # broken handshakes are what the tests make


@contextlib.contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def http_port():
    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield port


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "key.pem"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        ["openssl", "req", "-x509", "-days", "2", "-out", "cert.pem", *key, *name],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="module")
def tls_port(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    server = QuietServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server) as port:
        yield port


@contextlib.contextmanager
def talking(*parts, stay=False):
    """A TCP service that answers everybody with ``parts`` and keeps the connection until the test is over."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    kept = []

    def serve():
        while not over.is_set():
            try:
                connection = listener.accept()[0]
            except socket.timeout:
                continue
            kept.append(connection)
            for part in parts:
                if over.is_set():
                    break
                with contextlib.suppress(OSError):
                    connection.sendall(part)
                over.wait(0.02)
            if not stay:
                with contextlib.suppress(OSError):
                    connection.recv(65536)
                connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        thread.join()
        for connection in kept:
            connection.close()
        listener.close()


def one(url, **raw):
    return ask([endpoint({"url": url, **raw})])[0]


@pytest.mark.requirement("HC-01", "HC-08")
def test_status_is_asserted_and_redirects_are_not_followed(http_port):
    base = f"http://127.0.0.1:{http_port}"
    assert one(f"{base}/health").passed
    for path, status in (("/broken", 500), ("/old", 302), ("/nowhere", 404)):
        result = one(f"{base}{path}")
        assert not result.passed
        assert result.observed == status
        assert result.problem.startswith(f"Application not responding correctly (HTTP {status})")


@pytest.mark.requirement("HC-02")
def test_readiness_wants_status_and_body(http_port):
    base = f"http://127.0.0.1:{http_port}"
    assert one(f"{base}/ready", body="^ready$").passed
    assert one(f"{base}/starting", body="^ready$").kind == "body"
    assert one(f"{base}/broken", body="^ready$").kind == "status"


@pytest.mark.requirement("HC-03")
def test_liveness_wants_status_and_body(http_port):
    base = f"http://127.0.0.1:{http_port}"
    assert one(f"{base}/live", body="^alive$").passed
    assert one(f"{base}/ready", body="^alive$").kind == "body"
    assert one(f"{base}/broken", body="^alive$").kind == "status"


@pytest.mark.requirement("HC-14")
def test_two_endpoints_must_both_succeed(http_port):
    base = f"http://127.0.0.1:{http_port}"
    good, bad = ask([endpoint({"url": f"{base}/health"}), endpoint({"url": f"{base}/api/health"})])
    assert (good.passed, bad.passed, bad.kind) == (True, False, "not_found")


@pytest.mark.requirement("HC-17")
def test_five_urls_and_the_map_of_services(http_port):
    base = f"http://127.0.0.1:{http_port}"
    paths = ("/health", "/ready", "/live", "/page", "/version")
    assert all(result.passed for result in ask([endpoint({"url": base + path}) for path in paths]))
    assert one(f"{base}/map", expect={"services.*": "healthy"}).passed
    result = one(f"{base}/map-bad", expect={"services.*": "healthy"})
    assert result.problem == 'services.billing is "down"; expected "healthy"'
    assert not one(f"{base}/health", expect={"services.*": "healthy"}).passed


@pytest.mark.requirement("HC-18")
def test_version_from_its_own_endpoint_and_from_the_health_json(http_port):
    base = f"http://127.0.0.1:{http_port}"
    for url, path in ((f"{base}/version", ""), (f"{base}/health", "version")):
        assert one(url, version="1.4.2", version_path=path).passed
        result = one(url, version="1.4.3", version_path=path)
        assert (result.kind, result.observed, result.expected) == ("version", "1.4.2", ["1.4.3"])


@pytest.mark.requirement("HC-22")
def test_http_redirects_to_the_same_host_over_https(http_port):
    wanted = {"status": [301, 308], "expect_headers": {"Location": r"^https://127\.0\.0\.1/"}}
    base = f"http://127.0.0.1:{http_port}"
    assert one(f"{base}/secure", **wanted).passed
    assert one(f"{base}/secure-308", **wanted).passed
    assert one(f"{base}/secure-elsewhere", **wanted).kind == "header"
    assert not one(f"{base}/secure-302", **wanted).passed
    assert not one(f"{base}/health", **wanted).passed
    assert one(f"{base}/secure").kind == "redirect_https"


def test_what_is_sent(http_port):
    url = f"http://127.0.0.1:{http_port}/echo"
    expect = {"host": "shop.test", "x-n": "1", "x-t": "t", "accept-encoding": "identity", "connection": "close"}
    assert one(url, headers={"Host": "shop.test", "X-N": 1}, secret_headers={"X-T": "t"}, expect=expect).problem == ""
    assert one(url, expect={"host": f"127.0.0.1:{http_port}"}).problem == ""


def test_proxies_of_the_environment_are_not_used(http_port, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert one(f"http://127.0.0.1:{http_port}/health").passed


def test_bodies(http_port):
    base = f"http://127.0.0.1:{http_port}"
    assert one(f"{base}/bom", expect={"a": "\u00fc"}).passed
    assert one(f"{base}/health", method="HEAD", expect_headers={"content-type": "^application/json"}).passed
    assert "cut at 1 MiB" in one(f"{base}/huge", expect={"a": 1}).problem
    assert one(f"{base}/empty", expect={"a": 1}).problem.startswith("the body is empty")
    page = one(f"{base}/page", expect={"a": 1})
    assert (page.kind, page.fix) == ("not_json", diagnose(page.target, "not_json", answer("<html>")))


def test_host_refused(http_port):
    assert one(f"http://127.0.0.1:{http_port}/health", headers={"Host": "refused.test"}).kind == "host_refused"


def test_ipv6():
    try:
        server = Server6(("::1", 0), Handler)
    except OSError:
        pytest.skip("this host has no IPv6")
    with serving(server) as port:
        assert one(f"http://[::1]:{port}/echo", expect={"host": f"[::1]:{port}"}).problem == ""


def test_refused():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: nobody else gets the port, and it refuses
        result = one(f"http://127.0.0.1:{taken.getsockname()[1]}/")
        assert (result.kind, result.observed) == ("refused", None)
        assert result.evidence == {"error": "connection refused"}


def test_dns():
    for host in ("nosuchhost.invalid", "a..b"):
        assert one(f"http://{host}/", timeout_seconds=30).kind == "dns"


def test_a_resolver_that_does_not_answer_is_not_waited_for(monkeypatch):
    over = threading.Event()

    def silent(*_args, **_more):
        over.wait(30)
        return []

    monkeypatch.setattr(_probe.socket, "getaddrinfo", silent)
    result = one("http://slow.test/", timeout_seconds=0.05)
    over.set()
    assert (result.kind, "no answer within" in result.problem) == ("dns", True)


def test_timeout_of_a_service_that_says_nothing():
    with talking(stay=True) as port:
        for scheme, words in (("http", "no complete answer"), ("https", "no TLS handshake")):
            result = one(f"{scheme}://127.0.0.1:{port}/", timeout_seconds=0.2)
            assert result.kind == "timeout"
            assert f"{words} within 0.2 s" in result.problem


def test_a_slow_drip_does_not_outlast_the_limit():
    # Every byte comes well within the limit of a single read; who waits for the last one sees the service hang up.
    for start in (b"HTTP/1.1 200 OK\r\nX-Drip: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"HTTP"):
        with talking(start, *[b"x"] * 150) as port:
            assert one(f"http://127.0.0.1:{port}/", timeout_seconds=0.3).kind == "timeout"


def test_closed_before_and_within_the_answer():
    with talking() as port:
        assert one(f"http://127.0.0.1:{port}/").kind == "closed"
    with talking(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf") as port:
        result = one(f"http://127.0.0.1:{port}/")
        assert result.kind == "closed"
        assert result.problem.endswith("the connection was closed before the answer was complete")


def test_wrong_port(http_port, tls_port):
    plain_on_tls = one(f"http://127.0.0.1:{tls_port}/health")
    assert (plain_on_tls.kind, "use https" in plain_on_tls.fix) == ("wrong_port", True)
    tls_on_plain = one(f"https://127.0.0.1:{http_port}/health")
    assert (tls_on_plain.kind, "use http" in tls_on_plain.fix) == ("wrong_port", True)
    with talking(b"SSH-2.0-OpenSSH_9.9\r\n") as port:
        other = one(f"http://127.0.0.1:{port}/")
        assert (other.kind, "Another kind of service" in other.fix) == ("wrong_port", True)
        assert "SSH-2.0" in other.problem


def test_tls(tls_port, certificate, tmp_path):
    url = f"https://localhost:{tls_port}/health"
    authority = str(certificate / "cert.pem")
    untrusted = one(url)
    assert (untrusted.kind, "Set ca_path" in untrusted.fix) == ("tls", True)
    assert one(url, ca_path=authority, expect={"status": "healthy"}).problem == ""
    assert one(url, validate_certs=False).passed
    wrong_name = one(f"https://127.0.0.1:{tls_port}/health", ca_path=authority)
    assert (wrong_name.kind, "name in the certificate" in wrong_name.fix) == ("tls", True)
    for path in (tmp_path / "none.pem", certificate / "key.pem"):
        no_authority = one(url, ca_path=str(path))
        assert (no_authority.kind, "ca_path names" in no_authority.fix) == ("tls", True)


def test_a_directory_of_authorities(tls_port, certificate, tmp_path):
    hashed = ["openssl", "x509", "-hash", "-noout", "-in", certificate / "cert.pem"]
    name = subprocess.run(hashed, check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / f"{name}.0").write_bytes((certificate / "cert.pem").read_bytes())
    assert one(f"https://localhost:{tls_port}/health", ca_path=str(tmp_path)).problem == ""
