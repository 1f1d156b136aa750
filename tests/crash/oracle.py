"""What clients, remotes and operators were told, held against what a shard's file says after it.

It keeps its own record and reads the file by itself, besides asking the product's reader. After
each life only what that life wrote is read; `whole` reads everything once more.
"""

import contextlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import apsw
from tests.crash import telling
from tests.crash.shard import BODIES, FILE
from tests.crash.telling import Told
from tests.crash.work import STEP_OF, Mail, Work, check_of, outcome, wish

from postweir.spool.audit import audit
from postweir.spool.states import MessageState, RecipientState
from postweir.storage.spool_reader import SqliteReader
from postweir.storage.spool_schema import MIGRATIONS
from postweir.storage.sqlite_spool import SqliteStore

NO_FILE, NO_BYTES = "has no file", "has no bytes"
OPEN, SETTLED = int(RecipientState.QUEUED), int(MessageState.SETTLED)
END_OF = {"delivered": RecipientState.DELIVERED, "bounced": RecipientState.BOUNCED,
          "dropped": RecipientState.DROPPED}  # fmt: skip


@dataclass(slots=True)
class Found:
    """What is wrong, each with a sentence; none of it when the promise held."""

    lost: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.torn or self.doubled)

    def __str__(self) -> str:
        every = [*self.lost, *self.torn, *self.doubled]
        return "; ".join(every[:5]) + (f"; and {len(every) - 5} more" if len(every) > 5 else "")


@dataclass(slots=True)
class Row:
    """A message as it was last read."""

    name: str
    check: bytes
    recipients: int


@dataclass(slots=True)
class Recipient:
    """What the steps say became of one: attempts in order, and its end."""

    attempts: list[str] = field(default_factory=list)  # the kind of step of each
    end: str = ""


class Oracle:
    """Of one file, over all its lives."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / FILE
        self._offered: dict[str, Mail] = {}
        self._safe: set[str] = set()
        self._numbers: dict[str, int] = {}  # names that were found, with their rows
        self._rows: dict[int, Row] = {}
        self._recipients: dict[int, Recipient] = defaultdict(Recipient)
        self._told_settled: set[tuple[int, int]] = set()
        self._step = 0
        self._accepted = 0  # recipients that entered, our own bounces' too
        self._found = Found()

    def begins(self, work: Work) -> None:
        """That life may bring these messages."""
        self._offered |= {mail.name: mail for mail in work.mails()}

    def check(self, told: Sequence[Told]) -> Found:
        """Return what a life that ended has broken of what it told."""
        self._found = Found()
        self._hear(told)
        if self._born():
            with self._reading() as db:
                self._messages(db)
                touched = self._steps(db)
                self._states(db, touched)
                self._later(db, told)
                self._counts(db)
            self._ask_the_reader(told)
        self._were_kept(told)
        return self._found

    def whole(self) -> Found:
        """Return what is wrong with all of the file, and with what the product makes of it."""
        self._found = Found()
        if self._path.exists():
            store = SqliteStore(self._path, self._folder / BODIES)
            try:
                self._ask_the_store(store)
            finally:
                store.close()
            with self._reading() as db:
                self._all_rows(db)
        self._lost(f"{name} was safe" for name in self._safe - self._numbers.keys())
        return self._found

    def _born(self) -> bool:
        """True when there are tables: a life may end before it has made them."""
        making = self._path.with_name(f"{FILE}-journal")  # only until it is in WAL mode
        if not self._path.exists() or (not self._rows and making.exists()):
            return False
        with self._reading() as db:
            version = db.execute("PRAGMA user_version").fetchall()[0][0]
        return bool(self._rows) or version == len(MIGRATIONS)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        """One transaction of a connection of our own, through nothing of the product's."""
        db = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READONLY, vfs="unix")
        with contextlib.closing(db), db:
            yield db

    def _lost(self, sentences: Iterable[str]) -> None:
        self._found.lost += sentences

    # What was told

    def _hear(self, told: Sequence[Told]) -> None:
        for one in told:
            if one.kind == telling.SAFE:
                self._safe.add(one.name)
            elif one.kind == telling.OUT:
                self._hear_out(one)
            elif one.kind == telling.SETTLED:
                self._told_settled.add((one.number, one.attempt))

    def _hear_out(self, one: Told) -> None:
        """A recipient was handed out: its outcome was not told before, and the bytes are right."""
        if (one.number, one.attempt) in self._told_settled:
            self._found.doubled.append(f"recipient {one.number} was handed out again")
        row = self._rows.get(one.number >> 10)
        if row is None or row.check != one.text:
            self._found.torn.append(f"recipient {one.number} left with other bytes")

    # What the file says

    def _messages(self, db: apsw.Connection) -> None:
        top = max(self._rows, default=0)
        addresses: dict[int, list[str]] = defaultdict(list)
        for recipient, address in db.execute(
            "SELECT id, address FROM rcpt WHERE id >= ? ORDER BY id", ((top + 1) << 10,)
        ):
            addresses[recipient >> 10].append(address)
            self._recipients[recipient] = Recipient()
        for number, *columns in db.execute(
            "SELECT m.id, m.name, m.state, m.origin, m.size, m.digest, m.body_file, b.data"
            " FROM msg m LEFT JOIN body b ON b.id = m.id WHERE m.id > ? ORDER BY m.id",
            (top,),
        ):
            self._message(number, addresses.pop(number, []), *columns)
        self._found.torn += [f"recipients of no message: {number}" for number in addresses]

    def _message(
        self, number: int, addresses: list[str], name: str, state: int, origin: str, size: int,
        digest: bytes, file: str | None, data: bytes | None,
    ) -> None:  # fmt: skip
        mail = self._offered.get(name)
        self._numbers[name] = number
        self._rows[number] = Row(name, digest, len(addresses))
        self._accepted += len(addresses)
        if mail is None:
            wrong = "" if origin == "dsn" and addresses else "is nobody's"
        elif addresses != list(mail.accept.envelope.recipients):
            wrong = "has not its recipients"
        else:
            same = (digest, size, file) == (
                mail.accept.check, mail.accept.length, mail.accept.body_file)  # fmt: skip
            wrong = "" if same else "is another"
        self._wrong(name, wrong or self._wrong_bytes(state, file, data, digest))

    def _wrong(self, name: str, wrong: str) -> None:
        if wrong:
            gone = wrong in (NO_FILE, NO_BYTES)
            (self._found.lost if gone else self._found.torn).append(f"{name} {wrong}")

    def _wrong_bytes(self, state: int, file: str | None, data: bytes | None, digest: bytes) -> str:
        if state == SETTLED:
            return ""
        if file:
            path = self._folder / BODIES / file
            if not path.exists():
                return NO_FILE
            data = path.read_bytes()
        if data is None:
            return NO_BYTES
        return "" if check_of(data) == digest else "has other bytes"

    def _steps(self, db: apsw.Connection) -> set[int]:
        """Read what was recorded; return the recipients that it was about."""
        touched: set[int] = set()
        bounced: dict[int, int] = {}  # message: its last step of the kind
        for step, message, recipient, kind, detail in db.execute(
            "SELECT id, msg, rcpt, kind, detail FROM step WHERE id > ? ORDER BY id", (self._step,)
        ):
            if step != self._step + 1:
                self._lost([f"steps between {self._step} and {step}"])
            self._step = step
            if recipient:
                touched.add(recipient)
                self._step_of(recipient, kind, detail)
                if kind == "bounced" and self._rows[message].name in self._offered:
                    bounced[message] = step
            elif kind == "bounce_sent":
                bounced.pop(message, None)
                if json.loads(detail)["bounce"] not in self._numbers:
                    self._lost([f"the bounce of message {message}"])
        self._lost(f"the bounce of message {message}" for message in bounced)
        return touched

    def _step_of(self, recipient: int, kind: str, detail: bytes) -> None:
        one = self._recipients[recipient]
        if one.end:
            self._found.doubled.append(f"recipient {recipient} ended again: {kind}")
        if kind in ("attempt", "delivered", "bounced"):
            one.attempts.append(kind)
            if json.loads(detail)["attempt"] != len(one.attempts):
                self._found.doubled.append(f"attempts of recipient {recipient}")
        if kind in END_OF:
            one.end = kind

    def _states(self, db: apsw.Connection, touched: set[int]) -> None:
        """See that the rows are what the steps say."""
        for recipient, state, tries in db.execute(
            "SELECT j.value, r.state, r.tries FROM json_each(?) j"
            " LEFT JOIN rcpt r ON r.id = j.value",
            (json.dumps(list(touched)),),
        ):
            one = self._recipients[recipient]
            expected = (int(END_OF[one.end]) if one.end else OPEN, len(one.attempts))
            if (state, tries) != expected:
                self._found.torn.append(f"recipient {recipient} is {state, tries}, not {expected}")

    def _later(self, db: apsw.Connection, told: Sequence[Told]) -> None:
        """See that late verdicts and wishes are as was told."""
        names = [one.name for one in told if one.kind in (telling.JUDGED, telling.ASKED)]
        states = dict(
            db.execute(
                "SELECT m.name, m.state FROM json_each(?) j CROSS JOIN msg m ON m.name = j.value",
                (json.dumps(names),),
            )
        )
        for one in told:
            if one.kind == telling.JUDGED and states.get(one.name) == MessageState.PENDING:
                self._lost([f"the verdict of {one.name}"])
            elif one.kind == telling.ASKED:
                state = states.get(one.name)
                if state == MessageState.HELD or (wish(one.name) == "drop" and state != SETTLED):
                    self._lost([f"the wish about {one.name}"])

    def _counts(self, db: apsw.Connection) -> None:
        """See that what was there before is still there."""
        for table, count in (("msg", len(self._rows)), ("step", self._step),
                             ("rcpt", self._accepted)):  # fmt: skip
            (found,) = db.execute(f"SELECT count(*) FROM {table}").fetchone() or (0,)
            if found != count:
                self._lost([f"{count - found} rows of {table}"])

    def _were_kept(self, told: Sequence[Told]) -> None:
        for one in told:
            if one.kind == telling.SAFE and one.name not in self._numbers:
                self._lost([f"{one.name} was safe"])
            elif one.kind == telling.UNSAFE and one.name in self._numbers:
                self._found.doubled.append(f"{one.name} was refused, and is kept")
            elif one.kind == telling.SETTLED:
                self._was_settled(one)

    def _was_settled(self, one: Told) -> None:
        what = outcome(one.number, one.attempt)
        attempts = self._recipients[one.number].attempts
        if len(attempts) < one.attempt or attempts[one.attempt - 1] != STEP_OF[what]:
            found = self._found.doubled if what == "delivered" else self._found.lost
            found.append(f"the outcome of recipient {one.number}, attempt {one.attempt}")

    # What the product says

    def _ask_the_reader(self, told: Sequence[Told]) -> None:
        reader = SqliteReader(self._path, shard=1)
        try:
            ledger = reader.ledger()
            names = [one.name for one in told if one.kind == telling.SAFE]
            unknown = set(names) - reader.committed(names)
            requests = [one.number for one in told if one.kind == telling.ASKED]
            if max(requests, default=0) > reader.status().request_done:
                self._lost(["the number of the last request"])
            for name in names[-1:]:
                row = reader.message(name)
                if row is None or row.bytes != self._offered[name].accept.length:
                    self._lost([f"the reader shows no {name}"])
        finally:
            reader.close()
        self._lost(f"the reader knows no {name}" for name in unknown)
        if audit({1: ledger}).residual or any(line.residual for line in ledger):
            self._lost([f"the ledger does not close: {ledger}"])
        if sum(line.accepted for line in ledger) != self._accepted:
            self._found.torn.append("the ledger has not what was accepted")

    def _ask_the_store(self, store: SqliteStore) -> None:
        """See that all that is open is handed out, or waits, and nothing else is."""
        with self._reading() as db:
            rows = {r for (r,) in db.execute("SELECT id FROM rcpt WHERE state = 0 AND waits = 0")}
            queued = len(db.execute("SELECT id FROM rcpt WHERE state = 0").fetchall())
        due: set[int] = set()
        for bucket, lane, _ in store.earliest():
            outs = store.due(bucket, lane, 1 << 60, frozenset(), 1 << 30)
            due |= {out.recipient for out in outs}
            for message in {out.message for out in outs}:
                if store.content(message) is None:
                    self._found.torn.append(f"{message} cannot leave")
        if due != rows or store.queued() != queued:
            self._lost([f"recipients that are due: {len(rows)} rows, {len(due)} found"])
        for accept in store.pending(0, 1 << 30):
            if accept.check != self._offered[accept.message].accept.check:
                self._found.torn.append(f"{accept.message} waits with other bytes")
        self._found.torn += [f"{one.message} is damaged" for one in store.quarantined()]

    def _all_rows(self, db: apsw.Connection) -> None:
        sound = db.execute("PRAGMA integrity_check").fetchall()
        if sound != [("ok",)]:
            self._found.torn.append(f"integrity_check: {sound[:3]}")
        names: set[str] = set()
        for name, state, digest, file, data in db.execute(
            "SELECT m.name, m.state, m.digest, m.body_file, b.data FROM msg m"
            " LEFT JOIN body b ON b.id = m.id"
        ):
            names.add(name)
            self._wrong(name, self._wrong_bytes(state, file, data, digest))
        self._lost(f"{name} was there" for name in self._numbers.keys() - names)
        expected = {
            recipient: (int(END_OF[one.end]) if one.end else OPEN, len(one.attempts))
            for recipient, one in self._recipients.items()
        }
        found = {r: (state, tries) for r, state, tries in
                 db.execute("SELECT id, state, tries FROM rcpt")}  # fmt: skip
        if found != expected:
            self._lost([f"recipients: {len(set(found.items()) ^ set(expected.items()))} differ"])
