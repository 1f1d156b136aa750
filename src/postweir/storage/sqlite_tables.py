"""Keeps accounts, credentials, decided senders, requests and the audit log in `tables.db`.

Several processes write it, each in short transactions; edge, judge and shards read it. It is
never on the way to a 250. A connection lives as long as one call: opening costs a fraction of a
millisecond, and no thread is left holding a snapshot or a file that was replaced by a backup.
"""

import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from postweir.desk.ports import Note
from postweir.identity.sender import Account, Credential, Directory, SenderRecord
from postweir.runtime import frames
from postweir.spool.ports import Request
from postweir.storage import sqlite
from postweir.storage.sqlite import StorageFault

WAIT_S = 5.0  # for another writer's lock: writes take milliseconds, and nobody is mail
PAGE = 1000  # requests read at once: a shard keeps up, a page stays small
KEEP_US = 35 * 86_400 * 1_000_000  # requests and audit log, as long as the journal
KEEP_ROWS = 1000  # whatever their age: a clock that jumped ahead must not empty them
PRUNE_ROWS = 500  # at once: a write stays short

V = TypeVar("V")

# Rows of a table that are written once. Without the first trigger `insert or replace` would pass.
_STAYS = """
    create trigger {0}_replaced before insert on {0}
        when exists (select 1 from {0} where {1} = new.{1})
        begin select raise(abort, '{0}: what is written stays'); end;
    create trigger {0}_changed before update on {0}
        begin select raise(abort, '{0}: what is written stays'); end;
    create trigger {0}_deleted before delete on {0}
        begin select raise(abort, '{0}: what is written stays'); end;
"""

# Numbered by their place; `user_version` says how many a file has had. Columns are only added,
# so that a process one version older still reads.
MIGRATIONS = (
    """
    create table picture (version integer not null);
    insert into picture values (1);
    create table account (
        name text primary key, suspended integer not null default 0,
        settings text not null, created_us integer not null
    ) strict, without rowid;
    create table credential (
        username text primary key, account text not null, keyed_hash blob not null,
        salt blob not null, iterations integer not null, stored_key blob not null,
        server_key blob not null, created_us integer not null,
        revoked_us integer not null default 0
    ) strict, without rowid;
    create table sender (
        key text primary key, state text not null, reason text not null, by text not null,
        at_us integer not null
    ) strict, without rowid;
    create table request (
        number integer primary key autoincrement, verb text not null, scope text not null,
        reason text not null, by text not null, at_us integer not null, until_us integer
    ) strict;
    create table audit_log (
        number integer primary key autoincrement, at_us integer not null, by text not null,
        verb text not null, object text not null, reason text not null
    ) strict;
    """,
    # What a policy says never changes: its name is the hash of it. Sets may be large, so those that
    # no late deployment names may go (`sqlite_policies`); nothing else does.
    "".join((
    """
    create table policy (
        hash text primary key, canonical blob not null, source text not null,
        at_us integer not null, by text not null
    ) strict;
    create table policy_set (hash text primary key, data blob not null) strict;
    create table facts_schema (hash text primary key, data blob not null) strict;
    create table deployment (
        number integer primary key autoincrement, verb text not null, policy text not null,
        at_us integer not null, by text not null, reason text not null
    ) strict;
    create trigger policy_set_deleted before delete on policy_set when exists (
        select 1 from policy, json_each(cast(policy.canonical as text), '$.sets') as used
        where json_extract(used.value, '$.hash') = old.hash and policy.hash in
            (select policy from deployment order by number desc limit 10)
    ) begin select raise(abort, 'a set that a late deployment names stays'); end;
    """,
    _STAYS.format("policy", "hash"), _STAYS.format("facts_schema", "hash"),
    _STAYS.format("deployment", "number"),
    _STAYS.partition("create trigger {0}_deleted")[0].format("policy_set", "hash"))),
)  # fmt: skip


class SqliteTables:
    """The operator's tables in one file; every method may be called on any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kinds: dict[str, Any] = typing.get_type_hints(Account)
        self._seen = False  # once there, a file that is gone is trouble and not "no accounts"

    def directory(self, newer_than: int) -> Directory | None:
        """Return the picture now, or None when its version is `newer_than`."""

        def ask(connection: sqlite.Connection) -> Directory | None:
            version = _number(connection, "select version from picture")
            if version == newer_than:
                return None
            return Directory(
                version=version,
                accounts={name: self._account(name, *row) for name, *row in connection.execute(
                    "select name, suspended, settings, created_us from account")},
                credentials={row[1]: Credential(*row) for row in connection.execute(
                    "select account, username, keyed_hash, salt, iterations, stored_key,"
                    " server_key, created_us, revoked_us from credential")},
                senders={row[0]: SenderRecord(*row) for row in connection.execute(
                    "select key, state, reason, by, at_us from sender")},
            )  # fmt: skip

        return self.read(ask, None if newer_than == 0 else Directory(version=0))

    def add_account(self, name: str, settings: Mapping[str, Any], note: Note) -> bool:
        """Add an account with these settings, others at their defaults; False: it exists."""

        def change(connection: sqlite.Connection) -> bool:
            connection.execute(
                "insert or ignore into account (name, settings, created_us) values (?, ?, ?)",
                (name, frames.json(dict(settings)).decode(), note.at_us),
            )
            return connection.changes() == 1

        return self.write(change, note)

    def set_account(self, name: str, settings: Mapping[str, Any], note: Note) -> bool:
        """Change these settings of an account; False: there is none."""

        def change(connection: sqlite.Connection) -> bool:
            found = connection.execute("select settings from account where name = ?", (name,))
            row = found.fetchone()
            if row is None:
                return False
            merged = {**frames.from_json(row[0].encode(), dict[str, Any]), **settings}
            connection.execute(
                "update account set settings = ? where name = ?",
                (frames.json(merged).decode(), name),
            )
            return True

        return self.write(change, note)

    def suspend_account(self, name: str, suspended: bool, note: Note) -> bool:
        """Suspend an account or lift that; False: there is none."""

        def change(connection: sqlite.Connection) -> bool:
            connection.execute(
                "update account set suspended = ? where name = ?", (int(suspended), name)
            )
            return connection.changes() == 1

        return self.write(change, note)

    def add_credential(self, credential: Credential, note: Note) -> bool:
        """Add a credential; False: the user name is taken."""
        made = credential

        def change(connection: sqlite.Connection) -> bool:
            connection.execute(
                "insert or ignore into credential (account, username, keyed_hash, salt,"
                " iterations, stored_key, server_key, created_us) values (?, ?, ?, ?, ?, ?, ?, ?)",
                (made.account, made.username, made.keyed_hash, made.salt, made.iterations,
                 made.stored_key, made.server_key, made.created_us),
            )  # fmt: skip
            return connection.changes() == 1

        return self.write(change, note)

    def revoke_credential(self, username: str, note: Note) -> bool:
        """Put a credential out of force; False: there is none in force."""

        def change(connection: sqlite.Connection) -> bool:
            connection.execute(
                "update credential set revoked_us = ? where username = ? and revoked_us = 0",
                (note.at_us, username),
            )
            return connection.changes() == 1

        return self.write(change, note)

    def decide_sender(self, state: str, note: Note) -> None:
        """Record that the sender in `note.object` is "stopped" or "allowed"."""
        assert state in ("stopped", "allowed")

        def change(connection: sqlite.Connection) -> bool:
            connection.execute(
                "insert into sender values (?, ?, ?, ?, ?) on conflict (key) do update set"
                " state = excluded.state, reason = excluded.reason, by = excluded.by,"
                " at_us = excluded.at_us",
                (note.object, state, note.reason, note.by, note.at_us),
            )
            return True

        self.write(change, note)

    def request(self, verb: str, scope: str, note: Note, until_us: int | None = None) -> int:
        """Write a request for all shards; returns its number."""
        number = 0

        def change(connection: sqlite.Connection) -> bool:
            nonlocal number
            connection.execute(
                "insert into request (verb, scope, reason, by, at_us, until_us)"
                " values (?, ?, ?, ?, ?, ?)",
                (verb, scope, note.reason, note.by, note.at_us, until_us),
            )
            number = connection.last_insert_rowid()
            return True

        self.write(change, note, pictured=False)
        return number

    def after(self, number: int) -> Sequence[Request]:
        """Return requests with a higher number, oldest first, at most 1,000."""

        def ask(connection: sqlite.Connection) -> Sequence[Request]:
            rows = connection.execute(
                "select number, verb, scope, reason, by, at_us, until_us from request"
                " where number > ? order by number limit ?",
                (number, PAGE),
            )
            return [Request(*row) for row in rows]

        return self.read(ask, [])

    def note(self, note: Note) -> None:
        """Write a line of the audit log alone: what it tells of was done elsewhere."""
        self.write(lambda _: True, note, pictured=False)

    def notes(self, after: int, count_max: int) -> Sequence[tuple[int, Note]]:
        """Return numbered lines of the audit log after that number, oldest first."""

        def ask(connection: sqlite.Connection) -> Sequence[tuple[int, Note]]:
            rows = connection.execute(
                "select number, at_us, by, verb, object, reason from audit_log"
                " where number > ? order by number limit ?",
                (after, count_max),
            )
            return [(row[0], Note(*row[1:])) for row in rows]

        return self.read(ask, [])

    def _account(self, name: str, suspended: int, settings: str, created_us: int) -> Account:
        """Return an account from its row; what a newer version has added is left out."""
        kept = frames.from_json(settings.encode(), dict[str, Any])
        known = {k: frames.convert(v, self._kinds[k]) for k, v in kept.items() if k in self._kinds}
        known |= {"name": name, "suspended": bool(suspended), "created_us": created_us}
        return Account(**known)

    def write(
        self, change: Callable[[sqlite.Connection], bool], note: Note, *, pictured: bool = True
    ) -> bool:
        """Do one change with its note in one transaction; nothing is kept when it says False.

        `pictured` changes raise the version that `directory` compares.
        """
        with self._opened(readonly=False) as connection:
            connection.execute("begin immediate")
            try:
                _migrate(connection)
                done = change(connection)
                if done:
                    connection.execute(
                        "insert into audit_log (at_us, by, verb, object, reason)"
                        " values (?, ?, ?, ?, ?)",
                        (note.at_us, note.by, note.verb, note.object, note.reason),
                    )
                    _prune(connection, note.at_us - KEEP_US)
                    if pictured:
                        connection.execute("update picture set version = version + 1")
                connection.execute("commit" if done else "rollback")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("rollback")
                raise
            # The door turns automatic checkpoints off; here nobody else would make one.
            connection.execute("pragma wal_checkpoint(passive)").fetchall()
        return done

    def read(self, ask: Callable[[sqlite.Connection], V], empty: V, *, since: int = 1) -> V:
        """Return what one snapshot of the file says; `empty` before anybody wrote anything.

        `since` is the migration that made the tables which are asked.
        """
        if not self._path.exists():
            return self._none(empty)
        with self._opened(readonly=True) as connection:
            connection.execute("begin")
            version = _version(connection)
            if not version:
                return self._none(empty)
            self._seen = True
            return ask(connection) if version >= since else empty

    def _none(self, empty: V) -> V:
        """Return `empty`; raises StorageFault when there were tables before.

        While a backup is put in place, or after somebody removed the file, those who hold a
        picture keep it: nobody's mail is refused for that.
        """
        if self._seen:
            raise StorageFault(f"{self._path}: the tables are gone; put the file back")
        return empty

    @contextmanager
    def _opened(self, *, readonly: bool) -> Iterator[sqlite.Connection]:
        if not readonly:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = sqlite.connect(self._path, readonly=readonly, wait_s=WAIT_S, checksums=False)
        try:
            yield connection
        except (sqlite.Fault, frames.Torn, frames.Bad) as fault:
            raise StorageFault(f"{self._path}: {fault}") from fault
        finally:
            connection.close()


def _version(connection: sqlite.Connection) -> int:
    return _number(connection, "pragma user_version")


def _number(connection: sqlite.Connection, question: str) -> int:
    ((found,),) = connection.execute(question).fetchall()
    assert isinstance(found, int)
    return found


def _prune(connection: sqlite.Connection, before_us: int) -> None:
    """Delete what is too old of requests and audit log, oldest first, some at a time."""
    for table in ("request", "audit_log"):
        connection.execute(
            f"delete from {table} where number in (select number from {table}"  # noqa: S608
            f" where number <= (select max(number) from {table}) - ? order by number limit ?)"
            " and at_us < ?",
            (KEEP_ROWS, PRUNE_ROWS, before_us),
        )


def _migrate(connection: sqlite.Connection) -> None:
    """Bring the file to this version, inside the caller's transaction; a newer one is left."""
    had = _version(connection)
    for number, migration in enumerate(MIGRATIONS[had:], had + 1):
        connection.execute(migration)
        connection.execute(f"pragma user_version = {number}")
