"""The operator's tables: many writers, a picture for readers, and nothing changed unnoted."""

import multiprocessing
import threading

import pytest

from postweir.desk.ports import Note
from postweir.identity.sender import Account, Credential
from postweir.storage import sqlite_tables
from postweir.storage.sqlite import StorageFault, connect
from postweir.storage.sqlite_tables import SqliteTables


@pytest.fixture
def tables(tmp_path):
    return SqliteTables(tmp_path / "tables.db")


def note(verb="test", about="acme", at_us=1, reason=""):
    return Note(at_us=at_us, by="op", verb=verb, object=about, reason=reason)


def credential(username="acme-1", account="acme"):
    return Credential(account, username, b"h" * 32, b"s" * 16, 4096, b"k" * 32, b"v" * 32, 7)


def test_before_anything_is_written_there_is_an_empty_picture(tables, tmp_path):
    """Reading makes no file: edge and judge may start first."""
    assert tables.directory(0) is None
    assert tables.directory(-1).accounts == {}
    assert tables.after(0) == []
    assert tables.notes(0, 10) == []
    assert list(tmp_path.iterdir()) == []


def test_an_account_is_kept_with_what_was_set_and_the_rest_at_its_default(tables):
    """Only what was chosen is stored, so a better default reaches old accounts."""
    assert tables.add_account("acme", {"lifetime_s": 60, "networks": ["192.0.2.0/24"]}, note())

    found = tables.directory(-1).accounts["acme"]
    assert found == Account("acme", lifetime_s=60, networks=("192.0.2.0/24",), created_us=1)


def test_an_account_is_added_once(tables):
    """The second of one name changes nothing and is not noted."""
    assert tables.add_account("acme", {"lifetime_s": 60}, note())
    assert not tables.add_account("acme", {"lifetime_s": 90}, note())

    assert tables.directory(-1).accounts["acme"].lifetime_s == 60
    assert len(tables.notes(0, 10)) == 1


def test_setting_one_thing_keeps_the_others(tables):
    """`account set` changes what it names."""
    tables.add_account("acme", {"lifetime_s": 60}, note())
    assert tables.set_account("acme", {"sender_plain": True}, note())
    assert not tables.set_account("other", {"sender_plain": True}, note())

    found = tables.directory(-1).accounts["acme"]
    assert (found.lifetime_s, found.sender_plain) == (60, True)


def test_suspending_and_resuming(tables):
    """A suspended account is there, and says so."""
    tables.add_account("acme", {}, note())
    assert tables.suspend_account("acme", True, note())
    assert tables.directory(-1).accounts["acme"].suspended
    assert tables.suspend_account("acme", False, note())
    assert not tables.directory(-1).accounts["acme"].suspended
    assert not tables.suspend_account("other", True, note())


def test_credentials(tables):
    """A credential comes back byte for byte, a taken name is refused, revoking happens once."""
    made = credential()
    assert tables.add_credential(made, note())
    assert not tables.add_credential(credential(account="other"), note())
    assert tables.directory(-1).credentials == {"acme-1": made}
    assert tables.revoke_credential("acme-1", note(at_us=9))
    assert not tables.revoke_credential("acme-1", note(at_us=10))

    assert tables.directory(-1).credentials["acme-1"].revoked_us == 9


def test_the_last_decision_about_a_sender_counts(tables):
    """Stopped, then allowed: one record, of who decided last and why."""
    tables.decide_sender("stopped", note(about="acme|sasl|joe", reason="spam"))
    tables.decide_sender("allowed", note(about="acme|sasl|joe", reason="cleaned", at_us=2))

    record = tables.directory(-1).senders["acme|sasl|joe"]
    assert (record.state, record.reason, record.by, record.at_us) == ("allowed", "cleaned", "op", 2)


def test_requests_are_numbered_in_order_and_read_on_from_a_number(tables):
    """A shard reads what it has not done."""
    numbers = [tables.request("retry", f"domain=d{n}", note(reason="r")) for n in range(3)]
    later = tables.after(numbers[0])

    assert numbers == sorted(set(numbers))
    assert [r.number for r in later] == numbers[1:]
    assert (later[0].verb, later[0].scope, later[0].reason) == ("retry", "domain=d1", "r")
    assert later[0].until_us is None


def test_a_request_number_is_never_given_again(tables, tmp_path):
    """A shard that remembers 2 must not take a new request for done."""
    tables.request("retry", "domain=a", note())
    last = tables.request("retry", "domain=b", note())
    connection = connect(tmp_path / "tables.db")
    connection.execute("delete from request")
    connection.close()

    assert tables.request("retry", "domain=c", note()) == last + 1


def test_a_picture_is_given_only_when_it_is_new(tables):
    """Four looks a second cost a version each, not the tables."""
    tables.add_account("acme", {}, note())
    first = tables.directory(0)
    assert tables.directory(first.version) is None
    tables.request("retry", "domain=a", note())  # concerns shards, not the picture
    assert tables.directory(first.version) is None
    tables.suspend_account("acme", True, note())

    assert tables.directory(first.version).version > first.version


def test_a_picture_from_a_backup_is_taken_though_it_counts_lower(tables):
    """After a restore the version may go back; what stands in the file is the truth."""
    tables.add_account("acme", {}, note())

    assert tables.directory(10_000).accounts.keys() == {"acme"}


def test_every_change_is_noted_with_who_and_why(tables):
    """The audit log is written in the change's own transaction."""
    tables.add_account("acme", {}, note("account add"))
    tables.suspend_account("acme", True, note("account suspend", reason="unpaid", at_us=5))
    tables.set_account("nobody", {}, note("account set"))
    found = [n for _, n in tables.notes(0, 10)]

    assert [n.verb for n in found] == ["account add", "account suspend"]
    assert found[1] == Note(5, "op", "account suspend", "acme", "unpaid")
    assert [number for number, _ in tables.notes(1, 10)] == [2]


def test_what_a_newer_version_set_does_not_stop_an_older_one(tables, tmp_path):
    """N and N-1 work together: an unknown setting is left out, a newer schema left alone."""
    tables.add_account("acme", {"from_the_future": 1, "lifetime_s": 60}, note())
    connection = connect(tmp_path / "tables.db")
    connection.execute("alter table account add column more text")
    connection.execute("pragma user_version = 99")
    connection.close()

    assert tables.directory(-1).accounts["acme"].lifetime_s == 60
    assert tables.add_account("other", {}, note())


def test_a_torn_file_is_a_storage_fault(tmp_path):
    """Not SQLite's own exception, nor a traceback of somebody's: one that says which file."""
    path = tmp_path / "tables.db"
    path.write_bytes(b"no database at all" * 100)

    with pytest.raises(StorageFault, match=r"tables\.db"):
        SqliteTables(path).directory(-1)


def test_a_failing_change_leaves_nothing(tables, monkeypatch):
    """Half a change is none: neither row nor note."""
    tables.add_account("acme", {}, note())
    bad = Note(at_us="no number", by="op", verb="x", object="acme")
    with pytest.raises(StorageFault):
        tables.suspend_account("acme", True, bad)

    assert not tables.directory(-1).accounts["acme"].suspended
    assert len(tables.notes(0, 10)) == 1


def _add_accounts(path, worker, count):
    tables = SqliteTables(path)
    for n in range(count):
        assert tables.add_account(f"w{worker}-{n}", {}, note(about=f"w{worker}-{n}"))


def test_several_processes_write_from_the_first_moment(tmp_path):
    """Commands race to make the file, and none loses a write."""
    path = tmp_path / "data" / "tables.db"
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_add_accounts, args=(path, w, 10)) for w in range(4)]
    for one in workers:
        one.start()
    for one in workers:
        one.join(60)

    assert [one.exitcode for one in workers] == [0] * 4
    assert len(SqliteTables(path).directory(-1).accounts) == 40
    assert len(SqliteTables(path).notes(0, 100)) == 40


def test_readers_on_threads_see_whole_changes_while_others_write(tables):
    """An account never appears without its version having risen."""
    tables.add_account("first", {}, note())
    pictures, stop, faults = [], threading.Event(), []

    def look():
        version = 0
        try:
            while not stop.is_set():
                found = tables.directory(version)
                if found is not None:
                    version = found.version
                    pictures.append((version, len(found.accounts)))
        except BaseException as fault:
            faults.append(fault)
            raise

    readers = [threading.Thread(target=look) for _ in range(2)]
    for one in readers:
        one.start()
    for n in range(20):
        tables.add_account(f"a{n}", {}, note())
    stop.set()
    for one in readers:
        one.join(10)

    assert faults == []
    assert all(count == version - 1 for version, count in pictures)


def test_old_requests_and_notes_go_but_never_the_last_thousand(tables, monkeypatch):
    """The record goes back 35 days; a clock that jumps ahead does not empty it; no number twice."""
    monkeypatch.setattr(sqlite_tables, "KEEP_ROWS", 3)
    monkeypatch.setattr(sqlite_tables, "PRUNE_ROWS", 2)
    for n in range(6):
        tables.request("retry", f"domain=d{n}", note(at_us=n))
    later = sqlite_tables.KEEP_US + 5
    tables.request("retry", "domain=x", note(at_us=later))
    assert [r.number for r in tables.after(0)] == [3, 4, 5, 6, 7], "some at a time"
    tables.request("retry", "domain=y", note(at_us=later * 2))
    assert [r.number for r in tables.after(0)] == [5, 6, 7, 8]
    last = tables.request("retry", "domain=z", note(at_us=later * 9))

    assert [r.number for r in tables.after(0)] == [7, 8, 9], "the last three, whatever their age"
    assert last == 9
    assert [number for number, _ in tables.notes(0, 100)] == [7, 8, 9]


def test_a_file_that_vanishes_is_trouble_and_not_an_empty_one(tables, tmp_path):
    """While a backup is put in place nobody may conclude that there are no accounts."""
    assert tables.directory(-1).accounts == {}
    tables.add_account("acme", {}, note())
    assert "acme" in tables.directory(-1).accounts
    (tmp_path / "tables.db").rename(tmp_path / "away.db")

    with pytest.raises(StorageFault, match="gone"):
        tables.directory(1)
    (tmp_path / "tables.db").touch()
    with pytest.raises(StorageFault, match="gone"):
        tables.directory(1)
    (tmp_path / "away.db").rename(tmp_path / "tables.db")
    assert "acme" in tables.directory(-1).accounts


def test_the_write_ahead_log_is_checkpointed(tables, tmp_path):
    """Nobody else checkpoints this file: it must not grow with every command."""
    for n in range(50):
        tables.request("retry", f"domain=d{n}", note())
    wal = tmp_path / "tables.db-wal"

    assert not wal.exists() or wal.stat().st_size < 200_000


def test_every_migration_is_counted(tables, tmp_path):
    """`user_version` says how many a file has had."""
    tables.add_account("acme", {}, note())
    connection = connect(tmp_path / "tables.db", readonly=True)
    ((version,),) = connection.execute("pragma user_version").fetchall()
    connection.close()

    assert version == len(sqlite_tables.MIGRATIONS)
