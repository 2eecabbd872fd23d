# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make the plan and, unless in check mode, take the lease. Documentation: the module of the same name."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Optional

from ansible.errors import AnsiblePromptInterrupt, AnsiblePromptNoninteractive
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.signalbox.runbook.plugins.module_utils import _engine, _gates, _model, _plan, _reality
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.plugin_utils import _controller as controller

display = Display()

# Verbs that bring something new; the way back must not wait for anybody.
CONFIRMED = ("deploy", "promote")
CONFIRM_SECONDS = 300


class ActionModule(ActionBase):
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("verb", "to"))

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        variables: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        verb = str(self._task.args["verb"])
        seen = variables["hostvars"]["localhost"]["__runbook"]
        journal = controller.plain(seen["journal"])
        targets = controller.looked_at(variables["hostvars"], seen["targets"], "__runbook_target")
        routers = controller.looked_at(variables["hostvars"], seen["routers"], "__runbook_router")
        try:
            _reality.reachable(targets, routers)
            request: dict[str, Any] = {"verb": verb, "version": str(variables.get("app_version") or "")}
            if verb != "deploy":
                request["to"] = _plan.destination(verb, journal, targets, str(self._task.args.get("to") or "previous"))
                request["version"] = request["to"]["version"]
            models = controller.load_models(variables, self._task, self._loader, request)
            first = models[seen["targets"][0]]
            default_reason = f"{verb} {request['version']}"
            request["reason"] = first["app_reason"] or default_reason
            if verb == "deploy":
                asked = _gates.questions(models, controller.groups(variables), "deploy")
                requester = controller.holder(variables)["user"]
                request.update(gates=asked, requester=requester, proof=controller.proofs(self, variables))
            plan = _plan.make(request, models, targets, routers, journal)
        except RunbookError as error:
            return {**result, **controller.refusal(error)}
        settings = {
            "began": seen["began"],
            "accounting": controller.plain(seen["accounting"]),
            "watch": controller.open_values(first, "watch_"),
            "store": _model.store(models[controller.groups(variables)["state"][0]]),
            "report_dir": first["app_report_dir"],
        }
        result.update(changed=bool(plan["steps"]), banner=_plan.banner(plan), diff=_diff(plan, routers), **settings)
        if self._task.check_mode or not plan["steps"]:
            return {**result, "state": {"plan": plan, "now": None, "todo": []}, "predicted": _predicted(plan)}
        if verb in CONFIRMED and first["app_confirm"]:
            try:
                self._confirm(first, result)
            except RunbookError as error:
                return {**result, **controller.refusal(error), "changed": False}
        return self._open(result, plan, journal, variables, settings["store"])

    def _confirm(self, model: Mapping[str, Any], result: dict[str, Any]) -> None:
        """Whoever runs this has seen the plan, and says so by the name of the environment."""
        wanted, said = model["app_environment"], model["app_confirmed"]
        if not said:
            for line in ["", *result.pop("banner"), ""]:
                display.display(line)
            asked = f"Type {wanted} to go on with it ({CONFIRM_SECONDS // 60} minutes to decide): "
            try:
                said = display.prompt_until(asked, seconds=CONFIRM_SECONDS).decode(errors="replace").strip()
            except AnsiblePromptNoninteractive:
                raise RunbookError(
                    "app_confirmed: is missing, and nobody is at a terminal to be asked; give "
                    f"-e app_confirmed={wanted}"
                ) from None
            except AnsiblePromptInterrupt:
                said = ""
        if said != wanted:
            raise RunbookError(f"app_confirmed: must be {wanted}, the environment that this run changes, not {said!r}")

    def _open(
        self,
        result: dict[str, Any],
        plan: dict[str, Any],
        journal: Mapping[str, Any],
        variables: Mapping[str, Any],
        store: Mapping[str, Any],
    ) -> dict[str, Any]:
        lease = journal["lease"]
        who = controller.holder(variables)
        state, events = _engine.intent(_engine.begin(plan, result["began"]), time.time())
        opened = controller.journal(
            self,
            variables,
            **store,
            state="opened",
            holder=who,
            reason=plan["reason"],
            ttl_seconds=ttl(state),
            basis=plan["basis"],
            dead_fence=lease["fence"] if lease and controller.is_dead(lease) else 0,
            plan=summary(plan),
            settled=plan["settles"],
            events=events,
        )
        if opened.get("failed") or opened.get("unreachable"):
            return {**result, **opened, "changed": False}
        state = _engine.numbered(state, opened["run"], opened["fence"])
        state["holder"] = who
        line = f"run {state['run']}, holder {who['user']}@{who['host']}: {plan['reason']}"
        return {**result, "state": state, "timeline": [{"phase": "lease", "text": line, "ok": True}]}


def ttl(state: Mapping[str, Any]) -> float:
    """The lease lasts until the step that is about to begin has ended or timed out; a watch renews it by itself."""
    step, base = state["now"], state["plan"]["lease_ttl_seconds"]
    return float(base if step is None or step["phase"] == "watch" else max(base, step["timeout_seconds"] + 30))


def summary(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What the journal keeps of a plan: all that settling needs, without the arguments of the steps."""
    names = ("verb", "application", "environment", "strategy", "reason", "from", "to", "success")
    keep = (*names, "weights", "remaining", "targets", "routers")
    steps = [{"id": s["id"], "phase": s["phase"], "hosts": s["hosts"]} for s in [*plan["steps"], *plan["revert"]]]
    return {**{key: plan[key] for key in keep}, "steps": steps}


def _predicted(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What will be true after the run, as far as a caller can compare it."""
    return {"release": plan["to"]["release"], "version": plan["to"]["version"], "slot": plan["to"]["slot"]}


def _diff(plan: Mapping[str, Any], routers: Mapping[str, Any]) -> dict[str, str]:
    live = plan["from"]
    after = {host: dict(plan["weights"]) for host in routers}
    before = {host: {s: w for s, w in (info.get("weights") or {}).items() if w} for host, info in routers.items()}
    return {
        "before": _text({"live": live and live["release"], "weights": before}),
        "after": _text({"live": _live_after(plan), "weights": after}),
        "before_header": "live now",
        "after_header": "live after this run",
    }


def _live_after(plan: Mapping[str, Any]) -> Any:
    place = plan["to"] if plan["success"] in ("deployed", "restored") else plan["from"]
    return place and place["release"]


def _text(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"
