# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""End a run: journal its record, release the lease, write the reports. Documentation: the module of the same name."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.signalbox.runbook.plugins.module_utils import _accounting, _engine, _gates, _plan, _report
from ansible_collections.signalbox.runbook.plugins.module_utils._journal import utc
from ansible_collections.signalbox.runbook.plugins.module_utils._reality import TIDY, shown
from ansible_collections.signalbox.runbook.plugins.plugin_utils import _controller as controller


class ActionModule(ActionBase):
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("accounting", "measured"))

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        variables: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        before = controller.plain(variables["hostvars"]["localhost"]["__runbook"])
        state = before["state"]
        if self._task.check_mode or not state["plan"]["steps"]:
            return {**result, "changed": False}
        measured = controller.plain(self._task.args.get("measured") or {})
        started = controller.plain(self._task.args.get("accounting") or {})
        requests = measured.get("requests")
        ended = time.time()
        more = {
            "triggered_by": state["holder"],
            "artifacts": state["plan"]["artifacts"],
            "duration_s": round(ended - state["started"], 3),
            "log": state["log"],
        }
        record = _engine.record(state, requests, more)
        problem = ""
        if record["outcome"] != "stopped":
            closed = controller.journal(
                self,
                variables,
                **before["store"],
                state="closed",
                run=state["run"],
                fence=state["fence"],
                events=[*state.get("unwritten", []), {"event": "end", "outcome": record["outcome"]}],
                record=record,
            )
            if closed.get("failed") or closed.get("unreachable"):
                problem = f"the record could not be written: {closed.get('msg')}"
        offset = round((started.get("started_at") or state["started"]) - state["started"])
        samples = [{**bucket, "t": bucket["t"] + offset} for bucket in measured.get("samples") or []]
        report = {**_report_of(state, record, ended), "samples": samples}
        where = _write(report, before["report_dir"])
        if record["outcome"] == "deployed":
            _write_proof(record, state, ended, before["report_dir"])
        good = record["outcome"] in GOOD and not problem
        result.update(changed=True, failed=not good, outcome=record["outcome"], report=report, closing=_closing(report))
        result["closing"].append(f"report: {where}    next: ansible-playbook status.yml")
        if not good:
            result["msg"] = problem or _sentence(report)
        return result


def _report_of(state: Mapping[str, Any], record: Mapping[str, Any], ended: float) -> dict[str, Any]:
    failure = state["failure"] or {}
    requests = record["requests"] or _accounting.summary([])
    requests = {**requests, "connections_cut": requests["connections_cut"] + state["connections_cut"]}
    return {
        "run": state["run"],
        "verb": record["verb"],
        "application": record["application"],
        "environment": record["environment"],
        "version": record["to"]["version"],
        "from": record["from"],
        "to": record["to"],
        "outcome": record["outcome"],
        "weights": shown(state["plan"]["weights"]),
        "reason": record["reason"],
        "triggered_by": record["triggered_by"],
        "started_at": utc(state["started"]),
        "ended_at": utc(ended),
        "duration_s": record["duration_s"],
        "phases": [
            {
                "name": done["phase"],
                "started_s": round(done["started"], 3),
                "ended_s": round(done["ended"], 3),
                "outcome": "ok" if done["ok"] else "failed",
                "text": done["text"],
                **({"series": done["series"]} if "series" in done else {}),
            }
            for done in state["done"]
        ],
        "requests": requests,
        "targets": record["targets"],
        "failure": _engine.said(failure.get("hosts", {})),
        "stopped": state["stopped"],
        "tidy_problem": state.get("tidy_problem", ""),
        "diagnosis": failure.get("diagnosis", []),
        "log": state["log"],
        **({"decision": state["kept"]["decision"]} if "decision" in state["kept"] else {}),
    }


def _write(report: Mapping[str, Any], directory: str) -> str:
    """Both reports, readable by their owner: log lines of the application may be in them."""
    into = Path(directory)
    into.mkdir(parents=True, exist_ok=True)
    stem = into / f"{report['application']}-{report['environment']}-run-{report['run']}"
    for suffix, text in ((".json", json.dumps(report, indent=1) + "\n"), (".html", _report.page([report]))):
        path = stem.with_name(stem.name + suffix)
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
    return f"{stem}.html"


def _write_proof(record: Mapping[str, Any], state: Mapping[str, Any], ended: float, directory: str) -> None:
    """That this release was verified here, for the gate ``promotion`` of the next environment."""
    to = record["to"]
    found = {"release": to["release"], "version": to["version"], "run": state["run"], "verified_at": round(ended)}
    text = _gates.proof({**record, **found, "code": _gates.code_of(record["artifacts"])})
    name = f"{record['application']}-{record['environment']}-{to['version']}.proof"
    (Path(directory) / name).write_text(text, encoding="utf-8")


LOGS = 2  # logs shown in the closing block, the report has all
LOG_LINES = 8

# Outcomes of a run that did what was asked.
GOOD = tuple(dict.fromkeys((*_plan.SUCCESS.values(), "held")))

WORDS = {
    "held": "HELD",
    "aborted": "ABORTED",
    "cleaned": "CLEANED UP",
    "recovered": "RECOVERED",
    "deployed": "DEPLOYED",
    "restored": "ROLLED BACK",
    "rolled_back": "ROLLED BACK",
    "failed": "FAILED",
    "blocked": "BLOCKED",
    "revert_failed": "REVERT FAILED",
    "stopped": "STOPPED",
}


def _sentence(report: Mapping[str, Any]) -> str:
    live = report["from"]["version"] if report["from"] else "nothing"
    name, to = report["application"], report["to"]["version"]
    return {
        "deployed": f"{name} {to} is live",
        "restored": f"{name} is back on {to}",
        "held": f"{name} {to} is held at {report['weights']}: promote.yml goes on, abort.yml takes it back",
        "aborted": f"{name} {to} was taken back; {live} answers everywhere",
        "cleaned": f"{name} {to} is live, and nothing else is left",
        "recovered": f"{name} {to} is live everywhere",
        "rolled_back": f"{name} {to} was taken back; {live} answers everywhere",
        "failed": _failed(report),
        "blocked": f"{name} was not deployed, because not all gates hold; nothing has been touched",
        "revert_failed": f"{report['stopped']}. When every host answers again, {_finishes(report)}",
        "stopped": f"{report['stopped']}; nothing more was changed",
    }[report["outcome"]]


def _finishes(report: Mapping[str, Any]) -> str:
    if not report["from"]:
        return "the next deploy finishes it; status.yml shows what is where"
    return f"recover.yml puts everything back to {report['from']['version']}; status.yml shows what is where until then"


def _failed(report: Mapping[str, Any]) -> str:
    name, live = f"{report['application']} {report['to']['version']}", report["from"]
    if report["verb"] in TIDY:
        return f"{report['verb']} of {name} did not come to its end; status.yml shows what is where"
    if not live:
        return f"{name} never took traffic; nothing was live before"
    # In place the old release made room, and was put back.
    replaced = any(phase["name"] == "replace" for phase in report["phases"])
    return f"{name} never took traffic; {live['version']} {'answers everywhere' if replaced else 'was not touched'}"


def _closing(report: Mapping[str, Any]) -> list[str]:
    """The closing block: from, to, outcome, duration, requests, and for a failure what its cause looks like."""
    live = report["from"]["version"] if report["from"] else "(none)"
    lines = [
        f"{WORDS[report['outcome']]} after {_plan.duration(report['duration_s'])}: {_sentence(report)}",
        f"from {live} to {report['to']['version']}, {report['to']['slot']} slot, run {report['run']}",
    ]
    requests = report["requests"]
    if requests["sent"]:
        gap = requests["longest_gap_ms"]
        lines.append(
            f"requests: {requests['sent']:,} sent, {requests['failed']:,} failed, longest gap "
            f"{'unknown' if gap is None else f'{gap:.0f} ms'}, {requests['connections_cut']} connections cut"
        )
    if report["failure"]:
        lines.append(f"because: {report['failure']}")
    if report["tidy_problem"]:
        lines.append(f"left to do: tidying up failed: {report['tidy_problem']}")
    lines += [f"  {line}" for line in report["diagnosis"]]
    logs = list(report["log"].items()) if report["failure"] else []
    for source, log in logs[:LOGS]:
        lines.append(f"last log lines of {source}:")
        lines += [f"  | {line}" for line in log[-LOG_LINES:]]
    if len(logs) > LOGS:
        lines.append(f"the logs of {', '.join(source for source, _log in logs[LOGS:])} are in the report")
    return lines
