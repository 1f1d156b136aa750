"""What a fact may still be, while facts are looked for that make conditions true or false."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from postweir.policy.schema import ITEMS_MAX, NUMBER_MAX, TEXT_CHARS_MAX

FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
PLAIN = ("a.example", "x", "b.example.org", "a@b.example")  # texts where any will do
VALUES_MAX = 12  # tried of one fact


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number, or a fraction, between two bounds, some points left out."""

    low: int | float
    high: int | float
    not_: frozenset[int | float] = frozenset()

    @property
    def whole(self) -> bool:
        """True for an int, false for a double."""
        return isinstance(self.low, int)

    def narrowed(self, op: str, value: int | float) -> "Number | None":
        """Return what is left when `op value` holds; None: nothing is."""
        low, high, not_ = self.low, self.high, self.not_
        if op == "!=":
            not_ |= {value}
        if op in ("==", ">="):
            low = max(low, value)
        if op in ("==", "<="):
            high = min(high, value)
        if op == ">":
            low = max(low, self._next(value, 1))
        if op == "<":
            high = min(high, self._next(value, -1))
        while low in not_ and low <= high:
            low = self._next(low, 1)
        while high in not_ and low <= high:
            high = self._next(high, -1)
        return Number(low, high, not_) if low <= high else None

    def values(self) -> list[int | float]:
        """Return what to try, what is most ordinary first: bounds, and beside them."""
        zero: int | float = 0 if self.whole else 0.0
        step = 1 if self.whole else 0.001
        around = [self.low, self.high, self.low + step, self.high - step]
        if self.whole:
            around += [(self.low + self.high) // 2, 1, 2, 10, 100, 1000, 10_000, 10**6]
        else:
            around += [(self.low + self.high) / 2, 1.0, 10.0]
        near = sorted(around[:2], key=abs)
        found = dict.fromkeys([zero, *near, *around])
        good = [v for v in found if self.low <= v <= self.high and v not in self.not_]
        return good[:VALUES_MAX]

    def _next(self, value: int | float, way: int) -> int | float:
        return value + way if self.whole else math.nextafter(value, math.inf * way)


def number(kind: str, unit: str) -> Number:
    """Return what a number fact can be at all."""
    if kind == "int":
        return Number(-NUMBER_MAX, NUMBER_MAX)
    return Number(0.0, 1.0) if unit == "0 to 1" else Number(-1e6, 1e6)


Asked = tuple[str, str | int, bool]  # operator, what it is compared with, and whether it holds


@dataclass(frozen=True, slots=True)
class Text:
    """A text of which some questions are answered."""

    asked: tuple[Asked, ...] = ()

    def narrowed(self, op: str, value: str | int, holds: bool) -> "Text | None":
        """Return what is left when this holds, or does not; None: surely nothing is."""
        if (op, value, holds) in self.asked:
            return self
        if (op, value, not holds) in self.asked:
            return None
        left = replace(self, asked=(*self.asked, (op, value, holds)))
        return None if left._surely_none() else left

    def values(self, also: Sequence[str] = ()) -> list[str]:
        """Return what to try; nothing: no text was found that answers so."""
        found = dict.fromkeys([*self._made(), *also])
        return [text for text in found if self._answers(text)][:VALUES_MAX]

    def _only(self) -> str | None:
        same = [value for op, value, holds in self.asked if op == "==" and holds]
        return str(same[0]) if same else None

    def _surely_none(self) -> bool:
        only = self._only()
        if only is not None:
            return not self._answers(only)
        if self._size() is None:
            return True
        starts = self._with("startsWith")
        ends = self._with("endsWith")
        return any(not a.startswith(b) for a in starts for b in starts if len(a) >= len(b)) or any(
            not a.endswith(b) for a in ends for b in ends if len(a) >= len(b)
        )

    def _size(self) -> Number | None:
        """Return how long it may be; None: there is no such text."""
        left: Number | None = Number(0, TEXT_CHARS_MAX)
        for op, value, holds in self.asked:
            if left is not None and op.startswith("size") and holds:
                left = left.narrowed(op.removeprefix("size"), int(value))
        return left

    def _with(self, *ops: str) -> list[str]:
        return [str(value) for op, value, holds in self.asked if op in ops and holds]

    def _answers(self, text: str) -> bool:
        return len(text) <= TEXT_CHARS_MAX and all(
            text_is(text, op, value) is holds for op, value, holds in self.asked
        )

    def _made(self) -> Iterator[str]:
        """Yield texts put together of what is asked for."""
        only = self._only()
        if only is not None:
            yield only
            return
        start = max(self._with("startsWith"), key=len, default="")
        end = max(self._with("endsWith"), key=len, default="")
        inner = [text for text in self._with("contains") if text not in start + end]
        middle = "".join(inner)
        yield start if start.endswith(end) and not inner else ""
        sizes = [int(value) for op, value, _ in self.asked if op.startswith("size")]
        shortest = len(start + middle + end)
        longer = [max(0, size + more - shortest) for size in sizes for more in (0, 1, -1)]
        for filling in ("", *PLAIN, *("x" * chars for chars in longer)):
            yield start + middle + filling + end
            yield filling + start + middle + end
        for _, value, _ in self.asked:
            if isinstance(value, str):
                yield from (value, value + "x", "x" + value, value[:-1])


def text_is(text: str, op: str, value: str | int) -> bool:
    """Answer a question about a text as the engine would: sizes in characters, order by them."""
    if isinstance(value, int):
        return compare(len(text), op.removeprefix("size"), value)
    if op == "startsWith":
        return text.startswith(value)
    if op == "endsWith":
        return text.endswith(value)
    if op == "contains":
        return value in text
    return compare(text.encode("utf-8", "replace"), op, value.encode("utf-8", "replace"))


def compare(left: object, op: str, right: object) -> bool:
    """Compare two values of one type."""
    if op in ("==", "!="):
        return (left == right) is (op == "==")
    a, b = (right, left) if op in (">", ">=") else (left, right)
    return bool(a <= b if op in ("<=", ">=") else a < b)  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class List:
    """A list fact: items that it must have, and how many it may have."""

    items: tuple[str, ...] = ()  # names of its items, each a text of its own
    low: int = 0
    high: int = ITEMS_MAX

    def sized(self, op: str, size: int) -> "List | None":
        """Return what is left when its size is so; None: nothing is."""
        left = Number(self.low, self.high).narrowed(op, size)
        if left is None or len(self.items) > left.high:
            return None
        return replace(self, low=int(left.low), high=int(left.high))

    def grown(self, item: str) -> "List | None":
        """Return it with one more item; None: there is no room."""
        if len(self.items) >= self.high:
            return None
        return replace(self, items=(*self.items, item))
