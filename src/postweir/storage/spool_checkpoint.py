"""Moves the write-ahead log into the file, off the mail's way."""

import threading
from pathlib import Path

from postweir.storage.sqlite import Connection, Fault, connect, no_room

PAGES_WAKE = 2000  # measured: p99 17 ms with it, 39 ms when the writer does it at 4,000
PAGES_REST = 400  # so few are left to the writer: a millisecond or two
PAGES_MAX = 32_000  # 128 MiB: the thread cannot keep up, so the writer works, as back-pressure
READERS_S = 0.5  # a reader's transaction is a page of an answer, so this is long
PAUSE_S = 0.1  # when no page can be moved now: no room, or a reader that takes its time


class Checkpoint:
    """One thread with a connection of its own; `after_commit` is the writer's share."""

    def __init__(self, path: Path, writer: Connection) -> None:
        self._path, self._writer = path, writer
        self._pages = 0
        self._tidy = False  # the thread has left only a little for the writer
        self._fault: Fault | OSError | None = None
        self._wake, self._stop = threading.Event(), threading.Event()
        writer.set_wal_hook(self._note)
        self._thread = threading.Thread(target=self._work, name="checkpoint", daemon=True)
        self._thread.start()

    def after_commit(self) -> None:
        """Do the last pass, or all of it when the log has grown past its bound.

        Raises Fault or OSError.
        """
        if self._fault is not None:
            raise self._fault  # the disk failed the thread: it is no better for us
        if self._tidy or self._pages > PAGES_MAX:
            self._tidy = False
            try:
                self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except Fault as fault:
                # The file cannot grow now; the commit stands in the log all the same.
                if not no_room(fault):
                    raise

    def move_all(self) -> bool:
        """Bring all that the log holds to safety in the file; False: not now, a reader has it.

        For what was found at the start. A sync that failed before may have left frames that the
        next process can read and the disk does not have: no later sync of the log writes them,
        and without them all that is appended is lost with the power. Here they are written
        anew, to the file, and the log begins anew. Raises Fault.
        """
        self._writer.set_busy_timeout(int(READERS_S * 1000))
        try:
            row = self._writer.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        finally:
            self._writer.set_busy_timeout(0)
        return row is not None and not row[0] and row[1] == row[2]

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
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
        except OSError as fault:
            self._fault = fault
            return
        left = 0  # pages that the last pass could not move
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._stop.is_set():
                break
            try:
                row = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            except Fault as fault:
                if not no_room(fault):
                    self._fault = fault
                    break
                self._stop.wait(PAUSE_S)
                self._wake.set()
                continue
            before, left = left, (row[1] - row[2]) if row else 0
            if left < PAGES_REST:
                self._tidy = True
            else:
                if left >= before > 0:  # a reader pins the log
                    self._stop.wait(PAUSE_S)
                self._wake.set()
        connection.close()
