"""The rows that one commit writes: gathered one by one, written in sets."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from postweir.mail.address import domain_of
from postweir.mail.reply import Reply
from postweir.runtime.frames import json, pack
from postweir.spool import bounce
from postweir.spool.ports import Accept
from postweir.spool.states import (
    RECIPIENT,
    MessageState,
    RecipientState,
    bucket_of,
    hold_s_of,
    lane_of,
    lifetime_of,
    message_after,
    pool_of,
    recipients_of,
)
from postweir.storage.spool_schema import (
    MESSAGE_COLUMNS,
    WAITS_MESSAGE,
    WAITS_NOT,
    WAITS_PAUSED,
    first,
    rows,
)
from postweir.storage.spool_seal import chosen, recipient_seal, seal_of
from postweir.storage.spool_values import Answer, Numbers, Pauses, Standing
from postweir.storage.sqlite import Connection

INSERT_MESSAGE = (
    f"INSERT INTO msg ({', '.join(MESSAGE_COLUMNS)})"  # noqa: S608
    f" VALUES ({', '.join('?' * len(MESSAGE_COLUMNS))})"
)
Detail = dict[str, str | int | float | bool | None]


class Rows:
    """What is gathered for the open transaction. Nothing here commits."""

    def __init__(
        self, connection: Connection, numbers: Numbers, pauses: Pauses, now_us: int
    ) -> None:
        self.db, self.numbers, self.pauses, self.now_us = connection, numbers, pauses, now_us
        self.standing: dict[int, Standing] = {}
        self.queued = 0  # how many more recipients are open after this commit
        self.facts_bytes = 0  # of the facts that this commit adds
        self.files_done: list[str] = []  # to be unlinked once it is committed
        self._messages: list[tuple[object, ...]] = []
        self._bodies: list[tuple[object, ...]] = []
        self._facts: list[tuple[object, ...]] = []
        self._recipients: list[tuple[object, ...]] = []
        self._moves: list[tuple[object, ...]] = []  # (state, tries, due, reply, recipient)
        self._steps: list[tuple[object, ...]] = []
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._touched: set[int] = set()  # messages of which a recipient ended

    def insert(self, a: Accept, state: MessageState) -> Answer:
        """Take one message whole: its row, body, facts and all recipients."""
        self.numbers.message += 1
        number = self.numbers.message
        now_us, key, account = self.now_us, a.sender.key, a.sender.account
        self._bodies.append((number, a.added, a.body))
        count, eight_bit = len(a.envelope.recipients), int(a.eight_bit or a.envelope.eight_bit)
        who, mail_from, helo = pack(a.sender), a.envelope.mail_from, a.envelope.helo
        pool, lifetime_s = pool_of(a.verdict), lifetime_of(a.verdict, 0)
        hold_s = hold_s_of(a.verdict)
        hold_until_us = now_us + hold_s * 1_000_000 if hold_s else None
        seal = seal_of(
            (number, a.message, now_us, a.origin, account, key, who, mail_from, helo, eight_bit,
             a.client, int(a.tls), a.length, a.check, a.body_file, a.lifetime_s, a.bounces_1h_max,
             a.return_path, int(a.authenticated), a.loops, count),
            a.added, chosen(pool, lifetime_s),
        )  # fmt: skip
        self._messages.append((
            number, a.message, now_us, now_us, int(state), a.origin, account, key, who,
            mail_from, helo, eight_bit, a.client, int(a.tls),
            pack(a.verdict) if a.verdict else None, a.verdict.policy if a.verdict else "",
            a.reason, a.length, a.check, a.body_file,
            a.lifetime_s, json(a.log), a.bounces_1h_max, a.return_path, int(a.authenticated),
            a.loops, count, seal, pool, lifetime_s, hold_until_us,
        ))  # fmt: skip
        self.keep_facts(number, a.facts)
        answer = Answer(number=number)
        lane, first_row = lane_of(key), recipients_of(number)[0]
        for n, address in enumerate(a.envelope.recipients):
            domain = domain_of(address)
            waits = WAITS_NOT
            if state is not MessageState.JUDGED:
                waits = WAITS_MESSAGE
            elif self.pauses.hold(account, key, domain, now_us):
                waits = WAITS_PAUSED
            else:
                answer.ready.append(first_row + n)
            self._recipients.append(
                (first_row + n, address, bucket_of(domain), lane, waits, now_us,
                 recipient_seal(seal, first_row + n, address))
            )  # fmt: skip
        self._counts[account]["accepted"] += count
        self.queued += count
        self.step(number, 0, "accepted", {
            "state": "queued" if state is MessageState.JUDGED else state.name.lower(),
            "recipients": count, "bytes": a.length,
            **({"expires_at_us": hold_until_us} if hold_until_us else {}),
            **{key: a.log[key] for key in ("possible_duplicate_of",) if key in a.log},
        })  # fmt: skip
        return answer

    def look_up(self, recipients: Iterable[int]) -> None:
        """Read the rows that changes will ask about."""
        wanted = list(recipients)
        if not wanted:
            return
        for row in rows(
            self.db,
            "SELECT r.id, r.state, r.tries, r.bucket, r.lane, r.address, m.name, m.origin,"
            " m.account, m.mail_from, m.return_path, m.accepted_at, m.bounces_1h_max"
            " FROM json_each(?) j CROSS JOIN rcpt r ON r.id = j.value"
            " CROSS JOIN msg m ON m.id = r.id >> 10",
            (json(wanted).decode(),),
        ):
            recipient, state, tries, bucket, lane, address, *about = row
            self.standing[recipient] = Standing(
                recipient,
                RecipientState(state),
                tries,
                bucket,
                lane,
                address,
                bounce.Original(*about),
            )

    def move(
        self,
        recipient: int,
        state: RecipientState,
        *,
        attempt: int | None = None,
        due_us: int | None = None,
        reply: Reply | None = None,
    ) -> None:
        """Change an open recipient; None leaves a column as it is."""
        said = str(reply)[:500] if reply is not None else None
        self._moves.append((int(state), attempt, due_us, said, recipient))

    def end(self, account: str, message: int, cause: str) -> None:
        """Count a recipient's end."""
        self._counts[account][RECIPIENT[cause][1]] += 1
        self.queued -= 1
        self._touched.add(message)

    def step(self, message: int, recipient: int, kind: str, detail: Detail) -> None:
        """Add to the record."""
        self.numbers.step += 1
        self._steps.append((self.numbers.step, self.now_us, message, recipient, kind, json(detail)))

    def turn(
        self,
        message: int,
        cause: str,
        state: MessageState,
        answer: Answer,
        *,
        hold_until_us: int | None = None,
    ) -> bool:
        """Change a message's state; what is judged now is due now. False: nothing happened."""
        after = message_after(cause, state)
        if after is None:
            return False
        self.db.execute(
            "UPDATE msg SET state = ?, changed_at = ?, hold_until = ? WHERE id = ? AND state = ?",
            (int(after), self.now_us, hold_until_us, message, int(state)),
        )
        assert self.db.changes() == 1
        if after is not MessageState.JUDGED:
            return True
        about = first(self.db, "SELECT account, sender FROM msg WHERE id = ?", (message,))
        assert about is not None
        for row in rows(
            self.db,
            "SELECT id, bucket, lane, address FROM rcpt WHERE id BETWEEN ? AND ? AND state = 0",
            recipients_of(message),
        ):
            paused = self.pauses.hold(about[0], about[1], domain_of(row[3]), self.now_us)
            self.db.execute(
                "UPDATE rcpt SET waits = ?, due = ? WHERE id = ?",
                (WAITS_PAUSED if paused else WAITS_NOT, self.now_us, row[0]),
            )
            answer.due.append((row[1], row[2], self.now_us))
        return True

    def keep_facts(self, number: int, facts: bytes) -> None:
        """Keep what a verdict was made of; a later one's replace an earlier one's."""
        if facts:
            self._facts.append((number, self.now_us, facts))
            self.facts_bytes += len(facts)

    def flush(self) -> None:
        """Write all that was gathered."""
        db = self.db
        if self._messages:
            db.executemany(INSERT_MESSAGE, self._messages)
            db.executemany("INSERT INTO body VALUES (?,?,?)", self._bodies)
            db.executemany("INSERT INTO rcpt VALUES (?,?,?,?,0,?,?,0,'',?)", self._recipients)
        if self._facts:
            db.executemany("INSERT OR REPLACE INTO facts VALUES (?,?,?)", self._facts)
        if self._moves:
            before = db.total_changes()
            db.executemany(
                "UPDATE rcpt SET state = ?, tries = ifnull(?, tries), due = ifnull(?, due),"
                " reply = ifnull(?, reply) WHERE id = ? AND state = 0",
                self._moves,
            )
            assert db.total_changes() - before == len(self._moves), "a recipient ended twice"
        if self._touched:
            self._close_messages()
        for account, counts in self._counts.items():
            self._count(account, counts)
        if self._steps:
            db.executemany("INSERT INTO step VALUES (?,?,?,?,?,?)", self._steps)
        for gathered in (self._messages, self._bodies, self._facts, self._recipients,
                         self._moves, self._steps):  # fmt: skip
            gathered.clear()
        self._touched.clear()
        self._counts.clear()
        self.standing.clear()

    def _close_messages(self) -> None:
        """Settle the messages whose last recipient ended; their bodies go in this commit."""
        ended = rows(
            self.db,
            "SELECT m.id, m.body_file FROM json_each(?) j CROSS JOIN msg m ON m.id = j.value"
            " WHERE m.state <> 3 AND NOT EXISTS (SELECT 1 FROM rcpt r INDEXED BY rcpt_open"
            " WHERE r.id BETWEEN m.id << 10 AND (m.id << 10) + 1023 AND r.state = 0)",
            (json(list(self._touched)).decode(),),
        )
        keys = [(self.now_us, message) for message, _ in ended]
        self.db.executemany("UPDATE msg SET state = 3, changed_at = ? WHERE id = ?", keys)
        self.db.executemany("DELETE FROM body WHERE id = ?", [(m,) for m, _ in ended])
        self.files_done += [str(name) for _, name in ended if name]

    def _count(self, account: str, counts: Counter[str]) -> None:
        columns = ("accepted", "delivered", "bounced", "refused", "dropped")
        self.db.execute(
            "INSERT INTO counter (account, accepted, delivered, bounced, refused, dropped)"
            " VALUES (?,?,?,?,?,?) ON CONFLICT (account) DO UPDATE SET"
            " accepted = accepted + excluded.accepted, delivered = delivered + excluded.delivered,"
            " bounced = bounced + excluded.bounced, refused = refused + excluded.refused,"
            " dropped = dropped + excluded.dropped",
            (account, *(counts[column] for column in columns)),
        )
