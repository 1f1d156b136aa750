"""A policy as it is named and kept: an immutable bundle of rules, in order, and what they use."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from postweir.policy import schema
from postweir.policy.facts import SCHEMA_HASH
from postweir.policy.schema import Declared
from postweir.policy.verdict import Fact
from postweir.runtime import frames
from postweir.runtime.frames import Value

DIALECT = "cel-1"
FORMAT = 2

# What a set may be looked up by, and what a pattern may read: sent to the worker beside the facts.
KEYS = (
    "url_hosts", "recipients", "recipient_domains", "from_domain", "envelope_domain",
    "reply_to_domain", "client", "sender", "account", "attachment_names", "attachment_hashes",
)  # fmt: skip
TEXTS = ("subject", "from_name", "text", "html", "attachment_names", "mailer")
THROTTLE_KEYS = ("sender", "account", "from_domain", "client", "recipient_domain")
THROTTLE_OF = ("messages", "recipients", "bytes")


class Test(Value, frozen=True):
    """Facts, and whether the rule is true of them: written beside it, run at every check."""

    facts: dict[str, Fact]  # the rest neutral
    matches: bool = True
    name: str = ""
    texts: dict[str, str] = {}  # for patterns, by TEXTS
    keys: dict[str, list[str]] = {}  # for sets, by KEYS, spelt as the judge spells them


class Rule(Value, frozen=True):
    """When a condition is true of a message, this is what we do."""

    id: str
    when: str
    verb: str
    code: str = ""
    text: str = ""
    retry_after_s: int = 0
    mode: str = "enforce"  # shadow: noted, and the next rule is looked at; off: not looked at
    on_error: str = "skip"  # or hold
    help: str = ""  # for the person refused, as long as it needs
    owner: str = ""
    severity: str = ""
    header: str = ""  # with tag: "X-Name: value"
    pool: str = ""  # with tag and route
    throttle: str = ""  # with throttle: whose waiting time is said
    hold_s: int = 0  # with hold: when it expires; 0: as the setting says
    lifetime_s: int = 0  # with what takes mail: how long it is tried; 0: as the account says
    tests: tuple[Test, ...] = ()


class Set(Value, frozen=True):
    """Many keys, kept beside the bundle under the hash of their bytes; a fact `set.ID`."""

    id: str
    of: str  # one of KEYS
    hash: str  # set_<sha256> of the keys, sorted, one a line
    size: int  # keys


class Pattern(Value, frozen=True):
    """A regular expression of RE2, compiled once; a fact `pattern.ID`."""

    id: str
    of: str  # one of TEXTS
    pattern: str


class Throttle(Value, frozen=True):
    """A rate that is measured (GCRA); a fact `throttle.ID`: seconds until there is room, or 0."""

    id: str
    key: str  # one of THROTTLE_KEYS
    of: str  # one of THROTTLE_OF
    rate: int  # so many
    per_s: int  # in so long
    burst: int  # and so many at once


class Bundle(Value, frozen=True):
    """Rules in order; the first that matches decides, and when none does, accept."""

    rules: tuple[Rule, ...]
    schema: str = SCHEMA_HASH
    dialect: str = DIALECT
    format: int = FORMAT
    sets: tuple[Set, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    throttles: tuple[Throttle, ...] = ()
    limits: dict[str, int] = {}  # numbers that rules name: a fact `limit.ID`

    def with_rules(self, rules: tuple[Rule, ...]) -> "Bundle":
        """Return a bundle of other rules that may use all that these may."""
        return frames.with_field(self, "rules", rules)

    @property
    def canonical(self) -> bytes:
        """The bytes that are hashed, kept and sent: JSON with sorted keys."""
        return frames.json(_ordered(self))

    @property
    def hash(self) -> str:
        """The policy's name."""
        return name_of(self.canonical)

    def own_facts(self) -> Iterator[Declared]:
        """Yield the facts that only this policy's rules have, besides those of the schema."""
        for one in self.sets:
            yield schema.boolean(f"set.{one.id}", f"Its {one.of} are in that set.")
        for pattern in self.patterns:
            yield schema.boolean(f"pattern.{pattern.id}", f"Its {pattern.of} matches.")
        for throttle in self.throttles:
            sentence = f"Until there is room in {throttle.rate} {throttle.of} a {throttle.per_s} s."
            yield schema.number(f"throttle.{throttle.id}", "seconds", sentence)
        for name, value in sorted(self.limits.items()):
            yield schema.number(f"limit.{name}", "", "A number of this policy.", neutral=value)


def name_of(canonical: bytes) -> str:
    """Return the name of the bundle with these bytes."""
    return "pol_" + hashlib.sha256(canonical).hexdigest()


def set_bytes(keys: frozenset[str]) -> bytes:
    """Return a set as it is kept: its keys, sorted, one a line."""
    return "".join(f"{key}\n" for key in sorted(keys)).encode()


def set_name(data: bytes) -> str:
    """Return the name of the set with these bytes."""
    return "set_" + hashlib.sha256(data).hexdigest()


def from_canonical(data: bytes) -> Bundle:
    """Return the bundle of `Bundle.canonical`. Raises frames.Torn."""
    plain = frames.from_json(data, dict[str, Any])
    try:
        rules = tuple(_rule(**rule) for rule in plain.pop("rules"))
        bundle = Bundle(
            rules,
            sets=tuple(Set(**one) for one in plain.pop("sets", ())),
            patterns=tuple(Pattern(**one) for one in plain.pop("patterns", ())),
            throttles=tuple(Throttle(**one) for one in plain.pop("throttles", ())),
            **plain,
        )
    except (TypeError, KeyError, AttributeError) as fault:
        raise frames.Torn(str(fault)) from None
    # Of an older format the bytes are kept as they are: they are what its name is the hash of.
    if bundle.format == FORMAT and bundle.canonical != data:
        raise frames.Torn("not in canonical form")
    return bundle


def _rule(tests: Any = (), **values: Any) -> Rule:
    return Rule(tests=tuple(Test(**test) for test in tests), **values)


def _ordered(value: Any) -> Any:
    """Return a value as plain JSON, whose objects have sorted keys."""
    if isinstance(value, Value):
        names = sorted(value.__struct_fields__)
        return {name: _ordered(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {key: _ordered(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_ordered(each) for each in value]
    return value
