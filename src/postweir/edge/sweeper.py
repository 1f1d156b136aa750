"""All connections of a worker: their deadlines, their tasks, and their end."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Protocol

SWEEP_S = 0.25


class Swept(Protocol):
    """What a connection lets the sweeper do."""

    def sweep(self, now: float) -> None:
        """End what is too late."""
        ...

    def drain(self) -> None:
        """Leave, if no transaction is open."""
        ...

    def abort(self) -> None:
        """Leave now."""
        ...


class Sweeper:
    """Looks at every connection four times a second: a deadline costs a number, not a timer."""

    def __init__(self) -> None:
        self._connections: set[Swept] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()

    @property
    def idle(self) -> bool:
        """True when no connection and no task is left."""
        return not self._connections and not self._tasks

    def _left(self, _: object = None) -> None:
        if self.idle:
            self._empty.set()

    def enter(self, connection: Swept) -> None:
        """Look after this one."""
        self._connections.add(connection)

    def leave(self, connection: Swept) -> None:
        """It is gone."""
        self._connections.discard(connection)
        self._left()

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task, and keep it until it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._left)

    async def run(self) -> None:
        """Sweep until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            now = loop.time()
            for connection in tuple(self._connections):
                connection.sweep(now)

    async def drain(self, wait_s: float) -> bool:
        """Let transactions end, for a bounded time; True when all did. Nobody is left after it."""
        self._empty.clear()
        for connection in tuple(self._connections):
            connection.drain()
        self._left()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), wait_s)
        in_time = self.idle
        for connection in tuple(self._connections):
            connection.abort()
        # What a shard or disk still holds ends by deadlines of its own; we cannot wait for it.
        for task in tuple(self._tasks):
            task.cancel()
        for task in tuple(self._tasks):
            with contextlib.suppress(asyncio.CancelledError):
                await task
        return in_time
