"""The text that a reader sees is measured: of alternatives one, and nothing hidden."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.mail.message import read
from postweir.scan.text import TEXT_CHARS_MAX, Text

SCANNER = Text()
MIXED = b"Content-Type: multipart/%s; boundary=b\r\n\r\n--b\r\n"


def scanned(kind: str, text: bytes, charset: str = "utf-8"):
    return SCANNER.scan(
        read(f"Content-Type: text/{kind}; charset={charset}\r\n\r\n".encode() + text)
    )


def measures(kind: str, text: bytes, charset: str = "utf-8"):
    return {n.removeprefix("text."): v for n, v in scanned(kind, text, charset).measures.items()}


def test_plain_text():
    """Characters, words, and shares of capitals and of what is not ASCII."""
    found = measures("plain", "HELLO  wörld\r\nÄ 12".encode())

    assert (found["chars"], found["words"], found["html"]) == (16, 4, False)
    assert found["capitals"] == 6 / 11
    assert found["foreign"] == 2 / 16
    assert measures("plain", b"")["words"] == 0


@pytest.mark.parametrize(
    ("charset", "data"),
    [("utf-8", "Привет".encode()), ("koi8-r", "Привет".encode("koi8-r")),
     ("windows-1251", "Привет".encode("cp1251")), ("utf-16", "Привет".encode("utf-16")),
     ("utf-7", "Привет".encode("utf-7")), ("UTF-8", "Привет".encode()), ("", "Привет".encode()),
     ("unheard-of", "Привет".encode())],
)  # fmt: skip
def test_charsets(charset, data):
    """The same word, however it is written; one that names nothing known is likely UTF-8."""
    assert scanned("plain", data, charset).texts["text"] == "Привет"


def test_a_foreign_name_is_no_codec():
    """What Python would unpack, run or rot is text."""
    for charset in ("zlib_codec", "rot13", "unicode_escape", "idna", "punycode", "hex"):
        assert scanned("plain", b"a\xe9", charset).texts["text"] == "aé"


def test_a_page():
    """What it shows, with its references and without what nobody sees between letters."""
    seen = scanned("html", "<p>Via&#103;ra V&shy;i\u200ba&nbsp;x</p>".encode())

    assert seen.texts["text"] == "Viagra Via x"
    assert seen.texts["html"].startswith("<p>Via&#103;")
    assert seen.measures["text.html"] is True


def test_of_alternatives_the_page_counts():
    """The plain part beside it nobody sees; beside a page that is no alternative, they do."""
    parts = (
        b"Content-Type: text/plain\r\n\r\nplain words\r\n--b\r\n"
        b"Content-Type: text/html\r\n\r\n<p>page</p>\r\n--b--\r\n"
    )

    assert SCANNER.scan(read(MIXED % b"alternative" + parts)).texts["text"] == "page"
    assert SCANNER.scan(read(MIXED % b"mixed" + parts)).texts["text"] == "plain words page"


def test_an_alternative_that_is_nested():
    """A page within a related part is an alternative still; an attached page is no text."""
    body = (
        b"Content-Type: text/plain\r\n\r\nplain\r\n--b\r\n"
        b"Content-Type: multipart/related; boundary=c\r\n\r\n--c\r\n"
        b"Content-Type: text/html\r\n\r\n<p>page</p>\r\n--c--\r\n--b--\r\n"
    )
    attached = (
        b"Content-Type: text/plain\r\n\r\nplain\r\n--b\r\nContent-Type: text/html\r\n"
        b"Content-Disposition: attachment; filename=a.html\r\n\r\n<form>\r\n--b--\r\n"
    )

    assert SCANNER.scan(read(MIXED % b"alternative" + body)).texts["text"] == "page"
    seen = SCANNER.scan(read(MIXED % b"mixed" + attached))
    assert seen.texts["text"] == "plain"
    assert seen.measures["text.form"] is False


def test_hiding():
    """A preview line is no hiding; a paragraph is, and so are many pieces within words."""
    secret = b'<p style="display:none">%s</p>hello'

    assert measures("html", secret % (b"x" * 100))["hidden"] is False
    assert measures("html", secret % (b"x" * 400))["hidden"] is True
    assert measures("html", b'V<b style="font-size:0">x</b>' * 10)["hidden"] is True


def test_pictures_only():
    """A picture and scarcely a word."""
    assert measures("html", b"<img src=a>Click here")["image_only"] is True
    assert measures("html", b"<img src=a>" + b"word " * 20)["image_only"] is False
    assert measures("html", b"Click here")["image_only"] is False


def test_text_is_bounded():
    """Of a large text, and of many parts together, 64 Ki characters."""
    parts = b"Content-Type: text/plain\r\n\r\n" + b"word " * 10_000 + b"\r\n--b\r\n"
    seen = SCANNER.scan(read(MIXED % b"mixed" + parts * 4))

    assert seen.measures["text.chars"] <= TEXT_CHARS_MAX
    assert len(seen.texts["text"]) <= TEXT_CHARS_MAX
    assert seen.measures["text.words"] > 13_000


@given(st.binary(max_size=300), st.sampled_from(["", "utf-8", "utf-7", "big5", "iso-2022-jp"]))
def test_any_text(data, charset):
    """Shares are from 0 to 1, counts not below 0."""
    for kind in ("plain", "html"):
        found = measures(kind, data, charset)
        assert 0.0 <= found["capitals"] <= 1.0
        assert 0.0 <= found["foreign"] <= 1.0
        assert 0 <= found["words"] <= found["chars"]
