"""The facts a policy is tried on: of every kind, within their types, the same each time."""

import math

from tests.policy.varied import varied

from postweir.policy.bundle import Bundle, Rule
from postweir.policy.chance import Chance
from postweir.policy.facts import ITEMS_MAX, SCHEMA, TEXT_CHARS_MAX
from postweir.policy.generate import HOSTILE, Cases, declared

KINDS = {"bool": bool, "int": int, "double": float, "string": str, "list": list}


def cases(*conditions: str, **limits: int) -> Cases:
    rules = tuple(Rule(f"r{n}", when, "hold") for n, when in enumerate(conditions))
    return Cases(Bundle(rules, limits=limits))


def test_around_each_constant():
    """A number is tried just below, at and above; a text equal, longer, shorter; lists full."""
    made = cases("usage.messages_1h > 300 && 'a.example' in urls.hosts && sender.state == 'st'")
    near = list(made.near(0, {"body.known": True}))

    assert {299, 300, 301} <= {facts.get("usage.messages_1h") for facts in near}
    assert {"st", "stx", "xst", "s", ""} <= {facts.get("sender.state") for facts in near}
    lists = [facts["urls.hosts"] for facts in near if "urls.hosts" in facts]
    assert ["a.example"] in lists
    assert ["a.example"] * ITEMS_MAX in lists
    assert [] in lists
    assert all(facts["body.known"] for facts in near)


def test_in_a_loop_too():
    """What is asked of a list's items is tried in the list."""
    near = list(cases("urls.hosts.exists(h, h.endsWith('.ru'))").near(0, {}))

    assert {"urls.hosts": [".ru"]} in near
    assert {"urls.hosts": ["x.ru"]} in near


def test_the_numbers_of_a_policy_count_as_written():
    """`limit.ID` is a constant: it is tried around, and never changed."""
    made = cases("usage.messages_1h > limit.big", big=50)

    assert {49, 50, 51} <= {facts.get("usage.messages_1h") for facts in made.near(0, {})}
    assert all("limit.big" not in facts for facts in (*made.worst(0, {}), *made.extremes()))
    assert [facts["usage.messages_1h"] > 50 for facts in made.find(0, True).facts] == [True] * 3


def test_the_worst_of_every_type():
    """Every fact meets nothing, its bounds, NaN, and texts that break readers."""
    bundle, _ = varied(20)
    worst = list(Cases(bundle).extremes())

    assert worst[0] == {}
    names = {name for name in declared(bundle) if name != "limit.big"}
    assert all(set(facts) == names for facts in worst[1:])
    doubles = [facts["findings.spam"] for facts in worst[1:]]
    assert any(map(math.isnan, doubles))
    assert math.inf in doubles
    for kind, values in HOSTILE.items():
        assert all(type(value) is KINDS[kind] for value in values)
    assert max(len(text) for text in HOSTILE["string"]) == TEXT_CHARS_MAX


def test_the_same_policy_meets_the_same_facts():
    """What was tried can be tried again; another policy meets others."""
    bundle, _ = varied(20)
    first, second = (list(Cases(bundle).mixed([{}], bundle.hash, 50)) for _ in range(2))
    other = list(Cases(bundle).mixed([{}], "pol_other", 50))

    assert repr(first) == repr(second)
    assert repr(first) != repr(other)
    assert {name for facts in first for name in facts} <= set(declared(bundle))


def test_what_cannot_be_read_is_left_to_the_engine():
    """A condition of a kind that is not read here finds nothing, and breaks nothing."""
    made = cases("{'a': 1}['a'] == 1", "body.known")

    assert made.find(0, True).facts == []
    assert not made.find(1, True, [0]).surely_none
    assert list(made.near(0, {})) == list(made.worst(0, {})) == []


def test_own_facts_are_facts():
    """Sets, patterns and throttles of a policy can be true and false."""
    bundle, _ = varied(20)
    made = Cases(bundle)
    place = next(n for n, rule in enumerate(bundle.rules) if "set.partners" in rule.when)

    assert all(facts["set.partners"] is True for facts in made.find(place, True).facts)
    assert set(made.declared) - set(SCHEMA) == {
        "set.partners", "pattern.gift", "throttle.young", "limit.big",
    }  # fmt: skip


def test_chance_is_even_enough():
    """Each of ten numbers comes up, none more than twice its share."""
    chance = Chance("seed")
    seen = [chance.below(10) for _ in range(2000)]

    assert all(100 < seen.count(n) < 400 for n in range(10))
