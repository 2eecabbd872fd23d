# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Record what a person says of a gate. Documentation: the module of the same name."""

from __future__ import annotations

from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.signalbox.runbook.plugins.module_utils import _gates, _model
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.plugin_utils import _controller as controller


class ActionModule(ActionBase):
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("gate", "evidence", "waive", "reason", "valid_hours"))

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        variables: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        args = controller.plain(self._task.args)
        version = str(variables.get("app_version") or "")
        try:
            models = controller.load_models(variables, self._task, self._loader, {"verb": "attest", "version": version})
            state = models[controller.groups(variables)["state"][0]]
            who = controller.holder(variables)
            by = {word: who[word] for word in ("user", "host", "job")}
            record = _gates.statement([model["gates"] for model in models.values()], args, version, by)
        except RunbookError as error:
            return {**result, **controller.refusal(error)}
        said = f"{record['gate']} {record['outcome']} by {by['user']}" + (
            f" for {version}" if record["version"] else ""
        )
        result.update(changed=True, record=record, closing=[said])
        if self._task.check_mode:
            return result
        record.update(application=state["app_name"], environment=state["app_environment"])
        store = _model.store(state)
        reason = f"attest {record['gate']}"
        noted = controller.journal(self, variables, **store, state="noted", holder=who, reason=reason, record=record)
        if noted.get("failed") or noted.get("unreachable"):
            return {**result, **noted, "changed": False, "closing": []}
        result["closing"] = [f"{said}, run {noted['run']}"]
        return result
