"""One policy worker as the judge sees it: what it has in hand, and whose fault it is when late.

* The *evaluation* has a deadline, not the queue: its age counts from when the one before it was
  answered. A worker that is merely busy is never killed for that.
* A worker that got no processor, or waits for a disk, is not at fault, nor is the message it had:
  it is killed only after four deadlines. One that ran, or slept, through its deadline is killed
  at once, and so is one that was stopped (docs/decisions/0008).
"""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from postweir.judge.ports import Loadable
from postweir.policy.bundle import Bundle
from postweir.policy.evaluation import Evaluate, Evaluated, Loaded, Mask, PolicyFrame, loading
from postweir.policy.matching import memory_bytes
from postweir.runtime.frames import encode
from postweir.runtime.link import Link

GRACE_S = 0.002  # an answer that has arrived is read before its worker is called late
STARVED_DEADLINES = 4
TELL_S = 10.0  # to take in all sets, a gigabyte in memory; one that was stopped takes none
RAN_SHARE = 0.5  # of its deadline: less, and the worker was waiting for a processor
AT_FAULT = ("deadline", "died")  # endings that the message in hand may have caused
# What an evaluator gets of our environment: how to run Python. Settings may hold secrets.
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_", "LD_", "PYTHON", "VIRTUAL_ENV", "POSTWEIR_FAULTS")


class Owner(Protocol):
    """Who has workers: the engine."""

    evaluate_s: float

    def lost(self, worker: "Worker") -> None:
        """A worker is gone, `died` says why."""
        ...

    def answered(self, worker: "Worker") -> None:
        """A worker answered, and can take more."""
        ...


class Evaluation:
    """One question on its way, to be asked under the number that it has."""

    __slots__ = ("answer", "bundle", "message", "question")

    def __init__(self, message: str, question: Evaluate, answer: Any, bundle: Bundle) -> None:
        self.message, self.question = message, question
        self.bundle = bundle  # for which it was gathered
        self.answer: asyncio.Future[Evaluated | None] = answer

    def settle(self, evaluated: Evaluated | None) -> None:
        if not self.answer.done():
            self.answer.set_result(evaluated)


class Worker:
    """One worker process, and what it has in hand, oldest first."""

    def __init__(self, process: asyncio.subprocess.Process, policy: str, owner: Owner) -> None:
        self._loop = asyncio.get_running_loop()
        self._process, self._owner = process, owner
        self.policy = policy
        self.pid = process.pid
        self.in_hand: deque[Evaluation] = deque()
        self.loaded: asyncio.Future[Loaded] = self._loop.create_future()
        self.link: Link | None = None
        self.died = ""  # why
        self.trial = False  # it has yet to prove that its policy works
        self._head_at = 0.0
        self._head_cpu_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._graced = False
        self.gone = self._loop.create_task(process.wait())

    def give(self, evaluation: Evaluation) -> None:
        """Have it evaluated; `None` is its answer when that takes too long."""
        assert self.link is not None
        self.in_hand.append(evaluation)
        if len(self.in_hand) == 1:
            self._begin_head()
        self.link.send(evaluation.question)

    def mask(self, killed: Iterable[str]) -> None:
        """Have it leave out these rules from here on."""
        if self.link is not None:
            self.link.send(Mask(sorted(killed)))

    def kill(self, why: str) -> None:
        """End it now; its owner hears of it once."""
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
        self._owner.lost(self)

    def on_frames(self, _: Link, frames: list[Any]) -> None:
        settled = 0
        for frame in frames:
            if isinstance(frame, Loaded) and not self.loaded.done():
                self.loaded.set_result(frame)
            elif isinstance(frame, Evaluated):
                if not self.in_hand or self.in_hand[0].question.ask != frame.ask:
                    self.kill("died")  # it answers what nobody asked
                    return
                self.in_hand.popleft().settle(frame)
                settled += 1
        if settled:
            if self.in_hand:
                self._begin_head()
            self._owner.answered(self)

    def on_lost(self, _: Link) -> None:
        self.kill("died")

    def _begin_head(self) -> None:
        self._head_at = self._loop.time()
        self._head_cpu_s = _cpu_s(self.pid)
        self._graced = False
        if self._timer is None:
            self._timer = self._loop.call_later(self._owner.evaluate_s, self._look)

    def _look(self) -> None:
        """See whether the evaluation that was begun is overdue, and whose fault that is."""
        self._timer = None
        if not self.in_hand or self.died:
            return
        deadline_s = self._owner.evaluate_s
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
        if state not in "RD" or _cpu_s(self.pid) - self._head_cpu_s >= RAN_SHARE * deadline_s:
            return "deadline"
        return "starved" if age_s >= STARVED_DEADLINES * deadline_s else ""


async def start(policy: Loadable, owner: Owner, command: Sequence[str]) -> Worker:
    """Return a worker that is told to load the policy. Raises OSError."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    worker = None
    try:
        with theirs:
            need = memory_bytes(policy.bundle, policy.sets)
            words = [*command, str(theirs.fileno()), str(os.getpid()), str(need)]
            process = await asyncio.create_subprocess_exec(
                *words, pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL, env=environment(os.environ),
            )  # fmt: skip
        started = worker = Worker(process, policy.policy, owner)
        # Before there is a link: it would take all sets into memory, however slowly they are read.
        await _tell(ours, policy)
        _, worker.link = await loop.create_unix_connection(
            lambda: Link(PolicyFrame, _nothing, started.on_frames, started.on_lost), sock=ours
        )
    except BaseException:  # we may be told to stop at any point
        if worker is not None:
            worker.kill("closed")
            await worker.gone
        ours.close()
        raise
    return worker


async def _tell(ours: socket.socket, policy: Loadable) -> None:
    """Say all that there is to load. Raises OSError."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(TELL_S):
            for frame in loading(policy.canonical, policy.bundle.schema, policy.sets):
                await loop.sock_sendall(ours, encode([frame]))
    except TimeoutError:
        raise TimeoutError(f"its sets were not taken in within {TELL_S:.0f} s") from None


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Return what of our environment a policy worker gets."""
    return {name: value for name, value in ours.items() if name.startswith(ENVIRONMENT)}


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
