# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The journal as objects of a namespace of Kubernetes, so that nothing needs a directory on a state host:

* Lease ``<app>-runbook``: the lease, with run, fencing number, holder and reason as annotations,
* ConfigMap ``<app>-run-<n>``: intents and results of run n; of finished runs only the last KEEP_RUNS have one,
* ConfigMaps ``<app>-history-<k>``: the records of finished runs, in chunks of which only the last one still grows.

A directory has one lock, under which "the lease is ours" and what is written are one thing. Here every object is
changed by compare-and-swap of its resourceVersion, and the lease is the last judge: the last write of every change is
the lease, against the resourceVersion that it had when it was found to be ours. So whoever lost it meanwhile never
reports success. What it can leave behind before it hears that is harmless:

* Lines of its own run. A run that was taken over is settled from what its successor read, and nobody reads them again.
* A run that it began. Its number may be that of its successor, which then writes its own over it; both can't succeed.
* A record. A run has one record for ever: whoever comes second to write it fails. That is either the old holder, or
  its successor, whose plan is stale then. For this the chunks are one line: a chunk is closed by a compare-and-swap
  before the next one is made.

The order is that of ``Rules``: a crash between two writes leaves at most an unfinished run, which the next one settles.
A write whose answer got lost is looked for and tried again, because a compare-and-swap can't be made twice.

The one clock is the ``Date`` of the API server's answers, never that of the machine this runs on. It has whole seconds
only, so a lease may end a second early, of ten at least; where there are several API servers, their clocks must agree.
Private: may change at any time.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Callable, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _journal, _kubernetes_api
from ansible_collections.signalbox.runbook.plugins.module_utils import _kubernetes_objects as objects
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._journal import (
    Record,
    Rules,
    line,
    lost,
    parse_lines,
    stale,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._kubernetes_api import (
    Api,
    ConflictError,
    Object,
    UnreachableError,
)

KEEP_RUNS = 50
CHUNK_BYTES = 256 * 1024  # of 1 MiB that a ConfigMap may have
TRIES = 20
RUN, HOLDER, REASON, ENVIRONMENT = (objects.PREFIX + word for word in ("run", "holder", "reason", "environment"))
WRITES = objects.PREFIX + "writes"  # of the lease: a write that says nothing new is none to the API server
TOLD = (RUN, objects.FENCE, HOLDER, REASON, ENVIRONMENT, WRITES)
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
LINES = "lines.jsonl"


# The options of the module kubernetes_journal, which the controller's own calls are completed by as well.
ARGUMENTS: dict[str, dict[str, Any]] = {**_kubernetes_api.OPTIONS, **_journal.OPTIONS}


def call(given: Mapping[str, Any]) -> Record:
    """What one call of the module kubernetes_journal returns."""
    with _kubernetes_api.connected_by(given) as api:
        rules = Rules(Objects(api, given["application"], given["environment"]))
        return _journal.answer(rules, given, f"namespace {given['namespace']}")


class Objects:
    """The store that is a namespace."""

    def __init__(
        self, api: Api, application: str, environment: str, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.api = api
        self.application = application
        self.environment = environment
        self.sleep = sleep
        self._there: Optional[Object] = None  # the Lease as it was when it was last read or written
        self._kept: Optional[Record] = None  # what this change wrote into it
        self._confirmed = True  # whether the Lease was the last thing written
        self._finished: set[int] = set()

    def clock(self) -> float:
        if self.api.answered_at is None:
            self.api.get("Lease", self._name("runbook"))
        if self.api.answered_at is None:
            raise RunbookError(
                f"{self.api.cluster.server} answers without a Date header, which is the clock of the lease; something "
                "between here and the API server takes it away"
            )
        return self.api.answered_at

    # -- reading --------------------------------------------------------------------------------------------------

    def last_lease(self) -> Optional[Record]:
        self._there = self.api.get("Lease", self._name("runbook"))
        if self._there is not None:
            return self._record(self._there)
        # Somebody deleted it. Fencing numbers must not begin again: every host would refuse them.
        runs = self.runs()
        opening = self.events(runs[-1])[:1] if runs else []
        return {"run": runs[-1], "fence": opening[0]["fence"], "released": True} if opening else None

    def runs(self) -> list[int]:
        return sorted(_numbered(self._find("run", metadata_only=True)))

    def events(self, run: int) -> list[Record]:
        return self._lines(self._run(run))

    def history(self) -> list[Record]:
        return [record for chunk in self._chunks() for record in self._lines(chunk)]

    # -- changing -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def changing(self, beginning: bool = False) -> Iterator[None]:
        self._kept, self._confirmed = None, True
        yield
        self._judge()

    def keep_lease(self, lease: Record) -> None:
        before = self._there
        for _try in range(TRIES):
            try:
                self._there = self._put(self._lease(lease, before))
                break
            except ConflictError:
                there = self.last_lease()
                if self._there is None or before is None or _content(self._there) != _content(before):
                    if before is None or self._record(before)["fence"] != lease["fence"]:
                        raise stale((there or {}).get("run")) from None
                    raise lost(lease["run"], lease["fence"], there) from None
                before = self._there  # somebody put a label on it, say: it is as it was
        else:
            raise self._restless("Lease", "runbook")
        self._kept, self._confirmed = lease, True
        if lease["released"]:
            with contextlib.suppress(RunbookError):  # the run has ended well; the end of the next one tries again
                self._forget_old_runs()

    def begin(self, run: int, events: Sequence[Record]) -> None:
        self._confirmed = False
        wanted = self._config_map("run", run, "".join(map(line, events)))
        try:
            self._put(wanted)
        except ConflictError:
            # By an opening that took the lease before us, came to a halt, and was taken over: it can't succeed.
            self._judge()
            self._confirmed = False
            self._put(_over(self._run(run), wanted["data"][LINES]))

    def add(self, run: int, events: Sequence[Record]) -> None:
        if not events:
            return
        self._confirmed = False
        for _try in range(TRIES):
            there = self._run(run)
            self._lines(there)
            with contextlib.suppress(ConflictError):
                self._put(_over(there, there["data"][LINES] + "".join(map(line, events))))
                return
        raise self._restless("ConfigMap", "run", run)

    def add_history(self, records: Sequence[Record]) -> None:
        if not records:
            return
        self._confirmed = False
        new = "".join(map(line, records))
        for _try in range(TRIES):
            chunks = self._chunks()
            self._finished = {record["run"] for chunk in chunks for record in self._lines(chunk)}
            ended = self._finished & {record["run"] for record in records}
            if ended:
                self._judge()  # the old holder hears that it is one
                raise stale(min(ended))
            with contextlib.suppress(ConflictError):
                last = chunks[-1] if chunks else None
                if last is None or last.get("immutable"):
                    self._put(self._config_map("history", len(chunks) + 1, new))
                    return
                if len((last["data"][LINES] + new).encode()) <= CHUNK_BYTES:
                    self._put(_over(last, last["data"][LINES] + new))
                    return
                self._put({**last, "kind": "ConfigMap", "immutable": True})
        raise self._restless("ConfigMap", "history", len(chunks))

    def _judge(self) -> None:
        """Whether the lease still is what this change found or made of it."""
        if self._confirmed:
            return
        if self._kept is not None:
            self.keep_lease(self._kept)
        elif self._there is not None:
            self.keep_lease(self._record(self._there))

    # -- objects --------------------------------------------------------------------------------------------------

    def _name(self, *parts: str) -> str:
        return objects.name(self.application, *parts)

    def _find(self, part: str, metadata_only: bool = False) -> list[Object]:
        return self.api.find(
            "ConfigMap", {**objects.labels(self.application), objects.PART: part}, metadata_only=metadata_only
        )

    def _run(self, run: int) -> Object:
        return self._present(self.api.get("ConfigMap", self._name("run", str(run))), "run", run)

    def _chunks(self) -> list[Object]:
        found = _numbered(self._find("history"))
        return [self._present(found.get(number), "history", number) for number in range(1, max(found, default=0) + 1)]

    def _present(self, found: Optional[Object], *parts: Any) -> Object:
        if found is None:
            raise RunbookError(
                f"ConfigMap {self._name(*map(str, parts))} of the journal is gone from namespace {self.api.namespace}: "
                "somebody deleted it. Bring it back from a backup"
            )
        return found

    def _lines(self, obj: Object) -> list[Record]:
        try:
            text = obj["data"][LINES]
            if text and not text.endswith("\n"):
                raise ValueError("the last line is cut short")
            return parse_lines(text)
        except (KeyError, TypeError, ValueError) as error:
            raise RunbookError(
                f"ConfigMap {obj['metadata']['name']} of the journal in namespace {self.api.namespace} was changed by "
                f"hand: its {LINES} must be lines of JSON ({error}). Bring it back from a backup"
            ) from None

    def _restless(self, kind: str, *parts: Any) -> RunbookError:
        return RunbookError(f"{kind} {self._name(*map(str, parts))} is changed by others all the time")

    def _metadata(self, part: str, *number: str) -> Object:
        mine = {objects.APP: self.application, objects.PART: part}
        labels = {**objects.MANAGED, "app.kubernetes.io/name": self.application, **mine}
        return {"name": self._name(part if number else "runbook", *number), "labels": labels}

    def _config_map(self, part: str, number: int, text: str) -> Object:
        return {"kind": "ConfigMap", "metadata": self._metadata(part, str(number)), "data": {LINES: text}}

    def _lease(self, lease: Record, before: Optional[Object]) -> Object:
        told = {
            RUN: str(lease["run"]),
            objects.FENCE: str(lease["fence"]),
            HOLDER: json.dumps(lease["holder"], sort_keys=True),
            REASON: lease["reason"],
            ENVIRONMENT: self.environment,
            WRITES: "1",
        }
        metadata = {**self._metadata("lease"), "annotations": told}
        transitions = 0
        if before is not None:
            there = before["metadata"]
            told[WRITES] = str(int(there["annotations"][WRITES]) + 1)
            both = {word: {**(there.get(word) or {}), **metadata[word]} for word in ("labels", "annotations")}
            metadata = {**there, **both}
            new = self._record(before)["fence"] != lease["fence"]
            transitions = int(before["spec"].get("leaseTransitions") or 0) + new
        until = lease["expires"] if lease["released"] else lease["renewed"]
        spec = {
            "acquireTime": _time(lease["since"]),
            "renewTime": _time(until),
            "leaseDurationSeconds": max(1, math.ceil(lease["expires"] - until)),
            "leaseTransitions": transitions,
        }
        if not lease["released"]:
            who = lease["holder"]
            spec["holderIdentity"] = f"{who.get('user', '?')}@{who.get('host', '?')}, run {lease['run']}"
        return {"kind": "Lease", "metadata": metadata, "spec": spec}

    def _record(self, obj: Object) -> Record:
        """The lease that the object is. What holds it is gone when nobody has it, as it is for every Lease."""
        told, spec = obj["metadata"].get("annotations") or {}, obj.get("spec") or {}
        held = str(told.get(ENVIRONMENT) or self.environment)
        if held != self.environment:
            raise RunbookError(
                f"namespace: {self.api.namespace} has the journal of {self.application} {held}, not of "
                f"{self.environment}; give every environment a namespace of its own"
            )
        try:
            renewed, _writes = _seconds(spec["renewTime"]), int(told[WRITES])
            return {
                "run": int(told[RUN]),
                "fence": int(told[objects.FENCE]),
                "holder": dict(json.loads(told[HOLDER])),
                "reason": told[REASON],
                "since": _seconds(spec["acquireTime"]),
                "renewed": renewed,
                "expires": renewed + int(spec["leaseDurationSeconds"]),
                "released": not spec.get("holderIdentity"),
            }
        except (KeyError, TypeError, ValueError) as error:
            name = obj["metadata"]["name"]
            raise RunbookError(
                f"Lease {name} in namespace {self.api.namespace} was changed by hand: it must have the annotations "
                f"run, fence, holder, reason and writes of {objects.PREFIX} and the times of a Lease ({error!r}). Put "
                f"them right, or delete it while no run goes on: kubectl -n {self.api.namespace} delete lease {name}"
            ) from None

    def _put(self, obj: Object) -> Object:
        """Create or change it, once. Without an answer nobody knows whether it was done: then a second try says so."""
        change = self.api.replace if obj["metadata"].get("resourceVersion") else self.api.create
        for tried in range(3):
            try:
                return change(obj)
            except UnreachableError:
                if tried == 2:
                    raise
                self.sleep(1)
            except ConflictError:
                there = self.api.get(obj["kind"], obj["metadata"]["name"]) if tried else None
                if there is None or _content(there) != _content(obj):
                    raise
                return there
        raise NotImplementedError  # the third try returns or raises

    def _forget_old_runs(self) -> None:
        there = _numbered(self._find("run", metadata_only=True))
        for run in sorted(there)[:-KEEP_RUNS]:
            if run in self._finished:
                self.api.delete("ConfigMap", there[run])


def _numbered(found: Sequence[Object]) -> dict[int, Object]:
    numbers = {one["metadata"]["name"].rpartition("-")[2]: one for one in found}
    return {int(number): one for number, one in numbers.items() if number.isdigit()}


def _over(there: Object, text: str) -> Object:
    return {**there, "kind": "ConfigMap", "data": {**there["data"], LINES: text}}


def _content(obj: Object) -> Any:
    """What makes two of our objects the same."""
    told = obj["metadata"].get("annotations") or {}
    return obj.get("spec"), obj.get("data"), bool(obj.get("immutable")), [told.get(word) for word in TOLD]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime(TIME)


def _seconds(text: str) -> float:
    return datetime.strptime(text, TIME).replace(tzinfo=timezone.utc).timestamp()
