"""Who really sent this message: one sender, with the evidence, and what to take off the header.

The account says in which order its sources are looked at; the first that says something wins.
What each source said is kept as evidence, also where another won. Headers that name a sender
are for us, not for recipients: all of them are removed, whichever won.

Forwarded mail is a sender of its own kind. It reaches the customer's server from elsewhere, so
nobody of the customer wrote it; charged to the credential that relays it, one forwarded flood
would stop all mail of that customer. So where `forwarded` does not stand in an account's order,
it is looked at just before `sasl`. An account whose users log in to us themselves puts `sasl`
first: then nothing a user writes into a header changes who it is.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from postweir.identity.sender import IDENTITY_BYTES_MAX, Account, Sender
from postweir.identity.upstream import Hop, read_hop
from postweir.mail.headers import Field

HOPS_READ_MAX = 10  # where the customer's house ends stands in its first few lines
HEADERS = {  # header: (source as accounts name it, type of the sender)
    "x-authuser": ("x-authuser", "x-authuser"),
    "x-authenticated-sender": ("x-authenticated-sender", "x-authsender"),
    "x-php-originating-script": ("x-php-originating-script", "script"),
}
OURS = ("x-postweir-id", "x-postweir-sender")  # only we write these
_TYPES = dict(HEADERS.values()) | {
    "received": "received",
    "forwarded": "forwarded",
    "sasl": "sasl",
}


@dataclass(frozen=True, slots=True)
class Attribution:
    """Who answers for a message, and which header fields go."""

    sender: Sender
    strip: tuple[int, ...]  # starts of the fields that do not leave
    customer_id: str = ""  # the customer's own queue id: they grep for it


def attribute(
    account: Account, *, auth_username: str, fields: Sequence[Field], client: str, mail_from: str
) -> Attribution:
    """Return the sender of a message with this header. `auth_username` is "" without AUTH."""
    said: dict[str, str] = {}
    evidence: list[tuple[str, str]] = []
    strip: list[int] = []
    lines: list[str] = []  # of Received, top first
    resent = False
    for field in fields:
        name = field.name
        if name in HEADERS:
            strip.append(field.start)
            _hear(said, evidence, HEADERS[name][0], field.value)
        elif name in OURS:
            strip.append(field.start)
        elif name == "received" and len(lines) < HOPS_READ_MAX:
            lines.append(field.value)
        elif name in ("resent-from", "resent-sender"):
            resent = True
    top = read_hop(lines[0]) if lines else Hop()
    _hear(said, evidence, "received", top.user)
    if top.users > 1:
        evidence.append(("received repeated", str(top.users)))
    _hear(said, evidence, "sasl", auth_username)
    if (origin := _handed_over_from(top, lines)) or (resent and not said):
        _hear(said, evidence, "forwarded", origin or client)
    source = next((s for s in _order(account) if said.get(s)), "")
    sender = Sender(
        account=account.name,
        type=_TYPES[source] if source else "account",
        identity=said[source] if source else _fallback(account, client, mail_from),
        evidence=tuple(evidence),
    )
    return Attribution(sender, tuple(strip), top.id)


def _order(account: Account) -> tuple[str, ...]:
    order = account.identity_order
    if "forwarded" in order:
        return order
    at = order.index("sasl") if "sasl" in order[1:] else len(order)
    return (*order[:at], "forwarded", *order[at:])


def _hear(said: dict[str, str], evidence: list[tuple[str, str]], source: str, value: str) -> None:
    """Note what a source says; of a header given twice the first counts, and the doubt is kept."""
    identity = normal(value)
    if not identity:
        return
    if source not in said:
        said[source] = identity
        evidence.append((source, identity))
    elif (again := f"{source} repeated") not in (s for s, _ in evidence):
        evidence.append((again, identity))


def _handed_over_from(top: Hop, lines: Sequence[str]) -> str:
    """Return the address outside the house that handed the message over unasked, or "".

    Read from the top, where the customer's own servers wrote; below the first stranger anything
    may be invented. A line without a client, or of a client that had logged in, says that the
    message was made there.
    """
    for at, line in enumerate(lines):
        hop = read_hop(line) if at else top
        if not hop.client or hop.authenticated:
            return ""
        if not hop.internal:
            return hop.client
    return ""


def _fallback(account: Account, client: str, mail_from: str) -> str:
    # Bounces of the customer's server are apart from its other mail, which they may outnumber.
    return (client or account.name) if mail_from else "<>"


def normal(value: str) -> str:
    """Return an identity that is printable, bounded and the same however it was spelt.

    In lower case: servers let `joe` log in as `JOE` and write down what was typed, and whoever
    could spell himself in 2^n ways would have as many limits.
    """
    written = _text(value).strip().lower()
    if not written:
        return ""
    clean = written
    if not written.isprintable():
        clean = "".join(c if c.isprintable() else "?" for c in written)
    if clean == written and len(clean.encode("utf-8", "replace")) <= IDENTITY_BYTES_MAX:
        return clean
    # Cut or cleaned, two different values must not become one sender.
    digest = (
        "~" + hashlib.blake2b(written.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    )
    room = IDENTITY_BYTES_MAX - len(digest)
    return clean.encode("utf-8", "replace")[:room].decode("utf-8", "ignore") + digest


def _text(value: str) -> str:
    """Read a header value, one character a byte, as the UTF-8 it may be (RFC 6532)."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value
