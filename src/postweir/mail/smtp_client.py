"""The client's half of SMTP on one connection: greeting, TLS, one transaction after another.

No socket, no clock. Whoever drives this writes what the methods return and what `outgoing` holds
after each `receive`, keeps the deadlines (by `stage`), and shakes hands when it is told `TlsNow`.

    receive(bytes)  ->  outgoing(): write it  ->  next_event() until None
    Ready  ->  send(Transaction)  ->  ... GoAhead: write all of content() ...  ->  Done  ->  send

The remote is as hostile as any client: its replies are bounded and made printable, and a reply
that nobody asked for, or that comes before it was asked for, ends the connection. Every recipient
gets exactly one reply, whatever happens: `Done` always comes before `Lost`, and who has no answer
yet is told to try again, never that it failed for good. A reply is judged by its first digit,
RFC 5321 4.2.1.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum, auto
from types import MappingProxyType

from postweir.mail.lines import LONE_DOT, is_canonical, stuffed
from postweir.mail.replies import ReplyReader
from postweir.mail.reply import LocalFault, Reply
from postweir.runtime.frames import Value

KEYWORDS_MAX = 100  # of an EHLO answer; nobody has a third of it


class Stage(Enum):
    """What we wait for; the driver's deadlines go by it (RFC 5321 4.5.3.2)."""

    GREETING = auto()
    HELO = auto()  # EHLO too
    STARTTLS = auto()
    HANDSHAKE = auto()  # the driver's: then `secured`
    READY = auto()  # nothing: idle
    RSET = auto()
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    CONTENT = auto()  # the driver's: all of `content` written
    FINAL = auto()  # the reply that decides who owns the message
    QUIT = auto()
    CLOSED = auto()


class Transaction(Value, frozen=True):
    """One message for some recipients of one site."""

    mail_from: str
    recipients: tuple[str, ...]
    size: int  # bytes of the content; 0 when not known
    eight_bit: bool  # as its sender declared
    content: Iterable[bytes]  # whole CRLF lines when joined, dots not stuffed
    ascii: bool | None = None  # what a look through it found, strays too; None: look here


class Ready(Value, frozen=True):
    """Greeted: `send` may be called. Extensions by upper-case keyword."""

    extensions: Mapping[str, str]


class TlsNow(Value, frozen=True):
    """Shake hands, then call `secured`."""


class Replied(Value, frozen=True):
    """The remote answered a command; for the log."""

    stage: Stage
    reply: Reply
    recipient: int | None  # index into the transaction's recipients


class GoAhead(Value, frozen=True):
    """Write all of `content()`."""


class Done(Value, frozen=True):
    """The transaction is over: a reply for each recipient, in order."""

    replies: tuple[Reply, ...]


class Lost(Value, frozen=True):
    """The connection is of no more use: close it. After `quit` this is what is expected."""

    reply: Reply


Event = Ready | TlsNow | Replied | GoAhead | Done | Lost


class ClientSession:
    """One connection to one host, from its greeting to our QUIT."""

    def __init__(self, hostname: str, *, want_tls: bool) -> None:
        self.tls = False
        self.extensions: Mapping[str, str] = MappingProxyType({})
        self._hostname = hostname
        self._want_tls = want_tls
        self._extended = True  # we said EHLO, not HELO
        self._reader = ReplyReader()
        self._asked: deque[tuple[Stage, int | None]] = deque([(Stage.GREETING, None)])
        self._events: deque[Event] = deque()
        self._out: list[bytes] = []
        self._unsaid = 0  # of `_asked`: the driver has not fetched them yet
        self._idle = Stage.GREETING  # what we are at when no reply is due
        self._reset_first = False  # the remote may be inside a transaction we gave up
        self._transaction: Transaction | None = None
        self._replies: list[Reply | None] = []  # a refusal, or in the end the final reply
        self._taken: list[int] = []  # recipients that were accepted
        self._refused_mail: Reply | None = None

    @property
    def stage(self) -> Stage:
        """What we wait for."""
        return self._asked[0][0] if self._asked else self._idle

    def receive(self, data: bytes) -> None:
        """Hand over what the socket gave."""
        if self._closed or not data:
            return
        if self._idle is Stage.HANDSHAKE:
            self._fault("It spoke in plaintext after its consent to TLS")
            return
        self._reader.feed(data)
        while not self._closed and (reply := self._reader.next_reply()) is not None:
            self._take(reply)
        if self._reader.fault and not self._closed:
            self._fault(self._reader.fault)

    def next_event(self) -> Event | None:
        """Return the next event, or None until more bytes arrive."""
        return self._events.popleft() if self._events else None

    def outgoing(self) -> bytes:
        """Return what is to be written now, once."""
        out = b"".join(self._out)
        self._out.clear()
        self._unsaid = 0
        return out

    def secured(self) -> bytes:
        """Begin anew inside TLS: what was said before counts for nothing (RFC 3207 4.2)."""
        if self._idle is not Stage.HANDSHAKE:
            raise LocalFault("no handshake was agreed on")
        self.tls = True
        self.extensions = MappingProxyType({})
        self._idle = Stage.READY
        self._ask(Stage.HELO, f"EHLO {self._hostname}")
        return self.outgoing()

    def send(self, transaction: Transaction) -> bytes:
        """Begin a transaction; return what to write. It ends in `Done`, at once where it must."""
        if self.stage is not Stage.READY:
            raise LocalFault(f"not ready, but at {self.stage.name}")
        _check(transaction)
        self._transaction = transaction
        self._replies = [None] * len(transaction.recipients)
        self._taken = []
        self._refused_mail = None
        refusal = self._unfit(transaction)
        if refusal:
            self._done(refusal)
            return b""
        if self._reset_first:
            self._reset_first = False
            self._ask(Stage.RSET, "RSET")
            if not self._pipelining:
                return self.outgoing()
        self._begin(transaction)
        return self.outgoing()

    def content(self) -> Iterator[bytes]:
        """Yield what to write after `GoAhead`, as fast as the remote takes it."""
        if self._idle is not Stage.CONTENT or self._transaction is None:
            raise LocalFault("the remote did not ask for the message")
        yield from stuffed(self._transaction.content)
        if self._idle is Stage.CONTENT:  # or the remote has broken in meanwhile
            # Before the dot is handed out: the reply may be here before we are asked for more.
            self._idle = Stage.READY
            self._asked.append((Stage.FINAL, None))
            yield LONE_DOT

    def quit(self) -> bytes:
        """Say goodbye, between transactions; `Lost` follows."""
        if self.stage is not Stage.READY:
            raise LocalFault(f"not ready, but at {self.stage.name}")
        self._ask(Stage.QUIT, "QUIT")
        return self.outgoing()

    def end(self, reply: Reply) -> None:
        """The connection broke, or a deadline passed: `reply` is for those who have none yet.

        After the content was written and before the final reply, the remote may have the message
        all the same; a reply here is transient, so it may come twice and is never lost.
        """
        if not self._closed:
            self._lose(reply)

    @property
    def _closed(self) -> bool:
        return self._idle is Stage.CLOSED

    @property
    def _pipelining(self) -> bool:
        return "PIPELINING" in self.extensions

    def _ask(self, stage: Stage, command: str, recipient: int | None = None) -> None:
        self._out.append(f"{command}\r\n".encode("ascii"))
        self._asked.append((stage, recipient))
        self._unsaid += 1

    def _unfit(self, transaction: Transaction) -> Reply | None:
        """Return why this host cannot have the message, when its own words say so."""
        size_max = self.extensions.get("SIZE", "")
        if size_max.isdecimal() and len(size_max) <= 20 and 0 < int(size_max) < transaction.size:
            return Reply(552, "5.3.4", f"The host takes messages of {int(size_max)} bytes at most")
        if "8BITMIME" not in self.extensions and not _is_ascii(transaction):
            return Reply(554, "5.6.3", "The message is 8-bit and the host takes 7-bit only")
        return None

    def _begin(self, transaction: Transaction) -> None:
        words = [f"MAIL FROM:<{transaction.mail_from}>"]
        if "SIZE" in self.extensions and transaction.size:
            words.append(f"SIZE={transaction.size}")
        if "8BITMIME" in self.extensions and (transaction.eight_bit or not _is_ascii(transaction)):
            words.append("BODY=8BITMIME")
        self._ask(Stage.MAIL, " ".join(words))
        if self._pipelining:
            for index in range(len(transaction.recipients)):
                self._ask_recipient(index)
            self._ask(Stage.DATA, "DATA")

    def _ask_recipient(self, index: int) -> None:
        assert self._transaction is not None
        self._ask(Stage.RCPT, f"RCPT TO:<{self._transaction.recipients[index]}>", index)

    def _take(self, reply: Reply) -> None:
        """Take the next reply: it answers what was asked first."""
        if len(self._asked) <= self._unsaid:
            # Before it has even heard us: whose words are these, and what do they answer?
            if reply.code == 421:
                self._lose(reply)
            else:
                self._fault(f"It answered what nobody asked: {reply}")
            return
        stage, recipient = self._asked.popleft()
        if self._transaction is not None or stage is Stage.RSET:
            self._events.append(Replied(stage, reply, recipient))
        if reply.code == 421 and stage is not Stage.QUIT:
            self._lose(reply)
            return
        if 300 <= reply.code < 400 and stage is not Stage.DATA:
            self._fault(f"It asked for more where there is none: {reply}")
            return
        self._STEPS[stage](self, reply, recipient)

    def _greeted(self, reply: Reply, _: int | None) -> None:
        if not reply.accepted:
            self._lose(reply)
            return
        self._idle = Stage.READY
        self._ask(Stage.HELO, f"EHLO {self._hostname}")

    def _helo(self, reply: Reply, _: int | None) -> None:
        if not reply.accepted:
            if self._extended and not reply.transient and not self.tls:
                self._extended = False  # RFC 5321 3.2: a host of old
                self._ask(Stage.HELO, f"HELO {self._hostname}")
            else:
                self._lose(reply)
            return
        self.extensions = _extensions(reply.text) if self._extended else MappingProxyType({})
        if self._want_tls and not self.tls and "STARTTLS" in self.extensions:
            self._ask(Stage.STARTTLS, "STARTTLS")
        else:
            self._events.append(Ready(self.extensions))

    def _starttls(self, reply: Reply, _: int | None) -> None:
        if not reply.accepted:
            self._events.append(Ready(self.extensions))  # opportunistic: go on without
        elif self._reader.buffered:
            # What came with the 220 is not protected and would be read as if it were.
            self._fault("It spoke in plaintext after its consent to TLS")
        else:
            self._idle = Stage.HANDSHAKE
            self._events.append(TlsNow())

    def _reset(self, reply: Reply, _: int | None) -> None:
        if not reply.accepted:
            self._lose(reply)
        elif not self._pipelining and self._transaction is not None:
            self._begin(self._transaction)

    def _mail(self, reply: Reply, _: int | None) -> None:
        if not reply.accepted:
            self._refused_mail = reply
        if self._pipelining:
            return
        if self._refused_mail:
            self._done(reply)
        else:
            self._ask_recipient(0)

    def _rcpt(self, reply: Reply, recipient: int | None) -> None:
        assert self._transaction is not None
        assert recipient is not None
        if reply.accepted:
            self._taken.append(recipient)
        else:
            self._replies[recipient] = reply
        if self._pipelining:
            return
        if recipient + 1 < len(self._transaction.recipients):
            self._ask_recipient(recipient + 1)
        elif self._taken:
            self._ask(Stage.DATA, "DATA")
        else:
            self._reset_first = True
            self._done(None)

    def _data(self, reply: Reply, _: int | None) -> None:
        if reply.code < 300:
            self._fault(f"It took a message that it has not seen: {reply}")
        elif not reply.accepted:
            self._reset_first = True
            self._done(reply)
        elif self._taken and not self._refused_mail:
            self._idle = Stage.CONTENT
            self._events.append(GoAhead())
        else:
            # RFC 2920 3.1: no recipient, and yet it waits for the message: there is none.
            self._out.append(LONE_DOT)
            self._asked.append((Stage.FINAL, None))
            self._unsaid += 1
            self._taken = []

    def _final(self, reply: Reply, _: int | None) -> None:
        self._done(reply if self._taken else None)

    def _bye(self, reply: Reply, _: int | None) -> None:
        self._lose(reply)

    _STEPS = {
        Stage.GREETING: _greeted,
        Stage.HELO: _helo,
        Stage.STARTTLS: _starttls,
        Stage.RSET: _reset,
        Stage.MAIL: _mail,
        Stage.RCPT: _rcpt,
        Stage.DATA: _data,
        Stage.FINAL: _final,
        Stage.QUIT: _bye,
    }

    def _done(self, others: Reply | None) -> None:
        """End the transaction; `others` is for those who have no reply of their own."""
        if self._refused_mail:
            # What a host says of recipients after it refused the sender (503) is about nothing.
            self._replies, others = [None] * len(self._replies), self._refused_mail
        replies = [reply or others for reply in self._replies]
        assert None not in replies, "a recipient without a reply"
        self._events.append(Done(tuple(reply for reply in replies if reply)))
        self._transaction = None
        self._replies = []

    def _fault(self, what: str) -> None:
        self._lose(Reply(451, "4.5.0", f"The host broke the protocol. {what}"))

    def _lose(self, reply: Reply) -> None:
        if self._transaction is not None:
            self._done(_transient(reply))
        self._idle = Stage.CLOSED
        self._asked.clear()
        self._out.clear()
        # What asks to go on is void when the end came in the same packet.
        void = (Ready, TlsNow, GoAhead)
        self._events = deque(event for event in self._events if not isinstance(event, void))
        self._events.append(Lost(reply))


def _transient(reply: Reply) -> Reply:
    """Return a reply that says try again: the end of a connection decides about nobody."""
    return reply if reply.transient else Reply(451, "4.4.2", f"The connection ended: {reply}")


def _is_ascii(transaction: Transaction) -> bool:
    if transaction.ascii is not None:
        return transaction.ascii
    return all(piece.isascii() for piece in transaction.content)


def _extensions(text: str) -> Mapping[str, str]:
    """Return the keywords of an EHLO answer; its first line is the host's name."""
    lines = text.split("\n")[1 : KEYWORDS_MAX + 1]
    pairs = (line.strip(" ").partition(" ") for line in lines)
    return MappingProxyType({key.upper(): value for key, _, value in pairs if key})


def _check(transaction: Transaction) -> None:
    """Raise `LocalFault` for what was to be refused when the message came."""
    if not transaction.recipients:
        raise LocalFault("a transaction needs recipients")
    for address in (transaction.mail_from, *transaction.recipients):
        if not (address.isascii() and address.isprintable()):
            raise LocalFault("an address would end its line")
    if transaction.ascii is None and not is_canonical(transaction.content):
        raise LocalFault("the message has a stray CR or LF, or no end to its last line")
