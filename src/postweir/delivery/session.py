"""One connection to one host: `mail.smtp_client` on a socket, with a deadline for every wait.

One timer serves a connection for its whole life: it wakes when the deadline of the time it was
set has passed, and sleeps on when that has moved. Nothing here decides what a reply means for a
recipient; that the worker does.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from postweir.delivery.contents import Letter, Unfit
from postweir.delivery.route import Hop
from postweir.mail.reply import Reply
from postweir.mail.smtp_client import (
    ClientSession,
    Done,
    GoAhead,
    Lost,
    Ready,
    Replied,
    Stage,
    TlsNow,
    Transaction,
)
from postweir.runtime.net import tls_name

ENVELOPE_WAITS_MAX = 3  # reply_s, this often, for all of MAIL, RCPT and DATA: no tarpit for hours
WRITE_BYTES_MAX = 128 * 1024  # lying in the socket unsent, before we wait for the peer to read
CONTENT_BYTES_S_MIN = 32 * 1024  # a peer that reads more slowly than this for long is left


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait for what, in seconds (RFC 5321 4.5.3.2)."""

    connect_s: float
    reply_s: float
    final_reply_s: float


class Unreached(Exception):
    """No usable connection to this host: `reply` is its own, or ours (4.4.1, 4.4.2)."""

    def __init__(self, reply: Reply, *, peer: str = "", tls_failed: bool = False) -> None:
        super().__init__(str(reply))
        self.reply, self.peer = reply, peer
        self.tls_failed = tls_failed


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one transaction."""

    replies: Sequence[Reply]  # one a recipient, in order
    after_dot: bool = False  # the connection ended when the host may already have had it
    lost: bool = False  # the connection ended in it
    unheard: bool = False  # it ended before the host answered anything but 421
    late: bool = False  # it ended because the host let a deadline pass
    unfit: str = ""  # we ended it: what is wrong with the message


Telling = Ready | TlsNow | Done | Lost
CLOSING = 421  # RFC 5321 3.8: about the connection, not about what was asked


class Session(asyncio.Protocol):
    """A connection, from its opening to its end. One transaction at a time."""

    def __init__(self, hop: Hop, hostname: str, *, want_tls: bool, limits: Limits) -> None:
        self.hop = hop
        self.source = ""  # our address
        self.tls = ""
        self.transactions = 0  # begun
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._smtp = ClientSession(hostname, want_tls=want_tls)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0  # 0: none
        self._envelope_until = 0.0
        self._content_until = 0.0
        self._parked: asyncio.Future[bool] | None = None
        self._event: asyncio.Future[Telling] | None = None
        self._untold: deque[Telling] = deque()  # came while nobody waited
        self._room: asyncio.Future[None] | None = None  # while the peer does not read
        self._sender: asyncio.Task[None] | None = None  # writes a large message
        self._letter = Letter()
        self._small = True  # enough to be written at once
        self._heard = False  # a reply in this transaction
        self._after_dot = False
        self._late = False
        self._cut = False  # the connection ended, and the host had not said so
        self._unfit = ""

    @property
    def usable(self) -> bool:
        """True while another transaction may begin."""
        return self._transport is not None and self._smtp.stage is Stage.READY

    @property
    def after_dot(self) -> bool:
        """True while only the final reply is missing."""
        return self._smtp.stage is Stage.FINAL

    async def greet(self, context: ssl.SSLContext | None) -> None:
        """Wait for the greeting and EHLO, with TLS if it is offered. Raises `Unreached`.

        TLS has failed, too, where the host hangs up on the first words inside it: in TLS 1.3 a
        peer that wants none of us says so only then.
        """
        self._wait(self._limits.reply_s)
        event = await self._next()
        if isinstance(event, TlsNow):
            assert context is not None, "TLS was not wanted"
            await self._secure(context)
            event = await self._next()
        self._deadline = 0.0
        if isinstance(event, Lost):
            tls_failed = self._smtp.tls and self._cut and not self._late
            raise Unreached(event.reply, tls_failed=tls_failed)
        assert isinstance(event, Ready), event

    async def send(self, transaction: Transaction, letter: Letter) -> Sent:
        """Send one message; returns once every recipient has a reply."""
        assert self.usable, "not ready"
        self.transactions += 1
        self._letter = letter
        self._heard = self._after_dot = self._late = False
        self._envelope_until = self._loop.time() + self._limits.reply_s * ENVELOPE_WAITS_MAX
        self._content_until = transaction.size / CONTENT_BYTES_S_MIN + self._limits.reply_s
        self._small = letter.in_memory and transaction.size <= WRITE_BYTES_MAX
        self._write(self._smtp.send(transaction))
        self._wait(self._limits.reply_s)
        try:
            event = await self._next()
        finally:
            if self._sender is not None:
                self._sender.cancel()
                self._sender = None
        self._deadline = 0.0
        assert isinstance(event, Done), event
        lost = self._smtp.stage is Stage.CLOSED
        return Sent(
            event.replies,
            after_dot=lost and self._after_dot,
            lost=lost,
            unheard=lost and not self._heard,
            late=self._late,
            unfit=self._unfit,
        )

    async def park(self, seconds: float) -> bool:
        """Stay connected with nothing to do; True when `unpark` said there is something."""
        assert self._parked is None
        if not self.usable:
            return False
        self._parked = self._loop.create_future()
        self._wait(seconds)
        try:
            return await self._parked
        finally:
            self._parked = None
            self._deadline = 0.0

    def unpark(self, work: bool) -> None:
        """End the wait of `park`: there is work, or it is time to go."""
        if self._parked is not None and not self._parked.done():
            self._parked.set_result(work)

    def close(self) -> None:
        """Say goodbye if that is possible, and hang up."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is None or self._transport.is_closing() or not self.usable:
            self._abort()
            return
        # Nobody waits for the 221: an unread goodbye costs nothing.
        self._transport.write(self._smtp.quit())
        self._transport.close()
        self._transport = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._transport.set_write_buffer_limits(high=WRITE_BYTES_MAX)  # type: ignore[union-attr]
        name = transport.get_extra_info("sockname")
        self.source = str(name[0]) if name else ""

    def data_received(self, data: bytes) -> None:
        self._smtp.receive(data)
        self._pump()

    def connection_lost(self, fault: Exception | None) -> None:
        self._transport = None
        why = f": {fault}" if fault is not None and str(fault) else ""
        self._end(Reply(451, "4.4.2", f"The connection was lost{why}"))

    def pause_writing(self) -> None:
        if self._room is None:
            self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def _pump(self) -> None:
        """Take what the talk has come to, and write what it wants to say."""
        while (event := self._smtp.next_event()) is not None:
            match event:
                case Replied():
                    self._heard = self._heard or event.reply.code != CLOSING
                    if event.stage is Stage.FINAL:
                        self._after_dot = False
                    left_s = self._envelope_until - self._loop.time()
                    self._wait(max(0.0, min(self._limits.reply_s, left_s)))
                case GoAhead():
                    self._write_content()
                case _:
                    self._tell(event)
        self._write(self._smtp.outgoing())

    def _tell(self, event: Telling) -> None:
        if self._event is not None and not self._event.done():
            self._event.set_result(event)
        else:
            self._untold.append(event)
        if isinstance(event, Lost):
            self.unpark(False)
            self._abort()

    def _abort(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    async def _next(self) -> Telling:
        """Return the next event that somebody waits for."""
        assert self._event is None
        self._pump()
        if self._untold:
            return self._untold.popleft()
        self._event = self._loop.create_future()
        try:
            return await self._event
        finally:
            self._event = None

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._transport.write(data)

    def _write_content(self) -> None:
        """Write the message: at once when it is small, else as the peer reads."""
        self._content_until += self._loop.time()
        if self._small:
            self._write(b"".join(self._smtp.content()))
            self._note_dot()
            self._wait(self._limits.final_reply_s)
        else:
            self._sender = self._loop.create_task(self._write_slowly())

    async def _write_slowly(self) -> None:
        pieces = self._smtp.content()
        try:
            while True:
                await self._letter.ready()
                piece = next(pieces, None)
                if piece is None:
                    break
                self._note_dot()
                await self._write_piece(piece)
        except (Unfit, OSError) as fault:
            self._unfit = str(fault)
            self._end(Reply(451, "4.3.0", "Our own trouble with the message"))
        else:
            self._wait(self._limits.final_reply_s)

    async def _write_piece(self, piece: bytes) -> None:
        for at in range(0, len(piece), WRITE_BYTES_MAX):
            # A peer that reads nothing for reply_s is gone, however alive its host is; and one
            # that reads a little now and then must not hold a large message for ever.
            left_s = self._content_until - self._loop.time()
            self._wait(max(0.0, min(self._limits.reply_s, left_s)))
            self._write(piece[at : at + WRITE_BYTES_MAX])
            if self._room is not None:
                await self._room

    def _note_dot(self) -> None:
        """From the moment the dot is handed to the socket the host may have the message."""
        if self._smtp.stage is Stage.FINAL:
            self._after_dot = True

    async def _secure(self, context: ssl.SSLContext) -> None:
        """Shake hands. Raises `Unreached` with `tls_failed`."""
        old = self._transport
        if old is None:
            raise self._unsecured("the connection was lost")
        name = None if self.hop.host.startswith("[") else self.hop.host
        self._deadline = 0.0
        fresh = None
        why = "the connection was lost"
        try:
            async with asyncio.timeout(self._limits.connect_s):
                fresh = await self._loop.start_tls(old, self, context, server_hostname=name)
        except (OSError, ValueError) as fault:  # TimeoutError and SSLError are OSErrors
            why = str(fault) or "no answer in time"
        if fresh is None or self._smtp.stage is Stage.CLOSED:
            old.abort()
            raise self._unsecured(why)
        self._transport = fresh
        fresh.set_write_buffer_limits(high=WRITE_BYTES_MAX)
        self.tls = tls_name(fresh.get_extra_info("ssl_object"))
        self._wait(self._limits.reply_s)
        self._write(self._smtp.secured())

    def _unsecured(self, why: str) -> Unreached:
        """Return why there is no TLS; a host that broke the protocol is not asked without it."""
        for event in self._untold:
            # What it said between its 220 and the handshake may be another's words (CVE-2011-0411).
            if isinstance(event, Lost) and not self._cut:
                return Unreached(event.reply)
        return Unreached(Reply(454, "4.7.0", f"TLS failed: {why}"), tls_failed=True)

    def _wait(self, seconds: float) -> None:
        """Move the deadline."""
        self._deadline = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._deadline:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._deadline:
            return
        if self._loop.time() < self._deadline:
            self._set_timer()
            return
        if self._parked is not None:
            self.unpark(False)
            return
        self._late = True
        stage = self._smtp.stage
        self._end(Reply(451, "4.4.2", f"No answer in time ({stage.name.lower()})"))

    def _end(self, reply: Reply) -> None:
        """The connection is over: who waits is told so."""
        # What we hung up on, for the host broke the protocol, was not cut.
        self._cut = self._cut or self._smtp.stage is not Stage.CLOSED
        self._smtp.end(reply)
        self.resume_writing()
        self._pump()


async def open_session(
    hop: Hop,
    hostname: str,
    *,
    context: ssl.SSLContext | None,
    limits: Limits,
    local: socket.socket | None = None,
) -> Session:
    """Connect, greet, and shake hands if the host offers to. Raises `Unreached`.

    `local` has the address of ours to come from; it is the session's from now on.
    """

    def made() -> Session:
        return Session(hop, hostname, want_tls=context is not None, limits=limits)

    try:
        async with asyncio.timeout(limits.connect_s):
            session = await _connected(hop, made, local)
    except TimeoutError:
        raise Unreached(Reply(451, "4.4.1", f"{hop} does not answer")) from None
    except OSError as fault:
        why = (fault.strerror or str(fault)).partition(" (")[0]
        raise Unreached(Reply(451, "4.4.1", f"{hop}: {why}")) from None
    try:
        await session.greet(context)
    except BaseException:
        session.close()
        raise
    return session


async def _connected(hop: Hop, made: Callable[[], Session], local: socket.socket | None) -> Session:
    """Return a session on a connection, from a socket of ours if there is one. Raises OSError."""
    loop = asyncio.get_running_loop()
    if local is None:
        return (await loop.create_connection(made, hop.address, hop.port))[1]
    try:
        await loop.sock_connect(local, (hop.address, hop.port))
        return (await loop.create_connection(made, sock=local))[1]
    except BaseException:
        local.close()
        raise
