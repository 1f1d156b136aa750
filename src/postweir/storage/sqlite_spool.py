"""One shard's rows in one SQLite file, which this process alone opens to write.

The order is the design. A commit is: BEGIN IMMEDIATE; every change that waited; COMMIT, which
returns only when the write-ahead log is synced (`synchronous=FULL`). Only then may anyone say
Safe. Rules of this file:

* An error of the disk is never retried. After a failed sync nobody knows what is on it, and a
  second sync would lie (the kernel has marked the pages clean). It leaves here as StorageFault;
  the process exits, and what the next one finds in the file is the truth.
* "No room" is different: SQLite says it before the commit is whole, the transaction is rolled
  back, and it is certain that nothing of it is kept. That is `Full`.
* Nothing here waits for another process: the file has one writer. Readers have connections of
  their own and short transactions, for a reader that stops pins the log.
* The WAL hook only notes how long the log is; `spool_checkpoint` does the work on a thread, but
  the last pass is the writer's, between two commits, because only that lets the log restart.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from postweir.identity.sender import Sender
from postweir.mail.envelope import Envelope, message_id
from postweir.runtime import clock
from postweir.runtime.frames import from_json, json, unpack
from postweir.runtime.settings import Spool
from postweir.spool.ports import (
    LANES,
    Accept,
    Change,
    Content,
    Done,
    Full,
    Judged,
    Out,
    Quarantine,
    Refusal,
    Request,
    Settle,
    Sited,
)
from postweir.storage.spool_batch import Batch, recipients_in
from postweir.storage.spool_checkpoint import Checkpoint
from postweir.storage.spool_schema import WAITS_PAUSED, first, migrate, rows
from postweir.storage.spool_upkeep import Upkeep
from postweir.storage.spool_values import Answer, Numbers, Pauses
from postweir.storage.sqlite import Connection, Fault, StorageFault, connect

FULL = 13  # SQLITE_FULL, also for ENOSPC on a write; on a sync it is an I/O error instead


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's faults into ours."""
    try:
        yield
    except Fault as fault:
        raise StorageFault(f"{path}: {fault}") from fault


class SqliteStore:
    """Implements spool.ports.Store. Open, used and closed on one thread."""

    def __init__(
        self,
        path: Path,
        bodies: Path,
        *,
        hostname: str = "localhost",
        settings: Spool | None = None,
        incarnation: int = 0,
        now_us: Callable[[], int] = clock.wall_us,
        opener: Callable[[Path], Connection] = connect,
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        bodies.mkdir(exist_ok=True)
        self._path, self._bodies, self._hostname = path, bodies, hostname
        self.settings = settings or Spool()
        self._incarnation, self._bounce_count = incarnation, 0
        self._now_us = now_us
        self._db = opener(path)
        with translated(path):
            migrate(self._db)
            self._numbers = Numbers(
                message=max(self._top("msg"), self._top("refusal"), self._meta("message_last")),
                step=max(self._top("step"), self._meta("step_last")),
                request_done=self._meta("request_done"),
            )
            self._pauses = Pauses(dict(rows(self._db, "SELECT scope, until_us FROM pause")))
            row = first(
                self._db,
                "SELECT ifnull(sum(accepted - delivered - bounced - refused - dropped), 0)"
                " FROM counter",
            )
        self._queued = int(row[0]) if row else 0
        self._upkeep = Upkeep(self._db, self._numbers)
        self._checkpoint = Checkpoint(path, self._db)
        stat = path.stat()
        self._inode = (stat.st_dev, stat.st_ino)

    # Writing

    def commit(self, changes: Sequence[Change]) -> Sequence[Done]:
        """Make all changes, or none, and sync."""
        batch = self._batch()
        with self._transaction():
            answers = self._apply(batch, changes)
        self._committed(batch)
        return answers

    def upkeep(self) -> bool:
        """Do a small batch of what retention asks for; True when more is left to do."""
        batch = self._batch()
        try:
            with self._transaction():
                more = self._upkeep.work(batch, self._pauses, self.settings, self._now_us())
                batch.flush()
        except Full:
            self._upkeep.pauses_changed = True  # what it let go is held again: go round anew
            raise
        self._committed(batch)
        return more

    def unparked(self) -> Sequence[tuple[int, int, int]]:
        """Return where to look again, once: lanes that upkeep let go since the last call."""
        found, self._upkeep.unparked = self._upkeep.unparked, []
        return found

    def _park(self, recipients: Sequence[int]) -> None:
        """Take suspended recipients out of what is due; upkeep brings them back."""
        with self._transaction():
            self._db.executemany(
                "UPDATE rcpt SET waits = ? WHERE id = ? AND state = 0 AND waits = 0",
                [(WAITS_PAUSED, r) for r in recipients],
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """One commit. Raises Full when it is surely rolled back, StorageFault else."""
        numbers = (self._numbers.message, self._numbers.step)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except Fault as fault:
            if getattr(fault, "result", 0) == FULL and self._rolled_back():
                self._numbers.message, self._numbers.step = numbers
                self._numbers.request = 0
                raise Full(str(fault)) from fault
            raise StorageFault(f"{self._path}: {fault}") from fault

    def _apply(self, batch: Batch, changes: Sequence[Change]) -> list[Done]:
        """First what comes in and what became of it, all as sets; then the rest, one by one."""
        taken = self._names_taken([c.message for c in changes if isinstance(c, Accept)])
        batch.look_up(recipients_in(changes))
        first_made = [self._apply_set(batch, change, taken) for change in changes]
        made: list[Answer | Done] = []
        for change, answer in zip(changes, first_made, strict=True):
            if answer is None:
                batch.flush()
                answer = self._apply_one(batch, change)  # noqa: PLW2901
            made.append(answer)
        batch.flush()
        return [a if isinstance(a, Done) else a.done() for a in made]

    def _apply_set(self, batch: Batch, change: Change, taken: set[str]) -> Answer | Done | None:
        match change:
            case Accept():
                reason = self._wrong(change, taken)
                return Done(reason) if reason else batch.accept(change)
            case Settle():
                return batch.settle(change)
            case Sited():
                return batch.sited(change)
            case Refusal():
                return batch.refuse(change)
        return None

    def _apply_one(self, batch: Batch, change: Change) -> Answer:
        match change:
            case Judged():
                return batch.judged(change)
            case Request():
                return batch.request(change)
        assert isinstance(change, Quarantine)
        return batch.quarantine(change)

    def _wrong(self, accept: Accept, taken: set[str]) -> str:
        """Return why this message cannot be taken, or "". Its file must be there, and whole."""
        if accept.message in taken:
            return "failed"  # a name is given once; whoever repeats it did not get it from us
        taken.add(accept.message)
        if accept.body is not None:
            # Looked at now, while it can still be refused: after the 250 it could only be held.
            return (
                ""
                if not self._damage(accept.body, None, accept.length, accept.check)
                else "corrupt"
            )
        try:
            size = (self._bodies / (accept.body_file or "")).stat().st_size
        except OSError:
            return "corrupt"
        return "" if accept.body_file and size == accept.length else "corrupt"

    def _names_taken(self, names: list[str]) -> set[str]:
        if not names:
            return set()
        return {
            name
            for (name,) in self._db.execute(
                "SELECT m.name FROM json_each(?) j CROSS JOIN msg m ON m.name = j.value",
                (json(names).decode(),),
            )
        }

    def _batch(self) -> Batch:
        return Batch(
            self._db,
            self._numbers,
            self._pauses,
            now_us=self._now_us(),
            new_id=self._new_id,
            hostname=self._hostname,
            late_refusal=self.settings.late_refusal,
            bodies=self._bodies,
        )

    def _committed(self, batch: Batch) -> None:
        self._queued += batch.queued
        if batch.pauses_changed:
            self._pauses.until_us = dict(rows(self._db, "SELECT scope, until_us FROM pause"))
            self._upkeep.pauses_changed = True
        for name in batch.files_done:
            # Gone already, or left for the sweep: nothing of a promise hangs on it.
            with contextlib.suppress(OSError):
                (self._bodies / name).unlink()
        with translated(self._path):
            self._checkpoint.after_commit()

    def _rolled_back(self) -> bool:
        """True when the transaction is surely gone."""
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except Fault:
            return False
        return not self._db.in_transaction

    def _new_id(self) -> str:
        self._bounce_count = self._bounce_count + 1 & 0xFFFF
        return message_id(
            at_ms=self._now_us() // 1000, incarnation=self._incarnation, counter=self._bounce_count
        )

    # Reading what leaves

    def due(
        self, bucket: int, lane: int, until_us: int, out: AbstractSet[int], count_max: int
    ) -> Sequence[Out]:
        """Return recipients of this bucket and lane due by then and not in `out`, oldest first."""
        wanted: list[int] = []
        paused: list[int] = []
        with translated(self._path):
            for (recipient,) in self._db.execute(
                "SELECT id FROM rcpt INDEXED BY rcpt_due WHERE state = 0 AND waits = 0"
                " AND bucket = ? AND lane = ? AND due <= ? ORDER BY due",
                (bucket, lane, until_us),
            ):
                if recipient not in out:
                    wanted.append(recipient)
                    if len(wanted) >= count_max:
                        break
            found = self._outs(wanted, paused)
        if paused:
            with contextlib.suppress(Full):  # they are passed over again
                self._park(paused)
        return found

    def _outs(self, wanted: list[int], paused: list[int]) -> list[Out]:
        now_us, found = self._now_us(), []
        for row in rows(
            self._db,
            "SELECT r.id, r.tries, m.name, m.sender, r.address, m.accepted_at, m.lifetime_s,"
            " m.account FROM json_each(?) j CROSS JOIN rcpt r ON r.id = j.value"
            " CROSS JOIN msg m ON m.id = r.id >> 10",
            (json(wanted).decode(),),
        ):
            recipient, tries, message, sender, address, accepted_at, lifetime_s, account = row
            if self._pauses.hold(account, sender, address.rpartition("@")[2], now_us):
                paused.append(recipient)
                continue
            found.append(
                Out(
                    recipient=recipient,
                    attempt=tries + 1,
                    message=message,
                    sender=sender,
                    address=address,
                    accepted_at_us=accepted_at,
                    age_s=max(0.0, (now_us - accepted_at) / 1e6),
                    tries=tries,
                    lifetime_s=lifetime_s,
                )
            )
        return found

    def next_due(self, bucket: int, lane: int, after_us: int) -> int | None:
        """Return the first due time of this lane that is later than `after_us`."""
        with translated(self._path):
            row = first(
                self._db,
                "SELECT due FROM rcpt INDEXED BY rcpt_due WHERE state = 0 AND waits = 0"
                " AND bucket = ? AND lane = ? AND due > ? ORDER BY due LIMIT 1",
                (bucket, lane, after_us),
            )
        return row[0] if row else None

    def earliest(self) -> Sequence[tuple[int, int, int]]:
        """Return the first due of every lane that has any, skipping from one to the next."""
        found: list[tuple[int, int, int]] = []
        bucket, lane = 0, -1
        with translated(self._path):
            while True:
                row = first(
                    self._db,
                    "SELECT bucket, lane, due FROM rcpt INDEXED BY rcpt_due"
                    " WHERE state = 0 AND waits = 0 AND (bucket, lane) > (?, ?)"
                    " ORDER BY bucket, lane, due LIMIT 1",
                    (bucket, lane),
                )
                if row is None:
                    return found
                found.append((row[0], row[1], row[2]))
                bucket, lane = row[0], row[1]
                assert lane < LANES

    def content(self, message: str) -> Content | None:
        """Return what leaves, verified; None when it is corrupt (then it is quarantined).

        Of a file only presence and length are looked at here: reading fifty megabytes would hold
        up every commit. `Content.check` is for whoever reads it.
        """
        with translated(self._path):
            row = first(
                self._db,
                "SELECT m.mail_from, b.added, b.data, m.body_file, m.size, m.digest, m.eight_bit,"
                " m.origin FROM msg m LEFT JOIN body b ON b.id = m.id WHERE m.name = ?",
                (message,),
            )
        if row is None:
            return None
        mail_from, added, data, name, size, digest, eight_bit, origin = row
        wrong = self._damage(data, name, size, digest, present=added is not None)
        if wrong:
            with contextlib.suppress(Full):  # it stays as it is, and is found again
                self.commit([Quarantine(message, wrong)])
            return None
        return Content(
            message=message,
            mail_from=mail_from,
            added=added,
            body=data,
            body_file=str(self._bodies / name) if name else None,
            length=size,
            check=digest,
            eight_bit=bool(eight_bit),
            origin=origin,
        )

    def _damage(
        self,
        data: bytes | None,
        name: str | None,
        size: int,
        digest: bytes,
        *,
        present: bool = True,
    ) -> str:
        """Return what is wrong with a body, or ""."""
        if not present or (data is None and not name):
            return "missing"
        if name:
            try:
                length = (self._bodies / name).stat().st_size
            except OSError:
                return "missing"
            return "" if length == size else "length"
        assert data is not None
        if len(data) != size:
            return "length"
        return "" if hashlib.blake2b(data, digest_size=16).digest() == digest else "check"

    def pending(self, after: int, count_max: int) -> Sequence[Accept]:
        """Return messages not yet judged, oldest first; `ask` is the row, to go on after."""
        with translated(self._path):
            found = rows(
                self._db,
                "SELECT m.id, m.name, m.origin, m.mail_from, m.helo, m.eight_bit, m.who, m.client,"
                " m.tls, b.added, b.data, m.body_file, m.size, m.digest, m.lifetime_s, m.log,"
                " m.bounces_1h_max, m.return_path, m.reason"
                " FROM msg m INDEXED BY msg_pending JOIN body b ON b.id = m.id"
                " WHERE m.state = 1 AND m.id > ? ORDER BY m.id LIMIT ?",
                (after, count_max),
            )
            return [self._pending_one(row) for row in found]

    def _pending_one(self, row: tuple[Any, ...]) -> Accept:
        number, name, origin, mail_from, helo, eight_bit, who, client, tls, added, *rest = row
        data, body_file, size, digest, lifetime_s, log, bounces_1h_max, return_path, reason = rest
        assert isinstance(number, int)
        low = number << 10
        recipients = self._db.execute(
            "SELECT address FROM rcpt WHERE id BETWEEN ? AND ? AND state = 0", (low, low + 1023)
        )
        return Accept(
            number, name, 0, origin,
            Envelope(mail_from, tuple(a for (a,) in recipients), helo, bool(eight_bit)),
            unpack(who, Sender), client, bool(tls), added, data,
            str(self._bodies / str(body_file)) if body_file else None,
            size, digest, None, reason, b"", lifetime_s,
            from_json(log, dict[str, str]), bounces_1h_max, return_path,
        )  # fmt: skip

    # The rest

    def request_done(self) -> int:
        """Return the number of the last request whose effect is committed."""
        return self._numbers.request_done

    def queued(self) -> int:
        """Return how many recipients have not ended."""
        return self._queued

    def forget_file(self, name: str) -> bool:
        """Unlink a body no row names. Between two commits, so no accept can name it meanwhile."""
        with translated(self._path):
            row = first(
                self._db,
                "SELECT 1 FROM msg INDEXED BY msg_file WHERE body_file = ? AND state < 3",
                (name,),
            )
        if row is not None:
            return False
        with contextlib.suppress(OSError):
            (self._bodies / name).unlink()
        return True

    def room(self) -> tuple[int, str]:
        """Return the free bytes, and what is wrong with the place, or "". Raises StorageFault.

        A file that was moved or replaced under us would keep what we promise where nobody will
        look for it.
        """
        stat = os.statvfs(self._path.parent)
        try:
            there = self._path.stat()
        except OSError as fault:
            raise StorageFault(f"{self._path}: {fault.strerror}") from fault
        if (there.st_dev, there.st_ino) != self._inode:
            raise StorageFault(f"{self._path}: is another file now")
        writable = all(os.access(d, os.W_OK | os.X_OK) for d in (self._path.parent, self._bodies))
        return stat.f_bavail * stat.f_frsize, "" if writable else "unwritable"

    def close(self) -> None:
        """Leave the file tidy. Nothing depends on it."""
        self._checkpoint.close()
        with translated(self._path):
            rows(self._db, "PRAGMA wal_checkpoint(PASSIVE)")
            self._db.close()

    def _top(self, table: str) -> int:
        row = first(self._db, f"SELECT max(id) FROM {table}")  # noqa: S608
        return (row[0] or 0) if row else 0

    def _meta(self, key: str) -> int:
        row = first(self._db, "SELECT value FROM meta WHERE key = ?", (key,))
        return row[0] if row else 0
