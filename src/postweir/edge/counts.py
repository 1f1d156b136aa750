"""What one worker has taken on: connections, and the bytes of messages in memory and on disk."""

from typing import Protocol

from postweir.edge.share import Tally

GRACE_S = 2.0  # a client that means it has logged in by then; who has not makes room for others


class Newcomer(Protocol):
    """A connection that may have to make room."""

    def make_room(self) -> None:
        """Leave; it is off every count when this returns."""
        ...


class Anteroom:
    """Connections that have yet to show something: only so many, and the oldest makes room.

    Turning the new one away instead would let whoever fills it keep everybody out for as long as
    a deadline lasts.
    """

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since: dict[Newcomer, float] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._since)

    def admits(self, *, most: int, now: float) -> bool:
        """True when there is room for one more, or the oldest had its time and has gone."""
        while len(self._since) >= most:
            oldest, since = next(iter(self._since.items()))
            if now - since < GRACE_S:
                return False
            oldest.make_room()
            assert oldest not in self._since
        return True

    def enter(self, newcomer: Newcomer, now: float) -> None:
        """Count it in."""
        self._since[newcomer] = now

    def leave(self, newcomer: Newcomer) -> None:
        """It has shown what was asked, or is gone; harmless when it was not here."""
        self._since.pop(newcomer, None)


class Counts:
    """Everything that entered, and has not left."""

    def __init__(self) -> None:
        self.clients = Tally()  # connections, by neighbourhood
        self.holders = Tally()  # the same connections, by account; see `gate.holder`
        self.unknown = Anteroom()  # who has not logged in
        self.handshakes = Anteroom()  # TLS that is not agreed on yet
        self.bytes_held = 0  # of messages, in memory
        self.bytes_claimed = 0  # of messages under way, that the disk will have to hold
        self._bytes_of: dict[str, int] = {}

    @property
    def connections(self) -> int:
        """All of them."""
        return self.clients.total

    def of_client(self, client: str) -> int:
        """Return how many connections this neighbourhood has."""
        return self.clients.of(client)

    def bytes_of(self, account: str) -> int:
        """Return how many bytes in memory are this account's."""
        return self._bytes_of.get(account, 0)

    def enter(self, client: str, holder: str) -> None:
        """Count a connection in."""
        self.clients.enter(client)
        self.holders.enter(holder)

    def leave(self, client: str, holder: str) -> None:
        """Count a connection out."""
        self.clients.leave(client)
        self.holders.leave(holder)

    def becomes(self, before: str, after: str) -> None:
        """A connection counts for another holder from now on."""
        self.holders.leave(before)
        self.holders.enter(after)

    def hold(self, account: str, size: int) -> None:
        """So many bytes more, or fewer, of this account are in memory."""
        self.bytes_held += size
        left = self._bytes_of.get(account, 0) + size
        if left:
            self._bytes_of[account] = left
        else:
            self._bytes_of.pop(account, None)
        assert left >= 0
