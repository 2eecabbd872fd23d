# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of what Prometheus knows. Private: may change at any time."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ansible_collections.signalbox.runbook.plugins.module_utils import _probe
from ansible_collections.signalbox.runbook.plugins.module_utils._checks_kind import Args, Kind, Measured, Say, World
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._prometheus import QUERY_LIMIT, Server, read

SHOWN = 60  # characters of a query


def _value(args: Args, world: World) -> Measured:
    server = Server(
        url=args["url"],
        token=args["token"] or "",
        user=args["user"] or "",
        password=args["password"] or "",
        timeout_seconds=args["timeout_seconds"],
        validate_certs=args["validate_certs"],
        ca_path=args["ca_path"],
    )
    reading = read(server, args["query"], fetch=world.fetch)
    if reading.value is None:
        raise RunbookError(reading.problem or reading.text)
    return Measured({"value": reading.value})


def _finish(args: dict[str, Any], wanted: Collection[str], say: Say) -> None:
    args["query"] = args["query"].strip()
    why = _probe.url_fault(args["url"])
    if why or "?" in args["url"]:
        say("url", why or "must be without a query, like http://127.0.0.1:9090")
    if not args["query"] or len(args["query"]) > QUERY_LIMIT:
        say("query", f"must have 1 to {QUERY_LIMIT} characters, not {len(args['query'])}")
    if args["password"] and not args["user"]:
        say("user", "is missing; there is a password")
    if args["user"] and args["token"]:
        say("user", "is there beside token; keep one")
    if "value" not in wanted:
        say("fail_when", 'is missing; say when the number is bad, for example {value: "> 0"}')


def _subject(args: Args) -> str:
    query = " ".join(str(args["query"]).split())
    return query if len(query) <= SHOWN else f"{query[:SHOWN]}..."


KINDS: dict[str, Kind] = {
    "prometheus": Kind(
        options={
            "url": {"type": "str", "required": True, "description": "the address of Prometheus"},
            "query": {"type": "str", "required": True, "description": "a query that gives one number"},
            "user": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "token": {"type": "str", "no_log": True},
            "validate_certs": {"type": "bool", "default": True},
            "ca_path": {"type": "str"},
        },
        measures={"value": "the number that the query gives; not measured where it has no data"},
        subject=_subject,
        advice="Ask Prometheus the same, without the outermost function, to see whose number it is.",
        ask=_value,
        finish=_finish,
    ),
}
