# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: takes_part
short_description: Whether a host takes part in the step that is next
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - False when the step is no longer next, because an earlier one failed.
options:
  _input:
    description: State of the run, as the actions plan and vote return it.
    type: dict
    required: true
  step:
    description: Id of the step.
    type: str
    required: true
  host:
    description: Name of the host.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Do the step
  ansible.builtin.include_tasks: backend.yml
  when: hostvars.localhost.__runbook.state | signalbox.runbook.takes_part(engine_step, inventory_hostname)
"""

RETURN = r"""
_value:
  description: Whether the host takes part.
  type: bool
"""

from typing import Any, Callable

from ansible_collections.signalbox.runbook.plugins.module_utils._engine import takes_part


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"takes_part": takes_part}
