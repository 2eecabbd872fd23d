# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""systemd: what its units say of themselves, and the unit files it reads. Private: may change at any time.

Everything is asked by ``systemctl show`` and told by properties; no output for people is parsed.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _command
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

UNIT_DIR = "/etc/systemd/system"
OLDEST = 230  # the first with StartLimitIntervalSec in [Unit]
PROPERTIES = (
    *("LoadState", "LoadError", "FragmentPath", "UnitFileState", "ActiveState", "SubState", "Result", "NRestarts"),
    *("MainPID", "ExecMainCode", "ExecMainStatus", "ExecMainStartTimestampMonotonic"),
)
# What systemd itself could not do between fork and exec; no output of the service tells it.
BEFORE_EXEC = {
    200: "its directory cannot be entered",
    203: "its command cannot be executed",
    217: "its user does not exist",
}
KILLED, DUMPED = 2, 3  # ExecMainCode, as in si_code of waitid

# (argv, timeout in seconds) -> (exit code, standard output, standard error)
Run = Callable[[Sequence[str], float], tuple[int, str, str]]


def run_bounded(argv: Sequence[str], timeout: float) -> tuple[int, str, str]:
    return _command.run(
        argv,
        timeout,
        lambda error: (
            f"there is no {argv[0]} on this host, so systemd does not run it: set runtime_host_manager to supervisor"
            if isinstance(error, FileNotFoundError)
            else f"cannot run {argv[0]}: {error.strerror}"
        ),
        f"{' '.join(argv)} did not end within {timeout:g} s: systemd hangs or is overloaded",
    )


def parse_show(text: str) -> list[dict[str, str]]:
    """The properties of each unit, in the order in which they were asked for: blocks of ``Key=value`` lines."""
    units: list[dict[str, str]] = [{}]
    for line in text.splitlines():
        if not line:
            units.append({})
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.isalnum():
            raise RunbookError(
                f"systemctl show said {line[:200]!r}, which is no property: its output is not understood"
            )
        units[-1][key] = value
    return [unit for unit in units if unit]


def number(unit: Mapping[str, str], key: str) -> int:
    """A property that counts; systemd leaves out what it does not know, or says [not set]."""
    value = unit.get(key, "")
    return int(value) if value.isdigit() else 0


def state(unit: Mapping[str, str], up_seconds: float, stable_seconds: float) -> str:
    """The state in one word, the words of supervisord: RUNNING only once it has run for ``stable_seconds``."""
    active, sub = unit["ActiveState"], unit["SubState"]
    if active in ("active", "reloading"):
        if sub == "exited":
            return "EXITED"
        stable = sub in ("running", "reload") and up_seconds >= stable_seconds
        return "RUNNING" if stable else "STARTING"
    if active == "activating":
        return "BACKOFF" if sub.startswith("auto-restart") else "STARTING"
    words = {"deactivating": "STOPPING", "failed": "FATAL", "inactive": "STOPPED"}
    return words.get(active, active.upper())


def ending(unit: Mapping[str, str]) -> str:
    """How the process ended, when it did so badly."""
    result = unit.get("Result", "")
    if result in ("", "success"):
        return ""
    code, status = number(unit, "ExecMainCode"), number(unit, "ExecMainStatus")
    how = f"signal {status}" if code in (KILLED, DUMPED) else f"exit status {status}"
    if code not in (KILLED, DUMPED) and status in BEFORE_EXEC:
        how += f", {BEFORE_EXEC[status]}"
    restarts = number(unit, "NRestarts")
    return f"{result}, {how}" + (f", restarted {restarts} times" if restarts else "")


class Systemd:
    """The systemd of this host. ``start`` and ``stop`` give the order, ``info`` tells what became of it."""

    kind = "systemd"
    name = "systemd"
    suffix = ".service"
    mode = 0o644  # without secrets; systemd complains about a unit that not everybody may read

    def __init__(
        self,
        unit_dir: str = UNIT_DIR,
        stable_seconds: float = 3.0,
        run: Run = run_bounded,
        timeout_seconds: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.unit_dir = Path(unit_dir)
        self.stable_seconds = stable_seconds
        self.timeout_seconds = timeout_seconds
        self._run = run
        self._monotonic = monotonic
        self._now = now

    # -- asking ---------------------------------------------------------------------------------------------------

    def _ask(self, *words: str) -> str:
        code, out, err = self._run(("systemctl", "--no-ask-password", "--no-pager", *words), self.timeout_seconds)
        if code:
            raise RunbookError(_refusal(f"systemctl {' '.join(words)}", err or out))
        return out

    def _show(self, names: Sequence[str]) -> list[dict[str, str]]:
        units = parse_show(self._ask("show", f"--property={','.join(PROPERTIES)}", *(f"{n}.service" for n in names)))
        if len(units) != len(names):
            raise RunbookError(f"systemctl show told about {len(units)} units, but was asked about {len(names)}")
        for name, unit in zip(names, units):
            for key in ("LoadState", "ActiveState", "SubState"):
                if key not in unit:
                    raise RunbookError(
                        f"systemctl show tells no {key} of {name}.service: this systemd is not understood"
                    )
        return units

    def version(self) -> str:
        unit = (parse_show(self._ask("show", "--property=Version")) or [{}])[0]
        found = re.match(r"\d+", unit.get("Version", ""))
        if not found:
            raise RunbookError("systemctl does not tell the version of systemd: is it PID 1 of this host?")
        if int(found[0]) < OLDEST:
            raise RunbookError(f"systemd {found[0]} is too old, {OLDEST} is needed: use supervisor on this host")
        return found[0]

    def info(self, name: str) -> Optional[dict[str, Any]]:
        """state, pid (0: none), since (seconds since 1970, 0: never started) and error; None when not known."""
        (unit,) = self._show([name])
        if unit["LoadState"] in ("not-found", "masked") and unit["ActiveState"] == "inactive":
            return None
        began = number(unit, "ExecMainStartTimestampMonotonic") / 1e6
        up = self._monotonic() - began if began else 0.0
        return {
            "state": state(unit, up, self.stable_seconds),
            "pid": number(unit, "MainPID"),
            "since": self._now() - up if began else 0,
            "error": ending(unit),
            "restarts": number(unit, "NRestarts"),
        }

    def refused(self, names: Sequence[str]) -> dict[str, str]:
        """Which of these units can be none of ours, and why."""
        found = {}
        for name, unit in zip(names, self._show(names) if names else ()):
            path = unit.get("FragmentPath", "")
            if unit["LoadState"] == "masked":
                found[name] = f"{name}.service is masked, so it cannot start: systemctl unmask {name}.service"
            elif path and Path(path) != self.unit_dir / f"{name}.service":
                found[name] = (
                    f"{name}.service is another unit, {path}, which ours would hide: change app_name or the name "
                    "of the service"
                )
        return found

    # -- changing -------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the unit files again. Running processes are not touched."""
        self._ask("daemon-reload")

    def forget(self) -> None:
        """After unit files were removed: systemd still knows what it once read."""
        self.reload()

    def add(self, name: str) -> bool:
        """The unit is what was written, and comes back at a boot."""
        (unit,) = self._show([name])
        problem = self.refused([name]).get(name, "")
        if not problem and unit["LoadState"] != "loaded":
            problem = (
                f"systemd does not take {self.unit_dir / name}.service ({unit['LoadState']} {unit.get('LoadError')})"
            )
        if problem:
            raise RunbookError(problem)
        self._ask("enable", "--no-reload", "--quiet", f"{name}.service")
        return True

    def remove(self, name: str) -> bool:
        """Let no boot bring it back, and forget how it ended; False while it runs."""
        (unit,) = self._show([name])
        if unit["ActiveState"] not in ("inactive", "failed"):
            return False
        if unit.get("UnitFileState", "").startswith("enabled"):
            self._ask("disable", "--no-reload", "--quiet", f"{name}.service")
        if unit["ActiveState"] == "failed":
            self._ask("reset-failed", f"{name}.service")
        return True

    def start(self, name: str) -> None:
        """Order a start. That a process ended at once is seen by its state, like every later end."""
        try:
            self._ask("start", f"{name}.service")
        except RunbookError:
            info = self.info(name)
            if info is None or info["state"] not in ("RUNNING", "STARTING", "BACKOFF", "FATAL"):
                raise

    def stop(self, name: str) -> None:
        """Order a stop; systemd kills what has not ended after ``TimeoutStopSec``."""
        self._ask("stop", "--no-block", f"{name}.service")

    # -- output ---------------------------------------------------------------------------------------------------

    def output_mark(self, name: str, path: Path) -> Any:
        """Where output begins that is yet to come."""
        return self._now()

    def output(self, name: str, path: Path, lines: int, mark: Any = 0) -> list[str]:
        """The last lines that the service wrote since ``mark``. No log is no reason to fail."""
        if lines <= 0:
            return []
        since = [f"--since=@{mark:.6f}"] if mark else []
        words = ["--quiet", "--no-pager", "--output=cat", f"--lines={lines}", f"--unit={name}.service"]
        words.append(f"--identifier={name}")  # what the service says, not what systemd says about it
        try:
            self._run(("journalctl", "--sync"), self.timeout_seconds)  # what was just written is there after it
            code, out, err = self._run(("journalctl", *words, *since), self.timeout_seconds)
        except RunbookError as error:
            return [f"(no log: {error})"]
        return out.splitlines() if not code else [f"(no log: journalctl says {_last(err)})"]

    def where(self, name: str, path: Path) -> str:
        return f"Read its log: journalctl --unit={name}.service"

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
        always: bool = False,
    ) -> str:
        return render_unit(name, command, directory, environment, stop_seconds, after, user, always)


def render_unit(
    name: str,
    command: Sequence[str],
    directory: str,
    environment: Mapping[str, str],
    stop_seconds: float,
    after: Sequence[str] = (),
    user: str = "",
    always: bool = False,
) -> str:
    """The unit of one service: it comes back after a crash (``always``: whatever its end) and after a reboot."""
    for one in (name, *after):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", one):
            raise RunbookError(f"unit name {one!r} must be letters, digits, dots, hyphens and underscores")
    if user and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", user):
        raise RunbookError(f"user {user!r} is no user name")
    ordered = " ".join(["network.target", *(f"{one}.service" for one in after)])
    settings = [
        "[Unit]",
        f"Description={name}",
        f"After={ordered}",
        # Our own start gives up at the first crash. The retries are for a reboot, when a database or another service
        # may need a minute longer than we do; then it stays failed.
        "StartLimitIntervalSec=300",
        "StartLimitBurst=60",
        "",
        "[Service]",
        *([f"User={user}"] if user else []),
        f"WorkingDirectory={_plain('directory', directory)}",
        *(f"Environment={_quoted(key, f'{key}={value}', dollar=False)}" for key, value in environment.items()),
        f"ExecStart={' '.join(_quoted('command', word) for word in command)}",
        f"Restart={'always' if always else 'on-failure'}",
        "RestartSec=2",
        "KillMode=mixed",
        # 0 would be for ever.
        f"TimeoutStopSec={max(1, math.ceil(stop_seconds))}",
        f"SyslogIdentifier={name}",
        "StandardOutput=journal",
        "StandardError=inherit",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    ]
    return "\n".join(settings)


def _plain(key: str, text: str) -> str:
    """A value that systemd takes as it is, but for its specifiers."""
    if text != text.strip() or not text.isprintable() or text.endswith("\\"):
        raise RunbookError(
            f"{key} {text!r} cannot be written for systemd: it may hold no line break, no white space at its ends and "
            "no backslash at its end"
        )
    return text.replace("%", "%%")


def _quoted(key: str, text: str, dollar: bool = True) -> str:
    """One word of a command or an environment; only commands expand ``$``."""
    if not text.isprintable():
        raise RunbookError(
            f"{key} {text!r} cannot be written for systemd: it may hold no line break or control character"
        )
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped.replace("$", "$$") if dollar else escaped}"'


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "nothing"


def _refusal(what: str, said: str) -> str:
    """What systemctl said against it; the one common reason with its cure."""
    text = " ".join(line.strip() for line in said.splitlines() if line.strip())[:400] or "it gave no reason"
    if re.search(r"authentication required|access denied|permission denied|not permitted", text, re.I):
        return f"{what} is refused ({text}): only root may do that, so set ansible_become or connect as root"
    if re.search(r"not been booted with systemd|failed to connect to bus", text, re.I):
        return f"{what} finds no systemd on this host ({text}): set runtime_host_manager to supervisor"
    return f"{what} failed: {text}"
