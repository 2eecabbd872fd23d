# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of names and ports. Private: may change at any time."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from typing import Any

from ansible_collections.signalbox.runbook.plugins.module_utils._checks_kind import (
    Args,
    Deadline,
    Kind,
    Measured,
    Say,
    World,
    place,
    why,
    within,
)
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError


def _answers(args: Args, world: World) -> Measured:
    deadline = Deadline(args, world)
    started = world.clock()
    try:
        world.connect(args["host"], args["port"], deadline.left()).close()
    except OSError as error:
        return Measured({"connected": 0}, {"connected": why(error, deadline.seconds)})
    return Measured({"connected": 1, "connect_ms": (world.clock() - started) * 1000})


def _resolves(args: Args, world: World) -> Measured:
    deadline = Deadline(args, world)
    started = world.clock()
    try:
        found = {str(entry[4][0]) for entry in world.addresses(args["host"], 0, deadline.left())}
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:  # nobody answered: that says nothing of the name
            raise RunbookError(f"{args['host']} can't be looked up: {error.strerror}") from None
        found = set()
    wanted = {str(ipaddress.ip_address(address)) for address in args["addresses"]}
    values: dict[str, Any] = {
        "resolved_addresses": len(found),
        "resolve_ms": (world.clock() - started) * 1000,
        "addresses": sorted(found),
    }
    said = {"resolved_addresses": "the name does not resolve"}
    if wanted:
        missing, other = sorted(wanted - found), sorted(found - wanted)
        values.update(missing_addresses=len(missing), unexpected_addresses=len(other))
        said["missing_addresses"] = f"it does not resolve to {', '.join(missing)}, but to {', '.join(sorted(found))}"
        said["unexpected_addresses"] = f"it resolves to {', '.join(other)} too"
    return Measured(values, said)


def _resolves_finish(args: dict[str, Any], _names: Collection[str], say: Say) -> None:
    for i, address in enumerate(args["addresses"] or []):
        try:
            ipaddress.ip_address(address)
        except ValueError:
            say(f"addresses[{i}]", f"must be an IP address, not {address!r}")


KINDS: dict[str, Kind] = {
    "dns": Kind(
        options={
            "host": {"type": "str", "required": True, "description": "a host name"},
            "addresses": {"type": "list", "elements": "str", "default": []},
        },
        measures={
            "resolved_addresses": "addresses that the name resolves to",
            "resolve_ms": "how long that took",
            "missing_addresses": "how many of addresses it does not resolve to; only where they are given",
            "unexpected_addresses": "addresses beside those given; only where they are given",
        },
        fail_when={"resolved_addresses": "< 1", "missing_addresses": "> 0"},
        subject=lambda args: str(args["host"]),
        advice="Correct the record of the name, or wait until its time to live is over.",
        ask=_resolves,
        finish=_resolves_finish,
        measured=lambda args, names: [
            name for name in names if args["addresses"] or name in ("resolved_addresses", "resolve_ms")
        ],
    ),
    "tcp": Kind(
        options={
            "host": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "required": True, "description": "a port"},
        },
        measures={
            "connected": "1 when the port accepts a connection",
            "connect_ms": "how long that took, name resolution included; not measured where it does not",
        },
        fail_when={"connected": "< 1"},
        subject=place,
        advice="See whether the service runs and listens there, and whether a firewall is between.",
        ask=_answers,
        finish=lambda args, _names, say: within(args, say, 1, 65535, "port"),
    ),
}
