"""The bytes that leave: read from memory or file, and checked against what was promised."""

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from postweir.spool.ports import Content

FILES_BYTES_MAX = 256 * 1024 * 1024  # of large bodies in memory at once; one always may be
PIECE_BYTES = 256 * 1024  # what is written at a time


class Unfit(Exception):
    """The content is not what was accepted: it must not leave."""


class Contents:
    """Reads what is to be sent; large bodies on a thread, and only so many at once."""

    def __init__(self) -> None:
        self._bytes = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self, content: Content) -> Sequence[bytes]:
        """Return the pieces to send; `give_back` afterwards. Raises `Unfit`, OSError."""
        if content.body is not None:
            return check(content, [content.body])
        while self._bytes and self._bytes + content.length > FILES_BYTES_MAX:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self._bytes += content.length
        try:
            return await asyncio.to_thread(_read, content)
        except BaseException:
            self._free(content.length)
            raise

    def give_back(self, content: Content) -> None:
        """It is sent, or will not be."""
        if content.body is None:
            self._free(content.length)

    def _free(self, length: int) -> None:
        self._bytes -= length
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)


def check(content: Content, body: Sequence[bytes]) -> Sequence[bytes]:
    """Return header and body; raises `Unfit` when length or checksum are not what was promised."""
    digest = hashlib.blake2b(digest_size=16)
    for piece in body:
        digest.update(piece)
    length = sum(map(len, body))
    if length != content.length:
        raise Unfit(f"the body has {length} bytes, not {content.length}")
    if digest.digest() != content.check:
        raise Unfit("the body's checksum is wrong")
    return [content.added, *body]


def _read(content: Content) -> Sequence[bytes]:
    if content.body_file is None:
        raise Unfit("there is no body")
    pieces: list[bytes] = []
    left = content.length + 1  # one more: a longer file is found out, and read no further
    with Path(content.body_file).open("rb") as file:
        while left > 0 and (piece := file.read(min(PIECE_BYTES, left))):
            pieces.append(piece)
            left -= len(piece)
    return check(content, pieces)
