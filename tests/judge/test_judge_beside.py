"""Files are read beside a policy and below, ordinary ones, within bounds: nothing else ever is."""

import os

import pytest

from postweir.judge import beside
from postweir.policy.document import BYTES_MAX, Wrong

SET = '[[set]]\nid = "s"\nof = "from_domain"\nfile = "{}"\n' \
      '[[rule]]\nid = "a"\nwhen = "set.s"\nthen = {{ verb = "hold" }}\n'  # fmt: skip


def test_a_policy_and_its_files(tmp_path):
    """In its folder, or below it."""
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "s.txt").write_text("a.example\n")
    path = tmp_path / "p.toml"
    path.write_text(SET.format("lists/./s.txt"))

    parsed = beside.read(path)
    assert list(parsed.sets.values()) == [b"a.example\n"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("link", "links are not followed"),
        ("folder", "is no ordinary file"),
        ("away/s.txt", "a folder on the way is a link, or none"),
        ("pipe", "is no ordinary file"),
        ("gone", "no such file"),
        ("s.txt/x", "a folder on the way is a link, or none"),
        ("../s.txt", "is not beside the policy"),
        ("/dev/zero", "is not beside the policy"),
        ("large", "is larger than 0 MiB"),
        (".", "no such file"),
    ],
)
def test_what_is_not_read(tmp_path, monkeypatch, name, why):
    """Each is a fault with its reason; a pipe does not make anybody wait."""
    monkeypatch.setattr(beside, "SET_BYTES_MAX", 20)
    (tmp_path / "folder").mkdir()
    (tmp_path / "s.txt").write_text("a.example\n")
    (tmp_path / "link").symlink_to("s.txt")
    (tmp_path / "away").symlink_to("folder")
    (tmp_path / "folder" / "s.txt").write_text("a.example\n")
    (tmp_path / "large").write_text("a.example\n" * 3)
    os.mkfifo(tmp_path / "pipe")

    said = beside.files(tmp_path / "p.toml")(name)
    assert isinstance(said, str)
    assert why in said
    assert name in said


def test_descriptors_are_closed(tmp_path):
    """However it ends."""
    read = beside.files(tmp_path / "p.toml")
    (tmp_path / "a").write_text("x")
    (tmp_path / "folder").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for name in ("a", "gone", "b/c", ".", "folder"):
        read(name)

    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"[[rule]]\n# \xe9\n", "p.toml:2: is not UTF-8"),
        ("\u20ac".encode() * BYTES_MAX, "is larger than 256 KiB"),
        (b"a" * 10_000_000, "is larger than 256 KiB"),
    ],
)
def test_a_file_that_is_no_policy(tmp_path, data, what):
    """It is read no further than needed to say so."""
    path = tmp_path / "p.toml"
    path.write_bytes(data)

    with pytest.raises(Wrong, match=what):
        beside.read(path)
