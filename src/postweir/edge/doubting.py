"""One edge worker's doubts: known here at once, written to a file of its own, read by the others.

What is written survives the worker, not the host: there is no sync, for a lost line costs a mark
in a timeline. A line that was torn is known by its checksum, and the next begins on a new one.
"""

import asyncio
import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from postweir.edge.doubts import KEPT_S, LETTER_BYTES, RECIPIENT_BYTES, Doubt, Doubts
from postweir.mail.envelope import Envelope
from postweir.runtime import clock
from postweir.runtime.log import Log

LOOK_S = 1.0  # at what other workers wrote; who tries again waits longer
UNWRITTEN_MAX = 10_000  # for a disk that hangs; then the oldest are known here alone
FILE_BYTES_MAX = 8 * 1024 * 1024  # then a new one is begun; the one before it is kept, no more
READ_BYTES_MAX = 1024 * 1024  # of one file at one look
CHECK_BYTES = 4


class Doubting:
    """Built on the loop. Without a file nothing outlives the process."""

    def __init__(self, key: bytes, file: "DoubtsFile | None" = None) -> None:
        self._doubts, self._file = Doubts(key), file
        self._unwritten: deque[Doubt] = deque(maxlen=UNWRITTEN_MAX)
        self._wake = asyncio.Event()

    def note(self, account: str, envelope: Envelope, name: bytes, *, message: str) -> None:
        """Nobody knows what became of this message, or its sender did not hear it."""
        doubt = self._doubts.doubt(account, envelope, name, message=message, at_us=clock.wall_us())
        self._doubts.add(doubt)
        if self._file is not None:
            self._unwritten.append(doubt)
            self._wake.set()

    def before(self, account: str, envelope: Envelope, name: bytes) -> str:
        """Return our name for this message when it came before, with an outcome nobody knows."""
        return self._doubts.before(account, envelope, name, now_us=clock.wall_us())

    async def read(self) -> None:
        """Take what others wrote since the last time; at first, all of the last day."""
        if self._file is not None:
            for doubt in await asyncio.to_thread(self._file.read):
                self._doubts.add(doubt)

    async def write(self) -> None:
        """Write down what is not."""
        self._wake.clear()
        doubts = list(self._unwritten)
        self._unwritten.clear()
        if self._file is not None and doubts:
            await asyncio.to_thread(self._file.append, doubts)

    async def run(self) -> None:
        """Write and read until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), LOOK_S)
            await self.write()
            await self.read()


class DoubtsFile:
    """This worker's file, and the others'. Everything here waits for a disk: on a thread."""

    def __init__(self, folder: Path, index: int, log: Log) -> None:
        self._folder, self._own, self._log = folder, folder / f"doubts-{index}", log
        self._read_to: dict[int, int] = {}  # bytes, by inode: a file that was renamed is the same
        self._clears = index == 1
        self._first = True
        self._writable = True

    def append(self, doubts: Sequence[Doubt]) -> None:
        """Write these down."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                if self._own.stat().st_size > FILE_BYTES_MAX:
                    self._own.rename(_elder(self._own))
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            descriptor = os.open(self._own, flags, 0o600)
            try:
                os.write(descriptor, b"".join(map(line, doubts)))
            finally:
                os.close(descriptor)
        except OSError as fault:
            if self._writable:
                self._log.warning("edge.doubts_unwritten", fault=str(fault))
            self._writable = False
        else:
            self._writable = True

    def read(self) -> list[Doubt]:
        """Return what is new: at first all of the last day, then what other workers write."""
        found: list[Doubt] = []
        seen: dict[int, int] = {}
        own = (self._own, _elder(self._own))
        for path in self._paths():
            if path in own and not self._first:
                continue
            with contextlib.suppress(OSError):  # it is renamed just now, or not ours to read
                inode, at = self._read_one(path, found)
                seen[inode] = at
        self._read_to, self._first = seen, False
        return found

    def _paths(self) -> list[Path]:
        try:
            return sorted(self._folder.glob("doubts-*"))
        except OSError:  # of a disk that fails others tell; that is no reason to end a worker
            return []

    def _read_one(self, path: Path, found: list[Doubt]) -> tuple[int, int]:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            age_s = clock.wall_us() / 1e6 - stat.st_mtime
            if age_s > KEPT_S:
                if self._clears and age_s > 2 * KEPT_S:
                    path.unlink()  # of a worker that is no more; one that is makes another
                return stat.st_ino, stat.st_size
            at = self._read_to.get(stat.st_ino, 0)
            if at > stat.st_size:  # another file, where that one was
                at = 0
            file.seek(at)
            while piece := file.read(READ_BYTES_MAX):
                whole = piece.rfind(b"\n") + 1
                if whole == 0 and len(piece) < READ_BYTES_MAX:
                    break  # its end is still to come
                found += filter(None, map(doubt_of, piece[:whole].split(b"\n")))
                at += whole or len(piece)
                file.seek(at)
                if not self._first:
                    break
        return stat.st_ino, at


def line(doubt: Doubt) -> bytes:
    """Return a doubt as it is written: what came before it may lack its end."""
    words = f"{doubt.at_us} {doubt.letter.hex()} {doubt.message} {doubt.recipients.hex()}".encode()
    return b"\n" + words + b" " + _check(words) + b"\n"


def doubt_of(text: bytes) -> Doubt | None:
    """Return what a line says, None when it is torn or no line of ours."""
    words, _, check = text.rpartition(b" ")
    if not words or check != _check(words):
        return None
    try:
        at_us, letter, message, recipients = words.decode("ascii").split(" ")
        found = Doubt(int(at_us), bytes.fromhex(letter), bytes.fromhex(recipients), message)
    except ValueError:
        return None
    sound = len(found.letter) == LETTER_BYTES and len(found.recipients) % RECIPIENT_BYTES == 0
    return found if sound else None


def _check(words: bytes) -> bytes:
    return hashlib.blake2b(words, digest_size=CHECK_BYTES).hexdigest().encode()


def _elder(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")
