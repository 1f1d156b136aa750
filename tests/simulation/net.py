"""Unix sockets in memory: bytes in order, late, and cut at any of them."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

from tests.simulation.loop import Loop, World

from postweir.runtime.frames import Splitter

DELAY_S = 0.0004  # from process to process, half of it at least


class SharedSplitter(Splitter[Any]):
    """The product's, but that its decoder is not made anew for each of many short connections."""

    decoders: dict[Any, Any] = {}

    def __init__(self, family: Any) -> None:
        decoder = self.decoders.get(family)
        if decoder is None:
            super().__init__(family)
            decoder = self.decoders[family] = self._decoder
        self._decoder, self._buffer, self.skipped = decoder, bytearray(), 0


class End(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, loop: Loop, number: int, chance: random.Random) -> None:
        self.loop, self.number = loop, number
        self.protocol: Any = None
        self.peer: End
        self.delay_s = DELAY_S
        self.lost = False
        self._chance = chance  # its own: what others send never changes its delays
        self._closing = False
        self._last_s = 0.0  # when what was sent last arrives
        self._cut_at: int | None = None  # so many bytes still arrive, then the end
        loop.ends.append(self)

    @property
    def sending(self) -> bool:
        """True while something is on its way to the peer."""
        return self._last_s > self.loop.world.now_s

    def fly(self, call: Callable[..., None], *args: Any) -> None:
        """Have something happen at the peer, after all that was sent before."""
        world = self.loop.world
        at_s = world.now_s + self.delay_s * (0.5 + self._chance.random())
        self._last_s = at_s = max(at_s, self._last_s + 1e-9)
        world.at(at_s, self.peer.loop, call, *args)

    def write(self, data: Any) -> None:
        if not self._closing and not self.loop.dead:
            self.fly(self.peer.arrived, data)

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.fly(self.peer.end)
            self.loop.call_soon(self.lose)

    abort = close

    def died(self) -> None:
        """The process is gone; the kernel closes what it had."""
        if not self.lost:
            self.lost = True
            if not self._closing:
                self._closing = True
                self.fly(self.peer.end)

    def cut(self) -> None:
        """The connection breaks, somewhere in what is on its way to here."""
        self._cut_at = self._chance.choice((0, 1, 5, 40, 300))
        self.peer.fly(self.end)

    def accepted(self, listener: "Listener") -> None:
        if listener.closed:
            self.close()
            return
        self.protocol = listener.factory()
        self.protocol.connection_made(self)

    def arrived(self, data: bytes) -> None:
        if self.lost or self._closing:
            return
        if self._cut_at is not None:
            data = data[: self._cut_at]
            self._cut_at -= len(data)
        if data and self.protocol is not None:
            self.protocol.data_received(data)
        if self._cut_at == 0:
            self.end()

    def end(self) -> None:
        self._closing = True
        self.lose()

    def lose(self) -> None:
        if not self.lost:
            self.lost = True
            if self.protocol is not None:
                self.protocol.connection_lost(None)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._closing


class Listener(asyncio.AbstractServer):
    """Who answers on one path."""

    def __init__(self, loop: Loop, factory: Callable[[], Any]) -> None:
        self.loop, self.factory, self.closed = loop, factory, False

    def close(self) -> None:
        self.closed = True


class Net:
    """All sockets of one host."""

    def __init__(self, world: World, seed: int) -> None:
        self._world, self._seed, self._count = world, seed, 0
        self._listeners: dict[str, Listener] = {}
        self.pairs: list[tuple[End, End]] = []  # the caller's end first

    def listen(self, loop: Loop, factory: Callable[[], Any], path: Any) -> Listener:
        found = self._listeners[str(path)] = Listener(loop, factory)
        return found

    def connect(self, loop: Loop, factory: Callable[[], Any], path: Any) -> tuple[End, Any]:
        listener = self._listeners.get(str(path))
        if listener is None or listener.closed or listener.loop.dead:
            raise ConnectionRefusedError(str(path))
        self._count += 2
        a, b = (
            End(one, self._count + n, random.Random(self._seed << 20 | self._count + n))
            for n, one in enumerate((loop, listener.loop))
        )
        a.peer, b.peer = b, a
        self.pairs.append((a, b))
        a.protocol = factory()
        a.fly(b.accepted, listener)
        a.protocol.connection_made(a)
        return a, a.protocol

    def alive(self) -> list[tuple[End, End]]:
        """Return the connections there are."""
        self.pairs = [(a, b) for a, b in self.pairs if not a.lost and not b.lost]
        return self.pairs
