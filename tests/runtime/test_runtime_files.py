"""Small files are whole or not there."""

import os

import pytest

from postweir.runtime import files
from postweir.runtime.frames import Torn


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    """Where a write or sync fails, what was there before stands, and nothing is left beside it."""
    path = tmp_path / "small"
    files.replace(path, b"one")

    def fail(_):
        raise OSError(5, "planted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="planted"):
            files.replace(path, b"two")
    assert path.read_bytes() == b"one"
    assert [one.name for one in tmp_path.iterdir()] == ["small"]
    files.replace(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600


def test_synced_before_it_is_named(tmp_path, monkeypatch):
    """The order is the promise: bytes, their sync, the name, its sync."""
    done = []
    real, rename = os.fsync, type(tmp_path).rename

    def fsync(descriptor):
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        real(descriptor)

    def renamed(self, to):
        done.append("name")
        return rename(self, to)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(type(tmp_path), "rename", renamed)
    files.replace(tmp_path / "small", b"one")

    assert done == ["file", "name", "folder"]


def test_a_seal_finds_every_byte():
    """Changed, cut off or put on."""
    whole = files.sealed(b"some words")

    assert files.unsealed(whole) == b"some words"
    for at in range(len(whole)):
        for spoilt in (whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :], whole[:at]):
            with pytest.raises(Torn):
                files.unsealed(spoilt)


def test_a_file_too_large_is_not_read(tmp_path):
    """Whoever put it there."""
    (tmp_path / "small").write_bytes(bytes(11))

    assert files.read(tmp_path / "small", 11) == bytes(11)
    with pytest.raises(Torn):
        files.read(tmp_path / "small", 10)
