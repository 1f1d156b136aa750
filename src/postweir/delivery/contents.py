"""The bytes that leave: looked through first, read as the peer takes them, checked at the end.

A small body came in memory with its message. A large one is a file. It is read twice, a piece at
a time and on a thread: first to know whether it may go at all (its length, its line ends, whether
it is 8-bit), then as it leaves. The checksum is that of what has left, and the dot that ends the
message is sent only when it is right: what a host has without a dot it throws away.
"""

import asyncio
import hashlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from postweir.mail.lines import is_canonical
from postweir.spool.ports import Content

PIECE_BYTES = 128 * 1024  # of a file, in memory at a time
FILES_MAX = 300  # on their way at once: with what lies in their sockets, about 100 MB


class Unfit(Exception):
    """The content is not what was accepted: it must not leave."""


class Letter:
    """One message on its way: iterate for its bytes, and await `ready` before each."""

    ascii: bool | None = None  # None: not looked at
    in_memory = True

    def __init__(self, pieces: Iterable[bytes] = ()) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    async def ready(self) -> None:
        """Have the next piece in memory. Raises `Unfit`, OSError."""

    def close(self) -> None:
        """It has left, or will not."""


class FileLetter(Letter):
    """A message whose body is a file."""

    in_memory = False

    def __init__(self, content: Content, file: BinaryIO, *, ascii: bool) -> None:
        super().__init__()
        self.ascii = ascii
        self._content, self._file = content, file
        self._digest = hashlib.blake2b(digest_size=16)
        self._piece = b""
        self._ended = False
        self._lock = threading.Lock()  # held while a thread reads
        self._closing = False

    def __iter__(self) -> Iterator[bytes]:
        if self._content.added:
            yield self._content.added
        while self._piece:
            piece, self._piece = self._piece, b""
            yield piece

    async def ready(self) -> None:
        if not self._piece and not self._ended:
            self._piece = await asyncio.to_thread(self._read)
            self._ended = not self._piece

    def close(self) -> None:
        # Never under a read that nobody waits for any more: its descriptor would be another's.
        self._closing = True
        if self._lock.acquire(blocking=False):
            self._file.close()
            self._lock.release()

    def _read(self) -> bytes:
        with self._lock:
            piece = b"" if self._closing else self._file.read(PIECE_BYTES)
        if self._closing:
            self.close()
            return b""
        self._digest.update(piece)
        if not piece and self._digest.digest() != self._content.check:
            raise Unfit("the body's checksum is wrong")
        return piece


class Contents:
    """Opens what is to be sent; only so many large ones at once."""

    def __init__(self) -> None:
        self._open = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self, content: Content) -> Letter:
        """Return the message; `give_back` it afterwards. Raises `Unfit`, OSError."""
        if content.body is not None:
            check(content, content.body)
            return Letter((content.added, content.body))
        while self._open >= FILES_MAX:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self._open += 1
        try:
            return await asyncio.to_thread(_opened, content)
        except BaseException:
            self._free()
            raise

    def give_back(self, letter: Letter) -> None:
        """It is sent, or will not be."""
        if isinstance(letter, FileLetter):
            letter.close()
            self._free()

    def _free(self) -> None:
        self._open -= 1
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return


def check(content: Content, body: bytes) -> None:
    """Raise `Unfit` when length or checksum are not what was promised."""
    if len(body) != content.length:
        raise Unfit(f"the body has {len(body)} bytes, not {content.length}")
    if hashlib.blake2b(body, digest_size=16).digest() != content.check:
        raise Unfit("the body's checksum is wrong")


def _opened(content: Content) -> FileLetter:
    """Look through a file, and return it at its beginning."""
    if content.body_file is None:
        raise Unfit("there is no body")
    file = Path(content.body_file).open("rb", buffering=0)  # noqa: SIM115
    try:
        ascii = content.added.isascii()
        length = 0

        def pieces() -> Iterator[bytes]:
            nonlocal ascii, length
            yield content.added
            while piece := file.read(PIECE_BYTES):
                ascii = ascii and piece.isascii()
                length += len(piece)
                if length > content.length:
                    return
                yield piece

        canonical = is_canonical(pieces())
        if length != content.length:
            raise Unfit(f"the body has {length} bytes, not {content.length}")
        if not canonical:
            raise Unfit("the body has a stray CR or LF, or no end to its last line")
        file.seek(0)
        return FileLetter(content, file, ascii=ascii)
    except BaseException:
        file.close()
        raise
