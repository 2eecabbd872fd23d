# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In place where that is possible. Documentation: the module of the same name."""

from __future__ import annotations

from ansible_collections.signalbox.runbook.plugins.modules import target_info
from ansible_collections.signalbox.runbook.plugins.plugin_utils._in_place import InPlaceAction


class ActionModule(InPlaceAction):
    module = target_info
