"""A shard's file: its faults, what it finds damaged, what it forgets, and how it is read."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.spool.given import HOLD, REFUSE, START_US, Clock, accept, name, settle

from postweir.judge.ports import Used
from postweir.mail.reply import Reply
from postweir.policy.verdict import Verdict
from postweir.runtime import clock
from postweir.runtime.frames import pack, unpack
from postweir.runtime.settings import Spool
from postweir.spool.audit import audit
from postweir.spool.ports import (
    Away,
    Full,
    Judged,
    MessageRow,
    Quarantine,
    Reached,
    Read,
    Refusal,
    Request,
    Step,
)
from postweir.spool.questions import answer
from postweir.spool.states import bucket_of, lane_of
from postweir.storage.spool_checkpoint import PAGES_WAKE
from postweir.storage.spool_reader import SqliteReader
from postweir.storage.spool_schema import MESSAGE_COLUMNS, MIGRATIONS
from postweir.storage.sqlite import Fault, StorageFault, connect
from postweir.storage.sqlite_spool import SqliteStore

STATEMENTS = 43  # of a commit of `mixed`; one more is not met
FAR, LANE = bucket_of("far.example"), lane_of("acme|sasl|joe")


class Faulty:
    """A connection whose statements fail when they are told to."""

    def __init__(self, real) -> None:
        self._real = real
        self.fail_on = ""  # a statement that begins so raises
        self.fail_at = -1  # so many statements from now one raises
        self.result = 0

    def __getattr__(self, called):
        return getattr(self._real, called)

    def execute(self, sql, *values):
        self._look(sql)
        return self._real.execute(sql, *values)

    def executemany(self, sql, *values):
        self._look(sql)
        return self._real.executemany(sql, *values)

    def _look(self, sql):
        if self.fail_at >= 0:
            self.fail_at -= 1
            if self.fail_at < 0:
                fault = Fault(f"planted at {sql}")
                fault.result = self.result
                raise fault
        if self.fail_on and sql.startswith(self.fail_on):
            fault = Fault(f"planted in {self.fail_on}")
            fault.result = self.result
            raise fault


class Here:
    """One shard's file, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, Clock()
        self.faulty: Faulty | None = None
        self.settings = Spool()
        self.open()

    def open(self) -> None:
        def opener(path):
            self.faulty = Faulty(connect(path))
            return self.faulty

        self.store = SqliteStore(
            self.folder / "shard-1.db", self.folder / "bodies-1",
            now_us=self.clock, opener=opener, settings=self.settings,
        )  # fmt: skip

    def again(self) -> None:
        """End as a crash does, but for the file handles, and open anew."""
        self.crash()
        self.open()

    def crash(self) -> None:
        self.store._checkpoint.close()
        self.faulty._real.close()
        self.store._place.close()

    def body_file(self, text: bytes = b"Subject: large\r\n\r\nbody\r\n", file: str = "f1"):
        (self.folder / "bodies-1" / file).write_bytes(text)
        check = hashlib.blake2b(text, digest_size=16).digest()
        return {"body": None, "body_file": file, "length": len(text), "check": check}

    def raw(self, sql: str, *values):
        return self.faulty._real.execute(sql, values).fetchall()

    def reader(self) -> SqliteReader:
        return SqliteReader(self.folder / "shard-1.db", shard=1)

    def residual(self) -> int:
        reader = self.reader()
        try:
            return audit({1: reader.ledger()}).residual
        finally:
            reader.close()


@pytest.fixture
def here(tmp_path):
    one = Here(tmp_path)
    yield one
    one.faulty.fail_on = ""
    one.crash()


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT INTO msg", "INSERT INTO step", "COMMIT"])
def test_no_room_rolls_back_and_goes_on(here, statement):
    """Nothing of the batch is kept, the next one is; nobody's number is given twice."""
    here.store.commit([accept(1)])
    here.faulty.fail_on, here.faulty.result = statement, 13
    with pytest.raises(Full):
        here.store.commit([accept(2), accept(3)])
    here.faulty.fail_on = ""
    (done,) = here.store.commit([accept(4)])

    assert done.number == 2
    assert [row[0] for row in here.raw("SELECT name FROM msg")] == [name(1), name(4)]
    assert here.store.queued() == 2
    assert here.residual() == 0


@pytest.mark.parametrize("result", [10, 10 | 4 << 8, 11, 5])
def test_an_error_of_the_disk_is_not_survived(here, result):
    """EIO, a failed sync, damage, a foreign lock: a StorageFault, and never Full."""
    here.faulty.fail_on, here.faulty.result = "COMMIT", result

    with pytest.raises(StorageFault) as found:
        here.store.commit([accept(1)])
    assert not isinstance(found.value, Full)


def test_no_room_for_a_rollback_is_not_survived(here):
    """When the rollback fails too, nobody knows what is kept."""
    here.faulty.fail_on, here.faulty.result = "COMMIT", 13
    real = here.faulty._look

    def look(sql):
        real(sql)
        if sql == "ROLLBACK":
            raise Fault("planted")

    here.faulty._look = look
    with pytest.raises(StorageFault):
        here.store.commit([accept(1)])
    here.faulty._look = real
    here.raw("ROLLBACK")


def test_what_is_committed_is_found_again(here):
    """Messages, outcomes, waits, requests and counters, after the process has gone."""
    done = here.store.commit([accept(n) for n in range(1, 6)])
    rows = [d.number << 10 for d in done]
    here.store.commit([settle(rows[0]), settle(rows[1], "deferred")])
    here.store.commit([Request(7, "suspend", "domain=other.example", "", "", 0)])
    here.again()

    assert here.store.request_done() == 7
    assert here.store.queued() == 4
    due = here.store.due(FAR, LANE, START_US, frozenset(), 10)
    assert [out.recipient for out in due] == rows[2:]
    assert here.store.next_due(FAR, LANE, START_US) == START_US + 300_000_000
    (more,) = here.store.commit([accept(9)])
    assert more.number > max(d.number for d in done)
    assert here.residual() == 0


@pytest.mark.parametrize("table", ["rcpt", "msg"])
def test_a_row_deleted_by_hand_shows(here, table):
    """The ledger's residual is what is missing; without that it is 0."""
    here.store.commit([accept(1), accept(2, verdict=HOLD), accept(3, verdict=None)])

    assert here.residual() == 0
    here.raw(f"DELETE FROM {table} WHERE id = (SELECT min(id) FROM {table})")
    assert here.residual() == 1


def test_a_counter_changed_by_hand_shows(here):
    """Too many is as wrong as too few."""
    here.store.commit([accept(1)])
    here.raw("UPDATE counter SET delivered = delivered + 1")

    assert here.residual() == 1


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        ("UPDATE body SET data = zeroblob(length(data))", "check"),
        ("UPDATE body SET data = substr(data, 1, 3)", "length"),
        ("UPDATE body SET data = NULL", "missing"),
        ("DELETE FROM body", "missing"),
    ],
)
def test_a_damaged_body_is_quarantined(here, damage, what):
    """It is held, with a step that says why; it is never due again by itself."""
    here.store.commit([accept(1)])
    here.raw(damage)

    assert here.store.content(name(1)) is None
    assert here.store.quarantined() == [Quarantine(name(1), what)]
    assert here.store.quarantined() == []
    reader = here.reader()
    row, steps = reader.message(name(1)), reader.timeline(name(1))
    reader.close()
    assert (row.state, row.reason) == ("held", "corrupt")
    assert (steps[-1].step, steps[-1].detail) == ("quarantined", {"what": what})
    assert here.store.due(FAR, LANE, START_US, frozenset(), 10) == []
    assert here.residual() == 0


def test_a_body_file_must_be_there_and_whole(here):
    """Before the row is committed: else it is not taken, and the others are."""
    good = here.body_file()
    answers = here.store.commit([
        accept(1, **good),
        accept(2, **{**good, "body_file": "absent"}),
        accept(3, **{**good, "length": good["length"] + 1}),
        accept(4, check=b"0" * 16),
    ])  # fmt: skip

    assert [a.reason for a in answers] == ["", "corrupt", "corrupt", "corrupt"]
    assert here.store.content(name(1)).body_file == str(here.folder / "bodies-1" / "f1")


def test_a_body_file_goes_when_it_is_settled(here):
    """After the commit; and one that vanished is found before it leaves."""
    (done,) = here.store.commit([accept(1, **here.body_file())])
    here.store.commit([settle(done.number << 10)])

    assert list((here.folder / "bodies-1").iterdir()) == []
    here.store.commit([accept(2, **here.body_file())])
    (here.folder / "bodies-1" / "f1").unlink()
    assert here.store.content(name(2)) is None


def test_a_bounce_of_a_large_message_has_its_header(here):
    """Read from the file, and only the header."""
    text = b"Subject: large\r\n\r\nsecret\r\n" + b"x" * 100_000
    (done,) = here.store.commit([accept(1, **here.body_file(text))])
    (failed,) = here.store.commit([settle(done.number << 10, "failed")])
    ((bucket, lane, _),) = failed.due
    (out,) = here.store.due(bucket, lane, START_US, frozenset(), 10)

    body = here.store.content(out.message).body
    assert b"Subject: large" in body
    assert b"secret" not in body


def test_the_sweep_removes_only_what_no_row_names(here):
    """A file that a message names stays."""
    here.store.commit([accept(1, **here.body_file())])
    (here.folder / "bodies-1" / "orphan").write_bytes(b"x")

    assert not here.store.forget_file("f1")
    assert here.store.forget_file("orphan")
    assert [p.name for p in (here.folder / "bodies-1").iterdir()] == ["f1"]


def test_a_newer_schema_is_refused(here):
    """With a sentence that says what to do."""
    here.raw(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    here.crash()

    for _ in range(2):  # and the lock is let go
        with pytest.raises(StorageFault, match="newer than this Postweir"):
            SqliteStore(here.folder / "shard-1.db", here.folder / "bodies-1")
    connect(here.folder / "shard-1.db").execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    here.open()


def test_migrations_are_done_once(here):
    """A file of this version opens as it is."""
    here.store.commit([accept(1)])
    here.again()

    assert here.raw("PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert here.store.queued() == 1


def test_it_is_synced_at_each_commit(here):
    """The durability of everything hangs on these settings."""
    pragmas = {"synchronous": 2, "journal_mode": "wal", "wal_autocheckpoint": 0}

    assert {k: here.raw(f"PRAGMA {k}")[0][0] for k in pragmas} == pragmas


def spoil_file(here):
    """Another file stands where ours was."""
    path = here.folder / "shard-1.db"
    path.rename(here.folder / "elsewhere.db")
    path.write_bytes(b"")
    yield
    (here.folder / "elsewhere.db").rename(path)


def spoil_folder(here):
    """All of it was moved away."""
    away = here.folder.with_name("away")
    here.folder.rename(away)
    yield
    away.rename(here.folder)


def spoil_bodies(here):
    """The folder of bodies was removed."""
    (here.folder / "bodies-1").rmdir()
    yield
    (here.folder / "bodies-1").mkdir()


def spoil_bodies_by_a_file(here):
    """A file has its name; root sees this too."""
    (here.folder / "bodies-1").rmdir()
    (here.folder / "bodies-1").write_bytes(b"")
    yield
    (here.folder / "bodies-1").unlink()
    (here.folder / "bodies-1").mkdir()


@pytest.mark.parametrize("spoil", [spoil_file, spoil_folder, spoil_bodies, spoil_bodies_by_a_file])
def test_a_place_that_was_spoilt_is_seen_and_heals(here, spoil):
    """What we promised would stand where nobody looks; what we have goes on being delivered."""
    (done,) = here.store.commit([accept(1)])

    assert here.store.room()[0] > 0
    assert here.store.room()[1] == ""
    healing = spoil(here)
    next(healing)
    assert here.store.room()[1] == "unwritable"
    here.store.commit([settle(done.number << 10)])
    next(healing, None)
    assert here.store.room()[1] == ""
    here.again()
    assert here.store.queued() == 0


def test_a_file_has_one_owner(here):
    """A second process is turned away: what it said of the first one's commits would not last."""
    with pytest.raises(StorageFault, match="another process owns it"):
        SqliteStore(here.folder / "shard-1.db", here.folder / "bodies-1")


def test_a_folder_that_is_away_damages_no_message(here):
    """Nothing is quarantined because a folder was moved for a moment."""
    here.store.commit([accept(1, **here.body_file()), accept(2, verdict=None)])
    bodies, away = here.folder / "bodies-1", here.folder / "away"
    bodies.rename(away)

    with pytest.raises(Away):
        here.store.content(name(1))
    (done,) = here.store.commit([accept(3, **{**here_file, "body_file": "f2"})])
    assert done.reason == "failed"
    assert len(here.store.pending(0, 10)) == 1
    away.rename(bodies)
    assert here.store.content(name(1)) is not None


here_file = {"body": None, "length": 3, "check": b"0" * 16}


def test_a_pending_message_without_its_body_is_held(here):
    """It can never be judged: an operator hears of it, instead of it waiting for ever."""
    here.store.commit([accept(n, verdict=None) for n in (1, 2, 3)])
    here.raw("DELETE FROM body WHERE id = 1")
    here.raw("UPDATE body SET data = zeroblob(length(data)) WHERE id = 2")

    assert [a.message for a in here.store.pending(0, 10)] == [name(3)]
    reader = here.reader()
    assert [reader.message(name(n)).state for n in (1, 2, 3)] == ["held", "held", "pending"]
    reader.close()
    assert here.residual() == 0


def test_pending_mail_keeps_what_the_judge_was_told(here):
    """So that it is told the same again."""
    here.store.commit([accept(1, verdict=None, authenticated=False, loops=2)])
    here.again()

    (found,) = here.store.pending(0, 10)
    assert (found.authenticated, found.loops) == (False, 2)


def test_suspended_mail_hides_nobody_behind_it(here):
    """A lane that begins with more suspended rows than one look takes: the rest is found."""
    here.store.commit([accept(n, "a@stopped.example", "b@far.example") for n in range(1, 31)])
    here.raw("UPDATE rcpt SET bucket = ?", FAR)
    here.store.commit([Request(1, "suspend", "domain=stopped.example", "", "", 0)])

    found = here.store.due(FAR, LANE, START_US, frozenset(), 10)
    assert {out.address for out in found} == {"b@far.example"}
    assert len(found) == 10


def test_a_look_that_meets_too_many_suspended_is_gone_on_with(here, monkeypatch):
    """It ends early, says so, and the next one finds what is behind them."""
    monkeypatch.setattr("postweir.storage.spool_leaving.LOOK_ROWS_MAX", 10)
    here.store.commit([accept(n, "a@stopped.example") for n in range(1, 31)])
    here.store.commit([accept(99, "b@far.example")])
    here.raw("UPDATE rcpt SET bucket = ?", FAR)
    here.store.commit([Request(1, "suspend", "domain=stopped.example", "", "", 0)])
    found = []
    while not found:
        found = here.store.due(FAR, LANE, START_US, frozenset(), 5)
        assert found or here.store.unparked() == [(FAR, LANE, START_US)]

    assert [out.address for out in found] == ["b@far.example"]


def test_the_first_schema_is_brought_to_this_one(tmp_path):
    """With what is in it."""
    old = connect(tmp_path / "shard-1.db")
    old.execute(MIGRATIONS[0])
    old.execute("PRAGMA user_version = 1")
    a, columns = accept(1, verdict=None), ", ".join(MESSAGE_COLUMNS[:24])
    old.execute(
        f"INSERT INTO msg ({columns}) VALUES ({', '.join('?' * 24)})",
        (1, a.message, 5, 5, 1, "smtp", "acme", a.sender.key, pack(a.sender), "", "", 0, "", 0,
         None, "", "late", a.length, a.check, None, 9, b"{}", 0, ""),
    )  # fmt: skip
    old.execute("INSERT INTO body VALUES (1, x'', ?)", (a.body,))
    old.execute("INSERT INTO rcpt VALUES (1024, 'ann@far.example', 0, 0, 0, 2, 5, 0, '')")
    old.execute("INSERT INTO counter (account, accepted) VALUES ('acme', 1)")
    old.close()
    store = SqliteStore(tmp_path / "shard-1.db", tmp_path / "bodies-1")

    (found,) = store.pending(0, 10)
    assert (found.message, found.authenticated, found.loops) == (name(1), True, 0)
    store.close()


def test_nothing_grows_old_while_the_clock_was_just_set(here):
    """A step forward would end every hold, and forget the journal."""
    here.store.commit([accept(1, verdict=HOLD)])
    here.clock.move(40 * 86400)
    here.store._steps.look = lambda: True
    upkeep(here)
    reader = here.reader()

    assert reader.message(name(1)).state == "held"
    here.store._steps.look = lambda: False
    upkeep(here)
    assert reader.message(name(1)) is None or reader.message(name(1)).state == "settled"
    reader.close()


def test_a_step_is_remembered_over_a_restart(here, monkeypatch):
    """A shard that starts anew within the hour would bounce what only looks old."""
    upkeep(here)
    offset_us = clock.offset_us
    monkeypatch.setattr(clock, "offset_us", lambda: offset_us() + 49 * 3600 * 1_000_000)
    for _ in range(2):
        here.again()
        assert clock.StepWatch(here.store.clock_us()).look()
        assert not here.store.upkeep()
    monkeypatch.setattr("postweir.storage.spool_clock.boot", lambda: 7)
    here.again()

    assert here.store.clock_us() is None  # nobody knows what the clock was before this boot
    upkeep(here)
    here.again()
    assert not clock.StepWatch(here.store.clock_us()).look()


def test_a_step_of_the_clock_changes_no_age_but_the_due_times(here):
    """Forward, mail is tried early; back, late; nothing ends."""
    (done,) = here.store.commit([accept(1)])
    here.store.commit([settle(done.number << 10, "deferred", retry_in_s=60.0)])
    here.clock.move(49 * 3600)

    assert len(here.store.due(FAR, LANE, here.clock.us, frozenset(), 10)) == 1
    here.clock.move(-98 * 3600)
    assert here.store.due(FAR, LANE, here.clock.us, frozenset(), 10) == []
    upkeep(here)
    assert here.store.queued() == 1


def test_old_messages_with_many_recipients_go_in_pieces(here, monkeypatch):
    """No accept waits for the deletion of half a million rows."""
    monkeypatch.setattr("postweir.storage.spool_upkeep.BATCH_ROWS", 20)
    many = [f"r{n}@far.example" for n in range(15)]
    for n in range(1, 7):
        (done,) = here.store.commit([accept(n, *many)])
        here.store.commit([settle((done.number << 10) + i) for i in range(15)])
    here.clock.move(36 * 86400)
    pieces, before = 0, here.raw("SELECT count(*) FROM rcpt")[0][0]
    while here.store.upkeep():
        now = here.raw("SELECT count(*) FROM rcpt")[0][0]
        assert before - now <= 20 + 15
        pieces, before = pieces + 1, now

    assert pieces > 3
    assert here.raw("SELECT count(*) FROM msg") == [(0,)]
    assert here.raw("SELECT count(*) FROM rcpt") == [(0,)]


def test_many_holds_expire_in_pieces(here, monkeypatch):
    """All of them, and the ledger closes."""
    monkeypatch.setattr("postweir.storage.spool_upkeep.BATCH_ROWS", 20)
    many = [f"r{n}@far.example" for n in range(15)]
    here.store.commit([accept(n, *many, verdict=HOLD) for n in range(1, 8)])
    here.clock.move(15 * 86400)
    assert here.store.upkeep()
    assert 0 < here.store.queued() < 7 * 15
    upkeep(here)

    assert here.store.queued() == 0
    assert here.residual() == 0


def test_a_bounce_of_a_damaged_message_is_made_of_what_is_left(here):
    """Its body row is gone, or its file: the sender is told all the same, in the same commit."""
    first, second = here.store.commit([accept(1), accept(2, **here.body_file())])
    here.raw("DELETE FROM body WHERE id = ?", first.number)
    (here.folder / "bodies-1" / "f1").unlink()
    answers = here.store.commit(
        [settle(d.number << 10, "failed") for d in (first, second)]
    )  # fmt: skip

    assert [a.noted for a in answers] == [("bounced", "bounce_sent")] * 2
    for done in answers:
        ((bucket, lane, _),) = done.due
        (out, *_) = here.store.due(bucket, lane, START_US, frozenset(), 10)
        assert b"ann@far.example" in here.store.content(out.message).body
    assert here.residual() == 0


def test_the_checkpoints_fault_ends_the_store(here):
    """A disk that fails the thread is no better for the writer; the commit stands."""
    here.store._checkpoint._fault = Fault("planted")

    with pytest.raises(StorageFault):
        here.store.commit([accept(1)])
    here.again()
    assert here.store.queued() == 1


def test_no_room_for_a_checkpoint_is_survived(here):
    """The commit stands in the log; the file grows when there is room again."""
    here.faulty.fail_on, here.faulty.result = "PRAGMA wal_checkpoint", 13
    here.store._checkpoint._tidy = True
    (done,) = here.store.commit([accept(1)])

    assert done.number == 1
    assert here.store.queued() == 1


@pytest.mark.parametrize("result", [13, 10])
@pytest.mark.parametrize("at", range(STATEMENTS + 1))
def test_a_fault_at_any_statement(here, at, result):
    """A commit of everything there is: without room all of it is undone, else the store ends."""
    before = mixed_before(here)
    here.faulty.fail_at, here.faulty.result = at, result
    try:
        here.store.commit(mixed())
        fault = None
    except OSError as raised:
        fault = raised
    reached, here.faulty.fail_at = here.faulty.fail_at < 0, -1

    assert reached == (at < STATEMENTS)
    assert (fault is not None) == reached
    if result == 10 and reached:
        assert not isinstance(fault, Full)
        here.again()
    if reached:
        assert isinstance(fault, StorageFault | Full)
        assert here.raw("SELECT id, state, tries FROM rcpt ORDER BY id") == before
        here.store.commit(mixed())  # and now it works, all of it
    assert here.residual() == 0
    assert [r[0] for r in here.raw("SELECT state FROM rcpt ORDER BY id")][:5] == [1, 2, 0, 4, 0]
    assert here.store.request_done() == 1


def mixed_before(here):
    here.store.commit([accept(n) for n in range(1, 5)] + [accept(5, verdict=None)])
    return here.raw("SELECT id, state, tries FROM rcpt ORDER BY id")


def mixed():
    """Return changes of every kind: 1 delivered, 2 bounced, 3 deferred, 4 dropped, 5 judged."""
    a = accept(1)
    reply = settle(1, "failed").reply
    return [
        accept(6), settle(1 << 10), settle(2 << 10, "failed"), settle(3 << 10, "deferred"),
        Refusal(name(7), 0, "data", a.sender, a.envelope, "", reply, REFUSE, b""),
        Request(1, "drop", name(4), "", "", 0), Judged(name(5), Verdict("accept"), b"f"),
        Quarantine(name(6), "check"),
    ]  # fmt: skip


def test_the_record_grows_old_and_goes(here):
    """Facts first; then settled messages, steps and refusals; what is still ours stays."""
    settled, _, _ = here.store.commit([accept(1), accept(2), refusal(3)])
    here.store.commit([settle(settled.number << 10)])
    here.clock.move(73 * 3600)
    upkeep(here)
    assert here.raw("SELECT count(*) FROM facts") == [(0,)]
    assert here.raw("SELECT count(*) FROM msg") == [(2,)]
    here.clock.move(36 * 86400)
    upkeep(here)

    assert here.raw("SELECT name FROM msg") == [(name(2),)]
    assert here.raw("SELECT count(*) FROM rcpt") == [(1,)]
    assert here.raw("SELECT count(*) FROM step") == [(0,)]
    assert here.raw("SELECT count(*) FROM refusal") == [(0,)]
    assert here.residual() == 0
    here.again()
    (done,) = here.store.commit([accept(9)])
    assert done.number == 4  # no number is given twice
    assert here.raw("SELECT min(id) FROM step")[0][0] > 3


def test_the_log_is_kept_short(here):
    """A thread moves the log into the file while the writer goes on."""
    body = b"Subject: x\r\n\r\n" + b"x" * 60_000
    wal = here.folder / "shard-1.db-wal"
    check = hashlib.blake2b(body, digest_size=16).digest()
    for n in range(400):
        here.store.commit([accept(n, body=body, length=len(body), check=check)])

    assert wal.stat().st_size < 4 * PAGES_WAKE * 4096
    assert here.store.queued() == 400


def test_a_wide_request_is_done_in_pieces(here, monkeypatch):
    """So that no accept waits for it; its number counts as done with the last piece."""
    monkeypatch.setattr("postweir.storage.spool_decided.SCOPE_ROWS_MAX", 10)
    here.store.commit([accept(n) for n in range(1, 26)])
    wish = Request(1, "drop", "account=acme", "", "operator", 0)
    answers = []
    while not answers or answers[-1].more:
        answers += here.store.commit([wish])
        if len(answers) == 2:
            here.again()  # a crash in the middle: what was done is found done

    assert sum(len(a.ended) for a in answers) == 25
    assert here.store.request_done() == 1
    assert here.store.queued() == 0
    assert here.residual() == 0


def test_what_readers_see(here):
    """A message with its timeline, the queue by state and domain, refusals, counts, status."""
    done = here.store.commit([
        accept(1, "a@far.example", "b@other.example"), accept(2, verdict=HOLD), refusal(3),
    ])  # fmt: skip
    first = done[0].number << 10
    here.store.commit([settle(first, "deferred"), settle(first + 1)])
    reader = here.reader()

    rows = answer(reader, Read(1, "message", name(1), 0, 100)).rows
    message, steps = unpack(rows[0], MessageRow), [unpack(r, Step) for r in rows[1:]]
    assert [r.state for r in message.recipients] == ["queued", "delivered"]
    assert message.recipients[0].next_attempt_at_us == START_US + 300_000_000
    assert message.recipients[0].reply == "450 4.2.0 Come again"
    assert message.facts == b"facts"
    assert [s.step for s in steps] == ["accepted", "attempt", "delivered"]
    assert reader.message(name(3)).stage == "data"
    assert reader.message("absent") is None
    queue, after = reader.queue("state=held", 0, 10)
    assert ([q.id for q in queue], after) == ([name(2)], None)
    assert [q.address for q in reader.queue("domain=far.example", 0, 10)[0]][:1] == [
        "a@far.example"
    ]
    assert [r.id for r in reader.refusals("account=acme", 0, 10)[0]] == [name(3)]
    status = reader.status()
    assert (status.queued, status.held, status.pending) == (1, 1, 0)
    reader.close()


def test_counted_is_what_was_judged_since(here):
    """Accepted and refused, by time, in pages; our own bounces and unjudged mail are not."""
    for n in range(1, 21):
        here.store.commit([refusal(n) if n % 5 == 0 else accept(n)])
        here.clock.move(10)
    here.store.commit([accept(90, verdict=None), accept(91, origin="dsn", account="-")])
    reader = here.reader()
    since_us = START_US + 95_000_000  # the first ten are older

    found, after = [], 0
    while after is not None:
        some, after = reader.counted(since_us, after, 3)
        found += some
    assert [c.message for c in found] == [name(n) for n in range(11, 21)]
    assert {c.recipients for c in found} == {1}
    assert reader.counted(0, 0, 1000)[0][0].message == name(1)
    reader.close()


def test_usage_is_what_counts_and_what_became_of_it(here):
    """Taken, judged late, refused, delivered and bounced; each once, whatever page it is on."""
    facts = pack({"facts": {"header.from_domain": "customer.example", "body.bytes": 9}})
    here.store.commit([
        accept(1, "a@far.example", "b@far.example", facts=facts), accept(2, verdict=None),
        accept(3, verdict=HOLD, facts=facts), accept(4, origin="dsn", account="-"),
        refusal(5, "verdict"), refusal(6),
    ])  # fmt: skip
    one, two = here.store.due(FAR, LANE, START_US * 2, set(), 9)
    here.clock.move(10)
    here.store.commit([
        settle(one.recipient), settle(two.recipient, "failed"),
        Judged(name(2), Verdict("accept"), facts),
    ])  # fmt: skip
    reader = here.reader()

    def read(question: str, how: str, count: int) -> list[Used]:
        found, after, last = [], 0, 1
        while after < last:
            page = answer(reader, Read(1, question, f"0 {how}", after, count))
            reached = unpack(page.rows[0], Reached)
            after, last = reached.next, reached.last
            found += [unpack(row, Used) for row in page.rows[1:]]
        again = answer(reader, Read(1, question, f"0 {how}", after, count))
        assert len(again.rows) == 1
        return found

    whole = read("usage", "whole", 2)
    assert [(u.kind, u.message) for u in whole] == [
        ("accepted", name(1)), ("accepted", name(3)), ("delivered", name(1)), ("unknown", name(1)),
        ("accepted", name(2)),
    ]  # fmt: skip
    assert whole == read("usage", "whole", 1000)
    assert whole[0].addresses == ["a@far.example", "b@far.example"]
    assert (whole[0].recipients, whole[0].from_domain) == (2, "customer.example")
    assert whole[0].envelope_domain == "customer.example"
    assert whole[1].from_domain == ""  # it was held: that says nothing
    assert (whole[4].at_us, whole[0].at_us) == (START_US, START_US)  # when they came
    assert [u.kind for u in read("usage", "ends", 3)] == ["delivered", "unknown"]
    assert [(u.kind, u.message, u.bytes) for u in read("turned", "whole", 10)] == [
        ("refused", name(5), 0)
    ]
    assert read("turned", "ends", 10) == []
    reader.close()


def test_usage_begins_by_time_where_a_cursor_says_nothing(here):
    """Without one, and with one that is past the end: another file is in this one's place."""
    for n in range(1, 11):
        here.store.commit([accept(n)])
        here.clock.move(10)
    reader = here.reader()

    for after in (0, 1 << 40):
        page = answer(reader, Read(1, "usage", f"{START_US + 75_000_000} whole", after, 100))
        assert [unpack(row, Used).message for row in page.rows[1:]] == [name(9), name(10)]
    reader.close()


def test_an_end_for_want_of_time_is_no_bounce_of_its_server(here):
    """Only what a server refused for good counts against the sender."""
    here.store.commit([accept(1)])
    (one,) = here.store.due(FAR, LANE, START_US * 2, set(), 9)
    here.store.commit([settle(one.recipient, "failed", reply=Reply(451, "4.4.7", "Not in time"))])
    reader = here.reader()

    page = answer(reader, Read(1, "usage", "0 ends", 0, 100))
    assert len(page.rows) == 1
    reader.close()


def test_pages_go_on_where_they_ended(here):
    """Every question's cursor leads through all rows, once."""
    here.store.commit([accept(n) for n in range(1, 8)])
    reader = here.reader()
    for question, count in [("queue", 7), ("steps", 7), ("ledger", 1), ("counted", 7)]:
        rows, after = [], 0
        while after is not None:
            page = answer(reader, Read(1, question, "", after, 2))
            rows += page.rows
            after = page.next
        assert len(set(rows)) == len(rows) == count, question
    assert answer(reader, Read(1, "no such", "", 0, 10)).rows == []
    reader.close()


def refusal(n: int, stage: str = "data") -> Refusal:
    a = accept(n)
    reply = settle(1, "failed").reply
    return Refusal(name(n), START_US, stage, a.sender, a.envelope, "", reply, REFUSE, b"")


def upkeep(here: Here) -> None:
    while here.store.upkeep():
        pass


# Crashes: a child that accepts and settles is killed at random; what it said is in the file.


def live(folder: Path, seed: int, say: int, *, early: bool = False) -> None:
    """Accept and settle, and say so, until killed. `early` says it before the commit."""
    store = SqliteStore(folder / "shard-1.db", folder / "bodies-1")
    chance = random.Random(seed)
    row = store._db.execute("SELECT count(*) FROM msg").fetchone()
    n, mine = row[0] + 1, []
    while True:
        batch = [accept(n + i) for i in range(chance.randint(1, 20))]
        outcomes = [settle(r, chance.choice(["delivered", "failed"]))
                    for r in mine[: chance.randint(0, 10)]]  # fmt: skip
        words = "".join(f"+{a.message}\n" for a in batch)
        words += "".join(f"-{s.recipient}\n" for s in outcomes)
        if early:
            os.write(say, words.encode())
        done = store.commit([*batch, *outcomes])
        if not early:
            os.write(say, words.encode())
        n += len(batch)
        mine = mine[len(outcomes) :] + [d.number << 10 for d in done[: len(batch)]]


def one_life(folder: Path, seed: int, *, early: bool = False) -> str:
    """Let a child live for a moment; returns all it said."""
    hear, say = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(hear)
            live(folder, seed, say, early=early)
        finally:
            os._exit(1)
    os.close(say)
    time.sleep(random.Random(seed).uniform(0.01, 0.08))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    words = b""
    while piece := os.read(hear, 65536):
        words += piece
    os.close(hear)
    return words.decode().rpartition("\n")[0]


def broken(folder: Path, said: list[str]) -> list[str]:
    """Return what was said and is not so."""
    reader = connect(folder / "shard-1.db")
    names = {row[0] for row in reader.execute("SELECT name FROM msg")}
    ended = {row[0] for row in reader.execute("SELECT id FROM rcpt WHERE state > 0")}
    reader.close()
    words = [word for life in said for word in life.split("\n") if word]
    lost = [w for w in words if w[0] == "+" and w[1:] not in names]
    return lost + [w for w in words if w[0] == "-" and int(w[1:]) not in ended]


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_forty_lives_lose_nothing(tmp_path):
    """Whatever was acknowledged is there after each kill, and the ledger closes."""
    said = [one_life(tmp_path, seed) for seed in range(40)]

    assert sum(map(len, said)) > 0
    assert broken(tmp_path, said) == []
    reader = SqliteReader(tmp_path / "shard-1.db", shard=1)
    assert audit({1: reader.ledger()}).status == 0
    reader.close()


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_the_crash_test_catches_what_it_is_for(tmp_path):
    """A shard that answers before the commit is found out; else the test above proves nothing."""
    said = [one_life(tmp_path, seed, early=True) for seed in range(40)]

    assert broken(tmp_path, said) != []


FAULTS = [
    "fdatasync:error=EIO:when=70",
    "fdatasync:error=EIO:when=151+",
    "pwrite64:error=EIO:when=400",
    "pwrite64:error=EIO:when=1001+",
    "pwrite64:error=ENOSPC:when=401",
    "pwrite64:error=ENOSPC:when=1502+",
]


@pytest.mark.real
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_disk_takes_back_no_promise(tmp_path, fault):
    """The n-th sync or write fails: the store ends or refuses, and what it had said is there."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not here")
    code = (
        "import sys; from pathlib import Path;"
        " from tests.storage.test_storage_sqlite_spool import live; live(Path(sys.argv[1]), 3, 1)"
    )
    done = subprocess.run(
        ["strace", "-f", "-q", "-o", "/dev/null", "-e", "trace=fdatasync,pwrite64", "-e",
         f"inject={fault}", sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")

    assert "StorageFault" in done.stderr or "Full" in done.stderr
    assert done.stdout.count("+") > 10
    assert broken(tmp_path, [done.stdout]) == []
    reader = SqliteReader(tmp_path / "shard-1.db", shard=1)
    assert audit({1: reader.ledger()}).status == 0
    reader.close()
