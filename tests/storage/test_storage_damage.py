"""A byte that changed is found: nothing wrong is delivered, and nothing vanishes in silence."""

import random
import shutil
import threading
from pathlib import Path

import pytest
from tests.effort import THOROUGH
from tests.spool.given import HOLD, START_US, accept, name, settle
from tests.storage import damage
from tests.storage.damage import FILES, Lives, Told, build, harm, missing

from postweir.runtime import files
from postweir.spool.ports import Judged
from postweir.storage import spool_recovery, spool_salvage, spool_seal, spool_wal, sqlite
from postweir.storage.spool_reader import SqliteReader
from postweir.storage.spool_recovery import Recovery, note, read_record
from postweir.storage.spool_schema import MIGRATIONS
from postweir.storage.sqlite import DamagedFile, StorageFault, TooNew, connect, has_checksums
from postweir.storage.sqlite_spool import SqliteStore

CASES = 120 if THOROUGH else 30
SALVAGE_CALLS = 15  # that rename or sync; one more is not met
DB, LOG, INDEX = FILES
NO_SUMS_EVERY = 3  # so many cases of a file from before there were checksums


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two shards' files, with mail in every state: with checksums, and from before them."""
    found = {}
    for summed in (True, False):
        folder = tmp_path_factory.mktemp("model")
        found[summed] = (folder, build(folder, checksums=summed))
    return found


def copy(model: Path, into: Path) -> Path:
    into.mkdir()
    for one in FILES:
        shutil.copyfile(model / one, into / one)
    shutil.copytree(model / "bodies-1", into / "bodies-1")
    return into


def spoil(folder: Path, rng: random.Random) -> tuple[str, bool]:
    """Harm one of the files; returns how, and whether what is lost can leave no trace."""
    target = rng.choice((DB, DB, DB, LOG, LOG, LOG, INDEX, "body"))
    path = folder / target
    if target == "body":
        path = rng.choice(sorted((folder / "bodies-1").iterdir()))
    how = harm(path, rng)
    # The index goes with a loss of power. A log cut short then looks like a commit that was.
    alone = rng.random() < 0.3
    if alone:
        (folder / INDEX).unlink(missing_ok=True)
    return how, alone and target == LOG


def look(lives: Lives, expected, how: str, traceless: bool) -> None:
    """What must be true after any damage."""
    lives.run(expected)
    gone, residual = missing(lives, expected)
    cut = " cut at " in how

    assert lives.wrong == [], how
    assert traceless or not gone or residual != 0, how
    # Without checksums a zeroed part of a page may look like one with fewer rows: then the ledger
    # is the only alarm.
    assert traceless or not gone or lives.log.errors or not lives.checksums, how
    if traceless and not cut:  # then at most the last commit, which looks like one cut short
        assert residual or {message for message, _ in gone} <= expected.last, how
    assert not lives.twice or cut or traceless, how
    twice = len(lives.delivered) - len(set(lives.delivered))
    assert not twice or lives.faults, how  # only what was in hand when a life ended


def test_any_damage_anywhere(models, tmp_path):
    """Bits, bytes, sectors, noise and cuts, anywhere in file, log, index and bodies."""
    met = {"salvaged": 0, "whole": 0}
    for n in range(CASES):
        rng = random.Random(n)
        model, expected = models[n % NO_SUMS_EVERY != 0]
        folder = copy(model, tmp_path / "case")
        how, traceless = spoil(folder, rng)
        lives = Lives(folder, checksums=n % NO_SUMS_EVERY != 0)
        look(lives, expected, f"{n}: {how}", traceless)
        kind = "salvaged" if ("spool.salvaged") in {e for e, _ in lives.log.errors} else "whole"
        met[kind] += 1
        shutil.rmtree(folder)

    assert min(met.values()) > CASES / 10, met  # else this proves little


def test_without_checksums_and_seals_wrong_mail_leaves(models, tmp_path, monkeypatch):
    """The test above can fail: with both off, the same damage is delivered."""
    monkeypatch.setattr("postweir.storage.spool_leaving.envelope_sound", lambda *_: True)
    monkeypatch.setattr("postweir.storage.spool_leaving.headers_sound", lambda *_: True)
    monkeypatch.setattr("postweir.storage.spool_leaving.address_sound", lambda *_: True)
    model, expected = models[False]
    folder = copy(model, tmp_path / "case")
    store = SqliteStore(folder / DB, folder / "bodies-1")
    store.prove()
    damage.end(store)
    data = (folder / DB).read_bytes()
    at = data.index(b"s77@customer.example")
    (folder / DB).write_bytes(data[:at] + b"x" + data[at + 1 :])
    lives = Lives(folder)
    lives.run(expected)

    assert lives.wrong


def test_one_byte_of_an_address_is_found(models, tmp_path):
    """In a file that has checksums, and by its seal in one that has none."""
    for summed, (model, expected) in models.items():
        folder = copy(model, tmp_path / f"case{summed}")
        store = SqliteStore(folder / DB, folder / "bodies-1")
        store.prove()
        damage.end(store)
        data = (folder / DB).read_bytes()
        at = data.index(b"r77-0@")
        (folder / DB).write_bytes(data[:at] + b"x" + data[at + 1 :])
        lives = Lives(folder)
        lives.run(expected)

        assert lives.wrong == []
        assert name(77) not in {message for message, _ in lives.delivered}
        reader = SqliteReader(folder / DB, shard=1)
        assert reader.message(name(77)).state in ("held", "settled")
        assert reader.message(name(77)).reason == "corrupt"
        reader.close()
        events = {event for event, _ in lives.log.errors}
        assert "spool.corrupt" in events
        assert ("spool.salvaged" in events) == summed


def test_one_byte_of_a_late_verdicts_way_out_is_found(models, tmp_path):
    """Its header and its pool are sealed as those are that came with the message."""
    model, expected = models[False]
    for at_n, sql in enumerate((
        "UPDATE msg SET pool = 'bulx' WHERE name = ?", "UPDATE msg SET pool = '' WHERE name = ?",
        "UPDATE msg SET verdict_lifetime_s = 60 WHERE name = ?",
        "UPDATE body SET added = replace(added, 'late', 'lxte')"
        " WHERE id = (SELECT id FROM msg WHERE name = ?)",
    )):  # fmt: skip
        folder = copy(model, tmp_path / f"case{at_n}")
        db = connect(folder / DB)
        (before,) = db.execute("SELECT state FROM msg WHERE name = ?", (name(40),)).fetchone()
        db.execute(sql, (name(40),))
        db.close()
        lives = Lives(folder)
        lives.run(expected)

        assert before == 0
        assert lives.wrong == []
        assert ("spool.corrupt", {"message": name(40)}) in lives.log.errors, sql
        assert {message for message, _ in lives.delivered} >= {name(20), name(60)}


def test_a_damaged_header_is_not_sealed_anew_by_a_late_verdict(tmp_path):
    """What is wrong before it stays found to be wrong."""
    store = SqliteStore(tmp_path / DB, tmp_path / "bodies-1", now_us=lambda: START_US)
    store.commit([accept(1, verdict=None)])
    store._db.execute("UPDATE body SET added = 'Received: by xs'")
    store.commit([Judged(name(1), damage.LATE, b"")])

    assert store.content(name(1)) is None
    assert [q.what for q in store.quarantined()] == ["envelope"]
    damage.end(store)


def test_a_new_file_has_checksums_and_an_old_one_goes_on_without(models):
    """Eight bytes of each page are theirs."""
    assert has_checksums(models[True][0] / DB)
    assert has_checksums(models[False][0] / DB) is False


def test_where_the_extension_is_missing(tmp_path, monkeypatch):
    """A new file is made without; one that has them is refused, or its pages would be spoilt."""
    connect(tmp_path / "with.db").execute("CREATE TABLE t (a)")
    monkeypatch.setattr(sqlite, "load_checksums", lambda: False)
    connect(tmp_path / "without.db").execute("CREATE TABLE t (a)")

    assert not has_checksums(tmp_path / "without.db")
    with pytest.raises(StorageFault, match="install apsw with its extras"):
        connect(tmp_path / "with.db")


def test_the_damaged_file_is_kept_untouched(models, tmp_path):
    """Byte for byte, with its log, beside the new one."""
    folder = copy(models[True][0], tmp_path / "case")
    before = {one: (folder / one).read_bytes() for one in (DB, LOG)}
    note(folder / DB, "planted", proven=True)
    log = Told()
    Recovery(folder / DB, folder / "bodies-1", log=log, stop=threading.Event()).prepare()
    (past,) = read_record(folder / DB).past

    assert (folder / past.kept).read_bytes() == before[DB]
    assert (folder / f"{past.kept}-wal").read_bytes() == before[LOG]
    assert (past.held, past.unreadable) == (0, 0)
    assert [event for event, _ in log.errors] == ["spool.damaged", "spool.salvaged"]
    assert not (folder / "shard-1.salvage").exists()


def test_no_damaged_file_is_overwritten_by_the_next(models, tmp_path, monkeypatch):
    """Two salvages in one second, or after the clock was set back, keep a file each."""
    folder = copy(models[True][0], tmp_path / "case")
    monkeypatch.setattr(spool_recovery.clock, "wall_us", lambda: START_US)
    for _ in range(3):
        note(folder / DB, "planted", proven=True)
        prepare(folder)

    assert len({past.kept for past in read_record(folder / DB).past}) == 3
    assert len(list(folder.glob("shard-1.damaged-*.db"))) == 3


def test_a_salvage_of_a_whole_file_changes_nothing(models, tmp_path):
    """All rows of all tables are there again, in a file that has checksums."""
    for summed, (model, _) in models.items():
        folder = copy(model, tmp_path / f"case{summed}")
        before = everything(folder / DB)
        note(folder / DB, "planted", proven=True)
        prepare(folder)

        assert everything(folder / DB) == before
        assert has_checksums(folder / DB)


def everything(path: Path) -> dict[str, list]:
    """Return all rows, but for what a salvage writes about itself."""
    connection = connect(path, readonly=True)
    sqlite.keep_log(connection)
    tables = ("msg", "rcpt", "body", "facts", "step", "refusal", "counter", "bounced", "pause")
    try:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall()
            for table in tables
        }
    finally:
        connection.close()


def prepare(folder: Path, log: Told | None = None) -> None:
    Recovery(folder / DB, folder / "bodies-1", log=log or Told(), stop=threading.Event()).prepare()


class Crash(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("at", range(SALVAGE_CALLS + 1))
def test_a_crash_in_a_salvage_loses_nothing(models, tmp_path, monkeypatch, at):
    """Stopped before any of its renames, writes of the record and syncs, it is gone on from."""
    folder = copy(models[True][0], tmp_path / "case")
    before = everything(folder / DB)
    note(folder / DB, "planted", proven=True)
    left = at

    def counted(real):
        def call(*words, **named):
            nonlocal left
            left -= 1
            if left < 0:
                raise Crash
            return real(*words, **named)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", counted(Path.rename))
        patch.setattr(files, "sync_folder", counted(files.sync_folder))
        patch.setattr(spool_recovery, "_sync", counted(spool_recovery._sync))
        patch.setattr(spool_recovery, "check_whole", counted(spool_salvage.check_whole))
        try:
            prepare(folder)
            ended = True
        except Crash:
            ended = False
    prepare(folder)

    assert everything(folder / DB) == before
    assert read_record(folder / DB).state == ""
    assert len(read_record(folder / DB).past) == 1
    assert ended == (at == SALVAGE_CALLS)


def test_an_exchange_whose_record_is_damaged_is_ended(models, tmp_path, monkeypatch):
    """The old file is aside and the new one not yet in place: an empty one would hide all mail."""
    folder = copy(models[True][0], tmp_path / "case")
    before = everything(folder / DB)
    note(folder / DB, "planted", proven=True)
    rename = Path.rename

    def crashes(path, target):
        if path.name == "fresh.db":
            raise Crash
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crashes)
        with pytest.raises(Crash):
            prepare(folder)
    (folder / "shard-1.recovery").write_bytes(b"torn")
    assert not (folder / DB).exists()
    prepare(folder)

    assert everything(folder / DB) == before


def test_a_fault_nobody_foresaw_makes_it_look_over_the_file(models, tmp_path):
    """A whole file goes on as it is; after three such faults it is put together anew."""
    folder = copy(models[True][0], tmp_path / "case")
    for turn in range(1, 4):
        note(folder / DB, "AssertionError()", proven=False)
        prepare(folder)
        assert len(read_record(folder / DB).past) == (turn == 3)


def test_without_room_it_says_how_much_it_needs(models, tmp_path, monkeypatch):
    """And touches nothing."""
    folder = copy(models[True][0], tmp_path / "case")
    note(folder / DB, "planted", proven=True)

    class Full:
        f_bavail, f_frsize = 1, 4096

    monkeypatch.setattr(spool_recovery.os, "statvfs", lambda _: Full)
    with pytest.raises(StorageFault, match="make room"):
        prepare(folder)
    monkeypatch.undo()
    prepare(folder)
    assert len(read_record(folder / DB).past) == 1


def test_a_newer_file_is_not_taken_for_a_damaged_one(models, tmp_path):
    """It is refused with what to do."""
    folder = copy(models[True][0], tmp_path / "case")
    connect(folder / DB).execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")

    with pytest.raises(TooNew, match="run the version that wrote it"):
        prepare(folder)
    assert read_record(folder / DB).state == ""


def test_a_damaged_record_is_made_anew(models, tmp_path):
    """It says nothing, and the file is looked at as at any start."""
    folder = copy(models[True][0], tmp_path / "case")
    note(folder / DB, "planted", proven=True)
    path = spool_recovery.record_of(folder / DB)
    path.write_bytes(path.read_bytes()[:-1])
    prepare(folder)

    assert read_record(folder / DB).past == []


def test_a_running_store_stops_at_damage(tmp_path):
    """Reading or committing: what it raises says that retrying is of no use."""
    path = tmp_path / DB
    store = SqliteStore(path, tmp_path / "bodies-1", now_us=lambda: START_US)
    store.commit([accept(n, body=bytes(3000)) for n in range(1, 200)])
    store.prove()
    damage.end(store)
    data = bytearray(path.read_bytes())
    for at in range(5 * 4096, len(data), 4096):
        data[at + 100] ^= 1
    path.write_bytes(data)

    store = None
    try:
        store = SqliteStore(path, tmp_path / "bodies-1", now_us=lambda: START_US)
        with pytest.raises(DamagedFile):
            store.commit([settle(n << 10) for n in range(1, 200)])
    except DamagedFile:  # already by opening it
        return
    finally:
        if store is not None:
            damage.end(store)


def test_what_cannot_be_named_shows_in_the_ledger(models, tmp_path):
    """Commits that went with the end of the log, counters and all, leave a residual."""
    folder = copy(models[True][0], tmp_path / "case")
    size = (folder / LOG).stat().st_size
    with (folder / LOG).open("r+b") as file:
        file.truncate(size // 2)
    lives = Lives(folder)
    lives.run(models[True][1])
    gone, residual = missing(lives, models[True][1])

    assert gone
    assert residual != 0
    assert "spool.damaged" in {event for event, _ in lives.log.errors}


def test_a_commit_cut_short_is_no_damage(tmp_path):
    """What power loss leaves of the last commit is forgotten without an alarm."""
    store = SqliteStore(tmp_path / DB, tmp_path / "bodies-1", now_us=lambda: START_US)
    store.commit([accept(1), accept(2, verdict=HOLD)])
    before = (tmp_path / LOG).stat().st_size
    store.commit([accept(n) for n in range(3, 40)])
    case = tmp_path / "case"
    case.mkdir()
    for one in (DB, LOG):  # the index was never on the disk
        shutil.copyfile(tmp_path / one, case / one)
    (case / "bodies-1").mkdir()
    damage.end(store)
    whole = (case / LOG).read_bytes()
    for at in range(before, len(whole), 1777):
        (case / LOG).write_bytes(whole[:at] + bytes(len(whole) - at))
        (case / INDEX).unlink(missing_ok=True)
        log = Told()
        prepare(case, log)

        assert log.errors == []


def test_numbers_of_lost_rows_are_not_given_again(models, tmp_path):
    """Delivery may still bring an outcome for one of them."""
    folder = copy(models[True][0], tmp_path / "case")
    with (folder / LOG).open("r+b") as file:
        file.truncate((folder / LOG).stat().st_size // 2)
    prepare(folder)
    store = SqliteStore(folder / DB, folder / "bodies-1", now_us=lambda: START_US)
    (done,) = store.commit([accept(9999)])
    damage.end(store)

    assert done.number > damage.MESSAGES


def test_a_held_stub_never_leaves(models, tmp_path, monkeypatch):
    """A message whose row is gone is there for an operator; released, it is held again."""
    folder = copy(models[True][0], tmp_path / "case")
    connection = connect(folder / DB)
    connection.execute("DELETE FROM msg WHERE name = ?", (name(77),))
    connection.close()
    note(folder / DB, "planted", proven=True)
    prepare(folder)
    lives = Lives(folder)
    lives.run(models[True][1])
    connection = connect(folder / DB)
    connection.execute("UPDATE msg SET state = 0 WHERE account = '?'")
    connection.execute("UPDATE rcpt SET waits = 0 WHERE id >> 10 = 77")
    connection.close()
    again = Lives(folder)
    again.run(models[True][1])

    assert lives.wrong == again.wrong == []
    assert not [address for _, address in again.delivered if address.startswith("r77-")]


def test_files_of_before_a_salvage_are_not_swept(tmp_path):
    """They may belong to messages whose rows are gone."""
    store = SqliteStore(tmp_path / DB, tmp_path / "bodies-1", now_us=lambda: START_US)
    store.commit([accept(1)])
    (tmp_path / "bodies-1" / "orphan").write_bytes(b"x")
    damage.end(store)
    note(tmp_path / DB, "planted", proven=True)
    prepare(tmp_path)
    store = SqliteStore(tmp_path / DB, tmp_path / "bodies-1", now_us=lambda: START_US)
    (tmp_path / "bodies-1" / "later").write_bytes(b"x")

    assert not store.forget_file("orphan")
    assert store.forget_file("later")
    damage.end(store)


def test_a_bounce_is_not_made_of_a_damaged_envelope(tmp_path):
    """It would go to somebody who never wrote to us; the failure itself is recorded."""
    store = SqliteStore(tmp_path / DB, tmp_path / "bodies-1", now_us=lambda: START_US)
    (done,) = store.commit([accept(1)])
    store._db.execute("UPDATE msg SET mail_from = 'other@else.example'")
    (failed,) = store.commit([settle(done.number << 10, "failed")])
    damage.end(store)

    assert "bounce_damaged" in failed.noted


def test_seals_bind_an_address_to_its_message():
    """The same address in another row or another message has another seal."""
    seal = b"12345678abcdefgh"
    one = spool_seal.recipient_seal(seal, 5, "a@far.example")

    assert spool_seal.address_sound(seal, 5, "a@far.example", one)
    assert not spool_seal.address_sound(seal, 6, "a@far.example", one)
    assert not spool_seal.address_sound(b"other678abcdefgh", 5, "a@far.example", one)
    assert not spool_seal.address_sound(seal, 5, "a@far.example", None)
    assert spool_seal.address_sound(None, 5, "a@far.example", None)


def test_a_mended_log_is_the_log(models, tmp_path):
    """Of a whole one, SQLite takes every frame."""
    folder = copy(models[True][0], tmp_path / "case")
    (tmp_path / "mended").mkdir()
    fresh = tmp_path / "mended" / DB
    shutil.copyfile(folder / DB, fresh)
    index = spool_wal.read_index(folder / DB)

    assert spool_wal.mend(folder / DB, fresh.with_name(LOG)) == index.frames
    assert everything(fresh) == everything(folder / DB)


def test_a_log_that_was_begun_anew_is_known_by_its_header(tmp_path):
    """Frames of the one before stand behind its own, and are no commits that were lost."""
    store = SqliteStore(tmp_path / DB, tmp_path / "bodies-1", now_us=lambda: START_US)
    for n in range(1, 60):
        store.commit([accept(n)])
    store.prove()
    store.commit([accept(99)])
    case = tmp_path / "case"
    case.mkdir()
    for one in (DB, LOG):
        shutil.copyfile(tmp_path / one, case / one)
    index = spool_wal.read_index(tmp_path / DB)
    damage.end(store)

    assert spool_wal.generation(case / DB) == index.salts
    assert sum(one.salts != index.salts for one in spool_wal.frames(case / DB, 0)) > 50
    assert spool_wal.lost(case / DB, None, index.frames) == ""
    log = Told()
    prepare(case, log)
    assert log.errors == []


def test_what_stands_in_the_way_is_said_and_waited_for(models, tmp_path):
    """A newer file: the process stays, says it once a minute, and ends when it is told to."""
    folder = copy(models[True][0], tmp_path / "case")
    connect(folder / DB).execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    log, stop = Told(), threading.Event()
    recovery = Recovery(folder / DB, folder / "bodies-1", log=log, stop=stop)
    waits = []

    def wait(seconds):
        waits.append(seconds)
        stop.set()

    stop.wait = wait

    assert not recovery.until_prepared()
    assert waits == [spool_recovery.AGAIN_S]
    assert [event for event, _ in log.errors] == ["spool.down"]
    assert "run the version that wrote it" in log.errors[0][1]["fault"]
    assert recovery.doing == "down"
