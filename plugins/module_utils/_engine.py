# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine: one state machine that carries a plan through its steps, and back when a step fails.

``begin`` and ``advance`` are pure: state and outcomes in, new state and journal events out. The state is plain data
that plays hand on; ``now`` is the step to do next, or None when the run is over. Private: may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

State = dict[str, Any]
Event = dict[str, Any]
Outcome = Mapping[str, Any]


def begin(plan: Mapping[str, Any], at: float) -> State:
    """Before the first step. Run and fencing number come from the journal when the lease is taken."""
    return {
        "plan": plan,
        "run": 0,
        "fence": 0,
        "host_fence": 0,
        "started": at,
        "direction": "forward",
        "todo": list(plan["steps"]),
        "now": None,
        "intended": [],
        "done": [],
        "failure": None,
        "stopped": "",
        "connections_cut": 0,
        "log": {},
        "kept": {},
    }


def numbered(state: State, run: int, fence: int) -> State:
    """Of the fencing numbers of hosts every run has two. The way back has the higher one, so that what is left of a
    step that timed out is refused once the way back was there."""
    return {**state, "run": run, "fence": fence, "host_fence": 2 * fence}


def intent(state: State, at: float) -> tuple[State, list[Event]]:
    """Take the next step off the list and say so before it is done."""
    state = {**state, "todo": list(state["todo"])}
    events: list[Event] = []
    on_course = state["direction"] == "forward" and not state["stopped"]
    if on_course and not _changes_left(state) and not state.get("committed"):
        # The point of no return: what follows only tidies up, so a crash from here on is finished, not reverted.
        # A release that is to be held has none: nobody has decided for it yet.
        moves = any(step["phase"] == "shift" for step in state["plan"]["steps"])
        if moves and state["plan"]["success"] != "held":
            events.append({"event": "committed"})
        state["committed"] = True
    state["now"] = state["todo"].pop(0) if state["todo"] else None
    if state["now"]:
        step = state["now"]
        mark = {"mark": step["mark"]} if step.get("mark") else {}
        state["intended"] = [*state["intended"], {"id": step["id"], "phase": step["phase"], "at": at, **mark}]
        events.append({"event": "intent", "step": step["id"], "phase": step["phase"], "hosts": step["hosts"]})
    return state, events


def _changes_left(state: State) -> bool:
    return any(step["phase"] != "commit" for step in state["todo"])


def votes(step: Mapping[str, Any], outcomes: Mapping[str, Optional[Outcome]]) -> dict[str, str]:
    """What speaks against each host of the step; empty when it voted yes. No vote is a no."""
    against = {}
    for host in step["hosts"]:
        outcome = outcomes.get(host)
        if not outcome or outcome.get("step") != step["id"]:
            against[host] = "gave no answer"
        else:
            result = outcome.get("result") or {}
            if result.get("unreachable"):
                against[host] = f"is unreachable: {_message(result)}"
            elif outcome.get("failed") or result.get("failed") or "failed" not in result:
                against[host] = _message(result)
            else:
                against[host] = ""
    if not any(against.values()):
        problem = _difference({host: (outcomes[host] or {}).get("result") or {} for host in against})
        against = dict.fromkeys(against, problem)
    return against


def _difference(results: Mapping[str, Mapping[str, Any]]) -> str:
    """What hosts have to have the same and do not. A thing may have several names; one that all share is enough."""
    told: dict[str, dict[str, Sequence[str]]] = {}
    for host, result in results.items():
        for what, names in (result.get("same") or {}).items():
            told.setdefault(what, {})[host] = names
    for what, names_of in told.items():
        if not set.intersection(*map(set, names_of.values())):
            hosts: dict[str, list[str]] = {}
            for host, names in names_of.items():
                hosts.setdefault(names[0], []).append(host)
            which = ", but ".join(f"{name} on {', '.join(members)}" for name, members in hosts.items())
            return f"{what} is {which}: one release must be the same everywhere, so name it by its digest"
    return ""


def _message(result: Mapping[str, Any]) -> str:
    if "timedout" in result:  # Ansible's own words for it name neither
        return f"gave no answer for {result['timedout']['period']} s; what it does there may still go on"
    return str(result.get("msg") or "failed without a message").strip()


def advance(state: State, outcomes: Mapping[str, Optional[Outcome]], at: float) -> tuple[State, list[Event]]:
    """The vote on the step that was just done, and the intent of the next one."""
    step = state["now"]
    if step is None:
        return state, []
    against = votes(step, outcomes)
    bad = {host: problem for host, problem in against.items() if problem}
    begun = state["intended"][-1]["at"]
    # What a host left of an earlier step was counted then.
    answers = {h: outcomes.get(h) or {} for h in step["hosts"]}
    results = {h: a.get("result") or {} if a.get("step") == step["id"] else {} for h, a in answers.items()}
    text = said(bad)
    done = {
        "step": step["id"],
        "phase": step["phase"],
        "ok": not bad,
        "started": begun - state["started"],
        "ended": at - state["started"],
        "text": _done_text(step, results) if not bad else text,
        "changed": any(result.get("changed") for result in results.values()),
    }
    series = {name: points for result in results.values() for name, points in (result.get("series") or {}).items()}
    if series:  # what a watch measured; the record keeps it
        done["series"] = series
    events: list[Event] = [
        {"event": "result", "step": step["id"], "ok": not bad, "against": bad, "seconds": round(at - begun, 3)}
    ]
    state = {**state, "done": [*state["done"], done]}
    if bad or state["direction"] == "revert":  # what is stopped on the way forward, the old release, is not to blame
        state["log"] = {**_logs(results), **state["log"]}
    for result in results.values():
        state["kept"] = {**state["kept"], **(result.get("record") or {})}
    state["connections_cut"] += sum(int(result.get("connections_cut") or 0) for result in results.values())
    unclear = any(result.get("attention") for result in results.values())
    if any(result.get("fenced") for result in results.values()):
        state.update(todo=[], stopped="another run has taken the lease over")
        state["failure"] = state["failure"] or _failure(step, bad, results)
    elif bad and step["phase"] == "commit":
        state["tidy_problem"] = text  # the release is live and proven: failing to tidy up does not undo it
    elif bad:
        if state["failure"] is None:
            state["failure"] = _failure(step, bad, results)
        if state["direction"] == "forward":
            state["direction"] = "revert"
            state["host_fence"] += 1
            state["todo"] = way_back(state)
        else:
            # What may still have traffic is not stopped: a router that did not go back would answer nothing at all.
            state.update(todo=[], stopped=f"the way back failed at {step['id']}: {text}")
    elif unclear and step.get("hold") and state["direction"] == "forward":
        # Nobody knows whether it is well, so a person decides whether it gets more: promote or abort.
        state.update(todo=[], plan={**state["plan"], **step["hold"], "success": "held"})
    return _then(state, events, at)


def _then(state: State, events: list[Event], at: float) -> tuple[State, list[Event]]:
    state, more = intent(state, at)
    return state, [*events, *more]


def way_back(state: State) -> list[Mapping[str, Any]]:
    """The steps of the way back that what was begun makes necessary. ``after`` is a phase, or the mark of a batch;
    ``unless`` a mark from which on other steps are the way back."""
    begun = {entry["phase"] for entry in state["intended"]} | {entry.get("mark") for entry in state["intended"]}
    return [s for s in state["plan"]["revert"] if s["after"] in begun and s.get("unless") not in (begun - {None})]


def said(bad: Mapping[str, str]) -> str:
    """What hosts said against a step; hosts that said the same share one sentence."""
    hosts: dict[str, list[str]] = {}
    for host, problem in bad.items():
        hosts.setdefault(problem, []).append(host)
    return "; ".join(
        problem if names == ["localhost"] else f"{', '.join(names)}: {problem}" for problem, names in hosts.items()
    )


def _failure(step: Mapping[str, Any], bad: Mapping[str, str], results: Mapping[str, Mapping[str, Any]]) -> State:
    """What went wrong, with the diagnosis by which it may be mended, each line once."""
    lines = []
    for host in bad:
        for cause in results.get(host, {}).get("diagnosis") or []:
            if isinstance(cause, Mapping):
                fix = f" {cause['fix']}" if cause.get("fix") else ""
                lines.append(f"{cause['name']}: {cause['problem']}.{fix}")
            else:
                lines.append(str(cause))
    return {"step": step["id"], "phase": step["phase"], "hosts": dict(bad), "diagnosis": list(dict.fromkeys(lines))}


def _logs(results: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    return {
        f"{host}/{service}": list(lines)
        for host, result in results.items()
        for service, lines in (result.get("log") or {}).items()
        if lines
    }


def _done_text(step: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> str:
    said = [str(result["text"]) for result in results.values() if result.get("text")]
    if said:
        return "; ".join(dict.fromkeys(said))
    count = len(step["hosts"])
    return f"{step['text']} on {count}/{count}"


def outcome(state: State) -> str:
    """One word for the record."""
    if state["stopped"]:
        return "revert_failed" if state["direction"] == "revert" else "stopped"
    if state["failure"] is None:
        return str(state["plan"]["success"])
    if state["failure"]["phase"] == "gates":
        return "blocked"
    return "rolled_back" if any(entry["phase"] == "shift" for entry in state["intended"]) else "failed"


def record(state: State, requests: Optional[Mapping[str, Any]], more: Mapping[str, Any]) -> dict[str, Any]:
    """The deployment record, one line of the history."""
    plan = state["plan"]
    return {
        "verb": plan["verb"],
        "application": plan["application"],
        "environment": plan["environment"],
        "strategy": plan["strategy"],
        "from": plan["from"],
        "to": plan["to"],
        "outcome": outcome(state),
        "reason": plan["reason"],
        "started": state["started"],
        "phases": state["done"],
        "failure": state["failure"],
        "stopped": state["stopped"],
        "targets": plan["targets"],
        "routers": plan["routers"],
        "requests": requests,
        "connections_cut": state["connections_cut"],
        **state["kept"],
        **({"weights": plan["weights"], "remaining": plan["remaining"]} if outcome(state) == "held" else {}),
        **more,
    }


def phase_hosts(state: Optional[Mapping[str, Any]], phases: Sequence[str]) -> list[str]:
    """The hosts of a play: the controller and all that take part in the phase; none when it has no turn."""
    if not state or not state.get("now") or state["now"]["phase"] not in phases:
        return []
    steps = [state["now"], *state["todo"]]
    hosts = [host for step in steps if step["phase"] in phases for host in step["hosts"]]
    return list(dict.fromkeys(["localhost", *hosts]))


def phase_steps(state: Mapping[str, Any], phases: Sequence[str]) -> list[str]:
    """The ids of the steps that a play goes through, as far as nothing fails."""
    steps = [state["now"], *state["todo"]] if state.get("now") else []
    return [step["id"] for step in steps if step["phase"] in phases]


def takes_part(state: Mapping[str, Any], step: str, host: str) -> bool:
    now = state.get("now") or {"id": "", "hosts": []}
    return bool(now["id"] == step and host in now["hosts"])
