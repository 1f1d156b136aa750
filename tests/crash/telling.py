"""What a life tells its parent over a pipe: only what the product has said is so."""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

SAFE, UNSAFE, OUT, SETTLED, JUDGED, ASKED, END, FAULT = range(8)
RECORD = struct.Struct("<BQI16s")
PIPE_BYTES = 1 << 20  # a life tells some 30 kB; nobody reads before its end


@dataclass(frozen=True, slots=True)
class Told:
    """One record. `text` is a message's name, or of an OUT the hash of what left."""

    kind: int
    number: int = 0  # recipient, or a request's number; of an END, how many us it took
    attempt: int = 0
    text: bytes = b""

    @property
    def name(self) -> str:
        return self.text.decode()


class Teller:
    """The life's end of the pipe."""

    hushed = False  # the power is off: nothing that is said now was ever said

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._records: list[bytes] = []

    def add(self, kind: int, number: int = 0, attempt: int = 0, text: bytes = b"") -> None:
        """Say this with the next `flush`."""
        self._records.append(RECORD.pack(kind, number, attempt, text))

    def flush(self) -> None:
        """Say it now, whatever becomes of us."""
        if self._records and not Teller.hushed:
            said, self._records = b"".join(self._records), []
            os.write(self._pipe, said)

    def fault(self, text: str) -> None:
        """Say what went wrong."""
        words = text.encode()[:2000]
        os.write(self._pipe, RECORD.pack(FAULT, len(words), 0, b"") + words)


def listen(pipe: int) -> tuple[list[Told], str]:
    """Return all that was said by one who is dead, and what went wrong with it, if it said so."""
    pieces: list[bytes] = []
    while piece := os.read(pipe, PIPE_BYTES):
        pieces.append(piece)
    return _records(b"".join(pieces))


def _records(said: bytes) -> tuple[list[Told], str]:
    fault, found, at = "", [], 0
    while at + RECORD.size <= len(said):
        kind, number, attempt, text = RECORD.unpack_from(said, at)
        at += RECORD.size
        if kind == FAULT:
            fault = said[at : at + number].decode(errors="replace")
            at += number
        else:
            found.append(Told(kind, number, attempt, text))
    return found, fault


def pipe() -> Iterator[int]:
    """Return both ends of a pipe that holds a life's words."""
    import fcntl

    ends = os.pipe2(os.O_CLOEXEC)
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return iter(ends)
