"""What the edge asks of the shards."""

from typing import Protocol

from postweir.spool.ports import Accept, Refusal, Safe, Unsafe


class Shards(Protocol):
    """All shards as one edge worker sees them; spool.client on one host."""

    def reason(self) -> str:
        """Return "" when some shard accepts, else why none does: down, full, ..."""
        ...

    def choose(self) -> int:
        """Return the number of a shard that accepts. Raises Unknown when none does."""
        ...

    async def accept(self, accept: Accept, *, shard: int | None = None) -> Safe | Unsafe:
        """Commit. Raises Unknown when the outcome cannot be known."""
        ...

    def refuse(self, refusal: Refusal) -> None:
        """Record a refusal; a hint."""
        ...
