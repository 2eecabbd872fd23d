# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Releases: made once, whole or invisible, never changed. Private: may change at any time.

A release is built in ``releases/.<id>.<8 hex digits>`` and appears under its own name by one rename. Whoever
changes ``releases`` holds the host's fence (``changing``), so every such dot directory is a leftover of a run
that was killed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pwd
import re
import secrets
import shlex
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _apt, _command, _container, _images
from ansible_collections.signalbox.runbook.plugins.module_utils._archive import check_file, extract, file_sha256
from ansible_collections.signalbox.runbook.plugins.module_utils._command import USERINFO
from ansible_collections.signalbox.runbook.plugins.module_utils._docker import CLIENT, Docker
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._fence import fenced, read_fence
from ansible_collections.signalbox.runbook.plugins.module_utils._files import fsync_directory, write_atomic, write_json

FORMAT = 1
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
COMMIT = re.compile(r"[0-9a-f]{7,64}")
WHEEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*\.whl")
TEMPORARY = re.compile(r"\.[A-Za-z0-9][A-Za-z0-9._+-]*\.[0-9a-f]{8}")
# Set by the process manager and by ``run`` for every process; an environment file must not replace them.
RESERVED = ("PORT", "SLOT", "DEPLOYED_VERSION", "DEPLOYED_COMMIT", "DEPLOYED_AT", "RELEASE")

# Set around us for another repository or another Python.
FOREIGN_ENVIRONMENT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "PYTHONPATH", "PYTHONHOME")

Run = _command.Run
# The same with the rest of the time budget filled in.
Command = Callable[[Sequence[str], Path, Mapping[str, str]], tuple[int, str, str]]


class Artifact(NamedTuple):
    """One of: ``archive``; ``wheel`` and/or ``python``; ``git`` at ``ref``; ``apt``."""

    archive: str = ""
    sha256: str = ""
    strip_components: int = 0
    wheel: str = ""
    python: tuple[str, ...] = ()
    git: str = ""
    ref: str = ""
    apt: Optional[_apt.Package] = None

    def identity(self) -> dict[str, Any]:
        """What is deployed, without where it was uploaded to."""
        if self.git:
            return {"git": self.git, "ref": self.ref}
        if self.apt:
            return {"apt": self.apt.identity()}
        if self.archive:
            return {"sha256": self.sha256, "strip_components": self.strip_components}
        wheel = {"wheel": os.path.basename(self.wheel), "sha256": self.sha256} if self.wheel else {}
        return {"python": list(self.python), **wheel}


class Service(NamedTuple):
    name: str
    artifact: Artifact
    command: str
    environment: dict[str, str]
    files: dict[str, str]
    python_executable: str
    commit: str
    secrets: tuple[str, ...] = ()  # names of the environment variables that are never shown
    image: str = ""  # with tag or digest, in place of artifact and command
    container_port: int = 0

    def identity(self) -> dict[str, Any]:
        if self.image:
            return {"image": self.image, "container_port": self.container_port}
        return self.artifact.identity()


class Release(NamedTuple):
    id: str
    version: str
    digest: str
    services: tuple[Service, ...]
    in_use: tuple[str, ...]
    present: bool


# --- the specification ------------------------------------------------------------------------------------------


def parse(spec: Mapping[str, Any]) -> Release:
    """The checked specification; each refusal names the key."""
    release_id = _text(spec, "id", "")
    if not ID.fullmatch(release_id):
        raise RunbookError(f"id {release_id!r} is no release id: letters, digits and ._+- after a letter or digit")
    raw = spec.get("services") or []
    if not raw:
        raise RunbookError("services is empty: a release needs at least one service")
    version = _text(spec, "version", "")
    services = tuple(_service(item, f"services[{index}]", version) for index, item in enumerate(raw))
    names = [service.name for service in services]
    for name in names:
        if names.count(name) > 1:
            raise RunbookError(f"services has the name {name!r} more than once: each service needs its own")
    if any(service.image for service in services) and not _container.PREFIX.match(_text(spec, "container_prefix", "")):
        raise RunbookError("container_prefix must be lower-case letters, digits, hyphens and underscores")
    packages = {service.artifact.apt for service in services if service.artifact.apt}
    for package in packages:
        if sum(one.name == package.name for one in packages) > 1:
            raise RunbookError(f"services has different artifact.apt of {package.name}: a host has one of a package")
    return Release(
        release_id,
        version,
        _text(spec, "digest", "") or _digest(release_id, version, services),
        services,
        tuple(spec.get("in_use") or ()),
        bool(spec.get("present")),
    )


def _digest(release_id: str, version: str, services: Sequence[Service]) -> str:
    parts = [[s.name, s.identity(), s.command, s.environment, s.files, s.commit] for s in services]
    return hashlib.sha256(json.dumps([release_id, version, parts], sort_keys=True).encode()).hexdigest()


def _service(raw: Mapping[str, Any], where: str, version: str) -> Service:
    name = _text(raw, "name", where)
    if not NAME.fullmatch(name):
        raise RunbookError(
            f"{where}.name {name!r} is no service name: letters, digits, - and _ after a letter or digit"
        )
    command = _text(raw, "command", where).strip()
    image = _text(raw, "image", where)
    if image:
        for key in ("artifact", "command", "files"):
            if raw.get(key):
                raise RunbookError(f"{where}.{key} is not for a service with an image: remove it")
        image = _images.reference(image, version, f"{where}.image")
    elif not command or "\n" in command:
        raise RunbookError(f"{where}.command must be one line of sh words, as after exec")
    plain = _environment(raw.get("environment") or {}, f"{where}.environment")
    secret = _environment(raw.get("secrets") or {}, f"{where}.secrets")
    for key in secret:
        if key in plain:
            raise RunbookError(f"{where}.secrets.{key} is in {where}.environment too: keep one of them")
    for key in (*plain, *secret):
        if image and CLIENT.match(key):
            raise RunbookError(f"{where}: the variable {key} would change what runs the container: set it in the image")
    port = raw.get("container_port") or 0
    if image and not 1 <= port <= 65535:
        raise RunbookError(f"{where}.container_port must be the port in the container, 1 to 65535")
    files = {}
    for path, content in (raw.get("files") or {}).items():
        if not isinstance(content, str):
            raise RunbookError(f"{where}.files[{path!r}] must be text, not {type(content).__name__}")
        files[_inside(path, f"{where}.files")] = content
    return Service(
        name,
        Artifact() if image else _artifact(raw.get("artifact") or {}, f"{where}.artifact"),
        command,
        {**plain, **secret},
        files,
        _text(raw, "python_executable", where) or sys.executable,
        _text(raw, "commit", where),
        tuple(sorted(secret)),
        image,
        port,
    )


def _artifact(raw: Mapping[str, Any], where: str) -> Artifact:
    archive, git, wheel = (_text(raw, key, where) for key in ("archive", "git", "wheel"))
    python = tuple(raw.get("python") or ())
    apt = raw.get("apt") or {}
    if sum(map(bool, (archive, git, wheel or python, apt))) != 1:
        raise RunbookError(f"{where} needs exactly one of archive, python (with or without wheel), git or apt")
    for key, problem in _apt.problems(apt) if apt else ():
        raise RunbookError(f"{where}.apt.{key} {problem}")
    sha256 = _text(raw, "sha256", where).lower()
    if (archive or wheel) and not SHA256.fullmatch(sha256):
        raise RunbookError(f"{where}.sha256 must be the 64 hex digits of the {'archive' if archive else 'wheel'}")
    strip = int(raw.get("strip_components") or 0)
    if strip < 0:
        raise RunbookError(f"{where}.strip_components must be 0 or more")
    if wheel and not WHEEL.fullmatch(os.path.basename(wheel)):
        raise RunbookError(f"{where}.wheel {wheel!r} is not named like a wheel: <name>-<version>-...whl")
    for index, line in enumerate(python):
        # They become lines of a requirements file, where an option or a continuation would mean something else.
        if not isinstance(line, str) or not line[:1].isalnum() or "\n" in line or line.rstrip().endswith("\\"):
            raise RunbookError(f"{where}.python[{index}] is no requirement such as name==1.2.3")
        if USERINFO.search(line):
            raise RunbookError(f"{where}.python[{index}] has a credential in its URL: use the host's pip configuration")
    ref = _text(raw, "ref", where)
    if git and (git.startswith("-") or USERINFO.search(git)):
        raise RunbookError(f"{where}.git must be a URL or path without credentials: use a key or credential helper")
    if git and (not ref or ref.startswith("-") or re.search(r"[\s~^:?*\[\\]|\.\.|@\{", ref)):
        raise RunbookError(f"{where}.ref must be a tag or a commit")
    return Artifact(archive, sha256, strip, wheel, python, git, ref, _apt.package(apt) if apt else None)


def _environment(raw: Mapping[Any, Any], where: str) -> dict[str, str]:
    result = {}
    for key, value in raw.items():
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise RunbookError(f"{where}.{key} is no variable name: letters, digits and _ after a letter or _")
        if key in RESERVED:
            raise RunbookError(f"{where}.{key} is set for every process by the runbook: remove it")
        if isinstance(value, bool):
            value = "true" if value else "false"
        if isinstance(value, (int, float)):
            value = str(value)
        if not isinstance(value, str) or "\0" in value:
            raise RunbookError(f"{where}.{key} must be a string without NUL, not a {type(value).__name__}")
        result[key] = value
    return result


def _inside(path: Any, where: str) -> str:
    parts = str(path).split("/")
    if not path or path.startswith("/") or any(part in ("", ".", "..") for part in parts) or re.search("[\n\0]", path):
        raise RunbookError(f"{where}[{path!r}] must be a relative path that stays in the service's directory")
    return str(path)


def _text(raw: Mapping[str, Any], key: str, where: str) -> str:
    value = raw.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise RunbookError(f"{where}{'.' if where else ''}{key} must be a string without NUL")
    return value


# --- making a release -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def changing(home: Path, fence: int, check: bool = False) -> Iterator[None]:
    """Hold the host's fence; in check mode only refuse what the fence would refuse."""
    if not check:
        with fenced(home, fence):
            yield
        return
    if fence < read_fence(home):
        raise RunbookError(
            f"fencing number {fence} is older than {read_fence(home)}: this run lost its lease", fenced=True
        )
    yield


run_bounded = _command.within("build_timeout_seconds")


def free_bytes(path: Path) -> int:
    return shutil.disk_usage(path).free


def stage(
    spec: Mapping[str, Any],
    home: Path,
    *,
    check: bool = False,
    build_timeout_seconds: float = 600.0,
    user: str = "",
    apt_update: bool = True,
    docker: Optional[Docker] = None,
    run: Run = run_bounded,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    free: Callable[[Path], int] = free_bytes,
    sync: Callable[[], None] = os.sync,
) -> dict[str, Any]:
    """Make the release that ``spec`` describes, unless it is there and whole. Call it inside ``changing``.

    ``apt_update`` is whether apt may read its repositories anew for a version that it does not know.
    ``user`` is who runs the services: what only it may read (the environment, and files of configuration) is its own.
    ``docker`` has the images; ``spec["container_prefix"]`` begins the names by which they are kept there.

    Returns ``changed``, ``outcome`` (present, pulled, made, rebuilt), ``path``, ``id``, ``digest``, ``bytes`` (None
    when only predicted), ``commits`` by service, and ``before`` (absent, whole, damaged).
    """
    release = parse(spec)
    if not home.is_absolute() or "\n" in str(home):
        raise RunbookError(f"home {str(home)!r} must be an absolute path")
    releases = home / "releases"
    final = releases / release.id
    owner = _owner(user)
    deadline = monotonic() + build_timeout_seconds
    docker = docker or _container.engine()
    apt = _apt.Apt(lambda: deadline - monotonic(), run, apt_update)
    if any(service.artifact.apt for service in release.services):
        apt.refuse_host()
    try:
        before = condition(release, final, owner)
        old = read_manifest(final)
        missing = _images.missing(docker, old)
        outcome = {"whole": "pulled" if missing else "present", "absent": "made", "damaged": "rebuilt"}[before]
        size: Optional[int] = None
        manifest: dict[str, Any] = {}
        if not check:
            sweep(releases)
            for part in missing:
                _images.fetch_again(docker, part, deadline - monotonic())
            if before == "whole":
                manifest = old or {}
            else:

                def bounded(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
                    return run(argv, cwd, env, deadline - monotonic())

                def obtain() -> dict[str, Any]:
                    there = [read_manifest(tree) for tree in trees(home)]
                    return {
                        one.name: _images.settle(
                            *(docker, one.image, "missing", one.name, deadline - monotonic()),
                            *(_images.parts(old).get(one.name), there),
                        )
                        for one in release.services
                        if one.image
                    }

                manifest = _make(release, final, bounded, clock, free, sync, owner, apt, docker.command, obtain)
            _images.keep_all(docker, str(spec.get("container_prefix")), release.id, manifest)
            size = sum(entry.get("size", 0) for entry in manifest["files"].values())
            commits = {name: service["commit"] for name, service in manifest["services"].items()}
        else:
            commits = {service.name: service.commit for service in release.services}
    except OSError as exc:
        why = "the disk is full" if exc.errno == errno.ENOSPC else str(exc)
        raise RunbookError(f"cannot make the release {release.id}: {why}") from exc
    return {
        "changed": before != "whole" or bool(missing),
        "outcome": outcome,
        "path": str(final),
        "id": release.id,
        "digest": release.digest,
        "bytes": size,
        "commits": commits,
        "before": before,
        "same": _images.same(None if check else manifest),
    }


def _owner(user: str) -> Optional[int]:
    if not user:
        return None
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        raise RunbookError(f"there is no user {user} on this host: create it, or change runtime_host_user") from None
    if os.geteuid() not in (0, uid):
        raise RunbookError(f"only root can make a release for the user {user}: set ansible_become or connect as root")
    return uid


def _private(release: Release, root: Path) -> list[Path]:
    """What only the user of the services may read."""
    return [
        path
        for service in release.services
        if not service.image  # whoever runs the process manager runs the command line
        for path in (root / service.name / "env", *(root / service.name / "app" / name for name in service.files))
    ]


def condition(release: Release, final: Path, owner: Optional[int] = None) -> str:
    """absent, whole or damaged; what must not be replaced is refused."""
    if not os.path.lexists(final):
        state, problems = "absent", []
    else:
        manifest = read_manifest(final)
        if manifest is None:
            raise RunbookError(f"{final} is there but is no release of ours (no readable manifest): move it away")
        if manifest["digest"] != release.digest:
            raise RunbookError(
                f"the release {release.id} is there with the digest {manifest['digest']}, not {release.digest}: "
                "a release is never changed, give the new one its own id"
            )
        problems = verify(final)
        if owner is not None and not problems:
            problems = [f"{p} belongs to another user" for p in _private(release, final) if os.lstat(p).st_uid != owner]
        state = "damaged" if problems else "whole"
    named = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
    if problems and release.id in release.in_use:
        raise RunbookError(
            f"the release {release.id} is damaged ({named}) and in use by a slot: deploy another one first",
            problems=problems,
        )
    if state != "whole" and release.present:
        raise RunbookError(
            f"the release {release.id} was said to be present, but is {state}: stage it without present",
            artifacts_needed=True,
        )
    return state


def _make(
    release: Release,
    final: Path,
    run: Command,
    clock: Callable[[], float],
    free: Callable[[Path], int],
    sync: Callable[[], None],
    owner: Optional[int],
    apt: _apt.Apt,
    command: Sequence[str],
    obtain: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    releases = final.parent
    releases.mkdir(exist_ok=True)
    _require_space(release, releases, free)

    def fill(build: Path) -> dict[str, Any]:
        scratch = build / ".scratch"
        scratch.mkdir(mode=0o700)
        services = {}
        images = obtain()
        packages = _fetch(release, scratch, apt)
        for service in release.services:
            if service.image:
                services[service.name] = _make_container(
                    *(release, service, build / service.name, final / service.name),
                    *(images[service.name], command),
                )
                continue
            services[service.name] = _make_service(release, service, build, final, scratch, run, free, packages)
        shutil.rmtree(scratch)
        if owner is not None:
            for path in _private(release, build):
                os.chown(path, owner, -1, follow_symlinks=False)
        return services

    return assemble(release, final, fill, clock, sync)


def assemble(
    release: Release,
    final: Path,
    fill: Callable[[Path], dict[str, Any]],
    clock: Callable[[], float] = time.time,
    sync: Callable[[], None] = os.sync,
) -> dict[str, Any]:
    """Make a release out of sight and show it by one rename; ``fill`` writes it and tells of its services."""
    build = final.parent / _temporary(release.id)
    try:
        build.mkdir()
        services = fill(build)
        manifest = {
            "format": FORMAT,
            "id": release.id,
            "version": release.version,
            "digest": release.digest,
            "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock())),
            "services": services,
            "files": _inventory(build),
        }
        write_json(build / "manifest.json", manifest, 0o600)
        # One flush for the thousands of files of a venv, before the one rename that makes them visible.
        sync()
        _publish(build, final)
    finally:
        shutil.rmtree(build, ignore_errors=True)
    return manifest


def _publish(build: Path, final: Path) -> None:
    damaged = None
    if os.path.lexists(final):
        damaged = final.parent / _temporary(f"damaged.{final.name}")
        os.rename(final, damaged)
    os.rename(build, final)
    fsync_directory(final.parent)
    if damaged is not None:
        shutil.rmtree(damaged, ignore_errors=True)


def _require_space(release: Release, releases: Path, free: Callable[[Path], int]) -> None:
    needed = 0
    for service in release.services:
        path = service.artifact.archive or service.artifact.wheel
        if path:
            try:
                needed += 2 * os.stat(path).st_size
            except OSError as exc:
                raise RunbookError(f"cannot read the artifact of {service.name}, {path}: {exc.strerror}") from None
    available = free(releases)
    if available < needed:
        raise RunbookError(
            f"the release {release.id} needs {needed} bytes (twice the size of its artifacts) below {releases}, "
            f"but only {available} are free"
        )


def _make_service(
    release: Release,
    service: Service,
    build: Path,
    final: Path,
    scratch: Path,
    run: Command,
    free: Callable[[Path], int],
    packages: Mapping[_apt.Package, tuple[Path, str]],
) -> dict[str, Any]:
    artifact = service.artifact
    here = build / service.name
    here.mkdir()
    commit = service.commit
    if artifact.git:
        tar, commit = _export_git(service, scratch, run)
        extract(tar, here / "app", free_bytes=free(build))
    elif artifact.archive:
        extract(artifact.archive, here / "app", artifact.sha256, artifact.strip_components, free_bytes=free(build))
    else:
        (here / "app").mkdir()
    identity = artifact.identity()
    if artifact.apt:
        deb, identity["sha256"] = packages[artifact.apt]
        shutil.copyfile(deb, here / _apt.FILE)
        (here / _apt.FILE).chmod(0o644)
    elif artifact.python or artifact.wheel:
        _make_venv(service, here / "venv", scratch, run)
        _relocate(here / "venv", os.fsencode(build), os.fsencode(final))
    for path, content in sorted(service.files.items()):
        _write_below(here / "app", path, content, f"services[{service.name}].files[{path!r}]")
    write_atomic(here / "env", environment_file(service.environment), 0o600)
    write_atomic(here / "run", run_script(release, service, final / service.name, commit), 0o755)
    if artifact.archive:
        identity["archive"] = os.path.basename(artifact.archive)
    return {"artifact": identity, "commit": commit, "command": service.command, "secrets": list(service.secrets)}


def _make_container(
    release: Release, service: Service, here: Path, final: Path, part: Mapping[str, Any], command: Sequence[str]
) -> dict[str, Any]:
    here.mkdir()
    write_atomic(here / "env", environment_file(service.environment), 0o600)
    write_atomic(here / "run", container_script(release, service, final, part["image_id"], command), 0o755)
    more = {"container_port": service.container_port, "commit": service.commit, "command": ""}
    return {**part, **more, "secrets": list(service.secrets)}


def _fetch(release: Release, scratch: Path, apt: _apt.Apt) -> dict[_apt.Package, tuple[Path, str]]:
    """The file of each package and its SHA-256; what they need is there too. Before anything that takes longer."""
    found: dict[_apt.Package, tuple[Path, str]] = {}
    for package in [service.artifact.apt for service in release.services]:
        if package is not None and package not in found:
            directory = scratch / f"{package.name}.apt"
            directory.mkdir()
            found[package] = apt.fetch(package, directory)
    if found:
        apt.prepare([path for path, _digest in found.values()])
    return found


def environment_file(environment: Mapping[str, str]) -> str:
    return "".join(f"export {key}={shlex.quote(value)}\n" for key, value in sorted(environment.items()))


def secret_values(release: Path, service: str) -> list[str]:
    """The values that are never shown, of one service of a release of ours; the longest first."""
    manifest = read_manifest(release) or {"services": {}}
    names = manifest["services"].get(service, {}).get("secrets") or []
    try:
        words = shlex.split((release / service / "env").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    values = dict(word.partition("=")[::2] for word in words if "=" in word)
    lines = [line for name in names for line in values.get(name, "").splitlines()]
    return sorted((line for line in lines if len(line) >= 4), key=len, reverse=True)


def run_script(release: Release, service: Service, directory: Path, commit: str) -> str:
    """PORT, SLOT and DEPLOYED_AT are known to the process manager only and come with its environment."""
    lines = _environed(release, directory, commit)
    if service.artifact.python or service.artifact.wheel:
        venv_bin = shlex.quote(str(directory / "venv" / "bin"))
        lines.append(f"export PATH={venv_bin}:${{PATH:-/usr/local/bin:/usr/bin:/bin}}")
    lines += [f"cd {shlex.quote(str(directory / 'app'))}", f"exec {service.command}"]
    return "\n".join(lines) + "\n"


def container_script(release: Release, service: Service, directory: Path, image_id: str, command: Sequence[str]) -> str:
    """Its arguments are the name of the container and what else differs between slots."""
    lines = _environed(release, directory, service.commit)
    lines.append(f"export PORT={service.container_port}")
    return "\n".join([*lines, *_container.script(command, [*service.environment, *RESERVED], image_id), ""])


def _environed(release: Release, directory: Path, commit: str) -> list[str]:
    exports = {"DEPLOYED_VERSION": release.version, "DEPLOYED_COMMIT": commit, "RELEASE": release.id}
    return [
        *("#!/bin/sh", "set -eu", f". {shlex.quote(str(directory / 'env'))}"),
        *(f"export {key}={shlex.quote(value)}" for key, value in exports.items()),
    ]


def _write_below(app: Path, path: str, content: str, what: str) -> None:
    """The artifact's own links must not lead a configuration file out of the release."""
    target = app
    for part in path.split("/")[:-1]:
        target = target / part
        with contextlib.suppress(FileExistsError):
            target.mkdir()
        if not stat.S_ISDIR(os.lstat(target).st_mode):
            raise RunbookError(f"{what} goes through {target.relative_to(app)}, which is no directory in the artifact")
    target = target / path.split("/")[-1]
    if target.is_dir() and not target.is_symlink():
        raise RunbookError(f"{what} is a directory in the artifact")
    write_atomic(target, content, 0o600)


# --- git and Python ---------------------------------------------------------------------------------------------


def _call(
    run: Command,
    argv: Sequence[str],
    cwd: Path,
    what: str,
) -> str:
    env = {key: value for key, value in os.environ.items() if key not in FOREIGN_ENVIRONMENT}
    # Nobody is there to answer a question, and a user-wide "pip install --user" setting does not work in a venv.
    env.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    code, out, err = run(argv, cwd, {**env, "GIT_TERMINAL_PROMPT": "0", "PIP_USER": "0", "LC_ALL": "C.UTF-8"})
    if code != 0:
        lines = [line.strip() for line in (err.strip() or out.strip()).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith(("ERROR:", "fatal:"))] or lines
        last = USERINFO.sub(r"\1***@", "; ".join(errors[-3:]))
        raise RunbookError(f"{what} failed (exit code {code}): {last}")
    return out


def _export_git(
    service: Service,
    scratch: Path,
    run: Command,
) -> tuple[Path, str]:
    """The tree of the commit as a tar, which is then checked and unpacked like any other."""
    url, ref = service.artifact.git, service.artifact.ref
    where = f"{service.name}: git of {url}"
    repository = scratch / f"{service.name}.git"

    def git(*argv: str) -> str:
        return _call(run, ("git", "-C", str(repository), *argv), scratch, where)

    _call(run, ("git", "init", "--quiet", "--bare", str(repository)), scratch, where)
    # A path is meant from where the task runs, not from the scratch directory.
    source = os.path.abspath(url) if os.path.isdir(url) else url
    listed = [line.partition("\t")[2] for line in git("ls-remote", "--heads", "--tags", "--", source).splitlines()]
    tag = ref[len("refs/tags/") :] if ref.startswith("refs/tags/") else ref
    branch = ref[len("refs/heads/") :] if ref.startswith("refs/heads/") else ref
    if f"refs/tags/{tag}" in listed:
        wanted = f"refs/tags/{tag}"
        git("fetch", "--quiet", "--depth", "1", "--no-tags", "--", source, f"+{wanted}:{wanted}")
    elif f"refs/heads/{branch}" in listed or ref == "HEAD":
        raise RunbookError(f"{service.name}: ref {ref!r} is a branch of {url}, which moves: name a tag or a commit")
    elif COMMIT.fullmatch(ref):
        wanted = ref
        git("fetch", "--quiet", "--", source, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
    else:
        raise RunbookError(f"{service.name}: ref {ref!r} is neither a tag nor a commit of {url}")
    try:
        commit = git("rev-parse", "--verify", "--quiet", f"{wanted}^{{commit}}").strip()
    except RunbookError:
        raise RunbookError(f"{service.name}: ref {ref!r} names no commit, or more than one, of {url}") from None
    if service.commit and not commit.startswith(service.commit):
        raise RunbookError(f"{service.name}: ref {ref!r} is the commit {commit}, not {service.commit} as in commit")
    tar = scratch / f"{service.name}.tar"
    git("archive", "--format=tar", "-o", str(tar), commit)
    return tar, commit


def _make_venv(
    service: Service,
    venv: Path,
    scratch: Path,
    run: Command,
) -> None:
    artifact = service.artifact
    lines = list(artifact.python)
    if artifact.wheel:
        # The copy is what is checked and installed, so that it cannot be exchanged in between.
        name = os.path.basename(artifact.wheel)
        shutil.copyfile(artifact.wheel, scratch / name)
        check_file(scratch / name, artifact.sha256)
        hashed = any("--hash=" in line for line in lines)
        lines.insert(0, f"./{name}" + (f" --hash=sha256:{artifact.sha256}" if hashed else ""))
    requirements = scratch / f"{service.name}.txt"
    write_atomic(requirements, "".join(f"{line}\n" for line in lines), 0o600)
    _call(run, (service.python_executable, "-I", "-m", "venv", str(venv)), scratch, f"{service.name}: python -m venv")
    _call(
        run,
        (str(venv / "bin" / "python"), "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check")
        + ("--no-warn-script-location", "-r", requirements.name),
        scratch,
        f"{service.name}: pip install",
    )


def _relocate(venv: Path, build: bytes, final: bytes) -> None:
    """A venv writes its own path into its scripts; name the path it is about to be renamed to."""
    for path in [venv / "pyvenv.cfg", *(venv / "bin").iterdir()]:
        if path.is_symlink() or not path.is_file():
            continue
        content = path.read_bytes()
        if build in content and b"\0" not in content:
            path.write_bytes(content.replace(build, final))


# --- reading and removing ---------------------------------------------------------------------------------------


def _walk(root: Path, prefix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Files and links below ``root``, without the bytecode that the application writes itself."""
    with os.scandir(root / prefix) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        name = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            if entry.name != "__pycache__":
                yield from _walk(root, name + "/")
        elif not entry.name.endswith(".pyc"):
            yield name, entry.stat(follow_symlinks=False)


def _inventory(build: Path) -> dict[str, dict[str, Any]]:
    return {name: _describe(build / name, status) for name, status in _walk(build)}


def _describe(path: Path, status: os.stat_result) -> dict[str, Any]:
    if stat.S_ISLNK(status.st_mode):
        return {"link": os.readlink(path)}
    if not stat.S_ISREG(status.st_mode):
        return {"kind": stat.S_IFMT(status.st_mode)}
    return {"sha256": file_sha256(path), "size": status.st_size, "mode": f"{stat.S_IMODE(status.st_mode):04o}"}


def read_manifest(path: Path) -> Optional[dict[str, Any]]:
    """The manifest of a release of ours; None for whatever else is at ``path``."""
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            return None
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    expected = {"id": str, "version": str, "digest": str, "made_at": str, "services": dict, "files": dict}
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or manifest.get("id") != path.name:
        return None
    return manifest if all(isinstance(manifest.get(key), kind) for key, kind in expected.items()) else None


def verify(path: Path) -> list[str]:
    """What is wrong with the release at ``path``: one sentence per missing or altered file; empty when whole."""
    path = Path(path)
    manifest = read_manifest(path)
    if manifest is None:
        return ["manifest.json is missing or not readable"]
    problems = []
    for name, recorded in sorted(manifest["files"].items()):
        try:
            found = _describe(path / name, os.lstat(path / name))
        except (FileNotFoundError, NotADirectoryError):
            problems.append(f"{name} is missing")
        except OSError as exc:
            problems.append(f"{name} cannot be read: {exc.strerror}")
        else:
            if found != recorded:
                only_mode = {**found, "mode": ""} == {**recorded, "mode": ""}
                problems.append(f"{name} has other permissions" if only_mode else f"{name} was altered")
    return problems


def refuse_changed(root: Path) -> None:
    """What somebody changed is not what was proven before, so it is not started."""
    damage = verify(root)
    if damage:
        more = f" and {len(damage) - 3} more" if len(damage) > 3 else ""
        raise RunbookError(
            f"release {root.name} was changed after it was made, so it is not started: "
            f"{'; '.join(damage[:3])}{more}. Deploy that version again to make it anew"
        )


def manifests(home: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Our releases (id, version, digest, made_at), oldest first, and the names of whatever else is there."""
    ours, foreign = [], []
    for name in _names(Path(home) / "releases"):
        if TEMPORARY.fullmatch(name):
            continue
        manifest = read_manifest(Path(home) / "releases" / name)
        if manifest is None:
            foreign.append(name)
        else:
            ours.append({key: manifest[key] for key in ("id", "version", "digest", "made_at")})
    return sorted(ours, key=lambda entry: (entry["made_at"], entry["id"])), foreign


def remove(home: Path, ids: Iterable[str], keep: Iterable[str] = (), check: bool = False) -> list[str]:
    """Remove the releases ``ids`` that are there; returns their ids. Call it inside ``changing``."""
    releases = Path(home) / "releases"
    wanted = list(dict.fromkeys(ids))
    kept = sorted(set(wanted) & set(keep))
    if kept:
        raise RunbookError(f"the release {kept[0]} is to be removed and to be kept: nothing was removed")
    for release_id in wanted:
        if not ID.fullmatch(release_id):
            raise RunbookError(f"{release_id!r} is no release id: nothing was removed")
    there = [release_id for release_id in wanted if os.path.lexists(releases / release_id)]
    for release_id in there:
        if read_manifest(releases / release_id) is None:
            raise RunbookError(
                f"{releases / release_id} is no release of ours (no readable manifest): nothing was removed"
            )
    if check:
        return there
    try:
        sweep(releases)
        for release_id in there:
            condemned = releases / _temporary(f"removed.{release_id}")
            os.rename(releases / release_id, condemned)
            fsync_directory(releases)
            shutil.rmtree(condemned)
    except OSError as exc:
        raise RunbookError(f"cannot remove releases below {releases}: {exc}") from exc
    return there


def prune(
    home: Path, docker: Docker, prefix: str, ids: Sequence[str], keep: Iterable[str] = (), check: bool = False
) -> dict[str, Any]:
    """``remove`` and the names of images that only those releases had. Images first: what is cut off is done again."""
    there = remove(home, ids, keep, check=True)
    if check:
        return {"changed": bool(there), "removed": there, "images_removed": []}
    gone = _images.untag(docker, prefix, {tree.name: read_manifest(tree) for tree in trees(home)}, there)
    removed = remove(home, ids, keep)
    return {"changed": bool(removed), "removed": removed, "images_removed": gone}


def trees(home: Path) -> list[Path]:
    return [home / "releases" / name for name in _names(home / "releases")]


def _temporary(label: str) -> str:
    return f".{label}.{secrets.token_hex(4)}"


def _names(releases: Path) -> list[str]:
    try:
        return sorted(os.listdir(releases))
    except FileNotFoundError:
        return []


def sweep(releases: Path) -> None:
    """Remove what killed runs left: the fence is held, so nobody is building.

    What cannot be removed is invisible clutter and must not stop a deployment.
    """
    for name in _names(releases):
        if TEMPORARY.fullmatch(name):
            shutil.rmtree(releases / name, ignore_errors=True)
