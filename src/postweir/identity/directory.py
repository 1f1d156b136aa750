"""A picture of the operator's tables, always at hand: no message waits for a database.

A thread looks at the tables four times a second and puts a new picture in place of the old one;
the event loop only reads `now`. The last picture is also saved to a file, so that a restart
needs no tables.
"""

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from postweir.identity.networks import Networks
from postweir.identity.ports import Tables
from postweir.identity.sender import Directory
from postweir.runtime import frames
from postweir.runtime.log import Log

LOOK_S = 0.25  # a command takes effect within a second
APART_S = 0.01  # however many ask to look again
FIRST_LOOK_S = 2.0  # how long a start waits for tables that are slow
PICTURE_BYTES_MAX = 256 * 1024 * 1024  # a million accounts; a larger file is not ours


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
        self._taken = False  # a picture came from the tables, not only from the file
        self._looked = threading.Event()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._asked: deque[Callable[[], None]] = deque()  # whom to tell of the next look
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

    async def again(self, wait_s: float) -> None:
        """Return after a look that began later than this call: what was just written is seen."""
        loop = asyncio.get_running_loop()
        looked = asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(looked.set)

        self._asked.append(tell)
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(looked.wait(), wait_s)

    def look(self, newer_than: int) -> None:
        """Take a newer picture if there is one."""
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
        self._reachable = True
        if found is not None:
            self._save(found)

    def _keep(self) -> None:
        # The first look asks for all: tables that were restored from a backup may count lower.
        newer_than = -1
        while not self._closing.is_set():
            self._wake.clear()
            # As many as are here now: who asks from here on is told of the look after this one.
            asked = [self._asked.popleft() for _ in range(len(self._asked))]
            self.look(newer_than)
            self._looked.set()
            if self._taken:
                newer_than = self.now.version
            for tell in asked:
                tell()
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
            if path.stat().st_size > PICTURE_BYTES_MAX:
                raise frames.Torn("too large")
            found = frames.unpack(path.read_bytes(), Directory)
        except FileNotFoundError:
            return
        except (OSError, frames.Torn) as fault:
            self._log.warning("directory.picture_unreadable", fault=str(fault))
            return
        self.networks, self.now, self.known = Networks(found.accounts.values()), found, True

    def _save(self, found: Directory) -> None:
        if self._picture is None or not self._saves:
            return
        fresh = self._picture.with_name(f"{self._picture.name}.{os.getpid()}.new")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(frames.pack(found))
            fresh.rename(self._picture)
        except OSError as fault:
            self._log.warning("directory.picture_unsaved", fault=str(fault))
            with contextlib.suppress(OSError):
                fresh.unlink()
