"""What would run when opened is found by its bytes and by each of its names."""

import base64
import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.mail.message import read
from postweir.scan.attachments import Attachments, danger, program, zip_names

PE = b"MZ" + b"\0" * 58 + (64).to_bytes(4, "little") + b"PE\0\0" + b"\0" * 20


def mail(name: str, payload: bytes, kind: str = "application/octet-stream") -> bytes:
    head = f'Content-Type: {kind}\r\nContent-Disposition: attachment; filename="{name}"\r\n'
    return (
        head.encode() + b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(payload)
    )


def archive(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name in names:
            made.writestr(name, b"x")
    return file.getvalue()


def kinds(message: bytes) -> list[str]:
    return [f.kind for f in Attachments().scan(read(message))]


@pytest.mark.parametrize(
    "name",
    ["a.exe", "Invoice.PDF.Scr", "x.js ", "run.bat.", "c:\\docs\\x.lnk", "a.vbs", "d.iso",
     "\u202efdp.exe", "invoice\u202efdp", "k.hta", "p.ps1", "j.jar"],
)  # fmt: skip
def test_dangerous_names(name):
    """Any case, trailing dots and blanks, a path, and names that turn around."""
    assert danger(name)


@pytest.mark.parametrize("name", ["a.pdf", "exe", "report.docx", "x.exe.txt", "photo.jpeg", ""])
def test_names_that_are_not(name):
    """What a double click shows, not runs."""
    assert danger(name) == ""


@pytest.mark.parametrize(
    ("payload", "found"),
    [(PE, True), (b"\x7fELF\x02\x01", True), (b"\xcf\xfa\xed\xfe", True), (b"%PDF-1.7", False),
     (b"MZ is how this letter begins, and it goes on for a while, as letters do.....", False)],
)  # fmt: skip
def test_programs_by_their_bytes(payload, found):
    """A program is one whatever it is called, and a text is none."""
    assert bool(program(payload)) is found
    assert kinds(mail("holiday.jpg", payload)) == (["attachment_dangerous"] if found else [])


def names(payload: bytes):
    return zip_names(payload, iter(range(5000)))


def test_archives():
    """Names in an archive count; its folders do not."""
    assert kinds(mail("a.zip", archive("readme.txt", "x/setup.exe"))) == ["attachment_dangerous"]
    assert kinds(mail("a.zip", archive("readme.txt", "www.example.exe/"))) == []
    assert kinds(mail("a.zip", b"junk before" + archive("a.scr"))) == []  # no archive by its bytes
    assert [n for n, _ in names(b"junk before" + archive("a.scr"))] == ["a.scr"]


def test_locked_archives_are_noted():
    """An encrypted entry cannot be looked into: a finding of its own."""
    data = bytearray(archive("secret.txt"))
    data[data.rfind(b"PK\x01\x02") + 8] |= 1

    assert kinds(mail("a.zip", bytes(data))) == ["attachment_encrypted"]


def test_a_com_file_is_one_and_a_host_name_is_none():
    """`.com` ends names of hosts too."""
    assert kinds(mail("run.com", b"x", "application/octet-stream")) == ["attachment_dangerous"]
    assert kinds(mail("example.com", b"x", "text/plain")) == []


def long_archive(count: int) -> bytes:
    entry = b"PK\x01\x02" + b"\0" * 24 + (1).to_bytes(2, "little") + b"\0" * 16 + b"a"
    data = b"PK\x03\x04" + entry * count
    return data + b"PK\x05\x06" + b"\0" * 8 + (len(entry) * count).to_bytes(4, "little") + b"\0" * 6


def test_ten_thousand_entries_are_bounded():
    """A list without end is read up to its bound, and hides nothing behind it: it is locked."""
    assert len(list(names(long_archive(10_000)))) == 1001
    assert len(list(names(long_archive(1000)))) == 1000
    assert kinds(mail("a.zip", long_archive(10_000))) == ["attachment_encrypted"]
    assert kinds(mail("a.zip", long_archive(1000))) == []


def test_a_hundred_long_archives_are_bounded():
    """What is left for a message is used up once; the rest counts as locked."""
    left = iter(range(5000))

    found = [len(list(zip_names(long_archive(900), left))) for _ in range(100)]

    assert found[:6] == [900] * 5 + [496]
    assert set(found[6:]) == {1}


@given(st.binary(max_size=120), st.binary(max_size=60))
def test_any_bytes(before, after):
    """Hostile archives and programs never raise."""
    list(names(before + b"PK\x01\x02" + after + b"PK\x05\x06" + before + after))
    program(b"MZ" + before + after)
