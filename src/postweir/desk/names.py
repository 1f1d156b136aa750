"""What accounts, senders and scopes may be called, and what was meant when they are not."""

import difflib
from collections.abc import Iterable

from postweir.desk.ports import Misused
from postweir.identity.attribution import normal
from postweir.identity.sender import ACCOUNT_NAME_BYTES_MAX, IDENTITY_BYTES_MAX
from postweir.mail.envelope import is_message_id

_FIRST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_REST = _FIRST | frozenset("._-")
SCOPES = ("account", "sender", "domain")
TYPES = ("sasl", "x-authuser", "x-authsender", "received", "script", "forwarded", "account")
MEANT_MAX = 12  # told of what is known: a line or two
REASON_CHARS_MAX = 500  # a sentence; it goes into logs and rows


def account_name(text: str) -> str:
    """Return a name that an account may have. Raises Misused."""
    if not text or len(text) > ACCOUNT_NAME_BYTES_MAX or text[0] not in _FIRST:
        raise Misused(f"{text!r} cannot name an account: write 1 to 64 of a-z 0-9 . _ -")
    if not _REST.issuperset(text):
        raise Misused(f"{text!r} cannot name an account: only a-z 0-9 . _ - are allowed")
    return text


def sender_key(text: str) -> str:
    """Return a sender's key, `account|type|identity`. Raises Misused."""
    account, _, rest = text.partition("|")
    type_, _, identity = rest.partition("|")
    if not identity or len(identity.encode()) > IDENTITY_BYTES_MAX or not text.isprintable():
        raise Misused(
            f"{text!r} names no sender: write 'ACCOUNT|TYPE|IDENTITY', in quotes,"
            " as `message show` prints it"
        )
    account_name(account)
    if type_ not in TYPES:
        raise Misused(f"{type_!r} is no type of sender{meant(type_, TYPES)}")
    return f"{account}|{type_}|{normal(identity)}"


def message_id(text: str) -> str:
    """Return a message's id. Raises Misused."""
    if not is_message_id(text):
        raise Misused(f"{text!r} is no message id: it has 16 letters and digits, as in the 250")
    return text


def domain(text: str) -> str:
    """Return a domain in the form the spool keeps. Raises Misused."""
    found = text.lower().rstrip(".")
    if not found or len(found) > 255 or "@" in found or not found.isascii() or " " in found:
        raise Misused(f"{text!r} is no domain: write it as in example.com")
    return found


def reason(text: str) -> str:
    """Return a reason fit to be kept. Raises Misused."""
    if len(text) > REASON_CHARS_MAX or not text.isprintable():
        raise Misused(f"--reason takes one line of at most {REASON_CHARS_MAX} characters")
    return text


def meant(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?`, or what is known."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    more = f" and {len(names) - MEANT_MAX} more" if len(names) > MEANT_MAX else ""
    return "; known: " + ", ".join(names[:MEANT_MAX]) + more if names else ""
