# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of a run: JSON for programs, one self-contained HTML page for people. Private: may change at any time."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils._accounting import Sample, percentile

Report = Mapping[str, Any]
Bucket = Mapping[str, Any]

# Class and sign of an outcome: colour is never the only difference.
KINDS = (
    ("good", "✓", ("deployed", "restored", "unchanged", "pruned", "done", "ok")),
    ("back", "↩", ("rolled_back", "reverted", "skipped", "interrupted", "blocked")),
    ("bad", "✗", ("failed", "stopped", "revert_failed", "error", "fenced")),
)

# Drawing units of the time axis; the picture scales to the width of the page.
WIDTH = 1000
LEFT = 150
RIGHT = 14
ROW = 24
LOAD = 120
LATENCY = 56
COLUMNS = 240
COLOURS = 6


def series(samples: Iterable[Sample], offset_s: float = 0.0) -> list[dict[str, Any]]:
    """What became of the requests of each second, seconds without any included.

    ``offset_s``: how long after the run the accounting was started; ``t`` counts from the start of the run.
    """
    seconds: defaultdict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        seconds[math.floor(sample.start_s + offset_s)].append(sample)
    if not seconds:
        return []
    return [_bucket(second, seconds.get(second, [])) for second in range(min(seconds), max(seconds) + 1)]


def _bucket(second: int, samples: Sequence[Sample]) -> dict[str, Any]:
    good = [sample for sample in samples if sample.ok]
    return {
        "t": second,
        "sent": len(samples),
        "failed": len(samples) - len(good),
        "p95_ms": percentile([sample.duration_ms for sample in good], 95),
        "versions": dict(sorted(Counter(sample.version for sample in good if sample.version is not None).items())),
    }


def to_json(reports: Sequence[Report]) -> str:
    return json.dumps(list(reports), indent=1, sort_keys=True) + "\n"


def page(reports: Sequence[Report]) -> str:
    """One HTML page without scripts and without anything from elsewhere."""
    title = f"Runbook report: {_title(reports[0])}" if len(reports) == 1 else "Runbook report"
    body = [_index(reports)] if len(reports) > 1 else []
    body += [_run(report) for report in reports]
    if not reports:
        body.append("<p>No run yet.</p>")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _text(value: Any) -> str:
    """Anything as HTML text: colours of terminals removed, other control characters made visible."""
    plain = re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", str(value))
    return escape(re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", plain))


def _words(name: Any) -> str:
    return str(name or "").replace("_", " ")


def _version(place: Any) -> str:
    if isinstance(place, Mapping):
        return str(place.get("version") or place.get("release") or "")
    return str(place or "")


def _change(report: Report) -> str:
    before, after = _version(report.get("from")), _version(report.get("to") or report.get("version"))
    return f"{before or 'nothing'} → {after}" if after else before


def _title(report: Report) -> str:
    where = " in ".join(str(report[key]) for key in ("application", "environment") if report.get(key))
    return f"{_words(report.get('verb'))} {where}: {_change(report)}"


def _kind(outcome: Any) -> tuple[str, str]:
    for kind, sign, outcomes in KINDS:
        if outcome in outcomes:
            return kind, sign
    return "plain", "•"


def _badge(outcome: Any) -> str:
    kind, sign = _kind(outcome)
    return f'<span class="badge {kind}"><span aria-hidden="true">{sign}</span> {_text(_words(outcome))}</span>'


def _number(value: Any, unit: str = "") -> str:
    if value is None:
        return "–"
    if isinstance(value, (int, float)):
        value = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.1f}"
    return _text(value) + (f'<span class="unit"> {unit}</span>' if unit else "")


def _table(heads: Iterable[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in heads)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _index(reports: Sequence[Report]) -> str:
    rows = (
        f'<td><a href="#run-{_text(report.get("run", ""))}">{_text(report.get("run", ""))}</a></td>'
        f"<td>{_text(_words(report.get('verb')))}</td><td>{_text(report.get('application', ''))}</td>"
        f"<td>{_text(report.get('environment', ''))}</td><td>{_text(_change(report))}</td>"
        f"<td>{_badge(report.get('outcome'))}</td><td>{_text(report.get('started_at', ''))}</td>"
        f'<td class="n">{_number(report.get("duration_s"), "s")}</td>'
        for report in reports
    )
    heads = ("Run", "Verb", "Application", "Environment", "Change", "Outcome", "Started", "Duration")
    return f"<section><h1>Runs</h1>{_table(heads, rows)}</section>"


def _run(report: Report) -> str:
    run = _text(report.get("run", ""))
    context = " · ".join(
        _text(part)
        for part in (
            f"run {report['run']}" if report.get("run") not in (None, "") else "",
            _words(report.get("verb")),
            report.get("application"),
            report.get("environment"),
        )
        if part
    )
    times = " to ".join(_text(report[key]) for key in ("started_at", "ended_at") if report.get(key))
    reason = "".join(
        f'<p class="reason{style}">{_text(report[key])}</p>'
        for key, style in (("reason", ""), ("failure", " problem"), ("stopped", " problem"), ("tidy_problem", ""))
        if report.get(key)
    )
    return "\n".join(
        part
        for part in (
            f'<section class="run" id="run-{run}">',
            f'<header><p class="context">{context}</p><div class="head"><h1>{_text(_change(report))}</h1>'
            f'{_badge(report.get("outcome"))}</div>{reason}<p class="times">{times}</p></header>',
            _tiles(report),
            _timeline(report),
            _requests(report.get("requests")),
            _targets(report.get("targets")),
            _lines("Diagnosis", report.get("diagnosis")),
            _log(report.get("log")),
            "</section>",
        )
        if part
    )


def _tiles(report: Report) -> str:
    """The few numbers that are asked for first."""
    tiles = [("Duration", _number(report.get("duration_s"), "s"), "")]
    requests = report.get("requests")
    if requests:
        failed, cut = requests.get("failed"), requests.get("connections_cut")
        tiles += [
            ("Requests", _number(requests.get("sent")), ""),
            ("Failed", _number(failed), "bad" if failed else "good"),
            ("Longest gap", _number(requests.get("longest_gap_ms"), "ms"), ""),
            ("Connections cut", _number(cut), "bad" if cut else "good"),
        ]
    cells = "".join(f'<div class="tile {kind}"><dt>{name}</dt><dd>{value}</dd></div>' for name, value, kind in tiles)
    missing = "" if requests else '<p class="note">Requests were not counted during this run.</p>'
    return f'<dl class="tiles">{cells}</dl>{missing}'


def _requests(requests: Optional[Mapping[str, Any]]) -> str:
    if not requests:
        return ""
    rows = [
        ("Rate", _number(requests.get("rate"), "per second")),
        ("Median answer", _number(requests.get("p50_ms"), "ms")),
        ("95th percentile", _number(requests.get("p95_ms"), "ms")),
        ("99th percentile", _number(requests.get("p99_ms"), "ms")),
    ]
    rows += [(f"Answered by {_text(name)}", _number(n)) for name, n in (requests.get("by_version") or {}).items()]
    rows += [(f"Failed: {_text(_words(kind))}", _number(n)) for kind, n in (requests.get("failures") or {}).items()]
    body = "".join(f'<tr><th scope="row">{name}</th><td class="n">{value}</td></tr>' for name, value in rows)
    return f'<h2>Requests</h2><table class="pairs"><tbody>{body}</tbody></table>'


def _targets(targets: Any) -> str:
    if not targets:
        return ""
    if all(isinstance(target, Mapping) for target in targets):
        names = list(dict.fromkeys(key for target in targets for key in target))
        rows = ("".join(f"<td>{_text(target.get(name, ''))}</td>" for name in names) for target in targets)
        return f"<h2>Targets</h2>{_table([_words(name) for name in names], rows)}"
    return f"<h2>Targets</h2><p>{', '.join(_text(target) for target in targets)}</p>"


def _lines(title: str, lines: Any) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{_text(line)}</li>" for line in lines)
    return f"<h2>{title}</h2><ul>{items}</ul>"


def _log(log: Optional[Mapping[str, Sequence[str]]]) -> str:
    parts = [
        f"<details open><summary>{_text(name)}</summary><pre>{_text(chr(10).join(map(str, lines)))}</pre></details>"
        for name, lines in (log or {}).items()
        if lines
    ]
    return f"<h2>Log</h2>{''.join(parts)}" if parts else ""


# --- the time axis -------------------------------------------------------------------------------------------------


class _Axis:
    """Seconds of the run to horizontal drawing units."""

    def __init__(self, first_s: float, last_s: float) -> None:
        self.first = first_s
        self.last = max(last_s, first_s + 1.0)
        self.scale = (WIDTH - LEFT - RIGHT) / (self.last - self.first)

    def x(self, seconds: float) -> float:
        return round(LEFT + (min(max(seconds, self.first), self.last) - self.first) * self.scale, 2)

    def ticks(self) -> list[float]:
        span = self.last - self.first
        step = next((s for s in (0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800) if span / s <= 10), 3600)
        return [n * step for n in range(math.ceil(self.first / step), math.floor(self.last / step + 1e-9) + 1)]


def _timeline(report: Report) -> str:
    phases = list(report.get("phases") or [])
    buckets = list(report.get("samples") or [])
    ends = [float(report.get("duration_s") or 0)]
    ends += [float(phase.get("ended_s") or phase.get("started_s") or 0) for phase in phases]
    ends += [bucket["t"] + 1.0 for bucket in buckets]
    if not phases and not buckets:
        return ""
    axis = _Axis(min([0.0, *(float(bucket["t"]) for bucket in buckets)]), max(ends))
    top = 6
    drawn, height = _phases(phases, axis, top)
    legend = ""
    if buckets:
        width, merged = _merge(buckets)
        names = _version_names(report, merged)
        load, height = _load(merged, width, names, axis, height + 22)
        latency, height = _latency(merged, width, axis, height + 18)
        drawn += load + latency
        legend = _legend(names, merged)
    grid = []
    for tick in axis.ticks():
        x = axis.x(tick)
        anchor = "end" if x > WIDTH - RIGHT - 12 else "middle"
        grid.append(f'<line class="grid" x1="{x}" y1="{top}" x2="{x}" y2="{height}"/>')
        grid.append(f'<text class="tick" x="{x}" y="{height + 15}" text-anchor="{anchor}">{_clock(tick)}</text>')
    return (
        f'<h2>What happened when</h2><figure><svg viewBox="0 0 {WIDTH} {height + 22}" role="img" '
        f'aria-label="Phases and requests on a time axis">{HATCH}{"".join(grid)}{"".join(drawn)}</svg>{legend}</figure>'
    )


def _clock(seconds: float) -> str:
    if abs(seconds) < 120:
        return f"{seconds:g} s"
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def _phases(phases: Sequence[Mapping[str, Any]], axis: _Axis, top: float) -> tuple[list[str], float]:
    """One row per name, in order of appearance: a phase that comes again (shift, watch) shares its row."""
    rows = {name: number for number, name in enumerate(dict.fromkeys(str(phase.get("name", "")) for phase in phases))}
    drawn = [
        f'<text class="label" x="{LEFT - 10}" y="{top + number * ROW + 16}">{_text(_words(name))}</text>'
        for name, number in rows.items()
    ]
    for phase in phases:
        kind, sign = _kind(phase.get("outcome"))
        begin = float(phase.get("started_s") or 0)
        end = axis.last if phase.get("ended_s") is None else float(phase["ended_s"])
        x, y = axis.x(begin), top + rows[str(phase.get("name", ""))] * ROW + 3
        width = max(3.0, round(axis.x(end) - x, 2))
        notes = (f"{end - begin:.1f} s", _words(phase.get("outcome")), str(phase.get("text") or ""))
        note = ", ".join(part for part in notes if part)
        drawn.append(
            f'<rect class="phase {kind}" x="{x}" y="{y}" width="{width}" height="{ROW - 6}" rx="3">'
            f"<title>{_text(_words(phase.get('name')))}: {_text(note)}</title></rect>"
        )
        drawn.append(_phase_text(x, width, y + 13, kind, f"{sign} {end - begin:.1f} s"))
    return drawn, top + len(rows) * ROW


def _phase_text(x: float, width: float, y: float, kind: str, text: str) -> str:
    """Inside the bar where it fits, else on the side that has room."""
    room = 7 * len(text) + 8
    if width >= room:
        return f'<text class="in {kind}" x="{x + 6}" y="{y}">{_text(text)}</text>'
    if x + width + room <= WIDTH:
        return f'<text class="beside" x="{x + width + 5}" y="{y}">{_text(text)}</text>'
    return f'<text class="beside" x="{x - 5}" y="{y}" text-anchor="end">{_text(text)}</text>'


def _merge(buckets: Sequence[Bucket]) -> tuple[int, list[dict[str, Any]]]:
    """At most COLUMNS columns: counts become means per second, failures and p95 the worst of their seconds."""
    width = max(1, math.ceil((buckets[-1]["t"] - buckets[0]["t"] + 1) / COLUMNS))
    groups: dict[int, list[Bucket]] = {}
    for bucket in buckets:
        groups.setdefault((bucket["t"] - buckets[0]["t"]) // width, []).append(bucket)
    merged = []
    for number, group in groups.items():
        versions: Counter[str] = Counter()
        for bucket in group:
            versions.update(bucket.get("versions") or {})
        latencies = [bucket["p95_ms"] for bucket in group if bucket.get("p95_ms") is not None]
        merged.append(
            {
                "t": buckets[0]["t"] + number * width,
                "sent": sum(bucket["sent"] for bucket in group) / width,
                "failed": sum(bucket["failed"] for bucket in group) / width,
                "failed_count": sum(bucket["failed"] for bucket in group),
                "p95_ms": max(latencies) if latencies else None,
                "versions": {name: count / width for name, count in versions.items()},
            }
        )
    return width, merged


def _version_names(report: Report, buckets: Sequence[Bucket]) -> list[str]:
    """The versions that answered: the one before first, then the one after, then others; colours go by this order."""
    seen = dict.fromkeys(name for bucket in buckets for name in bucket["versions"])
    known = [_version(report.get("from")), _version(report.get("to") or report.get("version"))]
    return list(dict.fromkeys([*(name for name in known if name in seen), *seen]))


def _load(
    buckets: Sequence[Bucket], width: int, names: Sequence[str], axis: _Axis, top: float
) -> tuple[list[str], float]:
    most = max(1.0, *(bucket["sent"] for bucket in buckets))
    bottom = top + LOAD
    drawn = [
        f'<text class="label" x="{LEFT - 10}" y="{top + 14}">requests/s</text>',
        f'<text class="tick" x="{LEFT - 10}" y="{top + 30}" text-anchor="end">at most {most:g}</text>',
        f'<line class="base" x1="{LEFT}" y1="{bottom}" x2="{WIDTH - RIGHT}" y2="{bottom}"/>',
    ]
    for bucket in buckets:
        x = axis.x(bucket["t"])
        wide = max(1.0, round(axis.x(bucket["t"] + width) - x - 0.6, 2))
        versions = bucket["versions"]
        unnamed = bucket["sent"] - bucket["failed"] - sum(versions.values())
        parts = [(f"v{names.index(name) % COLOURS}", versions[name]) for name in names if name in versions]
        parts += [("v-none", unnamed), ("v-failed", bucket["failed"])]
        y = float(bottom)
        drawn.append("<g>" + f"<title>{_text(_bucket_words(bucket, unnamed))}</title>")
        for kind, count in parts:
            if count <= 0:
                continue
            tall = count / most * LOAD
            if kind == "v-failed":
                tall = max(tall, 3.0)  # one failure among thousands must be seen
            y -= tall
            drawn.append(f'<rect class="{kind}" x="{x}" y="{y:.2f}" width="{wide}" height="{tall:.2f}"/>')
        if bucket["failed"]:
            middle = x + wide / 2
            drawn.append(f'<path class="mark" d="M{middle - 4:.2f} {top - 9} h8 l-4 6 z"/>')
        drawn.append("</g>")
    return drawn, bottom


def _bucket_words(bucket: Bucket, unnamed: float) -> str:
    parts = [f"{_clock(bucket['t'])}: {bucket['sent']:g} requests/s"]
    parts += [f"{name} {count:g}" for name, count in bucket["versions"].items()]
    parts += [f"answered {unnamed:g}"] if unnamed > 0 else []
    parts += [f"{bucket['failed_count']} failed"] if bucket["failed"] else []
    parts += [f"p95 {bucket['p95_ms']:g} ms"] if bucket["p95_ms"] is not None else []
    return ", ".join(parts)


def _latency(buckets: Sequence[Bucket], width: int, axis: _Axis, top: float) -> tuple[list[str], float]:
    """The 95th percentile as a line, broken where there was no good answer."""
    known = [bucket["p95_ms"] for bucket in buckets if bucket["p95_ms"] is not None]
    most = max([1.0, *known])
    bottom = top + LATENCY
    path, pen = [], "M"
    for bucket in buckets:
        if bucket["p95_ms"] is None:
            pen = "M"
            continue
        y = bottom - bucket["p95_ms"] / most * LATENCY
        path.append(f"{pen}{axis.x(bucket['t'])} {y:.2f} H{axis.x(bucket['t'] + width)}")
        pen = "L"
    drawn = [
        f'<text class="label" x="{LEFT - 10}" y="{top + 14}">p95 ms</text>',
        f'<text class="tick" x="{LEFT - 10}" y="{top + 30}" text-anchor="end">at most {most:,.0f}</text>',
        f'<line class="base" x1="{LEFT}" y1="{bottom}" x2="{WIDTH - RIGHT}" y2="{bottom}"/>',
        f'<path class="latency" d="{" ".join(path)}"/>',
    ]
    return drawn, bottom


def _legend(names: Sequence[str], buckets: Sequence[Bucket]) -> str:
    swatch = '<svg class="swatch" viewBox="0 0 9 9" aria-hidden="true"><rect class="{}" width="9" height="9"/></svg>'
    items = [(f"v{number % COLOURS}", f"answered by {name}") for number, name in enumerate(names)]
    if any(bucket["sent"] - bucket["failed"] - sum(bucket["versions"].values()) > 1e-9 for bucket in buckets):
        items.append(("v-none", "answered"))
    items.append(("v-failed", "failed (marked ▾)"))
    entries = "".join(f"<li>{swatch.format(kind)} {_text(words)}</li>" for kind, words in items)
    return f'<figcaption><ul class="legend">{entries}</ul></figcaption>'


HATCH = (
    '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="hatch-ground" width="5" height="5"/><rect class="hatch-line" width="2" height="5"/></pattern></defs>'
)

STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #fff; --ink: #1c2430; --quiet: #5d6878; --line: #dde2e9;
  --good: #1a7f4b; --good-soft: #dff3e7; --back: #8a5a00; --back-soft: #fdefcf; --bad: #b3261e; --bad-soft: #fbe1df;
  --plain: #4a5668; --plain-soft: #e7ebf0; --v0: #8fa3bd; --v1: #2563c9; --v2: #0f9d94; --v3: #8a56c9; --v4: #c98a1b;
  --v5: #5c6b2f; --none: #7f9ccf; }
@media (prefers-color-scheme: dark) { :root { --ground: #11151b; --card: #1a2029; --ink: #e6eaf0; --quiet: #9aa6b6;
  --line: #2d3642; --good: #5fd596; --good-soft: #143524; --back: #f0c060; --back-soft: #3b2e10; --bad: #ff8a80;
  --bad-soft: #46201d; --plain: #b4bfcd; --plain-soft: #29313c; --v0: #66788f; --v1: #5b94f2; --v2: #35c2b8;
  --v3: #b48af0; --v4: #e0ab4a; --v5: #a3b56a; --none: #5a78ad; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 16px 56px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 24px 28px;
  margin-bottom: 28px; }
h1 { font-size: 27px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 28px 0 10px; }
.context, .times { color: var(--quiet); margin: 0; }
.head { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: center; margin: 2px 0 4px; }
.reason { margin: 6px 0; max-width: 75ch; overflow-wrap: anywhere; }
.reason.problem { color: var(--bad); font-weight: 500; }
.badge { display: inline-block; border-radius: 999px; padding: 2px 12px; font-weight: 600; white-space: nowrap; }
.badge.good { color: var(--good); background: var(--good-soft); }
.badge.back { color: var(--back); background: var(--back-soft); }
.badge.bad { color: var(--bad); background: var(--bad-soft); }
.badge.plain { color: var(--plain); background: var(--plain-soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px; margin: 20px 0 0; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.tile dt { color: var(--quiet); font-size: 13px; }
.tile dd { margin: 0; font-size: 23px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile.good dd { color: var(--good); } .tile.bad dd { color: var(--bad); } .tile.bad { border-color: var(--bad); }
.unit { font-size: 13px; font-weight: 400; color: var(--quiet); }
.note { color: var(--quiet); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
table.pairs { width: auto; min-width: 320px; }
th, td { text-align: left; padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 500; color: var(--quiet); }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
a { color: var(--v1); }
figure { margin: 0; } svg { display: block; width: 100%; height: auto; }
svg text { font-size: 12px; fill: var(--ink); font-family: inherit; }
svg .label { text-anchor: end; } svg .tick, svg .beside { fill: var(--quiet); } svg .tick { font-size: 11px; }
.grid { stroke: var(--line); stroke-width: 1; } .base { stroke: var(--quiet); stroke-width: 1; }
.phase { stroke-width: 1; }
.phase.good { fill: var(--good-soft); stroke: var(--good); } svg .in.good { fill: var(--good); }
.phase.back { fill: var(--back-soft); stroke: var(--back); } svg .in.back { fill: var(--back); }
.phase.bad { fill: var(--bad-soft); stroke: var(--bad); } svg .in.bad { fill: var(--bad); }
.phase.plain { fill: var(--plain-soft); stroke: var(--plain); } svg .in.plain { fill: var(--plain); }
.v0 { fill: var(--v0); } .v1 { fill: var(--v1); } .v2 { fill: var(--v2); } .v3 { fill: var(--v3); }
.v4 { fill: var(--v4); } .v5 { fill: var(--v5); } .v-none { fill: var(--none); } .v-failed { fill: url(#hatch); }
.hatch-ground { fill: var(--bad-soft); } .hatch-line { fill: var(--bad); } .mark { fill: var(--bad); }
.latency { fill: none; stroke: var(--v3); stroke-width: 1.6; stroke-linejoin: round; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 20px; padding: 0; margin: 10px 0 0;
  color: var(--quiet); font-size: 13px; }
.swatch { display: inline-block; width: 12px; height: 12px; vertical-align: -1px; }
pre { background: var(--ground); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px;
  margin: 6px 0 14px; font: 12.5px/1.5 ui-monospace, Menlo, Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; }
summary { cursor: pointer; font-weight: 500; } ul { margin: 0; padding-left: 20px; }
li { overflow-wrap: anywhere; }
@media print { :root { --ground: #fff; --card: #fff; --ink: #000; --quiet: #444; --line: #ccc; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; } section { border: 0; padding: 0; break-after: page; }
  figure, table, .tiles { break-inside: avoid; } }
"""
