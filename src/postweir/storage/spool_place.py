"""Where one shard lives: its folder, its lock, its bodies, and whether they are still there.

A folder that was taken away, replaced or made read-only is no reason to end: the files that are
open are whole, and may be all there is. The shard takes no mail meanwhile, delivers what it can
reach, and goes on as before when the folder is back.
"""

import contextlib
import fcntl
import hashlib
import os
import stat
from pathlib import Path

from postweir.runtime import files
from postweir.spool.ports import Away
from postweir.storage.sqlite import StorageFault

UNWRITABLE = "unwritable"


class Place:
    """Owns the folder of one shard's file, and knows its bodies."""

    def __init__(self, path: Path, bodies: Path) -> None:
        """Make the folders and take the lock. Raises OSError: another process has it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite syncs the names in our folder, and nobody its own name: all would go with it.
        files.sync_folder(path.parent.parent)
        if not path.exists():
            # Only then: an empty folder in place of one that was moved away, or is not mounted,
            # would make every large message look lost.
            bodies.mkdir(exist_ok=True)
        self._path, self._bodies = path, bodies
        self._inode = (0, 0)
        # What a new process says of its predecessor's commits is final only when that one is gone.
        self._lock = os.open(
            path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as fault:
            os.close(self._lock)
            raise StorageFault(f"{path}: another process owns it") from fault

    def opened(self) -> None:
        """The file is open now: remember which one it is."""
        found = self._path.stat()
        self._inode = (found.st_dev, found.st_ino)

    def close(self) -> None:
        """Let another process have it."""
        os.close(self._lock)

    def room(self) -> tuple[int, str]:
        """Return the free bytes, and what is wrong with the place, or ""."""
        try:
            free = os.statvfs(self._path.parent)
            found = self._path.stat()
        except OSError:
            return 0, UNWRITABLE
        here = (found.st_dev, found.st_ino) == self._inode  # what we keep stands where all look
        good = here and _takes_files(self._path.parent) and _takes_files(self._bodies)
        return free.f_bavail * free.f_frsize, "" if good else UNWRITABLE

    def file(self, name: str) -> Path:
        """Return the path of a body."""
        return self._bodies / name

    def damage(self, data: bytes | None, name: str | None, size: int, digest: bytes) -> str:
        """Return what is wrong with a body, or "". Raises Away.

        Of a file only presence and length are looked at here: reading fifty megabytes would hold
        up every commit.
        """
        if name:
            length = self._length(name)
            return "missing" if length is None else "" if length == size else "length"
        if data is None:
            return "missing"
        if len(data) != size:
            return "length"
        return "" if hashlib.blake2b(data, digest_size=16).digest() == digest else "check"

    def head(self, name: str, bytes_max: int) -> bytes:
        """Return the first bytes of a body, b"" when it cannot be read."""
        with contextlib.suppress(OSError), self.file(name).open("rb") as file:
            return file.read(bytes_max)
        return b""

    def before(self, name: str, at_us: int) -> bool:
        """True for a body that was there at that time."""
        with contextlib.suppress(OSError):
            return self.file(name).stat().st_mtime_ns // 1000 <= at_us
        return False

    def unlink(self, name: str) -> None:
        """Remove a body. Gone already, or left for the sweep: no promise hangs on it."""
        with contextlib.suppress(OSError):
            self.file(name).unlink()

    def _length(self, name: str) -> int | None:
        try:
            return self.file(name).stat().st_size
        except FileNotFoundError as fault:
            if self._bodies.is_dir():
                return None
            raise Away(fault.errno, "no folder", str(self._bodies)) from fault
        except OSError as fault:
            raise Away(fault.errno, fault.strerror, str(self.file(name))) from fault


def owned(path: Path) -> bool:
    """True while a process has this shard's file. Raises OSError."""
    try:
        with path.with_suffix(".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _takes_files(folder: Path) -> bool:
    """True for a folder in which we may make files; also said of root on a read-only one."""
    try:
        mode = folder.stat().st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) and os.access(folder, os.W_OK | os.X_OK)
