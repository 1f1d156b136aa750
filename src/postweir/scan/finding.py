"""What one scanner saw: findings, and measures that become facts."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from postweir.mail.message import Message
from postweir.runtime.frames import Value

KINDS = (
    "spam", "phishing", "virus", "url_listed", "attachment_dangerous", "attachment_encrypted",
    "unavailable",
)  # fmt: skip
WHAT_CHARS_MAX = 120  # a word for a person, not a copy of the message

Measure = bool | int | float | str | list[str]


class Finding(Value, frozen=True):
    """One observation: what it was, how sure the scanner is, and which version saw it."""

    scanner: str
    kind: str  # one of KINDS
    what: str
    certainty: float  # 0..1
    version: str


class Seen(Value, frozen=True):
    """All that one scanner saw of a message. Never a verdict."""

    findings: Sequence[Finding] = ()
    measures: dict[str, Measure] = {}  # facts by their names, with its own `X.known`
    # What a policy's own patterns and sets may look at, by its names there; never kept.
    texts: dict[str, str] = {}
    keys: dict[str, list[str]] = {}


class Scanner(Protocol):
    """One that looks at a message."""

    name: str
    instant: bool  # bounded work on memory alone, so that a small message needs no thread
    facts: Mapping[str, type]  # the measures it may give, and what each is

    @property
    def version(self) -> str:
        """Return what it looks with: of a program, a list, a set of signatures."""
        ...

    def scan(self, message: Message) -> Seen:
        """Return what it saw; whatever it raises is a finding `unavailable`."""
        ...


def tame(text: str) -> str:
    """Return foreign text such that it can be shown."""
    return "".join(c if c.isprintable() else "?" for c in text[:WHAT_CHARS_MAX])
