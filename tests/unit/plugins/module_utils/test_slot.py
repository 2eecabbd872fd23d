# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import sys
import threading
import time
import urllib.request

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.signalbox.runbook.plugins.module_utils import _release, _slot
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._files import tail
from ansible_collections.signalbox.runbook.plugins.module_utils._slot import Slot, service
from ansible_collections.signalbox.runbook.plugins.module_utils._supervisor import Supervisor
from ansible_collections.signalbox.runbook.plugins.modules import slot as slot_module
from ansible_collections.signalbox.runbook.plugins.modules import target_info

# One application for all tests; the file "mode" beside it says how it behaves.
APP = """
import http.server, json, os, signal, sys, time
mode = open("mode").read()
def note(what):
    with open(EVENTS, "a") as events:
        events.write(what + " " + NAME + "\\n")
note("start")
print("starting", NAME, "in", os.environ["SLOT"], "at", os.environ["DEPLOYED_AT"], flush=True)
if mode == "crash":
    sys.exit("no such table: users")
def term(*_):
    note("stop")
    os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "stubborn" else term)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"status": "ok", "version": VERSION, "pid": os.getpid()}).encode()
        self.send_response(503 if mode in ("sick", "dying") else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        if mode in ("fleeting", "dying"):
            print("that was all", flush=True)
            os._exit(4)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
if mode == "stray" and os.fork() == 0:
    os.setsid()
    time.sleep(600)
server.serve_forever()
"""


def free_ports(count):
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.socket()) for _time in range(count)]
        for server in servers:
            server.bind(("127.0.0.1", 0))
        return [server.getsockname()[1] for server in servers]


def seal(tree):
    """The manifest of a release made by hand."""
    head = {"format": 1, "id": tree.name, "version": "1.0", "digest": "", "made_at": "", "services": {}}
    (tree / "manifest.json").write_text(json.dumps({**head, "files": _release._inventory(tree)}))


class Place:
    """A target's home with staged releases, and slots of one application on it."""

    def __init__(self, home, supervisord):
        self.home = home
        self.supervisord = supervisord
        self.client = supervisord.client
        self.conf_dir = supervisord.conf_dir
        self.events = home / "events"
        self.ports = dict(zip(("api", "web", "green"), free_ports(3)))
        home.mkdir()

    def stage(self, release="1.0-aaaa", **modes):
        for name, mode in modes.items():
            directory = self.home / "releases" / release / name
            (directory / "app").mkdir(parents=True)
            (directory / "app" / "mode").write_text(mode)
            heading = f"NAME, VERSION, EVENTS = {name!r}, {release.split('-')[0]!r}, {str(self.events)!r}\n"
            (directory / "app" / "app.py").write_text(heading + APP)
            (directory / "run").write_text(f"exec {sys.executable} -S app.py\n")
        seal(self.home / "releases" / release)
        return {"id": release, "version": release.split("-")[0]}

    def slot(self, name="blue", **more):
        return Slot(self.home, "shop", name, self.client, self.conf_dir, interval_seconds=0.05, **more)

    def services(self, *names, **more):
        limits = {"start_seconds": 60, "stop_seconds": 5, "drain_seconds": 1}
        url = "http://127.0.0.1:{port}/health"
        return [
            {
                "name": name,
                "port": self.ports[name],
                "probes": [{"name": f"{name} health", "url": url, "expect": {"status": "ok"}}],
                **limits,
                **more,
            }
            for name in names
        ]

    def happened(self):
        return self.events.read_text().splitlines() if self.events.exists() else []

    def files(self):
        return sorted(path.name for path in [*self.conf_dir.iterdir(), *(self.home / "slots").glob("*")])

    def answer(self, port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            return json.load(answer)


@pytest.fixture
def place(tmp_path, supervisord):
    return Place(tmp_path / "home", supervisord)


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.1)


def fails(call, *arguments, **more):
    with pytest.raises(RunbookError) as caught:
        call(*arguments, **more)
    return str(caught.value), caught.value.details


# -- start and stop ---------------------------------------------------------------------------------------------


@pytest.mark.requirement("REL-10")
def test_a_slot_lives_from_start_to_stop(place):
    release = place.stage(api="well", web="well")
    services = place.services("api", "web")
    blue = place.slot()
    assert blue.info() == {"release": "", "version": "", "services": {}}

    assert blue.start(release, services, check_mode=True)["changed"] is True
    assert not (place.home / "slots").exists()

    started = blue.start(release, services)
    assert started["changed"] is True
    assert [(one["service"], one["passed"], one["target"]) for one in started["answers"]] == [
        (name, True, f"http://127.0.0.1:{place.ports[name]}/health") for name in ("api", "web")
    ]
    assert place.happened() == ["start api", "start web"]
    assert place.files() == ["blue.json", "shop-api-blue.conf", "shop-web-blue.conf"]
    for path in [*place.conf_dir.iterdir(), place.home / "slots" / "blue.json"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    info = blue.info(lines=5)
    assert (info["release"], info["version"]) == ("1.0-aaaa", "1.0")
    assert [(name, one["state"], one["port"]) for name, one in info["services"].items()] == [
        (name, "RUNNING", place.ports[name]) for name in ("api", "web")
    ]
    assert info["services"]["api"]["pid"] == place.answer(place.ports["api"])["pid"]
    assert time.strptime(info["services"]["api"]["since"], "%Y-%m-%dT%H:%M:%SZ")
    assert info["log"]["api"][0].startswith("starting api in blue at 20")

    again = blue.start(release, services)
    assert (again["changed"], [one["passed"] for one in again["answers"]]) == (False, [True, True])
    assert place.happened() == ["start api", "start web"]

    assert blue.stop(check_mode=True)["changed"] is True
    stopped = blue.stop()
    assert (stopped["changed"], stopped["connections_cut"]) == (True, 0)
    assert stopped["log"]["web"][-1].startswith("starting web")
    assert place.happened()[2:] == ["stop web", "stop api"]
    assert place.files() == []
    assert place.client.info("shop-api-blue") is None
    assert blue.info()["release"] == ""

    assert blue.stop(check_mode=True)["changed"] is False
    assert blue.stop(services) == {"changed": False, "connections_cut": 0, "log": {}}


def test_blue_and_green_run_side_by_side(place):
    old, new = place.stage("1.0-aaaa", api="well"), place.stage("2.0-bbbb", api="well")
    place.slot("blue").start(old, place.services("api"))
    place.slot("green").start(new, place.services("api", port=place.ports["green"]), live_slot="blue")
    assert place.answer(place.ports["api"])["version"] == "1.0"
    assert place.answer(place.ports["green"])["version"] == "2.0"
    place.slot("blue").stop(live_slot="green")
    assert place.answer(place.ports["green"])["version"] == "2.0"
    assert place.slot("blue").info()["services"] == {}
    place.slot("green").stop()


def test_another_release_replaces_what_the_slot_runs(place):
    old = place.stage("1.0-aaaa", api="well", web="well")
    new = place.stage("2.0-bbbb", api="well")
    blue = place.slot()
    blue.start(old, place.services("api", "web"))
    assert blue.start(new, place.services("api"))["changed"] is True
    assert place.answer(place.ports["api"])["version"] == "2.0"
    assert place.files() == ["blue.json", "shop-api-blue.conf"]
    assert place.client.info("shop-web-blue") is None
    blue.stop()


@pytest.mark.requirement("BG-13")
def test_one_service_joins_and_leaves_the_others_of_its_slot(place):
    """What runs in one slot only: the worker, while the api beside it keeps its process."""
    release = place.stage(api="well", web="well")
    blue = place.slot()
    both = place.services("api", "web")
    blue.start(release, both[:1])
    pid = blue.info()["services"]["api"]["pid"]
    joined = blue.start(release, both, only=["web"])
    assert joined["changed"] and {answer["service"] for answer in joined["answers"]} == {"web"}
    assert not blue.start(release, both, only=["web"])["changed"]
    assert not blue.prove(release, both)["changed"]
    assert [one["state"] for one in blue.info()["services"].values()] == ["RUNNING", "RUNNING"]
    told = blue.survey([{**both[0], "ports": None}, {**both[1], "ports": None, "exclusive": True}], True)
    assert told["running"] and told["exclusive"] == {"web": True}
    assert blue.stop(both, only=["web"], check_mode=True)["changed"]
    assert blue.stop(both, only=["web"])["changed"]
    assert not blue.stop(both, only=["web"])["changed"]
    told = blue.survey([{**both[0], "ports": None}, {**both[1], "ports": None, "exclusive": True}], True)
    assert told["running"] and told["healthy"] and told["exclusive"] == {"web": False}
    assert blue.info()["services"]["api"]["pid"] == pid and list(blue.info()["services"]) == ["api"]
    assert not any(path.name.startswith("shop-web") for path in place.conf_dir.iterdir())
    with pytest.raises(RunbookError, match=r"blue holds 1\.0-aaaa, not 2\.0-bbbb: somebody changed it during the run"):
        blue.start(place.stage("2.0-bbbb", api="well", web="well"), both, only=["web"])
    assert blue.stop()["changed"] and not blue.stop(both, only=["web"])["changed"]


def test_a_service_that_joins_and_is_ill_leaves_the_others_alone(place):
    release = place.stage(api="well", web="crash")
    blue = place.slot()
    both = place.services("api", "web")
    blue.start(release, both[:1])
    pid = blue.info()["services"]["api"]["pid"]
    with pytest.raises(RunbookError, match=r"web of 1\.0-aaaa is not healthy in blue"):
        blue.start(release, both, only=["web"])
    assert blue.stop(both, only=["web"])["changed"]
    assert {name: one["pid"] for name, one in blue.info()["services"].items()} == {"api": pid}
    blue.stop()


def test_a_service_on_another_port_is_started_anew(place):
    release = place.stage(api="well")
    blue = place.slot()
    blue.start(release, place.services("api"))
    assert blue.start(release, place.services("api", port=place.ports["green"]))["changed"] is True
    assert place.answer(place.ports["green"])["version"] == "1.0"
    blue.stop()


def test_the_slot_that_takes_traffic_is_not_touched(place):
    release = place.stage(api="well")
    blue = place.slot()
    blue.start(release, place.services("api"))
    message, _details = fails(blue.stop, live_slot="blue")
    assert message == "blue takes the traffic, so it is not stopped; shift the traffic away first"
    message, _details = fails(blue.start, release, place.services("api"), live_slot="blue")
    assert "not started anew" in message
    assert place.happened() == ["start api"]
    blue.stop(live_slot="green")


def test_awkward_home_and_no_probes(place, supervisord, tmp_path):
    other = Place(tmp_path / "100% ours", supervisord)
    release = other.stage(api="well")
    blue = other.slot()
    assert blue.start(release, other.services("api", probes=[]))["answers"] == []
    assert blue.info(lines=1)["log"]["api"][0].startswith("starting api")
    blue.stop()


def test_services_come_back_after_a_reboot(place):
    release = place.stage(api="well")
    blue = place.slot()
    blue.start(release, place.services("api"))
    place.supervisord.stop()
    assert fails(blue.start, release, place.services("api"))[0].startswith("supervisord does not answer")
    place.supervisord.start()
    until(lambda: not blue.start(release, place.services("api"), check_mode=True)["changed"])
    assert place.happened() == ["start api", "stop api", "start api"]
    blue.stop()


# -- starts that fail -------------------------------------------------------------------------------------------


def test_a_crash_at_once_ends_the_waiting(place):
    release = place.stage(api="well", web="crash")
    blue = place.slot()
    message, details = fails(blue.start, release, place.services("api", "web", start_seconds=3600))
    assert message.startswith("web of 1.0-aaaa is not healthy in blue: its process ended")
    assert message.endswith("Its last line: no such table: users")
    assert details["service"] == "web"
    assert details["diagnosis"][0]["kind"] == "process"
    assert details["log"]["web"][-1] == "no such table: users"
    assert details["states"]["api"] == "RUNNING"
    assert details["changed"] is True
    # It is left to be looked at, and nothing of it is left after a stop.
    assert blue.info()["release"] == "1.0-aaaa"
    assert blue.stop()["changed"] is True
    assert place.files() == []
    assert place.client.info("shop-web-blue") is None


def test_a_crash_after_a_while_ends_the_waiting(place):
    release = place.stage(api="dying")
    _message, details = fails(place.slot().start, release, place.services("api", start_seconds=3600))
    assert details["diagnosis"][0]["kind"] == "process"
    assert "that was all" in details["log"]["api"]
    place.slot().stop()


def test_a_process_that_passes_and_dies_has_not_started(place):
    release = place.stage(api="fleeting")
    message, details = fails(place.slot().start, release, place.services("api"))
    assert "its process" in message
    assert [one["passed"] for one in details["answers"]] == [True]
    place.slot().stop()


def test_a_service_that_dies_while_later_ones_start_fails_the_start(place):
    release = place.stage(api="well", web="well")
    blue = place.slot()
    victims = []

    def ask(endpoints, **more):
        results = _slot.ask(endpoints, **more)
        if "web" in endpoints[0].name:
            victims.append(place.client.info("shop-api-blue")["pid"])
            os.kill(victims[0], signal.SIGKILL)
        return results

    blue.ask = ask
    message, details = fails(blue.start, release, place.services("api", "web"))
    assert details["service"] == "api"
    assert len(victims) == 1
    assert message.startswith("api of 1.0-aaaa is not healthy in blue: its process")
    blue.stop()


def test_what_never_gets_healthy_is_diagnosed_and_later_services_are_not_started(place):
    release = place.stage(api="sick", web="well")
    blue = place.slot()
    message, details = fails(blue.start, release, place.services("api", "web", start_seconds=2))
    assert "503" in message
    assert details["diagnosis"][0]["name"] == "api health"
    assert details["diagnosis"][0]["kind"] == "status"
    assert details["diagnosis"][0]["fix"]
    assert list(details["states"]) == ["api"]
    assert place.happened() == ["start api"]
    blue.stop()


def test_the_log_of_a_failure_begins_with_this_start(place):
    blue = place.slot()
    blue.start(place.stage("1.0-aaaa", api="well"), place.services("api"))
    blue.stop()
    _message, details = fails(blue.start, place.stage("2.0-bbbb", api="crash"), place.services("api"))
    assert len([line for line in details["log"]["api"] if line.startswith("starting api")]) == 1
    blue.stop()


def test_a_port_of_somebody_else_is_named_before_anything_starts(place):
    release = place.stage(api="well", web="well")
    with socket.socket() as other:
        other.bind(("127.0.0.1", place.ports["web"]))
        other.listen()
        message, details = fails(place.slot().start, release, place.services("api", "web"))
    assert message.startswith(f"port {place.ports['web']} of web is already in use by process {os.getpid()} (")
    assert len(details["ports"]) == 1
    assert place.happened() == []
    assert place.files() == []


def test_a_release_that_is_not_staged_is_refused(place):
    release = place.stage(api="well")
    blue = place.slot()
    assert "has no service web" in fails(blue.start, release, place.services("api", "web"))[0]
    (place.home / "releases" / "1.0-aaaa" / "manifest.json").unlink()
    assert "is not whole" in fails(blue.start, release, place.services("api"))[0]
    assert "release.id" in fails(blue.start, {"id": "../x", "version": "1"}, place.services("api"))[0]


def test_what_a_killed_start_left_is_replaced(place):
    release = place.stage(api="well")
    blue = place.slot()
    wanted = [service(one) for one in place.services("api")]
    blue._write({**release, "version": "1.0"}, wanted, wanted)  # killed right here
    assert blue.start(release, place.services("api"))["changed"] is True
    # And the other way round: the record is lost, the process is not.
    (place.home / "slots" / "blue.json").unlink()
    first = place.client.info("shop-api-blue")["pid"]
    assert blue.start(release, place.services("api"))["changed"] is True
    assert place.client.info("shop-api-blue")["pid"] != first
    blue.stop()


def test_a_program_of_the_same_name_of_another_home_is_not_touched(place, supervisord, tmp_path):
    place.slot().start(place.stage(api="well"), place.services("api"))
    other = Place(tmp_path / "other", supervisord)
    for call in (other.slot().stop, lambda services: other.slot().start(other.stage(api="well"), services)):
        assert "another application has the name shop-api-blue" in fails(call, other.services("api"))[0]
    assert place.answer(place.ports["api"])["version"] == "1.0"
    place.slot().stop()


# -- stops ------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("REL-10", "TRF-06")
def test_a_connection_that_ends_in_time_is_not_cut(place):
    blue = place.slot()
    blue.start(place.stage(api="well"), place.services("api"))
    client = socket.create_connection(("127.0.0.1", place.ports["api"]))
    seen = []

    def sleep(seconds):  # the first look found the connection; now it ends by itself
        seen.append(place.happened()[-1])
        client.close()
        time.sleep(seconds)

    blue.sleep = sleep
    stopped = blue.stop(place.services("api", drain_seconds=60))
    assert stopped["connections_cut"] == 0
    assert seen[0] == "start api"  # it was still running then
    assert place.happened()[-1] == "stop api"


@pytest.mark.requirement("REL-10", "TRF-06")
def test_a_connection_that_does_not_end_is_cut_and_counted(place):
    blue = place.slot()
    blue.start(place.stage(api="well"), place.services("api"))
    with socket.create_connection(("127.0.0.1", place.ports["api"])) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        assert blue.stop()["connections_cut"] == 1
    assert blue.info()["release"] == ""


@pytest.mark.requirement("REL-10")
def test_a_process_that_ignores_the_signal_is_killed(place):
    blue = place.slot()
    blue.start(place.stage(api="stubborn"), place.services("api", stop_seconds=1))
    pid = place.client.info("shop-api-blue")["pid"]
    assert blue.stop()["changed"] is True
    assert place.happened() == ["start api"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_cannot_be_stopped_is_an_error_in_bounded_time(place):
    blue = place.slot()
    blue.start(place.stage(api="stubborn"), place.services("api", stop_seconds=60))
    begin = time.monotonic()
    blue.clock = lambda: begin + (time.monotonic() - begin) * 100
    message, details = fails(blue.stop)
    assert "api in blue is still STOPPING after 70 s" in message
    assert details["service"] == "api"
    os.kill(place.client.info("shop-api-blue")["pid"], signal.SIGKILL)
    blue.clock = time.monotonic
    assert blue.stop()["changed"] is True


def test_a_stray_process_that_keeps_the_port_is_named(place):
    blue = place.slot()
    blue.start(place.stage(api="stray"), place.services("api"))
    begin = time.monotonic()
    blue.clock = lambda: begin + (time.monotonic() - begin) * 20
    for _again in range(2):  # until somebody ends it
        message, _details = fails(blue.stop)
        assert f"port {place.ports['api']} of api is still held by process " in message
    pid = int(message.split("process ")[1].split()[0])
    os.kill(pid, signal.SIGKILL)
    assert blue.stop()["changed"] is True
    assert place.files() == []


def test_a_foreign_process_on_the_port_does_not_keep_a_slot_from_stopping(place):
    blue = place.slot()
    place.stage(api="crash")
    fails(blue.start, {"id": "1.0-aaaa", "version": "1.0"}, place.services("api"))
    with socket.socket() as other:
        other.bind(("127.0.0.1", place.ports["api"]))
        other.listen()
        assert blue.stop()["changed"] is True


def test_a_crash_loop_is_stopped(place):
    blue = place.slot()
    fails(blue.start, place.stage(api="crash"), place.services("api"))
    assert blue.stop()["changed"] is True
    assert place.client.info("shop-api-blue") is None


# -- pure parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "lines", "start", "expected"),
    [
        (b"", 3, 0, []),
        (b"a\nb\nc\nd\n", 3, 0, ["b", "c", "d"]),
        (b"a\nb\nc", 9, 2, ["b", "c"]),
        (b"a\nb\n", 9, 4, []),
        (b"a\nb\n", 9, 400, ["a", "b"]),  # rotated since
        (b"a\n", 0, 0, []),
        (b"\xff\xfe ok\n", 1, 0, ["\ufffd\ufffd ok"]),
        (b"x" * 200_000 + b"\nend\n", 1, 0, ["end"]),
    ],
)
def test_the_end_of_a_log(tmp_path, content, lines, start, expected):
    (tmp_path / "log").write_bytes(content)
    assert tail(tmp_path / "log", lines, start) == expected


def test_the_end_of_a_log_is_bounded(tmp_path):
    (tmp_path / "log").write_bytes(b"x" * 1_000_000)
    assert [len(line) for line in tail(tmp_path / "log")] == [64 * 1024]
    assert tail(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"name": "../api", "port": 1}, r"name '\.\./api' must be letters"),
        ({"port": 1}, "name None"),
        ({"name": "api", "port": 0}, "api: port 0 must be a number from 1 to 65535"),
        ({"name": "api", "port": "80"}, "api: port '80'"),
        ({"name": "api", "port": 80, "stop_seconds": -1}, "stop_seconds -1 must be"),
        ({"name": "api", "port": 80, "drain_seconds": float("inf")}, "drain_seconds inf must be"),
        ({"name": "api", "port": 80, "probes": [{"name": "x"}]}, "url"),
    ],
)
def test_wrong_services_are_refused(raw, message):
    with pytest.raises(RunbookError, match=message):
        service(raw)


def unreachable(tmp_path, **more):
    arguments = {"application": "shop", "name": "blue", **more}
    return Slot(tmp_path, manager=Supervisor(str(tmp_path / "s")), conf_dir=tmp_path, **arguments)


@pytest.mark.parametrize(
    ("services", "message"),
    [
        ([], "services is empty"),
        ([{"name": "a", "port": 1}, {"name": "a", "port": 2}], "name a is given more than once"),
        ([{"name": "a", "port": 1}, {"name": "b", "port": 1}], "port 1 is given more than once"),
    ],
)
def test_wrong_lists_of_services_are_refused(tmp_path, services, message):
    with pytest.raises(RunbookError, match=message):
        unreachable(tmp_path).start({"id": "1", "version": "1"}, services)


def test_wrong_names_are_refused(tmp_path):
    with pytest.raises(RunbookError, match="slot 'red' must be one of blue, green"):
        unreachable(tmp_path, name="red")
    with pytest.raises(RunbookError, match="application 'a/b'"):
        unreachable(tmp_path, application="a/b")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"services": [{"name": "x"}]}', "3"])
def test_a_damaged_record_is_named(tmp_path, content):
    (tmp_path / "slots").mkdir()
    (tmp_path / "slots" / "blue.json").write_text(content)
    with pytest.raises(RunbookError, match=r"blue\.json is damaged .*then remove that file"):
        unreachable(tmp_path).info()
    assert "is damaged" in unreachable(tmp_path).survey([], answering=False)["problem"]


def test_a_record_of_another_application_is_refused(tmp_path):
    (tmp_path / "slots").mkdir()
    record = {"application": "till", "release": "1", "version": "1", "user": "", "services": []}
    (tmp_path / "slots" / "blue.json").write_text(json.dumps(record))
    with pytest.raises(RunbookError, match="belongs to till, not to shop"):
        unreachable(tmp_path).stop()


# -- the modules ------------------------------------------------------------------------------------------------


@pytest.fixture
def run(place, capsys):
    def run_module(module, **arguments):
        arguments = {
            "home": str(place.home),
            "application": "shop",
            "supervisor_socket": str(place.supervisord.socket),
            "supervisor_conf_dir": str(place.conf_dir),
            **arguments,
        }
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return run_module


def test_modules_start_tell_and_stop(place, run):
    release, services = place.stage(api="well"), place.services("api")
    start = {"slot": "blue", "fence": 3, "release": release, "services": services}
    empty = {"slot": "blue", "release": "", "version": "", "services": {}}
    full = {
        "slot": "blue",
        "release": "1.0-aaaa",
        "version": "1.0",
        "services": {"api": {"port": place.ports["api"], "state": "RUNNING"}},
    }
    predicted = run(slot_module, **start, _ansible_check_mode=True)
    assert (predicted["changed"], predicted["diff"]) == (True, {"before": empty, "after": full})
    assert not (place.home / "fence").exists()

    started = run(slot_module, **start)
    assert (started["changed"], started["diff"]) == (True, {"before": empty, "after": full})
    assert (place.home / "fence").read_text() == "3\n"
    again = run(slot_module, **start)
    assert (again["changed"], again["diff"]) == (False, {"before": full, "after": full})

    for check_mode in (True, False):
        late = run(slot_module, **{**start, "fence": 2}, _ansible_check_mode=check_mode)
        assert (late["failed"], late["fenced"]) == (True, True)

    asked = [{"name": "api", "ports": {"blue": 1, "green": place.ports["green"]}, "probes": services[0]["probes"]}]
    with socket.socket() as other:
        other.bind(("127.0.0.1", place.ports["green"]))
        other.listen()
        told = run(target_info, services=asked, log_lines=3)
    blue, green = told["slots"]["blue"], told["slots"]["green"]
    assert (blue["release"], blue["running"], blue["healthy"], blue["busy"]) == ("1.0-aaaa", True, True, [])
    assert [(one["service"], one["passed"]) for one in blue["answers"]] == [("api", True)]
    assert blue["log"]["api"][0].startswith("starting api")
    assert (green["release"], green["running"], green["healthy"], green["answers"]) == ("", False, False, [])
    assert green["busy"][0].startswith(f"port {place.ports['green']} of api is already in use by process {os.getpid()}")
    assert told["supervisor"]["ok"] is True
    assert (told["fence"], told["changed"]) == (3, False)
    assert told["disk_total_bytes"] >= told["disk_free_bytes"] > 0

    stop = {"slot": "blue", "fence": 3, "state": "stopped"}
    assert run(slot_module, **stop, _ansible_check_mode=True)["diff"] == {"before": full, "after": empty}
    assert run(slot_module, **stop)["diff"] == {"before": full, "after": empty}
    assert run(slot_module, **stop)["changed"] is False


def test_target_info_tells_what_is_ill(place, run):
    services = place.services("api", start_seconds=1)
    failed = run(slot_module, slot="blue", fence=1, release=place.stage(api="sick"), services=services)
    assert (failed["failed"], failed["service"]) == (True, "api")
    assert failed["diagnosis"][0]["kind"] == "status"
    asked = [{"name": "api", "probes": services[0]["probes"]}]
    until(lambda: place.slot().info()["services"]["api"]["state"] == "RUNNING")
    blue = run(target_info, services=asked)["slots"]["blue"]
    assert (blue["running"], blue["healthy"], blue["answers"][0]["kind"]) == (True, False, "status")

    place.supervisord.stop()
    told = run(target_info, services=asked)
    assert told["supervisor"]["ok"] is False
    assert "does not answer" in told["supervisor"]["problem"]
    blue = told["slots"]["blue"]
    assert (blue["release"], blue["services"]["api"]["state"]) == ("1.0-aaaa", "UNKNOWN")
    assert (blue["running"], blue["healthy"], blue["answers"]) == (False, False, [])
    place.supervisord.start()


def test_target_info_of_a_new_host(place, run, tmp_path):
    told = run(target_info, home=str(tmp_path / "not" / "there"), supervisor_conf_dir=str(tmp_path / "none"))
    assert (told["fence"], told["releases"], told["foreign"]) == (0, [], [])
    assert told["slots"]["blue"]["services"] == {}
    assert told["supervisor"]["ok"] is False
    assert "is no directory that this user may write to" in told["supervisor"]["problem"]
    assert not (tmp_path / "not").exists()


def test_two_changes_of_one_home_wait_for_each_other(place, run):
    """The lock is held until the slot is proven, so a second start finds it standing."""
    release, services = place.stage(api="well"), place.services("api")
    slots = [place.slot(), place.slot()]
    results = []

    def start(slot):
        with slot_module.fenced(place.home, 1):
            results.append(slot.start(release, services)["changed"])

    threads = [threading.Thread(target=start, args=(slot,)) for slot in slots]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True, False]
    place.slot().stop()


def test_a_release_that_was_changed_is_not_started(place):
    release = place.stage(api="good")
    run = place.home / "releases" / "1.0-aaaa" / "api" / "run"
    run.write_text(run.read_text() + "# somebody was here\n")
    with pytest.raises(RunbookError, match=r"1\.0-aaaa was changed after it was made.*api/run was altered"):
        place.slot().start(release, place.services("api"))
    assert not (place.home / "slots" / "blue.json").exists()


def test_a_secret_that_the_application_prints_stays_in_its_log(place):
    release = place.stage(api="well")
    tree = place.home / "releases" / release["id"]
    (tree / "api" / "env").write_text(_release.environment_file({"TOKEN": "tell no-one's", "GREETING": "hello"}))
    (tree / "api" / "run").write_text("echo hello tell no-one\\'s; exit 1\n")
    manifest = json.loads((tree / "manifest.json").read_text())
    manifest.update(services={"api": {"secrets": ["TOKEN"]}}, files=_release._inventory(tree))
    manifest["files"].pop("manifest.json", None)
    (tree / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunbookError) as caught:
        place.slot().start(release, place.services("api"))
    assert caught.value.details["log"]["api"] == ["hello ********"]
    assert "no-one" not in str(caught.value)
    assert "tell no-one's" in (place.home / "log" / "api-blue.log").read_text()


def test_a_slot_is_proven_only_while_it_runs_the_release(place):
    release = place.stage(api="well")
    with pytest.raises(RunbookError, match=r"blue holds nothing, not 1\.0-aaaa"):
        place.slot().prove(release, place.services("api"))
    place.slot().start(release, place.services("api"))
    proof = place.slot().prove(release, place.services("api"))
    assert proof["changed"] is False and all(answer["passed"] for answer in proof["answers"])
    with pytest.raises(RunbookError, match=r"blue holds 1\.0-aaaa, not 2\.0-bbbb"):
        place.slot().prove({"id": "2.0-bbbb", "version": "2.0"}, place.services("api"))
    place.client.stop("shop-api-blue")
    with pytest.raises(RunbookError, match=r"api of 1\.0-aaaa is not healthy in blue: its process ended"):
        place.slot().prove(release, place.services("api"))
