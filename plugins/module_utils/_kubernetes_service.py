# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Traffic by the selectors of Services: all of an application's switch together, proven before and after, or none.

A share between 0 and 100 is a number of replicas while the selector matches both slots, or the weight of an Ingress
beside the user's. Private: may change at any time.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _kubernetes_objects as objects
from ansible_collections.signalbox.runbook.plugins.module_utils import _kubernetes_rollout as rollout
from ansible_collections.signalbox.runbook.plugins.module_utils import _shares
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_api import Api, ConflictError, Object
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_release import Releases, pod_probes
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_scale import Scales
from ansible_collections.signalbox.runbook.plugins.module_utils._probe import Result, ask, endpoint

POLL_SECONDS = 0.2
CAS_TRIES = 5
PROVE_SECONDS = 10.0

# confirm(deadline in seconds; 0 = one try) -> results of probes asked through the Services
Confirm = Callable[[float], Sequence[Mapping[str, Any]]]
Counts = dict[tuple[str, str], int]  # service and slot to replicas


def parts(weights: Mapping[str, int]) -> dict[str, int]:
    """The slots that get some of the traffic; together 100, or none at all."""
    given = {slot: weight for slot, weight in weights.items() if weight}
    said = ", ".join(f"{slot} {weight} %" for slot, weight in sorted(given.items()))
    for slot in given:
        if slot not in objects.SLOTS:
            raise RunbookError(f"weights: {slot!r} must be one of {', '.join(objects.SLOTS)}")
    if given and (sum(given.values()) != 100 or min(given.values()) < 0):
        raise RunbookError(f"weights: {said} is not the whole traffic; give slots 100 together, or none anything")
    return given


def members(slices: Sequence[Mapping[str, Any]]) -> set[str]:
    """Names of the pods that a Service sends to, out of its EndpointSlices."""
    found = set()
    for one in slices:
        for member in one.get("endpoints") or ():
            if (member.get("conditions") or {}).get("ready") is not False:
                found.add(str((member.get("targetRef") or {}).get("name") or ""))
    return found - {""}


def old_members(endpoints: Optional[Mapping[str, Any]]) -> set[str]:
    """The same out of Endpoints, for clusters without EndpointSlices."""
    subsets = (endpoints or {}).get("subsets") or ()
    named = [(one.get("targetRef") or {}).get("name") for part in subsets for one in part.get("addresses") or ()]
    return {str(name) for name in named if name}


@dataclass(frozen=True)
class Aim:
    """What the traffic of one service is to be."""

    service: Mapping[str, Any]
    sends: Mapping[str, str]  # slot to release: where its Service sends to
    selector: Mapping[str, str]
    counts: Mapping[str, int]  # slot to replicas, where they are ours to set
    exact: bool = False  # no more than these; otherwise they are the least
    shares: str = ""  # what the Service says of them
    part: Optional[tuple[str, str, int]] = None  # slot, release and weight of what an Ingress sends elsewhere

    @property
    def name(self) -> str:
        return str(self.service["name"])


class Services:
    """The Services of one application. ``services``: name, port and the name of the Service in ``service``."""

    def __init__(
        self,
        api: Api,
        application: str,
        environment: str,
        services: Sequence[Mapping[str, Any]],
        fence: int = 0,
        templates: Optional[Mapping[str, Mapping[str, Any]]] = None,
        settle_seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        ingress: str = "",
        scale_seconds: float = 120.0,
        ask: Callable[..., Sequence[Result]] = ask,
    ) -> None:
        self.api = api
        self.application = application
        self.services = [{**one, "service": one.get("service") or f"{application}-{one['name']}"} for one in services]
        self.fence = fence
        self.templates = templates or {}
        self.settle_seconds = settle_seconds
        self.clock = clock
        self.sleep = sleep
        self.ingress = ingress
        self.scale_seconds = scale_seconds
        self.ask = ask
        self._releases = Releases(api, application, environment, fence, sleep=sleep)
        self._scales = Scales(api, application, fence, clock, sleep)

    # -- looking --------------------------------------------------------------------------------------------------

    def read(self) -> dict[str, Any]:
        """Where traffic goes, by selectors, endpoints and the Ingress; only answers say whether the nodes follow."""
        found = [(one, self.api.get("Service", one["service"])) for one in self.services]
        there = [(one, obj) for one, obj in found if obj is not None]
        part = self._canary_ingress() if self.ingress else None
        each = [self._weights(one, obj, part) for one, obj in there]
        notes = {_annotation(obj, objects.RELEASE_ID) for (_one, obj), weights in zip(there, each) if weights}
        some = [weights for weights in each if weights]
        alike = all(weights == some[0] for weights in some)
        return {
            "exists": len(there) == len(found),
            "ours": all(objects.ours(obj, self.application) for _one, obj in there),
            "intact": alike and len(notes) <= 1,
            "weights": _together(some),
            "note": {"release": next(iter(notes))} if len(notes) == 1 else {},
            **({"ingress": self._look_at_ingress()} if self.ingress else {}),
        }

    def _weights(self, one: Mapping[str, Any], obj: Object, part: Optional[Object]) -> dict[str, int]:
        chosen = _chosen(obj) or {}
        if chosen.get(objects.APP) != self.application:
            return {}
        slot = chosen.get(objects.SLOT)
        noted = _noted(obj)
        if slot in noted["weights"] and not noted["pods"]:  # the other release does not have this service
            return dict(noted["weights"])
        if slot in objects.SLOTS:
            weight, beside = self._carried(one, part) if part else (0, "")
            if weight and beside not in ("", slot):
                return dict(sorted({slot: 100 - weight, beside: weight}.items()))
            return {slot: 100}
        if slot is not None or chosen.get(objects.SERVICE) != one["name"]:
            return {}
        real = self._members_by_slot(one)
        return dict(sorted((noted["weights"] if noted["pods"] == real else _shares.percents(real)).items()))

    def _members_by_slot(self, one: Mapping[str, Any]) -> dict[str, int]:
        pods = self.api.find("Pod", objects.labels(self.application, one["name"]))
        slots = {pod["metadata"]["name"]: pod["metadata"]["labels"].get(objects.SLOT, "") for pod in pods}
        return dict(Counter(slots[name] for name in self._members(one["service"]) if name in slots))

    def _carried(self, one: Mapping[str, Any], part: Object) -> tuple[int, str]:
        """The weight that the Ingress sends to another slot, when there is somebody to answer there."""
        name = objects.canary_name(one["service"])
        if name not in objects.led_to(part) or not self._members(name):
            return 0, ""
        chosen = _chosen(self.api.get("Service", name)) or {}
        return objects.canary_weight(part), chosen.get(objects.SLOT, "")

    def _look_at_ingress(self) -> dict[str, str]:
        """The user's Ingress, and why no weight can be put beside it."""
        try:
            self._stable_ingress()
        except RunbookError as error:
            return {"name": self.ingress, "problem": str(error)}
        return {"name": self.ingress, "problem": ""}

    def _stable_ingress(self) -> Object:
        if not self.api.version_of("Ingress"):
            raise RunbookError("this cluster serves no Ingress in networking.k8s.io")
        there = self.api.get("Ingress", self.ingress)
        if there is None:
            raise RunbookError(
                f"there is no Ingress {self.ingress} in {self.api.namespace}; name the one that leads to your Services"
            )
        if objects.canary_weight(there):
            raise RunbookError(f"Ingress {self.ingress} is a canary itself; name the one that it stands beside")
        lacking = sorted({str(one["service"]) for one in self.services} - objects.led_to(there))
        if lacking:
            raise RunbookError(
                f"Ingress {self.ingress} has no rule that leads to Service {', '.join(lacking)}, so no part of that "
                "traffic can be weighed; add the rule"
            )
        return there

    def _canary_ingress(self) -> Optional[Object]:
        if not self.api.version_of("Ingress"):
            return None
        there = self.api.get("Ingress", objects.canary_name(self.ingress))
        return there if there is not None and objects.ours(there, self.application) else None

    # -- moving ---------------------------------------------------------------------------------------------------

    def shift(
        self,
        weights: Mapping[str, int],
        release: str,
        version: str,
        confirm: Confirm,
        confirm_seconds: float,
        check_mode: bool = False,
        releases: Optional[Mapping[str, str]] = None,
        standby: Collection[str] = (),
        back: bool = False,
        prove: Optional[Mapping[str, Mapping[str, Mapping[str, Any]]]] = None,
    ) -> dict[str, Any]:
        """Send the traffic of every Service where it is to go and prove it, or put everything back.

        ``release`` is what is moved to. ``releases`` says what each slot with traffic holds. ``standby`` are slots that
        stay beside as the quick way back. ``back``: this is itself the way back, so replicas that can't be had are
        said, but do not keep traffic where it is bad. ``prove``: by slot and service the probe of every pod.
        """
        given = parts(weights)
        before = {one["service"]: self._held(one) for one in self.services}
        aims = [self._aim(one, before[one["service"]], given, release, releases or {}) for one in self.services]
        wanted = {aim.service["service"]: self._wanted(aim, before, release, version) for aim in aims}
        moving = [name for name, obj in wanted.items() if _chosen(before[name]) != _chosen(obj)]
        was = self._counted(aims)
        stale = self._stale(aims, before) or any(self._growing(aims, standby))
        result: dict[str, Any] = {
            "changed": bool(moving) or stale,
            "weights": dict(sorted(given.items())),
            "restored": False,
            "confirmed": [],
            "before": _said(before),
            "after": _said(wanted),
        }
        self._refuse_empty(aims)
        if check_mode:
            return result
        self._releases.take_fence()
        if not result["changed"]:
            for aim in aims:  # the same traffic, but from now on only this run or a newer one may move it
                self._write(before[aim.service["service"]], wanted[aim.service["service"]])
            results = list(confirm(confirm_seconds))
            if _failed(results):
                raise RunbookError(
                    f"the Services send to {_shown(given)} already, but do not answer as they should: "
                    f"{_failures(results)}",
                    confirmed=results,
                    weights=result["weights"],
                )
            return {**result, "confirmed": results}
        switched = self.clock()
        done: dict[str, Optional[Object]] = {}
        results, said = [], []
        parted = self._parted() if self.ingress else {}
        try:
            said += self._grow(aims, before, back, prove or {})
            for aim in aims:
                name = aim.service["service"]
                done[name] = before[name]
                self._write(before[name], wanted[name])
            switched = self.clock()
            deadline = switched + confirm_seconds
            self._await_members(aims, deadline)
            results = self._confirmed(confirm, switched, deadline)
            self._shrink(aims, confirm_seconds)
            if self.ingress:
                said += self._part(aims, confirm_seconds, prove or {})
        except RunbookError as error:
            restored, outcome = self._put_back(done, wanted, switched, was, parted)
            raise RunbookError(
                f"{str(error).rstrip('.')}. {outcome}",
                restored=restored,
                confirmed=results or error.details.get("confirmed", []),
                weights=self.read()["weights"] if restored else {},
                changed=True,
                **({"fenced": True} if error.details.get("fenced") else {}),
            ) from error
        said += self._stand_by(aims, standby)
        text = [f"{_shown(given)}{_by_pods(aims)}", *said] if said or len(given) > 1 else []
        return {**result, "confirmed": results, **({"text": ". ".join(text)} if text else {})}

    # -- what is wanted -------------------------------------------------------------------------------------------

    def _aim(
        self,
        one: Mapping[str, Any],
        before: Optional[Object],
        given: Mapping[str, int],
        release: str,
        releases: Mapping[str, str],
    ) -> Aim:
        name = one["name"]
        slots = {slot: self._scales.deployment(name, slot) for slot in given}
        some = {slot: held for slot, held in slots.items() if held is not None}
        # A service that only one of the two releases has can't be shared.
        here = {slot: given[slot] for slot in given if len(given) == 1 or slot in some}
        if given and not here:
            raise RunbookError(f"neither slot has a Deployment of {name}; nothing was moved")
        if len(given) == 1:
            releases = {**releases, **(dict.fromkeys(given, release) if release else {})}
        held = {slot: releases.get(slot) or _annotation(some.get(slot), objects.RELEASE_ID) for slot in here}
        fulls = {slot: objects.full(some[slot]) for slot in here if slot in some}
        # Where we shared by pods before, their number is ours to set; otherwise more than that may be somebody's wish.
        ours = bool(_noted(before)["pods"])
        least = {
            slot: full if ours else max(full, rollout.wanted(some[slot]))
            for slot, full in fulls.items()
            if full is not None
        }
        if len(here) < 2:
            slot = next(iter(here), "")
            alone = json.dumps({"weights": given, "pods": {}}, sort_keys=True) if len(given) > 1 else ""
            chosen = objects.selector(self.application, name, slot, held.get(slot, ""))
            return Aim(one, held, chosen, least, ours, alone)
        if self.ingress:
            part = next((slot for slot in here if held[slot] == release), min(here, key=lambda slot: here[slot]))
            stable = next(slot for slot in here if slot != part)
            chosen = objects.selector(self.application, name, stable, held[stable])
            return Aim(one, {stable: held[stable]}, chosen, least, ours, part=(part, held[part], here[part]))
        numbers = [full for full in fulls.values() if full is not None]
        if len(numbers) < len(here):
            raise RunbookError(
                f"weights: an autoscaler sets the number of pods of {name}, so {_shown(given)} can't be made by their "
                "number; nothing was moved"
            )
        counts = _shares.counts(here, max(numbers))
        noted = json.dumps({"weights": here, "pods": counts}, sort_keys=True)
        return Aim(one, held, objects.both_slots(self.application, name), counts, True, noted)

    def _wanted(self, aim: Aim, before: Mapping[str, Optional[Object]], release: str, version: str) -> Object:
        there = before[aim.service["service"]]
        if there is None:
            template = self.templates.get(aim.name) or {}
            obj = objects.service_object(self.application, aim.service, dict(aim.selector), self.fence, template)
        else:
            obj = copy.deepcopy(there)
            obj["kind"] = "Service"
            obj["spec"]["selector"] = dict(aim.selector)
        annotations = {**(obj["metadata"].get("annotations") or {}), objects.FENCE: str(self.fence)}
        annotations.pop(objects.SHARES, None)
        shares = {objects.SHARES: aim.shares} if aim.shares else {}
        obj["metadata"]["annotations"] = {
            **annotations,
            objects.RELEASE_ID: release,
            objects.VERSION: version,
            **shares,
        }
        return obj

    def _counted(self, aims: Sequence[Aim]) -> Counts:
        """The replicas of the slots that have a Deployment, as they are before."""
        found = {}
        for aim in aims:
            for slot in objects.SLOTS:
                held = self._scales.deployment(aim.name, slot)
                if held is not None and objects.full(held) is not None:
                    found[(aim.name, slot)] = rollout.wanted(held)
        return found

    def _stale(self, aims: Sequence[Aim], before: Mapping[str, Optional[Object]]) -> bool:
        """Whether anything but a selector has to change: numbers, what is said of them, the Ingress."""
        for aim in aims:
            for slot, count in aim.counts.items():
                held = self._scales.deployment(aim.name, slot)
                if held is None or rollout.wanted(held) != count:
                    return True
            there = before[aim.service["service"]]
            if there is not None and _annotation(there, objects.SHARES) != aim.shares:
                return True
        return bool(self.ingress) and self._parted() != self._parting(aims)

    def _held(self, service: Mapping[str, Any]) -> Optional[Object]:
        there = self.api.get("Service", service["service"])
        if there is None:
            return None
        if not objects.ours(there, self.application):
            raise RunbookError(
                f"Service {service['service']} in {self.api.namespace} is not managed by signalbox.runbook, so its "
                f"traffic is not moved. Give another name in router_kubernetes_services.{service['name']}.name, or "
                f"hand it over: kubectl -n {self.api.namespace} label service {service['service']} "
                f"{' '.join(f'{k}={v}' for k, v in {**objects.MANAGED, objects.APP: self.application}.items())}"
            )
        objects.refuse_older(self.fence, objects.fence_of(there))
        return there

    def _refuse_empty(self, aims: Sequence[Aim]) -> None:
        """Before anything moves: where it goes to there is somebody to answer, for every Service."""
        empty: dict[tuple[str, str], list[str]] = {}
        for aim in aims:
            sends = [*aim.sends.items(), *([aim.part[:2]] if aim.part else [])]
            for slot, release in sends:
                if not self._scales.ready(aim.name, slot, release):
                    empty.setdefault((slot, release), []).append(aim.name)
        for (slot, release), names in empty.items():
            raise RunbookError(
                f"{slot} has no ready pod of {release} for {', '.join(names)}, so no traffic is sent there; nothing "
                "was moved"
            )

    # -- replicas -------------------------------------------------------------------------------------------------

    def _grow(
        self,
        aims: Sequence[Aim],
        before: Mapping[str, Optional[Object]],
        back: bool,
        prove: Mapping[str, Mapping[str, Mapping[str, Any]]],
    ) -> list[str]:
        """What is to have more pods gets them, and what has no traffic yet its number, before any traffic moves."""
        goal: Counts = {}
        for aim in aims:
            sent = _sent(before[aim.service["service"]], self.application)
            for slot, count in aim.counts.items():
                held = self._scales.deployment(aim.name, slot)
                now = rollout.wanted(held) if held else 0
                if now <= count or (aim.exact and slot not in sent):
                    goal[(aim.name, slot)] = count
        changed = [key for key, count in goal.items() if self._scales.set(*key, count)]
        try:
            self._scales.wait(goal, self.scale_seconds)
        except RunbookError as error:
            if not back or error.details.get("fenced"):
                raise
            return [str(error)]
        for service, slot in changed:
            self._proven(service, slot, prove.get(slot, {}).get(service))
        return []

    def _shrink(self, aims: Sequence[Aim], seconds: float) -> None:
        """What is to have fewer pods, once the others have the traffic."""
        goal = {(aim.name, slot): count for aim in aims if aim.exact for slot, count in aim.counts.items()}
        if not [key for key, count in goal.items() if self._scales.set(*key, count)]:
            return
        self._scales.wait(goal, self.scale_seconds)
        self._await_members(aims, self.clock() + seconds)
        self.sleep(self.settle_seconds)

    def _growing(self, aims: Sequence[Aim], standby: Collection[str]) -> Counts:
        found: Counts = {}
        for aim in aims:
            for slot in set(standby) - {*aim.sends}:
                held = self._scales.deployment(aim.name, slot)
                full = objects.full(held) if held else None
                now = rollout.wanted(held) if held else 0
                if held and full is not None and (now < full or (now > full and aim.exact)):
                    found[(aim.name, slot)] = full
        return found

    def _stand_by(self, aims: Sequence[Aim], standby: Collection[str]) -> list[str]:
        """The quick way back has as many pods as it had. That it can't have them takes nothing from what is live."""
        goal = self._growing(aims, standby)
        try:
            for key, count in goal.items():
                self._scales.set(*key, count)
            self._scales.wait(goal, self.scale_seconds)
        except RunbookError as error:
            if error.details.get("fenced"):
                raise
            return [f"the way back does not stand: {error}"]
        return []

    def _proven(self, service: str, slot: str, probe: Optional[Mapping[str, Any]]) -> None:
        """Every pod that was added is asked itself, through the API server."""
        if not probe:
            return
        pods = [
            pod for pod in self.api.find("Pod", objects.labels(self.application, service, slot)) if rollout.ready(pod)
        ]
        port = next(one["port"] for one in self.services if one["name"] == service)
        results = self.ask(
            pod_probes([probe], port, pods),
            fetch=self.api.fetch,
            deadline_seconds=PROVE_SECONDS,
            interval_seconds=POLL_SECONDS,
        )
        bad = [result.to_dict() for result in results if not result.passed]
        if bad:
            raise RunbookError(f"the pods of {service} in {slot} do not answer as they should: {_failures(bad)}")

    # -- selectors ------------------------------------------------------------------------------------------------

    def _write(self, before: Optional[Object], wanted: Object) -> None:
        try:
            if before is None:
                self.api.create(wanted)
            elif before["metadata"].get("annotations") != wanted["metadata"]["annotations"] or _chosen(
                before
            ) != _chosen(wanted):
                self.api.replace(wanted)
        except ConflictError as error:
            there = self.api.get("Service", wanted["metadata"]["name"])
            objects.refuse_older(self.fence, objects.fence_of(there))
            raise RunbookError(f"{error}. Somebody else changed the Service at this very moment") from None

    def _members(self, service: str) -> set[str]:
        if self.api.version_of("EndpointSlice"):
            return members(self.api.find("EndpointSlice", {"kubernetes.io/service-name": service}))
        return old_members(self.api.get("Endpoints", service))

    def _await_members(self, aims: Sequence[Aim], deadline: float) -> None:
        """Until every Service sends to just the ready pods of where it is to send to, and has some of each."""
        for aim in aims:
            if aim.sends:
                self._await(aim.service["service"], aim.name, aim.sends, deadline)

    def _await(self, service: str, name: str, sends: Mapping[str, str], deadline: float) -> None:
        while True:
            each = [self._scales.ready(name, slot, release) for slot, release in sends.items()]
            pods, sent = set[str]().union(*each), self._members(service)
            if all(each) and pods == sent:
                return
            if self.clock() >= deadline:
                raise RunbookError(
                    f"Service {service} sends to {', '.join(sorted(sent)) or 'no pod'} instead of the ready "
                    f"pods {', '.join(sorted(pods)) or '(none)'} of {' and '.join(sends)}"
                )
            self.sleep(POLL_SECONDS)

    def _confirmed(self, confirm: Confirm, switched: float, deadline: float) -> list[Mapping[str, Any]]:
        """Asked through the Services, once more when the nodes have had their time: two releases of one version answer
        alike, and a node that lags would be met by the next change."""
        results = list(confirm(max(0.5, deadline - self.clock())))
        if not _failed(results):
            left = switched + self.settle_seconds - self.clock()
            if left > 0:
                self.sleep(left)
                results = list(confirm(max(0.5, deadline - self.clock())))
        if _failed(results):
            raise RunbookError(
                f"after the switch the Services do not answer as they should: {_failures(results)}", confirmed=results
            )
        return results

    # -- an Ingress beside the user's -----------------------------------------------------------------------------

    def _parting(self, aims: Sequence[Aim]) -> dict[str, Any]:
        """The Ingress and Services beside the user's, as they are to be: what each sends to, and the weight."""
        found: dict[str, Any] = {}
        for aim in aims:
            if aim.part:
                slot, release, weight = aim.part
                found[objects.canary_name(aim.service["service"])] = objects.selector(
                    self.application, aim.name, slot, release
                )
                found["weight"] = weight
        return found

    def _parted(self) -> dict[str, Any]:
        """The same as they are."""
        found: dict[str, Any] = {}
        for one in self.services:
            there = self._canary_service(one)
            if there is not None:
                found[there["metadata"]["name"]] = _chosen(there)
        there = self._canary_ingress()
        return {**found, "weight": objects.canary_weight(there)} if there is not None else found

    def _canary_service(self, one: Mapping[str, Any]) -> Optional[Object]:
        there = self.api.get("Service", objects.canary_name(one["service"]))
        if there is None:
            return None
        if not objects.ours(there, self.application):
            raise RunbookError(
                f"Service {there['metadata']['name']} in {self.api.namespace} was not made by signalbox.runbook, so it "
                "is not touched; it is the name that the canary of an Ingress needs"
            )
        objects.refuse_older(self.fence, objects.fence_of(there))
        return there

    def _part(
        self, aims: Sequence[Aim], seconds: float, prove: Mapping[str, Mapping[str, Mapping[str, Any]]]
    ) -> list[str]:
        """A part of the traffic by an Ingress beside the user's, or none of it any more; asked for afterwards."""
        parted = [aim for aim in aims if aim.part]
        if not parted:
            self._unpart()
            return []
        weight = 0
        for aim in parted:
            slot, release, weight = aim.part or ("", "", 0)
            self._make_canary_service(aim.service, slot, release)
            name = objects.canary_name(aim.service["service"])
            self._await(name, aim.name, {slot: release}, self.clock() + seconds)
            self._ask_service(name, aim.service, prove.get(slot, {}).get(aim.name))
        self._make_canary_ingress([aim.service for aim in parted], weight)
        return [
            f"Ingress {objects.canary_name(self.ingress)} says {weight} %, and the Services behind both answer; "
            "whether the controller follows it was not asked"
        ]

    def _make_canary_service(self, one: Mapping[str, Any], slot: str, release: str) -> None:
        stable = self.api.get("Service", one["service"])
        if stable is None:
            raise RunbookError(f"Service {one['service']} is gone: somebody deleted it")
        wanted = objects.canary_service(self.application, one, stable, slot, release, self.fence)
        there = self._canary_service(one)
        if there is None:
            self.api.create(wanted)
        elif _chosen(there) != _chosen(wanted):
            there["kind"] = "Service"
            there["spec"]["selector"] = wanted["spec"]["selector"]
            there["metadata"]["annotations"] = wanted["metadata"]["annotations"]
            self.api.replace(there)

    def _ask_service(self, name: str, one: Mapping[str, Any], probe: Optional[Mapping[str, Any]]) -> None:
        """The Service itself is asked, through the API server: no controller is needed for that."""
        there = self.api.get("Service", name)
        if not probe or there is None:
            return
        port = there["spec"]["ports"][0]["port"]
        url = str(probe["url"]).replace("127.0.0.1:{port}", f"{name}:{port}")
        results = self.ask(
            [endpoint({**probe, "url": url})],
            fetch=functools.partial(self.api.fetch, kind="Service"),
            deadline_seconds=PROVE_SECONDS,
            interval_seconds=POLL_SECONDS,
        )
        bad = [result.to_dict() for result in results if not result.passed]
        if bad:
            raise RunbookError(f"Service {name} does not answer as it should: {_failures(bad)}")

    def _make_canary_ingress(self, services: Sequence[Mapping[str, Any]], weight: int) -> None:
        instead = {str(one["service"]): objects.canary_name(one["service"]) for one in services}
        wanted = objects.canary_ingress(self.application, self._stable_ingress(), instead, weight, self.fence)
        name = wanted["metadata"]["name"]
        there = self.api.get("Ingress", name)
        if there is None:
            self.api.create(wanted)
        elif not objects.ours(there, self.application):
            raise RunbookError(
                f"Ingress {name} in {self.api.namespace} was not made by signalbox.runbook, so it is not touched"
            )
        else:
            objects.refuse_older(self.fence, objects.fence_of(there))
            wanted["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"]
            self.api.replace(wanted)
        there = self.api.get("Ingress", name)
        if there is None or objects.canary_weight(there) != weight or objects.led_to(there) != set(instead.values()):
            raise RunbookError(f"Ingress {name} is not what was written: somebody else changes it")

    def _unpart(self) -> None:
        """The Ingress first, so that nobody is sent to a Service that is gone."""
        ingress = self._canary_ingress()
        if ingress is not None:
            objects.refuse_older(self.fence, objects.fence_of(ingress))
            self.api.delete("Ingress", ingress)
            self.sleep(self.settle_seconds)
        gone = [there for there in map(self._canary_service, self.services) if there is not None]
        for there in gone:
            self.api.delete("Service", there)
        left = [there for there in (self._canary_ingress(), *map(self._canary_service, self.services)) if there]
        if left:
            names = ", ".join(sorted({one["metadata"]["name"] for one in left}))
            raise RunbookError(f"{names} was deleted but is there: look at its finalizers, or who makes it anew")

    # -- back -----------------------------------------------------------------------------------------------------

    def _put_back(
        self,
        done: Mapping[str, Optional[Object]],
        wanted: Mapping[str, Object],
        switched: float,
        was: Mapping[tuple[str, str], int],
        parted: Mapping[str, Any],
    ) -> tuple[bool, str]:
        """Everything as it was: first the pods that are missing, then every selector, the ones never written included,
        then the pods that are too many; not faster than the nodes can follow."""
        left = switched + self.settle_seconds - self.clock()
        if done and left > 0:
            self.sleep(left)
        try:
            now = {key: self._scales.deployment(*key) for key in was}
            fewer = {key: count for key, count in was.items() if (held := now[key]) and rollout.wanted(held) < count}
            for key, count in fewer.items():
                self._scales.set(*key, count)
            self._scales.wait(fewer, self.scale_seconds)
            for name, before in done.items():
                self._selector_back(name, before)
            if self.ingress and self._parted() != dict(parted):
                self._part_back(parted)
            more = {key: count for key, count in was.items() if (held := now[key]) and rollout.wanted(held) > count}
            for key, count in more.items():
                self._scales.set(*key, count)
            with contextlib.suppress(RunbookError):  # it has no traffic, or as much as before
                self._scales.wait(more, self.settle_seconds)
        except RunbookError as error:
            return False, f"The old selectors could not be put back: {error}"
        if not done:
            return True, "Nothing was moved, and every slot has as many pods as before"
        return True, "The old selectors are back" if any(done.values()) else "The Services made for it are removed"

    def _selector_back(self, name: str, before: Optional[Object]) -> None:
        for _try in range(CAS_TRIES):
            there = self.api.get("Service", name)
            if there is None:
                return
            objects.refuse_older(self.fence, objects.fence_of(there))
            try:
                if before is None:
                    self.api.delete("Service", there)
                elif _chosen(there) != _chosen(before) or _shares_said(there) != _shares_said(before):
                    there["kind"] = "Service"
                    there["spec"]["selector"] = before["spec"].get("selector") or {}
                    notes = there["metadata"].setdefault("annotations", {})
                    keep = (objects.RELEASE_ID, objects.VERSION, objects.SHARES)
                    for key in keep:
                        notes.pop(key, None)
                    kept = (before["metadata"].get("annotations") or {}).items()
                    notes.update({key: value for key, value in kept if key in keep})
                    self.api.replace(there)
                return
            except ConflictError:
                self.sleep(POLL_SECONDS)
        raise RunbookError(f"Service {name} is changed by others all the time")

    def _part_back(self, parted: Mapping[str, Any]) -> None:
        """The Ingress beside the user's as it was: its weight, or none."""
        if "weight" not in parted:
            self._unpart()
            return
        names = [one for one in self.services if objects.canary_name(one["service"]) in parted]
        self._make_canary_ingress(names, int(parted["weight"]))


def _together(each: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The weights of all Services; where they differ the highest of each slot, which is no sum of 100 and so drift."""
    found: dict[str, int] = {}
    for weights in each:
        for slot, weight in weights.items():
            found[slot] = max(found.get(slot, 0), weight)
    return dict(sorted(found.items()))


def _sent(obj: Optional[Object], application: str) -> set[str]:
    """The slots that a selector sends to."""
    chosen = _chosen(obj) or {}
    if chosen.get(objects.APP) != application:
        return set()
    return {chosen[objects.SLOT]} if objects.SLOT in chosen else set(objects.SLOTS)


def _annotation(obj: Optional[Object], key: str) -> str:
    return str((((obj or {}).get("metadata") or {}).get("annotations") or {}).get(key) or "")


def _shares_said(obj: Optional[Object]) -> str:
    return _annotation(obj, objects.SHARES)


def _noted(obj: Optional[Object]) -> dict[str, Any]:
    """The weights that a Service was given, and the pods that make them."""
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
        noted = json.loads(_shares_said(obj))
        numbers = {key: {str(slot): int(n) for slot, n in noted[key].items()} for key in ("weights", "pods")}
        return dict(numbers)
    return {"weights": {}, "pods": {}}


def _chosen(obj: Optional[Object]) -> Optional[dict[str, str]]:
    return None if obj is None else dict(obj["spec"].get("selector") or {})


def _said(found: Mapping[str, Optional[Object]]) -> str:
    return json.dumps({name: _chosen(obj) for name, obj in found.items()}, indent=1, sort_keys=True) + "\n"


def _shown(weights: Mapping[str, int]) -> str:
    return ", ".join(f"{slot} {weight} %" for slot, weight in sorted(weights.items())) or "nobody"


def _by_pods(aims: Sequence[Aim]) -> str:
    said = [
        f"{aim.name} {', '.join(f'{slot} {count}' for slot, count in sorted(aim.counts.items()))}"
        for aim in aims
        if aim.exact and len(aim.counts) > 1 and not aim.part
    ]
    return f" by pods: {'; '.join(said)}" if said else ""


def _failed(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [one for one in results if not one["passed"]]


def _failures(results: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(f"{one['name']}: {one['problem']}" for one in _failed(results))
