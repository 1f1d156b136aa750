"""One shard as another process knows it: its line, what it was asked, and what is in doubt.

When the link is lost with accepts in flight, nobody here knows whether they were committed. They
stay open for TELL_S: a shard of another incarnation that answers on that socket means that the
old process is dead (its file has one owner), so what the file says of a name is final, and is
asked. A name that is there is Safe; one that is not was surely not taken. A shard of the same
incarnation has only lost the link: what it does not have yet it may still commit, so that there
only "taken" is believed. Nothing is ever sent a second time.
"""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postweir.runtime.frames import Torn, unpack
from postweir.runtime.link import Line, Link
from postweir.runtime.log import Log
from postweir.spool.ports import (
    Accept,
    Committed,
    Health,
    Hello,
    Page,
    Read,
    Safe,
    ShardFrame,
    Unknown,
    Unsafe,
)

TELL_S = 1.5  # after a loss: a shard is killed, started and asked in half of it
WAIT_S_MAX = 1.9  # since it was last heard, when it fell silent before the link was lost
NAMES_MAX = 1000  # in one question


@dataclass(slots=True)
class Open:
    """One accept that is not answered. `incarnation` is set when its link is lost."""

    message: str
    answer: asyncio.Future[Safe | Unsafe]
    incarnation: int = 0


class Known:
    """Keeps a line to one shard; built and used on the event loop."""

    def __init__(
        self, number: int, path: Path, hello: Hello, *, on_health: asyncio.Event, log: Log
    ) -> None:
        self.number, self._hello, self._on_health, self._log = number, hello, on_health, log
        self._loop = asyncio.get_running_loop()
        self._asks = itertools.count(1)
        self.health: Health | None = None
        self.accepts: dict[int, Open] = {}  # sent on the link there is
        self.doubtful: dict[int, Open] = {}  # sent on one that was lost
        self.reads: dict[int, asyncio.Future[Page]] = {}
        self._telling: asyncio.Task[None] | None = None
        self.line = Line(
            path, ShardFrame, on_link=self._up, on_frames=self._hear, on_lost=self._down
        )

    @property
    def heard_at(self) -> float:
        """When bytes last came; 0 while the line is down."""
        return self.line.link.heard_at if self.line.link is not None else 0.0

    async def accept(self, accept: Accept, by_ns: int) -> Safe | Unsafe:
        """Send it, once, and return the answer. Raises Unknown."""
        ask = next(self._asks)
        answer: asyncio.Future[Safe | Unsafe] = self._loop.create_future()
        self.accepts[ask] = Open(accept.message, answer)
        try:
            if not self.line.send(_numbered(accept, ask, by_ns)):
                return Unsafe(ask, "down")  # never sent: surely not taken
            return await answer
        finally:
            self.accepts.pop(ask, None)
            self.doubtful.pop(ask, None)

    async def read(self, question: str, argument: str, after: int, count_max: int) -> Page:
        """Ask one question. Raises Unknown when the line is down or lost."""
        ask = next(self._asks)
        answer: asyncio.Future[Page] = self._loop.create_future()
        self.reads[ask] = answer
        try:
            if not self.line.send(Read(ask, question, argument, after, count_max)):
                raise Unknown(f"shard {self.number}: down")
            return await answer
        finally:
            self.reads.pop(ask, None)

    def give_up(self, why: str) -> None:
        """Nobody can say what became of what this link was asked."""
        self._end([one.answer for one in self.accepts.values()], why)
        self._end(list(self.reads.values()), why)
        self.accepts.clear()

    async def close(self) -> None:
        """Hang up; what is open ends as Unknown."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        await self.line.close()
        self.give_up("closed")
        self._end([one.answer for one in self.doubtful.values()], "closed")

    def _end(self, answers: Sequence[asyncio.Future[Any]], why: str) -> None:
        for answer in answers:
            if not answer.done():
                answer.set_exception(Unknown(f"shard {self.number}: {why}"))

    def _up(self, link: Link) -> None:
        link.send(self._hello)

    def _down(self, link: Link) -> None:
        incarnation = self.health.incarnation if self.health is not None else 0
        self.health = None
        self._end(list(self.reads.values()), "connection closed")
        lost, self.accepts = self.accepts, {}
        if not lost:
            return
        for one in lost.values():
            one.incarnation = incarnation
        self.doubtful |= lost
        now_s = self._loop.time()
        wait_s = min(TELL_S, link.heard_at + WAIT_S_MAX - now_s)
        self._log.warning("spool.lost", shard=self.number, open=len(lost))
        self._loop.call_later(max(wait_s, 0.0), self._not_told, list(lost.values()))

    def _not_told(self, lost: Sequence[Open]) -> None:
        left = [one.answer for one in lost if not one.answer.done()]
        if left:
            self._log.warning("spool.unknown", shard=self.number, open=len(left))
        self._end(left, "connection closed")

    def _hear(self, _: Link, frames: Sequence[object]) -> None:
        for frame in frames:
            match frame:
                case Health():
                    if self.health is None and self.doubtful:
                        self._ask_in_doubt(frame.incarnation)
                    self.health = frame
                    self._on_health.set()
                case Safe() | Unsafe():
                    one = self.accepts.pop(frame.ask, None)
                    if one is not None and not one.answer.done():
                        one.answer.set_result(frame)
                case Page():
                    page = self.reads.pop(frame.ask, None)
                    if page is not None and not page.done():
                        page.set_result(frame)
                case _:
                    pass

    def _ask_in_doubt(self, incarnation: int) -> None:
        if self._telling is not None:
            self._telling.cancel()  # it asked on a link that is lost, too
        self._telling = self._loop.create_task(self._tell(incarnation))

    async def _tell(self, incarnation: int) -> None:
        """Ask the shard there is now what became of the accepts that were lost with the link."""
        asked = list(self.doubtful.items())
        safe = unsafe = 0
        for at in range(0, len(asked), NAMES_MAX):
            some = {one.message: (ask, one) for ask, one in asked[at : at + NAMES_MAX]}
            try:
                page = await self.read("committed", " ".join(some), 0, NAMES_MAX)
                rows = [unpack(row, Committed) for row in page.rows]
            except (Unknown, Torn) as fault:
                # Lost again: the next one is asked, while there is time.
                self._log.warning("spool.not_told", shard=self.number, fault=str(fault))
                return
            for row in rows:
                ask, one = some.get(row.message, (0, None))
                if one is None or one.answer.done():
                    continue
                if row.taken:
                    one.answer.set_result(Safe(ask))
                    safe += 1
                elif 0 not in (one.incarnation, incarnation) and one.incarnation != incarnation:
                    one.answer.set_result(Unsafe(ask, "failed"))
                    unsafe += 1
        self._log.info(
            "spool.told", shard=self.number, open=len(asked), safe=safe, unsafe=unsafe
        )  # fmt: skip


def _numbered(accept: Accept, ask: int, by_ns: int) -> Accept:
    """Return the same with our number, which tells answers apart, and a deadline."""
    values = {name: getattr(accept, name) for name in accept.__struct_fields__}
    return Accept(**{**values, "ask": ask, "by_ns": by_ns})
