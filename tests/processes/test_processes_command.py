"""How a command reaches shards: that answer, that are silent, and that are down."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from tests.desk.office import accept, name
from tests.desk.office import office as desk_office

from postweir.processes.command import Reach, office
from postweir.runtime import link
from postweir.runtime.settings import Settings, Storage, Wrong
from postweir.spool.ports import Health, Page, Read, ShardFrame, Wake


@pytest.fixture
def settings(tmp_path):
    found = Settings(storage=Storage(data=str(tmp_path)))
    found.run.mkdir()
    return found


async def shard(settings, number, heard):
    """Serve as a living shard that answers every question with one row."""

    def up(line):
        line.send(Health("", True, "", 1, 0))

    def hear(line, said):
        for frame in said:
            heard.append(frame)
            if isinstance(frame, Read):
                line.send(Page(frame.ask, [b"row"], None))

    path = settings.run / f"shard-{number}.sock"
    return await link.serve(path, ShardFrame, up, hear, lambda _: None)


async def test_a_living_shard_answers(settings):
    """Over its socket, not from its file."""
    heard = []
    server = await shard(settings, 1, heard)
    reach = Reach(settings)
    page = await reach.read(1, "ledger", "", 0, 10)
    await reach.close()
    server.close()

    assert page.rows == [b"row"]
    assert any(isinstance(f, Read) and f.question == "ledger" for f in heard)


async def test_a_shard_that_is_down_costs_no_time(settings):
    """Nobody listens: that is known at once, for every question."""
    (settings.run / "shard-2.sock").touch()
    reach = Reach(settings)
    began = time.monotonic()
    for number in (1, 2):
        with pytest.raises(ConnectionError):
            await reach.read(number, "ledger", "", 0, 10)
    await reach.wake()

    assert time.monotonic() - began < 0.5
    await reach.close()


async def test_a_silent_shard_costs_a_second_once(settings):
    """It listens and says nothing (SIGSTOP): asked once, then read from its file."""
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(settings.run / "shard-1.sock"))
        stopped.listen(8)
        reach = Reach(settings)
        began = time.monotonic()
        for _ in range(3):
            with pytest.raises(ConnectionError):
                await reach.read(1, "ledger", "", 0, 10)
        took_s = time.monotonic() - began
        await reach.close()

    assert 0.9 < took_s < 2.5  # asked each time it would be three


async def test_waking_reaches_the_living(settings):
    """One down does not keep the other from hearing."""
    heard = []
    server = await shard(settings, 1, heard)
    reach = Reach(settings)
    await reach.wake()
    await reach.read(1, "status", "", 0, 1)
    await reach.close()
    server.close()

    assert any(isinstance(f, Wake) for f in heard)


def test_a_shard_that_never_was_has_an_empty_file(settings):
    """Before the first start there is nothing to read, and that is no fault."""
    assert Reach(settings).read_file(1, "ledger", "", 0, 10).rows == []


def test_what_a_shard_had_and_is_gone_is_no_empty_file(settings):
    """An audit must not close because the file that would not close it was deleted."""
    (settings.data / "spool" / "bodies-2").mkdir(parents=True)
    reach = Reach(settings)

    assert reach.read_file(1, "ledger", "", 0, 10).rows == []
    with pytest.raises(OSError, match="is gone"):
        reach.read_file(2, "ledger", "", 0, 10)


def test_a_data_directory_that_is_not_there_is_not_an_empty_one(tmp_path):
    """A wrong `storage.data` is said, and never answered with a ledger of zeros."""
    reach = Reach(Settings(storage=Storage(data=str(tmp_path / "none"))))

    with pytest.raises(OSError, match="no data directory"):
        reach.read_file(1, "ledger", "", 0, 10)


def test_root_acts_as_the_user_whose_data_it_is():
    """`sudo postweir account add` leaves no file that the service cannot write."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with tempfile.TemporaryDirectory() as scratch:  # tmp_path is closed to other users
        folder = Path(scratch)
        folder.chmod(0o755)
        data = folder / "data"
        data.mkdir(mode=0o700)
        os.chown(data, 65534, 65534)
        (folder / "postweir.toml").write_text('[storage]\ndata = "data"\n')
        words = [sys.executable, "-m", "postweir", "account", "add", "acme"]
        done = subprocess.run([*words, "-c", str(folder / "postweir.toml")], timeout=60,
                              capture_output=True, text=True, check=False)  # fmt: skip
        owners = {path.stat().st_uid for path in data.iterdir()}

    assert (done.returncode, done.stderr) == (0, "")
    assert owners == {65534}


def test_the_file_of_a_shard_is_read(tmp_path):
    """The answer is the one that the shard itself would give."""
    desk = desk_office(tmp_path)
    desk.shards.stores[1].commit([accept(1)])
    reach = Reach(desk.settings)
    page = reach.read_file(1, "message", name(1), 0, 10)
    desk.shards.close()

    assert len(page.rows) == 2  # the message, and its one step
    assert page.next is None


def test_a_torn_file_is_a_fault_with_its_name(settings):
    """Never SQLite's own exception."""
    (settings.data / "spool").mkdir()
    (settings.data / "spool" / "shard-1.db").write_bytes(b"torn" * 2000)

    with pytest.raises(OSError, match=r"shard-1\.db"):
        Reach(settings).read_file(1, "ledger", "", 0, 10)


def test_files_above_the_count_are_shards_too(settings):
    """`shards` was lowered: what the third one promised is still counted."""
    (settings.data / "spool").mkdir()
    (settings.data / "spool" / "shard-3.db").touch()

    assert list(Reach(settings).numbers) == [1, 2, 3]


async def test_the_office_is_built_from_the_settings(tmp_path):
    """Wrong settings open nothing; good ones name the operator."""
    path = tmp_path / "postweir.toml"
    path.write_text("[edge]\nnope = 1")
    with pytest.raises(Wrong):
        async with office(path):
            pass
    path.write_text("")
    async with office(path) as opened:
        assert opened.by
        assert opened.settings.data == tmp_path / "var"
