# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rollback rules of five runbooks, with their numbers, as triggers. Data only; private: may change at any time.

Each is what an inventory could write in ``watch_triggers``. ``{watch_security_alerts}`` stands for that variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Not one request is answered: what the runbooks call not accessible, or critical service unavailability.
UNAVAILABLE = {"metric": "requests", "fail_when": {"error_percent": ">= 100"}}

PRESETS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    # Docker Compose. Any check that fails takes the release back.
    "clickview_compose": ({"name": "health", "metric": "probe", "fail_when": {"failed": "> 0"}},),
    # Kubernetes. It has alerts and no automatic rollback, so these only report.
    "clickview_k8s": (
        {"name": "errors", "metric": "requests", "fail_when": {"error_percent": "> 5"}, "shadow": True},
        {"name": "p95", "metric": "requests", "fail_when": {"p95_ms": "> 500"}, "shadow": True},
    ),
    # systemd and packages. "Worse performance" is for people to consider, so it is no trigger.
    "complinist": (
        {
            "name": "errors",
            "metric": "requests",
            "fail_when": {"times_baseline": "> 10"},
            "baseline_floor": 1,  # the runbook has none; below it ten times normal would be a handful of requests
        },
        {"name": "unavailable", **UNAVAILABLE},
    ),
    # Kubernetes, blue-green.
    "case_management": (
        {"name": "health", "metric": "probe", "fail_when": {"failed": "> 0"}, "for_seconds": 120},
        {"name": "errors", "metric": "requests", "fail_when": {"error_percent": "> 10"}, "for_seconds": 60},
        {"name": "unavailable", **UNAVAILABLE},
    ),
    # GitHub Actions.
    "dotmac": (
        {
            "name": "health",
            "metric": "probe",
            "fail_when": {"failed": "> 0"},
            "failure_limit": -1,
            "consecutive_failure_limit": 3,
        },
        {"name": "errors", "metric": "requests", "fail_when": {"error_percent": "> 10"}, "for_seconds": 300},
        {"name": "p95", "metric": "requests", "fail_when": {"p95_ms": "> 2000"}, "for_seconds": 300},
        {
            "name": "security-alert",
            "metric": "prometheus",
            "query": 'count(ALERTS{alertstate="firing",{watch_security_alerts}}) or vector(0)',
            "fail_when": {"firing": "> 0"},
        },
    ),
}


def triggers(preset: str, security_alerts: str) -> list[dict[str, Any]]:
    """The triggers of one preset, under names that say whose they are."""
    found = [dict(trigger, name=f"{preset}-{trigger['name']}") for trigger in PRESETS[preset]]
    for trigger in found:
        if "query" in trigger:
            trigger["query"] = trigger["query"].replace("{watch_security_alerts}", security_alerts)
    return found
