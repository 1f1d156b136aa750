"""Numbers that look like luck and are the same each time: what is tried of a policy stays so."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
_MASK = 2**64 - 1


class Chance:
    """A xorshift generator (Marsaglia 2003): no secrets are made of it."""

    def __init__(self, seed: str) -> None:
        self._state = int.from_bytes(seed.encode()[-8:].rjust(8, b"\1"), "big") | 1

    def below(self, bound: int) -> int:
        """Return a number from 0 to below the bound."""
        x = self._state
        x ^= x << 13 & _MASK
        x ^= x >> 7
        x ^= x << 17 & _MASK
        self._state = x
        return (x >> 11) % bound

    def one_of(self, some: Sequence[T]) -> T:
        """Return one of several."""
        return some[self.below(len(some))]
