# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Certificates: how long they last, whom they are for, whether they are trusted. Private: may change at any time.

The standard library tells of a certificate only when it trusts it. One that has expired is just what is looked for,
so the few fields that matter are read from the certificate itself (RFC 5280).
"""

from __future__ import annotations

import calendar
import ipaddress
import re
import ssl
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple, Optional

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

PEM_BYTES = 1024 * 1024
DAY_SECONDS = 86400.0
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL; the ssl module has no name for it
SEQUENCE, SET, UTC_TIME, EXTENSIONS, DNS_NAME, IP_ADDRESS = 0x30, 0x31, 0x17, 0xA3, 0x82, 0x87
OID_COMMON_NAME, OID_ORGANIZATION, OID_ALTERNATIVE_NAMES = b"\x55\x04\x03", b"\x55\x04\x0a", b"\x55\x1d\x11"
NOT_YET_VALID, EXPIRED, SELF_SIGNED, ROOT_SENT, NO_ISSUER, NO_FIRST = 9, 10, 18, 19, 20, 21  # X509_V_ERR_* of OpenSSL


class Certificate(NamedTuple):
    subject: str
    issuer: str
    issued_by_itself: bool
    starts: float
    ends: float
    names: tuple[str, ...]  # of hosts, and addresses

    def fits(self, host: str) -> bool:
        """As browsers do: only by the alternative names, and ``*`` stands for the whole first label."""
        try:
            return str(ipaddress.ip_address(host)) in self.names
        except ValueError:
            pass
        wanted = host.lower().rstrip(".")
        first, _dot, rest = wanted.partition(".")
        return any(
            name.lower() == wanted or (name.startswith("*.") and first and "." in rest and name[2:].lower() == rest)
            for name in self.names
        )


def _parts(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """Tag, content and the whole of each element in ``data``."""
    found, at = [], 0
    while at < len(data):
        start, tag, length = at, data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if at + length > len(data):
            raise ValueError("cut off")
        found.append((tag, data[at : at + length], data[start : at + length]))
        at += length
    return found


def _time(tag: int, text: bytes) -> float:
    digits = text.decode("ascii").rstrip("Z")
    if tag == UTC_TIME:  # two digits of the year; RFC 5280: from 50 on it is the last century
        digits = ("19" if int(digits[:2]) >= 50 else "20") + digits
    return calendar.timegm(tuple(int(digits[i:j]) for i, j in ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14))))


def _name(content: bytes) -> str:
    found = {}
    for _tag, entry, _whole in _parts(content):
        for _tag, pair, _whole in _parts(entry):
            (_oid, oid, _whole), (_kind, value, _whole) = _parts(pair)
            found[oid] = value.decode("utf-8", "replace")
    return found.get(OID_COMMON_NAME) or found.get(OID_ORGANIZATION) or "without a name"


def certificate(der: bytes) -> Certificate:
    """The fields that matter of one certificate in DER."""
    try:
        (_tag, outer, _whole), *_rest = _parts(der)
        fields = _parts(_parts(outer)[0][1])
        if fields[0][0] != 0x02:  # an explicit version before the serial number
            fields = fields[1:]
        _serial, _algorithm, issuer, validity, subject = fields[:5]
        (first_tag, first, _whole), (last_tag, last, _whole) = _parts(validity[1])
        names: list[str] = []
        for tag, content, _whole in fields[5:]:
            if tag != EXTENSIONS:
                continue
            for _tag, extension, _whole in _parts(_parts(content)[0][1]):
                oid, *_critical, value = _parts(extension)
                if oid[1] == OID_ALTERNATIVE_NAMES:
                    for kind, text, _whole in _parts(_parts(value[1])[0][1]):
                        if kind == DNS_NAME:
                            names.append(text.decode("ascii", "replace"))
                        elif kind == IP_ADDRESS:
                            names.append(str(ipaddress.ip_address(text)))
        return Certificate(
            subject=_name(subject[1]),
            issuer=_name(issuer[1]),
            issued_by_itself=issuer[1] == subject[1],
            starts=_time(first_tag, first),
            ends=_time(last_tag, last),
            names=tuple(names),
        )
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise RunbookError(f"the certificate can't be read ({error})") from None


def _context(ca_path: Optional[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # asked of the certificate itself, also where the chain is not trusted
    try:
        if ca_path is None:
            context.load_default_certs()
        elif Path(ca_path).is_dir():
            context.load_verify_locations(capath=ca_path)
        else:
            context.load_verify_locations(cafile=ca_path)
    except OSError as error:
        raise RunbookError(f"ca_path {ca_path} is not usable ({error.strerror or error})") from None
    return context


class Shown(NamedTuple):
    """The certificate of the server, and all that it sent, where this Python can tell."""

    own: bytes
    sent: list[bytes]


def _handshake(args: Args, world: World, deadline: Deadline, context: ssl.SSLContext) -> Shown:
    with world.connect(args["host"], args["port"], deadline.left()) as plain:
        plain.settimeout(deadline.left())
        with context.wrap_socket(plain, server_hostname=args["server_name"]) as secure:
            own = secure.getpeercert(binary_form=True)
            # Public since Python 3.13, there since 3.10.
            tell = getattr(secure, "get_unverified_chain", None)
            tell = tell or getattr(getattr(secure, "_sslobj", None), "get_unverified_chain", None)
            sent = [_der(one) for one in (tell() or [])] if tell else []
    if not own:
        raise RunbookError("the server sent no certificate")
    return Shown(own, sent)


def _der(one: Any) -> bytes:
    return one if isinstance(one, bytes) else ssl.PEM_cert_to_DER_cert(one.public_bytes())


def _fault(shown: Shown, error: ssl.SSLCertVerificationError) -> str:
    """What is wrong with the chain."""
    own, last = certificate(shown.own), certificate(shown.sent[-1] if shown.sent else shown.own)
    if error.verify_code == SELF_SIGNED:
        return "the certificate is signed by itself"
    if error.verify_code in (ROOT_SENT, NO_ISSUER, NO_FIRST):
        if error.verify_code != ROOT_SENT and len(shown.sent) <= 1 and not own.issued_by_itself:
            return f"the intermediate certificate {own.issuer!r} is missing, or it is the root and not trusted here"
        return f"the issuer {last.issuer!r} is not trusted here"
    if error.verify_code in (EXPIRED, NOT_YET_VALID):
        return f"a certificate of the chain is out of its time ({error.verify_message})"
    return str(error.verify_message)


def _chain(args: Args, world: World, deadline: Deadline, shown: Shown) -> str:
    """Empty, or why the chain is not trusted. Whether the certificate itself has expired is asked apart."""
    own = certificate(shown.own)
    context = _context(args["ca_path"])
    if not own.starts <= world.now() <= own.ends:
        context.verify_flags = ssl.VerifyFlags(context.verify_flags | NO_CHECK_TIME)
    try:
        _handshake(args, world, deadline, context)
        return ""
    except ssl.SSLCertVerificationError as error:
        return _fault(shown, error)


def _served(args: Args, world: World) -> Measured:
    deadline = Deadline(args, world)
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE  # only to read what is shown
    try:
        shown = _handshake(args, world, deadline, blind)
        fault = _chain(args, world, deadline, shown)
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        raise RunbookError(f"{place(args)} does not shake hands ({reason})") from None
    except OSError as error:
        raise RunbookError(f"{place(args)}: {why(error, deadline.seconds)}") from None
    measured = _own(certificate(shown.own), args["server_name"], world)
    measured.values["chain_valid"] = int(not fault)
    if shown.sent:
        measured.values["chain_certificates"] = len(shown.sent)
    return Measured(measured.values, {**measured.said, "chain_valid": fault})


def _own(own: Certificate, server_name: Optional[str], world: World) -> Measured:
    now = world.now()
    values: dict[str, Any] = {
        "days_left": (own.ends - now) / DAY_SECONDS if now >= own.starts else -1.0,
        "lifetime_left_percent": 100.0 * min(1.0, max(0.0, (own.ends - now) / max(1.0, own.ends - own.starts))),
        "subject": own.subject,
        "issuer": own.issuer,
    }
    said = {}
    if now > own.ends:
        said["days_left"] = f"it expired {(now - own.ends) / DAY_SECONDS:.1f} days ago"
    elif now < own.starts:
        said["days_left"] = f"it is valid only in {(own.starts - now) / DAY_SECONDS:.1f} days"
    if server_name:
        values["host_matches"] = int(own.fits(server_name))
        names = ", ".join(own.names[:5]) or "no host"
        said["host_matches"] = f"it is for {names}, not for {server_name}"
    return Measured(values, said)


def _certificate(args: Args, world: World) -> Measured:
    if not args["path"]:
        return _served(args, world)
    text = world.read(args["path"], PEM_BYTES).decode("ascii", "replace")
    found = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.DOTALL)
    if not found:
        raise RunbookError(f"{args['path']} has no certificate in PEM form")
    try:
        der = ssl.PEM_cert_to_DER_cert(found.group())
    except ValueError as error:
        raise RunbookError(f"{args['path']}: the certificate can't be read ({error})") from None
    return _own(certificate(der), args["server_name"], world)


def _finish(args: dict[str, Any], _names: Collection[str], say: Say) -> None:
    if bool(args["path"]) == bool(args["host"]):
        say("host", "give either host or path")
    elif args["path"] and not args["path"].startswith("/"):
        say("path", f"must be absolute, not {args['path']!r}")
    within(args, say, 1, 65535, "port")
    if args["host"]:
        args["server_name"] = args["server_name"] or args["host"]


def _measured(args: Args, names: Collection[str]) -> Collection[str]:
    """A file has no chain, and fits no host unless one is named."""
    left_out = {"chain_valid", "chain_certificates"} if args["path"] else set()
    if not args["server_name"] and args["path"]:
        left_out.add("host_matches")
    return [name for name in names if name not in left_out]


KINDS: dict[str, Kind] = {
    "certificate": Kind(
        options={
            "host": {"type": "str"},
            "port": {"type": "int", "default": 443},
            "path": {"type": "str"},
            "server_name": {"type": "str"},
            "ca_path": {"type": "str"},
        },
        measures={
            "days_left": "days until it expires; below 0 when it has, or is not valid yet",
            "lifetime_left_percent": "what is left of its whole lifetime, for those that live only for days",
            "chain_valid": "1 when the chain leads to an authority that is trusted; not measured of a file",
            "chain_certificates": "certificates that the server sends; not measured of a file, nor by Python 3.9",
            "host_matches": "1 when it is for server_name; of a file only where that is given",
        },
        # PRE-25: days to deploy with, just above the critical alert of ALR-06; HC-19: chain and host name too.
        fail_when={"days_left": "< 8", "chain_valid": "< 1", "host_matches": "< 1"},
        warn_when={"days_left": "<= 30"},  # PRE-25: more than 30 days
        subject=lambda args: args["path"] or place(args),
        advice="Renew the certificate and load it; send the intermediate certificates with it.",
        ask=_certificate,
        finish=_finish,
        measured=_measured,
    ),
}
