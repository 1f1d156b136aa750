"""Clients: each has a letter, and offers it to some edge until it hears 250."""

import asyncio
import hashlib
import random
from collections.abc import Callable

from tests.simulation.loop import World
from tests.simulation.machine import VERDICTS, Machine, Process
from tests.simulation.oracle import Letter

from postweir.identity.sender import Sender
from postweir.mail.envelope import Envelope, message_id
from postweir.spool.ports import Accept, Safe, Unknown, Unsafe

FLOOD_LETTERS = 24
FAIR_S = 6.0  # one letter of another sender, beside a flood that takes twice as long or more
KINDS = ("ok", "ok", "ok", "ok", "late", "bad", "never")  # what an address does: `remote`
SENDERS = (("acme", "ann"), ("acme", "bob"), ("blue", "cid"))
LIFETIME_S = 172_800  # no life is so long: but the clock may be set


class Clients:
    """All who want something delivered."""

    def __init__(self, world: World, machine: Machine, chance: random.Random) -> None:
        self.world, self.machine, self.chance = world, machine, chance
        self.oracle = machine.oracle
        self.waiting = 0  # letters that are not answered 250 yet
        self.names = 0
        self.on_offer: Callable[[], None] = lambda: None

    def letters(self, within_s: float) -> None:
        """Draw some, each offered at some time."""
        for number in range(self.chance.randint(3, 9)):
            self.world.after(self.chance.random() * within_s, self._offer, self._letter(number))

    def flood(self) -> None:
        """One sender offers more than a slow host takes; another has one letter for it."""
        self.machine.outside.good, self.machine.outside.slow_s = True, 0.3
        for number in range(FLOOD_LETTERS):
            one = Letter(number, (f"ok.{number}.0@d0.example",), "", "acme", "ann", "accept",
                         "accept", LIFETIME_S)  # fmt: skip
            self.oracle.letters.append(one)
            self.world.after(0.5 + self.chance.random() * 0.05, self._offer, one)
        one = Letter(FLOOD_LETTERS, ("ok.one.0@d0.example",), "", "blue", "cid", "accept", "accept",
                     LIFETIME_S, fair_s=FAIR_S)  # fmt: skip
        self.oracle.letters.append(one)
        self.world.after(0.8 + self.chance.random(), self._offer, one)
        self.waiting = len(self.oracle.letters)

    def _letter(self, number: int) -> Letter:
        chance = self.chance
        account, identity = chance.choice(SENDERS)
        recipients = tuple(
            f"{chance.choice(KINDS)}.{number}.{n}@d{chance.randrange(5)}.example"
            for n in range(chance.choice((1, 1, 1, 2, 4)))
        )
        letter = Letter(
            number, recipients, "" if chance.random() < 0.1 else f"ok.from.{number}@d0.example",
            account, identity,
            chance.choice(("accept",) * 6 + ("hold", "pending", "pending")),
            chance.choice(("accept", "accept", "hold", "refuse")),
            chance.choice((1, 2)) if any(r.startswith("never") for r in recipients) else LIFETIME_S,
        )  # fmt: skip
        self.oracle.letters.append(letter)
        self.waiting += 1
        return letter

    def _offer(self, letter: Letter) -> None:
        """The client says it to some edge; it comes again until it hears 250."""
        edges = self.machine.alive("edge")
        letter.tries += 1
        if not edges:
            self.world.after(0.3, self._offer, letter)
            return
        edge = self.chance.choice(edges)
        self.names += 1
        name = message_id(
            at_ms=self.world.wall_us() // 1000, incarnation=edge.incarnation, counter=self.names
        )
        letter.offers[name] = "open"
        self.oracle.by_name[name] = letter
        self.world.note("client", f"offers letter {letter.number} to {edge.name} as {name}")
        edge.loop.create_task(self._submit(edge, letter, name))
        self.on_offer()
        self.world.after(0.5, self._hangs, edge, letter, name)

    def _hangs(self, edge: Process, letter: Letter, name: str) -> None:
        """A client sees a closed connection; it waits as long as the other side lives."""
        if letter.offers[name] != "open":
            return
        if edge.loop.dead:
            self.oracle.answered(letter, name, "cut")
            self._again(letter)
        else:
            self.world.after(0.5, self._hangs, edge, letter, name)

    async def _submit(self, edge: Process, letter: Letter, name: str) -> None:
        answer: Safe | Unsafe | Unknown | None = None  # None: no shard was asked
        if edge.shards is not None:
            try:
                answer = await edge.shards.accept(accept_of(letter, name))
            except Unknown as why:
                answer = why if str(why).startswith("shard ") else None
        await asyncio.sleep(0.002 * self.world.chance.random())
        if isinstance(answer, Safe):
            self.oracle.answered(letter, name, "safe")
            self.waiting -= 1
            return
        self.oracle.answered(letter, name, "unknown" if isinstance(answer, Unknown) else "refused")
        self._again(letter)

    def _again(self, letter: Letter) -> None:
        self.world.after(0.2 + self.chance.random() * 0.5, self._offer, letter)


def accept_of(letter: Letter, name: str) -> Accept:
    body = b"Subject: x\r\n\r\n%d\r\n" % letter.number
    verdict = None if letter.verdict == "pending" else VERDICTS[letter.verdict]
    return Accept(
        ask=0, message=name, by_ns=0, origin="smtp",
        envelope=Envelope(letter.mail_from, letter.recipients, "c.example"),
        sender=Sender(letter.account, "sasl", letter.identity), client="192.0.2.1", tls=True,
        added=b"X-Name: %s\r\n" % name.encode(), body=body, body_file=None, length=len(body),
        check=hashlib.blake2b(body, digest_size=16).digest(), verdict=verdict, reason="",
        facts=b"", lifetime_s=letter.lifetime_s,
    )  # fmt: skip
