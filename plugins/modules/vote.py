# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vote
short_description: Count the votes on a step and journal them with the next intent
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - A host that failed, is unreachable or gave no answer votes no; one no turns the run back.
  - This is an action plugin; it runs on the controller, delegated to the state host.
options:
  step:
    description: Id of the step that was done. A step that an earlier failure took off the list is passed over.
    type: str
    required: true
attributes:
  check_mode:
    support: none
    description: There are no steps in check mode.
  diff_mode:
    support: none
    description: It changes nothing on targets.
"""

EXAMPLES = r"""
- name: Vote on the step
  signalbox.runbook.vote:
    step: 02-start
  delegate_to: "{{ groups.state[0] }}"
"""

RETURN = r"""
state:
  description: State of the run after the vote.
  returned: success
  type: dict
"""
