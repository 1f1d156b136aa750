"""What one life of a shard is given to do: made from a seed, so that the parent knows all of it."""

import hashlib
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from postweir.identity.sender import Sender
from postweir.mail.envelope import Envelope, message_id
from postweir.mail.reply import Reply
from postweir.policy.verdict import Verdict
from postweir.spool.ports import Accept, Settle

MAILS = 260  # of one life: more than a kill at a usual moment lets it take
FILES = 12  # of them in files of their own
GROUP_MAX = 60  # that arrive together
START_MS = 1_790_000_000_000
ACCEPTED = Verdict("accept", policy="pol_test")
HELD = Verdict("hold", rule="r", policy="pol_test")
REFUSED = Verdict("refuse", rule="r", code="CS", text="Looks like spam.", policy="pol_test")
SENDERS = tuple(
    Sender(account, "sasl", person) for account in ("acme", "bolt") for person in ("joe", "ann")
)
DOMAINS = ("far.example", "near.example", "wide.example")
REPLIES = {
    "delivered": Reply(250, "2.0.0", "Ok"),
    "deferred": Reply(450, "4.2.0", "Come again"),
    "failed": Reply(550, "5.1.1", "No such user"),
}
STEP_OF = {"delivered": "delivered", "deferred": "attempt", "failed": "bounced"}


@dataclass(frozen=True, slots=True)
class Mail:
    """One message as its client knows it."""

    accept: Accept
    body: bytes

    @property
    def name(self) -> str:
        return self.accept.message


@dataclass(frozen=True, slots=True)
class Work:
    """All of one life: groups of messages that arrive together."""

    seed: int
    groups: list[list[Mail]]
    sweeps: bool  # it begins with a look for files that no row names
    closes: bool  # when all is done it ends politely
    log_pages: int  # from which on the log is moved: a life writes some 600

    def mails(self) -> Iterator[Mail]:
        """Return all messages, in the order in which they arrive."""
        for group in self.groups:
            yield from group


def work(seed: int, *, mails: int = MAILS, files: int = FILES) -> Work:
    """Return the life of that seed."""
    chance = random.Random(seed)
    of_files = set(chance.sample(range(mails), files))
    made = [_mail(seed, n, chance, filed=n in of_files) for n in range(mails)]
    groups: list[list[Mail]] = []
    while made:
        size = chance.randint(1, GROUP_MAX)
        groups.append(made[:size])
        del made[:size]
    return Work(
        seed, groups, sweeps=chance.random() < 0.3, closes=chance.random() < 0.5,
        log_pages=chance.choice((50, 150, 2000)),
    )  # fmt: skip


def outcome(recipient: int, attempt: int) -> str:
    """Return what that attempt comes to: the same for all who ask, in every life."""
    luck = zlib.crc32(b"%d %d" % (recipient, attempt)) % 100
    if attempt == 1:
        return "delivered" if luck < 65 else "deferred" if luck < 85 else "failed"
    return "delivered" if luck < 75 else "failed"


def settle(recipient: int, attempt: int) -> Settle:
    """Return that attempt's end, as a delivery worker tells it."""
    what = outcome(recipient, attempt)
    wait_s = 0.0 if what == "deferred" else None
    return Settle(
        recipient, attempt, 0, what, wait_s, REPLIES[what], "192.0.2.9", "mx[192.0.2.5]:25", ""
    )  # fmt: skip


def late_verdict(name: str) -> Verdict:
    """Return what the judge says of a pending message at last."""
    return (ACCEPTED, ACCEPTED, HELD, REFUSED)[zlib.crc32(name.encode()) % 4]


def wish(name: str) -> str:
    """Return what an operator wants of a held message; "" nothing."""
    return ("release", "drop", "")[zlib.crc32(name.encode()) // 4 % 3]


def check_of(body: bytes) -> bytes:
    """Return the hash by which a body is known."""
    return hashlib.blake2b(body, digest_size=16).digest()


def _mail(seed: int, n: int, chance: random.Random, *, filed: bool) -> Mail:
    name = message_id(at_ms=START_MS + seed, incarnation=seed & 0xFFFF, counter=n)
    size = chance.randrange(20_000, 140_000) if filed else chance.randrange(20, 3000)
    at = chance.randrange(len(_text()) - size)
    body = b"Subject: %b\r\n\r\n" % name.encode() + _text()[at : at + size]
    count = 1 if chance.random() < 0.8 else chance.randint(2, 4)
    luck = chance.random()
    verdict = ACCEPTED if luck < 0.84 else None if luck < 0.93 else HELD
    accept = Accept(
        n, name, 0, "smtp",
        Envelope("joe@customer.example", tuple(
            f"{name}-{i}@{chance.choice(DOMAINS)}" for i in range(count)), "mail.customer.example"),
        chance.choice(SENDERS), "192.0.2.1", True, b"Received: by us\r\n",
        None if filed else body, name if filed else None, len(body), check_of(body),
        verdict, "" if verdict else "late", b"facts", 48 * 3600, {}, 1_000_000,
    )  # fmt: skip
    return Mail(accept, body)


@cache
def _text() -> bytes:
    return random.Random(0).randbytes(1 << 20)
