"""Large bodies, written to a shard's folder while they arrive.

The order is the promise: all bytes, the file synced, its folder synced; only then may an accept
name it. Until that accept is sent the file is ours and goes when the message is not taken; after
it, it is the shard's, which sweeps what no row names. All disk work is on threads, and what waits
for a thread is bounded: the connection stops reading until there is room again.
"""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from pathlib import Path

CHECK_BYTES = 16
WAITING_BYTES_MAX = 1024 * 1024  # of one message, for the disk
WRITE_BYTES_MIN = 64 * 1024  # less than this is not worth a thread's time until the body ends
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
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _unlink(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):
                os.close(descriptor)
        if self._made:
            with contextlib.suppress(OSError):  # then the shard's sweep finds it
                self.path.unlink()


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
        except OSError:
            self._usable = False
            return
        # No folder yet: the shards make them, and say by their health that they are not up.
        self._usable = not folders or any(_takes_files(folder) for folder in folders)


def _takes_files(folder: Path) -> bool:
    """Make a file that has no name and so leaves nothing behind."""
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600))
    except OSError:
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
