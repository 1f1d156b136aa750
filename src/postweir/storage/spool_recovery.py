"""What a shard does before it opens its file: it finds damage, and salvages what there is.

    shard-K.db                      the file
    shard-K.recovery                what is known of its damage, and of the salvages before
    shard-K.salvage/                where the new file is put together
    shard-K.damaged-TIME.db, -wal   the old one, as it was found; nobody here deletes it

Damage is proven by SQLite (a page that does not bear out its checksum, a tree that makes no
sense), or by the log (`spool_wal`). A shard that met it says so in `shard-K.recovery` and ends;
the next process salvages. A fault that nobody foresaw makes it look over the whole file. The
exchange of the files is written down before it begins, so that a crash at any point of it is
gone on from; before that, a crash only means that the salvage begins anew.
"""

import contextlib
import os
import shutil
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from postweir.runtime import clock, files, frames
from postweir.runtime.frames import Struct
from postweir.runtime.log import Log
from postweir.storage import spool_wal
from postweir.storage.spool_place import Place
from postweir.storage.spool_salvage import Salvage, Salvaged, Stopped, check_whole
from postweir.storage.spool_schema import check_version, first
from postweir.storage.spool_source import Source
from postweir.storage.sqlite import (
    Connection,
    DamagedFile,
    Fault,
    StorageFault,
    connect,
    damaged,
    keep_log,
    load_checksums,
    trouble,
)

DAMAGED, DOUBT, SWAP = "damaged", "doubt", "swap"
RECORD_BYTES_MAX = 1024 * 1024
PAST_MAX = 20  # salvages remembered
DOUBTS_MAX = 3  # unforeseen faults after each of which the file looked whole: then it is rebuilt
TELL_S = 5.0
AGAIN_S = 60.0  # until what stands in the way (no room, a newer file) is looked at again


class Past(Struct, frozen=True):
    """One salvage that was done."""

    at_us: int
    what: str
    kept: str  # the damaged file's name
    messages: int
    recipients: int
    held: int  # messages that were not whole
    unreadable: int
    took_s: float


class Record(Struct, frozen=True):
    """What `shard-K.recovery` says."""

    state: str = ""  # "", damaged, doubt, swap
    what: str = ""
    at_us: int = 0
    kept: str = ""
    doubts: int = 0
    past: list[Past] = []
    frames: int = 0  # of the log, that were committed


def read_record(path: Path) -> Record:
    """Return the record of a shard's file; a damaged record says nothing. Raises OSError."""
    try:
        data = files.unsealed(files.read(record_of(path), RECORD_BYTES_MAX))
        found = frames.from_json(data, Record)
    except FileNotFoundError:
        return Record()
    except frames.Torn:
        return Record(what="the record itself was damaged")
    assert isinstance(found, Record)
    return found


def record_of(path: Path) -> Path:
    """Return where the record of a shard's file is."""
    return path.with_suffix(".recovery")


def note(path: Path, what: str, *, proven: bool) -> None:
    """Leave word for the next process, which may be all that this one can still do."""
    with contextlib.suppress(OSError):
        old = read_record(path)
        if old.state in (DAMAGED, SWAP):
            return
        state, doubts = (DAMAGED, old.doubts) if proven else (DOUBT, old.doubts + 1)
        _write(path, Record(state, what[:500], clock.wall_us(), "", doubts, old.past))


def _write(path: Path, record: Record) -> None:
    files.replace(record_of(path), files.sealed(frames.json(record)))


class Recovery:
    """Prepares one shard's file. `stop` is set when the process is told to end."""

    def __init__(self, path: Path, bodies: Path, *, log: Log, stop: threading.Event) -> None:
        self._path, self._bodies, self._log, self._stop = path, bodies, log, stop
        self._folder = path.with_suffix(".salvage")
        self.doing = "starting"  # for the health answer
        self._told_at = 0.0

    def prepare(self) -> None:
        """Look at the file, and salvage it when it is damaged; then it may be opened.

        Raises StorageFault: it may not, and why; TooNew among them. Raises Stopped.
        """
        place = Place(self._path, self._bodies)
        try:
            record = read_record(self._path)
            if record.state == SWAP or self._swapping():
                self._swap(record)
                record = read_record(self._path)
            index = spool_wal.read_index(self._path)  # before SQLite makes it anew
            what = record.what if record.state == DAMAGED else self._look(record, index)
            if what:
                self.doing = "salvaging"
                committed = max(record.frames, spool_wal.committed(self._path, index))
                self._salvage(record, what, place, committed)
        except OSError as fault:
            if isinstance(fault, StorageFault):
                raise
            raise StorageFault(f"{self._path}: {fault}") from fault
        finally:
            place.close()

    def until_prepared(self) -> bool:
        """Prepare, again and again while something stands in the way; False: told to end.

        The process stays, and says why: to end and start anew would only hide the cause.
        """
        if not load_checksums():
            self._log.warning("spool.no_checksums", do="install apsw's wheel from PyPI")
        while not self._stop.is_set():
            try:
                self.prepare()
            except Stopped:
                return False
            except StorageFault as fault:
                self.doing = "down"
                self._log.error("spool.down", fault=str(fault), again_in_s=AGAIN_S)
                self._stop.wait(AGAIN_S)
            else:
                return True
        return False

    def _look(self, record: Record, before: spool_wal.Index | None) -> str:
        """Return what proves that the file is damaged, or "". Raises StorageFault, TooNew."""
        path = self._path
        if not path.exists() or not path.stat().st_size:
            return ""
        try:
            connection = connect(path, readonly=True, wait_s=1.0)
            try:
                keep_log(connection)
                check_version(connection)
                first(connection, "SELECT count(*) FROM sqlite_schema")
                index = spool_wal.read_index(path)
                wrong = self._wrong(connection, record) if record.state == DOUBT else ""
            finally:
                connection.close()
        except DamagedFile as fault:
            return str(fault)
        except Fault as fault:
            if damaged(fault):
                return str(fault)
            raise trouble(path, fault) from fault
        return wrong or spool_wal.lost(path, before, index.frames if index else 0)

    def _wrong(self, connection: Connection, record: Record) -> str:
        """After a fault that nobody foresaw: look at every page, then at nothing more than that."""
        self.doing = "checking"
        self._log.warning("spool.checking", path=str(self._path), after=record.what)
        row = first(connection, "PRAGMA integrity_check(1)")
        wrong = "" if row is None or row[0] == "ok" else " ".join(str(row[0]).split())
        if not wrong and record.doubts >= DOUBTS_MAX:
            return f"{record.doubts} unforeseen faults, the last: {record.what}"
        if not wrong:
            _write(self._path, Record(doubts=record.doubts, past=record.past))
        return wrong

    def _salvage(self, record: Record, what: str, place: Place, committed: int) -> None:
        began_us, began_s = clock.wall_us(), time.monotonic()
        self._log.error("spool.damaged", path=str(self._path), what=what)
        at_us = record.at_us or began_us
        _write(self._path, Record(DAMAGED, what, at_us, past=record.past, frames=committed))
        self._need_room()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        fresh = self._folder / "fresh.db"
        source = Source(self._path, self._folder)
        try:
            found = Salvage(
                source, fresh, place, now_us=began_us, frames=committed, tell=self._tell
            ).run()
        finally:
            source.close()
        check_whole(fresh)
        _sync(fresh)
        files.sync_folder(self._folder)
        kept = self._kept(began_us)
        past = Past(began_us, what, kept, found.messages, found.recipients, found.held_count,
                    found.unreadable, round(time.monotonic() - began_s, 1))  # fmt: skip
        done = Record(SWAP, what, began_us, kept, past=[past, *record.past][:PAST_MAX])
        _write(self._path, done)
        self._swap(done)
        self._say(found, past)

    def _kept(self, at_us: int) -> str:
        """Return a name for the damaged file that no other has: none of them is overwritten."""
        second = at_us // 1_000_000
        while True:
            stamp = datetime.fromtimestamp(second, UTC).strftime("%Y%m%dT%H%M%SZ")
            name = f"{self._path.stem}.damaged-{stamp}.db"
            if not self._path.with_name(name).exists():
                return name
            second += 1

    def _swap(self, record: Record) -> None:
        """Put the damaged file aside and the new one in its place; begun anew after a crash."""
        path, fresh = self._path, self._folder / "fresh.db"
        if fresh.exists():
            for ending in ("-wal", ""):
                old = path.with_name(path.name + ending)
                if old.exists():
                    old.rename(path.with_name(record.kept + ending))
            path.with_name(path.name + "-shm").unlink(missing_ok=True)
            files.sync_folder(path.parent)
            fresh.rename(path)
            files.sync_folder(path.parent)
        _write(path, Record(past=record.past))
        shutil.rmtree(self._folder, ignore_errors=True)

    def _swapping(self) -> bool:
        """True when the old file is aside and the new one is not in place, whatever was said."""
        return not self._path.exists() and (self._folder / "fresh.db").exists()

    def _need_room(self) -> None:
        """The new file is no larger than the old one with its log. Raises StorageFault."""
        need = sum(
            one.stat().st_size
            for one in (self._path, self._path.with_name(self._path.name + "-wal"))
            if one.exists()
        )
        room = os.statvfs(self._path.parent)
        free = room.f_bavail * room.f_frsize
        if free < need:
            raise StorageFault(
                f"{self._path} is damaged, and salvaging it needs {need} bytes free; there are"
                f" {free}: make room"
            )

    def _tell(self, found: Salvaged) -> None:
        if self._stop.is_set():
            raise Stopped
        now = time.monotonic()
        if now - self._told_at > TELL_S:
            self._told_at = now
            self._log.info("spool.salvaging", path=str(self._path), messages=found.messages,
                           recipients=found.recipients, held=found.held_count)  # fmt: skip

    def _say(self, found: Salvaged, past: Past) -> None:
        for name, wrong in found.held.items():
            self._log.error("spool.corrupt", message=name, what=wrong)
        self._log.error(
            "spool.salvaged", path=str(self._path), kept=past.kept, messages=past.messages,
            recipients=past.recipients, held=past.held, unreadable=past.unreadable,
            took_s=past.took_s,
        )  # fmt: skip


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
