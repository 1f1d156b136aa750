"""Keeps two policy workers alive, gives each question to one of them, and kills it when it hangs.

Rules of this file:

* The *evaluation* has a deadline, not the queue: its age counts from when the one before it was
  answered. A worker that is merely busy is never killed for that.
* A worker that got no processor is not at fault, nor is the message it had: it is killed only
  after four deadlines. One that ran, or slept, through its deadline is killed at once, and so is
  one that was stopped.
* What a dying worker had in hand but had not begun goes to the spare, which is loaded already.
  The message it was working on gets no answer: it is pending, is asked about again later, and is
  poison when it costs a second worker.
* The promoted policy is never barred. Workers come back with back-off; when a policy cannot be
  loaded, or nothing is answered for five seconds, the one promoted before it judges.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any

from postweir.policy.bundle import Bundle
from postweir.policy.evaluation import Evaluate, Evaluated, Load, Loaded, PolicyFrame
from postweir.policy.facts import Facts, telling
from postweir.runtime.link import Link
from postweir.runtime.log import Log

# -P: what lies in the current folder is no code of ours.
WORKER = (sys.executable, "-P", "-m", "postweir.policy.worker")

IN_HAND_MAX = 64  # at one worker; the rest waits here, where it can be given up
QUEUE_MAX = 5000  # 100 ms of a busy machine; more would not be answered in time anyway
LOAD_S = 10.0  # for 500 rules on a machine that is starting everything at once
GRACE_S = 0.002  # an answer that has arrived is read before its worker is called late
STARVED_DEADLINES = 4
RAN_SHARE = 0.5  # of its deadline: less, and the worker was waiting for a processor
SILENT_S, SILENT_MIN = 5.0, 5  # no answer for so long, to so many: the policy is no good
DEATHS_POISON = 2
DEATHS_REMEMBERED = 10_000
RECENT_S = 10.0  # deaths within it make the next start wait
BACKOFF_S_FIRST, BACKOFF_S_MAX = 0.05, 5.0

OnDeath = Callable[[str], None]  # why: deadline, stopped, starved, died, unloadable


class _Evaluation:
    """One question on its way."""

    __slots__ = ("answer", "facts", "message", "number")

    def __init__(self, number: int, message: str, facts: Facts, answer: Any) -> None:
        self.number, self.message, self.facts = number, message, facts
        self.answer: asyncio.Future[Evaluated | None] = answer

    def settle(self, evaluated: Evaluated | None) -> None:
        if not self.answer.done():
            self.answer.set_result(evaluated)


class _Worker:
    """One worker process, and what it has in hand, oldest first."""

    def __init__(self, process: asyncio.subprocess.Process, policy: str, engine: "Engine") -> None:
        self._loop = asyncio.get_running_loop()
        self._process, self._engine = process, engine
        self.policy = policy
        self.pid = process.pid
        self.in_hand: deque[_Evaluation] = deque()
        self.loaded: asyncio.Future[Loaded] = self._loop.create_future()
        self.link: Link | None = None
        self.died = ""  # why
        self._head_at = 0.0
        self._head_cpu_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._graced = False
        self.gone = self._loop.create_task(process.wait())

    def give(self, evaluation: _Evaluation) -> None:
        """Have it evaluated; `None` is its answer when that takes too long."""
        assert self.link is not None
        self.in_hand.append(evaluation)
        if len(self.in_hand) == 1:
            self._begin_head()
        self.link.send(Evaluate(evaluation.number, telling(evaluation.facts)))

    def kill(self, why: str) -> None:
        """End it now; the engine hears of it once."""
        if self.died:
            return
        self.died = why
        if self._timer is not None:
            self._timer.cancel()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        if self.link is not None:
            self.link.abort()
        if not self.loaded.done():
            self.loaded.set_result(Loaded(self.policy, f"the worker ended: {why}"))
        self._engine.lost(self)

    def on_frames(self, _: Link, frames: list[Any]) -> None:
        for frame in frames:
            if isinstance(frame, Loaded) and not self.loaded.done():
                self.loaded.set_result(frame)
            elif isinstance(frame, Evaluated):
                if not self.in_hand or self.in_hand[0].number != frame.ask:
                    self.kill("died")  # it answers what nobody asked
                    return
                self.in_hand.popleft().settle(frame)
                self._engine.answered(frame)
        if self.in_hand and not self.died:
            self._begin_head()
        self._engine.pump()

    def on_lost(self, _: Link) -> None:
        self.kill("died")

    def _begin_head(self) -> None:
        self._head_at = self._loop.time()
        self._head_cpu_s = _cpu_s(self.pid)
        self._graced = False
        if self._timer is None:
            self._timer = self._loop.call_later(self._engine.evaluate_s, self._look)

    def _look(self) -> None:
        """See whether the evaluation that was begun is overdue, and whose fault that is."""
        self._timer = None
        if not self.in_hand or self.died:
            return
        deadline_s = self._engine.evaluate_s
        age_s = self._loop.time() - self._head_at
        if age_s < deadline_s:
            wait_s = deadline_s - age_s
        elif not self._graced:
            self._graced, wait_s = True, GRACE_S
        else:
            self.in_hand[0].settle(None)  # who asked waits no longer, whatever the reason
            why = self._fault(age_s, deadline_s)
            if why:
                self.kill(why)
                return
            wait_s = deadline_s / 4
        self._timer = self._loop.call_later(wait_s, self._look)

    def _fault(self, age_s: float, deadline_s: float) -> str:
        """Return why an overdue worker must go, "" while it only waits for a processor."""
        state = _state(self.pid)
        if state in "Tt":
            return "stopped"
        if state not in "R" or _cpu_s(self.pid) - self._head_cpu_s >= RAN_SHARE * deadline_s:
            return "deadline"
        return "starved" if age_s >= STARVED_DEADLINES * deadline_s else ""


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
        self._active: _Worker | None = None
        self._spare: _Worker | None = None
        self._queue: deque[_Evaluation] = deque()
        self._numbers = 0
        self._deaths: OrderedDict[str, int] = OrderedDict()  # message: workers it cost
        self._recent: deque[float] = deque(maxlen=64)
        self._unanswered_since, self._unanswered = 0.0, 0
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
        """Have the promoted policy look at these facts; None within `wait_s` when it cannot."""
        answer: asyncio.Future[Evaluated | None] = self._loop.create_future()
        self._numbers += 1
        evaluation = _Evaluation(self._numbers, message, facts, answer)
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

    def answered(self, _: Evaluated) -> None:
        """A worker answered: the policy works."""
        self._unanswered = 0

    def lost(self, worker: _Worker) -> None:
        """A worker is gone: blame, hand over, start another."""
        if worker is self._spare:
            self._spare = None
        if worker is self._active:
            self._active, self._spare = self._spare, None
        begun, *rest = worker.in_hand or (None,)
        worker.in_hand.clear()
        if begun is not None:
            if worker.died in ("deadline", "died"):
                self._blame(begun.message)
            begun.settle(None)
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
            worker = await self._start_one(self._bundles[self._at])
            if worker is None or worker.died:
                continue
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

    async def _start_one(self, bundle: Bundle) -> _Worker | None:
        """Return a worker that has loaded the bundle, or None."""
        try:
            worker = await self._spawn(bundle)
        except OSError as fault:
            self._recent.append(self._loop.time())
            self._log.error("policy.worker_unstarted", fault=str(fault))
            return None
        try:
            loaded = await asyncio.wait_for(asyncio.shield(worker.loaded), LOAD_S)
        except TimeoutError:
            loaded = Loaded(bundle.hash, f"not loaded within {LOAD_S:.0f} s")
        except asyncio.CancelledError:
            worker.kill("closed")
            raise
        if loaded.fault is None:
            return worker
        worker.kill("unloadable")
        self._go_back(loaded.fault)
        return None

    async def _spawn(self, bundle: Bundle) -> _Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        worker = None
        try:
            with theirs:
                words = [*self._command, str(theirs.fileno()), str(os.getpid())]
                process = await asyncio.create_subprocess_exec(
                    *words, pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
            started = worker = _Worker(process, bundle.hash, self)
            self._gone.add(worker.gone)
            worker.gone.add_done_callback(self._gone.discard)
            _, worker.link = await self._loop.create_unix_connection(
                lambda: Link(PolicyFrame, _nothing, started.on_frames, started.on_lost), sock=ours
            )
        except BaseException:  # we may be told to stop at any point
            if worker is not None:
                worker.kill("closed")
            ours.close()
            raise
        worker.link.send(Load(bundle.canonical, bundle.schema))
        return worker


def _cpu_s(pid: int) -> float:
    """Return how long a process has run on a processor; 0 when it is gone."""
    try:
        return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3), which Python lacks
    except OSError:
        return 0.0


def _state(pid: int) -> str:
    """Return the state of a process as proc(5) names it: R, S, D, T, Z; S when unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read(512).rpartition(b") ")[2][:1].decode()
    except OSError:
        return "S"


def _nothing(_: Link) -> None:
    return None
