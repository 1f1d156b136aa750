"""A picture of the operator's tables, always at hand: no message waits for a database.

A thread looks at the tables four times a second and puts a new picture in place of the old one;
the event loop only reads `now`. The last picture is also saved to a file, so that a restart
needs no tables.
"""

import asyncio
import contextlib
import threading
from pathlib import Path

from postweir.identity.networks import Networks
from postweir.identity.ports import Tables
from postweir.identity.sender import Directory
from postweir.runtime import clock, files, frames
from postweir.runtime.log import Log

LOOK_S = 0.25  # a command takes effect within a second
APART_S = 0.1  # between two looks, however many ask to look again: each opens a file
FIRST_LOOK_S = 2.0  # how long a start waits for tables that are slow
PICTURE_BYTES_MAX = 256 * 1024 * 1024  # a million accounts; a larger file is not ours


class _Waiting:
    """Who waits for one look. Built on the loop, told by the thread that looks."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.looked = asyncio.Event()

    def tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self.looked.set)


class Watched:
    """The directory as it is now, give or take a quarter of a second."""

    def __init__(
        self, tables: Tables, *, picture: Path | None, log: Log, saves: bool = True
    ) -> None:
        self._tables, self._picture, self._saves, self._log = tables, picture, saves, log
        self.now = Directory(version=0)
        self.networks = Networks()
        self.known = False  # False: neither tables nor picture could be read yet
        self._reachable = True
        self._reached_ns: int | None = None  # when the last look began that reached the tables
        self._taken = False  # a picture came from the tables, not only from the file
        self._looked = threading.Event()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()  # of `_next`, for no longer than to read or set it
        self._next: _Waiting | None = None  # all who wait for the next look, however many
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read the picture, then begin to look; waits a bounded time for the first look."""
        if self._picture is not None:
            self._load(self._picture)
        self._thread = threading.Thread(target=self._keep, name="directory", daemon=True)
        self._thread.start()
        self._looked.wait(FIRST_LOOK_S)

    def close(self) -> None:
        """Stop looking."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(2 * LOOK_S)

    async def again(self, wait_s: float) -> bool:
        """Wait for a look that began later than this call: what was just written is seen.

        False: there was none in time, or it did not reach the tables. Who asks shares a look with
        all who ask meanwhile.
        """
        began_ns = clock.monotonic_ns()
        with self._lock:
            waiting = self._next = self._next or _Waiting()
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(waiting.looked.wait(), wait_s)
        return self._reached_ns is not None and self._reached_ns >= began_ns

    def look(self, newer_than: int) -> None:
        """Take a newer picture if there is one."""
        began_ns = clock.monotonic_ns()
        try:
            found = self._tables.directory(newer_than)
            if found is not None:
                self._take(found)
        except Exception as fault:  # noqa: BLE001 - whatever storage meets, the old picture serves on
            if self._reachable:
                self._log.warning("directory.unreachable", fault=repr(fault), known=self.known)
            self._reachable = False
            return
        if not self._reachable:
            self._log.info("directory.reachable")
        self._reachable, self._reached_ns = True, began_ns
        if found is not None:
            self._save(found)

    def _keep(self) -> None:
        # The first look asks for all: tables that were restored from a backup may count lower.
        newer_than = -1
        while not self._closing.is_set():
            self._wake.clear()
            with self._lock:  # who asks from here on is told of the look after this one
                waiting, self._next = self._next, None
            self.look(newer_than)
            self._looked.set()
            if self._taken:
                newer_than = self.now.version
            if waiting is not None:
                waiting.tell()
            self._closing.wait(APART_S)
            self._wake.wait(LOOK_S)

    def _take(self, found: Directory) -> None:
        networks = Networks(found.accounts.values())
        for text in networks.unreadable:
            self._log.warning("directory.network_unreadable", network=text)
        self.networks, self.now = networks, found
        self.known = self._taken = True

    def _load(self, path: Path) -> None:
        try:
            data = files.unsealed(files.read(path, PICTURE_BYTES_MAX))
            found = frames.unpack(data, Directory)
        except FileNotFoundError:
            return
        except (OSError, frames.Torn) as fault:
            self._log.warning("directory.picture_unreadable", fault=str(fault))
            return
        self.networks, self.now, self.known = Networks(found.accounts.values()), found, True

    def _save(self, found: Directory) -> None:
        if self._picture is None or not self._saves:
            return
        try:
            files.replace(self._picture, files.sealed(frames.pack(found)))
        except OSError as fault:
            self._log.warning("directory.picture_unsaved", fault=str(fault))
