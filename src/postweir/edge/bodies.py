"""Large bodies, written to a shard's folder while they arrive.

The order is the promise: all bytes, the file synced, its folder synced; only then may an accept
name it. Until that accept is sent the file is ours and goes when the message is not taken; after
it, it is the shard's, which sweeps what no row names. All disk work is on threads, and what waits
for a thread is bounded: the connection stops reading until there is room again.
"""

import asyncio
import contextlib
import errno
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from postweir.runtime import clock, files

CHECK_BYTES = 16
WAITING_BYTES_MAX = 1024 * 1024  # of one message, for the disk
WRITE_BYTES_MIN = 64 * 1024  # less than this is not worth a thread's time until the body ends
HANGS_S = 2.0  # a write or sync that takes longer: no new body goes to that disk until it returns
OURS = (errno.EMFILE, errno.ENFILE)  # say nothing of the disk, and small messages need no file
PIECE_BYTES_MIN = 4096  # a body that comes a byte a packet would else cost fifty times its size


def check_of(body: bytes) -> bytes:
    """Return the checksum that a body carries from here to its end."""
    return hashlib.blake2b(body, digest_size=CHECK_BYTES).digest()


def add(pieces: list[bytes], data: bytes) -> None:
    """Put data behind the pieces of a body, so that none of them stays small."""
    if pieces and len(pieces[-1]) < PIECE_BYTES_MIN:
        pieces[-1] += data
    else:
        pieces.append(data)


class Spill:
    """One body on its way to a file. `write` never blocks; `finish` says that it is safe.

    One job at a time has the file, on a thread; whoever wants the next waits for it.
    """

    def __init__(self, path: Path, pool: Executor, *, on_written: Callable[[int], None]) -> None:
        self.path = path
        self.fault: OSError | None = None
        self.length = 0
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._on_written = on_written  # so many bytes left our memory
        self._hash = hashlib.blake2b(digest_size=CHECK_BYTES)
        self._descriptor = -1
        self._made = False  # the file is ours to remove
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._job: asyncio.Future[None] | None = None
        self._dropped = False

    @property
    def crowded(self) -> bool:
        """True while more waits for the disk than should: read no more."""
        return self._waiting_bytes > WAITING_BYTES_MAX

    @property
    def writing(self) -> bool:
        """True while a thread is at work; its end is told by `on_written`."""
        return self._job is not None

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self.length += len(data)
        add(self._waiting, data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= WRITE_BYTES_MIN:
            self.flush()

    def flush(self) -> None:
        """Write what waits now, little as it may be."""
        if self._job is None and self._waiting:
            pieces, self._waiting = self._waiting, []
            self._job = asyncio.ensure_future(self._write(pieces))

    async def written(self) -> None:
        """Return when all that was taken is in the file. Raises OSError."""
        while self._job is not None or self._waiting:
            self.flush()
            await self._job_done()
        if self.fault is not None:
            raise self.fault

    async def finish(self) -> bytes:
        """Sync the file and its folder; returns the checksum. Raises OSError."""
        await self.written()
        self._job = asyncio.ensure_future(self._finish())
        await self._job_done()
        if self.fault is not None:
            raise self.fault
        return self._hash.digest()

    async def drop(self) -> None:
        """Remove the file: the message was not taken. Harmless when there is none."""
        self._dropped = True
        while self._job is not None:
            await self._job_done()
        left, self._waiting = self._waiting_bytes, []
        self._waiting_bytes = 0
        self._on_written(left)
        await self._loop.run_in_executor(self._pool, self._unlink)

    async def _job_done(self) -> None:
        if self._job is not None:
            await asyncio.shield(self._job)

    async def _write(self, pieces: list[bytes]) -> None:
        size = sum(map(len, pieces))
        if self.fault is None and not self._dropped:
            await self._on_thread(lambda: self._append(pieces))
        self._waiting_bytes -= size
        self._job = None
        if self._waiting_bytes >= WRITE_BYTES_MIN:
            self.flush()
        self._on_written(size)

    async def _finish(self) -> None:
        await self._on_thread(self._sync)
        self._job = None

    async def _on_thread(self, work: Callable[[], None]) -> None:
        try:
            await self._loop.run_in_executor(self._pool, work)
        except OSError as fault:
            self.fault = fault

    def _append(self, pieces: Iterable[bytes]) -> None:
        if self._descriptor < 0:
            # O_EXCL: a name that is there, a link too, is somebody else's.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o600)
            self._made = True
        for piece in pieces:
            self._hash.update(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(self._descriptor, view) :]

    def _sync(self) -> None:
        # An fsync that failed is never tried again: the kernel may have dropped the pages.
        os.fsync(self._descriptor)
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)
        files.sync_folder(self.path.parent)

    def _unlink(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):
                os.close(descriptor)
        if self._made:
            with contextlib.suppress(OSError):  # then the shard's sweep finds it
                self.path.unlink()


class Disk(Executor):
    """The threads of one shard's folder, which notice when its disk hangs."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="bodies")
        self._numbers = itertools.count()
        self._began_ns: dict[int, int] = {}  # of what has not ended, oldest first

    @property
    def hangs(self) -> bool:
        """True while something that should take milliseconds takes seconds."""
        began_ns = next(iter(list(self._began_ns.values())), None)
        return began_ns is not None and clock.monotonic_ns() - began_ns > HANGS_S * 1e9

    def submit(self, work: Callable[..., Any], /, *args: Any, **named: Any) -> "Future[Any]":
        """Have a thread do it."""
        number = next(self._numbers)
        self._began_ns[number] = clock.monotonic_ns()
        job = self._pool.submit(work, *args, **named)
        job.add_done_callback(lambda _: self._began_ns.pop(number, None))
        return job

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing more."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)


class Disks:
    """Threads for each shard's folder: a disk that hangs holds up no bodies but its own."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._disks: dict[int, Disk] = {}

    def of(self, shard: int) -> Disk:
        """Return the threads for that shard's folder."""
        if shard not in self._disks:
            self._disks[shard] = Disk(self._threads)
        return self._disks[shard]

    @property
    def hanging(self) -> frozenset[int]:
        """The shards whose folder takes no new body now."""
        return frozenset(shard for shard, disk in self._disks.items() if disk.hangs)

    def __enter__(self) -> "Disks":
        return self

    def __exit__(self, *_: object) -> None:
        for disk in self._disks.values():
            disk.shutdown(wait=not disk.hangs, cancel_futures=True)


class Folders:
    """The shards' folders of bodies, and whether files can be made in them."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._usable = True

    @property
    def usable(self) -> bool:
        """False when the last look found no folder that takes a file."""
        return self._usable

    def path(self, shard: int, name: str) -> Path:
        """Return where the body of that name goes."""
        return self._spool / f"bodies-{shard}" / name

    def look(self) -> None:
        """See whether a file could be made; on a thread, each second."""
        try:
            folders = sorted(self._spool.glob("bodies-*"))
        except OSError as fault:
            self._usable = self._usable and fault.errno in OURS
            return
        # No folder yet: the shards make them, and say by their health that they are not up.
        self._usable = not folders or any(_takes_files(folder) for folder in folders)


def _takes_files(folder: Path) -> bool:
    """Make a file that has no name and so leaves nothing behind."""
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600))
    except OSError as fault:
        if fault.errno in OURS:
            return True
        # Not every file system has such files.
        return os.access(folder, os.W_OK) and _makes_files(folder)
    return True


def _makes_files(folder: Path) -> bool:
    path = folder / f".trial-{os.getpid()}"
    try:
        path.touch(0o600)
        path.unlink()
    except OSError:
        return False
    return True
