# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a module ends that has an ``answer``: the same answer is asked for without a module where its host is the
controller. Private: may change at any time.
"""

from __future__ import annotations

from typing import Any


def refusal(msg: str, **details: Any) -> dict[str, Any]:
    return {"failed": True, "msg": msg, **details}


def give(module: Any, answer: dict[str, Any]) -> None:
    """End an AnsibleModule with an answer: its warnings first, then as a failure or a success."""
    for warning in answer.pop("warnings", ()):
        module.warn(warning)
    if answer.pop("failed", False):
        module.fail_json(**answer)
    module.exit_json(**answer)
