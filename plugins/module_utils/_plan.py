# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan: what a run will do, made from the model, the journal and what is really serving.

Pure functions. A plan is plain data: it is printed, journalled and carried from play to play, so nothing secret
is in it. Private: may change at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _gates, _kubernetes_plan, _model, _records
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._reality import (
    IN_PLACE,
    TIDY,
    Info,
    Place,
    drift,
    exclusive,
    failing,
    lacking,
    missing,
    named,
    other,
    reachable,
    rollback_target,
    settle,
    shown,
    unwell,
    well_there,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._steps import CONTROLLER, Step, Steps

Plan = dict[str, Any]

SUCCESS = {
    "deploy": "deployed",
    "rollback": "restored",
    "promote": "deployed",
    "abort": "aborted",
    "cleanup": "cleaned",
    "recover": "recovered",
}


def destination(verb: str, journal: Mapping[str, Any], targets: Mapping[str, Info], wanted: str) -> Place:
    """The place that a verb is about, where the records say it (a deploy says it by itself)."""
    if verb == "rollback":
        _not_held(_records.held(journal["history"]), "roll back")
        return rollback_target(journal, targets, wanted)
    live, settled = settle(journal["unfinished"], _records.live(journal["history"]), targets)
    if verb in ("promote", "abort"):
        part = _records.held([*journal["history"], *settled])
        if part is None:
            raise RunbookError(f"there is nothing to {verb}: no release is held, {named(live)} has all traffic")
        place: Place = part["to"]
        return place
    if live is None:
        raise RunbookError(f"there is nothing to {verb}: no release of this application is live here")
    return live


def _not_held(part: Optional[Mapping[str, Any]], what: str) -> None:
    if part:
        raise RunbookError(
            f"{named(part['to'])} is held at {shown(part['weights'])} since run {part['run']}: promote.yml goes on "
            f"with it and abort.yml takes it back; {what} after that. Nothing has been touched"
        )


def make(
    request: Mapping[str, Any],
    models: Mapping[str, _model.Model],
    targets: Mapping[str, Info],
    routers: Mapping[str, Info],
    journal: Mapping[str, Any],
) -> Plan:
    """The whole plan of one run. ``models`` are those of ``request['to']`` for every verb but deploy."""
    reachable(targets, routers)
    return _Maker(request, models, targets, routers, journal).plan()


class _Maker:
    def __init__(
        self,
        request: Mapping[str, Any],
        models: Mapping[str, _model.Model],
        targets: Mapping[str, Info],
        routers: Mapping[str, Info],
        journal: Mapping[str, Any],
    ) -> None:
        self.verb = str(request["verb"])
        self.request = request
        self.models, self.targets, self.routers, self.journal = models, targets, routers, journal
        self.make = Steps(models, list(targets), list(routers))
        self.first = self.make.first
        recorded = _records.live(journal["history"])
        self.live, self.settled = settle(journal["unfinished"], recorded, targets)
        self.history = [*journal["history"], *self.settled]
        self.held = _records.held(self.history)
        self.rest = _records.at_rest(self.history)
        self.strayed = drift(self.rest, routers)
        self.notes: list[str] = []

    def plan(self) -> Plan:
        if self.verb in ("deploy", "rollback", "cleanup"):
            _not_held(self.held, self.verb if self.verb != "rollback" else "roll back")
        restores = self.first["app_drift"] == "restore" or self.verb in ("recover", "abort")
        if self.strayed and not self.settled and not restores:
            raise RunbookError(
                f"what is live is not what the records say ({_rest(self.rest)}): {'; '.join(self.strayed)}. Nothing "
                "has been touched. Find out who changed it; -e app_drift=restore puts the routers back first"
            )
        to = self._to()
        plan: Plan = {
            "verb": self.verb,
            "application": self.first["app_name"],
            "environment": self.first["app_environment"],
            "strategy": self.first["app_strategy"],
            "reason": self.request["reason"],
            "from": self.live,
            "to": to,
            "artifacts": self._artifacts(),
            "success": SUCCESS[self.verb],
            "weights": {to["slot"]: 100},
            "remaining": [],
            "basis": self.journal["fence"],
            "settles": self.settled,
            "targets": list(self.targets),
            "routers": list(self.routers),
            "lease_ttl_seconds": self.first["app_lease_ttl_seconds"],
            "notes": self.notes,
            "revert": [],
        }
        steps, gates = self._settling(), self._gated(plan)
        if self.verb in TIDY:
            plan["weights"] = dict(self.rest["weights"])
            steps += getattr(self, f"_{self.verb}")(plan)
        else:
            change = self._change(plan, bool(steps))
            steps += [*gates, *change] if any(step["phase"] == "stage" for step in change) else change
        plan["steps"] = _numbered(steps, 1)
        plan["revert"] = _numbered(plan["revert"], len(steps) + 1)
        plan["budget_seconds"] = sum(step["budget_seconds"] for step in plan["steps"])
        return plan

    def _artifacts(self) -> dict[str, Any]:
        """What identifies the code of what becomes live: of a promotion, as the release was made that is held."""
        if self.verb == "deploy":
            return _model.artifacts(self.models[host] for host in self.targets)
        return dict((self.held or {}).get("artifacts") or {}) if self.verb == "promote" else {}

    def _to(self) -> Place:
        live = self.live
        if self.verb == "deploy":
            model = self.first
            digests = [_model.release_digest(self.models[host]) for host in self.targets]
            release = _model.release_id(model["app_version"], digests)
            found = {"release": release, "version": model["app_version"], "answers": _model.answers(model)}
        else:
            chosen = self.request["to"]
            gone = lacking(chosen["release"], self.targets) if self.verb == "rollback" else []
            if gone:
                raise RunbookError(
                    f"{chosen['version']} ({chosen['release']}) is no longer on {', '.join(gone)}, so no rollback can "
                    "go to it; nothing has been touched. "
                    f"Deploy it instead: deploy.yml -e app_version={chosen['version']}"
                )
            if self.verb != "rollback":
                return dict(chosen)
            found = {key: chosen[key] for key in ("release", "version", "answers")}
        slot = other(live["slot"]) if live else "blue"
        return {**found, "slot": live["slot"] if live and live["release"] == found["release"] else slot}

    # -- gates --------------------------------------------------------------------------------------------------

    def _gated(self, plan: Plan) -> list[Step]:
        """What must hold before anything new is tried; what has been verified before needs nobody's leave."""
        gates: Optional[_gates.Questions] = self.request.get("gates")
        if not gates or not (gates.own or gates.asked):
            return []
        facts = _gates.Facts(
            now=self.journal["now"],
            version=plan["to"]["version"],
            requester=self.request["requester"],
            notes=self.journal["notes"],
            live=self.live,
            history=self.history,
            targets=self.targets,
            application=plan["application"],
            code=_gates.code_of(plan["artifacts"]),
            proof=self.request["proof"],
        )
        decision = _gates.decision_args(gates, facts)
        self.notes += [
            f"gate {judged['name']}: {judged['text']}" for judged in decision["judged"] if judged["status"] != "pass"
        ]
        return self.make.gates(gates.asked, gates.budget_seconds, decision)

    # -- settling -----------------------------------------------------------------------------------------------

    def _settling(self) -> list[Step]:
        """Traffic goes to what is to be live before anything else is tried; what a dead run left is stopped."""
        if not (self.settled or self.strayed or self.verb == "recover"):
            return []
        live, steps = self.live, []
        gone = missing(live, self.targets)
        elsewhere, lack = self._hands(live, gone) if live and self.make.exclusive else ([], [])
        if live and elsewhere:  # before anything is started: never in both slots
            steps += self.make.take_over("settle", live, elsewhere, [])
        if self.settled:
            runs = ", ".join(str(record["run"]) for record in self.settled)
            self.notes.append(f"run {runs} did not end; traffic goes to {_rest(self.rest)} first")
        elif self.strayed:
            self.notes.append(f"drift: {'; '.join(self.strayed)}")
        if live and gone:
            steps += self._started_again(live, gone)
        elif self.settled or (self.strayed and self.verb != "abort"):  # an abort has its own shift
            # What is left of a run that came to its end is the quick way back.
            ended = live and any(record["outcome"] in _records.LIVE_OUTCOMES for record in self.settled)
            stays = [other(live["slot"])] if live and ended else []
            steps.append(self.make.shift("settle", self.rest["weights"], self.rest["places"], standby=stays))
        if live and lack:
            self.notes.append(f"{', '.join(self.make.exclusive)} of {named(live)} does not run on {', '.join(lack)}")
            steps += self.make.take_over("settle", live, [], lack)
        for record in [*self.settled, *self._not_taken_back()]:
            slot = record["to"]["slot"]
            left = [host for host in self._holding(slot) if host not in gone]
            taken_back = record["outcome"] in ("interrupted", "revert_failed")
            if taken_back and left and not self.rest["weights"].get(slot):
                steps.append(self.make.retire("settle", left, slot, live["slot"] if live else ""))
        return steps

    def _not_taken_back(self) -> list[dict[str, Any]]:
        """The last run, where it left a release in a slot because hosts were lost on its way back."""
        last = self.history[-1:]
        if self.verb != "recover" or not last or last[0]["outcome"] != "revert_failed":
            return []
        release = last[0]["to"]["release"]
        held = (self._slot(host, last[0]["to"]["slot"]) or {} for host in self.targets)
        return last if any(slot.get("release") == release for slot in held) else []

    def _hands(self, live: Place, gone: Sequence[str]) -> tuple[list[str], list[str]]:
        """Hosts on which what is exclusive runs beside the live slot, and on which it does not run in it, although the
        others of its slot do."""
        beside, here = exclusive(other(live["slot"]), self.targets), exclusive(live["slot"], self.targets)
        lack = [host for host, found in here.items() if host not in gone and not all(found.values())]
        return [host for host, found in beside.items() if any(found.values())], lack

    def _started_again(self, live: Place, gone: Sequence[str]) -> list[Step]:
        """What is to be live does not run everywhere: it is started again from its release, which is on disk."""
        nowhere = [host for host in lacking(live["release"], self.targets) if host in gone]
        if nowhere:
            raise RunbookError(
                f"{named(live)} is to be live, but neither runs nor is on disk any more on {', '.join(nowhere)}; "
                "nothing has been touched. Bring its release directory back there, then run this again"
            )
        self.notes.append(f"{named(live)} does not run on {', '.join(gone)}: it is started again")
        beside = self._beside_live(live)
        idle = other(live["slot"])
        runs = [host for host in gone if beside and (self._slot(host, idle) or {}).get("running")]
        dead = [host for host in gone if host not in runs]
        if len(gone) < len(self.targets):  # some serve it: they have the traffic until the others do too
            shares = {host: "" if host in gone else live["slot"] for host in self.targets}
            groups = [list(gone)]
        else:  # first the hosts that serve nobody
            shares = {host: idle if host in runs else "" for host in self.targets}
            groups = ([dead] if dead else []) + self._batches(runs)
        in_place = self.first["app_strategy"] in IN_PLACE
        occupied = self._holding(idle) if in_place else []
        steps = self.make.bring(live, beside, shares, groups, occupied, ("settle", "settle", "settle"))
        if self.rest["weights"] != {live["slot"]: 100}:  # a release is held beside it
            steps.append(self.make.shift("settle", self.rest["weights"], self.rest["places"]))
        return steps

    def _beside_live(self, live: Place) -> Optional[Place]:
        """What may answer from the slot beside the live one: what is held, or what a run was going to or from."""
        for record in (*([self.held] if self.held else []), *reversed(self.settled)):
            for place in (record["to"], record["from"]):
                if place and place["slot"] == other(live["slot"]):
                    return dict(place)
        return None

    def _slot(self, host: str, slot: str) -> Optional[Mapping[str, Any]]:
        found: Optional[Mapping[str, Any]] = self.targets[host]["slots"].get(slot)
        return found

    def _holding(self, slot: str) -> list[str]:
        return [host for host in self.targets if slot and (self._slot(host, slot) or {}).get("release")]

    def _batches(self, hosts: Sequence[str]) -> list[list[str]]:
        sizes = self.first["app_batches"] if self.first["app_strategy"] == "rolling" else [str(len(self.targets))]
        return _model.batches(hosts, sizes)

    # -- what is live changes -----------------------------------------------------------------------------------

    def _change(self, plan: Plan, settling: bool) -> list[Step]:
        live, to = self.live, plan["to"]
        if live and live["release"] == to["release"]:
            ill = unwell(to, self.targets, self.routers)
            if not ill or settling:
                plan["to"] = live
                steps = self._linked("commit", self.history)  # left by a run that was killed, or switched on since
                for host in self.targets:
                    self.notes += failing(host, (self._slot(host, live["slot"]) or {}).get("answers", ()))
                return steps
            # The release that is asked for is live but ill: it is replaced by itself, in the other slot.
            self.notes.append(f"{to['version']} is live but not well, so it is made anew: {'; '.join(ill)}")
            plan["to"] = to = {**to, "slot": other(to["slot"])}
            plan["weights"] = {to["slot"]: 100}
        steps = self._staged(to) if self.verb == "deploy" else []
        standing = self.verb == "promote" or (self.verb == "rollback" and well_there(to, self.targets))
        if live and self.first["app_strategy"] in IN_PLACE and not standing:
            steps += self._replaced(plan, live, to)
        else:
            steps += self._beside(plan, live, to, standing)
        if plan["success"] != "held":
            steps += self._pruned("commit", to, plan)
        return steps

    def _staged(self, to: Place) -> list[Step]:
        present = {h: to["release"] in {r["id"] for r in info["releases"]} for h, info in self.targets.items()}
        in_use = {
            host: sorted({slot["release"] for slot in info["slots"].values() if slot and slot.get("release")})
            for host, info in self.targets.items()
        }
        return [self.make.stage(to, present, in_use)]

    def _beside(self, plan: Plan, live: Optional[Place], to: Place, standing: bool) -> list[Step]:
        """The new release runs beside the old one, and traffic moves by weight."""
        live_slot = live["slot"] if live else ""
        gone = missing(to, self.targets) if self.verb == "promote" else []
        if gone:
            raise RunbookError(
                f"{named(to)} is held but does not run on {', '.join(gone)}, so it can't be promoted; nothing has been "
                "touched. abort.yml takes it back"
            )
        traffic = self._traffic(live)
        weighed = [step["weight"] for step in traffic]
        for host, info in self.targets.items():
            given = (self.models[host], host, weighed, info["slots"], live, to, self.routers.get(host) or {})
            _kubernetes_plan.check(*given)
        steps = []
        if not standing:
            steps.append(self.make.start("start", to, self.targets, live_slot, bool(live), weighed[0]))
        hands = list(self.targets) if live and self.make.exclusive else []
        for number, step in enumerate(traffic, 1):
            weight = step["weight"]
            beside = live if weight < 100 else None
            places = [to, *([beside] if beside else [])]
            weights = {to["slot"]: weight, **({live_slot: 100 - weight} if beside else {})}
            stays = [live_slot] if live and not beside else []
            steps.append(self.make.shift("shift", weights, places, standby=stays))
            if weight == 100:
                steps += self.make.take_over("take_over", to, hands, hands)
            seconds = self.first["watch_seconds"] if step["watch_seconds"] is None else step["watch_seconds"]
            if seconds:
                unclear = {"hold": {"weights": weights, "remaining": traffic[number:]}} if beside else {}
                steps.append(self.make.watch(seconds, places, **unclear))
            if step.get("hold"):
                plan.update(success="held", weights=weights, remaining=traffic[number:])
                break
        if not standing or self.verb == "promote":
            steps.append(self.make.verify(to, beside=plan["success"] == "held"))
        back = {live["slot"]: 100} if live else {}
        plan["revert"] = [
            self.make.shift("revert", back, [live] if live else [], after="shift"),
            *(self.make.take_over("revert", live, hands, hands, after="take_over") if live else []),
            self.make.retire(
                "revert", self.targets, to["slot"], live_slot, after="shift" if self.verb == "promote" else "start"
            ),
        ]
        return steps

    def _traffic(self, live: Optional[Place]) -> list[Mapping[str, Any]]:
        if self.verb == "rollback":  # traffic returns at once; what it returns to has passed its watch before
            return [{"weight": 100, "watch_seconds": 0}]
        if self.held:
            return list(self.held["remaining"])
        steps = self.first["app_steps"] if live else None
        return list(steps or [{"weight": 100, "watch_seconds": None}])

    def _replaced(self, plan: Plan, live: Place, to: Place) -> list[Step]:
        """The new release replaces the old one on its own hosts, batch after batch."""
        groups = self._batches(list(self.targets))
        shares: dict[str, str] = dict.fromkeys(self.targets, str(live["slot"]))
        between = self.first["app_batch_watch_seconds"] if self.verb == "deploy" and self.first["watch_seconds"] else 0
        # Where it was missing, it has been started again by now.
        occupied = {*self._holding(live["slot"]), *missing(live, self.targets)}
        steps = self.make.bring(to, live, shares, groups, occupied, ("drain", "replace", "shift"), between)
        if self.verb == "deploy" and self.first["watch_seconds"]:
            steps.append(self.make.watch(self.first["watch_seconds"], [to]))
        steps.append(self.make.verify(to))
        for number in range(1, len(groups) + 1):
            unless = {"unless": f"batch {number + 1}"} if number < len(groups) else {}
            plan["revert"] += self._put_back(live, to, groups[:number], after=f"batch {number}", **unless)
        return steps

    def _put_back(self, live: Place, to: Place, done: Sequence[Sequence[str]], **when: Any) -> list[Step]:
        """The way back when the last batch of ``done`` is as far as it came."""
        touched = [host for group in done for host in group]
        if len(touched) < len(self.targets):  # the others have the traffic at once; it is they who are known to be good
            shares = {host: "" if host in touched else live["slot"] for host in self.targets}
            groups: list[list[str]] = [touched]
        else:
            shares = dict.fromkeys(self.targets, str(to["slot"]))
            groups = [list(group) for group in reversed(done)]
        return self.make.bring(live, to, shares, groups, touched, ("revert", "revert", "revert"), **when)

    def _pruned(self, phase: str, to: Place, plan: Plan) -> list[Step]:
        """What retention removes once the release is live: judged on the records as they will be then."""
        then = [*self.history, {"verb": plan["verb"], "from": plan["from"], "to": to, "outcome": plan["success"]}]
        keep, pinned = self.first["app_keep_releases"], self.first["app_pinned_releases"]
        args: dict[str, dict[str, Any]] = {}
        for host, info in self.targets.items():
            slots = {slot["release"] for name, slot in info["slots"].items() if slot and name != to["slot"]}
            present = [r["id"] for r in info["releases"]]
            remove = _records.prune(then, present, keep, pinned, {*slots, to["release"]})
            if remove:
                args[host] = {"remove": remove, "keep": sorted({*present, to["release"]} - set(remove))}
        return self._linked(phase, then, args)

    def _linked(
        self, phase: str, records: Sequence[Mapping[str, Any]], args: Optional[dict[str, dict[str, Any]]] = None
    ) -> list[Step]:
        """The step that prunes what ``args`` says, and sets the links of the targets that have some."""
        args = dict(args or {})
        for host, links in _links(records, self.targets).items():
            args[host] = {"remove": [], "keep": [], **args.get(host, {}), "links": links}
        return [self.make.prune(phase, args)] if args else []

    # -- tidying up ---------------------------------------------------------------------------------------------

    def _abort(self, plan: Plan) -> list[Step]:
        to, live = plan["to"], self.live
        plan["weights"] = {live["slot"]: 100} if live else {}
        return [
            self.make.shift("settle", plan["weights"], [live] if live else []),
            self.make.retire("settle", self.targets, to["slot"], live["slot"] if live else ""),
        ]

    def _cleanup(self, plan: Plan) -> list[Step]:
        """The slot beside the live one is stopped, once its time as the quick way back is over."""
        live = plan["to"]
        record = next(r for r in reversed(self.history) if r["outcome"] in _records.LIVE_OUTCOMES)
        over = record.get("ended", 0) + 60 * self.first["app_soak_minutes"]
        left = over - self.journal.get("now", over)
        if left > 0:
            raise RunbookError(
                f"app_soak_minutes: {named(live)} is live for less than {self.first['app_soak_minutes']} min, so the "
                f"other slot stays for another {duration(left)}; nothing has been touched. "
                "-e app_soak_minutes=0 does not wait"
            )
        idle = other(live["slot"])
        hosts = self._holding(idle)
        steps = [self.make.retire("settle", hosts, idle, live["slot"])] if hosts else []
        return steps + self._pruned("settle", live, plan)

    def _recover(self, _plan: Plan) -> list[Step]:
        return []  # settling is all of it


def _numbered(steps: Sequence[Step], first: int) -> list[Step]:
    return [{**step, "id": f"{number:02d}-{step['phase']}"} for number, step in enumerate(steps, first)]


def _links(records: Sequence[Mapping[str, Any]], targets: Mapping[str, Info]) -> dict[str, dict[str, str]]:
    """Where ``current`` and ``previous`` have to lead, on the targets that have such links and have them elsewhere."""
    live = _records.live(records)
    if live is None:
        return {}
    previous = ""
    with contextlib.suppress(RunbookError):  # nothing to go back to
        previous = _records.choose_rollback_target(records)["release"]
    found = {}
    for host, info in targets.items():
        there = {live["release"], *(release["id"] for release in info["releases"])}
        wanted = {"current": live["release"], "previous": previous if previous in there else ""}
        if "links" in info and {key: info["links"][key] for key in wanted} != wanted:
            found[host] = wanted
    return found


def _rest(rest: Mapping[str, Any]) -> str:
    places = rest["places"]
    if len(places) > 1:
        return f"{named(places[1])}, with {named(places[0])} held at {shown(rest['weights'])}"
    return named(places[0] if places else None)


# -- words ------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _version(place: Optional[Place]) -> str:
    return str(place["version"]) if place else "(none)"


NOTHING = {
    "cleanup": "nothing to do: no other slot and no old release is left",
    "recover": "nothing to do: no run is unfinished, and what is to be live runs everywhere",
}


def banner(plan: Plan) -> list[str]:
    """What is printed before anything happens."""
    live, to = plan["from"], plan["to"]
    shape = f"{plan['strategy'].replace('_', '-')}, {len(plan['targets'])} targets"
    if not plan["steps"]:
        ill = [f"but not well: {note}" for note in plan["notes"]]
        return [
            f"{plan['application']} {to['version']}   {plan['environment']}   {shape}",
            NOTHING.get(plan["verb"], "nothing to do: it is live"),
            *ill,
        ]
    changes = f"{_version(live)} -> {_version(to)}" if plan["verb"] not in TIDY else f"{plan['verb']} {_version(to)}"
    lines = [
        f"{plan['application']} {changes}   {plan['environment']}   {shape}   "
        f"at most {duration(plan['budget_seconds'])}"
    ]
    lines += plan["notes"]
    if plan["verb"] not in TIDY:
        lines += [f"release {to['release']} in {to['slot']} on {', '.join(plan['targets'])}"]
    lines += [f"  {step['id']:<12}{step['text']}   {_hosts(step)}".rstrip() for step in plan["steps"]]
    return [*lines, *_way_back(plan)]


def _way_back(plan: Plan) -> list[str]:
    live = plan["from"]
    if plan["success"] == "held":
        return [f"then it is held at {shown(plan['weights'])}: promote.yml goes on, abort.yml takes it back"]
    if plan["verb"] in TIDY:
        return []
    if live is None:
        return ["rollback: none, this is the first release; a failure leaves no traffic"]
    if any(step["phase"] == "replace" for step in plan["steps"]):
        return [f"rollback: {live['version']} is kept on disk; going back replaces it on its hosts again"]
    return [f"rollback: {live['version']} stays in {live['slot']}; going back is one shift"]


def _hosts(step: Step) -> str:
    return "" if step["hosts"] == [CONTROLLER] else f"on {', '.join(step['hosts'])}"
