"""One mail transaction after another, from MAIL to the answer after the dot.

Who pays is looked up at each MAIL, as sessions outlive credentials. Everything that bounds us is
looked at before our 354: what is answered later has already cost what it costs.
"""

from collections.abc import Callable
from typing import Protocol

from postweir.edge import gate, intake, login, replies
from postweir.edge.arriving import Arriving, Visitor
from postweir.edge.flight import Waiting
from postweir.edge.gate import No
from postweir.edge.known import payer
from postweir.edge.standing import Standing
from postweir.edge.worker import Worker
from postweir.identity.sender import Account
from postweir.mail.commands import BodyEnd, Mail, Rcpt
from postweir.mail.envelope import Envelope
from postweir.mail.reply import Reply

SURPLUS_MAX = 1000  # recipients past the limit, or named again, that are politely told so
SLOW_S = 1.0  # a message whose bytes come slower than this holds no place in flight


class Talk(login.Talk, Protocol):
    """What a transaction needs of the connection that it is a part of."""

    @property
    def standing(self) -> Standing:
        """Where it stands in the counts."""
        ...

    @property
    def helo(self) -> str:
        """How it greeted us."""
        ...

    @property
    def username(self) -> str:
        """Who logged in, "" while nobody did."""
        ...

    def visitor(self) -> Visitor:
        """Who speaks."""
        ...

    def refuse(self, no: No) -> None:
        """Say no to what would take more than there is."""
        ...

    def go_on(self, *, normalise: bool) -> bool:
        """Say 354; False when it spoke before that, and is shown out."""
        ...

    def wait(self) -> None:
        """Answer later; until `task_over` nothing else is answered."""
        ...

    def on_room(self) -> None:
        """The disk caught up: read on."""
        ...

    def took(self, reply: Reply) -> None:
        """A message is answered."""
        ...

    def failed(self, fault: Exception) -> None:
        """A bug of ours: hang up, and say so in the log."""
        ...


class Transaction:
    """The transaction of one client; `talk` comes with each call, as in `login`."""

    __slots__ = (
        "_account", "_announced", "_eight_bit", "_mail_from", "_recipients", "_surplus",
        "_turned_down", "_waiting", "_worker", "arriving",
    )  # fmt: skip

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._account: Account | None = None  # who pays; None: no transaction is open
        self._mail_from, self._eight_bit, self._announced = "", False, 0
        self._recipients: dict[str, None] = {}  # in order, each once
        self._surplus = 0
        self._turned_down = False  # by our own fault, at MAIL: what follows is no error of theirs
        self._waiting: Waiting | None = None  # for a place in flight
        self.arriving: Arriving | None = None  # between our 354 and our answer

    @property
    def open(self) -> bool:
        """True from MAIL on."""
        return self._account is not None

    @property
    def crowded(self) -> bool:
        """True while its message should not be read on."""
        return self.arriving is not None and self.arriving.crowded

    def forget(self) -> None:
        """Nothing was said."""
        self._account = None
        self._turned_down = False
        self._recipients = {}

    def lost(self) -> Arriving | None:
        """The client is gone; return the message that nobody will hear about."""
        if self._waiting is not None:
            self._worker.flights.forget(self._waiting)
            self._waiting = None
        arriving, self.arriving = self.arriving, None
        if arriving is not None:
            arriving.gone = True
        return arriving

    def excuses(self, reply: Reply) -> bool:
        """True for what was sent before they heard that we cannot take their MAIL."""
        return self._turned_down and reply.code == 503

    def mail(self, talk: Talk, event: Mail) -> None:
        """MAIL was said."""
        worker = self._worker
        if worker.stopping:
            talk.say(gate.STOPPING.reply)
            return
        account = payer(worker, username=talk.username, client=talk.client)
        if account is None:
            worker.meters.relay_denied.inc()
            talk.misstep(replies.UNKNOWN_CLIENT)
        elif account.suspended:
            envelope = Envelope(event.address, (), talk.helo)
            # An error: each is put on record, and who goes on is shown out.
            talk.misstep(intake.suspended(worker, account, envelope, talk.client))
        else:
            talk.standing.known_as(account.name)
            no = talk.standing.stay() or self._fits(event.size or 0)
            self._turned_down = no is not None
            if no is not None:
                talk.refuse(no)
                return
            self._account, self._announced = account, event.size or 0
            self._mail_from, self._eight_bit = event.address, event.eight_bit
            talk.say(replies.SENDER_OK)

    def _fits(self, size: int) -> No | None:
        worker = self._worker
        free_bytes = worker.shards.free_bytes()
        if not free_bytes:
            return None  # no shard takes mail: DATA will say so, and why
        return gate.fits(
            free_bytes=free_bytes,
            free_bytes_min=worker.settings.spool.free_bytes_min,
            claimed=worker.counts.bytes_claimed,
            size=size,
        )

    def rcpt(self, talk: Talk, event: Rcpt) -> None:
        """RCPT was said."""
        edge = self._worker.settings.edge
        # RFC 5321 4.5.1: postmaster alone is ours.
        address = event.address if "@" in event.address else f"{event.address}@{edge.hostname}"
        if self._account is None:
            talk.misstep(replies.UNKNOWN_CLIENT)
        elif address in self._recipients:
            self.say_surplus(talk, replies.RECIPIENT_OK)
        elif len(self._recipients) >= edge.recipients_max:
            self.say_surplus(talk, replies.TOO_MANY_RECIPIENTS)
        else:
            self._recipients[address] = None
            talk.say(replies.RECIPIENT_OK)

    def say_surplus(self, talk: Talk, reply: Reply) -> None:
        """Answer what leads nowhere and is honest, a thousand times."""
        self._surplus += 1
        talk.say(reply if self._surplus <= SURPLUS_MAX else replies.TOO_MANY_ERRORS)

    def data(self, talk: Talk) -> None:
        """DATA: take the message only if there is somewhere to put it, and a place for it."""
        worker, account = self._worker, self._account
        assert account is not None
        reason = worker.shards.reason()
        if reason or not worker.folders.usable:
            worker.refused("spool")
            talk.idle_away(replies.of_storage(reason))
            return
        counts, flights = worker.counts, worker.flights
        no = gate.begin(
            worker.settings.edge,
            bytes_held=counts.bytes_held,
            of_account=counts.bytes_of(account.name),
        ) or self._fits(self._announced)
        if no is not None:
            talk.refuse(no)
        elif flights.take(account.name):
            self._go_on(talk, account)
        else:
            self._waiting = flights.wait(account.name, self._on_place(talk, account))
            if self._waiting is None:
                talk.refuse(gate.OWN_FLIGHT)
            else:
                talk.wait()

    def _on_place(self, talk: Talk, account: Account) -> Callable[[bool], None]:
        """Return what to do when the wait for a place is over."""

        def answer(given: bool) -> None:
            self._waiting = None
            if not talk.task_over():
                if given:
                    self._worker.flights.leave(account.name)
                return
            try:
                if given:
                    self._go_on(talk, account)
                else:
                    talk.refuse(gate.IN_FLIGHT)
                talk.run()
            except Exception as fault:  # noqa: BLE001 - another's turn led here, and must not pay
                talk.failed(fault)

        return answer

    def _go_on(self, talk: Talk, account: Account) -> None:
        """There is a place, and we have it: say 354."""
        if not talk.go_on(normalise=account.bare_newline == "normalise"):
            self._worker.flights.leave(account.name)
            return
        envelope = Envelope(
            self._mail_from, tuple(self._recipients), talk.helo, self._eight_bit
        )  # fmt: skip
        self.arriving = Arriving(
            self._worker, talk.visitor(), account, envelope,
            on_room=talk.on_room, announced=self._announced,
        )  # fmt: skip

    def body(self, data: bytes) -> int:
        """Some of the message came; return how much there is of it."""
        assert self.arriving is not None
        self.arriving.feed(data)
        return self.arriving.received

    def slow(self, since_s: float, *, whole: bool) -> None:
        """So long ago its 354 was said, or, if it is whole, its dot came.

        Until the dot the place of one that is slow goes to others; from the dot on it is we who
        are slow, and give up.
        """
        if self.arriving is None:
            return
        if whole:
            intake.give_up(self.arriving, since_s)
        elif since_s >= SLOW_S:
            self.arriving.step_aside()

    def body_end(self, talk: Talk, event: BodyEnd) -> None:
        """The dot came."""
        assert self.arriving is not None
        self.arriving.step_back()
        self.arriving.end(bare_newline=event.bare_newline, nul=event.nul)
        talk.work(self._take_in(talk, self.arriving))

    async def _take_in(self, talk: Talk, arriving: Arriving) -> None:
        try:
            reply = await intake.take_in(arriving)
        except Exception as fault:  # a bug of ours costs this client a 451, and no hang
            self._worker.log.error("edge.failed", message=arriving.id, exc_info=fault)
            reply = replies.named(replies.TROUBLE, arriving.id)
        self.arriving = None
        if talk.task_over():
            self.forget()
            self._surplus = 0
            talk.took(reply)
            talk.run()
