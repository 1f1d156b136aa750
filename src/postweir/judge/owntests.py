"""A policy's own tests, run in a real worker: what each came to, and why."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from postweir.judge.probing import Gone, Probe, Seen
from postweir.policy.bundle import Rule, Test
from postweir.policy.document import Fault, Parsed
from postweir.policy.parts import parts

EXPLAINED_MAX = 20  # failures whose parts are told
PARTS_MAX = 200  # of all of them


@dataclass(frozen=True, slots=True)
class Tested:
    """One test, and what the rule came to on its facts."""

    rule: str
    number: int  # of the rule's tests, from 1
    where: str
    test: Test
    came: str  # "true", "false", or what the engine said of an error
    parts: tuple[tuple[str, str], ...] = ()  # of a failed one: what is joined, what it came to

    @property
    def ok(self) -> bool:
        """True when the rule does what its author expects."""
        return self.came == ("true" if self.test.matches else "false")

    @property
    def title(self) -> str:
        """What it is called."""
        return f"test {self.number}" + (f" ({self.test.name})" if self.test.name else "")


def run(parsed: Parsed, command: Sequence[str]) -> list[Tested]:
    """Return what came of all tests. Raises probing.Gone."""
    if not any(rule.tests for rule in parsed.bundle.rules):
        return []
    bundle = parsed.bundle
    with Probe(bundle, parsed.sets, command) as probe:
        tested = [
            _tested(parsed, place, number, test, seen)
            for place, rule in enumerate(bundle.rules)
            if rule.tests
            for number, (test, seen) in enumerate(
                zip(rule.tests, probe.one(place, rule.tests), strict=True)
            )
        ]
    return _explained(parsed, tested, command)


def fault(tested: Tested) -> Fault:
    """Return what is said of a test that failed."""
    test = tested.test
    expected = "true" if test.matches else "false"
    what = f"{tested.title}: it should be {expected}, and is {tested.came}"
    every = {**test.facts, **test.texts, **test.keys}
    given = ", ".join(f"{name} = {_shown(value)}" for name, value in every.items())
    do = f"with {given or 'neutral facts'}"
    if tested.parts:
        do += ": " + "; ".join(f"{text} is {came}" for text, came in tested.parts)
    return Fault(tested.where, tested.rule, what, do)


def _tested(parsed: Parsed, place: int, number: int, test: Test, seen: Seen) -> Tested:
    return Tested(
        parsed.bundle.rules[place].id, number + 1, parsed.source.where_test(place, number), test,
        _came(seen, place),
    )  # fmt: skip


def _came(seen: Seen, place: int) -> str:
    if place in seen.errors:
        return f"an error ({seen.errors[place]})"
    return "true" if place in seen.true else "false"


def _explained(parsed: Parsed, tested: list[Tested], command: Sequence[str]) -> list[Tested]:
    """Return the tests, the first that failed with the parts of their conditions."""
    conditions = {rule.id: rule.when for rule in parsed.bundle.rules}
    failed = [one for one in tested if not one.ok][:EXPLAINED_MAX]
    pieces = {one.rule: parts(conditions[one.rule]) for one in failed}
    texts = [text for some in pieces.values() if len(some) > 1 for text in some][:PARTS_MAX]
    texts = list(dict.fromkeys(texts))
    if not texts:
        return tested
    rules = tuple(Rule(f"part-{n}", text, "hold") for n, text in enumerate(texts))
    asked = parsed.bundle.with_rules(rules)
    try:
        with Probe(asked, parsed.sets, command) as probe:
            said = probe.all([one.test for one in failed])
    except Gone:  # a part alone is no condition, or all together cost too much
        return tested
    place = {text: n for n, text in enumerate(texts)}
    explained = {
        (one.rule, one.number): tuple(
            (" ".join(text.split()), _came(seen, place[text]))
            for text in pieces[one.rule]
            if text in place
        )
        for one, seen in zip(failed, said, strict=True)
    }
    return [replace(one, parts=explained.get((one.rule, one.number), ())) for one in tested]


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
