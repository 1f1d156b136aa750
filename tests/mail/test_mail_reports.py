"""Delivery status notifications, read back with the standard library."""

from email import message_from_bytes, policy

from hypothesis import given
from hypothesis import strategies as st

from postweir.mail.headers import fields
from postweir.mail.lines import is_canonical
from postweir.mail.reports import HEADER_BYTES_MAX, LINE_BYTES_MAX, Failure, dsn

FAILURES = [
    Failure("b@far.example", "5.1.1", "550 5.1.1 No such user", "mx.far.example[192.0.2.9]:25"),
    Failure("c@away.example", "", "451 4.4.1 No answer for 2 days", ""),
]


def report(failures=FAILURES, original_header=b"Subject: hi\r\nFrom: a@shop.example\r\n\r\nbody"):
    return dsn(
        id="0123456789abcdef", hostname="relay.example.net", to="a@shop.example",
        original_id="fedcba9876543210", arrived_at_s=1_795_000_000, at_s=1_795_180_000,
        failures=failures, original_header=original_header,
    )  # fmt: skip


def test_a_report():
    """A mail program finds the three parts of RFC 3464, each saying what happened."""
    message = message_from_bytes(report(), policy=policy.default)
    told, status, returned = message.iter_parts()
    about, first, second = status.get_payload()

    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message["From"] == "Mail Delivery System <mailer-daemon@relay.example.net>"
    assert message["To"] == "a@shop.example"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["Message-ID"] == "<0123456789abcdef@relay.example.net>"
    assert message["Date"].datetime.timestamp() == 1_795_180_000
    assert not message.defects
    assert status.get_content_type() == "message/delivery-status"
    assert about["Reporting-MTA"] == "dns; relay.example.net"
    assert about["Arrival-Date"] == "Wed, 18 Nov 2026 11:06:40 +0000"
    assert dict(first.items()) == {
        "Final-Recipient": "rfc822; b@far.example",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.far.example",
        "Diagnostic-Code": "smtp; 550 5.1.1 No such user",
    }
    assert dict(second.items()) == {
        "Final-Recipient": "rfc822; c@away.example",
        "Action": "failed",
        "Status": "4.0.0",
        "Diagnostic-Code": "x-postweir; 451 4.4.1 No answer for 2 days",
    }
    words = told.get_content()
    assert "<b@far.example>" in words
    assert "At mx.far.example[192.0.2.9]:25: 550 5.1.1 No such user" in words
    assert "fedcba9876543210" in words
    assert returned.get_content_type() == "text/rfc822-headers"
    assert returned.get_content().split() == ["Subject:", "hi", "From:", "a@shop.example"]


def test_a_status_that_is_none():
    """A status of success, or none, gives way to what the reply's first digit says."""
    for status, reply, expected in [
        ("2.0.0", "550 x", "5.0.0"), ("", "450 x", "4.0.0"), ("5.1", "550", "5.0.0"),
        ("5.1.1\r\nX: y", "550", "5.0.0"), ("4.7.1", "450", "4.7.1"), ("٥.1.1", "550", "5.0.0"),
    ]:  # fmt: skip
        text = report([Failure("b@c", status, reply, "")])

        assert f"\r\nStatus: {expected}\r\n".encode() in text


def test_bounds():
    """A huge original is cut at a line; a thousand recipients are all named."""
    header = b"X-Long: " + b"y" * 5000 + b"\r\n" + b"A: b\r\n" * 50_000
    text = report([FAILURES[0]] * 1000, header)

    assert text.count(b"Final-Recipient:") == 1000
    assert len(text) < HEADER_BYTES_MAX + 1000 * 500
    assert b"A: b\r\n\r\n--" in text


ANY = st.text(max_size=60) | st.text("\r\n-=_:. a", max_size=60)


@given(
    st.lists(st.builds(Failure, ANY, ANY, ANY, ANY), min_size=1, max_size=3),
    st.binary(max_size=200)
    | st.lists(st.sampled_from([b"\r", b"\n", b"a: b", b"\xff"])).map(b"".join),
)
def test_whatever_the_remote_said(failures, original_header):
    """Any words of a remote, and any header, make a report that every server takes."""
    text = report(failures, original_header)
    message = message_from_bytes(text, policy=policy.default)

    assert text.isascii()
    assert b"\0" not in text
    assert is_canonical([text])
    assert all(len(line) <= LINE_BYTES_MAX for line in text.split(b"\r\n"))
    parts = list(message.iter_parts())
    assert len(parts) == 3
    assert len(parts[1].get_payload()) == 1 + len(failures)
    for group in parts[1].get_payload()[1:]:
        assert group["Action"] == "failed"
        assert group["Status"][0] in "45"
    assert [f.name for f in fields(text)][:2] == ["from", "to"]
