"""A policy as it is named and kept: an immutable bundle of rules, in order."""

import hashlib
from typing import Any

from postweir.policy.facts import SCHEMA_HASH
from postweir.runtime import frames
from postweir.runtime.frames import Value

DIALECT = "cel-1"


class Rule(Value, frozen=True):
    """When a condition is true of a message, this is what we do."""

    id: str
    when: str
    verb: str
    code: str = ""
    text: str = ""
    retry_after_s: int = 0
    mode: str = "enforce"
    on_error: str = "skip"
    help: str = ""
    owner: str = ""
    severity: str = ""


class Bundle(Value, frozen=True):
    """Rules in order; the first that matches decides, and when none does, accept."""

    rules: tuple[Rule, ...]
    schema: str = SCHEMA_HASH
    dialect: str = DIALECT
    format: int = 1

    @property
    def canonical(self) -> bytes:
        """The bytes that are hashed, kept and sent: JSON with sorted keys."""
        rules = [
            {key: getattr(rule, key) for key in sorted(Rule.__struct_fields__)}
            for rule in self.rules
        ]
        return frames.json(
            {"dialect": self.dialect, "format": self.format, "rules": rules, "schema": self.schema}
        )

    @property
    def hash(self) -> str:
        """The policy's name."""
        return name_of(self.canonical)


def name_of(canonical: bytes) -> str:
    """Return the name of the bundle with these bytes."""
    return "pol_" + hashlib.sha256(canonical).hexdigest()


def from_canonical(data: bytes) -> Bundle:
    """Return the bundle of `Bundle.canonical`. Raises frames.Torn."""
    plain = frames.from_json(data, dict[str, Any])
    try:
        rules = tuple(Rule(**rule) for rule in plain.pop("rules"))
        bundle = Bundle(rules, **plain)
    except (TypeError, KeyError, AttributeError) as fault:
        raise frames.Torn(str(fault)) from None
    if bundle.canonical != data:
        raise frames.Torn("not in canonical form")
    return bundle
