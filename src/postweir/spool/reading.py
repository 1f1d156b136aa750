"""Answers what a shard is asked, on threads with a reader each, a bounded number at a time.

After a shard's restart everyone asks at once, and a ledger of a million rows takes a second. An
edge that asks what became of its accepts has not so long: it has a thread of its own.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from postweir.runtime.link import Link
from postweir.runtime.log import Log
from postweir.spool import questions
from postweir.spool.ports import Damaged, Page, Read, Reader

WAITING_MAX = 64  # questions of one neighbour; commands ask a page at a time
URGENT = ("committed",)


class Lane:
    """One thread and its reader, which is opened when it is needed."""

    def __init__(self, open_reader: Callable[[], Reader], name: str) -> None:
        self._open_reader = open_reader
        self._reader: Reader | None = None
        self.pool = ThreadPoolExecutor(1, name)

    def answer(self, read: Read) -> Page:
        """Return one page. Raises OSError; the next question opens the file anew."""
        if self._reader is None:
            self._reader = self._open_reader()
        try:
            return questions.answer(self._reader, read)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file; on the thread."""
        if self._reader is not None:
            reader, self._reader = self._reader, None
            reader.close()


class Reading:
    """The two lanes of one shard; used on its event loop."""

    def __init__(
        self,
        open_reader: Callable[[], Reader],
        log: Log,
        *,
        on_damage: Callable[[Damaged], None] = lambda _: None,
    ) -> None:
        self._on_damage = on_damage
        self._loop = asyncio.get_running_loop()
        self._lanes = {urgent: Lane(open_reader, "reader") for urgent in (False, True)}
        self._waiting: Counter[Link] = Counter()
        self._log = log

    def ask(self, one: Link, read: Read) -> None:
        """Answer this neighbour, some time; one that asks too much is hung up on."""
        if self._waiting[one] >= WAITING_MAX:
            one.abort()
            return
        self._waiting[one] += 1
        lane = self._lanes[read.question in URGENT]
        job = self._loop.run_in_executor(lane.pool, lane.answer, read)
        job.add_done_callback(lambda done: self._reply(one, read, done))

    async def let_go(self) -> None:
        """Have the file open no longer; the next question opens it anew."""
        for lane in self._lanes.values():
            await self._loop.run_in_executor(lane.pool, lane.close)

    async def close(self) -> None:
        """Answer no more."""
        await self.let_go()
        for lane in self._lanes.values():
            lane.pool.shutdown(wait=False, cancel_futures=True)

    def _reply(self, one: Link, read: Read, done: "asyncio.Future[Page]") -> None:
        self._waiting[one] -= 1
        if not self._waiting[one]:
            del self._waiting[one]
        if done.cancelled():
            return
        fault = done.exception()
        if fault is not None:
            self._log.error("spool.read_failed", question=read.question, fault=str(fault))
            if isinstance(fault, Damaged):
                self._on_damage(fault)
            if read.question not in URGENT:
                # Whoever asked hears a closed connection, not an empty answer; but an edge, whose
                # accepts are on the same link, waits as long as it would for any answer.
                one.abort()
            return
        one.send(done.result())
