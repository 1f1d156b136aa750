"""A message's way out, top to bottom: handed over, routed, queued at its site, sent, settled.

    take      recipients come from the shards (`spool.handing`), in hand until settled
    route     their domain's route is found, or nobody can go there
    queue     they wait at their site (`schedule`); connections open as the queue is worth them
    connect   a connection to the first host that answers, else all that wait is deferred
    send      one message's recipients at this site in one transaction, then the next
    settle    each recipient's reply is its outcome; the shard commits it

One task for each connection, none for a message. Whatever happens in it, every recipient that it
had taken is settled, for the worst as deferred: nobody stays in hand for ever.

The only mail that can be doubled is what a host may have had when we lost it: the content was
sent and no reply came. That is deferred, and logged as `delivery.possible_duplicate`.
"""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from postweir.delivery.contents import Contents, Unfit
from postweir.delivery.idle import Idle
from postweir.delivery.meters import Meters
from postweir.delivery.outcomes import outcome
from postweir.delivery.reach import Reacher
from postweir.delivery.route import Nowhere, Route, Router
from postweir.delivery.schedule import Schedule, Site
from postweir.delivery.session import Limits, Sent, Session, Unreached
from postweir.delivery.sources import Pools
from postweir.delivery.ways import Ways
from postweir.mail.address import domain_of
from postweir.mail.reply import Reply
from postweir.mail.smtp_client import Transaction
from postweir.runtime import clock
from postweir.runtime.log import Log
from postweir.runtime.settings import Delivery
from postweir.spool.handing import Handed
from postweir.spool.ports import Content, Settle
from postweir.spool.states import bucket_of

SHUT_S = 30.0  # for so long a site that cannot be reached is left alone at first
LOOK_S = 1.0  # how often what waits is looked at without any other reason
SLICE = 200  # recipients queued or settled at a stretch: about 10 ms
OUR_TROUBLE = Reply(451, "4.3.0", "Our own trouble; it is tried again")
HUNG_UP = Reply(451, "4.4.2", "The host hung up before it was asked anything")
QUIET = Reply(451, "4.4.1", "The host answers nothing, and many messages wait for it already")


class Hands(Protocol):
    """What a worker needs of `spool.handing.Handing`."""

    def settle(self, handed: Handed, settle: Settle) -> None:
        """Say what became of it."""
        ...

    def may_send(self, handed: Handed) -> bool:
        """True when what becomes of it can be recorded."""
        ...

    def hand_on(self, handed: Handed, site: str) -> None:
        """Give it to the worker whose site it is."""
        ...

    def is_mine(self, bucket: int) -> bool:
        """True when this worker owns the bucket."""
        ...


class Worker:
    """Delivers what it is handed."""

    def __init__(
        self,
        settings: Delivery,
        *,
        router: Router,
        hostname: str,
        context: ssl.SSLContext | None,
        own_ports: frozenset[int],
        connections_max: int,
        chance: Callable[[], float],
        meters: Meters,
        log: Log,
    ) -> None:
        self._reacher = Reacher(context=context, own_ports=own_ports, log=log)
        self._connections_max = connections_max
        self._chance, self._meters, self._log = chance, meters, log
        self._loop = asyncio.get_running_loop()
        self._hands: Hands | None = None
        self._schedule: Schedule[Handed] = Schedule(connections_per_site_max=1, shut_s=1.0)
        self._contents = Contents()
        self._ways = Ways(router)
        self._idle = Idle()
        # Those that want a connection when there may be one.
        self._hungry: dict[tuple[str, str], Site[Handed]] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._others: set[asyncio.Task[None]] = set()
        self._sending: dict[Session, tuple[asyncio.Task[Any], list[Handed]]] = {}
        self._stopping = False
        self.configure(settings, router, hostname)

    def configure(self, settings: Delivery, router: Router, hostname: str) -> None:
        """Go by these settings; what has begun goes on by the old."""
        self._settings = settings
        self._ways.use(router)
        self._pools = Pools(settings.pools, meters=self._meters, log=self._log)
        self._reacher.pools = self._pools
        self._reacher.hostname = hostname
        self._reacher.limits = Limits(settings.connect_s, settings.reply_s, settings.final_reply_s)
        self._reacher.want_tls = settings.tls == "opportunistic"
        self._schedule.connections_per_site_max = settings.connections_per_site_max
        # A site that is down is looked for again well before the first retry comes round.
        self._schedule.shut_s = min(SHUT_S, settings.retry_s[0] / 2)

    def begin(self, hands: Hands) -> None:
        """Deliver from now on, and settle there."""
        self._hands = hands
        self._spawn(self._others, self._look())

    async def drain(self, wait_s: float) -> None:
        """Begin nothing more; return when what is being sent has its replies, or after `wait_s`."""
        self._stopping = True
        busy = {task for task, _ in self._sending.values()}
        for task in (self._connections | self._others) - busy:
            task.cancel()
        if busy:
            await asyncio.wait(busy, timeout=wait_s)
        for session, (_, batch) in self._sending.items():
            if session.after_dot:
                for one in batch:
                    one.doubtful = True
                self._doubtful(session, batch, "stopped before the final reply")
        cut = [*self._connections, *self._others]
        for task in cut:
            task.cancel()
        await asyncio.gather(*cut, return_exceptions=True)

    # Take and route.

    def take(self, handed: list[Handed]) -> None:
        """Recipients are in hand: find their way."""
        if self._stopping:
            return
        now_s = self._loop.time()
        routed, unknown = self._ways.sort(handed, now_s)
        self._queue_all(routed, now_s)
        for key, domain in unknown:
            self._spawn(self._others, self._seek(key, domain))

    async def _seek(self, key: str, domain: str) -> None:
        """Find a route, for all that wait for it."""
        found: Route | Nowhere = Nowhere(OUR_TROUBLE, OUR_TROUBLE)
        try:
            found = await self._ways.find(domain)
        finally:
            waiting = self._ways.found(key, found, self._loop.time())
            if not self._stopping:
                self._spawn(self._others, self._queue_slices(waiting, found))

    async def _queue_slices(self, waiting: list[Handed], found: Route | Nowhere) -> None:
        for at in range(0, len(waiting), SLICE):
            routed = [(one, found) for one in waiting[at : at + SLICE]]
            self._queue_all(routed, self._loop.time())
            await asyncio.sleep(0)

    def _queue_all(self, routed: list[tuple[Handed, Route | Nowhere]], now_s: float) -> None:
        touched: dict[tuple[str, str], Site[Handed]] = {}
        for one, route in routed:
            site = self._queue(one, route, now_s)
            if site is not None:
                touched[site.key] = site
        for site in touched.values():
            self._staff(site)

    def _queue(self, one: Handed, found: Route | Nowhere, now_s: float) -> Site[Handed] | None:
        """Let it wait at its site; None when it does not come to that."""
        assert self._hands is not None
        if isinstance(found, Nowhere):
            self._settle(one, found.later if one.out.tries else found.first)
            return None
        if self._is_anothers(found, domain_of(one.out.address)):
            self._hands.hand_on(one, found.site)
            return None
        sources = self._pools.sources(one.content.pool, one.sender)
        site = self._schedule.site(found.site, sources)
        site.hops = found.hops
        shut = self._schedule.shut(site, now_s)
        if shut is not None:
            self._settle(one, shut, site=site)
            return None
        self._schedule.add(site, one)
        return site

    def _is_anothers(self, route: Route, domain: str) -> bool:
        """True when another worker's is the site, and not only by an answer that changes.

        What came to us by its site stays, whatever DNS says now: two workers that see different
        answers would hand it to each other for ever. And a hop of the operator's own is every
        worker's: it needs no one to go easy on it, and half of all mail would be moved.
        """
        assert self._hands is not None
        mine = self._hands.is_mine
        return not route.trusted and not mine(bucket_of(route.site)) and mine(bucket_of(domain))

    # Connect.

    def _staff(self, site: Site[Handed]) -> None:
        """Wake or open as many connections as what waits there is worth."""
        if self._stopping:
            return
        now_s = self._loop.time()
        if site.messages:
            self._schedule.asked(site, now_s)
            self._idle.wake(site, len(site.messages))
        for _ in range(self._schedule.openings(site, now_s)):
            if len(self._connections) >= self._connections_max:
                self._hungry[site.key] = site
                self._idle.dismiss_one()
                return
            site.opening += 1
            self._spawn(self._connections, self._connection(site))

    async def _connection(self, site: Site[Handed]) -> None:
        """One connection's life."""
        session = None
        try:
            session = await self._reach(site)
        finally:
            site.opening -= 1
        if session is None:
            return
        site.open += 1
        self._meters.connections.inc()
        try:
            self._schedule.greeted(site, self._loop.time())
            self._staff(site)
            await self._serve(site, session)
        finally:
            site.open -= 1
            self._meters.connections.dec()
            session.close()
            self._staff(site)

    async def _reach(self, site: Site[Handed]) -> Session | None:
        """Connect to the first host that answers; None when none does, and all are deferred."""
        try:
            return await self._reacher.reach(site.hops, site.sources)
        except Unreached as fault:
            self._unreached(site, fault.reply, fault.peer)
            return None
        except Exception:
            # Our own mistake: it is logged where this task ends, and nobody waits for it.
            self._unreached(site, OUR_TROUBLE, "")
            raise

    def _unreached(self, site: Site[Handed], reply: Reply, peer: str) -> None:
        self._meters.unreached.inc()
        waiting = self._schedule.unreached(site, reply, self._loop.time())
        self._settle_all(waiting, reply, site, peer)

    # Send.

    async def _serve(self, site: Site[Handed], session: Session) -> None:
        """Send what waits, one message after another, until there is no more or no more may be."""
        assert self._hands is not None
        while (
            session.usable
            and not self._stopping
            and session.transactions < self._settings.messages_per_connection_max
        ):
            batch = self._schedule.next(site)
            if batch and not self._hands.may_send(batch[0]):
                await self._give_back(batch)
            elif batch:
                await self._send(site, session, batch)
            elif self._hungry or not await self._idle.rest(site, session, self._settings.idle_s):
                return

    async def _give_back(self, batch: list[Handed]) -> None:
        """Its shard cannot record an outcome now: sent, it would be sent again."""
        assert self._hands is not None
        self._meters.unsent.inc(len(batch))
        for one in batch:
            self._hands.hand_on(one, domain_of(one.out.address))
        await asyncio.sleep(0)  # there may be thousands

    async def _send(self, site: Site[Handed], session: Session, batch: list[Handed]) -> None:
        """Send one message to these recipients, and settle each of them."""
        began_s = self._loop.time()
        reused = session.transactions > 0
        settled = False
        try:
            sent = await self._transact(session, batch)
            if sent is None:
                return
            settled = True
            if sent.unheard and reused and not sent.late:
                # It hung up while idle, or says 421 to that, and we had not noticed: nobody was
                # asked anything. On a new connection it counts.
                for one in batch:
                    self._schedule.add(site, one)
                return
            took_s = self._loop.time() - began_s
            for one, reply in zip(batch, sent.replies, strict=True):
                self._settle(one, reply, site=site, session=session, took_s=took_s)
            self._note(site, session, batch, sent, began_s)
        finally:
            if not settled:
                for one in batch:
                    if one.settle is None and not self._stopping:
                        self._settle(one, OUR_TROUBLE, site=site)

    async def _transact(self, session: Session, batch: list[Handed]) -> Sent | None:
        """Return what the host answered; None when the content is not fit to be sent."""
        content = batch[0].content
        try:
            letter = await self._contents.take(content)
        except (Unfit, OSError) as fault:
            self._unfit(content, str(fault))
            return None
        task = asyncio.current_task()
        assert task is not None
        self._sending[session] = (task, batch)
        try:
            if not session.usable:  # it hung up while we read
                return Sent((HUNG_UP,) * len(batch), lost=True, unheard=True)
            sent = await session.send(
                Transaction(
                    content.mail_from,
                    tuple(one.out.address for one in batch),
                    len(content.added) + content.length,
                    content.eight_bit,
                    letter,
                    letter.ascii,
                ),
                letter,
            )
        finally:
            del self._sending[session]
            self._contents.give_back(letter)
        if sent.unfit:
            self._unfit(content, sent.unfit)
        return sent

    def _unfit(self, content: Content, why: str) -> None:
        self._meters.unfit.inc()
        self._log.error("delivery.unfit", message=content.message, why=why)

    def _note(
        self, site: Site[Handed], session: Session, batch: list[Handed], sent: Sent, began_s: float
    ) -> None:
        """What else a transaction says: about doubles, and about the site."""
        if sent.after_dot:
            self._doubtful(session, batch, "lost before the final reply")
        now_s = self._loop.time()
        if not sent.lost:
            self._schedule.answered(site, now_s)
            self._staff(site)
            return
        if sent.unfit:
            return
        reply = sent.replies[-1]
        if sent.late:
            waiting = self._schedule.stalled(site, reply, now_s, since_s=began_s)
        else:
            waiting = self._schedule.ended(site, reply, now_s)
        self._settle_all(waiting, reply, site, str(session.hop))

    def _doubtful(self, session: Session, batch: list[Handed], why: str) -> None:
        """The host may have it, and it will be sent again."""
        self._meters.duplicates.inc(len(batch))
        self._log.warning("delivery.possible_duplicate", message=batch[0].out.message,
                          peer=str(session.hop), why=why)  # fmt: skip

    # Settle.

    def _settle(
        self,
        one: Handed,
        reply: Reply,
        *,
        site: Site[Handed] | None = None,
        session: Session | None = None,
        peer: str = "",
        took_s: float = 0.0,
    ) -> None:
        """Judge the reply, tell the shard, and write it down."""
        assert self._hands is not None
        settle = outcome(
            one, reply, waits_s=self._settings.retry_s, now_s=self._loop.time(),
            at_us=clock.wall_us(), jitter=self._chance(),
            source=session.source if session else "",
            peer=str(session.hop) if session else peer,
            tls=session.tls if session else "", site=site.name if site else "",
        )  # fmt: skip
        self._hands.settle(one, settle)
        self._meters.settled(settle.outcome, took_s if session else None)
        self._log.info(
            "delivery.attempt", message=one.out.message, recipient=one.out.recipient,
            address=one.out.address, outcome=settle.outcome, reply=str(settle.reply),
            peer=settle.peer, tls=settle.tls, took_s=round(took_s, 3),
        )  # fmt: skip

    def _settle_all(
        self, waiting: list[Handed], reply: Reply, site: Site[Handed], peer: str = ""
    ) -> None:
        """Settle many alike, a slice at a time: a hand of 100,000 would hold the loop for long."""
        for one in waiting[:SLICE]:
            self._settle(one, reply, site=site, peer=peer)
        rest = waiting[SLICE:]
        if rest:
            self._spawn(self._others, self._settle_rest(rest, reply, site, peer))

    async def _settle_rest(
        self, rest: list[Handed], reply: Reply, site: Site[Handed], peer: str
    ) -> None:
        for at in range(0, len(rest), SLICE):
            await asyncio.sleep(0)
            for one in rest[at : at + SLICE]:
                self._settle(one, reply, site=site, peer=peer)

    # Keep going.

    async def _look(self) -> None:
        """Once a second, see that nothing waits for what will not come by itself."""
        while True:
            await asyncio.sleep(LOOK_S)
            now_s = self._loop.time()
            for site in self._schedule.waiting():
                shut = self._schedule.shut(site, now_s)
                if shut is not None and not site.open and not site.opening:
                    waiting = self._schedule.unreached(site, shut, now_s)
                    self._settle_all(waiting, shut, site)
                    continue
                self._settle_all(self._schedule.shed(site, now_s), QUIET, site)
                self._staff(site)

    def _spawn(self, kept: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        kept.add(task)
        task.add_done_callback(lambda done: self._ended(kept, done))

    def _ended(self, kept: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
        kept.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._log.error("delivery.failed", fault=repr(fault), exc_info=fault)
        if kept is self._connections and self._hungry:
            self._staff(
                self._hungry.pop(next(iter(self._hungry)))
            )  # there is room for one more connection
