"""Max-min fair shares: who asks for little gets it, and who holds most gives way first."""

from collections.abc import Iterable


def level(held: Iterable[tuple[int, int]], capacity: int) -> int:
    """Return the largest share with which all fit: each gets what it holds, or this.

    `held` are pairs: how many, and how many hold that many. Where all fit, it is what is left
    over for one who would take it all.
    """
    left = capacity
    pairs = sorted(held)
    holders = sum(count for _, count in pairs)
    for size, count in pairs:
        if size * holders > left:
            return max(left // holders, 1)  # nobody's share is nothing
        left -= size * count
        holders -= count
    return max(left, pairs[-1][0] if pairs else 0, 1)


class Tally:
    """How many each one holds of a thing that is shared. Nothing is remembered of who holds none.

    A step costs the same however many there are: they are kept by how many they hold.
    """

    __slots__ = ("_held", "_with", "most", "total")

    def __init__(self) -> None:
        self.total = 0
        self.most = 0  # what the one who holds most holds
        self._held: dict[str, int] = {}
        self._with: dict[int, dict[str, None]] = {}  # who holds so many, in order

    def __len__(self) -> int:
        return len(self._held)

    def of(self, name: str) -> int:
        """Return how many this one holds."""
        return self._held.get(name, 0)

    def enter(self, name: str) -> None:
        """Count one in."""
        before = self._held.get(name, 0)
        self._move(name, before, before + 1)
        self.total += 1
        self.most = max(self.most, before + 1)

    def leave(self, name: str) -> None:
        """Count one out."""
        before = self._held[name]
        self._move(name, before, before - 1)
        self.total -= 1
        if before == self.most and before not in self._with:
            self.most -= 1

    def largest(self) -> str:
        """Return one of those who hold most; there must be one."""
        return next(iter(self._with[self.most]))

    def level(self, capacity: int) -> int:
        """Return the share above which one holds more than is fair; see `level`."""
        return level(((size, len(names)) for size, names in self._with.items()), capacity)

    def _move(self, name: str, before: int, after: int) -> None:
        if before:
            names = self._with[before]
            del names[name]
            if not names:
                del self._with[before]
        if after:
            self._held[name] = after
            self._with.setdefault(after, {})[name] = None
        else:
            del self._held[name]
