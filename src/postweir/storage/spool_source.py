"""Reads a damaged file: all rows that can be read, in order, past what cannot."""

import itertools
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from postweir.storage import spool_wal
from postweir.storage.spool_schema import first, migrate, rows
from postweir.storage.sqlite import (
    CHECKSUM_BYTES,
    Connection,
    Fault,
    StorageFault,
    connect,
    has_checksums,
    keep_log,
    page_checksum,
)

ROWS = 50  # read at once, with a mebibyte of body each at most
LAST_ROW = 1 << 62
PAGE = 4096
UNREADABLE = (Fault, UnicodeDecodeError)  # the second where a text is none any more

Row = tuple[Any, ...]
_KINDS: dict[str, type] = {"INTEGER": int, "TEXT": str, "BLOB": bytes}


class Source:
    """A damaged file and its log, read only, from names of their own in `folder`."""

    def __init__(self, path: Path, folder: Path) -> None:
        """Link them there; raises StorageFault when not even the tables' names can be read."""
        self.unreadable = 0  # rows and gaps met on the way
        self.frames = 0  # of the log, up to its last commit
        copy = folder / "source.db"
        _link(path, copy)
        self._mend(path, copy)
        try:
            self._open(copy)
        except StorageFault:
            first_page = _first_page(path, folder)
            copy.unlink()
            shutil.copyfile(path, copy)
            with copy.open("r+b") as file:
                file.write(first_page)
            self._mend(path, copy, first_page)
            self._open(copy)

    def _mend(self, path: Path, copy: Path, first_page: bytes = b"") -> None:
        copy.with_name(copy.name + "-shm").unlink(missing_ok=True)
        if path.with_name(path.name + "-wal").exists():
            log = copy.with_name(copy.name + "-wal")
            self.frames = spool_wal.mend(path, log, first_page)

    def _open(self, copy: Path) -> None:
        self._db = connect(copy, readonly=True)
        keep_log(self._db)
        try:
            self.schema = int(rows(self._db, "PRAGMA user_version")[0][0])
            self._db.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            self._tables = {t: self._columns(t) for t in TABLES}
        except UNREADABLE as fault:
            self._db.close()
            raise StorageFault(f"{copy}: {fault}") from fault
        if not self._tables["msg"] or not self._tables["rcpt"]:
            self._db.close()
            raise StorageFault(f"{copy}: has not the tables of a shard")

    def close(self) -> None:
        """Let go of it."""
        self._db.close()

    def columns(self, table: str) -> list[str]:
        """Return the names of a table's columns, as they are in the file."""
        return [name for name, _, _ in self._tables[table]]

    def rows(self, table: str, low: int = 1, high: int = LAST_ROW) -> Iterator[Row]:
        """Yield (rowid, *columns) of every row that can be read and is what its table says."""
        at = low - 1
        while True:
            found = self._read(table, at, high, ROWS)
            if found is None:
                for row in self._one_by_one(table, at, high):
                    at = row[0]
                    if len(row) > 1:
                        yield row
                    if at >= high:
                        return
                if self._stuck:
                    return
                continue
            for row in found:
                at = row[0]
                if self._sound(table, row):
                    yield row
                else:
                    self.unreadable += 1
            if len(found) < ROWS:
                return

    _stuck = False

    def _one_by_one(self, table: str, at: int, high: int) -> Iterator[Row]:
        """Yield the next rows singly, (rowid,) for one that cannot be read."""
        self._stuck = False
        for _ in range(ROWS):
            number = self._next(table, at, high)
            if number is None:
                self._stuck = True
                return
            found = self._read(table, number - 1, number, 1)
            at = number
            if found and self._sound(table, found[0]):
                yield found[0]
            else:
                self.unreadable += 1
                yield (number,)

    def _read(self, table: str, after: int, high: int, count: int) -> list[Row] | None:
        """Return the next rows, None when one of them cannot be read."""
        names = ", ".join(self.columns(table))
        try:
            found = rows(
                self._db,
                f"SELECT rowid, {names} FROM {table} NOT INDEXED"  # noqa: S608
                " WHERE rowid > ? AND rowid <= ? ORDER BY rowid LIMIT ?",
                (after, high, count),
            )
        except UNREADABLE:
            return None
        numbers = [after, *(row[0] for row in found)]
        # A tree that leads back to itself would never end.
        return found if all(a < b for a, b in itertools.pairwise(numbers)) else None

    def _next(self, table: str, after: int, high: int) -> int | None:
        """Return the next row that can be found, leaping over what cannot."""
        step, found = 1, self._at(table, after + 1, high)
        while found is None and after + step < high:
            step = min(step * 2, high - after)
            found = self._at(table, after + step, high)
        if found is None:
            return None
        bad, good = after + 1, after + step
        while step > 1 and good - bad > 1:
            middle = (bad + good) // 2
            looked = self._at(table, middle, high)
            if looked is None:
                bad = middle
            else:
                good, found = middle, looked
        self.unreadable += step > 1
        return found if found <= high else None

    def _at(self, table: str, low: int, high: int) -> int | None:
        """Return the first row from `low` on, `high` + 1 for none, None when nobody can say."""
        try:
            found = first(
                self._db,
                f"SELECT rowid FROM {table} NOT INDEXED"  # noqa: S608
                " WHERE rowid >= ? AND rowid <= ? ORDER BY rowid LIMIT 1",
                (low, high),
            )
        except UNREADABLE:
            return None
        if not found:
            return high + 1
        return int(found[0]) if low <= int(found[0]) else None

    def names(self, wanted: set[int]) -> dict[int, str]:
        """Return the names of messages by the index of names, as far as it can be read."""
        found: dict[int, str] = {}
        after = ""
        while len(found) < len(wanted):
            try:
                page = rows(
                    self._db,
                    "SELECT name, rowid FROM msg INDEXED BY sqlite_autoindex_msg_1"
                    " WHERE name > ? ORDER BY name LIMIT 1000",
                    (after,),
                )
            except UNREADABLE:
                break
            if not page or not isinstance(page[-1][0], str) or page[-1][0] <= after:
                break
            after = page[-1][0]
            found |= {int(n): str(name) for name, n in page if n in wanted and name}
        return found

    def recipients_said(self, message: int) -> int:
        """Return how many recipients a message of an older schema had, 0 when nobody knows."""
        try:
            row = first(
                self._db,
                "SELECT json_extract(detail, '$.recipients') FROM step"
                " WHERE msg = ? AND kind = 'accepted'",
                (message,),
            )
        except UNREADABLE:
            return 0
        return row[0] if row and isinstance(row[0], int) else 0

    def _columns(self, table: str) -> list[tuple[str, type, bool]]:
        return [
            (str(row[1]), _KINDS.get(str(row[2]), object), not row[3] and not row[5])
            for row in rows(self._db, f"PRAGMA table_info({table})")
        ]

    def _sound(self, table: str, row: Row) -> bool:
        """True when every value is of its column's kind."""
        return all(
            isinstance(value, kind) or (value is None and may_be_null)
            for value, (_, kind, may_be_null) in zip(row[1:], self._tables[table], strict=True)
        )


TABLES = (
    "msg", "rcpt", "body", "facts", "step", "refusal", "counter", "bounced", "pause", "meta",
)  # fmt: skip


def _link(path: Path, copy: Path) -> None:
    """Give the file a second name; where that cannot be, copy it."""
    try:
        os.link(path, copy)
    except OSError:
        shutil.copyfile(path, copy)


def _first_page(path: Path, folder: Path) -> bytes:
    """Return the first page that a shard's file must have had: where which table begins.

    All of them are made by the same statements in the same order, so their tables begin at the
    same pages. Raises StorageFault, OSError.
    """
    model = folder / "model.db"
    summed = _most_pages_have_checksums(path)
    connection: Connection = connect(model, checksums=summed)
    migrate(connection)
    connection.close()
    with model.open("rb") as file:
        first_page = bytearray(file.read(PAGE))
    struct.pack_into(">I", first_page, 92, 0)  # so its size is the file's, or what the log says
    if has_checksums(model):
        first_page[-CHECKSUM_BYTES:] = page_checksum(bytes(first_page))
    return bytes(first_page)


def _most_pages_have_checksums(path: Path) -> bool:
    """Tell by the first pages after the damaged one."""
    with path.open("rb") as file:
        pages = [file.read(PAGE) for _ in range(9)][1:]
    whole = [page for page in pages if len(page) == PAGE]
    good = sum(page_checksum(page) == page[-CHECKSUM_BYTES:] for page in whole)
    return good * 2 > len(whole)
