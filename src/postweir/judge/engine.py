"""Keeps two policy workers alive, and gives each question to one of them.

Rules of this file:

* What a dying worker had in hand but had not begun goes to the spare, which is loaded already.
  The message it was working on gets no answer: it is pending, is asked about again later, and is
  poison when it costs a second worker.
* The promoted policy is never barred by deaths: workers come back with back-off. Only when it
  cannot be loaded, or nothing is answered for five seconds through its own fault, does the one
  promoted before it judge, until this process starts anew.
"""

import asyncio
import contextlib
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from postweir.judge.workers import AT_FAULT, Evaluation, Worker, start
from postweir.policy.bundle import Bundle
from postweir.policy.evaluation import Evaluated, Loaded
from postweir.policy.facts import Facts
from postweir.runtime.log import Log

# -P: what lies in the current folder is no code of ours.
WORKER = (sys.executable, "-P", "-m", "postweir.policy.worker")

IN_HAND_MAX = 64  # at one worker; the rest waits here, where it can be given up
QUEUE_MAX = 5000  # 100 ms of a busy machine; more would not be answered in time anyway
LOAD_S = 10.0  # for 500 rules on a machine that is starting everything at once
SILENT_S, SILENT_MIN = 5.0, 5  # no answer for so long, to so many: the policy is no good
LOADS_FAILED_MAX = 3  # workers that ended while loading, one after the other
DEATHS_POISON = 2
DEATHS_REMEMBERED = 10_000
RECENT_S = 10.0  # deaths within it make the next start wait
BACKOFF_S_FIRST, BACKOFF_S_MAX = 0.05, 5.0

OnDeath = Callable[[str], None]  # why: deadline, stopped, starved, died, unloadable


class Engine:
    """The promoted policy, evaluated: one worker at work and a spare."""

    def __init__(
        self,
        bundles: Sequence[Bundle],
        *,
        evaluate_s: float,
        log: Log,
        on_death: OnDeath | None = None,
        command: Sequence[str] = WORKER,
    ) -> None:
        assert bundles
        self.evaluate_s = evaluate_s
        self._bundles, self._at = tuple(bundles), 0  # `_at`: how far we had to go back
        self._log, self._on_death, self._command = log, on_death, command
        self._active: Worker | None = None
        self._spare: Worker | None = None
        self._queue: deque[Evaluation] = deque()
        self._numbers = 0
        self._deaths: OrderedDict[str, int] = OrderedDict()  # message: workers it cost
        self._recent: deque[float] = deque(maxlen=64)
        self._unanswered_since, self._unanswered = 0.0, 0
        self._loads_failed = 0
        self._changed, self._ready = asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._keeper: asyncio.Task[None] | None = None
        self._gone: set[asyncio.Task[int]] = set()  # workers whose end is awaited
        self._closing = False

    async def start(self, wait_s: float = LOAD_S) -> bool:
        """Start the workers; True when the policy is loaded within `wait_s`."""
        self._keeper = self._loop.create_task(self._keep_two())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), wait_s)
        return self._ready.is_set()

    async def close(self) -> None:
        """End the workers; what is open gets no verdict."""
        self._closing = True
        for worker in (self._active, self._spare):
            if worker is not None:
                worker.kill("closed")
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await asyncio.gather(*self._gone, return_exceptions=True)
        for evaluation in self._queue:
            evaluation.settle(None)

    @property
    def policy(self) -> str:
        """The policy that judges now; "" while none is loaded."""
        return self._active.policy if self._active is not None else ""

    @property
    def pids(self) -> list[int]:
        """The worker processes, the one at work first."""
        return [w.pid for w in (self._active, self._spare) if w is not None]

    def poison(self, message: str) -> bool:
        """True when this message has cost two workers."""
        return self._deaths.get(message, 0) >= DEATHS_POISON

    def submit(
        self, message: str, facts: Facts, wait_s: float
    ) -> "asyncio.Future[Evaluated | None]":
        """Have the promoted policy look at these facts; None within `wait_s` when it cannot.

        Facts that are left out are neutral.
        """
        answer: asyncio.Future[Evaluated | None] = self._loop.create_future()
        self._numbers += 1
        evaluation = Evaluation(self._numbers, message, facts, answer)
        if self._active is None and self._spare is None and self._ready.is_set():
            evaluation.settle(None)  # none lives; one that comes back soon is for those after
            return answer
        if len(self._queue) >= QUEUE_MAX or wait_s <= 0:
            evaluation.settle(None)
            return answer
        self._queue.append(evaluation)
        timer = self._loop.call_later(wait_s, evaluation.settle, None)
        answer.add_done_callback(lambda _: timer.cancel())
        self.pump()
        return answer

    def pump(self) -> None:
        """Give the worker what it can take."""
        worker = self._active
        while worker is not None and self._queue and len(worker.in_hand) < IN_HAND_MAX:
            evaluation = self._queue.popleft()
            if not evaluation.answer.done():
                worker.give(evaluation)

    def answered(self) -> None:
        """A worker answered: the policy works, and can be asked more."""
        self._unanswered = 0
        self.pump()

    def lost(self, worker: Worker) -> None:
        """A worker is gone: blame, hand over, start another."""
        if worker is self._spare:
            self._spare = None
        if worker is self._active:
            self._active, self._spare = self._spare, None
        begun, *rest = worker.in_hand or (None,)
        worker.in_hand.clear()
        if begun is not None:
            begun.settle(None)
            if worker.died in AT_FAULT:
                self._blame(begun.message)
                self._note_silence()
        for evaluation in reversed(rest):
            if self.poison(evaluation.message):
                evaluation.settle(None)  # asked about again meanwhile: it costs no third worker
            else:
                self._queue.appendleft(evaluation)
        if self._closing:
            return
        self._recent.append(self._loop.time())
        self._log.warning(
            "policy.worker_lost",
            why=worker.died,
            policy=worker.policy,
            message=begun.message if begun else "",
            handed_over=len(rest),
        )
        if self._on_death is not None:
            self._on_death(worker.died)
        self._changed.set()
        self.pump()

    def _blame(self, message: str) -> None:
        self._deaths[message] = self._deaths.pop(message, 0) + 1
        if len(self._deaths) > DEATHS_REMEMBERED:
            self._deaths.popitem(last=False)
        if self.poison(message):
            self._log.error("policy.poison", message=message, workers=self._deaths[message])

    def _note_silence(self) -> None:
        """Go back one policy when this one has answered nothing for long, to several."""
        now = self._loop.time()
        if not self._unanswered:
            self._unanswered_since = now
        self._unanswered += 1
        if self._unanswered >= SILENT_MIN and now - self._unanswered_since >= SILENT_S:
            self._unanswered = 0
            self._go_back(f"it has answered nothing for {SILENT_S:.0f} s")

    def _go_back(self, why: str) -> None:
        bundle = self._bundles[self._at]
        before = self._bundles[self._at + 1] if self._at + 1 < len(self._bundles) else None
        self._log.error(
            "policy.unusable", policy=bundle.hash, why=why, instead=before.hash if before else ""
        )
        if before is None:
            return
        self._at += 1
        for worker in (self._active, self._spare):
            if worker is not None:
                worker.kill("replaced")

    async def _keep_two(self) -> None:
        while True:
            if self._active is not None and self._spare is not None:
                self._changed.clear()
                await self._changed.wait()
                continue
            await asyncio.sleep(self._backoff_s())
            try:
                worker = await self._start_one(self._bundles[self._at])
            except Exception as fault:  # noqa: BLE001 - without workers all mail is pending
                self._recent.append(self._loop.time())
                self._log.error("policy.worker_unstarted", fault=repr(fault))
                continue
            if worker is not None:
                self._take(worker)

    def _take(self, worker: Worker) -> None:
        if worker.policy != self._bundles[self._at].hash:
            worker.kill("replaced")  # we went back while it loaded
        elif not worker.died:
            if self._active is None:
                self._active = worker
                self._log.info("policy.loaded", policy=worker.policy, pid=worker.pid)
            else:
                self._spare = worker
            self._ready.set()
            self.pump()

    def _backoff_s(self) -> float:
        now = self._loop.time()
        while self._recent and now - self._recent[0] > RECENT_S:
            self._recent.popleft()
        # The first two deaths cost nothing but the start itself.
        doublings = len(self._recent) - 2
        if doublings <= 0:
            return 0.0
        return float(min(BACKOFF_S_FIRST * 2.0 ** min(doublings, 20), BACKOFF_S_MAX))

    async def _start_one(self, bundle: Bundle) -> Worker | None:
        """Return a worker that has loaded the bundle, or None."""
        worker = await start(bundle, self, self._command)
        self._gone.add(worker.gone)
        worker.gone.add_done_callback(self._gone.discard)
        try:
            loaded = await asyncio.wait_for(asyncio.shield(worker.loaded), LOAD_S)
        except TimeoutError:
            worker.kill("unloadable")
            loaded = Loaded(bundle.hash, f"not loaded within {LOAD_S:.0f} s")
        except asyncio.CancelledError:
            worker.kill("closed")
            raise
        if loaded.fault is None:
            self._loads_failed = 0
            return worker
        # A worker that ended says nothing about the policy, unless one after the other does.
        self._loads_failed += 1
        if not worker.died or self._loads_failed >= LOADS_FAILED_MAX:
            self._loads_failed = 0
            worker.kill("unloadable")
            self._go_back(loaded.fault)
        return None
