# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check the model, and read the journal for the plan. Documentation: the module of the same name."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.signalbox.runbook.plugins.module_utils import _model
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._journal import lease_problem
from ansible_collections.signalbox.runbook.plugins.module_utils._steps import role
from ansible_collections.signalbox.runbook.plugins.plugin_utils import _controller as controller

READING = (
    "status",
    "preflight",
    "watch",
)  # verbs that change nothing, so that somebody else's lease is not in their way


class ActionModule(ActionBase):
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("verb",))

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        variables: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        verb = str(self._task.args["verb"])
        try:
            request = {"verb": verb, "version": str(variables.get("app_version") or "")}
            if verb == "rollback" and not str(variables.get("app_reason") or "").strip():
                raise RunbookError(
                    "app_reason: is missing; say why you roll back, for example -e app_reason='errors since 14:02'"
                )
            models = controller.load_models(variables, self._task, self._loader, request)
            hosts = controller.groups(variables)
            first = models[hosts["targets"][0]]
            wait = 0 if verb in READING else first["app_lease_wait_seconds"]
            store = _model.store(models[hosts["state"][0]])
            read = controller.journal(self, variables, **store, state="read")
            if wait and _held(read.get("lease")):  # nobody waits for a holder that is gone: it is taken over
                read = controller.journal(self, variables, **store, state="read", wait_seconds=wait)
            if read.get("failed") or read.get("unreachable"):
                untouched = controller.refusal(RunbookError(str(read.get("msg"))))
                return {**result, **read, "msg": untouched["msg"]}
            lease = read["lease"]
            if verb not in READING and lease and _held(lease):
                raise RunbookError(lease_problem(lease, read["now"]), lease=lease)
        except RunbookError as error:
            return {**result, **controller.refusal(error)}
        return {
            **result,
            "changed": False,
            "began": time.time(),
            "application": first["app_name"],
            "environment": first["app_environment"],
            "journal": {key: read[key] for key in ("lease", "fence", "history", "notes", "unfinished", "now")},
            "targets": hosts["targets"],
            "routers": hosts["routers"],
            "participants": list(dict.fromkeys([*hosts["targets"], *hosts["routers"]])),
            "looks": _looks(models, hosts),
            "accounting": _accounting_args(first),
        }


def _held(lease: Optional[Mapping[str, Any]]) -> bool:
    return bool(lease and not lease["expired"] and not controller.is_dead(lease))


def _looks(models: Mapping[str, _model.Model], hosts: Mapping[str, list[str]]) -> dict[str, dict[str, Any]]:
    """By which role each target and each router is looked at, and what the role is given."""
    targets, routers = hosts["targets"], hosts["routers"]
    return {
        "targets": {
            host: {
                "role": role("runtime", models[host]),
                "args": _target_args(models[host]),
            }
            for host in targets
        },
        "routers": {
            host: {
                "role": role("router", models[host]),
                "args": _router_args(models, host, targets),
            }
            for host in routers
        },
    }


def _target_args(model: _model.Model) -> dict[str, Any]:
    return {
        "services": [
            {
                "name": service["name"],
                "ports": service["ports"],
                "probes": _model.slot_probes(service),
                "exclusive": service["exclusive"],
            }
            for service in model["app_services"]
        ]
    }


def _router_args(models: Mapping[str, _model.Model], host: str, targets: list[str]) -> dict[str, Any]:
    model = models[host]
    members = [host] if model["app_router_members"] == "local" else targets
    return {
        "upstreams": _model.upstreams(models, members, {}),
        "services": _model.router_services(model),
        "ask": [_model.version_probe(service, _model.router_base(service, model)) for service in _model.routed(model)],
    }


def _accounting_args(model: _model.Model) -> dict[str, Any]:
    """What the prober asks: the first routed service, where it says its version, through the public URL."""
    service = _model.routed(model)[0]
    probe = _model.version_probe(service, service["url"] or model["app_url"])
    path = model["accounting_path"]
    return {
        "url": (service["url"] or model["app_url"]).rstrip("/") + path if path else probe["url"],
        "headers": probe.get("headers", {}),
        "version_path": service["version"]["key"],
        "requests_per_second": model["accounting_requests_per_second"],
        "connections": model["accounting_connections"],
        "keep_alive": model["accounting_keep_alive"],
        "timeout_seconds": model["accounting_timeout_seconds"],
    }
