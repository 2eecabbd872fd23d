# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fencing on the host that is changed: one change at a time, and none by a run whose lease was taken over.

Private: may change at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._files import write_atomic


def read_fence(home: Path) -> int:
    """The highest fencing number this host has seen; 0 before the first."""
    try:
        text = (home / "fence").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return 0
    return int(text) if text.isdigit() else 0


@contextlib.contextmanager
def fenced(
    home: Path,
    number: int,
    wait_seconds: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[int]:
    """Hold the host's lock for one change made under fencing number ``number``.

    Gives the lock's file descriptor, for processes that are to hold it as long as they live. The kernel releases the
    lock when the process ends, however it ends. A number lower than the highest seen
    belongs to a run that lost its lease: refused.
    """
    home.mkdir(parents=True, exist_ok=True)
    fd = os.open(home / "fence.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = clock() + wait_seconds
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock() >= deadline:
                    raise RunbookError(
                        f"another change of {home} has been going on for more than {wait_seconds:g} s; "
                        "this one was not started"
                    ) from None
                sleep(0.05)
        seen = read_fence(home)
        if number < seen:
            raise RunbookError(
                f"fencing number {number} is older than {seen}: this run lost its lease to a newer one and must "
                "not change anything any more",
                fenced=True,
            )
        if number > seen:
            write_atomic(home / "fence", f"{number}\n", 0o600)
        yield fd
    finally:
        os.close(fd)
