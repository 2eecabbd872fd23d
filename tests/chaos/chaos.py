"""What the tests of this directory do to a run: look at its journal while it goes on, and kill it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, NamedTuple, Optional

from runbook_site import Site, version_at

LIMIT_SECONDS = 120.0


def wait_for(what: str, condition: Callable[[], Any], seconds: float = LIMIT_SECONDS, every: float = 0.005) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(every)


# -- the journal, past the collection ---------------------------------------------------------------------------


def run_numbers(site: Site) -> list[int]:
    return site.run_numbers()


def events(site: Site, run: int) -> list[dict[str, Any]]:
    return site.events(run)


def unfinished(site: Site) -> list[int]:
    finished = {record["run"] for record in site.history()}
    return [run for run in run_numbers(site) if run not in finished]


def await_event(site: Site, after: int, chosen: Callable[[dict[str, Any]], bool]) -> int:
    """The number of the first run after ``after``, as soon as its journal has such an event."""

    def seen() -> Optional[int]:
        for run in run_numbers(site):
            if run > after:
                with contextlib.suppress(ValueError):  # the last line is still being written
                    return run if any(map(chosen, events(site, run))) else None
        return None

    return int(wait_for("the awaited event", seen))


def intends(phase: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["event"] == "intent" and event["phase"] == phase


class Moment(NamedTuple):
    """One write to the journal: how many lines it has then, what it says, and for how long nothing follows."""

    lines: int
    name: str
    event: str
    phase: str
    seconds: float


def moments(journal: list[dict[str, Any]]) -> list[Moment]:
    """Every point at which a run can be interrupted, out of the journal of one that was not.

    A write begins with the result of the step before: nothing happens between its lines.
    """
    found = []
    for number, event in enumerate(journal, 1):
        if number < len(journal) and journal[number]["event"] != "result":
            continue
        following = journal[number]["at"] if number < len(journal) else event["at"]
        name = f"line {number} of {len(journal)}: {event['event']} {event.get('step', '')}".rstrip()
        found.append(Moment(number, name, event["event"], event.get("phase", ""), following - event["at"]))
    return found


# -- killing ----------------------------------------------------------------------------------------------------


def kill_main(process: subprocess.Popen[str]) -> None:
    """Only ansible-playbook: its workers and their modules live on as zombies of a dead run, and it stays unreaped."""
    os.kill(process.pid, signal.SIGKILL)


def kill_all(process: subprocess.Popen[str]) -> None:
    """Everything that ansible-playbook started, as when its container ends. Workers have sessions of their own, so
    the group would not do; they are stopped first, so that none is born meanwhile."""
    stopped: set[int] = set()
    while True:
        new = ({process.pid} | descendants(process.pid)) - stopped
        if not new:
            break
        for pid in new:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        stopped |= new
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    new = [pid]
    while new:
        new = [child for parent in new for child in children.get(parent, [])]
        found.update(new)
    return found


def kill_at(
    site: Site, moment: Moment, kill: Callable[[subprocess.Popen[str]], None], verb: str, **variables: Any
) -> subprocess.Popen[str]:
    """Start a run and kill it when its journal is at ``moment``: at once, or in the middle of what it does then when
    everything is killed. The caller reaps it."""
    last = max(run_numbers(site), default=0)
    process = site.start(verb, **variables)

    def there() -> bool:
        assert process.poll() is None, f"{moment.name}: the run ended before:\n{process.communicate()[0]}"
        with contextlib.suppress(ValueError):  # the last line is still being written
            return last + 1 in run_numbers(site) and len(events(site, last + 1)) >= moment.lines
        return False

    wait_for(moment.name, there)
    if kill is kill_all:
        time.sleep(moment.seconds / 2)
    kill(process)
    return process


# -- what users see ---------------------------------------------------------------------------------------------


class Users:
    """Somebody asks all the time, each time on a new connection."""

    def __init__(self, site: Site, every: float = 0.1) -> None:
        self.url = site.front_url
        self.every = every
        self.seen: Counter[str] = Counter()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        while not self._ended.wait(self.every):
            self.seen[version_at(self.url) or "no answer"] += 1

    def __enter__(self) -> Users:
        self._thread.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._ended.set()
        self._thread.join(timeout=30)


def one_version(site: Site, *known: str) -> str:
    """The only version that answers through the router; while traffic is moving that takes a moment."""

    def uniform() -> str:
        answers = site.answers(6)
        assert answers <= set(known), f"{answers} answer, known are {known}"
        return answers.pop() if len(answers) == 1 else ""

    return str(wait_for("one version answers", uniform, 15, 0.1))


def agrees(site: Site, version: str, when: str) -> None:
    """``version`` answers everywhere, and the journal, the slots and the router say the same."""
    assert site.answers() == {version}, when
    assert site.live() == version, when
    assert unfinished(site) == [], when
    live = [record for record in site.history() if record["outcome"] in ("deployed", "restored")]
    slot = live[-1]["to"]["slot"]
    before = {record["to"]["version"] for record in live[:-1]}
    for target, versions in site.slots().items():
        idle = "green" if slot == "blue" else "blue"
        assert versions[slot] == version, f"{when}: {target} {versions}"
        assert versions[idle] in {"", *before}, f"{when}: a stray slot on {target}: {versions}"
    looks = site.start("status")  # both only read
    again = site.deploy(version)
    said = looks.communicate(timeout=60)[0]
    assert "all agree" in said, f"{when}:\n{said}"
    assert again.code == 0 and "nothing to do" in again.output, f"{when}:\n{again.output}"
