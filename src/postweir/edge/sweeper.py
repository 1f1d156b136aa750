"""All connections of a worker: their deadlines, their tasks, and their end."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Protocol

SWEEP_S = 0.25
CLEAR_S = 1.0  # for files of messages that were not taken to go; the shard sweeps the rest


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

    @property
    def holder(self) -> str:
        """For whom it counts."""
        ...

    @property
    def idle_since(self) -> float | None:
        """Since when it waits for a next message; None when it is at something."""
        ...

    def make_room(self) -> None:
        """Leave: others need the place."""
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

    def enter(self, connection: Swept) -> None:
        """Look after this one."""
        self._connections.add(connection)

    def leave(self, connection: Swept) -> None:
        """It is gone."""
        self._connections.discard(connection)
        self._look_if_empty()

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task, and keep it until it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._look_if_empty()

    def _look_if_empty(self) -> None:
        if self.idle:
            self._empty.set()

    @property
    def connections(self) -> Collection[Swept]:
        """All that are here."""
        return self._connections

    async def run(self, look: Callable[[float], None] = lambda _: None) -> None:
        """Sweep until cancelled; `look` is called before each sweep."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            now = loop.time()
            look(now)
            for connection in tuple(self._connections):
                try:
                    connection.sweep(now)
                except Exception as fault:  # noqa: BLE001 - or every other deadline would end with this one
                    loop.call_exception_handler(
                        {"message": "a connection could not be swept", "exception": fault}
                    )
                    connection.abort()

    async def drain(self, wait_s: float) -> bool:
        """Let transactions end, for a bounded time; True when all did. Nobody is left after it."""
        self._empty.clear()
        for connection in tuple(self._connections):
            connection.drain()
        self._look_if_empty()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), wait_s)
        in_time = self.idle
        # What a shard or disk still holds ends by deadlines of its own; we cannot wait for it.
        for task in tuple(self._tasks):
            task.cancel()
        for connection in tuple(self._connections):
            connection.abort()
        await asyncio.sleep(0)  # connections that were lost by it clear away what they held
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=CLEAR_S)
        return in_time
