"""What would have changed a verdict: the nearest facts with which the policy says something else.

Facts are tried, not reasoned about: each trial is judged by the policy itself, so every answer is
true. First each fact alone that a rule which counts looks at, then pairs of one rule's facts. Of
a number the nearest value is found by halving the way to one that flips.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from postweir.policy.bundle import Bundle, Rule
from postweir.policy.facts import NUMBER_MAX, SCHEMA, Declared, Facts
from postweir.policy.schema import ITEMS_MAX
from postweir.policy.tree import Const, Name, Unread, names, read, walk
from postweir.policy.verdict import Fact, Verdict
from postweir.runtime.frames import Struct

TRIALS_MAX = 6000  # singles, and again as many pairs: some tenths of a second
VALUES_MAX = 24  # of one fact
PAIR_VALUES_MAX = 6  # of each fact of a pair
FLIPS_MAX = 5
FAR = tuple(10**n for n in range(7))  # also tried of a number
FRACTION = 1000  # a fraction is told to three digits

# Says what the policy decides on these; None where it cannot.
Judge = Callable[[Sequence[Facts]], Sequence[Verdict | None]]
_FIXED = ("limit.",)  # what the policy itself says is no fact of the message; the account's is
_ACCOUNTS = "limit.sender_messages_1h"


class Turned(Struct, frozen=True):
    """One fact, and what it would have had to be."""

    fact: str
    was: Fact
    would: Fact


class Flip(Struct, frozen=True):
    """Facts that together lead to another verdict."""

    changes: list[Turned]
    verb: str
    rule: str  # that would decide then, "" when none does
    distance: float  # how far off: 0 is next to it, 1 the other end, a pair the sum


@dataclass(frozen=True, slots=True)
class _Trial:
    changes: tuple[tuple[str, Fact], ...]

    def on(self, facts: Facts) -> Facts:
        return {**facts, **dict(self.changes)}


def used(condition: str, declared: "dict[str, Declared]") -> list[str]:
    """Return the facts that a condition looks at, in the order in which they stand."""
    try:
        tree = read(condition)
    except Unread:
        return sorted(name for name in declared if name in condition)
    known = names(tree)
    order = dict.fromkeys(node.name for node in walk(tree) if isinstance(node, Name))
    return [name for name in order if name in known and name in declared]


def declared(bundle: Bundle) -> dict[str, Declared]:
    """Return all facts that rules of this policy may look at."""
    return {**SCHEMA, **{fact.name: fact for fact in bundle.own_facts()}}


def nearest(bundle: Bundle, facts: Facts, now: Verdict, judge: Judge) -> list[Flip]:
    """Return what would have changed this verdict, the nearest first."""
    search = _Search(bundle, facts, now, judge)
    found = search.singles()
    if now.rule and found:
        return _best(found)
    # With no rule to undo, each rule may be near by itself: those that one fact does not reach.
    reached = {flip.rule for flip in found}
    return _best(found + search.pairs(reached))


class _Search:
    """The search around one message."""

    def __init__(self, bundle: Bundle, facts: Facts, now: Verdict, judge: Judge) -> None:
        self._judge, self._now = judge, now
        self._declared = declared(bundle)
        self._facts = {**{n: fact.neutral for n, fact in self._declared.items()}, **facts}
        self._given = facts
        self._rules = _that_count(bundle, now)

    def singles(self) -> list[Flip]:
        """Return what one fact alone would change."""
        constants = self._constants()
        trials = [
            _Trial(((name, value),))
            for name, around in constants.items()
            for value in self._values(name, around)
        ]
        return self._flips(trials[:TRIALS_MAX])

    def pairs(self, reached: set[str]) -> list[Flip]:
        """Return what two facts of one rule would change; rules that are reached are left out."""
        trials: list[_Trial] = []
        for rule in self._rules:
            if rule.id in reached:
                continue
            around = self._constants_of(rule)
            values = {n: list(self._values(n, found))[:PAIR_VALUES_MAX]
                      for n, found in around.items()}  # fmt: skip
            for one, other in combinations(values, 2):
                trials += [_Trial(((one, a), (other, b)))
                           for a in values[one] for b in values[other]]  # fmt: skip
        return self._flips(trials[:TRIALS_MAX])

    def _constants(self) -> dict[str, list[Fact]]:
        found: dict[str, list[Fact]] = {}
        for rule in self._rules:
            for name, values in self._constants_of(rule).items():
                found.setdefault(name, []).extend(values)
        return found

    def _constants_of(self, rule: Rule) -> dict[str, list[Fact]]:
        """Return the facts of a rule, each with the values that stand near it in the condition."""
        try:
            tree = read(rule.when)
        except Unread:
            return {}
        written: list[Fact] = [node.value for node in walk(tree) if isinstance(node, Const)]
        looked_at = used(rule.when, self._declared)
        numbers = _numbers([self._facts[name] for name in looked_at])
        return {
            name: [*written, *numbers]
            for name in looked_at
            if name == _ACCOUNTS or not name.startswith(_FIXED)
        }

    def _values(self, name: str, around: Sequence[Fact]) -> Iterator[Fact]:
        """Yield values to try instead of a fact's own, those near a constant first."""
        was = self._facts[name]
        if isinstance(was, bool):
            yield not was
            return
        if isinstance(was, str):
            texts = [v for v in around if isinstance(v, str)]
            yield from [v for v in dict.fromkeys(["", *texts]) if v != was][:VALUES_MAX]
            return
        if isinstance(was, list):
            yield from self._lists(was, around)
            return
        near = [v + step for v in _numbers(around) for step in _steps(was)]
        kind, most = type(was), self._declared[name].most or NUMBER_MAX
        made = dict.fromkeys(kind(v) for v in (*near, 0, was * 2, was // 2, *FAR) if 0 <= v <= most)
        yield from [v for v in made if v != was][:VALUES_MAX]

    def _lists(self, was: list[str], around: Sequence[Fact]) -> Iterator[Fact]:
        for n in range(min(len(was), VALUES_MAX)):
            yield was[:n] + was[n + 1 :]
        if len(was) > 1:
            yield []
        more = [v for v in dict.fromkeys(v for v in around if isinstance(v, str)) if v not in was]
        if len(was) < ITEMS_MAX:
            yield from ([*was, text] for text in more[:VALUES_MAX])

    def _flips(self, trials: Sequence[_Trial]) -> list[Flip]:
        said = self._judge([trial.on(self._given) for trial in trials])
        turned = [(trial, verdict) for trial, verdict in zip(trials, said, strict=True)
                  if verdict is not None and _differs(verdict, self._now)]  # fmt: skip
        return [self._flip(trial, verdict) for trial, verdict in self._closer(turned)]

    def _closer(self, turned: Sequence[tuple[_Trial, Verdict]]) -> Sequence[tuple[_Trial, Verdict]]:
        """Move each number as near to what it was as the same rule still decides."""
        found = list(turned)
        for place in range(2):
            # (where it is, a value that flips, one that does not), on a grid of whole numbers
            open_ = [
                (n, _grid(value), _grid(self._facts[name]))
                for n, (trial, _) in enumerate(found)
                if len(trial.changes) > place
                for name, value in trial.changes[place : place + 1]
                if _numbers([value])
            ]
            while open_ := [one for one in open_ if abs(one[1] - one[2]) > 1]:
                tries = [(n, _moved(found[n][0], place, (flips + stays) // 2), flips, stays)
                         for n, flips, stays in open_]  # fmt: skip
                said = self._judge([trial.on(self._given) for _, trial, _, _ in tries])
                open_ = []
                for (n, trial, flips, stays), verdict in zip(tries, said, strict=True):
                    middle = (flips + stays) // 2
                    if verdict is not None and _same(verdict, found[n][1]):
                        found[n] = (trial, verdict)
                        open_.append((n, middle, stays))
                    else:
                        open_.append((n, flips, middle))
        return found

    def _flip(self, trial: _Trial, verdict: Verdict) -> Flip:
        changes = [Turned(name, self._facts[name], value) for name, value in trial.changes]
        distance = sum(_distance(one.was, one.would) for one in changes)
        return Flip(changes, verdict.verb, verdict.rule, round(distance, 6))


def _that_count(bundle: Bundle, now: Verdict) -> list[Rule]:
    """Return the rules that decide or could have: the one that did first, then those before it."""
    walked: list[Rule] = []
    for rule in bundle.rules:
        if rule.mode == "enforce":
            walked.append(rule)
        if rule.id == now.rule:
            break
    return walked[-1:] + walked[:-1] if now.rule else walked


def _best(found: Sequence[Flip]) -> list[Flip]:
    """Return the nearest: each fact and each rule once as long as there are others."""
    ordered = sorted(found, key=lambda flip: (len(flip.changes), flip.distance))
    best: dict[tuple[object, ...], Flip] = {}
    for flip in ordered:
        best.setdefault((*(one.fact for one in flip.changes), flip.rule), flip)
    seen: set[str] = set()
    first: list[Flip] = []
    rest: list[Flip] = []
    for flip in best.values():
        (rest if flip.rule in seen else first).append(flip)
        if flip.rule:
            seen.add(flip.rule)
    return (first + rest)[:FLIPS_MAX]


def _differs(one: Verdict, other: Verdict) -> bool:
    return (one.verb, one.pool, one.header) != (other.verb, other.pool, other.header)


def _same(one: Verdict, other: Verdict) -> bool:
    return (one.verb, one.rule) == (other.verb, other.rule)


def _numbers(values: Sequence[Fact]) -> list[int | float]:
    return [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]


def _steps(was: float) -> tuple[float, ...]:
    return (0, 1, -1) if isinstance(was, int) else (0.0, 0.001, -0.001)


def _grid(value: Fact) -> int:
    assert isinstance(value, int | float)
    return value if isinstance(value, int) else round(value * FRACTION)


def _moved(trial: _Trial, place: int, at: int) -> _Trial:
    name, value = trial.changes[place]
    moved: Fact = at if isinstance(value, int) else at / FRACTION
    return _Trial((*trial.changes[:place], (name, moved), *trial.changes[place + 1 :]))


def _distance(was: Fact, would: Fact) -> float:
    if isinstance(was, bool) or not isinstance(was, int | float):
        return 1.0
    assert isinstance(would, int | float)
    return abs(would - was) / max(abs(was), abs(would), 1)
