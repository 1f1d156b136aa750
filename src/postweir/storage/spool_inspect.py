"""Looks at a shard's file from outside, for people: how it stands, and whether it is whole."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from postweir.desk.ports import Salvage, ShardFile, Verified
from postweir.runtime import clock
from postweir.spool.leaving import damage_of_file, orphans
from postweir.spool.ports import Content
from postweir.spool.states import recipients_of
from postweir.storage.spool_clock import boot
from postweir.storage.spool_place import owned
from postweir.storage.spool_recovery import DAMAGED, DOUBT, SWAP, Record, note, read_record
from postweir.storage.spool_schema import (
    MIGRATIONS,
    WAY_OUT_SINCE,
    check_version,
    first,
    rows,
)
from postweir.storage.spool_seal import (
    OF_MESSAGE,
    address_sound,
    chosen,
    envelope_sound,
    headers_sound,
)
from postweir.storage.spool_wal import frames, generation, keep_index
from postweir.storage.sqlite import (
    CHECKSUM_BYTES,
    Connection,
    Fault,
    StorageFault,
    connect,
    damaged,
    has_checksums,
    keep_log,
    load_checksums,
    page_checksum,
    said,
)

PAGE = 4096
FAULTS_MAX = 100  # told one by one
MESSAGES = 50  # read in one transaction
AGAIN = 5  # looks at a page that a running shard may be writing just now
AGAIN_S = 0.05
SEALS_SINCE = 3  # the schema that has them


def inspect(shard: int, path: Path, bodies: Path) -> ShardFile:
    """Look at what can be had in a moment; whatever is wrong is told in it."""
    held = {"shard": shard, "path": str(path)}
    try:
        record = read_record(path)
        stat = os.statvfs(path.parent)
        known = {
            "owned": owned(path), "there": path.exists(),
            "free_bytes": stat.f_bavail * stat.f_frsize,
            "schema_known": len(MIGRATIONS), "extension": load_checksums(),
            "damaged": record.state in (DAMAGED, SWAP), "doubted": record.state == DOUBT,
            "fault": record.what if record.state else "",
            "salvages": _salvages(path, record),
        }  # fmt: skip
        if not known["there"]:
            return ShardFile(**held, **known)  # type: ignore[arg-type]
        known |= {"bytes": path.stat().st_size, "log_bytes": _size(path, "-wal"),
                  "checksums": has_checksums(path)}  # fmt: skip
    except OSError as fault:
        return ShardFile(**held, owned=False, fault=str(fault))  # type: ignore[arg-type]
    try:
        known |= _read(path, bodies)
    except (Fault, OSError) as fault:
        cause = fault.__cause__ or fault
        known |= {"fault": said(fault), "damaged": known["damaged"] or damaged(cause)}
    return ShardFile(**held, **known)  # type: ignore[arg-type]


def _salvages(path: Path, record: Record) -> list[Salvage]:
    """Return those whose damaged file is still there: who removed it has looked at it."""
    return [
        Salvage(one.at_us, one.what, str(path.with_name(one.kept)), one.messages, one.held,
                one.unreadable)
        for one in record.past
        if path.with_name(one.kept).exists()
    ]  # fmt: skip


def _read(path: Path, bodies: Path) -> dict[str, object]:
    """Return what the rows say. Raises Fault, OSError."""
    connection = _open(path)
    try:
        version = check_version(connection)
        if not version:
            return {}
        count = first(connection, "SELECT count(*) FROM msg WHERE state = 2 AND reason = 'corrupt'")
        meta = dict(rows(connection, "SELECT key, value FROM meta"))
        unnamed = sum(not _named(connection, name) for name in orphans(bodies))
        missing = sum(not (bodies / name).exists() for name in _files(connection))
    finally:
        connection.close()
    step_us = 0
    if boot() and meta.get("clock_boot") == boot() and "clock_offset_us" in meta:
        step_us = clock.offset_us() - meta["clock_offset_us"]
    return {
        "schema": version, "held_corrupt": count[0] if count else 0, "bodies_unnamed": unnamed,
        "bodies_missing": missing, "clock_set_us": step_us,
    }  # fmt: skip


def _open(path: Path) -> Connection:
    """Open it for reading, leaving all that a start after a crash looks at."""
    if not owned(path):
        keep_index(path)
    connection = connect(path, readonly=True, wait_s=1.0)
    keep_log(connection)
    return connection


def _named(connection: Connection, name: str) -> bool:
    sql = "SELECT 1 FROM msg INDEXED BY msg_file WHERE body_file = ?"
    return first(connection, sql, (name,)) is not None


def _files(connection: Connection) -> Iterator[str]:
    """Yield the names of files of messages that have not ended, some at a time."""
    after = ""
    while page := rows(
        connection,
        "SELECT body_file, state FROM msg INDEXED BY msg_file WHERE body_file > ?"
        " ORDER BY body_file LIMIT 1000",
        (after,),
    ):
        yield from (name for name, state in page if state < 3)
        after = page[-1][0]


def _size(path: Path, ending: str) -> int:
    other = path.with_name(path.name + ending)
    return other.stat().st_size if other.exists() else 0


def verify(path: Path, bodies: Path, tell: Callable[[int, int], None]) -> Verified:
    """Read every page, row and body that waits. Raises OSError.

    Where the file itself is damaged the shard's next process is left word: it looks the file over,
    and salvages it. By itself it would not before it meets that page.
    """
    faults: list[str] = []
    count = 0

    def found(what: str) -> None:
        nonlocal count
        count += 1
        if len(faults) < FAULTS_MAX:
            faults.append(what)

    pages = _pages(path, found, tell) if has_checksums(path) else 0
    file_wrong = count > 0
    messages = 0
    connection = _open(path)
    try:
        check_version(connection)
        for batch in _messages(connection):
            messages += len(batch)
            for row in batch:
                if wrong := _wrong(connection, bodies, row):
                    found(f"message {row[2]}: {wrong}")
            tell(messages, 0)
    except Fault as fault:
        if not damaged(fault):
            raise StorageFault(f"{path}: {said(fault)}") from fault
        file_wrong = True
        found(said(fault))
    finally:
        connection.close()
    if file_wrong:
        note(path, f"doctor: {faults[0]}", proven=False)
    return Verified(pages, messages, faults, count, file_wrong)


def _pages(path: Path, found: Callable[[str], None], tell: Callable[[int, int], None]) -> int:
    """Look at the checksum of each page of the file itself; returns how many there are."""
    total = path.stat().st_size // PAGE
    # What the log has is read from there: a crash may have left that page half written here.
    salts = generation(path)
    newer = {frame.page for frame in frames(path, 0) if frame.salts == salts}
    with path.open("rb", buffering=0) as file:
        for number in range(total):
            if number % 1000 == 0:
                tell(number, total)
            if number + 1 in newer:
                continue
            for _ in range(AGAIN):
                page = os.pread(file.fileno(), PAGE, number * PAGE)
                if len(page) < PAGE or page_checksum(page) == page[-CHECKSUM_BYTES:]:
                    break
                time.sleep(AGAIN_S)
            else:
                if any(page):  # one of zeros was never written: the file grew, and no more
                    found(f"page {number + 1} does not bear out its checksum")
    return total


def _messages(connection: Connection) -> Iterator[list[tuple[object, ...]]]:
    """Yield messages that have not ended, with their seals, some at a time."""
    after = 0
    version = check_version(connection)
    seals = f"m.seal, {OF_MESSAGE}" if version >= SEALS_SINCE else "NULL, m.id, m.name"
    way_out = "m.pool, m.verdict_lifetime_s" if version >= WAY_OUT_SINCE else "'', 0"
    while page := rows(
        connection,
        f"SELECT m.id, m.state, m.name, b.added, b.data, m.body_file, m.size, m.digest,"  # noqa: S608
        f" {way_out}, {seals}"
        " FROM msg m LEFT JOIN body b ON b.id = m.id WHERE m.id > ? ORDER BY m.id LIMIT ?",
        (after, MESSAGES),
    ):
        after = page[-1][0]
        yield [row for row in page if row[1] < 3]


def _wrong(connection: Connection, bodies: Path, row: tuple[object, ...]) -> str:
    """Return what is wrong with one message, or "": held ones that are known as such are too."""
    (number, _, name, added, data, body_file, size, digest, pool, lifetime_s, seal,
     *sealed) = row  # fmt: skip
    assert isinstance(number, int) and isinstance(name, str)  # noqa: PT018
    way_out = chosen(pool, lifetime_s)
    if not envelope_sound(sealed, seal) or not headers_sound(added, seal, way_out):
        return "envelope"
    if seal is not None:
        found = rows(
            connection,
            "SELECT id, address, seal FROM rcpt WHERE id BETWEEN ? AND ?",
            recipients_of(number),
        )
        if not all(address_sound(seal, r, address, one) for r, address, one in found):
            return "address"
    if added is None or (data is None and body_file is None):
        return "missing"
    return _body_wrong(bodies, name, data, body_file, (size, digest))


def _body_wrong(
    bodies: Path, name: str, data: object, body_file: object, said: tuple[object, object]
) -> str:
    size, digest = said
    assert isinstance(size, int) and isinstance(digest, bytes)  # noqa: PT018
    if body_file is not None:
        content = Content(name, "", b"", None, str(bodies / str(body_file)), size, digest)
        return damage_of_file(content)
    if not isinstance(data, bytes) or len(data) != size:
        return "length"
    return "" if hashlib.blake2b(data, digest_size=16).digest() == digest else "check"
