"""Facts to try a policy on: those that its rules tell apart, their bounds, and the worst there are.

Pure, and the same each time for the same policy. What is made here is what somebody *might* have
meant; whether a rule is true of it is for the engine to say.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from postweir.policy.bundle import Bundle, Rule
from postweir.policy.chance import Chance
from postweir.policy.choose import Goal
from postweir.policy.facts import SCHEMA, Facts
from postweir.policy.schema import ITEMS_MAX, NUMBER_MAX, TEXT_CHARS_MAX, Declared
from postweir.policy.search import Found, Search
from postweir.policy.tree import (
    Call,
    Const,
    Items,
    Loop,
    Name,
    Node,
    Unread,
    names,
    put,
    read,
    walk,
)
from postweir.policy.verdict import Fact

FOUND_MAX = 12  # facts of one kind for one rule: that many of its ways to be true are seen
MIXED_FACTS_MAX = 6  # that are not neutral, in facts put together by chance

_LONG = "x" * TEXT_CHARS_MAX
HOSTILE: Mapping[str, Sequence[Fact]] = {  # by type; the first of each is the mildest
    "bool": (False, True),
    "int": (0, 1, -1, NUMBER_MAX, -NUMBER_MAX, NUMBER_MAX - 1, 2**31, 2**32),
    "double": (0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, -0.0, 1e308, 5e-324),
    "string": (
        "", _LONG, "é" * TEXT_CHARS_MAX, "\U0001f600" * TEXT_CHARS_MAX, "\0", "'\"\\`\n\r\t",
        "\u202e\ufeff\uffff", "?", "a" * (TEXT_CHARS_MAX - 1) + "b",
    ),
    "list": (
        [], [_LONG] * ITEMS_MAX, ["\U0001f600" * TEXT_CHARS_MAX] * ITEMS_MAX, [""] * ITEMS_MAX,
        ["\0"], ["a" * (TEXT_CHARS_MAX - 1) + "b"] * ITEMS_MAX, ["'\"\\"], ["x"],
    ),
}  # fmt: skip


def declared(bundle: Bundle) -> dict[str, Declared]:
    """Return all facts that the rules of a bundle may name."""
    return {**SCHEMA, **{fact.name: fact for fact in bundle.own_facts()}}


class Cases:
    """What can be looked for in the rules of one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self.declared = declared(bundle)
        limits = {f"limit.{name}": value for name, value in bundle.limits.items()}
        self.trees = [_tree(rule, limits) for rule in bundle.rules]
        self.named = [names(tree) & self.declared.keys() if tree else set() for tree in self.trees]
        self._limits = limits
        self._search = Search(self.declared)
        self._pools = [_pool(tree, self.declared) if tree else {} for tree in self.trees]

    def find(self, rule: int, truth: bool, but: Iterable[int] = ()) -> Found:
        """Return facts that make a rule true, or false, and none of certain others true."""
        goals: list[Goal] = []
        for place, wanted in ((rule, truth), *((other, False) for other in but)):
            tree = self.trees[place]
            if tree is None:
                return Found()
            goals.append((tree, wanted))
        return self._search.find(goals, FOUND_MAX)

    def near(self, rule: int, base: Facts) -> Iterator[Facts]:
        """Yield these facts with one of those that the rule names at and beside its constants."""
        for name, values in self._pools[rule].items():
            yield from ({**base, name: value} for value in values)

    def worst(self, rule: int, base: Facts) -> Iterator[Facts]:
        """Yield these facts with one of those that the rule names at its worst."""
        for name in sorted(self.named[rule] - self._limits.keys()):
            yield from ({**base, name: value} for value in HOSTILE[self.declared[name].type])

    def extremes(self) -> Iterator[Facts]:
        """Yield all facts neutral, then all of them at one and the same degree of bad."""
        yield {}
        kinds = {name: fact.type for name, fact in self.declared.items()}
        for degree in range(max(map(len, HOSTILE.values()))):
            yield {
                name: HOSTILE[kind][min(degree, len(HOSTILE[kind]) - 1)]
                for name, kind in kinds.items()
                if name not in self._limits
            }

    def mixed(self, bases: Sequence[Facts], seed: str, count: int) -> Iterator[Facts]:
        """Yield facts put together by chance, of what the rules look for."""
        chance = Chance(seed)
        pool = {name: list(values) for each in self._pools for name, values in each.items()}
        ordered = sorted(pool)
        for _ in range(count):
            facts: Facts = {}
            if bases and chance.below(4):
                facts = dict(chance.one_of(bases))
                if not chance.below(2):
                    facts |= chance.one_of(bases)
            for _ in range(chance.below(MIXED_FACTS_MAX + 1) if ordered else 0):
                name = chance.one_of(ordered)
                facts[name] = chance.one_of(pool[name])
            yield facts


def _tree(rule: Rule, limits: Mapping[str, int]) -> Node | None:
    """Return a condition as a tree with the policy's numbers in it; None when it is not read."""
    try:
        tree = read(rule.when)
    except Unread:
        return None
    for name in names(tree) & limits.keys():
        tree = put(tree, Name(name), Const(limits[name]))
    return tree


def _pool(tree: Node, known: Mapping[str, Declared]) -> dict[str, list[Fact]]:
    """Return what to try of each fact: the constants it is compared with, and what is beside."""
    pool: dict[str, dict[str, Fact]] = {}
    for node in walk(_bare(tree)):
        if not isinstance(node, Call):
            continue
        inside = [inner for arg in node.args for inner in walk(arg)]
        constants = [inner.value for inner in inside if isinstance(inner, Const)]
        for inner in inside:
            if isinstance(inner, Name) and inner.name in known and node.op not in ("&&", "||"):
                values = pool.setdefault(inner.name, {})
                kind = known[inner.name].type
                values |= {repr(one): one for c in constants for one in _beside(c, kind)}
    for name in names(tree) & known.keys():
        kind = known[name].type
        more = HOSTILE[kind][:3] if kind != "bool" else (False, True)
        pool.setdefault(name, {}).update({repr(value): value for value in more})
    return {name: list(values.values()) for name, values in sorted(pool.items())}


def _bare(node: Node) -> Node:
    """Return a tree in which a loop's item is its list: what is asked of one is asked of both."""
    if isinstance(node, Loop):
        over = node.over if isinstance(node.over, Name) else Name(node.item)
        return Call("loop", (_bare(node.over), put(_bare(node.body), Name(node.item), over)))
    if isinstance(node, Items):
        return Items(tuple(map(_bare, node.args)))
    return Call(node.op, tuple(map(_bare, node.args))) if isinstance(node, Call) else node


def _beside(constant: bool | int | float | str, kind: str) -> Iterator[Fact]:
    """Yield a constant and its neighbours, as values of a fact of this kind."""
    if isinstance(constant, str):
        texts = (constant, constant + "x", "x" + constant, constant[:-1], constant.upper())
        for text in (text[:TEXT_CHARS_MAX] for text in texts):
            if kind == "string":
                yield text
            elif kind == "list":
                yield from ([text], ["x.example", text], [text] * ITEMS_MAX)
    elif kind == "int" and not isinstance(constant, bool):
        whole = int(max(-NUMBER_MAX, min(NUMBER_MAX, constant)))
        yield from (whole - 1, whole, whole + 1)
    elif kind == "double" and not isinstance(constant, bool):
        point = float(constant)
        yield from (math.nextafter(point, -math.inf), point, math.nextafter(point, math.inf))
    elif kind == "list" and isinstance(constant, int) and 0 <= constant <= ITEMS_MAX:
        yield from (["x.example"] * max(0, constant + by) for by in (-1, 0, 1))
