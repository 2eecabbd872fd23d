# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a command costs."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / "tests" / part) for part in ("lab", "chaos")]

from chaos import kill_all

LIMIT_SECONDS = 300.0


class Cost(NamedTuple):
    wall: float
    cpu: float
    megabytes: float


def measured(
    command: list[str], environment: Mapping[str, str], kill_after: float = LIMIT_SECONDS
) -> tuple[Cost, int, str]:
    """Run a command to its end, or kill it with all that it started; its cost, exit code and output."""
    peak = 0

    def watch(pid: int) -> None:
        # The high-water mark only grows, so the last reading before the end is the peak.
        nonlocal peak
        with contextlib.suppress(OSError):
            while True:
                status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
                if "VmHWM:" not in status:
                    return
                peak = int(status.partition("VmHWM:")[2].split()[0])
                time.sleep(0.02)

    began = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            command, cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True
        )
        watcher = threading.Thread(target=watch, args=(process.pid,), daemon=True)
        watcher.start()
        alarm = threading.Timer(kill_after, kill_all, [process])
        alarm.start()
        try:
            _pid, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            kill_all(process)
            raise
        finally:
            alarm.cancel()
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        watcher.join()
        log.seek(0)
        output = log.read()
    return Cost(wall, usage.ru_utime + usage.ru_stime, peak / 1024), process.returncode, output


def median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(column) for column in zip(*costs)))


def say(text: str) -> None:
    print(text, flush=True)
