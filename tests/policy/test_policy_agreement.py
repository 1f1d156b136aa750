"""A second engine, written by others in another language, gives conditions the same meaning.

Left out, because the engines differ there on purpose:

* `size` of a text that is not ASCII: the specification counts characters, the second one bytes;
* a text with a NUL: to ours it ends there, so no fact has one (`facts.bounded`);
* a fraction that is not a number (NaN): compared it is false, and to the second one an error;
* what the dialect refuses: errors (division by zero, 64 bits passed), items by number, and the
  rest that it names. A policy never gets so far.
"""

import math

import cel as second  # common-expression-language: for tests only
from hypothesis import assume, given, settings
from tests.effort import THOROUGH
from tests.policy.conditions import conditions, some_facts
from tests.policy.varied import varied

from postweir.judge.bundles import shipped
from postweir.policy.bundle import Bundle, Rule
from postweir.policy.evaluation import Evaluate
from postweir.policy.facts import Facts
from postweir.policy.generate import Cases
from postweir.policy.tree import Call, Node, names, read, walk
from postweir.policy.worker import Engine

FACTS_A_RULE = 120 if THOROUGH else 24


class Both:
    """One policy in both engines; in ours every rule is on trial, so that each is heard."""

    def __init__(self, bundle: Bundle, sets: dict[str, bytes] | None = None) -> None:
        self.bundle = bundle
        self.neutral = {name: fact.neutral for name, fact in Cases(bundle).declared.items()}
        self.trees = [read(rule.when) for rule in bundle.rules]
        self.theirs = [second.compile(rule.when) for rule in bundle.rules]
        self.ours = []
        for rule in bundle.rules:
            alone = Rule("r", rule.when, "hold")
            self.ours.append(Engine(bundle.with_rules((alone,)), "p", sets))

    def differ(self, place: int, facts: Facts) -> str:
        """Return how the engines differ about a rule, "" when they agree."""
        if _on_purpose(self.trees[place], facts):
            return ""
        answer = self.ours[place].evaluate(Evaluate(1, facts))
        ours = answer.errors or answer.verdict.verb == "hold"
        whole = {**self.neutral, **facts}
        try:
            theirs = self.theirs[place].execute(
                nested({name: whole[name] for name in names(self.trees[place])})
            )
        except (ValueError, TypeError, RuntimeError) as fault:
            theirs = repr(fault)
        return "" if ours is theirs else f"{self.bundle.rules[place].when}: {ours}, {theirs}"


def _on_purpose(tree: Node, facts: Facts) -> bool:
    """True where the engines differ by their design, as said above."""
    values = [facts.get(name) for name in names(tree)]
    if any(isinstance(value, float) and math.isnan(value) for value in values):
        return True
    texts = (each for value in values for each in (value if isinstance(value, list) else [value]))
    if any(isinstance(text, str) and "\0" in text for text in texts):
        return True
    sized = any(isinstance(node, Call) and node.op == "size" for node in walk(tree))
    return sized and any(isinstance(value, str) and not value.isascii() for value in values)


def nested(facts: Facts) -> dict:
    """Return facts as the second engine has them: a map in a map for each dot."""
    found: dict = {}
    for name, value in facts.items():
        room, _, rest = name.partition(".")
        found.setdefault(room, {})[rest] = value
    return found


def compare(bundle: Bundle, sets: dict[str, bytes] | None = None) -> tuple[int, list[str]]:
    """Return how often both engines were asked about a policy's rules, and where they differ."""
    both, cases = Both(bundle, sets), Cases(bundle)
    count, differing = 0, []
    for place in range(len(bundle.rules)):
        true, false = cases.find(place, True).facts, cases.find(place, False).facts
        base = true[0] if true else {}
        some = [*true, *false, *cases.near(place, base), *cases.worst(place, base), {}]
        some += cases.mixed([*true, *false], f"{place}", max(0, FACTS_A_RULE - len(some)))
        differing += [said for facts in some if (said := both.differ(place, facts))]
        count += len(some)
    return count, differing


def test_about_the_shipped_policy():
    """Every rule of it, on facts around all that it asks."""
    count, differing = compare(shipped())

    assert differing == []
    assert count >= 20 * len(shipped().rules)


def test_about_a_varied_policy():
    """All kinds of rules that people write; 20,000 questions when all pains are taken."""
    count, differing = compare(*varied(180 if THOROUGH else 20))

    assert differing == []
    assert count >= (20_000 if THOROUGH else 400)


@settings(max_examples=500 if THOROUGH else 50, deadline=None)
@given(conditions, some_facts)
def test_about_any_condition(condition, facts):
    """Whatever the dialect takes means the same to both."""
    assume(condition.isascii() or "size" not in condition)  # theirs counts bytes
    rule = Rule("r", condition, "hold")
    both = Both(Bundle((rule,)))
    if both.ours[0].faults:
        return
    found = Cases(both.bundle)
    some = [facts, *found.find(0, True).facts, *found.find(0, False).facts]

    assert [said for one in some if (said := both.differ(0, one))] == []


def test_a_difference_would_be_seen():
    """Facts that only one of them gets are told: the comparison is no formality."""
    both = Both(Bundle((Rule("r", "size(sender.state) == 1", "hold"),)))

    assert both.differ(0, {"sender.state": "a"}) == ""
    both.neutral["sender.state"] = "b"
    both.theirs[0] = second.compile("size(sender.state) == 2")
    assert "True, False" in both.differ(0, {"sender.state": "a"})
