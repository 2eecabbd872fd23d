# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a wrong answer, or none, most likely means and what to do about it. Private: may change at any time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional, Union
from urllib.parse import urlsplit

# What servers say when TLS is expected and plain HTTP came: nginx, Go, Apache.
PLAIN_ON_TLS = re.compile(
    r"plain HTTP request was sent to HTTPS port|HTTP request to an HTTPS server|plain HTTP to an SSL", re.I
)
# Starlette, webpack, Rails, Vite, Werkzeug, HTTP.sys, Django (with and without DEBUG).
HOST_REFUSED = re.compile(
    r"invalid host ?(header|name)|invalid HTTP_HOST|DisallowedHost|blocked hosts?\b"
    r"|host .{0,80} is not (allowed|trusted)|<h1>Bad Request \(400\)</h1>",
    re.I,
)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer as it came; redirects are answers too."""

    status: int
    headers: Mapping[str, str]
    body: str
    duration_ms: int
    # Where the time went: resolve, connect, tls, first_byte, each in milliseconds, and how many bytes came.
    phases_ms: Mapping[str, float] = field(default_factory=dict, compare=False)
    size_bytes: int = field(default=0, compare=False)

    def header(self, name: str) -> Optional[str]:
        """HTTP header names are case-insensitive; over HTTP/2 they are lower-case."""
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), None)


@dataclass(frozen=True)
class Failure:
    """No usable HTTP answer: refused, timeout, dns, tls, wrong_port or closed."""

    kind: str
    detail: str


def host_and_port(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{f'[{host}]' if ':' in host else host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def status_kind(url: str, answer: Answer) -> str:
    """Which of the known mistakes an unexpected HTTP status shows."""
    if 300 <= answer.status < 400:
        to_https = (answer.header("location") or "").lower().startswith("https://")
        return "redirect_https" if to_https and url.lower().startswith("http://") else "status"
    if answer.status == 400 and PLAIN_ON_TLS.search(answer.body):
        return "wrong_port"
    if answer.status == 421 or (answer.status in (400, 403, 404) and HOST_REFUSED.search(answer.body)):
        return "host_refused"
    return "not_found" if answer.status == 404 else "status"


def diagnose(url: str, kind: str, answer: Union[Answer, Failure]) -> str:
    """The likely fix in one line; empty where nothing is wrong."""
    if not kind:
        return ""
    if isinstance(answer, Failure):
        return _fix_failure(url, kind, answer.detail)
    if kind == "redirect_https":
        return (
            f"Ask {answer.header('location')} instead, or send the header X-Forwarded-Proto: https when the "
            "application is asked behind its TLS proxy."
        )
    if kind == "status":
        return _fix_status(answer)
    if kind == "not_json" and re.match(r"\s*<", answer.body):
        return "A web page answers: check the path, it may be the front end's catch-all or a login page."
    fixes = {
        "host_refused": "Allow this host name in the application, or send a name it knows in the Host header.",
        "not_found": f"Check the path {urlsplit(url).path or '/'} and the prefix that a router adds or strips.",
        "wrong_port": f"Port {host_and_port(url).rpartition(':')[2]} speaks TLS: use https, or the plain HTTP port.",
        "not_json": "Check that the path is the JSON health endpoint; otherwise use body instead of JSON paths.",
        "expect": "The application itself reports this: read its log and the body in the evidence.",
        "body": "Check the pattern against the body in the evidence, and that the path is the intended one.",
        "header": "Add the header in the application or in the router's configuration.",
        "version": "Another release answers: check that the process was restarted and where the router sends traffic.",
        "slow": "Look for a cold start, load or a slow dependency; ask for several successes to let it warm up.",
    }
    return fixes.get(kind, "")


def _fix_failure(url: str, kind: str, detail: str) -> str:
    where = host_and_port(url)
    port = where.rpartition(":")[2]
    if kind == "refused":
        if "unreachable" in detail.lower() or "no route" in detail.lower():
            return "Check the address, the routes and the firewall between this host and the endpoint."
        return f"Check that the service runs and listens on {where}; its log tells why when it does not."
    if kind == "timeout":
        if "no connection" in detail:
            return "Check that the host is up and that no firewall drops the packets."
        return "The service accepts connections but does not answer: read its log, it may be starting or stuck."
    if kind == "dns":
        return "Check the spelling of the host name and the resolver of the host that asks."
    if kind == "wrong_port":
        if url.lower().startswith("https:"):
            return f"Port {port} does not speak TLS: use http, or the TLS port."
        if "speaks TLS" in detail:
            return f"Port {port} speaks TLS: use https, or the plain HTTP port."
        return f"Another kind of service listens on port {port}: check the port."
    if kind == "tls":
        if "ca_path" in detail:
            return "Check that ca_path names a readable file or directory of PEM certificates on the host that asks."
        if "expired" in detail:
            return "Renew the certificate and reload the server."
        if "mismatch" in detail or "not valid for" in detail:
            return "Ask by a name in the certificate, or issue it for this name."
        if "self-signed" in detail or "self signed" in detail or "issuer" in detail:
            return "Set ca_path to the issuing authority, or let the server send the whole chain."
        return "Check the certificate and the protocol versions that the server accepts."
    return "The service closed the connection: read its log; it may have crashed, or not speak this protocol."


def _fix_status(answer: Answer) -> str:
    status = answer.status
    if 300 <= status < 400:
        return f"Redirects are not followed: ask {answer.header('location') or 'the new location'} itself."
    if status in (401, 403):
        return "The endpoint wants a login: give it in secret_headers, or open the path for this host."
    if status == 405:
        return "The endpoint does not allow this method: set another one."
    if status == 429:
        return "The endpoint limits requests: ask less often, or exempt this host."
    if status in (502, 503, 504):
        return "If a proxy answers, the application behind it does not: check that; else read the application's log."
    if status >= 500:
        return "The application fails: read its log."
    return "Check the URL, the method and the expected status."
