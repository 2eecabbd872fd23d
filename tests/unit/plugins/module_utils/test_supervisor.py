# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import configparser
import os
import socket
import threading
import time

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._supervisor import Supervisor, render_program


def program(directory, script, name="app", **more):
    arguments = {"environment": {"PORT": "1"}, "stop_seconds": 2.5, **more}
    return render_program(
        name, ["/bin/sh", "-c", script], str(directory), logfile=str(directory / "app.log"), **arguments
    )


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.05)


def test_a_process_starts_and_stops(supervisord, tmp_path):
    path = supervisord.conf_dir / "app.conf"
    path.write_text(program(tmp_path, 'echo "port $PORT"; exec sleep 600'))
    client = supervisord.client
    assert client.info("app") is None
    assert client.reload() == (["app"], [], [])
    assert (client.add("app"), client.add("app")) == (True, False)
    client.start("app")
    client.start("app")
    until(lambda: client.info("app")["state"] == "RUNNING")
    pid = client.info("app")["pid"]
    os.kill(pid, 0)
    until(lambda: client.tail("app", 100) == "port 1\n")
    assert client.remove("app") is False
    client.stop("app")
    client.stop("app")
    until(lambda: client.info("app")["state"] == "STOPPED")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert (client.remove("app"), client.remove("app")) == (True, True)
    assert (client.info("app"), client.tail("app", 100)) == (None, "")
    client.stop("app")
    path.unlink()
    assert client.reload() == ([], [], [])


def test_a_crash_at_once_is_a_state_not_an_exception(supervisord, tmp_path):
    (supervisord.conf_dir / "app.conf").write_text(program(tmp_path, "exit 3"))
    supervisord.client.reload()
    supervisord.client.add("app")
    supervisord.client.start("app")
    until(lambda: supervisord.client.info("app")["state"] == "BACKOFF")
    assert "too quickly" in supervisord.client.info("app")["error"]


def test_awkward_characters_arrive_as_they_are(supervisord, tmp_path):
    home = tmp_path / "100% of (our) apps;#1"
    home.mkdir()
    values = {"A": "50%", "B": "a,b=c;d#e", "C": "it's", "D": "%(here)x", "E": ""}
    names = "$A|$B|$C|$D|$E"
    (supervisord.conf_dir / "app.conf").write_text(
        program(home, f'echo "{names}"; echo \'100%s "; quoted\'; pwd; sleep 600', environment=values)
    )
    supervisord.client.reload()
    supervisord.client.add("app")
    log = home / "app.log"
    expected = ["50%|a,b=c;d#e|it's|%(here)x|", '100%s "; quoted', str(home)]
    until(lambda: log.exists() and log.read_text().splitlines() == expected)


def test_all_settings_of_a_program(tmp_path):
    parser = configparser.RawConfigParser()
    parser.read_string(program(tmp_path, "x", name="shop-api-blue", user="shop", priority=3))
    section = dict(parser["program:shop-api-blue"])
    assert section.pop("stdout_logfile") == str(tmp_path / "app.log")
    assert section.pop("directory") == str(tmp_path)
    assert section == {
        "command": "/bin/sh -c x",
        "environment": 'PORT="1"',
        "priority": "3",
        "autostart": "true",
        "autorestart": "true",
        "startsecs": "1",
        "startretries": "10",
        "stopsignal": "TERM",
        "stopwaitsecs": "3",
        "stopasgroup": "true",
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile_maxbytes": "10MB",
        "stdout_logfile_backups": "3",
        "user": "shop",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a:b"}, "program name 'a:b'"),
        ({"name": "a\n[x]"}, "program name"),
        ({"environment": {"KEY": 'say "hi"'}}, "KEY .* leave the quotes out"),
        ({"environment": {"KEY": "'quoted'"}}, "KEY .* leave the quotes out"),
        ({"environment": {"KEY": "two\nlines"}}, "KEY .* no line break"),
        ({"environment": {"KEY": "a ; b"}}, "KEY .* none before ; or #"),
        ({"user": "root\ncommand=x"}, "user .* no line break"),
        ({"logfile": "/log/a #1"}, "stdout_logfile"),
        ({"directory": " /srv"}, "directory"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(change, message):
    arguments = {"name": "a", "command": ["x"], "directory": "/", "environment": {}, "logfile": "/l", "stop_seconds": 1}
    with pytest.raises(RunbookError, match=message):
        render_program(**{**arguments, **change})


def test_a_broken_file_of_anybody_is_named(supervisord):
    (supervisord.conf_dir / "theirs.conf").write_text("[program:theirs]\nautostart=perhaps\ncommand=x\n")
    with pytest.raises(RunbookError, match=r"perhaps.*theirs\.conf.*correct that file"):
        supervisord.client.reload()


def test_a_directory_that_is_not_included_is_named(supervisord):
    supervisord.client.reload()
    with pytest.raises(RunbookError, match=r"does not read the file of app.*\[include\]"):
        supervisord.client.add("app")


def listening(path, answer):
    """A server on a Unix socket that says ``answer`` to the first request; with None it says nothing."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    done = threading.Event()

    def serve():
        peer, _address = server.accept()
        with peer:
            asked = b""
            while b"</methodCall>" not in asked:  # a client cut off while it still writes would ask again
                asked += peer.recv(65536)
            if answer is None:
                done.wait(30)
            else:
                peer.sendall(answer)
        server.close()

    threading.Thread(target=serve, daemon=True).start()
    return done


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "did not answer within 0.2 s"),
        (b"220 mail.example.com ESMTP\r\n", "no supervisord answers"),
        (b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answers HTTP 404, so it is no supervisord"),
        (b"HTTP/1.0 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "asks for a password"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\n<ok>", "no supervisord answers"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 11\r\n\r\nhello world", "no supervisord answers"),
    ],
)
def test_other_programs_behind_the_socket(tmp_path, answer, message):
    done = listening(tmp_path / "s", answer)
    with pytest.raises(RunbookError, match=message):
        Supervisor(str(tmp_path / "s"), timeout_seconds=0.2 if answer is None else 10).version()
    done.set()


def test_nobody_behind_the_socket(tmp_path):
    with pytest.raises(RunbookError, match=r"does not answer at .*/s: start it, or set app_supervisor_socket"):
        Supervisor(str(tmp_path / "s")).version()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "s"))
    with pytest.raises(RunbookError, match="left over from one that ended"):
        Supervisor(str(tmp_path / "s")).version()
    with pytest.raises(RunbookError, match="no supervisord answers"):
        Supervisor(str(tmp_path / ("s" * 200))).version()


def test_a_socket_of_another_user(supervisord):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setuid(65534)
            supervisord.client.version()
        except RunbookError as error:
            code = 0 if "may not be used by this user" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
