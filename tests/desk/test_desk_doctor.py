"""The doctor finds what is wrong, says what to do, and changes nothing."""

import dataclasses
import os
import threading
from unittest.mock import Mock

import pytest
from tests.desk.office import accept, name

from postweir.desk import doctor
from postweir.desk.ports import Salvage, ShardFile
from postweir.processes.command import Files
from postweir.storage.spool_recovery import Recovery, note
from postweir.storage.sqlite import connect


@pytest.fixture
def settings_file(tmp_path):
    path = tmp_path / "postweir.toml"
    path.write_text(f'[storage]\ndata = "{tmp_path}"\n[edge]\nlisten = []\nconnections_max = 10\n'
                    '[metrics]\nlisten = "127.0.0.1:0"\n[spool]\nfree_bytes_min = 1\n')  # fmt: skip
    return path


async def ask(office, settings_file, *, verify=False, tell=lambda *_: None):
    """Return the findings by severity, as one text each."""
    healed = dataclasses.replace(office, files=Files(office.settings))
    found = await doctor.doctor(healed, settings_file, verify=verify, tell=tell)
    return found, {
        severity: " | ".join(f"{one.about}: {one.what}; {one.do}"
                             for one in found.findings if one.severity == severity)
        for severity in ("ok", "warning", "error")
    }  # fmt: skip


async def test_what_is_well_is_said_to_be(office, settings_file):
    """A service that does not run is a warning, and the rest is fine."""
    office.shards.stores[1].commit([accept()])
    found, said = await ask(office, settings_file, verify=True)

    assert said["error"] == ""
    assert "service: does not run here; start it" in said["warning"]
    assert "shard 1: schema 4, page checksums" in said["ok"]
    assert "1 waiting messages read: all whole" in said["ok"]
    assert found.status == 1


async def test_a_damaged_page_is_found_by_reading_all(office, settings_file):
    """The file stays as it is, and its shard is left word: else it would not look that far."""
    store = office.shards.stores[1]
    store.commit([accept(n) for n in range(1, 60)])
    store.prove()  # moves all to the file, and begins the log anew
    path = office.settings.data / "spool" / "shard-1.db"
    data = bytearray(path.read_bytes())
    data[12 * 4096 + 50] ^= 1
    path.write_bytes(data)
    told = []
    found, said = await ask(
        office, settings_file, verify=True, tell=lambda *words: told.append(words)
    )

    assert found.status == 2
    assert "page 13 does not bear out its checksum" in said["error"]
    assert told
    assert "restart the service: this file is looked over then" in said["error"]
    assert path.read_bytes() == data
    office.shards.stores.pop(1).close()
    log = Mock()
    Recovery(path, path.with_name("bodies-1"), log=log, stop=threading.Event()).prepare()
    assert [call.args[0] for call in log.error.call_args_list] == [
        "spool.damaged",
        "spool.salvaged",
    ]
    _, said = await ask(office, settings_file)
    assert "shard 1: was salvaged" in said["warning"]
    for kept in path.parent.glob("shard-1.damaged-*"):
        kept.unlink()
    _, said = await ask(office, settings_file)
    assert "salvaged" not in said["warning"]


async def test_without_a_spool_one_finding_says_so(office, settings_file):
    """Not one for each shard, nor that there is no room."""
    (office.settings.data / "spool").rename(office.settings.data / "elsewhere")
    found, said = await ask(office, settings_file)

    assert "never started, or storage.data is wrong or not mounted" in said["warning"]
    assert "shard" not in said["error"]
    assert found.status == 1


def test_where_nobody_may_look_that_is_all_that_is_said(office):
    """Not that there is no room, too."""
    one = ShardFile(1, "/shard-1.db", owned=False, fault="[Errno 13] Permission denied")

    assert [f.what for f in doctor._shard(one, office.settings)] == [one.fault]


async def test_a_damaged_envelope_is_found_by_reading_all(office, settings_file):
    """By its seal, where the page is as it was written."""
    store = office.shards.stores[1]
    store.commit([accept(n) for n in range(1, 9)])
    store._db.execute("UPDATE msg SET mail_from = 'x@y.example' WHERE name = ?", (name(7),))
    store._db.execute("UPDATE rcpt SET address = 'x@y.example' WHERE id >> 10 = 3")
    store._db.execute("UPDATE body SET data = zeroblob(length(data)) WHERE id = 4")
    _, said = await ask(office, settings_file, verify=True)

    for number, what in ((7, "envelope"), (3, "address"), (4, "check")):
        assert f"message {name(number)}: {what}" in said["error"]


async def test_a_newer_file_is_told_with_what_to_do(office, settings_file):
    """Whoever went back a version reads which one to run."""
    connect(office.settings.data / "spool" / "shard-2.db").execute("PRAGMA user_version = 99")
    found, said = await ask(office, settings_file)

    assert "schema 99 is newer than this Postweir knows" in said["error"]
    assert "run the version that wrote it" in said["error"]
    assert found.status == 2


async def test_damage_that_waits_for_its_salvage(office, settings_file):
    """What a shard has left word of."""
    note(office.settings.data / "spool" / "shard-1.db", "a page was wrong", proven=True)
    _, said = await ask(office, settings_file)

    assert "is damaged: a page was wrong; it is salvaged when its process starts" in said["error"]


async def test_bodies_and_rows_that_do_not_meet(office, settings_file):
    """A file without a row, and a row without its file."""
    bodies = office.settings.data / "spool" / "bodies-1"
    (bodies / "here").write_bytes(b"x" * 24)
    store = office.shards.stores[1]
    made = accept()
    (bodies / "here").write_bytes(made.body)
    done = store.commit([accept(body=None, body_file="here")])
    assert not done[0].reason
    (bodies / "here").rename(bodies / "elsewhere")
    os.utime(bodies / "elsewhere", (1, 1))
    _, said = await ask(office, settings_file)

    assert "1 messages name a body file that is gone" in said["error"]
    assert "1 body files (or more) belong to no message" in said["warning"]


@pytest.mark.parametrize(
    ("changed", "severity", "what"),
    [
        ({"checksums": False}, "warning", "made without page checksums"),
        ({"extension": False}, "warning", "no cksumvfs"),
        ({"free_bytes": 1}, "error", "no mail is taken"),
        ({"free_bytes": 3 << 28}, "warning", "make room"),
        ({"log_bytes": 1 << 30}, "warning", "look who has the file open"),
        ({"held_corrupt": 2}, "error", "2 messages are held: damaged"),
        ({"clock_set_us": -7_200_000_000}, "warning", "the clock was set by -7200 s"),
        ({"there": False}, "warning", "is not there"),
        ({"schema": 2}, "warning", "schema 2, this version has 3"),
        ({"fault": "no permission"}, "error", "no permission"),
        ({"fault": "planted", "doubted": True}, "error", "it is looked over when its process"),
        ({"salvages": [Salvage(1, "planted", "/old.db", 9, 1, 0)]}, "warning", "/old.db"),
        ({}, "ok", "schema 3"),
    ],
)
def test_what_may_be_said_of_a_shard(office, changed, severity, what):
    """Each with its severity, and with what to do unless all is well."""
    values = {"schema": 3, "schema_known": 3, "checksums": True, "free_bytes": 1 << 40}
    one = ShardFile(**{"shard": 1, "path": "/shard-1.db", "owned": True, **values, **changed})
    found = doctor._shard(one, office.settings)

    said = [f for f in found if what in f"{f.what}; {f.do}"]
    assert [f.severity for f in said] == [severity]
    assert all(f.do for f in found if f.severity != "ok")


@pytest.mark.parametrize(
    ("kind", "severity"), [("tmpfs", "error"), ("nfs4", "warning"), ("ext4", "ok")]
)
def test_where_a_sync_is_no_promise(monkeypatch, tmp_path, kind, severity):
    """Memory loses all with the power, and a remote disk is somebody else's word."""
    monkeypatch.setattr(doctor, "_file_system", lambda _: kind)

    assert [f.severity for f in doctor._disk(tmp_path)] == [severity]


def test_settings_that_cannot_be_read(tmp_path):
    """They are the finding."""
    (tmp_path / "postweir.toml").write_text("[spool]\nshards = 0\n")
    found = doctor.sick(tmp_path / "postweir.toml")

    assert found.status == 2
    assert found.findings[0].about == "settings"
    assert "spool.shards" in found.findings[0].what


async def test_too_few_descriptors(office, settings_file, monkeypatch):
    """Fewer connections would be taken than the settings say."""
    monkeypatch.setattr(doctor, "_descriptors", lambda _: 1024)
    _, said = await ask(office, settings_file)

    assert "raise LimitNOFILE (ulimit -n) to 20200" in said["warning"]
