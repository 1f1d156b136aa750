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
from collections.abc import Callable
from typing import Any

from postweir.edge import gate, intake, replies
from postweir.edge.arriving import Arriving, Visitor
from postweir.edge.sasl import MECHANISMS, Challenge, Claim, Garbled, Sasl
from postweir.edge.sweeper import Sweeper
from postweir.edge.tls import Tls
from postweir.edge.worker import Worker
from postweir.identity.credentials import check
from postweir.identity.sender import Account, Sender
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
from postweir.runtime import clock
from postweir.runtime.net import tls_name
from postweir.spool.ports import Refusal

CLOSING_S = 10.0  # for our last words to be read
DATA_RATE_MIN = 500  # bytes a second, as Postfix has it: drops of data do not hold a place
AUTH_FAILURES_MAX = 3
IDLE_COMMANDS_MAX = 100  # NOOP, RSET, VRFY and the like without a message among them
AGAIN_S = 1.0  # a credential may have been made a moment ago: look once more before saying no

OK = Reply(250, "2.0.0", "Ok")
SENDER_OK = Reply(250, "2.1.0", "Sender ok")
RECIPIENT_OK = Reply(250, "2.1.5", "Recipient ok")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")
GO_ON = Reply(354, "", "End with a lone dot")
BYE = Reply(221, "2.0.0", "Bye")
READY_FOR_TLS = Reply(220, "2.0.0", "Ready for TLS")
CANNOT_VERIFY = Reply(252, "2.5.0", "Send it and see")
HELP = Reply(214, "2.0.0", "RFC 5321 has it all")
WELCOME = Reply(235, "2.7.0", "Welcome")
WRONG = Reply(535, "5.7.8", "Name or secret is wrong")
GARBLED = Reply(501, "5.5.2", "There is no such answer")
NOT_NOW = Reply(454, "4.7.0", "That cannot be looked up now, try again later")
TIMEOUT = Reply(421, "4.4.2", "You were silent too long")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors")


class Connection(asyncio.Protocol):
    """One client."""

    __slots__ = (
        "_account", "_arriving", "_auth_username", "_busy", "_choked", "_client", "_closing",
        "_deadline", "_eight_bit", "_errors", "_failures", "_helo", "_idle", "_implicit_tls",
        "_layer", "_loop", "_mail_from", "_out", "_paused", "_recipients", "_sasl", "_session",
        "_started_at", "_sweeper", "_tls", "_transport", "_verb", "_worker",
    )  # fmt: skip

    def __init__(self, worker: Worker, sweeper: Sweeper, *, implicit_tls: bool) -> None:
        self._worker, self._sweeper, self._implicit_tls = worker, sweeper, implicit_tls
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None  # an asyncio.Transport; uvloop's do not say so
        self._session: ServerSession | None = None  # None: turned away, or gone
        self._client = ""
        self._layer: Tls | None = None  # through which every byte goes
        self._tls = ""  # how, once the handshake is done
        self._auth_username = ""
        self._sasl: Sasl | None = None
        self._helo, self._verb = "", ""
        self._account: Account | None = None  # who pays for the transaction that is open
        self._mail_from, self._eight_bit = "", False
        self._recipients: dict[str, None] = {}  # in order, each once
        self._arriving: Arriving | None = None
        self._started_at = 0.0  # when its 354 was said
        self._errors = self._failures = self._idle = 0
        self._busy = False  # a task will answer
        self._choked = False  # the client does not read
        self._paused = False  # we do not read
        self._closing = False
        self._out: list[bytes] = []
        self._deadline = 0.0
        self._extend()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        worker, self._transport = self._worker, transport
        self._client = _address(transport.get_extra_info("peername"))
        self._sweeper.enter(self)
        refusal = gate.admit(
            worker.settings.edge,
            connections=worker.counts.connections,
            of_client=worker.counts.of_client(self._client),
            bytes_held=worker.counts.bytes_held,
            stopping=worker.stopping,
        )
        if refusal is not None:
            worker.meters.turned_away.inc()
            # Without a handshake a TLS client cannot read it, and we make none for it.
            self._end(b"" if self._implicit_tls else bytes(refusal))
            return
        worker.counts.enter(self._client)
        worker.meters.connected.inc()
        self._session = ServerSession(self._offers())
        if self._implicit_tls:
            self._begin_tls()
        else:
            self._greet()

    def data_received(self, data: bytes) -> None:
        if self._closing or self._session is None:
            return
        if self._layer is not None:
            data = self._decrypted(self._layer, data)
        if not data or self._session is None:
            return
        self._session.receive(data)
        if self._busy:
            self._read(False)
        else:
            self._run()

    def eof_received(self) -> bool:
        return False  # close: who does not listen on is owed no answer

    def pause_writing(self) -> None:
        self._choked = True
        self._extend()
        self._read(False)

    def resume_writing(self) -> None:
        self._choked = False
        self._extend()
        self._run()

    def connection_lost(self, _: Exception | None) -> None:
        if self._transport is None:
            return
        self._transport = None
        self._closing = True
        self._sweeper.leave(self)
        if self._session is not None:
            self._session = None
            self._worker.counts.leave(self._client)
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
        if self._closing or self._choked:
            self.abort()
        elif not self._busy:  # a task has bounds of its own
            handshake = self._layer is not None and not self._layer.standing
            stage = "data" if self._arriving else "handshake" if handshake else "command"
            self._worker.meters.timeouts.labels(stage).inc()
            if handshake:
                self.abort()
            else:
                self._end(bytes(TIMEOUT))

    def drain(self) -> None:
        """The worker stops: leave, if no transaction is open."""
        if not self._closing and not self._busy and self._account is None:
            self._end(bytes(gate.STOPPING))

    def abort(self) -> None:
        """Hang up now."""
        if self._transport is not None:
            self._transport.abort()

    # Talking.

    def _greet(self) -> None:
        self._write(f"220 {self._worker.settings.edge.hostname} ESMTP Postweir\r\n".encode("ascii"))

    def _write(self, data: bytes) -> None:
        if self._layer is not None:
            if not self._layer.standing:
                return  # nobody could read it
            self._layer.send(data)
            data = self._layer.unsent()
        self._transport.write(data)

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
        while not (self._busy or self._choked or self._closing):
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
            self._read(not (self._choked or self._crowded))

    def _say(self, reply: Reply) -> None:
        """Answer the event at hand."""
        assert self._session is not None
        self._out.append(self._session.reply(reply))
        if reply.code == 421:
            self._end()

    def _flush(self) -> None:
        if self._out and self._transport is not None:
            self._write(b"".join(self._out))
            self._out.clear()
            if self._arriving is None:
                self._extend()

    def _end(self, last: bytes = b"") -> None:
        """Say the last words, and close."""
        if self._transport is None or self._closing:
            return
        if self._out or last:
            self._write(b"".join(self._out) + last)
            self._out.clear()
        if self._layer is not None:
            self._layer.say_goodbye()
        self._close()

    def _close(self) -> None:
        if self._layer is not None and (unsent := self._layer.unsent()):
            self._transport.write(unsent)
        self._closing = True
        self._deadline = self._loop.time() + CLOSING_S
        self._transport.close()

    def _extend(self) -> None:
        self._deadline = self._loop.time() + self._worker.settings.edge.command_s

    @property
    def _crowded(self) -> bool:
        return self._arriving is not None and self._arriving.crowded

    def _read(self, wanted: bool) -> None:
        if self._transport is None or self._closing or wanted == (not self._paused):
            return
        self._paused = not wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _task_over(self) -> bool:
        """The task at work is done; False when the client is gone."""
        self._busy = False
        return self._session is not None and not self._closing

    def _misstep(self, reply: Reply, *, fatal: bool = False) -> None:
        self._errors += 1
        if self._errors >= self._worker.settings.edge.errors_max:
            self._say(TOO_MANY_ERRORS)
            return
        self._say(reply)
        if fatal:
            self._end()

    def _idle_away(self, reply: Reply) -> None:
        self._idle += 1
        self._say(reply if self._idle <= IDLE_COMMANDS_MAX else TOO_MANY_ERRORS)

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
        account = self._payer()
        if account is None:
            self._worker.meters.relay_denied.inc()
            self._misstep(replies.UNKNOWN_CLIENT)
        elif account.suspended:
            self._say(self._suspended(account, event.address))
        else:
            self._account = account
            self._mail_from, self._eight_bit = event.address, event.eight_bit
            self._say(SENDER_OK)

    def _payer(self) -> Account | None:
        """Return whose mail this is, as the tables stand now: sessions outlive credentials."""
        directory = self._worker.directory
        if self._auth_username:
            credential = directory.now.credentials.get(self._auth_username)
            if credential is None or credential.revoked_us:
                return None
            return directory.now.accounts.get(credential.account)
        name = directory.networks.owner(self._client)
        return directory.now.accounts.get(name) if name else None

    def _suspended(self, account: Account, mail_from: str) -> Reply:
        worker = self._worker
        message = worker.names.next()
        reply = replies.of_verdict(replies.SUSPENDED, message, worker.settings.edge.help_url)
        worker.shards.refuse(
            Refusal(
                message=message,
                at_us=clock.wall_us(),
                stage="mail",
                sender=Sender(account.name, "account", self._client),
                envelope=Envelope(mail_from, (), self._helo),
                client=self._client,
                reply=reply,
                verdict=replies.SUSPENDED,
                facts=b"",
            )
        )
        worker.log.info(
            "edge.refused", message=message, account=account.name, client=self._client,
            stage="mail", code=reply.code, reason="suspended",
        )  # fmt: skip
        return reply

    def _on_rcpt(self, event: Rcpt) -> None:
        edge = self._worker.settings.edge
        # RFC 5321 4.5.1: postmaster alone is ours.
        address = event.address if "@" in event.address else f"{event.address}@{edge.hostname}"
        if self._account is None:
            self._misstep(replies.UNKNOWN_CLIENT)
        elif len(self._recipients) >= edge.recipients_max and address not in self._recipients:
            self._say(TOO_MANY_RECIPIENTS)
        else:
            self._recipients[address] = None
            self._say(RECIPIENT_OK)

    def _on_data(self, _: Data) -> None:
        """Take the message only if there is somewhere to put it."""
        worker, session, account = self._worker, self._session, self._account
        assert session is not None
        assert account is not None
        reason = worker.shards.reason()
        busy = gate.begin(worker.settings.edge, bytes_held=worker.counts.bytes_held)
        if reason or not worker.folders.usable or busy:
            self._say(busy or replies.of_storage(reason))
            return
        session.normalise = account.bare_newline == "normalise"
        self._say(GO_ON)
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
        self._busy = True
        self._sweeper.keep(self._take_in(self._arriving))

    def _on_room(self) -> None:
        """The disk caught up with a large message."""
        if self._paused and not self._busy:
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
            self._idle = 0
            self._say(reply)
            self._run()

    def _forget_transaction(self) -> None:
        self._account = None
        self._recipients = {}

    def _on_reset(self, _: Reset) -> None:
        self._forget_transaction()
        self._idle_away(OK)

    def _on_noop(self, _: Noop) -> None:
        self._idle_away(OK)

    def _on_verify(self, _: Verify) -> None:
        self._idle_away(CANNOT_VERIFY)

    def _on_help(self, _: Help) -> None:
        self._idle_away(HELP)

    def _on_quit(self, _: Quit) -> None:
        self._say(BYE)
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
                self._misstep(GARBLED)
            case Claim():
                self._sasl = None
                self._hear(step)

    def _hear(self, claim: Claim) -> None:
        if self._is_true(claim):
            self._welcome(claim.username)
        elif not self._worker.directory.known:
            self._say(NOT_NOW)
        else:
            self._busy = True
            self._sweeper.keep(self._hear_again(claim))

    def _is_true(self, claim: Claim) -> bool:
        worker = self._worker
        found = check(worker.directory.now, claim.username, claim.secret, worker.secret)
        return found is not None

    async def _hear_again(self, claim: Claim) -> None:
        """The credential may be newer than our picture of the tables: look once more."""
        await self._worker.directory.again(AGAIN_S)
        if not self._task_over():
            return
        if self._is_true(claim):
            self._welcome(claim.username)
        else:
            self._deny(claim)
        self._run()

    def _welcome(self, username: str) -> None:
        self._auth_username = username
        self._failures = 0
        self._say(WELCOME)

    def _deny(self, claim: Claim) -> None:
        worker = self._worker
        worker.meters.auth_failures.inc()
        self._failures += 1
        # A name that we do not know may be a secret that was typed in the wrong place.
        known = claim.username in worker.directory.now.credentials
        worker.log.info(
            "edge.auth_failed", client=self._client, username=claim.username if known else "?"
        )
        self._say(WRONG if self._failures < AUTH_FAILURES_MAX else TOO_MANY_ERRORS)

    # TLS.

    def _on_starttls(self, _: StartTls) -> None:
        assert self._session is not None
        self._say(READY_FOR_TLS)
        if self._session.state is State.TLS:
            self._flush()
            self._begin_tls()

    def _begin_tls(self) -> None:
        context = self._worker.tls()
        assert context is not None  # else it is neither offered nor listened for
        self._layer = Tls(context)
        self._deadline = self._loop.time() + self._worker.settings.edge.handshake_s

    def _decrypted(self, layer: Tls, data: bytes) -> bytes:
        """Return what the client says through TLS; b"" while nothing, or nothing more."""
        stood = layer.standing
        try:
            plain = layer.receive(data)
        except OSError:
            self._worker.meters.tls_failures.inc()
            self._close()  # with an alert that says what was wrong
            return b""
        if unsent := layer.unsent():
            self._transport.write(unsent)
        if layer.standing and not stood:
            self._protected(layer)
        if layer.closed and not plain:
            self._end()
        return plain

    def _protected(self, layer: Tls) -> None:
        """TLS stands: begin anew."""
        session = self._session
        assert session is not None
        self._tls = tls_name(layer.object)
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
