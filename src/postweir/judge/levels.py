"""A judge's levels and throttles as they live: counted, read from the shards, kept over restarts.

The clock of levels is about UTC, and steady: it begins at wall time and goes on with monotonic
time, so that a wall clock that is set invents no day and empties no window. A snapshot carries it
on: on the same boot by monotonic time, after another boot by wall time, never backwards. (A host
that booted with a wrong clock stays wrong by that much about where midnight lies, and no more.)

A snapshot says how far each shard was read. After a start the shards tell what came since; what
was counted and is in the snapshot is known by its id. When all are read to their end the levels
are known. From then on only the ends of recipients are read: what is judged is counted here.
"""

import asyncio
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from postweir.identity.sender import Directory
from postweir.judge import standing
from postweir.judge.counters import Entry
from postweir.judge.keeping import Keeping, Kept
from postweir.judge.ports import Ask, UsageFeed, Used
from postweir.judge.windows import DAY_S, HOUR_S
from postweir.policy.bundle import Throttle
from postweir.policy.facts import Facts
from postweir.runtime import clock
from postweir.runtime.log import Log

READ_S = 1.0
READ_S_FIRST = 0.1  # while shards have not been heard of
STEP_ROWS = 100  # counted in one go: 3 ms
OURS_S = 60.0  # what was accepted so long after our start was judged by us, and counted
SAVE_S = 30.0
SAVE_SHARE = 20  # a snapshot that takes a second is made every 20 s at most
TIDY_S = 1.0


class Levels:
    """What one judge knows of those who send; used on its event loop."""

    def __init__(
        self, feed: UsageFeed, keeping: Keeping, kept: Kept, *, log: Log,
        judge: int = 1, of: int = 1,
    ) -> None:  # fmt: skip
        self._feed, self.keeping, self._log = feed, keeping, log
        self._judge, self._of = judge, of
        self.counters, self.throttles = kept.counters, kept.throttles
        self._cursors = dict(kept.cursors)
        self._ahead_s = kept.clock_s - clock.monotonic_ns() / 1e9
        self._began_s, self._began_us = kept.clock_s, clock.wall_us()
        # Where a shard without a cursor is read from.
        self._since_us = self._began_us - int(DAY_S * 1e6)
        self._read_all: set[str] = set()  # shards that were read to their end since we began
        self._unread: set[str] | None = None
        self._known_s: float | None = None
        self._page = asyncio.Lock()  # no snapshot begins within a page: its cursors would not fit
        self._tasks: list[asyncio.Task[None]] = []
        self._pool = ThreadPoolExecutor(1, "levels")  # one: two never write a file at a time

    def start(self) -> None:
        """Begin to read and to save."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(work) for work in (self._keep_reading(), self._keep_tidy(),
                                                           self._keep_saving())]  # fmt: skip
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Save, and stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._save()
        self._pool.shutdown()

    def now_s(self) -> float:
        """Return the levels' own time."""
        return clock.monotonic_ns() / 1e9 + self._ahead_s

    @property
    def known(self) -> bool:
        """True when the levels are complete: the shards told all.

        An hour later those of the minute and of the hour are so in any case; that of the day can
        then only be too low.
        """
        return self._known_s is not None or self.now_s() - self._began_s >= HOUR_S

    def count(self, ask: Ask, facts: Facts, age_s: float) -> bool:
        """Count a message that came that long ago; False: it was counted before."""
        now_s = self.now_s()
        size = facts.get("body.bytes", 0)
        entry = Entry(
            now_s - age_s, ask.sender.account, ask.sender.key, len(ask.envelope.recipients),
            size if isinstance(size, int) else 0, ask.envelope.recipients,
        )  # fmt: skip
        return self.counters.count(ask.message, entry, now_s)

    def uncount(self, message: str) -> None:
        """Take all of a message off again."""
        self.counters.uncount(message)
        self.throttles.give_back(message, self.now_s())

    def facts(
        self, ask: Ask, facts: Facts, directory: Directory, throttles: Sequence[Throttle]
    ) -> Facts:
        """Return what is known of sender and account now, and the levels of these throttles."""
        now_s, who = self.now_s(), ask.sender
        sender, account = self.counters.standing(who.account, who.key, now_s)
        from_domain = str(facts.get("header.from_domain", ""))
        found = standing.of_sender(ask, directory)
        found |= standing.of_account(
            directory.accounts.get(who.account), from_domain, clock.wall_us()
        )
        found |= standing.of_usage(sender, account, self.known)
        found |= standing.of_history(ask, sender, self.counters, facts, now_s)
        if throttles and not self.throttles.held(ask.message):
            for throttle in throttles:
                wait_s = self.throttles.wait_s(
                    throttle, standing.costs(throttle, ask, facts), now_s
                )
                if wait_s:
                    found[f"throttle.{throttle.id}"] = wait_s
        return found

    def took(self, ask: Ask, facts: Facts, throttles: Sequence[Throttle], verb: str) -> None:
        """Note that the enforced verdict takes this message: it costs tokens.

        What is held proves nothing about the account's domains.
        """
        now_s, envelope = self.now_s(), facts.get("envelope.from_domain", "")
        from_domain = facts.get("header.from_domain", "")
        if verb != "hold":
            self.counters.took(ask.sender.account, str(from_domain), str(envelope), now_s)
        if throttles:
            wanted = [(one, standing.costs(one, ask, facts)) for one in throttles]
            self.throttles.take(ask.message, wanted, now_s)

    async def _keep_reading(self) -> None:
        wait_s = READ_S_FIRST
        while True:
            try:
                more = await self._read()
            except Exception as fault:  # noqa: BLE001 - a shard that speaks nonsense is read again
                self._log.error("judge.usage_unreadable", exc_info=fault)
                more = False
            if more:
                continue
            if self._known_s is not None:
                wait_s = READ_S
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, READ_S)

    async def _read(self) -> bool:
        """Take in a page of each shard; True when there is more."""
        # A minute longer, for what was judged by who was here before us.
        whole = self._known_s is None or self.now_s() - self._known_s < OURS_S
        fed = await self._feed.after(self._cursors, self._since_us, whole=whole)
        async with self._page:
            for at in range(0, len(fed.rows), STEP_ROWS):
                now_s, wall_us = self.now_s(), clock.wall_us()
                for row in fed.rows[at : at + STEP_ROWS]:
                    self._take_in(row, now_s, wall_us)
                await asyncio.sleep(0)
            self._cursors |= fed.cursors
        self._note_unread(fed.unread, {name.partition(".")[0] for name in fed.cursors})
        return fed.more

    def _note_unread(self, unread: Sequence[str], answered: set[str]) -> None:
        silent = set(unread) - answered
        if self._unread != silent and silent:
            self._log.info("judge.usage_unread", shards=sorted(silent), known=self.known)
        self._unread = silent
        self._read_all |= answered - set(unread)
        if not self._read_all >= answered | set(unread) or not self._read_all:
            return
        if self._known_s is None:
            self._known_s = self.now_s()
            self._log.info("judge.usage_known", messages=len(self.counters))
        # A file that is put in a shard's place tells no more than we do not know.
        self._since_us = clock.wall_us()

    def _take_in(self, row: Used, now_s: float, wall_us: int) -> None:
        if zlib.crc32(row.account.encode()) % self._of != self._judge - 1:
            return  # another judge's
        at_s = now_s - max(0, wall_us - row.at_us) / 1e6
        if row.kind not in ("accepted", "refused"):
            self.counters.came_of(row.kind, row.account, row.sender, at_s, now_s)
            return
        if row.at_us > self._began_us + OURS_S * 1e6:
            return
        entry = Entry(at_s, row.account, row.sender, row.recipients, row.bytes, row.addresses)
        self.counters.count(row.message, entry, now_s, again=False)
        if row.kind == "accepted":
            self.counters.took(row.account, row.from_domain, row.envelope_domain, at_s)

    async def _keep_tidy(self) -> None:
        while True:
            now_s = self.now_s()
            while self.counters.tidy(now_s):  # noqa: ASYNC110 - work, with turns for others
                await asyncio.sleep(0)
            self.throttles.tidy(now_s)
            await asyncio.sleep(TIDY_S)

    async def _keep_saving(self) -> None:
        while True:
            await asyncio.sleep(SAVE_S)
            began_ns = clock.monotonic_ns()
            await self._save()
            await asyncio.sleep((clock.monotonic_ns() - began_ns) / 1e9 * SAVE_SHARE)

    async def _save(self) -> None:
        async with self._page:
            making = self.keeping.begin(self.counters, self.throttles, self._cursors, self.now_s())
        if making is None:
            return
        try:
            while making.step():  # noqa: ASYNC110 - work, with turns for others
                await asyncio.sleep(0)
            await asyncio.get_running_loop().run_in_executor(self._pool, self.keeping.save, making)
        except Exception as fault:  # noqa: BLE001 - a full disk, or our own: the next may succeed
            self._log.error("judge.levels_unsaved", exc_info=fault)
        else:
            self.keeping.saved(making, self.counters.met)
        finally:
            making.end()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            self._log.error("judge.levels_failed", exc_info=task.exception())
