# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gates
short_description: Decide on all gates
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Puts together what hosts answered, what people have said and what the records say.
  - Fails unless every blocking gate holds or was waived.
  - This is an action plugin; it runs on the controller.
options:
  judged:
    description: Results of the gates that were judged when the plan was made.
    type: list
    elements: dict
    required: true
  described:
    description: By name of a gate its kind, C(blocking), C(weight) and C(on_failure), in the order of the gates.
    type: dict
    required: true
  asked:
    description: By host the names of the gates that it was asked.
    type: dict
    required: true
  notes:
    description: Waivers that hold.
    type: list
    elements: dict
    required: true
  version:
    description: The version that the decision is about.
    type: str
    required: true
  now:
    description: When it is decided, in seconds since 1970.
    type: float
    required: true
  report:
    description:
      - Path on the controller that the decision is written to as JSON.
      - The table is then printed as the end of the play.
      - Where it is empty, the decision is part of a run and of its record.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: It only decides.
  diff_mode:
    support: none
    description: It only decides.
"""

EXAMPLES = r"""
- name: Decide
  signalbox.runbook.gates:
    judged: "{{ engine_args.judged }}"
    described: "{{ engine_args.described }}"
    asked: "{{ engine_args.asked }}"
    notes: "{{ engine_args.notes }}"
    version: "{{ engine_args.version }}"
    now: "{{ engine_args.now }}"
"""

RETURN = r"""
decision:
  description: V(PROCEED), V(REMEDIATE) or V(BLOCK).
  returned: always
  type: str
score_percent:
  description: Mean of the gates that had to hold, by their weights, in percent. The decision never depends on it.
  returned: always
  type: float
table:
  description: All results, for people.
  returned: always
  type: list
  elements: str
"""
