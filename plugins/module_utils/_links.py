# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``current`` and ``previous`` beside ``releases``: what is live and where a rollback goes, for people and scripts.

Nothing of ours runs through them, because two releases stand at once. Private: may change at any time.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._files import fsync_directory

NAMES = ("current", "previous")
_TARGET = re.compile(r"releases/([A-Za-z0-9][A-Za-z0-9._+-]*)")
_TEMPORARY = re.compile(r"\.(current|previous)\.[0-9a-f]{8}")


def read_links(home: Path) -> dict[str, str]:
    """The release that each link names; empty where there is no link. What is no link of ours is refused."""
    found = {}
    for name in NAMES:
        path = home / name
        if not os.path.lexists(path):
            found[name] = ""
            continue
        if not path.is_symlink():
            raise RunbookError(
                f"{path} is no symbolic link, so it is not replaced: move it away, or set runtime_host_links to false"
            )
        target = _TARGET.fullmatch(os.readlink(path))
        if target is None:
            raise RunbookError(
                f"{path} leads to {os.readlink(path)}, which is no release below {home / 'releases'}, so it is not "
                "replaced: remove it, or set runtime_host_links to false"
            )
        found[name] = target[1]
    return found


def set_links(home: Path, wanted: Mapping[str, str], check: bool = False) -> bool:
    """Let each link name its release (none for an empty one), by one rename each; whether anything had to change.

    Call it under the fence.
    """
    before = read_links(home)
    todo = {name: wanted[name] for name in NAMES if name in wanted and before[name] != wanted[name]}
    for name, release in todo.items():
        if release and not (home / "releases" / release / "manifest.json").is_file():
            raise RunbookError(f"{name} cannot lead to the release {release}, which is not in {home / 'releases'}")
    if check or not todo:
        return bool(todo)
    with contextlib.suppress(FileNotFoundError):
        for left in os.listdir(home):
            if _TEMPORARY.fullmatch(left):
                os.unlink(home / left)
    for name, release in todo.items():
        if release:
            temporary = home / f".{name}.{secrets.token_hex(4)}"
            os.symlink(f"releases/{release}", temporary)
            os.replace(temporary, home / name)
        else:
            os.unlink(home / name)
    fsync_directory(home)
    return True
