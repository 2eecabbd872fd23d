# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: watch
short_description: Watch the application after traffic moved
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Measures for a bounded time the requests of the accounting, in a sliding window, and the given probes, and
    whatever the triggers of the policy ask for.
  - Fails when more measurements in a row fail than the policy bears, when a trigger fails, or when there was no data
    but must be.
  - Renews the lease while it lasts.
  - This is an action plugin; it runs on the controller, delegated to the state host.
options:
  seconds:
    description: Length of the watch, in seconds.
    type: float
    required: true
  probes:
    description: Probes as of M(signalbox.runbook.probe_info), asked at every measurement.
    type: list
    elements: dict
    required: true
  accounting:
    description: What the action M(signalbox.runbook.accounting) returned when it was started.
    type: dict
    default: {}
  policy:
    description: The variables of the role C(watch). What is missing has its default.
    type: dict
    required: true
  journal:
    description:
      - The run, fence and ttl_seconds of the lease that is renewed.
      - Its C(store) says where that is, in options of M(signalbox.runbook.journal) or
        M(signalbox.runbook.kubernetes_journal).
      - Without it there is no lease to renew, because no run goes on.
    type: dict
  began:
    description: When the run began, in seconds since 1970, for the lines that show progress.
    type: float
  moved:
    description: When the traffic first moved, in seconds since 1970. What was before that is the baseline.
    type: float
    version_added: 0.1.0
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
"""

EXAMPLES = r"""
- name: Watch
  signalbox.runbook.watch:
    seconds: 300
    probes: [{url: "http://127.0.0.1:8080/version"}]
    policy: "{{ watch_policy }}"
    journal: "{{ watch_lease }}"
  delegate_to: "{{ groups.state[0] }}"
"""

RETURN = r"""
text:
  description: What decided.
  returned: always
  type: str
measurements:
  description: Number of measurements.
  returned: always
  type: int
outcome:
  description: V(passed), V(failed), or V(attention).
  returned: when the watch came to its end
  type: str
  version_added: 0.1.0
trigger:
  description: The trigger that failed; empty when it was none of them.
  returned: always
  type: str
  version_added: 0.1.0
attention:
  description: Whether the end was neither good nor bad, because something was unclear or could not be measured.
  returned: always
  type: bool
  version_added: 0.1.0
series:
  description:
    - What each trigger measured, by its name, as seconds since the watch began, the number, and what it was.
    - Of a long watch not every point. The record keeps it.
  returned: always
  type: dict
  version_added: 0.1.0
"""
