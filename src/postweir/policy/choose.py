"""Picks values for facts, of which is known what they may be and how they compare."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from postweir.policy import domains
from postweir.policy.domains import OPPOSITE, List, Number, Text
from postweir.policy.facts import Facts
from postweir.policy.schema import Declared
from postweir.policy.tree import Call, Const, Items, Loop, Name, Node, names

TRIES_MAX = 300  # of values for facts that are compared with each other
VARIANTS = 3  # of one way to make it so: the ordinary values, and those at the bounds
PREDICATES = ("startsWith", "endsWith", "contains")
_CALCULATED = ("+", "-", "*", "/", "%", "neg")
_INT64 = 2**63

Goal = tuple[Node, bool]  # a condition, and whether it shall be true


class Unable(Exception):
    """A calculation has no value: the engine would call it an error."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is settled about the facts on one way through the search."""

    bools: Mapping[str, bool] = field(default_factory=dict)
    numbers: Mapping[str, Number] = field(default_factory=dict)
    texts: Mapping[str, Text] = field(default_factory=dict)
    lists: Mapping[str, List] = field(default_factory=dict)
    each: tuple[tuple[str, str, Node, bool], ...] = ()  # of a list's items: name, body, truth
    between: tuple[Goal, ...] = ()  # questions about several facts at once


class Chooser:
    """Picks values for facts of one schema."""

    def __init__(self, declared: Mapping[str, Declared]) -> None:
        self._declared = declared

    def chosen(self, known: Known) -> Iterator[Facts]:
        """Yield facts that are as known, some of each kind."""
        order = list(dict.fromkeys(n for node, _ in known.between for n in sorted(names(node))))
        tries = _Tries(TRIES_MAX)
        for variant, among in enumerate(self._settled(order, {}, known, tries)):
            if variant >= VARIANTS:
                return
            facts = self._facts(dict(among), known, variant)
            if facts is None:
                return
            yield facts
            if not order:
                more = (self._facts({}, known, n) for n in range(1, VARIANTS))
                yield from (one for one in more if one is not None)

    def _facts(self, values: dict[str, Any], known: Known, variant: int) -> Facts | None:
        """Return the facts, where those that are free take the n-th of their values."""
        for name, number in known.numbers.items():
            tried = number.values()
            values.setdefault(name, tried[variant % len(tried)] if tried else number.low)
        for name, text in known.texts.items():
            if name not in values:
                texts = text.values()
                if not texts:
                    return None
                values[name] = texts[variant % len(texts)]
        values |= known.bools
        for name, one in known.lists.items():
            values[name] = [values.pop(item) for item in one.items]
        return {name: value for name, value in values.items() if "#" not in name}

    def _settled(
        self, order: list[str], values: dict[str, Any], known: Known, tries: "_Tries"
    ) -> Iterator[dict[str, Any]]:
        """Yield values of the facts that are compared with each other."""
        if not order:
            yield values
            return
        name, *rest = order
        decided = [
            goal for goal in known.between
            if name in (here := names(goal[0])) and not here.intersection(rest)
        ]  # fmt: skip
        for value in self._candidates(name, values, known, decided):
            if not tries.one_more():
                return
            now = {**values, name: value}
            if all(_holds(goal, now) for goal in decided):
                yield from self._settled(rest, now, known, tries)

    def _candidates(
        self, name: str, values: dict[str, Any], known: Known, decided: Sequence[Goal]
    ) -> list[Any]:
        kind = self.kind(Name(name))
        if kind == "bool":
            return [known.bools[name]] if name in known.bools else [False, True]
        if kind == "string":
            others = [value for value in values.values() if isinstance(value, str)]
            also = [more for other in others for more in (other, f"a.{other}", f"{other}.x")]
            return known.texts.get(name, Text()).values(also)
        number = known.numbers.get(name) or self.number(name)
        tried: list[int | float] = list(number.values())
        turns = [turn for goal in decided for turn in _turns(goal[0], name, values, sorted(tried))]
        return tried + [t for t in turns if t not in tried and number.low <= t <= number.high]

    def kind(self, node: Node) -> str:
        if isinstance(node, Const):
            return {bool: "bool", int: "int", float: "double"}.get(type(node.value), "string")
        if isinstance(node, Name):
            fact = self._declared.get(node.name)
            return fact.type if fact is not None else "string"
        if isinstance(node, Items):
            return "list"
        if isinstance(node, Loop):
            return "bool"
        if node.op in _CALCULATED:
            return self.kind(node.args[0])
        if node.op == "?:":
            return self.kind(node.args[1])
        return {"size": "int", "double": "double", "[]": "string"}.get(node.op, "bool")

    def number(self, name: str) -> Number:
        fact = self._declared[name]
        return domains.number(fact.type, fact.unit)


class _Tries:
    """How often values may still be tried."""

    def __init__(self, left: int) -> None:
        self._left = left

    def one_more(self) -> bool:
        self._left -= 1
        return self._left >= 0


def _holds(goal: Goal, values: Mapping[str, Any]) -> bool:
    try:
        return value(goal[0], values) is goal[1]
    except Unable:
        return False


def _turns(
    node: Node, name: str, values: Mapping[str, Any], points: Sequence[int | float]
) -> Iterator[int | float]:
    """Yield the values of a fact, around which a comparison turns: between points, by halving."""
    if not (isinstance(node, Call) and node.op in OPPOSITE):
        return
    left, right = node.args

    def gap(point: int | float) -> int | float:
        now = {**values, name: point}
        gap: int | float = value(left, now) - value(right, now)
        return gap

    known = []
    for point in points:
        try:
            known.append((point, gap(point)))
        except (Unable, TypeError):
            continue
    for (low, at_low), (high, at_high) in itertools.pairwise(known):
        if (at_low < 0) == (at_high < 0):
            continue
        a, b = low, high
        for _ in range(64):
            middle = (a + b) // 2 if isinstance(a, int) else (a + b) / 2
            if middle in (a, b):
                break
            try:
                if (gap(middle) < 0) == (at_low < 0):
                    a = middle
                else:
                    b = middle
            except Unable:
                break
        yield from (a, b, *((a - 1, b + 1) if isinstance(a, int) else ()))


def value(node: Node, values: Mapping[str, Any]) -> Any:
    """Return what a calculation or a question comes to. Raises `Unable`."""
    if isinstance(node, Const):
        return node.value
    if isinstance(node, Name):
        return values[node.name]
    if not isinstance(node, Call):
        raise Unable
    args = [value(arg, values) for arg in node.args]
    if node.op in OPPOSITE:
        return domains.compare(args[0], node.op, args[1])
    if node.op in PREDICATES:
        return domains.text_is(args[0], node.op, args[1])
    if node.op == "size" and isinstance(args[0], str):
        return len(args[0])
    if node.op == "double":
        return float(args[0])
    if node.op in _CALCULATED:
        return _calculated(node.op, args)
    raise Unable


def _calculated(op: str, args: Sequence[Any]) -> int | float:
    a, b = args[0], args[-1]
    try:
        result: int | float
        if op == "neg":
            result = -a
        elif op in ("+", "-", "*"):
            result = a + b if op == "+" else a - b if op == "-" else a * b
        elif isinstance(a, int):  # towards zero, as in C
            quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
            result = quotient if op == "/" else a - b * quotient
        else:
            result = a / b
    except (ZeroDivisionError, TypeError, OverflowError):
        raise Unable from None
    if isinstance(result, int) and not -_INT64 <= result < _INT64:
        raise Unable
    return result
