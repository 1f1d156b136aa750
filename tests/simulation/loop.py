"""Virtual time, and an event loop for each process: one seed gives one history.

All loops share one heap of what is to happen. A process that is stopped keeps what comes to it
until it goes on; one that is dead never runs again, and what its tasks hold stays held, so that no
clean-up of theirs runs at a moment that luck chooses.
"""

import asyncio
import contextlib
import heapq
import random
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

START_S = 1000.0  # monotonic time at the beginning: as on a host, not 0
WALL_US = 1_790_000_000_000_000
THREAD_S, SLOW_THREAD_S = 0.004, 0.4  # what a thread does is mostly done within the first
STUCK_THREAD_S = 2.0  # where the storm wants it: a beat, or two
TURNS_MAX = 50_000  # callbacks of one process at one moment: it would never end


class Spinning(Exception):
    """A process goes on without any time passing."""


class Handle:
    """Something that is to be called, until it is cancelled."""

    __slots__ = ("args", "call", "when_s")

    def __init__(
        self, call: Callable[..., Any] | None, args: tuple[Any, ...], when_s: float
    ) -> None:
        self.call, self.args, self.when_s = call, args, when_s  # when_s: of a timer, else 0

    def cancel(self) -> None:
        self.call, self.args = None, ()

    def cancelled(self) -> bool:
        return self.call is None

    def when(self) -> float:
        return self.when_s


class World:
    """Time, chance, and what is known of both afterwards."""

    def __init__(self, seed: int, *, traced: bool = False) -> None:
        self.chance = random.Random(seed)
        self.now_s = START_S
        self.wall_us_0 = WALL_US - int(START_S * 1e6)
        self.traced = traced
        self.history: list[str] = []
        self.faults: list[str] = []
        self.loops: list[Loop] = []
        self.running: Loop | None = None
        self.slow_until_s = 0.0  # threads take long for a while
        self._heap: list[tuple[float, int, Loop | None, Handle | None]] = []
        self._count = 0

    def wall_us(self) -> int:
        return self.wall_us_0 + int(self.now_s * 1e6)

    def monotonic_ns(self) -> int:
        return int(self.now_s * 1e9)

    def note(self, who: str, what: str) -> None:
        """Write down what a person who reads a failing seed wants to see."""
        if self.traced:
            self.history.append(f"{self.now_s - START_S:9.4f} {who:<11} {what}")

    def fault(self, what: str) -> None:
        """Something that must never be."""
        self.faults.append(f"at {self.now_s - START_S:.3f} s: {what}")
        self.note("ORACLE", what)

    def at(
        self, when_s: float, loop: "Loop | None", call: Callable[..., Any], *args: Any
    ) -> Handle:
        """Call it then; in that process, or as nobody's."""
        handle = Handle(call, args, 0.0)
        self._count += 1
        heapq.heappush(self._heap, (when_s, self._count, loop, handle))
        return handle

    def timer(
        self, when_s: float, loop: "Loop", call: Callable[..., Any], args: tuple[Any, ...]
    ) -> Handle:
        """Call it then in that process, which has asked for it."""
        if when_s < self.now_s:
            when_s = self.now_s
        handle = Handle(call, args, when_s)
        self._count += 1
        heapq.heappush(self._heap, (when_s, self._count, loop, handle))
        return handle

    def after(self, wait_s: float, call: Callable[..., Any], *args: Any) -> Handle:
        return self.at(self.now_s + wait_s, None, call, *args)

    def push(self, loop: "Loop", handle: Handle | None) -> None:
        """Have it happen now, after all that is to happen now already."""
        self._count += 1
        heapq.heappush(self._heap, (self.now_s, self._count, loop, handle))

    def run(self, until_s: float) -> None:
        """Let it all happen up to then, or up to the first fault."""
        heap, faults = self._heap, self.faults
        while heap and heap[0][0] <= until_s and not faults:
            when_s, _, loop, handle = heapq.heappop(heap)
            if handle is not None and handle.call is None:
                continue
            if when_s > self.now_s:
                self.now_s = when_s
            if loop is not None:
                if not loop.dead:
                    loop.turn(handle)
            else:
                assert handle is not None
                assert handle.call is not None
                handle.call(*handle.args)
        self.now_s = max(self.now_s, until_s)

    def end(self) -> None:
        """Close what every task left open, each in its own dead loop."""
        for loop in self.loops:
            loop.dead = True
        for loop in self.loops:
            loop.close_tasks()
        asyncio._set_running_loop(None)


class Loop(asyncio.AbstractEventLoop):
    """One process's loop. It has no sockets but those of `net`."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.dead = self.stopped = False
        self.ends: list[Any] = []  # of `net`: connections of this process
        self.net: Any = None
        self._ready: deque[Handle] = deque()
        self._held: list[Handle] = []  # came while it was stopped
        self._woken = False  # a turn is on its way, or under way
        self._tasks: list[asyncio.Task[Any]] = []
        world.loops.append(self)

    def turn(self, handle: Handle | None) -> None:
        """Run all that is ready now."""
        if self.stopped:
            if handle is not None:
                self._held.append(handle)
            else:
                self._woken = False
            return
        ready, count = self._ready, 0
        if handle is not None:
            ready.append(handle)
        self._woken = True
        if self.world.running is not self:
            self.world.running = self
            asyncio._set_running_loop(self)
        try:
            while ready:
                handle = ready.popleft()
                if handle.call is not None:
                    handle.call(*handle.args)
                    count += 1
                    if count > TURNS_MAX:
                        raise Spinning(self.name)
                    if self.dead:
                        return
        except Exception as fault:
            if not self.dead:
                where = " ".join(traceback.format_exc(limit=-4).split())
                self.world.fault(f"{self.name} failed: {fault!r} {where}")
        self._woken = False

    def stop_here(self) -> None:
        self.stopped = True

    def go_on(self) -> None:
        """Everything that came meanwhile is there at once."""
        self.stopped = False
        held, self._held = self._held, []
        if self.world.chance.random() < 0.5:
            # As uvloop does it: timers first, and what they wake; then what lies in the sockets.
            self._ready.extend(handle for handle in held if handle.when_s)
            self._wake()
            for handle in held:
                if not handle.when_s:
                    self.world.push(self, handle)
        else:
            self._ready.extend(held)
            self._wake()

    def _wake(self) -> None:
        if not self._woken and not self.dead:
            self._woken = True
            self.world.push(self, None)

    def close_tasks(self) -> None:
        for task in self._tasks:
            if task.done():
                continue
            task._log_destroy_pending = False
            asyncio._set_running_loop(self)
            with contextlib.suppress(BaseException):
                task.get_coro().close()
        self._tasks.clear()

    # What asyncio asks of a loop

    def time(self) -> float:
        return self.world.now_s

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = Handle(callback, args, 0.0)
        if not self.dead:
            self._ready.append(handle)
            if not self._woken:
                self._wake()
        return handle

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_soon(callback, *args)

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.world.timer(self.world.now_s + delay, self, callback, args)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.world.timer(when, self, callback, args)

    def create_future(self) -> Any:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> Any:
        task = asyncio.Task(coro, loop=self, name=name or "")
        self._tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead and "never retrieved" not in context["message"]:
            self.world.fault(f"{self.name}: {context['message']}: {context.get('exception')!r}")

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """A thread's work: it is done at one moment, a little later."""
        answer = self.create_future()

        def work() -> None:
            if answer.done():
                return
            try:
                answer.set_result(func(*args))
            except Exception as fault:
                answer.set_exception(fault)

        world = self.world
        most_s = THREAD_S if world.chance.random() < 0.95 else SLOW_THREAD_S
        if world.now_s < world.slow_until_s:
            most_s = STUCK_THREAD_S
        self.call_later(world.chance.random() * most_s, work)
        return answer

    async def create_unix_server(self, protocol_factory: Any, path: Any = None, **_: Any) -> Any:
        return self.net.listen(self, protocol_factory, path)

    async def create_unix_connection(
        self, protocol_factory: Any, path: Any = None, **_: Any
    ) -> Any:
        return self.net.connect(self, protocol_factory, path)
