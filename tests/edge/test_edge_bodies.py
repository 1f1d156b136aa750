"""Bodies on their way to disk: whole, synced, ours alone, and gone when they are not taken."""

import asyncio
import errno
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from postweir.edge import bodies
from postweir.edge.bodies import WRITE_BYTES_MIN, Disks, Folders, Spill, add

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


class Calls:
    """The calls that threads of the disk make of the kernel; the `at`-th of one kind fails."""

    def __init__(self, monkeypatch, call: str, at: int, number: int) -> None:
        self.call, self.at, self.number = call, at, number
        self.made: list[str] = []
        for name in ("open", "write", "fsync", "close"):
            real = getattr(os, name)
            monkeypatch.setattr(bodies.os, name, lambda *a, n=name, r=real: self._do(n, r, *a))

    def _do(self, name, real, *values):
        if not threading.current_thread().name.startswith("bad"):
            return real(*values)
        self.made.append(name)
        if name != self.call or self.made.count(name) != self.at:
            return real(*values)
        if self.number == 0:  # a write that is short, as the kernel may at any time
            return real(values[0], bytes(values[1])[: len(values[1]) // 3])
        if name == "close":
            real(*values)  # Linux has closed it all the same
        raise OSError(self.number, os.strerror(self.number))


FAULTS = [
    *(("open", at, n) for at in (1, 2) for n in (errno.EMFILE, errno.EIO, errno.ENOSPC)),
    *(("write", at, n) for at in range(1, 6) for n in (0, errno.EIO, errno.ENOSPC, errno.EDQUOT)),
    *(("fsync", at, n) for at in (1, 2) for n in (errno.EIO, errno.ENOSPC, errno.EDQUOT)),
    *(("close", at, errno.EIO) for at in (1, 2)),
]


@pytest.mark.parametrize(("call", "at", "number"), FAULTS)
async def test_each_call_of_the_kernel_fails_once(tmp_path, monkeypatch, call, at, number):
    """Then it is not said to be safe; no sync is tried again; no file or descriptor stays."""
    before = len(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(1, "bad") as pool:
        calls = Calls(monkeypatch, call, at, number)
        made, freed = spill(tmp_path / "a", pool)
        text = b""
        for n in range(5):
            text += bytes([n]) * len(PIECE)
            made.write(text[-len(PIECE) :])
            while made.writing:  # noqa: ASYNC110 - so that each piece is a write of its own
                await asyncio.sleep(0)
        try:
            check = await made.finish()
        except OSError as fault:
            found = fault.errno
        else:
            found = 0
            assert (tmp_path / "a").read_bytes() == text
            assert check == hashlib.blake2b(text, digest_size=16).digest()
        assert found == number, "a fault that nobody was told, or another"
        if call == "fsync":
            assert calls.made.count("fsync") == at, "a failed sync was tried again"
        monkeypatch.undo()
        await made.drop()

    assert sum(freed) == made.length
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_a_disk_that_hangs_shows_and_comes_back(monkeypatch):
    """While something takes seconds its shard is named, and no other; then it is as before."""
    monkeypatch.setattr(bodies, "HANGS_S", 0.02)
    go = threading.Event()
    with Disks(1) as disks:
        job = disks.of(1).submit(go.wait, 10)
        done = disks.of(2).submit(len, "")
        try:
            async with asyncio.timeout(5):
                while disks.hanging != {1}:  # noqa: ASYNC110 - time has no event
                    await asyncio.sleep(0.005)
        finally:
            go.set()
        job.result()
        done.result()

        assert disks.hanging == frozenset()
