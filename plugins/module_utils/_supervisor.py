# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""supervisord: its XML-RPC over a Unix socket, and the program sections it reads. Private: may change at any time."""

from __future__ import annotations

import http.client
import math
import re
import shlex
import socket
import xmlrpc.client
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional
from xml.parsers.expat import ExpatError

from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._files import tail

BAD_NAME, NO_FILE, SPAWN_ERROR, ALREADY_STARTED, NOT_RUNNING = 10, 20, 50, 60, 70
ALREADY_ADDED, STILL_RUNNING, CANT_REREAD = 90, 91, 92


class SupervisorRefusalError(RunbookError):
    """supervisord answered, and said no."""

    def __init__(self, msg: str, code: int) -> None:
        super().__init__(msg)
        self.code = code


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: str, timeout_seconds: float) -> None:
        super().__init__()
        self._path = path
        self._timeout_seconds = timeout_seconds

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _Connection(self._path, self._timeout_seconds)


class Supervisor:
    """One supervisord. Each call has its own connection, so threads may share an instance.

    No call waits for a process: ``start`` and ``stop`` only give the order, ``info`` tells what became of it.
    """

    kind = "supervisor"
    name = "supervisord"
    suffix = ".conf"
    mode = 0o600
    stable_seconds = 0.0  # supervisord itself says RUNNING only after startsecs

    def __init__(self, socket_path: str, timeout_seconds: float = 10.0) -> None:
        self.socket_path = str(socket_path)
        self.timeout_seconds = timeout_seconds

    def _call(self, method: str, *arguments: Any) -> Any:
        path = self.socket_path
        transport = _Transport(path, self.timeout_seconds)
        proxy = xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=transport)
        try:
            with proxy:
                return getattr(proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            raise SupervisorRefusalError(
                f"supervisord at {path} refuses {method}: {fault.faultString}", fault.faultCode
            ) from None
        except xmlrpc.client.ProtocolError as error:
            why = "asks for a password, which is not supported; remove it, the mode of the socket protects it"
            raise RunbookError(
                f"supervisord at {path} {why}"
                if error.errcode == 401
                else f"{path} answers HTTP {error.errcode}, so it is no supervisord; set app_supervisor_socket"
            ) from None
        except FileNotFoundError:
            raise RunbookError(
                f"supervisord does not answer at {path}: start it, or set app_supervisor_socket"
            ) from None
        except PermissionError:
            raise RunbookError(
                f"the socket of supervisord at {path} may not be used by this user: become its owner, or set chmod and "
                "chown in its [unix_http_server]"
            ) from None
        except ConnectionRefusedError:
            raise RunbookError(
                f"supervisord does not answer at {path}: the socket is left over from one that ended; start it again"
            ) from None
        except socket.timeout:
            raise RunbookError(
                f"supervisord at {path} did not answer within {self.timeout_seconds:g} s: it hangs or is overloaded"
            ) from None
        except (http.client.HTTPException, xmlrpc.client.ResponseError, ExpatError, OSError) as error:
            raise RunbookError(
                f"no supervisord answers at {path} ({error or type(error).__name__}); set app_supervisor_socket"
            ) from None

    def version(self) -> str:
        return str(self._call("getSupervisorVersion"))

    def reload(self) -> tuple[list[str], list[str], list[str]]:
        """Read the configuration again: (added, changed, removed) groups. Running processes are not touched."""
        try:
            ((added, changed, removed),) = self._call("reloadConfig")
        except SupervisorRefusalError as fault:
            if fault.code == CANT_REREAD:
                raise SupervisorRefusalError(f"{fault}; correct that file, nothing was started", fault.code) from None
            raise
        return added, changed, removed

    def add(self, name: str) -> bool:
        """Take the group over from the configuration last read; False when it is there already."""
        try:
            self._call("addProcessGroup", name)
        except SupervisorRefusalError as fault:
            if fault.code == ALREADY_ADDED:
                return False
            if fault.code == BAD_NAME:
                raise SupervisorRefusalError(
                    f"supervisord at {self.socket_path} does not read the file of {name}: name the directory in files= "
                    "of its [include], or set app_supervisor_conf_dir",
                    fault.code,
                ) from None
            raise
        return True

    def remove(self, name: str) -> bool:
        """Forget a group that has stopped; False while it runs."""
        try:
            self._call("removeProcessGroup", name)
        except SupervisorRefusalError as fault:
            if fault.code == STILL_RUNNING:
                return False
            if fault.code != BAD_NAME:
                raise
        return True

    def start(self, name: str) -> None:
        """Order a start. That a process ended at once is seen by its state, like every later end."""
        try:
            self._call("startProcess", name, False)
        except SupervisorRefusalError as fault:
            if fault.code not in (ALREADY_STARTED, SPAWN_ERROR):
                raise

    def stop(self, name: str) -> None:
        """Order a stop; supervisord kills what has not ended after ``stopwaitsecs``."""
        try:
            self._call("stopProcess", name, False)
        except SupervisorRefusalError as fault:
            if fault.code not in (NOT_RUNNING, BAD_NAME):
                raise

    def info(self, name: str) -> Optional[dict[str, Any]]:
        """state, pid (0: none), since (seconds since 1970, 0: never started) and error; None when not known."""
        try:
            raw = self._call("getProcessInfo", name)
        except SupervisorRefusalError as fault:
            if fault.code == BAD_NAME:
                return None
            raise
        return {"state": raw["statename"], "pid": raw["pid"], "since": raw["start"], "error": raw["spawnerr"]}

    def refused(self, names: Sequence[str]) -> dict[str, str]:
        """Which of these programs can be none of ours: only their files tell, and the slot reads those itself."""
        return {}

    def forget(self) -> None:
        """A group that was removed is forgotten already."""

    def output_mark(self, name: str, path: Path) -> Any:
        """Where output begins that is yet to come."""
        return path.stat().st_size if path.exists() else 0

    def output(self, name: str, path: Path, lines: int, mark: Any = 0) -> list[str]:
        """The last lines that the program wrote since ``mark``."""
        return tail(path, lines, mark)

    def where(self, name: str, path: Path) -> str:
        return f"Read the end of its log, {path}"

    def render(
        self,
        name: str,
        command: Sequence[str],
        directory: str,
        environment: Mapping[str, str],
        logfile: str,
        stop_seconds: float,
        after: Sequence[str] = (),
        user: str = "",
        always: bool = False,  # it does so anyway
    ) -> str:
        return render_program(name, list(command), directory, environment, logfile, stop_seconds, len(after) + 1, user)

    def tail(self, name: str, size: int) -> str:
        """The last ``size`` bytes of the output; empty where there is none yet."""
        try:
            text, _offset, _overflow = self._call("tailProcessStdoutLog", name, 0, size)
        except SupervisorRefusalError as fault:
            if fault.code in (BAD_NAME, NO_FILE):
                return ""
            raise
        return str(text)


def render_program(
    name: str,
    command: list[str],
    directory: str,
    environment: Mapping[str, str],
    logfile: str,
    stop_seconds: float,
    priority: int = 999,
    user: str = "",
) -> str:
    """The section of one program: it comes back after a crash and after a reboot, in the order of ``priority``."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise RunbookError(f"program name {name!r} must be letters, digits, dots, hyphens and underscores")
    pairs = ",".join(f"{key}={_quoted(key, value)}" for key, value in environment.items())
    settings = {
        "command": _value("command", shlex.join(command)),
        "directory": _value("directory", directory),
        "environment": pairs,
        "priority": str(priority),
        "autostart": "true",
        "autorestart": "true",
        "startsecs": "1",
        # Our own start gives up at the first crash. The retries are for a reboot, when a database or another service
        # may need a minute longer than we do.
        "startretries": "10",
        "stopsignal": "TERM",
        "stopwaitsecs": str(math.ceil(stop_seconds)),
        "stopasgroup": "true",
        "killasgroup": "true",
        "redirect_stderr": "true",
        # supervisord expands this one setting twice.
        "stdout_logfile": _value("stdout_logfile", logfile).replace("%", "%%"),
        "stdout_logfile_maxbytes": "10MB",
        "stdout_logfile_backups": "3",
    }
    if user:
        settings["user"] = _value("user", user)
    return "\n".join([f"[program:{name}]", *(f"{key}={value}" for key, value in settings.items()), ""])


def _value(key: str, text: str) -> str:
    """``text`` as supervisord reads it back; what its format cannot hold is refused."""
    if text != text.strip() or not text.isprintable() or re.search(r"\s[;#]", text):
        raise RunbookError(
            f"{key} {text!r} cannot be written for supervisord: it may hold no line break, no white space at its ends, "
            "and none before ; or #"
        )
    return text.replace("%", "%%")


def _quoted(key: str, text: str) -> str:
    # The values have no escape character, and quotes are stripped from their ends.
    if '"' in text or text != text.strip("'"):
        raise RunbookError(f"{key} {text!r} cannot be written for supervisord: leave the quotes out")
    return f'"{_value(key, text)}"'
