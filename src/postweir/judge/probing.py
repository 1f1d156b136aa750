"""Which rules are true of which facts, all of them at once, as the real engine says."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Any, Self

from postweir.judge.trial import Trial
from postweir.policy.bundle import Bundle, Rule, Test
from postweir.policy.decide import SHADOW_MAX
from postweir.policy.evaluation import Evaluate, Evaluated
from postweir.policy.facts import Facts
from postweir.policy.matching import memory_bytes

NOTHING: Mapping[str, Any] = MappingProxyType({})
ANSWER_S = 10.0  # for what is asked in one go, on a busy machine; then the worker hangs


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a gate found: of which rule ("" for the policy), what, and what to do."""

    rule: str
    what: str
    do: str


@dataclass(slots=True)
class Tried:
    """What came of a gate: what was tried, in one line with figures, and what was found."""

    said: str = ""
    faults: list[Finding] = field(default_factory=list)
    notices: list[Finding] = field(default_factory=list)


class Gone(Exception):
    """A worker did not load the policy, ended, or gave no answer in time to these facts."""

    def __init__(self, why: str, facts: Facts) -> None:
        super().__init__(why)
        self.facts = facts


@dataclass(slots=True)
class Seen:
    """What rules, by their place, come to on some facts."""

    true: set[int] = field(default_factory=set)
    errors: dict[int, str] = field(default_factory=dict)


def walk(
    rules: Sequence[Rule], seen: Seen, killed: Container[str] = ()
) -> tuple[int | None, list[str]]:
    """Return which rule decides, by its place, and which on trial were true before: by the book."""
    trial: list[str] = []
    for place in sorted(seen.true):
        rule = rules[place]
        if rule.mode == "off" or rule.id in killed:
            continue
        if rule.mode != "shadow":
            return place, trial
        trial.append(rule.id)
    return None, trial


def asked(
    trial: Trial, some: Sequence[Facts | Test], *,
    texts: Mapping[str, str] = NOTHING, keys: Mapping[str, list[str]] = NOTHING,
) -> list[Evaluated]:  # fmt: skip
    """Return what a worker says of these facts. Raises `Gone`."""
    asks = [
        Evaluate(n, one.facts, one.texts, one.keys)
        if isinstance(one, Test)
        else Evaluate(n, one, dict(texts), dict(keys))
        for n, one in enumerate(some)
    ]
    answers = trial.evaluate(asks, ANSWER_S)
    if len(answers) < len(some):
        raise Gone("the worker ended, or gave no answer in time", asks[len(answers)].facts)
    return answers


def loaded(trial: Trial, bundle: Bundle, sets: Mapping[str, bytes]) -> None:
    """Have a worker load a bundle. Raises `Gone`."""
    said = trial.load(bundle, sets)
    if said is None:
        raise Gone("the worker ended, or did not load the policy in time", {})
    if said.fault:
        raise Gone(said.fault, {})


class Probe:
    """A worker in which every rule is on trial, so that none hides what comes after it."""

    def __init__(self, bundle: Bundle, sets: Mapping[str, bytes], command: Sequence[str]) -> None:
        rules = tuple(Rule(rule.id, rule.when, "hold", mode="shadow") for rule in bundle.rules)
        self._trying = bundle.with_rules(rules)
        self._places = {rule.id: place for place, rule in enumerate(rules)}
        self._sets, self._asks = sets, range(len(rules))
        self._trial = Trial(command, memory_bytes(bundle, sets))

    def __enter__(self) -> Self:
        try:
            loaded(self._trial, self._trying, self._sets)
        except Gone:
            self._trial.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, what: BaseException | None, at: TracebackType | None
    ) -> None:
        self._trial.__exit__(kind, what, at)

    def one(self, place: int, some: Sequence[Facts | Test]) -> list[Seen]:
        """Return what one rule comes to on each of these facts. Raises `Gone`."""
        return self._within(range(place, place + 1), some)

    def all(self, some: Sequence[Facts | Test]) -> list[Seen]:
        """Return what all rules come to on each of these facts. Raises `Gone`."""
        whole = [Seen() for _ in some]
        count = len(self._trying.rules)
        for first in range(0, count, SHADOW_MAX):  # no more than an answer can name
            places = range(first, min(first + SHADOW_MAX, count))
            for seen, part in zip(whole, self._within(places, some), strict=True):
                seen.true |= part.true
                seen.errors |= part.errors
        return whole

    def _within(self, places: range, some: Sequence[Facts | Test]) -> list[Seen]:
        if places != self._asks:
            rules = self._trying.rules
            others = rules[: places.start] + rules[places.stop :]
            self._trial.mask(rule.id for rule in others)
            self._asks = places
        return [self._seen(answer) for answer in asked(self._trial, some)]

    def _seen(self, answer: Evaluated) -> Seen:
        said = (error.partition(": ") for error in answer.errors)
        return Seen(
            {self._places[rule] for rule in answer.shadow},
            {self._places[rule]: what for rule, _, what in said},
        )
