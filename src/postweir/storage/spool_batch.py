"""What comes in and what became of it, as changes of one commit, with the bounces they make."""

from collections.abc import Callable, Sequence

from postweir.mail.address import domain_of
from postweir.mail.headers import header_end
from postweir.mail.reply import Reply
from postweir.runtime.frames import pack
from postweir.spool import bounce
from postweir.spool.ports import Accept, Refusal, Settle, Sited
from postweir.spool.states import (
    RecipientState,
    bucket_of,
    lane_of,
    message_of,
    on_arrival,
    recipient_after,
)
from postweir.storage.spool_place import Place
from postweir.storage.spool_rows import Detail, Rows
from postweir.storage.spool_schema import first
from postweir.storage.spool_seal import OF_MESSAGE, envelope_sound
from postweir.storage.spool_values import Answer, Standing

DEFER_S_MAX = 7 * 86400.0  # longer than any lifetime


class Batch:
    """The changes of one transaction, which is open. Nothing here commits."""

    def __init__(
        self, rows: Rows, place: Place, *, new_id: Callable[[], str], hostname: str
    ) -> None:
        self.rows, self._place = rows, place
        self._new_id, self._hostname = new_id, hostname
        self._failures: dict[int, list[tuple[Standing, Reply, str]]] = {}
        self._failing: dict[int, Answer] = {}  # who is told of the bounce's due time

    def accept(self, a: Accept) -> Answer:
        """Take one message whole, unless its verdict takes none."""
        state = on_arrival(a.verdict)
        return Answer(reason="failed") if state is None else self.rows.insert(a, state)

    def refuse(self, r: Refusal) -> Answer:
        """Record a message that is not ours."""
        rows = self.rows
        rows.numbers.message += 1
        # Its facts stay as long as all facts do, the rest as long as the journal.
        rows.keep_facts(rows.numbers.message, r.facts)
        kept = {name: getattr(r, name) for name in r.__struct_fields__} | {"facts": b""}
        rows.db.execute(
            "INSERT INTO refusal VALUES (?,?,?,?,?,?,?)",
            (rows.numbers.message, r.message, rows.now_us, r.sender.account, r.sender.key,
             int(r.verdict is not None), pack(Refusal(**kept))),
        )  # fmt: skip
        return Answer()

    def settle(self, s: Settle) -> Answer:
        """Make the outcome of one attempt a recipient's state; a second time changes nothing."""
        answer, standing = Answer(), self.rows.standing.get(s.recipient)
        if standing is None or s.attempt != standing.tries + 1:
            return answer
        after = recipient_after(s.outcome, standing.state)
        detail: Detail = {
            "attempt": s.attempt, "at_us": s.at_us, "code": s.reply.code, "reply": str(s.reply),
            "source": s.source, "peer": s.peer, "tls": s.tls,
        }  # fmt: skip
        message = message_of(s.recipient)
        if after is None:  # it was dropped while delivery had it: the record keeps the truth
            self.rows.step(message, s.recipient, "attempt", {**detail, "late": s.outcome})
            return answer
        due_us = self.rows.now_us
        if after is RecipientState.QUEUED:
            due_us += int(min(max(s.retry_in_s or 0.0, 0.0), DEFER_S_MAX) * 1e6)
            answer.due.append((standing.bucket, standing.lane, due_us))
            detail["next_at_us"] = due_us
        else:
            answer.ended.append(s.recipient)
            self.rows.end(standing.about.account, message, s.outcome)
        standing.state, standing.tries = after, s.attempt
        self.rows.move(s.recipient, after, attempt=s.attempt, due_us=due_us, reply=s.reply)
        kind = {"deferred": "attempt", "failed": "bounced"}.get(s.outcome, s.outcome)
        self.rows.step(message, s.recipient, kind, detail)
        answer.noted.append(kind)
        if s.outcome == "failed":
            self.fail(standing, s.reply, s.peer, answer)
        return answer

    def sited(self, s: Sited) -> Answer:
        """Give a recipient to the owner of its site's bucket."""
        answer, standing = Answer(), self.rows.standing.get(s.recipient)
        if standing is None or standing.state is not RecipientState.QUEUED:
            return answer
        standing.bucket = bucket_of(s.site)
        self.rows.db.execute(
            "UPDATE rcpt SET bucket = ?, due = ? WHERE id = ? AND state = 0",
            (standing.bucket, self.rows.now_us, s.recipient),
        )
        answer.due.append((standing.bucket, standing.lane, self.rows.now_us))
        return answer

    def fail(self, standing: Standing, reply: Reply, peer: str, answer: Answer) -> None:
        """Tell the sender of this recipient's end, in the bounce that this commit makes."""
        message = message_of(standing.recipient)
        self._failures.setdefault(message, []).append((standing, reply, peer))
        self._failing[message] = answer

    def flush(self) -> None:
        """Write all that was gathered; bounces too, for they belong to the same commit."""
        failures, self._failures = self._failures, {}
        failing, self._failing = self._failing, {}
        for message, failed in failures.items():
            self._bounce(message, failed, failing[message])
        self.rows.flush()

    def _bounce(
        self, message: int, failed: Sequence[tuple[Standing, Reply, str]], answer: Answer
    ) -> None:
        about = failed[0][0].about
        if not bounce.bounce_to(about):
            return
        if not self._sound(message):
            self.rows.step(message, 0, "bounce_damaged", {})
            answer.noted.append("bounce_damaged")
            return
        if not self._may_bounce(about):
            self.rows.step(message, 0, "bounce_capped", {"cap": about.bounces_1h_max})
            answer.noted.append("bounce_capped")
            return
        made = bounce.bounce(
            about,
            [bounce.failure(standing.address, reply, peer) for standing, reply, peer in failed],
            id=self._new_id(),
            hostname=self._hostname,
            at_us=self.rows.now_us,
            header=self._header(message),
        )
        number = self.accept(made).number
        assert number
        self.rows.step(message, 0, "bounce_sent", {"bounce": made.message})
        address, lane = made.envelope.recipients[0], lane_of(made.sender.key)
        answer.due.append((bucket_of(domain_of(address)), lane, self.rows.now_us))
        answer.noted.append("bounce_sent")

    def _sound(self, message: int) -> bool:
        """True when what a bounce is made of is what was accepted."""
        row = first(
            self.rows.db,
            f"SELECT m.seal, {OF_MESSAGE} FROM msg m WHERE m.id = ?",  # noqa: S608
            (message,),
        )
        return row is not None and envelope_sound(row[1:], row[0])

    def _may_bounce(self, about: bounce.Original) -> bool:
        """Count one bounce of this account, unless the hour's are used up."""
        db, hour = self.rows.db, self.rows.now_us // bounce.HOUR_US
        row = first(
            db, "SELECT made FROM bounced WHERE account = ? AND hour = ?", (about.account, hour)
        )
        made = row[0] if row else 0
        if made >= about.bounces_1h_max:
            return False
        db.execute("INSERT OR REPLACE INTO bounced VALUES (?,?,?)", (about.account, hour, made + 1))
        return True

    def _header(self, message: int) -> bytes:
        """Return the original's header as it left, or what can still be read of it."""
        row = first(
            self.rows.db,
            "SELECT b.added, substr(b.data, 1, ?), m.body_file FROM msg m LEFT JOIN body b"
            " ON b.id = m.id WHERE m.id = ?",
            (bounce.HEADER_BYTES_MAX, message),
        )
        added, data, name = row if row is not None else (None, None, None)
        if data is None and name:
            data = self._place.head(name, bounce.HEADER_BYTES_MAX)
        head = bytes(data or b"")
        return bytes(added or b"") + head[: header_end(head)]


def recipients_in(changes: Sequence[object]) -> list[int]:
    """Return the recipients whose rows these changes ask about."""
    return [c.recipient for c in changes if isinstance(c, Settle | Sited)]
