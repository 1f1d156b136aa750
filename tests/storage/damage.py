"""A shard's files with mail in every state, damaged where a seed says, and its lives over them."""

import contextlib
import hashlib
import os
import random
import shutil
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.spool.given import HOLD, START_US, accept, name, settle

from postweir.policy.verdict import Verdict
from postweir.spool.audit import audit
from postweir.spool.leaving import damage_of_file
from postweir.spool.ports import Accept, Judged, Quarantine, Request
from postweir.storage.spool_reader import SqliteReader
from postweir.storage.spool_recovery import Recovery, note
from postweir.storage.sqlite import Fault, StorageFault, connect
from postweir.storage.sqlite_spool import SqliteStore

MESSAGES = 120
LIVES_MAX = 6
FILES = ("shard-1.db", "shard-1.db-wal", "shard-1.db-shm")
BULK = Verdict("route", pool="bulk", lifetime_s=3600)
LATE = Verdict("tag", header="X-Class: late", pool="bulk")  # for every second that was pending
YEAR_US = 365 * 86_400 * 1_000_000


class Told:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, dict[str, Any]]] = []

    def error(self, event: str, **fields: Any) -> None:
        self.errors.append((event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        pass

    info = warning


@dataclass
class Expected:
    """What the world may see: by message its sender, bytes, and the addresses that are open."""

    content: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    open: set[tuple[str, str]] = field(default_factory=set)
    ended: set[tuple[str, str]] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    last: set[str] = field(default_factory=set)  # of the last commit, which may look like a cut


def message(n: int, bodies: Path, rng: random.Random) -> Accept:
    """Return the n-th message: small or in a file, to one or many, judged, held or pending."""
    text = b"Subject: %d\r\n\r\n" % n + rng.randbytes(rng.choice((100, 700, 9000))).hex().encode()
    to = [f"r{n}-{i}@d{rng.randrange(5)}.example" for i in range(rng.choice((1, 1, 2, 5)))]
    verdict = {0: None, 1: HOLD, 2: BULK}.get(n % 10, Verdict("accept", policy="pol_test"))
    changed: dict[str, Any] = {
        "verdict": verdict, "mail_from": f"s{n}@customer.example", "account": f"a{n % 3}",
        "identity": f"joe{n % 7}", "added": b"Received: by us; %d\r\n" % n,
    }  # fmt: skip
    if n % 4:
        return accept(n, *to, body=text, **changed)
    (bodies / f"f{n}").write_bytes(text)
    check = hashlib.blake2b(text, digest_size=16).digest()
    return accept(n, *to, body=None, body_file=f"f{n}", **changed | {"length": len(text)},
                  check=check)  # fmt: skip


def build(folder: Path, *, checksums: bool = True, seed: int = 0) -> Expected:
    """Make the files as a kill leaves them: a part in the file, a part in the log."""
    rng, live, expected = random.Random(seed), folder / "live", Expected()
    live.mkdir()
    store = SqliteStore(
        live / "shard-1.db", live / "bodies-1", now_us=lambda: START_US,
        opener=lambda path: connect(path, checksums=checksums),
    )  # fmt: skip
    for at in range(1, MESSAGES + 1, 8):
        batch = [message(n, live / "bodies-1", rng) for n in range(at, at + 8)]
        done = store.commit(batch)
        expected.last = {a.message for a in batch}
        for a, d in zip(batch, done, strict=True):
            assert not d.reason
            body = a.body if a.body is not None else (live / "bodies-1" / a.body_file).read_bytes()
            expected.content[a.message] = (a.envelope.mail_from, a.added + body)
            expected.open |= {(a.message, to) for to in a.envelope.recipients}
            if a.verdict == HOLD:
                expected.held.add(a.message)
        ended = [(a, d) for a, d in zip(batch, done, strict=True) if d.ready and rng.random() < 0.3]
        store.commit([settle(d.ready[0]) for _, d in ended])
        expected.last |= {a.message for a, _ in ended}
        pairs = {(a.message, a.envelope.recipients[0]) for a, _ in ended}
        expected.open -= pairs
        expected.ended |= pairs
        if at == MESSAGES // 2 + 5:
            late = [name(n) for n in range(20, at, 20)]
            store.commit([Judged(message, LATE, b"") for message in late])
            for message_ in late:
                mail_from, content = expected.content[message_]
                added, line_end, body = content.partition(b"\r\n")
                tagged = added + line_end + b"X-Class: late\r\n" + body
                expected.content[message_] = (mail_from, tagged)
            store.prove()
    store.commit([Request(1, "suspend", "domain=nowhere.example", "", "", 0)])
    for one in FILES:
        shutil.copyfile(live / one, folder / one)
    shutil.copytree(live / "bodies-1", folder / "bodies-1")
    store.close()
    shutil.rmtree(live)
    return expected


def harm(path: Path, rng: random.Random) -> str:
    """Change something in a file; returns what."""
    size = path.stat().st_size
    at, kind = rng.randrange(size), rng.choice(("bit", "byte", "name", "zero", "tear", "noise"))
    if kind == "name":  # most bytes are bodies, which have a hash of their own: meet an address
        at, kind = max(0, path.read_bytes().find(b"@", at) - 1), "bit"
    if kind == "tear":
        os.truncate(path, at)
        return f"{path.name} cut at {at}"
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read({"bit": 1, "byte": 1}.get(kind, 512))
        new = {
            "bit": bytes([old[0] ^ 1 << rng.randrange(8)]),
            "byte": bytes([old[0] ^ rng.randrange(1, 256)]),
            "zero": bytes(len(old)),
            "noise": rng.randbytes(len(old)),
        }[kind]
        file.seek(at)
        file.write(new)
    return f"{path.name} {kind} at {at} of {size}"


@dataclass
class Lives:
    """The lives of one shard over damaged files: what it delivered, what it said."""

    folder: Path
    checksums: bool = True
    log: Told = field(default_factory=Told)
    delivered: list[tuple[str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)  # what had ended before the damage
    faults: list[str] = field(default_factory=list)

    def run(self, expected: Expected) -> None:
        """Live until all that may leave has left, each life ending where a process would."""
        path = self.folder / "shard-1.db"
        for _ in range(LIVES_MAX):
            store = None
            try:
                bodies = self.folder / "bodies-1"
                Recovery(path, bodies, log=self.log, stop=threading.Event()).prepare()
                store = SqliteStore(path, bodies, now_us=lambda: START_US)
                self._deliver(store, expected)
                self._judge(store)
                self._deliver(store, expected)
                store.commit([accept(9999, "new@far.example")])
                self._read(path)
            except Exception as fault:
                self.faults.append(repr(fault))
                if not isinstance(fault, OSError) or "Damaged" in type(fault).__name__:
                    note(path, repr(fault), proven="Damaged" in type(fault).__name__)
                    self.log.error("spool.fault")
            else:
                return
            finally:
                if store is not None:
                    end(store)
        raise AssertionError(f"it never lives on: {self.faults}")

    def _judge(self, store: SqliteStore) -> None:
        while found := store.pending(0, 100):
            store.commit([Judged(a.message, Verdict("accept"), b"") for a in found])

    def _deliver(self, store: SqliteStore, expected: Expected) -> None:
        for _ in range(1000):
            lanes = [one for one in store.earliest() if one[2] < START_US + YEAR_US]
            if not lanes:
                break
            for bucket, lane, _ in lanes:
                found = store.due(bucket, lane, START_US + YEAR_US, frozenset(), 1000)
                sent = [out for out in found if self._one(store, out, expected)]
                store.commit([settle(out.recipient, attempt=out.attempt) for out in sent])
        for q in store.quarantined():
            self.log.error("spool.corrupt", message=q.message)

    def _one(self, store: SqliteStore, out: Any, expected: Expected) -> bool:
        """Let one recipient leave, as a shard and its delivery do; True when it has."""
        content = store.content(out.message)
        if content is None:
            return False
        body = content.body
        if content.body_file is not None:
            if wrong := damage_of_file(content):
                store.commit([Quarantine(out.message, wrong)])
                self.log.error("spool.corrupt", message=out.message)
                return False
            body = Path(content.body_file).read_bytes()
        pair, seen = (out.message, out.address), (content.mail_from, content.added + body)
        self._see(pair, seen, expected)
        return True

    def _see(self, pair: tuple[str, str], seen: tuple[str, bytes], expected: Expected) -> None:
        if pair == (name(9999), "new@far.example"):
            return
        if pair in expected.ended:
            self.twice.append(f"{pair}")
        elif pair not in expected.open:
            self.wrong.append(f"delivered to {pair}")
        elif seen != expected.content[pair[0]]:
            self.wrong.append(f"delivered of {pair}: {seen[0]} {seen[1][:80]!r}")
        self.delivered.append(pair)

    def _read(self, path: Path) -> None:
        reader = SqliteReader(path, shard=1)
        try:
            reader.ledger()
            reader.queue("", 0, 100_000)
        finally:
            reader.close()


def end(store: SqliteStore) -> None:
    """End a life as a kill does, but for the file handles."""
    with contextlib.suppress(Fault, StorageFault):
        store._checkpoint.close()
    with contextlib.suppress(Fault):
        store._db.close()
    store._place.close()


def missing(lives: Lives, expected: Expected) -> tuple[set[tuple[str, str]], int]:
    """Return who is neither delivered nor held, and the ledger's residual."""
    reader = SqliteReader(lives.folder / "shard-1.db", shard=1)
    try:
        rows, _ = reader.queue("", 0, 100_000)
        found = audit({1: reader.ledger()})
    finally:
        reader.close()
    held = [row for row in rows if row.state == "held"]
    # A stub that has lost its message's name still has the address; and where the address is what
    # was damaged, the message is held with one that nobody expects.
    addresses = {row.address for row in held}
    known = {address for _, address in expected.open}
    strange = Counter(row.id for row in held if row.address not in known)
    gone: set[tuple[str, str]] = set()
    for message, address in sorted(expected.open - set(lives.delivered)):
        if address in addresses:
            continue
        if strange[message]:
            strange[message] -= 1
        else:
            gone.add((message, address))
    return gone, found.residual
