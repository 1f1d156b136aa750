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
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from postweir.mail.envelope import message_id
from postweir.runtime import clock
from postweir.runtime.frames import json
from postweir.runtime.settings import Spool
from postweir.spool.ports import (
    Accept,
    Away,
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
from postweir.storage.spool_batch import DEFER_S_MAX, Batch, recipients_in
from postweir.storage.spool_checkpoint import Checkpoint
from postweir.storage.spool_clock import Steps
from postweir.storage.spool_decided import Decided
from postweir.storage.spool_leaving import Leaving
from postweir.storage.spool_place import Place
from postweir.storage.spool_rows import Rows
from postweir.storage.spool_schema import WAITS_PAUSED, first, migrate, rows
from postweir.storage.spool_upkeep import Upkeep
from postweir.storage.spool_values import Answer, Numbers, Pauses
from postweir.storage.sqlite import Connection, Fault, connect, no_room, trouble


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's faults into ours."""
    try:
        yield
    except Fault as fault:
        raise trouble(path, fault) from fault


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
        longest_wait_s: float = DEFER_S_MAX,
        opener: Callable[[Path], Connection] = connect,
    ) -> None:
        self._path, self._hostname = path, hostname
        self.settings = settings or Spool()
        self.longest_wait_s = longest_wait_s  # that delivery puts anyone off
        self._incarnation, self._bounce_count = incarnation, 0
        self._now_us = now_us
        self._quarantined: list[Quarantine] = []
        self._moved, self._proofs = False, now_us()  # what the log held at the start is in the file
        self._place = Place(path, bodies)
        try:
            self._open(opener)
        except BaseException:
            self._place.close()
            raise

    def _open(self, opener: Callable[[Path], Connection]) -> None:
        path = self._path
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
            self._steps = Steps(self._db)
        self._queued = int(row[0]) if row else 0
        self._place.opened()
        self._leaving = Leaving(
            self._db,
            self._place,
            self._pauses,
            self._now_us,
            lambda: int(self.longest_wait_s * 1e6),
        )
        self._upkeep = Upkeep(self._db, self._numbers)
        self._checkpoint = Checkpoint(path, self._db)

    # Writing

    def commit(self, changes: Sequence[Change]) -> Sequence[Done]:
        """Make all changes, or none, and sync."""
        batch, decided = self._batch()
        with self._transaction():
            answers = self._apply(batch, decided, changes)
        self._committed(batch, decided)
        return answers

    def upkeep(self) -> bool:
        """Do a small batch of what retention asks for; True when more is left to do.

        For an hour after the clock was set nothing is old: a step forward would end every hold.
        But what an operator resumes leaves.
        """
        stepped = self._steps.look()
        batch, decided = self._batch()
        try:
            with self._transaction():
                more = self._upkeep.work(
                    decided, self._pauses, self.settings, self._now_us(), ages=not stepped
                )
                batch.flush()
                if not stepped:
                    self._steps.save()
        except Full:
            self._upkeep.pauses_changed = True  # what it let go is held again: go round anew
            self._upkeep.sampling.start_over()
            raise
        self._committed(batch, decided)
        return more

    def prove(self) -> None:
        """Show that what is committed stays. Raises Full: not now."""
        moved = self._moved_all()  # always, for it makes room in the log
        self._moved = self._moved or moved
        if not self._moved:
            raise Full(
                "what the log held at the start cannot be moved into the file: there is no room,"
                " or somebody reads it and does not end"
            )
        with self._transaction():
            self._proofs += 1
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('proof', ?)", (self._proofs,))

    def _moved_all(self) -> bool:
        try:
            return self._checkpoint.move_all()
        except Fault as fault:
            if not no_room(fault):
                raise trouble(self._path, fault) from fault
            return False

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
        numbers = (self._numbers.message, self._numbers.step, self._numbers.request_done)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except Fault as fault:
            if no_room(fault) and self._rolled_back():
                self._numbers.message, self._numbers.step, self._numbers.request_done = numbers
                self._numbers.request = 0
                raise Full(str(fault)) from fault
            raise trouble(self._path, fault) from fault

    def _apply(self, batch: Batch, decided: Decided, changes: Sequence[Change]) -> list[Done]:
        """First what comes in and what became of it, all as sets; then the rest, one by one."""
        taken = self._names_taken([c.message for c in changes if isinstance(c, Accept)])
        batch.rows.look_up(recipients_in(changes))
        first_made = [self._apply_set(batch, change, taken) for change in changes]
        made: list[Answer | Done] = []
        for change, answer in zip(changes, first_made, strict=True):
            if answer is None:
                batch.flush()
                answer = self._apply_one(decided, change)  # noqa: PLW2901
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

    def _apply_one(self, decided: Decided, change: Change) -> Answer:
        match change:
            case Judged():
                return decided.judged(change)
            case Request():
                return decided.request(change)
        assert isinstance(change, Quarantine)
        return decided.quarantine(change)

    def _wrong(self, accept: Accept, taken: set[str]) -> str:
        """Return why this message cannot be taken, or "". Its file must be there, and whole.

        Looked at now, while it can still be refused: after the 250 it could only be held.
        """
        if accept.message in taken:
            return "failed"  # a name is given once; whoever repeats it did not get it from us
        taken.add(accept.message)
        try:
            wrong = self._place.damage(
                accept.body, accept.body_file, accept.length, accept.check
            )  # fmt: skip
        except Away:
            return "failed"
        return "corrupt" if wrong else ""

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

    def _batch(self) -> tuple[Batch, Decided]:
        gathered = Rows(self._db, self._numbers, self._pauses, self._now_us())
        batch = Batch(gathered, self._place, new_id=self._new_id, hostname=self._hostname)
        return batch, Decided(batch, late_refusal=self.settings.late_refusal)

    def _committed(self, batch: Batch, decided: Decided) -> None:
        self._queued += batch.rows.queued
        self._upkeep.sampling.added(batch.rows.facts_bytes)
        if decided.pauses_changed:
            self._pauses.until_us = dict(rows(self._db, "SELECT scope, until_us FROM pause"))
            self._upkeep.pauses_changed = True
        for name in batch.rows.files_done:
            self._place.unlink(name)
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
        with translated(self._path):
            found = self._leaving.due(bucket, lane, until_us, out, count_max)
        if found.damaged:
            self._hold(list({q.message: q for q in found.damaged}.values()))
        if found.paused:
            with contextlib.suppress(Full):  # they are passed over again
                self._park(found.paused)
        if found.more:
            self._upkeep.unparked.append((bucket, lane, until_us))
        damaged = {q.message for q in found.damaged}
        return [out for out in found.outs if out.message not in damaged]

    def next_due(self, bucket: int, lane: int, after_us: int) -> int | None:
        """Return when to look into this lane again: when its next one is due."""
        with translated(self._path):
            return self._leaving.next_due(bucket, lane, after_us)

    def earliest(self) -> Sequence[tuple[int, int, int]]:
        """Return the first due of every lane that has any."""
        with translated(self._path):
            return self._leaving.earliest()

    def content(self, message: str) -> Content | None:
        """Return what leaves, verified; None when it is corrupt (then it is quarantined).

        Of a file the rest is read by `Content.check`, on a thread. Raises Away.
        """
        with translated(self._path):
            found = self._leaving.content(message)
        if isinstance(found, Quarantine):
            self._hold([found])
            return None
        return found

    def pending(self, after: int, count_max: int) -> Sequence[Accept]:
        """Return messages not yet judged, oldest first; `ask` is the row, to go on after."""
        with translated(self._path):
            found = self._leaving.pending(after, count_max)
        damaged = {a.message: q for a in found if (q := self._leaving.damaged(a)) is not None}
        if damaged:
            self._hold(list(damaged.values()))
        return [accept for accept in found if accept.message not in damaged]

    def quarantined(self) -> Sequence[Quarantine]:
        """Return what was found damaged and is held now, since the last call."""
        found, self._quarantined = self._quarantined, []
        return found

    def _hold(self, damaged: Sequence[Quarantine]) -> None:
        with contextlib.suppress(Full):  # they stay as they are, and are found again
            done = self.commit(damaged)
            self._quarantined += [q for q, d in zip(damaged, done, strict=True) if d.noted]

    # The rest

    def request_done(self) -> int:
        """Return the number of the last request whose effect is committed."""
        return self._numbers.request_done

    def queued(self) -> int:
        """Return how many recipients have not ended."""
        return self._queued

    def forget_file(self, name: str) -> bool:
        """Unlink a body no row names. Between two commits, so no accept can name it meanwhile.

        What is older than a salvage stays: it may belong to a message whose row is gone.
        """
        with translated(self._path):
            row = first(
                self._db,
                "SELECT 1 FROM msg INDEXED BY msg_file WHERE body_file = ? AND state < 3",
                (name,),
            )
        if row is not None or self._place.before(name, self._meta("salvaged_at")):
            return False
        self._place.unlink(name)
        return True

    def room(self) -> tuple[int, str]:
        """Return the free bytes, and what is wrong with the place, or ""."""
        return self._place.room()

    def clock_us(self) -> int | None:
        """Return wall minus monotonic time as it was before any step that is remembered."""
        return self._steps.offset_us

    def close(self) -> None:
        """Leave the file tidy. Nothing depends on it."""
        self._checkpoint.close()
        with translated(self._path):
            self._moved_all()
            self._db.close()
        self._place.close()

    def _top(self, table: str) -> int:
        row = first(self._db, f"SELECT max(id) FROM {table}")  # noqa: S608
        return (row[0] or 0) if row else 0

    def _meta(self, key: str) -> int:
        row = first(self._db, "SELECT value FROM meta WHERE key = ?", (key,))
        return row[0] if row else 0
