"""Bodies on their way to disk: whole, synced, ours alone, and gone when they are not taken."""

import asyncio
import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from postweir.edge import bodies
from postweir.edge.bodies import WRITE_BYTES_MIN, Folders, Spill, add

PIECE = b"x" * WRITE_BYTES_MIN


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as made:
        yield made


def spill(path, pool) -> tuple[Spill, list[int]]:
    freed: list[int] = []
    return Spill(path, pool, on_written=freed.append), freed


async def test_all_of_it_is_in_the_file(tmp_path, pool):
    """What was taken is in the file, in order, private, and every byte leaves our memory."""
    made, freed = spill(tmp_path / "a", pool)
    wanted = b""
    for n in (1, 3, 70_000, 5, 200_000, 2):
        data = bytes([65 + n % 26]) * n
        wanted += data
        made.write(data)
        await asyncio.sleep(0)
    check = await made.finish()

    assert (tmp_path / "a").read_bytes() == wanted
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert check == hashlib.blake2b(wanted, digest_size=16).digest()
    assert made.length == sum(freed) == len(wanted)


@pytest.mark.parametrize("kind", ["file", "link"])
async def test_what_is_there_is_not_ours(tmp_path, pool, kind):
    """A name that is taken is trouble; what has it is neither written, followed nor removed."""
    other = tmp_path / "promised"
    other.write_bytes(b"somebody's mail")
    path = other
    if kind == "link":
        path = tmp_path / "link"
        path.symlink_to(other)
    made, _ = spill(path, pool)
    made.write(PIECE)
    with pytest.raises(FileExistsError):
        await made.finish()
    await made.drop()

    assert other.read_bytes() == b"somebody's mail"
    assert path.exists()


@pytest.mark.parametrize("stage", ["nothing", "waiting", "writing", "finished"])
async def test_a_drop_leaves_nothing(tmp_path, pool, stage):
    """Whenever it is dropped, no file, descriptor or byte in memory is left."""
    before = len(os.listdir("/proc/self/fd"))
    made, freed = spill(tmp_path / "a", pool)
    if stage == "waiting":
        made.write(b"x")
    elif stage != "nothing":
        made.write(PIECE)
        made.write(PIECE + b"y")
    if stage == "finished":
        await made.finish()
    await made.drop()

    assert list(tmp_path.iterdir()) == []
    assert sum(freed) == made.length
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # a thread of the pool may have begun


async def test_a_drop_waits_for_a_sync(tmp_path, pool):
    """A drop that overtakes a sync does not close its file under it."""
    made, _ = spill(tmp_path / "a", pool)
    made.write(PIECE)
    finishing = asyncio.create_task(made.finish())
    await asyncio.sleep(0)
    finishing.cancel()
    await made.drop()

    assert made.fault is None
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(asyncio.CancelledError):
        await finishing


@pytest.mark.parametrize("call", ["write", "fsync"])
async def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, pool, call, monkeypatch):
    """ENOSPC at any write or sync comes out of `finish`, once; no half file stays."""

    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(bodies.os, call, full)
    made, freed = spill(tmp_path / "a", pool)
    made.write(PIECE)
    made.write(PIECE)
    with pytest.raises(OSError, match="full"):
        await made.finish()
    monkeypatch.undo()
    await made.drop()

    assert sum(freed) == made.length
    assert list(tmp_path.iterdir()) == []


def test_tiny_pieces_are_joined():
    """A byte at a time makes few pieces, and loses none."""
    pieces: list[bytes] = []
    for n in range(10_000):
        add(pieces, bytes([n % 256]))

    assert b"".join(pieces) == bytes(n % 256 for n in range(10_000))
    assert len(pieces) <= 3


def test_folders_that_take_files(tmp_path):
    """Usable while some folder takes a file, or none is there yet; looking leaves nothing."""
    folders = Folders(tmp_path)
    folders.look()
    assert folders.usable
    (tmp_path / "bodies-1").mkdir()
    folders.look()
    assert folders.usable
    assert list((tmp_path / "bodies-1").iterdir()) == []
    (tmp_path / "bodies-1").rmdir()
    (tmp_path / "bodies-1").write_bytes(b"")
    folders.look()
    assert not folders.usable
