"""What the edge asks of the shards."""

from collections.abc import Set as AbstractSet
from typing import Protocol

from postweir.spool.ports import Accept, Refusal, Safe, Unsafe


class Shards(Protocol):
    """All shards as one edge worker sees them; spool.client on one host."""

    def reason(self) -> str:
        """Return "" when some shard accepts, else why none does: down, full, ..."""
        ...

    def free_bytes(self) -> int:
        """Return how much is free on the disk with the most room, of shards that accept."""
        ...

    def choose(self, avoid: AbstractSet[int] = frozenset()) -> int:
        """Return the number of a shard that accepts, of all but these. Raises Unknown: none."""
        ...

    async def accept(self, accept: Accept, *, shard: int | None = None) -> Safe | Unsafe:
        """Commit. Raises Unknown when the outcome cannot be known."""
        ...

    def refuse(self, refusal: Refusal) -> None:
        """Record a refusal; a hint."""
        ...
