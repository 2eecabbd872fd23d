# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that are whole or absent. Private: may change at any time."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Union

PathLike = Union[str, Path]
LOG_LINES = 20
LOG_BYTES = 64 * 1024


def fsync_directory(path: PathLike) -> None:
    """Make a rename or a new name in ``path`` survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: PathLike, content: Union[str, bytes], mode: int = 0o644) -> None:
    """Replace ``path`` in one rename; readers see the old content or the new, never a part."""
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    fsync_directory(path.parent)


def write_json(path: PathLike, value: Any, mode: int = 0o644) -> None:
    write_atomic(path, json.dumps(value, indent=1, sort_keys=True) + "\n", mode)


def read_json(path: PathLike) -> Any:
    """The parsed file, or None where there is none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def tail(path: PathLike, lines: int = LOG_LINES, start: int = 0) -> list[str]:
    """The last lines of a log, from byte ``start`` on, out of at most its last 64 KiB."""
    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            begin = max(start if start <= size else 0, size - LOG_BYTES)  # smaller than before: it was rotated
            stream.seek(begin)
            data = stream.read(LOG_BYTES)
    except FileNotFoundError:
        return []
    return data.decode("utf-8", errors="replace").splitlines()[-lines:] if lines > 0 else []
