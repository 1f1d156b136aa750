"""Pending messages are judged later, by the promoted policy, oldest first."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence

from postweir.judge.ports import Ask, Asked, Judge
from postweir.runtime import clock
from postweir.runtime.log import Log
from postweir.spool.ports import Accept, Judged

OPEN_MAX = 20  # asks at a time: new mail goes first, and a judge that returns is not flooded
ASK_S = 5.0  # nobody waits on a line for this answer
LOOK_S = 0.25
PAUSE_S_FIRST, PAUSE_S_MAX = 0.1, 2.0  # while the judge is away; soon, so that it is noticed back
BACKOFF_S_FIRST, BACKOFF_S_MAX = 1.0, 300.0  # for one message that gets no verdict
WAIT_S_MAX = 600.0  # whatever a verdict says: the policy that said so may be rolled back since
PUT_OFF_MAX = 100_000  # messages whose wait is remembered; beyond, they are asked again early
AWAY = ("breaker", "silent", "down", "loading", "off")

Fetch = Callable[[int, int], Awaitable[Sequence[Accept]]]  # (after, count_max): store.pending
Commit = Callable[[Judged], Awaitable[object]]


class Later:
    """Goes round the pending messages while the judge lives."""

    def __init__(
        self,
        judge: Judge,
        *,
        fetch: Fetch,
        judged: Commit,
        log: Log,
        chance: Callable[[], float] = random.random,
        now_s: Callable[[], float] | None = None,
    ) -> None:
        self._judge, self._fetch, self._judged, self._log = judge, fetch, judged, log
        self._chance = chance
        self._now_s = now_s or asyncio.get_running_loop().time
        self._not_before: dict[str, tuple[float, int]] = {}  # message: (time, tries)
        self._after = 0  # the row to go on from
        self._pause_s = 0.0
        self._numbers = 0

    async def run(self) -> None:
        """Judge until cancelled."""
        while True:
            worked = await self.round()
            if self._pause_s:
                await asyncio.sleep(self._pause_s * (1 + self._chance()))
            elif not worked:
                await asyncio.sleep(LOOK_S)

    async def round(self) -> int:
        """Ask about the next few messages, side by side; returns about how many."""
        found = await self._fetch(self._after, OPEN_MAX)
        self._after = found[-1].ask if len(found) == OPEN_MAX else 0
        now_s = self._now_s()
        ripe = [a for a in found if self._not_before.get(a.message, (0.0, 0))[0] <= now_s]
        if self._pause_s:
            ripe = ripe[:1]  # one goes ahead to see whether the judge is back
        if not ripe:
            return 0 if self._after == 0 else 1
        answers = await asyncio.gather(*(self._ask(accept) for accept in ripe))
        away = [a for a in answers if a.verdict is None and a.reason in AWAY]
        if away:
            self._pause_s = min(max(self._pause_s * 2, PAUSE_S_FIRST), PAUSE_S_MAX)
            self._after = 0  # oldest first, once it is back
        else:
            self._pause_s = 0.0
        await asyncio.gather(
            *(self._take(a, answer) for a, answer in zip(ripe, answers, strict=True))
        )
        return len(ripe)

    async def _ask(self, accept: Accept) -> Asked:
        self._numbers += 1
        ask = Ask(
            ask=self._numbers,
            message=accept.message,
            by_ns=clock.monotonic_ns() + int(ASK_S * 1e9),
            late=True,
            envelope=accept.envelope,
            sender=accept.sender,
            client=accept.client,
            tls=accept.tls,
            body=accept.body,
            body_file=accept.body_file,
            authenticated=accept.authenticated,
            loops=accept.loops,
        )
        return await self._judge.ask(ask, ASK_S)

    async def _take(self, accept: Accept, answer: Asked) -> None:
        verdict = answer.verdict
        if verdict is None:
            if answer.reason not in AWAY:
                self._put_off(accept.message, 0)
            return
        if not (verdict.takes_mail or verdict.verb == "refuse"):
            # Not now; or a verb that nobody here knows, from a newer judge: it stays pending.
            self._put_off(accept.message, verdict.retry_after_s)
            return
        self._not_before.pop(accept.message, None)
        await self._judged(Judged(accept.message, verdict, answer.facts))
        self._log.info(
            "spool.judged",
            message=accept.message,
            verb=verdict.verb,
            rule=verdict.rule,
            policy=verdict.policy,
        )

    def _put_off(self, message: str, wait_s: float) -> None:
        """Ask again after a while; jitter only lengthens it."""
        _, tries = self._not_before.get(message, (0.0, 0))
        backoff_s = min(BACKOFF_S_FIRST * 2.0 ** min(tries, 20), BACKOFF_S_MAX)
        at_s = self._now_s() + max(min(wait_s, WAIT_S_MAX), backoff_s) * (1 + self._chance() / 2)
        while len(self._not_before) >= PUT_OFF_MAX:
            with contextlib.suppress(StopIteration):
                del self._not_before[next(iter(self._not_before))]
        self._not_before[message] = (at_s, tries + 1)
