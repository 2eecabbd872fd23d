# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules that are asked in place where their host is this very machine. Private: may change at any time."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.signalbox.runbook.plugins.plugin_utils import _controller as controller

display = Display()


class InPlaceAction(ActionBase):
    """The action of a module with ``ARGUMENTS``, ``REQUIRED_IF`` and ``answer(parameters, check_mode)``.

    Where the host is this machine, under this user, its ``answer`` is asked for in this process. Packing the module and
    starting a Python for it takes half a second there, and brings the code back to where it came from. Elsewhere
    the module is carried there and run, as every module.
    """

    _supports_check_mode = True
    module: ModuleType

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        if not controller.is_here(self):
            return {**result, **self._execute_module(task_vars=task_vars)}
        _validated, given = self.validate_argument_spec(self.module.ARGUMENTS, required_if=self.module.REQUIRED_IF)
        answer = {"failed": False, **self.module.answer(controller.plain(given), self._task.check_mode)}
        answer = json.loads(json.dumps(answer))  # what a module would have sent
        for warning in answer.pop("warnings", ()):
            display.warning(warning)
        return {**result, **answer}
