# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Traffic by the selectors of Services: all of an application's switch together, proven before and after, or none.

Private: may change at any time.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _kubernetes_objects as objects
from ansible_collections.signalbox.runbook.plugins.module_utils import _kubernetes_rollout as rollout
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_api import Api, ConflictError, Object
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_release import Releases

POLL_SECONDS = 0.2
CAS_TRIES = 5

# confirm(deadline in seconds; 0 = one try) -> results of probes asked through the Services
Confirm = Callable[[float], Sequence[Mapping[str, Any]]]


def slot_of(weights: Mapping[str, int]) -> str:
    """The slot that gets all traffic, empty for none; a Service can't do anything between."""
    given = {slot: weight for slot, weight in weights.items() if weight}
    if not given:
        return ""
    if list(given.values()) != [100]:
        said = ", ".join(f"{slot} {weight} %" for slot, weight in sorted(given.items()))
        raise RunbookError(
            f"weights: a Service sends all its traffic to one slot, so {said} can't be; give one slot 100"
        )
    slot = next(iter(given))
    if slot not in objects.SLOTS:
        raise RunbookError(f"weights: {slot!r} must be one of {', '.join(objects.SLOTS)}")
    return slot


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
    ) -> None:
        self.api = api
        self.application = application
        self.services = [{**one, "service": one.get("service") or f"{application}-{one['name']}"} for one in services]
        self.fence = fence
        self.templates = templates or {}
        self.settle_seconds = settle_seconds
        self.clock = clock
        self.sleep = sleep
        self._releases = Releases(api, application, environment, fence, sleep=sleep)

    def read(self) -> dict[str, Any]:
        """Where the selectors send to; only answers say whether the nodes follow them."""
        found = [self.api.get("Service", one["service"]) for one in self.services]
        weights: dict[str, int] = {}
        notes: set[str] = set()
        for one in found:
            chosen = ((one or {}).get("spec") or {}).get("selector") or {}
            if chosen.get(objects.SLOT) in objects.SLOTS and chosen.get(objects.APP) == self.application:
                weights[chosen[objects.SLOT]] = 100
                notes.add(str(((one or {})["metadata"].get("annotations") or {}).get(objects.RELEASE_ID) or ""))
        there = [one for one in found if one is not None]
        return {
            "exists": len(there) == len(found),
            "ours": all(objects.ours(one, self.application) for one in there),
            "intact": len(weights) <= 1 and len(notes) <= 1,
            "weights": dict(sorted(weights.items())),
            "note": {"release": next(iter(notes))} if len(notes) == 1 else {},
        }

    def shift(
        self,
        weights: Mapping[str, int],
        release: str,
        version: str,
        confirm: Confirm,
        confirm_seconds: float,
        check_mode: bool = False,
    ) -> dict[str, Any]:
        """Send all traffic of every Service to one slot and prove it, or put every selector back."""
        slot = slot_of(weights)
        before = {one["service"]: self._held(one) for one in self.services}
        wanted = {
            one["service"]: self._wanted(one, before[one["service"]], slot, release, version) for one in self.services
        }
        moving = [name for name, obj in wanted.items() if _chosen(before[name]) != _chosen(obj)]
        result = {
            "changed": bool(moving),
            "weights": {slot: 100} if slot else {},
            "restored": False,
            "confirmed": [],
            "before": _said(before),
            "after": _said(wanted),
        }
        if slot:
            self._refuse_empty(slot, release)
        if check_mode:
            return result
        self._releases.take_fence()
        if not moving:
            for one in self.services:  # the same traffic, but from now on only this run or a newer one may move it
                self._write(before[one["service"]], wanted[one["service"]])
            results = list(confirm(confirm_seconds))
            if _failed(results):
                raise RunbookError(
                    f"the Services send to {slot} already, but do not answer as they should: {_failures(results)}",
                    confirmed=results,
                    weights=result["weights"],
                )
            return {**result, "confirmed": results}
        switched = self.clock()
        done: dict[str, Optional[Object]] = {}
        results = []
        try:
            for one in self.services:
                name = one["service"]
                done[name] = before[name]
                self._write(before[name], wanted[name])
            switched = self.clock()
            deadline = switched + confirm_seconds
            if slot:
                self._await_members(slot, release, deadline)
            results = self._confirmed(confirm, switched, deadline)
        except RunbookError as error:
            restored, outcome = self._put_back(done, wanted, switched, confirm_seconds)
            raise RunbookError(
                f"{str(error).rstrip('.')}. {outcome}",
                restored=restored,
                confirmed=results or error.details.get("confirmed", []),
                weights=self.read()["weights"] if restored else {},
                changed=True,
                **({"fenced": True} if error.details.get("fenced") else {}),
            ) from error
        return {**result, "confirmed": results}

    # -- parts ----------------------------------------------------------------------------------------------------

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

    def _wanted(
        self, service: Mapping[str, Any], there: Optional[Object], slot: str, release: str, version: str
    ) -> Object:
        if there is None:
            template = self.templates.get(service["name"]) or {}
            obj = objects.service_object(self.application, service, slot, release, self.fence, template)
        else:
            obj = copy.deepcopy(there)
            obj["kind"] = "Service"
            obj["spec"]["selector"] = objects.selector(self.application, service["name"], slot, release)
        annotations = {**(obj["metadata"].get("annotations") or {}), objects.FENCE: str(self.fence)}
        obj["metadata"]["annotations"] = {**annotations, objects.RELEASE_ID: release, objects.VERSION: version}
        return obj

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

    def _pods(self, service: str, slot: str, release: str) -> set[str]:
        pods = self.api.find("Pod", objects.labels(self.application, service, slot, release))
        return {pod["metadata"]["name"] for pod in pods if rollout.ready(pod)}

    def _refuse_empty(self, slot: str, release: str) -> None:
        """Before anything moves: where it goes to there is somebody to answer, for every Service."""
        empty = [one["name"] for one in self.services if not self._pods(one["name"], slot, release)]
        if empty:
            raise RunbookError(
                f"{slot} has no ready pod of {release} for {', '.join(empty)}, so no traffic is sent there; nothing "
                "was moved"
            )

    def _members(self, service: str) -> set[str]:
        if self.api.version_of("EndpointSlice"):
            return members(self.api.find("EndpointSlice", {"kubernetes.io/service-name": service}))
        return old_members(self.api.get("Endpoints", service))

    def _await_members(self, slot: str, release: str, deadline: float) -> None:
        """Until every Service sends to just the ready pods of the slot."""
        for one in self.services:
            while True:
                pods, sent = self._pods(one["name"], slot, release), self._members(one["service"])
                if pods and pods == sent:
                    break
                if self.clock() >= deadline:
                    raise RunbookError(
                        f"Service {one['service']} sends to {', '.join(sorted(sent)) or 'no pod'} instead of the ready "
                        f"pods {', '.join(sorted(pods)) or '(none)'} of {slot}"
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

    def _put_back(
        self,
        done: Mapping[str, Optional[Object]],
        wanted: Mapping[str, Object],
        switched: float,
        seconds: float,
    ) -> tuple[bool, str]:
        """Every selector as it was, the ones never written included; not faster than the nodes can follow."""
        left = switched + self.settle_seconds - self.clock()
        if left > 0:
            self.sleep(left)
        try:
            for name, before in done.items():
                for _try in range(CAS_TRIES):
                    there = self.api.get("Service", name)
                    if there is None:
                        break
                    objects.refuse_older(self.fence, objects.fence_of(there))
                    try:
                        if before is None:
                            self.api.delete("Service", there)
                        elif _chosen(there) != _chosen(before):
                            there["kind"] = "Service"
                            there["spec"]["selector"] = before["spec"].get("selector") or {}
                            kept = (before["metadata"].get("annotations") or {}).items()
                            said = {key: value for key, value in kept if key in (objects.RELEASE_ID, objects.VERSION)}
                            there["metadata"].setdefault("annotations", {}).update(said)
                            self.api.replace(there)
                        break
                    except ConflictError:
                        self.sleep(POLL_SECONDS)
                else:
                    raise RunbookError(f"Service {name} is changed by others all the time")
        except RunbookError as error:
            return False, f"The old selectors could not be put back: {error}"
        return True, "The old selectors are back" if any(done.values()) else "The Services made for it are removed"


def _chosen(obj: Optional[Object]) -> Optional[dict[str, str]]:
    return None if obj is None else dict(obj["spec"].get("selector") or {})


def _said(found: Mapping[str, Optional[Object]]) -> str:
    return json.dumps({name: _chosen(obj) for name, obj in found.items()}, indent=1, sort_keys=True) + "\n"


def _failed(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [one for one in results if not one["passed"]]


def _failures(results: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(f"{one['name']}: {one['problem']}" for one in _failed(results))
