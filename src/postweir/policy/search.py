"""Looks for facts that make conditions true or false: a bounded search, with no luck in it.

Each condition is a goal. A goal is broken up until only questions about single facts are left,
which narrow what those may be (`domains`), and questions between facts, which are tried out at the
end. What contradicts itself on the way is dropped. So there are three outcomes: facts; surely none,
when everything was tried and each way ended in a contradiction; and none found, which says nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from postweir.policy.choose import PREDICATES, Chooser, Goal, Known, Unable, value
from postweir.policy.domains import FLIPPED, OPPOSITE, Asked, List, Text
from postweir.policy.facts import Facts
from postweir.policy.schema import Declared
from postweir.policy.tree import Call, Const, Items, Loop, Name, Node, below, names, put

STEPS_MAX = 3000  # of one search: some 20 ms
_SIZES = (0, 1, 2, 3, 64)  # of a list in a calculation
_SIDES = {"!=": ("<", ">")}  # a list keeps one range of sizes: another size is less, or more
_ITEM = Name("#item")  # what `x in LIST` calls an item

Way = tuple[tuple[Goal, ...], Known]


@dataclass(slots=True)
class Found:
    """What a search came to."""

    facts: list[Facts] = field(default_factory=list)
    surely_none: bool = False


class Search:
    """Looks for facts of one schema, with the policy's own."""

    def __init__(self, declared: Mapping[str, Declared]) -> None:
        self._chooser = Chooser(declared)
        self._doubt = False  # something was dropped that may have been possible

    def find(self, goals: Sequence[Goal], count: int) -> Found:
        """Return up to `count` facts for which all these goals are met."""
        self._doubt = False
        found, steps = Found(), 0
        waiting: list[Way] = [(tuple(goals), Known())]
        while waiting and steps < STEPS_MAX and len(found.facts) < count:
            steps += 1
            left, known = waiting.pop()
            if left:
                ways = self._step(left[0], known)
                waiting += [((*new, *left[1:]), after) for new, after in reversed(ways)]
            elif short := [name for name, one in known.lists.items() if len(one.items) < one.low]:
                waiting += self._grown(short[0], known)
            else:
                made = list(self._chooser.chosen(known))
                found.facts += [facts for facts in made if facts not in found.facts]
                self._doubt |= not made
        found.surely_none = not (found.facts or waiting or self._doubt)
        del found.facts[count:]
        return found

    def _step(self, goal: Goal, known: Known) -> list[Way]:
        """Return the ways to meet a goal: what is left to meet, and what is known then."""
        node, truth = goal
        if isinstance(node, Const):
            return [((), known)] if node.value is truth else []
        if isinstance(node, Name):
            if known.bools.get(node.name, truth) is not truth:
                return []
            return [((), replace(known, bools={**known.bools, node.name: truth}))]
        if isinstance(node, Loop):
            return self._loop(node, truth, known)
        if isinstance(node, Items):
            return self._unsure()
        if node.op == "!":
            return [(((node.args[0], not truth),), known)]
        if node.op in ("&&", "||"):
            return _joined(node, truth, known)
        if node.op == "?:":
            condition, yes, no = node.args
            return [
                (((condition, True), (yes, truth)), known),
                (((condition, False), (no, truth)), known),
            ]
        choice = _choice(node)
        if choice is not None:
            condition, yes, no = choice.args
            return [
                (((condition, True), (put(node, choice, yes), truth)), known),
                (((condition, False), (put(node, choice, no), truth)), known),
            ]
        return self._question(node, truth, known)

    def _question(self, node: Call, truth: bool, known: Known) -> list[Way]:
        """Narrow what facts may be by the answer to one question."""
        if node.op == "in":
            return self._in(node, truth, known)
        if node.op in OPPOSITE:
            left, right = map(_folded, node.args)
            op = node.op if truth else OPPOSITE[node.op]
            if isinstance(left, Const) and not isinstance(right, Const):
                left, op, right = right, FLIPPED[op], left
            return self._compared(left, op, right, known)
        if node.op in PREDICATES and len(node.args) == 2:
            text, part = node.args
            if isinstance(text, Name) and isinstance(part, Const) and isinstance(part.value, str):
                return _with_text(text.name, (node.op, part.value, truth), known)
        return self._between(node, truth, known)

    def _compared(self, left: Node, op: str, right: Node, known: Known) -> list[Way]:
        kind = self._chooser.kind(left)
        if kind == "bool":
            same = op == "=="
            return [(((left, one), (right, one is same)), known) for one in (True, False)]
        if kind == "list":
            return self._lists(left, op, right, known)
        constant = right.value if isinstance(right, Const) else None
        if constant is None or isinstance(left, Const):
            return self._between(Call(op, (left, right)), True, known)
        if isinstance(left, Name) and isinstance(constant, str):
            asked = ("==", constant, op == "==") if op in ("==", "!=") else (op, constant, True)
            return _with_text(left.name, asked, known)
        if isinstance(left, Name) and not isinstance(constant, str):
            before = known.numbers.get(left.name) or self._chooser.number(left.name)
            after = before.narrowed(op, constant)
            return [] if after is None else [
                ((), replace(known, numbers={**known.numbers, left.name: after}))
            ]  # fmt: skip
        if isinstance(left, Call) and left.op == "size" and isinstance(left.args[0], Name):
            of, size = left.args[0].name, int(constant)
            if self._chooser.kind(left.args[0]) == "string":
                return _with_text(of, (f"size{op}", size, True), known)
            each = (known.lists.get(of, List()).sized(one, size) for one in _SIDES.get(op, (op,)))
            return [
                ((), replace(known, lists={**known.lists, of: sized}))
                for sized in each if sized is not None
            ]  # fmt: skip
        return self._between(Call(op, (left, right)), True, known)

    def _lists(self, left: Node, op: str, right: Node, known: Known) -> list[Way]:
        if not (isinstance(right, Items) and op in ("==", "!=")):
            return self._unsure()
        size = Call("size", (left,))
        count = Const(len(right.args))
        same = [
            Call("==", (Call("[]", (left, Const(at))), item)) for at, item in enumerate(right.args)
        ]
        if op == "==":
            return [(((Call("==", (size, count)), True), *((one, True) for one in same)), known)]
        return [
            (((Call("!=", (size, count)), True),), known),
            *((((Call("==", (size, count)), True), (one, False)), known) for one in same),
        ]

    def _in(self, node: Call, truth: bool, known: Known) -> list[Way]:
        item, among = node.args
        if isinstance(among, Items):
            either = tuple(Call("==", (item, one)) for one in among.args)
            return [((goal,), known) for goal in ((one, True) for one in either)] if truth else [
                (tuple((one, False) for one in either), known)
            ]  # fmt: skip
        return self._loop(
            Loop("exists", among, _ITEM.name, Call("==", (_ITEM, item))), truth, known
        )

    def _loop(self, loop: Loop, truth: bool, known: Known) -> list[Way]:
        if isinstance(loop.over, Items):
            return _written(loop, [put(loop.body, Name(loop.item), one) for one in loop.over.args],
                            truth, known)  # fmt: skip
        if not isinstance(loop.over, Name):
            return self._unsure()
        of = loop.over.name
        if loop.kind == "exists_one":
            return self._one(loop, of, truth, known)
        wanted = loop.kind == "exists"  # of one item, or of none
        if truth is not wanted:
            return [self._each(of, loop.item, loop.body, not wanted, known)]
        ways = [
            ((*new, (_about(loop, after.lists[of].items[-1]), wanted)), after)
            for new, after in self._grown(of, known)
        ]
        there = known.lists[of].items if of in known.lists else ()
        return ways + [(((_about(loop, item), wanted),), known) for item in there]

    def _one(self, loop: Loop, of: str, truth: bool, known: Known) -> list[Way]:
        if not truth:
            twice = [
                (new + more, last)
                for new, after in self._grown(of, known)
                for more, last in self._grown(of, after)
            ]
            none = self._each(of, loop.item, loop.body, False, known)
            return [none] + [
                ((*((_about(loop, item), True)
                    for item in last.lists[of].items[-2:]), *new), last)
                for new, last in twice
            ]  # fmt: skip
        self._doubt = True  # whether two equal items are one is not gone into
        ways = []
        for new, after in self._grown(of, known):
            item = Name(after.lists[of].items[-1])
            other = Call("||", (Call("==", (Name(loop.item), item)), Call("!", (loop.body,))))
            more, last = self._each(of, loop.item, other, True, after)
            ways.append(((*new, (put(loop.body, Name(loop.item), item), True), *more), last))
        return ways

    def _each(self, of: str, item: str, body: Node, truth: bool, known: Known) -> Way:
        """Have something hold of all items of a list, those to come too."""
        there = known.lists.get(of, List())
        after = replace(
            known, each=(*known.each, (of, item, body, truth)), lists={**known.lists, of: there}
        )
        return tuple((put(body, Name(item), Name(one)), truth) for one in there.items), after

    def _grown(self, of: str, known: Known) -> list[Way]:
        """Give a list one more item; what holds of each holds of it."""
        one = known.lists.get(of, List())
        item = f"{of}#{len(one.items)}"
        grown = one.grown(item)
        if grown is None:
            return []
        after = replace(
            known,
            lists={**known.lists, of: grown},
            texts={**known.texts, item: Text()},
        )
        goals = tuple(
            (put(body, Name(name), Name(item)), truth)
            for list_, name, body, truth in known.each
            if list_ == of
        )
        return [(goals, after)]

    def _between(self, node: Call, truth: bool, known: Known) -> list[Way]:
        """Keep a question about several facts for the end, once it is about nothing else."""
        for inner in _inside(node):
            if not isinstance(inner, Call):
                continue
            of = inner.args[0] if inner.args else None
            if not isinstance(of, Name) or self._chooser.kind(of) != "list":
                continue
            if inner.op == "[]" and isinstance(inner.args[1], Const):
                return self._indexed(node, truth, inner, int(inner.args[1].value), known)
            if inner.op == "size":
                self._doubt = True
                return [
                    (((Call("==", (inner, Const(size))), True),
                      (put(node, inner, Const(size)), truth)), known)
                    for size in _SIZES
                ]  # fmt: skip
        if names(node):
            return [((), replace(known, between=(*known.between, (node, truth))))]
        try:
            return [((), known)] if value(node, {}) is truth else []
        except Unable:
            return self._unsure()

    def _indexed(self, node: Call, truth: bool, inner: Call, at: int, known: Known) -> list[Way]:
        of = inner.args[0]
        assert isinstance(of, Name)
        there = known.lists.get(of.name, List())
        if 0 <= at < len(there.items):
            return [(((put(node, inner, Name(there.items[at])), truth),), known)]
        return [
            ((*new, (node, truth)), after)
            for new, after in (self._grown(of.name, known) if at >= 0 else ())
        ]

    def _unsure(self) -> list[Way]:
        self._doubt = True
        return []


def _about(loop: Loop, item: str) -> Node:
    """Return what a loop asks of this item."""
    return put(loop.body, Name(loop.item), Name(item))


def _joined(node: Call, truth: bool, known: Known) -> list[Way]:
    """All of them, the simple ones first, so that contradictions come early; or any one."""
    if (node.op == "&&") is truth:
        return [(tuple(sorted(((arg, truth) for arg in node.args), key=_forks)), known)]
    return [(((arg, truth),), known) for arg in node.args]


def _forks(goal: Goal) -> int:
    node, truth = goal
    if isinstance(node, Call) and node.op == "!":
        return _forks((node.args[0], not truth))
    if isinstance(node, Call) and node.op in ("&&", "||"):
        return len(node.args) if (node.op == "||") is truth else 1
    return isinstance(node, Loop) or (isinstance(node, Call) and node.op in ("in", "?:"))


def _written(loop: Loop, bodies: list[Node], truth: bool, known: Known) -> list[Way]:
    """Go over a list that stands in the condition."""
    if loop.kind != "exists_one":
        op = "||" if loop.kind == "exists" else "&&"
        if not bodies:
            return [((), known)] if truth is (op == "&&") else []
        return _joined(Call(op, tuple(bodies)), truth, known)
    places = range(len(bodies))
    if truth:
        return [(tuple((body, at == one) for at, body in enumerate(bodies)), known)
                for one in places]  # fmt: skip
    twice = [((bodies[a], True), (bodies[b], True)) for a in places for b in places if a < b]
    return [(tuple((body, False) for body in bodies), known), *((two, known) for two in twice)]


def _with_text(name: str, asked: Asked, known: Known) -> list[Way]:
    after = known.texts.get(name, Text()).narrowed(*asked)
    return [] if after is None else [((), replace(known, texts={**known.texts, name: after}))]


def _inside(node: Node) -> Iterator[Node]:
    yield node
    for arg in below(node):
        yield from _inside(arg)


def _choice(node: Node) -> Call | None:
    """Return the first `a ? b : c` within a question."""
    for inner in _inside(node):
        if isinstance(inner, Call) and inner.op == "?:":
            return inner
    return None


def _folded(node: Node) -> Node:
    """Return a calculation with constants only as what it comes to."""
    if isinstance(node, Call) and not names(node):
        try:
            return Const(value(node, {}))
        except Unable:
            return node
    return node
