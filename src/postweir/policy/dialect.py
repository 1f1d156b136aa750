"""What a condition may say: the part of CEL whose cost and meaning we can vouch for.

The engine checks names and types; this looks at what it compiled (`cel.expr.CheckedExpr`, walked
as protobuf: no generated code, no further package) and refuses the rest:

* regular expressions: compiled anew at each evaluation, 96 of 109 µs;
* joining of texts and lists, and what makes lists or maps: memory without bound;
* conversions, times and types: they fail at run time, and a failing rule is no rule;
* numbers that may be divided by zero or pass 64 bits (`risks`);
* more than two loops in one another, or more work than a message may cost.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from postweir.policy.checked import as_bytes, as_int, pairs
from postweir.policy.evaluation import RuleFault
from postweir.policy.facts import ITEMS_MAX
from postweir.policy.risks import Range, Risks

NESTING_MAX = 2
NODES_MAX = 400
COST_MAX = 5000  # of one rule in nodes visited: about 250 µs
COST_TOTAL_MAX = 20_000  # of all rules: about 1 ms, should all of them run to their end
DEPTH_MAX = 250  # of the tree; the engine's own parser stops at 32 in most ways

_ANY: frozenset[str] = frozenset()
_FUNCTIONS: Mapping[str, frozenset[str]] = {  # and which overloads of them; none means any
    **dict.fromkeys(("_&&_", "_||_", "!_", "_?_:_", "@not_strictly_false"), _ANY),
    **dict.fromkeys(("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"), _ANY),
    **dict.fromkeys(("@in", "size", "contains", "startsWith", "endsWith"), _ANY),
    "_+_": frozenset({"add_int64", "add_double"}),
    "_-_": frozenset({"subtract_int64", "subtract_double"}),
    "_*_": frozenset({"multiply_int64", "multiply_double"}),
    "_/_": frozenset({"divide_int64", "divide_double"}),
    "_%_": frozenset({"modulo_int64"}),
    "-_": frozenset({"negate_int64", "negate_double"}),
    "double": frozenset({"int64_to_double"}),
}
_INSTEAD = {
    "matches": "name the regular expression in a [[pattern]], and ask for pattern.ID",
    "_[_]": 'no list is sure to have so many: write LIST.exists(x, x == "...")',
    "_+_": "numbers can be added; compare texts one by one",
}

_WRITTEN = {"_[_]": "an item by its number"}


@dataclass(slots=True)
class Looked:
    """What a compiled condition amounts to."""

    cost: int = 0
    faults: list[RuleFault] = field(default_factory=list)


class _Tree:
    """The walk over one compiled condition."""

    def __init__(self, rule: str, text: str, checked: bytes, ranges: Mapping[str, Range]) -> None:
        self._rule, self._text, self._ranges = rule, text, ranges
        found = dict(pairs(dict(pairs(checked))[2]))  # Any.value
        self._expression = as_bytes(found.get(4, b""))
        self._overloads: dict[int, list[str]] = {}
        for number, entry in pairs(dict(pairs(checked))[2]):
            if number == 2:  # reference_map
                pair = dict(pairs(as_bytes(entry)))
                ids = [
                    as_bytes(value).decode()
                    for key, value in pairs(as_bytes(pair.get(2, b"")))
                    if key == 3
                ]
                self._overloads[as_int(pair.get(1, 0))] = ids
        self._positions = _positions(as_bytes(found.get(5, b"")))
        self._nodes = 0
        self.looked = Looked()

    def walk(self) -> Looked:
        self.looked.cost = self._cost(self._expression, 0, 0)
        if not self.looked.faults:  # else it may be too deep to be walked again
            Risks(self._overloads, self._fault, self._ranges).look(self._expression)
        if self._nodes > NODES_MAX:
            self._fault(0, f"has {self._nodes} nodes, {NODES_MAX} are taken: split the rule")
        if self.looked.cost > COST_MAX:
            self._fault(0, f"may cost {self.looked.cost} steps, {COST_MAX} are taken")
        return self.looked

    def _fault(self, node: int, what: str) -> None:
        before = self._text[: self._positions.get(node, 0)]
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        fault = RuleFault(self._rule, line, column, what)
        if fault not in self.looked.faults:
            self.looked.faults.append(fault)

    def _cost(self, data: bytes, depth: int, loops: int) -> int:
        """Return how many nodes are visited at worst, and note what is not taken."""
        self._nodes += 1
        expression = dict(pairs(data))
        node = as_int(expression.get(2, 0))
        if depth > DEPTH_MAX:
            self._fault(node, "is nested too deep")
            return 1
        cost = 1
        if 5 in expression:  # select
            if as_int(dict(pairs(as_bytes(expression[5]))).get(3, 0)):
                self._fault(node, "has() is not taken: every fact is always there")
            cost += sum(self._cost(as_bytes(v), depth + 1, loops)
                        for k, v in pairs(as_bytes(expression[5])) if k == 1)  # fmt: skip
        elif 6 in expression:
            cost += self._call(node, as_bytes(expression[6]), depth, loops)
        elif 7 in expression:  # list
            cost += sum(self._cost(as_bytes(v), depth + 1, loops)
                        for k, v in pairs(as_bytes(expression[7])) if k == 1)  # fmt: skip
        elif 8 in expression:
            self._fault(node, "maps are not taken: use facts as they are")
        elif 9 in expression:
            cost += self._loop(node, as_bytes(expression[9]), depth, loops)
        return cost

    def _call(self, node: int, data: bytes, depth: int, loops: int) -> int:
        name = as_bytes(dict(pairs(data)).get(2, b"")).decode()
        allowed = _FUNCTIONS.get(name)
        overloads = self._overloads.get(node, [])
        if allowed is None or (allowed and not allowed.issuperset(overloads)):
            do = _INSTEAD.get(name, "compare facts as they are")
            self._fault(node, f"{_WRITTEN.get(name, name.strip('_@'))} is not taken here: {do}")
        cost = sum(self._cost(as_bytes(v), depth + 1, loops) for k, v in pairs(data) if k in (1, 3))
        return cost + (ITEMS_MAX if name == "@in" else 0)

    def _loop(self, node: int, data: bytes, depth: int, loops: int) -> int:
        parts = dict(pairs(data))
        start = dict(pairs(as_bytes(parts.get(4, b""))))
        if 7 in start:  # it gathers a list: map or filter
            self._fault(node, "this loop is not taken: only exists, all and exists_one may loop")
        if loops + 1 > NESTING_MAX:
            self._fault(node, f"more than {NESTING_MAX} loops in one another")
            return 1
        once = self._cost(as_bytes(parts.get(2, b"")), depth + 1, loops)
        each = sum(
            self._cost(as_bytes(parts[key]), depth + 1, loops + 1) for key in (5, 6) if key in parts
        )
        return once + each * _length(as_bytes(parts.get(2, b"")))


def look(rule: str, text: str, checked: bytes, ranges: Mapping[str, Range]) -> Looked:
    """Return the cost and the faults of a compiled condition, whose facts have these ranges."""
    looked = _Tree(rule, text, checked, ranges).walk()
    if _says_has(text):  # the engine takes has(a.b) for the value of a fact named a.b
        looked.faults.append(
            RuleFault(rule, 1, 1, "has() is not taken: every fact is always there")
        )
    return looked


def named(checked: bytes) -> set[str]:
    """Return what a compiled condition names: facts, and what is none (loop items, operators)."""
    expression = dict(pairs(checked))[2]  # Any.value
    references = (dict(pairs(entry)).get(2, b"") for key, entry in pairs(expression) if key == 2)
    return {as_bytes(dict(pairs(each)).get(1, b"")).decode() for each in references}


def _says_has(text: str) -> bool:
    bare = "".join(_outside_quotes(text).split())
    at = bare.find("has(")
    while at >= 0:
        if not at or not (bare[at - 1].isalnum() or bare[at - 1] in "_."):
            return True
        at = bare.find("has(", at + 1)
    return False


def _outside_quotes(text: str) -> str:
    kept, quote, escaped = [], "", False
    for c in text:
        if quote:
            if escaped:
                escaped = False
            elif c == "\\":
                escaped = True
            elif c == quote:
                quote = ""
        elif c in "\"'":
            quote = c
        else:
            kept.append(c)
    return "".join(kept)


def _length(data: bytes) -> int:
    """Return how many items a loop goes over at most: a written list's, or a fact's bound."""
    written = dict(pairs(data)).get(7)
    if written is None:
        return ITEMS_MAX
    return sum(1 for key, _ in pairs(as_bytes(written)) if key == 1)


def _positions(source: bytes) -> dict[int, int]:
    """Return where in the text each node stands (SourceInfo.positions)."""
    entries = [dict(pairs(as_bytes(entry))) for key, entry in pairs(source) if key == 4]
    return {as_int(entry.get(1, 0)): as_int(entry.get(2, 0)) for entry in entries}
