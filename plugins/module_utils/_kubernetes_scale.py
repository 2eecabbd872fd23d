# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Numbers of replicas of slots: read, set, and waited for. Private: may change at any time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Callable, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _kubernetes_objects as objects
from ansible_collections.signalbox.runbook.plugins.module_utils import _kubernetes_rollout as rollout
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_api import Api, ConflictError, Object

POLL_SECONDS = 0.3
CAS_TRIES = 10  # the controller of Deployments writes their status, often while pods come and go


class Scales:
    """The Deployments of one application by service and slot."""

    def __init__(
        self,
        api: Api,
        application: str,
        fence: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.api = api
        self.application = application
        self.fence = fence
        self.clock = clock
        self.sleep = sleep

    def deployment(self, service: str, slot: str) -> Optional[Object]:
        there = self.api.get("Deployment", objects.slot_name(self.application, service, slot))
        return there if there is not None and objects.ours(there, self.application) else None

    def ready(self, service: str, slot: str, release: str = "") -> set[str]:
        """Names of the pods that take traffic."""
        return {pod["metadata"]["name"] for pod in self._pods(service, slot, release) if rollout.ready(pod)}

    def _pods(self, service: str, slot: str, release: str = "") -> list[Object]:
        return self.api.find("Pod", objects.labels(self.application, service, slot, release))

    def set(self, service: str, slot: str, count: int) -> bool:
        """That many replicas from now on; whether that is a change. They are waited for by ``wait``."""
        for _try in range(CAS_TRIES):
            there = self.deployment(service, slot)
            if there is None:
                raise RunbookError(f"{slot} of {service} is gone, so it can't have {count} replicas")
            objects.refuse_older(self.fence, objects.fence_of(there))
            if rollout.wanted(there) == count:
                return False
            there["metadata"].setdefault("annotations", {})[objects.FENCE] = str(self.fence)
            there["spec"]["replicas"] = count
            try:
                self.api.replace({**there, "kind": "Deployment"})
                return True
            except ConflictError:
                self.sleep(POLL_SECONDS)
        raise RunbookError(f"{slot} of {service} is changed by others all the time, so it can't have {count} replicas")

    def wait(self, wanted: Mapping[tuple[str, str], int], seconds: float) -> None:
        """Until each slot of a service has just that many pods, all ready."""
        deadline = self.clock() + seconds
        for (service, slot), count in wanted.items():
            while True:
                there, pods = self.deployment(service, slot), self._pods(service, slot)
                if there is None:
                    raise RunbookError(f"{slot} of {service} is gone: somebody deleted its Deployment")
                if rollout.wanted(there) != count:
                    raise RunbookError(
                        f"{slot} of {service} was scaled to {rollout.wanted(there)} by somebody else, not to {count}: "
                        "find out who does it, for example a HorizontalPodAutoscaler of your own"
                    )
                if rollout.stands(there, pods, strict=True):
                    break
                # One that is ready again after it was started anew is no reason.
                found = rollout.causes(there, [pod for pod in pods if not rollout.ready(pod)])
                if any(cause.never for cause in found) or self.clock() >= deadline:
                    why = found[0].problem if found else "they are not all ready"
                    have = sum(map(rollout.ready, pods))
                    raise RunbookError(
                        f"{slot} of {service} has {have} of {count} pods ready after {seconds:g} s at most: {why}"
                    )
                self.sleep(POLL_SECONDS)
