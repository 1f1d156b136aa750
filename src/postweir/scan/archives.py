"""Lists the names in archives (zip, tar, gzip, rar), one level deep into archives of archives.

Each list is read by hand. The standard library's readers believe what an archive says of itself,
build an object for each of a million entries, and unpack without a bound. Here each name takes one
of what is left for the message, and each byte unpacked one of another budget; what was not looked
at is an entry without a name, locked.
"""

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from postweir.scan.kinds import kind_of

NAMES_MAX = 5000  # of all archives of a message: 20 ms
LIST_MAX = 1000  # of one archive; one with more counts as locked: nobody saw the rest
UNPACKED_BYTES_MAX = 2 * 1024 * 1024  # of all that is packed in a message: 10 ms
NAME_BYTES_MAX = 1000

_TAR_BLOCK = 512
_RAR_HEADER_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in an archive, by its name; "" for what nobody saw."""

    name: str
    locked: bool = False  # with a password, or not looked at
    at: int = -1  # zip: where its own header begins
    packed: int = 0
    method: int = 0
    kind: str = ""  # where its first bytes were seen


NOT_SEEN = Entry("", locked=True)


@dataclass(slots=True)
class Budget:
    """What may still be looked at of one message."""

    names: Iterator[int] = field(default_factory=lambda: iter(range(NAMES_MAX)))
    unpacked: int = UNPACKED_BYTES_MAX

    def unpack(self, data: bytes, bits: int) -> tuple[bytes, bool]:
        """Return what is packed (zlib's `wbits`), and whether that is all of it."""
        if self.unpacked <= 0:
            return b"", False
        unpacker = zlib.decompressobj(bits)
        try:
            found = unpacker.decompress(data, self.unpacked)
        except zlib.error:
            return b"", False
        self.unpacked -= len(found)
        return found, unpacker.eof


def entries(kind: str, data: bytes, budget: Budget, depth: int = 1) -> Iterator[Entry]:
    """Yield what an archive of this kind has in it."""
    if kind == "zip":
        yield from _zip(data, budget, depth)
    elif kind == "tar":
        yield from tar_names(data, budget)
    elif kind == "gzip":
        yield from _gzip(data, budget)
    elif kind == "rar":
        yield from rar_names(data, budget)


def _zip(data: bytes, budget: Budget, depth: int) -> Iterator[Entry]:
    for entry in zip_names(data, budget):
        yield entry
        if not depth or entry.locked or not entry.name.lower().endswith((".zip", ".jar")):
            continue
        inner, whole = entry_bytes(data, entry, budget)
        if kind_of(inner) == "zip":
            if whole:
                yield from _zip(inner, budget, depth - 1)
            else:
                yield NOT_SEEN


def zip_names(data: bytes, budget: Budget) -> Iterator[Entry]:
    """Yield what stands in a ZIP archive's own list (APPNOTE 4.3.12); directories left out."""
    end = data.rfind(b"PK\x05\x06", max(0, len(data) - 65_557))  # the longest comment
    if end < 0 or len(data) < end + 22:
        return
    size = int.from_bytes(data[end + 12 : end + 16], "little")
    start = int.from_bytes(data[end + 16 : end + 20], "little")
    at = max(0, end - size)  # from the end: something may stand before the archive
    before = at - start
    for _ in itertools.islice(budget.names, LIST_MAX):
        if data[at : at + 4] != b"PK\x01\x02":
            return
        flags = int.from_bytes(data[at + 8 : at + 10], "little")
        lengths = [int.from_bytes(data[at + i : at + i + 2], "little") for i in (28, 30, 32)]
        name = data[at + 46 : at + 46 + lengths[0]]
        if not name.endswith(b"/"):
            yield Entry(
                name[:NAME_BYTES_MAX].decode("utf-8" if flags & 0x800 else "cp437", "replace"),
                bool(flags & 1),
                int.from_bytes(data[at + 42 : at + 46], "little") + before,
                int.from_bytes(data[at + 20 : at + 24], "little"),
                int.from_bytes(data[at + 10 : at + 12], "little"),
            )
        at += 46 + sum(lengths)
    if data[at : at + 4] == b"PK\x01\x02":
        yield NOT_SEEN


def entry_bytes(data: bytes, entry: Entry, budget: Budget) -> tuple[bytes, bool]:
    """Return the bytes of one entry of a ZIP archive, and whether they are all."""
    at = entry.at
    if at < 0 or data[at : at + 4] != b"PK\x03\x04":
        return b"", False
    at += 30 + sum(int.from_bytes(data[at + i : at + i + 2], "little") for i in (26, 28))
    packed = data[at : at + entry.packed]
    if entry.method == 8:
        return budget.unpack(packed, -15)
    return (packed, True) if entry.method == 0 else (b"", False)


def tar_names(data: bytes, budget: Budget, whole: bool = True) -> Iterator[Entry]:
    """Yield the names of a tar archive (POSIX ustar, with GNU's and pax's long names)."""
    at, long_name = 0, b""
    for _ in itertools.islice(budget.names, LIST_MAX):
        head = data[at : at + _TAR_BLOCK]
        if len(head) < _TAR_BLOCK or not head.strip(b"\0"):
            if not whole and at >= len(data):
                yield NOT_SEEN
            return
        size = _octal(head[124:136])
        content, kind = data[at + _TAR_BLOCK : at + _TAR_BLOCK + min(size, 4096)], head[156:157]
        at += _TAR_BLOCK + -(-size // _TAR_BLOCK) * _TAR_BLOCK
        if kind == b"L":
            long_name = content.rstrip(b"\0")
        elif kind == b"x":
            _, found, rest = content.partition(b" path=")
            long_name = rest.partition(b"\n")[0] if found else b""
        elif kind in (b"0", b"\0", b"7"):
            name = long_name or head[:100].partition(b"\0")[0]
            long_name = b""
            yield Entry(name[:NAME_BYTES_MAX].decode("utf-8", "replace"))
        else:
            long_name = b""
    if data[at : at + 1].strip(b"\0"):
        yield NOT_SEEN


def _octal(digits: bytes) -> int:
    text = digits.strip(b" \0")
    if text and all(48 <= c < 56 for c in text):
        return int(text, 8)
    return int.from_bytes(digits[-8:], "big") if digits[:1] == b"\x80" else 0


def _gzip(data: bytes, budget: Budget) -> Iterator[Entry]:
    """Yield the name a gzip file carries, and those of the tar archive that it packs."""
    if len(data) > 10 and data[3] & 8 and next(budget.names, None) is not None:  # RFC 1952 2.3.1
        at = 10 + (2 + int.from_bytes(data[10:12], "little") if data[3] & 4 else 0)
        name = data[at : at + NAME_BYTES_MAX].partition(b"\0")[0]
        if name:
            yield Entry(name.decode("latin-1"))
    inner, whole = budget.unpack(data, 31)
    if kind_of(inner[:_TAR_BLOCK]) == "tar":
        yield from tar_names(inner, budget, whole)
    elif kind_of(inner):
        yield Entry("", kind=kind_of(inner))


def rar_names(data: bytes, budget: Budget) -> Iterator[Entry]:
    """Yield the names of a RAR archive, of format 4 or 5; one whose list is locked is not seen."""
    if data[6:8] == b"\x01\0":
        yield from _rar5(data, budget)
    else:
        yield from _rar4(data, budget)


def _rar4(data: bytes, budget: Budget) -> Iterator[Entry]:
    at = 7
    for _ in itertools.islice(budget.names, LIST_MAX):
        kind, flags, size = (
            data[at + 2 : at + 3],
            int.from_bytes(data[at + 3 : at + 5], "little"),
            int.from_bytes(data[at + 5 : at + 7], "little"),
        )
        if size < 7 or kind == b"\x7b":
            return
        if kind == b"\x73" and flags & 0x80:
            yield NOT_SEEN
            return
        more = int.from_bytes(data[at + 7 : at + 11], "little") if flags & 0x8000 else 0
        if kind == b"\x74":
            more = int.from_bytes(data[at + 7 : at + 11], "little")
            length = int.from_bytes(data[at + 26 : at + 28], "little")
            start = at + 32 + (8 if flags & 0x100 else 0)
            name = data[start : start + min(length, NAME_BYTES_MAX)].partition(b"\0")[0]
            if flags & 0xE0 != 0xE0:  # else a directory
                yield Entry(name.decode("utf-8", "replace"), bool(flags & 4))
        at += size + more
    yield NOT_SEEN


def _rar5(data: bytes, budget: Budget) -> Iterator[Entry]:
    at = 8
    for _ in itertools.islice(budget.names, LIST_MAX):
        size, start = _varint(data, at + 4)
        kind, place = _varint(data, start)
        if not 0 < size <= 2 * 1024 * 1024 or kind == 5 or start > len(data):
            return
        if kind == 4:
            yield NOT_SEEN
            return
        flags, place = _varint(data, place)
        extra, place = _varint(data, place) if flags & 1 else (0, place)
        more, place = _varint(data, place) if flags & 2 else (0, place)
        if kind == 2:
            name, folder = _rar5_name(data, place)
            if not folder:
                head = data[start + size - extra : start + size] if extra < size else b""
                yield Entry(name, _is_locked(head))
        at = start + size + more
    yield NOT_SEEN


def _rar5_name(data: bytes, at: int) -> tuple[str, bool]:
    flags, at = _varint(data, at)
    for _ in range(2):  # unpacked size, attributes
        _, at = _varint(data, at)
    at += (4 if flags & 2 else 0) + (4 if flags & 4 else 0)  # time, checksum
    for _ in range(2):  # compression, system
        _, at = _varint(data, at)
    length, at = _varint(data, at)
    name = data[at : at + min(length, NAME_BYTES_MAX)]
    return name.decode("utf-8", "replace"), bool(flags & 1)


def _is_locked(extra: bytes) -> bool:
    """True when among a file's extra records is one about encryption."""
    at = 0
    for _ in range(20):
        size, start = _varint(extra, at)
        if not size or start >= len(extra):
            return False
        if _varint(extra, start)[0] == 1:
            return True
        at = start + size
    return False


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and where it ends."""
    value = 0
    for n, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * n
        if not byte & 0x80:
            return value, at + n + 1
    return 0, at + 10
