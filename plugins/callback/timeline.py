# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operator's timeline: phases with elapsed time and outcome, the failure with its cause, one closing block."""

from __future__ import annotations

DOCUMENTATION = r"""
name: timeline
type: stdout
short_description: What an operator wants to see of a run
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Prints the plan, a line for each phase with the time since the start, the cause of a failure and a closing block.
  - A phase that takes long is mentioned again and again with the hosts that it waits for.
  - Colours only on a terminal. With C(-v) every task is shown too, with C(-vvv) its result.
options:
  wait_seconds:
    description: Time after which a phase that is still going on is mentioned again, in seconds.
    type: float
    default: 10
    env:
      - name: RUNBOOK_TIMELINE_WAIT_SECONDS
    ini:
      - section: runbook_timeline
        key: wait_seconds
requirements:
  - set as C(stdout_callback) in ansible.cfg
"""

import atexit
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from ansible import constants
from ansible.plugins.callback import CallbackBase
from ansible_collections.signalbox.runbook.plugins.module_utils._watch import clock

WIDTH = 12
# Actions whose failure ends the run. Any other failure is one host's vote on a step: the vote says what it means.
FINAL = ("model", "plan", "vote", "conclude", "fail", "preflight", "attest", "follow")


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "signalbox.runbook.timeline"

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()
        self._phase = ""
        self._state: Mapping[str, Any] = {}
        self._task = ""
        self._diff = ""
        self._lock = threading.Lock()
        self._waiting: dict[str, float] = {}  # host to when its task began
        self._said = time.monotonic()
        self._pending: dict[str, str] = {}  # failures that no phase line has explained yet
        self._ended = threading.Event()

    # -- the play ------------------------------------------------------------------------------------------------

    def v2_playbook_on_start(self, playbook: Any) -> None:
        threading.Thread(target=self._mention, daemon=True).start()
        atexit.register(self._interrupted)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        if self._display.verbosity >= 1:
            self._display.display(f"PLAY {play.get_name()}")

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._task = task.get_name().rpartition(" : ")[2].strip()

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        with self._lock:
            self._waiting[host.get_name()] = time.monotonic()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._ended.set()
        for host, message in self._pending.items():
            self._say(f"FAILED on {host}: {message}", constants.COLOR_ERROR)
        if self._display.verbosity >= 1:
            for host in sorted(stats.processed):
                counts = stats.summarize(host)
                self._display.display(f"{host}: " + "  ".join(f"{key}={counts[key]}" for key in counts if counts[key]))

    # -- results -------------------------------------------------------------------------------------------------

    def v2_runner_on_ok(self, result: Any) -> None:
        self._result(result, "changed" if _result(result).get("changed") else "ok")

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._result(result, "skipped")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._result(result, "failed")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._result(result, "unreachable")

    def v2_on_file_diff(self, result: Any) -> None:
        found = _result(result)
        if found.get("diff") and found.get("changed"):
            self._diff = self._get_diff(found["diff"])  # shown after what the result itself says

    def _result(self, result: Any, word: str) -> None:
        host, found = _host(result), _result(result)
        with self._lock:
            self._waiting.pop(host, None)
        if self._display.verbosity >= 1 and word != "skipped":
            self._display.display(f"{word}: [{host}] {self._task}")
        if self._display.verbosity >= 3:
            self._display.display(self._dump_results(found, indent=2))
        self._handle_warnings(found)
        self._show(found)
        if self._diff:
            self._display.display(self._diff.rstrip("\n"))
            self._diff = ""
        if word in ("failed", "unreachable"):
            final = _action(result).rpartition(".")[2] in FINAL
            self._failed(host, found, word, final)
        elif _action(result).rpartition(".")[2] == "debug" and "msg" in found:
            self._say(str(found["msg"]))

    def _show(self, found: Mapping[str, Any]) -> None:
        if found.get("banner"):
            self._say("")
            for number, line in enumerate(found["banner"]):
                self._say(line, constants.COLOR_HIGHLIGHT if number == 0 else None)
            self._say("")
        for entry in found.get("timeline") or ():
            self._pending.clear()
            color = constants.COLOR_OK if entry["ok"] else constants.COLOR_ERROR
            self._say(_line(self._clock(), entry["phase"], entry["text"]), color)
            for line in entry.get("diagnosis") or ():
                self._say(" " * 20 + line, constants.COLOR_WARN)
        state = found.get("state")
        if isinstance(state, Mapping):
            self._state = state
            self._phase = (state.get("now") or {}).get("phase", "")
        if found.get("closing"):
            self._pending.clear()
            self._say("")
            good = not found.get("failed")
            for number, line in enumerate(found["closing"]):
                self._say(line, (constants.COLOR_OK if good else constants.COLOR_ERROR) if number == 0 else None)

    def _failed(self, host: str, found: Mapping[str, Any], word: str, final: bool) -> None:
        if found.get("closing"):
            return
        message = str(found.get("msg") or "no message")
        if final:
            problems = found.get("problems") or [message]
            self._say("")
            self._say("UNREACHABLE" if word == "unreachable" else "STOPPED", constants.COLOR_ERROR)
            for problem in problems if isinstance(problems, list) else [message]:
                self._say(f"  {problem}")
            if found.get("problems"):
                self._say("Nothing has been touched.")
        else:
            self._pending[host] = message

    def _interrupted(self) -> None:
        """By Ctrl-C, or a signal that can be heard: what is safe now, and who goes on."""
        state = self._state
        if self._ended.is_set() or not state.get("run") or not state.get("now"):
            return
        live = (state["plan"].get("from") or {}).get("version")
        if state.get("committed"):
            then = f"{state['plan']['to']['version']} is live and proven; the next run tidies up"
        elif live:
            then = f"what has the traffic now keeps it; recover.yml, or the next run, puts everything back to {live}"
        else:
            then = "there was no release before; the next run begins with taking its traffic away"
        self._say("")
        self._say(f"INTERRUPTED in the phase {self._phase}: run {state['run']} is unfinished", constants.COLOR_ERROR)
        self._say(then)

    # -- words ---------------------------------------------------------------------------------------------------

    def _clock(self) -> str:
        return clock(time.monotonic() - self._began)

    def _say(self, text: str, color: Optional[str] = None) -> None:
        self._said = time.monotonic()
        self._display.display(text, color=color)

    def _mention(self) -> None:
        """While a phase takes long, say so: how long it has been, and for whom it waits."""
        patience = float(self.get_option("wait_seconds"))
        while not self._ended.wait(0.5):
            now = time.monotonic()
            with self._lock:
                waiting = {host: since for host, since in self._waiting.items() if now - since >= patience}
            if waiting and self._phase and self._phase != "watch" and now - self._said >= patience:
                longest = now - min(waiting.values())
                self._say(_line(self._clock(), self._phase, f"{longest:.0f} s, waiting for {_names(waiting)}"))


def _line(at: str, phase: str, text: str) -> str:
    return f"[{at}] {phase:<{WIDTH}}{text}"


def _names(hosts: Iterable[str], most: int = 5) -> str:
    names = sorted(hosts)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# ansible-core 2.18 has only the underscored names, later ones deprecate them.


def _result(result: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = result.result if hasattr(result, "result") else result._result
    return found


def _host(result: Any) -> str:
    return str((result.host if hasattr(result, "host") else result._host).get_name())


def _action(result: Any) -> str:
    return str((result.task if hasattr(result, "task") else result._task).action)
