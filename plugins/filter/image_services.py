# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: image_services
short_description: What makes a release of images in Kubernetes, out of app_services
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - The keys of each service that the module M(signalbox.runbook.kubernetes_release) takes to make a release.
  - An image without a tag or digest gets the version as its tag; environment values become strings.
options:
  _input:
    description: The services of the application model.
    type: list
    elements: dict
    required: true
  version:
    description: Version of the release.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Make the release
  signalbox.runbook.kubernetes_release:
    state: staged
    services: "{{ app_services | signalbox.runbook.image_services('1.3.0') }}"
"""

RETURN = r"""
_value:
  description: Services with name, image, command, files, environment and secrets.
  type: list
  elements: dict
"""

from typing import Any, Callable

from ansible_collections.signalbox.runbook.plugins.module_utils._model import image_services
from ansible_collections.signalbox.runbook.plugins.plugin_utils._controller import plain


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"image_services": lambda services, version: image_services(plain(services), str(version))}
