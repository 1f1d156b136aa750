"""Taking connections: a bounded number a turn, through storms and without descriptors."""

import asyncio
import errno
import itertools
import socket
from unittest.mock import Mock

import pytest
from tests.edge.stand import until

from postweir.edge import accepting
from postweir.edge.accepting import TURN_MAX, Acceptor
from postweir.edge.sweeper import Sweeper
from postweir.runtime.log import quiet


class Greeter(asyncio.Protocol):
    """Says hello, and notes in which turn of the loop."""

    def __init__(self, on):
        self.on = on

    def connection_made(self, transport):
        self.on.made.append(transport)
        transport.write(b"220 hello\r\n")


class Bench:
    """A listener, and turns that are counted."""

    def __init__(self, listener=None, log=None):
        self.sweeper, self.made = Sweeper(), []
        self.listener = listener or socket.create_server(("127.0.0.1", 0), backlog=2000)
        self.listener.setblocking(False)
        self.acceptor = Acceptor(
            self.listener, lambda: Greeter(self), self.sweeper.keep, log or quiet()
        )

    def call(self, count):
        port = self.listener.getsockname()[1]
        return [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]

    async def end(self, clients):
        self.acceptor.close()
        for transport in self.made:
            transport.abort()
        for client in clients:
            client.close()
        self.listener.close()
        await until(lambda: self.sweeper.idle)
        await asyncio.sleep(0)


async def test_a_storm_leaves_turns_to_others():
    """However many wait, a turn takes TURN_MAX; and some turns later all are in."""
    on = Bench()
    clients = on.call(2 * TURN_MAX + 10)
    taken = [0]
    while taken[-1] < len(clients):
        await asyncio.sleep(0)
        taken.append(len(on.made))

    assert max(b - a for a, b in itertools.pairwise(taken)) <= TURN_MAX
    assert all(client.recv(100) == b"220 hello\r\n" for client in clients)
    await on.end(clients)


async def test_who_is_shunned_hears_why_and_nothing_is_built():
    """Last words and the end, without a transport; who comes beside them is taken."""
    on = Bench()
    shunned = set()
    on.acceptor.close()
    on.acceptor = Acceptor(
        on.listener, lambda: Greeter(on), on.sweeper.keep, quiet(),
        lambda peer: b"421 no\r\n" if peer[1] in shunned else None,
    )  # fmt: skip
    first, _, third = clients = on.call(3)
    shunned |= {first.getsockname()[1], third.getsockname()[1]}
    await until(lambda: on.made)
    await asyncio.sleep(0)

    assert len(on.made) == 1
    assert [one.recv(100) for one in clients] == [b"421 no\r\n", b"220 hello\r\n", b"421 no\r\n"]
    assert first.recv(100) == third.recv(100) == b""
    await on.end(clients)


async def test_after_close_nobody_is_taken():
    """A worker that stops leaves those who come to the others: the socket stays open."""
    on = Bench()
    on.acceptor.close()
    clients = on.call(3)
    await asyncio.sleep(0.05)

    assert on.made == []
    assert on.listener.fileno() >= 0
    await on.end(clients)


class Poor:
    """A listener whose host has no descriptor left, for a while."""

    def __init__(self, inner, faults):
        self._inner, self.faults = inner, faults

    def accept(self):
        if self.faults:
            raise OSError(self.faults.pop(), "")
        return self._inner.accept()

    def __getattr__(self, name):
        return getattr(self._inner, name)


@pytest.mark.parametrize("fault", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ECONNABORTED])
async def test_without_descriptors_it_waits_and_comes_back(monkeypatch, fault):
    """When there is no room for one more nothing spins, nobody is lost, and one line says so."""
    monkeypatch.setattr(accepting, "PAUSE_S", 0.01)
    inner = socket.create_server(("127.0.0.1", 0))
    poor = Poor(inner, [fault] * 3)
    log = Mock()
    on = Bench(poor, log)
    clients = on.call(1)
    await until(lambda: on.made)

    assert poor.faults == []
    assert log.error.call_count == (fault != errno.ECONNABORTED)
    await on.end(clients)
