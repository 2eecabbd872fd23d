# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands that end: without a shell, without a terminal, within their time. Private: may change at any time."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Callable, Optional, Union

from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

# (argv, directory, environment, timeout in seconds) -> (exit code, standard output, standard error)
Run = Callable[[Sequence[str], Path, Mapping[str, str], float], tuple[int, str, str]]

# A password in any URL, and the bare token that http hosts accept as a user name: not for messages.
USERINFO = re.compile(r"(https?://|[a-z+]+://[^/@\s:]*:)[^/@\s]+@", re.IGNORECASE)


def run(
    argv: Sequence[str],
    seconds: float,
    cannot: Callable[[OSError], str],
    late: str,
    cwd: Optional[Union[str, Path]] = None,
    env: Optional[Mapping[str, str]] = None,
    keep_open: Collection[int] = (),
) -> tuple[int, str, str]:
    """Run one command; after ``seconds`` it ends with everything it started. Exit code, output and error output.

    ``cannot`` and ``late`` are the sentences for a program that can't be started and one that does not end in time.
    It inherits the file descriptors ``keep_open``.
    """
    try:
        process = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            pass_fds=tuple(keep_open),
        )
    except OSError as error:
        raise RunbookError(cannot(error)) from None
    try:
        out, err = process.communicate(timeout=max(seconds, 0.0))
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the latter under sudo
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=5)
        if isinstance(error, subprocess.TimeoutExpired):
            raise RunbookError(late) from None
        raise
    return process.returncode, out, err


def within(limit: str, keep_open: Callable[[str], Collection[int]] = lambda _program: ()) -> Run:
    """``run`` for commands whose time is bounded by the setting ``limit``; ``keep_open``: for which program which."""

    def bounded(argv: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float) -> tuple[int, str, str]:
        return run(
            argv,
            timeout,
            lambda error: f"cannot run {argv[0]}: {error.strerror}",
            f"{argv[0]} did not end within {limit} and was stopped",
            cwd=cwd,
            env=env,
            keep_open=keep_open(argv[0]),
        )

    return bounded
