"""A disk under SQLite that fails where it is told to, and knows what a loss of power would leave.

It is a VFS: what SQLite writes goes to real files (what the kernel would show to the next process)
and, once a sync has succeeded, into an image of each file (what is on the platter). A sync that
fails does what Linux does: the pages count as clean, so no later sync writes them; only writing
them again does. Whoever has the file open then is told once. The shared memory beside the log
is not of this disk: SQLite goes past a VFS of Python for it.
"""

import os
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import apsw

NAME, BASE = "bad-disk", "unix"
ERRORS = {"io": apsw.IOError, "full": apsw.FullError}
CODES = {
    ("write", "io"): apsw.SQLITE_IOERR_WRITE,
    ("write", "full"): apsw.SQLITE_FULL,
    ("sync", "io"): apsw.SQLITE_IOERR_FSYNC,
    ("truncate", "io"): apsw.SQLITE_IOERR_TRUNCATE,
    ("size", "io"): apsw.SQLITE_IOERR_FSTAT,
    ("read", "io"): apsw.SQLITE_IOERR_READ,
}


@dataclass
class Fault:
    """The `at`-th call of one kind fails; from then on all of them when it is `lasting`."""

    call: str  # write, sync, truncate, size, read
    at: int
    error: str = "io"
    part: float = 0.0  # of a write, how much of it reaches the file all the same
    lasting: bool = False
    thread: str = ""  # of one thread only


@dataclass
class Platter:
    """One file as a loss of power would leave it."""

    image: bytearray = field(default_factory=bytearray)
    dirty: list[tuple[int, bytes | None]] = field(default_factory=list)  # None: cut to that length
    errors: int = 0  # syncs that failed

    def sync(self, *, good: bool) -> None:
        """Bring what was written to the platter, or call it clean all the same."""
        dirty, self.dirty = self.dirty, []
        if not good:
            return
        for at, what in dirty:
            if what is None:
                del self.image[at:]
                continue
            self.image.extend(bytes(max(0, at - len(self.image))))
            self.image[at : at + len(what)] = what


class BadDisk(apsw.VFS):
    """Everything that SQLite opens while it is registered is on this disk."""

    def __init__(self) -> None:
        super().__init__(NAME, BASE)
        self.lock = threading.RLock()
        self.platters: dict[str, Platter] = {}
        self.fault: Fault | None = None
        self.counts: Counter[str] = Counter()
        self.failed: list[tuple[str, str]] = []  # what was made to fail: call and file
        self.again: list[str] = []  # writes and syncs of a file after a sync of it failed
        self.ended = False  # for now there is none
        self.lives = 1  # processes there have been: what an older one has open reaches nothing

    def xOpen(self, name, flags):
        return OnBadDisk(self, name, flags)

    def xDelete(self, name, syncdir):
        if self.ended:
            raise apsw.IOError
        super().xDelete(name, syncdir)
        with self.lock:
            self.platters.pop(_key(name), None)

    def end(self) -> None:
        """The process is gone."""
        with self.lock:
            self.lives += 1
            self.ended = True

    def plan(self, fault: Fault | None) -> None:
        """Fail so, counted from now."""
        with self.lock:
            self.fault, self.failed, self.again = fault, [], []
            self.counts.clear()

    def meets(self, call: str, path: str) -> Fault | None:
        """Count a call; return the fault that it meets."""
        with self.lock:
            thread = threading.current_thread().name
            if call in ("write", "sync") and ("sync", path) in self.failed:
                self.again.append(call)
            fault = self.fault
            if fault is not None and fault.thread not in ("", thread):
                return None
            self.counts[call] += 1
            if fault is None or fault.call != call or self.counts[call] < fault.at:
                return None
            if self.counts[call] > fault.at and not fault.lasting:
                return None
            self.failed.append((call, path))
            return fault

    def lose_power(self) -> None:
        """Leave in each file what is on the platter. Nobody has them open."""
        for path, platter in self.platters.items():
            if path.endswith("-shm"):
                continue
            Path(path).write_bytes(platter.image)
            Path(path.removesuffix("-wal") + "-shm").unlink(missing_ok=True)
        self.platters.clear()


class OnBadDisk(apsw.VFSFile):
    """One open file."""

    def __init__(self, disk: BadDisk, name, flags) -> None:
        super().__init__(BASE, name, flags)
        self.disk, self.life = disk, disk.lives
        self.path = _key(name)
        with disk.lock:
            if self.path not in disk.platters:
                there = Path(self.path)
                disk.platters[self.path] = Platter(
                    bytearray(there.read_bytes() if there.exists() else b"")
                )
            self.platter = disk.platters[self.path]
            self.seen = self.platter.errors

    def xWrite(self, data, at):
        fault = self._meets("write")
        data = bytes(data)
        if fault is not None:
            data = data[: int(len(data) * fault.part)]
        if data:
            super().xWrite(data, at)
            with self.disk.lock:
                self.platter.dirty.append((at, data))
        _raise(fault)

    def xSync(self, flags):
        fault = self._meets("sync")
        with self.disk.lock:
            self.platter.sync(good=fault is None)
            self.platter.errors += fault is not None
            if self.seen != self.platter.errors:  # as errseq_t has it
                self.seen, fault = self.platter.errors, fault or Fault("sync", 0)
        _raise(fault)

    def xTruncate(self, size):
        _raise(self._meets("truncate"))
        super().xTruncate(size)
        with self.disk.lock:
            self.platter.dirty.append((size, None))

    def xFileSize(self):
        _raise(self._meets("size"))
        return super().xFileSize()

    def xRead(self, amount, at):
        _raise(self._meets("read"))
        return super().xRead(amount, at)

    def _meets(self, call: str) -> Fault | None:
        if self.life != self.disk.lives:
            _raise(Fault(call, 0))
        return self.disk.meets(call, self.path)


def _raise(fault: Fault | None) -> None:
    if fault is None:
        return
    raised = ERRORS[fault.error](f"planted in {fault.call}")
    raised.extendedresult = CODES[fault.call, fault.error]
    raised.result = raised.extendedresult & 0xFF  # apsw hands this very exception on
    raise raised


def _key(name) -> str:
    return os.fspath(name.filename() if isinstance(name, apsw.URIFilename) else name)
