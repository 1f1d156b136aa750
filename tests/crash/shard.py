"""One life of a shard: the product's store, writer and body files, and whoever it talks to.

It runs in a forked process that is killed. What stands for the edge, delivery, judge and operator
does as little as they would: it puts changes, and tells the parent an answer after the product
has given it.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvloop
from tests.crash import telling
from tests.crash.work import Mail, Work, check_of, late_verdict, settle, wish

from postweir.edge import bodies
from postweir.spool.leaving import read_lane
from postweir.spool.ports import Accept, Change, Done, Judged, Request, Settle
from postweir.spool.shard import Fetch
from postweir.spool.writer import Writer
from postweir.storage import spool_checkpoint
from postweir.storage.sqlite_spool import SqliteStore

IN_FLIGHT_MAX = 150  # changes that wait for their commit, before more are put
FETCH_MAX = 50  # of one lane, as the service reads
FOREVER_US = 1 << 60
FILE, BODIES = "shard-1.db", "bodies-1"


def live(folder: Path, work: Work, pipe: int, prepare: Callable[[], None]) -> None:
    """Live until killed, or until all is done; never returns."""
    teller = telling.Teller(pipe)
    try:
        prepare()
        spool_checkpoint.PAGES_WAKE, spool_checkpoint.PAGES_REST = work.log_pages, 20
        loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.run_until_complete(_run(folder, work, teller))
    except BaseException as fault:
        teller.fault(repr(fault))
        os._exit(3)
    os._exit(0)


async def _run(folder: Path, work: Work, teller: telling.Teller) -> None:
    await Shard(folder, work, teller).run()


class Shard:
    """The real writer on a real loop, and what is in its clients' hands."""

    def __init__(self, folder: Path, work: Work, teller: telling.Teller) -> None:
        self._folder, self._work, self._teller = folder, work, teller
        self._loop = asyncio.get_running_loop()
        self._begun_s = self._loop.time()
        self._pool = ThreadPoolExecutor(4, "disk")
        self._waits: list[Change] = []  # put with the next group
        self._in_flight = 0
        self._calm = asyncio.Event()
        self._calm.set()
        self._request = 0
        self._rows: dict[str, list[int]] = {}  # recipients of what waits for a verdict or wish
        self._writer: Writer[SqliteStore] = Writer(
            self._open,
            on_done=self._on_done,
            on_room=lambda *_: None,
            on_fault=self._on_fault,
        )

    def _open(self) -> SqliteStore:
        return SqliteStore(
            self._folder / FILE, self._folder / BODIES, incarnation=self._work.seed & 0xFFFF
        )

    async def run(self) -> None:
        """Take up what earlier lives left, take the mail, and wait for the end."""
        self._writer.start()
        await self._take_up()
        for group in self._work.groups:
            await asyncio.gather(*(self._spill(m) for m in group if m.accept.body_file))
            await self._put([mail.accept for mail in group])
        while self._waits or self._in_flight:
            await self._put([])
            await self._quiet(0)
        self._teller.add(telling.END, int((self._loop.time() - self._begun_s) * 1e6))
        self._teller.flush()
        if self._work.closes:
            await self._writer.close()
        else:
            await asyncio.Event().wait()

    async def _put(self, changes: list[Change]) -> None:
        """Commit these, with what came up meanwhile."""
        waits, self._waits = self._waits, []
        every = [*changes, *waits]
        self._in_flight += len(every)
        self._writer.put([(change, None) for change in every])
        await self._quiet(IN_FLIGHT_MAX)

    async def _quiet(self, in_flight_max: int) -> None:
        while self._in_flight > in_flight_max:
            self._calm.clear()
            await self._calm.wait()

    async def _spill(self, mail: Mail) -> None:
        """Write a body as the edge does; only then may its accept be put."""
        path = self._folder / BODIES / mail.name
        spill = bodies.Spill(path, self._pool, on_written=lambda _: None)
        for at in range(0, len(mail.body), 50_000):
            spill.write(mail.body[at : at + 50_000])
        assert await spill.finish() == mail.accept.check

    # What earlier lives left

    async def _take_up(self) -> None:
        done, leaving, pending = await self._writer.ask(self._left)
        while self._writer.latch:  # noqa: ASYNC110 as the service, which looks at each accept
            await asyncio.sleep(0.001)
        self._request = done
        for out, check in leaving:
            self._teller.add(telling.OUT, out.recipient, out.attempt, check)
            self._waits.append(settle(out.recipient, out.attempt))
        for accept in pending:
            self._waits.append(self._judged(accept, accept.ask))
        self._teller.flush()

    def _left(self, store: SqliteStore) -> tuple[int, list[tuple[Any, bytes]], Sequence[Accept]]:
        """On the writer's thread: what is due, as the service reads it, and what is pending."""
        if self._work.sweeps:
            for path in list((self._folder / BODIES).iterdir()):
                store.forget_file(path.name)
        leaving: list[tuple[Any, bytes]] = []
        for bucket, lane, _ in store.earliest():
            found = read_lane(store, Fetch(bucket, lane, FOREVER_US, FETCH_MAX), frozenset())
            for out, content in found.leaving:
                path = content.body_file
                body = Path(path).read_bytes() if path else content.body
                leaving.append((out, check_of(body or b"")))
        return store.request_done(), leaving, store.pending(0, 30)

    def _judged(self, accept: Accept, number: int) -> Judged:
        first = number << 10
        count = len(accept.envelope.recipients)
        self._rows[accept.message] = list(range(first, first + count))
        return Judged(accept.message, late_verdict(accept.message), b"late")

    # What was committed

    def _on_done(self, done: Sequence[tuple[Change, Any, Done]]) -> None:
        self._in_flight -= len(done)
        for change, _, answer in done:
            match change:
                case Accept():
                    self._accepted(change, answer)
                case Settle():
                    self._settled(change)
                case Judged():
                    self._was_judged(change, answer)
                case Request():
                    self._obeyed(change)
                case _:
                    raise AssertionError(change)
        self._teller.flush()
        self._calm.set()

    def _accepted(self, accept: Accept, answer: Done) -> None:
        text = accept.message.encode()
        if answer.reason:
            self._teller.add(telling.UNSAFE, text=text)
            return
        self._teller.add(telling.SAFE, text=text)
        # A quarter is left for a later life, as what a remote does not take now is.
        self._waits += [settle(recipient, 1) for recipient in answer.ready if recipient & 0xC00]
        if accept.verdict is None:
            if accept.ask % 3:
                self._waits.append(self._judged(accept, answer.number))
        elif accept.verdict.verb != "accept":
            first = answer.number << 10
            self._rows[accept.message] = [first + n for n in range(len(accept.envelope.recipients))]
            self._wish(accept.message)

    def _settled(self, change: Settle) -> None:
        self._teller.add(telling.SETTLED, change.recipient, change.attempt)
        if change.outcome == "deferred":
            self._waits.append(settle(change.recipient, change.attempt + 1))

    def _was_judged(self, change: Judged, answer: Done) -> None:
        self._teller.add(telling.JUDGED, text=change.message.encode())
        if "late_judged" in answer.noted:
            self._waits += [settle(recipient, 1) for recipient in self._rows[change.message]]
        else:
            self._wish(change.message)

    def _wish(self, name: str) -> None:
        if verb := wish(name):
            self._request += 1
            self._waits.append(Request(self._request, verb, name, "test", "oracle", 0))

    def _obeyed(self, change: Request) -> None:
        self._teller.add(telling.ASKED, change.number, text=change.scope.encode())
        if change.verb == "release":
            self._waits += [settle(recipient, 1) for recipient in self._rows[change.scope]]

    def _on_fault(self, fault: BaseException) -> None:
        """On the writer's thread: as the service does, nothing more is said to be safe."""
        self._teller.fault(repr(fault))
        os._exit(3)
