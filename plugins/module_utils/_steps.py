# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps that a plan is made of, as data: phase, hosts, backend role and verb, arguments, time budget.

A strategy is an order of these steps; nothing else knows of strategies. Pure. Private: may change at any time.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _model, _triggers
from ansible_collections.signalbox.runbook.plugins.module_utils._reality import Place, other, shown

Step = dict[str, Any]
Shares = Mapping[str, str]  # host to the slot that has its traffic; empty for none

CONTROLLER = "localhost"
SHIFT_SECONDS = 90  # testing, reloading and confirming a router, and once more when the old weights are put back
SILENT_SECONDS = 30  # connecting, and starting a module, on a busy host
DECIDE_SECONDS = 10
VERIFY_SECONDS = 30  # asking the slots once more; the probes' own deadline is below it


def role(kind: str, model: _model.Model) -> str:
    """The role that is a host's runtime or router, or which every host has."""
    backend = model.get(f"app_{kind}") if kind in ("runtime", "router") else ""
    return f"signalbox.runbook.{kind}_{backend}" if backend else f"signalbox.runbook.{kind}"


class Steps:
    """Makes the steps of one application's plan."""

    def __init__(self, models: Mapping[str, _model.Model], targets: Sequence[str], routers: Sequence[str]) -> None:
        self.models = models
        self.targets = list(targets)
        self.routers = list(routers)
        self.first = models[self.targets[0]]
        self.exclusive = _model.exclusives(self.first)

    def step(
        self, phase: str, kind: str, verb: str, text: str, args: Mapping[str, Any], budget: float, **more: Any
    ) -> Step:
        """``kind``: runtime or router, of which each host has its own; or watch, or gates."""
        return {
            "phase": phase,
            "roles": {host: role(kind, self.models.get(host, {})) for host in args},
            "verb": verb,
            "hosts": list(args),
            "args": dict(args),
            "text": text,
            "budget_seconds": budget,
            # A backend keeps its budget by itself. This ends the wait for a host that says nothing any more.
            "timeout_seconds": math.ceil(budget + SILENT_SECONDS),
            **more,
        }

    # -- gates --------------------------------------------------------------------------------------------------

    def gates(self, asked: Mapping[str, Sequence[str]], budget: float, decision: Mapping[str, Any]) -> list[Step]:
        """Every host is asked what its gates measure, by their names; then the controller decides on all of them."""
        steps = []
        if asked:
            of = {host: {"names": list(names), "of": self._describes(host)} for host, names in asked.items()}
            count = len({name for names in asked.values() for name in names})
            steps.append(self.step("gates", "gates", "ask", f"{count} asked", of, budget))
        args = {CONTROLLER: {**decision, "asked": {host: list(names) for host, names in asked.items()}}}
        return [*steps, self.step("gates", "gates", "decide", "all gates", args, DECIDE_SECONDS)]

    def _describes(self, host: str) -> str:
        """The host whose variables describe the gates that are asked on ``host``."""
        return host if host in self.models else self.targets[0]

    # -- runtimes -----------------------------------------------------------------------------------------------

    def stage(self, to: Place, present: Mapping[str, bool], in_use: Mapping[str, Sequence[str]]) -> Step:
        release = {"id": to["release"], "version": to["version"]}
        args = {
            host: {
                "release": {**release, "digest": _model.release_digest(self.models[host])},
                "present": present[host],
                "in_use": list(in_use[host]),
            }
            for host in self.targets
        }
        budget = max(_model.build_seconds(self.models[host]) for host in self.targets)
        return self.step("stage", "runtime", "stage", to["version"], args, budget)

    def start(
        self,
        phase: str,
        to: Place,
        hosts: Iterable[str],
        live_slot: str,
        beside: bool = False,
        share: int = 100,
        **more: Any,
    ) -> Step:
        """``beside`` the live slot: what is exclusive runs there, and is left out. ``share``: percent of the traffic
        that it gets first; a runtime may begin with less because of that."""
        args = {
            host: {
                "slot": to["slot"],
                "release": {"id": to["release"], "version": to["version"]},
                "live_slot": live_slot,
                "services": [
                    service
                    for service in _model.slot_services(self.models[host], to["slot"], to["answers"])
                    if not (beside and service["name"] in self.exclusive)
                ],
                "shares": {s["name"]: share for s in _model.routed(self.models[host]) if share < 100},
            }
            for host in hosts
        }
        text = f"{to['slot']} {to['version']} healthy"
        return self.step(phase, "runtime", "start", text, args, self._start_budget(args), **more)

    def take_over(self, phase: str, to: Place, stop: Iterable[str], start: Iterable[str], **more: Any) -> list[Step]:
        """What is exclusive ends in the slot beside ``to`` on ``stop``, then it starts in ``to`` on ``start``."""
        names, steps = ", ".join(self.exclusive), []
        only = {"only": self.exclusive}
        if stop := list(stop):
            slot = other(to["slot"])
            ended = self.retire(phase, stop, slot, "", **more)
            steps.append({**ended, "text": f"{names} stopped in {slot}", "args": _each(ended, only)})
        if start := list(start):
            begun = self.start(phase, to, start, "", **more)
            steps.append({**begun, "text": f"{names} healthy in {to['slot']}", "args": _each(begun, only)})
        return steps

    def verify(self, to: Place, beside: bool = False) -> Step:
        """A process that ends once it has traffic leaves no trace at a router with other members: asked once more."""
        started = self.start("verify", to, self.targets, "", beside)
        keys = ("slot", "release", "services")
        args = {host: {key: given[key] for key in keys} for host, given in started["args"].items()}
        text = f"{to['slot']} {to['version']} still healthy"
        return self.step("verify", "runtime", "verify", text, args, VERIFY_SECONDS)

    def retire(self, phase: str, hosts: Iterable[str], slot: str, live_slot: str, **more: Any) -> Step:
        args = {
            host: {
                "slot": slot,
                "live_slot": live_slot,
                "services": _model.slot_services(self.models[host], slot, {}),
            }
            for host in hosts
        }
        return self.step(phase, "runtime", "retire", f"{slot} stopped", args, self._start_budget(args), **more)

    def prune(self, phase: str, args: Mapping[str, Any]) -> Step:
        count = len({release for given in args.values() for release in given["remove"]})
        said = [f"{count} old releases removed"] if count else []
        said += ["current is linked"] if any("links" in given for given in args.values()) else []
        return self.step(phase, "runtime", "prune", ", ".join(said), args, 120)

    def _start_budget(self, hosts: Iterable[str]) -> float:
        words = ("start_seconds", "stop_seconds", "drain_seconds")
        return max(
            float(sum(service[word] for service in self.models[host]["app_services"] for word in words))
            + _stable_seconds(self.models[host])
            for host in hosts
        )

    # -- routers ------------------------------------------------------------------------------------------------

    def shift(
        self,
        phase: str,
        weights: Mapping[str, int],
        places: Sequence[Place],
        shares: Optional[Shares] = None,
        text: str = "",
        standby: Sequence[str] = (),
        **more: Any,
    ) -> Step:
        """One change of weights on every router. ``places`` are those that may answer afterwards, none for no traffic;
        ``shares`` says which slot has the traffic of each host, where that is not the same for all; ``standby`` are
        slots that stay beside as the quick way back."""
        args = {}
        apart = None if shares is None else {h: {slot: 100} if slot else {} for h, slot in shares.items()}
        for router in self.routers:
            model = self.models[router]
            members = [router] if model["app_router_members"] == "local" else self.targets
            answering = places and (shares is None or any(shares[host] for host in members))
            args[router] = {
                "upstreams": _model.upstreams(self.models, members, weights, apart),
                "services": _model.router_services(model),
                "note": {
                    "weights": dict(weights),
                    "release": places[0]["release"] if places else "",
                    "version": str(places[0]["version"]) if places else "",
                },
                "releases": {place["slot"]: place["release"] for place in places},
                "prove": {place["slot"]: _model.pod_probes(model, place["answers"]) for place in places},
                "standby": list(standby),
                "back": phase in ("revert", "settle"),
                "confirm": [
                    _model.version_probe(
                        service,
                        _model.router_base(service, model),
                        *(place["answers"].get(service["name"]) for place in places),
                        successes=5,
                    )
                    for service in _model.routed(model)
                    if answering
                ],
            }
        budget = SHIFT_SECONDS + max(_scale_seconds(self.models[router]) for router in self.routers)
        return self.step(phase, "router", "shift", text or shown(weights), args, budget, **more)

    def watch(self, seconds: float, places: Sequence[Place], **more: Any) -> Step:
        probes = [
            _model.version_probe(
                service,
                service["url"] or self.first["app_url"],
                *(place["answers"].get(service["name"]) for place in places),
            )
            for service in _model.routed(self.first)
        ]
        args = {CONTROLLER: {"seconds": seconds, "probes": probes}}
        beyond = _triggers.beyond_seconds(self.first, _triggers.made(self.first))
        budget = seconds + max(30, beyond + _triggers.SPARE_SECONDS)
        return self.step("watch", "watch", "main", f"{seconds:g} s", args, budget, **more)

    # -- in place -----------------------------------------------------------------------------------------------

    def bring(
        self,
        place: Place,
        beside: Optional[Place],
        shares: Shares,
        groups: Sequence[Sequence[str]],
        occupied: Collection[str],
        phases: tuple[str, str, str],
        watch_seconds: float = 0,
        **more: Any,
    ) -> list[Step]:
        """Batch after batch: drain, stop what is in the other slot, start ``place``, give it the traffic.

        ``shares`` is who has the traffic before: a host without any gets none until its turn. ``occupied`` are the
        hosts whose other slot holds something. ``phases`` names draining, replacing and shifting. ``watch_seconds``
        is the length of the watch between two batches. Each step's ``mark`` says which batch it belongs to.
        """
        now, steps = dict(shares), []
        drain, replace, shift = phases

        def move(phase: str, text: str) -> None:
            slots = {slot for slot in now.values() if slot}
            places = [one for one in (place, beside) if one and one["slot"] in slots]
            weights = dict.fromkeys(sorted(slots), 100)
            steps.append(self.shift(phase, weights, places, now, text, **more))

        for number, group in enumerate(groups, 1):
            of = f"batch {number} of {len(groups)}: " if len(groups) > 1 else ""
            first = len(steps)
            now.update(dict.fromkeys(group, ""))
            move(drain, f"{of}no traffic for {', '.join(group)}")
            stop = [host for host in group if host in occupied]
            if stop:
                steps.append(self.retire(replace, stop, other(place["slot"]), "", **more))
            steps.append(self.start(replace, place, group, "", **more))
            now.update(dict.fromkeys(group, str(place["slot"])))
            move(shift, f"{of}{place['slot']} {place['version']} on {', '.join(group)}")
            if watch_seconds and number < len(groups):
                steps.append(self.watch(watch_seconds, [one for one in (place, beside) if one], **more))
            steps[first:] = [{**step, "mark": f"batch {number}"} for step in steps[first:]]
        return steps


def _each(step: Step, more: Mapping[str, Any]) -> dict[str, Any]:
    return {host: {**args, **more} for host, args in step["args"].items()}


def _stable_seconds(model: _model.Model) -> float:
    """systemd calls a process running at once, so we wait ourselves until it has run for a while."""
    if model.get("runtime_host_manager") != "systemd":
        return 0.0
    return float(len(model["app_services"]) * model["runtime_host_stable_seconds"])


def _scale_seconds(model: _model.Model) -> float:
    """Where weights are numbers of replicas, pods are waited for: when the weights move, and when they are put back."""
    return 2 * float(model["router_kubernetes_scale_seconds"]) if model["app_router"] == "kubernetes" else 0.0
