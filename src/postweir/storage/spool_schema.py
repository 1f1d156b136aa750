"""The tables of one shard's file, as numbered migrations.

    msg       one row a message; settled ones stay for the journal's retention
    body      what leaves, apart, so that a change of state never rewrites it; gone at the end
    facts     what the verdict can be repeated from; kept for facts_hours
    rcpt      one row a recipient, msg.id << 10 | n
    step      every committed change, numbered in commit order: the cursor of all readers
    refusal   what we did not take
    counter   the ledger's counters an account, written in the commit of the change
    bounced   bounces made this hour an account
    pause     suspended scopes
    meta      request_done, and the highest numbers ever given

`waits` keeps recipients out of the index of what is due: 1 suspended, 2 its message is pending or
held. The index is (bucket, lane, due), so that one sender's backlog never hides another's.
"""

from typing import Any

from postweir.storage.sqlite import Connection, Fault, TooNew, trouble

WAITS_NOT, WAITS_PAUSED, WAITS_MESSAGE = 0, 1, 2
WAY_OUT_SINCE = 4  # the schema that has pool, verdict_lifetime_s and hold_until

MIGRATIONS = (
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
    # What the judge was told besides, so that it is told the same about pending mail.
    """
    ALTER TABLE msg ADD COLUMN authenticated INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE msg ADD COLUMN loops INTEGER NOT NULL DEFAULT 0;
    """,
    # What a damaged file is found by and put together from (storage/spool_seal.py).
    """
    ALTER TABLE msg ADD COLUMN recipients INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE msg ADD COLUMN seal BLOB;
    ALTER TABLE rcpt ADD COLUMN seal INTEGER;
    """,
    # What a verdict says of the way out, and when a hold expires by it (else by the setting).
    """
    ALTER TABLE msg ADD COLUMN pool TEXT NOT NULL DEFAULT '';
    ALTER TABLE msg ADD COLUMN verdict_lifetime_s INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE msg ADD COLUMN hold_until INTEGER;
    """,
)
MESSAGE_COLUMNS = (
    "id", "name", "accepted_at", "changed_at", "state", "origin", "account", "sender", "who",
    "mail_from", "helo", "eight_bit", "client", "tls", "verdict", "policy", "reason", "size",
    "digest", "body_file", "lifetime_s", "log", "bounces_1h_max", "return_path", "authenticated",
    "loops", "recipients", "seal", "pool", "verdict_lifetime_s", "hold_until",
)  # fmt: skip


def migrate(connection: Connection) -> None:
    """Bring a file to the schema of this version. Raises StorageFault; TooNew for a newer one.

    Each step is one transaction of new tables and columns with defaults: however much mail is
    queued, it takes an instant, and a crash leaves either schema whole.
    """
    try:
        version = check_version(connection)
        for number in range(version, len(MIGRATIONS)):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(MIGRATIONS[number])
            connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")
    except Fault as fault:
        raise trouble(connection.filename, fault) from fault


def check_version(connection: Connection) -> int:
    """Return a file's schema. Raises Fault; TooNew when a newer Postweir wrote it."""
    found = first(connection, "PRAGMA user_version")
    version = int(found[0]) if found else 0
    if version > len(MIGRATIONS):
        raise TooNew(
            f"{connection.filename}: schema {version} is newer than this Postweir knows "
            f"({len(MIGRATIONS)}); run the version that wrote it, or a newer one"
        )
    return version


def rows(connection: Connection, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return all rows of a query; what is in them is what the schema says."""
    return connection.execute(sql, values).fetchall()


def first(connection: Connection, sql: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
    """Return the first row of a query, or None."""
    return connection.execute(sql, values).fetchone()
