"""Moves the write-ahead log into the file, off the mail's way."""

import threading
from pathlib import Path

from postweir.storage.sqlite import Connection, Fault, connect

PAGES_WAKE = 2000  # measured: p99 17 ms with it, 39 ms when the writer does it at 4,000
PAGES_REST = 400  # so few are left to the writer: a millisecond or two
PAGES_MAX = 32_000  # 128 MiB: the thread cannot keep up, so the writer works, as back-pressure


class Checkpoint:
    """One thread with a connection of its own; `after_commit` is the writer's share."""

    def __init__(self, path: Path, writer: Connection) -> None:
        self._path, self._writer = path, writer
        self._pages = 0
        self._tidy = False  # the thread has left only a little for the writer
        self._wake, self._stop = threading.Event(), False
        writer.set_wal_hook(self._note)
        self._thread = threading.Thread(target=self._work, name="checkpoint", daemon=True)
        self._thread.start()

    def after_commit(self) -> None:
        """Do the last pass, or all of it when the log has grown past its bound."""
        if self._tidy or self._pages > PAGES_MAX:
            self._tidy = False
            self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """End the thread."""
        self._stop = True
        self._wake.set()
        self._thread.join(5.0)
        self._writer.set_wal_hook(None)

    def _note(self, _: Connection, __: str, pages: int) -> int:
        self._pages = pages
        if pages > PAGES_WAKE:
            self._wake.set()
        return 0

    def _work(self) -> None:
        try:
            connection = connect(self._path, wait_s=1.0)
        except OSError:
            return  # the writer meets the same fault, and it is the one to exit
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._stop:
                break
            try:
                row = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            except Fault:
                break  # as above: past PAGES_MAX the writer does it, and exits if it cannot
            if row and row[1] - row[2] < PAGES_REST:
                self._tidy = True
            else:
                self._wake.set()
        connection.close()
