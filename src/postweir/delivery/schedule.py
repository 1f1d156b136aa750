"""Who goes next, at each site: fair between senders, then oldest; and how many connections.

Pure: the clock comes in as an argument. What is scheduled is one message's recipients at one
site, which leave in one transaction. A site that cannot be reached is shut for a while: what
waits there is deferred at once, and one probe, not twenty connections, finds out when it is back.
From then on it gets one connection more for each message it answers, so that the herd of an
outage does not fell it again.

What is in hand is shared by all sites, so none may fill it with mail that does not move: where
nothing is answered for a while, all but a few of those that wait are deferred.
"""

import heapq
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from postweir.delivery.route import Hop
from postweir.delivery.sources import ANY, Sources
from postweir.mail.reply import Reply

RECIPIENTS_MAX = 100  # a transaction; RFC 5321 4.5.3.1.8: what every server must take
FIRST_MAX = 4  # connections to a site that has answered nothing yet
PER_CONNECTION = 5  # messages waiting for one more connection to be worth its handshake
SHUT_S_MAX = 60.0  # a site that came back is found within a minute
GROW_S = 5.0  # after a refused further connection, be content with those there are
LOST_MAX = 5  # connections in a row that the host ended itself: it wants none of us now
QUIET_S = 20.0  # without any answer; an honest host that is slow has several connections
QUIET_WAITING_MAX = 20  # messages that may wait where nothing is answered
SITES_MAX = 20_000  # remembered ones with nothing to do


class Entry(Protocol):
    """What the schedule must know of a recipient in hand."""

    @property
    def sender(self) -> str:
        """Whom to be fair between."""
        ...

    @property
    def message(self) -> tuple[int, str]:
        """The message, and its shard: the same name may be in two."""
        ...

    @property
    def accepted_at_us(self) -> int:
        """When we took it."""
        ...


E = TypeVar("E", bound=Entry)


@dataclass(slots=True, eq=False)
class Site(Generic[E]):
    """One destination, as one of our addresses sees it: what waits for it and how it fares."""

    name: str
    sources: Sources = ANY  # what its connections come from
    hops: Sequence[Hop] = ()  # as the last route said
    senders: OrderedDict[str, list[tuple[int, int, tuple[int, str]]]] = field(
        default_factory=OrderedDict
    )  # each sender's messages, a heap by age; the first sender is next
    messages: dict[tuple[int, str], list[E]] = field(default_factory=dict)
    opening: int = 0  # connections on their way
    open: int = 0  # connections there are
    idle: int = 0  # of these: with nothing to do
    shut_until_s: float = 0.0
    shut_reply: Reply | None = None
    failures: int = 0  # in a row
    lost: int = 0  # connections in a row that it ended with a message unanswered
    room: int = FIRST_MAX  # connections it may have: grows with what it answers
    grow_at_s: float = 0.0
    answered_at_s: float = 0.0  # when a message last had its answer
    quiet_since_s: float = 0.0  # when it was last heard of, or first asked

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.sources.name

    @property
    def busy(self) -> int:
        return self.open + self.opening - self.idle

    @property
    def unused(self) -> bool:
        return not self.messages and not self.open and not self.opening


class Schedule(Generic[E]):
    """All sites of one delivery worker."""

    def __init__(self, *, connections_per_site_max: int, shut_s: float) -> None:
        self.connections_per_site_max = connections_per_site_max
        self.shut_s = shut_s
        self._sites: OrderedDict[tuple[str, str], Site[E]] = OrderedDict()
        self._numbers = 0

    def site(self, name: str, sources: Sources = ANY) -> Site[E]:
        """Return a site by name, and by what mail leaves by."""
        found = self._sites.get((name, sources.name))
        if found is None:
            found = self._sites[name, sources.name] = Site(name)
            if len(self._sites) > SITES_MAX:
                self._forget_one()
        found.sources = sources
        return found

    def add(self, site: Site[E], entry: E) -> None:
        """Let a recipient wait at its site."""
        together = site.messages.get(entry.message)
        if together is not None:
            together.append(entry)
            return
        site.messages[entry.message] = [entry]
        self._numbers += 1
        heap = site.senders.setdefault(entry.sender, [])
        heapq.heappush(heap, (entry.accepted_at_us, self._numbers, entry.message))

    def next(self, site: Site[E]) -> list[E]:
        """Return the recipients that go next, all of one message; [] when none waits."""
        if not site.senders:
            return []
        sender, heap = next(iter(site.senders.items()))
        together = site.messages[heap[0][2]]
        batch = together[:RECIPIENTS_MAX]
        del together[:RECIPIENTS_MAX]
        if not together:
            del site.messages[heapq.heappop(heap)[2]]
        if heap:
            site.senders.move_to_end(sender)
        else:
            del site.senders[sender]
        return batch

    def openings(self, site: Site[E], now_s: float) -> int:
        """Return how many more connections what waits is worth now."""
        waiting = len(site.messages)
        there = site.open + site.opening
        if not waiting or site.idle >= waiting:
            return 0
        if site.failures:
            return 0 if there or now_s < site.shut_until_s else 1  # the probe
        if there and now_s < site.grow_at_s:
            return 0
        worth = min(-(-waiting // PER_CONNECTION), site.room, self.connections_per_site_max)
        return max(0, worth - there)

    def asked(self, site: Site[E], now_s: float) -> None:
        """It gets something to do: if it had nothing, its silence begins now."""
        if not site.busy:
            site.quiet_since_s = now_s

    def greeted(self, site: Site[E], now_s: float) -> None:
        """A connection was made: the site is there, whether or not it answers more than that."""
        site.quiet_since_s = now_s
        site.shut_until_s = 0.0
        site.shut_reply = None

    def answered(self, site: Site[E], now_s: float) -> None:
        """A message was taken or refused, and the connection lives: the site works."""
        self.greeted(site, now_s)
        site.answered_at_s = now_s
        site.failures = site.lost = 0
        site.room = min(site.room + 1, self.connections_per_site_max)

    def ended(self, site: Site[E], reply: Reply, now_s: float) -> list[E]:
        """The host ended a connection in mid-message; return all that is to be deferred for that.

        Once is an accident, or a limit of its own for one connection. Again and again, with
        nothing answered in between, it says that it wants no mail from us now.
        """
        site.quiet_since_s = now_s
        site.lost += 1
        site.room = max(1, site.room // 2)
        site.grow_at_s = now_s + GROW_S
        return self._shut(site, reply, now_s) if site.lost >= LOST_MAX else []

    def unreached(self, site: Site[E], reply: Reply, now_s: float) -> list[E]:
        """A connection could not be made; return all that is to be deferred for that.

        While others are open, the site only wants no more of them.
        """
        if site.open:
            site.grow_at_s = now_s + GROW_S
            return []
        return self._shut(site, reply, now_s)

    def stalled(self, site: Site[E], reply: Reply, now_s: float, *, since_s: float) -> list[E]:
        """A connection gave no answer since then; return all that is to be deferred for that.

        While others are answered, it was that connection's own trouble.
        """
        return [] if site.answered_at_s > since_s else self._shut(site, reply, now_s)

    def shed(self, site: Site[E], now_s: float) -> list[E]:
        """Return what is to be deferred because nothing moves here: all but those longest here."""
        if not site.busy or now_s - site.quiet_since_s < QUIET_S:
            return []
        if len(site.messages) <= QUIET_WAITING_MAX:
            return []
        kept = sum(len(site.messages[name]) for name in list(site.messages)[:QUIET_WAITING_MAX])
        waiting = self._clear(site)
        for entry in waiting[:kept]:
            self.add(site, entry)
        return waiting[kept:]

    def _shut(self, site: Site[E], reply: Reply, now_s: float) -> list[E]:
        if now_s >= site.shut_until_s:  # else others of the same round have failed before
            site.failures += 1
            wait_s = self.shut_s * 2.0 ** min(site.failures - 1, 10)
            site.shut_until_s = now_s + min(wait_s, self.shut_s * 4, SHUT_S_MAX)
        site.shut_reply = reply
        site.room, site.lost = 1, 0
        return self._clear(site)

    def _clear(self, site: Site[E]) -> list[E]:
        """Let nothing wait there; return what did, those longest here first."""
        waiting = [entry for together in site.messages.values() for entry in together]
        site.messages.clear()
        site.senders.clear()
        return waiting

    def shut(self, site: Site[E], now_s: float) -> Reply | None:
        """Return why the site is not even tried now; None when it may be."""
        return site.shut_reply if now_s < site.shut_until_s else None

    def waiting(self) -> Sequence[Site[E]]:
        """Return the sites where something waits."""
        return [site for site in self._sites.values() if site.messages]

    def _forget_one(self) -> None:
        """Forget the oldest site with nothing to do."""
        for key, site in self._sites.items():
            if site.unused:
                del self._sites[key]
                return
