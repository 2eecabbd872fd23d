# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Debian packages: one exact version is fetched, installed and held. Private: may change at any time.

A package lives at fixed paths, so a host has one version of it at a time. What is installed comes from a file that the
release keeps, without the repositories wherever the dependencies are there already: then a way back needs no network,
and nothing but the package changes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from ansible_collections.signalbox.runbook.plugins.module_utils import _command
from ansible_collections.signalbox.runbook.plugins.module_utils._archive import file_sha256
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

FILE = "package.deb"  # its name in the directory of a service
NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+\Z")
VERSION = re.compile(r"([0-9]+:)?[0-9][A-Za-z0-9.+~-]*\Z")
# What becomes of a configuration file that both the host and the package changed. By the manual of dpkg the default
# action, which --force-confdef prefers, is to keep it: beside --force-confnew it would win.
CONFFILES = {"keep": ("--force-confdef", "--force-confold"), "replace": ("--force-confnew",)}

# Nobody is there to answer a question, and the services of the host are not restarted behind its back.
ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "APT_LISTCHANGES_FRONTEND": "none",
    "NEEDRESTART_SUSPEND": "1",
    "LC_ALL": "C",
}
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # dpkg refuses to work without what is there
INSTALL = (
    *("apt-get", "install", "--yes", "--quiet", "--allow-downgrades", "--allow-change-held-packages", "--no-remove"),
    *("-o", "DPkg::Lock::Timeout=0"),
)
# Only what is installed and the given files: no repository is known, and the caches of the others stay as they are.
ALONE = tuple(
    word
    for setting in (
        "Etc::SourceList=/dev/null",
        "Etc::SourceParts=/dev/null",
        "Cache::pkgcache=",
        "Cache::srcpkgcache=",
    )
    for word in ("-o", f"Dir::{setting}")
)
LOCKED = re.compile(r"could not get lock|is another process using it|locked by another process", re.IGNORECASE)
INTERRUPTED = "dpkg was interrupted"
UNMET = "unmet dependencies"
POLL_SECONDS = 1.0
SHOWN = 8  # so many versions are named

Run = _command.Run


class Package(NamedTuple):
    name: str
    version: str
    conffiles: str = "keep"

    def identity(self) -> dict[str, str]:
        return {"package": self.name, "version": self.version, "conffiles": self.conffiles}


class Installed(NamedTuple):
    """What dpkg says of a package: selected for what, damaged or not, how far it is, and its version."""

    want: str = "unknown"
    flag: str = "ok"
    status: str = "not-installed"
    version: str = ""

    @property
    def held(self) -> bool:
        return self.want == "hold"

    def is_whole(self, version: str) -> bool:
        done = self.status in ("installed", "triggers-pending", "triggers-awaited")
        return done and self.flag == "ok" and self.version == version

    def is_broken(self, version: str) -> bool:
        """Whether it was cut off while this version was unpacked: it has to be unpacked again."""
        return self.version == version and (self.flag != "ok" or self.status == "half-installed")


# -- the specification ------------------------------------------------------------------------------------------


def problems(raw: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with the description of a package: (key, what and what would be right)."""
    name, version = raw.get("package"), raw.get("version")
    found = []
    if not isinstance(name, str) or not NAME.match(name):
        found.append(("package", f"{name!r} is no name of a Debian package, like shop-api"))
    if not isinstance(version, str) or not VERSION.match(version):
        found.append(("version", f"{version!r} is no exact version of a Debian package, like 1.3.0-1"))
    if (raw.get("conffiles") or "keep") not in CONFFILES:
        found.append(("conffiles", f"{raw['conffiles']!r} must be keep or replace"))
    return found


def package(raw: Mapping[str, Any]) -> Package:
    return Package(raw["package"], raw["version"], raw.get("conffiles") or "keep")


def packages(manifest: Optional[Mapping[str, Any]]) -> dict[str, Package]:
    """Service to its package, for those services of a release that have one."""
    services = (manifest or {"services": {}})["services"]
    artifacts = {name: (service.get("artifact") or {}).get("apt") for name, service in services.items()}
    return {name: package(raw) for name, raw in artifacts.items() if raw}


# -- what the tools say -----------------------------------------------------------------------------------------


def madison(text: str) -> list[str]:
    """The versions that ``apt-cache madison`` tells, the newest first; sources can't be installed."""
    rows = [[field.strip() for field in line.split("|")] for line in text.splitlines()]
    return list(dict.fromkeys(row[1] for row in rows if len(row) == 3 and not row[2].endswith("Sources")))


def checksums(text: str, version: str) -> set[str]:
    """The SHA-256 that indexes have for a version, out of ``apt-cache show``. What is installed has none."""
    found = set()
    for paragraph in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): *(\S*)", paragraph, re.MULTILINE))
        if fields.get("Version") == version and "SHA256" in fields:
            found.add(fields["SHA256"].lower())
    return found


def states(text: str) -> dict[str, Installed]:
    """Name to what dpkg says, out of lines ``name TAB want flag status TAB version``."""
    found = {}
    for line in text.splitlines():
        name, status, version = (line.split("\t") + ["", ""])[:3]
        words = status.split()
        if len(words) == 3:
            found[name] = Installed(words[0], words[1], words[2], version)
    return found


def altered(text: str) -> list[str]:
    """The files of a package that are other than it brought them, out of ``dpkg --verify``, without conffiles.

    What is missing is not told: hosts that leave out documentation or translations miss it on purpose.
    """
    return [line[12:] for line in text.splitlines() if line[2:3] == "5" and line[10:11] != "c"]


def complaint(out: str, err: str) -> str:
    """What apt and dpkg said against it, in one line."""
    lines = [line.strip() for line in f"{out}\n{err}".splitlines()]
    told = [
        line
        for line in lines
        if re.match(
            r"(E:|dpkg: error|dpkg-\S+: error)|.*\b(Pre-Depends|Depends|Conflicts|Breaks): |.* subprocess ", line
        )
    ]
    words = "; ".join(dict.fromkeys(told or [line for line in lines if line][-2:])) or "it gave no reason"
    return _command.USERINFO.sub(r"\1***@", words)[:600]


def difference(wanted: Package, there: Installed) -> str:
    """In what a host differs from what a start left there; empty when in nothing."""
    if there.status == "not-installed" or not there.version:
        return f"the package {wanted.name} is not installed any more"
    if there.version != wanted.version:
        return f"{wanted.name} {there.version} is installed, not {wanted.version}"
    if not there.is_whole(wanted.version):
        flag = "" if there.flag == "ok" else f" and {there.flag}"
        return f"{wanted.name} {wanted.version} is {there.status}{flag}"
    return ""


# -- this host --------------------------------------------------------------------------------------------------


def keeping_open(fds: Sequence[int]) -> Run:
    """Commands with the host's lock: an apt that outlives its killed parent still holds it. dpkg has a lock of its own,
    and would hand ours on to whatever a maintainer script starts."""
    return _command.within("start_seconds", lambda program: fds if program == "apt-get" else ())


run_bounded = keeping_open(())


def admin_directory() -> Path:
    return Path(os.environ.get("DPKG_ADMINDIR") or "/var/lib/dpkg")


def is_busy(admin: Path) -> bool:
    """Whether somebody holds one of the locks of dpkg. Only root may ask."""
    for name in ("lock-frontend", "lock"):
        with contextlib.suppress(FileNotFoundError), open(admin / name, "r+b") as stream:
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
    return False


class Apt:
    """The packages of this host. ``left`` tells how many seconds are left for all that is done; ``update`` is whether
    the repositories may be read anew for a version that is not known."""

    def __init__(
        self,
        left: Callable[[], float],
        run: Run = run_bounded,
        update: bool = True,
        sleep: Callable[[float], None] = time.sleep,
        busy: Callable[[Path], bool] = is_busy,
    ) -> None:
        self._left = left
        self._run = run
        self._update = update
        self._sleep = sleep
        self._busy = busy

    def _call(self, *argv: str, cwd: Path = Path("/")) -> tuple[int, str, str]:
        known = (os.environ.get("PATH") or "/usr/local/bin:/usr/bin:/bin").split(":")
        path = ":".join([*known, *(place for place in SBIN if place not in known)])
        return self._run(argv, cwd, {**os.environ, **ENVIRONMENT, "PATH": path}, self._left())

    def _patient(self, *argv: str, cwd: Path = Path("/")) -> tuple[int, str, str]:
        """Wait for others to end who hold one of the locks, as long as there is time."""
        while True:
            code, out, err = self._call(*argv, cwd=cwd)
            if not code or not LOCKED.search(err):
                return code, out, err
            self._wait(complaint("", err))

    def _wait(self, why: str) -> None:
        if self._left() <= POLL_SECONDS:
            raise RunbookError(f"another program changes the packages of this host and did not end in time ({why})")
        self._sleep(POLL_SECONDS)

    def _apt_get(self, *words: str, conffiles: str = "keep") -> tuple[int, str, str]:
        """The same once more after dpkg has finished what it was interrupted in. What that says is not the verdict:
        the package that can't be configured may be the very one that is about to be replaced."""
        code, out, err = self._patient(*words)
        if code and INTERRUPTED in err:
            self._patient("dpkg", *CONFFILES[conffiles], "--configure", "--pending")
            code, out, err = self._patient(*words)
        return code, out, err

    def refuse_host(self) -> None:
        """Before anything is touched: whether packages can be installed here at all."""
        if shutil.which("apt-get") is None:
            raise RunbookError("there is no apt-get on this host: an artifact of apt needs Debian or a relative of it")
        if os.geteuid():
            raise RunbookError("only root can install a package: set ansible_become or connect as root")

    # -- fetching -------------------------------------------------------------------------------------------------

    def fetch(self, wanted: Package, directory: Path) -> tuple[Path, str]:
        """The file of just this version, in ``directory``, and its SHA-256, which is the one of the index."""
        problem = self._unavailable(wanted) or self._download(wanted, directory)
        if problem and self._update:
            _code, _out, said = self._patient("apt-get", "update", "--quiet")
            problem = self._unavailable(wanted) or self._download(wanted, directory)
            if problem and said.strip():
                problem += f" (apt-get update said: {complaint('', said)})"
        if problem:
            raise RunbookError(problem)
        files = list(directory.glob("*.deb"))
        if len(files) != 1:
            raise RunbookError(f"apt-get download of {wanted.name} {wanted.version} left {len(files)} files, not one")
        digest = file_sha256(files[0])
        known = checksums(self._call("apt-cache", "show", f"{wanted.name}={wanted.version}")[1], wanted.version)
        if digest not in known:
            raise RunbookError(
                f"{wanted.name} {wanted.version} was downloaded with the SHA-256 {digest}, but the index of its "
                f"repository has {' and '.join(sorted(known)) or 'none'}"
            )
        code, out, err = self._call("dpkg-deb", "--field", str(files[0]), "Package", "Version")
        if code or out.splitlines() != [f"Package: {wanted.name}", f"Version: {wanted.version}"]:
            says = complaint(out.replace("\n", " "), err)
            raise RunbookError(f"what the repository has as {wanted.name} {wanted.version} is another package ({says})")
        return files[0], digest

    def _unavailable(self, wanted: Package) -> str:
        code, out, err = self._call("apt-cache", "madison", wanted.name)
        if code:
            raise RunbookError(f"apt-cache madison failed (exit code {code}): {complaint(out, err)}")
        known = madison(out)
        if wanted.version in known:
            return ""
        if not known:
            return f"no repository of this host has a package {wanted.name}"
        more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
        return (
            f"no repository of this host has {wanted.name} {wanted.version}; there are {', '.join(known[:SHOWN])}{more}"
        )

    def _download(self, wanted: Package, directory: Path) -> str:
        code, out, err = self._patient(
            "apt-get", "download", "--quiet", f"{wanted.name}={wanted.version}", cwd=directory
        )
        return f"{wanted.name} {wanted.version} could not be downloaded: {complaint(out, err)}" if code else ""

    def prepare(self, files: Sequence[Path]) -> None:
        """See that the files can be installed, and download what they depend on. Nothing is installed."""
        named = [str(path) for path in files]
        if self._call(*INSTALL, *ALONE, "--simulate", *named)[0] == 0:
            return  # all that they need is installed
        code, out, err = self._apt_get(*INSTALL, "--download-only", *named)
        if code:
            raise RunbookError(f"the packages of this release can't be installed here: {complaint(out, err)}")

    # -- installing -----------------------------------------------------------------------------------------------

    def states(self, names: Sequence[str]) -> dict[str, Installed]:
        if not names:
            return {}
        show = "--showformat=${Package}\t${Status}\t${Version}\n"
        code, out, err = self._call("dpkg-query", "--show", show, *names)
        if code not in (0, 1):  # 1: there is none of that name
            raise RunbookError(f"dpkg-query failed (exit code {code}): {complaint(out, err)}")
        known = states(out)
        return {name: known.get(name, Installed()) for name in names}

    def ensure(self, files: Mapping[Path, Package]) -> None:
        """Have just these versions installed, out of these files, and held. Looked at when no dpkg is at work, such as
        one that outlived a killed run."""
        self.refuse_host()
        while self._busy(admin_directory()):
            self._wait(f"it holds the lock of {admin_directory()}")
        for verify in (True, False):  # apt finishes what is half-configured, and replaces it only after that
            there = self.states([one.name for one in files.values()])
            new: dict[Path, Package] = {}
            again: dict[Path, Package] = {}
            for path, one in files.items():
                state = there[one.name]
                if not state.is_whole(one.version):
                    (again if state.is_broken(one.version) else new)[path] = one
                elif self._is_other(path, one) or (verify and self._is_altered(one)):
                    again[path] = one
            if new:
                self._install(new)
            if again:
                self._install(again, "--reinstall")
        there = self.states([one.name for one in files.values()])
        for path, one in files.items():
            wrong = difference(one, there[one.name])
            if not wrong and self._is_other(path, one):
                wrong = f"the {one.name} {one.version} that is installed is another build than that of the release"
            if wrong:
                raise RunbookError(f"apt-get install reports success, but {wrong}", changed=True)
        self._hold([name for name, state in there.items() if not state.held])

    def _install(self, files: Mapping[Path, Package], *more: str) -> None:
        for conffiles, options in CONFFILES.items():
            paths = [str(path) for path, one in files.items() if one.conffiles == conffiles]
            if not paths:
                continue
            words = [*INSTALL, *more, *(f"-oDpkg::Options::={option}" for option in options)]
            code, out, err = self._apt_get(*words, *ALONE, *paths, conffiles=conffiles)
            if code and UNMET in f"{out}{err}":
                code, out, err = self._apt_get(*words, "--fix-broken", *paths, conffiles=conffiles)
            if code:
                named = ", ".join(f"{one.name} {one.version}" for one in files.values())
                raise RunbookError(f"{named} could not be installed: {complaint(out, err)}", changed=True)

    def _hold(self, names: Sequence[str]) -> None:
        """Keep an upgrade of the host from changing them; the next start may."""
        if not names:
            return
        code, out, err = self._patient("apt-mark", "hold", *names)
        if code or not all(there.held for there in self.states(names).values()):
            raise RunbookError(f"{', '.join(names)} could not be held: {complaint(out, err)}", changed=True)

    def _is_other(self, path: Path, one: Package) -> bool:
        """Whether the installed package is another build under the same version, as far as they say what they hold."""
        code, brought, _err = self._call("dpkg-deb", "--info", str(path), "md5sums")
        if code:
            return False  # it brings none
        _code, there, _err = self._call("dpkg-query", "--control-show", one.name, "md5sums")
        return sorted(brought.split("\n")) != sorted(there.split("\n"))

    def _is_altered(self, one: Package) -> bool:
        return bool(altered(self._call("dpkg", "--verify", one.name)[1]))

    def shipped(self, name: str) -> list[str]:
        """The units that a package brings."""
        _code, out, _err = self._call("dpkg-query", "--listfiles", name)
        return re.findall(r"^(?:/usr)?/lib/systemd/system/([^/]+\.service)$", out, re.MULTILINE)
