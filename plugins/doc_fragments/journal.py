# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What both modules of a journal take; the options are _journal.OPTIONS."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  state:
    description:
      - V(read) only reads, once no other run holds the lease or O(wait_seconds) are over.
      - V(opened) takes the lease, begins a run and appends O(events).
      - It fails, naming holder, reason and since when, while another run holds the lease.
      - V(written) appends O(events) and renews the lease. It fails when the lease was taken over.
      - V(renewed) only renews the lease.
      - V(closed) appends O(events), adds O(record) to the history and releases the lease.
      - V(noted) adds O(record), the statement of a person, to the history while nobody holds the lease.
    type: str
    required: true
    choices: [read, opened, written, renewed, closed, noted]
  wait_seconds:
    description: How long V(read) waits for another run's lease to end, in seconds.
    type: float
    default: 0
  recent:
    description:
      - Number of latest records that V(read) returns whole.
      - Older ones have only what choosing a release needs.
    type: int
    default: 20
  ttl_seconds:
    description: Time after which the lease ends unless renewed, in seconds.
    type: float
    default: 60
  run:
    description: Number of the run, as V(opened) returned it.
    type: int
    default: 0
  fence:
    description: Fencing number of the run, as V(opened) returned it.
    type: int
    default: 0
  holder:
    description: Who runs it. Kept in the lease.
    type: dict
    default: {}
  reason:
    description: Why it is run. Kept in the lease.
    type: str
    default: ""
  basis:
    description: Fencing number that the plan was made from. When another run came between, the run is refused.
    type: int
    default: 0
  dead_fence:
    description: Fencing number of a lease whose holder is known to be dead. It is taken over at once.
    type: int
    default: 0
  plan:
    description: What the run will do. Kept with the run.
    type: dict
    default: {}
  settled:
    description: Records of runs that did not end and that this run settles.
    type: list
    elements: dict
    default: []
  events:
    description: Intents and results.
    type: list
    elements: dict
    default: []
  record:
    description: The deployment record.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Nothing is written. RV(run) and RV(fence) are those that were given.
  diff_mode:
    support: none
    description: A journal only grows.
"""
