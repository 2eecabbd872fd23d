# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who listens on a TCP port of this host, and how many are connected to it. Private: may change at any time."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

PROC = Path("/proc")
ESTABLISHED = "01"
LISTEN = "0A"


@dataclass(frozen=True)
class Connection:
    """One line of /proc/net/tcp or tcp6, seen from its own end."""

    port: int
    state: str
    inode: int


@dataclass(frozen=True)
class Holder:
    """Who listens on ``port``; ``pid`` is 0 where that may not be seen."""

    port: int
    pid: int = 0
    program: str = ""
    directory: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} ({self.program})" if self.pid else "another process"


def parse(table: str) -> Iterator[Connection]:
    """The connections of one table; the header and lines that are no connection are passed over."""
    for line in table.splitlines():
        fields = line.split()
        if len(fields) < 10 or ":" not in fields[1]:
            continue
        with contextlib.suppress(ValueError):
            yield Connection(int(fields[1].rpartition(":")[2], 16), fields[3], int(fields[9]))


def connections(proc: Path = PROC) -> list[Connection]:
    """All TCP connections and listeners of this host, IPv4 and IPv6."""
    try:
        tables = [(proc / "net" / "tcp").read_text(encoding="ascii")]
    except OSError as error:
        raise RunbookError(
            f"the connections of this host cannot be read ({error}); targets must be Linux with {proc} mounted"
        ) from None
    with contextlib.suppress(FileNotFoundError):  # there is none where IPv6 is switched off
        tables.append((proc / "net" / "tcp6").read_text(encoding="ascii"))
    return [one for table in tables for one in parse(table)]


def established(ports: Collection[int], proc: Path = PROC) -> int:
    """How many connections to ``ports`` are open. A client on this same host counts once, by the server's end."""
    return sum(1 for one in connections(proc) if one.state == ESTABLISHED and one.port in ports)


def holders(ports: Collection[int], proc: Path = PROC) -> list[Holder]:
    """Who listens on ``ports``, one for each port that is taken."""
    inodes = {one.port: one.inode for one in connections(proc) if one.state == LISTEN and one.port in ports}
    owners = _owners(set(inodes.values()), proc) if inodes else {}
    return [_holder(port, owners.get(inodes[port], 0), proc) for port in ports if port in inodes]


def unit_of(pid: int, proc: Path = PROC) -> str:
    """The unit of systemd that a process belongs to; empty where it belongs to none."""
    with contextlib.suppress(OSError):
        found = re.findall(r"/([^/\n]+\.service)$", (proc / str(pid) / "cgroup").read_text(encoding="utf-8"), re.M)
        return str(found[0]) if found else ""
    return ""


def _owners(inodes: Collection[int], proc: Path) -> dict[int, int]:
    """The lowest process number that has each socket open, as far as this user may see."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    owners: dict[int, int] = {}
    for pid in sorted(int(entry) for entry in os.listdir(proc) if entry.isdigit()):
        with contextlib.suppress(OSError):  # it ended meanwhile, or belongs to somebody else
            for entry in os.scandir(proc / str(pid) / "fd"):
                with contextlib.suppress(OSError):
                    inode = wanted.get(os.readlink(entry.path))
                    if inode is not None:
                        owners.setdefault(inode, pid)
    return owners


def _holder(port: int, pid: int, proc: Path) -> Holder:
    program = directory = ""
    with contextlib.suppress(OSError):
        # comm, not the command line: that may hold secrets.
        program = (proc / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    with contextlib.suppress(OSError):
        directory = os.readlink(proc / str(pid) / "cwd")
    return Holder(port, pid, program, directory)
