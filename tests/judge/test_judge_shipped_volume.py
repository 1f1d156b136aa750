"""The shipped policy's rules about volume, asked through a judge whose clock stands still.

A judge that has watched for twenty days, and Joe, who wrote on the last five of them: 25 messages
in his busiest hour, to 40 recipients, all known.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.judge.serving import HAM, Judging, asking, judging

from postweir.identity.sender import Account, Directory, Sender, SenderRecord
from postweir.judge.counters import Entry
from postweir.judge.ports import Ask
from postweir.judge.windows import DAY_S, HOUR_S
from postweir.mail.envelope import Envelope
from postweir.policy.verdict import Verdict
from postweir.runtime import clock
from postweir.scan.content import Content

JOE = Sender("acme", "sasl", "joe@example.com")
KNOWN = tuple(f"known{n}@example.org" for n in range(40))
KIM = KNOWN[:1]
PDF = HAM.replace(
    b"Subject: hi\r\n",
    b"Subject: hi\r\nMIME-Version: 1.0\r\nContent-Type: application/pdf; name=invoice.pdf\r\n"
    b"Content-Disposition: attachment; filename=invoice.pdf\r\n"
    b"Content-Transfer-Encoding: base64\r\n",
).replace(b"hello", b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ")  # that is a PNG


def strangers(count: int, tag: str = "") -> tuple[str, ...]:
    return tuple(f"new{tag}{n}@example.org" for n in range(count))


def allowed(sender: Sender = JOE) -> Directory:
    record = SenderRecord(sender.key, "allowed", "known to us", "op", 1)
    return Directory(1, senders={sender.key: record})


class Scene:
    """One judge at a time that we set."""

    def __init__(self, judge: Judging, judges: Any) -> None:
        self.judge, self._judges, self._asked = judge, judges, 0
        self.counters, began_s = judge.counters, judge.service.levels.now_s()
        today = began_s - began_s % DAY_S
        self.now_s = today + 20.5 * DAY_S
        self.counters.since_s = today
        judge.service.levels.now_s = lambda: self.now_s  # type: ignore[method-assign]

    def remember(self, sender: Sender = JOE, *, messages: int = 25, days: int = 5) -> None:
        """Let a sender have written on these days, at noon."""
        for day in range(days, 0, -1):
            then_s = self.now_s - day * DAY_S
            for n in range(messages):
                to = KNOWN if n == 0 else ()
                entry = Entry(then_s, sender.account, sender.key, len(to), 1000, to)
                assert self.counters.count(f"{sender.key} {day} {n}", entry, then_s)
            self.counters.took(sender.account, "example.com", "example.com", then_s)

    def sent(self, count: int = 1, *, size: int = 0, sender: Sender = JOE) -> None:
        """Count so many messages of just now."""
        for _ in range(count):
            self._asked += 1
            entry = Entry(self.now_s, sender.account, sender.key, 0, size)
            assert self.counters.count(f"sent {self._asked}", entry, self.now_s)

    async def ask(
        self, to: Sequence[str] = KIM, *, sender: Sender = JOE, body: bytes = HAM,
        mail_from: str = "joe@example.com", late: bool = False,
    ) -> Verdict:  # fmt: skip
        """Return the verdict on one more message."""
        self._asked += 1
        answer = await self._judges.ask(
            Ask(
                ask=1, message=f"asked {self._asked}", by_ns=clock.monotonic_ns() + 10**10,
                envelope=Envelope(mail_from, tuple(to), "mail.example.com"), sender=sender,
                client="192.0.2.1", tls=True, body=body, body_file=None, late=late,
            ),
            10.0,
        )  # fmt: skip
        assert answer.verdict is not None, answer.reason
        return answer.verdict

    async def taken(self, count: int, **said: Any) -> None:
        """All of so many messages are accepted."""
        for n in range(count):
            verdict = await self.ask(**said)
            assert verdict.verb == "accept", (n, verdict)


@contextlib.asynccontextmanager
async def scene(tmp_path: Path, **how: Any) -> AsyncIterator[Scene]:
    async with judging(tmp_path, **how) as judge, asking(tmp_path) as judges:
        yield Scene(judge, judges)


def short(verdict: Verdict) -> tuple[str, str, str, int]:
    return verdict.verb, verdict.rule, verdict.code, verdict.retry_after_s


async def test_a_burst_of_messages(tmp_path):
    """Four times 25 pass, the next is put off as often as it comes, and an hour later it passes."""
    async with scene(tmp_path) as on:
        on.remember()
        await on.taken(100)

        for _ in range(3):
            assert short(await on.ask()) == ("defer", "burst-messages", "STF", 900)
        on.now_s += HOUR_S + 60
        await on.taken(1)


async def test_a_burst_is_measured_by_what_is_usual(tmp_path):
    """Who sent 50 in an hour may send 200."""
    async with scene(tmp_path) as on:
        on.remember(messages=50)
        on.sent(199)
        await on.taken(1)

        assert (await on.ask()).rule == "burst-messages"


async def test_two_days_are_no_history(tmp_path):
    """What is usual is not known yet, so nothing is unusual."""
    async with scene(tmp_path) as on:
        on.remember(days=2)
        on.sent(100)
        await on.taken(3)


async def test_a_burst_of_recipients(tmp_path):
    """Two hundred of people it knows, in an hour, and not one more."""
    async with scene(tmp_path) as on:
        on.remember()
        await on.taken(5, to=KNOWN)

        assert short(await on.ask()) == ("defer", "burst-recipients", "STF", 900)


async def test_a_burst_of_new_recipients(tmp_path):
    """Four times its forty, when that is more than a hundred; those it knows go on."""
    async with scene(tmp_path) as on:
        on.remember()
        await on.taken(1, to=strangers(90, "a"))
        await on.taken(1, to=strangers(70, "b"))

        verdict = await on.ask(strangers(1, "c"))
        assert short(verdict) == ("defer", "burst-new-recipients", "STF", 900)
        await on.taken(1)


async def test_a_burst_of_bytes(tmp_path):
    """Two hundred million, and then the next small letter waits."""
    async with scene(tmp_path) as on:
        on.remember()
        on.sent(size=200_000_000 - len(HAM))
        await on.taken(1)

        assert short(await on.ask()) == ("defer", "burst-bytes", "TMD", 900)


async def test_an_allowed_sender_may_burst(tmp_path):
    """A person has said so: of messages, recipients, people it does not know, and bytes."""
    async with scene(tmp_path, directory=allowed()) as on:
        on.remember()
        on.sent(500, size=10**6)
        for tag in "abcde":
            await on.taken(1, to=strangers(90, tag))


async def test_the_accounts_limit(tmp_path):
    """The thousand-and-first of an hour waits, of each sender; the limit is a setting."""
    directory = Directory(1, {"acme": Account("acme", sender_messages_1h=7)})
    async with scene(tmp_path, directory=directory) as on:
        await on.taken(7)

        assert short(await on.ask()) == ("defer", "sender-over-limit", "STF", 900)
        await on.taken(1, sender=Sender("acme", "sasl", "kim"))


@pytest.mark.parametrize(
    ("unknown", "delivered", "verb"),
    [(31, 123, "defer"), (31, 124, "accept"), (30, 0, "accept"), (500, 1999, "defer")],
)
async def test_recipients_that_do_not_exist(tmp_path, unknown, delivered, verb):
    """More than thirty of a day, and more than one for four that arrived."""
    async with scene(tmp_path) as on:
        on.sent()
        for kind, count in (("unknown", unknown), ("delivered", delivered)):
            for _ in range(count):
                on.counters.came_of(kind, "acme", JOE.key, on.now_s, on.now_s)

        verdict = await on.ask()
        assert verdict.verb == verb
        assert verb == "accept" or short(verdict)[1:] == ("recipients-unknown", "BR", 3600)


async def test_a_young_sender(tmp_path):
    """Three hundred new recipients in its first hours; the same a week later is no matter."""
    async with scene(tmp_path) as on:
        for tag in "abc":
            await on.taken(1, to=strangers(100, tag))

        verdict = await on.ask(strangers(1, "d"))
        assert short(verdict) == ("defer", "young-sender", "STF", 900)
        on.now_s += 7 * DAY_S
        for tag in "efgh":
            await on.taken(1, to=strangers(100, tag))


@pytest.mark.parametrize(
    ("sender", "burst", "wait_s", "rule", "code"),
    [
        (Sender("acme", "account", "192.0.2.1"), 100, 6, "identity-missing", "WHO"),
        (Sender("acme", "forwarded", "192.0.2.1"), 200, 3, "forwarded-flood", "STF"),
    ],
)
async def test_floods_without_a_sender_of_ours(tmp_path, sender, burst, wait_s, rule, code):
    """The burst passes, then one each few seconds, which the reply says; others are not slowed."""
    async with scene(tmp_path) as on:
        await on.taken(burst, sender=sender)

        for _ in range(2):
            assert short(await on.ask(sender=sender)) == ("throttle", rule, code, wait_s)
            on.now_s += wait_s
            await on.taken(1, sender=sender)
        await on.taken(burst)
        assert (await on.ask(sender=sender)).retry_after_s == wait_s
        on.now_s += HOUR_S + 60
        await on.taken(burst, sender=sender)


async def test_bounces_and_allowed_servers_are_not_throttled(tmp_path):
    """A bounce has no sender; and a person may have said that a server names none."""
    server = Sender("acme", "account", "192.0.2.1")
    async with scene(tmp_path, directory=allowed(server)) as on:
        await on.taken(150, sender=server)
        await on.taken(150, sender=Sender("acme", "account", "<>"), mail_from="")


async def test_a_from_that_is_not_the_accounts(tmp_path):
    """Refused where domains were declared; not for bounces, forwarded mail, or who is allowed."""
    declared = {"acme": Account("acme", domains=("example.net",))}
    async with scene(tmp_path, directory=Directory(1, declared, senders=allowed().senders)) as on:
        kim = Sender("acme", "sasl", "kim")
        verdict = await on.ask(sender=kim)
        assert short(verdict) == ("refuse", "from-not-the-accounts", "FROM", 0)
        own = HAM.replace(b"a@example.com", b"a@shop.example.net")
        await on.taken(1, sender=kim, body=own)
        await on.taken(1, sender=kim, mail_from="")
        await on.taken(1, sender=Sender("acme", "forwarded", "192.0.2.1"))
        await on.taken(1)


async def test_a_new_from_to_many_strangers(tmp_path):
    """Held for an operator: a domain that this account never used, to more than a hundred."""
    new = HAM.replace(b"a@example.com", b"ceo@bank.example")
    async with scene(tmp_path) as on:
        on.remember()
        await on.taken(1, to=strangers(100, "a"), body=new)

        verdict = await on.ask(strangers(1, "b"), body=new)
        assert short(verdict)[:2] == ("hold", "from-new-to-strangers")
        await on.taken(1, to=strangers(1, "b"))


async def test_an_attachment_to_strangers(tmp_path):
    """What is not what it says goes to twenty, and is held for the next; a friend gets it."""
    async with scene(tmp_path) as on:
        on.remember()
        await on.taken(1, to=strangers(20), body=PDF)
        assert short(await on.ask(strangers(1, "b"), body=PDF))[:2] == (
            "hold", "attachment-to-strangers",
        )  # fmt: skip
        await on.taken(1, to=strangers(1, "b"))


async def test_what_nobody_read_is_held(tmp_path):
    """A message of which the header could not be read is for an operator, not let go."""
    async with scene(tmp_path, scanners=[Content()]) as on:
        verdict = await on.ask(late=True)

        assert short(verdict)[:2] == ("hold", "unread")
