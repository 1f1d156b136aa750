"""The GTUBE text is found however a part carries it."""

import base64

import pytest

from postweir.mail.message import read
from postweir.scan.content import GTUBE, Content

HEAD = b"Content-Type: text/plain; charset=%s\r\nContent-Transfer-Encoding: %s\r\n\r\n"


@pytest.mark.parametrize(
    "message",
    [
        b"Subject: x\r\n\r\nhello\r\n" + GTUBE + b"\r\n",
        HEAD % (b"utf-8", b"base64") + base64.encodebytes(b"hi " + GTUBE),
        HEAD % (b"utf-8", b"quoted-printable") + GTUBE[:20] + b"=\r\n" + GTUBE[20:],
        HEAD % (b"utf-16", b"base64") + base64.encodebytes(GTUBE.decode().encode("utf-16")),
        b"Content-Type: message/rfc822\r\n\r\n"
        + HEAD % (b"utf-8", b"base64") + base64.encodebytes(GTUBE),
    ],
    ids=["plain", "base64", "soft line break", "utf-16", "in a forwarded message"],
)  # fmt: skip
def test_gtube_is_spam(message):
    """In clear, encoded or embedded: one finding, for sure."""
    found = Content().scan(read(message)).findings

    assert [(f.kind, f.what, f.certainty) for f in found] == [("spam", "GTUBE", 1.0)]


def test_other_mail_is_not():
    """Neither the text in a header nor half of it is spam."""
    assert not Content().scan(read(b"Subject: " + GTUBE + b"\r\n\r\nhello\r\n")).findings
    assert not Content().scan(read(b"Subject: x\r\n\r\n" + GTUBE[:-1] + b"\r\n")).findings
