"""Where lines and messages end on the wire: dots stuffed and unstuffed, strays found.

Two servers that disagree on where a line ends disagree on where a message ends, and one message
can be smuggled inside another. So there is one terminator, CRLF dot CRLF, and one module that
knows it. A message may be large and its sender hostile: everything here is done with searches
over large pieces, never line by line.
"""

from collections.abc import Iterable, Iterator

END = b"\r\n.\r\n"
LONE_DOT = END[2:]  # what ends a message whose last line is ended
_HELD = (END[:4], END[:3], END[:2], END[:1])  # what may still become the end, longest first


def has_strays(data: bytes) -> bool:
    """True when a CR or an LF stands without the other."""
    pairs = data.count(b"\r\n")
    return data.count(b"\n") != pairs or data.count(b"\r") != pairs


class DataReader:
    """Reads what follows a 354: gives the content without its stuffing, and finds its end.

    It holds back at most the four bytes that may be the beginning of the end, so that every piece
    it works on has its CRLFs whole. The first line begins as if a CRLF had gone before.
    """

    def __init__(self, *, normalise: bool = False) -> None:
        self._normalise = normalise  # stray CRs and LFs become CRLF, instead of being noted
        self._held = END[:2]
        self._lead = 2  # bytes of the CRLF that was never there
        self.bare_newline = False
        self.nul = False

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Return content, and how many bytes of `data` were ours if the end is among them, else -1.

        After the end nothing more may be fed.
        """
        held = len(self._held)
        data = self._held + data
        end = data.find(END)
        if end >= 0:
            return self._content(data[: end + 2]), end + len(END) - held
        self._held = next((tail for tail in _HELD if data.endswith(tail)), b"")
        return self._content(data[: len(data) - len(self._held)]), -1

    def _content(self, piece: bytes) -> bytes:
        if not piece:
            return b""
        if b"\n." in piece:
            piece = piece.replace(b"\r\n.", b"\r\n")
        if b"\0" in piece:
            self.nul = True
        if has_strays(piece):
            piece = self._strayed(piece)
        lead, self._lead = self._lead, 0
        return piece[lead:] if lead else piece

    def _strayed(self, piece: bytes) -> bytes:
        if not self._normalise:
            self.bare_newline = True
            return piece
        # A dot that is now alone on its line is content like any other: whoever sends it on
        # stuffs it.
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def stuffed(content: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the content with its dots stuffed; LONE_DOT is to follow.

    The content is empty or ends in CRLF, and has no strays; see `is_canonical`.
    """
    tail = END[:2]
    for piece in content:
        if not piece:
            continue
        out = piece.replace(b"\r\n.", b"\r\n..") if b"\n." in piece else piece
        if tail == b"\r\n" and piece.startswith(b"."):
            out = b"." + out
        elif tail.endswith(b"\r") and piece.startswith(b"\n."):
            out = b"\n." + out[1:]
        tail = (tail + piece[-2:])[-2:]
        yield out


def is_canonical(content: Iterable[bytes]) -> bool:
    """True when the pieces, joined, are whole CRLF lines without strays."""
    tail = b""
    ended = True
    for piece in content:
        if not piece:
            continue
        whole = tail + piece
        tail = b"\r" if whole.endswith(b"\r") else b""
        if has_strays(whole[: len(whole) - len(tail)]):
            return False
        ended = whole.endswith(b"\r\n")
    return ended and not tail
