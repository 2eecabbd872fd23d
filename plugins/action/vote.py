# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Count the votes on a step, journal them with the next intent. Documentation: the module of the same name."""

from __future__ import annotations

import time
from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.signalbox.runbook.plugins.action.plan import ttl
from ansible_collections.signalbox.runbook.plugins.module_utils import _engine
from ansible_collections.signalbox.runbook.plugins.plugin_utils import _controller as controller


class ActionModule(ActionBase):
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("step",))

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        variables: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        before = controller.plain(variables["hostvars"]["localhost"]["__runbook"])
        state = before["state"]
        handed_on = {**result, **{key: before[key] for key in KEPT}, "changed": False}
        if not state["now"] or state["now"]["id"] != self._task.args["step"]:
            return {**handed_on, "state": state}  # an earlier failure took this step off the list
        hostvars = variables["hostvars"]
        outcomes = {h: controller.plain(hostvars[h].get("__runbook_outcome")) for h in state["now"]["hosts"]}
        state, events = _engine.advance(state, outcomes, time.time())
        done = state["done"][-1]
        line = {"phase": done["phase"], "text": done["text"], "ok": done["ok"]}
        if state["failure"] and not done["ok"]:
            line["diagnosis"] = state["failure"]["diagnosis"]
        if state["stopped"] and state["direction"] == "forward":
            return {**handed_on, "state": state, "timeline": [line]}  # fenced out: the journal is another run's now
        if state["now"] is None:
            state["unwritten"] = events  # the end of the run is near: it is written with its record, in one call
            return {**handed_on, "state": state, "timeline": [line]}
        written = controller.journal(
            self,
            variables,
            **before["store"],
            state="written",
            run=state["run"],
            fence=state["fence"],
            events=events,
            ttl_seconds=ttl(state),
        )
        if written.get("failed") or written.get("unreachable"):
            return {**handed_on, **written, "state": state, "timeline": [line]}
        return {**handed_on, "state": state, "timeline": [line]}


# What every result hands on to the next: the registered variable is the one carrier of the run.
KEPT = ("began", "accounting", "watch", "store", "report_dir")
