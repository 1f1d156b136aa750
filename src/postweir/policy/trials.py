"""The `[[rule.test]]` tables: facts, and whether the rule is true of them."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from postweir.policy.bundle import Test
from postweir.policy.facts import ITEMS_MAX, NUMBER_MAX, SCHEMA, TEXT_CHARS_MAX
from postweir.policy.meant import near
from postweir.policy.schema import Declared
from postweir.policy.source import kind_of, shown
from postweir.policy.table import Table
from postweir.policy.verdict import Fact

TESTS_MAX = 100  # of a rule
_LIKE = {"bool": "true or false", "int": "a whole number, such as 3",
         "double": "a fraction, such as 0.9 or 1.0", "string": "a text in quotes",
         "list": 'a list of texts, such as ["a"]'}  # fmt: skip


def read(table: Table, known: Mapping[str, Declared]) -> Test:
    """Return what a test says, and note what is wrong with it."""
    table.only(("facts", "matches", "name"))
    written = table.raw("facts")
    facts: dict[str, Fact] = {}
    if written is None:
        do = 'write facts = { "sender.age_days" = 1 }, or {} when all are neutral'
        table.fault("facts", "there are no facts", do)
    elif not isinstance(written, dict):
        do = 'write facts = { "sender.age_days" = 1 }'
        table.fault("facts", f"facts is {kind_of(written)}", do)
    else:
        for name, value in _flat(written):
            wrong = _wrong(name, value, known)
            if wrong:
                table.fault("facts", *wrong)
            else:
                facts[name] = value
    return Test(facts, table.flag("matches", True), table.line("name"))


def _flat(written: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (fact, value): `"sender.age_days" = 1` and `sender.age_days = 1` are the same."""
    waiting = [("", written)]
    while waiting:
        prefix, table = waiting.pop(0)
        for key, value in table.items():
            if isinstance(value, dict) and len(prefix) < TEXT_CHARS_MAX:
                waiting.append((f"{prefix}{key}.", value))
            else:
                yield prefix + key, value


def _wrong(name: str, value: Any, known: Mapping[str, Declared]) -> tuple[str, str] | None:
    """Return what is wrong with a fact of a test, and what to do."""
    declared = known.get(name)
    if declared is None:
        close = near(name, known)
        if "." not in name and near(name, ("matches", "name")):
            return f"there is no fact {shown(name)[1:-1]}", "matches and name stand below facts"
        do = f"did you mean {close}?" if close else "docs/facts.md has them all"
        return f"there is no fact {shown(name)[1:-1]}", do
    if name.startswith("limit.") and name not in SCHEMA:
        return f"{name} is a number of this policy, the same in every test", "leave it out"
    if _is(declared.type, value):
        return None
    like = _LIKE[declared.type]
    return f"{name} is {like.partition(',')[0]}, and not {shown(value)}", f"write {like}"


def _is(kind: str, value: Any) -> bool:
    match kind:
        case "bool":
            return isinstance(value, bool)
        case "int":
            return type(value) is int and abs(value) <= NUMBER_MAX
        case "double":
            return isinstance(value, float) and math.isfinite(value)
        case "string":
            return isinstance(value, str) and len(value) <= TEXT_CHARS_MAX
    return (
        isinstance(value, list) and len(value) <= ITEMS_MAX
        and all(isinstance(each, str) and len(each) <= TEXT_CHARS_MAX for each in value)
    )  # fmt: skip
