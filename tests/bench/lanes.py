# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several ways to do the same work, in turns, each asked all the time by users that none of them knows."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from clients import Answer, answers_of, clients
from measure import Cost, measured, median, say

import local
from runbook_site import Plays, version_at

OLD, BASE = "7.0.0", "7.0.1"  # versions that no test has; BASE is what each rollback goes back to
START_SECONDS = 20  # in which a release gets healthy, or is a bad one
SETTLE_SECONDS = 40.0
CLIENTS, PAUSE = 2, 0.02
HERE = Path(__file__).resolve().parent


class Peer:
    """``deploy`` and ``rollback`` are commands that end when the work is done and proven, or fail."""

    name = ""
    lacks = ""  # what it does not do of what ours does
    url = ""
    kept = True  # whether its users keep their connections
    asked = 12  # times, to meet everybody who answers

    def release(self, version: str, **faults: Any) -> None:
        raise NotImplementedError

    def deploy(self, version: str) -> list[str]:
        raise NotImplementedError

    def rollback(self, to: str) -> list[str]:
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        return os.environ

    def calls(self) -> Optional[int]:
        """Module calls of the last command."""
        return None

    def answers(self) -> set[str]:
        return {version_at(self.url) for _time in range(self.asked)}


class Ours(Peer):
    name = "runbook"

    def __init__(self, site: Plays, url: str = "", kept: bool = True, **given: Any) -> None:
        self.site = site
        self.url = url or site.front_url
        self.kept = kept
        self.given = {"accounting_requests_per_second": 0, "test_start_seconds": START_SECONDS, **given}
        self.counted = site.directory / "calls"

    def release(self, version: str, **faults: Any) -> None:
        self.site.release(version, **faults)

    def deploy(self, version: str) -> list[str]:
        return self.site.command("deploy", app_version=version, **self.given)

    def rollback(self, to: str) -> list[str]:
        return self.site.command("rollback", app_reason="a bench", **self.given)

    def environment(self) -> Mapping[str, str]:
        self.counted.unlink(missing_ok=True)
        count = {"ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback"), "ANSIBLE_CALLBACKS_ENABLED": "calls"}
        return {**self.site.environment(), **count, "BENCH_CALLS": str(self.counted)}

    def calls(self) -> int:
        return self.counted.stat().st_size if self.counted.exists() else 0


class Lane(NamedTuple):
    title: str
    work: str  # what everybody does
    peers: list[Peer]  # the first is ours
    absent: tuple[str, ...] = ()  # peers that could not take part, and why
    more: Optional[Callable[[int], str]] = None  # another table, after so many rounds


# -- one command, and what users saw of it ------------------------------------------------------------------------


class Seen(NamedTuple):
    cost: Cost
    code: int
    output: str
    answers: list[Answer]
    calls: Optional[int]

    @property
    def failed(self) -> int:
        return sum(1 for answer in self.answers if answer.problem)

    @property
    def gap(self) -> float:
        """The longest time in which nobody got an answer."""
        good = sorted(answer.ended for answer in self.answers if not answer.problem)
        return max((later - earlier for earlier, later in zip(good, good[1:])), default=float("inf"))


def observed(peer: Peer, command: list[str], wanted: str = "", **options: Any) -> Seen:
    """Run a command under the eyes of users. It has done its work when only ``wanted`` answers."""
    with clients(peer.url, CLIENTS, PAUSE, peer.kept) as users:
        time.sleep(0.5)
        cost, code, output = measured(command, peer.environment(), **options)
        if wanted and not code:
            cost = cost._replace(wall=cost.wall + until(peer, wanted, output))
        time.sleep(1.0)  # what comes after the end is seen too
    return Seen(cost, code, output, answers_of(users), peer.calls())


def until(peer: Peer, wanted: str, output: str) -> float:
    """Seconds until only ``wanted`` answers; 0 when it does at once."""
    began = late = time.monotonic()
    while (answered := peer.answers()) != {wanted}:
        late = time.monotonic()
        if late > began + SETTLE_SECONDS:
            raise SystemExit(f"{peer.name}: {sorted(answered)} answered, not {wanted}:\n{output}")
        time.sleep(0.05)
    return late - began


def done(peer: Peer, command: list[str], wanted: str) -> Seen:
    seen = observed(peer, command, wanted)
    if seen.code:
        raise SystemExit(f"{peer.name}: to {wanted} ended with {seen.code}:\n{seen.output}")
    return seen


# -- a lane -------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What came out for one peer."""

    deploys: list[Seen]
    rollbacks: list[Seen]
    killed: str = ""
    again: str = ""
    unhealthy: str = ""


def race(lane: Lane, rounds: int, outcomes: bool) -> dict[str, Found]:
    found = {peer.name: Found([], []) for peer in lane.peers}
    for peer in lane.peers:
        for version in (OLD, BASE):
            peer.release(version)
            done(peer, peer.deploy(version), version)
    for number in range(rounds):
        first = number % len(lane.peers)
        for peer in lane.peers[first:] + lane.peers[:first]:
            version = f"7.1.{number}"
            peer.release(version)
            deployed = done(peer, peer.deploy(version), version)
            restored = done(peer, peer.rollback(BASE), BASE)
            found[peer.name].deploys.append(deployed)
            found[peer.name].rollbacks.append(restored)
            say(
                f"  round {number + 1}  {peer.name:<24} deploy {deployed.cost.wall:6.2f} s, "
                f"rollback {restored.cost.wall:6.2f} s"
            )
    if outcomes:
        for peer in lane.peers:
            found[peer.name] = accidents(peer, found[peer.name])
            say(f"  {peer.name}: {', '.join(found[peer.name][2:])}")
    return found


def accidents(peer: Peer, found: Found) -> Found:
    """Killed in the middle, once more, and a release that never gets healthy."""
    killed, bad = "7.2.0", "7.3.0"
    names = {BASE: "the old", killed: "the new", bad: "the bad", "": "nobody"}

    def serving() -> str:
        answered = peer.answers()
        return " and ".join(names.get(version, version) for version in sorted(answered, reverse=True))

    peer.release(killed)
    whole = median([seen.cost for seen in found.deploys]).wall
    observed(peer, peer.deploy(killed), kill_after=whole / 2)
    time.sleep(whole)  # what goes on without it has ended then
    after = f"{serving()} serves"
    more = observed(peer, peer.deploy(killed))
    again = f"{'succeeds' if more.code == 0 else f'fails ({more.code})'}: {serving()} serves"
    peer.release(bad, never_ready=True)
    names[killed] = "the one before"
    seen = observed(peer, peer.deploy(bad))
    good = [answer.version for answer in seen.answers if not answer.problem]
    took = f"{good.count(bad)} of {len(seen.answers)} answers"
    said = "takes no traffic" if bad not in good else f"takes traffic ({took})"
    unhealthy = f"{said}; {'reported' if seen.code else 'not reported'}; then {serving()} serves"
    return found._replace(killed=after, again=again, unhealthy=f"{unhealthy}, {seen.failed} failed")


COLUMNS = (
    *("", "deploy, s", "ours to it", "CPU, s", "rollback, s", "ours to it", "module calls", "failed requests"),
    *("longest gap, s", "killed in the middle", "the same again", "a release that never gets healthy"),
)


def table(lane: Lane, found: Mapping[str, Found]) -> str:
    """Markdown."""
    ours = found[lane.peers[0].name]
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    for peer in lane.peers:
        theirs = found[peer.name]
        seen = [*theirs.deploys, *theirs.rollbacks]
        calls = "/".join(str(one[-1].calls) for one in (theirs.deploys, theirs.rollbacks) if one[-1].calls is not None)
        rows.append(
            (
                peer.name,
                spread([one.cost.wall for one in theirs.deploys]),
                ratio(ours.deploys, theirs.deploys) if theirs is not ours else "",
                f"{median([one.cost for one in theirs.deploys]).cpu:.1f}",
                spread([one.cost.wall for one in theirs.rollbacks]),
                ratio(ours.rollbacks, theirs.rollbacks) if theirs is not ours else "",
                calls,
                f"{sum(one.failed for one in seen)} of {sum(len(one.answers) for one in seen)}",
                f"{max(one.gap for one in seen):.2f}",
                *(theirs.killed, theirs.again, theirs.unhealthy),
            )
        )
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    notes = [f"- {peer.name} does not do: {peer.lacks}" for peer in lane.peers if peer.lacks]
    notes += [f"- {text}" for text in lane.absent]
    return "\n".join([f"### {lane.title}", "", lane.work, "", *lines, "", *notes]).rstrip() + "\n"


def spread(values: list[float]) -> str:
    """The median, and from what to what."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def ratio(ours: list[Seen], theirs: list[Seen]) -> str:
    return f"{median([one.cost for one in ours]).wall / median([one.cost for one in theirs]).wall:.2f}"


Maker = Callable[[Path], AbstractContextManager[Lane]]


def run(name: str, makers: list[Maker], rounds: int, directory: Path) -> None:
    """The places of a lane, one after the other; accidents happen in the last one only."""
    tables = []
    for make in makers:
        busy = os.getloadavg()[0]
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=directory) as place, make(Path(place)) as lane:
            say(lane.title)
            found = race(lane, rounds, outcomes=make is makers[-1])
            tables.append(table(lane, found))
            if lane.more:
                tables.append(lane.more(rounds))
        tables.append(
            f"Medians of {rounds} rounds (least to most), {os.cpu_count()} cores, load before {busy:.1f}: on a busy "
            "machine ratios say little. CPU is that of the command and of what it waited for.\n"
        )
    local.write(directory / f"{name}.md", "\n".join(tables))
    say("\n" + "\n".join(tables))
