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


def check_of(body: bytes) -> bytes:
    """Return the checksum that a body carries from here to its end."""
    return hashlib.blake2b(body, digest_size=CHECK_BYTES).digest()


class Spill:
    """One body on its way to a file. `write` never blocks; `finish` says that it is safe."""

    def __init__(self, path: Path, pool: Executor, *, on_written: Callable[[int], None]) -> None:
        self.path = path
        self.fault: OSError | None = None
        self.length = 0
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._on_written = on_written  # so many bytes left our memory
        self._hash = hashlib.blake2b(digest_size=CHECK_BYTES)
        self._descriptor = -1
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._job: asyncio.Future[None] | None = None
        self._dropped = False

    @property
    def crowded(self) -> bool:
        """True while more waits for the disk than should: read no more."""
        return self._waiting_bytes > WAITING_BYTES_MAX

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self.length += len(data)
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._job is None:
            self._begin()

    async def written(self) -> None:
        """Return when all that was taken is in the file. Raises OSError."""
        while self._job is not None:
            await asyncio.shield(self._job)
        if self.fault is not None:
            raise self.fault

    async def finish(self) -> bytes:
        """Sync the file and its folder; returns the checksum. Raises OSError."""
        await self.written()
        await self._loop.run_in_executor(self._pool, self._sync)
        return self._hash.digest()

    async def drop(self) -> None:
        """Remove the file: the message was not taken. Harmless when there is none."""
        self._dropped = True
        while self._job is not None:
            await asyncio.shield(self._job)
        await self._loop.run_in_executor(self._pool, self._unlink)

    def _begin(self) -> None:
        pieces, self._waiting = self._waiting, []
        self._job = asyncio.ensure_future(self._work(pieces))

    async def _work(self, pieces: list[bytes]) -> None:
        size = sum(map(len, pieces))
        if self.fault is None and not self._dropped:
            try:
                await self._loop.run_in_executor(self._pool, self._append, pieces)
            except OSError as fault:
                self.fault = fault
        self._waiting_bytes -= size
        self._job = None
        if self._waiting:
            self._begin()
        self._on_written(size)

    def _append(self, pieces: Iterable[bytes]) -> None:
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o600)
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
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _unlink(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):
                os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
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
        folders = sorted(self._spool.glob("bodies-*"))
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
