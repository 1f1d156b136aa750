"""A driver of `ServerSession` as plain as can be: it takes everything, and keeps what it saw."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from postweir.mail.reply import Reply
from postweir.mail.smtp_server import (
    Auth,
    AuthAnswer,
    Body,
    BodyEnd,
    Data,
    Event,
    Greet,
    Help,
    Misstep,
    Offers,
    Quit,
    Rcpt,
    ServerSession,
    StartTls,
    Verify,
)

OFFERS = Offers("relay.example.net", 1_000_000, starttls=True)
OK = Reply(250, "2.0.0", "Ok")
GO_ON = Reply(354, "", "End with a lone dot")


def answer(session: ServerSession, event: Event) -> Reply:
    """What a server without opinions answers; recipients called `nobody` are not known."""
    match event:
        case Greet():
            return session.welcome()
        case Data():
            return GO_ON
        case Rcpt(address=address) if address.startswith("nobody@"):
            return Reply(550, "5.1.1", "Nobody here")
        case BodyEnd(bare_newline=True):
            return Reply(550, "5.6.0", "Lines end in CRLF")
        case BodyEnd(nul=True):
            return Reply(550, "5.6.0", "No NULs")
        case Auth(mechanism="PLAIN", initial=bytes() as proof) | AuthAnswer(data=bytes() as proof):
            if proof == b"\0shop\0secret":
                return Reply(235, "2.7.0", "Welcome")
            return Reply(535, "5.7.8", "No")
        case Auth():
            return Reply(334, "", "")
        case AuthAnswer():
            return Reply(501, "5.7.0", "As you like")
        case StartTls():
            return Reply(220, "2.0.0", "Go ahead")
        case Verify():
            return Reply(252, "2.5.0", "Send and see")
        case Help():
            return Reply(214, "2.0.0", "RFC 5321")
        case Quit():
            return Reply(221, "2.0.0", "Bye")
        case Misstep(reply=reply):
            return reply
    return OK


class Drive:
    """One session, what it showed (bodies joined up), and what it said."""

    def __init__(self, offers: Offers = OFFERS) -> None:
        self.session = ServerSession(offers)
        self.events: list[Event] = []
        self.said: list[bytes] = []

    def feed(self, data: bytes) -> "Drive":
        self.session.receive(data)
        while (event := self.session.next_event()) is not None:
            self._keep(event)
            if not isinstance(event, Body):
                self.said.append(self.session.reply(answer(self.session, event)))
        return self

    def feed_cut(self, data: bytes, cuts: Sequence[int]) -> "Drive":
        for piece in cut(data, cuts):
            self.feed(piece)
        return self

    @property
    def codes(self) -> list[int]:
        return [int(said[:3]) for said in self.said if said]

    @property
    def body(self) -> bytes:
        return b"".join(event.data for event in self.events if isinstance(event, Body))

    def _keep(self, event: Event) -> None:
        if isinstance(event, Body) and self.events and isinstance(self.events[-1], Body):
            event = Body(self.events.pop().data + event.data)
        self.events.append(event)


def cut(data: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    """Yield the pieces of `data` cut at these places (any numbers: the length is taken off)."""
    places = sorted({place % (len(data) + 1) for place in cuts})
    yield from (data[a:b] for a, b in pairwise([0, *places, len(data)]))


def ready_for_data(*, normalise: bool = False) -> Drive:
    """A session that waits for a message's bytes."""
    drive = Drive()
    drive.session.normalise = normalise
    drive.feed(b"EHLO shop.example\r\nMAIL FROM:<a@shop.example>\r\nRCPT TO:<b@far.example>\r\n")
    drive.feed(b"DATA\r\n")
    drive.events.clear()
    drive.said.clear()
    return drive
