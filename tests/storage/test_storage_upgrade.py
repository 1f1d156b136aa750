"""Files of every earlier schema are taken over with all that waits in them; newer ones are not."""

import pytest
from tests.spool.given import START_US, name
from tests.storage import damage, old_files
from tests.storage.damage import Lives, missing

from postweir.spool.ports import Judged
from postweir.storage.spool_reader import SqliteReader
from postweir.storage.spool_recovery import note, read_record
from postweir.storage.spool_schema import MIGRATIONS, migrate
from postweir.storage.sqlite import connect, has_checksums
from postweir.storage.sqlite_spool import SqliteStore

MANY = 2500
FEW = 40
PAGES_FEW = 60  # that a migration may write, however many messages there are
OLD = range(1, len(MIGRATIONS))


def test_the_old_statements_are_kept():
    """What this test makes is what the versions before made: a migration is never changed."""
    assert len(old_files.SCHEMAS) == len(MIGRATIONS) - 1
    for kept, ours in zip(old_files.SCHEMAS, MIGRATIONS, strict=False):
        assert kept.split() == ours.split()


@pytest.mark.parametrize("schema", OLD)
def test_all_that_waits_is_there_and_leaves(tmp_path, schema):
    """Thousands of messages in all states: each is delivered once, held, or ended as before."""
    expected = old_files.make(tmp_path, schema, MANY)
    lives = Lives(tmp_path)
    lives.run(expected)
    gone, residual = missing(lives, expected)

    assert lives.wrong == lives.twice == lives.faults == lives.log.errors == []
    assert (gone, residual) == (set(), 0)
    held = {pair for pair in expected.open if pair[0] in expected.held}
    assert set(lives.delivered) == expected.open - held
    assert len(lives.delivered) == len(set(lives.delivered))
    assert len(held) > MANY / 20
    assert has_checksums(tmp_path / "shard-1.db") is False


@pytest.mark.parametrize("schema", OLD)
def test_it_takes_an_instant_however_much_waits(tmp_path, schema):
    """A migration writes no row of a message: new tables, and columns with defaults."""
    old_files.make(tmp_path, schema, MANY)
    connection = connect(tmp_path / "shard-1.db")
    pages = []
    connection.set_wal_hook(lambda *words: pages.append(words[2]) or 0)
    changes = connection.total_changes()
    migrate(connection)

    assert connection.total_changes() == changes
    assert max(pages) < PAGES_FEW
    connection.close()


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("schema", OLD)
def test_killed_at_any_statement_it_is_gone_on_from(tmp_path, schema):
    """Either schema is whole; the next process does the rest."""
    expected = old_files.make(tmp_path, schema, FEW)
    path, stop, met = tmp_path / "shard-1.db", 0, set()
    while True:
        connection, left = connect(path), stop

        def count(*_):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return True

        connection.exec_trace = count
        try:
            migrate(connection)
            break
        except Killed:
            stop += 1
        finally:
            connection.exec_trace = None
            connection.close()
        looked = connect(path, readonly=True)
        ((version,),) = looked.execute("PRAGMA user_version").fetchall()
        looked.close()
        met.add(version)
    lives = Lives(tmp_path)
    lives.run(expected)

    assert met <= set(range(schema, len(MIGRATIONS) + 1))
    assert stop > 4
    assert missing(lives, expected) == (set(), 0)
    assert lives.wrong == lives.twice == []


@pytest.mark.parametrize("schema", OLD)
def test_a_damaged_old_file_is_salvaged_into_a_new_one(tmp_path, schema):
    """With checksums from then on; what has no seal is believed if it is whole otherwise."""
    expected = old_files.make(tmp_path, schema, FEW)
    note(tmp_path / "shard-1.db", "planted", proven=True)
    lives = Lives(tmp_path)
    lives.run(expected)

    assert missing(lives, expected) == (set(), 0)
    assert lives.wrong == lives.twice == []
    assert has_checksums(tmp_path / "shard-1.db")
    (past,) = read_record(tmp_path / "shard-1.db").past
    assert (past.held, past.unreadable, past.messages) == (0, 0, FEW)


def test_an_old_message_that_lost_a_recipient_is_held(tmp_path):
    """How many there were stands in its first step."""
    expected = old_files.make(tmp_path, 2, FEW)
    connection = connect(tmp_path / "shard-1.db")
    (number,) = connection.execute(
        "SELECT min(id >> 10) FROM rcpt WHERE id & 1023 = 1 AND state = 0 AND waits = 0"
    ).fetchone()
    connection.execute("DELETE FROM rcpt WHERE id = ?", (number << 10 | 1,))
    connection.close()
    note(tmp_path / "shard-1.db", "planted", proven=True)
    lives = Lives(tmp_path)
    lives.run(expected)
    gone, residual = missing(lives, expected)

    assert lives.wrong == []
    assert residual == len(gone) == 1
    assert ("spool.corrupt", {"message": name(number), "what": "recipients"}) in lives.log.errors


def test_columns_of_before_stand_for_nothing(tmp_path):
    """A message of an old file has no seal, and leaves; a new one beside it has one."""
    old_files.make(tmp_path, 2, FEW)
    store = SqliteStore(tmp_path / "shard-1.db", tmp_path / "bodies-1", now_us=lambda: START_US)
    store.commit([damage.accept(9999)])
    seals = store._db.execute("SELECT seal IS NULL, count(*) FROM msg GROUP BY 1").fetchall()
    damage.end(store)

    assert seals == [(0, 1), (1, FEW)]
    reader = SqliteReader(tmp_path / "shard-1.db", shard=1)
    assert reader.message(name(9999)).state == "queued"
    reader.close()


def test_a_message_of_before_is_given_a_header_and_a_way_out(tmp_path):
    """What waits unjudged in an old file is judged by a new policy, and leaves by its pool."""
    old_files.make(tmp_path, 3, FEW)
    store = SqliteStore(tmp_path / "shard-1.db", tmp_path / "bodies-1", now_us=lambda: START_US)
    message = store.pending(0, 1)[0].message
    store.commit([Judged(message, damage.LATE, b"")])
    content = store.content(message)
    damage.end(store)

    assert content.pool == "bulk"
    assert content.added.endswith(b"\r\nX-Class: late\r\n")


@pytest.mark.parametrize("schema", OLD)
def test_a_file_of_before_is_read_before_it_is_brought_up(tmp_path, schema):
    """A command that looks into a silent shard's file finds the message as it was."""
    old_files.make(tmp_path, schema, FEW)
    reader = SqliteReader(tmp_path / "shard-1.db", shard=1)
    row = reader.message(name(1))
    reader.close()

    assert (row.state, row.pool, row.lifetime_s, row.hold_until_us) == ("held", "", 172_800, None)
    assert row.held_at_us is not None
