"""The points at which a life touches its disk: SQLite's through a VFS of ours, body files' by `os`.

A hand may be laid on them, in a forked process that is about to be killed. The VFS has to be there
before the product asks for page checksums, which then stand on it; so `install` comes first.
"""

import os
import random
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, Protocol

import apsw

NAME = "unix-points"  # the product puts checksums only on what is called unix
Do = Callable[[], Any]
REAL_OPEN, REAL_WRITE, REAL_FSYNC = os.open, os.write, os.fsync
REAL_UNLINK, REAL_MKDIR = os.unlink, os.mkdir


class Hand(Protocol):
    """What decides at each point. `do` does what was asked for."""

    def write(self, path: str, data: bytes, offset: int, do: Callable[[bytes], None]) -> None:
        """SQLite writes."""

    def truncate(self, path: str, size: int, do: Do) -> None:
        """SQLite cuts a file."""

    def sync(self, path: str, do: Do) -> None:
        """SQLite syncs a file."""

    def delete(self, path: str, do: Do) -> None:
        """SQLite removes a file."""

    def folder(self, path: str, do: Do) -> None:
        """The folder of the spool is made."""

    def body_open(self, path: str, do: Do) -> None:
        """A body's file was not there, and is made."""

    def body_write(self, path: str, data: Any, do: Callable[[Any], int]) -> int:
        """A body grows."""

    def body_sync(self, path: str, do: Do) -> None:
        """A body's file is synced, or the folder of all, or that of the spool's own name."""

    def body_unlink(self, path: str, do: Do) -> None:
        """A body goes."""


class Vfs(apsw.VFS):
    """SQLite's own file system, with a hand on it or not."""

    hand: Hand | None = None

    def __init__(self) -> None:
        super().__init__(NAME, "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        if self.hand is None or name is None:
            return File("unix", name, flags)
        return WatchedFile(self.hand, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        if self.hand is None:
            super().xDelete(filename, syncdir)
        else:
            self.hand.delete(filename, lambda: super(Vfs, self).xDelete(filename, syncdir))


class File(apsw.VFSFile):
    """One of SQLite's files, as it is."""

    def xLock(self, level: int) -> None:
        try:
            super().xLock(level)
        except apsw.IOError as fault:
            # Who only reads is refused a lock to write, and goes on; as a fault it would surface.
            raise apsw.BusyError from fault


class WatchedFile(File):
    """One of SQLite's files under that hand."""

    def __init__(self, hand: Hand, name: Any, flags: list[int]) -> None:
        self._hand = hand
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        write = super().xWrite
        self._hand.write(self._path, bytes(data), offset, lambda part: write(part, offset))

    def xTruncate(self, newsize: int) -> None:
        cut = super().xTruncate
        self._hand.truncate(self._path, newsize, lambda: cut(newsize))

    def xSync(self, flags: int) -> None:
        sync = super().xSync
        self._hand.sync(self._path, lambda: sync(flags))


@cache
def install() -> Vfs:
    """Put the VFS under all that this process opens; in force until the process ends."""
    assert "cksmvfs" not in apsw.vfs_names(), "checksums stand on something else already"
    return Vfs()


def lay(hand: Hand, folder: Path) -> None:
    """Lay a hand on all points of this process, for good."""
    install().hand = hand
    Calls(hand, folder).patch()


class Calls:
    """The calls of `os` that are about body files and the spool's folder; all others pass."""

    def __init__(self, hand: Hand, folder: Path) -> None:
        self._hand, self._spool = hand, str(folder)
        self._bodies, self._parent = f"{folder}/bodies-1", str(folder.parent)
        self._open: dict[int, str] = {}

    def patch(self) -> None:
        """Stand between this process and `os`."""
        os.open, os.write = self.open, self.write  # type: ignore[assignment]
        os.fsync, os.unlink = self.fsync, self.unlink  # type: ignore[assignment]
        os.mkdir = self.mkdir

    def mkdir(self, path: Any, *more: Any, **words: Any) -> None:
        name = str(os.fspath(path))
        if name == self._spool:
            self._hand.folder(name, lambda: REAL_MKDIR(path, *more, **words))
        else:
            REAL_MKDIR(path, *more, **words)

    def open(self, path: Any, flags: int, *more: Any, **words: Any) -> int:
        name = str(os.fspath(path))
        ours = name.startswith(self._bodies) or name == self._parent
        if not ours or flags & os.O_TMPFILE == os.O_TMPFILE:
            return REAL_OPEN(path, flags, *more, **words)
        if flags & os.O_CREAT:
            found: list[int] = []
            self._hand.body_open(
                name, lambda: found.append(REAL_OPEN(path, flags, *more, **words))
            )  # fmt: skip
            (descriptor,) = found
        else:
            descriptor = REAL_OPEN(path, flags, *more, **words)
        self._open[descriptor] = name  # a number that is used again is opened here again, or else
        return descriptor

    def write(self, descriptor: int, data: Any) -> int:
        if (path := self._open.get(descriptor)) is None:
            return REAL_WRITE(descriptor, data)
        return self._hand.body_write(path, data, lambda part: REAL_WRITE(descriptor, part))

    def fsync(self, descriptor: int) -> None:
        if (path := self._open.pop(descriptor, None)) is None:  # closed next
            REAL_FSYNC(descriptor)
        else:
            self._hand.body_sync(path, lambda: REAL_FSYNC(descriptor))

    def unlink(self, path: Any, **words: Any) -> None:
        name = str(os.fspath(path))
        if name.startswith(self._bodies):
            self._hand.body_unlink(name, lambda: REAL_UNLINK(path, **words))
        else:
            REAL_UNLINK(path, **words)


def die() -> NoReturn:
    """End this process here and now."""
    os.kill(os.getpid(), signal.SIGKILL)
    while True:  # another thread's signal may take a moment
        signal.pause()


class Deadly:
    """Kills at the n-th point: before it, after it, or with half of a write done."""

    def __init__(self, at: int, chance: random.Random) -> None:
        self._left = at
        self._how = chance.choice(("before", "half", "after"))
        self._share = chance.random()

    def _pass(self, do: Do, half: Do) -> Any:
        self._left -= 1
        if self._left == 0:
            if self._how == "after":
                do()
            elif self._how == "half":
                half()
            self.die()
        return do()

    def die(self) -> None:
        """End it."""
        die()

    def write(self, path: str, data: bytes, offset: int, do: Callable[[bytes], None]) -> None:
        part = data[: int(len(data) * self._share)]
        self._pass(lambda: do(data), lambda: part and do(part))

    def truncate(self, path: str, size: int, do: Do) -> None:
        self._pass(do, lambda: None)

    def sync(self, path: str, do: Do) -> None:
        self._pass(do, lambda: None)

    def delete(self, path: str, do: Do) -> None:
        self._pass(do, lambda: None)

    def folder(self, path: str, do: Do) -> None:
        self._pass(do, lambda: None)

    def body_open(self, path: str, do: Do) -> None:
        self._pass(do, lambda: None)

    def body_write(self, path: str, data: Any, do: Callable[[Any], int]) -> int:
        part = data[: int(len(data) * self._share)]
        return int(self._pass(lambda: do(data), lambda: do(part)))

    def body_sync(self, path: str, do: Do) -> None:
        self._pass(do, lambda: None)

    def body_unlink(self, path: str, do: Do) -> None:
        self._pass(do, lambda: None)
