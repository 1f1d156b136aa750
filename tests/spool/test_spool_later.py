"""Pending mail and a judge that is not always there."""

import itertools

import pytest
from tests.spool.given import ACCEPT, accept, name

from postweir.judge.ports import Ask, Asked
from postweir.policy.verdict import Verdict
from postweir.runtime.log import quiet
from postweir.spool.later import BACKOFF_S_FIRST, OPEN_MAX, PAUSE_S_MAX, WAIT_S_MAX, Later


class Scene:
    """Pending messages, a judge, and a clock."""

    def __init__(self, count: int) -> None:
        self.pending = {n: accept(n, verdict=None) for n in range(1, count + 1)}
        self.asked: list[str] = []
        self.asks: list[Ask] = []
        self.answers: dict[str, Asked] = {}
        self.usual = Asked(ACCEPT, "", b"f")
        self.now_s = 0.0
        self.later = Later(
            self, fetch=self._fetch, judged=self._judged, log=quiet(), chance=lambda: 0.0,
            now_s=lambda: self.now_s,
        )  # fmt: skip

    async def ask(self, ask, wait_s):
        assert ask.late
        assert ask.body is not None
        self.asked.append(ask.message)
        self.asks.append(ask)
        return self.answers.get(ask.message, self.usual)

    def uncount(self, account, message):
        raise AssertionError

    async def _fetch(self, after, count_max):
        return [a for n, a in sorted(self.pending.items()) if n > after][:count_max]

    async def _judged(self, judged):
        self.pending = {n: a for n, a in self.pending.items() if a.message != judged.message}


async def test_all_are_judged_oldest_first():
    """A few at a time, in the order in which they were accepted."""
    scene = Scene(3 * OPEN_MAX)
    await scene.later.round()

    assert scene.asked == [name(n) for n in range(1, OPEN_MAX + 1)]
    while await scene.later.round():
        pass
    assert scene.pending == {}


async def test_a_judge_that_is_away_is_asked_little():
    """One message goes ahead; the pause grows to its bound, and ends with the first answer."""
    scene = Scene(5)
    scene.usual = Asked(None, "down")
    await scene.later.round()
    for _ in range(10):
        await scene.later.round()

    assert len(scene.asked) == 5 + 10
    assert scene.later._pause_s == PAUSE_S_MAX
    scene.usual = Asked(ACCEPT)
    await scene.later.round()
    await scene.later.round()
    assert scene.pending == {}
    assert scene.later._pause_s == 0.0


async def test_a_message_the_judge_chokes_on_does_not_stop_the_rest():
    """It is asked again, ever more seldom."""
    scene = Scene(3)
    scene.answers[name(1)] = Asked(None, "engine")
    await scene.later.round()
    await scene.later.round()

    assert list(scene.pending) == [1]
    assert scene.asked.count(name(1)) == 1
    times = []
    for _ in range(200):
        scene.now_s += BACKOFF_S_FIRST
        before = scene.asked.count(name(1))
        await scene.later.round()
        if scene.asked.count(name(1)) > before:
            times.append(scene.now_s)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps == sorted(gaps)
    assert len(times) < 10


@pytest.mark.parametrize("verb", ["defer", "throttle"])
async def test_a_deferred_message_waits_as_long_as_the_verdict_says(verb):
    """Defer and throttle leave it pending; it is asked again after retry_after_s.

    But soon all the same: the policy that wanted a day may have been rolled back since.
    """
    for retry_after_s, waits_s in ((300, 300), (86_400, WAIT_S_MAX)):
        scene = Scene(1)
        scene.usual = Asked(Verdict(verb, retry_after_s=retry_after_s))
        await scene.later.round()
        scene.usual = Asked(ACCEPT)
        scene.now_s = waits_s - 1.0
        await scene.later.round()

        assert len(scene.asked) == 1
        scene.now_s = waits_s + 1.0
        await scene.later.round()
        assert scene.pending == {}


async def test_those_that_wait_do_not_hide_the_others():
    """More deferred messages than one round takes: the ones behind them are reached."""
    scene = Scene(2 * OPEN_MAX)
    for n in range(1, OPEN_MAX + 1):
        scene.answers[name(n)] = Asked(Verdict("defer", retry_after_s=900))
    for _ in range(4):
        await scene.later.round()

    assert sorted(scene.pending) == list(range(1, OPEN_MAX + 1))


async def test_a_verdict_nobody_knows_leaves_it_pending():
    """A newer judge's verb takes no mail, and the message is not asked about without a pause."""
    scene = Scene(1)
    scene.usual = Asked(Verdict("teleport", retry_after_s=1 << 62))
    for _ in range(10):
        await scene.later.round()

    assert list(scene.pending) == [1]
    assert len(scene.asked) == 1
    scene.usual = Asked(ACCEPT)
    scene.now_s = 2 * 86400.0
    await scene.later.round()
    assert scene.pending == {}


async def test_the_judge_is_told_what_it_was_told_at_first():
    """Whether the client was known by a secret, and how often the message was here before."""
    scene = Scene(1)
    scene.pending[1] = accept(1, verdict=None, authenticated=False, loops=3)
    await scene.later.round()

    assert (scene.asks[0].authenticated, scene.asks[0].loops) == (False, 3)
