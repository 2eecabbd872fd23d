# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: phase_hosts
short_description: The hosts of a play of the engine
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - The controller and every host that takes part in the given phases. Empty when the next step is of none of them.
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
- name: Stage the release
  hosts: "{{ hostvars.localhost.__runbook.state | signalbox.runbook.phase_hosts(['stage']) }}"
"""

RETURN = r"""
_value:
  description: Names of hosts.
  type: list
  elements: str
"""

from typing import Any, Callable

from ansible_collections.signalbox.runbook.plugins.module_utils._engine import phase_hosts


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"phase_hosts": phase_hosts}
