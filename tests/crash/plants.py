"""Bugs that are planted in a life, to see that the harness finds them."""

import contextlib
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from tests.crash.life import Unfit

from postweir.edge import bodies
from postweir.spool.ports import Accept, Settle
from postweir.spool.states import MessageState
from postweir.storage import spool_checkpoint, spool_place, sqlite_spool
from postweir.storage.spool_batch import Batch
from postweir.storage.spool_rows import Rows
from postweir.storage.spool_values import Answer
from postweir.storage.sqlite import Connection


def plant(name: str) -> Callable[[], None]:
    """Return what plants that bug in the process that calls it. Raises Unfit: it is not ours."""
    if name and name not in PLANTS:
        raise Unfit(f"it knows no bug {name!r}")
    return PLANTS.get(name, lambda: None)


def answer_early() -> None:
    """Answers go out before their commit: it comes with the next one."""

    @contextlib.contextmanager
    def early(self: Any) -> Iterator[None]:
        if self._db.in_transaction:
            self._db.execute("COMMIT")
        self._db.execute("BEGIN IMMEDIATE")
        yield

    sqlite_spool.SqliteStore._transaction = early  # type: ignore[method-assign]


def sync_normal() -> None:
    """Commits are not synced, only checkpoints are."""

    def careless(connect: Callable[..., Connection]) -> Callable[..., Connection]:
        def opened(*values: Any, **words: Any) -> Connection:
            connection = connect(*values, **words)
            connection.execute("PRAGMA synchronous=NORMAL")
            return connection

        return opened

    spool_checkpoint.connect = careless(spool_checkpoint.connect)
    init = sqlite_spool.SqliteStore.__init__
    init.__kwdefaults__["opener"] = careless(init.__kwdefaults__["opener"])


def no_directory_sync() -> None:
    """A body's file is synced, its name is not."""

    def sync(self: Any) -> None:
        os.fsync(self._descriptor)
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    bodies.Spill._sync = sync  # type: ignore[method-assign]


def no_folder_sync() -> None:
    """The spool's folder is made, and its name is not synced."""
    spool_place.files = SimpleNamespace(sync_folder=lambda _: None)  # type: ignore[assignment]


def outcome_forgotten() -> None:
    """One outcome in fifty is answered, and not written."""
    settle = Batch.settle

    def careless(self: Batch, one: Settle) -> Answer:
        return Answer() if one.recipient >> 10 & 63 == 5 else settle(self, one)

    Batch.settle = careless  # type: ignore[method-assign]


def bounce_forgotten() -> None:
    """A failure is final, and nobody is told."""
    Batch._bounce = lambda *_: None  # type: ignore[method-assign]


def wrong_bytes() -> None:
    """Of one message in fifty the body is not what came."""
    insert = Rows.insert

    def careless(self: Rows, a: Accept, state: MessageState) -> Answer:
        answer = insert(self, a, state)
        if answer.number & 63 == 5 and a.body:
            number, added, _ = self._bodies[-1]
            self._bodies[-1] = (number, added, a.body[:-1] + bytes([a.body[-1] ^ 1]))
        return answer

    Rows.insert = careless  # type: ignore[method-assign]


PLANTS = {
    "answer-early": answer_early,
    "sync-normal": sync_normal,
    "no-directory-sync": no_directory_sync,
    "no-folder-sync": no_folder_sync,
    "outcome-forgotten": outcome_forgotten,
    "bounce-forgotten": bounce_forgotten,
    "wrong-bytes": wrong_bytes,
}
