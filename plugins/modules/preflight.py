# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Find out who is asked which gates
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Judges the gates that the controller judges, and says which hosts are asked the others.
  - This is an action plugin; it runs on the controller, delegated to the state host.
options:
  phase:
    description: The phase of the checklist whose gates are asked.
    type: str
    default: deploy
    choices: [week, day, hour, deploy, verify]
  mend:
    description: Whether hosts mend what fails by the remedies of the gates, once, and are asked again.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
"""

EXAMPLES = r"""
- name: Judge what people and records say
  signalbox.runbook.preflight:
    phase: day
  register: __runbook_preflight
  delegate_to: "{{ groups.state[0] }}"
"""

RETURN = r"""
hosts:
  description: The hosts that are asked.
  returned: success
  type: list
  elements: str
args:
  description: What each host is asked.
  returned: success
  type: dict
report:
  description: Path of the report on the controller that M(signalbox.runbook.gates) writes.
  returned: success
  type: str
decision:
  description: What M(signalbox.runbook.gates) takes.
  returned: success
  type: dict
"""
