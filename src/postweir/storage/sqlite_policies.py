"""Keeps the policies that were deployed, and each deployment, in `tables.db`: written once.

A policy, a set and a facts schema are named after their bytes, and looked at again when they are
read. Triggers refuse what would change one. Only sets go, for a list of hosts that is renewed each
hour would fill any disk: those that no policy names which was deployed within `KEEP_US`, nor any of
the last ten deployments.
"""

import hashlib
from collections.abc import Sequence

from postweir.desk.ports import KeptPolicy, Note
from postweir.judge.ports import Deployment, Loadable
from postweir.policy.bundle import from_canonical, name_of, set_name
from postweir.runtime.frames import Torn
from postweir.storage import sqlite
from postweir.storage.sqlite_tables import KEEP_US, SqliteTables

SINCE = 2  # the migration that made these tables
PAGE = 1000  # deployments that are told of: three years of one a day
PRUNE_SETS = 20  # at once: a write stays short
COLUMNS = "number, verb, policy, at_us, by, reason"


class SqlitePolicies:
    """The policies in the operator's tables; every method may be called on any thread."""

    def __init__(self, tables: SqliteTables) -> None:
        self._tables = tables

    def deploy(self, verb: str, policy: Loadable, source: str, schema: bytes, note: Note) -> int:
        """Keep a policy with its sets and facts schema, and put it in force; returns the number."""
        assert all(set_name(data) == name for name, data in policy.sets.items())
        number = 0

        def change(connection: sqlite.Connection) -> bool:
            nonlocal number
            for name, data in policy.sets.items():
                _once(connection, "policy_set", (name, data))
            _once(connection, "facts_schema", (_schema_name(schema), schema))
            kept = (policy.policy, policy.canonical, source, note.at_us, note.by)
            _once(connection, "policy", kept)
            connection.execute(
                "insert into deployment (verb, policy, at_us, by, reason) values (?, ?, ?, ?, ?)",
                (verb, policy.policy, note.at_us, note.by, note.reason),
            )
            number = connection.last_insert_rowid()
            _prune(connection, note.at_us - KEEP_US)
            return True

        self._tables.write(change, note, pictured=False)
        return number

    def last(self) -> Deployment | None:
        """Return the deployment that counts, None before the first."""

        def ask(connection: sqlite.Connection) -> Deployment | None:
            rows = connection.execute(
                f"select {COLUMNS} from deployment order by number desc limit 1"  # noqa: S608
            )
            return next((Deployment(*row) for row in rows), None)

        return self._tables.read(ask, None, since=SINCE)

    def deployments(self) -> Sequence[Deployment]:
        """Return the last 1,000 deployments, oldest first."""

        def ask(connection: sqlite.Connection) -> Sequence[Deployment]:
            rows = connection.execute(
                f"select {COLUMNS} from deployment order by number desc limit ?",  # noqa: S608
                (PAGE,),
            )
            return [Deployment(*row) for row in rows][::-1]

        return self._tables.read(ask, [], since=SINCE)

    def kept(self, policy: str) -> KeptPolicy | None:
        """Return a policy as it was first deployed, None when it never was. Raises OSError."""

        def ask(connection: sqlite.Connection) -> KeptPolicy | None:
            return _kept(connection, policy)

        return self._tables.read(ask, None, since=SINCE)

    def loadable(self, policy: str) -> Loadable | None:
        """Return it with its sets. None: it was never deployed, or its sets are no longer kept."""

        def ask(connection: sqlite.Connection) -> Loadable | None:
            kept = _kept(connection, policy)
            if kept is None:
                return None
            bundle = from_canonical(kept.canonical)
            sets = {one.hash: _set(connection, one.hash) for one in bundle.sets}
            whole = {name: data for name, data in sets.items() if data is not None}
            if len(whole) < len(sets):
                return None
            same = bundle.canonical == kept.canonical
            return Loadable(bundle, whole, b"" if same else kept.canonical)

        return self._tables.read(ask, None, since=SINCE)


def _kept(connection: sqlite.Connection, policy: str) -> KeptPolicy | None:
    row = connection.execute("select * from policy where hash = ?", (policy,)).fetchone()
    if row is None:
        return None
    kept = KeptPolicy(*row)
    if name_of(kept.canonical) != policy:
        raise Torn(f"{policy} is not what it is named after")
    return kept


def _set(connection: sqlite.Connection, name: str) -> bytes | None:
    row = connection.execute("select data from policy_set where hash = ?", (name,)).fetchone()
    if row is not None and set_name(row[0]) != name:
        raise Torn(f"{name} is not what it is named after")
    return row[0] if row is not None else None


def _schema_name(data: bytes) -> str:
    return "fs_" + hashlib.sha256(data).hexdigest()


def _once(connection: sqlite.Connection, table: str, row: tuple[object, ...]) -> None:
    """Write what is named after its bytes, unless it is there."""
    found = connection.execute(f"select 1 from {table} where hash = ?", row[:1])  # noqa: S608
    if found.fetchone() is None:
        places = ", ".join("?" * len(row))
        connection.execute(f"insert into {table} values ({places})", row)  # noqa: S608


def _prune(connection: sqlite.Connection, before_us: int) -> None:
    """Delete some of the sets that only policies use which were last deployed long ago."""
    connection.execute(
        "delete from policy_set where hash in (select hash from policy_set where hash not in"
        " (select json_extract(used.value, '$.hash') from policy,"
        "  json_each(cast(policy.canonical as text), '$.sets') as used where policy.hash in"
        "  (select policy from deployment where at_us >= ? union"
        "   select policy from (select policy from deployment order by number desc limit 10)))"
        " limit ?)",
        (before_us, PRUNE_SETS),
    )
