# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Limits of what is measured: ``{"free_percent": "< 10"}`` says when it is bad. The unit is in the name.

Pure functions, shared by gates, checks and the watch. Private: may change at any time.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Collection, Mapping
from typing import Any, Callable, NamedTuple, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Problems, closest

_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_LIMIT = re.compile(r"\s*(<=|>=|==|!=|<|>)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\Z")


class Limit(NamedTuple):
    name: str
    relation: str
    value: float

    def met(self, measured: float) -> bool:
        return _RELATIONS[self.relation](measured, self.value)

    def __str__(self) -> str:
        return f"{self.name} {self.relation} {self.value:g}"


def parse(given: Any, known: Optional[Collection[str]], path: str, problems: Problems) -> tuple[Limit, ...]:
    """The limits of ``fail_when`` or ``warn_when``; ``known`` are the names that are measured, where that is known."""
    if not isinstance(given, Mapping):
        problems.say(path, 'must be a mapping of what is measured to a limit, for example {free_percent: "< 10"}')
        return ()
    limits = []
    for name, text in given.items():
        if known is not None and name not in known:
            near = closest(str(name), known)
            problems.say(f"{path}.{name}", f"is not measured here{near}; measured are {', '.join(sorted(known))}")
            continue
        match = _LIMIT.match(text) if isinstance(text, str) else None
        value = float(match.group(2)) if match else math.inf
        if not match or not math.isfinite(value):
            problems.say(
                f"{path}.{name}",
                f'{text!r} must be a relation and a number in quotes, for example "< 10"; the unit is in the name',
            )
            continue
        limits.append(Limit(str(name), match.group(1), value))
    return tuple(limits)


def broken(limits: Collection[Limit], measured: Mapping[str, Any]) -> Optional[Limit]:
    """The first limit that is met, so that something is bad. What was not measured meets none: see `missing`."""
    for limit in limits:
        value = number(measured.get(limit.name))
        if value is not None and limit.met(value):
            return limit
    return None


def missing(limits: Collection[Limit], measured: Mapping[str, Any]) -> list[str]:
    """What the limits ask for and nobody measured, or what was measured is no number (NaN is none)."""
    return [limit.name for limit in limits if number(measured.get(limit.name)) is None]


def number(value: Any) -> Optional[float]:
    """As a number, or None: a Boolean is 0 or 1, infinity is a number, NaN and text are none."""
    if isinstance(value, (int, float)):
        return None if math.isnan(value) else float(value)
    return None


def shown(value: float) -> str:
    """A number as people read it: 12.4, 1,234, 0.0031."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"
