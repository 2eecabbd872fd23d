# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of PostgreSQL, by psycopg or psycopg2. Private: may change at any time."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from decimal import Decimal
from typing import Any

from ansible_collections.signalbox.runbook.plugins.module_utils._checks_kind import (
    Args,
    Deadline,
    Kind,
    Measured,
    Say,
    World,
    place,
    take_uri,
    within,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError

ROWS = 1000  # so many rows of the question are fetched
SSL_MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

STATE = """\
SELECT version(), current_timestamp::text, pg_is_in_recovery(), current_setting('max_connections')::int,
 (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL)"""
# A standby that has replayed all it received is not behind, however long nobody has written.
BEHIND = """\
SELECT CASE WHEN pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn() THEN 0
 ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp()) END"""
STANDBYS = """\
SELECT count(*) FILTER (WHERE state = 'streaming'), max(extract(epoch FROM replay_lag)) FROM pg_stat_replication"""


def _connect(args: Args, driver: Any, deadline: Deadline) -> Any:
    settings = {
        "host": args["socket_directory"] or args["host"],
        "port": args["port"],
        "dbname": args["database"],
        "user": args["user"],
        "password": args["password"],
        "sslmode": args["ssl_mode"],
        "sslrootcert": args["ca_path"],
        "connect_timeout": max(2, int(deadline.left())),  # libpq knows none below
        "application_name": "signalbox.runbook",
        "options": f"-c statement_timeout={int(deadline.left() * 1000)}",
    }
    return driver.connect(**{key: value for key, value in settings.items() if value is not None})


def _rows(connection: Any, *statements: str) -> list[tuple[Any, ...]]:
    """What the last statement gave."""
    with contextlib.closing(connection.cursor()) as cursor:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchmany(ROWS)) if cursor.description else []


def _write(connection: Any, error_class: Any) -> str:
    """Empty, or why a row can't be written. The table is this session's alone, and gone with it."""
    try:
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute("CREATE TEMPORARY TABLE runbook_check (written int) ON COMMIT DROP")
            cursor.execute("INSERT INTO runbook_check VALUES (1)")
            cursor.execute("SELECT written FROM runbook_check")
            row = cursor.fetchone()
        return "" if row == (1,) else f"it wrote 1 and read {row}"
    except error_class as error:
        return _line(error)
    finally:
        connection.rollback()


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _postgres(args: Args, world: World) -> Measured:
    driver = world.driver()
    deadline = Deadline(args, world)
    started = world.clock()
    try:
        connection = _connect(args, driver, deadline)
    except driver.Error as error:
        return Measured({"connected": 0}, {"connected": _line(error)})
    values: dict[str, Any] = {"connected": 1, "connect_ms": (world.clock() - started) * 1000}
    said: dict[str, str] = {}
    try:
        with contextlib.closing(connection):
            _ask(args, world, connection, driver.Error, values, said)
    except driver.Error as error:
        raise RunbookError(f"{place(args)}: {_line(error)}") from None
    return Measured(values, said)


def _ask(
    args: Args, world: World, connection: Any, error_class: Any, values: dict[str, Any], said: dict[str, str]
) -> None:
    ((version, told, standby, most, used),) = _rows(connection, STATE)
    connection.rollback()
    values.update(
        version=str(version),
        server_time=str(told),
        standby=int(standby),
        connections=used,
        connections_used_percent=100.0 * used / most,
    )
    if args["write"]:
        fault = _write(connection, error_class)
        values["written"] = int(not fault)
        said["written"] = fault
    _rows(connection, "SET TRANSACTION READ ONLY")  # EXPLAIN ANALYZE runs what it explains
    started = world.clock()
    rows = _rows(connection, args["query"])
    values["query_ms"] = (world.clock() - started) * 1000
    values["rows"] = len(rows)
    connection.rollback()
    if len(rows) == 1 and len(rows[0]) == 1 and isinstance(rows[0][0], (int, float, Decimal)):
        values["answer"] = float(rows[0][0])
    if standby:
        ((lag,),) = _rows(connection, BEHIND)
        values["replication_lag_seconds"] = None if lag is None else float(lag)
    else:
        ((standbys, lag),) = _rows(connection, STANDBYS)
        values["standbys"] = standbys
        # Without traffic for a while it is unknown, which means that there is none; without a standby it means nothing.
        if standbys:
            values["replication_lag_seconds"] = float(lag or 0)


def _finish(args: dict[str, Any], _names: Collection[str], say: Say) -> None:
    query = take_uri(args, say, ("postgresql", "postgres"))
    args["ssl_mode"] = query.get("sslmode", args["ssl_mode"])
    if args["ssl_mode"] not in SSL_MODES:
        say("uri", f"has an sslmode that is none; it must be one of {', '.join(SSL_MODES)}")
    within(args, say, 1, 65535, "port")
    text = (args["query"] or "").strip().rstrip(";").strip()
    if not text or ";" in text:
        say("query", "must be one statement, such as SELECT count(*) FROM users")
    args["query"] = text


def _subject(args: Args) -> str:
    where = args["socket_directory"] or place(args)
    return f"{where}/{args['database']}" if args["database"] else where


KINDS: dict[str, Kind] = {
    "postgres": Kind(
        options={
            "uri": {"type": "str", "no_log": True},
            "host": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "default": 5432},
            "socket_directory": {"type": "str"},
            "database": {"type": "str"},
            "user": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "ssl_mode": {"type": "str", "default": "prefer", "choices": SSL_MODES},
            "ca_path": {"type": "str"},
            "write": {"type": "bool", "default": True},
            "query": {"type": "str", "default": "SELECT 1"},
        },
        measures={
            "connected": "1 when it lets the user in",
            "connect_ms": "how long that took",
            "written": "1 when a row was written to a temporary table and read again; only with write",
            "query_ms": "how long query took, in a transaction that can only read",
            "rows": "rows that query gave, of which no more than 1000 are fetched",
            "answer": "what query gave, where that is one number",
            "connections": "sessions of all databases, with this one",
            "connections_used_percent": "the same of max_connections",
            "standby": "1 when it is one that follows another server",
            "standbys": "servers that follow it now; not measured of a standby",
            "replication_lag_seconds": "how far a standby is behind, or the slowest of those that follow; not measured "
            "where there is none",
        },
        # HC-04, HC-05: one row; HC-28: 000 wants queries below 100 ms; ALR-11: 90 % of max_connections.
        fail_when={"connected": "< 1", "written": "< 1", "rows": "< 1", "connections_used_percent": ">= 90"},
        warn_when={"query_ms": ">= 100"},
        subject=_subject,
        advice="See whether PostgreSQL runs and lets this user in from here, and read its log.",
        ask=_postgres,
        finish=_finish,
        measured=lambda args, names: [name for name in names if args["write"] or name != "written"],
    ),
}
