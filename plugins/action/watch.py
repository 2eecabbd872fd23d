# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Watch the application after traffic moved. Documentation: the module of the same name."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.signalbox.runbook.plugins.module_utils import _accounting, _probe, _watch
from ansible_collections.signalbox.runbook.plugins.plugin_utils import _controller as controller

display = Display()

PROGRESS_SECONDS = 10.0


class ActionModule(ActionBase):
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("seconds", "probes", "accounting", "policy", "journal", "began"))

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        variables: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        args = controller.plain(self._task.args)
        settings = args["policy"]
        policy = _watch.Policy(
            seconds=float(args["seconds"]),
            window_seconds=settings["watch_window_seconds"],
            error_rate_percent=settings["watch_error_rate_percent"],
            p95_ms=settings["watch_p95_ms"],
            minimum_requests=settings["watch_minimum_requests"],
            no_data=settings["watch_no_data"],
            failure_limit=settings["watch_failure_limit"],
        )
        asked = _Requests(args.get("accounting") or {})
        endpoints = [_probe.endpoint(raw) for raw in args["probes"]]
        journal = {**args["journal"], "ttl_seconds": float(args["journal"]["ttl_seconds"])}
        journal.update(journal.pop("store"))
        run_began = float(args.get("began") or time.time())
        begin = time.monotonic()
        renewed = shown = begin
        measurements: list[_watch.Measurement] = []
        while True:
            time.sleep(settings["watch_interval_seconds"])
            elapsed = time.monotonic() - begin
            problems = [f"{r.name}: {r.problem}" for r in _probe.ask(endpoints) if not r.passed]
            measurements.append(_watch.measure(asked.window(elapsed, policy.window_seconds), problems, policy))
            word, why = _watch.verdict(measurements, elapsed, policy)
            if word != "running":
                break
            now = time.monotonic()
            if now - renewed > journal["ttl_seconds"] / 3:
                lost = self._renew(journal, variables)
                if lost:
                    return {**result, **lost}
                renewed = now
            if now - shown >= PROGRESS_SECONDS:
                text = _watch.progress(elapsed, policy.seconds, measurements[-1].text)
                display.display(f"[{_watch.clock(time.time() - run_began)}] watch       {text}")
                shown = now
        result.update(changed=False, failed=word == "failed", text=why, measurements=len(measurements))
        if word == "failed":
            result.update(msg=f"the watch failed: {why}", diagnosis=list(measurements[-1].diagnosis))
        return result

    def _renew(self, journal: Mapping[str, Any], variables: dict[str, Any]) -> Optional[dict[str, Any]]:
        """The heartbeat of the lease; what to return when the lease is gone."""
        answer = controller.journal(self, variables, state="renewed", **journal)
        return answer if answer.get("failed") or answer.get("unreachable") else None


class _Requests:
    """The prober's samples since the watch began, read as they come."""

    def __init__(self, accounting: Mapping[str, Any]) -> None:
        self.path = Path(accounting["directory"]) / "samples.jsonl" if accounting else None
        self.began = time.time() - accounting["started_at"] if accounting else 0.0
        self.text_offset = 0
        self.samples: list[_accounting.Sample] = []

    def window(self, elapsed: float, window_seconds: float) -> dict[str, Any]:
        if self.path and self.path.exists():
            with self.path.open(encoding="ascii") as stream:
                stream.seek(self.text_offset)
                new, read = _accounting.read_samples(stream.read())
            self.text_offset += read
            self.samples += new
        until = self.began + elapsed
        since = max(self.began, until - window_seconds)
        self.samples = [sample for sample in self.samples if sample.end_s >= since]
        return _accounting.window(self.samples, since, until)
