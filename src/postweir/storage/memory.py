"""A shard's store in memory: the contract at its plainest, for tests of those who lean on it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from postweir.mail.address import domain_of
from postweir.mail.envelope import message_id
from postweir.mail.headers import header_end, written
from postweir.mail.reply import Reply
from postweir.mail.reports import Failure
from postweir.policy.verdict import Verdict
from postweir.runtime.settings import Spool
from postweir.spool import bounce
from postweir.spool.ports import (
    Accept,
    Change,
    Content,
    Done,
    Judged,
    Ledger,
    Out,
    Quarantine,
    Refusal,
    Request,
    Settle,
    Sited,
)
from postweir.spool.states import (
    ENDS,
    RECIPIENT,
    MessageState,
    RecipientState,
    bucket_of,
    hold_s_of,
    lane_of,
    lifetime_of,
    message_after,
    message_of,
    on_arrival,
    on_late_verdict,
    pool_of,
    recipient_after,
    recipients_of,
)

QUEUED = RecipientState.QUEUED


@dataclass
class Recipient:
    """One row of a recipient."""

    address: str
    bucket: int
    due_us: int
    tries: int = 0
    state: RecipientState = QUEUED


@dataclass
class Message:
    """One row of a message, with its body and recipients by number."""

    accept: Accept
    number: int
    state: MessageState
    accepted_at_us: int
    changed_at_us: int
    recipients: dict[int, Recipient] = field(default_factory=dict)
    body: bytes | None = None
    added: bytes = b""
    verdict: Verdict | None = None
    hold_until_us: int | None = None  # by its verdict

    @property
    def open(self) -> dict[int, Recipient]:
        return {r: row for r, row in self.recipients.items() if row.state is QUEUED}


class MemoryStore:
    """Implements spool.ports.Store; keeps nothing past its life."""

    def __init__(
        self,
        *,
        now_us: Callable[[], int],
        settings: Spool | None = None,
        hostname: str = "localhost",
    ) -> None:
        self._now_us, self._settings, self._hostname = now_us, settings or Spool(), hostname
        self._messages: dict[int, Message] = {}
        self._numbers: dict[str, int] = {}  # by name
        self._counters: dict[str, Counter[str]] = defaultdict(Counter)
        self._bounced: Counter[tuple[str, int]] = Counter()
        self._pauses: dict[str, int | None] = {}
        self._request_done = self._given = self._bounces = 0

    def commit(self, changes: Sequence[Change]) -> Sequence[Done]:
        """Make all changes, in order."""
        failures: dict[int, list[Failure]] = defaultdict(list)
        answers = [self._apply(change, failures) for change in changes]
        due = tuple(
            at for number, failed in failures.items() for at in self._bounce(number, failed)
        )
        if due:
            answers[-1] = Done(answers[-1].reason, answers[-1].number, answers[-1].ready,
                               answers[-1].due + due, answers[-1].ended)  # fmt: skip
        for message in self._messages.values():
            if message.state is not MessageState.SETTLED and not message.open:
                self._turn(message, _after("settled", message.state))
                message.body = None
        return answers

    def due(
        self, bucket: int, lane: int, until_us: int, out: AbstractSet[int], count_max: int
    ) -> Sequence[Out]:
        """Return recipients of this bucket and lane due by then and not in `out`, oldest first."""
        rows = sorted(
            (row.due_us, number, message)
            for message in self._leaving(lane)
            for number, row in message.open.items()
            if row.bucket == bucket and row.due_us <= until_us and number not in out
            and not self._paused(message, row)
        )  # fmt: skip
        return [self._out(message, number) for _, number, message in rows[:count_max]]

    def next_due(self, bucket: int, lane: int, after_us: int) -> int | None:
        """Return the first due time of this lane that is later than `after_us`."""
        times = [
            row.due_us
            for message in self._leaving(lane)
            for row in message.open.values()
            if row.bucket == bucket and row.due_us > after_us
        ]
        return min(times, default=None)

    def earliest(self) -> Sequence[tuple[int, int, int]]:
        """Return the first due of every lane that has any."""
        found: dict[tuple[int, int], int] = {}
        for message in self._messages.values():
            if message.state is MessageState.JUDGED:
                for row in message.open.values():
                    key = (row.bucket, lane_of(message.accept.sender.key))
                    found[key] = min(found.get(key, row.due_us), row.due_us)
        return [(bucket, lane, due_us) for (bucket, lane), due_us in sorted(found.items())]

    def pending(self, after: int, count_max: int) -> Sequence[Accept]:
        """Return messages not yet judged, oldest first; `ask` is the row."""
        found = [m for n, m in sorted(self._messages.items())
                 if n > after and m.state is MessageState.PENDING]  # fmt: skip
        return [_renumbered(m.accept, m.number) for m in found[:count_max]]

    def content(self, message: str) -> Content | None:
        """Return what leaves."""
        row = self._messages.get(self._numbers.get(message, 0))
        if row is None or (row.body is None and row.accept.body_file is None):
            return None
        a = row.accept
        return Content(message, a.envelope.mail_from, row.added, row.body, a.body_file, a.length,
                       a.check, a.eight_bit or a.envelope.eight_bit, a.origin,
                       pool_of(row.verdict))  # fmt: skip

    def request_done(self) -> int:
        """Return the number of the last request whose effect is kept."""
        return self._request_done

    def queued(self) -> int:
        """Return how many recipients have not ended."""
        return sum(len(message.open) for message in self._messages.values())

    def upkeep(self) -> bool:
        """Nothing grows old here but holds."""
        now_us, longest_us = self._now_us(), self._settings.hold_days * 86400 * 1_000_000
        for message in self._messages.values():
            until_us = message.hold_until_us or message.changed_at_us + longest_us
            if message.state is MessageState.HELD and until_us < now_us:
                self._end_all(message, "refused")
                self._turn(message, _after("settled", message.state))
        return False

    def close(self) -> None:
        """Nothing to leave tidy."""

    def ledger(self) -> Sequence[Ledger]:
        """Return one line an account, as a Reader does."""
        rows: dict[str, Counter[str]] = defaultdict(Counter)
        names = {MessageState.JUDGED: "queued", MessageState.PENDING: "pending",
                 MessageState.HELD: "held"}  # fmt: skip
        for message in self._messages.values():
            if message.open:
                account = message.accept.sender.account
                rows[account][names[message.state]] += len(message.open)
        return [
            Ledger(account, *(self._counters[account][c] for c in ("accepted", *ENDS)),
                   *(rows[account][c] for c in ("held", "queued", "pending")))
            for account in sorted(self._counters)
        ]  # fmt: skip

    def _apply(self, change: Change, failures: dict[int, list[Failure]]) -> Done:
        match change:
            case Accept():
                return self._accept(change)
            case Settle():
                return self._settle(change, failures)
            case Sited():
                return self._sited(change)
            case Judged():
                return self._judged(change, failures)
            case Request():
                return self._request(change)
            case Quarantine():
                return self._quarantine(change)
            case Refusal():
                return Done()

    def _accept(self, a: Accept) -> Done:
        state = on_arrival(a.verdict)
        if state is None or a.message in self._numbers:
            return Done("failed")
        if a.body is not None and len(a.body) != a.length:
            return Done("corrupt")
        self._given += 1
        number, now_us = self._given, self._now_us()
        message = Message(a, number, state, now_us, now_us, {}, a.body, a.added, a.verdict)
        message.hold_until_us = self._hold_until_us(a.verdict)
        for n, address in enumerate(a.envelope.recipients):
            bucket = bucket_of(domain_of(address))
            message.recipients[recipients_of(number)[0] + n] = Recipient(address, bucket, now_us)
        self._messages[number], self._numbers[a.message] = message, number
        self._counters[a.sender.account]["accepted"] += len(message.recipients)
        ready = tuple(
            r for r, row in message.recipients.items()
            if state is MessageState.JUDGED and not self._paused(message, row)
        )  # fmt: skip
        return Done(number=number, ready=ready)

    def _settle(self, s: Settle, failures: dict[int, list[Failure]]) -> Done:
        message = self._messages.get(message_of(s.recipient))
        row = message.recipients.get(s.recipient) if message else None
        if message is None or row is None or s.attempt != row.tries + 1:
            return Done()
        after = recipient_after(s.outcome, row.state)
        if after is None:
            return Done()
        row.state, row.tries = after, s.attempt
        if after is QUEUED:
            row.due_us = self._now_us() + int(max(s.retry_in_s or 0.0, 0.0) * 1e6)
            return Done(due=((row.bucket, lane_of(message.accept.sender.key), row.due_us),))
        self._counters[message.accept.sender.account][RECIPIENT[s.outcome][1]] += 1
        if s.outcome == "failed":
            failures[message.number].append(bounce.failure(row.address, s.reply, s.peer))
        return Done(ended=(s.recipient,))

    def _sited(self, s: Sited) -> Done:
        message = self._messages.get(message_of(s.recipient))
        row = message.open.get(s.recipient) if message else None
        if message is None or row is None:
            return Done()
        row.bucket, row.due_us = bucket_of(s.site), self._now_us()
        return Done(due=((row.bucket, lane_of(message.accept.sender.key), row.due_us),))

    def _judged(self, j: Judged, failures: dict[int, list[Failure]]) -> Done:
        message = self._messages.get(self._numbers.get(j.message, 0))
        cause = on_late_verdict(j.verdict, late_refusal=self._settings.late_refusal)
        if message is None or message.state is not MessageState.PENDING or not cause:
            return Done()
        if cause != "refused":
            message.verdict = j.verdict
            message.added += (written(j.verdict.header) or b"") if j.verdict.header else b""
            self._turn(message, _after(cause, message.state))
            message.hold_until_us = self._hold_until_us(j.verdict)
            return self._due_now(message)
        reply = Reply(550, "5.7.1", f"[{j.verdict.code}] {j.verdict.text}")
        rows = message.open.values()
        failures[message.number] += [bounce.failure(row.address, reply, "") for row in rows]
        return Done(ended=self._end_all(message, "refused"))

    def _quarantine(self, q: Quarantine) -> Done:
        message = self._messages.get(self._numbers.get(q.message, 0))
        after = message_after("quarantined", message.state) if message else None
        if message is None or after is None:
            return Done()
        self._turn(message, after)
        return Done(ended=tuple(message.open), noted=("corrupt",))

    def _request(self, r: Request) -> Done:
        if r.number <= self._request_done:
            return Done()
        self._request_done = r.number
        if r.verb == "suspend":
            self._pauses[r.scope] = r.until_us
        if r.verb == "resume":
            self._pauses.pop(r.scope, None)
        due: list[tuple[int, int, int]] = []
        ended: list[int] = []
        for message in self._messages.values():
            rows = {n: row for n, row in message.open.items() if _in_scope(r.scope, message, row)}
            if rows and r.verb == "release" and message.state is MessageState.HELD:
                self._turn(message, _after("released", message.state))
                due += self._due_now(message).due
            for number, row in rows.items():
                if r.verb == "drop":
                    row.state = RecipientState.DROPPED
                    self._counters[message.accept.sender.account]["dropped"] += 1
                    ended.append(number)
                elif r.verb == "retry" and message.state is MessageState.JUDGED:
                    row.due_us = self._now_us()
                    due.append((row.bucket, lane_of(message.accept.sender.key), row.due_us))
        return Done(due=tuple(due), ended=tuple(ended))

    def _bounce(self, number: int, failed: list[Failure]) -> list[tuple[int, int, int]]:
        message = self._messages[number]
        a = message.accept
        sender = a.sender
        about = bounce.Original(a.message, a.origin, sender.account, a.envelope.mail_from,
            a.return_path, message.accepted_at_us, a.bounces_1h_max)  # fmt: skip
        hour = (a.sender.account, self._now_us() // bounce.HOUR_US)
        if not bounce.bounce_to(about) or self._bounced[hour] >= a.bounces_1h_max:
            return []
        self._bounced[hour] += 1
        self._bounces += 1
        body = message.body or b""
        made = bounce.bounce(
            about, failed, hostname=self._hostname, at_us=self._now_us(),
            id=message_id(at_ms=self._now_us() // 1000, incarnation=0, counter=self._bounces),
            header=message.added + body[: header_end(body)],
        )  # fmt: skip
        self._accept(made)
        bucket = bucket_of(domain_of(made.envelope.recipients[0]))
        return [(bucket, lane_of(made.sender.key), self._now_us())]

    def _end_all(self, message: Message, cause: str) -> tuple[int, ...]:
        ended = tuple(message.open)
        for row in message.open.values():
            row.state = RECIPIENT[cause][0]
        self._counters[message.accept.sender.account][RECIPIENT[cause][1]] += len(ended)
        return ended

    def _due_now(self, message: Message) -> Done:
        if message.state is not MessageState.JUDGED:
            return Done()
        lane = lane_of(message.accept.sender.key)
        for row in message.open.values():
            row.due_us = self._now_us()
        return Done(due=tuple((row.bucket, lane, row.due_us) for row in message.open.values()))

    def _turn(self, message: Message, state: MessageState) -> None:
        message.state, message.changed_at_us = state, self._now_us()
        message.hold_until_us = None

    def _hold_until_us(self, verdict: Verdict | None) -> int | None:
        hold_s = hold_s_of(verdict)
        return self._now_us() + hold_s * 1_000_000 if hold_s else None

    def _leaving(self, lane: int) -> list[Message]:
        return [
            m for m in self._messages.values()
            if m.state is MessageState.JUDGED and lane_of(m.accept.sender.key) == lane
        ]  # fmt: skip

    def _paused(self, message: Message, row: Recipient) -> bool:
        return any(
            _in_scope(scope, message, row, wide=True)
            and (until_us is None or until_us > self._now_us())
            for scope, until_us in self._pauses.items()
        )

    def _out(self, message: Message, number: int) -> Out:
        row, a = message.recipients[number], message.accept
        age_s = max(0.0, (self._now_us() - message.accepted_at_us) / 1e6)
        return Out(number, row.tries + 1, a.message, a.sender.key, row.address,
                   message.accepted_at_us, age_s, row.tries,
                   lifetime_of(message.verdict, a.lifetime_s))  # fmt: skip


def _after(cause: str, state: MessageState) -> MessageState:
    after = message_after(cause, state)
    assert after is not None, f"{cause} from {state.name}"
    return after


def _in_scope(scope: str, message: Message, row: Recipient, *, wide: bool = False) -> bool:
    sender = message.accept.sender
    return (not wide and scope == message.accept.message) or scope in (
        f"account={sender.account}",
        f"sender={sender.key}",
        f"domain={domain_of(row.address)}",
    )


def _renumbered(accept: Accept, number: int) -> Accept:
    values = {name: getattr(accept, name) for name in accept.__struct_fields__}
    return Accept(**{**values, "ask": number, "by_ns": 0, "facts": b""})
