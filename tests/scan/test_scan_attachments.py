"""What would run when opened is found by its bytes and by each of its names."""

import base64
import hashlib
import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.mail.message import read
from postweir.scan.archives import Budget, zip_names
from postweir.scan.attachments import Attachments, danger
from postweir.scan.kinds import PROGRAMS, kind_of

PE = b"MZ" + b"\0" * 58 + (64).to_bytes(4, "little") + b"PE\0\0" + b"\0" * 20


def mail(name: str, payload: bytes, kind: str = "application/octet-stream") -> bytes:
    head = f'Content-Type: {kind}\r\nContent-Disposition: attachment; filename="{name}"\r\n'
    return (
        head.encode("utf-8", "replace")
        + b"Content-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(payload)
    )


def archive(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name in names:
            made.writestr(name, b"x")
    return file.getvalue()


def kinds(message: bytes) -> list[str]:
    return [f.kind for f in Attachments().scan(read(message)).findings]


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
    assert (kind_of(payload) in PROGRAMS) is found
    assert kinds(mail("holiday.jpg", payload)) == (["attachment_dangerous"] if found else [])


def names(payload: bytes):
    return zip_names(payload, Budget())


def test_archives():
    """Names in an archive count; its folders do not."""
    assert kinds(mail("a.zip", archive("readme.txt", "x/setup.exe"))) == ["attachment_dangerous"]
    assert kinds(mail("a.zip", archive("readme.txt", "www.example.exe/"))) == []
    assert kinds(mail("a.zip", b"junk before" + archive("a.scr"))) == ["attachment_dangerous"]
    assert kinds(mail("a.dat", b"junk before" + archive("a.scr"))) == []  # nobody opens that
    assert [e.name for e in names(b"junk before" + archive("a.scr"))] == ["a.scr"]


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
    left = Budget()

    found = [len(list(zip_names(long_archive(900), left))) for _ in range(100)]

    assert found[:6] == [900] * 5 + [496]
    assert set(found[6:]) == {1}


@given(st.binary(max_size=120), st.binary(max_size=60))
def test_any_bytes(before, after):
    """Hostile archives and programs never raise, nor become what they are not."""
    archive = before + b"PK\x01\x02" + after + b"PK\x05\x06" + before + after

    assert 46 * (len(list(names(archive))) - 1) <= len(archive)  # an entry takes so much
    assert kind_of(b"MZ" + before + after) in ("", "exe")


def measures(message: bytes) -> dict:
    seen = Attachments().scan(read(message))
    return {n.removeprefix("attachments."): v for n, v in seen.measures.items()}


def office(*names: str, types: bytes = b"<Types/>") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("[Content_Types].xml", types)
        for name in names:
            made.writestr(name, b"x")
    return file.getvalue()


OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600


def test_what_they_are():
    """Types by their bytes, ends of names, what is in archives, and how large they are."""
    found = measures(mail("Report.PDF", archive("a.TXT", "b/c.doc")))

    assert found == {
        "known": True, "types": ["zip"], "extensions": ["pdf"], "mismatch": True, "archives": 1,
        "inside": ["txt", "doc"], "macros": False, "html": False,
        "bytes": len(archive("a.TXT", "b/c.doc")),
    }  # fmt: skip
    assert measures(b"Content-Type: text/plain\r\n\r\nhello")["types"] == []
    assert measures(mail("a.jpg", b"\x89PNG\r\n\x1a\n"))["mismatch"] is False


@pytest.mark.parametrize(
    ("payload", "kind", "macros"),
    [
        (office("word/document.xml"), "ooxml", False),
        (office("xl/workbook.xml", "xl/vbaProject.bin"), "ooxml", True),
        (office("xl/workbook.xml", "xl/macrosheets/sheet1.xml"), "ooxml", True),
        (office("word/a.xml", "word/x.bin", types=b"<a T='application/vnd.ms-office.vbaProject'>"),
         "ooxml", True),
        (office("other/a.xml"), "zip", False),
        (OLE, "ole", False),
        (OLE + "_VBA_PROJECT".encode("utf-16-le"), "ole", True),
        (archive("mimetype", "content.xml"), "odf", False),
        (archive("mimetype", "Basic/Standard/Module1.xml"), "odf", True),
    ],
)  # fmt: skip
def test_office_documents(payload, kind, macros):
    """Macros are found where a document says it has some, whatever the part is called."""
    found = measures(mail("a.dat", payload))

    assert (found["types"], found["macros"], found["archives"]) == ([kind], macros, kind == "zip")


def test_what_cannot_be_looked_into():
    """An office document with a password, and archives whose list nobody here can read."""
    assert kinds(mail("a.docx", OLE + "EncryptedPackage".encode("utf-16-le"))) == [
        "attachment_encrypted"
    ]
    assert kinds(mail("a.7z", b"7z\xbc\xaf'\x1c" + b"\0" * 50)) == ["attachment_encrypted"]
    assert kinds(mail("a.xz", b"\xfd7zXZ\x00" + b"\0" * 50)) == []


def test_dangers_inside():
    """In a tar archive, in an archive of archives, and a disk image of any name."""
    inner = archive("setup.exe")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("inner.zip", inner)

    assert kinds(mail("a.zip", file.getvalue())) == ["attachment_dangerous"]
    assert kinds(mail("a.bin", b"\0" * 0x8001 + b"CD001")) == ["attachment_dangerous"]


def test_pages():
    """A page that is attached, by its name, its bytes or its type; one that is shown is not."""
    assert measures(mail("a.htm", b"x"))["html"] is True
    assert measures(mail("a.dat", b"<html>x"))["html"] is True
    assert measures(b"Content-Type: text/html\r\n\r\n<html>")["html"] is False


def test_names_and_hashes_for_sets():
    """As sets spell them."""
    seen = Attachments().scan(read(mail("Invoice.PDF", b"x")))

    assert seen.keys["attachment_names"] == ["invoice.pdf"]
    assert seen.keys["attachment_hashes"] == [hashlib.sha256(b"x").hexdigest()]
    assert seen.texts["attachment_names"] == "Invoice.PDF"


@given(st.binary(max_size=300), st.text(max_size=20))
def test_any_attachment(data, name):
    """Nothing raises, and what is said is of bounded words."""
    for begin in (b"", b"PK\x03\x04", b"\x1f\x8b\x08", b"MZ", OLE[:8]):
        found = measures(mail(name.replace('"', ""), begin + data))
        assert all(len(word) <= 10 for word in found["extensions"])
