# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The prober as a process of its own, against servers that answer on 127.0.0.1."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _prober
from ansible_collections.signalbox.runbook.plugins.module_utils._accounting import (
    prober_config,
    read_samples,
    summary,
)

PATIENCE = 20.0


class Server(socketserver.ThreadingTCPServer):
    """Answers requests as ``answer(number, of_connection)`` says: bytes, or None to close without a word."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer, port=0):
        self.answer = answer
        self.number = 0
        self.connections = 0
        self.requests = []
        self.open = set()
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def stop(self):
        """Gone as a killed process is: nobody listens, and every connection is closed."""
        self.shutdown()
        self.server_close()
        for connection in list(self.open):
            with contextlib.suppress(OSError):  # closed by the other side meanwhile
                connection.shutdown(socket.SHUT_RDWR)

    def __exit__(self, *_args):
        self.stop()


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        with self.server.lock:
            self.server.connections += 1
        self.server.open.add(self.request)
        of_connection = 0
        while True:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = self.rfile.readline()
                if not line:
                    return
                head += line
            with self.server.lock:
                number = self.server.number
                self.server.number += 1
                self.server.requests.append(head)
            answer = self.server.answer(number, of_connection)
            of_connection += 1
            if answer is None:
                return
            self.wfile.write(answer)
            if b"connection: close" in answer.lower() or b"connection: close" in head.lower():
                return

    def finish(self):
        self.server.open.discard(self.request)
        try:
            super().finish()
        except OSError:
            return


def http(body=b'{"version": "1.2.0"}', status="200 OK", *headers):
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


def config(tmp_path, url, **options):
    values = {"version_path": "version", "max_seconds": 30, "keep_alive": "true", **options}
    return {
        **prober_config(url, **values),
        "directory": str(tmp_path),
        "started_at": time.time(),
        "parent": None,
        "remove_when_orphaned": False,
    }


def start(configuration):
    process = subprocess.Popen(
        [sys.executable, "-I", _prober.__file__], stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    process.stdin.write(json.dumps(configuration).encode())
    process.stdin.close()
    process.stdin = None
    return process


def finish(process, directory):
    try:
        errors = process.communicate(timeout=PATIENCE)[1]
    finally:
        process.kill()
    assert process.returncode == 0, errors.decode()
    return samples_of(directory), json.loads((directory / "summary.json").read_text())


def samples_of(directory):
    path = directory / "samples.jsonl"
    return read_samples(path.read_text())[0] if path.exists() else []


def ask(tmp_path, url, **options):
    return finish(start(config(tmp_path, url, **options)), tmp_path)


def await_until(true):
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.02)


def test_every_request_is_asked_once_and_written_down(tmp_path):
    with Server(lambda _n, _c: http()) as server:
        samples, end = ask(
            tmp_path, f"http://127.0.0.1:{server.port}/a?b=c", max_requests=60, requests_per_second=200, connections=4
        )
        assert server.number == 60
        assert server.connections <= 4
        assert all(head.startswith(b"GET /a?b=c HTTP/1.1\r\n") for head in server.requests)
    account = summary(samples)
    assert (account["sent"], account["failed"], account["connections_cut"]) == (60, 0, 0)
    assert account["by_version"] == {"1.2.0": 60}
    assert sum(sample.reused for sample in samples) == 60 - server.connections
    assert (end["sent"], end["failed"], end["connections_cut"], end["ended"]) == (60, 0, 0, "max_requests")


def test_requests_are_due_at_a_constant_rate_whatever_the_answers_take(tmp_path):
    with Server(lambda _n, _c: time.sleep(0.1) or http()) as server:
        samples, _end = ask(
            tmp_path, f"http://127.0.0.1:{server.port}/", max_requests=40, requests_per_second=100, connections=20
        )
    starts = sorted(sample.start_s for sample in samples)
    assert [round(after - before, 2) for before, after in zip(starts, starts[1:])] == [0.01] * 39


@pytest.mark.parametrize(("keep_alive", "keeping"), [("false", 0), ("both", 2), ("true", 4)])
def test_keep_alive(tmp_path, keep_alive, keeping):
    with Server(lambda _n, _c: http()) as server:
        samples, _end = ask(
            tmp_path,
            f"http://127.0.0.1:{server.port}/",
            max_requests=40,
            requests_per_second=50,
            connections=4,
            keep_alive=keep_alive,
        )
    assert summary(samples)["failed"] == 0
    closing = sum(b"connection: close\r\n" in head for head in server.requests)
    assert closing == {"false": 40, "true": 0}.get(keep_alive, closing)
    assert 0 < closing < 40 or keep_alive != "both"
    assert server.connections <= closing + keeping
    assert sum(sample.reused for sample in samples) == 40 - server.connections


def test_connection_close_is_honoured(tmp_path):
    with Server(lambda _n, _c: http(b"{}", "200 OK", "Connection: close")) as server:
        samples, _end = ask(tmp_path, f"http://127.0.0.1:{server.port}/", max_requests=20, requests_per_second=100)
    assert server.connections == 20
    assert not any(sample.reused or not sample.ok for sample in samples)


def test_a_reused_connection_closed_without_an_answer_is_failed_and_cut(tmp_path):
    """Every third request on a connection is answered by closing it, as a server that is restarted does."""
    with Server(lambda _n, of_connection: http() if of_connection < 2 else None) as server:
        samples, end = ask(
            tmp_path, f"http://127.0.0.1:{server.port}/", max_requests=30, requests_per_second=100, connections=1
        )
        assert server.number == 30, "a failed request must not be asked again"
        assert server.connections == 10
    account = summary(samples)
    assert (account["failed"], account["connections_cut"], account["failures"]) == (10, 10, {"closed": 10})
    assert all(sample.reused and sample.cut for sample in samples if not sample.ok)
    assert (end["failed"], end["connections_cut"]) == (10, 10)


def test_a_connection_closed_while_idle_is_neither_failed_nor_cut(tmp_path):
    class Closing(Handler):
        def handle(self):
            self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            self.wfile.write(http())

    with Server(None) as server:
        server.RequestHandlerClass = Closing
        samples, _end = ask(
            tmp_path, f"http://127.0.0.1:{server.port}/", max_requests=20, requests_per_second=10, connections=1
        )
    assert (summary(samples)["failed"], summary(samples)["connections_cut"]) == (0, 0)
    assert not any(sample.reused for sample in samples)


def test_failures_are_counted_as_often_as_they_happen(tmp_path):
    with Server(lambda number, _c: http(b"{}", "502 Bad Gateway") if number % 5 == 0 else http()) as server:
        samples, _end = ask(tmp_path, f"http://127.0.0.1:{server.port}/", max_requests=100, requests_per_second=200)
    account = summary(samples)
    assert (account["sent"], account["failed"], account["failures"]) == (100, 20, {"http_502": 20})
    assert account["by_version"] == {"1.2.0": 80}
    assert account["connections_cut"] == 0


@pytest.mark.parametrize(
    ("answer", "ok", "kind", "version"),
    [
        (http(b"", "204 No Content"), True, "", None),
        (http(b"", "301 Moved Permanently", "Location: /x"), True, "", None),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", True, "", None),
        (http(b'{"version": 7}'), True, "", "7"),
        (http(b"not json"), True, "", None),
        (http(b'{"version": "1"}', "404 Not Found"), False, "http_404", "1"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + http(), True, "", "1.2.0"),
        (
            b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n{"ver\r\nc\r\nsion": "2.0"\r\n'
            b"1\r\n}\r\n0\r\nTrailer: x\r\n\r\n",
            True,
            "",
            "2.0",
        ),
        (b'HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n{"version": "old"}', True, "", "old"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\nshort", False, "truncated", None),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Le", False, "truncated", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", False, "malformed", None),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", False, "malformed", None),
    ],
)
def test_what_an_answer_counts_as(tmp_path, answer, ok, kind, version):
    with Server(lambda _n, _c: answer) as server:
        samples, _end = ask(
            tmp_path, f"http://127.0.0.1:{server.port}/", max_requests=3, requests_per_second=50, connections=2
        )
    assert [(s.ok, s.kind, s.version, s.cut) for s in samples] == [(ok, kind, version, kind == "truncated")] * 3


def test_a_large_answer_is_read_to_its_end(tmp_path):
    with Server(lambda _n, _c: http(b"x" * 5_000_000)) as server:
        samples, _end = ask(
            tmp_path, f"http://127.0.0.1:{server.port}/", max_requests=4, requests_per_second=10, connections=1
        )
    assert [sample.ok for sample in samples] == [True] * 4
    assert server.connections == 1


def test_timeout(tmp_path):
    with Server(lambda _n, _c: time.sleep(1.0) or http()) as server:
        samples, _end = ask(
            tmp_path,
            f"http://127.0.0.1:{server.port}/",
            max_requests=4,
            requests_per_second=50,
            connections=4,
            timeout_seconds=0.3,
        )
    assert [(sample.kind, sample.cut) for sample in samples] == [("timeout", False)] * 4
    assert all(sample.duration_ms >= 290 for sample in samples)


def test_requests_that_no_client_was_free_for_are_not_forgotten(tmp_path):
    with Server(lambda _n, _c: time.sleep(0.5) or http()) as server:
        samples, _end = ask(
            tmp_path,
            f"http://127.0.0.1:{server.port}/",
            max_requests=200,
            requests_per_second=1000,
            connections=1,
            timeout_seconds=0.3,
        )
        assert server.number < 200, "it was never too late to ask: this test shows nothing"
    account = summary(samples)
    assert (account["sent"], account["failures"]) == (200, {"timeout": 200})
    assert all(sample.duration_ms >= 290 for sample in samples)


def test_refused(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    samples, end = ask(tmp_path, f"http://127.0.0.1:{port}/", max_requests=5, requests_per_second=50)
    assert [sample.kind for sample in samples] == ["refused"] * 5
    assert (end["sent"], end["failed"], end["connections_cut"]) == (5, 5, 0)


def test_the_gap_is_at_least_as_long_as_the_server_was_away(tmp_path):
    server = Server(lambda _n, _c: http())
    process = start(config(tmp_path, f"http://127.0.0.1:{server.port}/", requests_per_second=100))
    await_until(lambda: len(samples_of(tmp_path)) > 20)
    server.stop()
    gone = time.monotonic()
    time.sleep(0.7)
    before = len(samples_of(tmp_path))
    pause_ms = (time.monotonic() - gone) * 1000
    with Server(lambda _n, _c: http(), server.port):
        await_until(lambda: sum(sample.ok for sample in samples_of(tmp_path)[before:]) > 20)
        process.send_signal(signal.SIGTERM)
        samples, end = finish(process, tmp_path)
    account = summary(samples)
    assert account["longest_gap_ms"] >= pause_ms
    assert account["failures"]["refused"] > 0
    assert end["ended"] == "stopped"


def test_sigterm_finishes_what_is_under_way(tmp_path):
    asked = threading.Event()
    with Server(lambda _n, _c: asked.set() or time.sleep(0.5) or http()) as server:
        process = start(config(tmp_path, f"http://127.0.0.1:{server.port}/", requests_per_second=10))
        assert asked.wait(PATIENCE)
        process.send_signal(signal.SIGTERM)
        samples, end = finish(process, tmp_path)
        assert len(samples) == server.number >= 1
    assert all(sample.ok for sample in samples)
    assert (end["sent"], end["ended"]) == (len(samples), "stopped")


def test_max_seconds(tmp_path):
    with Server(lambda _n, _c: http()) as server:
        samples, end = ask(
            tmp_path, f"http://127.0.0.1:{server.port}/", max_seconds=0.5, requests_per_second=20, connections=2
        )
    assert len(samples) == 11
    assert end["ended"] == "max_seconds"


def test_samples_can_be_read_while_it_runs(tmp_path):
    with Server(lambda _n, _c: http()) as server:
        process = start(config(tmp_path, f"http://127.0.0.1:{server.port}/", requests_per_second=50))
        await_until(lambda: len(samples_of(tmp_path)) > 10)
        assert process.poll() is None
        assert not (tmp_path / "summary.json").exists()
        assert (tmp_path / "samples.jsonl").stat().st_mode & 0o077 == 0
        process.send_signal(signal.SIGTERM)
        finish(process, tmp_path)


def test_headers_are_sent_and_appear_nowhere_else(tmp_path):
    with Server(lambda _n, _c: http()) as server:
        url = f"http://127.0.0.1:{server.port}/"
        headers = {"Authorization": "Bearer s3cr3t-token", "Host": "shop.example.com"}
        process = start(config(tmp_path, url, headers=headers, requests_per_second=50))
        await_until(lambda: samples_of(tmp_path))
        with open(f"/proc/{process.pid}/cmdline", "rb") as stream:
            assert b"s3cr3t" not in stream.read()
        process.send_signal(signal.SIGTERM)
        finish(process, tmp_path)
        assert b"authorization: Bearer s3cr3t-token\r\n" in server.requests[0]
        assert b"host: shop.example.com\r\n" in server.requests[0]
    assert not [path for path in tmp_path.iterdir() if b"s3cr3t" in path.read_bytes()]


@pytest.mark.parametrize("remove", [False, True])
def test_it_ends_when_its_parent_is_gone(tmp_path, remove):
    """The parent stays a zombie for as long as this test does not reap it: gone all the same."""
    directory = tmp_path / "probe"
    directory.mkdir()
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with Server(lambda number, _c: http() if number < 10 else time.sleep(30)) as server:
        configuration = config(directory, f"http://127.0.0.1:{server.port}/", requests_per_second=50, connections=4)
        configuration["parent"] = {"pid": parent.pid, "start_time": _prober.process_start(parent.pid)}
        configuration["remove_when_orphaned"] = remove
        process = start(configuration)
        try:
            await_until(lambda: len(samples_of(directory)) >= 10)
            assert process.poll() is None
            os.kill(parent.pid, signal.SIGKILL)
            process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            parent.kill()
            parent.wait()
    assert process.returncode == 0
    if remove:
        assert not directory.exists()
    else:
        assert json.loads((directory / "summary.json").read_text())["ended"] == "parent_gone"


def test_another_process_with_the_pid_of_the_parent_is_not_the_parent(tmp_path):
    with Server(lambda _n, _c: http()) as server:
        configuration = config(tmp_path, f"http://127.0.0.1:{server.port}/")
        configuration["parent"] = {"pid": os.getpid(), "start_time": _prober.process_start(os.getpid()) - 1}
        _samples, end = finish(start(configuration), tmp_path)
    assert end["ended"] == "parent_gone"


def test_process_start():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    first = _prober.process_start(process.pid)
    assert isinstance(first, int)
    assert first == _prober.process_start(process.pid) >= _prober.process_start(os.getpid())
    process.communicate(b"\n")
    assert _prober.process_start(process.pid) is None


def test_a_full_or_missing_directory_ends_it_with_its_reason(tmp_path):
    with Server(lambda _n, _c: http()) as server:
        process = start(config(tmp_path / "missing", f"http://127.0.0.1:{server.port}/"))
        try:
            errors = process.communicate(timeout=PATIENCE)[1]
        finally:
            process.kill()
    assert process.returncode == 1
    assert b"FileNotFoundError" in errors


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command")
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        + ["-keyout", str(directory / "key"), "-out", str(directory / "cert")],
        check=True,
        capture_output=True,
    )
    return directory


@pytest.mark.parametrize(("validate", "failures"), [(True, {"certificate": 6}), (False, {})])
def test_https(tmp_path, certificate, validate, failures):
    class Tls(Handler):
        def setup(self):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate / "cert", certificate / "key")
            self.request = context.wrap_socket(self.request, server_side=True)
            super().setup()

    with Server(lambda _n, _c: http()) as server:
        server.RequestHandlerClass = Tls
        samples, _end = ask(
            tmp_path,
            f"https://127.0.0.1:{server.port}/",
            max_requests=6,
            requests_per_second=20,
            connections=2,
            validate_certs=validate,
        )
    account = summary(samples)
    assert (account["sent"], account["failures"]) == (6, failures)
    assert sum(sample.reused for sample in samples) == (0 if validate else 4)
