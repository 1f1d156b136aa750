"""A disk that forgets: what was not synced is there while the power is on, and then partly is not.

Whatever a life does goes to its files at once, so that it reads what it wrote; beside it is kept
how to undo what no sync has covered. When the power goes, of each file some of that is undone:
all, none, all from some write on (which may be torn), or any sectors of any writes. A file whose
folder was not synced since it was made may be gone, one that was unlinked may be back.

It is stricter than real file systems, which mostly write names with the bytes. It does not forget
the names that SQLite itself syncs (of its files, and so of all in its folder), or the deletion of
a log.
"""

import itertools
import os
import random
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.crash import points
from tests.crash.points import Do

SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class Undo:
    """One write that no sync has covered, or a cut of the file when there is no data."""

    offset: int
    data: bytes | None
    before: bytes  # what was there
    size: int  # of the file, before


class Forgetful:
    """Loses the power at the n-th point, or when it is told to."""

    def __init__(self, folder: Path, at: int, chance: random.Random) -> None:
        self._left, self._chance = at, chance
        self._lock = threading.RLock()
        self._undo: dict[str, list[Undo]] = defaultdict(list)
        self._files: dict[str, int] = {}  # never closed: that would let go of SQLite's locks
        self._dirty: set[str] = set()  # bodies whose bytes no sync has covered
        self._unnamed: set[str] = set()  # bodies whose folder was not synced since
        self._graves: dict[str, Path] = {}  # bodies that were unlinked, and may come back
        self._yard = folder.parent / "graves"
        self._yard.mkdir(exist_ok=True)
        self._folder = folder
        self._unsynced = self._yard / "unsynced"  # there while the folder's name was not synced
        self._numbers = itertools.count()

    def _pass(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.cut()

    # While there is power

    def write(self, path: str, data: bytes, offset: int, do: Callable[[bytes], None]) -> None:
        with self._lock:
            file = self._file(path)
            size, before = os.fstat(file).st_size, os.pread(file, len(data), offset)
            self._undo[path].append(Undo(offset, data, before, size))
            do(data)
            self._pass()

    def truncate(self, path: str, size: int, do: Do) -> None:
        with self._lock:
            file = self._file(path)
            was = os.fstat(file).st_size
            before = os.pread(file, max(0, was - size), size)
            self._undo[path].append(Undo(size, None, before, was))
            do()
            self._pass()

    def sync(self, path: str, do: Do) -> None:
        with self._lock:
            self._pass()
            do()
            self._undo.pop(path, None)

    def delete(self, path: str, do: Do) -> None:
        with self._lock:
            self._undo.pop(path, None)
            do()
            if (file := self._files.pop(path, None)) is not None:
                os.close(file)

    def folder(self, path: str, do: Do) -> None:
        with self._lock:
            do()
            self._unsynced.touch()
            self._pass()

    def body_open(self, path: str, do: Do) -> None:
        with self._lock:
            do()
            self._dirty.add(path)
            self._unnamed.add(path)
            self._pass()

    def body_write(self, path: str, data: Any, do: Callable[[Any], int]) -> int:
        with self._lock:
            self._dirty.add(path)
            written = do(data)
            self._pass()
            return written

    def body_sync(self, path: str, do: Do) -> None:
        with self._lock:
            self._pass()
            do()
            self._dirty.discard(path)
            if path == str(self._folder.parent):
                self._unsynced.unlink(missing_ok=True)
            elif os.path.isdir(path):
                self._unnamed.clear()
                for grave in self._graves.values():
                    points.REAL_UNLINK(grave)
                self._graves.clear()

    def body_unlink(self, path: str, do: Do) -> None:
        with self._lock:
            if path not in self._unnamed and os.path.exists(path):
                self._graves[path] = self._yard / f"{os.getpid()}-{next(self._numbers)}"
                os.link(path, self._graves[path])
            do()
            self._dirty.discard(path)
            self._unnamed.discard(path)
            self._pass()

    # The end of it

    def cut(self) -> None:
        """The power goes. Nobody comes past the lock any more."""
        self._lock.acquire()
        for path, undo in self._undo.items():
            self._forget(self._file(path), undo)
        for path in self._dirty:
            self._tear(path)
        for path in self._unnamed:
            if self._chance.random() < 0.7:
                points.REAL_UNLINK(path)
        for path, grave in self._graves.items():
            if self._chance.random() < 0.5:
                os.link(grave, path)
        if self._unsynced.exists() and self._chance.random() < 0.7:
            self._folder.rename(self._yard / f"{os.getpid()}-all")
        points.die()

    def _forget(self, file: int, undo: list[Undo]) -> None:
        for one in reversed(undo):
            os.pwrite(file, one.before, one.offset)
            os.ftruncate(file, one.size)
        chance, count = self._chance, len(undo)
        how = chance.choice(("none", "all", "prefix", "sectors"))
        kept = {"none": 0, "all": count, "sectors": count}.get(how, chance.randint(0, count))
        for n, one in enumerate(undo[:kept], 1):
            if one.data is None:
                if how != "sectors" or chance.random() < 0.5:
                    os.ftruncate(file, one.offset)
                continue
            data = one.data
            if how == "prefix" and n == kept:
                data = data[: chance.randint(0, len(data))]
            if how == "sectors":
                self._some(file, data, one.offset)
            else:
                os.pwrite(file, data, one.offset)

    def _some(self, file: int, data: bytes, offset: int) -> None:
        """Write any of its sectors."""
        at = 0
        while at < len(data):
            end = at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES
            if self._chance.random() < 0.6:
                os.pwrite(file, data[at:end], offset + at)
            at = end

    def _tear(self, path: str) -> None:
        size = os.stat(path).st_size
        keep = self._chance.randint(0, size)
        os.truncate(path, keep)
        if self._chance.random() < 0.5:  # the length is there, the bytes are not
            os.truncate(path, size)

    def _file(self, path: str) -> int:
        if path not in self._files:
            self._files[path] = points.REAL_OPEN(path, os.O_RDWR | os.O_CLOEXEC)
        return self._files[path]
