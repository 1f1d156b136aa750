"""Keeps two policy workers alive, and gives each question to one of them.

Rules of this file:

* What a dying worker had in hand but had not begun goes to the spare, which is loaded already.
  The message it was working on gets no answer: it is pending, is asked about again later, and is
  poison when it costs a second worker.
* The promoted policy is never barred by deaths: workers come back with back-off. Only when it
  cannot be loaded, or nothing is answered for five seconds through its own fault, does the one
  promoted before it judge, until another is promoted or this process starts anew.
* Another policy is promoted once two workers have loaded it and judged by it. Those that judged
  until then answer what they have in hand, and end. What waits here was gathered for the patterns,
  sets and throttles of the one before: where the new one has others it is pending, for a rule that
  looks for what was not sent along would let it go.
"""

import asyncio
import contextlib
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from postweir.judge.ports import Loadable
from postweir.judge.workers import AT_FAULT, Evaluation, Worker, start
from postweir.policy.bundle import Bundle
from postweir.policy.evaluation import Evaluate, Evaluated
from postweir.policy.facts import ITEMS_MAX, NUMBER_MAX, SCHEMA, TEXT_CHARS_MAX, Facts
from postweir.policy.verdict import Fact
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
ORDERLY = ("closed", "replaced")  # endings that nobody need hear of

NOTHING: Mapping[str, Any] = MappingProxyType({})

OnDeath = Callable[[str], None]  # why: deadline, stopped, starved, died, unloadable


class Engine:
    """The promoted policy, evaluated: one worker at work and a spare."""

    def __init__(
        self,
        policies: Sequence[Loadable],
        *,
        evaluate_s: float,
        log: Log,
        on_death: OnDeath | None = None,
        on_policy: Callable[[str], None] | None = None,
        command: Sequence[str] = WORKER,
    ) -> None:
        assert policies
        self.evaluate_s = evaluate_s
        self._policies, self._at = tuple(policies), 0  # `_at`: how far we had to go back
        self.killed: frozenset[str] = frozenset()  # rules that an operator switched off
        self.off = False  # no engine at all: an operator said so
        self._log, self._on_death, self._command = log, on_death, command
        self._on_policy = on_policy  # told which one judges from now on
        self._active: Worker | None = None
        self._spare: Worker | None = None
        self._workers: set[Worker] = set()  # all that live, those too that load or are done
        self._promoting = asyncio.Lock()
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
        if self._keeper is not None:
            # Before a worker's end says something to it: `wait_for` would forget the cancelling.
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for worker in list(self._workers):
            worker.kill("closed")
        async with self._promoting:  # who promotes has heard of it
            pass
        await asyncio.gather(*self._gone, return_exceptions=True)
        self._give_up()

    @property
    def policy(self) -> str:
        """The policy that judges now; "" while none is loaded."""
        return self._active.policy if self._active is not None else ""

    @property
    def bundle(self) -> Bundle:
        """What it says, or will say once it is loaded."""
        return self._policies[self._at].bundle

    @property
    def pids(self) -> list[int]:
        """The worker processes, the one at work first."""
        return [w.pid for w in (self._active, self._spare) if w is not None]

    def poison(self, message: str) -> bool:
        """True when this message has cost two workers."""
        return self._deaths.get(message, 0) >= DEATHS_POISON

    def submit(
        self,
        message: str,
        facts: Facts,
        wait_s: float,
        texts: Mapping[str, str] = NOTHING,
        keys: Mapping[str, list[str]] = NOTHING,
    ) -> "asyncio.Future[Evaluated | None]":
        """Have the promoted policy look at these facts; None within `wait_s` when it cannot.

        Facts that are left out are neutral. `texts` and `keys` are what its patterns and sets
        look at.
        """
        answer: asyncio.Future[Evaluated | None] = self._loop.create_future()
        # None lives: one that comes back soon is for those after.
        none = self._active is None and self._spare is None and self._ready.is_set()
        if self.off or none or len(self._queue) >= QUEUE_MAX or wait_s <= 0:
            answer.set_result(None)
            return answer
        self._numbers += 1
        question = Evaluate(self._numbers, facts, dict(texts), dict(keys))
        evaluation = Evaluation(message, question, answer, self.bundle)
        self._queue.append(evaluation)
        timer = self._loop.call_later(wait_s, evaluation.settle, None)
        answer.add_done_callback(lambda _: timer.cancel())
        self.pump()
        return answer

    def mask(self, rules: Sequence[str], off: bool) -> None:
        """From here on leave these rules out; `off`: use no engine at all."""
        self.killed, self.off = frozenset(rules), off
        for worker in self._workers:
            worker.mask(self.killed)
            if off:
                for evaluation in worker.in_hand:
                    evaluation.settle(None)
        if off:
            self._give_up()

    async def promote(self, policies: Sequence[Loadable]) -> str:
        """Judge by the first of these, and fall back to the others in turn. "", or why not.

        When it cannot be loaded, or the caller gives up, what judged before judges on. No question
        is lost.
        """
        assert policies
        async with self._promoting:
            if policies[0].policy == self.policy:
                self._policies, self._at = tuple(policies), 0
                return ""
            tried: list[Worker] = []
            try:
                faults = await asyncio.gather(*(self._prove(policies[0], tried) for _ in range(2)))
                fault = next(filter(None, faults), "")
                good = [worker for worker in tried if not worker.died]
                if not fault and len(good) == 2:
                    self._swap(policies, *good)
                elif not fault:
                    fault = "its workers end"
            finally:
                for worker in tried:
                    if worker.trial:
                        worker.kill("replaced")
            return fault

    def pump(self) -> None:
        """Give the worker what it can take."""
        worker, bundle = self._active, self.bundle
        while worker is not None and self._queue and len(worker.in_hand) < IN_HAND_MAX:
            evaluation = self._queue.popleft()
            if evaluation.answer.done():
                continue
            if evaluation.bundle is bundle or _sees(evaluation.bundle) == _sees(bundle):
                worker.give(evaluation)
            else:
                evaluation.settle(None)

    def answered(self, worker: Worker) -> None:
        """A worker answered: the policy works, and can be asked more."""
        if worker is self._active:
            self._unanswered = 0
            self.pump()
        elif not (worker.in_hand or worker.trial or worker is self._spare):
            worker.kill("replaced")  # that was its last one

    def lost(self, worker: Worker) -> None:
        """A worker is gone: blame, hand over, start another."""
        self._workers.discard(worker)
        if worker is self._spare:
            self._spare = None
        if worker is self._active:
            self._active, self._spare = self._spare, None
        begun, *rest = worker.in_hand or (None,)
        worker.in_hand.clear()
        if begun is not None:
            begun.settle(None)
            if worker.died in AT_FAULT and not worker.trial:
                self._blame(begun.message)
                self._note_silence()
        for evaluation in reversed(rest):
            if worker.trial or self.off or self.poison(evaluation.message):
                evaluation.settle(None)  # poison: asked about meanwhile, it costs no third worker
            else:
                self._queue.appendleft(evaluation)
        if self._closing:
            return
        if worker.died not in ORDERLY:
            self._mourn(worker, begun.message if begun else "", len(rest))
        self._changed.set()
        self.pump()

    def _mourn(self, worker: Worker, message: str, handed_over: int) -> None:
        if not worker.trial:
            self._recent.append(self._loop.time())
        self._log.warning(
            "policy.worker_lost",
            why=worker.died,
            policy=worker.policy,
            message=message,
            handed_over=handed_over,
        )
        if self._on_death is not None:
            self._on_death(worker.died)

    def _give_up(self) -> None:
        """Answer what waits here: nobody will judge it now."""
        while self._queue:
            self._queue.popleft().settle(None)

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
        policy = self._policies[self._at]
        before = self._policies[self._at + 1] if self._at + 1 < len(self._policies) else None
        self._log.error(
            "policy.unusable",
            policy=policy.policy,
            why=why,
            instead=before.policy if before else "",
        )
        if before is None:
            return
        self._at += 1
        for worker in (self._active, self._spare):
            if worker is not None:
                worker.kill("replaced")

    def _swap(self, policies: Sequence[Loadable], active: Worker, spare: Worker) -> None:
        """Ask these two from here on, and let those go that were asked until now."""
        done = [worker for worker in (self._active, self._spare) if worker is not None]
        self._policies, self._at = tuple(policies), 0
        self._active, self._spare = active, spare
        active.trial = spare.trial = False
        self._unanswered = self._loads_failed = 0
        self._loaded(active)
        for worker in done:
            if not worker.in_hand:
                worker.kill("replaced")  # another ends with its last answer
        self.pump()

    def _loaded(self, worker: Worker) -> None:
        self._log.info("policy.loaded", policy=worker.policy, pid=worker.pid)
        self._ready.set()
        if self._on_policy is not None:
            self._on_policy(worker.policy)

    async def _keep_two(self) -> None:
        while True:
            if self._active is not None and self._spare is not None:
                self._changed.clear()
                await self._changed.wait()
                continue
            await asyncio.sleep(self._backoff_s())
            try:
                worker = await self._start_one(self._policies[self._at])
            except Exception as fault:  # noqa: BLE001 - without workers all mail is pending
                self._recent.append(self._loop.time())
                self._log.error("policy.worker_unstarted", fault=repr(fault))
                continue
            if worker is not None:
                self._take(worker)

    def _take(self, worker: Worker) -> None:
        if worker.policy != self._policies[self._at].policy:
            worker.kill("replaced")  # another was promoted, or we went back, while it loaded
        elif worker.died:
            return
        elif self._active is None:
            self._active = worker
            self._loaded(worker)
            self.pump()
        elif self._spare is None:
            self._spare = worker
        else:
            worker.kill("replaced")  # the same policy was promoted anew while it loaded

    def _backoff_s(self) -> float:
        now = self._loop.time()
        while self._recent and now - self._recent[0] > RECENT_S:
            self._recent.popleft()
        # The first two deaths cost nothing but the start itself.
        doublings = len(self._recent) - 2
        if doublings <= 0:
            return 0.0
        return float(min(BACKOFF_S_FIRST * 2.0 ** min(doublings, 20), BACKOFF_S_MAX))

    async def _start_one(self, policy: Loadable) -> Worker | None:
        """Return a worker that has loaded the policy, or None."""
        worker = await self._begun(policy)
        fault = await self._load_fault(worker)
        if not fault:
            self._loads_failed = 0
            return worker
        # A worker that ended says nothing about the policy, unless one after the other does.
        self._loads_failed += 1
        if not worker.died or self._loads_failed >= LOADS_FAILED_MAX:
            self._loads_failed = 0
            worker.kill("unloadable")
            if policy.policy == self._policies[self._at].policy:
                self._go_back(fault)
        return None

    async def _begun(self, policy: Loadable, trial: bool = False) -> Worker:
        """Return a worker that is told to load the policy. Raises OSError."""
        worker = await start(policy, self, self._command)
        self._gone.add(worker.gone)
        worker.gone.add_done_callback(self._gone.discard)
        worker.trial = trial
        if not worker.died:
            self._workers.add(worker)
        worker.mask(self.killed)
        return worker

    async def _load_fault(self, worker: Worker) -> str:
        """Return why a worker cannot load its policy, "" once it has."""
        try:
            loaded = await asyncio.wait_for(asyncio.shield(worker.loaded), LOAD_S)
        except TimeoutError:
            worker.kill("unloadable")
            return f"not loaded within {LOAD_S:.0f} s"
        except asyncio.CancelledError:
            worker.kill("closed")
            raise
        return loaded.fault or ""

    async def _prove(self, policy: Loadable, tried: list[Worker]) -> str:
        """Have a worker load a policy and judge by it; "", or why that does not work."""
        fault = ""
        for _ in range(LOADS_FAILED_MAX):
            if self._closing:
                return "the judge ends"
            try:
                worker = await self._begun(policy, trial=True)
            except OSError as refused:
                return f"no worker could be started: {refused}"
            tried.append(worker)
            fault = await self._load_fault(worker)
            if fault and not worker.died:
                break
            fault = fault or await self._judge_fault(worker, policy)
            if not fault:
                break
            worker.kill("unloadable")  # one may be unlucky, on a busy machine; three are not
        return fault

    async def _judge_fault(self, worker: Worker, policy: Loadable) -> str:
        """Return why a worker cannot judge in time, "" when it can."""
        for facts in ({}, _at_their_bounds()):
            answer: asyncio.Future[Evaluated | None] = self._loop.create_future()
            self._numbers += 1
            question = Evaluate(self._numbers, facts)
            worker.give(Evaluation("", question, answer, policy.bundle))
            if await answer is None:
                return f"it does not judge within {self.evaluate_s * 1000:.0f} ms"
        return ""


def _sees(bundle: Bundle) -> tuple[object, ...]:
    """Return what a policy looks at besides facts: it is gathered with each question."""
    return bundle.patterns, bundle.sets, bundle.throttles


def _at_their_bounds() -> Facts:
    """Return facts as large as they may be: whatever a policy costs, here it costs it."""
    text = "x" * TEXT_CHARS_MAX
    bounds: dict[str, Fact] = {
        "bool": True, "int": NUMBER_MAX, "double": 1.0, "string": text, "list": [text] * ITEMS_MAX,
    }  # fmt: skip
    return {name: bounds[fact.type] for name, fact in SCHEMA.items()}
