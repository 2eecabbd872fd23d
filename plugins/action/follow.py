# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Watch what is live beside any run: find out what is watched, and say how it was. Documentation: the module."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.signalbox.runbook.plugins.module_utils import _model, _records, _watch
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._reality import named
from ansible_collections.signalbox.runbook.plugins.module_utils._steps import CONTROLLER, Steps
from ansible_collections.signalbox.runbook.plugins.plugin_utils import _controller as controller

WORDS = {True: "failed", False: "passed"}


class ActionModule(ActionBase):
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("watched",))

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        variables: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        seen = variables["hostvars"]["localhost"]["__runbook"]
        try:
            models = controller.load_models(variables, self._task, self._loader, {"verb": "watch", "version": ""})
            before = controller.plain(seen["journal"])
            record = _live(before["history"])
            if self._task.args.get("watched") is None:
                return {**result, "changed": False, **self._prepared(seen, models, record)}
            store = _model.store(models[controller.groups(variables)["state"][0]])
            after = controller.journal(self, variables, **store, state="read")
            if after.get("failed") or after.get("unreachable"):
                raise RunbookError(f"whether another run changed what is live is not known: {after.get('msg')}")
        except RunbookError as error:
            return {**result, **controller.refusal(error)}
        watched = controller.plain(self._task.args["watched"])
        return {**result, **self._said(seen, models, record, watched, _runs(after) != _runs(before))}

    def _prepared(self, seen: Any, models: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
        first = models[seen["targets"][0]]
        step = Steps(models, seen["targets"], seen["routers"]).watch(first["watch_seconds"], [record["to"]])
        shifts = [phase["started"] for phase in record.get("phases", ()) if phase["phase"] in ("drain", "shift")]
        return {
            **step["args"][CONTROLLER],
            "policy": controller.open_values(first, "watch_"),
            # What was before that is the baseline, for whoever remembers it.
            "moved": record["started"] + shifts[0] if shifts else 0,
            "timeline": [{"phase": "watch", "text": f"{named(record['to'])} for {step['text']}", "ok": True}],
        }

    def _said(
        self, seen: Any, models: Mapping[str, Any], record: Mapping[str, Any], watched: Mapping[str, Any], changed: bool
    ) -> dict[str, Any]:
        """``changed``: another run goes on or has made something else live, so this says nothing of either."""
        text = str(watched.get("text") or watched.get("msg") or "the watch gave no answer")
        failed = watched.get("outcome") not in (_watch.PASSED, _watch.ATTENTION)
        word = "interrupted" if changed else WORDS[failed]
        name = named(record["to"])
        closing = {
            "passed": f"WATCHED: {name}: {text}",
            "failed": f"WATCH FAILED: {name}: {text}",
            "interrupted": f"INTERRUPTED: another run changes what is live, so nothing is said of {name}: {text}",
        }[word]
        first = models[seen["targets"][0]]
        report = {
            **{word: record["to"][word] for word in ("version", "release")},
            "outcome": word,
            "text": text,
            "attention": bool(watched.get("attention")),
            **{key: watched.get(key) for key in ("trigger", "measurements", "series", "diagnosis")},
        }
        path = Path(first["app_report_dir"]) / f"{first['app_name']}-{first['app_environment']}-watch.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        lines = [closing, *(f"  {line}" for line in watched.get("diagnosis") or ()), f"report: {path}"]
        if word == "failed":
            lines.append("to go back: ansible-playbook rollback.yml -e app_reason=...")
        ends = {"msg": closing} if word != "passed" else {}
        return {"changed": False, "failed": word != "passed", "outcome": word, "closing": lines, **ends}


def _runs(journal: Mapping[str, Any]) -> list[int]:
    """All runs that changed something, or are about to."""
    return [entry["run"] for part in ("history", "unfinished") for entry in journal[part]]


def _live(history: Any) -> Mapping[str, Any]:
    for record in reversed(history):
        if record["outcome"] in _records.LIVE_OUTCOMES:
            found: Mapping[str, Any] = record
            return found
    raise RunbookError("there is nothing to watch: no release of this application is live here")
