"""Every message over {CR, LF, dot, a} up to a length, in both directions, against the RFC.

`make check` goes up to six letters; `make test` to nine at every single cut, and to six at all
combinations of cuts. What is walked and why that is enough stands in `tests.mail.exhaustive`.
"""

import pytest
from tests.effort import THOROUGH
from tests.mail.exhaustive import (
    LETTERS,
    Reference,
    Walk,
    begun,
    canonical_strings,
    divisions,
    strings,
)

from postweir.mail import smtp_client, smtp_server
from postweir.mail.lines import LONE_DOT, DataReader, is_canonical, stuffed
from postweir.mail.reply import LocalFault
from postweir.mail.smtp_client import ClientSession, Done, GoAhead, Transaction

LENGTH = 9 if THOROUGH else 6
ALL_CUTS_LENGTH = 6 if THOROUGH else 5
HABITS = pytest.mark.parametrize("normalise", [False, True], ids=["refuse", "normalise"])


@HABITS
@pytest.mark.parametrize("second", LETTERS, ids=repr)
@pytest.mark.parametrize("first", LETTERS, ids=repr)
def test_every_single_cut(first, second, normalise):
    """Cut anywhere, a message is what the reference says: content, strays, end, what is left."""
    walk = Walk(normalise=normalise)
    walk.single_cuts(begun(walk, first + second), LENGTH)

    assert walk.strings == 2 + sum(4**n for n in range(1, LENGTH - 1))


@HABITS
def test_every_combination_of_cuts(normalise):
    """Cut in any number of places, the session comes to the same."""
    walk = Walk(normalise=normalise)
    walk.all_cuts(ALL_CUTS_LENGTH)

    assert walk.fed > 4**ALL_CUTS_LENGTH * 2 ** (ALL_CUTS_LENGTH - 1)


# -- the way out ---------------------------------------------------------------------------------


def canonical(text):
    """What may leave, said a second time: whole lines without strays."""
    reader = Reference(normalise=False)
    for at in range(len(text)):
        # A dot is stuffed on the way, so to the reader it is a letter like any other.
        reader.read(b"a" if text[at : at + 1] == b"." else text[at : at + 1])
    return reader.place == "start" and not reader.strays


def unstuffed(wire):
    """What a receiver by the book reads, and whether the only end is at the end."""
    reader = Reference(normalise=False)
    for at in range(len(wire)):
        reader.read(wire[at : at + 1])
    ended_last = reader.place == "over" and reader.length == len(wire)
    return bytes(reader.content), reader.strays, ended_last


def test_only_what_is_canonical_may_leave():
    """The look before a message leaves finds every stray and every open end, at every cut."""
    for text in strings(LENGTH):
        wanted = canonical(text)
        for at in range(len(text)):
            assert is_canonical((text[:at], text[at:])) == wanted, (text, at)


def test_what_may_leave_arrives():
    """In any pieces, what is stuffed is read back as it was, and ends once, at its end."""
    sent = list(canonical_strings(LENGTH))
    for text in sent:
        for pieces in divisions(text):
            assert is_canonical(pieces)
            assert unstuffed(b"".join(stuffed(pieces)) + LONE_DOT) == (text, False, True), pieces

    assert set(sent) == {b"", *filter(canonical, strings(LENGTH))}


def greeted():
    """A connection that is ready for a message."""
    session = ClientSession("relay.example.net", want_tls=False)
    session.receive(b"220 x\r\n")
    session.outgoing()
    session.receive(b"250-x\r\n250 PIPELINING\r\n")
    session.next_event()
    return session


def sent(session, pieces):
    """Send one message over it; return what stood on the wire behind the 354."""
    session.send(Transaction("a@b.example", ("c@d.example",), 0, False, pieces))
    session.receive(b"250 x\r\n250 x\r\n354 x\r\n")
    while not isinstance(session.next_event(), GoAhead):
        pass
    wire = b"".join(session.content())
    session.receive(b"250 x\r\n")
    while not isinstance(session.next_event(), Done):
        pass
    return wire


def test_a_connection_writes_the_same():
    """One connection sends all of them, one after the other: none is taken for two."""
    session = greeted()
    for text in canonical_strings(LENGTH):
        for at in range(len(text)):
            wire = sent(session, (text[:at], text[at:]))
            assert unstuffed(wire) == (text, False, True), (text, at)


def test_a_connection_refuses_the_rest():
    """What is not whole lines is our own fault: not a byte of its transaction is written."""
    session = greeted()
    for text in strings(6):
        if canonical(text):
            continue
        with pytest.raises(LocalFault, match="stray"):
            session.send(Transaction("a@b.example", ("c@d.example",), 0, False, (text,)))
        assert session.outgoing() == b""


# -- the proof can fail --------------------------------------------------------------------------


class EndsAtLf(DataReader):
    """Planted: LF dot CRLF ends a message."""

    def feed(self, data):
        found = data.find(b"\n.\r\n")
        if found >= 0 and not (self._held + data[:found]).endswith(b"\r"):
            return super().feed(data[: found + 1] + b"\r\n.\r\n")[0], found + 4
        return super().feed(data)


class LosesCr(DataReader):
    """Planted: a CR at the end of a piece is forgotten."""

    def feed(self, data):
        given = super().feed(data)
        if self._held == b"\r":
            self._held = b""
        return given


class CountsTooFar(DataReader):
    """Planted: one byte of the next command is taken along."""

    def feed(self, data):
        content, end = super().feed(data)
        return content, min(end + 1, len(data)) if end >= 0 else end


class KeepsOneDot(DataReader):
    """Planted: the stuffing of the first line stays where it was alone in its piece."""

    def feed(self, data):
        if self._lead and data == b".":
            self._lead, self._held = 0, b"."
            return b"", -1
        return super().feed(data)


@HABITS
@pytest.mark.parametrize("fault", [EndsAtLf, LosesCr, CountsTooFar, KeepsOneDot])
def test_a_planted_reader_is_caught(fault, normalise, monkeypatch):
    """Each way to read wrongly is found within five letters."""
    monkeypatch.setattr(smtp_server, "DataReader", fault)
    walk = Walk(normalise=normalise)

    with pytest.raises(AssertionError):
        walk.single_cuts([walk.root], 5)


def careless(content):
    """Planted: looks for CRLF dot within a piece only."""
    for at, piece in enumerate(content):
        out = piece.replace(b"\r\n.", b"\r\n..")
        yield b"." + out if at == 0 and out.startswith(b".") else out


def test_a_planted_writer_is_caught(monkeypatch):
    """A writer that stuffs no dot behind a cut is found."""
    monkeypatch.setattr(smtp_client, "stuffed", careless)

    with pytest.raises(AssertionError):
        test_a_connection_writes_the_same()


def test_a_planted_look_is_caught(monkeypatch):
    """A look that forgets what stood before a cut is found."""
    looked = is_canonical
    monkeypatch.setitem(
        globals(), "is_canonical", lambda content: all(looked((piece,)) for piece in content)
    )

    with pytest.raises(AssertionError):
        test_only_what_is_canonical_may_leave()


def test_the_reference_itself():
    """It tells a true end from a false one, and stuffing from content."""
    assert unstuffed(b"..a\r\n.\r\n") == (b".a\r\n", False, True)
    assert unstuffed(b".\r\n") == (b"", False, True)
    assert unstuffed(b"a\n.\r\n") == (b"a\n.\r\n", True, False)
    assert unstuffed(b"a\r\n.\rb\r\n.\r\n") == (b"a\r\n\rb\r\n", True, True)
    assert unstuffed(b"\r\n.\r\n.\r\n")[2] is False
