# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: attest
short_description: Record what a person says of a gate
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Attests or approves a gate, or waives one of any kind with a reason. Who says it is the user of the controller or of
    the AWX job.
  - It is kept in the history on the state host, and can't be done while a run holds the lease.
  - This is an action plugin; it runs on the controller, delegated to the state host.
options:
  gate:
    description: Name of the gate, as in C(app_gates).
    type: str
    required: true
  evidence:
    description: What shows it, for example the address of a page or the number of a ticket.
    type: str
    default: ""
  waive:
    description: Whether the gate is waived for this version, so that it does not have to hold.
    type: bool
    default: false
  reason:
    description: Why it is waived.
    type: str
    default: ""
  valid_hours:
    description: How long it holds, in hours. 0 is as long as the gate says, and 24 hours for a waiver.
    type: float
    default: 0
attributes:
  check_mode:
    support: full
    description: Nothing is written.
  diff_mode:
    support: none
    description: A record only comes on top.
"""

EXAMPLES = r"""
- name: Approve
  signalbox.runbook.attest:
    gate: approval
    evidence: https://git.example.com/shop/merge/118
  delegate_to: "{{ groups.state[0] }}"
"""

RETURN = r"""
record:
  description: What was recorded.
  returned: success
  type: dict
"""
