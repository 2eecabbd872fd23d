# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model
short_description: Check the application model and read the journal
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Checks the model of every host of the groups C(targets), C(routers) and C(state), and lists all that is wrong.
  - Delegated to the state host, it reads the journal there, and fails when another run holds the lease.
  - This is an action plugin; it runs on the controller.
options:
  verb:
    description: What is going to be done.
    type: str
    required: true
    choices: [deploy, rollback, status]
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
"""

EXAMPLES = r"""
- name: Check the model
  signalbox.runbook.model:
    verb: deploy
  delegate_to: "{{ groups.state[0] }}"
"""

RETURN = r"""
journal:
  description: What M(signalbox.runbook.journal) says when it is read.
  returned: success
  type: dict
problems:
  description: All that is wrong with the model, one sentence each.
  returned: when the model is wrong
  type: list
  elements: str
"""
