# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is really there, beside what the journal says: who answers, what stands, what unfinished runs come to.

Pure functions. Private: may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _records
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

Place = dict[str, Any]
Info = Mapping[str, Any]
Weights = Mapping[str, int]

# Strategies that replace a release on its own host, so that there is no other one standing beside it.
IN_PLACE = ("rolling", "recreate")
# Verbs that only tidy up: what is live stays so, whatever becomes of them.
TIDY = ("abort", "cleanup", "recover")


def other(slot: str) -> str:
    return "green" if slot == "blue" else "blue"


def named(place: Optional[Place]) -> str:
    return f"{place['version']} in {place['slot']}" if place else "no release"


def shown(weights: Weights) -> str:
    return ", ".join(f"{slot} {weight} %" for slot, weight in sorted(weights.items())) or "no traffic"


def reachable(*looks: Mapping[str, Info]) -> None:
    """Every participant must have answered, in every role that it has: nobody moves when one can't."""
    answers = [(host, answer) for look in looks for host, answer in look.items()]
    silent = {host: f"{host}: {answer.get('problem')}" for host, answer in reversed(answers) if answer.get("problem")}
    if silent:
        raise RunbookError(
            f"{len(silent)} of {len(dict(answers))} hosts can't take part, so none does; nothing has been touched. "
            + "; ".join(reversed(silent.values()))
        )


def missing(place: Optional[Place], targets: Mapping[str, Info]) -> list[str]:
    """The targets on which the place does not run its release."""
    if place is None:
        return []
    found = []
    for host, info in targets.items():
        slot = info["slots"].get(place["slot"]) or {}
        if slot.get("release") != place["release"] or not slot.get("running"):
            found.append(host)
    return found


def exclusive(slot: str, targets: Mapping[str, Info]) -> dict[str, dict[str, bool]]:
    """The services that may run in one slot only, and whether they run in this one, by target."""
    return {host: dict((info["slots"].get(slot) or {}).get("exclusive") or {}) for host, info in targets.items()}


def misplaced(live: Optional[Place], targets: Mapping[str, Info]) -> list[str]:
    """What is exclusive and does not run in the live slot, or runs beside it."""
    if live is None:
        return []
    beside = other(live["slot"])
    return [
        f"{host} does not run {name} of {live['version']}"
        for host, found in exclusive(live["slot"], targets).items()
        for name, runs in found.items()
        if not runs
    ] + [
        f"{host} runs {name} in {beside}, beside the live {live['slot']}"
        for host, found in exclusive(beside, targets).items()
        for name, runs in found.items()
        if runs
    ]


def lacking(release: str, targets: Mapping[str, Info]) -> list[str]:
    """The targets that do not have the release on disk any more."""
    return [host for host, info in targets.items() if release not in {r["id"] for r in info["releases"]}]


def drift(rest: Mapping[str, Any], routers: Mapping[str, Info]) -> list[str]:
    """The routers that do not do what they should do at rest (``_records.at_rest``), or answer another version. No
    answer is illness, not drift: it must not keep anybody from deploying the cure."""
    wanted, places = rest["weights"], rest["places"]
    versions = {str(value) for place in places for value in place["answers"].values()}
    problems = []
    for host, info in routers.items():
        weights = {slot: weight for slot, weight in (info.get("weights") or {}).items() if weight}
        if weights != wanted:
            problems.append(f"{host} sends {shown(weights)} instead of {shown(wanted)}")
            continue
        if info.get("below"):  # one target without traffic hides behind the others
            problems.append(f"{host} sends less to {', '.join(info['below'])} than to the others")
        for answer in info["answers"]:
            if places and answer["passed"] and str(answer["observed"]).strip() not in versions:
                expected = " or ".join(str(place["version"]) for place in places)
                problems.append(f"{host} answers {answer['observed']!r} to {answer['name']}, not {expected}")
    return problems


def is_version(answer: Info) -> bool:
    return str(answer["name"]).endswith(" version")


def well_there(place: Place, targets: Mapping[str, Info]) -> bool:
    """Whether every target said just now that the place runs its release, healthy, and answers its version.

    Then a rollback is one shift: what it goes to was verified before, and has just been asked again.
    """
    for info in targets.values():
        answers = (info["slots"].get(place["slot"]) or {}).get("answers") or []
        versions = {str(answer["observed"]).strip() for answer in answers if is_version(answer)}
        if not versions or not versions <= set(place["answers"].values()) or not all(a["passed"] for a in answers):
            return False
    return not missing(place, targets)


def unwell(to: Place, targets: Mapping[str, Info], routers: Mapping[str, Info]) -> list[str]:
    """Why the release that is live is to be made anew."""
    problems = [f"{host} does not run it" for host in missing(to, targets)] + misplaced(to, targets)
    for host, info in targets.items():
        slot = info["slots"].get(to["slot"]) or {}
        # Health alone is no reason to make it anew: a data store that is down would be down for the new one too.
        problems += failing(host, [answer for answer in slot.get("answers", ()) if is_version(answer)])
    for host, info in routers.items():
        problems += failing(host, info["answers"])
    return problems + drift({"weights": {to["slot"]: 100}, "places": [to]}, routers)


def failing(host: str, answers: Sequence[Info]) -> list[str]:
    return [f"{host}: {answer['name']}: {answer['problem']}" for answer in answers if not answer["passed"]]


# -- unfinished runs --------------------------------------------------------------------------------------------


def settle(
    unfinished: Sequence[Info], before: Optional[Place], targets: Mapping[str, Info]
) -> tuple[Optional[Place], list[dict[str, Any]]]:
    """What becomes of the runs that never ended: (the place that is to have the traffic, their records).

    A run whose watch had passed is finished, and so is a rollback that had begun to move traffic and had not failed;
    every other one is reverted: traffic goes back to the place before it. Where two places stand side by side, traffic
    had moved and only one of them still runs, that one is taken. Before traffic moved the new place is unproven and
    never taken. What is to be live and does not run is started again (see ``_steps.bring``).
    """
    live, records = before, []
    for run in unfinished:
        plan = (run["events"] or [{}])[0].get("plan")
        if plan is None:  # it died before its first line was whole: it had touched nothing
            records.append(_interrupted(run["run"], None, "it ended before its plan was recorded"))
            continue
        if plan["verb"] in TIDY:
            live = plan["from"]
            records.append(_interrupted(run["run"], plan, "it only tidied up"))
            continue
        committed = any(event["event"] == "committed" for event in run["events"])
        shifted = any(event["event"] == "intent" and event["phase"] == "shift" for event in run["events"])
        failed = any(event["event"] == "result" and not event["ok"] for event in run["events"])
        old_gone, new_gone = missing(plan["from"], targets), missing(plan["to"], targets)
        beside = plan["strategy"] not in IN_PLACE and plan["from"] is not None
        forward = committed or (shifted and plan["verb"] == "rollback" and not failed)
        if forward and not (beside and new_gone and not old_gone):
            live = plan["to"]
            why = "its watch had passed" if committed else "what a rollback goes to has been verified before"
            records.append(_record(plan, run, plan["success"], why))
        elif beside and shifted and old_gone and not new_gone:
            live = plan["to"]
            records.append(_record(plan, run, plan["success"], f"{named(plan['from'])} no longer stands"))
        else:
            live = plan["from"]
            why = "it had not passed its watch" if shifted else "it had moved no traffic"
            if new_gone and shifted:
                why = f"{named(plan['to'])} no longer stands"
            records.append(_interrupted(run["run"], plan, why))
    return live, records


def _record(plan: Mapping[str, Any], run: Info, outcome: str, why: str) -> dict[str, Any]:
    return {
        "run": run["run"],
        "verb": plan["verb"],
        "from": plan["from"],
        "to": plan["to"],
        "outcome": outcome,
        "started": run["events"][0]["at"],
        "reason": f"the run did not end; a later one settled it: {why}",
        **({"weights": plan["weights"], "remaining": plan["remaining"]} if outcome == "held" else {}),
    }


def _interrupted(run: int, plan: Optional[Mapping[str, Any]], why: str) -> dict[str, Any]:
    nothing = {"verb": "deploy", "from": None, "to": {"release": "", "version": "", "slot": ""}}
    events = {"run": run, "events": [{"at": 0}]}
    return _record(plan or nothing, events, "interrupted", why)


def rollback_target(journal: Mapping[str, Any], targets: Mapping[str, Info], wanted: str) -> Place:
    """Where ``rollback.yml`` goes, with what its services answer. When settling an unfinished run goes back already
    (it undoes a deploy, or ends a rollback), that is the wanted place, and not the one before it."""
    before = _records.live(journal["history"])
    live, settled = settle(journal["unfinished"], before, targets)
    if wanted == "previous" and live is not None:
        for record in settled:
            there = record["to"]["release"] == live["release"]
            if record["to"]["release"] and record["verb"] not in TIDY and there == (record["verb"] == "rollback"):
                return live
    records = [*journal["history"], *settled]
    release = _records.choose_rollback_target(records, wanted)
    places = [r["to"] for r in records if r["outcome"] in _records.LIVE_OUTCOMES]
    return next(place for place in reversed(places) if place["release"] == release["release"])
