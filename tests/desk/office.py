"""An office for tests: real tables, real shard files, and shards that can be silent or down."""

import hashlib

from postweir.desk.ports import Office, Shards
from postweir.identity.sender import Sender
from postweir.mail.envelope import Envelope, message_id
from postweir.mail.reply import Reply
from postweir.policy.verdict import Verdict
from postweir.runtime import frames
from postweir.runtime.settings import Settings, Storage
from postweir.spool import questions
from postweir.spool.ports import Accept, Page, Read, Refusal, Request, Settle
from postweir.storage.spool_reader import SqliteReader
from postweir.storage.sqlite_policies import SqlitePolicies
from postweir.storage.sqlite_spool import SqliteStore
from postweir.storage.sqlite_tables import SqliteTables

ACCEPT = Verdict("accept", "", "pol_" + "a" * 64)
HOLD = Verdict("hold", "suspicious", "pol_" + "a" * 64, "CS", "Looks wrong.")
NOW_US = 1_764_000_000_000_000  # 2025-11-24 16:00 UTC


class KeptShards:
    """Shards whose files are real. `down` and `unreadable` are numbers of shards."""

    def __init__(self, folder, settings, tables, count=2):
        self.numbers = range(1, count + 1)
        self.down, self.unreadable = set(), set()
        self.asked = []
        self._tables, self._settings = tables, settings
        self._paths = {n: folder / "spool" / f"shard-{n}.db" for n in self.numbers}
        self.stores = {n: self._store(n, folder) for n in self.numbers}
        self.woken = 0

    async def read(self, shard, question, argument, after, count_max) -> Page:
        self.asked.append((shard, question))
        if shard in self.down:
            raise ConnectionError(f"shard {shard} is down")
        return self._answer(shard, question, argument, after, count_max)

    async def wake(self) -> None:
        self.woken += 1
        for shard in set(self.numbers) - self.down:
            store = self.stores[shard]
            for request in self._tables.after(store.request_done()):
                while any(done.more for done in store.commit([request])):
                    pass

    def read_file(self, shard, question, argument, after, count_max) -> Page:
        if shard in self.unreadable:
            raise OSError(f"shard-{shard}.db: disk I/O error")
        return self._answer(shard, question, argument, after, count_max)

    def close(self):
        for store in self.stores.values():
            store.close()

    def _answer(self, shard, question, argument, after, count_max):
        reader = SqliteReader(self._paths[shard], shard=shard)
        try:
            return questions.answer(reader, Read(0, question, argument, after, count_max))
        finally:
            reader.close()

    def _store(self, number, folder):
        bodies = folder / "spool" / f"bodies-{number}"
        bodies.mkdir(parents=True, exist_ok=True)
        return SqliteStore(
            self._paths[number], bodies, hostname="relay.example.net",
            settings=self._settings.spool, incarnation=number,
        )  # fmt: skip


def office(tmp_path, count=2):
    """Return an office over a new data directory."""
    settings = Settings(storage=Storage(data=str(tmp_path)))
    tables = SqliteTables(tmp_path / "tables.db")
    shards = KeptShards(tmp_path, settings, tables, count)
    verified: Shards = shards  # the fake keeps to the port: mypy and the desk agree
    policies = SqlitePolicies(tables)
    return Office(settings, tables, verified, "op", lambda: NOW_US, policies=policies)


def name(n):
    """Return a message id."""
    return message_id(at_ms=1_764_000_000_000 - 3_600_000, incarnation=1, counter=n)


def accept(n=1, recipients=("kim@fine.example",), verdict=ACCEPT, account="acme", **changes):
    """Return a message as an edge sends it to a shard."""
    body = b"Subject: hello\r\n\r\nbody\r\n"
    facts = frames.pack({
        "facts": {"message.size": len(body)},
        "findings": [["content", "spam", "a word \x1b[31m", 0.7, "1"]],
    })  # fmt: skip
    values = {
        "ask": 1, "message": name(n), "by_ns": 1 << 62, "origin": "smtp",
        "envelope": Envelope("joe@customer.example", tuple(recipients), "mail.customer.example"),
        "sender": Sender(account, "x-authuser", "joe@customer.example",
                         (("x-authuser", "joe@customer.example"), ("sasl", "acme-k3v9qa"))),
        "client": "192.0.2.1", "tls": True, "added": b"Received: x\r\n", "body": body,
        "body_file": None, "length": len(body),
        "check": hashlib.blake2b(body, digest_size=16).digest(), "verdict": verdict, "reason": "",
        "facts": facts, "lifetime_s": 172800, "log": {"helo": "mail.customer.example"},
    }  # fmt: skip
    return Accept(**{**values, **changes})


def refusal(n=1, **changes):
    """Return a refusal as an edge records it."""
    made = accept(n)
    values = {
        "message": made.message, "at_us": NOW_US, "stage": "verdict", "sender": made.sender,
        "envelope": made.envelope, "client": made.client,
        "reply": Reply(550, "5.7.1", "[SS] Spam. ref=x"),
        "verdict": Verdict("refuse", "spam", "pol_" + "a" * 64, "SS", "Spam."),
        "facts": made.facts,
    }  # fmt: skip
    return Refusal(**{**values, **changes})


def settle(recipient, outcome="delivered", attempt=1, reply=None, retry_in_s=None):
    """Return what an attempt came to."""
    reply = reply or Reply(250, "2.0.0", "Taken")
    return Settle(
        recipient, attempt, NOW_US, outcome, retry_in_s, reply, "198.51.100.7",
        "mx.fine.example[203.0.113.5]:25", "TLSv1.3 TLS_AES_256_GCM_SHA384",
    )  # fmt: skip


__all__ = ["ACCEPT", "HOLD", "NOW_US", "KeptShards", "Request", "accept", "name", "office",
           "refusal", "settle"]  # fmt: skip
