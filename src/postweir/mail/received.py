"""The trace we leave on a message, and how we know that it goes round in circles."""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime

from postweir.mail.headers import Field

HOPS_MAX = 50  # RFC 5321 6.3 asks for at least 100 as a plain count; Postfix has 50 and it suffices
VALUE_BYTES_MAX = 255  # a name in a trace; RFC 5321 4.5.3.1.2

_LOOP = "x-postweir-loop"
_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:[]+=/@~")
_WORDS = _WORD | {" "}
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def received(
    *,
    helo: str,
    client: str,
    rdns: str,
    by: str,
    protocol: str,
    id: str,
    tls: str,
    at_s: float,
    recipients: int,
) -> bytes:
    """Return our Received field (RFC 5321 4.4), folded, whatever the client called itself.

    `client` is an address, or what stands for one, or "". The recipients are only counted: their
    names would give away a blind copy (RFC 5321 7.2).
    """
    # A word each: with a space in it a name could be `authenticated sender: joe`.
    seen = " ".join(_word(part) for part in (rdns, _shown(client)) if part)
    lines = [f"Received: from {_word(helo)}" + (f" ({seen})" if seen else "")]
    lines.append(f"by {_word(by)} (Postweir) with {_word(protocol)} id {_word(id)}")
    if tls:
        lines.append(f"({tamed(tls)})")
    if recipients > 1:
        lines.append(f"(for {recipients} recipients)")
    folded = "\r\n\t".join(lines)
    return f"{folded};\r\n\t{date(at_s)}\r\n".encode("ascii")


def loop_trace(hostname: str, id: str) -> bytes:
    """Return the field by which we know a message that was here before."""
    return f"X-Postweir-Loop: {_word(hostname)} {_word(id)}\r\n".encode("ascii")


def loops(found: Sequence[Field], hostname: str) -> int:
    """Return how many times this host has had the message before."""
    ours = _word(hostname).lower()
    return sum(f.name == _LOOP and f.value.lower().split(" ")[0] == ours for f in found)


def hops(found: Sequence[Field]) -> int:
    """Return how many servers the message has been through, by its own account."""
    return sum(f.name == "received" for f in found)


def date(at_s: float) -> str:
    """Return a time as RFC 5322 3.3 writes it, in UTC, whatever the locale."""
    at = datetime.fromtimestamp(int(at_s), UTC)
    day, month = _DAYS[at.weekday()], _MONTHS[at.month - 1]
    return (
        f"{day}, {at.day:02} {month} {at.year:04} {at.hour:02}:{at.minute:02}:{at.second:02} +0000"
    )


def tamed(text: str) -> str:
    """Return text that can stand in a header's comment: nothing in it means anything there."""
    text = text[:VALUE_BYTES_MAX]
    return text if _WORDS.issuperset(text) else "".join(c if c in _WORDS else "?" for c in text)


def _word(text: str) -> str:
    if 0 < len(text) <= VALUE_BYTES_MAX and _WORD.issuperset(text):
        return text  # as nearly all are
    return tamed(text).replace(" ", "?") or "unknown"


def _shown(client: str) -> str:
    if client.isascii() and client.count(".") == 3 and client.replace(".", "").isdecimal():
        return f"[{client}]"  # as most are: a parser would take longer than all the rest
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    return f"[IPv6:{tamed(str(address))}]" if address.version == 6 else f"[{address}]"
