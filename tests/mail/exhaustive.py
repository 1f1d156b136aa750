"""Every message over {CR, LF, dot, a} up to a length, cut at every place, against RFC 5321.

Two machines read the bytes after a 354: `ServerSession`, and a reference written here from the
RFC's words (4.1.1.4, 4.5.2), a byte at a time, that shares no line with it. They must agree on
the content, on the strays, on whether the message ended, on where, and on what is left to be
read as the next command.

What makes the whole tree cheap: a session is copied, not fed again. Each string is one step below
the string without its last letter, whose session is at hand. And what makes single cuts enough:
after each the session is compared with one that was never cut, in all that it holds. If every
single cut leads to the same session, so does every second one; up to a shorter length all
combinations of cuts are walked all the same.

`python -m tests.mail.exhaustive [--length 9] [--all-cuts 6]` does it without pytest.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from postweir.mail.commands import Body, BodyEnd, Offers
from postweir.mail.reply import Reply
from postweir.mail.smtp_server import ServerSession

LETTERS = (b"\r", b"\n", b".", b"a")
END = b"\r\n.\r\n"
NEXT = b"NOOP\r\n"  # what a client may say behind the end
OPENING = (b"EHLO x\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<b@far.example>\r\n", b"DATA\r\n")


# The reference.


@dataclass(slots=True)
class Reference:
    """RFC 5321 4.5.2 as a machine that sees one byte after the other.

    `place` is one of: start (of a line), dot (at a line's start), dot-cr (behind it), cr, within,
    over.
    """

    normalise: bool
    place: str = "start"
    content: bytearray = field(default_factory=bytearray)
    strays: bool = False
    length: int = 0  # bytes read, the end's among them

    def copy(self) -> "Reference":
        return Reference(
            self.normalise, self.place, bytearray(self.content), self.strays, self.length
        )

    def read(self, letter: bytes) -> None:
        if self.place == "over":
            return
        self.length += 1
        match self.place, letter:
            case ("start", b"."):
                self.place = "dot"  # taken off, whatever follows
            case ("dot", b"\r"):
                self.place = "dot-cr"
            case ("dot-cr", b"\n"):
                self.place = "over"
            case ("dot-cr" | "cr", b"\r"):
                self._stray(b"\r")
                self.place = "cr"
            case ("cr", b"\n"):
                self.content += b"\r\n"
                self.place = "start"
            case ("dot-cr" | "cr", _):
                self._stray(b"\r")
                self._within(letter)
            case (_, b"\r"):
                self.place = "cr"
            case _:
                self._within(letter)

    def _within(self, letter: bytes) -> None:
        if letter == b"\n":
            self._stray(letter)
        else:
            self.content += letter
        self.place = "within"

    def _stray(self, letter: bytes) -> None:
        """The rule of this house: noted, or made a line end; never an end of a message."""
        if self.normalise:
            self.content += b"\r\n"
        else:
            self.strays = True
            self.content += letter


# The server, as it can be copied.

SLOTS = tuple(ServerSession.__slots__)
READER = SLOTS.index("_reader")
Held = tuple[Any, ...]


def held(session: ServerSession) -> Held:
    """Return all that a session holds, to be compared or put back; its reader's too.

    Behind the end a reader is read no more, but for what it has found.
    """
    reader = session._reader
    told = reader.bare_newline, reader.nul
    values = [getattr(session, name) for name in SLOTS]
    values[READER] = told if session._body_over else (told, *reader.__dict__.values())
    return tuple(values)


def put_back(session: ServerSession, values: Held) -> None:
    """Make a session what another one was."""
    reader = session._reader
    for name, value in zip(SLOTS, values, strict=True):
        if name != "_reader":
            setattr(session, name, value)
    if session._body_over:
        reader.bare_newline, reader.nul = values[READER]
    else:
        for name, value in zip(reader.__dict__, values[READER][1:], strict=True):
            setattr(reader, name, value)


def opened(*, normalise: bool) -> ServerSession:
    """Return a session that said 354."""
    session = ServerSession(Offers("relay.example.net", 1_000_000))
    session.normalise = normalise
    for line in OPENING:
        session.receive(line)
        session.next_event()
        session.reply(Reply(354 if line == b"DATA\r\n" else 250, "", "x"))
    return session


def fed(session: ServerSession, piece: bytes) -> bytes:
    """Feed one piece; return the content it gave. The end stays unanswered, as in the product."""
    session.receive(piece)
    content = b""
    while session._unanswered is None and (event := session.next_event()) is not None:
        if isinstance(event, Body):
            content += event.data
    return content


# The walk.


@dataclass(frozen=True, slots=True)
class Node:
    """One string: what the server made of it in one piece, and what the reference did."""

    text: bytes
    content: bytes  # given so far
    session: Held
    reference: Reference


class Walk:
    """One walk down the tree, for one habit."""

    def __init__(self, *, normalise: bool) -> None:
        self.fed = 0  # pieces
        self.strings = 0
        self._session = opened(normalise=normalise)
        self._fresh = held(self._session)
        self.root = Node(b"", b"", self._fresh, Reference(normalise))

    def single_cuts(self, above: list[Node], length: int) -> None:
        """Walk below the last of `above`, a path from the root, down to strings of a length."""
        node = above[-1]
        for letter in LETTERS:
            below = self._below(node, letter)
            for cut in above[1:]:
                rest = below.text[len(cut.text) :]
                self._same(below, cut.content + self._feed(cut.session, rest), len(cut.text))
            if len(below.text) < length:
                self.single_cuts([*above, below], length)

    def all_cuts(self, length: int) -> None:
        """Every string up to a length in every division into pieces."""
        uncut = {text: self._node(text) for text in strings(length)}
        self._divide(b"", b"", self._fresh, length, uncut)

    def _divide(
        self, text: bytes, content: bytes, at: Held, length: int, uncut: dict[bytes, Node]
    ) -> None:
        """Go on with every next piece that there can be."""
        for piece in strings(length - len(text)):
            given = content + self._feed(at, piece)
            node = uncut[text + piece]
            self._same(node, given, (text, piece))
            if len(node.text) < length:
                self._divide(node.text, given, held(self._session), length, uncut)

    def _below(self, node: Node, letter: bytes) -> Node:
        """Return the string one letter longer, read at once, and hold it to the reference."""
        reference = node.reference.copy()
        reference.read(letter)
        text = node.text + letter
        content = self._feed(self._fresh, text)
        below = Node(text, content, held(self._session), reference)
        self.strings += 1
        self._check(below)
        return below

    def _node(self, text: bytes) -> Node:
        node = self.root
        for at in range(len(text)):
            node = self._below(node, text[at : at + 1])
        return node

    def _check(self, node: Node) -> None:
        """Hold what was read, and what is read when the end follows, to the reference."""
        wanted, content, session = node.reference, node.content, self._session
        if wanted.place != "over":
            assert not isinstance(session._unanswered, BodyEnd), f"{node.text!r} ends"
            assert session.buffered == 0, f"{node.text!r}: the rest is a command?"
            wanted = wanted.copy()
            for at in range(len(END)):
                wanted.read(END[at : at + 1])
            content += self._feed(node.session, END + NEXT)
            text = node.text + END + NEXT
        else:
            text = node.text
        assert wanted.place == "over"
        assert session._unanswered == BodyEnd(wanted.strays, False), f"{node.text!r}: how it ends"
        assert content == wanted.content, f"{node.text!r}: {content!r}"
        rest = session._buffer[session._at :]
        assert rest == text[wanted.length :], f"{node.text!r}: {rest!r} is left"

    def _same(self, node: Node, content: bytes, cut: object) -> None:
        """The session at hand came to where the uncut one is."""
        assert content == node.content, f"{node.text!r} cut at {cut}: {content!r}"
        assert held(self._session) == node.session, f"{node.text!r} cut at {cut}"

    def _feed(self, at: Held, piece: bytes) -> bytes:
        put_back(self._session, at)
        self.fed += 1
        return fed(self._session, piece)


def strings(length: int) -> Iterator[bytes]:
    """Yield every string over the letters, of one letter to so many."""
    for size in range(1, length + 1):
        yield from map(b"".join, product(LETTERS, repeat=size))


def canonical_strings(length: int) -> Iterator[bytes]:
    """Yield every string of whole CRLF lines, up to so many bytes; the empty one too."""
    grown = [b""]
    while grown:
        yield from (text for text in grown if not text or text.endswith(b"\r\n"))
        longer = (text + more for text in grown for more in (b".", b"a", b"\r\n"))
        grown = [text for text in longer if len(text) <= length]


def divisions(text: bytes) -> Iterator[list[bytes]]:
    """Yield every way to cut a string into pieces."""
    for size in range(1, len(text)):
        for rest in divisions(text[size:]):
            yield [text[:size], *rest]
    yield [text]


def begun(walk: Walk, start: bytes) -> list[Node]:
    """Return the path from the root to a string: what divides the tree among workers."""
    path = [walk.root]
    for at in range(len(start)):
        path.append(walk._below(path[-1], start[at : at + 1]))
    return path


def main(arguments: list[str]) -> int:
    """Walk all of it and say how far."""
    parser = argparse.ArgumentParser(prog="python -m tests.mail.exhaustive")
    parser.add_argument("--length", type=int, default=9)
    parser.add_argument("--all-cuts", type=int, default=6)
    chosen = parser.parse_args(arguments)
    for normalise in (False, True):
        walk, began = Walk(normalise=normalise), time.monotonic()
        walk.single_cuts([walk.root], chosen.length)
        habit = "normalise" if normalise else "refuse"
        print(f"{habit}: {walk.strings} strings at every cut, {walk.fed} pieces, "
              f"{time.monotonic() - began:.1f} s", flush=True)  # fmt: skip
        walk, began = Walk(normalise=normalise), time.monotonic()
        walk.all_cuts(chosen.all_cuts)
        print(f"{habit}: up to {chosen.all_cuts} at all combinations of cuts, {walk.fed} pieces, "
              f"{time.monotonic() - began:.1f} s", flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
