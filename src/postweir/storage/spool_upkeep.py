"""What time does to a shard: holds expire, suspensions end, the record grows old and goes.

Small batches, when the writer has nothing else to do, so that no accept waits for them.
"""

from postweir.mail.address import domain_of
from postweir.runtime.settings import Spool
from postweir.spool.states import recipients_of
from postweir.storage.spool_decided import Decided
from postweir.storage.spool_rows import Detail
from postweir.storage.spool_sampling import Sampling
from postweir.storage.spool_schema import WAITS_NOT, first, rows
from postweir.storage.spool_values import Numbers, Pauses
from postweir.storage.sqlite import Connection

BATCH_ROWS = 500  # a few milliseconds of the writer
HOLDS_MAX = 50  # that expire in one piece, if they have few recipients
HOLDS_US = 1_000_000  # between two rounds of all that is held
HELD = (
    "SELECT id, changed_at, hold_until FROM msg INDEXED BY msg_held"
    " WHERE state = 2 AND (changed_at, id) > (?, ?) ORDER BY changed_at, id LIMIT ?"
)
HOUR_US = 3600 * 1_000_000
DAY_US = 24 * HOUR_US


class Upkeep:
    """Works through what is old, a piece at each call, inside the store's transaction."""

    def __init__(self, connection: Connection, numbers: Numbers) -> None:
        self._db, self._numbers = connection, numbers
        self.sampling = Sampling(connection)
        self.pauses_changed = True
        self.unparked: list[tuple[int, int, int]] = []  # (bucket, lane, due): look there again
        self._unpark_at = 0
        self._messages_at = 0  # rows up to here were looked at in this round
        self._rounds_at_us = 0
        self._held_at = (0, 0)  # (since, row) up to which what is held was looked at in this round
        self._holds_at_us = 0

    def work(
        self, decided: Decided, pauses: Pauses, settings: Spool, now_us: int, *, ages: bool
    ) -> bool:
        """Do one piece; True when more is left. Without `ages` nothing ends by its age."""
        sampled = self.sampling.work(settings)
        if not ages:
            return self._unpark(pauses, 0) or sampled  # no suspension is over by its time, either
        held = self._expire_holds(decided, settings, now_us)
        paused = self._unpark(pauses, now_us)
        journal_us = now_us - settings.journal_days * DAY_US
        facts = self._forget_facts(now_us - settings.facts_hours * HOUR_US) or sampled
        steps = self._forget("step", journal_us)
        refusals = self._forget("refusal", journal_us)
        messages = self._forget_messages(journal_us, now_us)
        return held or paused or facts or steps or refusals or messages

    def _expire_holds(self, decided: Decided, settings: Spool, now_us: int) -> bool:
        """End holds whose time is over: by their verdict's word, else by the setting.

        In rounds over all that is held, for an index of when each ends would have to be made in
        files that are full; a round of 100,000 takes some twenty seconds.
        """
        if self._held_at == (0, 0) and abs(now_us - self._holds_at_us) < HOLDS_US:
            return False
        found = rows(self._db, HELD, (*self._held_at, BATCH_ROWS))
        ended = expired = 0
        for message, since_us, until_us in found:
            if now_us > (until_us or since_us + settings.hold_days * DAY_US):
                after: Detail = {"hold_days": settings.hold_days}
                if until_us:
                    after = {"hold_s": (until_us - since_us) // 1_000_000}
                ended += decided.expire_hold(message, after)
                expired += 1
            self._held_at = (since_us, message)
            if ended >= BATCH_ROWS or expired >= HOLDS_MAX:
                return True
        if len(found) < BATCH_ROWS:
            self._held_at, self._holds_at_us = (0, 0), now_us
        return expired > 0

    def _unpark(self, pauses: Pauses, now_us: int) -> bool:
        """Let go what no suspension holds any more."""
        over = [s for s, until_us in pauses.until_us.items() if until_us and until_us <= now_us]
        for scope in over:
            self._db.execute("DELETE FROM pause WHERE scope = ?", (scope,))
            del pauses.until_us[scope]
        if over or self.pauses_changed:
            self.pauses_changed, self._unpark_at = False, 0
        elif self._unpark_at < 0:
            return False
        found = rows(
            self._db,
            "SELECT r.id, r.bucket, r.lane, r.due, r.address, m.account, m.sender"
            " FROM rcpt r INDEXED BY rcpt_paused CROSS JOIN msg m ON m.id = r.id >> 10"
            " WHERE r.state = 0 AND r.waits = 1 AND r.id > ? ORDER BY r.id LIMIT ?",
            (self._unpark_at, BATCH_ROWS),
        )
        for recipient, bucket, lane, due_us, address, account, sender in found:
            if not pauses.hold(account, sender, domain_of(address), now_us):
                self._db.execute("UPDATE rcpt SET waits = ? WHERE id = ?", (WAITS_NOT, recipient))
                self.unparked.append((bucket, lane, due_us))
        self._unpark_at = found[-1][0] if len(found) == BATCH_ROWS else -1
        return self._unpark_at > 0

    def _forget_facts(self, before_us: int) -> bool:
        """Delete the oldest facts; those of a verdict that came late stay as long as the rest."""
        found = rows(
            self._db,
            "SELECT f.id, length(f.data) FROM (SELECT id, at FROM facts ORDER BY id LIMIT ?) o"
            " JOIN facts f ON f.id = o.id WHERE o.at < ?",
            (BATCH_ROWS, before_us),
        )
        if found:
            self._db.executemany("DELETE FROM facts WHERE id = ?", [(n,) for n, _ in found])
            self.sampling.removed(sum(size for _, size in found))
        return len(found) == BATCH_ROWS

    def _forget(self, table: str, before_us: int) -> bool:
        """Delete the oldest rows of a table that is in order of time; True when more may follow."""
        row = first(
            self._db,
            f"SELECT max(id), count(*) FROM (SELECT id, at FROM {table} ORDER BY id LIMIT ?)"  # noqa: S608
            " WHERE at < ?",
            (BATCH_ROWS, before_us),
        )
        if not row or not row[1]:
            return False
        self._remember_numbers()
        self._db.execute(f"DELETE FROM {table} WHERE id <= ? AND at < ?", (row[0], before_us))  # noqa: S608
        return bool(row[1] == BATCH_ROWS)

    def _forget_messages(self, before_us: int, now_us: int) -> bool:
        """Delete settled messages that are old; what is still ours stays, however old."""
        if self._messages_at == 0 and abs(now_us - self._rounds_at_us) < HOUR_US:
            return False
        found = rows(
            self._db,
            "SELECT id, accepted_at, state FROM msg WHERE id > ? ORDER BY id LIMIT ?",
            (self._messages_at, BATCH_ROWS),
        )
        done = self._delete([row[0] for row in found if row[1] < before_us and row[2] == 3])
        if done:  # one with many recipients is a piece of its own
            self._messages_at = done - 1
            return True
        if len(found) < BATCH_ROWS or found[-1][1] >= before_us:
            self._messages_at, self._rounds_at_us = 0, now_us
            return False
        self._messages_at = found[-1][0]
        return True

    def _delete(self, messages: list[int]) -> int:
        """Delete some of these, with their recipients; returns the first that is left, or 0."""
        if messages:
            self._remember_numbers()
        deleted = 0
        for message in messages:
            if deleted >= BATCH_ROWS:
                return message
            before = self._db.total_changes()
            self._db.execute("DELETE FROM rcpt WHERE id BETWEEN ? AND ?", recipients_of(message))
            self._db.execute("DELETE FROM msg WHERE id = ?", (message,))
            deleted += self._db.total_changes() - before
        return 0

    def _remember_numbers(self) -> None:
        """Numbers are never given again, not even when all their rows are gone."""
        self._db.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?,?)",
            [("message_last", self._numbers.message), ("step_last", self._numbers.step)],
        )
