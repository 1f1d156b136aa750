"""Shards' files as earlier versions made them: their statements, kept here word for word.

When a migration is added, the statements of the schema before it are added here too.
"""

import hashlib
import random
import zlib
from pathlib import Path

from tests.storage.damage import Expected, message

from postweir.runtime.frames import json, pack
from postweir.spool.ports import Accept
from postweir.spool.states import bucket_of, lane_of, on_arrival
from postweir.storage.sqlite import Connection, connect

SCHEMAS = (
    """
    CREATE TABLE msg (
        id INTEGER PRIMARY KEY,          -- set by the writer in commit order
        name TEXT NOT NULL UNIQUE,
        accepted_at INTEGER NOT NULL,
        changed_at INTEGER NOT NULL,
        state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 3),
        origin TEXT NOT NULL,
        account TEXT NOT NULL,
        sender TEXT NOT NULL,            -- Sender.key
        who BLOB NOT NULL,               -- Sender, packed
        mail_from TEXT NOT NULL,
        helo TEXT NOT NULL,
        eight_bit INTEGER NOT NULL,
        client TEXT NOT NULL,
        tls INTEGER NOT NULL,
        verdict BLOB,                    -- Verdict, packed
        policy TEXT NOT NULL,
        reason TEXT NOT NULL,
        size INTEGER NOT NULL,
        digest BLOB NOT NULL,            -- blake2b, 16 bytes, of the body
        body_file TEXT,
        lifetime_s INTEGER NOT NULL,
        log BLOB NOT NULL,
        bounces_1h_max INTEGER NOT NULL,
        return_path TEXT NOT NULL
    );
    CREATE INDEX msg_pending ON msg(id) WHERE state = 1;
    CREATE INDEX msg_held ON msg(changed_at) WHERE state = 2;
    CREATE INDEX msg_file ON msg(body_file) WHERE body_file IS NOT NULL;
    CREATE TABLE body (id INTEGER PRIMARY KEY, added BLOB NOT NULL, data BLOB);
    CREATE TABLE facts (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, data BLOB NOT NULL);
    CREATE TABLE rcpt (
        id INTEGER PRIMARY KEY,
        address TEXT NOT NULL,
        bucket INTEGER NOT NULL,
        lane INTEGER NOT NULL,
        state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 4),
        waits INTEGER NOT NULL CHECK (waits BETWEEN 0 AND 2),
        due INTEGER NOT NULL,
        tries INTEGER NOT NULL,
        reply TEXT NOT NULL
    );
    CREATE INDEX rcpt_due ON rcpt(bucket, lane, due) WHERE state = 0 AND waits = 0;
    CREATE INDEX rcpt_open ON rcpt(id) WHERE state = 0;
    CREATE INDEX rcpt_paused ON rcpt(id) WHERE state = 0 AND waits = 1;
    CREATE TABLE step (
        id INTEGER PRIMARY KEY, at INTEGER NOT NULL, msg INTEGER NOT NULL,
        rcpt INTEGER NOT NULL, kind TEXT NOT NULL, detail BLOB NOT NULL
    );
    CREATE INDEX step_msg ON step(msg);
    CREATE TABLE refusal (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, at INTEGER NOT NULL, account TEXT NOT NULL,
        sender TEXT NOT NULL, counted INTEGER NOT NULL, data BLOB NOT NULL
    );
    CREATE INDEX refusal_name ON refusal(name);
    CREATE TABLE counter (
        id INTEGER PRIMARY KEY, account TEXT NOT NULL UNIQUE,
        accepted INTEGER NOT NULL DEFAULT 0, delivered INTEGER NOT NULL DEFAULT 0,
        bounced INTEGER NOT NULL DEFAULT 0, refused INTEGER NOT NULL DEFAULT 0,
        dropped INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE bounced (account TEXT PRIMARY KEY, hour INTEGER NOT NULL, made INTEGER NOT NULL);
    CREATE TABLE pause (scope TEXT PRIMARY KEY, until_us INTEGER, number INTEGER NOT NULL);
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
    """,
    """
    ALTER TABLE msg ADD COLUMN authenticated INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE msg ADD COLUMN loops INTEGER NOT NULL DEFAULT 0;
    """,
    """
    ALTER TABLE msg ADD COLUMN recipients INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE msg ADD COLUMN seal BLOB;
    ALTER TABLE rcpt ADD COLUMN seal INTEGER;
    """,
)
SPREAD_US = 1_789_999_000_000_000  # when the first of them came


def make(folder: Path, schema: int, count: int) -> Expected:
    """Make `shard-1.db` with so many messages in all states, as it was with that schema."""
    bodies, rng, expected = folder / "bodies-1", random.Random(schema), Expected()
    bodies.mkdir()
    connection = connect(folder / "shard-1.db", checksums=False)
    connection.execute("BEGIN")
    for statements in SCHEMAS[:schema]:
        connection.execute(statements)
    connection.execute(f"PRAGMA user_version = {schema}")
    for n in range(1, count + 1):
        _insert(connection, n, message(n, bodies, rng), expected, rng)
    connection.execute("COMMIT")
    connection.close()
    return expected


def _insert(db: Connection, n: int, a: Accept, expected: Expected, rng: random.Random) -> None:
    state, to = on_arrival(a.verdict), a.envelope.recipients
    assert state is not None
    done = [state == 0 and rng.random() < 0.4 for _ in to]
    settled = all(done)
    values = (n, a.message, SPREAD_US + n, SPREAD_US + n, 3 if settled else int(state), a.origin,
              a.sender.account, a.sender.key, pack(a.sender), a.envelope.mail_from,
              a.envelope.helo, 0, a.client, 1, pack(a.verdict) if a.verdict else None, "", a.reason,
              a.length, a.check, a.body_file, 172800, b"{}", 1000, "")  # fmt: skip
    marks = ",".join("?" * len(values))
    columns = [row[1] for row in db.execute("PRAGMA table_info(msg)").fetchall()]
    db.execute(f"INSERT INTO msg ({','.join(columns[: len(values)])}) VALUES ({marks})", values)
    seal = _seal(values, len(to), a.added) if "seal" in columns else b""
    if seal:
        db.execute("UPDATE msg SET recipients = ?, seal = ? WHERE id = ?", (len(to), seal, n))
    if not settled:
        db.execute("INSERT INTO body VALUES (?,?,?)", (n, a.added, a.body))
    for k, address in enumerate(to):
        row = (n << 10 | k, address, bucket_of(address.partition("@")[2]), lane_of(a.sender.key),
               int(done[k]), 0 if state == 0 else 2, SPREAD_US + n, int(done[k]), "")  # fmt: skip
        if seal:
            words = b"%d %b" % (row[0], address.encode())
            row = (*row, zlib.crc32(words, int.from_bytes(seal[:4], "little")))
        db.execute(f"INSERT INTO rcpt VALUES ({','.join('?' * len(row))})", row)
        (expected.ended if done[k] else expected.open).add((a.message, address))
    detail = json({"state": "queued", "recipients": len(to), "bytes": a.length})
    db.execute("INSERT INTO step VALUES (?,?,?,0,'accepted',?)", (n, SPREAD_US + n, n, detail))
    db.execute(
        "INSERT INTO counter (account, accepted, delivered) VALUES (?,?,?)"
        " ON CONFLICT (account) DO UPDATE SET accepted = accepted + excluded.accepted,"
        " delivered = delivered + excluded.delivered",
        (a.sender.account, len(to), sum(done)),
    )
    if state == 2:
        expected.held.add(a.message)
    body = a.body
    if body is None:
        body = (db_folder(db) / str(a.body_file)).read_bytes()
    expected.content[a.message] = (a.envelope.mail_from, a.added + body)


def _seal(values: tuple, recipients: int, added: bytes) -> bytes:
    """Return the seal of schema 3: of the row less what changes, then of our headers."""
    fixed = (*values[:3], *values[5:14], *values[17:21], *values[22:24], 1, 0, recipients)
    return b"".join(hashlib.blake2b(part, digest_size=8).digest() for part in (pack(fixed), added))


def db_folder(db: Connection) -> Path:
    """Return where the bodies of a file are."""
    return Path(db.filename).parent / "bodies-1"
