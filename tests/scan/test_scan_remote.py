"""A scanner that is another program may be dead, slow or lying: that is a finding, and no more."""

import asyncio
import threading

import pytest

from postweir.runtime.log import quiet
from postweir.scan import remote as remotes
from postweir.scan.content import GTUBE, Content
from postweir.scan.finding import Finding, Seen
from postweir.scan.panel import Panel
from postweir.scan.remote import FAULTS_TO_OPEN, About, Asked, Unsound, sound

SPAM = b"Subject: x\r\n\r\n" + GTUBE
LOOKS = Seen(
    [Finding("liar", "phishing", "a\x1bb", 0.5, "9")],
    {"fake.known": True, "fake.score": 1.5, "fake.symbols": ["A"]},
)


class Fake:
    """A remote scanner that does as it is told."""

    name, version, bytes_max = "fake", "3", 1000
    facts = {"fake.known": bool, "fake.score": float, "fake.symbols": list}

    def __init__(self, answer=LOOKS, wait_s=0.0):
        self.answer, self.wait_s = answer, wait_s
        self.asked = self.now = self.most = 0
        self.heard = None

    async def look(self, body, about, wait_s):
        self.asked += 1
        self.now += 1
        self.most = max(self.most, self.now)
        self.heard = (body, about)
        try:
            await asyncio.sleep(self.wait_s)
        finally:
            self.now -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Log:
    """Notes which lines were written."""

    def __init__(self):
        self.lines = []

    def warning(self, event, **_):
        self.lines.append(event)

    info = warning


@pytest.fixture
def panel():
    made = []

    def make(*fakes, log=None):
        made.append(Panel([Content()], log or quiet(), fakes))
        return made[-1]

    yield make
    for one in made:
        one.close()


def kinds(found):
    return [(f.scanner, f.kind) for f in found.findings]


async def idle(asked):
    """Wait until it is asked nothing more."""
    async with asyncio.timeout(5):
        while asked._looks:  # noqa: ASYNC110 - the last one ends soon
            await asyncio.sleep(0)


async def test_it_is_asked_beside_our_own(panel):
    """What both saw is there, and it heard whose message it is; its finding has its own name."""
    fake = Fake()
    both = panel(fake)

    assert not both.may_look_now(SPAM)
    found = await both.examine(SPAM, 5.0, "acme", About(account="acme", helo="x"))

    assert kinds(found) == [("content", "spam"), ("fake", "phishing")]
    assert found.findings[1].what == "a?b"
    assert found.measures == LOOKS.measures
    assert fake.heard == (SPAM, About(account="acme", helo="x"))
    assert not found.cut


async def test_a_body_in_a_file(panel, tmp_path):
    """It is read for it; one that is too large for it, it is not asked about."""
    path = tmp_path / "body"
    path.write_bytes(SPAM)
    large = tmp_path / "large"
    large.write_bytes(SPAM + b"x" * 1000)
    fake = Fake()
    both = panel(fake)

    assert ("fake", "phishing") in kinds(await both.examine(path, 5.0))
    assert ("fake", "unavailable") in kinds(await both.examine(large, 5.0))
    assert ("fake", "unavailable") in kinds(await both.examine(SPAM + b"x" * 1000, 5.0))
    assert fake.asked == 1
    with pytest.raises(FileNotFoundError):
        await both.examine(tmp_path / "gone", 5.0)


@pytest.mark.parametrize(
    "answer",
    [
        OSError("refused"), None, 7, Seen(measures={"fake.score": 1}),
        Seen(measures={"fake.score": float("nan")}), Seen(measures={"urls.count": 1}),
        Seen(measures={"fake.symbols": [1]}), Seen(measures={"fake.known": 1}), Seen(findings=None),
        Seen([Finding("x", "murder", "", 1.0, "")]), Seen([Finding("x", "spam", "", 2.0, "")]),
        Seen([Finding("x", "spam", "", float("nan"), "")]), Seen([None]), Seen(measures=[1]),
    ],
)  # fmt: skip
async def test_a_fault_or_a_lie_is_unavailable(panel, answer):
    """Whatever it says, what our own scanners saw is there, and nothing of the lie."""
    found = await panel(Fake(answer)).examine(SPAM, 5.0)

    assert kinds(found) == [("content", "spam"), ("fake", "unavailable")]
    assert found.measures == {}


async def test_a_slow_one_costs_the_time_and_its_finding(panel):
    """At the deadline the others' findings are there."""
    found = await panel(Fake(wait_s=30)).examine(SPAM, 0.02)

    assert kinds(found) == [("content", "spam"), ("fake", "unavailable")]


async def test_a_dead_one_costs_nothing(panel, monkeypatch):
    """After a few faults it is not asked; one message tries again; one line tells each change."""
    log, fake = Log(), Fake(OSError("refused"))
    both = panel(fake, log=log)
    for _ in range(FAULTS_TO_OPEN):
        assert not both.may_look_now(SPAM)
        await both.examine(SPAM, 5.0)

    assert both.may_look_now(SPAM)
    assert kinds(both.look_now(SPAM)) == [("content", "spam"), ("fake", "unavailable")]
    for _ in range(20):
        await both.examine(SPAM, 5.0)
    assert fake.asked == FAULTS_TO_OPEN
    assert log.lines == ["scan.unavailable"]

    (asked,) = both._remotes
    asked._shut_until = 0.0  # its time is over
    await asyncio.gather(*(both.examine(SPAM, 5.0) for _ in range(5)))
    assert fake.asked == FAULTS_TO_OPEN + 1
    assert asked._open_s == 2 * remotes.OPEN_S_FIRST

    fake.answer, asked._shut_until = LOOKS, 0.0
    assert ("fake", "phishing") in kinds(await both.examine(SPAM, 5.0))
    assert log.lines == ["scan.unavailable", "scan.available"]
    assert ("fake", "phishing") in kinds(await both.examine(SPAM, 5.0))


async def test_slow_messages_open_the_breaker():
    """Silence is a fault like any other."""
    asked = Asked(Fake(wait_s=30), quiet())
    for _ in range(FAULTS_TO_OPEN):
        await asked.ask(b"x", About(), 0.005)

    assert not asked.lives
    await idle(asked)
    assert asked._turns._free == remotes.AT_ONCE


async def test_who_had_no_time_proves_nothing(monkeypatch):
    """One that had to wait for its turn is late by no fault of the scanner."""
    monkeypatch.setattr(remotes, "AT_ONCE", 2)
    fake = Fake(wait_s=0.05)
    asked = Asked(fake, quiet())
    first = asyncio.create_task(asked.ask(b"x", About(account="a"), 30.0))
    await asyncio.sleep(0)

    assert await asked.ask(b"x", About(account="a"), 0.07) is None
    assert asked._faults == 0
    assert await first is not None
    await idle(asked)


async def test_so_many_at_once_and_nobody_has_them_all(monkeypatch):
    """The bound holds, one account has half of it, and the others' turns come."""
    monkeypatch.setattr(remotes, "AT_ONCE", 4)
    fake = Fake(wait_s=0.01)
    asked = Asked(fake, quiet())

    found = await asyncio.gather(
        *(asked.ask(b"x", About(account=a), 10.0) for a in ("a",) * 10 + ("b",) * 10)
    )

    assert all(found)
    assert fake.most == 4
    assert fake.now == 0
    first = [asyncio.create_task(asked.ask(b"x", About(account="a"), 10.0)) for _ in range(9)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert fake.now == 2
    await asyncio.gather(*first)


async def test_one_that_does_not_listen_keeps_its_turn_until_it_ends():
    """It is not waited for, and not thought free either."""
    go = asyncio.Event()

    class Deaf(Fake):
        async def look(self, body, about, wait_s):
            while not go.is_set():
                try:
                    await go.wait()
                except asyncio.CancelledError:
                    continue
            return LOOKS

    asked = Asked(Deaf(), quiet())

    assert await asked.ask(b"x", About(), 0.01) is None
    assert asked._turns._free == remotes.AT_ONCE - 1
    go.set()
    await idle(asked)
    assert asked._turns._free == remotes.AT_ONCE


async def test_who_gives_up_takes_the_question_back(panel):
    """A judge that closes leaves nothing behind."""
    fake = Fake(wait_s=30)
    both = panel(fake)
    task = asyncio.create_task(both.examine(SPAM, 30.0))
    async with asyncio.timeout(5):
        while not fake.now:  # noqa: ASYNC110 - it is asked soon
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await idle(both._remotes[0])

    assert fake.now == 0
    assert both._remotes[0]._turns._free == remotes.AT_ONCE


async def test_it_is_asked_while_a_thread_is_stuck(panel):
    """Side by side: what it saw is there though our own were late."""
    stuck = threading.Event()

    class Stuck:
        name, version, instant, facts = "stuck", "1", False, {}

        def scan(self, message):
            stuck.wait(10)
            return Seen()

    one = Panel([Stuck()], quiet(), [Fake()])
    found = await one.examine(SPAM, 0.05)
    stuck.set()
    one.close()

    assert sorted(kinds(found)) == [("fake", "phishing"), ("stuck", "unavailable")]
    assert found.cut


def test_an_answer_is_bounded():
    """A thousand findings are twenty."""
    many = Seen([Finding("fake", "spam", "x" * 1000, 1.0, "1")] * 1000)

    found = sound(many, Fake())
    assert len(found.findings) == remotes.FINDINGS_MAX
    assert len(found.findings[0].what) == 120
    with pytest.raises(Unsound, match="score is a bool"):
        sound(Seen(measures={"fake.score": True}), Fake())
