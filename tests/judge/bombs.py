"""Messages made to hurt whoever reads them, of any size."""

from collections.abc import Iterator

HEAD = b"From: a@example.com\r\nSubject: x\r\nMIME-Version: 1.0\r\n"
MIXED = HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
EMBEDDED = b"Content-Type: message/rfc822\r\n\r\n"
ENTRY = b"PK\x01\x02" + b"\0" * 42


def bombs(size: int) -> Iterator[tuple[str, bytes]]:
    """Yield (name, message of about that many bytes)."""

    def full(head: bytes, piece: bytes, end: bytes = b"") -> bytes:
        return head + piece * (size // len(piece)) + end

    for charset in (b"utf-7", b"utf-16", b"utf-32be"):
        head = HEAD + b"Content-Type: text/plain; charset=" + charset + b"\r\n\r\n"
        yield charset.decode(), full(head, b"\xff\xdf")
    yield "parts", full(MIXED, b"--b\r\n\r\nx\r\n")
    yield "unended parts", full(MIXED, b"--bx\r\n")
    yield "embedded", full(MIXED, b"--b\r\n" + EMBEDDED + b"Subject: y\r\n\r\nx\r\n")
    yield "embedded deep", full(HEAD + EMBEDDED * min(1000, size // 40), b"x\r\n")
    levels = range(20_000)
    nest = b"".join(b"Content-Type: multipart/x; boundary=c%d\r\n\r\n--c%d\r\n" % (n, n) for n in levels)  # fmt: skip  # noqa: E501
    yield "nested", HEAD + nest[:size]
    yield "encoded words", full(HEAD + b"To: ", b"=?utf-8?q?a?= ", b"\r\n\r\nx")
    yield "half words", full(HEAD + b"To: ", b"=?", b"\r\n\r\nx")
    yield "words in parts", full(MIXED + b'--b\r\nContent-Type: a/b; name="', b"=?", b'"\r\n\r\nx')
    yield "parameters", full(b"Content-Type: text/plain", b"; a*0=b", b"\r\n\r\nx")
    yield "folded", full(b"X-A: b\r\n", b" c\r\n", b"\r\n")
    yield "fields", full(b"", b"X-A: b\r\n", b"\r\n")
    yield "types", full(HEAD + b"\r\n", b"content-type: a;\r\n ;")
    yield "no boundary", full(HEAD + b"Content-Type: multipart/mixed\r\n\r\n", b"\r\n")
    yield "bad base64", full(HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n", b"QUJD!\r\n")
    bad = b"--b\r\nContent-Transfer-Encoding: base64\r\n\r\n=Q!\r\n"
    yield "bad parts", full(MIXED, bad)
    yield "links", full(HEAD + b"\r\n", b"http://" + ".".join(["é" * 20] * 5).encode() + b".com ")
    yield "percent", full(HEAD + b"\r\n", b"http://" + b"%41" * 80 + b" ")
    yield "half links", full(HEAD + b"\r\n", b"http://")
    end = b"PK\x05\x06" + b"\0" * 8 + (46_000).to_bytes(4, "little") + b"\0" * 6
    archive = b"--b\r\nContent-Type: application/zip\r\n\r\nPK\x03\x04" + ENTRY * 1000 + end
    yield "archives", full(MIXED, archive + b"\r\n")
    for piece in (b"\0", b"\r", b"\n", b"-", b":", b"<"):
        yield repr(piece), full(b"", piece)


def letters() -> Iterator[tuple[str, int, bytes]]:
    """Yield (name, recipients, message): each of a size that is taken, the worst of its kind."""
    yield "ten thousand recipients", 10_000, HEAD + b"\r\nhello\r\n"
    yield "header of one field", 1, b"Subject: " + b"=?utf-8?b?4pyT?= " * 60_000 + b"\r\n\r\nx\r\n"
    yield "header of many fields", 1, b"X-Odd: y\r\n" * 100_000 + HEAD + b"\r\nx\r\n"
    raw = bytes(range(1, 10)) + bytes(range(14, 256))
    yield "invalid UTF-8", 1, (
        b"From: " + raw + b"@\xff\xfe.example\r\nReply-To: \xc3\x28@\xe2\x82\r\nSubject: "
        + raw * 20 + b"\r\nMessage-ID: <" + raw + b">\r\nX-Mailer: \xed\xa0\x80\xed\xb0\x80\r\n\r\n"
        + raw * 500
    )  # fmt: skip
    links = b"".join(b"http://h%d.example.com/p?q=%d \r\n" % (n, n) for n in range(1000))
    yield "a thousand links", 1, HEAD + b"\r\n" + links
    yield (
        "a regex-hostile subject",
        1,
        b"Subject: " + b"a" * 30_000 + b"!\r\n" + HEAD + b"\r\nx\r\n",
    )
    half = "\ud83d \udc00 x" * 5000
    utf16 = half.encode("utf-16le", "surrogatepass")
    kind = b"Content-Type: text/plain; charset=utf-16le\r\n\r\n"
    yield "halves of surrogate pairs", 1, HEAD + kind + utf16
    yield "nothing but NUL", 1, b"\0" * 100_000
    names = b"".join(
        b'--b\r\nContent-Disposition: attachment; filename="%s.exe"\r\n\r\nMZ\r\n' % (b"\xff" * 300)
        for _ in range(500)
    )
    yield "odd attachments", 1, MIXED + names
