"""The picture of the tables: swapped when they change, kept when they are gone."""

import asyncio
import threading
import time
from itertools import pairwise

from postweir.identity.directory import APART_S, LOOK_S, Watched
from postweir.identity.networks import Networks
from postweir.identity.ports import Tables
from postweir.identity.sender import Account, Directory
from postweir.runtime.log import quiet


class FakeTables:
    """Tables in memory that may be out of reach."""

    def __init__(self, found: Directory | None = None) -> None:
        self.found = found
        self.asked: list[int] = []
        self.looked = threading.Semaphore(0)

    def directory(self, newer_than: int) -> Directory | None:
        self.asked.append(newer_than)
        self.looked.release()
        if self.found is None:
            raise OSError("no tables")
        return self.found if self.found.version > newer_than else None


def picture(version: int, *accounts: Account) -> Directory:
    return Directory(version=version, accounts={a.name: a for a in accounts})


_: Tables = FakeTables()  # the fake is what the port asks for

ACME = Account(name="acme", networks=("192.0.2.0/24",))


def test_a_change_is_seen():
    """What the tables hold is there after start, and a newer picture replaces it."""
    tables = FakeTables(picture(1))
    watched = Watched(tables, picture=None, log=quiet())
    watched.start()
    try:
        assert watched.known
        tables.found = picture(2, ACME)
        for _ in range(3):
            assert tables.looked.acquire(timeout=5)

        assert watched.now.accounts == {"acme": ACME}
        assert watched.networks.owner("192.0.2.9") == "acme"
    finally:
        watched.close()


def test_a_restart_needs_no_tables(tmp_path):
    """The last picture serves while the tables are out of reach, and is private."""
    path = tmp_path / "picture"
    first = Watched(FakeTables(picture(7, ACME)), picture=path, log=quiet())
    first.look(-1)
    second = Watched(FakeTables(None), picture=path, log=quiet())
    second.start()
    second.close()

    assert second.now == picture(7, ACME)
    assert second.known
    assert second.networks.owner("192.0.2.9") == "acme"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["picture"]


def test_tables_that_count_lower_are_believed(tmp_path):
    """Tables restored from a backup replace a picture of a higher number."""
    path = tmp_path / "picture"
    Watched(FakeTables(picture(9, ACME)), picture=path, log=quiet()).look(-1)
    tables = FakeTables(picture(3))
    restarted = Watched(tables, picture=path, log=quiet())
    restarted.start()
    restarted.close()

    assert restarted.now == picture(3)
    assert tables.asked[0] == -1


def test_a_spoilt_picture_is_no_picture(tmp_path):
    """A torn file is like none: nothing is known until the tables answer."""
    path = tmp_path / "picture"
    path.write_bytes(b"\x93\x01torn")
    watched = Watched(FakeTables(None), picture=path, log=quiet())
    watched.start()
    watched.close()

    assert not watched.known
    assert watched.now.accounts == {}


def test_any_byte_of_a_picture_that_changed_is_found(tmp_path):
    """A wrong account or secret would be worse than none: it is made anew from the tables."""
    path = tmp_path / "picture"
    Watched(FakeTables(picture(7, ACME)), picture=path, log=quiet()).look(-1)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        watched = Watched(FakeTables(None), picture=path, log=quiet())
        watched._load(path)
        assert not watched.known
    Watched(FakeTables(picture(7, ACME)), picture=path, log=quiet()).look(-1)

    assert path.read_bytes() == whole


def test_the_longest_prefix_wins():
    """The narrowest network that holds an address says whose it is."""
    found = Networks(
        [
            Account(name="wide", networks=("192.0.2.0/24", "2001:db8::/32")),
            Account(name="host", networks=("192.0.2.7",)),
            Account(name="odd", networks=("nonsense", "192.0.2.128/25")),
        ]
    )

    assert found.owner("192.0.2.1") == "wide"
    assert found.owner("192.0.2.7") == "host"
    assert found.owner("::ffff:192.0.2.7") == "host"
    assert found.owner("192.0.2.200") == "odd"
    assert found.owner("2001:db8::5") == "wide"
    assert found.owner("198.51.100.1") is None
    assert found.owner("") is None
    assert found.unreadable == ["nonsense"]


def test_a_network_of_two_accounts_is_nobodys():
    """Where two accounts claim the same network neither gets its mail."""
    found = Networks(
        [Account(name="a", networks=("10.0.0.0/8",)), Account(name="b", networks=("10.0.0.0/8",))]
    )

    assert found.owner("10.1.1.1") is None


async def test_however_many_ask_looks_are_apart():
    """Who asks again shares a look with who asks meanwhile, and no look follows at once."""
    tables = FakeTables(picture(1))
    looked_at: list[float] = []
    kept = tables.directory

    def directory(newer_than: int) -> Directory | None:
        looked_at.append(time.monotonic())
        return kept(newer_than)

    tables.directory = directory
    watched = Watched(tables, picture=None, log=quiet())
    watched.start()
    try:
        for _ in range(5):
            assert all(await asyncio.gather(*(watched.again(5) for _ in range(50))))
    finally:
        watched.close()

    assert min(later - one for one, later in pairwise(looked_at)) >= APART_S * 0.9
    assert len(looked_at) <= 5 + 2 + (looked_at[-1] - looked_at[0]) / LOOK_S


async def test_a_look_that_reaches_nothing_is_no_look():
    """Who asks again is told when the tables could not be reached."""
    tables = FakeTables(picture(1))
    watched = Watched(tables, picture=None, log=quiet())
    watched.start()
    try:
        assert await watched.again(5)
        tables.found = None
        assert not await watched.again(5)
        assert watched.now == picture(1)
    finally:
        watched.close()
