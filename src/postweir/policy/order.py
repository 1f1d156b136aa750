"""What rules are to each other: which can never be reached, and what is declared and not used."""

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from postweir.policy import tree
from postweir.policy.bundle import Bundle, Rule, Throttle
from postweir.policy.domains import FLIPPED
from postweir.policy.meant import mean
from postweir.policy.tree import Call, Const, Name, Node, Unread

WAYS_MAX = 16  # of one condition to be true; each is compared with each of 500 rules


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing wrong with the n-th rule, beside others."""

    rule: int
    what: str
    do: str


_UP = (">", ">=")
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
            "==": operator.eq, "!=": operator.ne}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Bound:
    """A comparison of a fact with a number."""

    fact: str
    op: str
    number: int | float


@dataclass(frozen=True, slots=True)
class _Way:
    """One of the ways in which a condition is true: all of these hold."""

    terms: frozenset[int]  # numbers of terms, by `_Terms`
    bounds: tuple[_Bound, ...]  # those among them that are comparisons
    others: frozenset[int]  # and those that are not


def unreached(rules: Sequence[Rule]) -> Iterator[Remark]:
    """Yield a remark for each rule that one before it always decides.

    It is seen where a condition is the earlier one with more to it, or with a bound beyond the
    earlier one's: `x > 1000` behind `x > 100`.
    """
    terms = _Terms()
    before: list[tuple[Rule, list[_Way]]] = []
    for index, rule in enumerate(rules):
        if rule.mode == "off":
            continue
        try:
            condition = tree.read(rule.when)
        except Unread:
            continue
        if condition == Const(False):
            yield Remark(index, "is never true", 'to switch a rule off, write mode = "off"')
            continue
        ways = terms.ways(condition)
        first = next((one for one, earlier in before if _covers(earlier, ways)), None)
        if first is not None:
            yield _behind(index, first, rule)
        elif rule.mode == "enforce" and ways:  # one on trial ends no walk
            before.append((rule, ways))


def unthrottled(rules: Sequence[Rule], throttles: Sequence[Throttle]) -> Iterator[Remark]:
    """Yield a remark for each rule whose verb names a throttle that its condition does not ask."""
    known = [throttle.id for throttle in throttles]
    for index, rule in enumerate(rules):
        if rule.verb != "throttle" or not rule.throttle:
            continue
        name = f"throttle.{rule.throttle}"
        if rule.throttle not in known:
            do = (
                mean(rule.throttle, known)
                if known
                else f'write [[throttle]] id = "{rule.throttle}"'
            )
            yield Remark(index, f"there is no throttle {rule.throttle}", do)
        elif name not in (_names(rule.when) or {name}):
            what = f"puts mail off whether {rule.throttle} has room or not"
            yield Remark(index, what, f"ask for it in the condition: {name} > 0")


def used(bundle: Bundle) -> set[str] | None:
    """Return the names of facts that the rules look at; None when a condition cannot be read."""
    found: set[str] = set()
    for rule in bundle.rules:
        names = _names(rule.when)
        if names is None:
            return None
        found |= names
        if rule.throttle:
            found.add(f"throttle.{rule.throttle}")
    return found


def _behind(index: int, first: Rule, rule: Rule) -> Remark:
    if _is_true(first.when):
        what = f"is never reached: rule {first.id} before it is always true"
        return Remark(index, what, "move that one to the end")
    if "".join(first.when.split()) == "".join(rule.when.split()):
        what = f"is never reached: rule {first.id} has the same condition"
        return Remark(index, what, "leave one of them out")
    what = f"is never reached: whenever it is true, rule {first.id} before it is too"
    return Remark(index, what, f"move it before {first.id}")


def _is_true(when: str) -> bool:
    return when.strip(" \t\r\n()") == "true"


def _names(when: str) -> set[str] | None:
    try:
        return tree.names(tree.read(when))
    except Unread:
        return None


class _Terms:
    """Numbers for terms, so that conditions are compared without looking at each again."""

    def __init__(self) -> None:
        self._numbers: dict[Node, int] = {}

    def ways(self, node: Node) -> list[_Way]:
        """Return the ways in which a condition is true; none: there are too many."""
        return [self._way(terms) for terms in _any(node) or ()]

    def _way(self, terms: frozenset[Node]) -> _Way:
        numbers = {self._numbers.setdefault(term, len(self._numbers)): term for term in terms}
        bounds = {number: found for number, term in numbers.items() if (found := _bound(term))}
        others = numbers.keys() - bounds.keys()
        others -= {number for number in others if numbers[number] == Const(True)}
        return _Way(frozenset(numbers), tuple(bounds.values()), frozenset(others))


def _any(node: Node) -> list[frozenset[Node]] | None:
    """Return terms that make a condition true together, for each way; None: too many ways."""
    if isinstance(node, Call) and node.op == "||":
        found: list[frozenset[Node]] = []
        for arg in node.args:
            some = _any(arg)
            if some is None or len(found) + len(some) > WAYS_MAX:
                return None
            found += some
        return found
    if isinstance(node, Call) and node.op == "&&":
        ways: list[frozenset[Node]] = [frozenset()]
        for arg in node.args:
            some = _any(arg)
            if some is None or len(ways) * len(some) > WAYS_MAX:
                return None
            ways = [one | other for one in ways for other in some]
        return ways
    return [frozenset({_upright(node)})]


def _upright(node: Node) -> Node:
    """Return a comparison with the fact on its left."""
    if isinstance(node, Call) and node.op in FLIPPED and isinstance(node.args[0], Const):
        return Call(FLIPPED[node.op], (node.args[1], node.args[0]))
    return node


def _bound(node: Node) -> _Bound | None:
    if not isinstance(node, Call) or node.op not in FLIPPED:
        return None
    fact, number = node.args
    if not (isinstance(fact, Name) and isinstance(number, Const)):
        return None
    value = number.value
    if isinstance(value, bool | str):
        return None
    return _Bound(fact.name, node.op, value)


def _covers(earlier: Sequence[_Way], later: Sequence[_Way]) -> bool:
    """True when in each way that the later one is true, the earlier one is as well."""
    return bool(later) and all(any(_follows(one, way) for one in earlier) for way in later)


def _follows(one: _Way, way: _Way) -> bool:
    return one.others <= way.terms and all(
        any(_implies(has, wanted) for has in way.bounds) for wanted in one.bounds
    )


def _implies(has: _Bound, wanted: _Bound) -> bool:
    """True when a bound says no less than another: x > 1000 than x > 100."""
    return has == wanted or (
        has.fact == wanted.fact
        and type(has.number) is type(wanted.number)
        and _says_more(has.op, has.number, wanted.op, wanted.number)
    )


def _says_more(op: str, a: float, wanted: str, b: float) -> bool:
    """True when whatever is `op a` is also `wanted b`."""
    if op == "==":
        return bool(_COMPARE[wanted](a, b))
    if op == "!=":
        return False
    if wanted == "!=":  # a bound on one side of it
        return (a > b or (op == ">" and a == b)) if op in _UP else (a < b or (op == "<" and a == b))
    if (op in _UP) != (wanted in _UP) or wanted == "==":
        return False
    strict = wanted in ("<", ">") and op in ("<=", ">=")
    beyond = a > b if op in _UP else a < b
    return beyond or (a == b and not strict)
