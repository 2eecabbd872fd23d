# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: gate_checks
short_description: The gates of these names, as the checks that they are
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Leaves out what only the decision needs, so that the module M(signalbox.runbook.check_info) takes them.
options:
  _input:
    description: The gates of the application model.
    type: list
    elements: dict
    required: true
  names:
    description: Names of those that are asked.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Ask
  signalbox.runbook.check_info:
    checks: "{{ app_gates | signalbox.runbook.gate_checks(['disk', 'certificate']) }}"
"""

RETURN = r"""
_value:
  description: Checks, in the order of the gates.
  type: list
  elements: dict
"""

from typing import Any, Callable

from ansible_collections.signalbox.runbook.plugins.module_utils._gates import bare
from ansible_collections.signalbox.runbook.plugins.plugin_utils._controller import plain


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"gate_checks": lambda gates, names: [bare(gate) for gate in plain(gates) if gate["name"] in names]}
