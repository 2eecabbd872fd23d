# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The faults a demo release can have. Standard library only: the build checks them without the app's packages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Faults:
    """All off by default. Traffic faults hit ``/`` only, so that the operational endpoints go on telling the truth."""

    fail_to_start: bool = False
    never_ready: bool = False  # /health and /ready answer 503 for ever
    wrong_version: str = ""  # what the app says it is, whatever was built
    errors_percent: float = 0.0  # of the requests to /, spread evenly: the same run fails the same requests
    slow_ms: float = 0.0
    after_seconds: float = 0.0  # the two above begin this long after the first request to /
    leak_mb_per_second: float = 0.0
    crash_after_seconds: float = 0.0  # after the start of the process


def parse(raw: Mapping[str, Any]) -> Faults:
    """Checked faults; ValueError says which key is wrong and what would be right."""
    known = {item.name: type(item.default) for item in fields(Faults)}
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            raise ValueError(f"fault {key} is unknown; known are {', '.join(sorted(known))}")
        kind = known[key]
        if kind is bool and not isinstance(value, bool):
            raise ValueError(f"fault {key} must be true or false, not {value!r}")
        if kind is float:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                raise ValueError(f"fault {key} must be a number from 0 up, not {value!r}")
            if key == "errors_percent" and value > 100:
                raise ValueError(f"fault {key} must be at most 100, not {value!r}")
        values[key] = kind(value)
    return Faults(**values)
