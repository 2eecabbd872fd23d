# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._connections import (
    Connection,
    Holder,
    established,
    holders,
    parse,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
REST = "00000000:00000000 00:00000000 00000000     0        0"


def line(local, remote, state, inode):
    return f"   0: {local} {remote} {state} {REST} {inode} 1 0000000000000000 100 0 0 10 0"


TCP = "\n".join(
    [
        HEAD,
        line("0100007F:1F41", "00000000:0000", "0A", 11),  # 8001 listens
        line("0100007F:1F41", "0100007F:C001", "01", 12),  # the server's end
        line("0100007F:C001", "0100007F:1F41", "01", 13),  # the client's end of the same
        line("0100007F:1F41", "0100007F:C002", "06", 0),  # TIME_WAIT
        line("0100007F:1F42", "0100007F:C003", "01", 14),  # 8002
        "",
    ]
)
V6 = "0000000000000000FFFF00000100007F"
TCP6 = "\n".join([HEAD, line(f"{V6}:1F41", f"{V6}:C004", "01", 15), line(f"{'0' * 32}:1F43", f"{V6}:0", "0A", 16)])


def proc(tmp_path, tcp6=True):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(TCP)
    if tcp6:
        (tmp_path / "net" / "tcp6").write_text(TCP6)
    return tmp_path


def test_a_table_is_read_line_by_line_and_broken_lines_are_passed_over():
    assert list(parse(TCP))[:2] == [Connection(8001, "0A", 11), Connection(8001, "01", 12)]
    assert [one.port for one in parse(TCP6)] == [8001, 8003]
    assert list(parse("")) == []
    assert list(parse(f"{HEAD}\n 0: nonsense\n 1: x:GHIJ y 01 a b c d e f\n")) == []


@pytest.mark.parametrize(("ports", "count"), [([8001], 2), ([8002], 1), ([8001, 8002], 3), ([8003], 0), ([], 0)])
def test_connections_count_once_and_only_while_open(tmp_path, ports, count):
    assert established(ports, proc(tmp_path)) == count


def test_a_host_without_ipv6_has_only_one_table(tmp_path):
    assert established([8001], proc(tmp_path, tcp6=False)) == 1


def test_a_host_without_proc_is_named(tmp_path):
    with pytest.raises(RunbookError, match="must be Linux"):
        established([8001], tmp_path)


def test_holders_are_told_as_far_as_they_can_be_seen(tmp_path):
    root = proc(tmp_path)
    for pid, inode in ((40, 11), (7, 11), (9, 99)):
        (root / str(pid) / "fd").mkdir(parents=True)
        (root / str(pid) / "fd" / "3").symlink_to(f"socket:[{inode}]")
        (root / str(pid) / "comm").write_text(f"app{pid}\n")
        (root / str(pid) / "cwd").symlink_to("/srv/app")
    assert holders([8001, 8003, 8002], root) == [Holder(8001, 7, "app7", "/srv/app"), Holder(8003)]
    assert [str(one) for one in holders([8001, 8003], root)] == ["process 7 (app7)", "another process"]


def test_this_very_host():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert holders([port]) == []
        server.listen()
        (held,) = holders([port])
        assert (held.pid, held.directory) == (os.getpid(), os.getcwd())
        assert established([port]) == 0
        with socket.create_connection(("127.0.0.1", port)):  # counts though nobody has accepted it yet
            assert established([port]) == 1
