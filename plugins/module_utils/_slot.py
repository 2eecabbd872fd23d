# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A slot of this host: one release that runs beside another. Private: may change at any time.

``slots/<slot>.json`` is written before anything starts and removed after everything has ended, so it always names
at least what may be running; a run that was killed half-way is cleaned up from it.
"""

from __future__ import annotations

import os
import pwd
import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable, NoReturn, Optional, Protocol

from ansible_collections.signalbox.runbook.plugins.module_utils import _apt
from ansible_collections.signalbox.runbook.plugins.module_utils._connections import (
    Holder,
    established,
    holders,
    unit_of,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._container import Contained, Containers, contained
from ansible_collections.signalbox.runbook.plugins.module_utils._docker import Container
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._exclusive import split_states
from ansible_collections.signalbox.runbook.plugins.module_utils._files import (
    LOG_LINES,
    PathLike,
    fsync_directory,
    read_json,
    write_atomic,
    write_json,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._probe import Endpoint, Result, ask, endpoint
from ansible_collections.signalbox.runbook.plugins.module_utils._release import (
    read_manifest,
    refuse_changed,
    secret_values,
)

SLOTS = ("blue", "green")
POLL_SECONDS = 0.2
PROVE_SECONDS = 10.0
ASK_SECONDS = 30.0  # for what dpkg says of packages, which takes a tenth of a second
# A process manager looks at its processes about once a second; only what takes longer than this is stuck.
GRACE_SECONDS = 10.0
MARK = "; signalbox.runbook, slots of"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\Z")


class Manager(Protocol):
    """What runs the processes: supervisord or systemd.

    ``start`` and ``stop`` only give the order; ``info`` tells what became of it (state, pid, since, error, or None for
    a program that is not known), in the words of supervisord.
    """

    kind: str  # as in runtime_host_manager
    name: str  # in sentences
    suffix: str
    mode: int
    stable_seconds: float

    def version(self) -> str: ...
    def info(self, name: str) -> Optional[dict[str, Any]]: ...
    def refused(self, names: Sequence[str]) -> dict[str, str]: ...
    def reload(self) -> Any: ...
    def forget(self) -> None: ...
    def add(self, name: str) -> bool: ...
    def remove(self, name: str) -> bool: ...
    def start(self, name: str) -> None: ...
    def stop(self, name: str) -> None: ...
    def output_mark(self, name: str, path: Path) -> Any: ...
    def output(self, name: str, path: Path, lines: int, mark: Any = 0) -> list[str]: ...
    def where(self, name: str, path: Path) -> str: ...

    def render(
        self,
        name: str,
        command: Sequence[str],
        directory: str,
        environment: Mapping[str, str],
        logfile: str,
        stop_seconds: float,
        after: Sequence[str] = (),
        user: str = "",
        always: bool = False,
    ) -> str: ...


Ask = Callable[..., Sequence[Result]]
Answers = list[dict[str, Any]]


@dataclass(frozen=True)
class Service:
    """One process of a slot: where it listens, what proves it, and how long its start and its end may take."""

    name: str
    port: int
    probes: tuple[Endpoint, ...] = ()
    start_seconds: float = 60.0
    stop_seconds: float = 10.0
    drain_seconds: float = 10.0
    container: Optional[Contained] = None


def service(raw: Mapping[str, Any]) -> Service:
    """The service that ``raw`` describes; ``{port}`` in the URLs of its probes becomes its port."""
    name, port = raw.get("name"), raw.get("port")
    if not isinstance(name, str) or not _NAME.match(name):
        raise RunbookError(f"services: name {name!r} must be letters, digits, dots, hyphens and underscores")
    if not isinstance(port, int) or not 1 <= port <= 65535:
        raise RunbookError(f"service {name}: port {port!r} must be a number from 1 to 65535")
    limits = {}
    for key in ("start_seconds", "stop_seconds", "drain_seconds"):
        if raw.get(key) is not None:
            limits[key] = float(raw[key])
            if not 0 <= limits[key] < float("inf"):
                raise RunbookError(f"service {name}: {key} {raw[key]!r} must be a number of seconds, 0 or more")
    return Service(
        name, port, probes(raw.get("probes") or (), port), **limits, container=contained(raw.get("container"))
    )


def probes(raws: Sequence[Mapping[str, Any]], port: int) -> tuple[Endpoint, ...]:
    return tuple(endpoint({**raw, "url": str(raw.get("url") or "").replace("{port}", str(port))}) for raw in raws)


def services_from(raws: Sequence[Mapping[str, Any]]) -> list[Service]:
    """The services that a slot is to run, in start order."""
    services = [service(raw) for raw in raws]
    if not services:
        raise RunbookError("services is empty; name at least one service to start")
    for key in ("name", "port"):
        values = [getattr(one, key) for one in services]
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise RunbookError(f"services: {key} {twice[0]} is given more than once")
    return services


def carrying(services: Sequence[Service], containers: Mapping[str, Optional[Contained]]) -> list[Service]:
    """The services with the containers that they run in, where they run in one."""
    return [replace(one, container=containers.get(one.name)) for one in services]


def refuse_live(slot: str, live_slot: str, what: str) -> None:
    if live_slot == slot:
        raise RunbookError(f"{slot} takes the traffic, so it is not {what}; shift the traffic away first")


def refuse_other(slot: str, record: Optional[dict[str, Any]], release: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a slot that holds just this release."""
    if record is None or record["release"] != release["id"]:
        holds = record["release"] if record else "nothing"
        raise RunbookError(f"{slot} holds {holds}, not {release['id']}: somebody changed it during the run")
    return record


def joined(wanted: Sequence[Service], held: Sequence[Service], only: Collection[str]) -> list[Service]:
    """What a slot runs once ``only`` have joined the services that it holds, where these really listen."""
    there = {one.name: one for one in held}
    return [
        one if one.name in only else replace(one, port=there[one.name].port, container=there[one.name].container)
        for one in wanted
        if one.name in only or one.name in there
    ]


def with_service(results: Sequence[Result], names: Sequence[str]) -> Answers:
    return [{**result.to_dict(), "service": name} for result, name in zip(results, names)]


def in_use(service: str, held: Holder) -> str:
    return f"port {held.port} of {service} is already in use by {held}"


def predicted(params: Mapping[str, Any], before: dict[str, Any], changed: bool, runs: str) -> dict[str, Any]:
    """What a module in check mode says of its slot as it would be; ``runs`` is the word for a service that does."""
    if not changed:
        return before
    only = params["only"]
    left = {name: one for name, one in before["services"].items() if name not in only} if only else {}
    if params["state"] == "started":
        started = {one["name"]: {"port": one["port"], "state": runs} for one in params["services"]}
        joined = {**left, **{name: one for name, one in started.items() if not only or name in only}}
        release = params["release"]
        return {**before, "release": release["id"], "version": release["version"], "services": joined}
    return {**before, "services": left} if left else {**before, "release": "", "version": "", "services": {}}


def iso(seconds: float) -> str:
    """A time as text, UTC; empty for never."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if seconds else ""


class Slot:
    """One slot of one application; everything it talks to is passed in."""

    def __init__(
        self,
        home: PathLike,
        application: str,
        name: str,
        manager: Manager,
        conf_dir: PathLike,
        user: str = "",
        interval_seconds: float = 0.5,
        ask: Ask = ask,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
        established: Callable[[Collection[int]], int] = established,
        holders: Callable[[Collection[int]], list[Holder]] = holders,
        run: _apt.Run = _apt.run_bounded,
        containers: Optional[Containers] = None,
    ) -> None:
        if name not in SLOTS:
            raise RunbookError(f"slot {name!r} must be one of {', '.join(SLOTS)}")
        if not _NAME.match(application):
            raise RunbookError(f"application {application!r} must be letters, digits, dots, hyphens and underscores")
        self.home = Path(home)
        self.application = application
        self.name = name
        self.manager = manager
        self.conf_dir = Path(conf_dir)
        self.user = user
        self.interval_seconds = interval_seconds
        self.ask = ask
        self.clock = clock
        self.sleep = sleep
        self.now = now
        self.established = established
        self.holders = holders
        self.run = run
        self.containers = containers or Containers(str(home), application)
        self._log_starts: dict[str, Any] = {}

    # -- what it holds --------------------------------------------------------------------------------------------

    @property
    def _record_path(self) -> Path:
        return self.home / "slots" / f"{self.name}.json"

    def _program(self, service: str) -> str:
        return f"{self.application}-{service}-{self.name}"

    def _tree(self, release: str) -> Path:
        return self.home / "releases" / release

    def _conf(self, service: str) -> Path:
        return self.conf_dir / f"{self._program(service)}{self.manager.suffix}"

    def _log(self, service: str) -> Path:
        return self.home / "log" / f"{service}-{self.name}.log"

    def _tail(self, service: str, release: str, lines: int = LOG_LINES, start: Any = 0) -> list[str]:
        """Last lines of a service's log. What the application prints of its secrets goes no further than its log."""
        found = self.manager.output(self._program(service), self._log(service), lines, start)
        for value in secret_values(self.home / "releases" / release, service) if release else ():
            found = [line.replace(value, "********") for line in found]
        return found

    def record(self) -> Optional[dict[str, Any]]:
        """What was last started here and not stopped since."""
        try:
            record = read_json(self._record_path)
            if record is not None:
                self._recorded(record)
                str(record["application"] + record["release"] + record["version"] + record["user"])
        except (ValueError, TypeError, KeyError, AttributeError, RunbookError) as error:
            raise RunbookError(
                f"{self._record_path} is damaged ({error}): stop the {self.name} processes of {self.application} in "
                f"{self.manager.name} by hand, then remove that file"
            ) from None
        if record is not None and record["application"] != self.application:
            raise RunbookError(
                f"{self._record_path} belongs to {record['application']}, not to {self.application}: give every "
                "application its own app_home"
            )
        kind = record.get("manager", "supervisor") if record is not None else self.manager.kind
        if kind != self.manager.kind:
            raise RunbookError(
                f"{self.name} was started under {kind}, but runtime_host_manager is {self.manager.kind}: set it back, "
                f"or stop the {self.name} processes of {self.application} by hand and remove {self._record_path}"
            )
        return dict(record) if record is not None else None

    def refused(self, services: Sequence[str]) -> str:
        """Why this slot can run none of ``services`` under this process manager; empty when it can."""
        try:
            self.record()
        except RunbookError as error:
            return str(error)
        refused = self.manager.refused([self._program(name) for name in services])
        return next(iter(refused.values()), "") or next(filter(None, map(self._foreign, services)), "")

    @staticmethod
    def _recorded(record: Optional[Mapping[str, Any]]) -> list[Service]:
        return [service(raw) for raw in record["services"]] if record else []

    def _running(self, services: Sequence[Service]) -> dict[str, dict[str, Any]]:
        absent = {"state": "ABSENT", "pid": 0, "since": 0, "error": ""}
        return {one.name: self.manager.info(self._program(one.name)) or absent for one in services}

    def info(self, lines: int = 0) -> dict[str, Any]:
        """release, version, and state, pid, since and port of each service; ``log`` when ``lines`` are asked for."""
        record = self.record()
        services = self._recorded(record)
        return self._described(record, self._running(services), lines)

    def _described(
        self, record: Optional[Mapping[str, Any]], running: Mapping[str, Mapping[str, Any]], lines: int = 0
    ) -> dict[str, Any]:
        described: dict[str, Any] = {
            "release": record["release"] if record else "",
            "version": record["version"] if record else "",
            "services": {
                one.name: {
                    "state": running[one.name]["state"],
                    "pid": running[one.name]["pid"],
                    "since": iso(running[one.name]["since"] if running[one.name]["pid"] else 0),
                    "port": one.port,
                }
                for one in self._recorded(record)
            },
        }
        if lines:
            described["log"] = {name: self._tail(name, described["release"], lines) for name in described["services"]}
        return described

    def survey(self, raw_services: Sequence[Mapping[str, Any]], answering: bool, lines: int = 0) -> dict[str, Any]:
        """``info`` with a verdict: each probe of a running service is asked once. Nothing here is an error.

        ``answering`` says whether the process manager does. ``busy`` names the declared ports that others listen on.
        Whether what is exclusive runs is told by itself: most of the time it belongs to the other slot.
        """
        empty = {"running": False, "healthy": False, "exclusive": {}, "answers": [], "busy": [], "problem": ""}
        try:
            record = self.record()
            services = self._recorded(record)
            unknown = {one.name: {"state": "UNKNOWN", "pid": 0, "since": 0} for one in services}
            described = self._described(record, self._running(services) if answering else unknown, lines)
        except RunbookError as error:
            return {**self._described(None, {}, lines), **empty, "problem": str(error)}
        states = {name: one["state"] for name, one in described["services"].items()}
        # The process listens where it was told to at its start, whatever the inventory says today.
        declared = {raw["name"]: raw for raw in raw_services}
        asked = [
            (one.name, replace(probe, successes=1))
            for one in services
            if states[one.name] == "RUNNING" and one.name in declared
            for probe in probes(declared[one.name].get("probes") or (), one.port)
        ]
        answers = with_service(self.ask([probe for _name, probe in asked]), [name for name, _probe in asked])
        try:
            answers += self._package_problems(described["release"])
            answers += self._container_problems(services, states)
        except RunbookError as error:
            return {**described, **empty, "problem": str(error)}
        running, exclusive = split_states(raw_services, {name: state == "RUNNING" for name, state in states.items()})
        ours = {one.port for one in services if states[one.name] not in ("ABSENT", "UNKNOWN")}
        ports = {int(raw["ports"][self.name]): name for name, raw in declared.items() if raw.get("ports")}
        busy = [in_use(ports[held.port], held) for held in self.holders([p for p in ports if p not in ours])]
        return {
            **described,
            "running": running,
            "healthy": running and all(answer["passed"] for answer in answers),
            "exclusive": exclusive,
            "answers": answers,
            "busy": busy,
            "problem": "",
        }

    # -- start ----------------------------------------------------------------------------------------------------

    def stands(self, release: Mapping[str, Any], services: Sequence[Service]) -> Optional[Answers]:
        """The passed probes when the slot already runs just this, healthy; otherwise None."""
        record = self.record()
        held = [(one.name, one.port, one.container) for one in self._recorded(record)]
        if record is None or held != [(one.name, one.port, one.container) for one in services]:
            return None
        if (record["release"], record["user"]) != (release["id"], self.user):
            return None
        if any(info["state"] != "RUNNING" for info in self._running(services).values()):
            return None
        if self._package_problems(release["id"]) or any(self.containers.problem(one.container) for one in services):
            return None
        asked = [(one.name, probe) for one in services for probe in one.probes]
        results = self.ask([probe for _name, probe in asked], interval_seconds=self.interval_seconds)
        passed = all(result.passed for result in results)
        return with_service(results, [name for name, _probe in asked]) if passed else None

    def start(
        self,
        release: Mapping[str, Any],
        services: Sequence[Mapping[str, Any]],
        live_slot: str = "",
        check_mode: bool = False,
        only: Collection[str] = (),
    ) -> dict[str, Any]:
        """Run ``release`` here: each service in the given order, proven by its probes before the next one starts.
        With ``only``, those beside the others of the same release, which are left alone.

        What failed is left as it is, so that it can be looked at.
        """
        began = self.clock()
        refuse_live(self.name, live_slot, "started anew")
        manifest = read_manifest(self._tree(release["id"])) if _RELEASE.match(str(release.get("id") or "")) else None
        wanted = carrying(services_from(services), self.containers.of(manifest, self.name))
        chosen = [one for one in wanted if not only or one.name in only]
        if only:
            wanted = joined(wanted, self._recorded(refuse_other(self.name, self.record(), release)), only)
        self.known(services)
        standing = self.stands(release, wanted)
        if standing is not None or check_mode:
            if standing is not None and not check_mode:
                self._note_restarts(wanted)
            changed = standing is None
            return {"changed": changed, "answers": standing or [], "seconds": round(self.clock() - began, 3)}
        self._refuse_unstaged(release, chosen)
        for one in chosen:
            if one.container and manifest:
                self.containers.require(one.container, manifest["services"][one.name], one.start_seconds)
        packages = {} if only else self._installable(release["id"])
        cut = self.stop(services, only=only)["connections_cut"]
        self._refuse_taken(chosen, packages)
        spent = self._install(release["id"], packages, chosen)
        if spent:  # a package may have started something
            self._refuse_taken(chosen, packages)
        self._write(release, wanted, chosen)
        self.manager.reload()
        answers: Answers = []
        pids: dict[str, int] = {}
        for one in chosen:
            answers += self._launch(one, release, pids, answers, spent.get(one.name, 0.0))
        for one in chosen:  # the start of a later one may have brought an earlier one down
            self._settle(one, release, pids, answers)
        self._note_restarts(wanted)
        seconds = round(self.clock() - began, 3)
        return {"changed": True, "answers": answers, "seconds": seconds, "connections_cut": cut}

    def prove(self, release: Mapping[str, Any], services: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """That the slot still runs just this release, every process and every probe; it changes nothing."""
        began = self.clock()
        record = refuse_other(self.name, self.record(), release)
        wanted = carrying(services_from(services), {one.name: one.container for one in self._recorded(record)})
        wrong = self._package_problems(release["id"])
        if wrong:
            diagnosis = [{key: one[key] for key in ("name", "kind", "problem", "fix")} for one in wrong]
            raise RunbookError(f"{wrong[0]['problem']}: somebody changed it during the run", diagnosis=diagnosis)
        running = self._running(wanted)
        pids = {name: info["pid"] for name, info in running.items()}
        answers: Answers = []
        for one in wanted:
            more = running[one.name].get("restarts", 0) - record.get("restarts", {}).get(one.name, 0)
            if more > 0:
                self._fail(
                    one, release, pids, answers, f"its process ended and was restarted, {more} times since its start"
                )
            self._settle(one, release, pids, answers)
            results = self.ask(
                one.probes,
                clock=self.clock,
                sleep=self.sleep,
                deadline_seconds=PROVE_SECONDS,
                interval_seconds=self.interval_seconds,
                stop=lambda one=one: self._ended(one, pids),
            )
            answers += with_service(results, [one.name] * len(results))
            if not all(result.passed for result in results):
                self._fail(one, release, pids, answers, self._ended(one, pids))
        return {"changed": False, "answers": answers, "seconds": round(self.clock() - began, 3)}

    def _note_restarts(self, services: Sequence[Service]) -> None:
        """How often each process had been restarted when the slot was proven: what comes after it, ``prove`` sees."""
        record = self.record() or {}
        restarts = {name: info.get("restarts", 0) for name, info in self._running(services).items()}
        if record and record.get("restarts", dict.fromkeys(restarts, 0)) != restarts:
            write_json(self._record_path, {**record, "restarts": restarts}, 0o600)

    def _refuse_unstaged(self, release: Mapping[str, Any], services: Sequence[Service]) -> None:
        if not _RELEASE.match(str(release.get("id") or "")):
            raise RunbookError(f"release.id {release.get('id')!r} must be letters, digits and . _ + -")
        if not self.conf_dir.is_dir():
            raise RunbookError(
                f"{self.conf_dir} is no directory: create it, and let {self.manager.name} read "
                f"*{self.manager.suffix} files from it"
            )
        tree = self._tree(release["id"])
        missing = [one.name for one in services if not (tree / one.name / "run").is_file()]
        if missing or not (tree / "manifest.json").is_file():
            what = f"has no service {', '.join(missing)}" if missing else "is not whole"
            raise RunbookError(f"release {release['id']} {what} in {tree}: stage it first")
        refuse_changed(tree)

        if self.user:
            self._refuse_user(release, [tree / one.name / "env" for one in services if not one.container])

    def _refuse_user(self, release: Mapping[str, Any], private: Sequence[Path]) -> None:
        """The service reads its environment itself, so that must belong to the user it runs as."""
        try:
            uid = pwd.getpwnam(self.user).pw_uid
        except KeyError:
            raise RunbookError(
                f"there is no user {self.user} on this host: create it, or change runtime_host_user"
            ) from None
        for path in private:
            if path.exists() and path.stat().st_uid != uid:
                raise RunbookError(
                    f"release {release['id']} was made for another user than {self.user} ({path}): deploy that version "
                    "again to make it anew"
                )

    def _container_problems(self, services: Sequence[Service], states: Mapping[str, str]) -> Answers:
        """In what the containers differ from those that were started, as answers of probes that failed."""
        found: Answers = []
        for one in services:
            problem = self.containers.problem(one.container, states[one.name] in ("STARTING", "RUNNING", "UNKNOWN"))
            if problem and one.container:
                name, fix = f"{one.name} container version", "Find out who changed it; a deploy starts it anew."
                result = Result(name, one.container.name, False, "", "", 0, 1, problem, "container", fix, {})
                found += with_service([result], [one.name])
        return found

    # -- packages -------------------------------------------------------------------------------------------------

    def _packages(self, release: str) -> dict[str, _apt.Package]:
        """Service to its package, of a release on disk."""
        return _apt.packages(read_manifest(self.home / "releases" / release)) if release else {}

    def _package_problems(self, release: str) -> Answers:
        """In what the installed packages differ from those of a release, as answers of probes that failed.

        Another version is called one, so that a deploy of what is live makes it anew.
        """
        wanted = self._packages(release)
        if not wanted:
            return []
        there = _apt.Apt(lambda: ASK_SECONDS, self.run).states([one.name for one in wanted.values()])
        found: Answers = []
        for service, one in wanted.items():
            if any(told["target"] == one.name for told in found):
                continue  # services share it
            state = there[one.name]
            word, problem = "version", _apt.difference(one, state)
            fix = "Find out who changed it; a deploy or a rollback installs the package of its release."
            if not problem and not state.held:
                word, fix = "hold", f"Run apt-mark hold {one.name}."
                problem = f"{one.name} {one.version} is not held any more, so an upgrade of the host may change it"
            if problem:
                name, evidence = f"{service} package {word}", {"dpkg": f"{state.want} {state.flag} {state.status}"}
                result = Result(
                    name, one.name, False, state.version, one.version, 0, 1, problem, "package", fix, evidence
                )
                found += with_service([result], [service])
        return found

    def _installable(self, release: str) -> dict[str, _apt.Package]:
        """The packages of a release, unless what runs beside it needs another version of one."""
        wanted = self._packages(release)
        if not wanted:
            return {}
        other = SLOTS[1 - SLOTS.index(self.name)]
        record = Slot(self.home, self.application, other, self.manager, self.conf_dir).record() or {"release": ""}
        beside = {one.name: one for one in self._packages(record["release"]).values()}
        for one in wanted.values():
            there = beside.get(one.name, one)
            if there.version != one.version:
                raise RunbookError(
                    f"{other} runs {one.name} {there.version}, and a host has one version of a package, so "
                    f"{one.version} can't be started beside it: app_strategy must be rolling or recreate"
                )
        return wanted

    def _install(
        self, release: str, packages: Mapping[str, _apt.Package], services: Sequence[Service]
    ) -> dict[str, float]:
        """Have the packages installed and held; how many seconds of its start that took each service."""
        if not packages:
            return {}
        limits = {one.name: one.start_seconds for one in services if one.name in packages}
        began = self.clock()
        apt = _apt.Apt(lambda: began + sum(limits.values()) - self.clock(), self.run, sleep=self.sleep)
        files = {one: self.home / "releases" / release / name / _apt.FILE for name, one in packages.items()}
        try:
            apt.ensure({path: one for one, path in files.items()})  # services may share one
        except RunbookError as error:
            raise RunbookError(f"nothing was started in {self.name}: {error}", **error.details) from None
        left, spent = self.clock() - began, {}
        for name, limit in limits.items():
            spent[name] = min(left, limit)
            left -= spent[name]
        return spent

    def _taken(self, services: Sequence[Service], packages: Mapping[str, _apt.Package]) -> list[str]:
        """The ports that others listen on, one sentence each; a unit that a package of ours brings has a cure."""
        found = []
        by_port = {one.port: one for one in services}
        for held in self.holders(list(by_port)):
            one = by_port[held.port]
            said, unit = in_use(one.name, held), unit_of(held.pid) if one.name in packages else ""
            if unit and unit in _apt.Apt(lambda: ASK_SECONDS, self.run).shipped(packages[one.name].name):
                said += (
                    f" of {unit}, which the package {packages[one.name].name} brings and starts: stop it for good with "
                    f"systemctl disable --now {unit}"
                )
            found.append(said)
        return found

    def _refuse_taken(self, services: Sequence[Service], packages: Mapping[str, _apt.Package]) -> None:
        taken = self._taken(services, packages)
        if taken:
            raise RunbookError(f"{'; '.join(taken)}; nothing was started in {self.name}", ports=taken)

    def _write(self, release: Mapping[str, Any], services: Sequence[Service], chosen: Sequence[Service]) -> None:
        """The record of all services of the slot, and what the process manager reads for those that are to start."""
        for directory in ("slots", "log"):
            (self.home / directory).mkdir(mode=0o700, exist_ok=True)
        started_at = iso(self.now())
        recorded = [
            {
                key: value
                for key, value in asdict(one).items()
                if key in ("name", "port", "stop_seconds", "drain_seconds")
            }
            | ({"container": one.container._asdict()} if one.container else {})
            for one in services
        ]
        record = {
            "format": 1,
            "application": self.application,
            "release": release["id"],
            "version": release["version"],
            "started_at": started_at,
            "user": self.user,
            "manager": self.manager.kind,
            "services": recorded,
        }
        write_json(self._record_path, record, 0o600)
        first = self.containers.units() if any(one.container for one in services) else []
        labels = {"application": self.application, "slot": self.name, "release": release["id"]}
        for number, one in enumerate(services):
            if one not in chosen:
                continue
            more = self.containers.arguments(one.container, one.port, one.stop_seconds, labels) if one.container else []
            tree = self.home / "releases" / release["id"] / one.name
            section = self.manager.render(
                self._program(one.name),
                ["/bin/sh", str(tree / "run"), *more],
                str(tree / "app") if (tree / "app").is_dir() else str(tree),
                {"PORT": str(one.port), "SLOT": self.name, "DEPLOYED_AT": started_at},
                str(self._log(one.name)),
                one.stop_seconds,
                [*first, *(self._program(earlier.name) for earlier in services[:number])],
                "" if one.container else self.user,  # in its container it is whoever the image says
                # Docker, when it is itself restarted, ends containers gracefully, which is no failure.
                always=bool(one.container),
            )
            write_atomic(self._conf(one.name), f"{MARK} {self.home}\n{section}", self.manager.mode)

    def _launch(
        self, one: Service, release: Mapping[str, Any], pids: dict[str, int], before: Answers, spent: float
    ) -> Answers:
        program = self._program(one.name)
        self._log_starts[one.name] = self.manager.output_mark(program, self._log(one.name))
        deadline = self.clock() + one.start_seconds - spent
        self.manager.add(program)
        self.manager.start(program)
        info = self.manager.info(program)
        pids[one.name] = info["pid"] if info else 0
        reason = self._ended(one, pids)
        results: Sequence[Result] = ()
        if not reason:
            results = self.ask(
                one.probes,
                clock=self.clock,
                sleep=self.sleep,
                deadline_seconds=max(deadline - self.clock(), self.interval_seconds),
                interval_seconds=self.interval_seconds,
                stop=lambda: self._ended(one, pids),
            )
        answers = with_service(results, [one.name] * len(results))
        if reason or not all(result.passed for result in results):
            self._fail(one, release, pids, [*before, *answers], reason or self._ended(one, pids))
        self._settle(one, release, pids, [*before, *answers])
        return answers

    def _ended(self, one: Service, pids: Mapping[str, int]) -> str:
        """Why the process that was started is no longer there; empty while it is."""
        info = self.manager.info(self._program(one.name))
        if info is None:
            return f"somebody removed {self._program(one.name)} from {self.manager.name}"
        if not pids[one.name] or info["state"] not in ("STARTING", "RUNNING"):
            return f"its process ended ({info['state']}{': ' if info['error'] else ''}{info['error']})"
        if info["pid"] != pids[one.name]:
            return f"its process {pids[one.name]} ended and was restarted"
        return ""

    def _settle(self, one: Service, release: Mapping[str, Any], pids: dict[str, int], answers: Answers) -> None:
        """Passed probes count only when the process that was started lives on as RUNNING."""
        limit = self.manager.stable_seconds + GRACE_SECONDS
        deadline = self.clock() + limit
        while True:
            reason = self._ended(one, pids)
            stuck = f"{self.manager.name} keeps it STARTING for {limit:g} s"
            if not reason and self._running([one])[one.name]["state"] == "RUNNING":
                stuck = self.containers.problem(one.container)
                if not stuck:
                    return
            if reason or self.clock() >= deadline:
                self._fail(one, release, pids, answers, reason or stuck)
            self.sleep(POLL_SECONDS)

    def _fail(
        self,
        one: Service,
        release: Mapping[str, Any],
        pids: Mapping[str, int],
        answers: Answers,
        reason: str,
    ) -> NoReturn:
        log = {name: self._tail(name, release["id"], LOG_LINES, self._log_starts.get(name, 0)) for name in pids}
        diagnosis = [
            {key: answer[key] for key in ("name", "kind", "problem", "fix")}
            for answer in answers
            if answer["service"] == one.name and not answer["passed"]
        ]
        inside = self.containers.seen(one.container)
        others = [] if inside and inside.pid else self.holders([one.port])  # Docker would not have let it run
        others = [held for held in others if held.pid not in pids.values() and not self._ours(held)]
        if reason and others:  # it came to the port first, after we had looked
            reason = f"{self._taken([one], self._packages(release['id']))[0]}, and {reason}"
        if reason:  # why nothing answers; what the probes saw follows from it
            fix = f"{self.manager.where(self._program(one.name), self._log(one.name))}."
            diagnosis.insert(0, {"name": one.name, "kind": "process", "problem": reason, "fix": fix})
        last = f" Its last line: {log[one.name][-1].strip()}" if reason and log[one.name] else ""
        raise RunbookError(
            f"{one.name} of {release['id']} is not healthy in {self.name}: {diagnosis[0]['problem']}.{last}",
            service=one.name,
            diagnosis=diagnosis,
            log=log,
            states={name: self._state(name) for name in pids},
            answers=answers,
            changed=True,
        )

    def _state(self, service: str) -> str:
        info = self.manager.info(self._program(service))
        return str(info["state"]) if info else "ABSENT"

    # -- stop -----------------------------------------------------------------------------------------------------

    def stop(
        self,
        services: Sequence[Mapping[str, Any]] = (),
        live_slot: str = "",
        check_mode: bool = False,
        only: Collection[str] = (),
    ) -> dict[str, Any]:
        """End whatever the slot runs, or ``only`` some, last started first, each after its connections ended or their
        time is over.

        One by one, because a service's pool of connections to the one it depends on only closes with itself.
        """
        refuse_live(self.name, live_slot, "stopped")
        known = [one for one in self.known(services, stopping=True) if not only or one.name in only]
        cut, log, changed = 0, {}, False
        record = self.record()
        held = record["release"] if record else ""
        left = [one for one in record["services"] if one["name"] not in only] if record and only else []
        if check_mode:
            return {"changed": self._holds(known), "connections_cut": 0, "log": {}}
        for one in reversed(known):
            info, inside = self.manager.info(self._program(one.name)), self.containers.seen(one.container)
            if info is None and inside is None:
                continue
            alive = bool(info and info["pid"])
            cut += self._drain(one, inside) if alive or inside else 0
            if info is not None:
                self._end(one)
            self.containers.remove(one.container, 0 if alive else one.stop_seconds)
            log[one.name] = self._tail(one.name, held)
            changed = True
        self._refuse_strays([one for one in known if changed or self._record_path.exists()])
        if record and left and len(left) < len(record["services"]):
            write_json(self._record_path, {**record, "services": left}, 0o600)
            changed = True
        paths = [self._conf(one.name) for one in known] + ([] if left else [self._record_path])
        for path in paths:
            if path.exists():
                path.unlink()
                fsync_directory(path.parent)
                changed = True
        if changed:
            self.manager.forget()
        return {"changed": changed, "connections_cut": cut, "log": log}

    def known(self, raws: Sequence[Mapping[str, Any]], stopping: bool = False) -> list[Service]:
        """What may run here, in start order: the recorded services on their real ports, with today's limits."""
        given = {one.name: one for one in (service(raw) for raw in raws)}
        known = []
        for held in self._recorded(self.record()):
            today = given.pop(held.name, held)
            # The process manager still has the limit of the start.
            stop_seconds = max(held.stop_seconds, today.stop_seconds)
            known.append(replace(held, stop_seconds=stop_seconds, drain_seconds=today.drain_seconds))
        refused = self.manager.refused([self._program(one.name) for one in (*known, *given.values())])
        for one in known if stopping else (*known, *given.values()):
            if self._program(one.name) in refused:
                raise RunbookError(refused[self._program(one.name)])
        # Where nothing of ours was recorded, there is nothing of ours behind somebody else's name.
        known += [one for one in given.values() if self._program(one.name) not in refused]
        for one in known:
            foreign = self._foreign(one.name)
            if foreign:
                raise RunbookError(foreign)
        return known

    def _foreign(self, service: str) -> str:
        """Why the file of a service is none of this slot; empty when it is, or is not there."""
        path = self._conf(service)
        try:
            ours = path.read_text(encoding="utf-8").startswith(f"{MARK} {self.home}\n")
        except FileNotFoundError:
            return ""
        return (
            ""
            if ours
            else f"{path} was not written for {self.home}, so it is not touched: another application has the name "
            f"{self._program(service)}; change app_name or the name of the service"
        )

    def _holds(self, known: Sequence[Service]) -> bool:
        recorded = {one.name for one in self._recorded(self.record())}
        return (
            any(one.name in recorded for one in known)
            or any(self._conf(one.name).exists() for one in known)
            or any(self.manager.info(self._program(one.name)) for one in known)
        )

    def _drain(self, one: Service, inside: Optional[Container]) -> int:
        """Wait for the connections to end; how many are left when the time is over."""
        deadline = self.clock() + one.drain_seconds
        while True:
            count = self.containers.connections(inside, one, self.established)
            left = deadline - self.clock()
            if not count or left <= 0:
                return count
            self.sleep(min(POLL_SECONDS, left))

    def _end(self, one: Service) -> None:
        program = self._program(one.name)
        limit = one.stop_seconds + GRACE_SECONDS
        deadline = self.clock() + limit
        while True:
            # Again each time: one that just crashed is not running, but about to be restarted.
            self.manager.stop(program)
            if self.manager.remove(program):
                return
            if self.clock() >= deadline:
                raise RunbookError(
                    f"{one.name} in {self.name} is still {self._state(one.name)} after {limit:g} s, although "
                    f"{self.manager.name} has killed it: look whether it hangs in the kernel (state D in ps)",
                    service=one.name,
                )
            self.sleep(POLL_SECONDS)

    def _refuse_strays(self, services: Sequence[Service]) -> None:
        """A process of ours that left its group survives its service and keeps the port."""
        ports = {one.port: one.name for one in services}
        deadline = self.clock() + GRACE_SECONDS
        while ports:
            strays = [held for held in self.holders(list(ports)) if self._ours(held)]
            if not strays:
                return
            if self.clock() >= deadline:
                named = "; ".join(f"port {held.port} of {ports[held.port]} is still held by {held}" for held in strays)
                raise RunbookError(
                    f"{self.name} was stopped, but {named}: it left its process group, so it was not stopped with it; "
                    "end it by hand and let the command stay in the foreground"
                )
            self.sleep(POLL_SECONDS)

    def _ours(self, held: Holder) -> bool:
        home = os.path.realpath(self.home)
        return held.directory == home or held.directory.startswith(f"{home}{os.sep}")
