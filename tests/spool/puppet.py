"""Shards that do as they are told: they beat, answer, die, and remember, or do not."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.spool.given import until

from postweir.runtime import link
from postweir.runtime.frames import pack
from postweir.runtime.log import quiet
from postweir.spool.client import Shards
from postweir.spool.ports import (
    Accept,
    Committed,
    Health,
    Hello,
    Page,
    Read,
    Safe,
    ShardFrame,
)


class Puppet:
    """A shard that beats, answers, or does not, as it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.links: list[link.Link] = []
        self.heard: list[Any] = []
        self.incarnation = 1
        self.taken: set[str] = set()  # names whose accepts are committed, said or not
        self.beating, self.telling, self.wrong = True, True, ""
        self.answer: Callable[[Accept], Any] | None = lambda a: Safe(a.ask)

    def health(self) -> Health:
        return Health("", not self.wrong, self.wrong, 1 << 40, 0, self.incarnation)

    async def start(self) -> None:
        self.server = await link.serve(
            self.path, ShardFrame, self.links.append, self._hear, self.links.remove
        )
        self.task = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.server.close()
        for one in list(self.links):
            one.abort()

    def _hear(self, one: link.Link, frames: list[Any]) -> None:
        self.heard += frames
        for frame in frames:
            if isinstance(frame, Accept) and self.answer is not None:
                one.send(self.answer(frame))
            elif isinstance(frame, Read) and self.telling:
                names = frame.argument.split()
                rows = [pack(Committed(name, name in self.taken)) for name in names]
                one.send(Page(frame.ask, rows, None))

    async def _beat(self) -> None:
        while True:
            for one in self.links:
                if self.beating:
                    one.send(self.health())
            await asyncio.sleep(0.02)

    async def die(self, *, anew: bool = True) -> None:
        """Close all connections at once, as a killed process does; another takes its place."""
        await self.stop()
        self.incarnation += anew

    def accepts(self) -> list[Accept]:
        return [f for f in self.heard if isinstance(f, Accept)]


class Pair:
    """Two puppets and a client of both."""

    def __init__(self, folder: Path) -> None:
        self.puppets = [Puppet(folder / f"shard-{k}.sock") for k in (1, 2)]
        self.folder = folder

    async def start(self) -> None:
        for puppet in self.puppets:
            await puppet.start()
        hello = Hello(1, "edge", 1, 1, 4, "")
        self.client = Shards(self.folder, count=2, hello=hello, log=quiet())
        await until(lambda: all(s.health for s in self.client._shards))

    async def stop(self) -> None:
        await self.client.close()
        for puppet in self.puppets:
            await puppet.stop()
