# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Weights that the Services of a cluster can't have, refused while nothing has been touched. Pure functions.

Private: may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _model, _shares
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError


def by_replicas(model: _model.Model) -> bool:
    return bool(model["app_router"] == "kubernetes" and model["router_kubernetes_share"] == "replicas")


def check(
    model: _model.Model,
    host: str,
    weights: Sequence[int],
    slots: Mapping[str, Optional[Mapping[str, Any]]],
    live: Optional[Mapping[str, Any]],
    to: Mapping[str, Any],
    router: Mapping[str, Any],
) -> None:
    """Refuse weights that this host's Services can't have, before anything is touched. ``weights`` are those of the
    steps that are planned, ``slots`` and ``router`` what was found there."""
    parts = [weight for weight in weights if weight < 100]
    if model["app_router"] != "kubernetes" or live is None or not parts:
        return
    if not by_replicas(model):
        problem = (router.get("ingress") or {}).get("problem")
        if problem:
            raise RunbookError(f"router_kubernetes_ingress: {problem} (on {host}). Nothing has been touched")
        return
    for service in _model.routed(model):
        name = service["name"]
        old, new = promised(slots.get(live["slot"]), name), promised(slots.get(to["slot"]), name)
        held = (slots.get(to["slot"]) or {}).get("release") == to["release"]
        if not held or new is None:
            new = wanted(model, name)
        if old is None:  # a service that is new has nobody to share with
            continue
        if old["autoscaled"] or new["autoscaled"]:
            whose = f"{(to if new['autoscaled'] else live)['version']} has"
            raise RunbookError(
                f"router_kubernetes_share: replicas can't give {name} {parts[0]} % where an autoscaler sets "
                f"their number ({whose} one, on {host}); say ingress, leave out the app_steps below 100, or deploy "
                "without runtime_kubernetes_autoscaling before. Nothing has been touched"
            )
        _check_parts(model, name, parts, max(old["replicas"], new["replicas"]))


def _check_parts(model: _model.Model, name: str, parts: Sequence[int], total: int) -> None:
    within = model["router_kubernetes_share_within_percent"]
    for weight in parts:
        both = {"canary": weight, "stable": 100 - weight}
        if _shares.off(both, total) <= within:
            continue
        key = next(
            (f"app_steps[{i}].weight" for i, s in enumerate(model["app_steps"] or ()) if s["weight"] == weight), ""
        )
        can = "no share is possible" if total < 2 else f"{_nearest(both, total)} % is possible"
        least = _shares.enough([{"canary": part, "stable": 100 - part} for part in parts], total, within)
        raise RunbookError(
            f"{key or 'app_steps'}: {weight} % of {total} replicas of {name} can't be; {can}. Give "
            f"{_setting(model, name)} {least}, or another weight. Nothing has been touched"
        )


def _nearest(weights: Mapping[str, int], total: int) -> str:
    return f"{100 * _shares.counts(weights, total)['canary'] / total:.3g}"


def _setting(model: _model.Model, name: str) -> str:
    own = (model.get("runtime_kubernetes_services") or {}).get(name) or {}
    return f"runtime_kubernetes_services.{name}.replicas" if "replicas" in own else "runtime_kubernetes_replicas"


def wanted(model: _model.Model, name: str) -> dict[str, Any]:
    """What a release that is made of this model has of a service."""
    own: Mapping[str, Any] = (model.get("runtime_kubernetes_services") or {}).get(name) or {}
    scaled = own.get("autoscaling", model.get("runtime_kubernetes_autoscaling"))
    return {
        "replicas": int(own.get("replicas", model["runtime_kubernetes_replicas"])),
        "autoscaled": bool(scaled),
    }


def promised(slot: Optional[Mapping[str, Any]], name: str) -> Optional[dict[str, Any]]:
    """What the release that a slot holds has of a service, as it was looked at."""
    found = ((slot or {}).get("services") or {}).get(name)
    if found is None:
        return None
    return {"replicas": int(found["full"]), "autoscaled": bool(found["autoscaled"])}
