"""Facts are total, typed and bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.policy.bundle import Bundle, Rule
from postweir.policy.evaluation import Evaluate
from postweir.policy.facts import (
    ITEMS_MAX,
    NEUTRAL,
    NUMBER_MAX,
    SCHEMA,
    SCHEMA_HASH,
    TEXT_CHARS_MAX,
    said,
    telling,
    total,
)
from postweir.policy.worker import Engine

VALUES = {
    "bool": st.booleans(), "int": st.integers(), "double": st.floats(0, 1), "string": st.text(),
    "list": st.lists(st.text(max_size=5), max_size=100),
}  # fmt: skip


def test_every_fact_is_declared_whole():
    """A name in two words, a neutral value of its type, one sentence."""
    for name, fact in SCHEMA.items():
        assert name.count(".") == 1
        assert fact.sentence.endswith(".")
        assert type(fact.neutral).__name__ in (fact.type, {"double": "float", "string": "str"}.get(fact.type))  # fmt: skip  # noqa: E501
    assert SCHEMA_HASH.startswith("fs_")
    assert len(SCHEMA_HASH) == 67


@given(st.data())
def test_whatever_is_known_all_facts_are_there(data):
    """Any part of the facts becomes all of them, within bounds, and can be kept as what it says."""
    names = data.draw(st.sets(st.sampled_from(sorted(SCHEMA))))
    some = {name: data.draw(VALUES[SCHEMA[name].type]) for name in names}

    facts = total(some)

    assert facts.keys() == SCHEMA.keys()
    for value in facts.values():
        assert not isinstance(value, str) or len(value) <= TEXT_CHARS_MAX
        assert not isinstance(value, list) or len(value) <= ITEMS_MAX
        assert not isinstance(value, int) or abs(value) <= NUMBER_MAX
    assert total(telling(facts)) == facts
    assert said(some) == telling(facts)


def test_what_is_not_declared_is_our_own_fault():
    """A name or type that the schema has not stops us, not the engine."""
    with pytest.raises(AssertionError, match="not declared"):
        total({"usage.mesages_1h": 3})
    with pytest.raises(AssertionError, match="is a str"):
        total({"body.bytes": "3"})
    with pytest.raises(AssertionError, match="is a int"):
        total({"body.known": 1})


def test_neutral_is_never_the_worst():
    """Facts nobody could learn object to nothing."""
    assert NEUTRAL["limit.sender_messages_1h"] == NUMBER_MAX
    assert NEUTRAL["findings.spam"] == 0.0
    assert NEUTRAL["usage.known"] is False


def test_no_text_ends_before_its_end():
    """The engine takes a NUL for the end of a text: such a name would pass as its beginning."""
    facts = total({"header.from_domain": "bank.example\0.evil", "urls.hosts": ["a\0b", "c"]})
    rule = Rule("r", 'header.from_domain == "bank.example" || "a" in urls.hosts', "hold")

    verdict = Engine(Bundle((rule,)), "p").evaluate(Evaluate(1, facts)).verdict
    assert verdict is not None
    assert verdict.verb == "accept"
    assert facts["urls.hosts"] == ["a\ufffdb", "c"]
