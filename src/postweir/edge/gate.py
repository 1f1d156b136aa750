"""Limits that hold before anyone is known: who gets in when the house is full."""

import ipaddress

from postweir.mail.reply import Reply
from postweir.runtime.settings import Edge

# RFC 3463: 4.3.2 is "system not accepting network messages". Said at once: an overloaded server
# that answers slowly is what Postweir exists not to be.
FULL = Reply(421, "4.3.2", "Too many connections, try again later")
CROWDED = Reply(421, "4.3.2", "Too many connections from your address")
BUSY = Reply(421, "4.3.2", "Busy, try again later")
STOPPING = Reply(421, "4.3.2", "Restarting, try again")


def admit(
    limits: Edge, *, room: int, connections: int, of_client: int, bytes_held: int, stopping: bool
) -> Reply | None:
    """Return how to turn a new connection away, or None: it may stay."""
    if stopping:
        return STOPPING
    if connections >= min(limits.connections_max, room):
        return FULL
    if of_client >= limits.connections_per_client_max:
        return CROWDED
    if bytes_held >= limits.memory_bytes_max:
        return BUSY
    return None


def begin(limits: Edge, *, bytes_held: int) -> Reply | None:
    """Return how to turn a message away before its first byte, or None."""
    return BUSY if bytes_held >= limits.memory_bytes_max else None


def go_on(limits: Edge, *, bytes_held: int) -> Reply | None:
    """Return how to end a message whose header is still coming, or None.

    Later than `begin`, so that what has begun mostly ends well; but a header alone cannot go to
    disk, and ten thousand of them at once are more memory than there is.
    """
    return BUSY if bytes_held >= 2 * limits.memory_bytes_max else None


def neighbourhood(client: str) -> str:
    """Return what counts as one client: an IPv4 address, or an IPv6 /64, which is one customer."""
    if ":" not in client:
        return client
    return str(ipaddress.ip_network(f"{client}/64", strict=False))


class Counts:
    """How many are here, and how many bytes of messages are in memory."""

    def __init__(self) -> None:
        self.connections = 0
        self.bytes_held = 0
        self._by_client: dict[str, int] = {}

    def of_client(self, client: str) -> int:
        """Return how many connections this neighbourhood has."""
        return self._by_client.get(client, 0)

    def enter(self, client: str) -> None:
        """Count a connection in."""
        self.connections += 1
        self._by_client[client] = self._by_client.get(client, 0) + 1

    def leave(self, client: str) -> None:
        """Count a connection out."""
        self.connections -= 1
        left = self._by_client[client] - 1
        if left:
            self._by_client[client] = left
        else:
            del self._by_client[client]
        assert self.connections >= 0
