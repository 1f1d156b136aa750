"""All that a rule may look at: every fact declared, typed, bounded, and always present.

A fact that could not be learnt has its neutral default, never the worst: a look-up that fails
must not refuse mail. So a policy can be evaluated on any facts, and no rule ever meets a gap.
"""

import hashlib
from collections.abc import Mapping

from postweir.policy.schema import (
    ITEMS_MAX,
    NUMBER_MAX,
    TEXT_CHARS_MAX,
    Declared,
    declared,
)
from postweir.policy.verdict import Fact
from postweir.runtime import frames

__all__ = ["ITEMS_MAX", "NUMBER_MAX", "TEXT_CHARS_MAX", "Declared"]

Facts = dict[str, Fact]


SCHEMA: Mapping[str, Declared] = {fact.name: fact for fact in declared()}
NEUTRAL: Mapping[str, Fact] = {fact.name: fact.neutral for fact in SCHEMA.values()}
# What a policy relies on. A sentence may be put better without a new schema.
CANONICAL = frames.json([(f.name, f.type, f.neutral, f.unit, f.most) for f in SCHEMA.values()])
SCHEMA_HASH = "fs_" + hashlib.sha256(CANONICAL).hexdigest()

_KINDS: Mapping[str, type] = {
    "bool": bool, "int": int, "double": float, "string": str, "list": list,
}  # fmt: skip
_KIND_OF: Mapping[str, type] = {fact.name: _KINDS[fact.type] for fact in SCHEMA.values()}


def total(some: Mapping[str, Fact]) -> Facts:
    """Return all facts: these, within their bounds, and the rest neutral."""
    return {**NEUTRAL, **{name: bounded(name, value) for name, value in some.items()}}


def said(some: Mapping[str, Fact]) -> Facts:
    """Return those that are not neutral, within their bounds: what is telling of `total`."""
    return {n: bounded(n, value) for n, value in some.items() if value != NEUTRAL.get(n)}


def telling(facts: Mapping[str, Fact]) -> Facts:
    """Return only those that are not neutral: what is kept, and enough for `total`."""
    return {name: value for name, value in facts.items() if value != NEUTRAL.get(name)}


def bounded(name: str, value: Fact) -> Fact:
    """Return a fact's value within its bounds. What is given must be declared, and of its type."""
    kind = type(value)
    assert _KIND_OF.get(name) is kind, f"{name} is a {kind.__name__}, or not declared"
    if kind is bool or kind is float:
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return [_text(item) for item in value[:ITEMS_MAX]]
    if not -NUMBER_MAX <= value <= NUMBER_MAX:
        return NUMBER_MAX if value > 0 else -NUMBER_MAX
    return value


def _text(value: str) -> str:
    """Return text the engine can take: bounded, and no half of a surrogate pair.

    To the engine a text ends at its first NUL: `bank.example\\0.evil` would be the bank.
    """
    cut = value if len(value) <= TEXT_CHARS_MAX else value[:TEXT_CHARS_MAX]
    if "\0" in cut:
        cut = cut.replace("\0", "\ufffd")
    return cut if cut.isascii() else cut.encode("utf-8", "replace").decode()
