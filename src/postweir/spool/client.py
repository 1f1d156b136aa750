"""To any healthy shard: the edge's, the judge's and the commands' side of the spool.

Rules of this file:

* An accept goes to one shard and, once sent, to no other. A shard that shows that it lives gets
  ANSWER_S. One that is silent for SILENCE_S is given up: nobody can say whether it was taken, so
  `Unknown` is raised and the sender is told to come again. When the connection closes, the next
  process on that socket is asked what was committed (`spool.known`); `Unknown` if none answers.
* A shard that has said nothing for DOUBT_S (it speaks every 50 ms) gets no new mail.
* Silence does not count while this process itself was late: what it had not read is no silence.
"""

import asyncio
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from postweir.judge.ports import Fed, Used
from postweir.runtime import clock
from postweir.runtime.frames import unpack
from postweir.runtime.log import Log
from postweir.spool.known import Known
from postweir.spool.ports import Accept, Hello, Page, Reached, Refusal, Safe, Unknown, Unsafe, Wake

LOOK_S = 0.05
DOUBT_S = 0.15
SILENCE_S = 1.5
ANSWER_S = 30.0
COUNTED_S = 5.0
UNPACKED_MAX = 1000  # in one turn of the loop: about a millisecond


class Shards:
    """All shards of this host; built and used on the event loop."""

    def __init__(self, run: Path, *, count: int, hello: Hello, log: Log) -> None:
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._shards = [
            Known(k, run / f"shard-{k}.sock", hello, on_health=self._changed, log=log)
            for k in range(1, count + 1)
        ]
        self._turn = 0
        self._looked_at = self._loop.time()
        self._forgive_until = 0.0
        self.refusals_lost = 0
        self._watch = self._loop.create_task(self._look())

    def reason(self) -> str:
        """Return "" when some shard takes mail, else why none does: down, full, starting, ..."""
        why = ""
        for shard in self._shards:
            if not self._lives(shard):
                continue
            assert shard.health is not None
            if shard.health.accepts:
                return ""
            why = why or shard.health.reason
        return why or "down"

    def free_bytes(self) -> int:
        """Return how much is free on the disk with the most room, of shards that accept."""
        return max(
            (
                s.health.free_bytes
                for s in self._shards
                if s.health is not None and s.health.accepts
            ),
            default=0,
        )

    def choose(self, avoid: AbstractSet[int] = frozenset()) -> int:
        """Return the healthy shard with the fewest open accepts, in turn. Raises Unknown.

        None of `avoid`: whoever asks knows that their disk hangs.
        """
        count = len(self._shards)
        best: Known | None = None
        self._turn = (self._turn + 1) % count
        for n in range(count):
            shard = self._shards[(self._turn + n) % count]
            if not self._lives(shard) or shard.health is None or not shard.health.accepts:
                continue
            if shard.number in avoid:
                continue
            if best is None or len(shard.accepts) < len(best.accepts):
                best = shard
        if best is None:
            raise Unknown(self.reason())
        return best.number

    async def accept(self, accept: Accept, *, shard: int | None = None) -> Safe | Unsafe:
        """Have a message committed by that shard, or by a healthy one. Raises Unknown."""
        try:
            one = self._shards[(self.choose() if shard is None else shard) - 1]
        except Unknown as none:
            return Unsafe(accept.ask, str(none) or "down")  # never sent: surely not taken
        by_ns = accept.by_ns or clock.monotonic_ns() + int(SILENCE_S * 1e9)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await one.accept(accept, by_ns)
        except TimeoutError:
            raise Unknown(f"shard {one.number}: no answer") from None

    def refuse(self, refusal: Refusal) -> None:
        """Have a refusal recorded; nobody waits, and with no shard it is lost, and counted."""
        count = len(self._shards)
        self._turn = (self._turn + 1) % count
        for n in range(count):
            shard = self._shards[(self._turn + n) % count]
            if self._lives(shard) and shard.line.send(refusal):
                return
        self.refusals_lost += 1

    async def read(  # noqa: PLR0917
        self,
        shard: int,
        question: str,
        argument: str = "",
        after: int = 0,
        count_max: int = 1000,
        wait_s: float = 1.0,
    ) -> Page:
        """Return one page of an answer. Raises ConnectionError: that shard is silent or down."""
        one = self._shards[shard - 1]
        try:
            async with asyncio.timeout(wait_s):
                while one.health is None:
                    self._changed.clear()
                    await self._changed.wait()
                return await one.read(question, argument, after, count_max)
        except (TimeoutError, Unknown):
            raise ConnectionError(f"shard {shard} does not answer") from None

    async def after(self, cursors: Mapping[str, int], since_us: int, *, whole: bool) -> Fed:
        """Return what was sent and what became of it after these cursors, a page of each shard.

        The shards' rows are told one shard after the other, each in its order.
        """
        rows: list[Used] = []
        reached: dict[str, int] = {}
        unread: list[str] = []
        more = False
        found = await asyncio.gather(
            *(self._usage(s.number, cursors, since_us, whole) for s in self._shards)
        )
        for shard, pages in zip(self._shards, found, strict=True):
            left = not pages
            for name, (first, *told) in pages.items():
                at = unpack(first, Reached)
                reached[name] = at.next
                more |= at.next < at.last
                left |= at.next < at.last
                rows += (unpack(row, Used) for row in told)
                await asyncio.sleep(0)
            if left:
                unread.append(str(shard.number))
        return Fed(rows, reached, more, unread)

    async def _usage(
        self, shard: int, cursors: Mapping[str, int], since_us: int, whole: bool
    ) -> dict[str, list[bytes]]:
        """Return the rows of both streams of a shard by name; none of one that is silent."""
        if self._shards[shard - 1].health is None:
            return {}
        argument = f"{since_us} {'whole' if whole else 'ends'}"
        pages = {}
        for question in ("usage", "turned"):
            name = f"{shard}.{question}"
            try:
                page = await self.read(
                    shard, question, argument, cursors.get(name, 0), UNPACKED_MAX, COUNTED_S
                )
            except ConnectionError:
                return {}
            if not page.rows:
                return {}  # a shard of an older version, that knows no such question
            pages[name] = page.rows
        return pages

    async def wake(self, wait_s: float = 1.0) -> int:
        """Tell all shards that the tables may have changed; returns how many heard it."""
        try:
            async with asyncio.timeout(wait_s):
                while any(s.health is None for s in self._shards):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass  # those that are down read the tables when they start
        return sum(s.line.send(Wake()) for s in self._shards)

    async def close(self) -> None:
        """Hang up; what is open ends as Unknown."""
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        for shard in self._shards:
            await shard.close()

    def _lives(self, shard: Known) -> bool:
        if shard.health is None:
            return False
        now = self._loop.time()
        late_s = max(0.0, now - self._looked_at - LOOK_S)  # ourselves: what it said may lie unread
        return now < self._forgive_until or now - shard.heard_at - late_s <= DOUBT_S

    async def _look(self) -> None:
        """Give up on shards that have fallen silent."""
        while True:
            await asyncio.sleep(LOOK_S)
            now = self._loop.time()
            if now - self._looked_at > DOUBT_S:
                self._forgive_until = now + DOUBT_S
            self._looked_at = now
            if now < self._forgive_until:
                continue
            for shard in self._shards:
                silent_s = now - shard.heard_at
                if shard.line.link is None or silent_s <= SILENCE_S:
                    continue
                if shard.accepts or shard.reads:
                    self._log.warning(
                        "spool.silent", shard=shard.number, open=len(shard.accepts),
                        silent_s=round(silent_s, 2),
                    )  # fmt: skip
                # The connection ends, so that the shard, when it revives, reads a closed one and
                # the deadline in each accept keeps it from beginning what we have given up.
                shard.give_up("silent")
                shard.line.hang_up()
