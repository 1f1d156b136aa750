"""Reads one shard's rows for those who ask: bounded, in short transactions, on its own thread."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from postweir.identity.sender import Sender
from postweir.judge.ports import Counted, Used
from postweir.mail.address import domain_of
from postweir.policy.verdict import Verdict
from postweir.runtime.clock import wall_us
from postweir.runtime.frames import from_json, json, unpack
from postweir.spool.ports import (
    Ledger,
    MessageRow,
    QueueRow,
    Reached,
    RecipientRow,
    Recorded,
    Refusal,
    ShardStatus,
    Step,
)
from postweir.spool.states import MessageState, RecipientState, recipients_of
from postweir.storage import spool_usage
from postweir.storage.spool_place import owned
from postweir.storage.spool_schema import WAY_OUT_SINCE, first, rows
from postweir.storage.spool_values import Pauses
from postweir.storage.spool_wal import keep_index
from postweir.storage.sqlite import Fault, connect, keep_log, trouble

STEPS_MAX = 10_000  # of one message: 1,000 recipients tried ten times
SCAN_ROWS_MAX = 50_000  # looked at for one page of a filtered queue

_QUEUE = """
SELECT r.id, r.address, r.due, r.tries, r.reply, m.name, m.account, m.sender, m.state,
       m.accepted_at, m.size
FROM rcpt r INDEXED BY rcpt_open CROSS JOIN msg m ON m.id = r.id >> 10
WHERE r.state = 0 AND r.id > ? ORDER BY r.id LIMIT ?
"""
_RECORDED = """
SELECT * FROM (
    SELECT m.id, m.name, m.accepted_at, m.account, m.sender, m.verdict, f.data, NULL
    FROM msg m LEFT JOIN facts f ON f.id = m.id
    WHERE m.id > ? AND m.origin = 'smtp' AND m.verdict IS NOT NULL ORDER BY m.id LIMIT ?)
UNION ALL SELECT * FROM (
    SELECT r.id, r.name, r.at, r.account, r.sender, NULL, f.data, r.data
    FROM refusal r LEFT JOIN facts f ON f.id = r.id
    WHERE r.id > ? AND r.counted = 1 ORDER BY r.id LIMIT ?)
ORDER BY 1 LIMIT ?
"""


class SqliteReader:
    """Implements spool.ports.Reader. Opened, used and closed on one thread.

    `in_hand` are the recipients that delivery has now; a command that opens a silent shard's
    file knows none.
    """

    def __init__(self, path: Path, *, shard: int, in_hand: AbstractSet[int] = frozenset()) -> None:
        self._path, self._shard, self._in_hand = path, shard, in_hand
        if not owned(path):
            keep_index(path)
        self._db = connect(path, readonly=True, wait_s=1.0)
        keep_log(self._db)

    def ledger(self) -> Sequence[Ledger]:
        """Return one line an account, from one read transaction.

        The ends are counters; held, queued and pending are rows, each found with its message, so
        that a row that vanished shows.
        """
        with self._reading():
            lines = {
                row[0]: list(row)
                for row in rows(
                    self._db,
                    "SELECT account, accepted, delivered, bounced, refused, dropped, 0, 0, 0"
                    " FROM counter",
                )
            }
            for account, state, count in rows(
                self._db,
                "SELECT m.account, m.state, count(*) FROM rcpt r INDEXED BY rcpt_open"
                " CROSS JOIN msg m ON m.id = r.id >> 10 WHERE r.state = 0 GROUP BY 1, 2",
            ):
                line = lines.setdefault(account, [account, *[0] * 8])
                if state == MessageState.HELD:
                    line[6] += count
                elif state == MessageState.PENDING:
                    line[8] += count
                elif state == MessageState.JUDGED:
                    line[7] += count
        return [Ledger(*line) for _, line in sorted(lines.items())]

    def steps(self, after: int, count_max: int) -> Sequence[Step]:
        """Return steps in commit order after that number."""
        with self._reading():
            found = rows(
                self._db,
                "SELECT s.id, s.at, m.name, s.rcpt, s.kind, s.detail FROM step s"
                " LEFT JOIN msg m ON m.id = s.msg WHERE s.id > ? ORDER BY s.id LIMIT ?",
                (after, count_max),
            )
        return [_step(row) for row in found]

    def timeline(self, message: str) -> Sequence[Step]:
        """Return the steps of one message, in commit order."""
        with self._reading():
            found = rows(
                self._db,
                "SELECT s.id, s.at, m.name, s.rcpt, s.kind, s.detail FROM msg m"
                " JOIN step s ON s.msg = m.id WHERE m.name = ? ORDER BY s.id LIMIT ?",
                (message, STEPS_MAX),
            )
        return [_step(row) for row in found]

    def message(self, message: str) -> MessageRow | None:
        """Return one message with all its recipients, or a refusal of that name, or None."""
        with self._reading():
            row = first(
                self._db,
                "SELECT m.id, m.name, m.accepted_at, m.origin, m.account, m.who, m.client,"  # noqa: S608
                " m.mail_from, m.state, m.verdict, m.reason, f.data, m.size, m.log, m.changed_at,"
                f" m.lifetime_s, {self._way_out()} FROM msg m"
                " LEFT JOIN facts f ON f.id = m.id WHERE m.name = ?",
                (message,),
            )
            if row is None:
                return self._refused(message)
            recipients = rows(
                self._db,
                "SELECT id, address, state, waits, due, tries, reply FROM rcpt"
                " WHERE id BETWEEN ? AND ?",
                recipients_of(row[0]),
            )
        (_, name, accepted_at, origin, account, who, client, mail_from, state, verdict, reason,
         facts, size, log, changed_at, lifetime_s, pool, chosen_s, hold_until) = row  # fmt: skip
        return MessageRow(
            shard=self._shard,
            id=name,
            accepted_at_us=accepted_at,
            origin=origin,
            account=account,
            sender=unpack(who, Sender),
            client=client,
            mail_from=mail_from,
            state=_state(state),
            verdict=unpack(verdict, Verdict) if verdict else None,
            reason=reason,
            facts=facts or b"",
            bytes=size,
            recipients=[self._recipient(r, state) for r in recipients],
            log=from_json(log, dict[str, str]),
            lifetime_s=chosen_s or lifetime_s,
            pool=pool,
            held_at_us=changed_at if state == MessageState.HELD else None,
            hold_until_us=hold_until if state == MessageState.HELD else None,
        )

    def queue(self, scope: str, after: int, count_max: int) -> tuple[list[QueueRow], int | None]:
        """Return recipients that have not ended, and the cursor to go on from.

        `scope` is such as `state=held account=acme sender=… domain=…`; all of it must hold.
        """
        wanted = dict(word.partition("=")[::2] for word in scope.split() if "=" in word)
        found: list[QueueRow] = []
        looked = 0
        with self._reading():
            pauses = Pauses(dict(rows(self._db, "SELECT scope, until_us FROM pause")))
            for row in self._db.execute(_QUEUE, (after, SCAN_ROWS_MAX)):
                looked, after = looked + 1, int(str(row[0]))
                one = self._queued(row, pauses)
                if _matches(one, wanted):
                    found.append(one)
                    if len(found) >= count_max:
                        return found, after
        return found, after if looked == SCAN_ROWS_MAX else None

    def counted(
        self, since_us: int, after: int, count_max: int
    ) -> tuple[list[Counted], int | None]:
        """Return what the judge counted since then, and the cursor to go on from."""
        with self._reading():
            if after == 0:
                after = min(self._before("msg", "accepted_at", since_us),
                            self._before("refusal", "at", since_us))  # fmt: skip
            found = rows(
                self._db,
                "SELECT * FROM (SELECT id, name, accepted_at AS at, account, sender, 0 FROM msg"
                " WHERE id > ? AND origin = 'smtp' AND verdict IS NOT NULL ORDER BY id LIMIT ?)"
                " UNION ALL SELECT * FROM (SELECT id, name, at, account, sender, data FROM refusal"
                " WHERE id > ? AND counted = 1 ORDER BY id LIMIT ?) ORDER BY 1 LIMIT ?",
                (after, count_max, after, count_max, count_max),
            )
            answer = [self._counted(row) for row in found if row[2] >= since_us]
        return answer, found[-1][0] if len(found) == count_max else None

    def usage(self, since_us: int, whole: bool, after: int, count_max: int) -> list[Reached | Used]:
        """Return where it was read to, then messages that count and ends of recipients."""
        with self._reading():
            return spool_usage.usage(self._db, self._before, since_us=since_us, whole=whole,
                                     after=after, count_max=count_max)  # fmt: skip

    def turned(
        self, since_us: int, whole: bool, after: int, count_max: int
    ) -> list[Reached | Used]:
        """Return where it was read to, then messages that were judged and refused."""
        with self._reading():
            return spool_usage.turned(self._db, self._before, since_us=since_us, whole=whole,
                                      after=after, count_max=count_max)  # fmt: skip

    def recorded(
        self, since_us: int, account: str, after: int, count_max: int
    ) -> tuple[list[Recorded], int | None]:
        """Return judged messages with their facts, oldest first, and the cursor to go on from.

        What was not kept is counted by sender, so that the next that was stands for it too.
        """
        with self._reading():
            if after == 0:
                after = min(self._before("msg", "accepted_at", since_us),
                            self._before("refusal", "at", since_us))  # fmt: skip
            found = rows(self._db, _RECORDED, (after, count_max, after, count_max, count_max))
        seen = [row for row in found if row[2] >= since_us and account in ("", row[3])]
        return _with_unkept(seen), found[-1][0] if len(found) == count_max else None

    def refusals(
        self, scope: str, after: int, count_max: int
    ) -> tuple[list[MessageRow], int | None]:
        """Return messages that were never ours, newest first, and the cursor to go on from."""
        wanted = dict(word.partition("=")[::2] for word in scope.split() if "=" in word)
        with self._reading():
            found = rows(
                self._db,
                "SELECT id, data FROM refusal WHERE id < ? AND account = ifnull(?, account)"
                " AND sender = ifnull(?, sender) ORDER BY id DESC LIMIT ?",
                (
                    after or 1 << 62,
                    wanted.get("account"),
                    wanted.get("sender"),
                    count_max,
                ),
            )
        answer = [_refusal(self._shard, unpack(data, Refusal)) for _, data in found]
        return answer, found[-1][0] if len(found) == count_max else None

    def status(self) -> ShardStatus:
        """Return how full this shard is."""
        with self._reading():
            waiting = first(
                self._db, "SELECT count(*) FROM rcpt INDEXED BY rcpt_open WHERE state = 0"
            )
            held, pending = (self._waiting(state) for state in ("held", "pending"))
            oldest = first(
                self._db,
                "SELECT m.accepted_at FROM rcpt r INDEXED BY rcpt_open"
                " CROSS JOIN msg m ON m.id = r.id >> 10 WHERE r.state = 0 ORDER BY r.id LIMIT 1",
            )
            steps = first(self._db, "SELECT max(id) FROM step")
            done = first(self._db, "SELECT value FROM meta WHERE key = 'request_done'")
        stat = os.statvfs(self._path.parent)
        return ShardStatus(
            shard=self._shard,
            free_bytes=stat.f_bavail * stat.f_frsize,
            queued=(waiting[0] if waiting else 0) - held - pending,
            pending=pending,
            held=held,
            oldest_us=oldest[0] if oldest else None,
            in_hand=len(self._in_hand),
            steps_last=(steps[0] or 0) if steps else 0,
            request_done=done[0] if done else 0,
        )

    def committed(self, messages: Sequence[str]) -> AbstractSet[str]:
        """Return which of these names were ever committed, by this process or one before it."""
        with self._reading():
            return {
                name
                for (name,) in rows(
                    self._db,
                    "SELECT m.name FROM json_each(?) j CROSS JOIN msg m ON m.name = j.value",
                    (json(list(messages)).decode(),),
                )
            }

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _waiting(self, state: str) -> int:
        """Count recipients of held or of pending messages, by the index of these messages."""
        found = first(
            self._db,
            f"SELECT count(*) FROM msg m INDEXED BY msg_{state} CROSS JOIN rcpt r"  # noqa: S608
            " ON r.id BETWEEN m.id << 10 AND (m.id << 10) + 1023 WHERE r.state = 0"
            f" AND m.state = {int(MessageState[state.upper()])}",
        )
        return found[0] if found else 0

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """One read transaction; short, for it pins the log. Raises StorageFault."""
        try:
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                if self._db.in_transaction:  # a fault of the disk may have ended it
                    self._db.execute("COMMIT")
        except Fault as fault:
            raise trouble(self._path, fault) from fault

    def _way_out(self) -> str:
        """Return the columns of the way out; a file that a shard has yet to bring up has none."""
        version = first(self._db, "PRAGMA user_version")
        known = version is not None and version[0] >= WAY_OUT_SINCE
        return "m.pool, m.verdict_lifetime_s, m.hold_until" if known else "'', 0, NULL"

    def _refused(self, name: str) -> MessageRow | None:
        row = first(
            self._db,
            "SELECT r.data, f.data FROM refusal r LEFT JOIN facts f ON f.id = r.id"
            " WHERE r.name = ?",
            (name,),
        )
        return _refusal(self._shard, unpack(row[0], Refusal), row[1]) if row else None

    def _recipient(self, row: Sequence[Any], message_state: int) -> RecipientRow:
        recipient, address, state, waits, due, tries, reply = row
        queued = state == RecipientState.QUEUED
        return RecipientRow(
            recipient=recipient,
            address=address,
            state=_state(message_state) if queued else RecipientState(state).name.lower(),
            next_attempt_at_us=due if queued and waits == 0 else None,
            tries=tries,
            reply=reply,
            in_hand=recipient in self._in_hand,
        )

    def _queued(self, row: Sequence[Any], pauses: Pauses) -> QueueRow:
        recipient, address, due, tries, reply, name, account, sender, state, accepted_at, size = row
        return QueueRow(
            shard=self._shard,
            id=name,
            account=account,
            sender=sender,
            address=address,
            state=_state(state),
            accepted_at_us=accepted_at,
            next_attempt_at_us=due if state == MessageState.JUDGED else None,
            tries=tries,
            reply=reply,
            bytes=size,
            in_hand=recipient in self._in_hand,
            suspended=pauses.hold(account, sender, domain_of(address), wall_us()),
        )

    def _counted(self, row: Sequence[Any]) -> Counted:
        number, name, at_us, account, sender, data = row
        if data:
            count = len(unpack(data, Refusal).envelope.recipients)
        else:
            low, high = recipients_of(number)
            found = first(
                self._db, "SELECT count(*) FROM rcpt WHERE id BETWEEN ? AND ?", (low, high)
            )
            count = found[0] if found else 0
        return Counted(name, at_us, account, sender, count)

    def _before(self, table: str, column: str, since_us: int) -> int:
        """Return a row number before all rows of that time on: rows stand in order of time."""
        bounds = first(self._db, f"SELECT min(id), max(id) FROM {table}")  # noqa: S608
        if not bounds or bounds[0] is None:
            return (1 << 62) - 1
        low, high = bounds[0] - 1, bounds[1]
        while low < high:
            middle = (low + high + 1) // 2
            row = first(
                self._db,
                f"SELECT id, {column} FROM {table} WHERE id <= ? ORDER BY id DESC LIMIT 1",  # noqa: S608
                (middle,),
            )
            if row is None or row[1] < since_us:
                low = middle
            else:
                high = row[0] - 1
        return int(low)


def _step(row: Sequence[Any]) -> Step:
    number, at_us, name, recipient, kind, detail = row
    return Step(number, at_us, name or "", recipient, kind, from_json(detail, dict[str, Any]))


def _state(state: int) -> str:
    return "queued" if state == MessageState.JUDGED else MessageState(state).name.lower()


def _matches(row: QueueRow, wanted: dict[str, str]) -> bool:
    found = {
        "state": row.state,
        "account": row.account,
        "sender": row.sender,
        "domain": row.address.rpartition("@")[2],
        "id": row.id,
    }
    return all(found.get(key) == value for key, value in wanted.items())


def _with_unkept(found: Sequence[Sequence[Any]]) -> list[Recorded]:
    """Return the rows that have facts, and one more for each sender's that are left over."""
    kept: list[Recorded] = []
    unkept: dict[tuple[str, bool], Recorded] = {}  # the last of them, with how many there are
    for number, name, at_us, account, sender, packed, said, refused in found:
        refusal = unpack(refused, Refusal) if refused else None
        verdict = refusal.verdict if refusal else unpack(packed, Verdict)
        objected = verdict is not None and verdict.verb != "accept"
        facts: bytes = said or (refusal.facts if refusal else b"")
        before = unkept.pop((sender, objected), None)
        count = before.unkept if before else 0
        row = Recorded(number, name, at_us, account, sender, verdict, facts,
                       count + (not facts), objected)  # fmt: skip
        if facts:
            kept.append(row)
        else:
            unkept[sender, objected] = row
    return kept + list(unkept.values())


def _refusal(shard: int, r: Refusal, facts: bytes | None = None) -> MessageRow:
    return MessageRow(
        shard=shard,
        id=r.message,
        accepted_at_us=r.at_us,
        origin="smtp",
        account=r.sender.account,
        sender=r.sender,
        client=r.client,
        mail_from=r.envelope.mail_from,
        state="refused",
        verdict=r.verdict,
        reason="",
        facts=facts or r.facts,
        bytes=0,
        recipients=[RecipientRow(0, to, "refused", None, 0, "") for to in r.envelope.recipients],
        log={"helo": r.envelope.helo} if r.envelope.helo else {},
        stage=r.stage,
        reply=str(r.reply),
    )
