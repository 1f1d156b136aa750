"""Every call of every kind that SQLite makes of its disk fails once: what is answered is so."""

import asyncio
import contextlib
import gc
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.effort import THOROUGH
from tests.harness import wait_for
from tests.spool.given import START_US, accept, name, settle, until
from tests.storage.bad_disk import NAME, BadDisk, Fault

from postweir.runtime.settings import Spool
from postweir.spool.audit import audit
from postweir.spool.ports import Accept, Change, Done, Full, Judged, Quarantine, Request, Settle
from postweir.spool.writer import Writer
from postweir.storage import spool_checkpoint
from postweir.storage.spool_reader import SqliteReader
from postweir.storage.sqlite import StorageFault
from postweir.storage.sqlite_spool import SqliteStore

DAY_US = 86400 * 1_000_000
# A write that leaves nothing, half of itself, or all of itself before it fails; and no room.
WRITES = [("io", 0.0), ("io", 0.5), ("io", 1.0), ("full", 0.0), ("full", 0.5)]
TEXT = b"Subject: large\r\n\r\nbody\r\n"


@dataclass
class Life:
    """One shard's file on the bad disk, and all that was answered about it."""

    folder: Path
    disk: BadDisk
    now_us: int = START_US
    safe: set[str] = field(default_factory=set)
    not_taken: set[str] = field(default_factory=set)
    ended: dict[int, str] = field(default_factory=dict)  # recipient: its committed state
    waits: set[int] = field(default_factory=set)  # recipients whose outcome found no room

    def open(self) -> None:
        """Start a process, and let it show that a write of it lasts."""
        self.disk.ended = False
        self.store = SqliteStore(
            self.folder / "shard-1.db", self.folder / "bodies-1",
            now_us=lambda: self.now_us, settings=Spool(hold_days=14),
        )  # fmt: skip
        self.store.prove()

    def end(self) -> None:
        """The process is gone: nothing more of it reaches the disk."""
        self.disk.end()
        store = getattr(self, "store", None)
        if store is not None:
            store._checkpoint.close()
            with contextlib.suppress(apsw.Error):
                store._db.close()
            store._place.close()
            del self.store

    def commit(self, *changes: Change) -> Sequence[Done]:
        """Commit, and remember what was answered."""
        try:
            answers = self.store.commit(changes)
        except Full:
            for change in changes:
                if isinstance(change, Accept):
                    self.not_taken.add(change.message)
                elif isinstance(change, Settle):
                    self.waits.add(change.recipient)
            raise
        for change, answer in zip(changes, answers, strict=True):
            if isinstance(change, Accept):
                (self.not_taken if answer.reason else self.safe).add(change.message)
            elif isinstance(change, Settle) and (answer.ended or answer.due):
                self.ended[change.recipient] = change.outcome
        return answers

    def check(self) -> None:
        """What was answered is so, in the file that a new process finds."""
        rows = dict(self.store._db.execute("SELECT name, id FROM msg").fetchall())
        states = dict(self.store._db.execute("SELECT id, state FROM rcpt").fetchall())
        tries = dict(self.store._db.execute("SELECT id, tries FROM rcpt").fetchall())
        (whole,) = self.store._db.execute("PRAGMA integrity_check").fetchone()
        assert whole == "ok"
        assert self.safe <= rows.keys(), f"lost: {self.safe - rows.keys()}"
        assert not self.not_taken & rows.keys(), f"taken: {self.not_taken & rows.keys()}"
        for recipient, outcome in self.ended.items():
            assert tries[recipient] == 1, f"{outcome} of {recipient} was forgotten"
            assert (states[recipient] == 0) == (outcome == "deferred")
        for recipient in self.waits:
            assert tries[recipient] == 0, f"{recipient} was settled, and nobody was told so"
        for message in self.safe:
            (state,) = self.store._db.execute(
                "SELECT state FROM msg WHERE name = ?", (message,)
            ).fetchone()
            assert state == 3 or self.store.content(message) is not None
        reader = SqliteReader(self.folder / "shard-1.db", shard=1)
        try:
            assert audit({1: reader.ledger()}).residual == 0
        finally:
            reader.close()

    def body_file(self, file: str) -> dict[str, Any]:
        """Return what an accept says of a body in a file, and make that file."""
        (self.folder / "bodies-1" / file).write_bytes(TEXT)
        check = hashlib.blake2b(TEXT, digest_size=16).digest()
        return {"body": None, "body_file": file, "length": len(TEXT), "check": check}


@pytest.fixture
def disk() -> Iterator[BadDisk]:
    before = apsw.vfs_names()[0]
    one = BadDisk()
    apsw.set_default_vfs(NAME)
    try:
        yield one
    finally:
        one.plan(None)
        gc.collect()  # a connection that nobody could close ends here, on a disk that works
        apsw.set_default_vfs(before)
        one.unregister()


# What is done while one call fails. Before it three messages are safe, one pending, one held.


def _accept(life: Life) -> None:
    life.commit(accept(10, "a@far.example", "b@near.example"), accept(11, body=b"x" * 9000))


def _accept_file(life: Life) -> None:
    life.commit(accept(10, **life.body_file("f10")), accept(11, **life.body_file("f11")))


def _deliver(life: Life) -> None:
    life.commit(settle(1 << 10), settle(2 << 10), accept(10))


def _defer(life: Life) -> None:
    life.commit(settle(1 << 10, "deferred"))


def _bounce(life: Life) -> None:
    life.commit(settle(1 << 10, "failed"), settle(3 << 10, "failed"))


def _judge(life: Life) -> None:
    life.commit(Judged(name(4), accept(1).verdict, b"late"))


def _request(life: Life) -> None:
    life.commit(Request(1, "suspend", "domain=far.example", "", "", START_US))
    life.commit(Request(2, "drop", name(5), "", "", START_US))


def _quarantine(life: Life) -> None:
    life.commit(Quarantine(name(2), "check"))


def _upkeep(life: Life) -> None:
    life.now_us += 100 * DAY_US
    while life.store.upkeep():
        pass


def _prove(life: Life) -> None:
    life.store.prove()


def _checkpoint(life: Life) -> None:
    """The writer's own pass, after a commit."""
    life.store._checkpoint._tidy = True
    life.commit(accept(10))
    life.store._checkpoint._tidy = True
    life.commit(accept(11))


def _restart(life: Life) -> None:
    life.end()
    life.open()


ACTS: list[Callable[[Life], None]] = [
    _accept, _accept_file, _deliver, _defer, _bounce, _judge, _request, _quarantine, _upkeep,
    _prove, _checkpoint, _restart,
]  # fmt: skip


@pytest.fixture
def before(tmp_path, disk) -> Path:
    """A folder to copy: what every act finds."""
    life = Life(tmp_path / "before", disk)
    life.folder.mkdir()
    life.open()
    life.commit(
        accept(1), accept(2, body=b"y" * 20000), accept(3, **life.body_file("f3")),
        accept(4, verdict=None), accept(5, verdict=HOLD_),
    )  # fmt: skip
    life.end()
    return life.folder


HOLD_ = type(accept(1).verdict)("hold", rule="r")


def _born(before: Path, disk: BadDisk, folder: Path) -> Life:
    shutil.copytree(before, folder)
    disk.platters.clear()
    disk.plan(None)
    life = Life(folder, disk, safe={name(n) for n in range(1, 6)})
    life.open()
    disk.plan(None)
    return life


def _counted(act: Callable[[Life], None], before: Path, disk: BadDisk, folder: Path) -> dict:
    """How many calls of each kind an act makes."""
    life = _born(before, disk, folder)
    act(life)
    found = dict(disk.counts)
    life.end()
    shutil.rmtree(folder)
    return found


def _faults(counts: dict[str, int]) -> Iterator[Fault]:
    for call, count in counts.items():
        for at in range(1, count + 1):
            if call != "write":
                yield Fault(call, at)
            elif at > count - 2:  # the frame that commits
                yield from (Fault(call, at, error, part) for error, part in WRITES)
            else:
                error, part = WRITES[at % len(WRITES)]
                yield Fault(call, at, error, part)


# A store that could not be opened leaves a connection, whose end meets the same disk.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__[1:])
def test_each_call_fails_once(act, before, disk, tmp_path):
    """Then the process ends, by itself or not; it starts anew, works, and loses the power."""
    counts = _counted(act, before, disk, tmp_path / "count")
    assert counts
    met = 0
    # In a hurry every fourth: other ones in each act.
    some = slice(len(act.__name__) % 4, None, 1 if THOROUGH else 4)
    for n, fault in enumerate(list(_faults(counts))[some]):
        life = _born(before, disk, tmp_path / f"{n}")
        disk.plan(fault)
        full = False
        try:
            act(life)
        except Full:
            full = True
            assert fault.error == "full", "no room is what only SQLITE_FULL says"
        except StorageFault:
            assert not disk.again, "tried again after a failed sync"
        else:
            assert "sync" not in {call for call, _ in disk.failed}, "answered after a failed sync"
        met += bool(disk.failed)
        disk.plan(None)
        if full and n % 2:  # it goes on
            life.commit(accept(20))
        life.end()
        _power_is_lost_in_a_copy(life, disk)
        life.open()
        life.check()
        life.commit(accept(21), accept(22))
        life.end()
        disk.lose_power()
        life.open()
        life.check()
        life.end()
        shutil.rmtree(life.folder)

    assert met >= n / 2, "most planted faults were never met"


def _power_is_lost_in_a_copy(life: Life, disk: BadDisk) -> None:
    """As if the power had gone with the process."""
    copy = life.folder.with_name(life.folder.name + "-power")
    shutil.copytree(life.folder, copy)
    other = Life(copy, disk, life.now_us, life.safe, life.not_taken, life.ended, life.waits)
    for path, platter in disk.platters.items():
        if not path.endswith("-shm"):
            (copy / Path(path).name).write_bytes(platter.image)
    (copy / "shard-1.db-shm").unlink(missing_ok=True)
    kept = disk.platters
    disk.platters = {}
    other.open()
    other.check()
    other.end()
    disk.platters = kept
    shutil.rmtree(copy)


def _the_thread_has_begun(life):
    """Wait until it has taken its wake: then its pass before is done."""
    checkpoint = life.store._checkpoint
    wait_for(lambda: not checkpoint._wake.is_set() or checkpoint._fault is not None, 30, "its turn")


@pytest.mark.parametrize("call", ["sync", "write", "read"])
def test_each_call_of_the_checkpoint_thread_fails_once(call, before, disk, tmp_path, monkeypatch):
    """The writer hears of it with its next commit, and answers nothing more as safe."""
    monkeypatch.setattr(spool_checkpoint, "PAGES_WAKE", 10)
    monkeypatch.setattr(spool_checkpoint, "PAGES_REST", 2)
    ended = 0
    for at in range(1, 30, 1 if call == "sync" else 6):
        for error in ("io", "full") if call == "write" else ("io",):
            life = _born(before, disk, tmp_path / f"{at}-{error}")
            disk.plan(Fault(call, at, error, 0.5, thread="checkpoint"))
            for n in range(10, 50):
                try:
                    life.commit(accept(n, body=b"z" * 5000))
                except StorageFault:
                    ended += 1
                    break
                _the_thread_has_begun(life)
            met = bool(disk.failed)
            disk.plan(None)
            life.end()
            _power_is_lost_in_a_copy(life, disk)
            life.open()
            life.check()
            life.commit(accept(60))
            life.end()
            disk.lose_power()
            life.open()
            life.check()
            life.end()
            shutil.rmtree(life.folder)
        if not met:
            break

    assert ended


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault("sync", at) for at in (1, 2, 4, 7)),
        *(Fault("write", at, error, 0.5) for at in (3, 40, 200) for error in ("io", "full")),
        *(Fault("write", at, "full", lasting=True) for at in (1, 90)),
    ],
    ids=str,
)
async def test_the_writer_answers_only_what_lasts(fault, before, disk, tmp_path):
    """Everything that it answers, through loop and thread, is so when the power has gone."""
    life = _born(before, disk, tmp_path / "life")
    life.end()
    said: list[tuple[Change, Done]] = []
    faults: list[BaseException] = []

    def open_store() -> SqliteStore:
        disk.ended = False
        life.store = SqliteStore(life.folder / "shard-1.db", life.folder / "bodies-1")
        return life.store

    writer: Writer[Any] = Writer(
        open_store,
        on_done=lambda done: said.extend((change, answer) for change, _, answer in done),
        on_room=lambda *_: None,
        on_fault=faults.append,
    )
    writer.start()
    await until(lambda: writer.latch == "")
    disk.plan(fault)
    changes: list[Change] = [accept(n) for n in range(10, 40)]
    changes[5:5] = [settle(1 << 10), settle(2 << 10, "deferred"), settle(3 << 10, "failed")]
    for n, change in enumerate(changes):
        writer.put([(change, None)])
        if n % 4 == 0:
            await asyncio.sleep(0.002)
    if fault.lasting:
        await until(lambda: writer.latch == "full")
        waits = {type(c) for c in changes} - {type(c) for c, _ in said}
        assert fault.at > 1 or waits == {Settle}, "outcomes that were not recorded were answered"
        disk.plan(None)  # somebody made room
    await until(lambda: faults or len(said) == len(changes))
    assert bool(faults) == (fault.error == "io" and bool(disk.failed))
    assert not disk.again, "tried again after a failed sync"
    disk.plan(None)
    if not faults:
        await writer.close()
        del life.store
    life.end()
    for change, answer in said:
        if isinstance(change, Accept):
            (life.not_taken if answer.reason else life.safe).add(change.message)
        elif isinstance(change, Settle):
            life.ended[change.recipient] = change.outcome
    _power_is_lost_in_a_copy(life, disk)
    life.open()
    life.check()
    life.end()
