# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The watch: measurements over a bounded window, and the verdict on them.

Pure functions. Private: may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Policy(NamedTuple):
    seconds: float
    window_seconds: float = 10.0
    error_rate_percent: float = 10.0
    p95_ms: float = 2000.0
    minimum_requests: int = 10
    no_data: str = "fail"
    failure_limit: int = 2


class Measurement(NamedTuple):
    """``word`` is ok, failed or no_data; ``text`` says what was measured and against which limit."""

    word: str
    text: str
    diagnosis: tuple[str, ...] = ()


def measure(account: Mapping[str, Any], problems: Sequence[str], policy: Policy) -> Measurement:
    """One measurement: the requests of the sliding window, and what the probes said."""
    if problems:
        return Measurement("failed", problems[0], tuple(problems))
    sent = account["sent"]
    if sent < policy.minimum_requests:
        return Measurement(
            "no_data", f"{sent} requests in {policy.window_seconds:g} s, {policy.minimum_requests} needed"
        )
    rate, p95 = account["error_percent"], account["p95_ms"]
    text = f"errors {rate:.1f} % (limit {policy.error_rate_percent:g} %)"
    if rate > policy.error_rate_percent:
        kinds = ", ".join(f"{number} {kind}" for kind, number in account["failures"].items())
        return Measurement(
            "failed", f"error rate {rate:.1f} % > {policy.error_rate_percent:g} %", (f"failed: {kinds}",)
        )
    if p95 is not None and p95 > policy.p95_ms:
        return Measurement("failed", f"p95 {p95:.0f} ms > {policy.p95_ms:g} ms")
    return Measurement("ok", text + (f"   p95 {p95:.0f} ms (limit {policy.p95_ms:g} ms)" if p95 is not None else ""))


def verdict(measurements: Sequence[Measurement], elapsed: float, policy: Policy) -> tuple[str, str]:
    """``running``, ``passed`` or ``failed``, and why.

    More failed measurements in a row than ``failure_limit`` end it at once. At the end of the window the last
    measurement must not be a failed one: a watch never passes while something is wrong, it goes on until the row
    is broken or full.
    """
    row = 0
    for measurement in reversed(measurements):
        if measurement.word != "failed":
            break
        row += 1
    if row > policy.failure_limit:
        times = f", {row} times in a row" if row > 1 else ""
        return "failed", f"{measurements[-1].text}{times}"
    if elapsed < policy.seconds or row:
        return "running", ""
    if not any(measurement.word == "ok" for measurement in measurements):
        if policy.no_data == "pass":
            return "passed", "no data, which passes by watch_no_data"
        last = measurements[-1].text if measurements else "nothing was measured"
        return "failed", f"no data: {last}; see accounting_requests_per_second, or set watch_no_data"
    return "passed", next(m.text for m in reversed(measurements) if m.word == "ok")


def progress(elapsed: float, seconds: float, text: str) -> str:
    """One line that says how far the watch is."""
    width = 12
    full = min(width, int(width * elapsed / seconds)) if seconds else width
    return f"{'#' * full}{'-' * (width - full)} {clock(elapsed)} of {clock(seconds)}   {text}"


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:02d}:{rest:02d}"
