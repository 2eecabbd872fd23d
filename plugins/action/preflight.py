# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find out who is asked which gates. Documentation: the module of the same name."""

from __future__ import annotations

import math
from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.signalbox.runbook.plugins.module_utils import _gates, _records
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.plugin_utils import _controller as controller


class ActionModule(ActionBase):
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("phase", "mend"))

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        variables: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        phase = str(self._task.args["phase"])
        mend = bool(self._task.args.get("mend")) and not self._task.check_mode
        seen = variables["hostvars"]["localhost"]["__runbook"]
        journal = controller.plain(seen["journal"])
        version = str(variables.get("app_version") or "")
        try:
            if phase not in _gates.PHASES:
                raise RunbookError(f"preflight_phase: must be one of {', '.join(_gates.PHASES)}, not {phase!r}")
            request = {"verb": "preflight", "version": version}
            models = controller.load_models(variables, self._task, self._loader, request)
        except RunbookError as error:
            return {**result, **controller.refusal(error)}
        gates = _gates.questions(models, controller.groups(variables), phase)
        facts = _gates.Facts(
            now=journal["now"],
            version=version,
            requester="",
            notes=journal["notes"],
            live=_records.live(journal["history"]),
            history=journal["history"],
            targets=controller.looked_at(variables["hostvars"], seen["targets"], "__runbook_target"),
            application=seen["application"],
            code={},
            proof=controller.proofs(self, variables),
        )
        asked = {host: list(names) for host, names in gates.asked.items()}
        return {
            **result,
            "changed": False,
            "hosts": list(asked),
            "args": {
                host: {"names": names, "mend": mend, "of": host if host in models else seen["targets"][0]}
                for host, names in asked.items()
            },
            "report": f"{models[seen['targets'][0]]['app_report_dir']}/{self._name(seen, phase)}",
            "timeout_seconds": math.ceil(gates.budget_seconds + (gates.remedy_seconds if mend else 0)),
            "decision": {**_gates.decision_args(gates, facts), "asked": asked},
        }

    def _name(self, seen: Any, phase: str) -> str:
        return f"{seen['application']}-{seen['environment']}-{phase}.json"
