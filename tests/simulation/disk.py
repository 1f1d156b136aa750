"""A shard's disk: it keeps what is committed, and may say so to nobody.

A commit is a moment. Before it, a crash loses all that the writer had taken; after it, a crash
loses only the word of it. Between the moment and the word some time passes, as the seed says.
"""

import errno
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from tests.simulation.loop import World

from postweir.runtime import clock
from postweir.runtime.settings import Spool
from postweir.spool.ports import Change, Content, Done, Full, Ledger, Out, Quarantine, Request
from postweir.spool.writer import LOOK_S, Writer
from postweir.storage.memory import MemoryStore

COMMIT_S = 0.004  # a sync, about
FREE_BYTES = 1 << 40
SLEW_US = 1_000_000


class Disk:
    """What outlives the processes of one shard."""

    def __init__(self, world: World, number: int, settings: Spool) -> None:
        self.number, self.settings = number, settings
        self.store = MemoryStore(
            now_us=world.wall_us, settings=settings, hostname=f"shard{number}.example"
        )
        self.store._bounces = number * 10_000  # so that no name of a bounce is in two shards
        self.full = False
        self.breaks = ""  # the next commit fails: before, or after it was made
        self.slow = 1.0
        self.clock_us: int | None = None
        self.accepted_s: dict[str, float] = {}  # by name, true time
        self.on_commit: Callable[[Sequence[Change]], None] = lambda _: None


class SimStore:
    """One process's hold on the disk."""

    def __init__(self, disk: Disk) -> None:
        self._disk, self._store = disk, disk.store
        self._steps = clock.StepWatch(disk.clock_us)
        self._before_us = disk.clock_us
        self._resumed = True
        self._unparked: Sequence[tuple[int, int, int]] = ()

    def commit(self, changes: Sequence[Change]) -> Sequence[Done]:
        disk = self._disk
        if disk.full:
            raise Full(errno.ENOSPC, "no room")
        if disk.breaks == "before":
            disk.breaks = ""
            raise OSError(errno.EIO, "nothing was written")
        done = self._store.commit(changes)
        self._resumed |= any(isinstance(c, Request) and c.verb == "resume" for c in changes)
        disk.on_commit(changes)
        if disk.breaks:
            disk.breaks = ""
            raise OSError(errno.EIO, "all was written")
        return done

    def _save_clock(self) -> None:
        now_us = clock.offset_us()
        if self._before_us is None or abs(now_us - self._before_us) > SLEW_US:
            self._before_us = self._disk.clock_us = now_us

    def prove(self) -> None:
        if self._disk.full:
            raise Full(errno.ENOSPC, "no room")

    def upkeep(self) -> bool:
        """As the file does it: while a step of the clock is remembered, nothing expires."""
        if self._resumed:
            self._resumed, self._unparked = False, self._store.earliest()
        if self._steps.look():
            return False
        self._save_clock()
        return self._store.upkeep()

    def room(self) -> tuple[int, str]:
        return (0 if self._disk.full else FREE_BYTES), ""

    def clock_us(self) -> int | None:
        return self._disk.clock_us

    def unparked(self) -> Sequence[tuple[int, int, int]]:
        found, self._unparked = self._unparked, ()
        return found

    def quarantined(self) -> Sequence[Quarantine]:
        return ()

    def forget_file(self, name: str) -> bool:
        return False

    def queued(self) -> int:
        return self._store.queued()

    def earliest(self) -> Sequence[tuple[int, int, int]]:
        return self._store.earliest()

    def next_due(self, bucket: int, lane: int, after_us: int) -> int | None:
        return self._store.next_due(bucket, lane, after_us)

    def due(
        self, bucket: int, lane: int, until_us: int, out: AbstractSet[int], count_max: int
    ) -> Sequence[Out]:
        return self._store.due(bucket, lane, until_us, out, count_max)

    def pending(self, after: int, count_max: int) -> Sequence[Any]:
        return self._store.pending(after, count_max)

    def content(self, message: str) -> Content | None:
        return self._store.content(message)

    def request_done(self) -> int:
        return self._store.request_done()

    def close(self) -> None:
        """Nothing to leave tidy."""


class SimReader:
    """The few questions that processes ask each other."""

    def __init__(self, disk: Disk) -> None:
        self._store = disk.store

    def committed(self, messages: Sequence[str]) -> AbstractSet[str]:
        return {name for name in messages if name in self._store._numbers}

    def ledger(self) -> Sequence[Ledger]:
        return self._store.ledger()

    def close(self) -> None:
        """Nothing is open."""


class SimWriter(Writer[Any]):
    """The writer with its thread taken out: each round is a moment, its words come later."""

    watch: Callable[[Any, Callable[..., None], tuple[Any, ...]], None]  # set by the machine
    disk_of: Callable[[Any], Disk]

    def start(self) -> None:
        self._ended = self._loop.create_future()
        self._store: Any = None
        self._said_s = 0.0
        self._round: Any = None
        self._looked_s = -1e9
        self._due(COMMIT_S)

    def put(self, changes: Any) -> None:
        super().put(changes)
        self._due(COMMIT_S)

    def call(self, ask: Any, then: Any) -> None:
        super().call(ask, then)
        self._due(COMMIT_S / 8)

    async def close(self) -> None:
        self._inbox.put(None)
        self._due(COMMIT_S)
        await self._ended

    def _due(self, wait_s: float) -> None:
        at_s = self._loop.time() + wait_s * self._luck()
        if self._round is None or self._round.cancelled() or self._round.when_s > at_s:
            if self._round is not None:
                self._round.cancel()
            self._round = self._loop.call_at(at_s, self._turn)

    def _luck(self) -> float:
        disk = self._disk if self._store is not None else None
        return (0.25 + self._loop.world.chance.random()) * (disk.slow if disk else 1.0)

    def _turn(self) -> None:
        self._round = None
        try:
            if self._store is None:
                self._store = self._open_store()
                self._disk = self._store._disk
            self._once(self._store)
        except Exception as fault:
            self._on_fault(fault)

    def _once(self, store: Any) -> None:
        """One time round `Writer._work`, which is a loop because it has a thread."""
        self._gather(0.0)
        self._serve(store, clock.monotonic_ns())
        self._began_ns = 0  # a round takes no time here
        if self._closing and not self._waiting and self._inbox.empty():
            self._loop.call_later(0.0, self._ended.set_result, None)
            return
        now_s = self._loop.time()
        if now_s - self._looked_s >= LOOK_S / 2:
            self._looked_s = now_s
            if not self._latch:
                self._keep(store)
            self._look(store)
        if self._may_go():
            self._due(COMMIT_S)
        elif self._round is None:
            self._round = self._loop.call_at(now_s + LOOK_S, self._turn)

    def _post(self, tell: Callable[..., None], *words: Any) -> None:
        at_s = max(self._loop.time() + COMMIT_S * self._luck() / 2, self._said_s + 1e-9)
        self._said_s = at_s
        self._loop.call_at(at_s, self._tell, tell, words)

    def _tell(self, tell: Callable[..., None], words: tuple[Any, ...]) -> None:
        tell(*words)
        self.watch(self._disk, tell, words)
