"""Takes connections off a listening socket: many in a turn of the loop, but not all.

uvloop takes one in a turn. A turn is long when a thousand sessions are at work, so in a storm a
new connection would wait seconds for its greeting, or for its refusal. Stock asyncio takes as many
as there are, and then the sessions that are open wait. Here a turn takes TURN_MAX: a storm of
thousands is in after some turns, and each of them is some milliseconds longer for it.

Several workers take from one socket, each as fast as its turns go: who has much to do takes less.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from postweir.runtime.log import Log

TURN_MAX = 256  # about 25 ms
PAUSE_S = 0.1  # when there is no descriptor or memory for one more: some may end meanwhile
TELL_S = 1.0  # between two lines of the log that say so


class Acceptor:
    """One listening socket, until `close`; the socket itself stays open, it is not ours alone."""

    def __init__(
        self,
        listener: socket.socket,
        build: Callable[[], asyncio.BaseProtocol],
        keep: Callable[[Coroutine[Any, Any, None]], None],
        log: Log,
        shuns: Callable[[object], bytes | None] = lambda _: None,
    ) -> None:
        """`shuns` is given a peer's address; last words for it, or None: it may come in."""
        self._listener, self._build, self._keep, self._log = listener, build, keep, log
        self._shuns = shuns
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._told_s = -TELL_S
        self._listen()

    def close(self) -> None:
        """Take no more."""
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(TURN_MAX):
            try:
                connection, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return  # there is none, or another worker has it
            except ConnectionError:
                continue  # it has gone already
            except OSError as fault:
                self._cannot(fault)
                return
            connection.setblocking(False)
            last_words = self._shuns(peer)
            if last_words is None:
                self._keep(self._begin(connection))
                continue
            with connection, contextlib.suppress(OSError):
                connection.send(last_words)

    def _cannot(self, fault: OSError) -> None:
        """Wait a little; those who knock stay in the kernel's queue."""
        now_s = self._loop.time()
        if now_s - self._told_s >= TELL_S:
            self._told_s = now_s
            self._log.error("edge.cannot_accept", fault=str(fault))
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(PAUSE_S, self._listen)

    async def _begin(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._build, connection)
        except OSError:  # it has gone already
            connection.close()
