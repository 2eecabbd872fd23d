# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every router shares: the members of an upstream, weights per slot, and the answers that prove a shift.

Private: may change at any time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

# confirm(deadline in seconds; 0 = one try) -> results of probes asked through the router
Confirm = Callable[[float], Sequence[Mapping[str, Any]]]

UPSTREAM_OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "members": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "slot": {"type": "str", "required": True},
            "weight": {"type": "int", "required": True},
        },
    },
}


@dataclass(frozen=True)
class Member:
    """One process of one slot; weight 0 keeps it at the router but without traffic."""

    address: str
    port: int
    slot: str
    weight: int

    def __post_init__(self) -> None:
        # Routers take this as configuration or as commands: nothing may end a directive or begin another.
        if not re.fullmatch(r"[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", self.address):
            raise RunbookError(f"members: address must be a host name or an IP address, not {self.address!r}")
        if not 1 <= self.port <= 65535:
            raise RunbookError(f"members: port must be 1..65535, not {self.port}")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.slot):
            raise RunbookError(f"members: slot must consist of letters, digits, _ and -, not {self.slot!r}")
        if not 0 <= self.weight <= 65535:
            raise RunbookError(f"members: weight must be 0..65535, not {self.weight}")

    @property
    def server(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Upstream:
    """What the user's configuration of the router sends the requests of one service to."""

    name: str
    members: tuple[Member, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", self.name):
            raise RunbookError(f"upstreams: name must consist of letters, digits, . _ and -, not {self.name!r}")
        slots: dict[str, str] = {}
        for member in self.members:
            if member.server in slots:
                raise RunbookError(
                    f"upstreams: {self.name} has {member.server} twice (slots {slots[member.server]} and "
                    f"{member.slot}); every member needs an address and port of its own"
                )
            slots[member.server] = member.slot


def upstreams_from(raw: Sequence[Mapping[str, Any]]) -> list[Upstream]:
    """Upstreams from plain data, for example module options."""
    found = [
        Upstream(
            str(one["name"]),
            tuple(
                Member(str(m["address"]).strip("[]"), int(m["port"]), str(m["slot"]), int(m["weight"]))
                for m in one.get("members") or ()
            ),
        )
        for one in raw
    ]
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise RunbookError(f"upstreams: {name} is given twice; give all its members in one entry")
    return found


def weights(upstreams: Sequence[Upstream]) -> dict[str, int]:
    """Weight per slot: the highest of its members, so one drained member does not hide a slot that is live."""
    found: dict[str, int] = {}
    for upstream in upstreams:
        for member in upstream.members:
            found[member.slot] = max(found.get(member.slot, 0), member.weight)
    return dict(sorted(found.items()))


def below(upstreams: Sequence[Upstream]) -> list[str]:
    """Members that get less than others of their slot, as in the middle of a rolling deploy. At rest there are none."""
    most = weights(upstreams)
    return [f"{one.name} {m.server}" for one in upstreams for m in one.members if m.weight < most[m.slot]]


def failed(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [result for result in results if not result["passed"]]


def explained(results: Sequence[Mapping[str, Any]]) -> str:
    """The first failures, each with its likely fix."""
    lines = []
    for one in failed(results)[:3]:
        fix = f" ({one['fix']})" if one.get("fix") else ""
        lines.append(f"{one.get('name') or one.get('target')}: {one['problem']}{fix}")
    return "; ".join(lines)
