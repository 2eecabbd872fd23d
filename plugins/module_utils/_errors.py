# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one exception that modules and action plugins turn into a failure. Private: may change at any time."""

from __future__ import annotations

from typing import Any


class RunbookError(Exception):
    """What is wrong in one sentence; ``details`` become return values beside ``msg``."""

    def __init__(self, msg: str, **details: Any) -> None:
        super().__init__(msg)
        self.details = details
