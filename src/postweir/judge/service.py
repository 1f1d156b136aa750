"""Answers questions about messages: facts out of the message, a verdict out of the facts, in time.

An ask goes: looked at (parts, scanners) → counted → facts → promoted policy → answer. Small
messages are looked at here, one after the other, and the loop gets a turn every few milliseconds,
so that those who ask hear that we live; larger ones are looked at in a thread. Past its deadline
an ask is neither judged nor counted.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from postweir.identity.sender import Directory
from postweir.judge import evidence, ladder
from postweir.judge.counters import HOUR_S, Counters, Entry
from postweir.judge.fair import Fair
from postweir.judge.meters import Meters
from postweir.judge.ports import Alive, Answer, Ask, JudgeFrame, Uncount, UsageFeed
from postweir.policy.evaluation import Evaluated
from postweir.policy.facts import Facts, telling
from postweir.policy.verdict import Verdict
from postweir.runtime import clock, link
from postweir.runtime.link import Link
from postweir.runtime.log import Log
from postweir.scan.panel import Examined, Panel

ALIVE_S = 0.05
TURN_S = 0.005  # of asks at a stretch, then the loop reads, writes and beats
OPEN_MAX = 5000
OPEN_BYTES_MAX = 64 * 1024 * 1024  # of bodies that wait here
MARGIN_S = 0.003  # an answer needs that long to arrive before its deadline
LATE_SCAN_S = 2.0  # a message that is judged later may take longer: nobody waits on a line
RESTORE_S_FIRST, RESTORE_S_MAX = 0.1, 2.0
RESTORE_STEP = 200  # 2 ms


class Evaluator(Protocol):
    """The promoted policy, as `engine.Engine` gives it."""

    @property
    def policy(self) -> str:
        """The policy that judges now, "" while none is loaded."""
        ...

    def poison(self, message: str) -> bool:
        """True when this message has cost two workers."""
        ...

    def submit(
        self, message: str, facts: Facts, wait_s: float
    ) -> "asyncio.Future[Evaluated | None]":
        """Have it evaluated, by its telling facts; None within `wait_s` when that cannot be."""
        ...


class _Open:
    """One ask that has no answer yet."""

    __slots__ = ("ask", "began", "bytes", "examined", "facts", "link", "repeat", "telling")

    def __init__(self, to: Link, ask: Ask, began: float) -> None:
        self.link, self.ask, self.began = to, ask, began
        self.bytes = len(ask.body) if ask.body is not None else 0
        self.examined = Examined()
        self.facts: Facts = {}
        self.telling: Facts = {}  # those of them that are not neutral
        self.repeat = False

    @property
    def left_s(self) -> float:
        return (self.ask.by_ns - clock.monotonic_ns()) / 1e9 - MARGIN_S


class Service:
    """One judge."""

    def __init__(
        self,
        *,
        evaluator: Evaluator,
        panel: Panel,
        counters: Counters,
        directory: Callable[[], Directory],
        hostname: str,
        scan_s: float,
        settings: Callable[[], str],
        log: Log,
        meters: Meters | None = None,
        feed: UsageFeed | None = None,
    ) -> None:
        self._evaluator, self._panel, self._counters = evaluator, panel, counters
        self._directory, self._hostname, self._settings = directory, hostname, settings
        self.scan_s = scan_s
        self._log, self._meters, self._feed = log, meters, feed
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._restored = False
        self._links: set[Link] = set()
        self._first: Fair[_Open] = Fair(OPEN_MAX // 2)  # somebody waits on a line for these
        self._later: Fair[_Open] = Fair(OPEN_MAX // 2)
        self._more = asyncio.Event()
        self.open_asks = self._open_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.AbstractServer | None = None

    async def start(self, path: Path) -> None:
        """Answer on this socket."""
        self._server = await link.serve(
            path, JudgeFrame, self._on_link, self._on_frames, self._links.discard
        )
        self._spawn(self._work())
        self._spawn(self._show_life())
        if self._feed is not None:
            self._spawn(self._restore(self._feed))

    async def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.close()
        for one in list(self._links):
            one.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def usage_known(self) -> bool:
        """True when the levels are complete: read back from the shards, or an hour old."""
        return self._restored or self._loop.time() - self._since >= HOUR_S

    def _on_link(self, to: Link) -> None:
        self._links.add(to)
        to.send(self._alive())

    def _on_frames(self, to: Link, frames: list[Any]) -> None:
        now = self._loop.time()
        for frame in frames:
            if isinstance(frame, Ask):
                self._take(_Open(to, frame, now))
            elif isinstance(frame, Uncount):
                self._counters.uncount(frame.message, now)

    def _take(self, one: _Open) -> None:
        if self._meters is not None:
            self._meters.asked(one.ask.late)
        self.open_asks += 1
        self._open_bytes += one.bytes
        queue = self._later if one.ask.late else self._first
        full = self.open_asks > OPEN_MAX or self._open_bytes > OPEN_BYTES_MAX
        if full or not queue.push(one.ask.sender.account, one):
            self._answer(one, None, "busy")
            return
        self._more.set()

    async def _work(self) -> None:
        while True:
            self._more.clear()
            until = self._loop.time() + TURN_S
            while (self._first or self._later) and self._loop.time() < until:
                self._begin((self._first or self._later).pop())
            if self._first or self._later:
                await asyncio.sleep(0)
            else:
                await self._more.wait()

    def _begin(self, one: _Open) -> None:
        """Look at a small message now, and see to it that a larger one is looked at."""
        if one.left_s <= 0:
            self._answer(one, None, "late")
        elif one.ask.body is not None and self._panel.may_look_now(one.ask.body):
            try:
                one.examined = self._panel.look_now(one.ask.body)
                self._judge(one)
            except Exception as fault:  # noqa: BLE001 - ours; it must not end all answers
                self._failed(one, fault)
        else:
            self._spawn(self._begin_large(one))

    async def _begin_large(self, one: _Open) -> None:
        ask = one.ask
        if ask.body is None and not ask.body_file:
            return self._answer(one, None, "gone")
        body = ask.body if ask.body is not None else Path(ask.body_file or "")
        try:
            # What is judged later shares its threads among itself, whose ever it is.
            whose = "" if ask.late else ask.sender.account
            one.examined = await self._panel.examine(body, self._scan_s(one), whose)
            if ask.late and not one.examined.begun:
                return self._answer(one, None, "busy")  # it is asked about again
            self._judge(one)
        except OSError as fault:
            self._log.warning("judge.body_unreadable", message=ask.message, fault=str(fault))
            self._answer(one, None, "gone")
        except Exception as fault:  # noqa: BLE001 - ours; the asker must not wait for it
            self._failed(one, fault)
        return None

    def _scan_s(self, one: _Open) -> float:
        # Half of what is left: the other half is the policy's.
        wait_s = max(self.scan_s, LATE_SCAN_S) if one.ask.late else self.scan_s
        return min(wait_s, one.left_s / 2)

    def _judge(self, one: _Open) -> None:
        """Count the message, gather the facts, and ask the promoted policy."""
        left_s = one.left_s
        if left_s <= 0:
            return self._answer(one, None, "late")
        ask = one.ask
        now = self._loop.time()
        one.repeat = self._counters.counted(ask.message)
        if not one.repeat:
            self._counters.count(ask.message, self._entry(ask, now), now)
        one.facts = evidence.gather(
            ask,
            one.examined,
            directory=self._directory(),
            sender=self._counters.sender(ask.sender.key, now),
            account=self._counters.account(ask.sender.account, now),
            known=self.usage_known,
            hostname=self._hostname,
        )
        one.telling = telling(one.facts)
        if self._evaluator.poison(ask.message):
            return self._conclude(one, None)
        answer = self._evaluator.submit(ask.message, one.telling, left_s)
        answer.add_done_callback(lambda future: self._evaluated(one, future))
        return None

    def _entry(self, ask: Ask, now: float) -> Entry:
        at_s = now
        if ask.late:  # it counts from when it came, which its name tells
            age_s = (clock.wall_us() // 1000 - _born_ms(ask.message)) / 1000
            at_s = now - min(max(age_s, 0.0), HOUR_S)
        recipients = len(ask.envelope.recipients)
        return Entry(at_s, ask.sender.account, ask.sender.key, recipients)

    def _evaluated(self, one: _Open, future: "asyncio.Future[Evaluated | None]") -> None:
        try:
            self._conclude(one, future.result())
        except Exception as fault:  # noqa: BLE001 - ours; the asker must not wait for it
            self._failed(one, fault)

    def _conclude(self, one: _Open, evaluated: Evaluated | None) -> None:
        ask = one.ask
        verdict, reason = ladder.climb(
            evaluated, one.facts, policy=self._evaluator.policy,
            poison=self._evaluator.poison(ask.message),
            unseen=one.examined.cut and not ask.late,
        )  # fmt: skip
        if clock.monotonic_ns() >= ask.by_ns:
            verdict, reason = None, "late"
        if verdict is not None and self._comes_again(one, verdict):
            self._counters.uncount(ask.message, self._loop.time())
        errors = evaluated.errors if evaluated is not None else []
        if evaluated is not None and self._meters is not None:
            self._meters.evaluated(evaluated.took_us / 1e6, len(errors))
        facts = evidence.record(one.telling, one.examined.findings, errors)
        self._answer(one, verdict, reason, facts)

    @staticmethod
    def _comes_again(one: _Open, verdict: Verdict) -> bool:
        """True when the message was put off, and will come again under another name.

        It must not count twice, or a sender at its limit would never get below it by trying.
        """
        return verdict.verb in ("defer", "throttle") and not (one.ask.late or one.repeat)

    def _failed(self, one: _Open, fault: Exception) -> None:
        self._log.error("judge.failed", message=one.ask.message, exc_info=fault)
        self._answer(one, None, "engine")

    def _answer(self, one: _Open, verdict: Verdict | None, reason: str, facts: bytes = b"") -> None:
        self.open_asks -= 1
        self._open_bytes -= one.bytes
        one.link.send(Answer(one.ask.ask, verdict, reason, facts, one.repeat))
        if self._meters is not None:
            took_s = self._loop.time() - one.began
            self._meters.answered(verdict.verb if verdict else "", reason, took_s)

    def _alive(self) -> Alive:
        return Alive(self._settings(), self._evaluator.policy, self.open_asks)

    async def _show_life(self) -> None:
        while True:
            alive = self._alive()
            for one in self._links:
                one.send(alive)
            await asyncio.sleep(ALIVE_S)

    async def _restore(self, feed: UsageFeed) -> None:
        """Read back what was counted in the last hour, as often as it takes."""
        wait_s = RESTORE_S_FIRST
        while True:
            now, wall_us = self._loop.time(), clock.wall_us()
            try:
                lately = await feed.counted(wall_us - int(HOUR_S * 1e6))
            except (ConnectionError, TimeoutError) as fault:
                self._log.info("judge.usage_unknown", fault=str(fault))
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RESTORE_S_MAX)
                continue
            entries = (
                (c.message, Entry(now - max(0.0, (wall_us - c.at_us) / 1e6), c.account, c.sender,
                                  c.recipients))
                for c in lately
            )  # fmt: skip
            fresh = 0
            while some := list(itertools.islice(entries, RESTORE_STEP)):
                fresh += self._counters.restore(some, self._loop.time())
                await asyncio.sleep(0)  # a million take seconds, and who asks must hear us
            self._restored = True
            self._log.info("judge.usage_known", messages=fresh)
            return

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("judge.task_failed", exc_info=task.exception())


def _born_ms(message: str) -> int:
    """Return when a message's name was given; 0 for a name that is none of ours."""
    with contextlib.suppress(ValueError):
        return int(message, 32) >> 32
    return 0
