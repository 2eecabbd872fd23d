# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan: what a run will do, made from the model, the journal and what is really serving.

Pure functions. A plan is plain data: it is printed, journalled and carried from play to play, so nothing secret
is in it. Private: may change at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _model, _records
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

Plan = dict[str, Any]
Step = dict[str, Any]
Place = dict[str, Any]
Info = Mapping[str, Any]

CONTROLLER = "localhost"
SHIFT_SECONDS = 90  # testing, reloading and confirming a router, and once more when the old weights are put back


VERIFY_SECONDS = 30  # asking the slots once more; the probes' own deadline is below it


def other(slot: str) -> str:
    return "green" if slot == "blue" else "blue"


# -- what is really there ---------------------------------------------------------------------------------------


def reachable(*looks: Mapping[str, Info]) -> None:
    """Every participant must have answered, in every role that it has: nobody moves when one can't."""
    answers = [(host, answer) for look in looks for host, answer in look.items()]
    silent = {host: f"{host}: {answer.get('problem')}" for host, answer in reversed(answers) if answer.get("problem")}
    if silent:
        raise RunbookError(
            f"{len(silent)} of {len(dict(answers))} hosts can't take part, so none does; nothing has been touched. "
            + "; ".join(reversed(silent.values()))
        )


def stands(place: Optional[Place], targets: Mapping[str, Info]) -> list[str]:
    """The targets on which the place does not run its release."""
    if place is None:
        return []
    missing = []
    for host, info in targets.items():
        slot = info["slots"].get(place["slot"]) or {}
        if slot.get("release") != place["release"] or not slot.get("running"):
            missing.append(host)
    return missing


def drift(place: Optional[Place], routers: Mapping[str, Info]) -> list[str]:
    """The routers that send traffic elsewhere than to ``place``, or answer another version. No answer is illness,
    not drift: it must not keep anybody from deploying the cure."""
    wanted = {place["slot"]: 100} if place else {}
    problems = []
    for host, info in routers.items():
        weights = {slot: weight for slot, weight in (info.get("weights") or {}).items() if weight}
        if weights != wanted:
            problems.append(f"{host} sends {_weights(weights)} instead of {_weights(wanted)}")
        elif place:
            for answer in info["answers"]:
                if answer["passed"] and str(answer["observed"]).strip() not in place["answers"].values():
                    problems.append(
                        f"{host} answers {answer['observed']!r} to {answer['name']}, not {place['version']}"
                    )
    return problems


def _weights(weights: Mapping[str, int]) -> str:
    return ", ".join(f"{slot} {weight} %" for slot, weight in sorted(weights.items())) or "no traffic"


# -- unfinished runs --------------------------------------------------------------------------------------------


def settle(
    unfinished: Sequence[Info], before: Optional[Place], targets: Mapping[str, Info], verb: str
) -> tuple[Optional[Place], list[Info]]:
    """What becomes of the runs that never ended: (the place that is to have the traffic, their records).

    A run whose watch had passed is finished, when its slot stands, and so is a rollback that had begun to move
    traffic and had not failed; every other one is reverted: traffic goes back to the place before it. Where traffic
    had moved and only one of the two places still stands, that one is taken. Before traffic moved the new place is
    unproven and never taken.
    """
    live, records = before, []
    for run in unfinished:
        plan = (run["events"] or [{}])[0].get("plan")
        if plan is None:  # it died before its first line was whole: it had touched nothing
            records.append(_interrupted(run["run"], None, "it ended before its plan was recorded"))
            continue
        committed = any(event["event"] == "committed" for event in run["events"])
        old_gone, new_gone = stands(plan["from"], targets), stands(plan["to"], targets)
        # There is no going back to nothing from what users already rely on.
        if new_gone and (old_gone or (committed and plan["from"] is None)):
            raise RunbookError(
                f"run {run['run']} did not end, and neither {_name(plan['from'])} nor {_name(plan['to'])} stands on "
                f"every target (missing on {', '.join(sorted({*old_gone, *new_gone}))}); nothing has been touched. "
                "Start the processes of one of them (supervisorctl start) and run this again"
            )
        shifted = any(event["event"] == "intent" and event["phase"] == "shift" for event in run["events"])
        failed = any(event["event"] == "result" and not event["ok"] for event in run["events"])
        if (committed or (shifted and plan["verb"] == "rollback" and not failed)) and not new_gone:
            live = plan["to"]
            why = "its watch had passed" if committed else "what a rollback goes to has been verified before"
            records.append(_record(plan, run, plan["success"], why))
        elif old_gone and shifted:
            live = plan["to"]
            records.append(_record(plan, run, plan["success"], f"{_name(plan['from'])} no longer stands"))
        else:
            live = plan["from"]
            why = "it had not passed its watch" if shifted else "it had moved no traffic"
            if new_gone and shifted:
                why = f"{_name(plan['to'])} no longer stands"
            records.append(_interrupted(run["run"], plan, why))
    return live, records


def _name(place: Optional[Place]) -> str:
    return f"{place['version']} in {place['slot']}" if place else "no release"


def _record(plan: Plan, run: Info, outcome: str, why: str) -> Info:
    return {
        "run": run["run"],
        "verb": plan["verb"],
        "from": plan["from"],
        "to": plan["to"],
        "outcome": outcome,
        "started": run["events"][0]["at"],
        "reason": f"the run did not end; a later one settled it: {why}",
    }


def _interrupted(run: int, plan: Optional[Plan], why: str) -> Info:
    nothing = {"verb": "deploy", "from": None, "to": {"release": "", "version": "", "slot": ""}}
    events = {"run": run, "events": [{"at": 0}]}
    return _record(plan or nothing, events, "interrupted", why)


# -- the plan ---------------------------------------------------------------------------------------------------


def make(
    request: Mapping[str, Any],
    models: Mapping[str, _model.Model],
    targets: Mapping[str, Info],
    routers: Mapping[str, Info],
    journal: Mapping[str, Any],
) -> Plan:
    """The whole plan of one run. ``models`` are those of ``request['to']`` for a rollback."""
    reachable(targets, routers)
    first = models[next(iter(targets))]
    history = journal["history"]
    recorded = _records.live(history)
    live, settled = settle(journal["unfinished"], recorded, targets, request["verb"])
    strayed = drift(live, routers)
    if strayed and not settled and first["app_drift"] == "stop":
        raise RunbookError(
            f"what is live is not what the records say ({_name(live)}): {'; '.join(strayed)}. Nothing has been "
            "touched. Find out who changed it; -e app_drift=restore puts the routers back first"
        )
    if settled and live is not None and stands(live, targets):
        raise RunbookError(
            f"{_name(live)} does not stand on {', '.join(stands(live, targets))} and an unfinished run has to be "
            "settled first; nothing has been touched"
        )
    effective = [*history, *settled]
    destination = _destination(request, models, targets, effective, live)
    to: Place = {**destination, "slot": other(live["slot"]) if live else "blue"}
    if live and live["release"] == to["release"]:
        to["slot"] = live["slot"]
    plan: Plan = {
        "verb": request["verb"],
        "application": first["app_name"],
        "environment": first["app_environment"],
        "strategy": first["app_strategy"],
        "reason": request["reason"],
        "from": live,
        "to": to,
        "artifacts": _model.artifacts(first) if request["verb"] == "deploy" else {},
        "success": "deployed" if request["verb"] == "deploy" else "restored",
        "basis": journal["fence"],
        "settles": settled,
        "targets": list(targets),
        "routers": list(routers),
        "lease_ttl_seconds": first["app_lease_ttl_seconds"],
        "notes": [],
    }
    steps = _settle_steps(plan, models, targets, routers, live, strayed)
    unwell = _unwell(to, targets, routers) if live and live["release"] == to["release"] else []
    if not live or live["release"] != to["release"] or (unwell and not steps):
        if unwell:  # the release that is asked for is live but ill: it is replaced by itself, in the other slot
            plan["notes"].append(f"{to['version']} is live but not well, so it is made anew: {'; '.join(unwell)}")
            plan["to"] = to = {**to, "slot": other(to["slot"])}
        steps += _change_steps(plan, models, targets, routers, effective)
        plan["revert"] = _revert_steps(plan, models, routers)
    else:
        plan["to"] = live
        plan["revert"] = []
        for host, info in targets.items():
            plan["notes"] += _failing(host, (info["slots"].get(live["slot"]) or {}).get("answers", ()))
    plan["steps"] = [{**step, "id": f"{number:02d}-{step['phase']}"} for number, step in enumerate(steps, 1)]
    plan["revert"] = [
        {**step, "id": f"{number:02d}-{step['phase']}"} for number, step in enumerate(plan["revert"], len(steps) + 1)
    ]
    plan["budget_seconds"] = sum(step["budget_seconds"] for step in plan["steps"])
    return plan


def _destination(
    request: Mapping[str, Any],
    models: Mapping[str, _model.Model],
    targets: Mapping[str, Info],
    history: Sequence[Info],
    live: Optional[Place],
) -> Place:
    if request["verb"] == "deploy":
        model = models[next(iter(targets))]
        digests = {host: _model.release_digest(models[host]) for host in targets}
        release = _model.release_id(model["app_version"], list(digests.values()))
        return {"release": release, "version": model["app_version"], "answers": _model.answers(model)}
    chosen = request["to"]
    lacking = [host for host, info in targets.items() if chosen["release"] not in {r["id"] for r in info["releases"]}]
    if lacking:
        raise RunbookError(
            f"{chosen['version']} ({chosen['release']}) is no longer on {', '.join(lacking)}, so no rollback can go to "
            f"it; nothing has been touched. Deploy it instead: deploy.yml -e app_version={chosen['version']}"
        )
    return {key: chosen[key] for key in ("release", "version", "answers")}


def rollback_target(journal: Mapping[str, Any], targets: Mapping[str, Info], wanted: str) -> Place:
    """Where ``rollback.yml`` goes, with what its services answer. When settling an unfinished run goes back already
    (it undoes a deploy, or ends a rollback), that is the wanted place, and not the one before it."""
    before = _records.live(journal["history"])
    live, settled = settle(journal["unfinished"], before, targets, "rollback")
    if wanted == "previous" and live is not None:
        for record in settled:
            there = record["to"]["release"] == live["release"]
            if record["to"]["release"] and there == (record["verb"] == "rollback"):
                return live
    records = [*journal["history"], *settled]
    release = _records.choose_rollback_target(records, wanted)
    places = [r["to"] for r in records if r["outcome"] in _records.LIVE_OUTCOMES]
    return next(place for place in reversed(places) if place["release"] == release["release"])


def _is_version(answer: Info) -> bool:
    return str(answer["name"]).endswith(" version")


def _well_there(place: Place, targets: Mapping[str, Info]) -> bool:
    """Whether every target said just now that the place runs its release, healthy, and answers its version.

    Then a rollback is one shift: what it goes to was verified before, and has just been asked again.
    """
    for info in targets.values():
        answers = (info["slots"].get(place["slot"]) or {}).get("answers") or []
        versions = {str(answer["observed"]).strip() for answer in answers if _is_version(answer)}
        if not versions or not versions <= set(place["answers"].values()) or not all(a["passed"] for a in answers):
            return False
    return not stands(place, targets)


def _unwell(to: Place, targets: Mapping[str, Info], routers: Mapping[str, Info]) -> list[str]:
    problems = [f"{host} does not run it" for host in stands(to, targets)]
    for host, info in targets.items():
        slot = info["slots"].get(to["slot"]) or {}
        # Health alone is no reason to make it anew: a data store that is down would be down for the new one too.
        problems += _failing(host, [answer for answer in slot.get("answers", ()) if _is_version(answer)])
    for host, info in routers.items():
        problems += _failing(host, info["answers"])
    return problems + drift(to, routers)


def _failing(host: str, answers: Sequence[Info]) -> list[str]:
    return [f"{host}: {answer['name']}: {answer['problem']}" for answer in answers if not answer["passed"]]


# -- steps ------------------------------------------------------------------------------------------------------


def _step(phase: str, role: str, verb: str, text: str, args: Mapping[str, Any], budget: float, **more: Any) -> Step:
    return {
        "phase": phase,
        "role": f"signalbox.runbook.{role}",
        "verb": verb,
        "hosts": list(args),
        "args": dict(args),
        "text": text,
        "budget_seconds": budget,
        **more,
    }


def _settle_steps(
    plan: Plan,
    models: Mapping[str, _model.Model],
    targets: Mapping[str, Info],
    routers: Mapping[str, Info],
    live: Optional[Place],
    strayed: Sequence[str],
) -> list[Step]:
    """Traffic goes to what is to be live before anything else is tried; what a dead run left is stopped."""
    steps = []
    if plan["settles"] or strayed:
        runs = ", ".join(str(record["run"]) for record in plan["settles"])
        plan["notes"].append(
            f"run {runs} did not end; traffic goes to {_name(live)} first" if runs else f"drift: {'; '.join(strayed)}"
        )
        weights = {live["slot"]: 100} if live else {}
        steps.append(_shift_step(plan, "settle", models, routers, weights, live, None))
    for record in plan["settles"]:
        slot = record["to"]["slot"]
        left = [h for h, info in targets.items() if (info["slots"].get(slot) or {}).get("release")]
        if record["outcome"] == "interrupted" and slot and left and not (live and live["slot"] == slot):
            steps.append(_retire_step(plan, "settle", models, left, slot, live))
    return steps


def _retire_step(
    plan: Plan,
    phase: str,
    models: Mapping[str, _model.Model],
    hosts: Sequence[str],
    slot: str,
    live: Optional[Place],
    **more: Any,
) -> Step:
    args = {
        host: {
            "slot": slot,
            "live_slot": live["slot"] if live else "",
            "services": _model.slot_services(models[host], slot, {}),
        }
        for host in hosts
    }
    role = f"runtime_{models[plan['targets'][0]]['app_runtime']}"
    return _step(phase, role, "retire", f"{slot} stopped", args, _start_budget(models, hosts), **more)


def _change_steps(
    plan: Plan,
    models: Mapping[str, _model.Model],
    targets: Mapping[str, Info],
    routers: Mapping[str, Info],
    history: Sequence[Info],
) -> list[Step]:
    to, live = plan["to"], plan["from"]
    role = f"runtime_{models[plan['targets'][0]]['app_runtime']}"
    live_slot = live["slot"] if live else ""
    release = {"id": to["release"], "version": to["version"]}
    steps = []
    if plan["verb"] == "deploy":
        stage = {
            host: {
                "release": {**release, "digest": _model.release_digest(models[host])},
                "present": to["release"] in {r["id"] for r in info["releases"]},
                "in_use": sorted({s["release"] for s in info["slots"].values() if s and s.get("release")}),
            }
            for host, info in targets.items()
        }
        budget = max(models[host].get("runtime_host_build_seconds") or 0 for host in targets)
        steps.append(_step("stage", role, "stage", to["version"], stage, budget))
    start = {
        host: {
            "slot": to["slot"],
            "release": release,
            "live_slot": live_slot,
            "services": _model.slot_services(models[host], to["slot"], to["answers"]),
        }
        for host in targets
    }
    started = plan["verb"] == "deploy" or not _well_there(to, targets)
    if started:
        text = f"{to['slot']} {to['version']} healthy"
        steps.append(_step("start", role, "start", text, start, _start_budget(models, targets)))
    for step in _traffic(plan, models):
        weight = step["weight"]
        weights = {to["slot"]: weight, **({live_slot: 100 - weight} if live and weight < 100 else {})}
        steps.append(_shift_step(plan, "shift", models, routers, weights, to, live if weight < 100 else None))
        if step["watch_seconds"]:
            watch = {
                "seconds": step["watch_seconds"],
                "probes": _watch_probes(models, plan, to, live if weight < 100 else None),
            }
            steps.append(
                _step(
                    "watch",
                    "watch",
                    "main",
                    f"{step['watch_seconds']} s",
                    {CONTROLLER: watch},
                    step["watch_seconds"] + 30,
                )
            )
    if started:
        # A process that ends once it has traffic leaves no trace at a router with other members: asked once more.
        verify = {host: {key: args[key] for key in ("slot", "release", "services")} for host, args in start.items()}
        text = f"{to['slot']} {to['version']} still healthy"
        steps.append(_step("verify", role, "verify", text, verify, VERIFY_SECONDS))
    steps += _prune_steps(plan, models, targets, history, role)
    return steps


def _traffic(plan: Plan, models: Mapping[str, _model.Model]) -> list[Mapping[str, Any]]:
    model = models[plan["targets"][0]]
    if plan["verb"] == "rollback":  # traffic returns at once; what it returns to has passed its watch before
        return [{"weight": 100, "watch_seconds": 0}]
    default = model["watch_seconds"]
    steps = model["app_steps"] if plan["from"] and model["app_steps"] else [{"weight": 100, "watch_seconds": None}]
    return [
        {"weight": s["weight"], "watch_seconds": default if s["watch_seconds"] is None else s["watch_seconds"]}
        for s in steps
    ]


def _start_budget(models: Mapping[str, _model.Model], targets: Iterable[str]) -> float:
    return max(
        float(sum(s["start_seconds"] + s["stop_seconds"] + s["drain_seconds"] for s in models[host]["app_services"]))
        for host in targets
    )


def _shift_step(
    plan: Plan,
    phase: str,
    models: Mapping[str, _model.Model],
    routers: Mapping[str, Info],
    weights: Mapping[str, int],
    to: Optional[Place],
    beside: Optional[Place],
    **more: Any,
) -> Step:
    """One change of weights on every router. ``beside`` is the other place that may answer at partial weights."""
    targets, args = plan["targets"], {}
    for host in routers:
        model = models[host]
        members = [host] if model["app_router_members"] == "local" else targets
        args[host] = {
            "upstreams": _model.upstreams(models, members, weights),
            "services": _model.router_services(model),
            "note": {"weights": dict(weights), "release": to["release"] if to else "", "version": _version(to)},
            "confirm": [
                _model.version_probe(
                    service,
                    _model.router_base(service, model),
                    *(place["answers"].get(service["name"]) for place in (to, beside) if place),
                    successes=5,
                )
                for service in _model.routed(model)
                if to
            ],
        }
    role = f"router_{models[targets[0]]['app_router']}"
    return _step(phase, role, "shift", _weights(weights), args, SHIFT_SECONDS, **more)


def _version(place: Optional[Place]) -> str:
    return str(place["version"]) if place else ""


def _watch_probes(
    models: Mapping[str, _model.Model], plan: Plan, to: Place, beside: Optional[Place]
) -> list[_model.Model]:
    model = models[plan["targets"][0]]
    return [
        _model.version_probe(
            service,
            service["url"] or model["app_url"],
            *(place["answers"].get(service["name"]) for place in (to, beside) if place),
        )
        for service in _model.routed(model)
    ]


def _prune_steps(
    plan: Plan,
    models: Mapping[str, _model.Model],
    targets: Mapping[str, Info],
    history: Sequence[Info],
    role: str,
) -> list[Step]:
    """What retention removes once the release is live: judged on the records as they will be then."""
    first = models[plan["targets"][0]]
    to = plan["to"]
    then = [*history, {"verb": plan["verb"], "from": plan["from"], "to": to, "outcome": plan["success"]}]
    args = {}
    for host, info in targets.items():
        slots = {slot["release"] for name, slot in info["slots"].items() if slot and name != to["slot"]}
        present = [r["id"] for r in info["releases"]]
        remove = _records.prune(
            then, present, first["app_keep_releases"], first["app_pinned_releases"], {*slots, to["release"]}
        )
        if remove:
            args[host] = {"remove": remove, "keep": sorted({*present, to["release"]} - set(remove))}
    if not args:
        return []
    count = len({r for a in args.values() for r in a["remove"]})
    return [_step("commit", role, "prune", f"{count} old releases removed", args, 120)]


def _revert_steps(
    plan: Plan,
    models: Mapping[str, _model.Model],
    routers: Mapping[str, Info],
) -> list[Step]:
    """The way back from any step: traffic first, then the failed slot is stopped and its last log lines kept.

    ``after`` is the phase whose intent makes the step necessary.
    """
    live, to = plan["from"], plan["to"]
    weights = {live["slot"]: 100} if live else {}
    return [
        _shift_step(plan, "revert", models, routers, weights, live, None, after="shift"),
        _retire_step(plan, "revert", models, plan["targets"], to["slot"], live, after="start"),
    ]


# -- words ------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def banner(plan: Plan) -> list[str]:
    """What is printed before anything happens."""
    live, to = plan["from"], plan["to"]
    head = f"{plan['application']} {_version(live) or '(none)'} -> {to['version']}   {plan['environment']}"
    shape = f"{plan['strategy'].replace('_', '-')}, {len(plan['targets'])} targets"
    if not plan["steps"]:
        ill = [f"but not well: {note}" for note in plan["notes"]]
        return [
            f"{plan['application']} {to['version']}   {plan['environment']}   {shape}",
            "nothing to do: it is live",
            *ill,
        ]
    lines = [f"{head}   {shape}   at most {duration(plan['budget_seconds'])}"]
    lines += plan["notes"]
    lines += [f"release {to['release']} in {to['slot']} on {', '.join(plan['targets'])}"]
    lines += [f"  {step['id']:<12}{step['text']}   {_hosts(step)}".rstrip() for step in plan["steps"]]
    if live:
        lines.append(f"rollback: {live['version']} stays in {live['slot']}; going back is one shift")
    else:
        lines.append("rollback: none, this is the first release; a failure leaves no traffic")
    return lines


def _hosts(step: Step) -> str:
    return "" if step["hosts"] == [CONTROLLER] else f"on {', '.join(step['hosts'])}"
