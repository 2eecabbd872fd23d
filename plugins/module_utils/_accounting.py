# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the requests that went on during a change were answered: numbers from the prober's samples.

Private: may change at any time.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional
from urllib.parse import urlsplit

from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError


class Sample(NamedTuple):
    """One request, in the order of the prober's lines; times count from the accounting's ``started_at``."""

    start_s: float
    duration_ms: float
    ok: bool
    kind: str
    version: Optional[str]
    reused: bool
    cut: bool

    @property
    def end_s(self) -> float:
        return self.start_s + self.duration_ms / 1000


def read_samples(text: str, offset: int = 0) -> tuple[list[Sample], int]:
    """The samples of the whole lines from ``offset`` on, and the offset to go on from.

    A line without its end is being written right now, or never will be: it is left for the next call.
    The prober writes ASCII, so offsets are the same in characters and in bytes.
    """
    end = text.rfind("\n", offset) + 1
    if end <= offset:
        return [], offset
    samples = []
    for line in text[offset:end].splitlines():
        try:
            start_s, duration_ms, ok, kind, version, reused, cut = json.loads(line)
            samples.append(Sample(float(start_s), float(duration_ms), bool(ok), kind, version, bool(reused), bool(cut)))
        except (ValueError, TypeError):
            raise RunbookError(f"not a line of request samples: {line[:80]!r}") from None
    return samples, end


def longest_gap_ms(
    samples: Iterable[Sample], from_s: Optional[float] = None, to_s: Optional[float] = None
) -> Optional[float]:
    """The longest time without a good answer while asking went on; None if nothing was asked.

    The ends count: from the first request (or ``from_s``) to the first good answer, and from the last good answer
    to the end of the last request (or ``to_s``).
    """
    asked = list(samples)
    if not asked:
        return None
    begin = min(sample.start_s for sample in asked) if from_s is None else from_s
    end = max(sample.end_s for sample in asked) if to_s is None else to_s
    marks = [begin, *sorted(sample.end_s for sample in asked if sample.ok), end]
    return round(max(0.0, *(after - before for before, after in zip(marks, marks[1:]))) * 1000, 1)


def percentile(values: Sequence[float], percent: float) -> Optional[float]:
    """Nearest rank: a value that was really measured; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def summary(samples: Iterable[Sample]) -> dict[str, Any]:
    """The account. Latencies and versions are those of good answers. Nothing asked: sent 0, and None for the rest."""
    return _summary(list(samples), None, None)


def window(samples: Iterable[Sample], from_s: float, to_s: float) -> dict[str, Any]:
    """The account of the requests that ended in [from_s, to_s), with ``error_percent`` (None if there were none).

    The end counts because only then anyone knows how it went: a window that has passed does not change any more.
    """
    known = list(samples)
    inside = [sample for sample in known if from_s <= sample.end_s < to_s]
    if known:  # no gap is counted from before the asking began or after it ended
        from_s = max(from_s, min(sample.start_s for sample in known))
        to_s = min(to_s, max(sample.end_s for sample in known))
    account = _summary(inside, from_s, to_s)
    sent = account["sent"]
    return {**account, "error_percent": round(100 * account["failed"] / sent, 3) if sent else None}


def _summary(asked: Sequence[Sample], from_s: Optional[float], to_s: Optional[float]) -> dict[str, Any]:
    good = [sample for sample in asked if sample.ok]
    latencies = [sample.duration_ms for sample in good]
    starts = [sample.start_s for sample in asked]
    span = max(starts) - min(starts) if starts else 0.0
    return {
        "sent": len(asked),
        "failed": len(asked) - len(good),
        "longest_gap_ms": longest_gap_ms(asked, from_s, to_s),
        "connections_cut": sum(sample.cut for sample in asked),
        "by_version": dict(sorted(Counter(sample.version for sample in good if sample.version is not None).items())),
        "failures": dict(sorted(Counter(sample.kind for sample in asked if not sample.ok).items())),
        "p50_ms": percentile(latencies, 50),
        "p95_ms": percentile(latencies, 95),
        "p99_ms": percentile(latencies, 99),
        "rate": round((len(asked) - 1) / span, 1) if span > 0 else None,
    }


def prober_config(
    url: str,
    headers: Optional[Mapping[str, Any]] = None,
    requests_per_second: float = 50.0,
    connections: int = 8,
    keep_alive: str = "both",
    version_path: str = "",
    max_requests: int = 100000,
    max_seconds: float = 3600.0,
    timeout_seconds: float = 5.0,
    validate_certs: bool = True,
) -> dict[str, Any]:
    """What the prober is told to do, checked; who starts it adds where, since when, and whose end is its own."""
    numbers = {
        "requests_per_second": requests_per_second,
        "connections": connections,
        "max_requests": max_requests,
        "max_seconds": max_seconds,
        "timeout_seconds": timeout_seconds,
    }
    for key, number in numbers.items():
        if not (math.isfinite(number) and number > 0):
            raise RunbookError(f"{key} is {number}: it must be a number greater than 0")
    if keep_alive not in ("true", "false", "both"):
        raise RunbookError(f"keep_alive is {keep_alive!r}: it must be true, false or both")
    if keep_alive == "both" and connections < 2:
        raise RunbookError("connections is 1: keep_alive both needs at least 2, one of each kind")
    _check_url(url)
    checked = {str(name): str(value) for name, value in (headers or {}).items()}
    for name, value in checked.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise RunbookError(f"headers has the name {name!r}: it must be a token of HTTP (letters, digits, hyphens)")
        if re.search(r"[\r\n\x00]", value):
            raise RunbookError(f"headers has a line break or NUL in the value of {name}: it must be one line")
    return {
        **numbers,
        "url": url,
        "headers": checked,
        "keep_alive": keep_alive,
        "version_path": [key for key in version_path.lstrip("$").split(".") if key],
        "validate_certs": bool(validate_certs),
    }


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise RunbookError("url is not usable: it must be like http://host:port/path or https://host/path")
    if parts.username is not None:
        raise RunbookError("url holds a user name: credentials must be given in headers, url appears in logs")
    if not re.fullmatch(r"[!-~]+", url):
        raise RunbookError("url has a space or a character outside ASCII: it must be percent-encoded")
