"""One observation by one scanner: what it saw, how sure it is, and which version saw it."""

from collections.abc import Sequence
from typing import Protocol

from postweir.mail.message import Message
from postweir.runtime.frames import Value

KINDS = (
    "spam", "phishing", "virus", "url_listed", "attachment_dangerous", "attachment_encrypted",
    "unavailable",
)  # fmt: skip
WHAT_CHARS_MAX = 120  # a word for a person, not a copy of the message


class Finding(Value, frozen=True):
    """What one scanner saw. Never a verdict."""

    scanner: str
    kind: str  # one of KINDS
    what: str
    certainty: float  # 0..1
    version: str


class Scanner(Protocol):
    """One that looks at a message."""

    name: str
    instant: bool  # bounded work on memory alone, so that a small message needs no thread

    @property
    def version(self) -> str:
        """Return what it looks with: of a program, a list, a set of signatures."""
        ...

    def scan(self, message: Message) -> Sequence[Finding]:
        """Return what it saw; whatever it raises is a finding `unavailable`."""
        ...


def tame(text: str) -> str:
    """Return foreign text such that it can be shown."""
    return "".join(c if c.isprintable() else "?" for c in text[:WHAT_CHARS_MAX])
