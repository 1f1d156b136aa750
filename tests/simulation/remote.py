"""The world outside: domains and their hosts, what these answer, and what they were given."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tests.simulation.loop import Loop, World

from postweir.delivery.route import Hop, Nowhere, Route
from postweir.delivery.session import Sent, Unreached
from postweir.mail.reply import Reply

TAKEN = Reply(250, "2.0.0", "Taken")
LATER = Reply(451, "4.2.0", "Come again")
NEVER = Reply(550, "5.1.1", "No such user")
CUT = Reply(451, "4.4.2", "The host hung up")
LATE = Reply(451, "4.4.1", "No answer in time")
AWAY = Reply(451, "4.4.1", "Nobody there")

OnTaken = Callable[["Outside", str, str], None]


class Outside:
    """All hosts. What an address does stands in its local part: `kind.more@domain`."""

    def __init__(self, world: World, sites: dict[str, str]) -> None:
        self.world, self.sites = world, sites  # domain: site
        self.away: set[str] = set()  # sites that cannot be reached
        self.good = False  # the storm is over: nobody hangs up any more
        self.slow_s = 0.02
        self.asked: Counter[str] = Counter()
        self.taken: list[tuple[float, str, str]] = []  # (when, message, address)
        self.on_asked: Callable[[], None] = lambda: None
        self.on_taken: Callable[[str, str], None] = lambda _, __: None
        self.on_doubt: Callable[[str, str], None] = lambda _, __: None

    def answer(self, address: str) -> Reply:
        """What this recipient's host says to this attempt."""
        kind = address.split(".", 1)[0]
        self.asked[address] += 1
        self.on_asked()
        if kind == "bad":
            return NEVER
        if kind == "late" and self.asked[address] <= 2:
            return LATER
        return LATER if kind == "never" else TAKEN

    def take(self, message: str, address: str) -> None:
        """It is theirs from here on."""
        self.taken.append((self.world.now_s, message, address))
        self.on_taken(message, address)


class SimRouter:
    """Says where a domain's mail goes, after a while."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    def key(self, domain: str) -> str:
        return domain

    async def find(self, domain: str) -> Route | Nowhere:
        await asyncio.sleep(self._outside.world.chance.random() * 0.02)
        site = self._outside.sites.get(domain, domain)
        return Route(site, (Hop(f"mx.{site}", "192.0.2.1", 25),))


class SimReacher:
    """Opens connections to hosts that are there."""

    limits: Any = None
    want_tls = False
    hostname = ""

    def __init__(self, outside: Outside, loop: Loop) -> None:
        self._outside, self._loop = outside, loop

    async def reach(self, hops: Sequence[Hop], sources: Any = None) -> Any:
        chance = self._outside.world.chance
        await asyncio.sleep(self._outside.slow_s * chance.random())
        if hops[0].host.removeprefix("mx.") in self._outside.away:
            raise Unreached(AWAY, peer=str(hops[0]))
        return SimSession(self._outside, hops[0], self._loop)


class SimSession:
    """One connection, as `delivery.session.Session` is to the worker."""

    def __init__(self, outside: Outside, hop: Hop, loop: Loop) -> None:
        self.hop, self.source, self.tls = hop, "192.0.2.9", ""
        self.transactions = 0
        self.usable, self.after_dot = True, False
        self._outside, self._loop = outside, loop
        self._parked: Any = None

    async def send(self, transaction: Any, letter: Any) -> Sent:
        """A host that has the last dot has the message, whether or not we hear of it."""
        outside, chance = self._outside, self._outside.world.chance
        self.transactions += 1
        message = letter_name(letter)
        await asyncio.sleep(outside.slow_s * chance.random())
        site = self.hop.host.removeprefix("mx.")
        luck = 1.0 if outside.good else chance.random()
        if site in outside.away or luck < 0.04:
            return self._lost(transaction, CUT)
        replies = tuple(outside.answer(address) for address in transaction.recipients)
        taken = [a for a, r in zip(transaction.recipients, replies, strict=True) if r.accepted]
        self.after_dot = bool(taken)
        await asyncio.sleep(outside.slow_s * chance.random())
        for address in taken:
            outside.take(message, address)
        await asyncio.sleep(outside.slow_s * chance.random())
        if taken and luck < 0.08:
            for address in taken:
                outside.on_doubt(message, address)
            return self._lost(transaction, CUT if luck < 0.06 else LATE, after_dot=True)
        self.after_dot = False
        return Sent(replies)

    def _lost(self, transaction: Any, reply: Reply, *, after_dot: bool = False) -> Sent:
        self.usable = False
        replies = (reply,) * len(transaction.recipients)
        return Sent(replies, after_dot=after_dot, lost=True, unheard=not after_dot,
                    late=reply is LATE)  # fmt: skip

    async def park(self, seconds: float) -> bool:
        self._parked = self._loop.create_future()
        timer = self._loop.call_later(seconds, self.unpark, False)
        try:
            return bool(await self._parked)
        finally:
            timer.cancel()
            self._parked = None

    def unpark(self, work: bool) -> None:
        if self._parked is not None and not self._parked.done():
            self._parked.set_result(work)

    def close(self) -> None:
        self.usable = False


def letter_name(letter: Any) -> str:
    """Return the message's name: in the line we add, or in the header of a bounce."""
    text = b"".join(letter)
    if text.startswith(b"X-Name: "):
        return text[8:24].decode()
    return text.partition(b"Message-ID: <")[2][:16].decode()
