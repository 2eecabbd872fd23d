# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is live where: the journal beside what hosts say. Pure functions. Private: may change at any time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.signalbox.runbook.plugins.module_utils import _reality, _records
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._journal import utc

Info = Mapping[str, Any]


def overview(
    targets: Mapping[str, Info], routers: Mapping[str, Info], journal: Info, recent: int = 10
) -> dict[str, Any]:
    history = journal["history"]
    live = _records.live(history)
    there = {host: info for host, info in targets.items() if not info.get("problem")}
    asked = {host: info for host, info in routers.items() if not info.get("problem")}
    looks = [*targets.items(), *routers.items()]  # one host may be both
    problems = list(dict.fromkeys(f"{host}: {info['problem']}" for host, info in looks if info.get("problem")))
    problems += _reality.drift(_records.at_rest(history), asked)
    problems += [f"{host} does not run {live['version']}" for host in _reality.missing(live, there)] if live else []
    problems += _reality.misplaced(live, there)
    problems += [
        f"{host}: {answer['name']}: {answer['problem']}"
        for host, info in there.items()
        if live
        for answer in (info["slots"].get(live["slot"]) or {}).get("answers", ())
        if not answer["passed"]
    ]
    problems += [
        f"{host}: {answer['name']}: {answer['problem']}"
        for host, info in asked.items()
        for answer in info["answers"]
        if live and not answer["passed"]
    ]
    problems += [
        f"run {run['run']} did not end; recover.yml, or the next deploy.yml, settles it"
        for run in journal["unfinished"]
        if not journal["lease"] or journal["lease"]["run"] != run["run"] or journal["lease"]["expired"]
    ]
    rollback: dict[str, Any]
    try:
        back = _reality.rollback_target({**journal, "unfinished": []}, there, "previous")
        rollback = {"to": back, "missing": _reality.missing(back, there), "problem": ""}
    except RunbookError as error:
        rollback = {"to": None, "missing": [], "problem": str(error)}
    return {
        "live": live,
        "targets": {host: _slots(info) for host, info in targets.items()},
        "routers": {host: _router(info) for host, info in routers.items()},
        "held": _records.held(history),
        "lease": journal["lease"],
        "unfinished": [run["run"] for run in journal["unfinished"]],
        "rollback": rollback,
        "releases": _records.statuses(history),
        "runs": list(history[-recent:]),
        "problems": problems,
    }


def _slots(info: Info) -> dict[str, Any]:
    if info.get("problem"):
        return {"problem": info["problem"]}
    return {
        name: {
            "release": slot["release"],
            "version": slot["version"],
            "running": slot["running"],
            "healthy": slot.get("healthy", False),
            "answers": {
                answer["name"]: answer["observed"] if answer["passed"] else None for answer in slot.get("answers", ())
            },
        }
        for name, slot in info["slots"].items()
        if slot and slot.get("release")
    }


def _router(info: Info) -> dict[str, Any]:
    if info.get("problem"):
        return {"problem": info["problem"]}
    weights = {slot: weight for slot, weight in (info.get("weights") or {}).items() if weight}
    return {"weights": weights, "answers": {a["name"]: a["observed"] if a["passed"] else None for a in info["answers"]}}


def lines(name: str, environment: str, seen: Mapping[str, Any]) -> list[str]:
    """The overview for a person, the verdict first."""
    live, problems = seen["live"], seen["problems"]
    head = f"{live['version']} ({live['release']}) is live in {live['slot']}" if live else "nothing has ever been live"
    out = [f"{name} {environment}: {head}" + (f", {len(problems)} problems" if problems else ", all agree")]
    out += [f"  ! {problem}" for problem in problems]
    for host, slots in seen["targets"].items():
        shown = [
            f"{slot} {held['version']} {'running' if held['running'] else 'stopped'}"
            for slot, held in sorted(slots.items())
            if slot != "problem"
        ]
        out.append(f"  target {host:<12} {'   '.join(shown) or slots.get('problem', 'empty')}")
    for host, router in seen["routers"].items():
        if "problem" in router:
            out.append(f"  router {host:<12} {router['problem']}")
            continue
        weights = ", ".join(f"{slot} {weight} %" for slot, weight in sorted(router["weights"].items())) or "no traffic"
        answers = ", ".join(f"{name}: {value or 'no answer'}" for name, value in router["answers"].items())
        out.append(f"  router {host:<12} {weights}   {answers}")
    part = seen["held"]
    if part:
        weights = _reality.shown(part["weights"])
        out.append(f"  held: {_reality.named(part['to'])} at {weights}; promote.yml goes on, abort.yml takes it back")
    back = seen["rollback"]
    if back["to"]:
        cold = f", not standing on {', '.join(back['missing'])}" if back["missing"] else ", standing: one shift"
        out.append(f"  rollback would go to {back['to']['version']} in {back['to']['slot']}{cold}")
    else:
        out.append(f"  rollback: {back['problem']}")
    lease = seen["lease"]
    if lease:
        who = lease["holder"]
        word = "expired" if lease["expired"] else "held"
        since = utc(lease["since"])
        out.append(
            f"  lease {word}: run {lease['run']} of {who['user']}@{who['host']} since {since}: {lease['reason']}"
        )
    else:
        out.append("  lease: free")
    for run in seen["runs"]:
        before = run["from"]["version"] if run.get("from") else "(none)"
        ended = utc(run["ended"]) if run.get("ended") else ""
        out.append(
            f"  run {run['run']:<5}{run['verb']:<10}{before + ' -> ' + (run['to']['version'] or '(unknown)'):<22}"
            f"{run['outcome']:<14}{ended}  {run.get('reason') or ''}".rstrip()
        )
    return out
