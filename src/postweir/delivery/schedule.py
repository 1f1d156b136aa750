"""Who goes next, at each site: fair between senders, then oldest; and how many connections.

Pure: the clock comes in as an argument. What is scheduled is one message's recipients at one
site, which leave in one transaction. A site that cannot be reached is shut for a while: what
waits there is deferred at once, and one probe, not twenty connections, finds out when it is back.
"""

import heapq
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from postweir.delivery.route import Hop
from postweir.mail.reply import Reply

RECIPIENTS_MAX = 100  # a transaction; RFC 5321 4.5.3.1.8: what every server must take
FIRST_MAX = 4  # connections to a site that has answered none yet
PER_CONNECTION = 5  # messages waiting for one more connection to be worth its handshake
SHUT_S_MAX = 60.0  # a site that came back is found within a minute
GROW_S = 5.0  # after a refused further connection, be content with those there are
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
    """One destination: what waits for it and how it fares."""

    name: str
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
    grow_at_s: float = 0.0
    heard_at_s: float = 0.0  # when it last answered anything

    @property
    def unused(self) -> bool:
        return not self.messages and not self.open and not self.opening


class Schedule(Generic[E]):
    """All sites of one delivery worker."""

    def __init__(self, *, connections_per_site_max: int, shut_s: float) -> None:
        self.connections_per_site_max = connections_per_site_max
        self.shut_s = shut_s
        self._sites: OrderedDict[str, Site[E]] = OrderedDict()
        self._numbers = 0

    def site(self, name: str) -> Site[E]:
        """Return a site by name."""
        found = self._sites.get(name)
        if found is None:
            found = self._sites[name] = Site(name)
            if len(self._sites) > SITES_MAX:
                self._forget_one()
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
        worth = min(-(-waiting // PER_CONNECTION), self.connections_per_site_max)
        if not site.open:
            worth = min(worth, FIRST_MAX)
        return max(0, worth - there)

    def heard(self, site: Site[E], now_s: float) -> None:
        """The site answered something: it is there."""
        site.heard_at_s = now_s
        site.failures = 0
        site.shut_until_s = 0.0
        site.shut_reply = None

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
        return [] if site.heard_at_s > since_s else self._shut(site, reply, now_s)

    def _shut(self, site: Site[E], reply: Reply, now_s: float) -> list[E]:
        if now_s >= site.shut_until_s:  # else others of the same round have failed before
            site.failures += 1
            wait_s = self.shut_s * 2.0 ** min(site.failures - 1, 10)
            site.shut_until_s = now_s + min(wait_s, self.shut_s * 4, SHUT_S_MAX)
        site.shut_reply = reply
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
        for name, site in self._sites.items():
            if site.unused:
                del self._sites[name]
                return
