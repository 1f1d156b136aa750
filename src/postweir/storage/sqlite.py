"""The door to SQLite: connections opened the one way we trust, and its faults as ours."""

from pathlib import Path

import apsw

Connection = apsw.Connection

VERSION_MIN = 3_051_003  # before it, the WAL-reset bug can lose committed rows


class StorageFault(OSError):
    """SQLite could not read, write or sync. Stop acknowledging and exit; never retry the sync."""


def connect(path: Path, *, readonly: bool = False, wait_s: float = 0.0) -> Connection:
    """Open a file in WAL mode with a sync at each commit. Raises StorageFault.

    `wait_s` is how long to wait for another's lock: 0 for a file with one owner.
    """
    assert apsw.SQLITE_VERSION_NUMBER >= VERSION_MIN
    flags = apsw.SQLITE_OPEN_READONLY if readonly else (
        apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    )  # fmt: skip
    try:
        connection = apsw.Connection(str(path), flags=flags | apsw.SQLITE_OPEN_NOMUTEX)
        connection.set_busy_timeout(int(wait_s * 1000))
        if not readonly:
            for pragma in (
                "page_size=4096",
                "journal_mode=wal",
                "synchronous=full",
                "wal_autocheckpoint=0",
                "journal_size_limit=-1",
                "cache_size=-16000",
                "temp_store=memory",
                "foreign_keys=off",
            ):
                connection.execute(f"pragma {pragma}").fetchall()
    except apsw.Error as fault:
        raise StorageFault(f"{path}: {fault}") from fault
    return connection


Fault = apsw.Error  # translate at the call: `except sqlite.Fault as fault: raise StorageFault(...)`

FULL = 13  # SQLITE_FULL, also for ENOSPC on a write; on a sync it is an I/O error instead


def no_room(fault: BaseException) -> bool:
    """True when SQLite found no room, before anything was done that cannot be undone."""
    return isinstance(fault, Fault) and getattr(fault, "result", 0) == FULL
