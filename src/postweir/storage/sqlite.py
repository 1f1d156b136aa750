"""The door to SQLite: connections opened the one way we trust, and its faults as ours.

A file that `connect` makes new carries a checksum in the last eight bytes of each of its pages
(SQLite's `cksumvfs`): it is set when a page is written to the file, and a page that does not bear
it out is not read. A file that was made without goes on without. The log beside it has SQLite's
own checksums, which are looked at when a process opens it after a crash (`spool_wal`).
"""

import ctypes
import struct
from pathlib import Path

import apsw
import apsw.sqlite_extra

from postweir.spool.ports import Damaged

Connection = apsw.Connection

VERSION_MIN = 3_051_003  # before it, the WAL-reset bug can lose committed rows
CHECKSUMS, VFS = "cksumvfs", "cksmvfs"  # the extension, and the layer that it is
CHECKSUM_BYTES = 8  # the reserved bytes of a page by which the extension knows its files
RESERVED_AT = 20  # in the file's header


class StorageFault(OSError):
    """SQLite could not read, write or sync. Stop acknowledging and exit; never retry the sync."""


class DamagedFile(StorageFault, Damaged):
    """What the file says is not what was written to it: retrying is of no use."""


class TooNew(StorageFault):
    """A newer Postweir wrote the file: it is whole, and not for us."""


def connect(
    path: Path,
    *,
    readonly: bool = False,
    wait_s: float = 0.0,
    vfs: str | None = None,
    checksums: bool = True,
    pragmas: tuple[str, ...] = (),
) -> Connection:
    """Open a file in WAL mode with a sync at each commit. Raises StorageFault.

    `wait_s` is how long to wait for another's lock: 0 for a file with one owner. `vfs` names the
    layer that reads and writes, if it is not the default one. With `checksums` a new file gets
    them, where the extension is there and nothing stands in its place; `pragmas` come last.
    """
    assert apsw.SQLITE_VERSION_NUMBER >= VERSION_MIN
    flags = apsw.SQLITE_OPEN_READONLY if readonly else (
        apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    )  # fmt: skip
    loaded = load_checksums()
    summed = loaded and (vfs or apsw.vfs_names()[0]) == VFS
    try:
        _ask_for_checksums(path, loaded)
        connection = apsw.Connection(str(path), flags=flags | apsw.SQLITE_OPEN_NOMUTEX, vfs=vfs)
        connection.set_busy_timeout(int(wait_s * 1000))
        if readonly:
            return connection
        if checksums and summed and not _written(path):
            reserve = ctypes.c_int(CHECKSUM_BYTES)
            connection.file_control(
                "main", apsw.SQLITE_FCNTL_RESERVE_BYTES, ctypes.addressof(reserve)
            )
        for pragma in (
            "page_size=4096",
            "journal_mode=wal",
            "synchronous=full",
            "wal_autocheckpoint=0",
            "journal_size_limit=-1",
            "cache_size=-16000",
            "temp_store=memory",
            "foreign_keys=off",
            *pragmas,
        ):
            connection.execute(f"pragma {pragma}").fetchall()
    except apsw.Error as fault:
        raise trouble(path, fault) from fault
    return connection


def load_checksums() -> bool:
    """Make page checksums known to this process; False where the extension is missing."""
    names = apsw.vfs_names()
    if VFS in names:
        return True
    # It stands on what is the default now, for ever: never on something that may go away.
    if not names[0].startswith("unix") or not apsw.sqlite_extra.has(CHECKSUMS):
        return False
    loader = apsw.Connection(":memory:")
    try:
        apsw.sqlite_extra.load(loader, CHECKSUMS)
    except (apsw.Error, OSError):
        return False
    finally:
        loader.close()
    return True


def has_checksums(path: Path) -> bool | None:
    """Return whether the pages of a file carry checksums; None: it has no page yet."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError:
        return None
    return header[RESERVED_AT] == CHECKSUM_BYTES if len(header) == 100 else None


def keep_log(connection: Connection) -> None:
    """Let this connection's end leave the log as it is."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)


def _written(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _ask_for_checksums(path: Path, loaded: bool) -> None:
    """Without the extension, pages would be written with checksums that are wrong."""
    if not loaded and has_checksums(path):
        raise StorageFault(
            f"{path}: its pages have checksums, and this installation of apsw has no"
            f" {CHECKSUMS}; install apsw with its extras, as it was before"
        )


Fault = apsw.Error  # translate at the call: `except sqlite.Fault as fault: raise trouble(...)`

FULL = 13  # SQLITE_FULL, also for ENOSPC on a write; on a sync it is an I/O error instead
CORRUPT, NOT_A_DATABASE = 11, 26
IOERR_DATA, IOERR_CORRUPT_FS = 10 | 32 << 8, 10 | 33 << 8


def trouble(path: object, fault: Fault) -> StorageFault:
    """Return SQLite's fault as ours: DamagedFile when the bytes are wrong."""
    return (DamagedFile if damaged(fault) else StorageFault)(f"{path}: {said(fault)}")


def said(fault: BaseException) -> str:
    """Return what happened; SQLite calls a page whose checksum is wrong an I/O error."""
    wrong_page = getattr(fault, "extendedresult", 0) == IOERR_DATA
    return "a page does not bear out its checksum" if wrong_page else str(fault)


def damaged(fault: BaseException) -> bool:
    """True when SQLite met bytes that are not what was written."""
    if not isinstance(fault, Fault):
        return False
    result, extended = getattr(fault, "result", 0), getattr(fault, "extendedresult", 0)
    return result in (CORRUPT, NOT_A_DATABASE) or extended in (IOERR_DATA, IOERR_CORRUPT_FS)


def no_room(fault: BaseException) -> bool:
    """True when SQLite found no room, before anything was done that cannot be undone."""
    return isinstance(fault, Fault) and getattr(fault, "result", 0) == FULL


def page_checksum(page: bytes) -> bytes:
    """Return what the last eight bytes of a page should be."""
    return checksum(page[:-CHECKSUM_BYTES], (0, 0), "<")


def checksum(data: bytes, seed: tuple[int, ...], order: str) -> bytes:
    """Return SQLite's checksum, of a page or of a log, as two words in that order of bytes."""
    first, second = seed
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for a, b in zip(words[::2], words[1::2], strict=True):
        first = (first + a + second) & 0xFFFFFFFF
        second = (second + b + first) & 0xFFFFFFFF
    return struct.pack(f"{order}II", first, second)
