# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: conclude
short_description: End a run, with its record, its lease and its reports
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Writes the deployment record, releases the lease and writes the report as JSON and HTML on the controller.
  - Fails when the run did not end as planned, after all that is done.
  - This is an action plugin; it runs on the controller, delegated to the state host.
options:
  accounting:
    description: What the action M(signalbox.runbook.accounting) returned when it was started.
    type: dict
    default: {}
  measured:
    description: What the action M(signalbox.runbook.accounting) returned when it was stopped.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Does nothing.
  diff_mode:
    support: none
    description: It changes nothing on targets.
"""

EXAMPLES = r"""
- name: Record and report
  signalbox.runbook.conclude:
    measured: "{{ requests }}"
  delegate_to: "{{ groups.state[0] }}"
"""

RETURN = r"""
outcome:
  description:
    - V(deployed) or V(restored), the release is live and verified.
    - V(failed), it never took traffic. V(rolled_back), it did and was taken back.
    - V(revert_failed), the way back failed. V(stopped), another run took the lease over.
  returned: when the run had something to do
  type: str
report:
  description: The report, as in the JSON file.
  returned: when the run had something to do
  type: dict
"""
