# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program that runs containers; the option is _container.COMMAND_OPTION."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  container_command:
    description:
      - Words that run the command line of the Docker Engine, or of another one with the same words, for services that
        are containers.
      - The environment of the service reaches the container through it, so V(sudo) is refused.
    type: list
    elements: str
    default: [docker]
"""
