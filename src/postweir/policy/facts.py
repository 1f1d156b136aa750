"""All that a rule may look at: every fact declared, typed, bounded, and always present.

A fact that could not be learnt has its neutral default, never the worst: a look-up that fails
must not refuse mail. So a policy can be evaluated on any facts, and no rule ever meets a gap.
"""

import hashlib
from collections.abc import Iterator, Mapping

from postweir.policy.verdict import Fact
from postweir.runtime import frames
from postweir.runtime.frames import Value

TEXT_CHARS_MAX = 256
ITEMS_MAX = 64  # of a list; a rule that looks at each pair stays far below the engine's budget
NUMBER_MAX = 2**53  # exact in JSON too

Facts = dict[str, Fact]


class Declared(Value, frozen=True):
    """One fact: its type, what it is when nothing is known, and what it says."""

    name: str
    type: str  # bool, int, double, string, list (of string)
    neutral: Fact
    sentence: str


def _declare() -> Iterator[Declared]:
    def boolean(name: str, sentence: str, neutral: bool = False) -> Declared:
        return Declared(name, "bool", neutral, sentence)

    def number(name: str, sentence: str, neutral: int = 0) -> Declared:
        return Declared(name, "int", neutral, sentence)

    def text(name: str, sentence: str) -> Declared:
        return Declared(name, "string", "", sentence)

    def texts(name: str, sentence: str) -> Declared:
        return Declared(name, "list", [], sentence)

    yield text("connection.client", "Address of the server that relayed to us.")
    yield text("connection.helo", "What that server called itself.")
    yield boolean("connection.tls", "The message came over TLS.")
    yield boolean(
        "connection.authenticated", "It came with a credential, not only a known network."
    )
    yield text("account.name", "The account that pays for the relay.")
    yield text("sender.key", "Who answers for the message: account|type|identity.")
    yield text("sender.type", "How the sender was recognised: sasl, x-authuser, received, ...")
    yield text("sender.identity", "The sender's own part of the key.")
    yield text("sender.state", "What an operator decided: stopped, allowed, or nothing.")
    yield boolean("sender.forwarded", "The message is forwarded mail, by its type.")
    yield boolean("usage.known", "The levels below are complete; false just after a restart.")
    for whose, prefix in (("The sender's", ""), ("The account's", "account_")):
        for what in ("messages", "recipients"):
            for window, words in (("1m", "minute"), ("1h", "hour")):
                name = f"usage.{prefix}{what}_{window}"
                yield number(name, f"{whose} {what} in the last {words}, this message included.")
    yield number(
        "limit.sender_messages_1h",
        "The account's setting: messages of one sender in an hour.",
        neutral=NUMBER_MAX,
    )
    yield number("envelope.recipients", "Recipients of this message.")
    yield texts("envelope.recipient_domains", "Their domains, each once, the first 64.")
    yield boolean("envelope.null_sender", "MAIL FROM is empty: a bounce, or posing as one.")
    yield text("envelope.from_domain", "Domain of MAIL FROM.")
    yield text("header.from_domain", "Domain of the first From field.")
    yield number("header.from_count", "From fields; one in good mail.")
    yield number("header.subject_bytes", "Length of the subject.")
    yield boolean("header.message_id_present", "There is a Message-ID.", neutral=True)
    yield boolean("header.date_present", "There is a Date.", neutral=True)
    yield boolean("body.known", "Header and parts could be read in time.")
    yield number("body.bytes", "Length of the message.")
    yield number("body.parts", "MIME parts.")
    yield number("body.attachments", "Parts with a file name, or marked as attachment.")
    yield texts(
        "body.anomalies", "What is odd in its form: malformed, encoding, empty, bound, cut."
    )
    yield Declared("findings.spam", "double", 0.0, "How sure a scanner is that it is spam, 0 to 1.")
    yield boolean("findings.url_listed", "It links to a host on the installation's list.")
    yield boolean("findings.attachment_dangerous", "An attachment would run when opened.")
    yield boolean("findings.attachment_encrypted", "An attachment cannot be looked into.")
    yield number("findings.unavailable", "Scanners that did not answer in time.")
    yield number("message.loops", "How often the message went through us before.")


SCHEMA: Mapping[str, Declared] = {fact.name: fact for fact in _declare()}
NEUTRAL: Mapping[str, Fact] = {fact.name: fact.neutral for fact in SCHEMA.values()}
SCHEMA_HASH = "fs_" + hashlib.sha256(frames.json([*SCHEMA.values()])).hexdigest()

_KINDS: Mapping[str, type] = {
    "bool": bool, "int": int, "double": float, "string": str, "list": list,
}  # fmt: skip
_KIND_OF: Mapping[str, type] = {fact.name: _KINDS[fact.type] for fact in SCHEMA.values()}


def total(some: Mapping[str, Fact]) -> Facts:
    """Return all facts: these, within their bounds, and the rest neutral."""
    return {**NEUTRAL, **{name: bounded(name, value) for name, value in some.items()}}


def telling(facts: Mapping[str, Fact]) -> Facts:
    """Return only those that are not neutral: what is kept, and enough for `total`."""
    return {name: value for name, value in facts.items() if value != NEUTRAL.get(name)}


def bounded(name: str, value: Fact) -> Fact:
    """Return a fact's value within its bounds. What is given must be declared, and of its type."""
    kind = _KIND_OF.get(name)
    assert kind is not None, f"{name} is not declared"
    assert type(value) is kind, f"{name} is a {type(value).__name__}"
    if kind is bool or kind is float:
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return [_text(item) for item in value[:ITEMS_MAX]]
    if kind is int and not -NUMBER_MAX <= value <= NUMBER_MAX:
        return NUMBER_MAX if value > 0 else -NUMBER_MAX
    return value


def _text(value: str) -> str:
    """Return text the engine can take: bounded, and no half of a surrogate pair."""
    cut = value if len(value) <= TEXT_CHARS_MAX else value[:TEXT_CHARS_MAX]
    return cut if cut.isascii() else cut.encode("utf-8", "replace").decode()
