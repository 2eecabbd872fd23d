# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Triggers of the watch: the rules that the argument specification can't say, and what one of them measures.

Pure functions over checked values. Private: may change at any time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _limits, _presets, _probe
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._prometheus import QUERY_LIMIT, Reading
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Problems, Spec, check, closest
from ansible_collections.signalbox.runbook.plugins.module_utils._verdict import (
    ERROR,
    NO_DATA,
    OFF,
    Measurement,
    Policy,
    assess,
)

TIMES_BASELINE = "times_baseline"
REQUESTS = (
    *("sent", "failed", "error_percent", "p50_ms", "p95_ms", "p99_ms", "longest_gap_ms", "connections_cut"),
    TIMES_BASELINE,
)
PROBE = ("failed", "duration_ms")
LIMITS = ("failure_limit", "consecutive_failure_limit", "inconclusive_limit", "consecutive_error_limit")
SECONDS = (("interval_seconds", 0.1), ("initial_delay_seconds", 0), ("for_seconds", 0))
# Beyond the window, and on top of what a trigger may need: a step that takes longer has lost its way.
SPARE_SECONDS = 15.0

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,60}\Z")


@dataclass(frozen=True)
class Trigger:
    """What is measured how often, its limits, and how much of it decides."""

    name: str
    metric: str
    fail_when: tuple[_limits.Limit, ...]
    warn_when: tuple[_limits.Limit, ...]
    policy: Policy
    interval_seconds: float
    initial_delay_seconds: float = 0.0
    query: str = ""
    probe: Optional[Mapping[str, Any]] = None
    baseline_floor: float = 0.0
    shadow: bool = False
    key: bool = False
    weight: float = 1.0

    @property
    def has_baseline(self) -> bool:
        return any(limit.name == TIMES_BASELINE for limit in (*self.fail_when, *self.warn_when))

    @property
    def value_name(self) -> str:
        """What the limits call the one number of a query."""
        names = [limit.name for limit in (*self.fail_when, *self.warn_when) if limit.name != TIMES_BASELINE]
        return names[0] if names else "value"


# -- the rules --------------------------------------------------------------------------------------------------


def settle(model: dict[str, Any], options: Mapping[str, Spec], problems: Problems) -> list[Trigger]:
    """The triggers of a model, with everything that is wrong with them. Presets become triggers like all others, and
    ``watch_phases`` the length of the watch: then the model says itself what it comes to, and is settled once.

    ``options`` are those of the role that documents them.
    """
    if model.get("watch_triggers") is None:
        return []
    spec = options["watch_triggers"]["options"]
    given: list[tuple[str, dict[str, Any]]] = []
    for i, preset in enumerate(model["watch_presets"]):
        path = f"watch_presets[{i}]"
        if preset not in _presets.PRESETS:
            known = ", ".join(_presets.PRESETS)
            problems.say(path, f"{preset!r} is no preset{closest(preset, _presets.PRESETS)}; there are {known}")
        elif preset in model["watch_presets"][:i]:
            problems.say(path, f"{preset} is there twice")
        else:
            for raw in _presets.triggers(preset, model["watch_security_alerts"]):
                given.append((path, check(raw, spec, path, problems)))
    given += [(f"watch_triggers[{i}]", raw) for i, raw in enumerate(model["watch_triggers"])]
    triggers: list[Trigger] = []
    for path, values in given:
        before = len(problems)
        trigger = _trigger(values, path, model, problems)
        if trigger.name in [other.name for other in triggers]:
            problems.say(f"{path}.name", f"{trigger.name} is the name of another trigger")
        if len(problems) == before:
            triggers.append(trigger)
    if model["watch_phases"]:
        model["watch_seconds"] = sum(part["seconds"] for part in model["watch_phases"])
    _whole(model, triggers, problems)
    model.update(watch_triggers=[raw for _path, raw in given], watch_presets=[])
    return triggers


def made(model: Mapping[str, Any]) -> list[Trigger]:
    """The triggers of a model that is settled."""
    return [_trigger(raw, "watch_triggers", model, Problems()) for raw in model.get("watch_triggers") or ()]


def _trigger(raw: Mapping[str, Any], path: str, model: Mapping[str, Any], problems: Problems) -> Trigger:
    metric = raw["metric"]
    if not _NAME.match(raw["name"]):
        text = "must be lower-case letters, digits, hyphens and underscores, a letter first"
        problems.say(f"{path}.name", f"{raw['name']!r} {text}")
    for key, least in SECONDS:
        if raw[key] is not None and raw[key] < least:
            problems.say(f"{path}.{key}", f"must be at least {least:g}, not {raw[key]:g}")
    for key in LIMITS:
        if raw[key] < OFF:
            problems.say(f"{path}.{key}", f"must be at least 0, or -1 for no limit, not {raw[key]}")
    for key in ("consecutive_success_limit", "count", "minimum_samples"):
        if raw[key] is not None and raw[key] < 1:
            problems.say(f"{path}.{key}", f"must be at least 1, not {raw[key]}")
    if raw["count"] is not None and raw["count"] < raw["minimum_samples"]:
        problems.say(f"{path}.count", f"{raw['count']} is less than minimum_samples, {raw['minimum_samples']}")
    if raw["weight"] <= 0:
        problems.say(f"{path}.weight", f"must be more than 0, not {raw['weight']:g}; shadow counts for nothing")
    if raw["shadow"] and raw["key"]:
        problems.say(f"{path}.key", "fails everything, but a shadow only reports; keep one")
    limits = {key: _parsed_limits(raw, key, path, metric, problems) for key in ("fail_when", "warn_when")}
    for key, wanted in (("query", "prometheus"), ("probe", "probe")):
        if raw[key] is not None and metric != wanted:
            problems.say(f"{path}.{key}", f"is for the metric {wanted}, not for {metric}; remove it")
    trigger = Trigger(
        name=raw["name"],
        metric=metric,
        fail_when=limits["fail_when"],
        warn_when=limits["warn_when"],
        policy=Policy(
            **{key: raw[key] for key in (*LIMITS, "consecutive_success_limit", "count")},
            for_seconds=raw["for_seconds"],
            no_data=raw["no_data"],
            minimum_samples=raw["minimum_samples"],
        ),
        interval_seconds=raw["interval_seconds"] or model["watch_interval_seconds"],
        initial_delay_seconds=raw["initial_delay_seconds"],
        query=(raw["query"] or "").strip(),
        probe=raw["probe"],
        baseline_floor=raw["baseline_floor"] or 0.0,
        shadow=raw["shadow"],
        key=raw["key"],
        weight=raw["weight"],
    )
    if metric == "prometheus":
        _asks_prometheus(trigger, path, model, problems)
    if metric == "probe" and raw["probe"] is not None:
        _asks_probe(raw["probe"], f"{path}.probe", problems)
    _baseline(trigger, raw["baseline_floor"], path, problems)
    return trigger


def _parsed_limits(
    raw: Mapping[str, Any], key: str, path: str, metric: str, problems: Problems
) -> tuple[_limits.Limit, ...]:
    known = {"requests": REQUESTS, "probe": PROBE}.get(metric)
    given = raw[key]
    if key == "fail_when" and not given and not raw["warn_when"]:
        if metric == "probe":
            given = {"failed": "> 0"}
        else:
            problems.say(
                f"{path}.{key}", 'is missing; give what is measured and when it is bad, like {p95_ms: "> 500"}'
            )
    return _limits.parse(given, known, f"{path}.{key}", problems) if given else ()


def _asks_prometheus(trigger: Trigger, path: str, model: Mapping[str, Any], problems: Problems) -> None:
    if not trigger.query:
        problems.say(f"{path}.query", "is missing; give a query to Prometheus that gives one number")
    elif len(trigger.query) > QUERY_LIMIT:
        problems.say(
            f"{path}.query", f"has {len(trigger.query)} characters, at most {QUERY_LIMIT}; use a recording rule"
        )
    if not model["watch_prometheus_url"]:
        problems.say("watch_prometheus_url", f"is missing; the trigger {trigger.name} asks Prometheus ({path})")
    names = {limit.name for limit in (*trigger.fail_when, *trigger.warn_when)} - {TIMES_BASELINE}
    if len(names) > 1:
        problems.say(path, f"a query gives one number, but the limits call it {' and '.join(sorted(names))}; keep one")


def _asks_probe(probe: Mapping[str, Any], path: str, problems: Problems) -> None:
    if probe.get("secret_headers"):
        problems.say(f"{path}.secret_headers", "holds secrets and plans are shown; use a path that needs none")
        return
    try:
        _probe.endpoint(probe)
    except RunbookError as error:
        problems.say(path, str(error))


def _baseline(trigger: Trigger, floor: Optional[float], path: str, problems: Problems) -> None:
    if trigger.has_baseline and (floor is None or floor <= 0):
        problems.say(
            f"{path}.baseline_floor",
            "must be more than 0: the least that times_baseline divides by, where it was nothing before",
        )
    elif floor is not None and not trigger.has_baseline:
        problems.say(f"{path}.baseline_floor", "is for a limit of times_baseline, and there is none; remove it")


def _whole(model: Mapping[str, Any], triggers: Sequence[Trigger], problems: Problems) -> None:
    """What concerns the watch, and not one trigger."""
    url = model["watch_prometheus_url"]
    why = _probe.url_fault(url) if url is not None else ""
    if why or (url and "?" in url):
        problems.say("watch_prometheus_url", why or "must be without a query, like http://127.0.0.1:9090")
    if model["watch_prometheus_password"] and not model["watch_prometheus_user"]:
        problems.say("watch_prometheus_user", "is missing; there is a watch_prometheus_password")
    if model["watch_prometheus_user"] and model["watch_prometheus_token"]:
        problems.say("watch_prometheus_user", "is there beside watch_prometheus_token; keep one")
    if not 0 < model["watch_prometheus_timeout_seconds"] <= 60:
        value = model["watch_prometheus_timeout_seconds"]
        problems.say("watch_prometheus_timeout_seconds", f"must be above 0 and at most 60, not {value:g}")
    for key, least in (("watch_extend_seconds", 0), ("watch_progress_seconds", 1)):
        if model[key] < least:
            problems.say(key, f"must be at least {least}, not {model[key]:g}")
    passing, warning = model["watch_pass_percent"], model["watch_warn_percent"]
    for key, value in (("watch_pass_percent", passing), ("watch_warn_percent", warning)):
        if value is not None and not 0 <= value <= 100:
            problems.say(key, f"must be 0 to 100 percent, not {value:g}")
    if warning is not None and (passing is None or warning > passing):
        problems.say("watch_warn_percent", "must come with watch_pass_percent, and not be above it")
    for i, part in enumerate(model["watch_phases"]):
        for key in ("seconds", "progress_seconds"):
            if part[key] < 1:
                problems.say(f"watch_phases[{i}].{key}", f"must be at least 1, not {part[key]:g}")
    if problems or not model["watch_seconds"]:
        return
    if not model["watch_builtin"] and all(trigger.shadow for trigger in triggers):
        problems.say("watch_builtin", "is false and no trigger is there that counts, so nothing would be watched")
    for trigger in triggers:
        if trigger.initial_delay_seconds >= model["watch_seconds"]:
            text = f"of {trigger.name} must be less than watch_seconds, {model['watch_seconds']:g}"
            problems.say("watch_triggers", f"initial_delay_seconds {text}")


def sees_requests(model: Mapping[str, Any]) -> bool:
    """Whether the watch needs the requests of the accounting."""
    return model.get("watch_builtin", True) or any(t["metric"] == "requests" for t in model["watch_triggers"])


def beyond_seconds(model: Mapping[str, Any], triggers: Sequence[Trigger]) -> float:
    """For how long a watch may go on after its window: until what is wrong decides, or there are enough samples."""
    needs, waits = [0.0], []
    if model.get("watch_builtin", True):
        needs.append(((model.get("watch_failure_limit") or 0) + 1) * (model.get("watch_interval_seconds") or 0.0))
        waits.append(model.get("watch_no_data"))
    timeout = model.get("watch_prometheus_timeout_seconds") or 0.0
    for trigger in (trigger for trigger in triggers if not trigger.shadow):
        policy = trigger.policy
        more = max(policy.failure_limit, policy.consecutive_failure_limit, policy.consecutive_error_limit, 0) + 1
        needs.append(policy.for_seconds + more * (trigger.interval_seconds + timeout))
        waits.append(policy.no_data)
    return max(*needs, (model.get("watch_extend_seconds") or 0.0) if "extend" in waits else 0.0)


# -- one measurement --------------------------------------------------------------------------------------------


def of_requests(
    trigger: Trigger, account: Mapping[str, Any], baseline: Optional[float], minimum: int, at_seconds: float
) -> Measurement:
    """The requests of the window; ``baseline`` is their error rate before the traffic moved."""
    if account["sent"] < minimum:
        return Measurement(NO_DATA, at_seconds, f"{account['sent']} requests, {minimum} needed")
    rate = account["error_percent"]
    # Of requests that were all in vain none was fast.
    slowest = {key: math.inf for key in ("p50_ms", "p95_ms", "p99_ms") if account[key] is None}
    measured = {**account, **slowest, TIMES_BASELINE: times(rate, baseline, trigger.baseline_floor)}
    found = assess(measured, trigger.fail_when, trigger.warn_when, at_seconds)
    kinds = ", ".join(f"{number} {kind}" for kind, number in account["failures"].items())
    return found._replace(diagnosis=(f"failed: {kinds}",) if kinds and found.status != NO_DATA else ())


def of_probes(trigger: Trigger, results: Sequence[Any], at_seconds: float) -> Measurement:
    """What the probes said: how many failed, and how long the slowest took."""
    problems = [f"{result.name}: {result.problem}" for result in results if not result.passed]
    measured = {"failed": len(problems), "duration_ms": max(result.duration_ms for result in results)}
    found = assess(measured, trigger.fail_when, trigger.warn_when, at_seconds)
    if not problems:
        return found
    return found._replace(text=f"{found.text}: {problems[0]}", diagnosis=tuple(problems))


def of_prometheus(trigger: Trigger, now: Reading, before: Optional[Reading], at_seconds: float) -> Measurement:
    """What Prometheus said; ``before`` is the baseline, where a limit asks for it. No answer is an error."""
    for reading in (now, before):
        if reading is not None and reading.problem:
            return Measurement(ERROR, at_seconds, reading.problem)
    if now.value is None:
        return Measurement(NO_DATA, at_seconds, now.text)
    baseline = before.value if before is not None else None
    measured = {trigger.value_name: now.value, TIMES_BASELINE: times(now.value, baseline, trigger.baseline_floor)}
    return assess(measured, trigger.fail_when, trigger.warn_when, at_seconds)


def times(value: Optional[float], baseline: Optional[float], floor: float) -> Optional[float]:
    """How many times the baseline; where that was less than the floor, or there was none, the floor stands for it."""
    least = max(baseline or 0.0, floor)
    return value / least if value is not None and least > 0 else None
