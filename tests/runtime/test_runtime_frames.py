"""What processes say to each other survives any cut of the bytes, and a newer neighbour."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.runtime.frames import (
    FRAME_BYTES_MAX,
    Frame,
    Splitter,
    Torn,
    Value,
    encode,
    pack,
    unpack,
)


class Who(Value, frozen=True):
    name: str


class Said(Frame, frozen=True):
    who: Who
    words: bytes
    more: int = 0


class Newer(Frame, frozen=True):
    anything: int


class Older(Frame, frozen=True, tag="Said"):
    who: Who


FRAMES = [Said(Who("a"), b"x" * 300, n) for n in range(5)]


@given(st.lists(st.integers(0, len(encode(FRAMES))), max_size=12))
def test_cuts_do_not_matter(cuts):
    """However the bytes arrive, the frames are the same."""
    data = encode(FRAMES)
    splitter = Splitter(Said)

    got = [f for a, b in pairwise([0, *sorted(cuts), len(data)]) for f in splitter.feed(data[a:b])]

    assert got == FRAMES


def test_an_unknown_frame_is_skipped_and_counted():
    """A neighbour one version ahead is not an error."""
    splitter = Splitter(Said)

    assert splitter.feed(encode([Newer(1), FRAMES[0], Newer(2)])) == [FRAMES[0]]
    assert splitter.skipped == 2


def test_a_longer_frame_is_read_by_an_older_process():
    """Fields that were added last do not disturb those who do not know them."""
    assert Splitter(Older).feed(encode([FRAMES[3]])) == [Older(Who("a"))]


def test_a_shorter_frame_is_read_by_a_newer_process():
    """Fields that were added last have defaults."""
    short = b"\x93\xa4Said\x91\xa1a\xc4\x01x"

    assert Splitter(Said).feed(len(short).to_bytes(4, "big") + short) == [Said(Who("a"), b"x")]


@given(st.binary(max_size=200))
def test_noise_is_torn_or_waits(noise):
    """Anything may arrive; nothing but Torn is raised."""
    try:
        Splitter(Said).feed(noise)
    except Torn:
        return


def test_a_length_without_end_is_refused_at_once():
    """Memory is not promised to whoever asks for it."""
    with pytest.raises(Torn):
        Splitter(Said).feed((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))


def test_values_travel_alone():
    """What is packed is unpacked, and only as what it is."""
    assert unpack(pack(Who("b")), Who) == Who("b")
    with pytest.raises(Torn):
        unpack(b"\xc1", Who)
    with pytest.raises(Torn):
        unpack(pack(3), Who)
