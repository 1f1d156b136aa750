"""What both ends of an installation say: every 250 with its hash, and every delivered hash."""

import asyncio
import contextlib
import hashlib
import random
import smtplib
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from demo.sink import Received, Sink, Site, World
from tests.harness import Load

from postweir.mail.reply import Reply

FIRST = b"X-Token: "  # our first line: all before it was added on the way
ADDED = (b"Received:", b"X-Postweir-", b" ", b"\t")
CUSTOMER = "joe@customer.example"
DOMAINS = ("fine.example", "far.example", "grey.near.example", "wide.example")
SIZES = (300, 300, 1500, 1500, 5000, 12_000, 12_000, 90_000)  # some in files of their own
RECIPIENTS = (1, 1, 1, 2, 3, 7)
DEAD_SHARE = 0.04  # of messages: one recipient of theirs is refused, and a bounce is due
BOUNCE = "bounce"  # stands for the recipient of the bounce that a message must have
SLOW_S = 0.1  # every third connection to the world waits so long before it even looks
REPLY_S = 0.02  # what every host takes to say that it has a message
LINGER_S = 1.0  # what a dead worker had written may be read by the world so much later


@dataclass(frozen=True, slots=True)
class Sent:
    """One message as the customer sent it."""

    recipients: tuple[str, ...]
    check: bytes

    @property
    def due(self) -> tuple[str, ...]:
        """What must come of it: each recipient once, of a dead one a bounce."""
        return tuple(BOUNCE if r.startswith("dead@") else r for r in self.recipients)


@dataclass(frozen=True, slots=True)
class Came:
    """One recipient of one message as the world got it. Without `check` it is a bounce."""

    at_s: float
    token: str
    recipient: str
    check: bytes = b""


@dataclass(frozen=True, slots=True)
class Timed:
    """One transaction as the customer felt it. `code` is 0 when the connection was lost."""

    began_s: float
    took_s: float
    code: int
    port: int  # the customer's


@dataclass(frozen=True, slots=True)
class Death:
    """A delivery worker's end, between two moments: what it had in hand may come again."""

    from_s: float
    to_s: float


def check_of(content: bytes) -> bytes:
    """Return the hash of a message's bytes."""
    return hashlib.blake2b(content, digest_size=16).digest()


@dataclass(slots=True)
class Witness(World):
    """The world, which keeps only who got which hash."""

    came: list[Came] = field(default_factory=list)

    def message(self, received: Received) -> Reply:
        """Write down one message, then take it."""
        now_s, content = time.monotonic(), received.content
        at = content.find(FIRST)
        token = content[at + len(FIRST) :].partition(b"\r\n")[0].decode("ascii", "replace")
        if not received.mail_from:
            self.came.append(Came(now_s, token, BOUNCE))
        else:
            lines = content[: max(at, 0)].split(b"\r\n")[:-1]
            whole = at >= 0 and all(line.startswith(ADDED) for line in lines)
            check = check_of(content[at:]) if whole else b"spoilt"
            self.came += [Came(now_s, token, r, check) for r in received.recipients]
        return Reply(250, "2.0.0", "Taken")


class SlowSite(Site):
    """A connection to a host that thinks before each answer."""

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(SLOW_S, super().data_received, data)


class Hosts(Sink):
    """The world on a port: every third connection is slow, so that much is in hand at a time."""

    def open(self, port: int) -> None:
        """Answer on a loopback port."""
        count = 0

        def site() -> Site:
            nonlocal count
            count += 1
            return (Site if count % 3 else SlowSite)(self.world)

        made = self._loop.create_server(site, "127.0.0.1", port)
        self._servers[port] = asyncio.run_coroutine_threadsafe(made, self._loop).result(10)


@dataclass
class Customers(Load):
    """A load of every kind of message, and the customer's own record of it."""

    seed: int = 0
    sent: dict[str, Sent] = field(default_factory=dict)
    timed: list[Timed] = field(default_factory=list)

    def send_one(self, smtp: smtplib.SMTP, token: str) -> None:
        """Send one message and write down what came of it."""
        recipients, content = letter_of(self.seed, token)
        self.sent[token] = Sent(recipients, check_of(content))
        assert smtp.sock is not None
        port, began_s, code = smtp.sock.getsockname()[1], time.monotonic(), 0
        try:
            if not self._announce(smtp, recipients):
                return
            self.unknown.add(token)
            smtp.send(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
            code, said = smtp.getreply()
            self.unknown.discard(token)
            if code == 250:
                self.promised[token] = said.decode().rpartition(" ")[2]
            else:
                self.turned_away[token] = code
                self.refused[code] += 1
        finally:
            self.timed.append(Timed(began_s, time.monotonic() - began_s, code, port))

    def _announce(self, smtp: smtplib.SMTP, recipients: Sequence[str]) -> bool:
        """Say the envelope in one write; False when it is not taken."""
        lines = [f"MAIL FROM:<{CUSTOMER}>", *(f"RCPT TO:<{r}>" for r in recipients)]
        smtp.send("".join(f"{line}\r\n" for line in lines).encode())
        codes = [smtp.getreply()[0] for _ in lines]
        if all(code == 250 for code in codes):
            code, _ = smtp.docmd("DATA")
            if code == 354:
                return True
            codes.append(code)
        self.refused[max(codes)] += 1
        smtp.rset()
        return False


def letter_of(seed: int, token: str) -> tuple[tuple[str, ...], bytes]:
    """Return recipients and bytes of one message."""
    chance = random.Random(f"{seed} {token}")
    recipients = [
        f"kim-{n}-{token}@{chance.choice(DOMAINS)}" for n in range(chance.choice(RECIPIENTS))
    ]
    if chance.random() < DEAD_SHARE:
        recipients[-1] = f"dead@{DOMAINS[0]}"
    text = chance.randbytes(chance.choice(SIZES) // 2).hex()
    lines = [text[at : at + 74] for at in range(0, len(text), 74)]
    if chance.random() < 0.2:
        lines[0] = "." + lines[0]  # which must be stuffed on every way
    head = (
        f"X-Token: {token}\r\nFrom: <{CUSTOMER}>\r\nTo: <{recipients[0]}>\r\nSubject: {token}\r\n"
        f"Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{token}@customer.example>\r\n\r\n"
    )
    return tuple(recipients), "".join([head, *(f"{line}\r\n" for line in lines)]).encode()


@dataclass(slots=True)
class Found:
    """What a look at both records came to."""

    lost: int = 0
    torn: int = 0
    doubled: int = 0
    notes: list[str] = field(default_factory=list)

    def note(self, text: str, *, lost: int = 0, torn: int = 0, doubled: int = 0) -> None:
        """Count a fault and say what it is."""
        self.lost += lost
        self.torn += torn
        self.doubled += doubled
        if text and len(self.notes) < 20:
            self.notes.append(text)


class Reckoning:
    """Holds what came against what was promised."""

    def __init__(self, came: list[Came], *, in_hand_max: int) -> None:
        self._came, self._in_hand_max = came, in_hand_max
        self._read = 0
        self._last: dict[tuple[str, str], float] = {}  # when it came last
        self._spoilt: list[Came] = []
        self._again: list[tuple[str, str, float, float]] = []  # what, which, and between when
        self.sent: dict[str, Sent] = {}

    @property
    def recipients(self) -> int:
        """How many recipients have got theirs, once each."""
        return len(self._last)

    def take(self, sent: dict[str, Sent]) -> None:
        """Read what has come since the last look."""
        self.sent |= sent
        for one in self._came[self._read :]:
            self._read += 1
            known = self.sent.get(one.token)
            if known is None or one.recipient not in known.due:
                self._spoilt.append(one)
                continue
            if one.recipient != BOUNCE and one.check != known.check:
                self._spoilt.append(one)
            before_s = self._last.get((one.token, one.recipient))
            if before_s is not None:
                self._again.append((one.token, one.recipient, before_s, one.at_s))
            self._last[(one.token, one.recipient)] = one.at_s

    def missing(self, tokens: Iterable[str]) -> list[str]:
        """Return of these messages those that some recipient has not got."""
        return [
            token
            for token in tokens
            if any((token, due) not in self._last for due in self.sent[token].due)
        ]

    def uninvited(self, load: Customers) -> Counter[int]:
        """Count what came although it was not answered 250: by code, 0 where none was heard."""
        came = {token for token, _ in self._last}
        return Counter(
            {0: len(came & load.unknown)}
            | Counter(code for token, code in load.turned_away.items() if token in came)
        )

    def judge(self, load: Customers, deaths: Sequence[Death], found: Found) -> None:
        """Count what is lost, torn and doubled beyond what these deaths allow."""
        lost = self.missing(load.promised)
        if lost:
            found.note(f"{len(lost)} lost, such as {lost[:3]}", lost=len(lost))
        for one in self._spoilt:
            found.note(f"{one.token} came spoilt to {one.recipient}", torn=1)
        self._spoilt.clear()
        left = dict.fromkeys(deaths, self._in_hand_max)
        allowed = 0
        for token, recipient, before_s, at_s in self._again:
            why = next((d for d in deaths if left[d] and _explains(d, before_s, at_s)), None)
            if why is not None:
                left[why] -= 1
                allowed += 1
                continue
            found.note(f"{token} came again to {recipient} after {at_s - before_s:.2f} s "
                       f"({load.promised.get(token, 'no 250')})", doubled=1)  # fmt: skip
        self._again.clear()
        if allowed:
            found.note(f"{allowed} doubled as a delivery's death allows")


def _explains(death: Death, before_s: float, at_s: float) -> bool:
    return death.from_s <= at_s and death.to_s >= before_s - LINGER_S


def letting(seconds: float) -> None:
    """Let the load go on for a moment: when exactly a blow falls is chance, by its seed."""
    with contextlib.suppress(InterruptedError):
        time.sleep(seconds)
