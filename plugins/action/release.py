# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bring archives and wheels to the target, then run the module there. Documented with the module."""

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.signalbox.runbook.plugins.module_utils._archive import check_file
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.plugin_utils import _controller as controller

MODULE = "signalbox.runbook.release"
UPLOADED = ("archive", "wheel")


class ActionModule(ActionBase):
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)

        def execute(paths: dict[str, str], **more: Any) -> dict[str, Any]:
            arguments = {**args, "services": _with_paths(args.get("services"), paths), **more}
            answer = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
            return {**result, **answer}

        if boolean(args.get("present", False), strict=False):
            answer = execute({})
            if not answer.get("artifacts_needed"):
                return answer
        local = self._local_artifacts(args.get("services"))
        paths = local if self._task.check_mode or controller.is_here(self) else self._upload(local)
        return execute(paths, present=False)

    def _local_artifacts(self, services: Any) -> dict[str, str]:
        """Every archive and wheel as it is written in the task, and the checked file it means."""
        found: dict[str, str] = {}
        for service in services if isinstance(services, list) else []:
            artifact = _artifact(service)
            for key in UPLOADED:
                written = artifact.get(key)
                if not written or not isinstance(written, str):
                    continue
                try:
                    path = os.path.expanduser(written)
                    path = path if os.path.isabs(path) else self._find_needle("files", path)
                    check_file(path, str(artifact.get("sha256") or ""))
                except (AnsibleError, RunbookError) as exc:
                    raise AnsibleActionFail(f"{key} of the service {service.get('name')}: {exc}") from None
                found[written] = path
        return found

    def _upload(self, local: dict[str, str]) -> dict[str, str]:
        """Copy each file into the task's own temporary directory, which ActionBase removes afterwards."""
        if not local:
            return {}
        shell = self._connection._shell
        if shell.tmpdir is None:
            self._make_tmp_path()
        # A directory each: two artifacts may have the same name, and a wheel must keep its own.
        directories = [shell.join_path(shell.tmpdir, f"artifact{index}") for index in range(len(local))]
        command = " ".join(["mkdir", *map(shell.quote, directories)])
        made = self._low_level_execute_command(command, sudoable=False)
        if made["rc"] != 0:
            raise AnsibleActionFail(f"cannot make a directory for the artifacts below {shell.tmpdir}: {made['stderr']}")
        remote: dict[str, str] = {}
        for directory, (written, path) in zip(directories, local.items()):
            remote[written] = self._transfer_file(path, shell.join_path(directory, os.path.basename(path)))
        self._fixup_perms2([shell.tmpdir, *directories, *remote.values()])
        return remote


def _artifact(service: Any) -> dict[str, Any]:
    """The artifact, where it is well-formed; the module says what is wrong with the others."""
    artifact = service.get("artifact") if isinstance(service, dict) else None
    return artifact if isinstance(artifact, dict) else {}


def _with_paths(services: Any, paths: dict[str, str]) -> Any:
    """The services with the paths of their artifacts replaced."""
    if not isinstance(services, list):
        return services
    replaced = []
    for service in services:
        artifact = dict(_artifact(service))
        for key in UPLOADED:
            if isinstance(artifact.get(key), str) and artifact[key] in paths:
                artifact[key] = paths[artifact[key]]
        replaced.append({**service, "artifact": artifact} if artifact else service)
    return replaced
