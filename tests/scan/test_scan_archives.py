"""Archives are looked into, within bounds; what nobody saw is locked."""

import gzip
import io
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.scan import archives
from postweir.scan.archives import NOT_SEEN, UNPACKED_BYTES_MAX, Budget, Entry, entries


def zipped(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for name, data in files:
            made.writestr(name, data)
    return file.getvalue()


def tarred(*names: str, size: int = 600, form: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as made:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = size
            made.addfile(member, io.BytesIO(b"x" * size))
        folder = tarfile.TarInfo("folder.exe")
        folder.type = tarfile.DIRTYPE
        made.addfile(folder)
    return file.getvalue()


def names(kind: str, data: bytes) -> list[str]:
    return [entry.name for entry in entries(kind, data, Budget())]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar(form):
    """Names, long ones too, and no folders."""
    long = "d/" * 60 + "long.txt" if form != tarfile.USTAR_FORMAT else "l"

    assert names("tar", tarred("a.exe", long, "b", form=form)) == ["a.exe", long, "b"]


def test_tar_within_gzip():
    """Its names; one whose end is behind what is unpacked has more that nobody saw."""
    small, large = tarred("a.exe", "b"), tarred("a.exe", *["b"] * 5, size=UNPACKED_BYTES_MAX // 3)

    assert names("gzip", gzip.compress(small)) == ["a.exe", "b"]
    assert list(entries("gzip", gzip.compress(large), Budget()))[-1] == NOT_SEEN
    assert names("gzip", gzip.compress(large))[0] == "a.exe"


def test_gzip_says_its_name():
    """And what it packs, when that is known."""
    file = io.BytesIO()
    with gzip.GzipFile("dir/run.exe", "wb", fileobj=file) as made:
        made.write(b"\x7fELF")

    assert list(entries("gzip", file.getvalue(), Budget())) == [
        Entry("run.exe"), Entry("", kind="elf"),
    ]  # fmt: skip
    assert names("gzip", gzip.compress(b"text")) == []


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_in_an_archive(method):
    """One level deep; what is deeper is only named."""
    deepest = zipped(("x.exe", b"x"))
    deep = zipped(("deepest.zip", deepest), ("y.txt", b"y"))
    data = zipped(("deep.zip", deep), ("fake.zip", b"no"), method=method)

    assert names("zip", data) == ["deep.zip", "deepest.zip", "y.txt", "fake.zip"]


def test_a_bomb_is_not_unpacked():
    """What does not fit is not seen, and the budget is the message's, not the archive's."""
    bomb = zipped(("a.zip", b"PK\x03\x04" + b"\0" * 5_000_000))
    budget = Budget()

    assert list(entries("zip", bomb, budget))[-1] == NOT_SEEN
    assert budget.unpacked == 0
    assert budget.unpack(gzip.compress(b"x"), 31) == (b"", False)


def test_broken_packing():
    """Bytes that do not unpack are nothing."""
    assert Budget().unpack(b"\x1f\x8b\x08nonsense", 31) == (b"", False)
    assert names("zip", zipped(("a.zip", b"x" * 50)).replace(b"PK\x03\x04", b"PK\x03\x05")) == [
        "a.zip"
    ]


def rar5(*blocks: bytes) -> bytes:
    return b"Rar!\x1a\x07\x01\0" + b"".join(blocks)


def block5(kind: int, fields: bytes, extra: bytes = b"", data: bytes = b"") -> bytes:
    """Return a block of RAR 5: checksum, size, type, flags, ... (rarlab.com/technote.htm)."""
    flags = (1 if extra else 0) | (2 if data else 0)
    sizes = (bytes([len(extra)]) if extra else b"") + (bytes([len(data)]) if data else b"")
    head = bytes([kind, flags]) + sizes + fields + extra
    return b"\0\0\0\0" + bytes([len(head)]) + head + data


def file5(name: bytes, flags: int = 0) -> bytes:
    return bytes([flags, 1, 0, 0, 0, len(name)]) + name


END5 = block5(5, b"\0")


def test_rar5():
    """Names, folders left out, a file with a password locked, a list with one not seen."""
    locked = b"\x02\x01\x00"
    data = rar5(
        block5(1, b"\0"), block5(2, file5(b"a.exe"), data=b"xyz"), block5(2, file5(b"d", 1)),
        block5(2, file5(b"b.txt"), extra=locked), END5,
    )  # fmt: skip

    assert list(entries("rar", data, Budget())) == [Entry("a.exe"), Entry("b.txt", locked=True)]
    assert list(entries("rar", rar5(block5(4, b"\0")), Budget())) == [NOT_SEEN]


def block4(kind: int, flags: int, rest: bytes = b"", data: bytes = b"") -> bytes:
    size = (7 + len(rest)).to_bytes(2, "little")
    return b"\0\0" + bytes([kind]) + flags.to_bytes(2, "little") + size + rest + data


def file4(name: bytes, flags: int = 0, data: bytes = b"xyz") -> bytes:
    rest = (
        len(data).to_bytes(4, "little") + b"\0" * 15 + len(name).to_bytes(2, "little") + b"\0" * 4
    )
    return block4(0x74, 0x8000 | flags, rest + name, data)


def test_rar4():
    """The same for the older form."""
    head = b"Rar!\x1a\x07\0"
    data = head + block4(0x73, 0, b"\0" * 6) + file4(b"a.exe") + file4(b"d", 0xE0)
    data += file4(b"b.txt", 4) + block4(0x7B, 0)

    assert list(entries("rar", data, Budget())) == [Entry("a.exe"), Entry("b.txt", locked=True)]
    assert list(entries("rar", head + block4(0x73, 0x80, b"\0" * 6), Budget())) == [NOT_SEEN]


def test_lists_without_end():
    """Each list ends at its bound, with one that nobody saw."""
    many = archives.LIST_MAX + 10

    assert len(names("tar", tarred(*["a"] * many, size=0))) == archives.LIST_MAX + 1
    assert len(names("rar", rar5(*[block5(2, file5(b"a"))] * many))) == archives.LIST_MAX + 1
    assert len(names("rar", b"Rar!\x1a\x07\0" + file4(b"a") * many)) == archives.LIST_MAX + 1


_SAMPLES = [
    ("zip", zipped(("a.zip", zipped(("b", b"c"))))), ("tar", tarred("a", "b", size=10)),
    ("gzip", gzip.compress(tarred("a", size=10), mtime=0)),
    ("rar", rar5(block5(2, file5(b"a.exe")), END5)),
    ("rar", b"Rar!\x1a\x07\0" + block4(0x73, 0, b"\0" * 6) + file4(b"a.exe")),
]  # fmt: skip


@given(st.sampled_from(_SAMPLES), st.data())
def test_damaged_archives(sample, data):
    """Wherever a byte is changed or the end is cut off, nothing raises, and lists are bounded."""
    kind, whole = sample
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))

    for end in (len(whole), data.draw(st.integers(0, len(whole)))):
        assert len(list(entries(kind, bytes(damaged[:end]), Budget()))) <= 2 * archives.LIST_MAX


@given(st.binary(max_size=200))
def test_any_bytes(data):
    """Of any kind: nothing raises, and lists are bounded."""
    for kind, begin in (
        ("zip", b"PK"), ("tar", b""), ("gzip", b"\x1f\x8b\x08"),
        ("rar", b"Rar!\x1a\x07\x01\0"), ("rar", b"Rar!\x1a\x07\0"),
    ):  # fmt: skip
        assert len(list(entries(kind, begin + data, Budget()))) <= 2 * archives.LIST_MAX
