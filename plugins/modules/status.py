# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: status
short_description: Say what is live where
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Puts the journal beside what targets and routers said when they were looked at, and names what does not agree.
  - This is an action plugin; it runs on the controller and only reads.
options:
  recent:
    description: Number of runs that are listed.
    type: int
    default: 10
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
"""

EXAMPLES = r"""
- name: Say what is live where
  signalbox.runbook.status:
"""

RETURN = r"""
status:
  description: Live place, slots, weights and answers of the routers, lease, rollback target, runs, problems.
  returned: always
  type: dict
"""
