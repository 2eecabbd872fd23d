# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Releases and slots of one application in one namespace. Private: may change at any time.

Nothing here relies on what an earlier call remembered: every verb looks at the cluster first, so that a run that was
killed anywhere is finished or undone by the next one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Callable, NoReturn, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _kubernetes_objects as objects
from ansible_collections.signalbox.runbook.plugins.module_utils import _kubernetes_rollout as rollout
from ansible_collections.signalbox.runbook.plugins.module_utils import _shares
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._exclusive import split_states
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_api import (
    Api,
    ConflictError,
    Object,
    UnreachableError,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._probe import Endpoint, Result, ask, endpoint

LOG_LINES = 20
POLL_SECONDS = 0.3
PROVE_SECONDS = 10.0
PATIENCE_SECONDS = 10.0  # a quota is exceeded for a moment while old pods go
GRACE_SECONDS = 30.0  # what a cluster needs beside the grace of the pods
CAS_TRIES = 5
HIDDEN = "********"

Ask = Callable[..., Sequence[Result]]
Answers = list[dict[str, Any]]


class Releases:
    """One application in one namespace; everything it talks to is passed in."""

    def __init__(
        self,
        api: Api,
        application: str,
        environment: str,
        fence: int = 0,
        settings: Optional[Mapping[str, Any]] = None,
        ask: Ask = ask,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.api = api
        self.application = application
        self.environment = environment
        self.fence = fence
        self.settings = dict(settings or {})
        self.ask = ask
        self.clock = clock
        self.sleep = sleep
        self.now = now

    # -- fence ----------------------------------------------------------------------------------------------------

    def seen_fence(self) -> int:
        return objects.fence_of(self._state())

    def _state(self) -> Optional[Object]:
        state = self.api.get("ConfigMap", objects.name(self.application, "runbook"))
        held = str(((state or {}).get("data") or {}).get("environment") or self.environment)
        if held != self.environment:
            raise RunbookError(
                f"namespace: {self.api.namespace} holds {self.application} {held}, not {self.environment}; give every "
                "environment a namespace of its own"
            )
        return state

    def take_fence(self) -> None:
        """Our number becomes the highest seen, by compare-and-swap; a lower one is refused."""
        for _try in range(CAS_TRIES):
            state = self._state()
            objects.refuse_older(self.fence, objects.fence_of(state))
            if state is not None and objects.fence_of(state) == self.fence:
                return
            wanted = objects.state_object(self.application, self.environment, self.fence)
            try:
                if state is None:
                    self.api.create(wanted)
                else:
                    wanted["metadata"]["resourceVersion"] = state["metadata"]["resourceVersion"]
                    self.api.replace(wanted)
                return
            except ConflictError:
                continue
        raise RunbookError(f"the fence of {self.application} is changed by others all the time; nothing was changed")

    # -- looking --------------------------------------------------------------------------------------------------

    def read(self, services: Sequence[Mapping[str, Any]], log_lines: int = 0) -> dict[str, Any]:
        """Releases, slots and the fence; each probe of every ready pod is asked once. Nothing here is an error."""
        mine = objects.labels(self.application)
        names = {
            (kind, one["metadata"]["name"])
            for kind in ("ConfigMap", "Secret")
            for one in self.api.find(kind, mine, metadata_only=True)
        }
        releases, foreign = [], []
        for one in self.api.find("ConfigMap", {**mine, objects.PART: "release"}):
            made = objects.read_manifest(one)
            if made is None or _missing(made, names):
                foreign.append(one["metadata"]["name"])
            else:
                releases.append({key: made[key] for key in ("id", "version", "digest", "made_at")})
        deployments = self.api.find("Deployment", mine)
        pods = self.api.find("Pod", mine)
        return {
            "fence": objects.fence_of(self._state()),
            "releases": sorted(releases, key=lambda one: (one["made_at"], one["id"])),
            "foreign": sorted(foreign),
            "slots": {slot: self._survey(slot, deployments, pods, services, log_lines) for slot in objects.SLOTS},
            "cluster": {**self.api.cluster._asdict(), "namespace": self.api.namespace},
        }

    def _survey(
        self,
        slot: str,
        deployments: Sequence[Object],
        pods: Sequence[Object],
        services: Sequence[Mapping[str, Any]],
        log_lines: int,
    ) -> dict[str, Any]:
        here = {_label(one, objects.SERVICE): one for one in deployments if _label(one, objects.SLOT) == slot}
        releases = sorted({_annotation(one, objects.RELEASE_ID) for one in here.values()})
        versions = sorted({_annotation(one, objects.VERSION) for one in here.values()})
        declared = {one["name"]: one for one in services}
        described, asked, lines = {}, [], {}
        lacking: Answers = []
        for name, one in here.items():
            own = [pod for pod in pods if self._of(pod, name, slot, _annotation(one, objects.RELEASE_ID))]
            described[name] = {
                "state": rollout.summary(one, own),
                "ready": sum(rollout.ready(pod) for pod in own),
                "replicas": rollout.wanted(one),
                "full": rollout.wanted(one) if (whole := objects.full(one)) is None else whole,
                "autoscaled": whole is None,
                "restarts": sum(map(rollout.restarts, own)),
                "image": _image(one, name),
            }
            # Who has lost a pod still serves: it is the cluster that starts another one. It is told as what it is.
            if lacks := rollout.partly(one, own):
                lacking.append(_lack(name, lacks))
            own = [pod for pod in own if rollout.ready(pod)]
            if name in declared and own:
                port = declared[name]["ports"][slot]
                asked += [
                    (name, replace(probe, successes=1))
                    for probe in pod_probes(declared[name].get("probes") or (), port, own)
                ]
            if log_lines:
                lines[name] = self._log(own, name, log_lines)
        results = self.ask([probe for _name, probe in asked], fetch=self.api.fetch)
        answers = [{**result.to_dict(), "service": name} for result, (name, _probe) in zip(results, asked)] + lacking
        running, exclusive = split_states(services, {name: bool(one["ready"]) for name, one in described.items()})
        running = running and len(releases) == 1 and set(declared) - set(exclusive) <= set(here)
        return {
            "release": releases[0] if len(releases) == 1 else ", ".join(releases),
            "version": versions[0] if len(versions) == 1 else ", ".join(versions),
            "services": described,
            "running": running,
            "healthy": running and all(answer["passed"] for answer in answers),
            "exclusive": exclusive,
            "answers": answers,
            "busy": [],
            "problem": "" if len(releases) < 2 else f"its services hold several releases: {', '.join(releases)}",
            **({"log": lines} if log_lines else {}),
        }

    def _of(self, pod: Object, service: str, slot: str, release: str) -> bool:
        wanted = objects.labels(self.application, service, slot, release)
        return wanted.items() <= (pod["metadata"].get("labels") or {}).items()

    # -- a release ------------------------------------------------------------------------------------------------

    def manifest(self, release: str) -> Object:
        """A release that is there and whole; otherwise what is wrong with it."""
        made = self._manifest(release)
        if made is None:
            raise RunbookError(f"release {release} is not in {self.api.namespace}; deploy that version")
        missing = [
            f"{held['kind']} {held['name']}"
            for part in made["services"].values()
            for held in part["objects"].values()
            if not self._intact(held)
        ]
        if missing:
            raise RunbookError(
                f"release {release} is not whole, so it is not started: {', '.join(missing)} is gone or was changed. "
                "Deploy that version again to make it anew"
            )
        return made

    def _manifest(self, release: str) -> Optional[Object]:
        obj = self.api.get("ConfigMap", objects.manifest_name(self.application, release))
        made = objects.read_manifest(obj) if obj else None
        return made if made and made["id"] == release else None

    def _intact(self, held: Mapping[str, str]) -> bool:
        obj = self.api.get(held["kind"], held["name"])
        return obj is not None and held["name"].endswith(f"-{objects.digest(obj.get('data') or {})}")

    def stage(
        self, release: Mapping[str, Any], services: Sequence[Mapping[str, Any]], check_mode: bool = False
    ) -> dict[str, Any]:
        """Put the release's objects there, its manifest last. The cluster is asked first whether it takes the
        Deployments that will be made of it."""
        made_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.now()))
        made = objects.manifest(self.application, self.environment, release, services, made_at)
        wanted = [obj for one in services for obj in objects.config_objects(self.application, one).values()]
        before = self._manifest(release["id"])
        if before is not None and before["digest"] != release["digest"]:
            raise RunbookError(
                f"release {release['id']} is there with another digest ({before['digest'][:12]}, not "
                f"{release['digest'][:12]}), and a release is never changed; deploy under another version"
            )
        held = [{"kind": obj["kind"], "name": obj["metadata"]["name"]} for obj in wanted]
        if before is not None and all(map(self._intact, held)):
            return {"changed": False, "text": f"{release['version']} is there"}
        self._try_out(made, services)
        if check_mode:
            return {"changed": True, "text": f"{release['version']} would be made"}
        self.take_fence()
        for obj in wanted:
            self._ensure(obj)
        self._ensure(objects.manifest_object(made))
        self.manifest(release["id"])
        return {"changed": True, "text": f"{release['version']} made"}

    def _ensure(self, obj: Object) -> None:
        """An immutable object is there as it should be, or is made anew."""
        name = obj["metadata"]["name"]
        there = self.api.get(obj["kind"], name)
        if there is not None and not objects.ours(there, self.application):
            raise RunbookError(
                f"{obj['kind']} {name} in {self.api.namespace} was not made by signalbox.runbook, so it is not touched"
            )
        if there is not None and (there.get("data") or {}) == obj["data"]:
            return
        if there is not None:  # a manifest whose objects were damaged, or an object that others put in its place
            self.api.delete(obj["kind"], there)
        self.api.create(obj)

    def _try_out(self, made: Object, services: Sequence[Mapping[str, Any]]) -> None:
        for one in services:
            limits = {"start_seconds": 60, "stop_seconds": 10, "port": 8080, "probes": []}
            trial = objects.deployment(
                made, {"name": one["name"], **limits}, "blue", self._cluster_settings(), self.fence, ""
            )
            trial["metadata"]["name"] = objects.name(self.application, one["name"], "trial")
            try:
                self.api.create(trial, dry_run=True)
            except ConflictError:
                continue
            except UnreachableError:
                raise
            except RunbookError as error:
                raise RunbookError(f"runtime_kubernetes_services.{one['name']}.deployment: {error}") from None
            if one["settings"].get("autoscaling"):
                with contextlib.suppress(ConflictError):
                    self._put_autoscaler(one["name"], "trial", one["settings"]["autoscaling"], dry_run=True)

    def _cluster_settings(self) -> dict[str, Any]:
        if "sleep_action" not in self.settings:
            self.settings["sleep_action"] = self.api.server_version() >= (1, 30)
        return self.settings

    # -- a slot ---------------------------------------------------------------------------------------------------

    def start(
        self,
        slot: str,
        release: Mapping[str, Any],
        services: Sequence[Mapping[str, Any]],
        live_slot: str = "",
        check_mode: bool = False,
        shares: Optional[Mapping[str, int]] = None,
        only: Collection[str] = (),
    ) -> dict[str, Any]:
        """Run the release in the slot: each service in the given order, proven before the next one starts. With
        ``only``, those beside the others of the same release, which are left alone.

        ``shares`` are the services that get only a part of the traffic at first, in percent: they begin with as many
        pods as that needs, beside those of the live slot. What failed is left as it is, so that it can be looked at.
        """
        self._refuse_live(slot, live_slot, "started anew")
        made = self.manifest(release["id"])
        unknown = [one["name"] for one in services if one["name"] not in made["services"]]
        if unknown:
            raise RunbookError(
                f"release {release['id']} has no service {', '.join(unknown)}; deploy that version again"
            )
        if only:
            self._refuse_other(slot, release)
            services = [one for one in services if one["name"] in only]
        standing = self._standing(slot, release, services, bool(only))
        if standing is not None or check_mode:
            return {"changed": standing is None, "answers": standing or []}
        self.stop(slot, only=only)  # a slot holds one release, and what failed in it is not continued
        answers: Answers = []
        for one in services:
            self._apply(
                made, one, slot, self._first(made, one["name"], slot, live_slot, (shares or {}).get(one["name"]))
            )
            self._rollout(one, slot, release)
            answers += self._proven(one, slot, release, one["start_seconds"], answers)
        for one in services:  # the start of a later one may have brought an earlier one down
            self._settled(one, slot, release, answers)
        return {"changed": True, "answers": answers}

    def prove(self, slot: str, release: Mapping[str, Any], services: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """That the slot still runs just this release, every pod and every probe; it changes nothing."""
        answers: Answers = []
        for one in services:
            self._settled(one, slot, release, answers)
            answers += self._proven(one, slot, release, PROVE_SECONDS, answers)
            self._settled(one, slot, release, answers)
        return {"changed": False, "answers": answers}

    def stop(
        self, slot: str, live_slot: str = "", check_mode: bool = False, only: Collection[str] = ()
    ) -> dict[str, Any]:
        """End whatever the slot runs, or ``only`` some services, and wait until no process of it is left. Its last log
        lines are kept."""
        self._refuse_live(slot, live_slot, "stopped")

        def find(kind: str) -> list[Object]:
            found = self.api.find(kind, objects.labels(self.application, slot=slot))
            return [one for one in found if not only or _label(one, objects.SERVICE) in only]

        deployments = find("Deployment")
        budgets = find("PodDisruptionBudget") if self._serves("PodDisruptionBudget") else []
        changed = bool(deployments or budgets)
        if check_mode:
            return {"changed": changed, "log": {}}
        self.take_fence()
        log = {}
        grace = GRACE_SECONDS
        pods = find("Pod")
        for one in deployments:
            objects.refuse_older(self.fence, objects.fence_of(one))
            name = _label(one, objects.SERVICE)
            own = [pod for pod in pods if _label(pod, objects.SERVICE) == name]
            log[name] = self._masked(self._log(own, name, LOG_LINES), _annotation(one, objects.RELEASE_ID), name)
            grace = max(grace, GRACE_SECONDS + _grace(one))
        scalers = [
            scaler
            for one in deployments
            if objects.full(one) is None and (scaler := self._autoscaler(_label(one, objects.SERVICE), slot))
        ]
        for one in scalers:  # first, so that it starts nothing again
            self.api.delete("HorizontalPodAutoscaler", one)
        for one in deployments:
            self._scale_down(one["metadata"]["name"])  # at once; the collector of garbage takes its time
        deadline = self.clock() + grace
        while True:
            left = [pod for pod in find("Pod") if not rollout.ended(pod)]
            if not left:
                break
            if self.clock() >= deadline:
                named = ", ".join(sorted(pod["metadata"]["name"] for pod in left)[:3])
                raise RunbookError(
                    f"{slot} was stopped, but after {grace:g} s {len(left)} of its pods still run ({named}): "
                    "look at their node, or whether somebody else starts them "
                    f"(kubectl -n {self.api.namespace} describe pod)"
                )
            self.sleep(POLL_SECONDS)
        for kind, found in (("Deployment", deployments), ("PodDisruptionBudget", budgets)):
            for one in found:
                self.api.delete(kind, one)
        return {"changed": changed, "log": {name: lines for name, lines in log.items() if lines}}

    def _scale_down(self, name: str) -> None:
        for _try in range(CAS_TRIES):
            there = self.api.get("Deployment", name)
            if there is None:
                return
            objects.refuse_older(self.fence, objects.fence_of(there))
            there["spec"]["replicas"] = 0
            there["metadata"].setdefault("annotations", {})[objects.FENCE] = str(self.fence)
            try:
                self.api.replace(there)
                return
            except ConflictError:  # its controller writes its status
                self.sleep(POLL_SECONDS)
        raise RunbookError(f"Deployment {name} is changed by others all the time, so it can't be stopped")

    def prune(self, remove: Sequence[str], keep: Sequence[str], check_mode: bool = False) -> dict[str, Any]:
        """Remove releases, and the objects that no other release and no slot needs."""
        held = self.api.find("ConfigMap", {**objects.labels(self.application), objects.PART: "release"})
        made = {one["metadata"]["name"]: objects.read_manifest(one) for one in held}
        running = self.api.find("Deployment", objects.labels(self.application))
        busy = {_annotation(one, objects.RELEASE_ID) for one in running}
        both = sorted(set(remove) & ({*keep} | busy))
        if both:
            raise RunbookError(f"release {both[0]} is still needed, so it is not removed; nothing was removed")
        going = [one for one in held if (made[one["metadata"]["name"]] or {}).get("id") in set(remove)]
        if check_mode or not going:
            return {"changed": bool(going), "removed": [], "text": f"{len(going)} old releases removed"}
        self.take_fence()
        for one in going:
            self.api.delete("ConfigMap", one)
        gone = {one["metadata"]["name"] for one in going}
        needed = {
            (part["kind"], part["name"])
            for name, one in made.items()
            if one and name not in gone
            for service in one["services"].values()
            for part in service["objects"].values()
        }
        for kind in ("ConfigMap", "Secret"):
            for one in self.api.find(kind, objects.labels(self.application), metadata_only=True):
                part = _label(one, objects.PART)
                if part in ("env", "secret", "files") and (kind, one["metadata"]["name"]) not in needed:
                    self.api.delete(kind, one)
        removed = sorted({str((made[name] or {})["id"]) for name in gone})
        return {"changed": True, "removed": removed, "text": f"{len(removed)} old releases removed"}

    # -- parts of a start -----------------------------------------------------------------------------------------

    def _refuse_live(self, slot: str, live_slot: str, what: str) -> None:
        if slot not in objects.SLOTS:
            raise RunbookError(f"slot: {slot!r} must be one of {', '.join(objects.SLOTS)}")
        if live_slot == slot:
            raise RunbookError(f"{slot} takes the traffic, so it is not {what}; shift the traffic away first")

    def _refuse_other(self, slot: str, release: Mapping[str, Any]) -> None:
        found = self.api.find("Deployment", objects.labels(self.application, slot=slot))
        held = sorted({_annotation(one, objects.RELEASE_ID) for one in found})
        if held != [release["id"]]:
            raise RunbookError(
                f"{slot} holds {', '.join(held) or 'nothing'}, not {release['id']}: somebody changed it during the run"
            )

    def _look(self, service: str, slot: str, release: str) -> tuple[Optional[Object], list[Object]]:
        deployment = self.api.get("Deployment", objects.slot_name(self.application, service, slot))
        return deployment, self.api.find("Pod", objects.labels(self.application, service, slot, release))

    def _standing(
        self, slot: str, release: Mapping[str, Any], services: Sequence[Mapping[str, Any]], beside: bool = False
    ) -> Optional[Answers]:
        """The passed probes when the slot already runs just this, healthy, or has it ``beside`` others; otherwise
        None."""
        asked = []
        for one in services:
            deployment, pods = self._look(one["name"], slot, release["id"])
            held = deployment is not None and _annotation(deployment, objects.RELEASE_ID) == release["id"]
            if deployment is None or not held or not rollout.stands(deployment, pods):
                return None
            if objects.full(deployment) is None and not self._autoscaler(one["name"], slot):
                return None
            asked += [(one["name"], probe) for probe in pod_probes(one["probes"], one["port"], pods)]
        there = self.api.find("Deployment", objects.labels(self.application, slot=slot))
        if not beside and len(there) != len(services):
            return None
        results = self.ask([probe for _name, probe in asked], fetch=self.api.fetch)
        answers = [{**result.to_dict(), "service": name} for result, (name, _probe) in zip(results, asked)]
        return answers if all(answer["passed"] for answer in answers) else None

    def _autoscaler(self, service: str, slot: str) -> Optional[Object]:
        kind = "HorizontalPodAutoscaler"
        return self.api.get(kind, objects.slot_name(self.application, service, slot)) if self._serves(kind) else None

    def _serves(self, kind: str) -> bool:
        return bool(self.api.version_of(kind))

    def _first(self, made: Object, service: str, slot: str, live_slot: str, share: Optional[int]) -> int:
        """How many pods a service begins with: all, as many as its first share needs, or as many as the live one has
        by now where an autoscaler says how many."""
        settings = made["services"][service]["settings"]
        whole, scaled = int(settings["replicas"]), settings.get("autoscaling")
        name = objects.slot_name(self.application, service, live_slot) if live_slot else ""
        beside = self.api.get("Deployment", name) if name else None
        if scaled:
            now = rollout.wanted(beside) if beside else 0
            return int(min(max(whole, scaled["min"], now), scaled["max"]))
        other = objects.full(beside) if beside else None
        if other is None or not share or share >= 100:
            return whole
        return _shares.counts({slot: share, live_slot: 100 - share}, max(whole, other))[slot]

    def _apply(self, made: Object, service: Mapping[str, Any], slot: str, replicas: int) -> None:
        started_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.now()))
        settings = self._cluster_settings()
        wanted = objects.deployment(made, service, slot, settings, self.fence, started_at, replicas)
        there = self.api.get("Deployment", wanted["metadata"]["name"])
        if there is not None:  # the slot has just been emptied: it is not ours, or of a run that is still alive
            if not objects.ours(there, self.application):
                raise RunbookError(
                    f"Deployment {there['metadata']['name']} in {self.api.namespace} was not made by "
                    "signalbox.runbook, so it is not touched; change app_name or the name of the service"
                )
            objects.refuse_older(self.fence, objects.fence_of(there))
        self.api.create(wanted)
        own = made["services"][service["name"]]["settings"]
        scaled = own.get("autoscaling")
        if scaled:
            self._put_autoscaler(service["name"], slot, scaled)
        if (scaled["min"] if scaled else own["replicas"]) > 1:
            budget = objects.disruption_budget(self.application, service["name"], slot)
            served = self.api.version_of("PodDisruptionBudget")
            if served and self.api.get("PodDisruptionBudget", budget["metadata"]["name"]) is None:
                self.api.create(budget)

    def _put_autoscaler(self, service: str, slot: str, scaled: Mapping[str, Any], dry_run: bool = False) -> None:
        kind = "HorizontalPodAutoscaler"
        if not self._serves(kind):
            raise RunbookError("this cluster serves no HorizontalPodAutoscaler; leave autoscaling out")
        wanted = objects.autoscaler(self.application, service, slot, scaled, self.api.version_of(kind))
        there = None if dry_run else self._autoscaler(service, slot)
        if there is None:
            self.api.create(wanted, dry_run)
        elif not objects.ours(there, self.application):
            raise RunbookError(
                f"{kind} {there['metadata']['name']} in {self.api.namespace} was not made by signalbox.runbook, so it "
                "is not touched; remove it, or leave autoscaling out"
            )
        else:
            wanted["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"]
            self.api.replace(wanted)

    def _rollout(self, service: Mapping[str, Any], slot: str, release: Mapping[str, Any]) -> None:
        """Until the Deployment stands, or will not, or its time is over; that is below its progress deadline."""
        name = service["name"]
        deadline = self.clock() + service["start_seconds"]
        refused_since: Optional[float] = None
        while True:
            deployment, pods = self._look(name, slot, release["id"])
            if deployment is None:
                self._fail(service, slot, release, [rollout.Cause("gone", "somebody deleted its Deployment")], [])
            if rollout.stands(deployment, pods, strict=True):
                return
            found = rollout.causes(deployment, pods)
            # A pod counts against a quota until it is gone altogether: while old ones go, it is no reason.
            refused = any(cause.kind == "refused" for cause in found) and not self._going(slot)
            refused_since = (refused_since or self.clock()) if refused else None
            lasting = refused_since is not None and self.clock() - refused_since >= PATIENCE_SECONDS
            if any(cause.never for cause in found) or lasting:
                self._fail(service, slot, release, found, pods)
            if self.clock() >= deadline:
                late = rollout.Cause("deadline", f"it is not ready after {service['start_seconds']:g} s")
                self._fail(service, slot, release, found or [late], pods)
            self.sleep(POLL_SECONDS)

    def _going(self, slot: str) -> bool:
        pods = self.api.find("Pod", objects.labels(self.application, slot=slot))
        return any(pod["metadata"].get("deletionTimestamp") for pod in pods)

    def _proven(
        self,
        service: Mapping[str, Any],
        slot: str,
        release: Mapping[str, Any],
        seconds: float,
        before: Answers,
    ) -> Answers:
        """Every pod passes every probe, asked through the API server."""
        name = service["name"]
        _deployment, pods = self._look(name, slot, release["id"])
        asked = pod_probes(service["probes"], service["port"], rollout.alive(pods))
        results = self.ask(
            asked,
            fetch=self.api.fetch,
            clock=self.clock,
            sleep=self.sleep,
            deadline_seconds=seconds,
            interval_seconds=POLL_SECONDS,
            stop=lambda: self._broken(name, slot, release["id"]),
        )
        answers = [{**result.to_dict(), "service": name} for result in results]
        if not all(result.passed for result in results) or not asked:
            deployment, pods = self._look(name, slot, release["id"])
            found = rollout.causes(deployment, pods) if deployment else []
            self._fail(service, slot, release, [one for one in found if one.never], pods, [*before, *answers])
        return answers

    def _broken(self, service: str, slot: str, release: str) -> str:
        deployment, pods = self._look(service, slot, release)
        if deployment is None:
            return "somebody deleted its Deployment"
        return next((one.problem for one in rollout.causes(deployment, pods) if one.never), "")

    def _settled(self, service: Mapping[str, Any], slot: str, release: Mapping[str, Any], answers: Answers) -> None:
        """Passed probes count only when the pods live on: ready, all of them, and none started twice."""
        deployment, pods = self._look(service["name"], slot, release["id"])
        if deployment is None:
            self._fail(service, slot, release, [rollout.Cause("gone", "its Deployment is gone")], pods, answers)
        held = _annotation(deployment, objects.RELEASE_ID)
        if held != release["id"]:
            problem = (
                f"{slot} holds {held or 'something else'}, not {release['id']}: somebody changed it during the run"
            )
            self._fail(service, slot, release, [rollout.Cause("changed", problem)], pods, answers)
        found = [one for one in rollout.causes(deployment, pods) if one.never]
        if found or not rollout.stands(deployment, pods):
            ready = sum(map(rollout.ready, pods))
            count = rollout.Cause("not_ready", f"{ready} of {rollout.wanted(deployment)} pods are ready")
            self._fail(service, slot, release, found or rollout.causes(deployment, pods) or [count], pods, answers)

    # -- words ----------------------------------------------------------------------------------------------------

    def _fail(
        self,
        service: Mapping[str, Any],
        slot: str,
        release: Mapping[str, Any],
        found: Sequence[rollout.Cause],
        pods: Sequence[Object],
        answers: Sequence[Mapping[str, Any]] = (),
    ) -> NoReturn:
        name = service["name"]
        detailed = []
        for cause in [one for one in found if one.never] or found:  # what is final explains the rest
            if cause.kind == "not_ready" and cause.pod:
                events = self.api.find("Event", {}, fields=f"involvedObject.name={cause.pod}")
                said = rollout.unready_reason(events)
                cause = replace(cause, problem=f"{cause.problem}: {said}" if said else cause.problem)
            detailed.append(cause)
        diagnosis = [cause.to_dict(name) for cause in detailed]
        diagnosis += [
            {key: answer[key] for key in ("name", "kind", "problem", "fix")}
            for answer in answers
            if answer["service"] == name and not answer["passed"]
        ]
        if not diagnosis:
            diagnosis = [rollout.Cause("not_ready", "none of its pods could be asked").to_dict(name)]
        lines = self._masked(self._log(pods, name, LOG_LINES), release["id"], name)
        first = str(diagnosis[0]["problem"]).rstrip(".")
        last = f" Its last line: {lines[-1].strip()}" if lines and diagnosis[0]["kind"] == "process" else ""
        masked = self._masked(
            [f"{name} of {release['id']} is not healthy in {slot}: {first}.{last}"], release["id"], name
        )
        raise RunbookError(
            masked[0],
            service=name,
            diagnosis=diagnosis,
            log={name: lines} if lines else {},
            answers=list(answers),
            changed=True,
        )

    def _log(self, pods: Sequence[Object], service: str, count: int) -> list[str]:
        """The last lines of the pod that is worst off: what it said before it ended, where it did."""
        if not pods:
            return []
        worst = sorted(rollout.alive(pods) or pods, key=lambda pod: (rollout.ready(pod), -rollout.restarts(pod)))[0]
        container = _main(worst["spec"], service)
        statuses = {one["name"]: one for one in (worst.get("status") or {}).get("containerStatuses") or ()}
        waiting = ((statuses.get(container) or {}).get("state") or {}).get("waiting")
        lines = self.api.log(
            worst["metadata"]["name"], container, count, previous=bool(waiting and rollout.restarts(worst))
        )
        return lines or self.api.log(worst["metadata"]["name"], container, count)

    def _masked(self, lines: list[str], release: str, service: str) -> list[str]:
        """What the application prints of its secrets goes no further than its log."""
        if not lines:
            return []
        made = self._manifest(release)
        held = ((made or {}).get("services") or {}).get(service, {}).get("objects", {})
        for key in ("secret", "files"):
            secret = self.api.get("Secret", held[key]["name"]) if key in held else None
            for value in objects.decoded(secret or {}):
                lines = [line.replace(value, HIDDEN) for line in lines]
        return lines


def _lack(service: str, problem: str) -> dict[str, Any]:
    """An answer in the form of the probes'."""
    nothing: dict[str, Any] = {
        "target": "",
        "observed": None,
        "expected": None,
        "duration_ms": 0,
        "attempts": 1,
        "evidence": {},
    }
    said = {"name": f"{service} pods", "service": service, "passed": False, "problem": problem}
    return {**nothing, **said, "kind": "not_ready", "fix": "Look at its pods: kubectl describe pod."}


def _missing(made: Object, names: set[tuple[str, str]]) -> bool:
    parts = [held for part in made["services"].values() for held in part["objects"].values()]
    return any((held["kind"], held["name"]) not in names for held in parts)


def pod_probes(raws: Sequence[Mapping[str, Any]], port: int, pods: Sequence[Mapping[str, Any]]) -> list[Endpoint]:
    """Each probe of each pod; which pod it is stands in the URL."""
    return [
        endpoint({**raw, "url": str(raw["url"]).replace("127.0.0.1:{port}", f"{pod['metadata']['name']}:{port}")})
        for pod in pods
        for raw in raws
    ]


def _label(obj: Object, key: str) -> str:
    return str((obj["metadata"].get("labels") or {}).get(key) or "")


def _annotation(obj: Object, key: str) -> str:
    return str((obj["metadata"].get("annotations") or {}).get(key) or "")


def _main(spec: Mapping[str, Any], service: str) -> str:
    names = [str(one["name"]) for one in spec.get("containers") or ()]
    return service if service in names or not names else names[0]


def _image(deployment: Object, service: str) -> str:
    spec = deployment["spec"]["template"]["spec"]
    name = _main(spec, service)
    return next((str(one.get("image")) for one in spec["containers"] if one["name"] == name), "")


def _grace(deployment: Object) -> float:
    return float(deployment["spec"]["template"]["spec"].get("terminationGracePeriodSeconds") or 30)
