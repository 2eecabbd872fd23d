# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decide on all gates. Documentation: the module of the same name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.signalbox.runbook.plugins.module_utils import _gates
from ansible_collections.signalbox.runbook.plugins.module_utils._journal import utc
from ansible_collections.signalbox.runbook.plugins.plugin_utils import _controller as controller


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("judged", "described", "asked", "notes", "version", "now", "report"))

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        variables: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        args = controller.plain(self._task.args)
        args["now"] = float(args["now"])
        decision = _gates.collect(args, {host: self._answer(variables, host) for host in args["asked"]})
        refused = decision.word != "PROCEED"
        result.update(
            changed=False,
            failed=refused,
            text=_gates.summary(decision),
            decision=decision.word,
            score_percent=decision.score_percent,
            table=_gates.table(decision),
            record={"decision": _gates.kept(decision)},
        )
        if args.get("report"):
            result["closing"] = [*result["table"], f"report: {self._write(args, decision)}"]
        if refused:
            result.update(msg=_gates.refusal(decision), diagnosis=_gates.table(decision))
        return result

    def _write(self, args: dict[str, Any], decision: _gates.Decision) -> Path:
        path = Path(args["report"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        report = {"version": args["version"], "at": utc(args["now"]), **_gates.kept(decision)}
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        return path

    def _answer(self, variables: dict[str, Any], host: str) -> dict[str, Any]:
        outcome = controller.plain(variables["hostvars"][host].get("__runbook_outcome") or {})
        return dict(outcome.get("result") or {})
