"""Does what operators asked: rows with a number, one after the other, each done once."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor

from postweir.runtime.log import Log
from postweir.spool.ports import Done, Request, Requests

LOOK_S = 0.25
WAIT_S = 10.0  # for the first look, before anything goes out


class Obeying:
    """Looks for requests four times a second, and when somebody says that there is one."""

    def __init__(
        self,
        requests: Requests,
        *,
        change: Callable[[Request], Awaitable[Done]],
        pool: Executor,
        log: Log,
    ) -> None:
        self._requests, self._change, self._pool, self._log = requests, change, pool, log
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._started_s = self._loop.time()
        self._read = False
        self._faulty = False

    @property
    def may_go(self) -> bool:
        """True when mail may leave: what was suspended or dropped before the start is known."""
        return self._read or self._loop.time() - self._started_s > WAIT_S

    def wake(self) -> None:
        """Look now."""
        self._woken.set()

    async def run(self, done: int) -> None:
        """Obey until cancelled; `done` is the number of the last request that is done."""
        while True:
            self._woken.clear()
            found = await self._look(done)
            for request in found:
                while (await self._change(request)).more:
                    pass
                done = request.number
            if found:
                continue  # there may be more than one page of them
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), LOOK_S)

    async def _look(self, done: int) -> Sequence[Request]:
        try:
            found = await self._loop.run_in_executor(self._pool, self._requests.after, done)
        except OSError as fault:
            if not self._faulty:
                self._log.error("spool.requests_unreadable", fault=str(fault))
            self._faulty = True
            return []
        self._faulty = False
        self._read = self._read or not found
        return found
