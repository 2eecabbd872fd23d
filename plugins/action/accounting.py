# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any, Optional, cast

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.signalbox.runbook.plugins.module_utils import _accounting, _prober, _report
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

display = Display()

PREFIX = "runbook-accounting-"
START_SECONDS = 5.0
STOP_SECONDS = 5.0
LOOK_SECONDS = 0.05

ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["started", "stopped", "read"], "required": True},
    "accounting": {
        "type": "dict",
        "options": {
            "directory": {"type": "path", "required": True},
            "pid": {"type": "int", "required": True},
            "start_time": {"type": "int", "required": True},
            "started_at": {"type": "float", "required": True},
            "timeout_seconds": {"type": "float", "required": True},
        },
    },
    "url": {"type": "str"},
    "headers": {"type": "dict", "no_log": True},
    "requests_per_second": {"type": "float", "default": 50},
    "connections": {"type": "int", "default": 8},
    "keep_alive": {"type": "str", "choices": ["true", "false", "both"], "default": "both"},
    "version_path": {"type": "str", "default": ""},
    "max_requests": {"type": "int", "default": 100000},
    "max_seconds": {"type": "float", "default": 3600},
    "timeout_seconds": {"type": "float", "default": 5},
    "validate_certs": {"type": "bool", "default": True},
}


class ActionModule(ActionBase):
    """Thin: processes and files here, the numbers in _accounting, the asking in _prober."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if isinstance(arguments.get("keep_alive"), bool):
            arguments["keep_alive"] = str(arguments["keep_alive"]).lower()
            self._task.args = arguments
        _validation, options = self.validate_argument_spec(argument_spec=ARGUMENTS)
        state, accounting = options.pop("state"), options.pop("accounting")
        result["changed"] = False
        try:
            if state == "started":
                off = not options["url"] or self._task.check_mode
                result.update({"accounting": None, "requests": None} if off else {"accounting": _start(options)})
            elif accounting is None:
                result["requests"] = None
            else:
                _check_directory(accounting)
                result.update(_stop(accounting) if state == "stopped" else _read(accounting))
        except RunbookError as error:
            result.update(error.details, failed=True, msg=str(error))
        return result


def _start(options: dict[str, Any]) -> dict[str, Any]:
    config = _accounting.prober_config(**options)
    # Workers are forked from the main process of ansible-playbook: it is the one whose end ends the prober.
    parent = {"pid": os.getppid(), "start_time": _prober.process_start(os.getppid())}
    if parent["start_time"] is None:
        raise RunbookError("accounting needs /proc on the controller: the prober must be able to see its playbook end")
    directory = Path(tempfile.mkdtemp(prefix=PREFIX))  # 0700
    process = None
    try:
        config.update(directory=str(directory), started_at=time.time(), parent=parent, remove_when_orphaned=True)
        with (directory / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", _prober.__file__],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        stdin = cast(IO[bytes], process.stdin)
        stdin.write(json.dumps(config).encode())
        stdin.close()
        start_time = _prober.process_start(process.pid)
        _await_first_sample(directory, process, config["timeout_seconds"])
    except BaseException as error:
        if process is not None:
            process.kill()
            process.wait()
        shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, OSError):
            raise RunbookError(f"the prober could not be started: {error}") from error
        raise
    return {
        "directory": str(directory),
        "pid": process.pid,
        "start_time": start_time,
        "started_at": config["started_at"],
        "timeout_seconds": config["timeout_seconds"],
    }


def _await_first_sample(directory: Path, process: subprocess.Popen[bytes], timeout_seconds: float) -> None:
    """A URL that hangs gives its first sample only after its timeout: that is a finding, not a failed start."""
    deadline = time.monotonic() + START_SECONDS + timeout_seconds
    samples = directory / "samples.jsonl"
    while not (samples.exists() and samples.stat().st_size > 0):
        ended = process.poll()
        if ended is not None or time.monotonic() >= deadline:
            what = "gave no sample in time" if ended is None else f"ended at once with status {ended}"
            log = (directory / "log").read_text(encoding="utf-8", errors="replace").splitlines()
            raise RunbookError(f"the prober {what}: {log[-1] if log else 'its log is empty'}", log=log[-20:])
        time.sleep(LOOK_SECONDS)


def _check_directory(accounting: dict[str, Any]) -> None:
    """It will be removed: make sure that it is one of ours."""
    directory = Path(accounting["directory"])
    if not directory.name.startswith(PREFIX) or directory.is_symlink():
        raise RunbookError(f"accounting.directory is {directory}: it must be what state started returned")
    if not directory.is_dir():
        raise RunbookError(f"accounting.directory {directory} is gone: it was stopped before, or its playbook ended")
    if directory.stat().st_uid != os.geteuid():
        raise RunbookError(f"accounting.directory {directory} belongs to another user: it must be ours")


def _running(accounting: dict[str, Any]) -> bool:
    return bool(_prober.process_start(accounting["pid"]) == accounting["start_time"])


def _signal(accounting: dict[str, Any], number: int) -> None:
    if _running(accounting):
        try:
            os.kill(accounting["pid"], number)
        except ProcessLookupError:
            return  # it ended in this very moment


def _samples(directory: Path) -> list[_accounting.Sample]:
    path = directory / "samples.jsonl"
    return _accounting.read_samples(path.read_text(encoding="ascii") if path.exists() else "")[0]


def _read(accounting: dict[str, Any]) -> dict[str, Any]:
    return {"requests": _accounting.summary(_samples(Path(accounting["directory"])))}


def _stop(accounting: dict[str, Any]) -> dict[str, Any]:
    directory = Path(accounting["directory"])
    _signal(accounting, signal.SIGTERM)
    deadline = time.monotonic() + accounting["timeout_seconds"] + STOP_SECONDS
    while _running(accounting) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    _signal(accounting, signal.SIGKILL)
    samples = _samples(directory)
    summary = directory / "summary.json"
    end = json.loads(summary.read_text(encoding="ascii")) if summary.exists() else {"ended": "killed"}
    if end["ended"] != "stopped":
        display.warning(f"The prober ended before it was stopped ({end['ended']}): what followed was not counted.")
    elif end["sent"] != len(samples):
        display.warning(f"The prober asked {end['sent']} times, but {len(samples)} samples were read.")
    result = {
        "requests": _accounting.summary(samples),
        "samples": _report.series(samples),
        "ended": end["ended"],
    }
    shutil.rmtree(directory, ignore_errors=True)
    return result
