# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the deployment records say: what is live, where a rollback goes, which releases may be removed.

Pure functions over the lines of ``history.jsonl``, oldest first. Time stamps of directories never count.
Private: may change at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

Record = Mapping[str, Any]
Release = dict[str, str]

# Outcomes after which the record's ``to`` is what is live.
LIVE_OUTCOMES = ("deployed", "restored")
# Verbs that bring a new release.
FORWARD = ("deploy", "promote")
# Verbs whose records are statements of people; nothing was changed by them.
STATEMENTS = ("attest",)


def split(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """The records of changes, which all other functions here are about, and the statements."""
    said = [record for record in records if record["verb"] in STATEMENTS]
    return [record for record in records if record["verb"] not in STATEMENTS], said


def live(records: Sequence[Record]) -> Optional[dict[str, Any]]:
    """The place (release, version, slot) that should have the traffic; None before the first deploy."""
    for record in reversed(records):
        if record["outcome"] in LIVE_OUTCOMES:
            place: dict[str, Any] = record["to"]
            return place
    return None


def held(records: Sequence[Record]) -> Optional[Record]:
    """The record of the release that is held at a part of the traffic, until it is promoted or taken back."""
    for record in reversed(records):
        if record["outcome"] == "held":
            return record
        if record["verb"] in ("cleanup", "recover") or (record["verb"] == "abort" and record["outcome"] == "failed"):
            continue  # these leave a held release as it is
        return None
    return None


def at_rest(records: Sequence[Record]) -> dict[str, Any]:
    """What the routers should do while no run goes on: weights per slot, and the places that may answer."""
    now, part = live(records), held(records)
    if part:
        return {"weights": dict(part["weights"]), "places": [part["to"], *([now] if now else [])]}
    return {"weights": {now["slot"]: 100} if now else {}, "places": [now] if now else []}


def statuses(records: Sequence[Record]) -> dict[str, str]:
    """The last word on each release: ``verified``, ``failed``, ``left`` (a rollback left it), ``held`` or
    ``interrupted``."""
    words: dict[str, str] = {}
    for record in records:
        release = record["to"]["release"]
        if record["outcome"] in LIVE_OUTCOMES:
            forward = words.get(release) == "left"  # a rollback undone: what it leaves is as good as it was
            words[release] = "verified"
            left = (record.get("from") or {}).get("release", release)
            if record["verb"] == "rollback" and not forward and left != release:
                words[left] = "left"
        elif record["outcome"] != "blocked" and words.get(release) != "verified":
            words[release] = record["outcome"] if record["outcome"] in ("interrupted", "held") else "failed"
    return words


def verified(records: Sequence[Record]) -> list[Release]:
    """Releases that were live and passed their watch, the one made live last first; each once."""
    found: dict[str, Release] = {}
    for record in reversed(records):
        if record["outcome"] in LIVE_OUTCOMES:
            place = record["to"]
            found.setdefault(place["release"], {"release": place["release"], "version": place["version"]})
    return list(found.values())


def choose_rollback_target(records: Sequence[Record], wanted: str = "previous") -> Release:
    """The release a rollback goes to.

    ``previous``: the one made live most recently before what is live now, that was verified and was not left by
    a rollback since. Otherwise a version or a release id that was verified once (going forward again after a
    rollback is naming it). Nothing to go back to is an error.
    """
    now = live(records)
    if now is None:
        raise RunbookError("there is nothing to roll back: no release of this application has ever been live here")
    words = statuses(records)
    candidates = [release for release in verified(records) if release["release"] != now["release"]]
    if wanted != "previous":
        if wanted in (now["version"], now["release"]):
            raise RunbookError(f"rollback_to: {wanted} is what is live now; name another verified release")
        named = [r for r in candidates if wanted in (r["release"], r["version"])]
        if named:
            return named[0]
        raise RunbookError(
            f"rollback_to: no verified release {wanted!r} in the records; there are: {_names(candidates) or 'none'}"
        )
    # What was made live after the live release first became so is newer, not previous: a rollback left it, and
    # going "back" to it would be going forward.
    for release in _before(records, now["release"]):
        if words[release["release"]] == "verified":
            return release
    left = [r for r in candidates if words[r["release"]] == "left"]
    hint = f"; to go forward again say -e rollback_to={left[0]['version']}" if left else ""
    raise RunbookError(
        f"there is nothing to roll back to: {now['version']} is live and no verified release was live before it{hint}"
    )


def _before(records: Sequence[Record], release: str) -> Iterable[Release]:
    """Releases that were live before ``release`` last became so by one of FORWARD, the most recent first."""
    own = [
        i
        for i, record in enumerate(records)
        if record["outcome"] in LIVE_OUTCOMES and record["verb"] in FORWARD and record["to"]["release"] == release
    ]
    return [r for r in verified(records[: own[-1]]) if r["release"] != release] if own else []


def _names(releases: Sequence[Release], most: int = 5) -> str:
    shown = ", ".join(release["version"] for release in releases[:most])
    return shown + (f" and {len(releases) - most} more" if len(releases) > most else "")


def prune(
    records: Sequence[Record],
    present: Collection[str],
    keep: int,
    pinned: Collection[str] = (),
    in_slots: Collection[str] = (),
) -> list[str]:
    """The release ids among ``present`` (all made by us) that may be removed.

    Kept: the live one, the ``keep`` verified ones made live last, the rollback target, the pinned ones (id or
    version) and whatever a slot holds. Failed releases are not counted, so they can't push out good ones; they go.
    """
    stay = set(in_slots)
    now = live(records)
    if now:
        stay.add(now["release"])
        with contextlib.suppress(RunbookError):  # nothing to go back to, so nothing to protect
            stay.add(choose_rollback_target(records)["release"])
    stay.update(release["release"] for release in verified(records)[: max(keep, 1)])
    versions = {record["to"]["release"]: record["to"]["version"] for record in records}
    return sorted(r for r in present if r not in stay and r not in pinned and versions.get(r) not in pinned)


def brief(records: Sequence[Record], recent: int) -> list[dict[str, Any]]:
    """The records with only the last ``recent`` whole: thousands of them still fit into one answer."""
    always, sometimes = ("run", "verb", "from", "to", "outcome"), ("weights", "remaining", "ended")
    whole = max(len(records) - recent, 0)
    old = [
        {key: record.get(key) for key in (*always, *(key for key in sometimes if key in record))}
        for record in records[:whole]
    ]
    return old + [dict(record) for record in records[whole:]]
