"""Whatever the judge does, those who ask have an answer in time."""

import asyncio
import time

import pytest
from tests.judge.serving import ask, asking

from postweir.judge.asking import Judges
from postweir.judge.ports import Alive, Answer, Ask, JudgeFrame, Uncount
from postweir.policy.verdict import Verdict
from postweir.runtime.link import Link, serve
from postweir.runtime.log import quiet

ACCEPT = Verdict("accept", policy="pol_x")


class Peer:
    """A judge that does what a test wants of it."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.asks: list[Ask] = []
        self.uncounted: list[str] = []
        self.answers = True
        self.lives = True
        self._beat = asyncio.create_task(self._show_life())

    async def start(self, run, index=1):
        path = run / f"judge-{index}.sock"
        self._server = await serve(path, JudgeFrame, self.links.append, self.on_frames, self.gone)
        return self

    def on_frames(self, link, frames):
        for frame in frames:
            if isinstance(frame, Uncount):
                self.uncounted.append(frame.message)
                continue
            self.asks.append(frame)
            if self.answers:
                link.send(Answer(frame.ask, ACCEPT, "", frame.message.encode()))

    def gone(self, link):
        self.links.remove(link)

    async def _show_life(self):
        while True:
            for link in self.links if self.lives else ():
                link.send(Alive("s", "pol_x", 0))
            await asyncio.sleep(0.02)

    async def close(self):
        self._beat.cancel()
        self._server.close()
        for link in list(self.links):
            link.abort()
        await asyncio.sleep(0)


@pytest.fixture
async def peer(tmp_path):
    made = await Peer().start(tmp_path)
    yield made
    await made.close()


async def until(true):
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - frames are on their way; no event tells
            await asyncio.sleep(0.002)


async def test_each_has_its_own_answer(peer, tmp_path):
    """Callers number their asks each for themselves; answers are not mixed up."""
    async with asking(tmp_path) as judges:
        answers = await asyncio.gather(*(judges.ask(ask(f"m{i}"), 5.0) for i in range(100)))

        assert [a.facts.decode() for a in answers] == [f"m{i}" for i in range(100)]
        assert {a.verdict for a in answers} == {ACCEPT}
        assert judges.policy() == "pol_x"
        assert peer.asks[0].sender == ask().sender


async def test_late_is_pending(peer, tmp_path):
    """A judge that lives and does not answer costs the wait, and no more."""
    peer.answers = False
    async with asking(tmp_path) as judges:
        began = time.monotonic()
        answer = await judges.ask(ask(), 0.05)

        assert (answer.verdict, answer.reason) == (None, "late")
        assert time.monotonic() - began < 2.0


async def test_an_answer_that_comes_too_late_is_nobodys(peer, tmp_path):
    """It is dropped: who asked has gone on, and the next ask is not given it."""
    peer.answers = False
    async with asking(tmp_path) as judges:
        assert (await judges.ask(ask("m1"), 0.02)).reason == "late"
        next_one = asyncio.create_task(judges.ask(ask("m2"), 10.0))
        await until(lambda: len(peer.asks) == 2)
        for late in (peer.asks[0], peer.asks[0], peer.asks[1]):
            peer.links[0].send(Answer(late.ask, ACCEPT, "", late.message.encode()))

        assert (await next_one).facts == b"m2"


async def test_silence_opens_the_breaker_and_life_closes_it(peer, tmp_path):
    """A few messages pay 100 ms for a stopped judge, the next ones nothing."""
    async with asking(tmp_path) as judges:
        peer.answers = peer.lives = False
        first = await judges.ask(ask("m1"), 30.0)
        began = time.monotonic()
        second = await judges.ask(ask("m2"), 30.0)

        assert (first.verdict, first.reason) == (None, "silent")
        assert (second.verdict, second.reason) == (None, "breaker")
        assert time.monotonic() - began < 5.0
        assert [a.message for a in peer.asks] == ["m1"]  # an open breaker asks nothing

        peer.answers = peer.lives = True
        await until(lambda: not judges.reason("acme"))
        assert (await judges.ask(ask("m3"), 5.0)).verdict == ACCEPT


async def test_our_own_lateness_is_not_the_judges(peer, tmp_path):
    """A loop that was held up for longer than the breaker's time takes nobody for dead."""
    async with asking(tmp_path) as judges:
        time.sleep(0.3)  # noqa: ASYNC251 - what is tested

        assert (await judges.ask(ask(), 5.0)).verdict == ACCEPT


async def test_without_a_judge_everything_is_pending_at_once(tmp_path):
    """Nobody there: no wait. When it comes, it is asked."""
    judges = Judges(tmp_path, count=1, log=quiet())
    answer = await judges.ask(ask(), 5.0)
    assert (answer.verdict, answer.reason) == (None, "down")
    judges.uncount("acme", "m1")

    late = await Peer().start(tmp_path)
    await until(lambda: not judges.reason("acme"))
    assert (await judges.ask(ask(), 5.0)).verdict == ACCEPT
    await late.close()
    await judges.close()


async def test_a_judge_that_dies_releases_those_who_wait(peer, tmp_path):
    """A closed connection is noticed at once."""
    peer.answers = False
    async with asking(tmp_path) as judges:
        waiting = asyncio.create_task(judges.ask(ask(), 30.0))
        await until(lambda: peer.asks)
        for link in list(peer.links):
            link.abort()

        answer = await asyncio.wait_for(waiting, 5.0)
        assert (answer.verdict, answer.reason) == (None, "down")


async def test_an_account_has_one_judge(tmp_path):
    """Of three judges each account is asked about at one, always the same."""
    peers = [await Peer().start(tmp_path, index) for index in (1, 2, 3)]
    async with asking(tmp_path, 3) as judges:
        await until(lambda: all(judges.reason(f"a{i}") == "" for i in range(30)))
        for i in range(30):
            for message in ("x", "y"):
                await judges.ask(ask(message, account=f"a{i}"), 5.0)
        judges.uncount("a0", "x")

        heard = [{a.sender.account for a in p.asks} for p in peers]
        assert sum(map(len, heard)) == 30
        assert all(heard)
        await until(lambda: any(p.uncounted == ["x"] for p in peers))
    for one in peers:
        await one.close()


async def test_a_body_too_large_for_a_frame(peer, tmp_path):
    """It never reaches the link, where it would cost others theirs."""
    async with asking(tmp_path) as judges:
        answer = await judges.ask(ask(body=b"x" * (5 << 20)), 5.0)

        assert (answer.verdict, answer.reason) == (None, "large")
