# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shares of traffic as numbers of replicas. Pure functions.

Private: may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

Weights = Mapping[str, int]


def counts(weights: Weights, total: int) -> dict[str, int]:
    """``total`` replicas by weight, by largest remainder; whoever has a weight has one replica at least, so a share is
    less than one replica off. Of two equal remainders the lower weight gets the replica."""
    given = {slot: weight for slot, weight in weights.items() if weight > 0}
    if total < len(given):
        raise RunbookError(f"replicas: {total} can't be shared by {len(given)} slots; give at least {len(given)}")
    whole = sum(given.values())
    found = {slot: max(1, total * weight // whole) for slot, weight in given.items()}
    lacking = sorted(given, key=lambda slot: (found[slot] - total * given[slot] / whole, given[slot], slot))
    for slot in lacking[: max(0, total - sum(found.values()))]:
        found[slot] += 1
    while sum(found.values()) > total:  # the one replica of a low weight is somebody's
        rich = [slot for slot in found if found[slot] > 1]
        found[max(rich, key=lambda slot: (found[slot] - total * given[slot] / whole, slot))] -= 1
    return found


def percents(members: Mapping[str, int]) -> dict[str, int]:
    """The share of each slot in whole percent, out of how many members it has; together 100."""
    given = {slot: count for slot, count in members.items() if count > 0}
    return counts(given, 100) if given else {}


def off(weights: Weights, total: int) -> float:
    """How many percentage points the shares of ``total`` replicas are away from the weights, at most."""
    given = {slot: weight for slot, weight in weights.items() if weight > 0}
    if total < len(given):
        return 100.0
    whole = sum(given.values())
    return max(abs(100 * count / total - 100 * given[slot] / whole) for slot, count in counts(given, total).items())


def enough(each: Sequence[Weights], total: int, within: float) -> int:
    """The next number of replicas that can express all of these weights; 100 always can."""
    fit = (number for number in range(total, 100) if all(off(weights, number) <= within for weights in each))
    return next(fit, max(total, 100))
