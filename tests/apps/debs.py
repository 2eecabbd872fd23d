# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds Debian packages and the index of a flat repository, without any tool of Debian."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional


def build_deb(
    into: Path,
    name: str,
    version: str,
    files: Mapping[str, bytes],
    conffiles: Sequence[str] = (),
    scripts: Optional[Mapping[str, str]] = None,
    **fields: str,
) -> Path:
    """Write ``<name>_<version>_all.deb``. ``files`` are absolute paths; ``fields`` are more of the control file, with _
    for the hyphens of their names."""
    control = {"Package": name, "Version": version, "Architecture": "all", "Maintainer": "Nobody <nobody@example.org>"}
    control |= {key.replace("_", "-"): value for key, value in fields.items()} | {"Description": "a test"}
    sums = [(hashlib.md5(data).hexdigest(), path[1:]) for path, data in files.items() if path not in conffiles]
    members = {
        "control": ("".join(f"{key}: {value}\n" for key, value in control.items()).encode(), 0o644),
        "md5sums": ("".join(f"{digest}  {path}\n" for digest, path in sorted(sums)).encode(), 0o644),
        **{script: (f"#!/bin/sh\nset -e\n{text}\n".encode(), 0o755) for script, text in (scripts or {}).items()},
    }
    if conffiles:
        members["conffiles"] = ("".join(f"{path}\n" for path in conffiles).encode(), 0o644)
    data = {path[1:]: (content, 0o644) for path, content in files.items()}
    parts = {"debian-binary": b"2.0\n", "control.tar.gz": _tar(members), "data.tar.gz": _tar(data)}
    into.mkdir(parents=True, exist_ok=True)
    path = into / f"{name}_{version.replace(':', '%3a')}_all.deb"
    path.write_bytes(b"!<arch>\n" + b"".join(_member(part, content) for part, content in parts.items()))
    return path


def index(directory: Path) -> str:
    """The ``Packages`` of a flat repository of the packages in ``directory``."""
    return "\n".join(_paragraph(path) for path in sorted(directory.glob("*.deb")))


def _paragraph(path: Path) -> str:
    content = path.read_bytes()
    start = content.index(b"control.tar.gz")
    size = int(content[start + 48 : start + 58])
    with tarfile.open(fileobj=io.BytesIO(content[start + 60 : start + 60 + size])) as archive:
        stream = archive.extractfile("./control")
        control = stream.read().decode() if stream else ""
    digest = hashlib.sha256(content).hexdigest()
    return f"{control}Filename: ./{path.name}\nSize: {len(content)}\nSHA256: {digest}\n"


def _tar(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        parents = {str(parent) for name in files for parent in Path(name).parents}
        for name in sorted(parents):  # dpkg wants the directories too
            member = tarfile.TarInfo(name if name == "." else f"./{name}")
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)
        for name, (content, mode) in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _member(name: str, content: bytes) -> bytes:
    head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
    return head + content + b"\n" * (len(content) % 2)
