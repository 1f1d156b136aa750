"""Links keep order, come back after a restart, and never wait for a stopped neighbour."""

import asyncio
import socket

from postweir.runtime import link
from postweir.runtime.frames import Frame


class Number(Frame, frozen=True):
    n: int
    filling: bytes = b""


def nothing(*_):
    return None


async def eventually(holds):
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_order_and_batches(tmp_path):
    """What one loop turn says arrives in order."""
    got = []
    server = await link.serve(
        tmp_path / "s", Number, nothing, lambda _, frames: got.extend(f.n for f in frames), nothing
    )
    caller = await link.connect(tmp_path / "s", Number, nothing)
    for n in range(1000):
        caller.send(Number(n))
    await eventually(lambda: len(got) == 1000)

    assert got == list(range(1000))
    caller.close()
    server.close()


async def test_a_line_calls_again(tmp_path):
    """When the other side is gone and comes back, so does the line, and both are told."""
    told = []
    links = []
    line = link.Line(
        tmp_path / "s",
        Number,
        on_link=lambda _: told.append("up"),
        on_frames=nothing,
        on_lost=lambda _: told.append("down"),
    )
    assert not line.send(Number(1))
    for _ in range(2):
        server = await link.serve(tmp_path / "s", Number, links.append, nothing, nothing)
        await eventually(lambda: line.link is not None)
        await eventually(lambda: links and links[-1].connected)
        server.close()
        links.pop().abort()
        await eventually(lambda: line.link is None)

    assert told == ["up", "down", "up", "down"]
    await line.close()


async def test_a_neighbour_that_reads_nothing_is_cut_off(tmp_path, monkeypatch):
    """Memory is bounded however long the other side is stopped."""
    monkeypatch.setattr(link, "BACKLOG_BYTES_MAX", 1024 * 1024)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    lost = []
    caller = await link.connect(tmp_path / "s", Number, nothing, lost.append)
    for _ in range(100):
        caller.send(Number(1, b"x" * 100_000))
        await asyncio.sleep(0)
    await eventually(lambda: lost)

    assert not caller.connected
    listener.close()


async def test_noise_ends_the_link(tmp_path):
    """Bytes that are no frames close the connection, and nothing else."""
    lost = []
    server = await link.serve(tmp_path / "s", Number, nothing, nothing, lost.append)
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
    writer.write(b"\xff" * 100)
    await eventually(lambda: lost)

    assert await reader.read() == b""
    writer.close()
    server.close()
