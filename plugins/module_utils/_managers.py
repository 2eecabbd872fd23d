# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The process managers of a host, out of the options of a module. Private: may change at any time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._slot import Manager
from ansible_collections.signalbox.runbook.plugins.module_utils._supervisor import Supervisor
from ansible_collections.signalbox.runbook.plugins.module_utils._systemd import UNIT_DIR, Systemd

MANAGER_OPTIONS: dict[str, Any] = {
    "manager": {"type": "str", "default": "supervisor", "choices": ["supervisor", "systemd"]},
    "supervisor_socket": {"type": "path"},
    "supervisor_conf_dir": {"type": "path"},
    "systemd_unit_dir": {"type": "path", "default": UNIT_DIR},
    "stable_seconds": {"type": "float", "default": 3},
}
MANAGER_REQUIRED = ("manager", "supervisor", ("supervisor_socket", "supervisor_conf_dir"))


def manager_of(params: Mapping[str, Any]) -> Manager:
    if params["manager"] == "supervisor":
        return Supervisor(params["supervisor_socket"])
    seconds = params["stable_seconds"]
    if not 0 <= seconds <= 600:
        raise RunbookError(f"stable_seconds {seconds:g} must be from 0 to 600 seconds")
    return Systemd(params["systemd_unit_dir"], seconds)


def conf_dir_of(params: Mapping[str, Any]) -> str:
    """Where the manager reads its files from."""
    return str(params["supervisor_conf_dir" if params["manager"] == "supervisor" else "systemd_unit_dir"])


def manager_state(manager: Manager, conf_dir: str) -> dict[str, Any]:
    """Whether the manager answers, and would take what is written for it."""
    told = {"name": manager.kind, "ok": False, "version": "", "problem": ""}
    try:
        told["version"] = manager.version()
    except RunbookError as error:
        return {**told, "problem": str(error)}
    if os.path.isdir(conf_dir) and os.access(conf_dir, os.W_OK):
        return {**told, "ok": True}
    if manager.kind == "supervisor":
        return {**told, "problem": f"supervisor_conf_dir {conf_dir} is no directory that this user may write to"}
    cure = "set ansible_become or connect as root" if os.geteuid() else "create it, and remount it if it is read-only"
    return {
        **told,
        "problem": f"{conf_dir}, where units are written to, is no directory that this user may write to: {cure}",
    }
