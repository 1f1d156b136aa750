"""What this room asks of storage."""

from typing import Protocol

from postweir.identity.sender import Directory


class Tables(Protocol):
    """The operator's tables, read; called in a thread, never by an event loop."""

    def directory(self, newer_than: int) -> Directory | None:
        """Return the picture now, or None when nothing changed since `newer_than`."""
        ...
