"""A session under watch: each event is held to the bytes it was made of."""

from tests.mail.driving import Drive, answer
from tests.mail.exhaustive import Reference

from postweir.mail.commands import Misstep
from postweir.mail.smtp_server import (
    AUTH_BYTES_MAX,
    COMMAND_BYTES_MAX,
    Auth,
    AuthAnswer,
    Body,
    BodyEnd,
    Data,
    Event,
    Greet,
    Help,
    Mail,
    Noop,
    Offers,
    Quit,
    Rcpt,
    Reset,
    StartTls,
    State,
    Verify,
)

VERBS: dict[type, tuple[bytes, ...]] = {
    Greet: (b"EHLO", b"HELO"), Mail: (b"MAIL",), Rcpt: (b"RCPT",), Data: (b"DATA",),
    Auth: (b"AUTH",), StartTls: (b"STARTTLS",), Reset: (b"RSET",), Noop: (b"NOOP",),
    Quit: (b"QUIT",), Verify: (b"VRFY",), Help: (b"HELP",),
}  # fmt: skip
LISTENERS = (Data, Auth, AuthAnswer, StartTls)  # who says these waits for the answer


class Watch(Drive):
    """Drives a session and checks it: commands are whole lines, messages are the reference's."""

    def __init__(self, offers: Offers, *, normalise: bool) -> None:
        super().__init__(offers)
        self.session.normalise = normalise
        self._normalise = normalise
        self._unread = b""  # what no event was made of yet
        self._passing = False  # the rest of an overlong line
        self._reference: Reference | None = None
        self._content = b""

    def feed(self, data: bytes) -> "Watch":
        session = self.session
        self._unread += data
        session.receive(data)
        while (event := session.next_event()) is not None:
            read = len(self._unread) - session.buffered
            self._look(event, self._unread[:read])
            self._unread = self._unread[read:]
            if isinstance(event, Body):
                continue
            self.said.append(session.reply(answer(session, event)))
            if isinstance(event, Data) and session.state is State.DATA:
                self._reference, self._content = Reference(self._normalise), b""
            if session.state is State.CLOSED:
                self._unread = b""
        if session.state is State.DATA:
            self._read(self._unread[: len(self._unread) - session.buffered])
            self._unread = b""
        assert session.buffered <= AUTH_BYTES_MAX
        return self

    def _look(self, event: Event, raw: bytes) -> None:
        match event:
            case Body(data=data):
                self._content += data
                self._read(raw)
            case BodyEnd():
                self._read(raw)
                self._over(event)
            case Misstep():
                self._passing = self._passing and b"\r\n" not in raw
                if event.reply.text.endswith("too long") and not raw.endswith(b"\r\n"):
                    self._passing = True
            case _:
                self._command(event, raw)

    def _command(self, event: Event, raw: bytes) -> None:
        if self._passing:
            raw, self._passing = raw.partition(b"\r\n")[2], False
        line = raw[:-2]
        assert raw.endswith(b"\r\n")
        assert b"\r" not in line
        assert b"\n" not in line
        if isinstance(event, LISTENERS):
            assert self.session.buffered == 0, "it spoke before it was answered"
        if isinstance(event, Auth | AuthAnswer):
            assert len(raw) <= AUTH_BYTES_MAX
        else:
            assert len(raw) <= COMMAND_BYTES_MAX
        if not isinstance(event, AuthAnswer):
            assert line.partition(b" ")[0].upper() in VERBS[type(event)]

    def _read(self, raw: bytes) -> None:
        reference = self._reference
        assert reference is not None, "no message is under way"
        for at in range(len(raw)):
            assert reference.place != "over", "the message had ended"
            reference.read(raw[at : at + 1])

    def _over(self, event: BodyEnd) -> None:
        reference, self._reference = self._reference, None
        assert reference is not None
        assert reference.place == "over", "the message has not ended"
        assert self._content == reference.content
        assert event.bare_newline == reference.strays
        assert event.nul == (b"\0" in self._content)
