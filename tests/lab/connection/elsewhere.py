# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A connection to this machine that Ansible takes for another one: modules are packed, carried there and run there."""

from __future__ import annotations

from ansible.plugins.connection import local

DOCUMENTATION = """
name: elsewhere
short_description: This machine, as if it were another
description:
  - Like P(ansible.builtin.local#connection), under another name.
author: The signalbox.runbook authors
version_added: 0.1.0
extends_documentation_fragment: [connection_pipelining]
"""


class Connection(local.Connection):
    transport = "elsewhere"
