# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Make the plan of a run and take the lease
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Compares the model with the journal and with what is really serving, and makes the plan from it.
  - Unless in check mode or nothing is to be done, takes the lease and journals the first intent.
  - This is an action plugin; it runs on the controller, delegated to the state host.
options:
  verb:
    description: What is going to be done.
    type: str
    required: true
    choices: [deploy, rollback]
  to:
    description: Where a rollback goes, V(previous), a version or a release id.
    type: str
    default: previous
attributes:
  check_mode:
    support: full
    description: It ends after the plan.
  diff_mode:
    support: full
    description: Shows what is live before and after.
"""

EXAMPLES = r"""
- name: Plan and take the lease
  signalbox.runbook.plan:
    verb: deploy
  delegate_to: "{{ groups.state[0] }}"
"""

RETURN = r"""
state:
  description: State of the run, with the plan and the step that is next.
  returned: success
  type: dict
predicted:
  description: Release, version and slot that will be live.
  returned: in check mode, or when there is nothing to do
  type: dict
"""
