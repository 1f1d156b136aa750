"""Answers questions about messages: facts out of the message, a verdict out of the facts, in time.

An ask goes: looked at (parts, scanners) → counted → facts → promoted policy → answer. Small
messages are looked at here, one after the other, and the loop gets a turn every few milliseconds,
so that those who ask hear that we live; larger ones are looked at in a thread. Past its deadline
an ask is neither judged nor counted.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from postweir.identity.sender import Directory
from postweir.judge import evidence, ladder, wanted
from postweir.judge.fair import Fair
from postweir.judge.levels import Levels
from postweir.judge.meters import Meters
from postweir.judge.ports import Alive, Answer, Ask, JudgeFrame, Uncount
from postweir.policy.bundle import Bundle
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


class Evaluator(Protocol):
    """The promoted policy, as `engine.Engine` gives it."""

    @property
    def policy(self) -> str:
        """The policy that judges now, "" while none is loaded."""
        ...

    @property
    def bundle(self) -> Bundle:
        """What it says, or will say once it is loaded."""
        ...

    @property
    def killed(self) -> frozenset[str]:
        """The rules that an operator switched off."""
        ...

    @property
    def off(self) -> bool:
        """True when an operator wants no engine asked."""
        ...

    def poison(self, message: str) -> bool:
        """True when this message has cost two workers."""
        ...

    def submit(
        self,
        message: str,
        facts: Facts,
        wait_s: float,
        texts: Mapping[str, str] = ...,
        keys: Mapping[str, list[str]] = ...,
    ) -> "asyncio.Future[Evaluated | None]":
        """Have it evaluated, by its telling facts; None within `wait_s` when that cannot be."""
        ...


class _Open:
    """One ask that has no answer yet."""

    __slots__ = ("ask", "began", "bytes", "examined", "link", "repeat", "telling")

    def __init__(self, to: Link, ask: Ask, began: float) -> None:
        self.link, self.ask, self.began = to, ask, began
        self.bytes = len(ask.body) if ask.body is not None else 0
        self.examined = Examined()
        self.telling: Facts = {}  # the facts that are not neutral
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
        levels: Levels,
        directory: Callable[[], Directory],
        hostname: str,
        scan_s: float,
        settings: Callable[[], str],
        log: Log,
        meters: Meters | None = None,
    ) -> None:
        self._evaluator, self._panel, self.levels = evaluator, panel, levels
        self._directory, self._hostname, self._settings = directory, hostname, settings
        self.scan_s = scan_s
        self._log, self._meters = log, meters
        self._loop = asyncio.get_running_loop()
        self._links: set[Link] = set()
        self._first: Fair[_Open] = Fair(OPEN_MAX // 2)  # somebody waits on a line for these
        self._later: Fair[_Open] = Fair(OPEN_MAX // 2)
        self._more = asyncio.Event()
        self.open_asks = self._open_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.AbstractServer | None = None
        self._bundle: Bundle | None = None  # whose patterns and sets look at this
        self._wanted: tuple[frozenset[str], frozenset[str]] = frozenset(), frozenset()

    async def start(self, path: Path) -> None:
        """Answer on this socket."""
        self._server = await link.serve(
            path, JudgeFrame, self._on_link, self._on_frames, self._links.discard
        )
        self._spawn(self._work())
        self._spawn(self._show_life())
        self.levels.start()

    async def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.close()
        for one in list(self._links):
            one.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.levels.close()

    @property
    def usage_known(self) -> bool:
        """True when the levels are complete."""
        return self.levels.known

    def _on_link(self, to: Link) -> None:
        self._links.add(to)
        to.send(self._alive())

    def _on_frames(self, to: Link, frames: list[Any]) -> None:
        now = self._loop.time()
        for frame in frames:
            if isinstance(frame, Ask):
                self._take(_Open(to, frame, now))
            elif isinstance(frame, Uncount):
                self.levels.uncount(frame.message)

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
            one.examined = await self._panel.examine(
                body, self._scan_s(one), whose, wanted.about(ask)
            )
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
        """Gather the facts, count the message, and ask the promoted policy."""
        left_s = one.left_s
        if left_s <= 0:
            return self._answer(one, None, "late")
        ask = one.ask
        one.telling = evidence.gather(ask, one.examined, hostname=self._hostname)
        one.repeat = not self.levels.count(ask, one.telling, _age_s(ask))
        bundle = self._evaluator.bundle
        one.telling |= telling(
            self.levels.facts(ask, one.telling, self._directory(), bundle.throttles)
        )
        if self._evaluator.poison(ask.message):
            return self._conclude(one, None)
        if bundle is not self._bundle:
            self._bundle = bundle
            self._wanted = wanted.of_patterns(bundle), wanted.of_sets(bundle)
        answer = self._evaluator.submit(
            ask.message, one.telling, left_s, wanted.texts(one.examined, self._wanted[0]),
            wanted.keys(ask, one.examined, self._wanted[1]),
        )  # fmt: skip
        answer.add_done_callback(lambda future: self._evaluated(one, future))
        return None

    def _evaluated(self, one: _Open, future: "asyncio.Future[Evaluated | None]") -> None:
        try:
            self._conclude(one, future.result())
        except Exception as fault:  # noqa: BLE001 - ours; the asker must not wait for it
            self._failed(one, fault)

    def _conclude(self, one: _Open, evaluated: Evaluated | None) -> None:
        ask = one.ask
        verdict, reason = ladder.climb(
            evaluated, one.telling, policy=self._evaluator.policy,
            poison=self._evaluator.poison(ask.message),
            unseen=one.examined.cut and not ask.late, off=self._evaluator.off,
        )  # fmt: skip
        if clock.monotonic_ns() >= ask.by_ns:
            verdict, reason = None, "late"
        if verdict is not None and self._comes_again(one, verdict):
            self.levels.uncount(ask.message)
        elif verdict is not None and verdict.takes_mail:
            self.levels.took(ask, one.telling, self._evaluator.bundle.throttles, verdict.verb)
        if evaluated is not None and self._meters is not None:
            self._meters.evaluated(evaluated)
        facts = evidence.record(
            one.telling, one.examined.findings, evaluated, policy=self._asked(evaluated),
            killed=self._evaluator.killed, off=self._evaluator.off,
        )  # fmt: skip
        self._answer(one, verdict, reason, facts)

    def _asked(self, evaluated: Evaluated | None) -> str:
        """Return the policy that was asked: another may have been promoted since."""
        said = evaluated.verdict if evaluated is not None else None
        return said.policy if said is not None else self._evaluator.policy

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

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("judge.task_failed", exc_info=task.exception())


def _age_s(ask: Ask) -> float:
    """Return how long ago a message came, which its name tells; of one that just came, nothing."""
    if not ask.late:
        return 0.0
    return max(0.0, (clock.wall_us() // 1000 - _born_ms(ask.message)) / 1000)


def _born_ms(message: str) -> int:
    """Return when a message's name was given; 0 for a name that is none of ours."""
    with contextlib.suppress(ValueError):
        return int(message, 32) >> 32
    return 0
