"""The `[[rule.test]]` tables: facts, and whether the rule is true of them."""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from postweir.policy.bundle import KEYS, TEXTS, Test
from postweir.policy.facts import ITEMS_MAX, NUMBER_MAX, SCHEMA, TEXT_CHARS_MAX
from postweir.policy.keys import looked_up
from postweir.policy.meant import mean, near
from postweir.policy.schema import Declared
from postweir.policy.source import kind_of, shown
from postweir.policy.table import Table
from postweir.policy.verdict import Fact

TESTS_MAX = 100  # of a rule
GIVEN_CHARS_MAX = 4000  # of a text for a pattern: a subject, a paragraph
_LIKE = {"bool": "true or false", "int": "a whole number, such as 3",
         "double": "a fraction, such as 0.9 or 1.0", "string": "a text in quotes",
         "list": 'a list of texts, such as ["a"]'}  # fmt: skip


def read(table: Table, known: Mapping[str, Declared]) -> Test:
    """Return what a test says, and note what is wrong with it."""
    table.only(("facts", "matches", "name", "texts", "keys"))
    facts = _facts(table, known)
    texts = {
        of: value for of, value in _besides(table, "texts", TEXTS) if _is_text(table, of, value)
    }
    keys = {
        of: list(dict.fromkeys(key for one in value for key in looked_up(of, one)))
        for of, value in _besides(table, "keys", KEYS) if _is_keys(table, of, value)
    }  # fmt: skip
    return Test(facts, table.flag("matches", True), table.line("name"), texts, keys)


def _facts(table: Table, known: Mapping[str, Declared]) -> dict[str, Fact]:
    written = table.raw("facts")
    do = 'write facts = { "sender.age_days" = 1 }'
    if isinstance(written, dict):
        given = dict(_flat(written))
        faults = {name: _wrong(name, value, known) for name, value in given.items()}
        for fault in filter(None, faults.values()):
            table.fault("facts", *fault)
        return {name: value for name, value in given.items() if not faults[name]}
    if written is not None:
        table.fault("facts", f"facts is {kind_of(written)}", do)
    elif not (table.raw("texts") or table.raw("keys")):
        table.fault("facts", "there are no facts", f"{do}, or {{}} when all are neutral")
    return {}


def _besides(table: Table, key: str, known: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield what a test gives beside its facts, by the names that patterns or sets have for it."""
    written = table.raw(key)
    if written is None:
        return
    if not isinstance(written, dict):
        table.fault(key, f"{key} is {kind_of(written)}", f"write {key} = {{ ... }}")
        return
    for of, value in written.items():
        if of in known:
            yield of, value
        else:
            table.fault(key, f"there is no {key[:-1]} {shown(of)[1:-1]}", mean(of, known))


def _is_text(table: Table, of: str, value: Any) -> bool:
    if isinstance(value, str) and len(value) <= GIVEN_CHARS_MAX:
        return True
    do = f"write a text in quotes, of at most {GIVEN_CHARS_MAX} characters"
    table.fault("texts", f"{of} is {shown(value)}", do)
    return False


def _is_keys(table: Table, of: str, value: Any) -> bool:
    if _is("list", value):
        return True
    table.fault("keys", f"{of} is {shown(value)}", f"write {_LIKE['list']}, at most {ITEMS_MAX}")
    return False


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
