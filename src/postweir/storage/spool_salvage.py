"""Puts a new file together from all that a damaged one still says, and trusts none of it unseen.

What is whole is copied as it is. A message of which a part is gone or wrong (its row, its body, a
recipient) is kept *held* with the reason `corrupt`: never delivered by itself, and there for an
operator. Counters are copied, so what is gone without a name shows as the ledger's residual.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from postweir.identity.sender import Sender
from postweir.mail.address import domain_of
from postweir.mail.envelope import message_id
from postweir.runtime.frames import json, pack
from postweir.spool.ports import BUCKETS, Away
from postweir.spool.states import MessageState, bucket_of, lane_of, message_of, recipients_of
from postweir.storage.spool_place import Place
from postweir.storage.spool_schema import (
    MESSAGE_COLUMNS,
    WAITS_MESSAGE,
    WAITS_NOT,
    first,
    migrate,
    rows,
)
from postweir.storage.spool_seal import (
    SEALED,
    address_sound,
    chosen,
    envelope_sound,
    headers_sound,
)
from postweir.storage.spool_source import LAST_ROW, Row, Source
from postweir.storage.sqlite import Connection, Fault, StorageFault, connect, trouble

MESSAGES = 50  # looked at together, with all their recipients
COMMIT_ROWS = 5000
NAMED_MAX = 1000  # messages that the log names one by one
ORPHANS_MAX = 100_000  # messages whose row is gone and whose recipients are not
PLAIN = ("facts", "step", "refusal", "counter", "bounced", "pause", "meta")
NUMBERS_APART = 1_000_000  # what was given to rows that are gone is not given again
PRAGMAS = ("synchronous=off", "wal_autocheckpoint=4000")  # synced once, when it is whole
UNKNOWN = "?"

Record = dict[str, object]


@dataclass(slots=True)
class Salvaged:
    """What came of it."""

    messages: int = 0
    recipients: int = 0
    held: dict[str, str] = field(default_factory=dict)  # name: what is wrong, the first of them
    held_count: int = 0
    unreadable: int = 0  # rows that could not be read, and gaps of unknown size


class Stopped(Exception):
    """The process is told to end: it begins anew with the next one."""


class Salvage:
    """One attempt. `tell` is called often with what was done so far, and may raise Stopped.

    `frames` says how many of the log were committed, 0 when nobody knows.
    """

    def __init__(
        self,
        source: Source,
        fresh: Path,
        place: Place,
        *,
        now_us: int,
        frames: int,
        tell: Callable[[Salvaged], None],
    ) -> None:
        self._source, self._place, self._now_us, self._tell = source, place, now_us, tell
        self._cut = frames > source.frames  # commits are gone with all that was in them
        self.found = Salvaged()
        self._fresh = fresh
        self._orphans: dict[int, list[Record]] = {}
        self._message_last = self._step_last = 0
        self._written = 0

    def run(self) -> Salvaged:
        """Write the new file, whole and synced. Raises StorageFault, Stopped."""
        self._db: Connection = connect(self._fresh, pragmas=PRAGMAS)
        try:
            migrate(self._db)
            self._db.execute("BEGIN")
            for table in PLAIN:
                self._copy(table)
            self._messages()
            self._stubs()
            if self._cut:
                self._own_up()
            self._numbers()
            self._db.execute("COMMIT")
            self.found.unreadable = self._source.unreadable
            rows(self._db, "PRAGMA wal_checkpoint(TRUNCATE)")
        except Fault as fault:
            raise trouble(self._fresh, fault) from fault
        finally:
            self._db.close()
        return self.found

    def _copy(self, table: str) -> None:
        columns = self._source.columns(table)
        for row in self._source.rows(table):
            if table in ("step", "refusal"):
                self._seen(table, row)
            self._insert(table, columns, row[1:])

    def _seen(self, table: str, row: Row) -> None:
        if table == "step":
            self._step_last = max(self._step_last, row[0])
        else:
            self._message_last = max(self._message_last, row[0])

    def _insert(self, table: str, columns: list[str], values: Row) -> bool:
        marks = ", ".join("?" * len(columns))
        try:
            self._db.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})",  # noqa: S608
                values,
            )
        except Fault as fault:
            if getattr(fault, "result", 0) != CONSTRAINT:
                raise
            self._source.unreadable += 1  # no such row can have been there
            return False
        self._written += 1
        if self._written % COMMIT_ROWS == 0:
            self._db.execute("COMMIT")
            self._db.execute("BEGIN")
            self._tell(self.found)
        return True

    def _messages(self) -> None:
        """Copy messages some at a time, each with its recipients and its body."""
        low = 0
        for batch in self._batches():
            high = batch[-1][0]
            self._join(batch, low, high)
            low = high + 1
        self._join([], low, LAST_ROW >> 10)

    def _batches(self) -> Iterator[list[Row]]:
        batch: list[Row] = []
        for row in self._source.rows("msg"):
            batch.append(row)
            if len(batch) == MESSAGES:
                yield batch
                batch = []
        if batch:
            yield batch

    def _join(self, batch: list[Row], low: int, high: int) -> None:
        """Copy these messages, and keep aside what belongs to messages between them."""
        columns = self._source.columns("msg")
        messages = {row[0]: dict(zip(columns, row[1:], strict=True)) for row in batch}
        recipients: dict[int, list[Record]] = {number: [] for number in messages}
        names = self._source.columns("rcpt")
        last = min(recipients_of(high)[1], LAST_ROW)
        for row in self._source.rows("rcpt", recipients_of(low)[0], last):
            number, one = message_of(row[0]), dict(zip(names, row[1:], strict=True))
            if number in recipients:
                recipients[number].append(one)
            elif len(self._orphans) < ORPHANS_MAX:
                self._orphans.setdefault(number, []).append(one)
        wanted = {n for n, m in messages.items() if m["state"] != MessageState.SETTLED}
        wanted |= self._orphans.keys()
        bodies = {row[0]: row for row in self._bodies(low, high) if row[0] in wanted}
        for number, message in messages.items():
            self._message(number, message, recipients[number], bodies.get(number))
        for number, row in bodies.items():
            if number in self._orphans:
                self._insert("body", self._source.columns("body"), row[1:])

    def _bodies(self, low: int, high: int) -> Iterator[Row]:
        return self._source.rows("body", low, high)

    def _message(
        self, number: int, message: Record, recipients: list[Record], body: Row | None
    ) -> None:
        """Copy one message, held where it is not whole."""
        self._message_last = max(self._message_last, number)
        state, waiting = message["state"], [r for r in recipients if r["state"] == 0]
        settled = state == MessageState.SETTLED and not waiting
        wrong = "" if settled else self._wrong(number, message, recipients, body)
        if state not in STATES:
            wrong = "state"
        if wrong:
            message |= {"reason": "corrupt", "changed_at": self._now_us, "hold_until": None}
            # With nobody left to send it to it would be held for ever: then it is only a record.
            message["state"] = int(MessageState.HELD if waiting else MessageState.SETTLED)
            self._hold(str(message["name"]), number, wrong)
        for one in waiting:
            _lay_straight(one, message)
        if not self._insert("msg", list(message), tuple(message.values())):
            return
        self.found.messages += 1
        if body is not None and message["state"] != MessageState.SETTLED:
            self._insert("body", self._source.columns("body"), body[1:])
        self._recipients(recipients)

    def _recipients(self, recipients: list[Record]) -> None:
        for one in recipients:
            self.found.recipients += self._insert("rcpt", list(one), tuple(one.values()))

    def _hold(self, name: str, number: int, wrong: str) -> None:
        self._step_last += 1
        self.found.held_count += 1
        if len(self.found.held) < NAMED_MAX:
            self.found.held[name] = wrong
        detail = json({"what": wrong, "by": "salvage"})
        columns = ["id", "at", "msg", "rcpt", "kind", "detail"]
        values = (self._step_last, self._now_us, number, 0, "quarantined", detail)
        self._insert("step", columns, values)

    def _wrong(
        self, number: int, message: Record, recipients: list[Record], body: Row | None
    ) -> str:
        """Return what is missing or wrong of a message, or ""."""
        seal = message.get("seal")
        if "seal" in message and not envelope_sound([message[c] for c in SEALED], seal):
            return "envelope"
        count = message.get("recipients") or self._source.recipients_said(number)
        if count != len(recipients) if count else not recipients:
            return "recipients"
        if not all(address_sound(seal, _int(r["id"]), r["address"], r.get("seal"))
                   for r in recipients):  # fmt: skip
            return "address"
        if message["state"] == MessageState.SETTLED:
            return "state"  # with recipients that wait
        if body is None:
            return "missing"
        _, _, added, data = body
        name, size, digest = message["body_file"], message["size"], message["digest"]
        assert isinstance(size, int) and isinstance(digest, bytes)  # noqa: PT018
        try:
            wrong = self._place.damage(data, name if isinstance(name, str) else None, size, digest)
        except Away:
            return ""  # looked at again before it leaves
        way_out = chosen(message.get("pool"), message.get("verdict_lifetime_s"))
        return wrong or ("" if headers_sound(added, seal, way_out) else "envelope")

    def _stubs(self) -> None:
        """Give recipients whose message's row is gone one that is held, with what is known."""
        names = self._source.names(set(self._orphans))
        for number, recipients in self._orphans.items():
            self._message_last = max(self._message_last, number)
            waiting = [one for one in recipients if one["state"] == 0]
            name = names.get(number) or message_id(
                at_ms=self._now_us // 1000, incarnation=0, counter=number & 0xFFFF
            )
            for one in waiting:
                one["waits"] = WAITS_MESSAGE
            state = MessageState.HELD if waiting else MessageState.SETTLED
            stub = self._stub(number, name, state, len(recipients))
            if not self._insert("msg", list(MESSAGE_COLUMNS), stub):
                continue
            if waiting:
                self._hold(name, number, "row")
            self._recipients(recipients)

    def _stub(self, number: int, name: str, state: MessageState, recipients: int) -> Row:
        values: Record = dict.fromkeys(MESSAGE_COLUMNS, "")
        values |= dict.fromkeys(("eight_bit", "tls", "size", "lifetime_s", "bounces_1h_max"), 0)
        values |= {"id": number, "name": name, "state": int(state), "reason": "corrupt"}
        values |= {"accepted_at": self._now_us, "changed_at": self._now_us, "verdict": None}
        values |= {"account": UNKNOWN, "sender": f"{UNKNOWN}|{UNKNOWN}|{UNKNOWN}"}
        values |= {"who": pack(Sender(UNKNOWN, UNKNOWN, UNKNOWN)), "body_file": None}
        values |= {"log": b"{}", "origin": "smtp", "authenticated": 0, "loops": 0}
        values |= {"verdict_lifetime_s": 0, "hold_until": None}
        # A seal that nothing bears out: whatever becomes of it, it never leaves.
        values |= {"digest": bytes(16), "recipients": recipients, "seal": b""}
        return tuple(values.values())

    def _own_up(self) -> None:
        """Let the ledger show that something is gone: counters went with it, and it would close."""
        self._source.unreadable += 1
        self._db.execute(
            "INSERT INTO counter (account, accepted) VALUES (?, 1)"
            " ON CONFLICT (account) DO UPDATE SET accepted = accepted + 1",
            (UNKNOWN,),
        )

    def _numbers(self) -> None:
        """No number that may have been given is given again; files of before are kept."""
        known = dict(rows(self._db, "SELECT key, value FROM meta"))
        apart = NUMBERS_APART if self._source.unreadable else 0
        self._db.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?,?)",
            [
                ("message_last", max(known.get("message_last", 0), self._message_last) + apart),
                ("step_last", max(known.get("step_last", 0), self._step_last) + apart),
                ("salvaged_at", self._now_us),
            ],
        )


CONSTRAINT = 19  # SQLITE_CONSTRAINT
STATES = frozenset(int(state) for state in MessageState)


def _lay_straight(recipient: Record, message: Record) -> None:
    """Let a recipient that waits be found: by its message's state, its bucket and its lane."""
    if message["state"] != MessageState.JUDGED:
        recipient["waits"] = WAITS_MESSAGE
    elif recipient["waits"] == WAITS_MESSAGE:
        recipient["waits"] = WAITS_NOT
    bucket = recipient["bucket"]
    if not isinstance(bucket, int) or not 0 <= bucket < BUCKETS:
        recipient["bucket"] = bucket_of(domain_of(str(recipient["address"])))
    recipient["lane"] = lane_of(str(message["sender"]))


def _int(value: object) -> int:
    return value if isinstance(value, int) else -1


def check_whole(path: Path) -> None:
    """Look once over a file that was just put together. Raises StorageFault."""
    connection = connect(path)
    try:
        row = first(connection, "PRAGMA integrity_check(1)")
    except Fault as fault:
        raise trouble(path, fault) from fault
    finally:
        connection.close()
    if row is None or row[0] != "ok":
        raise StorageFault(f"{path}: {row[0] if row else 'no answer'}")
