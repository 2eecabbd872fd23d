# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: phase_steps
short_description: The steps that a play of the engine goes through
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Ids of the steps ahead that belong to the given phases, as far as nothing fails.
options:
  _input:
    description: State of the run, as the actions plan and vote return it.
    type: dict
    required: true
  phases:
    description: Names of the phases.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Go through the steps
  ansible.builtin.include_tasks: step.yml
  loop: "{{ hostvars.localhost.__runbook.state | signalbox.runbook.phase_steps(['shift', 'watch']) }}"
"""

RETURN = r"""
_value:
  description: Ids of steps.
  type: list
  elements: str
"""

from typing import Any, Callable

from ansible_collections.signalbox.runbook.plugins.module_utils._engine import phase_steps


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"phase_steps": phase_steps}
