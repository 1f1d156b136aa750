"""What the changes of one commit write: gathered row by row, written in sets."""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from postweir.mail.headers import header_end
from postweir.mail.reply import Reply
from postweir.runtime.frames import json, pack
from postweir.spool import bounce
from postweir.spool.ports import (
    Accept,
    Judged,
    Quarantine,
    Refusal,
    Request,
    Settle,
    Sited,
)
from postweir.spool.states import (
    RECIPIENT,
    MessageState,
    RecipientState,
    bucket_of,
    domain_of,
    lane_of,
    message_after,
    message_of,
    on_arrival,
    on_late_verdict,
    recipient_after,
    recipients_of,
)
from postweir.storage.spool_schema import WAITS_MESSAGE, WAITS_NOT, WAITS_PAUSED, first, rows
from postweir.storage.spool_values import Answer, Numbers, Pauses, Standing
from postweir.storage.sqlite import Connection

SCOPE_ROWS_MAX = 5000  # of a request with a wide scope, in one commit: some 30 ms of the writer
DEFER_S_MAX = 7 * 86400.0  # longer than any lifetime
DAY_US = 86400 * 1_000_000
INSERT_MESSAGE = "INSERT INTO msg VALUES (" + ",".join("?" * 24) + ")"  # noqa: S608
Detail = dict[str, str | int | float | bool | None]


class Batch:
    """The changes of one transaction, which is open. Nothing here commits."""

    def __init__(
        self,
        connection: Connection,
        numbers: Numbers,
        pauses: Pauses,
        *,
        now_us: int,
        new_id: Callable[[], str],
        hostname: str,
        late_refusal: str,
        bodies: Path,
    ) -> None:
        self._db, self._numbers, self._pauses = connection, numbers, pauses
        self._now_us, self._new_id = now_us, new_id
        self._hostname, self._late_refusal, self._bodies = hostname, late_refusal, bodies
        self._messages: list[tuple[object, ...]] = []
        self._bodies_in: list[tuple[object, ...]] = []
        self._facts: list[tuple[object, ...]] = []
        self._recipients: list[tuple[object, ...]] = []
        self._moves: list[tuple[object, ...]] = []  # (state, tries, due, reply, recipient)
        self._steps: list[tuple[object, ...]] = []
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._touched: set[int] = set()  # messages of which a recipient ended
        self._failures: dict[int, list[tuple[Standing, Reply, str]]] = {}
        self._failing: dict[int, Answer] = {}  # who is told of the bounce's due time
        self._standing: dict[int, Standing] = {}
        self.queued = 0  # how many more recipients are open after this commit
        self.files_done: list[str] = []  # to be unlinked once it is committed
        self.pauses_changed = False

    # What comes in

    def accept(self, a: Accept) -> Answer:
        """Take one message whole: its row, body, facts and all recipients."""
        state = on_arrival(a.verdict)
        if state is None:
            return Answer(reason="failed")
        self._numbers.message += 1
        number = self._numbers.message
        now_us, key, account = self._now_us, a.sender.key, a.sender.account
        self._messages.append((
            number, a.message, now_us, now_us, int(state), a.origin, account, key, pack(a.sender),
            a.envelope.mail_from, a.envelope.helo, int(a.eight_bit or a.envelope.eight_bit),
            a.client, int(a.tls), pack(a.verdict) if a.verdict else None,
            a.verdict.policy if a.verdict else "", a.reason, a.length, a.check, a.body_file,
            a.lifetime_s, json(a.log), a.bounces_1h_max, a.return_path,
        ))  # fmt: skip
        self._bodies_in.append((number, a.added, a.body))
        if a.facts:
            self._facts.append((number, now_us, a.facts))
        answer = Answer(number=number)
        lane, first = lane_of(key), recipients_of(number)[0]
        for n, address in enumerate(a.envelope.recipients):
            domain = domain_of(address)
            waits = WAITS_NOT
            if state is not MessageState.JUDGED:
                waits = WAITS_MESSAGE
            elif self._pauses.hold(account, key, domain, now_us):
                waits = WAITS_PAUSED
            else:
                answer.ready.append(first + n)
            self._recipients.append(
                (first + n, address, bucket_of(domain), lane, waits, now_us)  # queued, no try yet
            )
        count = len(a.envelope.recipients)
        self._counts[account]["accepted"] += count
        self.queued += count
        self._step(number, 0, "accepted", {
            "state": "queued" if state is MessageState.JUDGED else state.name.lower(),
            "recipients": count, "bytes": a.length,
        })  # fmt: skip
        return answer

    def refuse(self, r: Refusal) -> Answer:
        """Record a message that is not ours."""
        self._numbers.message += 1
        self._db.execute(
            "INSERT INTO refusal VALUES (?,?,?,?,?,?,?)",
            (
                self._numbers.message,
                r.message,
                self._now_us,
                r.sender.account,
                r.sender.key,
                int(r.verdict is not None),
                pack(r),
            ),
        )
        return Answer()

    # What became of it

    def look_up(self, recipients: Iterable[int]) -> None:
        """Read the rows that `settle` and `sited` will ask about."""
        wanted = list(recipients)
        if not wanted:
            return
        for row in rows(
            self._db,
            "SELECT r.id, r.state, r.tries, r.bucket, r.lane, r.address, m.name, m.origin,"
            " m.account, m.mail_from, m.return_path, m.accepted_at, m.bounces_1h_max"
            " FROM json_each(?) j CROSS JOIN rcpt r ON r.id = j.value"
            " CROSS JOIN msg m ON m.id = r.id >> 10",
            (json(wanted).decode(),),
        ):
            recipient, state, tries, bucket, lane, address, *about = row
            self._standing[recipient] = Standing(
                recipient,
                RecipientState(state),
                tries,
                bucket,
                lane,
                address,
                bounce.Original(*about),
            )

    def settle(self, s: Settle) -> Answer:
        """Make the outcome of one attempt a recipient's state; a second time changes nothing."""
        answer, standing = Answer(), self._standing.get(s.recipient)
        if standing is None or s.attempt != standing.tries + 1:
            return answer
        after = recipient_after(s.outcome, standing.state)
        detail: Detail = {
            "attempt": s.attempt, "at_us": s.at_us, "code": s.reply.code, "reply": str(s.reply),
            "source": s.source, "peer": s.peer, "tls": s.tls,
        }  # fmt: skip
        message = message_of(s.recipient)
        if after is None:  # it was dropped while delivery had it: the record keeps the truth
            self._step(message, s.recipient, "attempt", {**detail, "late": s.outcome})
            return answer
        due_us = self._now_us
        if after is RecipientState.QUEUED:
            due_us += int(min(max(s.retry_in_s or 0.0, 0.0), DEFER_S_MAX) * 1e6)
            answer.due.append((standing.bucket, standing.lane, due_us))
            detail["next_at_us"] = due_us
        else:
            answer.ended.append(s.recipient)
            self._end(standing.about.account, message, s.outcome, 1)
        standing.state, standing.tries = after, s.attempt
        self._moves.append((int(after), s.attempt, due_us, str(s.reply)[:500], s.recipient))
        kind = {"deferred": "attempt", "failed": "bounced"}.get(s.outcome, s.outcome)
        self._step(message, s.recipient, kind, detail)
        answer.noted.append(kind)
        if s.outcome == "failed":
            self._failures.setdefault(message, []).append((standing, s.reply, s.peer))
            self._failing[message] = answer
        return answer

    def sited(self, s: Sited) -> Answer:
        """Give a recipient to the owner of its site's bucket."""
        answer, standing = Answer(), self._standing.get(s.recipient)
        if standing is None or standing.state is not RecipientState.QUEUED:
            return answer
        standing.bucket = bucket_of(s.site)
        self._db.execute(
            "UPDATE rcpt SET bucket = ?, due = ? WHERE id = ? AND state = 0",
            (standing.bucket, self._now_us, s.recipient),
        )
        answer.due.append((standing.bucket, standing.lane, self._now_us))
        return answer

    # What was decided about it later

    def judged(self, j: Judged) -> Answer:
        """Give a pending message its verdict."""
        answer = Answer()
        row = first(self._db, "SELECT id, state FROM msg WHERE name = ?", (j.message,))
        cause = on_late_verdict(j.verdict, late_refusal=self._late_refusal)
        if row is None or row[1] != MessageState.PENDING or not cause:
            return answer
        detail: Detail = {"verb": j.verdict.verb, "rule": j.verdict.rule, "to": cause}
        detail |= {"policy": j.verdict.policy, "code": j.verdict.code}
        self._db.execute(
            "UPDATE msg SET verdict = ?, policy = ?, reason = '' WHERE id = ?",
            (pack(j.verdict), j.verdict.policy, row[0]),
        )
        self._db.execute(
            "INSERT OR REPLACE INTO facts VALUES (?,?,?)", (row[0], self._now_us, j.facts)
        )
        self._step(row[0], 0, "judged", detail)
        answer.noted.append(f"late_{cause}")
        if cause == "refused":
            reply = Reply(550, "5.7.1", f"[{j.verdict.code}] {j.verdict.text}")
            self._refuse_all(row[0], answer, reply, {"by": "late verdict"})
        else:
            self._turn(row[0], cause, MessageState.PENDING, answer)
        return answer

    def quarantine(self, q: Quarantine) -> Answer:
        """Hold a message whose body is not what we had accepted."""
        answer = Answer()
        row = first(self._db, "SELECT id, state FROM msg WHERE name = ?", (q.message,))
        if row is None or not self._turn(row[0], "quarantined", MessageState(row[1]), answer):
            return answer
        self._db.execute("UPDATE msg SET reason = 'corrupt' WHERE id = ?", (row[0],))
        self._db.execute(
            "UPDATE rcpt SET waits = ? WHERE id BETWEEN ? AND ? AND state = 0",
            (WAITS_MESSAGE, *recipients_of(row[0])),
        )
        low, high = recipients_of(row[0])
        answer.ended += [
            r
            for (r,) in rows(
                self._db,
                "SELECT id FROM rcpt WHERE id BETWEEN ? AND ? AND state = 0",
                (low, high),
            )
        ]
        self._step(row[0], 0, "quarantined", {"what": q.what})
        answer.noted.append("corrupt")
        return answer

    def expire_hold(self, message: int, hold_days: int) -> None:
        """A message nobody released is refused."""
        detail: Detail = {"by": "hold expired", "hold_days": hold_days}
        self._refuse_all(message, Answer(), None, detail)

    def request(self, r: Request) -> Answer:
        """Do what an operator asked, and remember its number in the same commit.

        A wide scope is worked on in pieces; its number counts as done with the last one, so that
        after a crash the rest is done (and what was done is found done).
        """
        answer = Answer()
        if r.number <= self._numbers.request_done:
            return answer
        if r.verb in ("suspend", "resume"):
            self._pause(r)
        else:
            if r.number != self._numbers.request:
                self._numbers.request, self._numbers.request_at = r.number, 0
            answer.more = self._apply(r, answer)
        if not answer.more:
            self._numbers.request_done = r.number
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('request_done', ?)", (r.number,))
        return answer

    def _pause(self, r: Request) -> None:
        self.pauses_changed = True
        self._db.execute("DELETE FROM pause WHERE scope = ?", (r.scope,))
        if r.verb == "suspend":
            self._db.execute("INSERT INTO pause VALUES (?,?,?)", (r.scope, r.until_us, r.number))

    def _apply(self, r: Request, answer: Answer) -> bool:
        """Do release, retry or drop to the next piece of the scope; True when more is left."""
        found = self._in_scope(r.scope)
        detail: Detail = {"by": r.by, "reason": r.reason, "request": r.number}
        released: set[int] = set()
        for recipient, bucket, lane, waits, account, state in found:
            message = message_of(recipient)
            if r.verb == "drop":
                self._drop(recipient, account, answer, detail)
            elif r.verb == "retry" and waits == WAITS_NOT:
                self._db.execute(
                    "UPDATE rcpt SET due = ? WHERE id = ? AND state = 0", (self._now_us, recipient)
                )
                answer.due.append((bucket, lane, self._now_us))
                self._step(message, recipient, "retry", detail)
            elif r.verb == "release" and state == MessageState.HELD and message not in released:
                released.add(message)
                self._turn(message, "released", MessageState.HELD, answer)
                self._step(message, 0, "released", detail)
        return not self._scope_done

    def _in_scope(self, scope: str) -> list[tuple[Any, ...]]:
        """Return its next open recipients: (row, bucket, lane, waits, account, state)."""
        columns = "r.id, r.bucket, r.lane, r.waits, m.account, m.state, m.sender, r.address"
        kind, _, value = scope.partition("=")
        self._scope_done = True
        if kind not in ("account", "sender", "domain"):
            row = first(self._db, "SELECT id FROM msg WHERE name = ?", (scope,))
            if row is None:
                return []
            found = rows(
                self._db,
                f"SELECT {columns} FROM rcpt r JOIN msg m ON m.id = r.id >> 10"  # noqa: S608
                " WHERE r.id BETWEEN ? AND ? AND r.state = 0",
                recipients_of(row[0]),
            )
            return [row[:6] for row in found]
        found = rows(
            self._db,
            f"SELECT {columns} FROM rcpt r INDEXED BY rcpt_open"  # noqa: S608
            " CROSS JOIN msg m ON m.id = r.id >> 10"
            " WHERE r.state = 0 AND r.id > ? ORDER BY r.id LIMIT ?",
            (self._numbers.request_at, SCOPE_ROWS_MAX),
        )
        if len(found) == SCOPE_ROWS_MAX:
            self._scope_done = False
            self._numbers.request_at = found[-1][0]
        at = {"account": 4, "sender": 6, "domain": 7}[kind]
        if kind == "domain":
            return [row[:6] for row in found if domain_of(row[at]) == value]
        return [row[:6] for row in found if row[at] == value]

    def _drop(self, recipient: int, account: str, answer: Answer, detail: Detail) -> None:
        self._moves.append((int(RecipientState.DROPPED), None, None, None, recipient))
        self._end(account, message_of(recipient), "dropped", 1)
        self._step(message_of(recipient), recipient, "dropped", detail)
        answer.ended.append(recipient)

    # What they lean on

    def _turn(self, message: int, cause: str, state: MessageState, answer: Answer) -> bool:
        """Change a message's state; what is judged now is due now. False: nothing happened."""
        after = message_after(cause, state)
        if after is None:
            return False
        self._db.execute(
            "UPDATE msg SET state = ?, changed_at = ? WHERE id = ? AND state = ?",
            (int(after), self._now_us, message, int(state)),
        )
        assert self._db.changes() == 1
        if after is not MessageState.JUDGED:
            return True
        about = first(self._db, "SELECT account, sender FROM msg WHERE id = ?", (message,))
        assert about is not None
        for row in rows(
            self._db,
            "SELECT id, bucket, lane, address FROM rcpt WHERE id BETWEEN ? AND ? AND state = 0",
            recipients_of(message),
        ):
            paused = self._pauses.hold(about[0], about[1], domain_of(row[3]), self._now_us)
            self._db.execute(
                "UPDATE rcpt SET waits = ?, due = ? WHERE id = ?",
                (WAITS_PAUSED if paused else WAITS_NOT, self._now_us, row[0]),
            )
            answer.due.append((row[1], row[2], self._now_us))
        return True

    def _refuse_all(
        self, message: int, answer: Answer, reply: Reply | None, detail: Detail
    ) -> None:
        """End a message's open recipients as refused; with a reply, its sender is told."""
        low, high = recipients_of(message)
        found = rows(
            self._db, "SELECT id FROM rcpt WHERE id BETWEEN ? AND ? AND state = 0", (low, high)
        )
        self.look_up(r for (r,) in found)
        for (recipient,) in found:
            standing = self._standing[recipient]
            self._moves.append((int(RecipientState.REFUSED), None, None, None, recipient))
            self._end(standing.about.account, message, "refused", 1)
            self._step(message, recipient, "refused", detail)
            answer.ended.append(recipient)
            if reply is not None:
                self._failures.setdefault(message, []).append((standing, reply, ""))
                self._failing[message] = answer

    def _end(self, account: str, message: int, cause: str, count: int) -> None:
        self._counts[account][RECIPIENT[cause][1]] += count
        self.queued -= count
        self._touched.add(message)

    def _step(self, message: int, recipient: int, kind: str, detail: Detail) -> None:
        self._numbers.step += 1
        self._steps.append(
            (self._numbers.step, self._now_us, message, recipient, kind, json(detail))
        )

    # What leaves and what is written

    def flush(self) -> None:
        """Write all that was gathered; bounces too, for they belong to the same commit."""
        self._make_bounces()
        db = self._db
        if self._messages:
            db.executemany(INSERT_MESSAGE, self._messages)
            db.executemany("INSERT INTO body VALUES (?,?,?)", self._bodies_in)
            db.executemany("INSERT INTO facts VALUES (?,?,?)", self._facts)
            db.executemany("INSERT INTO rcpt VALUES (?,?,?,?,0,?,?,0,'')", self._recipients)
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
        for gathered in (self._messages, self._bodies_in, self._facts, self._recipients,
                         self._moves, self._steps):  # fmt: skip
            gathered.clear()
        self._touched.clear()
        self._counts.clear()
        self._standing.clear()

    def _close_messages(self) -> None:
        """Settle the messages whose last recipient ended; their bodies go in this commit."""
        ended = self._db.execute(
            "SELECT m.id, m.body_file FROM json_each(?) j CROSS JOIN msg m ON m.id = j.value"
            " WHERE m.state <> 3 AND NOT EXISTS (SELECT 1 FROM rcpt r INDEXED BY rcpt_open"
            " WHERE r.id BETWEEN m.id << 10 AND (m.id << 10) + 1023 AND r.state = 0)",
            (json(list(self._touched)).decode(),),
        ).fetchall()
        keys = [(self._now_us, message) for message, _ in ended]
        self._db.executemany("UPDATE msg SET state = 3, changed_at = ? WHERE id = ?", keys)
        self._db.executemany("DELETE FROM body WHERE id = ?", [(m,) for m, _ in ended])
        self.files_done += [str(name) for _, name in ended if name]

    def _count(self, account: str, counts: Counter[str]) -> None:
        self._db.execute(
            "INSERT INTO counter (account, accepted, delivered, bounced, refused, dropped)"
            " VALUES (?,?,?,?,?,?) ON CONFLICT (account) DO UPDATE SET"
            " accepted = accepted + excluded.accepted, delivered = delivered + excluded.delivered,"
            " bounced = bounced + excluded.bounced, refused = refused + excluded.refused,"
            " dropped = dropped + excluded.dropped",
            (
                account,
                counts["accepted"],
                counts["delivered"],
                counts["bounced"],
                counts["refused"],
                counts["dropped"],
            ),
        )

    def _make_bounces(self) -> None:
        failures, self._failures = self._failures, {}
        failing, self._failing = self._failing, {}
        for message, failed in failures.items():
            about = failed[0][0].about
            if not bounce.bounce_to(about):
                continue
            if not self._may_bounce(about):
                self._step(message, 0, "bounce_capped", {"cap": about.bounces_1h_max})
                failing[message].noted.append("bounce_capped")
                continue
            made = bounce.bounce(
                about,
                [bounce.failure(standing.address, reply, peer) for standing, reply, peer in failed],
                id=self._new_id(),
                hostname=self._hostname,
                at_us=self._now_us,
                header=self._header(message),
            )
            number = self.accept(made).number
            self._step(message, 0, "bounce_sent", {"bounce": made.message})
            address, lane = made.envelope.recipients[0], lane_of(made.sender.key)
            failing[message].due.append((bucket_of(domain_of(address)), lane, self._now_us))
            failing[message].noted.append("bounce_sent")
            assert number

    def _may_bounce(self, about: bounce.Original) -> bool:
        """Count one bounce of this account, unless the hour's are used up."""
        hour = self._now_us // bounce.HOUR_US
        row = first(
            self._db,
            "SELECT made FROM bounced WHERE account = ? AND hour = ?",
            (about.account, hour),
        )
        made = row[0] if row else 0
        if made >= about.bounces_1h_max:
            return False
        self._db.execute(
            "INSERT OR REPLACE INTO bounced VALUES (?,?,?)", (about.account, hour, made + 1)
        )
        return True

    def _header(self, message: int) -> bytes:
        """Return the original's header as it left, or what can still be read of it."""
        row = first(
            self._db,
            "SELECT b.added, substr(b.data, 1, ?), m.body_file FROM body b JOIN msg m"
            " ON m.id = b.id WHERE b.id = ?",
            (bounce.HEADER_BYTES_MAX, message),
        )
        if row is None:
            return b""
        added, data, name = row
        if data is None and name:
            with contextlib.suppress(OSError), (self._bodies / name).open("rb") as file:
                data = file.read(bounce.HEADER_BYTES_MAX)
        head: bytes = data or b""
        return bytes(added) + head[: header_end(head)]


def recipients_in(changes: Sequence[object]) -> list[int]:
    """Return the recipients whose rows these changes ask about."""
    return [c.recipient for c in changes if isinstance(c, Settle | Sited)]
