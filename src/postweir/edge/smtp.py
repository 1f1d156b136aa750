"""One client's connection: bytes between a socket and `mail.smtp_server`, and every deadline.

`mail.smtp_server` knows the protocol, `intake` what becomes of a message; here is what needs a
loop. Rules of this file:

* Whatever a piece of data makes us say leaves in one write. Commands are answered on the spot,
  without a task; a message and an AUTH that failed are tasks. While one runs (`_busy`) nothing
  else is answered, and no more than a piece of data is read.
* Every wait has a deadline, a number that the sweeper looks at: no timer is set and cleared for
  a command. It counts from the last thing we said, so a byte now and then prolongs nothing.
* From our 220 to STARTTLS on, every byte goes through `edge.tls` or the connection ends. What a
  client said before it is forgotten.
* A client may vanish at any byte: `connection_lost` is the one place that gives everything back.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

from postweir.edge import gate, intake, replies
from postweir.edge.arriving import Arriving, Visitor
from postweir.edge.known import holds, loggable, payer
from postweir.edge.sasl import MECHANISMS, Challenge, Claim, Garbled, Sasl
from postweir.edge.sweeper import Sweeper
from postweir.edge.wire import Wire
from postweir.edge.worker import Worker
from postweir.identity.sender import Account
from postweir.mail.commands import (
    Auth,
    AuthAnswer,
    Body,
    BodyEnd,
    Data,
    Greet,
    Help,
    Mail,
    Misstep,
    Noop,
    Offers,
    Quit,
    Rcpt,
    Reset,
    StartTls,
    Verify,
)
from postweir.mail.envelope import Envelope
from postweir.mail.reply import Reply
from postweir.mail.smtp_server import ServerSession, State
from postweir.runtime.net import tls_name

CLOSING_S = 10.0  # for our last words to be read
DATA_RATE_MIN = 500  # bytes a second, as Postfix has it: drops of data do not hold a place
AUTH_FAILURES_MAX = 3
IDLE_COMMANDS_MAX = 100  # NOOP, RSET, VRFY and the like without a message among them
SURPLUS_MAX = 1000  # recipients past the limit, or named again, that are politely told so
AGAIN_S = 1.0  # a credential may have been made a moment ago: look once more before saying no


class Connection(asyncio.Protocol):
    """One client."""

    __slots__ = (
        "_account", "_arriving", "_auth_username", "_busy", "_choked", "_client", "_deadline",
        "_eight_bit", "_errors", "_failures", "_helo", "_idle", "_implicit_tls", "_loop",
        "_mail_from", "_neighbourhood", "_recipients", "_sasl", "_session", "_started_at",
        "_surplus", "_sweeper", "_tls", "_verb", "_wire", "_worker",
    )  # fmt: skip

    def __init__(self, worker: Worker, sweeper: Sweeper, *, implicit_tls: bool) -> None:
        self._worker, self._sweeper, self._implicit_tls = worker, sweeper, implicit_tls
        self._loop = asyncio.get_running_loop()
        self._wire = Wire()
        self._session: ServerSession | None = None  # None: turned away, or gone
        self._client = self._neighbourhood = ""
        self._tls = ""  # how, once the handshake is done
        self._auth_username = ""
        self._sasl: Sasl | None = None
        self._helo, self._verb = "", ""
        self._account: Account | None = None  # who pays for the transaction that is open
        self._mail_from, self._eight_bit = "", False
        self._recipients: dict[str, None] = {}  # in order, each once
        self._arriving: Arriving | None = None
        self._started_at = 0.0  # when its 354 was said
        self._errors = self._failures = self._idle = self._surplus = 0
        self._busy = False  # a task will answer
        self._choked = False  # the client does not read
        self._deadline = 0.0
        self._extend()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        worker = self._worker
        self._wire.made(transport)
        self._client = _address(transport.get_extra_info("peername"))
        self._neighbourhood = gate.neighbourhood(self._client)
        self._sweeper.enter(self)
        refusal = gate.admit(
            worker.settings.edge,
            room=worker.room,
            connections=worker.counts.connections,
            of_client=worker.counts.of_client(self._neighbourhood),
            bytes_held=worker.counts.bytes_held,
            stopping=worker.stopping,
        )
        if refusal is not None:
            worker.meters.turned_away.inc()
            # Without a handshake a TLS client cannot read it, and we make none for it.
            self._end(b"" if self._implicit_tls else bytes(refusal))
            return
        worker.counts.enter(self._neighbourhood)
        worker.meters.connected.inc()
        self._session = ServerSession(self._offers())
        if not self._implicit_tls:
            self._greet()
        elif (context := worker.tls()) is not None:
            self._begin_tls(context)
        else:
            self._end()  # no certificate is in force: nobody could read a word

    def data_received(self, data: bytes) -> None:
        if self._wire.closing or self._session is None:
            return
        handshaking = self._wire.handshaking
        try:
            data = self._wire.decrypted(data)
        except OSError:
            self._worker.meters.tls_failures.inc()
            self._close()
            return
        if handshaking and not self._wire.handshaking:
            self._protected(self._session)
        if data:
            self._session.receive(data)
            if self._busy:
                self._wire.read(False)
            else:
                self._run()
        if self._wire.over:
            self._end()  # as at the end of a stream: who does not listen on is owed no answer

    def eof_received(self) -> bool:
        return False  # close: who does not listen on is owed no answer

    def pause_writing(self) -> None:
        self._choked = True
        self._extend()
        self._wire.read(False)

    def resume_writing(self) -> None:
        self._choked = False
        self._extend()
        self._run()

    def connection_lost(self, _: Exception | None) -> None:
        if not self._wire.lost():
            return
        self._sweeper.leave(self)
        if self._session is not None:
            self._session = None
            self._worker.counts.leave(self._neighbourhood)
        arriving, self._arriving = self._arriving, None
        if arriving is not None:
            arriving.gone = True
            if not self._busy:  # else the task that has it sees that we are gone
                self._worker.meters.messages.labels("gone").inc()
                self._sweeper.keep(intake.clear_away(arriving))

    # What the sweeper calls.

    def sweep(self, now: float) -> None:
        """End what is too late."""
        if now < self._deadline:
            return
        if self._wire.closing or self._choked:
            self.abort()
        elif not self._busy:  # a task has bounds of its own
            handshaking = self._wire.handshaking
            stage = "data" if self._arriving else "handshake" if handshaking else "command"
            self._worker.meters.timeouts.labels(stage).inc()
            if handshaking:
                self.abort()
            else:
                self._end(bytes(replies.TIMEOUT))

    def drain(self) -> None:
        """The worker stops: leave, if no transaction is open."""
        if not self._wire.closing and not self._busy and self._account is None:
            self._end(bytes(gate.STOPPING))

    def abort(self) -> None:
        """Hang up now."""
        self._wire.abort()

    # Talking.

    def _greet(self) -> None:
        self._wire.say(f"220 {self._worker.settings.edge.hostname} ESMTP Postweir\r\n".encode())
        self._flush()

    def _offers(self) -> Offers:
        worker = self._worker
        edge = worker.settings.edge
        clear_auth = edge.auth_without_tls_on_loopback and _is_loopback(self._client)
        return Offers(
            hostname=edge.hostname,
            size_max=edge.message_bytes_max,
            starttls=not self._tls and worker.tls() is not None,
            auth=MECHANISMS if self._tls or clear_auth else (),
        )

    def _run(self) -> None:
        """Answer what there is to answer, in one write."""
        while not (self._busy or self._choked or self._wire.closing):
            assert self._session is not None
            event = self._session.next_event()
            if event is None:
                break
            ANSWERS[type(event)](self, event)
        self._flush()
        if self._worker.stopping:
            self.drain()
        # While a task is at work we read on, to hear that the client is gone, until it says more.
        if not self._busy:
            self._wire.read(not (self._choked or self._crowded))

    def _say(self, reply: Reply) -> None:
        """Answer the event at hand."""
        assert self._session is not None
        self._wire.say(self._session.reply(reply))
        if reply.code == 421:
            self._end()

    def _flush(self) -> None:
        if self._wire.flush() and self._arriving is None:
            self._extend()

    def _end(self, last: bytes = b"") -> None:
        """Say the last words, and close."""
        if not self._wire.closing:
            self._wire.end(last)
            self._deadline = self._loop.time() + CLOSING_S

    def _close(self) -> None:
        self._wire.close()
        self._deadline = self._loop.time() + CLOSING_S

    def _extend(self) -> None:
        self._deadline = self._loop.time() + self._worker.settings.edge.command_s

    @property
    def _crowded(self) -> bool:
        return self._arriving is not None and self._arriving.crowded

    def _work(self, work: Coroutine[Any, Any, None]) -> None:
        """Answer by a task; until `_task_over` nothing else is answered."""
        self._busy = True
        self._sweeper.keep(self._guarded(work))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as fault:  # a bug of ours costs this client its connection, and no hang
            self._worker.log.error("edge.failed", client=self._client, exc_info=fault)
            self.abort()

    def _task_over(self) -> bool:
        """The task at work is done; False when the client is gone."""
        self._busy = False
        return self._session is not None and not self._wire.closing

    def _misstep(self, reply: Reply, *, fatal: bool = False) -> None:
        self._errors += 1
        if self._errors >= self._worker.settings.edge.errors_max:
            self._say(replies.TOO_MANY_ERRORS)
            return
        self._say(reply)
        if fatal:
            self._end()

    def _idle_away(self, reply: Reply) -> None:
        self._idle += 1
        self._say(reply if self._idle <= IDLE_COMMANDS_MAX else replies.TOO_MANY_ERRORS)

    # The answers.

    def _on_misstep(self, event: Misstep) -> None:
        self._misstep(event.reply, fatal=event.fatal)

    def _on_greet(self, event: Greet) -> None:
        assert self._session is not None
        self._session.offer(self._offers())
        self._helo, self._verb = event.name, event.verb
        self._forget_transaction()
        self._idle_away(self._session.welcome())

    def _on_mail(self, event: Mail) -> None:
        if self._worker.stopping:
            self._say(gate.STOPPING)
            return
        account = payer(self._worker, username=self._auth_username, client=self._client)
        if account is None:
            self._worker.meters.relay_denied.inc()
            self._misstep(replies.UNKNOWN_CLIENT)
        elif account.suspended:
            envelope = Envelope(event.address, (), self._helo)
            # An error: each is put on record, and who goes on is shown out.
            self._misstep(intake.suspended(self._worker, account, envelope, self._client))
        else:
            self._account = account
            self._mail_from, self._eight_bit = event.address, event.eight_bit
            self._say(replies.SENDER_OK)

    def _on_rcpt(self, event: Rcpt) -> None:
        edge = self._worker.settings.edge
        # RFC 5321 4.5.1: postmaster alone is ours.
        address = event.address if "@" in event.address else f"{event.address}@{edge.hostname}"
        if self._account is None:
            self._misstep(replies.UNKNOWN_CLIENT)
        elif address in self._recipients:
            self._say_surplus(replies.RECIPIENT_OK)
        elif len(self._recipients) >= edge.recipients_max:
            self._say_surplus(replies.TOO_MANY_RECIPIENTS)
        else:
            self._recipients[address] = None
            self._say(replies.RECIPIENT_OK)

    def _say_surplus(self, reply: Reply) -> None:
        self._surplus += 1
        self._say(reply if self._surplus <= SURPLUS_MAX else replies.TOO_MANY_ERRORS)

    def _on_data(self, _: Data) -> None:
        """Take the message only if there is somewhere to put it."""
        worker, session, account = self._worker, self._session, self._account
        assert session is not None
        assert account is not None
        reason = worker.shards.reason()
        busy = gate.begin(worker.settings.edge, bytes_held=worker.counts.bytes_held)
        if reason or not worker.folders.usable or busy:
            self._idle_away(busy or replies.of_storage(reason))
            return
        session.normalise = account.bare_newline == "normalise"
        self._say(replies.GO_ON)
        if session.state is not State.DATA:
            return  # it spoke before our 354: the session says so next
        self._arriving = Arriving(
            worker, self._visitor(), account, self._envelope(), on_room=self._on_room
        )
        self._started_at = self._loop.time()
        self._deadline = self._started_at + worker.settings.edge.data_s

    def _visitor(self) -> Visitor:
        # RFC 3848: ESMTPSA is ESMTP with TLS and AUTH.
        marks = ("S" if self._tls else "") + ("A" if self._auth_username else "")
        protocol = f"ESMTP{marks}" if self._verb == "EHLO" else "SMTP"
        return Visitor(self._client, self._auth_username, self._tls, protocol)

    def _envelope(self) -> Envelope:
        return Envelope(self._mail_from, tuple(self._recipients), self._helo, self._eight_bit)

    def _on_body(self, event: Body) -> None:
        assert self._arriving is not None
        self._arriving.feed(event.data)
        data_s = self._worker.settings.edge.data_s
        slowest = self._started_at + self._arriving.received / DATA_RATE_MIN
        self._deadline = min(self._loop.time(), slowest) + data_s

    def _on_body_end(self, event: BodyEnd) -> None:
        assert self._arriving is not None
        self._arriving.end(bare_newline=event.bare_newline, nul=event.nul)
        self._work(self._take_in(self._arriving))

    def _on_room(self) -> None:
        """The disk caught up with a large message."""
        if self._wire.paused and not self._busy:
            self._run()

    async def _take_in(self, arriving: Arriving) -> None:
        try:
            reply = await intake.take_in(arriving)
        except Exception as fault:  # a bug of ours costs this client a 451, and no hang
            self._worker.log.error("edge.failed", message=arriving.id, exc_info=fault)
            reply = replies.named(replies.TROUBLE, arriving.id)
        self._arriving = None
        if self._task_over():
            self._forget_transaction()
            self._idle = self._surplus = 0
            if reply.accepted:
                self._errors = 0
            self._say(reply)
            self._run()

    def _forget_transaction(self) -> None:
        self._account = None
        self._recipients = {}

    def _on_reset(self, _: Reset) -> None:
        self._forget_transaction()
        self._idle_away(replies.OK)

    def _on_noop(self, _: Noop) -> None:
        self._idle_away(replies.OK)

    def _on_verify(self, _: Verify) -> None:
        self._idle_away(replies.CANNOT_VERIFY)

    def _on_help(self, _: Help) -> None:
        self._idle_away(replies.HELP)

    def _on_quit(self, _: Quit) -> None:
        self._say(replies.BYE)
        self._end()

    # AUTH.

    def _on_auth(self, event: Auth) -> None:
        self._sasl = Sasl(event.mechanism)
        self._step(self._sasl.begin(event.initial))

    def _on_auth_answer(self, event: AuthAnswer) -> None:
        assert self._sasl is not None
        self._step(self._sasl.answer(event.data))

    def _step(self, step: Challenge | Claim | Garbled) -> None:
        match step:
            case Challenge():
                self._say(Reply(334, "", step.text))
            case Garbled():
                self._sasl = None
                self._misstep(replies.GARBLED)
            case Claim():
                self._sasl = None
                self._hear(step)

    def _hear(self, claim: Claim) -> None:
        if holds(self._worker, claim):
            self._welcome(claim.username)
        elif not self._worker.directory.known:
            self._idle_away(replies.NOT_NOW)
        else:
            self._work(self._hear_again(claim))

    async def _hear_again(self, claim: Claim) -> None:
        """The credential may be newer than our picture of the tables: look once more."""
        await self._worker.directory.again(AGAIN_S)
        if not self._task_over():
            return
        if holds(self._worker, claim):
            self._welcome(claim.username)
        else:
            self._deny(claim)
        self._run()

    def _welcome(self, username: str) -> None:
        self._auth_username = username
        self._failures = 0
        self._say(replies.WELCOME)

    def _deny(self, claim: Claim) -> None:
        worker = self._worker
        worker.meters.auth_failures.inc()
        self._failures += 1
        worker.log.info("edge.auth_failed", client=self._client, username=loggable(worker, claim))
        self._say(replies.WRONG if self._failures < AUTH_FAILURES_MAX else replies.TOO_MANY_ERRORS)

    # TLS.

    def _on_starttls(self, _: StartTls) -> None:
        assert self._session is not None
        context = self._worker.tls()
        self._say(replies.READY_FOR_TLS if context else replies.NO_TLS)
        if context is not None and self._session.state is State.TLS:
            self._flush()
            self._begin_tls(context)

    def _begin_tls(self, context: ssl.SSLContext) -> None:
        self._wire.begin_tls(context)
        self._deadline = self._loop.time() + self._worker.settings.edge.handshake_s

    def _protected(self, session: ServerSession) -> None:
        """TLS stands: begin anew."""
        self._tls = tls_name(self._wire.tls)
        self._extend()
        if self._implicit_tls:
            self._greet()
        else:
            session.restart()
        session.offer(self._offers())
        self._auth_username = self._helo = ""


ANSWERS: dict[type, Callable[[Connection, Any], None]] = {
    Mail: Connection._on_mail,
    Rcpt: Connection._on_rcpt,
    Data: Connection._on_data,
    Body: Connection._on_body,
    BodyEnd: Connection._on_body_end,
    Greet: Connection._on_greet,
    Reset: Connection._on_reset,
    Noop: Connection._on_noop,
    Quit: Connection._on_quit,
    Auth: Connection._on_auth,
    AuthAnswer: Connection._on_auth_answer,
    StartTls: Connection._on_starttls,
    Verify: Connection._on_verify,
    Help: Connection._on_help,
    Misstep: Connection._on_misstep,
}


def _address(peer: object) -> str:
    """Return a peer's address, the same however it reached us."""
    if not isinstance(peer, tuple) or not peer:
        return ""
    text = str(peer[0]).partition("%")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(found)


def _is_loopback(client: str) -> bool:
    return bool(client) and ipaddress.ip_address(client).is_loopback
