"""An error of the engine, of every kind, in every rule of the shipped policy: never a match.

The engine returns an error as a value that is true to Python. Most kinds cannot get past the check;
here they are put in all the same, as a fault of ours would.
"""

import pytest
from tests.effort import THOROUGH

from postweir.judge.bundles import shipped
from postweir.policy import dialect
from postweir.policy.bundle import Bundle, Rule
from postweir.policy.dialect import Looked
from postweir.policy.evaluation import Evaluate, Evaluated
from postweir.policy.generate import Cases
from postweir.policy.worker import Engine

FAILING = {  # by kind; on neutral facts
    "divided by zero": "1 / body.bytes > 0",
    "modulo by zero": "7 % body.bytes == 1",
    "overflow": "9223372036854775807 + (body.bytes + 1) > 0",
    "underflow": "-9223372036854775808 - (body.bytes + 1) < 0",
    "no such item": "body.anomalies[7] == 'x'",
    "no such key": "{'a': true}[sender.key]",
    "no number": "int(sender.key) > 0",
    "no time": "timestamp(sender.key) > timestamp('2020-01-01T00:00:00Z')",
    "no expression": "sender.key.matches('(' + sender.key)",
    "no bool": "dyn(sender.key) || false",
    "not absorbed by and": "1 / body.bytes > 0 && true",
    "not absorbed by or": "1 / body.bytes > 0 || false",
    "in a choice": "(1 / body.bytes > 0) ? true : true",
    "in a loop": "['a'].all(x, 1 / body.bytes > 0)",
}
WRONG = (True, 1, 1.5, "true", "", ["true"], [])
RULES = shipped().rules
LAST = max(place for place, rule in enumerate(RULES) if rule.mode == "enforce")
PAIRS = [
    pytest.param(kind, place, id=f"{kind} in {rule.id}")
    for place, rule in enumerate(RULES)
    for number, kind in enumerate(FAILING)
    if THOROUGH or (number + place) % 7 == 0  # each kind, and each rule, now and then
]


def replaced(place: int, *, alone: bool = False, **values: object) -> Bundle:
    """Return the shipped policy with one rule changed, or only that rule."""
    rule = RULES[place]
    fields = {name: getattr(rule, name) for name in rule.__struct_fields__}
    changed = Rule(**{**fields, **values})
    rules = (changed,) if alone else (*RULES[:place], changed, *RULES[place + 1 :])
    return shipped().with_rules(rules)


def evaluated(bundle: Bundle, facts: dict) -> Evaluated:
    engine = Engine(bundle, "p")
    assert engine.faults == []
    return engine.evaluate(Evaluate(1, facts))


@pytest.fixture(scope="module")
def quiet() -> dict:
    """Facts of which no rule of the shipped policy is true."""
    cases = Cases(shipped())
    (facts, *_) = cases.find(0, False, range(1, len(RULES))).facts
    return facts


@pytest.fixture(scope="module")
def last() -> dict:
    """Facts that the last rule of the shipped policy decides."""
    (facts, *_) = Cases(shipped()).find(LAST, True, range(LAST)).facts
    return facts


@pytest.mark.parametrize(("kind", "place"), PAIRS)
def test_every_kind_in_every_rule(kind, place, quiet, last, monkeypatch):
    """It is counted once, the rule is passed over or holds, and those after it are looked at."""
    monkeypatch.setattr(dialect, "look", lambda *_: Looked())
    name, when = RULES[place].id, FAILING[kind]
    skipped = evaluated(replaced(place, when=when, mode="enforce", on_error="skip"), quiet)
    held = evaluated(replaced(place, when=when, mode="enforce", on_error="hold"), quiet)
    shadow = evaluated(replaced(place, when=when, mode="shadow", on_error="hold"), quiet)
    after = evaluated(replaced(place, when=when, mode="enforce", on_error="skip"), last)

    for said in (skipped, held, shadow, after):
        errors = [error.partition(": ")[0] for error in said.errors]
        assert errors == ([name] if place <= LAST or said is not after else [])
    assert len(skipped.errors[0]) > len(name) + 10
    assert (skipped.verdict.verb, skipped.verdict.rule) == ("accept", "")
    assert (held.verdict.verb, held.verdict.rule) == ("hold", name)
    assert (shadow.verdict.verb, shadow.shadow) == ("accept", [])
    assert after.verdict.rule == ("" if place == LAST else RULES[LAST].id)


@pytest.mark.parametrize("place", range(len(RULES)), ids=[rule.id for rule in RULES])
def test_facts_of_another_type_in_every_rule(place):
    """A fact that came with a wrong type makes a rule fail, never match."""
    cases = Cases(shipped())
    engine = Engine(replaced(place, mode="enforce", on_error="skip", alone=True), "p")
    neutral = engine.evaluate(Evaluate(1, {})).verdict
    (true, *_) = cases.find(place, True).facts
    failed = 0
    for name in cases.named[place] & engine._neutral.keys():
        for wrong in WRONG:
            kind = type(engine._neutral[name])
            if type(wrong) is kind or (kind in (int, float) and isinstance(wrong, int)):
                continue  # the engine takes a whole number for a fraction, and true for 1
            said = engine.evaluate(Evaluate(1, {name: wrong}))
            also = engine.evaluate(Evaluate(1, {**true, name: wrong}))
            failed += bool(said.errors or also.errors)

            assert said.verdict.rule == "" if said.errors else said.verdict == neutral
            assert not (also.errors and also.verdict.rule)
    assert failed
