"""Lines and dots, in both directions."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from tests.mail.driving import cut

from postweir.mail.lines import LONE_DOT, DataReader, has_strays, is_canonical, stuffed

CUTS = st.lists(st.integers(0, 10_000), max_size=12)
LINES = st.lists(st.sampled_from([b".", b"..", b"a", b"", b".a", b"a."])).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)
TRICKY = st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n"])).map(b"".join)


def read(pieces, *, normalise=False):
    """Content, whether strays were seen, and what came after the end."""
    reader = DataReader(normalise=normalise)
    content = b""
    pieces = list(pieces)
    for at, piece in enumerate(pieces):
        body, end = reader.feed(piece)
        content += body
        if end >= 0:
            return content, reader.bare_newline, piece[end:] + b"".join(pieces[at + 1 :])
    return content, reader.bare_newline, None


def test_strays():
    """A stray is a CR without its LF, or an LF without its CR, wherever it stands."""
    for length in range(6):
        for letters in product(b"\r\na", repeat=length):
            data = bytes(letters)

            rest = data.replace(b"\r\n", b"")
            assert has_strays(data) == (b"\r" in rest or b"\n" in rest), data


@given(TRICKY, CUTS, st.booleans())
def test_packets_do_not_matter(data, cuts, normalise):
    """However a message is cut, its content, its strays and its end are the same."""
    data += b"\r\n.\r\nafter"

    assert read(cut(data, cuts), normalise=normalise) == read([data], normalise=normalise)


@given(LINES, CUTS, CUTS)
def test_there_and_back(content, pieces, cuts):
    """What is stuffed, in any pieces, is read back as it was, and ends where it should."""
    wire = b"".join(stuffed(cut(content, pieces))) + LONE_DOT

    assert read(cut(wire + b"after", cuts)) == (content, False, b"after")


@given(TRICKY, CUTS)
def test_normalised_content_is_canonical(data, cuts):
    """After normalising, a strict reader and a lenient one see the same lines."""
    content, strays, _ = read(cut(data + b"\r\n.\r\n", cuts), normalise=True)

    assert not strays
    assert not has_strays(content)
    assert content.splitlines() == [bytes(line) for line in content.split(b"\r\n")[:-1]]


@given(TRICKY, CUTS)
def test_canonical(data, cuts):
    """A content may leave when it is whole lines without strays, in any pieces."""
    whole = not has_strays(data) and (not data or data.endswith(b"\r\n"))

    assert is_canonical(cut(data, cuts)) == whole
