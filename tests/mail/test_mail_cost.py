"""What would trap a parser is told beforehand, and what only looks odd is not."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.mail import cost
from postweir.mail.message import read

HEAD = b"From: a@example.com\r\nSubject: x\r\n"
MULTIPART = HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
MIB = 1024 * 1024

# What such took before it was told.
TRAPS = {
    "encoded words": b"Subject: " + b"=?utf-8?q?a?= " * (4 * MIB // 14) + b"\r\n\r\nx",  # 75 s
    "their beginnings": b"Subject: " + b"=?" * (MIB // 2) + b"\r\n\r\nx",  # 256 KiB: 2 s
    "in a part": MULTIPART + b'--b\r\nContent-Type: a/b; name="' + b"=?" * MIB + b'"\r\n\r\nx',
    "a million parts": MULTIPART + b"--b\r\n\r\n" * MIB,  # 0.26 s held
    "words in a type": HEAD + b"Content-Type: =?utf-8?q?message/rfc822?=\r\n\r\nx",  # 1.3 GB
}


@pytest.mark.parametrize("name", TRAPS)
def test_traps_are_told_and_cost_nothing(name):
    """The message stays one opaque part with the anomaly `bound`, at once."""
    began = time.thread_time()

    found = read(TRAPS[name])

    assert time.thread_time() - began < 1.0
    assert cost.is_trap(TRAPS[name])
    assert found.anomalies == ("bound",)
    assert len(found.parts) == 1


def test_ordinary_mail_is_no_trap():
    """A thousand recipients with encoded names, a digest of 900 parts, a script full of dashes."""
    names = b",\r\n ".join(b"=?utf-8?b?SsO8cmdlbg==?= <j%d@example.org>" % i for i in range(1000))
    digest = MULTIPART + b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n" * 900
    script = HEAD + b"\r\n" + b"-- a comment of SQL, with ?=? in it\r\n" * 9000

    assert not cost.is_trap(b"To: " + names + b"\r\n\r\nhello\r\n")
    assert not cost.is_trap(digest)
    assert not cost.is_trap(script)


@given(st.lists(st.sampled_from([b"\n--", b";", b"\r\n", b"content-type:", b"x" * 50])))
def test_a_small_message_has_no_room_for_most_traps(pieces):
    """Without encoded words nothing in it is worth counting: filled with any of it, it is none."""
    small = b"".join(pieces or [b"x"])
    small = (small * (cost.SMALL_BYTES // len(small) + 1))[: cost.SMALL_BYTES]

    assert not cost.is_trap(small)
    assert cost.count(small, b"\n--") <= cost.DELIMITERS_MAX
    assert all(n * size <= cost.PARAMETERS_WORK_MAX for n, size in cost._parameters(small))


def test_traps_of_the_standard_parser():
    """Parameters, and lines times boundaries."""
    many = b"Content-Type: a/b" + b";\r\n a=b" * 300 + b"\r\n\r\n"
    lined = b"Content-Type: multipart/mixed; Boundary=b\r\n\r\n" + b"x\r\n" * 60_000

    assert cost.is_trap_for_standard(many)
    assert cost.is_trap_for_standard(lined)
    assert not cost.is_trap_for_standard(MULTIPART + b"--b\r\n\r\nx\r\n" * 100)


@given(st.lists(st.sampled_from([b"AbC", b"abc", b"ab", b"c", b"\xff", b"xx"]), max_size=60))
def test_places_are_those_of_the_whole(pieces):
    """A word is found once wherever it stands, across pieces too."""
    data = b"".join(pieces)
    whole, at = [], data.lower().find(b"abc")
    while at >= 0:
        whole.append(at)
        at = data.lower().find(b"abc", at + 3)

    normal, cost.PIECE_BYTES = cost.PIECE_BYTES, 7
    try:
        assert list(cost.places(data, b"abc")) == whole
    finally:
        cost.PIECE_BYTES = normal


def test_transcoding_is_bounded_and_takes_turns():
    """Wrong UTF-7 is 150 ns a byte, and 4 MiB were one step of 0.6 s: now a megabyte, in pieces."""
    found = read(HEAD + b"Content-Type: text/plain; charset=utf-7\r\n\r\n" + b"\xff" * (8 * MIB))
    began = time.thread_time()

    text = found.parts[0].text

    assert time.thread_time() - began < 2.0
    assert text == "\ufffd".encode() * MIB
    assert found.anomalies == ("cut",)
    assert found.parts[0].text is text  # decoded once


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32-be", "utf-7"])
def test_wide_text_reads_as_ascii_whatever_byte_comes_first(codec):
    """With a mark, or told by its first letter, in a message that only says `utf-16`."""
    charset = codec.removesuffix("-le").removesuffix("-be").encode()
    head = HEAD + b"Content-Type: text/plain; charset=" + charset
    body = ("http://listed.example/ " * 3000).encode(codec)

    text = read(head + b"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + body).parts[0].text

    assert text.count(b"http://listed.example/ ") == 3000
