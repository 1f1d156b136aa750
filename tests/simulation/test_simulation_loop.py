"""What the simulated host does by itself: time, stops, deaths and cut connections."""

import asyncio
from typing import Any

import pytest
from tests.simulation.loop import START_S, Loop, Spinning, World
from tests.simulation.net import Net


class Ear(asyncio.Protocol):
    """Hears bytes, and the end."""

    def __init__(self) -> None:
        self.heard, self.ended = b"", False
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def connection_lost(self, _: Exception | None) -> None:
        self.ended = True


@pytest.fixture
def world():
    one = World(1)
    yield one
    one.end()


def two(world: World, seed: int = 1) -> tuple[Loop, Loop, Ear, Ear]:
    """Return two processes that are connected, and how each hears."""
    net, near, far, caller, called = (
        Net(world, seed),
        Loop(world, "a"),
        Loop(world, "b"),
        Ear(),
        Ear(),
    )
    net.listen(far, lambda: called, "/s")
    net.connect(near, lambda: caller, "/s")
    world.run(world.now_s + 0.1)
    return near, far, caller, called


def test_days_pass_at_once(world):
    """A timer is the next moment, however far."""
    loop, told = Loop(world, "a"), []

    async def sleep() -> None:
        await asyncio.sleep(86_400)
        told.append(asyncio.get_running_loop().time())

    loop.create_task(sleep())
    world.run(START_S + 90_000)

    assert told == [START_S + 86_400]


def test_a_stopped_process_hears_everything_later(world):
    """What was sent to it lies there until it goes on, in order."""
    _, far, caller, called = two(world)
    far.stop_here()
    caller.transport.write(b"one ")
    caller.transport.write(b"two")
    world.run(world.now_s + 5)
    assert called.heard == b""
    far.go_on()
    world.run(world.now_s + 1)

    assert called.heard == b"one two"
    assert not called.ended


def test_a_dead_process_is_heard_out(world):
    """What it had written arrives, then the end; and it never runs again."""
    near, _, caller, called = two(world)
    told: list[int] = []
    near.call_later(1, told.append, 1)
    caller.transport.write(b"last words")
    near.dead = True
    for end in near.ends:
        end.died()
    world.run(world.now_s + 5)

    assert called.heard == b"last words"
    assert called.ended
    assert told == []


def test_a_connection_breaks_at_any_byte(world):
    """What arrives is the beginning of what was sent."""
    cut = set()
    for seed in range(40):
        _, _, caller, called = two(world, seed)
        caller.transport.write(b"x" * 50)
        called.transport.cut()
        caller.transport.cut()
        world.run(world.now_s + 1)
        assert called.ended
        assert caller.ended
        cut.add(len(called.heard))

    assert cut >= {0, 1, 5, 40}


def test_who_never_waits_is_found(world):
    """A process that goes on without any time passing would go on for ever."""
    loop = Loop(world, "a")

    async def spin() -> None:
        while True:  # noqa: ASYNC110 that is the fault
            await asyncio.sleep(0)

    loop.create_task(spin())
    world.run(world.now_s + 1)

    assert Spinning.__name__ in world.faults[0]
