"""Any bytes are a message, and its parts are found within bounds."""

import resource
import time

from hypothesis import given
from hypothesis import strategies as st

from postweir.mail import message
from postweir.mail.message import parameter, read


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("latin-1")


MIXED = crlf(
    """From: a@example.com
Subject: hello
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="b"

--b
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: quoted-printable

caf=C3=A9
--b
Content-Type: application/pdf; name="x.pdf"
Content-Disposition: attachment; filename="invoice.pdf"
Content-Transfer-Encoding: base64

aGVsbG8=
--b--
"""
)


def test_parts_of_ordinary_mail():
    """Type, charset, names, disposition and payload of each part are there, without anomaly."""
    found = read(MIXED)

    top, text, attachment = found.parts
    assert (top.content_type, top.container, top.depth) == ("multipart/mixed", True, 0)
    assert (text.content_type, text.charset, text.payload) == (
        "text/plain",
        "utf-8",
        b"caf\xc3\xa9",
    )
    assert attachment.depth == 1
    assert attachment.names == ("invoice.pdf", "x.pdf")
    assert attachment.disposition == "attachment"
    assert attachment.payload == b"hello"
    assert found.values("subject") == ["hello"]
    assert found.anomalies == ()


def test_embedded_messages_are_opened():
    """What a forwarded message carries is looked at like the rest."""
    found = read(crlf("Content-Type: message/rfc822\n\n") + MIXED)

    types = [p.content_type for p in found.parts]
    assert types == ["message/rfc822", "multipart/mixed", "text/plain", "application/pdf"]
    assert found.parts[-1].payload == b"hello"
    assert found.parts[-1].depth == 2


def test_bad_base64_is_read_as_far_as_it_goes():
    """A broken encoding is an anomaly, and what can be decoded is."""
    found = read(crlf("Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\naGVsbG8*=\n"))

    assert b"hello" in found.parts[0].payload
    assert "encoding" in found.anomalies


def test_multipart_without_parts_is_read_again():
    """A multipart whose boundary is missing keeps its text, with an anomaly."""
    found = read(crlf("Content-Type: multipart/mixed\n\nhello there\n"))

    assert "empty" in found.anomalies
    assert any(b"hello there" in p.payload for p in found.parts)


def test_utf_16_text_reads_as_ascii():
    """A charset cannot hide ASCII from those who look for it."""
    head = crlf("Content-Type: text/plain; charset=utf-16le\nContent-Transfer-Encoding: 8bit\n\n")
    found = read(head + "hidden".encode("utf-16-le"))

    assert found.parts[0].text == b"hidden"


def test_a_thousand_levels_are_bounded():
    """Depth beyond the bound is an anomaly, not a crash."""
    head = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (i, i) for i in range(100)
    )
    found = read(head + b"\r\nend\r\n")

    assert "bound" in found.anomalies
    assert max(p.depth for p in found.parts) <= message.DEPTH_MAX


def test_ten_thousand_parts_are_bounded():
    """Parts beyond the bound are an anomaly, not memory."""
    found = read(
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 10_000
    )

    assert len(found.parts) <= message.PARTS_MAX
    assert "bound" in found.anomalies


def test_messages_in_messages_cost_no_more_than_the_budget():
    """4 MiB embedded 200 times took 1.3 GB in the quick parser alone; here it is bounded."""
    bomb = b"Content-Type: message/rfc822\r\n\r\n" * 200 + b"\r\n" + b"x" * (4 << 20)
    hidden = bomb.replace(b"message/rfc822", b"=?utf-8?q?message/rfc8=32=32?=")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    found = [read(bomb), read(hidden)]

    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mb < 200
    assert all({"bound", "cut"} & set(f.anomalies) for f in found)


def test_decoding_has_a_budget():
    """An attachment above the budget is named and not decoded."""
    body = b"A" * (message.DECODED_BYTES_MAX + 4)
    found = read(
        b"Content-Type: application/zip; name=a.zip\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + body
    )

    assert found.parts[0].payload == b""
    assert found.parts[0].filename == "a.zip"
    assert found.anomalies == ("cut",)


def test_hostile_parameters_take_no_time():
    """A header made of semicolons is quadratic for the standard parser: it never sees it."""
    head = b'Content-Type: multipart/mixed; a="' + b";" * 250_000 + b"\r\n\r\nx\r\n"
    began = time.perf_counter()

    found = read(head)

    assert time.perf_counter() - began < 2.0
    assert found.parts


def test_parameter():
    """Parameters are found whatever stands around them."""
    value = 'text/plain; x=1; CharSet="utf-8" ; name = "a;b.txt"'

    assert parameter(value, "charset") == "utf-8"
    assert parameter(value, "name") == "a;b.txt"
    assert parameter(value, "boundary") == ""
    assert parameter("text/plain", "charset") == ""


LINES = st.sampled_from(
    [
        b"Content-Type: multipart/mixed; boundary=b\r\n", b"Content-Type: message/rfc822\r\n",
        b"Content-Type: multipart/mixed\r\n", b"Content-Transfer-Encoding: base64\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n", b"\r\n", b"--b\r\n", b"--b--\r\n",
        b"aGVsbG8=\r\n", b"=C3=\r\n", b"!!!\r\n", b"Content-Type: text/plain; charset=utf-16\r\n",
        b'Content-Disposition: attachment; filename*=utf-8\'\'%e2%80"\r\n', b"\xff\x00\r", b" x\n",
    ]
)  # fmt: skip


@given(st.one_of(st.binary(max_size=300), st.lists(LINES, max_size=40).map(b"".join)))
def test_any_bytes_are_a_message(data):
    """Nothing raises, and all that scanners ask for is there."""
    found = read(data)

    assert 1 <= len(found.parts) <= message.PARTS_MAX
    for part in found.parts:
        assert isinstance(part.payload, bytes)
        assert isinstance(part.text, bytes)
        assert all(isinstance(n, str) for n in part.names)
    assert found.start <= len(data)
