"""What a policy is asked about a message of the past: from what was recorded, nothing made up.

The facts of the schema are as they were. A policy's own facts are of its own making: its sets are
looked up by keys that the facts still have, its patterns by what the same pattern said then. What
can be had neither way is unknown, and said to be: text is not kept.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

from postweir.policy import tree
from postweir.policy.bundle import Bundle, Pattern, Set
from postweir.policy.facts import SCHEMA, Facts
from postweir.policy.keys import looked_up
from postweir.policy.schema import ITEMS_MAX
from postweir.policy.verdict import Fact
from postweir.runtime import frames
from postweir.runtime.frames import Struct

# Which fact still has the keys that a set is looked up by. Addresses of recipients, names and
# hashes of attachments are not kept.
KEPT: Mapping[str, str] = {
    "url_hosts": "urls.hosts", "recipient_domains": "envelope.recipient_domains",
    "from_domain": "header.from_domain", "envelope_domain": "envelope.from_domain",
    "reply_to_domain": "header.reply_to_domain", "client": "connection.client",
    "sender": "sender.key", "account": "account.name",
}  # fmt: skip
UNKNOWN_MAX = 3  # own facts of one message that are tried both ways: eight questions

Definition = tuple[str, str]  # what a set or pattern is, whatever its id: of, and hash or pattern


class Record(Struct, frozen=True, gc=False):
    """What was recorded of one message, as `judge.evidence.record` packs it."""

    facts: Facts  # with throttle.ID, as it was then
    derived: Facts = {}
    findings: list[Any] = []
    errors: list[str] = []
    shadow: list[str] = []
    killed: list[str] = []
    schema: str = ""
    policy: str = ""  # that was asked, or would have been
    engine: str = ""  # why it gave no answer, and so derived nothing: off, silent

    def derived_by(self, judged_by: str) -> str:
        """Return the policy whose sets and patterns are in `derived`, "" when none is."""
        return "" if self.engine else self.policy or judged_by


def opened(packed: bytes) -> Record | None:
    """Return what was recorded; None: nothing was, or it is of no form we know."""
    try:
        return frames.unpack(packed, Record) if packed else None
    except frames.Torn:
        return None


def defined(one: Set | Pattern) -> Definition:
    """Return what a set or a pattern is, by which it is the same under another id."""
    return (one.of, one.hash if isinstance(one, Set) else one.pattern)


def own(bundle: Bundle) -> Iterator[tuple[str, Set | Pattern]]:
    """Yield the own facts of a policy that its worker derives, with what they are."""
    yield from ((f"set.{one.id}", one) for one in bundle.sets)
    yield from ((f"pattern.{one.id}", one) for one in bundle.patterns)


def named(bundle: Bundle) -> dict[str, set[str]]:
    """Return the facts that each rule's condition looks at, by the rule's id."""
    found = {}
    for rule in bundle.rules:
        try:
            found[rule.id] = tree.names(tree.read(rule.when))
        except tree.Unread:
            found[rule.id] = set(SCHEMA) | {fact.name for fact in bundle.own_facts()}
    return found


class Question(Struct, frozen=True, gc=False):
    """What the worker is asked: facts, keys for sets, and what nobody can know any more."""

    facts: Facts
    keys: dict[str, list[str]]
    unknown: tuple[str, ...] = ()

    def at(self, levels: Facts) -> "Question":
        """Return the same with throttles at these levels."""
        return Question(self.facts | levels, self.keys, self.unknown)

    def ways(self) -> Iterator[Facts]:
        """Yield the facts, with what is unknown each way; nothing: it is too much."""
        if not self.unknown:
            yield self.facts
        elif len(self.unknown) <= UNKNOWN_MAX:
            for values in product((False, True), repeat=len(self.unknown)):
                yield {**self.facts, **dict(zip(self.unknown, values, strict=True))}


class Recall:
    """Makes the questions to one policy."""

    def __init__(self, bundle: Bundle, *, all_facts: bool = False) -> None:
        names = frozenset(name for some in named(bundle).values() for name in some)
        self._schema = tuple(n for n in SCHEMA if all_facts or n in names)
        self._own = [(name, one) for name, one in own(bundle) if name in names]
        self._recorded: dict[str, list[tuple[str, str, str]]] = {}

    def joined(self, other: "Recall") -> bool:
        """Ask from here on what either wants to know; False: they do not mean the same by it."""
        if self._own or other._own:
            return False
        self._schema = other._schema = tuple({*self._schema, *other._schema})
        return True

    def question(
        self, record: Record, policy: str, recorded_by: Callable[[str], Bundle | None]
    ) -> Question:
        """Return what to ask about a message that `policy` judged then."""
        then = record.facts
        facts: Facts = {name: then[name] for name in self._schema if name in then}
        keys: dict[str, list[str]] = {}
        unknown: list[str] = []
        for name, before, of in self._ways(policy, recorded_by):
            if before:
                facts[name] = before in record.derived
            elif of and (found := _keys(record.facts, of)) is not None:
                keys[of] = found
            else:
                unknown.append(name)
        return Question(facts, keys, tuple(unknown))

    def _ways(
        self, policy: str, recorded_by: Callable[[str], Bundle | None]
    ) -> list[tuple[str, str, str]]:
        """Return of each own fact its name, and what it was called then, or else its keys."""
        if policy not in self._recorded:
            bundle = recorded_by(policy)
            then = {defined(one): name for name, one in own(bundle)} if bundle else {}
            self._recorded[policy] = [
                (name, then.get(defined(one), ""),
                 one.of if isinstance(one, Set) and one.of in KEPT else "")
                for name, one in self._own
            ]  # fmt: skip
        return self._recorded[policy]


def _keys(facts: Mapping[str, Fact], of: str) -> list[str] | None:
    """Return the keys that a message's facts still have; None: some of them were cut off."""
    value = facts.get(KEPT[of], "")
    if isinstance(value, list):
        if len(value) >= ITEMS_MAX:
            return None
        return [key for item in value for key in looked_up(of, item)]
    return list(looked_up(of, value)) if isinstance(value, str) else []
