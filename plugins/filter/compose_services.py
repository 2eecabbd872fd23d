# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: compose_services
short_description: What makes a release of Docker Compose, out of app_services
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - The keys of each service that the module M(signalbox.runbook.compose_project) takes to make a release.
  - Environment values become strings.
options:
  _input:
    description: The services of the application model.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Make the release
  signalbox.runbook.compose_project:
    services: "{{ app_services | signalbox.runbook.compose_services }}"
"""

RETURN = r"""
_value:
  description: Services with name, image, container_port, environment and secrets.
  type: list
  elements: dict
"""

from typing import Any, Callable

from ansible_collections.signalbox.runbook.plugins.module_utils._model import compose_services
from ansible_collections.signalbox.runbook.plugins.plugin_utils._controller import plain


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"compose_services": lambda services: compose_services(plain(services))}
