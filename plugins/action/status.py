# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Say what is live where. Documentation: the module of the same name."""

from __future__ import annotations

from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.signalbox.runbook.plugins.module_utils import _status
from ansible_collections.signalbox.runbook.plugins.plugin_utils import _controller as controller


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("recent",))

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        variables: dict[str, Any] = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        seen = controller.plain(variables["hostvars"]["localhost"]["__runbook"])
        hostvars = variables["hostvars"]
        targets = controller.looked_at(hostvars, seen["targets"], "__runbook_target")
        routers = controller.looked_at(hostvars, seen["routers"], "__runbook_router")
        status = _status.overview(targets, routers, seen["journal"], int(self._task.args.get("recent", 10)))
        closing = _status.lines(seen["application"], seen["environment"], status)
        return {**result, "changed": False, "status": status, "closing": closing}
