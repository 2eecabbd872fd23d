# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of the host itself: disk, memory, processor, files, settings, commands. Private: may change at any time."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

from ansible_collections.signalbox.runbook.plugins.module_utils import _command, _systemd
from ansible_collections.signalbox.runbook.plugins.module_utils._checks_kind import (
    Args,
    Deadline,
    Kind,
    Measured,
    Say,
    World,
    within,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

PROC_BYTES = 1024 * 1024
SETTINGS_BYTES = 1024 * 1024
LOG_LINES = 100  # HC-12
MOST_LINES = 10_000_000
LINE_SHOWN = 200
LINES_SHOWN = 5
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

# What templates and examples have in the place of a value.
PLACEHOLDER = re.compile(
    r"(change|replace|fill)[-_ ]?(me|this|it|in)?|(your|my|example|sample|dummy|insert)[-_ ].*|todo|fixme|tbd"
    r"|x{3,}|\*{3,}|placeholder|example|<.*>|\$\{.*\}|\{\{.*\}\}|\[.*\]",
    re.IGNORECASE,
)
# Forms of credentials that are told by themselves. Repetitions are bounded: a line can have megabytes.
TOKENS = (
    r"\bAKIA[0-9A-Z]{16}\b"  # Amazon
    r"|\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_[A-Za-z0-9_]{40}|\bglpat-[A-Za-z0-9_-]{20}"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10}|\bsk_live_[A-Za-z0-9]{20}|\bSG\.[A-Za-z0-9_-]{20,40}\.[A-Za-z0-9_-]{20}"
    r"|\beyJ[A-Za-z0-9_-]{10,500}\.eyJ[A-Za-z0-9_-]{10}"  # JSON Web Token
    r"|-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----|\b[a-z][a-z0-9+]{1,20}://[^/@\s:]{0,100}:[^/@\s]{1,500}@"
    r"|(?i:\b(?:password|passwd|secret|api_?key|access_?token)\b['\"]?\s{0,5}[=:]\s{0,5}['\"]?(?![*\s'\"])[^\s'\"]{6})"
)


def _path(args: Args) -> str:
    return str(args["path"])


def _absolute(args: dict[str, Any], _names: Collection[str], say: Say) -> None:
    path = args.get("path")
    if isinstance(path, str) and not path.startswith("/"):
        say("path", f"must be absolute, not {path!r}")


def _disk(args: Args, world: World) -> Measured:
    try:
        found = world.statvfs(args["path"])
    except OSError as error:
        raise RunbookError(f"{args['path']} can't be asked: {error.strerror}") from None
    if not found.f_blocks:
        raise RunbookError(f"{args['path']} is on a file system without a size")
    # As df does: what is kept for root is neither free nor counted.
    usable = found.f_blocks - found.f_bfree + found.f_bavail
    return Measured(
        {
            "free_percent": 100.0 * found.f_bavail / usable if usable else 0.0,
            "free_bytes": found.f_bavail * found.f_frsize,
            "free_inodes_percent": 100.0 * found.f_favail / found.f_files if found.f_files else 100.0,
        }
    )


def _memory(_args: Args, world: World) -> Measured:
    found = {}
    for line in world.read("/proc/meminfo", PROC_BYTES).decode().splitlines():
        name, _colon, value = line.partition(":")
        found[name] = int(value.split()[0]) * 1024 if value.split() else 0
    total, available = found.get("MemTotal"), found.get("MemAvailable")
    if not total or available is None:
        raise RunbookError("/proc/meminfo has no MemTotal and MemAvailable")
    swap = found.get("SwapTotal", 0)
    return Measured(
        {
            "used_percent": 100.0 * (total - available) / total,
            "available_bytes": available,
            "swap_used_percent": 100.0 * (swap - found.get("SwapFree", 0)) / swap if swap else 0.0,
        }
    )


def _ticks(world: World) -> tuple[int, int]:
    """All and idle ticks of all processors; guest time is in user time already."""
    line = world.read("/proc/stat", PROC_BYTES).split(b"\n", 1)[0].split()
    if len(line) < 6 or line[0] != b"cpu":
        raise RunbookError("/proc/stat does not begin with the times of the processors")
    ticks = [int(word) for word in line[1:9]]
    return sum(ticks), ticks[3] + ticks[4]


def _cpu(args: Args, world: World) -> Measured:
    before_all, before_idle = _ticks(world)
    world.sleep(args["sample_seconds"])
    after_all, after_idle = _ticks(world)
    if after_all <= before_all:
        raise RunbookError(f"the processors counted no time within {args['sample_seconds']:g} s")
    idle = (after_idle - before_idle) / (after_all - before_all)
    load = float(world.read("/proc/loadavg", PROC_BYTES).split()[0])
    return Measured(
        {"used_percent": min(100.0, max(0.0, 100.0 * (1 - idle))), "load_per_cpu": load / max(1, world.cpus())}
    )


def _cpu_finish(args: dict[str, Any], _names: Collection[str], say: Say) -> None:
    sample, timeout = args["sample_seconds"], args["timeout_seconds"]
    if sample and timeout and not 0.1 <= sample <= timeout:
        say("sample_seconds", f"must be from 0.1 to timeout_seconds ({timeout:g}), not {sample:g}")


def _file(args: Args, world: World) -> Measured:
    try:
        found = world.stat(args["path"])
    except FileNotFoundError:
        return Measured({"exists": 0}, {"exists": "there is no such file"})
    except OSError as error:
        raise RunbookError(f"{args['path']} can't be asked: {error.strerror}") from None
    return Measured(
        {
            "exists": 1,
            "size_bytes": found.st_size,
            "age_hours": max(0.0, world.now() - found.st_mtime) / 3600,
            "readable_by_others": int(bool(found.st_mode & 0o004)),
        },
        {"readable_by_others": f"everybody can read it (mode {found.st_mode & 0o7777:04o})"},
    )


def _settings(text: str) -> dict[str, str]:
    """``NAME=value`` lines, with or without ``export`` and quotes. Comments and other lines are passed over."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*=\s*(.*?)\s*\Z", line)
        if match:
            value = match.group(2)
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[match.group(1)] = value[1:-1] if quoted else value
    return found


def _environment(args: Args, world: World) -> Measured:
    settings: Mapping[str, str] = world.environment
    if args["path"]:
        settings = _settings(world.read(args["path"], SETTINGS_BYTES).decode(errors="replace"))
    missing = [key for key in args["required"] if key not in settings]
    empty = [key for key in args["required"] if key in settings and not settings[key].strip()]
    placeholders = [key for key in args["required"] if PLACEHOLDER.fullmatch(settings.get(key, "").strip())]
    named = {"missing_keys": missing, "empty_keys": empty, "placeholder_keys": placeholders}
    said = {name: f"{name.replace('_', ' ')}: {', '.join(keys)}" for name, keys in named.items() if keys}
    return Measured({name: len(keys) for name, keys in named.items()}, said)


def _environment_finish(args: dict[str, Any], names: Collection[str], say: Say) -> None:
    _absolute(args, names, say)
    if args["required"] == []:
        say("required", "must name at least one key")
    for i, key in enumerate(args["required"] or []):
        if isinstance(key, str) and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", key):
            # Somebody may have written the value too.
            say(f"required[{i}]", "must be the name of a key alone, like DATABASE_URL")


def _log(args: Args, world: World) -> Measured:
    wanted = re.compile(args["pattern"]) if args["pattern"] else None
    ignored = re.compile(args["ignore"]) if args["ignore"] else None
    tokens = re.compile(TOKENS)
    secrets = [secret for secret in args["secrets"] if secret.strip()]
    read = matching = exposed = 0
    shown: deque[str] = deque(maxlen=LINES_SHOWN)
    where: deque[str] = deque(maxlen=LINES_SHOWN)
    lines = world.read_end(args["path"], args["max_bytes"], args["from_byte"]).decode(errors="replace").splitlines()
    first = max(0, len(lines) - args["last_lines"])
    for number, line in enumerate(lines[first:], 1):
        read += 1
        if tokens.search(line) or any(secret in line for secret in secrets):
            exposed += 1
            where.append(str(number))
        elif wanted and wanted.search(line) and not (ignored and ignored.search(line)):
            matching += 1
            shown.append(_shown(line))
    values: dict[str, Any] = {"lines": read, "secret_lines": exposed}
    lines_named = f"the last ones are {', '.join(where)} of the {read} that were read"
    said = {"secret_lines": f"{exposed} lines have what looks like a secret, {lines_named}"}
    if wanted:
        values.update(matching_lines=matching, last_lines=list(shown))
        said["matching_lines"] = f"{matching} of {read} lines match; the last one is {shown[-1] if shown else ''!r}"
    return Measured(values, said)


def _log_finish(args: dict[str, Any], names: Collection[str], say: Say) -> None:
    _absolute(args, names, say)
    if args["last_lines"] is None:
        args["last_lines"] = LOG_LINES if not args["from_byte"] else MOST_LINES
    within(args, say, 1, MOST_LINES, "last_lines")
    within(args, say, 0, 1 << 60, "from_byte")
    within(args, say, 1, 1 << 30, "max_bytes")
    _expression(args, say, "pattern", "ignore")


def _shown(line: str) -> str:
    # Cut before, because the pattern takes its time for a line without end, but so that no password is cut.
    text = _command.USERINFO.sub(r"\1(hidden)@", line.strip()[: 10 * LINE_SHOWN])
    return text if len(text) <= LINE_SHOWN else text[:LINE_SHOWN] + "…"


def _asked_command(args: Args, world: World) -> Measured:
    deadline = Deadline(args, world)
    started = world.clock()
    environment = {**world.environment, **{str(key): str(value) for key, value in args["environment"].items()}}
    code, out, err = world.run(args["argv"], deadline.left(), args["chdir"], environment)
    seconds = world.clock() - started
    lines = [_shown(line) for line in (out + "\n" + err).splitlines() if line.strip()][-LINES_SHOWN:]
    said = {"exit_code": f"exit code {code}" + (f": {lines[-1]}" if lines else "")}
    return Measured({"exit_code": code, "duration_seconds": seconds, "last_lines": lines}, said)


def _command_finish(args: dict[str, Any], _names: Collection[str], say: Say) -> None:
    if args["argv"] == []:
        say("argv", "must be the program and its arguments, for example [npm, test]")
    if isinstance(args["chdir"], str) and not args["chdir"].startswith("/"):
        say("chdir", f"must be absolute, not {args['chdir']!r}")


def _process(args: Args, world: World) -> Measured:
    wanted = re.compile(args["pattern"])
    up = float(world.read("/proc/uptime", PROC_BYTES).split()[0])
    ages: list[float] = []
    resident = 0
    for pid in world.pids():
        try:
            line = (
                world.read(f"/proc/{pid}/cmdline", PROC_BYTES)
                .rstrip(b"\0")
                .replace(b"\0", b" ")
                .decode(errors="replace")
            )
            if not wanted.search(line):
                continue
            # The name in parentheses may have blanks and parentheses itself.
            fields = world.read(f"/proc/{pid}/stat", PROC_BYTES).rpartition(b")")[2].split()
        except RunbookError:  # gone meanwhile
            continue
        if fields[0] not in (b"Z", b"X"):
            ages.append(max(0.0, up - int(fields[19]) / TICKS))
            resident += int(fields[21]) * PAGE_BYTES
    values: dict[str, Any] = {"processes": len(ages), "resident_bytes": resident}
    if ages:
        values.update(youngest_seconds=min(ages), oldest_seconds=max(ages))
    return Measured(values, {"processes": "no process has such a command line"} if not ages else {})


def _process_finish(args: dict[str, Any], _names: Collection[str], say: Say) -> None:
    _expression(args, say, "pattern")


def _expression(args: dict[str, Any], say: Say, *keys: str) -> None:
    for key in keys:
        try:
            re.compile(args[key] or "")
        except re.error as error:
            say(key, f"is not a regular expression ({error})")


def _unit(args: Args, world: World) -> Measured:
    properties = "LoadState,ActiveState,SubState,NRestarts,ActiveEnterTimestampMonotonic"
    argv = ["systemctl", "show", f"--property={properties}", "--", args["unit"]]
    code, out, err = world.run(argv, Deadline(args, world).left())
    if code:
        raise RunbookError(f"systemctl says {_shown(err or out)!r}")
    unit = _systemd.parse_show(out)[0]
    state = f"{unit.get('ActiveState', 'unknown')} ({unit.get('SubState', 'unknown')})"
    if unit.get("LoadState") != "loaded":
        return Measured({"active": 0, "state": state}, {"active": f"it is {unit.get('LoadState', 'unknown')}"})
    active = unit.get("ActiveState") in ("active", "reloading")
    values = {"active": int(active), "state": state, "restarts": _systemd.number(unit, "NRestarts")}
    if active:
        up = float(world.read("/proc/uptime", PROC_BYTES).split()[0])
        values["up_seconds"] = max(0.0, up - _systemd.number(unit, "ActiveEnterTimestampMonotonic") / 1e6)
    return Measured(values, {"active": f"it is {state}"})


KINDS: dict[str, Kind] = {
    "disk": Kind(
        options={"path": {"type": "str", "default": "/"}},
        measures={
            "free_percent": "what is free of what an ordinary user can use",
            "free_bytes": "what an ordinary user can still write",
            "free_inodes_percent": "free entries for files; 100 where the file system makes them as needed",
        },
        # PRE-26: more than 20 % free on every server. Inodes are in no source.
        fail_when={"free_percent": "<= 20", "free_inodes_percent": "<= 5"},
        subject=_path,
        advice="Clean up (old releases, images, logs) or enlarge the file system.",
        ask=_disk,
        finish=_absolute,
    ),
    "memory": Kind(
        measures={
            "used_percent": "what is not available to new programs; caches that the kernel gives back are available",
            "available_bytes": "what new programs can get without swapping",
            "swap_used_percent": "used part of the swap space; 0 where there is none",
        },
        fail_when={"used_percent": ">= 70"},  # PRE-27: below 70 % before a deploy (HC-31: below 80 % after one)
        subject=lambda _args: "memory",
        advice="Find what uses the memory, or add some; two releases run side by side during a deploy.",
        ask=_memory,
    ),
    "cpu": Kind(
        options={"sample_seconds": {"type": "float", "default": 1}},
        measures={
            "used_percent": "busy part of all processors while it was sampled",
            "load_per_cpu": "load of the last minute for each processor",
        },
        fail_when={"used_percent": ">= 70"},  # PRE-27, HC-31: below 70 %
        subject=lambda _args: "cpu",
        advice="Find what keeps the processors busy, or wait until it is over.",
        ask=_cpu,
        finish=_cpu_finish,
    ),
    "file": Kind(
        options={"path": {"type": "str", "required": True}},
        measures={
            "exists": "1 when it is there",
            "size_bytes": "its size",
            "age_hours": "time since it was last changed",
            "readable_by_others": "1 when everybody on the host can read it",
        },
        fail_when={"exists": "< 1"},
        subject=_path,
        advice="Make or replace the file.",
        ask=_file,
        finish=_absolute,
    ),
    "environment": Kind(
        options={
            "required": {"type": "list", "elements": "str", "required": True, "description": "names of keys"},
            "path": {"type": "str"},
        },
        measures={
            "missing_keys": "required keys that are not there",
            "empty_keys": "required keys without a value",
            "placeholder_keys": "required keys whose value is that of a template, like changeme or <password>",
        },
        fail_when={"missing_keys": "> 0", "empty_keys": "> 0", "placeholder_keys": "> 0"},
        subject=lambda args: args["path"] or "environment",
        advice="Set these keys; only their names are shown here.",
        ask=_environment,
        finish=_environment_finish,
    ),
    "log": Kind(
        options={
            "path": {"type": "str", "required": True},
            "pattern": {"type": "str"},
            "ignore": {"type": "str"},
            "last_lines": {"type": "int"},
            "from_byte": {"type": "int", "default": 0},
            "max_bytes": {"type": "int", "default": 4 * 1024 * 1024},
            "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
        },
        measures={
            "lines": "lines that were read",
            "matching_lines": "lines that match pattern and not ignore",
            "secret_lines": "lines with one of secrets or with the form of a known token; they are not shown",
        },
        fail_when={"matching_lines": "> 0", "secret_lines": "> 0"},  # HC-12: no errors in the last 100 lines; HC-24
        subject=_path,
        advice="Read these lines; a secret that was logged has to be replaced.",
        ask=_log,
        finish=_log_finish,
        measured=lambda args, names: [name for name in names if args["pattern"] or name != "matching_lines"],
    ),
    "command": Kind(
        options={
            "argv": {"type": "list", "elements": "str", "required": True, "description": "program and arguments"},
            "chdir": {"type": "str"},
            "environment": {"type": "dict", "default": {}, "no_log": True},
        },
        measures={"exit_code": "exit code; a signal is its negative number", "duration_seconds": "how long it ran"},
        fail_when={"exit_code": "!= 0"},
        subject=lambda args: str(args["argv"][0]),
        advice="Run the command on the host and see what it says.",
        ask=_asked_command,
        finish=_command_finish,
        timeout_seconds=60,
    ),
    "process": Kind(
        options={
            "pattern": {
                "type": "str",
                "required": True,
                "description": "a regular expression that is in the command line",
            },
        },
        measures={
            "processes": "processes with such a command line",
            "youngest_seconds": "how long the youngest has run: a worker that restarts again and again stays young",
            "oldest_seconds": "how long the oldest has run",
            "resident_bytes": "their memory; what they share counts for each",
        },
        fail_when={"processes": "< 1"},
        subject=lambda args: f"process {args['pattern']!r}",
        advice="See why it does not run in the log of what starts it.",
        ask=_process,
        finish=_process_finish,
    ),
    "unit": Kind(
        options={"unit": {"type": "str", "required": True, "description": "name of a unit of systemd"}},
        measures={
            "active": "1 when it is active",
            "restarts": "how often systemd restarted it since it was last started by somebody",
            "up_seconds": "how long it has been active; not measured of one that is not",
        },
        fail_when={"active": "< 1"},
        subject=lambda args: str(args["unit"]),
        advice="See systemctl status and journalctl for the unit.",
        ask=_unit,
    ),
}
