"""Whether a write-ahead log still holds all that was committed to it, and what it holds if not.

When SQLite opens a log after a crash it takes frame by frame while the checksums, each of which
goes on from the one before, are right, and forgets the rest: so has a commit that power loss cut
short never been. But a byte that changed in the middle makes it forget commits that were synced,
without a word. The proof that it did is one of two:

* the index beside the log (`-shm`), written after each sync, names more frames of the same log;
* after the last frame taken there are two commits more. A commit is begun when the one before is
  synced, so power loss can leave at most one that is not whole.

A change in the last commit of all, with the index gone too, looks like a cut; nobody can tell.
"""

import contextlib
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from postweir.runtime import files
from postweir.storage.sqlite import checksum

HEADER, FRAME, PAGE = 32, 24, 4096
FORMAT, LITTLE, BIG = 3_007_000, 0x377F0682, 0x377F0683
INDEX_HEADER = 48  # of the index: its first 40 bytes, and their checksum
SALTS_LOOKED_AT = 64


@dataclass(frozen=True, slots=True)
class Index:
    """What the index says of the log: which one, and how many frames of it are committed."""

    salts: bytes
    frames: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One page in the log, with what its header says."""

    number: int  # from 1
    page: int
    pages_after: int  # size of the file after the commit that ends here; 0: none does
    salts: bytes
    check: bytes
    data: bytes


def read_index(path: Path, *, kept: bool = False) -> Index | None:
    """Return what the index beside a file's log says; None: there is none, or it is damaged.

    With `kept`, what it said when somebody looked at the file last.
    """
    name = path.with_suffix(".index") if kept else path.with_name(path.name + "-shm")
    try:
        with name.open("rb") as file:
            header = file.read(INDEX_HEADER)
    except OSError:
        return None
    if len(header) < INDEX_HEADER or checksum(header[:40], (0, 0), "=") != header[40:48]:
        return None
    return Index(header[32:40], struct.unpack("=I", header[16:20])[0])


def keep_index(path: Path) -> None:
    """Before a file that nobody runs is looked at: keep what its index says, for SQLite makes it
    anew then. On a disk that cannot be written, it is not kept.
    """
    index, name = read_index(path), path.with_suffix(".index")
    if index is not None and index.frames > committed(path, None):
        with contextlib.suppress(OSError), path.with_name(path.name + "-shm").open("rb") as file:
            files.replace(name, file.read(INDEX_HEADER))


def lost(path: Path, before: Index | None, taken: int) -> str:
    """Return how we know that commits are missing after the `taken` frames, or "".

    `before` is the index as it was before the log was opened.
    """
    salts = generation(path)
    if salts is None:
        return ""
    frames_committed = committed(path, before)
    if frames_committed > taken:
        return f"{frames_committed} frames of the log were committed, {taken} can be read"
    commits, last = 0, None
    for frame in frames(path, taken):
        if frame.salts == salts and frame.pages_after and last is not None:
            commits += _follows(frame, last, path)
        last = frame
        if commits == 2:
            return f"only {taken} frames can be read, and whole commits follow"
    return ""


def generation(path: Path) -> bytes | None:
    """Return the salts of the log as it is now; of a damaged header, what its frames say."""
    header = _header(path)
    order = _order(header)
    if len(header) == HEADER and _big(checksum(header[:24], (0, 0), order), order) == header[24:]:
        return header[16:24]
    found: Counter[bytes] = Counter()
    for frame in frames(path, 0):
        found[frame.salts] += 1
        if frame.number == SALTS_LOOKED_AT:
            break
    return found.most_common(1)[0][0] if found else None


def frames(path: Path, after: int) -> Iterator[Frame]:
    """Yield the frames that stand in a file's log behind the first `after`, right or wrong."""
    try:
        file = path.with_name(path.name + "-wal").open("rb")
    except OSError:
        return
    with file:
        file.seek(HEADER + after * (FRAME + PAGE))
        number = after
        while len(block := file.read(FRAME + PAGE)) == FRAME + PAGE:
            number += 1
            page, pages_after = struct.unpack(">II", block[:8])
            yield Frame(number, page, pages_after, block[8:16], block[16:24], block[FRAME:])


def committed(path: Path, index: Index | None) -> int:
    """Return how many frames of a file's log were surely committed, as far as its index says."""
    salts = generation(path)
    known = (index, read_index(path, kept=True))
    return max([0, *(one.frames for one in known if one is not None and one.salts == salts)])


def mend(path: Path, fresh: Path, first_page: bytes = b"") -> int:
    """Write a log that SQLite takes whole: all frames of this one up to its last commit.

    A frame whose bytes changed is among them: the page it holds is looked at like any other, and
    the one before it would be out of date. `first_page` stands for every state of that page, when
    it is given. Returns how many frames there were. Raises OSError.
    """
    salts = generation(path)
    last, pages = 0, 1
    for frame in frames(path, 0):
        if frame.salts == salts and frame.pages_after:
            last, pages = frame.number, max(pages, frame.pages_after)
    with fresh.open("wb") as file:
        header = struct.pack(">IIII", LITTLE, FORMAT, PAGE, 0) + (salts or bytes(8))
        check = checksum(header, (0, 0), "<")
        file.write(header + _big(check, "<"))
        for frame in frames(path, 0) if salts else ():
            if frame.number > last:
                break
            if 1 <= frame.page <= pages and frame.pages_after <= pages:
                given = first_page if frame.page == 1 else b""
                check = _write(file, frame, given or frame.data, salts or b"", check)
    return last


def _write(file: BinaryIO, frame: Frame, data: bytes, salts: bytes, check: bytes) -> bytes:
    head = struct.pack(">II", frame.page, frame.pages_after)
    check = checksum(head + data, struct.unpack("<II", check), "<")
    file.write(head + salts + _big(check, "<") + data)
    return check


def _big(check: bytes, order: str) -> bytes:
    """Return a checksum as it stands in a log: whatever order it was summed in, big end first."""
    return struct.pack(">II", *struct.unpack(f"{order}II", check))


def _follows(frame: Frame, last: Frame, path: Path) -> bool:
    """True when a frame is whole, going on from what stands in the one before."""
    order = _order(_header(path))
    head = struct.pack(">II", frame.page, frame.pages_after)
    seed = struct.unpack(">II", last.check)
    found = checksum(head + frame.data, seed, order)
    return _big(found, order) == frame.check


def _header(path: Path) -> bytes:
    try:
        with path.with_name(path.name + "-wal").open("rb") as file:
            return file.read(HEADER)
    except OSError:
        return b""


def _order(header: bytes) -> str:
    return ">" if header[:4] == struct.pack(">I", BIG) else "<"
