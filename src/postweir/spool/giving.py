"""Carries what is due from memory and from the file into the hands of delivery.

`spool.shard` decides, without I/O; here its wishes are done: frames to the workers' links, reads
of lanes on the writer's thread between two commits, checks of body files on a thread.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from postweir.runtime import clock
from postweir.runtime.link import Link
from postweir.runtime.log import Log
from postweir.spool.leaving import AWAY_US, Found, damage_of_file, read_lane
from postweir.spool.ports import Content, Out, Quarantine
from postweir.spool.shard import Fetch, Outgoing
from postweir.spool.writer import RoomyStore, Writer


class Giving:
    """One shard's hand-out; used on its event loop."""

    def __init__(
        self,
        outgoing: Outgoing,
        writer: Writer[RoomyStore],
        *,
        checking: Executor,
        log: Log,
        may_expire: Callable[[], bool],
    ) -> None:
        self._outgoing, self._writer, self._checking = outgoing, writer, checking
        self._loop = asyncio.get_running_loop()
        self._log = log
        self._pushing = False
        self._may_expire = may_expire

    def soon(self) -> None:
        """Something may leave, or may be read: look, once, at the end of this turn."""
        if not self._pushing:
            self._pushing = True
            self._loop.call_soon(self._push)

    async def read_calendar(self) -> None:
        """Learn from the file which lanes are due when."""
        self.marked(await self._writer.ask(lambda store: store.earliest()))

    def marked(self, lanes: Sequence[tuple[int, int, int]]) -> None:
        """These lanes, (bucket, lane, due_us), are due then."""
        for bucket, lane, due_us in lanes:
            self._outgoing.mark(bucket, lane, due_us)
        self.soon()

    def _push(self) -> None:
        self._pushing = False
        if self._writer.latch:  # what became of it could not be recorded; the beat looks again
            return
        now_s = self._loop.time()
        # Asked now, after every age that goes out was taken: a step between the two is seen.
        for one, frames in self._outgoing.take(now_s, may_expire=self._may_expire()):
            assert isinstance(one, Link)
            for frame in frames:
                self._send(one, frame)
        known = self._outgoing.known
        for fetch in self._outgoing.fetches(clock.wall_us()):
            self._fetch(fetch, known)
        checks, self._outgoing.to_check = self._outgoing.to_check, []
        for content in checks:
            self._check(content)
        if self._outgoing.reload_wanted:
            self._outgoing.reload_wanted = False
            self._writer.call(lambda store: store.earliest(), self.marked)

    def _send(self, one: Link, frame: Content | Out) -> None:
        one.send(frame)
        if isinstance(frame, Out) and frame.possible_duplicate:
            self._log.warning(
                "spool.possible_duplicate", message=frame.message, recipient=frame.recipient
            )

    def _fetch(self, fetch: Fetch, known: set[int]) -> None:
        def then(found: Found) -> None:
            self._outgoing.fetched(fetch, found.leaving, found.next_us, self._loop.time())
            self.soon()

        self._writer.call(lambda store: read_lane(store, fetch, known), then)

    def _check(self, content: Content) -> None:
        job = self._loop.run_in_executor(self._checking, damage_of_file, content)

        def then(done: "asyncio.Future[str]") -> None:
            if done.cancelled():
                return
            if done.exception() is not None:
                self._outgoing.checked(content.message, again_us=clock.wall_us() + AWAY_US)
            elif wrong := done.result():
                self._outgoing.checked(content.message, good=False)
                self._writer.put([(Quarantine(content.message, wrong), None)])
            else:
                self._outgoing.checked(content.message, good=True)
            self.soon()

        job.add_done_callback(then)
