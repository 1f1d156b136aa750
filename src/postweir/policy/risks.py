"""Which parts of a condition could fail while it runs: none may.

An error of the engine is no answer, and CEL hides some: `error || true` is true, `error && false`
is false. So what can fail at all is refused when a policy is checked. In our part of CEL that is:

* `/` and `%` of whole numbers, by zero;
* `+`, `-`, `*` and a minus of whole numbers, beyond 64 bits;
* an item of a list by its number (`dialect` takes none).

Facts have bounds and a policy's own limits are constants, so each whole number has a range here,
and most arithmetic is seen to be safe.
A divisor that is a fact is safe behind a question that excludes zero: `b > 0 && a / b > 2`.
Fractions never fail: what they are divided by zero is infinite, or no number, and equal to nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from postweir.policy.checked import as_bytes, as_int, pairs
from postweir.policy.facts import ITEMS_MAX, NUMBER_MAX
from postweir.policy.schema import Declared

SIZE_MAX = 4096  # of a text or list: facts have fewer, and no condition is longer
_DIVIDES = {"divide_int64", "modulo_int64"}
_GROWS = {"add_int64", "subtract_int64", "multiply_int64", "negate_int64"}

Range = tuple[int, int]
_FACT: Range = (-NUMBER_MAX, NUMBER_MAX)
_ANY: Range = (-(2**63), 2**63 - 1)

_FLIPPED = {"_<_": "_>_", "_<=_": "_>=_", "_>_": "_<_", "_>=_": "_<=_", "_==_": "_==_",
            "_!=_": "_!=_"}  # fmt: skip
_OPPOSITE = {"_<_": "_>=_", "_<=_": "_>_", "_>_": "_<=_", "_>=_": "_<_", "_==_": "_!=_",
             "_!=_": "_==_"}  # fmt: skip


def ranges_of(facts: Iterable[Declared], limits: Mapping[str, int]) -> dict[str, Range]:
    """Return what each whole number of these facts can be; a policy's own limit is what it is."""
    bounds = {fact.name: (-fact.most, fact.most) for fact in facts if fact.type == "int"}
    return bounds | {f"limit.{name}": (number, number) for name, number in limits.items()}


class Risks:
    """The walk over one compiled condition that looks for what could fail."""

    def __init__(
        self,
        overloads: Mapping[int, list[str]],
        fault: Callable[[int, str], None],
        ranges: Mapping[str, Range],
    ) -> None:
        self._overloads, self._fault, self._ranges = overloads, fault, ranges
        self._items: dict[str, Range] = {}  # of what loops name, while they are looked into

    def look(self, data: bytes, apart: frozenset[str] = frozenset()) -> Range:
        """Return the range of an expression that is a whole number, and note what could fail.

        `apart` are facts that are not zero where it stands.
        """
        expression = dict(pairs(data))
        if 3 in expression:
            return _constant(as_bytes(expression[3]))
        if 4 in expression or 5 in expression:
            name = _name(data)
            return self._items.get(name) or self._ranges.get(name, _FACT)
        if 6 in expression:
            return self._call(as_int(expression.get(2, 0)), as_bytes(expression[6]), apart)
        if 9 in expression:
            return self._loop(as_bytes(expression[9]), apart)
        ranges = [self.look(item, apart) for item in _listed(as_bytes(expression.get(7, b"")))]
        return _both(ranges)

    def _call(self, node: int, data: bytes, apart: frozenset[str]) -> Range:
        name, args = _said(data)
        if name in ("_&&_", "_||_", "_?_:_") and len(args) >= 2:
            self.look(args[0], apart)
            yes, no = (apart | _apart(args[0], true) for true in (True, False))
            if name != "_?_:_":
                self.look(args[1], yes if name == "_&&_" else no)
                return _FACT
            return _both([self.look(args[1], yes), self.look(args[2], no)])
        ranges = [self.look(arg, apart) for arg in args]
        if name == "size":
            return (0, SIZE_MAX)
        overloads = set(self._overloads.get(node, ()))
        if overloads & _DIVIDES:
            return self._divided(node, ranges, args[1], apart)
        if overloads & _GROWS:
            return self._grown(node, name, ranges)
        return _FACT

    def _divided(self, node: int, ranges: list[Range], by: bytes, apart: frozenset[str]) -> Range:
        low, high = ranges[1]
        if low <= 0 <= high and _name(by) not in apart:
            fact = _name(by) or "..."
            do = f"ask first, as in {fact} != 0 && ... / {fact}"
            self._fault(node, f"a division that may be by zero is not taken: {do}")
        most = max(map(abs, ranges[0]))
        return self._bounded(node, (-most, most))

    def _grown(self, node: int, name: str, ranges: list[Range]) -> Range:
        (a, b), (c, d) = ranges[0], ranges[-1]
        if name == "-_":
            return self._bounded(node, (-b, -a))
        if name == "_+_":
            return self._bounded(node, (a + c, b + d))
        if name == "_-_":
            return self._bounded(node, (a - d, b - c))
        products = (a * c, a * d, b * c, b * d)
        return self._bounded(node, (min(products), max(products)))

    def _bounded(self, node: int, found: Range) -> Range:
        if _ANY[0] <= found[0] and found[1] <= _ANY[1]:
            return found
        do = "write double(...) of each, and 2.0 for 2"
        self._fault(node, f"a number that may pass 64 bits is not taken: {do}")
        return _FACT

    def _loop(self, data: bytes, apart: frozenset[str]) -> Range:
        parts = {key: as_bytes(value) for key, value in pairs(data) if isinstance(value, bytes)}
        over = self.look(parts.get(2, b""), apart)
        self.look(parts.get(4, b""), apart)
        before = self._items
        item, sum_ = parts.get(1, b"").decode(), parts.get(3, b"").decode()
        self._items = {**before, item: over, sum_: (0, ITEMS_MAX)}
        inside = apart - {item, sum_}
        for key in (5, 6, 7):
            self.look(parts.get(key, b""), inside)
        self._items = before
        return _FACT


def _apart(data: bytes, true: bool) -> frozenset[str]:
    """Return the facts that are not zero when a question comes to this answer."""
    expression = dict(pairs(data))
    if 6 not in expression:
        return frozenset()
    name, args = _said(as_bytes(expression[6]))
    if name == "!_":
        return _apart(args[0], not true)
    if name == ("_&&_" if true else "_||_"):
        return _apart(args[0], true) | _apart(args[1], true)
    if name not in _FLIPPED:
        return frozenset()
    if not _name(args[0]):
        name, args = _FLIPPED[name], args[::-1]
    constant = dict(pairs(args[1])).get(3)
    if not _name(args[0]) or constant is None or 3 not in dict(pairs(constant)):
        return frozenset()
    low, high = _constant(as_bytes(constant))
    assert low == high
    return frozenset({_name(args[0])}) if _excludes_zero(name, low, true) else frozenset()


def _excludes_zero(name: str, number: int, true: bool) -> bool:
    match name if true else _OPPOSITE[name]:
        case "_>_":
            return number >= 0
        case "_>=_":
            return number > 0
        case "_<_":
            return number <= 0
        case "_<=_":
            return number < 0
        case "_==_":
            return number != 0
    return number == 0


def _said(call: bytes) -> tuple[str, list[bytes]]:
    """Return the function of a call, and what it is given: what it is said of first."""
    name, args = "", []
    for key, value in pairs(call):
        if key == 2:
            name = as_bytes(value).decode()
        elif key in (1, 3):
            args.append(as_bytes(value))
    return name, args


def _name(data: bytes) -> str:
    """Return the name of a fact, however it is compiled; "" for anything else."""
    expression = dict(pairs(data))
    if 4 in expression:
        return as_bytes(dict(pairs(expression[4])).get(1, b"")).decode()
    if 5 in expression:
        select = dict(pairs(expression[5]))
        room = _name(as_bytes(select.get(1, b"")))
        return f"{room}.{as_bytes(select.get(2, b'')).decode()}" if room else ""
    return ""


def _listed(data: bytes) -> Iterator[bytes]:
    for key, value in pairs(data):
        if key == 1:
            yield as_bytes(value)


def _constant(data: bytes) -> Range:
    number = dict(pairs(data)).get(3)  # int64
    if not isinstance(number, int):
        return _FACT
    number -= (number >> 63) << 64
    return number, number


def _both(ranges: list[Range]) -> Range:
    if not ranges:
        return _FACT
    return min(low for low, _ in ranges), max(high for _, high in ranges)
