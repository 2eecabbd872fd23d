# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the state of a Deployment and its pods means: done, not yet and why, or never. Pure functions.

Private: may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

Object = Mapping[str, Any]

AUTOSCALED = "signalbox.runbook/autoscaled"  # least and most pods, where an autoscaler sets their number

IMAGE = {"ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName", "ImageInspectError", "RegistryUnavailable"}
TELLING = {"Unhealthy", "Failed", "FailedMount", "FailedAttachVolume", "FailedPostStartHook", "FailedCreatePodSandBox"}
CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError"}


@dataclass(frozen=True)
class Cause:
    """Why a Deployment does not stand. ``never``: waiting does not help."""

    kind: str
    problem: str
    fix: str = ""
    never: bool = False
    pod: str = ""

    def to_dict(self, service: str) -> dict[str, str]:
        return {"name": service, "kind": self.kind, "problem": self.problem, "fix": self.fix}


def stands(deployment: Object, pods: Sequence[Object], strict: bool = False) -> bool:
    """All replicas updated, ready and available, as the controller has really seen, and the pods say so too.

    Where an autoscaler sets their number, and so may be changing it, as many as it keeps at least are enough;
    ``strict``: all the same.
    """
    least = _least(deployment)
    if least and not strict:
        status = deployment.get("status") or {}
        same = int(status.get("updatedReplicas") or 0) == int(status.get("replicas") or 0)
        return same and wanted(deployment) > 0 and len([p for p in pods if ready(p)]) >= min(least, wanted(deployment))
    return _stands(deployment, pods)


def _least(deployment: Object) -> int:
    text = str((deployment["metadata"].get("annotations") or {}).get(AUTOSCALED) or "").partition("-")[0]
    return int(text) if text.isdigit() else 0


def _stands(deployment: Object, pods: Sequence[Object]) -> bool:
    wanted = int(deployment["spec"].get("replicas", 1))
    status = deployment.get("status") or {}
    counted = [
        int(status.get(key) or 0) for key in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    ]
    seen = int(status.get("observedGeneration") or 0) >= int(deployment["metadata"]["generation"])
    return bool(
        seen
        and wanted > 0
        and counted == [wanted] * 4
        and not status.get("unavailableReplicas")
        and len([pod for pod in pods if ready(pod)]) == wanted
    )


def ready(pod: Object) -> bool:
    """Takes traffic: Ready, and not on its way out."""
    return _condition(pod, "Ready").get("status") == "True" and not pod["metadata"].get("deletionTimestamp")


def alive(pods: Sequence[Object]) -> list[Object]:
    return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]


def ended(pod: Object) -> bool:
    """On its way out with no process left; the object itself stays until its node has tidied up."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    running = any((one.get("state") or {}).get("running") is not None for one in statuses)
    return bool(pod["metadata"].get("deletionTimestamp")) and not running


def restarts(pod: Object) -> int:
    return sum(
        int(status.get("restartCount") or 0) for status in (pod.get("status") or {}).get("containerStatuses") or ()
    )


def _condition(obj: Object, kind: str) -> dict[str, Any]:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((dict(one) for one in conditions if one.get("type") == kind), {})


def causes(deployment: Object, pods: Sequence[Object]) -> list[Cause]:
    """What keeps it from standing, the telling ones first; empty while nothing is known."""
    found: list[Cause] = []
    for pod in alive(pods):
        found += _pod(pod)
    failure = _condition(deployment, "ReplicaFailure")
    if failure.get("status") == "True":
        message = str(failure.get("message") or failure.get("reason"))
        fix = "Raise the quota of the namespace or ask for less." if "exceeded quota" in message else ""
        found.append(Cause("refused", f"the cluster does not create its pods: {message}", fix))
    progress = _condition(deployment, "Progressing")
    if progress.get("reason") == "ProgressDeadlineExceeded":
        found.append(Cause("deadline", str(progress.get("message") or "the progress deadline is over"), never=True))
    # One sentence for all pods that say the same.
    unique: dict[tuple[str, str], Cause] = {}
    for cause in found:
        unique.setdefault((cause.kind, cause.problem), cause)
    return sorted(unique.values(), key=lambda cause: not cause.never)


def _pod(pod: Object) -> list[Cause]:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if status.get("phase") == "Failed":
        text = str(status.get("message") or status.get("reason") or "it failed")
        return [Cause("pod", f"its pod was ended: {text}", "", True, name)]
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("reason") == "Unschedulable":
        fix = "Free or add room for it, or ask for less in resources."
        return [Cause("unschedulable", f"no node takes its pod: {scheduled.get('message')}", fix, False, name)]
    found = []
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        cause = _container(container, name)
        if cause:
            found.append(cause)
    if not found and not ready(pod):
        what = "runs but is not ready" if status.get("phase") == "Running" else "is not started yet"
        found.append(Cause("not_ready", f"its pod {what}", "", False, name))
    return found


def _container(container: Object, pod: str) -> Optional[Cause]:
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "").strip()
    if reason in IMAGE or reason == "ErrImagePull":
        fix = "Push the image, correct app_services[].image, or give the pull secret."
        problem = f"the image {container.get('image')} is not to be had ({reason}): {message or 'no message'}"
        if reason == "ErrImagePull":  # the first try; its message is not the same twice
            return Cause("image", f"the image {container.get('image')} could not be pulled yet", fix, False, pod)
        return Cause("image", problem, fix, True, pod)
    if reason in CONFIG:
        return Cause("container", f"its container can't be created ({reason}): {message}", "", True, pod)
    ended = (container.get("state") or {}).get("terminated") or (container.get("lastState") or {}).get("terminated")
    if reason == "CrashLoopBackOff" or int(container.get("restartCount") or 0) or (ended and ended.get("exitCode")):
        how = _ended(ended or {})
        loop = "; it is in CrashLoopBackOff" if reason == "CrashLoopBackOff" else ""
        return Cause("process", f"its process ended ({how}){loop}", "Read its last log lines.", True, pod)
    return None


def _ended(terminated: Mapping[str, Any]) -> str:
    reason = str(terminated.get("reason") or "")
    code = terminated.get("exitCode")
    said = f"exit {code}" if code is not None else "no exit status"
    return f"{said}, {reason}" if reason and reason not in ("Error", "Completed") else said


def unready_reason(events: Sequence[Object]) -> str:
    """What the kubelet says about a pod that does not get ready: its newest complaint."""
    newest = sorted(
        (one for one in events if one.get("reason") in TELLING and one.get("message")),
        key=lambda one: str(one.get("lastTimestamp") or one.get("eventTime") or ""),
    )
    return " ".join(str(newest[-1]["message"]).split())[:300] if newest else ""


def wanted(deployment: Object) -> int:
    return int(deployment["spec"].get("replicas", 1))


def partly(deployment: Object, pods: Sequence[Object]) -> str:
    """What is lacking of a Deployment that serves; empty for nothing."""
    count = sum(map(ready, pods))
    return f"{count} of {wanted(deployment)} pods are ready" if count and not stands(deployment, pods) else ""


def summary(deployment: Object, pods: Sequence[Object]) -> str:
    """One word for the overview of a slot."""
    if stands(deployment, pods):
        return "READY"
    return "PARTLY_READY" if any(ready(pod) for pod in pods) else "NOT_READY"
