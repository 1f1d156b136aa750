"""Connecting to a site: its hosts in order, those that lately did not answer last.

Each attempt comes to every host: all but the last have only a share of the time, so that a first
host that takes connections and says nothing never keeps mail from a second that works.
"""

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Sequence

from postweir.delivery.route import Hop
from postweir.delivery.session import Limits, Session, Unreached, open_session
from postweir.delivery.sources import ANY, Pools, Sources
from postweir.mail.reply import Reply
from postweir.runtime.log import Log
from postweir.runtime.net import is_ours

CONNECT_WAITS_MAX = 3  # connect_s, this often, for all addresses but the last together
SHARE_S_MIN = 5.0  # for one address at least: three tries of TCP, or the pause before a greeting
DEAD_S = 60.0  # an address that did not answer is tried last for so long
DEAD_MAX = 10_000


class Reacher:
    """Opens connections, and remembers where that failed."""

    def __init__(
        self,
        *,
        context: ssl.SSLContext | None,
        own_ports: frozenset[int],
        log: Log,
    ) -> None:
        self._context, self._own_ports = context, own_ports
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._dead: OrderedDict[str, float] = OrderedDict()  # address: until when it is tried last
        self.limits = Limits(30.0, 300.0, 600.0)
        self.want_tls = True
        self.hostname = "localhost"  # what we say in EHLO
        self.pools: Pools | None = None

    async def reach(self, hops: Sequence[Hop], sources: Sources = ANY) -> Session:
        """Return a connection to the first host that answers. Raises `Unreached`, transient."""
        hops = [hop for hop in hops if sources.facing(hop.address)] or hops
        until_s = self._loop.time() + self.limits.connect_s * CONNECT_WAITS_MAX
        reply, peer = Reply(451, "4.4.1", "No host to try"), ""
        for left, hop in zip(range(len(hops), 0, -1), self._in_order(hops), strict=True):
            share_s = max((until_s - self._loop.time()) / left, SHARE_S_MIN)
            try:
                session = await self._open_within(hop, sources, share_s if left > 1 else None)
            except Unreached as fault:
                reply, peer = fault.reply, str(hop)
                self._note_dead(hop)
                self._log.info("delivery.unreached", peer=peer, reply=str(reply))
            else:
                self._dead.pop(hop.address, None)
                return session
        # A refusal at the greeting speaks for this moment, not for the recipient (RFC 7504 has
        # hosts say 554 and mean "not here"): what ends a recipient is a reply to its own RCPT.
        if not reply.transient:
            reply = Reply(451, "4.4.1", f"The host takes no mail: {reply}")
        raise Unreached(reply, peer=peer)

    async def _open_within(self, hop: Hop, sources: Sources, share_s: float | None) -> Session:
        try:
            async with asyncio.timeout(share_s):
                return await self._open(hop, sources)
        except TimeoutError:
            raise Unreached(Reply(451, "4.4.1", f"{hop} does not answer in time")) from None

    async def _open(self, hop: Hop, sources: Sources) -> Session:
        context = self._context if self.want_tls else None
        try:
            session = await self._begin(hop, sources, context)
        except Unreached as fault:
            if not fault.tls_failed:
                raise
            self._log.info("delivery.tls_failed", peer=str(hop), why=fault.reply.text)
            session = await self._begin(hop, sources, None)
        # Who comes from one address of ours meets another of ours there.
        if hop.port in self._own_ports and (
            session.source == hop.address or (sources.addresses and is_ours(hop.address))
        ):
            session.close()
            raise Unreached(Reply(451, "4.4.6", f"{hop} is ourselves"))
        return session

    async def _begin(self, hop: Hop, sources: Sources, context: ssl.SSLContext | None) -> Session:
        local = None
        if self.pools is not None and sources.addresses:
            local = self.pools.bind(sources, hop.address)
        return await open_session(
            hop, self.hostname, context=context, limits=self.limits, local=local
        )

    def _in_order(self, hops: Sequence[Hop]) -> list[Hop]:
        now_s = self._loop.time()
        return sorted(hops, key=lambda hop: self._dead.get(hop.address, 0.0) > now_s)

    def _note_dead(self, hop: Hop) -> None:
        self._dead[hop.address] = self._loop.time() + DEAD_S
        self._dead.move_to_end(hop.address)
        if len(self._dead) > DEAD_MAX:
            self._dead.popitem(last=False)
