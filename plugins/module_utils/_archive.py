# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unpack a tar archive that nobody has to trust: every member is checked before the first byte is written.

Private: may change at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple, Optional, Union

from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._files import PathLike

MAX_MEMBERS = 200_000
MAX_BYTES = 20 * 1024**3
# A long name or an extended header is read into memory whole, before any member can be judged.
MAX_HEADER_BYTES = 1024 * 1024
MAX_LINK_HOPS = 40
HEADER_TYPES = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)

Parts = tuple[str, ...]

# What tarfile lets through when the bytes make no sense; RecursionError: a long chain of name headers.
DAMAGED: tuple[type[Exception], ...] = (tarfile.TarError, EOFError, zlib.error, ValueError, RecursionError)
with contextlib.suppress(ImportError):
    from lzma import LZMAError

    DAMAGED = (*DAMAGED, LZMAError)


class Extracted(NamedTuple):
    """What was written: ``bytes`` of content in ``files`` files."""

    bytes: int
    files: int


class _Plan(NamedTuple):
    directories: dict[Parts, int]
    files: dict[Parts, tarfile.TarInfo]
    hard_links: dict[Parts, Parts]
    links: dict[Parts, str]


class _Member(tarfile.TarInfo):
    """tarfile takes a broken header after the first one for the end of the archive; here it is an error."""

    @classmethod
    def frombuf(cls, buf: Union[bytes, bytearray], encoding: str, errors: str) -> _Member:
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as exc:
            if buf.count(0) == tarfile.BLOCKSIZE:  # a block of zeros is the proper end
                raise
            raise tarfile.ReadError(f"{exc}; it is damaged or cut short") from None
        if member.size < 0 or (member.type in HEADER_TYPES and member.size > MAX_HEADER_BYTES):
            raise tarfile.ReadError(f"a header claims a size of {member.size} bytes")
        return member


def stream_sha256(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    for block in iter(lambda: stream.read(1024 * 1024), b""):
        digest.update(block)
    return digest.hexdigest()


def file_sha256(path: PathLike) -> str:
    with open(path, "rb") as stream:
        return stream_sha256(stream)


def require_sha256(path: PathLike, actual: str, expected: str) -> None:
    if actual != expected.lower():
        raise RunbookError(f"{path} has sha256 {actual}, but {expected.lower()} was expected: it is another file")


def check_file(path: PathLike, expected: str) -> None:
    """Refuse a file that is missing or whose sha256 is not ``expected``."""
    try:
        actual = file_sha256(path)
    except OSError as exc:
        raise RunbookError(f"cannot read {path}: {exc.strerror}") from None
    require_sha256(path, actual, expected)


def extract(
    path: PathLike,
    into: PathLike,
    sha256: Optional[str] = None,
    strip_components: int = 0,
    max_members: int = MAX_MEMBERS,
    max_bytes: int = MAX_BYTES,
    free_bytes: Optional[int] = None,
) -> Extracted:
    """Unpack ``path`` as the new directory ``into``, or refuse and leave no ``into`` behind."""
    into = Path(into)
    if os.path.lexists(into):
        raise RunbookError(f"cannot unpack {path}: {into} exists already")
    try:
        # Checked and unpacked through one open file, so that it cannot be exchanged in between.
        with open(path, "rb") as stream:
            if sha256 is not None:
                require_sha256(path, stream_sha256(stream), sha256)
                stream.seek(0)
            with tarfile.open(fileobj=stream, mode="r:*", tarinfo=_Member) as archive:
                plan = _check(archive, strip_components, max_members, max_bytes)
                size = sum(member.size for member in plan.files.values())
                if free_bytes is not None and size > free_bytes:
                    raise _RefusedError(f"unpacks to {size} bytes, but only {free_bytes} bytes are free")
                _second_opinion(plan, into)
                _write(archive, plan, into)
    except _RefusedError as exc:
        raise RunbookError(f"archive {path} {exc}") from None
    except DAMAGED as exc:
        raise _not_whole(path, exc) from None
    except OSError as exc:
        # gzip and bz2 report damaged data as an OSError without an errno.
        if exc.errno is None:
            raise _not_whole(path, exc) from None
        raise RunbookError(f"cannot unpack {path}: {exc}") from None
    return Extracted(size, len(plan.files) + len(plan.hard_links))


def _not_whole(path: PathLike, exc: Exception) -> RunbookError:
    # tarfile adds a line for each compression that it tried.
    why = str(exc).partition("\n")[0].rstrip(":") or type(exc).__name__
    return RunbookError(f"{path} is not a whole tar archive (plain, gz, xz or bz2): {why}")


class _RefusedError(Exception):
    """Completes the sentence that begins with "archive <path>"."""


def _parts(name: str, member: str) -> Parts:
    if "\0" in name or "\n" in name:
        raise _RefusedError(f"has the member {member!r}, whose name contains a newline or NUL")
    if name.startswith("/"):
        raise _RefusedError(f"has the member {member!r} with an absolute path; paths must be relative")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise _RefusedError(f"has the member {member!r} with '..' in its path")
    return parts


def _check(archive: tarfile.TarFile, strip: int, max_members: int, max_bytes: int) -> _Plan:
    """Judge every member; nothing has been written when this returns."""
    plan = _Plan({}, {}, {}, {})
    total = 0
    count = 0
    while True:
        member = archive.next()
        if member is None:
            break
        count += 1
        if count > max_members:
            raise _RefusedError(f"has more than {max_members} members")
        if member.size < 0:
            raise _RefusedError(f"has the member {member.name!r} with a negative size")
        total += member.size if member.isreg() else 0
        if total > max_bytes:
            raise _RefusedError(f"unpacks to more than {max_bytes} bytes (at the member {member.name!r})")
        _add(plan, member, strip)
    # What follows is padding; reading it lets gz, xz and bz2 compare their own checksums.
    while archive.fileobj is not None and total <= max_bytes:
        padding = len(archive.fileobj.read(1024 * 1024))
        if not padding:
            break
        total += padding
    else:
        raise _RefusedError(f"unpacks to more than {max_bytes} bytes, most of them after its end")
    if not plan.files:
        raise _RefusedError(f"has no file left after strip_components={strip}" if strip else "contains no file")
    _check_tree(plan)
    return plan


def _add(plan: _Plan, member: tarfile.TarInfo, strip: int) -> None:
    name = member.name
    parts = _parts(name, name)
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        kind = "FIFO" if member.isfifo() else "device file" if member.isdev() else "file of unknown type"
        raise _RefusedError(
            f"has the member {name!r}, which is a {kind}; only files, directories and links are allowed"
        )
    if member.isdir() and len(parts) <= strip:
        return
    if not parts:
        raise _RefusedError(f"has the member {name!r}, which has no name but is not a directory")
    parts = parts[strip:]
    if not parts:
        return
    taken = parts in plan.directories or parts in plan.files or parts in plan.hard_links or parts in plan.links
    both_same = (member.isdir() and parts in plan.directories) or (member.isreg() and parts in plan.files)
    if taken and not both_same:
        raise _RefusedError(f"has the member {name!r} twice, and not as a file both times")
    if member.isdir():
        plan.directories[parts] = member.mode
    elif member.isreg():
        plan.files[parts] = member
    elif member.issym():
        if not member.linkname or "\0" in member.linkname or "\n" in member.linkname:
            raise _RefusedError(f"has the link {name!r}, whose target is empty or contains a newline or NUL")
        if member.linkname.startswith("/"):
            raise _RefusedError(f"has the link {name!r} to the absolute path {member.linkname!r}; it must stay inside")
        plan.links[parts] = member.linkname
    else:
        target = _parts(member.linkname, name)[strip:]
        target = plan.hard_links.get(target, target)
        if target not in plan.files:
            raise _RefusedError(f"has the hard link {name!r} to {member.linkname!r}, which is no earlier file")
        plan.hard_links[parts] = target


def _check_tree(plan: _Plan) -> None:
    """What only the whole tree can tell: nothing below a file or a link, no link that leads out."""
    not_directories = {**dict.fromkeys(plan.files), **dict.fromkeys(plan.hard_links), **dict.fromkeys(plan.links)}
    parents: dict[Parts, Parts] = {}
    for parts in (*plan.directories, *not_directories):
        for end in range(len(parts) - 1, 0, -1):
            if parts[:end] in parents:
                break
            parents[parts[:end]] = parts
    for parent, parts in parents.items():
        if parent in not_directories:
            kind = "link" if parent in plan.links else "file"
            raise _RefusedError(f"has the member {'/'.join(parts)!r} below {'/'.join(parent)!r}, which is a {kind}")
    for parts, target in plan.links.items():
        if not _stays_inside(parts[:-1], target, plan.links):
            raise _RefusedError(
                f"has the link {'/'.join(parts)!r} to {target!r}, which leads out of the tree or in circles"
            )


def _stays_inside(start: Parts, target: str, links: dict[Parts, str]) -> bool:
    """Follow ``target`` from the directory ``start`` as the kernel would, through the archive's other links."""
    here = list(start)
    ahead = target.split("/")[::-1]
    hops = 0
    while ahead:
        part = ahead.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not here:
                return False
            here.pop()
            continue
        here.append(part)
        link = links.get(tuple(here))
        if link is not None:
            hops += 1
            if hops > MAX_LINK_HOPS:
                return False
            here.pop()
            ahead.extend(link.split("/")[::-1])
    return True


def _second_opinion(plan: _Plan, into: Path) -> None:
    """Ask Python's own filter too, where this Python has it (3.12; security releases since 3.8.17)."""
    data_filter = getattr(tarfile, "data_filter", None)
    if data_filter is None:
        return
    links = {parts: tarfile.TarInfo("/".join(parts)) for parts in plan.links}
    for parts, link in links.items():
        link.type, link.linkname = tarfile.SYMTYPE, plan.links[parts]
    members = [member.replace(name="/".join(parts), deep=False) for parts, member in plan.files.items()]
    for member in [*members, *links.values()]:
        try:
            data_filter(member, os.fspath(into))
        except tarfile.FilterError as exc:
            raise _RefusedError(f"has the member {member.name!r}, which Python's tarfile refuses: {exc}") from None


def _write(archive: tarfile.TarFile, plan: _Plan, into: Path) -> None:
    into.mkdir()
    try:
        for parts, mode in plan.directories.items():
            directory = into.joinpath(*parts)
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(mode & 0o755 | 0o700)
        for parts, member in plan.files.items():
            target = into.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            _write_file(archive, member, target)
        for parts, source in plan.hard_links.items():
            target = into.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(into.joinpath(*source), target)
        # Last, so that nothing is ever written through one.
        for parts, linked in plan.links.items():
            target = into.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(linked, target)
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise


def _write_file(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = archive.extractfile(member)
    if source is None:
        raise tarfile.ReadError(f"the member {member.name!r} has no content")
    with source, open(target, "xb") as stream:
        shutil.copyfileobj(source, stream, 1024 * 1024)
        # Owner may write, others may not, no setuid: whatever the archive says.
        os.fchmod(stream.fileno(), member.mode & 0o755 | 0o600)
    with contextlib.suppress(OSError, OverflowError, ValueError):
        os.utime(target, (member.mtime, member.mtime))
