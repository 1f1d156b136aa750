"""What `kill.toml` says: written to be read by people, and read with suspicion."""

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.judge import kills
from postweir.judge.kills import BYTES_MAX, Kill, Kills, parse, read
from postweir.runtime.frames import Torn

POL = "pol_" + "a" * 64
texts = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\\\"'\x7f"),
                max_size=40)  # fmt: skip
rules = st.builds(
    Kill,
    rule=st.from_regex(r"[a-z0-9-]{1,64}", fullmatch=True),
    reason=texts,
    by=texts,
    at_us=st.integers(0, 4_000_000_000).map(lambda s: s * 1_000_000),
)
others = st.sampled_from([Kill(engine_off=True, reason="x"), Kill(to=POL)])


@given(st.lists(rules | others, max_size=8))
def test_what_is_written_is_what_is_read(many):
    """Whatever the reasons have in them."""
    now = Kills(tuple(many))

    assert parse(now.text.encode()) == now


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_nonsense_is_said_to_be_nonsense(data):
    """Never another exception: the thread that looks goes on looking."""
    with contextlib.suppress(Torn):
        assert isinstance(parse(data), Kills)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[kill]]\nrul = 'x'", "rul is not known"),
        ("[[kill]]\n", "exactly one"),
        ("[[kill]]\nrule = 'x'\nengine = 'off'", "exactly one"),
        ("[[kill]]\nengine = 'on'", "remove the table"),
        ("[[kill]]\nengine = true", "no text in quotes"),
        ("[[kill]]\nrule = ''", "no id"),
        ("[[kill]]\nrule = '" + "x" * 65 + "'", "no id"),
        ("[[kill]]\nto = 'pol_12'", "no whole name"),
        ("[kill]\nrule = 'x'", "no list"),
        ("kill = ['x']", "no table"),
        ("rules = ['x']", "rules is not known"),
        ("[[kill]]\nrule = 'x'\nreason = '" + "x" * 501 + "'", "at most 500"),
        ("[[kill]", "is not TOML"),
        ("kill = " + "[" * 5000, "is not TOML"),
        ("x = " + "1" * 5000, "is not TOML"),
        ("[[kill]]\nrule='x'\n" * 201, "at most 200"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(text, says):
    """A hand in a hurry is helped."""
    with pytest.raises(Torn, match=says.replace("[", r"\[")):
        parse(text.encode())


def test_two_lines_by_hand_are_enough():
    """Reason, author and time may be left out."""
    now = parse(b'[[kill]]\nrule = "spam"\n[[kill]]\nengine = "off"\n')

    assert (now.rules, now.engine_off, now.to) == (["spam"], True, "")


def test_one_more_takes_the_place_of_its_like():
    """A rule is killed once, and there is one policy to go back to."""
    now = Kills().more(Kill(rule="a", reason="1")).more(Kill(to=POL)).more(Kill(rule="b"))
    now = now.more(Kill(rule="a", reason="2")).more(Kill(to="pol_" + "b" * 64))

    assert sorted(now.rules) == ["a", "b"]
    assert now.to == "pol_" + "b" * 64
    assert len(now.kills) == 3


def test_only_a_plain_file_is_read(tmp_path):
    """A pipe without a writer, a link, a folder, too much: a fault at once, and no waiting."""
    path = tmp_path / "kill.toml"
    assert read(path) == b""
    os.mkfifo(path)
    with pytest.raises(Torn, match="plain"):
        read(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(OSError, match="symbolic"):
        read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(Torn, match="plain"):
        read(path)
    path.rmdir()
    path.write_bytes(b"#" * (BYTES_MAX + 1))
    with pytest.raises(Torn, match="larger"):
        read(path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "no folder" / "kill.toml")


def test_files_have_names_by_what_they_say():
    """So a command knows that a judge has taken what it wrote."""
    assert kills.name_of(b"") == ""
    assert kills.name_of(b"a") != kills.name_of(b"b")
