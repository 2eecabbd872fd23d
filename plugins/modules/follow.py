# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: follow
short_description: Watch what is live beside any run
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Says what M(signalbox.runbook.watch) takes to watch the release that is live; or, of what that found, how it was.
  - Takes no lease and changes nothing. Where another run changed what is live meanwhile, nothing is said of either.
  - This is an action plugin; it runs on the controller, delegated to the state host.
options:
  watched:
    description: What M(signalbox.runbook.watch) returned. Without it, what is to be watched is returned.
    type: dict
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
"""

EXAMPLES = r"""
- name: Find out what is watched
  signalbox.runbook.follow:
  register: __runbook_followed
  delegate_to: "{{ groups.state[0] }}"
"""

RETURN = r"""
seconds:
  description: Length of the watch, in seconds.
  returned: without O(watched)
  type: float
probes:
  description: Probes that are asked.
  returned: without O(watched)
  type: list
  elements: dict
policy:
  description: The variables of the role C(watch), without its secrets.
  returned: without O(watched)
  type: dict
moved:
  description: When the traffic moved to the release, in seconds since 1970; 0 where that is not known.
  returned: without O(watched)
  type: float
outcome:
  description: V(passed), V(failed) or V(interrupted).
  returned: with O(watched)
  type: str
"""
