# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds releases of the demo application, and of the plain one that needs no packages and no data stores.

Usage: build.py VERSION [--plain] [--fault KEY=VALUE]... [--into DIRECTORY]
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
APP = HERE / "demo"
PLAIN = HERE / "plain"
DEFAULT_INTO = HERE.parents[1] / "build" / "local" / "artifacts"

sys.path.insert(0, str(APP))
from faults import parse


def build(version: str, faults: Mapping[str, Any], into: Path, app: Path = APP) -> tuple[Path, str]:
    """Write ``demo-<version>.tar.gz`` and its ``.sha256`` below ``into``; the same input gives the same bytes."""
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.+_-]*", version):
        raise ValueError(f"version {version!r} must be letters, digits and . + _ - only, as it becomes a file name")
    parse(faults)
    files = {"faults.py": (APP / "faults.py").read_bytes(), "server.py": (app / "server.py").read_bytes()}
    files["VERSION"] = f"{version}\n".encode()
    if faults:
        files["faults.json"] = (json.dumps(dict(faults), indent=1, sort_keys=True) + "\n").encode()

    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)  # owner 0 and time 0 by default
            member.size = len(content)
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(content))
    data = packed.getvalue()
    digest = hashlib.sha256(data).hexdigest()

    into.mkdir(parents=True, exist_ok=True)
    path = into / f"demo-{version}.tar.gz"
    # In the form of sha256sum, so that `sha256sum -c` reads it.
    replace(into / f"{path.name}.sha256", f"{digest}  {path.name}\n".encode())
    replace(path, data)
    return path, digest


def replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def fault(text: str) -> tuple[str, Any]:
    """``key=value``; the value is JSON (true, 60, 2.5), anything else is text (9.9.9)."""
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def main() -> int:
    parser = argparse.ArgumentParser(description="Build a release of the demo application.")
    parser.add_argument("version")
    parser.add_argument("--fault", type=fault, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--plain", dest="app", action="store_const", const=PLAIN, default=APP)
    parser.add_argument("--into", type=Path, default=DEFAULT_INTO)
    arguments = parser.parse_args()
    try:
        path, digest = build(arguments.version, dict(arguments.fault), arguments.into, arguments.app)
    except ValueError as error:
        parser.error(str(error))
    print(f"{path} sha256:{digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
