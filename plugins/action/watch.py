# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Watch the application after traffic moved. Documentation: the module of the same name."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, Optional

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.signalbox.runbook.plugins.module_utils import (
    _accounting,
    _probe,
    _prometheus,
    _schema,
    _triggers,
    _watch,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.plugin_utils import _controller as controller

display = Display()

TICK_SECONDS = 1.0  # the end of the window and the heartbeat are looked at so often


class ActionModule(ActionBase):
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("seconds", "probes", "accounting", "policy", "journal", "began", "moved"))

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        variables: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        args = controller.plain(self._task.args)
        try:
            settings = self._settings(args["policy"], variables)
        except RunbookError as error:
            return {**result, "failed": True, "msg": str(error), **error.details}
        watch = _watch.Watch(_watch.plan(float(args["seconds"]), settings))
        journal = dict(args.get("journal") or {})
        if journal:
            journal.update(journal.pop("store"), ttl_seconds=float(journal["ttl_seconds"]))
        run_began = float(args.get("began") or time.time())
        asked = _Asked(watch, settings, args)
        begin = time.monotonic()
        renewed = shown = begin
        while True:
            elapsed = time.monotonic() - begin
            for name in watch.due(elapsed):
                asked.ask(name)
            asked.wait(min(TICK_SECONDS, watch.next_seconds() - elapsed))
            elapsed = time.monotonic() - begin
            asked.take(elapsed)
            outcome = watch.judge(elapsed)
            if outcome.word != _watch.RUNNING:
                break
            now = time.monotonic()
            if journal and now - renewed > journal["ttl_seconds"] / 3:
                lost = self._renew(journal, variables)
                if lost:
                    return {**result, **lost}
                renewed = now
            if now - shown >= watch.progress_seconds(elapsed):
                text = _watch.progress(elapsed, watch.plan.seconds, watch.text())
                display.display(f"[{_watch.clock(time.time() - run_began)}] watch       {text}")
                shown = now
        failed = outcome.word == "failed"
        result.update(changed=False, failed=failed, text=outcome.text, measurements=watch.measurements)
        result.update(outcome=outcome.word, trigger=outcome.trigger, series=watch.series())
        result.update(attention=outcome.word == _watch.ATTENTION)
        if failed:
            result.update(msg=f"the watch failed: {outcome.text}", diagnosis=list(outcome.diagnosis))
        return result

    def _settings(self, policy: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
        """The variables of the role, complete, with the secrets that no result carries."""
        problems = _schema.Problems()
        options = controller.specs()["watch_"]
        settings = _schema.check(policy, options, "", problems)
        if not problems:
            _triggers.settle(settings, options, problems)
        if problems:
            raise RunbookError(". ".join(problems), problems=list(problems))
        secrets = controller.secret_values(variables, self._loader, self._task, "watch_")
        return {**settings, **{key: settings[key] or value for key, value in secrets.items()}}

    def _renew(self, journal: Mapping[str, Any], variables: dict[str, Any]) -> Optional[dict[str, Any]]:
        """The heartbeat of the lease; what to return when the lease is gone."""
        answer = controller.journal(self, variables, state="renewed", **journal)
        return answer if answer.get("failed") or answer.get("unreachable") else None


class _Asked:
    """Asks whoever is due. Each has a thread of its own: what is slow to answer keeps no other trigger waiting."""

    def __init__(self, watch: _watch.Watch, settings: Mapping[str, Any], args: Mapping[str, Any]) -> None:
        self.watch = watch
        self.settings = settings
        self.moved = float(args["moved"]) if args.get("moved") else None
        self.endpoints = [_probe.endpoint(raw) for raw in args["probes"]]
        self.requests = _Requests(args.get("accounting") or {}, self.moved)
        self.server = server(settings)
        self.baselines: dict[str, _prometheus.Reading] = {}
        self.answers: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.ready: list[tuple[str, Any]] = []

    def ask(self, name: str) -> None:
        trigger = self.watch.trigger(name) if name != _watch.BUILTIN else None
        if trigger and trigger.metric == "requests":
            self.answers.put((name, None))
            return
        if trigger and trigger.metric == "prometheus":
            self._thread(name, lambda: self._query(trigger))
            return
        endpoints = [_probe.endpoint(trigger.probe)] if trigger and trigger.probe else self.endpoints
        self._thread(name, lambda: _probe.ask(endpoints))

    def _thread(self, name: str, ask: Callable[[], Any]) -> None:
        def answer() -> None:
            try:
                self.answers.put((name, ask()))
            except Exception as error:  # ours: it must end the watch, and not be waited for
                self.answers.put((name, error))

        threading.Thread(target=answer, daemon=True).start()

    def _query(self, trigger: _triggers.Trigger) -> tuple[_prometheus.Reading, Optional[_prometheus.Reading]]:
        """The value now and, where a limit asks for it, what it was before the traffic moved."""
        if trigger.has_baseline and self.moved and trigger.name not in self.baselines:
            before = _prometheus.read(self.server, trigger.query, self.moved)
            if before.problem:
                return before, None
            self.baselines[trigger.name] = before
        return _prometheus.read(self.server, trigger.query), self.baselines.get(trigger.name)

    def wait(self, seconds: float) -> None:
        try:
            self.ready.append(self.answers.get(timeout=max(0.01, seconds)))
            while True:
                self.ready.append(self.answers.get_nowait())
        except queue.Empty:
            return

    def take(self, elapsed: float) -> None:
        for name, answer in self.ready:
            if isinstance(answer, Exception):
                raise answer
            self.watch.took(name, self._measurement(name, answer, elapsed))
        self.ready.clear()

    def _measurement(self, name: str, answer: Any, elapsed: float) -> Any:
        builtin = self.watch.plan.builtin
        if name == _watch.BUILTIN and builtin:
            problems = [f"{result.name}: {result.problem}" for result in answer if not result.passed]
            return _watch.measure(self.requests.window(elapsed, builtin.window_seconds), problems, builtin)
        trigger = self.watch.trigger(name)
        if trigger.metric == "prometheus":
            now, before = answer
            return _triggers.of_prometheus(trigger, now, before, elapsed)
        if trigger.metric == "probe":
            return _triggers.of_probes(trigger, answer, elapsed)
        account = self.requests.window(elapsed, self.settings["watch_window_seconds"])
        minimum = self.settings["watch_minimum_requests"]
        return _triggers.of_requests(trigger, account, self.requests.baseline(minimum), minimum, elapsed)


def server(settings: Mapping[str, Any]) -> _prometheus.Server:
    names = ("user", "password", "token", "timeout_seconds", "validate_certs", "ca_path")
    given = {name: settings[f"watch_prometheus_{name}"] for name in names}
    known = {name: value for name, value in given.items() if value is not None}
    return _prometheus.Server(url=settings["watch_prometheus_url"] or "", **known)


class _Requests:
    """The prober's samples since the watch began, read as they come."""

    def __init__(self, accounting: Mapping[str, Any], moved: Optional[float]) -> None:
        self.path = Path(accounting["directory"]) / "samples.jsonl" if accounting else None
        self.began = time.time() - accounting["started_at"] if accounting else 0.0
        self.moved = moved - accounting["started_at"] if accounting and moved else None
        self.before: Optional[dict[str, Any]] = None
        self.text_offset = 0
        self.samples: Sequence[_accounting.Sample] = []

    def window(self, elapsed: float, window_seconds: float) -> dict[str, Any]:
        self._read()
        until = self.began + elapsed
        since = max(self.began, until - window_seconds)
        self.samples = [sample for sample in self.samples if sample.end_s >= since]
        return _accounting.window(self.samples, since, until)

    def _read(self) -> None:
        if self.path and self.path.exists():
            with self.path.open(encoding="ascii") as stream:
                stream.seek(self.text_offset)
                new, read = _accounting.read_samples(stream.read())
            self.text_offset += read
            self.samples = [*self.samples, *new]
        if self.before is None and self.moved is not None:  # once: later only the window is kept
            self.before = _accounting.window(self.samples, 0.0, self.moved)

    def baseline(self, minimum: int) -> Optional[float]:
        """The error rate before the traffic moved, in percent, where enough was asked then."""
        if self.before is None or self.before["sent"] < minimum:
            return None
        return float(self.before["error_percent"])
