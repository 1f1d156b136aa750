"""What is decided about a message after it was taken: by a verdict, by an operator, by damage."""

from typing import Any

from postweir.mail.address import domain_of
from postweir.mail.headers import written
from postweir.mail.reply import Reply
from postweir.policy.verdict import Verdict
from postweir.runtime.frames import pack
from postweir.spool.ports import Judged, Quarantine, Request
from postweir.spool.states import (
    MessageState,
    RecipientState,
    hold_s_of,
    lifetime_of,
    message_of,
    on_late_verdict,
    pool_of,
    recipients_of,
)
from postweir.storage.spool_batch import Batch
from postweir.storage.spool_rows import Detail
from postweir.storage.spool_schema import WAITS_MESSAGE, WAITS_NOT, first, rows
from postweir.storage.spool_seal import chosen, headers_sound, resealed
from postweir.storage.spool_values import Answer

SCOPE_ROWS_MAX = 5000  # of a request with a wide scope, in one commit: some 30 ms of the writer


class Decided:
    """Changes that read what is there: one at a time, with nothing gathered before them."""

    def __init__(self, batch: Batch, *, late_refusal: str) -> None:
        self._batch, self._rows, self._db = batch, batch.rows, batch.rows.db
        self._late_refusal = late_refusal
        self.pauses_changed = False
        self._scope_done = True

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
        self._rows.keep_facts(row[0], j.facts)
        hold_s, until_us = hold_s_of(j.verdict), None
        if hold_s:
            until_us = detail["expires_at_us"] = self._rows.now_us + hold_s * 1_000_000
        detail |= self._choose(row[0], j.verdict, answer)
        self._rows.step(row[0], 0, "judged", detail)
        answer.noted.append(f"late_{cause}")
        if cause == "refused":
            reply = Reply(550, "5.7.1", f"[{j.verdict.code}] {j.verdict.text}")
            self._refuse_all(row[0], answer, reply, {"by": "late verdict"})
        else:
            pending = MessageState.PENDING
            self._rows.turn(row[0], cause, pending, answer, hold_until_us=until_us)
        return answer

    def _choose(self, message: int, verdict: Verdict, answer: Answer) -> Detail:
        """Give a message its header and its way out; returns what of that is to be told."""
        pool, lifetime_s = pool_of(verdict), lifetime_of(verdict, 0)
        line = written(verdict.header) if verdict.header else b""
        if line is None:
            answer.noted.append("header_dropped")
        if not (line or pool or lifetime_s):
            return {}
        row = first(
            self._db,
            "SELECT b.added, m.seal FROM msg m JOIN body b ON b.id = m.id WHERE m.id = ?",
            (message,),
        )
        if row is None or not headers_sound(*row):
            return {}  # what is damaged is found to be so when it leaves
        added = row[0] + (line or b"")
        self._db.execute("UPDATE body SET added = ? WHERE id = ?", (added, message))
        self._db.execute(
            "UPDATE msg SET pool = ?, verdict_lifetime_s = ?, seal = ? WHERE id = ?",
            (pool, lifetime_s, resealed(row[1], added, chosen(pool, lifetime_s)), message),
        )
        header = verdict.header if line else ""
        told: Detail = {"pool": pool, "lifetime_s": lifetime_s, "header": header}
        return {name: value for name, value in told.items() if value}

    def quarantine(self, q: Quarantine) -> Answer:
        """Hold a message whose body is not what we had accepted."""
        answer = Answer()
        row = first(self._db, "SELECT id, state FROM msg WHERE name = ?", (q.message,))
        if row is None or not self._rows.turn(row[0], "quarantined", MessageState(row[1]), answer):
            return answer
        low, high = recipients_of(row[0])
        self._db.execute("UPDATE msg SET reason = 'corrupt' WHERE id = ?", (row[0],))
        self._db.execute(
            "UPDATE rcpt SET waits = ? WHERE id BETWEEN ? AND ? AND state = 0",
            (WAITS_MESSAGE, low, high),
        )
        answer.ended += self._open_of(row[0])
        self._rows.step(row[0], 0, "quarantined", {"what": q.what})
        answer.noted.append("corrupt")
        return answer

    def expire_hold(self, message: int, after: Detail) -> int:
        """Refuse a message nobody released; returns how many recipients it had."""
        answer = Answer()
        self._refuse_all(message, answer, None, {"by": "hold expired", **after})
        return len(answer.ended)

    def request(self, r: Request) -> Answer:
        """Do what an operator asked, and remember its number in the same commit.

        A wide scope is worked on in pieces; its number counts as done with the last one, so that
        after a crash the rest is done (and what was done is found done).
        """
        answer, numbers = Answer(), self._rows.numbers
        if r.number <= numbers.request_done:
            return answer
        if r.verb in ("suspend", "resume"):
            self._pause(r)
        else:
            if r.number != numbers.request:
                numbers.request, numbers.request_at = r.number, 0
            answer.more = self._apply(r, answer)
        if not answer.more:
            numbers.request_done = r.number
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
                    "UPDATE rcpt SET due = ? WHERE id = ? AND state = 0",
                    (self._rows.now_us, recipient),
                )
                answer.due.append((bucket, lane, self._rows.now_us))
                self._rows.step(message, recipient, "retry", detail)
            elif r.verb == "release" and state == MessageState.HELD and message not in released:
                released.add(message)
                self._rows.turn(message, "released", MessageState.HELD, answer)
                self._rows.step(message, 0, "released", detail)
        return not self._scope_done

    def _in_scope(self, scope: str) -> list[tuple[Any, ...]]:
        """Return its next open recipients: (row, bucket, lane, waits, account, state)."""
        columns = "r.id, r.bucket, r.lane, r.waits, m.account, m.state, m.sender, r.address"
        numbers = self._rows.numbers
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
            (numbers.request_at, SCOPE_ROWS_MAX),
        )
        if len(found) == SCOPE_ROWS_MAX:
            self._scope_done = False
            numbers.request_at = found[-1][0]
        at = {"account": 4, "sender": 6, "domain": 7}[kind]
        if kind == "domain":
            return [row[:6] for row in found if domain_of(row[at]) == value]
        return [row[:6] for row in found if row[at] == value]

    def _drop(self, recipient: int, account: str, answer: Answer, detail: Detail) -> None:
        self._rows.move(recipient, RecipientState.DROPPED)
        self._rows.end(account, message_of(recipient), "dropped")
        self._rows.step(message_of(recipient), recipient, "dropped", detail)
        answer.ended.append(recipient)

    def _refuse_all(
        self, message: int, answer: Answer, reply: Reply | None, detail: Detail
    ) -> None:
        """End a message's open recipients as refused; with a reply, its sender is told."""
        found = self._open_of(message)
        self._rows.look_up(found)
        for recipient in found:
            standing = self._rows.standing[recipient]
            self._rows.move(recipient, RecipientState.REFUSED)
            self._rows.end(standing.about.account, message, "refused")
            self._rows.step(message, recipient, "refused", detail)
            answer.ended.append(recipient)
            if reply is not None:
                self._batch.fail(standing, reply, "", answer)

    def _open_of(self, message: int) -> list[int]:
        """Return a message's recipients that have not ended."""
        found = rows(
            self._db,
            "SELECT id FROM rcpt WHERE id BETWEEN ? AND ? AND state = 0",
            recipients_of(message),
        )
        return [recipient for (recipient,) in found]
