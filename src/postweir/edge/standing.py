"""Where one connection stands in the counts: what it entered it leaves, and only once."""

from postweir.edge import gate
from postweir.edge.counts import Newcomer
from postweir.edge.gate import No
from postweir.edge.worker import Worker


def shunned(worker: Worker, peer: object, now: float) -> No | None:
    """Return why a connection is not even begun, or None.

    Who guesses comes thousands of times a second, and everything that a connection needs would be
    built for a 421. While nobody is shunned this costs nothing.
    """
    if not worker.guessing.shuns_any(now):
        return None
    client = gate.address(peer)
    if worker.directory.networks.owner(client):
        return None
    if not worker.guessing.shuns(gate.neighbourhood(client), now):
        return None
    worker.meters.turned_away.inc()
    worker.refused(gate.GUESSING.reason)
    return gate.GUESSING


class Standing:
    """The counts that one connection is on."""

    __slots__ = ("_client", "_connection", "_holder", "_inside", "_worker")

    def __init__(self, worker: Worker, connection: Newcomer) -> None:
        self._worker = worker
        self._connection: Newcomer | None = connection  # until it leaves: then no ring holds it
        self._client = self._holder = ""
        self._inside = False

    @property
    def holder(self) -> str:
        """For whom it counts: an account, or where it comes from."""
        return self._holder

    @property
    def is_newcomer(self) -> bool:
        """True while nobody knows whose it is."""
        return self._holder.startswith("?")

    def enter(self, client: str, now: float) -> No | None:
        """Get in, or return why not. A client that a network makes known is no newcomer."""
        worker, counts = self._worker, self._worker.counts
        self._client = gate.neighbourhood(client)
        account = worker.directory.networks.owner(client) or ""
        self._holder = gate.holder(account, self._client)
        no = gate.connect(
            worker.settings.edge,
            room=worker.room,
            connections=counts.connections,
            of_client=counts.of_client(self._client),
            of_holder=counts.holders.of(self._holder),
            share=worker.share,
            bytes_held=counts.bytes_held,
            stopping=worker.stopping,
        )
        assert self._connection is not None
        if no is None and not account:
            if counts.unknown.admits(most=worker.limits.unknown_max, now=now):
                counts.unknown.enter(self._connection, now)
            else:
                no = gate.UNKNOWN
        if no is not None:
            return no
        self._inside = True
        counts.enter(self._client, self._holder)
        return None

    def known_as(self, account: str) -> None:
        """It is this account's from now on."""
        if account == self._holder or not self._inside or self._connection is None:
            return
        counts = self._worker.counts
        counts.unknown.leave(self._connection)
        counts.becomes(self._holder, account)
        self._holder = account

    def shakes_hands(self, now: float) -> No | None:
        """TLS begins; or return why not now."""
        handshakes = self._worker.counts.handshakes
        assert self._connection is not None
        if not handshakes.admits(most=self._worker.limits.handshakes_max, now=now):
            return gate.HANDSHAKES
        handshakes.enter(self._connection, now)
        return None

    def agreed(self) -> None:
        """TLS stands."""
        if self._connection is not None:
            self._worker.counts.handshakes.leave(self._connection)

    def stay(self) -> No | None:
        """Return why it has to go, between two messages, or None."""
        worker = self._worker
        return gate.stay(
            worker.settings.edge,
            room=worker.room,
            connections=worker.counts.connections,
            of_holder=worker.counts.holders.of(self._holder),
            share=worker.share,
        )

    def leave(self) -> None:
        """It is gone, or has made room; harmless the second time."""
        connection, self._connection = self._connection, None
        if not self._inside or connection is None:
            return
        self._inside = False
        counts = self._worker.counts
        counts.unknown.leave(connection)
        counts.handshakes.leave(connection)
        counts.leave(self._client, self._holder)
