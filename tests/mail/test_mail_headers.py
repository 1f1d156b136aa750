"""A message's header, field by field."""

import email
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.mail.headers import FIELDS_MAX, Field, fields, header_end, without, written

HEADER = (
    b"Received: from a\r\n\tby b;\r\n date\r\n"
    b"nonsense\r\n with a continuation: x\r\n"
    b"X-AuthUser \t: joe\r\n"
    b"Subject:\r\n"
    b"X-Bin: gr\xfcn\r\n"
    b"\r\n"
)
PIECES = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"a", b"B-c", b"\xfc", b"\0", b"Subject: x\r\n",
     b"\r\n "]
)  # fmt: skip
MESSY = st.lists(PIECES, max_size=40).map(b"".join)


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"A: b\r\n\r\nbody", 8),
        (b"A: b\n\nbody\r\n\r\n", 6),
        (b"A: b\r\n\r\nbody\n\n", 8),
        (b"A: b\n\r\nbody", 7),
        (b"\r\nbody\r\n\r\n", 2),
        (b"\nbody", 1),
        (b"A: b\r\n", 6),
        (b"", 0),
    ],
)
def test_header_end(data, end):
    """The header ends behind its first empty line, or with the message."""
    assert header_end(data) == end


def test_fields():
    """Fields are unfolded, blanks before the colon do not hide one, nonsense ends nothing."""
    found = fields(HEADER)

    assert [(f.name, f.value) for f in found] == [
        ("received", "from a\tby b; date"),
        ("x-authuser", "joe"),
        ("subject", ""),
        ("x-bin", "gr\xfcn"),
    ]
    assert HEADER[found[0].start : found[0].end] == b"Received: from a\r\n\tby b;\r\n date\r\n"


@pytest.mark.parametrize(
    "line", [b": x", b" a: x", b"a b: x", b"a\xfc: x", b"a\0: x", b"a", b"n" * 257 + b": x"]
)
def test_malformed(line):
    """What has no name, or a name that does not print, is no field; its neighbours are."""
    assert [f.name for f in fields(b"X: 1\r\n" + line + b"\r\nY: 2\r\n")] in (
        ["x", "y"],
        ["x"] if line.startswith(b" ") else [],
    )


def test_without():
    """Fields are taken out whole, and nothing else is touched."""
    names = {f.name: f.start for f in fields(HEADER)}
    left = without(HEADER, [names["x-authuser"], names["received"]])

    assert left == (b"nonsense\r\n with a continuation: x\r\nSubject:\r\nX-Bin: gr\xfcn\r\n\r\n")
    assert without(HEADER, []) is HEADER


def test_bounds():
    """Only the first FIELDS_MAX lines of a header are looked at."""
    header = b"A: b\r\n" * (FIELDS_MAX + 10)

    assert len(fields(header)) == FIELDS_MAX


@pytest.mark.parametrize(
    "unit", [b"a: b\r\n", b"a\r\n", b" \r\n", b":\r\n", b"\r", b"a:", b"a: b\r\n c\r\n", b"\t:"]
)
def test_speed(unit):
    """A header of 256 KiB, whatever it is made of, takes no time to speak of."""
    header = b"x: y\r\n" + unit * (256 * 1024 // len(unit))
    began = time.process_time()
    fields(header)

    assert time.process_time() - began < 0.25


@given(MESSY)
def test_any_bytes(data):
    """Any header is read; the fields are in order, apart, and say what the bytes say."""
    header = data[: header_end(data)]
    found = fields(header)

    at = 0
    for field in found:
        assert at <= field.start < field.end <= len(header)
        at = field.end
        line = header[field.start : field.end]
        assert fields(line) == [Field(field.name, field.value, 0, len(line))]
        assert "\n" not in field.value
    starts = [field.start for field in found]
    assert fields(without(header, starts)) == []
    assert without(header, starts[::2]) == b"".join(
        [header[a:b] for a, b in gaps(header, found[::2])]
    )


def gaps(header, found):
    """Where the bytes between these fields are."""
    edges = [0, *[place for field in found for place in (field.start, field.end)], len(header)]
    return list(zip(edges[::2], edges[1::2], strict=True))


@given(
    st.lists(
        st.tuples(st.from_regex(r"[A-Za-z-]{1,9}", fullmatch=True), st.text("ab: ", max_size=9))
    )
)
def test_the_standard_library_agrees(pairs):
    """Where nothing is odd, we read what Python's email package reads."""
    header = "".join(f"{name}: {value}\r\n" for name, value in pairs).encode()

    theirs = email.message_from_bytes(header + b"\r\n").items()
    assert [(f.name, f.value) for f in fields(header)] == [
        (name.lower(), value.strip()) for name, value in theirs
    ]


@given(st.text() | st.tuples(st.text(max_size=9), st.text(max_size=9)).map(": ".join))
def test_what_is_written_is_one_field_or_nothing(text):
    """Whatever it is made of, it adds one field, and leaves the rest of the header as it was."""
    line = written(text)

    if line is not None:
        assert line.isascii()
        assert line.find(b"\r\n") == len(line) - 2
        header = b"A: b\r\n" + line + b"C: d\r\n\r\n"
        assert [f.name for f in fields(header)][::2] == ["a", "c"]
        assert len(fields(header)) == 3
        assert header_end(header + b"x") == len(header)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("X-Class: bulk", b"X-Class: bulk\r\n"),
        ("X-Class:bulk ", b"X-Class: bulk\r\n"),
        ("X-Class: a: b", b"X-Class: a: b\r\n"),
        ("X-Class: a\r\nBcc: b", None),
        ("X-Class: a\nBcc: b", None),
        ("X-Class: a\rb", None),
        ("X-Class: \u00e4", None),
        ("X-Class:\ta", None),
        ("X-Class: " + "a" * 989, b"X-Class: " + b"a" * 989 + b"\r\n"),
        ("X-Class: " + "a" * 990, None),
        ("X-Class:", None),
        ("X Class: a", None),
        (": a", None),
        ("", None),
    ],
)
def test_written(text, line):
    """One line of printable ASCII with a name and a value, of at most 998 characters."""
    assert written(text) == line
