# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gates: what must hold before a run goes on, and the decision that follows from all of them.

A gate is a check (`_checks`) that is asked on hosts, or one of the kinds here, which are judged on the controller by
what people have said and by what the records say: attestation, approval, promotion, window, rollback. Pure functions.
Private: may change at any time.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any, Callable, NamedTuple, Optional
from zoneinfo import ZoneInfo

from ansible_collections.signalbox.runbook.plugins.module_utils import _checks, _reality
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._journal import utc
from ansible_collections.signalbox.runbook.plugins.module_utils._schema import Problems, Spec, check, closest

Result = dict[str, Any]
Note = Mapping[str, Any]

# When a gate is asked: before a deploy by itself, earlier by preflight.yml -e preflight_phase=..., and of what runs by
# verify.yml.
PHASES = ("week", "day", "hour", "deploy", "verify")
HOSTS = ("targets", "routers", "state", "controller")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOUR = 3600.0
ASK_SECONDS = 30  # beside what the slowest check may take

# What every gate may say beside what a check may say.
COMMON: dict[str, Spec] = {
    "phases": {"type": "list", "elements": "str", "choices": list(PHASES)},
    "on": {"type": "str", "choices": list(HOSTS)},
    "on_failure": {"type": "str", "default": "block", "choices": ["block", "remediate"]},
}
OWN: dict[str, Spec] = {
    "name": {"type": "str", "required": True, "description": "the name of the gate"},
    "check": {"type": "str", "required": True},
    "source": {"type": "str", "default": ""},
    "advice": {"type": "str", "default": ""},
    "blocking": {"type": "bool", "default": True},
    "weight": {"type": "float", "default": 1},
}
SPAN: dict[str, Spec] = {
    "days": {"type": "list", "elements": "str", "choices": list(DAYS), "default": list(DAYS)},
    "from": {"type": "str", "required": True, "description": 'a time of day, for example "22:00"'},
    "to": {"type": "str", "required": True, "description": 'a time of day, for example "04:00"'},
}
FREEZE: dict[str, Spec] = {
    "from": {"type": "str", "required": True, "description": 'a day, for example "2026-12-20"'},
    "to": {"type": "str", "required": True, "description": 'a day, for example "2027-01-03", which is the last one'},
    "reason": {"type": "str", "required": True, "description": "why nothing is deployed then"},
}
KINDS: dict[str, dict[str, Spec]] = {
    "attestation": {
        "statement": {"type": "str", "required": True, "description": "what somebody has to attest"},
        "valid_hours": {"type": "float", "default": 168},
        "each_version": {"type": "bool", "default": True},
    },
    "approval": {
        "people": {"type": "int", "default": 1},
        "valid_hours": {"type": "float", "default": 24},
        "not_requester": {"type": "bool", "default": True},
    },
    "promotion": {
        "from": {"type": "str", "required": True, "description": "the environment it was verified in before"},
        "proof": {"type": "str"},
        "journal": {"type": "str"},
        "soak_minutes": {"type": "float", "default": 0},
        "valid_hours": {"type": "float", "default": 720},
    },
    "window": {
        "time_zone": {"type": "str", "default": "UTC"},
        "allowed": {"type": "list", "elements": "dict", "options": SPAN, "default": []},
        "frozen": {"type": "list", "elements": "dict", "options": FREEZE, "default": []},
    },
    "rollback": {},
}
_ATTEST = "ansible-playbook attest.yml -e app_version={version} -e 'attest_gate={name}'"
_WAIVE = f"{_ATTEST} -e attest_waive=true -e attest_reason=..."
ADVICE = {
    "attestation": f"{_ATTEST} -e attest_evidence=...",
    "approval": f"somebody else runs: {_ATTEST}",
    "promotion": "deploy {version} to {from} and let it run there",
    "window": f"wait, or waive it: {_WAIVE}",
    "rollback": f"bring what is missing back, or waive it: {_WAIVE}",
}


class Gates(NamedTuple):
    """The gates of one inventory: what is asked on hosts, without what is asked, and what is judged here."""

    asked: tuple[Mapping[str, Any], ...]
    own: tuple[Mapping[str, Any], ...]


def load(given: Sequence[Mapping[str, Any]], path: str, problems: Problems) -> Gates:
    """The gates of an inventory, checked and completed."""
    asked, own, names = [], [], set()
    for number, raw in enumerate(given):
        where = f"{path}[{number}]"
        common = {key: raw[key] for key in COMMON if key in raw}
        rest = {key: value for key, value in raw.items() if key not in COMMON}
        kind = rest.get("check")
        gate = check(common, COMMON, where, problems)
        gate.update(phases=gate["phases"] or ["deploy"], number=number)
        name = rest.get("name")
        if name in names:
            problems.say(f"{where}.name", f"{name!r} is the name of another gate already")
        names.add(name)
        if kind in KINDS:
            if common.get("on"):
                problems.say(f"{where}.on", f"{kind} is judged on the controller by the records; leave it out")
            found = check(rest, {**OWN, **KINDS[str(kind)]}, where, problems)
            _rules(str(kind), found, where, problems)
            own.append({**found, **gate})
        elif kind in _checks.KINDS:
            found_problems = Problems()
            parsed = _checks.parse([rest], path, found_problems)
            problems += [problem.replace(f"{path}[0]", where, 1) for problem in found_problems]
            asked += [{**_described(one), **gate, "on": gate["on"] or "targets"} for one in parsed]
        else:
            known = sorted([*KINDS, *_checks.KINDS])
            problems.say(
                f"{where}.check", f"{kind!r} is no kind of gate{closest(str(kind), known)}: {', '.join(known)}"
            )
    return Gates(tuple(asked), tuple(own))


def _described(one: Any) -> dict[str, Any]:
    """Of a check what the decision needs; its options may have secrets."""
    told = {"check": one.kind, "timeout_seconds": one.seconds, "remedy_seconds": one.remedy_seconds}
    return {**told, **{word: getattr(one, word) for word in ("name", "blocking", "weight")}}


def bare(gate: Mapping[str, Any]) -> dict[str, Any]:
    """A gate as the check that it is."""
    return {key: value for key, value in gate.items() if key not in COMMON}


def _rules(kind: str, gate: Mapping[str, Any], where: str, problems: Problems) -> None:
    for key in ("valid_hours", "soak_minutes", "people"):
        least = {"people": 1}.get(key, 0)
        if gate.get(key) is not None and gate[key] < least:
            problems.say(f"{where}.{key}", f"{gate[key]:g} must be {least} or more")
    if kind == "promotion" and bool(gate["proof"]) == bool(gate["journal"]):
        text = "needs one of proof, a file on the controller, and journal, a directory on the state host"
        problems.say(where, text)
    if kind == "promotion" and gate["journal"] and not gate["journal"].startswith("/"):
        problems.say(f"{where}.journal", f"{gate['journal']!r} must be an absolute path")
    if kind != "window":
        return
    try:
        ZoneInfo(str(gate["time_zone"]))
    except (KeyError, ValueError, OSError):  # its own error is a KeyError; a path or a directory gives the others
        problems.say(f"{where}.time_zone", f'{gate["time_zone"]!r} is no time zone; give one like "Europe/Berlin"')
    if not gate["allowed"] and not gate["frozen"]:
        problems.say(where, "says neither allowed nor frozen; a window needs one of them")
    for number, span in enumerate(gate["allowed"] or ()):
        for key in ("from", "to"):
            if span and span[key] is not None and _time_of_day(span[key]) is None:
                problems.say(f"{where}.allowed[{number}].{key}", f'{span[key]!r} must be a time of day like "22:00"')
        if span and span["from"] and span["from"] == span["to"]:
            problems.say(f"{where}.allowed[{number}]", "begins and ends at the same time, so it is never open")
    for number, frozen in enumerate(gate["frozen"] or ()):
        days = {key: _day(frozen[key]) for key in ("from", "to")} if frozen else {}
        for key, day in days.items():
            if frozen[key] is not None and day is None:
                problems.say(f"{where}.frozen[{number}].{key}", f'{frozen[key]!r} must be a day like "2026-12-20"')
        if all(days.values()) and days and days["from"] > days["to"]:  # type: ignore[operator]
            problems.say(f"{where}.frozen[{number}]", f"ends on {frozen['to']} before it begins on {frozen['from']}")


def _time_of_day(text: str) -> Optional[int]:
    match = re.match(r"(\d\d?):(\d\d)\Z", text)
    minutes = int(match.group(1)) * 60 + int(match.group(2)) if match else -1
    return minutes if match and int(match.group(2)) < 60 and minutes <= 24 * 60 else None


def _day(text: str) -> Optional[date]:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


# -- who is asked -----------------------------------------------------------------------------------------------


class Questions(NamedTuple):
    """What a run asks in one phase: by host the names of the gates, and those that the controller judges."""

    asked: Mapping[str, Sequence[str]]
    own: tuple[Mapping[str, Any], ...]
    described: tuple[Mapping[str, Any], ...]
    budget_seconds: float
    remedy_seconds: float  # on top, where what fails is mended


def questions(models: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]], phase: str) -> Questions:
    """``models`` have their loaded gates as ``gates``; a host is asked by its own, the controller by the first's."""
    first: Gates = models[groups["targets"][0]]["gates"]
    places = {**groups, "controller": ["localhost"]}
    asked: dict[str, list[str]] = {}
    described: dict[str, Mapping[str, Any]] = {}
    for place, hosts in places.items():
        for host in hosts:
            gates: Gates = models[host]["gates"] if host in models else first
            for gate in gates.asked:
                if gate["on"] == place and phase in gate["phases"]:
                    asked.setdefault(host, []).append(gate["name"])
                    described.setdefault(gate["name"], gate)
    own = tuple(gate for gate in first.own if phase in gate["phases"])
    seconds = max((gate["timeout_seconds"] for gate in described.values()), default=0.0)
    remedies = float(sum(gate["remedy_seconds"] for gate in described.values()))
    return Questions(asked, own, tuple(described.values()), ASK_SECONDS + seconds, remedies)


def decision_args(gates: Questions, facts: Facts) -> dict[str, Any]:
    """What the decision is made of, as plain data: no secret is in it."""
    known = sorted([*gates.described, *gates.own], key=lambda gate: int(gate["number"]))
    return {
        "judged": [judge(gate, facts) for gate in gates.own],
        "described": {
            gate["name"]: {key: gate[key] for key in ("check", "blocking", "weight", "on_failure")} for gate in known
        },
        "notes": [dict(note) for note in waivers(facts.notes, facts.version, facts.now).values()],
        "version": facts.version,
        "now": facts.now,
    }


def collect(args: Mapping[str, Any], outcomes: Mapping[str, Mapping[str, Any]]) -> Decision:
    """The decision, out of what hosts answered; what a host was asked and did not answer is missing."""
    results = [dict(result) for result in args["judged"]]
    for host, names in args["asked"].items():
        answer = outcomes.get(host) or {}
        given = {result["name"]: result for result in answer.get("checks") or ()}
        why = f"gave no answer: {answer['msg']}" if answer.get("msg") else "gave no answer"
        for name in names:
            what = args["described"][name]
            silent = {"status": "missing", "text": why, "measured": {}, "source": "", "advice": ""}
            results.append({**what, "name": name, "limit": "", **(given.get(name) or silent), "host": host})
    order = {name: number for number, name in enumerate(args["described"])}
    results.sort(key=lambda result: order[result["name"]])
    remediable = [name for name, what in args["described"].items() if what["on_failure"] == "remediate"]
    return decide(results, args["notes"], args["version"], args["now"], remediable)


def kept(decision: Decision) -> dict[str, Any]:
    """What the record keeps of a decision."""
    words = ("name", "check", "status", "text", "measured", "blocking", "weight", "percent")
    rows = [{word: row[word] for word in words} for row in decision.rows]
    return {
        "decision": decision.word,
        "score_percent": decision.score_percent,
        "blocking": list(decision.blocking),
        "gates": rows,
    }


# -- judged on the controller -----------------------------------------------------------------------------------


class Facts(NamedTuple):
    """What is known when gates are judged. ``now`` is the clock of the store; ``proof`` gives that of a gate for a
    version, or says why there is none."""

    now: float
    version: str
    requester: str
    notes: Sequence[Note]
    live: Optional[_reality.Place]
    history: Sequence[Mapping[str, Any]]
    targets: Mapping[str, Mapping[str, Any]]
    application: str
    code: Mapping[str, Any]  # service to what identifies its code
    proof: Callable[[Mapping[str, Any], str], Mapping[str, Any]]


def judge(gate: Mapping[str, Any], facts: Facts) -> Result:
    """One gate that is judged by records, as a result of a check is."""
    status, text = _JUDGES[gate["check"]](gate, facts)
    words = {**gate, "version": facts.version or "..."}
    return {
        "name": gate["name"],
        "check": gate["check"],
        "status": status,
        "measured": {},
        "text": text,
        "limit": "",
        "source": gate["source"],
        "advice": (gate["advice"] or ADVICE[gate["check"]].format(**words)) if status != "pass" else "",
        "blocking": gate["blocking"],
        "weight": gate["weight"],
    }


def _said(gate: Mapping[str, Any], facts: Facts, kind: str, each_version: bool) -> list[Note]:
    """Statements on the gate that still hold, the last word of each person."""
    last: dict[str, Note] = {}
    for note in facts.notes:
        about = note.get("gate") == gate["name"] and note.get("kind") == kind
        if about and (not each_version or note.get("version") == facts.version):
            last[str(note["by"]["user"])] = note
    return [note for note in last.values() if _holds(note, gate, facts.now)]


def _holds(note: Note, gate: Mapping[str, Any], now: float) -> bool:
    hours = note.get("valid_hours") or gate.get("valid_hours") or 0
    return not hours or now < note["ended"] + hours * HOUR


def _attestation(gate: Mapping[str, Any], facts: Facts) -> tuple[str, str]:
    said = _said(gate, facts, "attestation", gate["each_version"])
    if not said:
        return "missing", f"nobody has attested: {gate['statement']}"
    note = said[-1]
    evidence = f" ({note['evidence']})" if note.get("evidence") else ""
    return "pass", f"{gate['statement']}: {_who(note)}{evidence}"


def _approval(gate: Mapping[str, Any], facts: Facts) -> tuple[str, str]:
    said = _said(gate, facts, "approval", True)
    if gate["not_requester"]:
        said = [note for note in said if note["by"]["user"] != facts.requester]
    names = ", ".join(_who(note) for note in said)
    if len(said) >= gate["people"]:
        return "pass", f"approved by {names}"
    own = f", {facts.requester} not counted" if gate["not_requester"] and facts.requester else ""
    return "missing", f"{len(said)} of {gate['people']} approvals of {facts.version}{own}" + (
        f": {names}" if names else ""
    )


def _who(note: Note) -> str:
    return f"{note['by']['user']}, {utc(note['ended'])}"


def _window(gate: Mapping[str, Any], facts: Facts) -> tuple[str, str]:
    there = datetime.fromtimestamp(facts.now, timezone.utc).astimezone(ZoneInfo(gate["time_zone"]))
    clock = f"it is {there:%a %Y-%m-%d %H:%M} {gate['time_zone']}"
    for frozen in gate["frozen"]:
        if frozen["from"] <= f"{there:%Y-%m-%d}" <= frozen["to"]:
            return "fail", f"{clock}, frozen until the end of {frozen['to']}: {frozen['reason']}"
    if not gate["allowed"] or any(_open(span, there) for span in gate["allowed"]):
        return "pass", clock
    spans = "; ".join(f"{' '.join(span['days'])} {span['from']} to {span['to']}" for span in gate["allowed"])
    return "fail", f"{clock}, allowed is {spans}"


def _open(span: Mapping[str, Any], there: datetime) -> bool:
    """A span over midnight belongs to the day that it begins on."""
    begin, end = _time_of_day(span["from"]) or 0, _time_of_day(span["to"]) or 0
    minute = there.hour * 60 + there.minute
    if begin < end:
        return DAYS[there.weekday()] in span["days"] and begin <= minute < end
    yesterday = DAYS[(there - timedelta(days=1)).weekday()]
    return (DAYS[there.weekday()] in span["days"] and minute >= begin) or (yesterday in span["days"] and minute < end)


def _rollback(_gate: Mapping[str, Any], facts: Facts) -> tuple[str, str]:
    if facts.live is None:
        return "warn", "this is the first release: there is nothing to go back to"
    silent = [f"{host} {info['problem']}" for host, info in facts.targets.items() if info.get("problem")]
    if silent:
        return "missing", "; ".join(silent)
    gone = _reality.lacking(facts.live["release"], facts.targets)
    name = _reality.named(facts.live)
    if gone:
        return "fail", f"{name} is not whole on {', '.join(gone)}: a rollback could not go to it"
    cold = _reality.missing(facts.live, facts.targets)
    if cold:
        return "warn", f"{name} is on disk everywhere, but does not run on {', '.join(cold)}"
    took = [r["duration_s"] for r in facts.history if r["outcome"] == "restored" and r.get("duration_s")]
    last = f"; the last rollback took {took[-1]:.0f} s" if took else ""
    return "pass", f"{name} stands on {len(facts.targets)} of {len(facts.targets)} targets{last}"


def _promotion(gate: Mapping[str, Any], facts: Facts) -> tuple[str, str]:
    where = gate["proof"] or gate["journal"]
    try:
        found = facts.proof(gate, facts.version)
    except RunbookError as error:
        return "missing", f"{where}: {error}"
    for what, wanted in (("application", facts.application), ("environment", gate["from"]), ("version", facts.version)):
        if found[what] != wanted:
            return "fail", f"{where} is of {what} {found[what]}, not {wanted}"
    for service, code in facts.code.items():
        if service in found["code"] and found["code"][service] != code:
            return "fail", f"the code of {service} is not what {gate['from']} ran as {facts.version}"
    age = facts.now - found["verified_at"]
    text = f"{facts.version} verified in {gate['from']} at {utc(found['verified_at'])} (run {found['run']})"
    if age < gate["soak_minutes"] * 60:
        return "fail", f"{text}, {age / 60:.0f} of {gate['soak_minutes']:g} min ago"
    if gate["valid_hours"] and age > gate["valid_hours"] * HOUR:
        return "fail", f"{text}, which is more than {gate['valid_hours']:g} h ago"
    return "pass", text


_JUDGES: dict[str, Callable[[Mapping[str, Any], Facts], tuple[str, str]]] = {
    "attestation": _attestation,
    "approval": _approval,
    "window": _window,
    "rollback": _rollback,
    "promotion": _promotion,
}


# -- what people say --------------------------------------------------------------------------------------------


def statement(
    inventories: Sequence[Gates], given: Mapping[str, Any], version: str, by: Mapping[str, Any]
) -> dict[str, Any]:
    """The record of what a person says of a gate."""
    known = {gate["name"]: gate for gates in inventories for gate in (*gates.asked, *gates.own)}
    name = str(given["gate"])
    if name not in known:
        near = closest(name, known)
        there = f"there are: {', '.join(known)}" if known else "there are none in app_gates"
        raise RunbookError(f"attest_gate: {name!r} is no gate of this inventory{near}; {there}")
    gate = known[name]
    kind = "waiver" if given["waive"] else str(gate["check"])
    if kind == "waiver" and not given["reason"].strip():
        raise RunbookError(f"attest_reason: is missing; say why {name} does not have to hold for {version or 'it'}")
    if kind not in ("attestation", "approval", "waiver"):
        raise RunbookError(
            f"attest_gate: {name} is a {kind}, which is found out, not attested; -e attest_waive=true with "
            "attest_reason waives it for one version"
        )
    if given["valid_hours"] < 0:
        raise RunbookError(f"attest_valid_hours: must be 0 or more hours, not {given['valid_hours']:g}")
    each = kind != "attestation" or gate["each_version"]
    if each and not version:
        raise RunbookError(f"app_version: is missing; the {kind} of {name} is for one version")
    return {
        "verb": "attest",
        "outcome": {"attestation": "attested", "approval": "approved", "waiver": "waived"}[kind],
        "gate": name,
        "kind": kind,
        "version": version if each else "",
        "by": dict(by),
        "evidence": given["evidence"],
        "reason": given["reason"],
        "valid_hours": given["valid_hours"],
    }


# -- the proof that travels -------------------------------------------------------------------------------------


PROOF = ("application", "environment", "version", "release", "code", "run", "verified_at")


def proof(record: Mapping[str, Any]) -> str:
    """What another environment takes as proof that a release was verified here."""
    found = {key: record[key] for key in PROOF}
    return json.dumps({**found, "sha256": _digest(found)}, indent=1, sort_keys=True) + "\n"


def proof_in(history: Sequence[Mapping[str, Any]], version: str) -> dict[str, Any]:
    """The same, out of the records of the other environment."""
    for record in reversed(history):
        if record["outcome"] == "deployed" and record["to"]["version"] == version:
            found = {key: record["to"].get(key) or record.get(key) for key in PROOF}
            return {**found, "code": code_of(record.get("artifacts") or {}), "verified_at": record["ended"]}
    raise RunbookError(f"{version} was never verified there")


def read_proof(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
        told = {key: found[key] for key in PROOF}
    except (ValueError, KeyError, TypeError):
        raise RunbookError(f"is no proof: it must be JSON with {', '.join(PROOF)} and sha256") from None
    if found.get("sha256") != _digest(told):
        raise RunbookError("was changed after it was written: its sha256 is not that of its content")
    return told


def _digest(found: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def code_of(artifacts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """By service what identifies its code, out of a record's artifacts: the same in every environment."""
    words = ("sha256", "python", "git", "ref", "apt", "image")
    return {name: {word: a[word] for word in words if a.get(word)} for name, a in artifacts.items()}


# -- the decision -----------------------------------------------------------------------------------------------


class Decision(NamedTuple):
    word: str  # PROCEED, REMEDIATE or BLOCK
    score_percent: float
    blocking: tuple[str, ...]
    rows: tuple[Result, ...]


def merge(results: Sequence[Result]) -> list[Result]:
    """One row for each gate: what several hosts said of it is said once, the worst of it."""
    rank = {"missing": 3, "fail": 3, "warn": 2, "pass": 1}
    rows: dict[str, list[Result]] = {}
    for result in results:
        rows.setdefault(result["name"], []).append(result)
    merged = []
    for group in rows.values():
        worst = max(rank[result["status"]] for result in group)
        chosen = [result for result in group if rank[result["status"]] == worst]
        hosts: dict[str, list[str]] = {}
        for result in chosen:
            hosts.setdefault(result["text"], []).append(result.get("host", ""))
        many = len(group) > 1
        said = "; ".join(
            f"{', '.join(names)}: {text}" if many and any(names) else text for text, names in hosts.items()
        )
        status = "missing" if any(result["status"] == "missing" for result in chosen) else chosen[0]["status"]
        merged.append({**chosen[0], "status": status, "text": said, "percent": min(map(_percent, group))})
    return merged


def _percent(result: Result) -> float:
    """How much of a gate is met: a report says it itself, everything else is met or not."""
    if result["status"] in ("pass", "warn"):
        return 100.0
    measured = (result.get("measured") or {}).get("pass_percent")
    return float(measured) if isinstance(measured, (int, float)) and 0 <= measured < 100 else 0.0


def decide(
    results: Sequence[Result], notes: Sequence[Note], version: str, now: float, remediable: Sequence[str] = ()
) -> Decision:
    """The decision on all gates. It never depends on the score: one blocking gate that does not hold is enough.

    ``notes`` may waive gates. The score is the mean of the gates that had to hold, by weight; others only count when
    they were asked and answered.
    """
    waived = waivers(notes, version, now)
    rows = []
    for row in merge(results):
        waiver = waived.get(row["name"])
        if waiver and row["status"] in ("fail", "missing", "warn"):
            said = f"{row['text']}; waived by {_who(waiver)}: {waiver['reason']}"
            row = {**row, "status": "waived", "text": said, "advice": ""}
        rows.append(row)
    bad = [row for row in rows if row["status"] in ("fail", "missing")]
    blocking = tuple(row["name"] for row in bad if row["blocking"])
    counted = [row for row in rows if row["status"] != "waived" and (row["blocking"] or row["status"] != "missing")]
    weight = sum(row["weight"] for row in counted)
    score = sum(row["percent"] * row["weight"] for row in counted) / weight if weight else 100.0
    word = "PROCEED" if not blocking else "REMEDIATE" if set(blocking) <= set(remediable) else "BLOCK"
    return Decision(word, round(score, 1), blocking, tuple(rows))


def waivers(notes: Sequence[Note], version: str, now: float) -> dict[str, Note]:
    """Gate to the last waiver of it for this version that has not ended."""
    given = [note for note in notes if note.get("kind") == "waiver" and note.get("version") == version]
    return {str(note["gate"]): note for note in given if _holds(note, {"valid_hours": 24}, now)}


# -- words ------------------------------------------------------------------------------------------------------

SIGNS = {"pass": "ok", "warn": "warning", "fail": "FAILED", "missing": "MISSING", "waived": "waived"}


def summary(decision: Decision) -> str:
    """Counts, and what was not simply met: one line."""
    words = ("pass", "warn", "fail", "missing", "waived")
    count = {word: sum(row["status"] == word for row in decision.rows) for word in words}
    names = {"pass": "passed", "warn": "with a warning", "fail": "failed", "missing": "missing", "waived": "waived"}
    return ", ".join(f"{count[word]} {names[word]}" for word in words if count[word]) or "no gates"


def table(decision: Decision) -> list[str]:
    """All results, each a line; below those that do not hold, what to do."""
    lines = [f"{decision.word}   score {decision.score_percent:g} %   {summary(decision)}"]
    width = max((len(row["name"]) for row in decision.rows), default=0)
    for row in decision.rows:
        bad = row["status"] in ("fail", "missing")
        mark = " (blocking)" if bad and row["blocking"] else ""
        lines.append(f"  {SIGNS[row['status']]:<8} {row['name']:<{width}}  {row['text']}{mark}")
        if bad or row["status"] == "warn":
            source = f"limit: {row['source']}. " if row.get("source") else ""
            if source or row["advice"]:
                lines.append(f"  {'':<8} {'':<{width}}  {source}{row['advice']}".rstrip())
    return lines


def refusal(decision: Decision) -> str:
    rows = [row for row in decision.rows if row["name"] in decision.blocking]
    said = "; ".join(f"{row['name']}: {row['text']}" for row in rows)
    return f"{decision.word}, {len(rows)} of {len(decision.rows)} gates do not hold: {said}"
