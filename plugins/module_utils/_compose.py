# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Releases and slots of Docker Compose. Private: may change at any time.

A release keeps the compose files as they were, the environment and the ids of the images, so that nothing that moves
afterwards (a tag, a file) changes what it is. A slot is one compose project, ``<project>-<slot>``, made of the
release's files and one overlay of ours.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, NoReturn, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _images, _release
from ansible_collections.signalbox.runbook.plugins.module_utils._compose_made_of import digest
from ansible_collections.signalbox.runbook.plugins.module_utils._connections import Holder, established, holders
from ansible_collections.signalbox.runbook.plugins.module_utils._docker import (
    LABEL,
    PROJECT,
    Container,
    Docker,
    connected,
    explain,
    listening,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._docker import (
    services as by_service,
)
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
from ansible_collections.signalbox.runbook.plugins.module_utils._probe import Result, ask
from ansible_collections.signalbox.runbook.plugins.module_utils._slot import (
    POLL_SECONDS,
    PROVE_SECONDS,
    SLOTS,
    Service,
    in_use,
    iso,
    joined,
    probes,
    refuse_live,
    refuse_other,
    service,
    services_from,
    with_service,
)

HIDDEN = "********"

_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
_UNSET = re.compile(r'The \\?"([^"\\]+)\\?" variable is not set')

Answers = list[dict[str, Any]]


# -- what a release is made of ----------------------------------------------------------------------------------


def environment_file(environment: Mapping[str, str]) -> str:
    """In the form that Compose reads: in double quotes, so that nothing in a value is taken for something else."""
    escapes = {"\\": "\\\\", '"': '\\"', "$": "\\$", "\n": "\\n", "\r": "\\r"}
    lines = []
    for key, value in sorted(environment.items()):
        if "\0" in value:
            raise RunbookError(f"environment.{key} has a NUL, which no environment can hold")
        lines.append(f'{key}="{"".join(escapes.get(letter, letter) for letter in value)}"\n')
    return "".join(lines)


def read_environment(text: str) -> dict[str, str]:
    """What ``environment_file`` wrote."""
    plain = {"n": "\n", "r": "\r"}
    return {
        key: re.sub(r"\\(.)", lambda found: plain.get(found.group(1), found.group(1)), value[1:-1])
        for key, _equals, value in (line.partition("=") for line in text.split("\n") if line)
    }


def secret_values(tree: Path) -> list[str]:
    """The values of a release of ours that are never shown, the longest first."""
    found: set[str] = set()
    manifest = _release.read_manifest(tree) or {"services": {}}
    for name, part in manifest["services"].items():
        try:
            values = read_environment((tree / name / "env").read_text(encoding="utf-8"))
        except OSError:
            continue
        found.update(line for key in part.get("secrets") or () for line in values.get(key, "").splitlines())
    return sorted((line for line in found if len(line) >= 4), key=len, reverse=True)


def masked(lines: Sequence[str], values: Sequence[str]) -> list[str]:
    shown = list(lines)
    for value in values:
        shown = [line.replace(value, HIDDEN) for line in shown]
    return shown


def check_config(config: Mapping[str, Any], wanted: Sequence[Mapping[str, Any]], directory: Path) -> None:
    """Whether two slots of these services can stand beside each other; the first reason why not is raised."""
    known = config.get("services") or {}
    volumes = config.get("volumes") or {}
    for one in wanted:
        name = one["name"]
        if name not in known:
            raise RunbookError(
                f"{name} of app_services is no service of the compose files: they have {', '.join(sorted(known))}"
            )
        raw = known[name]
        where = f"services.{name} of the compose files"
        if raw.get("container_name"):
            raise RunbookError(f"{where} has a container_name, which only one of two slots could have: remove it")
        if str(raw.get("network_mode") or "").startswith(("host", "container:")):
            raise RunbookError(
                f"{where} has network_mode {raw['network_mode']}, so its port can't differ between slots: remove it"
            )
        count = (raw.get("deploy") or {}).get("replicas", raw.get("scale"))
        if count not in (None, 1):
            raise RunbookError(f"{where} has {count} replicas, but one published port: set them to 1, add targets")
        for mount in raw.get("volumes") or ():
            source = str(mount.get("source") or "")
            if mount.get("type") == "volume" and source and not (volumes.get(source) or {}).get("external"):
                raise RunbookError(
                    f"{where} has the volume {source}, of which each slot would get its own, empty one: declare it "
                    "below volumes with external true and a name, and create it with docker volume create"
                )
            if mount.get("type") == "bind" and source.startswith(f"{directory}{os.sep}"):
                raise RunbookError(
                    f"{where} mounts {os.path.relpath(source, directory)} from beside the compose files, which is not "
                    "part of the release: give an absolute path of the target, or put it into the image"
                )
        both = set(raw.get("environment") or {}) & {*one["environment"], *one["secrets"]}
        if both:
            raise RunbookError(
                f"{where} sets {min(both)} under environment, and so does app_services, where it would be without "
                "effect: keep one"
            )


def overlay(
    manifest: Mapping[str, Any],
    tree: Path,
    wanted: Sequence[Service],
    addresses: Sequence[str],
    slot: str,
    labels: Mapping[str, str],
    started_at: str,
) -> str:
    """The compose file of one slot: the image by its id, the published port, our labels and variables.

    JSON with one tag of YAML: the ports of the user's files are replaced, not added to.
    """
    parts = {}
    for one in wanted:
        made = manifest["services"][one.name]
        parts[one.name] = {
            "image": made["image_id"],
            "ports": [
                {"target": made["container_port"], "published": str(one.port), "host_ip": address, "protocol": "tcp"}
                for address in addresses
            ],
            "labels": dict(labels),
            "env_file": [str(tree / one.name / "env")],
            "environment": {
                "PORT": str(made["container_port"]),
                "SLOT": slot,
                "RELEASE": manifest["id"],
                "DEPLOYED_VERSION": manifest["version"],
                "DEPLOYED_AT": started_at,
            },
            **({"restart": "unless-stopped"} if made["restart"] else {}),
        }
    text = json.dumps({"services": parts}, indent=1, sort_keys=True).replace("$", "$$")
    # In a string of JSON a quote has a backslash before it, so this is never inside of one.
    return text.replace('"ports": [', '"ports": !override [') + "\n"


class Files:
    """What every call of Compose for one release gets: the same files, in the same order."""

    def __init__(self, docker: Docker, project: str, tree: Path, overlay_path: Optional[Path] = None) -> None:
        if not _PROJECT.match(project):
            raise RunbookError(f"project {project!r} must be lower-case letters, digits, hyphens and underscores")
        self.docker = docker
        self.project = project
        self.tree = tree
        self.overlay_path = overlay_path

    def arguments(self) -> list[str]:
        words = ["compose", "--ansi", "never", "--progress", "quiet", "--project-name", self.project]
        directory = self.tree / "compose"
        files = sorted(directory.glob("[0-9]*")) if directory.is_dir() else []
        if not files or not (self.tree / "compose.env").is_file():
            return words  # the release is gone: Compose finds what it made by the labels
        words += ["--project-directory", str(directory), "--env-file", str(self.tree / "compose.env")]
        extra = [self.overlay_path] if self.overlay_path and self.overlay_path.is_file() else []
        return words + [word for path in [*files, *extra] for word in ("--file", str(path))]

    def attempt(self, *args: str, seconds: Optional[float] = None) -> tuple[int, str, str]:
        return self.docker.attempt(*self.arguments(), *args, seconds=seconds)


# -- making a release -------------------------------------------------------------------------------------------


def stage(
    spec: Mapping[str, Any],
    home: Path,
    docker: Docker,
    check: bool = False,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Make the release that ``spec`` describes, unless it is there with its images. Call it inside ``changing``."""
    if digest(spec["services"], spec["files"], spec["variables"]) != spec["digest"]:
        raise RunbookError(
            "the compose files are not those that the plan was made of: somebody changed them during the run. Run it "
            "again"
        )
    if not spec["services"] or not spec["files"]:
        raise RunbookError("services and files must name at least one service and one compose file")
    release = _release.Release(spec["id"], spec["version"], spec["digest"], (), tuple(spec["in_use"]), False)
    if not _release.ID.fullmatch(release.id):
        raise RunbookError(f"id {release.id!r} is no release id: letters, digits and ._+- after a letter or digit")
    final = home / "releases" / release.id
    deadline = monotonic() + float(spec["build_timeout_seconds"])

    def left() -> float:
        return deadline - monotonic()

    try:
        before = _release.condition(release, final)
        old = _release.read_manifest(final) or {"services": {}}
        missing = _images.missing(docker, old)
        changed = before != "whole" or bool(missing)
        manifest: Mapping[str, Any] = old
        if not check:
            _release.sweep(home / "releases")
            for part in missing:
                _images.fetch_again(docker, part, left())
            if before != "whole":
                final.parent.mkdir(exist_ok=True)
                known = {"docker": docker, "spec": spec, "old": old["services"], "left": left, "home": home}
                manifest = _release.assemble(release, final, lambda build: _fill(build, **known), clock, lambda: None)
            _images.keep_all(docker, spec["project"], release.id, manifest)
    except OSError as error:
        raise RunbookError(f"cannot make the release {release.id}: {error}") from error
    images = {name: f"{part['reference']} {part['image_id'][:19]}" for name, part in manifest["services"].items()}
    outcome = {"whole": "pulled" if missing else "present", "absent": "made", "damaged": "rebuilt"}[before]
    made = {"images": images, "same": _images.same(manifest)}
    return {"changed": changed, "outcome": outcome, "path": str(final), **made, "before": before}


def _fill(
    build: Path,
    docker: Docker,
    spec: Mapping[str, Any],
    old: Mapping[str, Any],
    left: Callable[[], float],
    home: Path,
) -> dict[str, Any]:
    directory = build / "compose"
    directory.mkdir(mode=0o700)
    for number, file in enumerate(spec["files"]):
        name = re.sub(r"[^A-Za-z0-9._-]", "_", os.path.basename(file["name"]))
        write_atomic(directory / f"{number:02d}-{name}", file["content"], 0o600)
    write_atomic(build / "compose.env", environment_file(spec["variables"]), 0o600)
    values = [*spec["variables"].values()]
    for one in spec["services"]:
        (build / one["name"]).mkdir(mode=0o700)
        write_atomic(build / one["name"] / "env", environment_file({**one["environment"], **one["secrets"]}), 0o600)
        values += one["secrets"].values()
    config = read_config(Files(docker, f"{spec['project']}-blue", build), [v for v in values if len(v) >= 8])
    check_config(config, spec["services"], directory)
    there = [_release.read_manifest(tree) for tree in _release.trees(home)]
    made = {}
    for index, one in enumerate(spec["services"]):
        raw = config["services"][one["name"]]
        wanted = _images.reference(one["image"], spec["version"], f"app_services[{index}].image")
        before = old.get(one["name"])
        made[one["name"]] = {
            **_images.settle(docker, wanted, spec["pull"], one["name"], left(), before, there),
            "container_port": one["container_port"],
            "restart": not raw.get("restart") and not (raw.get("deploy") or {}).get("restart_policy"),
            "secrets": sorted(one["secrets"]),
        }
    return made


def read_config(files: Files, hidden: Sequence[str]) -> Mapping[str, Any]:
    """The compose files as Compose understands them. It holds secrets in clear and is never shown."""
    code, out, err = files.attempt("--profile", "*", "config", "--format", "json")
    unset = sorted(set(_UNSET.findall(err)))
    if unset:
        raise RunbookError(
            f"the compose files use ${{{unset[0]}}}, which runtime_compose_variables does not set: set it there, or "
            f"give it a default with ${{{unset[0]}:-value}}"
        )
    if code != 0:
        text = "; ".join(masked([explain(err)], hidden)).replace(f"{files.tree}/compose/", "")
        raise RunbookError(f"Docker Compose does not accept the compose files: {text}")
    try:
        config = json.loads(out)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise RunbookError("docker compose config gave no JSON: Docker Compose 2.24.4 or newer is needed")
    return config


# -- slots ------------------------------------------------------------------------------------------------------


class ComposeSlot:
    """One slot of one application; everything it talks to is passed in."""

    def __init__(
        self,
        home: PathLike,
        application: str,
        project: str,
        name: str,
        docker: Docker,
        addresses: Sequence[str] = (),
        run: int = 0,
        interval_seconds: float = 0.5,
        ask: Callable[..., Sequence[Result]] = ask,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
        established: Callable[..., int] = established,
        holders: Callable[[Collection[int]], list[Holder]] = holders,
    ) -> None:
        if name not in SLOTS:
            raise RunbookError(f"slot {name!r} must be one of {', '.join(SLOTS)}")
        self.home = Path(home)
        self.application = application
        self.project = f"{project}-{name}"
        self.name = name
        self.docker = docker
        self.addresses = list(addresses)
        self.run = run
        self.interval_seconds = interval_seconds
        self.ask = ask
        self.clock = clock
        self.sleep = sleep
        self.now = now
        self.established = established
        self.holders = holders
        if not _PROJECT.match(self.project):
            raise RunbookError(f"project {project!r} must be lower-case letters, digits, hyphens and underscores")

    # -- what it holds --------------------------------------------------------------------------------------------

    @property
    def _record_path(self) -> Path:
        return self.home / "slots" / f"{self.name}.json"

    @property
    def _overlay_path(self) -> Path:
        return self.home / "slots" / f"{self.name}.compose.yml"

    def _tree(self, release: str) -> Path:
        return self.home / "releases" / (release or ".none")

    def record(self) -> Optional[dict[str, Any]]:
        """What was last started here and not stopped since."""
        try:
            record = read_json(self._record_path)
            if record is not None:
                self._recorded(record)
                str(record["application"] + record["project"] + record["release"] + record["version"])
                dict(record["started"])
        except (ValueError, TypeError, KeyError, AttributeError, RunbookError) as error:
            raise RunbookError(
                f"{self._record_path} is damaged ({error}): stop the slot with docker compose -p {self.project} down, "
                "then remove that file"
            ) from None
        if record is not None and (record["application"], record["project"]) != (self.application, self.project):
            raise RunbookError(
                f"{self._record_path} is of {record['application']} in the project {record['project']}, not of "
                f"{self.application} in {self.project}: give every application its own app_home, and keep "
                "runtime_compose_project as it was"
            )
        return dict(record) if record is not None else None

    @staticmethod
    def _recorded(record: Optional[Mapping[str, Any]]) -> list[Service]:
        return [service(raw) for raw in record["services"]] if record else []

    def containers(self) -> list[Container]:
        """All containers of the project; one that is not ours is refused, because we would remove it."""
        found = self.docker.containers(f"{PROJECT}={self.project}")
        for one in found:
            if one.labels.get(f"{LABEL}home") != str(self.home):
                raise RunbookError(
                    f"the compose project {self.project} has the container {one.id[:12]} ({one.service}), which was "
                    f"not started for {self.home}, so it is not touched: choose another runtime_compose_project"
                )
        return found

    def info(self) -> dict[str, Any]:
        """Release, version, and the state of each service."""
        record = self.record()
        return self._described(record, by_service(self.containers()))

    def _described(
        self, record: Optional[Mapping[str, Any]], found: Mapping[str, Container], unknown: str = "absent"
    ) -> dict[str, Any]:
        described = {}
        for one in self._recorded(record):
            seen = found.get(one.name)
            described[one.name] = {
                "state": seen.state if seen else unknown,
                "health": seen.health if seen else "",
                "pid": seen.pid if seen else 0,
                "since": seen.started_at[:19] + "Z" if seen and seen.pid else "",
                "restarts": seen.restarts if seen else 0,
                "image": seen.image if seen else "",
                "port": one.port,
            }
        return {
            "release": record["release"] if record else "",
            "version": record["version"] if record else "",
            "services": described,
        }

    def survey(self, raw_services: Sequence[Mapping[str, Any]], answering: bool, lines: int = 0) -> dict[str, Any]:
        """``info`` with a verdict: each probe of a running service is asked once. Nothing here is an error."""
        empty = {"running": False, "healthy": False, "exclusive": {}, "answers": [], "busy": [], "problem": ""}
        record: Optional[dict[str, Any]] = None
        try:
            record = self.record()
            found = by_service(self.containers()) if answering else {}
        except RunbookError as error:
            return {**self._described(record, {}, "unknown"), **empty, "problem": str(error)}
        described = self._described(record, found, "absent" if answering else "unknown")
        recorded = self._recorded(record)
        declared = {raw["name"]: raw for raw in raw_services}
        asked = [
            (one.name, replace(probe, successes=1))
            for one in recorded
            if one.name in found and found[one.name].state == "running" and one.name in declared
            for probe in probes(declared[one.name].get("probes") or (), one.port)
        ]
        answers = with_service(self.ask([probe for _name, probe in asked]), [name for name, _probe in asked])
        running, exclusive = split_states(
            raw_services, {one.name: one.name in found and found[one.name].running for one in recorded}
        )
        ours = {one.port for one in recorded if one.name in found}
        ports = {int(raw["ports"][self.name]): name for name, raw in declared.items() if raw.get("ports")}
        busy = [in_use(ports[held.port], held) for held in self.holders([p for p in ports if p not in ours])]
        if lines:
            described["log"] = self._logs(found.values(), described["release"], lines)
        return {
            **described,
            "running": running,
            "healthy": running and all(answer["passed"] for answer in answers),
            "exclusive": exclusive,
            "answers": answers,
            "busy": busy,
            "problem": "",
        }

    def _logs(self, containers: Any, release: str, lines: int = LOG_LINES) -> dict[str, list[str]]:
        hidden = secret_values(self._tree(release))
        return {one.service: masked(self.docker.logs(one.id, lines), hidden) for one in containers}

    # -- start ----------------------------------------------------------------------------------------------------

    def start(
        self,
        release: Mapping[str, Any],
        raws: Sequence[Mapping[str, Any]],
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
        wanted = services_from(raws)
        chosen = [one for one in wanted if not only or one.name in only]
        before: Mapping[str, Any] = {}
        if only:
            before = refuse_other(self.name, self.record(), release)
            wanted = joined(wanted, self._recorded(before), only)
        standing = self._stands(release, wanted)
        if standing is not None or check_mode:
            changed = standing is None
            return {"changed": changed, "answers": standing or [], "seconds": round(self.clock() - began, 3)}
        manifest = self._staged(release, chosen)
        cut = self.stop(raws, only=only)["connections_cut"]
        taken = [in_use(one.name, held) for one in chosen for held in self.holders([one.port])]
        if taken:
            raise RunbookError(f"{'; '.join(taken)}; nothing was started in {self.name}", ports=taken)
        record = self._write(release, wanted, manifest)
        answers: Answers = []
        for number, one in enumerate(chosen):
            answers += self._launch(one, release, chosen[: number + 1], answers)
        self._settle(chosen, release, chosen, answers)  # a later one may have brought an earlier one down
        self._remember(record, before.get("started"))
        seconds = round(self.clock() - began, 3)
        return {"changed": True, "answers": answers, "seconds": seconds, "connections_cut": cut}

    def prove(self, release: Mapping[str, Any], raws: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """That the slot still runs just this release, every container and every probe; it changes nothing."""
        began = self.clock()
        wanted = services_from(raws)
        record = refuse_other(self.name, self.record(), release)
        since = record["started"]
        self._settle(wanted, release, wanted, [], since)
        answers: Answers = []
        for one in wanted:
            results = self.ask(
                one.probes,
                clock=self.clock,
                sleep=self.sleep,
                deadline_seconds=PROVE_SECONDS,
                interval_seconds=self.interval_seconds,
                stop=lambda one=one: self._ended(one, since),
            )
            answers += with_service(results, [one.name] * len(results))
            if not all(result.passed for result in results):
                self._fail(one, release, wanted, answers, self._ended(one, since))
        self._settle(wanted, release, wanted, answers, since)
        return {"changed": False, "answers": answers, "seconds": round(self.clock() - began, 3)}

    def _stands(self, release: Mapping[str, Any], wanted: Sequence[Service]) -> Optional[Answers]:
        """The passed probes when the slot already runs just this, healthy; otherwise None."""
        record = self.record()
        held = [(one.name, one.port) for one in self._recorded(record)]
        if record is None or held != [(one.name, one.port) for one in wanted] or record["release"] != release["id"]:
            return None
        if record["addresses"] != self.addresses or not record["started"]:
            return None
        found = by_service(self.containers())
        if not all(one.name in found and found[one.name].running for one in wanted):
            return None
        asked = [(one.name, probe) for one in wanted for probe in one.probes]
        results = self.ask([probe for _name, probe in asked], interval_seconds=self.interval_seconds)
        if not all(result.passed for result in results):
            return None
        if record["started"] != _counts(found):  # restarted since, before this run: only what comes counts
            self._remember(record)
        return with_service(results, [name for name, _probe in asked])

    def _staged(self, release: Mapping[str, Any], wanted: Sequence[Service]) -> dict[str, Any]:
        """The manifest of the whole release, its images on this host."""
        if not _release.ID.fullmatch(str(release.get("id") or "")):
            raise RunbookError(f"release.id {release.get('id')!r} must be letters, digits and . _ + -")
        tree = self._tree(release["id"])
        manifest = _release.read_manifest(tree)
        if manifest is None:
            raise RunbookError(f"release {release['id']} is not whole in {tree}: stage it first")
        lacking = [one.name for one in wanted if one.name not in manifest["services"]]
        if lacking:
            raise RunbookError(f"release {release['id']} has no service {', '.join(lacking)}: it was made without it")
        _release.refuse_changed(tree)
        for one in wanted:
            part = manifest["services"][one.name]
            if self.docker.image(part["image_id"]) is None:
                _images.fetch_again(self.docker, part, max(one.start_seconds, self.docker.timeout_seconds))
        return manifest

    def _write(
        self, release: Mapping[str, Any], wanted: Sequence[Service], manifest: Mapping[str, Any]
    ) -> dict[str, Any]:
        (self.home / "slots").mkdir(mode=0o700, exist_ok=True)
        started_at = iso(self.now())
        keys = ("name", "port", "stop_seconds", "drain_seconds")
        record = {
            "format": 1,
            "application": self.application,
            "project": self.project,
            "release": release["id"],
            "version": release["version"],
            "started_at": started_at,
            "addresses": self.addresses,
            "services": [{key: getattr(one, key) for key in keys} for one in wanted],
            "started": {},
        }
        write_json(self._record_path, record, 0o600)
        labels = {
            f"{LABEL}home": str(self.home),
            f"{LABEL}application": self.application,
            f"{LABEL}slot": self.name,
            f"{LABEL}release": str(release["id"]),
            f"{LABEL}version": str(release["version"]),
            f"{LABEL}run": str(self.run),
        }
        tree = self._tree(release["id"])
        text = overlay(manifest, tree, wanted, listening(self.addresses), self.name, labels, started_at)
        write_atomic(self._overlay_path, text, 0o600)
        return record

    def _remember(self, record: Mapping[str, Any], before: Optional[Mapping[str, Any]] = None) -> None:
        """Which containers were proven, and how often they had been restarted by then; ``before`` were others."""
        counts = {**_counts(by_service(self.containers())), **(before or {})}
        write_json(self._record_path, {**record, "started": counts}, 0o600)

    def _files(self, release: str) -> Files:
        return Files(self.docker, self.project, self._tree(release), self._overlay_path)

    def _launch(self, one: Service, release: Mapping[str, Any], started: Sequence[Service], before: Answers) -> Answers:
        deadline = self.clock() + one.start_seconds
        code, out, err = self._files(release["id"]).attempt(
            *("up", "--detach", "--no-deps", "--no-build", "--pull", "never", "--quiet-pull"),
            *("--wait", "--wait-timeout", str(max(int(one.start_seconds), 1)), one.name),
            seconds=one.start_seconds + self.docker.timeout_seconds,
        )
        reason = self._ended(one, {})
        if code != 0 and (not reason or "never started" in reason):
            reason = f"docker compose up failed: {explain(err or out)}"
        results: Sequence[Result] = ()
        if not reason:
            results = self.ask(
                one.probes,
                clock=self.clock,
                sleep=self.sleep,
                deadline_seconds=max(deadline - self.clock(), self.interval_seconds),
                interval_seconds=self.interval_seconds,
                stop=lambda: self._ended(one, {}),
            )
        answers = with_service(results, [one.name] * len(results))
        if reason or not all(result.passed for result in results):
            self._fail(one, release, started, [*before, *answers], reason or self._ended(one, {}))
        self._settle([one], release, started, [*before, *answers])
        return answers

    def _ended(self, one: Service, since: Mapping[str, Any], found: Optional[Mapping[str, Container]] = None) -> str:
        """Why the container that was started does not run as it did then; empty while it does.

        Restarts count from ``since``; a container that was made by this start must have none.
        """
        seen = (by_service(self.containers()) if found is None else found).get(one.name)
        if seen is None:
            return f"it has no container in the project {self.project}"
        before_id, before = since.get(one.name, [seen.id, 0])
        if seen.id != before_id:
            return f"its container {before_id[:12]} was replaced by {seen.id[:12]}"
        if seen.restarts > before:
            memory = ", out of memory" if seen.killed_for_memory else ""
            return (
                f"its container ended (exit code {seen.exit_code}{memory}) and was restarted {seen.restarts - before} "
                "times"
            )
        return seen.trouble()

    def _settle(
        self,
        wanted: Sequence[Service],
        release: Mapping[str, Any],
        started: Sequence[Service],
        answers: Answers,
        since: Optional[Mapping[str, Any]] = None,
    ) -> None:
        """Passed probes count only when the containers live on, and are of the images of the release."""
        found = by_service(self.containers())
        manifest = _release.read_manifest(self._tree(release["id"])) or {"services": {}}
        for one in wanted:
            reason = self._ended(one, since or {}, found)
            part = manifest["services"].get(one.name)
            if not reason and part and found[one.name].image != part["image_id"]:
                reason = f"its container is of the image {found[one.name].image[:19]}, not {part['image_id'][:19]}"
            if reason:
                self._fail(one, release, started, answers, reason)

    def _fail(
        self,
        one: Service,
        release: Mapping[str, Any],
        started: Sequence[Service],
        answers: Answers,
        reason: str,
    ) -> NoReturn:
        found = by_service(self.containers())
        log = self._logs([found[s.name] for s in started if s.name in found], release["id"])
        diagnosis = [
            {key: answer[key] for key in ("name", "kind", "problem", "fix")}
            for answer in answers
            if answer["service"] == one.name and not answer["passed"]
        ]
        if reason:  # why nothing answers; what the probes saw follows from it
            fix = f"Read its output: docker compose -p {self.project} logs {one.name}"
            diagnosis.insert(0, {"name": one.name, "kind": "container", "problem": reason, "fix": fix})
        lines = log.get(one.name) or []
        last = f" Its last line: {lines[-1].strip()}" if reason and lines else ""
        problem = diagnosis[0]["problem"].rstrip(".")
        raise RunbookError(
            f"{one.name} of {release['id']} is not healthy in {self.name}: {problem}.{last}",
            service=one.name,
            diagnosis=diagnosis,
            log=log,
            states={s.name: found[s.name].state if s.name in found else "absent" for s in started},
            answers=answers,
            changed=True,
        )

    # -- stop -----------------------------------------------------------------------------------------------------

    def stop(
        self,
        raws: Sequence[Mapping[str, Any]] = (),
        live_slot: str = "",
        check_mode: bool = False,
        only: Collection[str] = (),
    ) -> dict[str, Any]:
        """End whatever the project of the slot runs, or ``only`` some, last started first, each after its connections
        ended or their time is over. Volumes stay."""
        refuse_live(self.name, live_slot, "stopped")
        record = self.record()
        found = [one for one in self.containers() if not only or one.service in only]
        left = [one for one in record["services"] if one["name"] not in only] if record and only else []
        gone = record is not None and len(left) < len(record["services"])
        there = bool(found) or gone or (not only and self._overlay_path.exists())
        if check_mode or not there:
            return {"changed": there, "connections_cut": 0, "log": {}}
        held = {one.name: one for one in self._recorded(record)}
        today = {one.name: one for one in (service(raw) for raw in raws)}
        order = {name: number for number, name in enumerate([*held, *(n for n in today if n not in held)])}
        cut, log = 0, {}
        release = record["release"] if record else ""
        for container in sorted(found, key=lambda c: order.get(c.service, len(order)), reverse=True):
            limits = today.get(container.service) or held.get(container.service) or Service(container.service, 0)
            if container.pid:
                cut += self._drain(container, replace(limits, port=held.get(container.service, limits).port), release)
            self.docker.stop(container.id, limits.stop_seconds)
            log.update(self._logs([container], release))
        if left and record:
            if found:
                self._leave(release, [one.service for one in found])
            started = {name: count for name, count in record["started"].items() if name not in only}
            write_json(self._record_path, {**record, "services": left, "started": started}, 0o600)
            return {"changed": True, "connections_cut": cut, "log": log}
        if found:
            self._down(release)
        for path in (self._overlay_path, self._record_path):
            if path.exists():
                path.unlink()
                fsync_directory(path.parent)
        return {"changed": True, "connections_cut": cut, "log": log}

    def _leave(self, release: str, names: Sequence[str]) -> None:
        """Remove the stopped containers of some services; the others of the project stay."""
        code, out, err = self._files(release).attempt("rm", "--force", *names)
        if code or any(one.service in names for one in self.containers()):
            raise RunbookError(
                f"{', '.join(names)} of {self.name} was stopped, but docker compose rm failed: {explain(err or out)}"
            )

    def _down(self, release: str) -> None:
        """With the files that it was started from; where they are damaged or gone, by the name of the project."""
        why = ""
        for files in (self._files(release), self._files("")):
            code, out, err = files.attempt("down", "--remove-orphans", "--timeout", "0")
            left = self.containers()
            if code == 0 and not left:
                return
            why = explain(err or out) if code else f"{len(left)} containers are left"
        raise RunbookError(f"{self.name} was stopped, but docker compose down failed: {why}")

    def _drain(self, container: Container, one: Service, release: str) -> int:
        """Wait for the connections to end; how many are left when the time is over."""
        deadline = self.clock() + one.drain_seconds
        manifest = _release.read_manifest(self._tree(release)) or {"services": {}}
        inside = (manifest["services"].get(one.name) or {}).get("container_port") or one.port
        while True:
            count = connected(self.established, container, inside, one.port)
            left = deadline - self.clock()
            if not count or left <= 0:
                return count
            self.sleep(min(POLL_SECONDS, left))


def _counts(found: Mapping[str, Container]) -> dict[str, list[Any]]:
    return {name: [one.id, one.restarts] for name, one in sorted(found.items())}
