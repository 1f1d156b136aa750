"""The server's half of SMTP: bytes in, events out, replies in, bytes out.

No socket, no clock, no policy: whoever drives this reads and writes, keeps the deadlines, counts
the missteps and decides the replies. One command is answered before the next is shown, so
pipelined commands wait in the buffer, in order (RFC 2920).

    receive(bytes)  ->  next_event()  ->  reply(Reply)  ->  bytes to send

`Body` alone needs no reply. STEPS says which command may come in which state and where it leads;
only an accepted reply goes there.

Dangers, each met by a rule of this file:
- Two ideas of where a line ends. A command with a bare CR or LF ends the talk; messages are
  `mail.lines`' business.
- Words put in somebody's mouth. What arrives before we answered DATA, AUTH or STARTTLS, with yes
  or no, was not written by one who listens: a browser, or a man in the middle whose plaintext
  would be read as if it had come through TLS (CVE-2011-0411), or it is a message whose bytes are
  no commands. That ends the talk, and so does BDAT, whose chunk waits for no answer; after a
  handshake nothing is remembered of what went before.
- Lines without end. A line is bounded; what is too long is dropped as it arrives.
"""

from enum import Enum, auto

from postweir.mail.commands import (
    FOREIGN,
    UNOFFERED,
    Auth,
    AuthAnswer,
    Body,
    BodyEnd,
    Data,
    Event,
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
    fatal,
    misstep,
    read_base64,
    read_command,
)
from postweir.mail.lines import DataReader
from postweir.mail.reply import LocalFault, RemoteFault, Reply

__all__ = [
    "Auth", "AuthAnswer", "Body", "BodyEnd", "Data", "Event", "Greet", "Help", "Mail", "Misstep",
    "Noop", "Offers", "Quit", "Rcpt", "Reset", "ServerSession", "StartTls", "State", "Verify",
]  # fmt: skip

COMMAND_BYTES_MAX = 2048  # RFC 5321 4.5.3.1.4 says 512, extensions add to it; CRLF counted
AUTH_BYTES_MAX = 12_288  # RFC 4954 4: an answer, and so a command that carries one
VERB_BYTES_MAX = 16  # what is longer is not worth looking up


class State(Enum):
    """Where the talk is."""

    FRESH = auto()  # no HELO yet
    READY = auto()
    MAIL = auto()  # sender known
    RCPT = auto()  # at least one recipient accepted
    DATA = auto()  # inside the message
    AUTH = auto()  # we asked with a 334
    TLS = auto()  # we said 220: the handshake, then `restart`
    CLOSED = auto()


_F, _R, _M, _P = State.FRESH, State.READY, State.MAIL, State.RCPT

# verb: {state it may arrive in: state once we have accepted it}
STEPS: dict[str, dict[State, State]] = {
    "HELO": dict.fromkeys((_F, _R, _M, _P), _R),
    "EHLO": dict.fromkeys((_F, _R, _M, _P), _R),
    "MAIL": {_R: _M},
    "RCPT": {_M: _P, _P: _P},
    "DATA": {_P: State.DATA},
    "AUTH": {_R: _R},  # to State.AUTH by a 334
    "STARTTLS": {_R: State.TLS},
    "RSET": {_F: _F, _R: _R, _M: _R, _P: _R},
    "NOOP": {_F: _F, _R: _R, _M: _M, _P: _P},
    "VRFY": {_F: _F, _R: _R, _M: _M, _P: _P},
    "HELP": {_F: _F, _R: _R, _M: _M, _P: _P},
    "QUIT": dict.fromkeys((_F, _R, _M, _P), State.CLOSED),
}

# The client must hear our answer before it says more (RFC 2920 3.1); to a 334 it answers alone.
SYNCHRONISING = frozenset({"DATA", "AUTH", "STARTTLS"})
TOO_EARLY = fatal(554, "5.5.0", "You spoke before we answered")


class ServerSession:
    """One client's conversation, from the greeting to the goodbye."""

    __slots__ = (
        "_at", "_body_over", "_buffer", "_next", "_reader", "_skipping", "_too_early",
        "_tried", "_unanswered", "_waits", "authenticated", "normalise", "offers", "state", "tls",
    )  # fmt: skip

    def __init__(self, offers: Offers) -> None:
        self.offers = offers
        self.normalise = False  # read when a message begins
        self.tls = False  # by STARTTLS; an offer of it is then over
        self._buffer = b""
        self._at = 0  # what is before has been read
        self._forget()

    def _forget(self) -> None:
        self.state = State.FRESH
        self.authenticated = False
        self._tried = False  # a recipient, in this transaction
        self._reader = DataReader()
        self._body_over = False
        self._skipping = False  # an overlong line is passing by
        self._too_early = False
        self._unanswered: Event | None = None
        self._waits = False  # the client, for the answer to it
        self._next = State.FRESH  # where an accepted reply leads

    @property
    def buffered(self) -> int:
        """Bytes received and not yet read. Stop reading the socket while there are many."""
        return len(self._buffer) - self._at

    def offer(self, offers: Offers) -> None:
        """Offer something else from now on; EHLO is heard again after TLS and AUTH."""
        self.offers = offers

    def restart(self) -> None:
        """Begin anew after the TLS handshake. Raises `RemoteFault` if plaintext is waiting."""
        if self.state is not State.TLS:
            raise LocalFault("no handshake was agreed on")
        if self.buffered:
            raise RemoteFault(TOO_EARLY.reply)
        self._forget()
        self.tls = True

    def receive(self, data: bytes) -> None:
        """Hand over what the socket gave. Events come from `next_event`."""
        if self.state is State.CLOSED or (self.state is State.TLS and self.buffered):
            return  # one piece of plaintext is enough to call the handshake off
        self._buffer = self._buffer[self._at :] + data
        self._at = 0

    def next_event(self) -> Event | None:
        """Return the next event, or None until more bytes arrive."""
        if self._unanswered is not None:
            raise LocalFault(f"answer {self._unanswered} before asking for more")
        if self._too_early:
            return self._show(TOO_EARLY)
        if self.state is State.DATA:
            return self._next_of_body()
        if self._at == len(self._buffer) or self.state in (State.TLS, State.CLOSED):
            return None
        answers = self.state is State.AUTH
        line = self._next_line()
        if line is None:
            return None
        if isinstance(line, Misstep):
            return self._show(line, waits=answers)
        waits = answers or _verb(line) in SYNCHRONISING
        return self._show(self._read(line), waits=waits)

    def reply(self, reply: Reply) -> bytes:
        """Answer what was just shown; return the bytes to send."""
        event, self._unanswered = self._unanswered, None
        if event is None:
            raise LocalFault("there is nothing to answer")
        if self._waits and self.buffered:
            self._too_early = True  # it came while the answer was being thought about
            self.state = State.READY
            return b""
        self._move(event, reply)
        if reply.code == 421:
            self._close()  # RFC 5321 4.2.3: whatever it answers
        return bytes(reply)

    def welcome(self) -> Reply:
        """Return the usual answer to the greeting that was just shown."""
        event = self._unanswered
        if not isinstance(event, Greet):
            raise LocalFault("there is no greeting to answer")
        if event.verb == "HELO":
            return Reply(250, "", self.offers.hostname)
        return Reply(250, "", "\n".join(self._keywords()))

    def _keywords(self) -> list[str]:
        offers = self.offers
        lines = [
            f"{offers.hostname} greets you",
            "PIPELINING",
            f"SIZE {offers.size_max}",
            "8BITMIME",
            "ENHANCEDSTATUSCODES",
        ]
        if offers.starttls and not self.tls:
            lines.append("STARTTLS")
        if offers.auth and not self.authenticated:
            lines.append(f"AUTH {' '.join(offers.auth)}")
        return [*lines, "HELP"]

    def _move(self, event: Event, reply: Reply) -> None:
        """Go where this reply to this event leads."""
        match event:
            case Data():
                if reply.code == 354:
                    self.state = State.DATA
                    self._reader = DataReader(normalise=self.normalise)
            case BodyEnd():
                self._over()  # whatever we answered, the transaction is
            case Misstep():
                if event.fatal:
                    self._close()
            case Auth() | AuthAnswer():
                self.state = State.AUTH if reply.code == 334 else State.READY
                self.authenticated = 200 <= reply.code < 300
            case Quit():
                self._close()
            case _ if reply.accepted:
                if isinstance(event, Greet | Reset):
                    self._over()
                self.state = self._next

    def _over(self) -> None:
        self.state = State.READY
        self._tried = self._body_over = False

    def _close(self) -> None:
        self.state = State.CLOSED
        self._buffer = b""
        self._at = 0
        self._too_early = False

    def _show(self, event: Event, *, waits: bool = False) -> Event:
        if waits and self.buffered:
            event, waits = TOO_EARLY, False
        self._unanswered, self._waits = event, waits
        return event

    def _next_of_body(self) -> Event | None:
        if not self._body_over:
            data = self._buffer[self._at :] if self._at else self._buffer
            if not data:
                return None
            body, end = self._reader.feed(data)
            self._body_over = end >= 0
            self._buffer = data[end:] if end >= 0 else b""
            self._at = 0
            if body:
                return Body(body)
            if not self._body_over:
                return None
        return self._show(BodyEnd(self._reader.bare_newline, self._reader.nul))

    def _next_line(self) -> str | Misstep | None:
        """Take one line off the buffer, without its CRLF; a misstep when it is none."""
        if self._skipping and not self._skipped():
            return None
        start = self._at
        line_bytes_max = COMMAND_BYTES_MAX
        if self.state is State.AUTH or self._buffer[start : start + 5].upper() == b"AUTH ":
            line_bytes_max = AUTH_BYTES_MAX
        end = self._buffer.find(b"\n", start, start + line_bytes_max)
        if end < 0:
            return self._overlong() if self.buffered >= line_bytes_max else None
        self._at = end + 1
        line = self._buffer[start:end].decode("latin-1")
        if not line.endswith("\r") or "\r" in line[:-1]:
            return fatal(500, "5.5.2", "A line ends in CRLF, both or neither")
        return line[:-1]

    def _overlong(self) -> Misstep:
        self._skipping = True
        self._skipped()
        if self.state is State.AUTH:
            self.state = State.READY
            return misstep(500, "5.5.6", "The answer is too long")  # RFC 4954 6
        return misstep(500, "5.5.2", "The line is too long")

    def _skipped(self) -> bool:
        """Drop what there is of the overlong line; True when it is gone."""
        end = self._buffer.find(b"\r\n", self._at)
        if end >= 0:
            self._at = end + 2
            self._skipping = False
        else:
            self._at = len(self._buffer) - self._buffer.endswith(b"\r")
        return end >= 0

    def _read(self, line: str) -> Event:
        if self.state is State.AUTH:
            return self._read_answer(line)
        verb, argument = _verb(line), line.partition(" ")[2]
        steps = STEPS.get(verb)
        if steps is None:
            return _unknown(verb)
        after = steps.get(self.state)
        if after is None:
            return self._out_of_turn(verb)
        if verb in ("AUTH", "STARTTLS") and (refusal := self._unavailable(verb)):
            return refusal
        self._next = after
        self._tried = self._tried or verb == "RCPT"
        return read_command(verb, argument, self.offers)

    def _read_answer(self, line: str) -> Event:
        if line == "*":
            return AuthAnswer(None)
        decoded = read_base64(line)
        if decoded is None:
            self.state = State.READY
            return misstep(501, "5.5.2", "The answer is not base64")
        return AuthAnswer(decoded)

    def _out_of_turn(self, verb: str) -> Misstep:
        if verb == "DATA" and self._tried:
            return misstep(554, "5.5.1", "No valid recipients")
        if self.state is State.FRESH:
            return misstep(503, "5.5.1", "Say EHLO first")
        return misstep(503, "5.5.1", f"{verb} does not belong here")

    def _unavailable(self, verb: str) -> Misstep | None:
        offers = self.offers
        if verb == "STARTTLS":
            if self.tls:
                return misstep(503, "5.5.1", "TLS is on already")
            return None if offers.starttls else misstep(502, "5.5.1", "STARTTLS is not offered")
        if self.authenticated:
            return misstep(503, "5.5.1", "You are known already")  # RFC 4954 4
        if offers.auth:
            return None
        if offers.starttls and not self.tls:
            return misstep(538, "5.7.11", "Say STARTTLS first")
        return misstep(502, "5.5.1", "AUTH is not offered")


def _verb(line: str) -> str:
    verb = line.partition(" ")[0]
    return verb.upper() if len(verb) <= VERB_BYTES_MAX else ""


def _unknown(verb: str) -> Misstep:
    if verb in FOREIGN:
        return fatal(554, "5.5.0", "This is SMTP")
    if verb == "BDAT":  # a chunk follows, or is here
        return fatal(502, "5.5.1", "BDAT is not offered")
    if verb in UNOFFERED:
        return misstep(502, "5.5.1", f"{verb} is not offered")
    return misstep(500, "5.5.1", "Command not known")
