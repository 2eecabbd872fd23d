# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One number from Prometheus, or why there is none. Private: may change at any time."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional
from urllib.parse import quote

from ansible_collections.signalbox.runbook.plugins.module_utils._diagnosis import Answer, Failure, host_and_port
from ansible_collections.signalbox.runbook.plugins.module_utils._probe import (
    BODY_LIMIT,
    HIDDEN,
    Fetch,
    Request,
    fetch,
)

QUERY_LIMIT = 4000  # in characters: it is part of a URL
SHOWN = 200


@dataclass(frozen=True)
class Server:
    url: str
    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    timeout_seconds: float = 5.0
    validate_certs: bool = True
    ca_path: Optional[str] = None


class Reading(NamedTuple):
    """A value; or ``problem``, where nothing is known; or neither: the query has no data now, and ``text`` says how."""

    value: Optional[float]
    problem: str = ""
    text: str = ""


def read(server: Server, query: str, at: Optional[float] = None, fetch: Fetch = fetch) -> Reading:
    """What the query is now, or was at the time ``at`` (in seconds since 1970)."""
    url = f"{server.url.rstrip('/')}/api/v1/query?query={quote(query, safe='')}&timeout={server.timeout_seconds:g}s"
    if at is not None:
        url += f"&time={at:.3f}"
    headers = {"Accept": "application/json", **_credentials(server)}
    reply = fetch(Request("GET", url, headers, server.timeout_seconds, server.validate_certs, server.ca_path))
    reading = _judge(server, reply)
    # Its own words may hold what it was sent.
    return reading._replace(problem=_masked(reading.problem, server))


def _credentials(server: Server) -> dict[str, str]:
    if server.token:
        return {"Authorization": f"Bearer {server.token}"}
    if server.user:
        pair = f"{server.user}:{server.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}
    return {}


def _masked(text: str, server: Server) -> str:
    sent = _credentials(server).get("Authorization", "").rpartition(" ")[2]
    for secret in filter(None, (sent, server.token, server.password)):
        text = text.replace(secret, HIDDEN)
    return text


def _judge(server: Server, reply: Any) -> Reading:
    where = f"Prometheus at {host_and_port(server.url)}"
    if isinstance(reply, Failure):
        return Reading(None, f"{where}: {reply.detail}")
    if reply.status in (401, 403):
        how = "refuses our credentials" if _credentials(server) else "wants credentials"
        return Reading(None, f"{where} {how} (HTTP {reply.status}); give a token, or user and password")
    if 300 <= reply.status < 400:
        return Reading(None, f"{where} answers with a redirect (HTTP {reply.status}); give the URL it leads to")
    if len(reply.body) >= BODY_LIMIT:
        return Reading(None, f"{where}: the answer is longer than 1 MiB; the query must give one number")
    document = _parsed(reply)
    if document is None:
        kind = reply.header("content-type") or "no content type"
        return Reading(None, f"{where}: the answer is not that of Prometheus (HTTP {reply.status}, {kind})")
    if document["status"] != "success":
        text = f"{document.get('errorType')}: {document.get('error')}"
        return Reading(None, f"{where} says {text[:SHOWN]}")
    return _value(document.get("data"), where)


def _parsed(reply: Answer) -> Optional[Mapping[str, Any]]:
    """The document, if it is one of the API. Whole numbers are read as floats: a long one costs no time so."""
    try:
        document = json.loads(reply.body, parse_int=float)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, Mapping) and document.get("status") in ("success", "error") else None


def _value(data: Any, where: str) -> Reading:
    kind = data.get("resultType") if isinstance(data, Mapping) else None
    found = data.get("result") if isinstance(data, Mapping) else None
    if kind == "scalar":
        return _number(found, where)
    if kind != "vector" or not isinstance(found, list):
        return Reading(None, f"{where}: the query gives {_article(kind)}, not one number; ask for an instant vector")
    if not found:
        return Reading(None, "", "the query has no series")
    if len(found) > 1:
        return Reading(None, f"{where}: the query gives {len(found)} series, not one; put sum() or max() around it")
    sample = found[0] if isinstance(found[0], Mapping) else {}
    if "histogram" in sample:
        return Reading(None, f"{where}: the query gives a histogram, not one number; take histogram_quantile()")
    return _number(sample.get("value"), where)


def _article(kind: Any) -> str:
    return f"a {kind}" if kind in ("matrix", "string") else "nothing that we know"


def _number(pair: Any, where: str) -> Reading:
    try:
        _at, text = pair
        value = float(text)
    except (TypeError, ValueError):
        return Reading(None, f"{where}: the answer has no number where its value should be")
    if math.isnan(value):  # what 0 / 0 is: of no requests none failed
        return Reading(None, "", "the query is NaN")
    return Reading(value)
