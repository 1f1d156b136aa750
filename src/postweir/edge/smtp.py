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
from postweir.edge.arriving import Visitor
from postweir.edge.gate import No
from postweir.edge.known import payer
from postweir.edge.login import Login
from postweir.edge.patience import Patience
from postweir.edge.sasl import MECHANISMS
from postweir.edge.standing import Standing
from postweir.edge.sweeper import Sweeper
from postweir.edge.transaction import Transaction
from postweir.edge.wire import Wire
from postweir.edge.worker import Worker
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
from postweir.mail.reply import Reply
from postweir.mail.smtp_server import ServerSession, State
from postweir.runtime.net import tls_name

IDLE_COMMANDS_MAX = 100  # NOOP, RSET, VRFY and the like without a message among them


class Connection(asyncio.Protocol):
    """One client."""

    __slots__ = (
        "_busy", "_choked", "_errors", "_idle", "_implicit_tls", "_login", "_loop", "_patience",
        "_session", "_sweeper", "_tls", "_transaction", "_verb", "_wire", "_worker", "client",
        "helo", "standing",
    )  # fmt: skip

    def __init__(self, worker: Worker, sweeper: Sweeper, *, implicit_tls: bool) -> None:
        self._worker, self._sweeper, self._implicit_tls = worker, sweeper, implicit_tls
        self._loop = asyncio.get_running_loop()
        self._wire = Wire()
        self._session: ServerSession | None = None  # None: turned away, or gone
        self.client = ""
        self.standing = Standing(worker, self)
        self._patience = Patience(self._loop.time())
        self._tls = ""  # how, once the handshake is done
        self._login = Login(worker)
        self.helo = self._verb = ""
        self._transaction = Transaction(worker)
        self._errors = self._idle = 0
        self._busy = False  # a task will answer
        self._choked = False  # the client does not read

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        worker = self._worker
        self._wire.made(transport)
        self.client = gate.address(transport.get_extra_info("peername"))
        self._sweeper.enter(self)
        now = self._loop.time()
        no = self.standing.enter(self.client, now)
        if no is not None:
            worker.meters.turned_away.inc()
            worker.refused(no.reason)
            # Without a handshake a TLS client cannot read it, and we make none for it.
            self._end(b"" if self._implicit_tls else bytes(no.reply))
            return
        self._patience.known = not self.standing.is_newcomer
        worker.meters.connected.inc()
        self._session = ServerSession(self._offers())
        if not self._implicit_tls:
            self._greet()
        elif (context := worker.tls()) is not None and self._may_shake_hands() is None:
            self._begin_tls(context)
        else:
            self._end()  # nobody could read a word

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
                self.run()
        if self._wire.over:
            self._end()  # as at the end of a stream: who does not listen on is owed no answer

    def eof_received(self) -> bool:
        return False  # close: who does not listen on is owed no answer

    def pause_writing(self) -> None:
        self._choked = True
        self._at("unread")
        self._wire.read(False)

    def resume_writing(self) -> None:
        self._choked = False
        self._at("work" if self._busy else "data" if self._transaction.arriving else "command")
        self.run()

    def connection_lost(self, _: Exception | None) -> None:
        if not self._wire.lost():
            return
        self._sweeper.leave(self)
        self._session = None
        self.standing.leave()
        arriving = self._transaction.lost()
        if arriving is not None and not self._busy:  # else the task that has it sees it
            self._worker.meters.messages.labels("gone").inc()
            arriving.step_aside()
            self._sweeper.keep(intake.clear_away(arriving))

    # What the sweeper calls.

    def sweep(self, now: float) -> None:
        """End what is too late."""
        late = self._patience.late(now, self._worker.limits)
        if late:
            self._too_late(late)
        else:
            self._transaction.slow(now - self._patience.since, whole=self._busy)

    def _too_late(self, late: str) -> None:
        if late != "closing":
            self._worker.meters.timeouts.labels(late).inc()
        if late == "work":
            self._worker.log.error("edge.stuck", client=self.client)
        if late in {"closing", "work", "unread", "handshake"} or self._wire.handshaking:
            self.abort()
        else:
            self._end(bytes(replies.TIMEOUT))

    @property
    def holder(self) -> str:
        """For whom it counts."""
        return self.standing.holder

    @property
    def idle_since(self) -> float | None:
        """Since when it waits for a next message; None when it is at something."""
        if self._busy or self._choked or self._wire.closing or self._transaction.open:
            return None
        return self._patience.since

    def make_room(self) -> None:
        """Others need the place."""
        self._worker.meters.shed.inc()
        no = gate.UNKNOWN if self.standing.is_newcomer else gate.OVER_SHARE
        self._end(b"" if self._wire.handshaking else bytes(no.reply))
        self.standing.leave()

    def drain(self) -> None:
        """The worker stops: leave, if no transaction is open."""
        if not self._wire.closing and not self._busy and not self._transaction.open:
            self._end(bytes(gate.STOPPING.reply))

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
        clear_auth = edge.auth_without_tls_on_loopback and _is_loopback(self.client)
        return Offers(
            hostname=edge.hostname,
            size_max=edge.message_bytes_max,
            starttls=not self._tls and worker.tls() is not None,
            auth=MECHANISMS if self._tls or clear_auth else (),
        )

    def run(self) -> None:
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
            self._wire.read(not (self._choked or self._transaction.crowded))

    def say(self, reply: Reply) -> None:
        """Answer the event at hand."""
        assert self._session is not None
        self._wire.say(self._session.reply(reply))
        if reply.code == 421:
            self._end()
        elif reply.code == 235:
            self._known()

    def _flush(self) -> None:
        if self._wire.flush() and not (self._choked or self._busy or self._transaction.arriving):
            self._at("command")

    def _end(self, last: bytes = b"") -> None:
        """Say the last words, and close."""
        if not self._wire.closing:
            self._wire.end(last)
            self._at("closing")

    def _close(self) -> None:
        self._wire.close()
        self._at("closing")

    def _at(self, what: str) -> None:
        if not self._wire.closing or what == "closing":
            self._patience.at(what, self._loop.time())

    def refuse(self, no: No) -> None:
        """Say no to what would take more than there is; it leads nowhere, and is no error."""
        self._worker.refused(no.reason)
        self.idle_away(no.reply)

    def _known(self) -> None:
        """They have shown whose they are."""
        account = payer(self._worker, username=self.username, client=self.client)
        if account is not None:
            self._patience.known = True
            self.standing.known_as(account.name)

    @property
    def username(self) -> str:
        """Who logged in, "" while nobody did."""
        return self._login.username

    def visitor(self) -> Visitor:
        """Who speaks."""
        # RFC 3848: ESMTPSA is ESMTP with TLS and AUTH.
        marks = ("S" if self._tls else "") + ("A" if self.username else "")
        protocol = f"ESMTP{marks}" if self._verb == "EHLO" else "SMTP"
        return Visitor(self.client, self.username, self._tls, protocol)

    def work(self, work: Coroutine[Any, Any, None]) -> None:
        """Answer by a task; until `task_over` nothing else is answered."""
        self.wait()
        self._sweeper.keep(self._guarded(work))

    def wait(self) -> None:
        """Answer later; until `task_over` nothing else is answered."""
        self._busy = True
        self._at("work")

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as fault:  # noqa: BLE001 - a bug costs a connection, and no hang
            self.failed(fault)

    def failed(self, fault: Exception) -> None:
        """A bug of ours: hang up, and say so in the log."""
        self._worker.log.error("edge.failed", client=self.client, exc_info=fault)
        self.abort()

    def task_over(self) -> bool:
        """The task at work is done; False when the client is gone."""
        self._busy = False
        self._at("command")
        return self._session is not None and not self._wire.closing

    def misstep(self, reply: Reply, *, fatal: bool = False) -> None:
        self._errors += 1
        if self._errors >= self._worker.limits.errors_max:
            self.say(replies.TOO_MANY_ERRORS)
            return
        self.say(reply)
        if fatal:
            self._end()

    def idle_away(self, reply: Reply) -> None:
        self._idle += 1
        self.say(reply if self._idle <= IDLE_COMMANDS_MAX else replies.TOO_MANY_ERRORS)

    # The answers.

    def _on_misstep(self, event: Misstep) -> None:
        if self._transaction.excuses(event.reply):
            self._transaction.say_surplus(self, event.reply)
            return
        self.misstep(event.reply, fatal=event.fatal)

    def _on_greet(self, event: Greet) -> None:
        assert self._session is not None
        self._session.offer(self._offers())
        self.helo, self._verb = event.name, event.verb
        self._transaction.forget()
        self.idle_away(self._session.welcome())

    def _on_mail(self, event: Mail) -> None:
        self._transaction.mail(self, event)

    def _on_rcpt(self, event: Rcpt) -> None:
        self._transaction.rcpt(self, event)

    def _on_data(self, _: Data) -> None:
        self._transaction.data(self)

    def go_on(self, *, normalise: bool) -> bool:
        """Say 354; False when it spoke before that, and the session says so next."""
        assert self._session is not None
        self._session.normalise = normalise
        self.say(replies.GO_ON)
        if self._session.state is not State.DATA:
            return False
        self._at("data")
        return True

    def _on_body(self, event: Body) -> None:
        self._patience.received(self._transaction.body(event.data), self._loop.time())

    def _on_body_end(self, event: BodyEnd) -> None:
        self._transaction.body_end(self, event)

    def on_room(self) -> None:
        """The disk caught up with a large message."""
        if self._wire.paused and not self._busy:
            self.run()

    def took(self, reply: Reply) -> None:
        """A message is answered: a connection that brings mail may err now and then."""
        self._idle = 0
        if reply.accepted:
            self._errors = 0
            self._patience.accepted(self._loop.time())
        self.say(reply)

    def _on_reset(self, _: Reset) -> None:
        self._transaction.forget()
        self.idle_away(replies.OK)

    def _on_noop(self, _: Noop) -> None:
        self.idle_away(replies.OK)

    def _on_verify(self, _: Verify) -> None:
        self.idle_away(replies.CANNOT_VERIFY)

    def _on_help(self, _: Help) -> None:
        self.idle_away(replies.HELP)

    def _on_quit(self, _: Quit) -> None:
        self.say(replies.BYE)
        self._end()

    # AUTH: see `login`.

    def _on_auth(self, event: Auth) -> None:
        self._login.begin(self, event)

    def _on_auth_answer(self, event: AuthAnswer) -> None:
        self._login.answer(self, event)

    # TLS.

    def _on_starttls(self, _: StartTls) -> None:
        assert self._session is not None
        context = self._worker.tls()
        if context is None:
            self.say(replies.NO_TLS)
        elif (no := self._may_shake_hands()) is not None:
            self.idle_away(no.reply)
        else:
            self.say(replies.READY_FOR_TLS)
            if self._session.state is State.TLS:
                self._flush()
                self._begin_tls(context)

    def _may_shake_hands(self) -> No | None:
        no = self.standing.shakes_hands(self._loop.time())
        if no is not None:
            self._worker.refused(no.reason)
        return no

    def _begin_tls(self, context: ssl.SSLContext) -> None:
        self._wire.begin_tls(context)
        self._at("handshake")

    def _protected(self, session: ServerSession) -> None:
        """TLS stands: begin anew."""
        self._tls = tls_name(self._wire.tls)
        self.standing.agreed()
        self._at("command")
        if self._implicit_tls:
            self._greet()
        else:
            session.restart()
        session.offer(self._offers())
        self._login.forget()
        self.helo = self._verb = ""


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


def _is_loopback(client: str) -> bool:
    return bool(client) and ipaddress.ip_address(client).is_loopback
