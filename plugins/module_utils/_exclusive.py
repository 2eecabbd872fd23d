# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Services that may run in one slot only, as slots tell of them. Private: may change at any time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def split_states(declared: Sequence[Mapping[str, Any]], runs: Mapping[str, bool]) -> tuple[bool, dict[str, bool]]:
    """Whether the services that a slot holds run, and which of those that may run in one slot only do."""
    exclusive = {one["name"] for one in declared if one.get("exclusive")}
    others = [runs[name] for name in runs if name not in exclusive]
    return bool(others) and all(others), {name: runs.get(name, False) for name in sorted(exclusive)} if runs else {}
