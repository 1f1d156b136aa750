"""Envelope addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.mail.address import ADDRESS_BYTES_MAX, domain_of, parse_path, split_path


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("<>", ""),
        ("<a@b>", "a@b"),
        ("<Joe.Doe+x@Shop.EXAMPLE>", "Joe.Doe+x@shop.example"),
        ("<@a,@b.example:c@D>", "c@d"),
        ("<Postmaster>", "postmaster"),
        ("<a@[192.0.2.1]>", "a@[192.0.2.1]"),
        ("<a@[ipv6:2001:DB8::1]>", "a@[IPv6:2001:db8::1]"),
        ('<"a b"@c>', '"a b"@c'),
        ('<"a>\\"@\\\\"@c>', '"a>\\"@\\\\"@c'),
        ("<bounce_1@mail_out.example>", "bounce_1@mail_out.example"),
        ("<a..b.@docomo.example>", "a..b.@docomo.example"),
        (f"<{'x' * 100}=y.example@srs.example>", f"{'x' * 100}=y.example@srs.example"),
    ],
)
def test_addresses(text, address):
    """A path is read, its route dropped, its domain in lower case; read again it is the same."""
    assert parse_path(text) == address
    assert parse_path(f"<{address}>") == address


@pytest.mark.parametrize(
    "text",
    [
        "", "a@b", "<a@b", "a@b>", "<a>", "<@b>", "<a@>", "<a b@c>", "<a@b c>", "< a@b>", "<a@b >",
        "<a@@b>", "<a@b@c>", "<ü@b>", "<a@ü>", "<a\0@b>", "<a@b\r\n>", "<a@-b>", "<a@b->",
        "<a@b..c>", "<a@.b>", "<a@b.>", f"<a@{'b' * 64}>", f"<{'a' * ADDRESS_BYTES_MAX}@b>",
        '<"a@b>', '<"a"b"@c>', '<"a\\"@c>', '<""@c>', "<a@[300.0.0.1]>", "<a@[IPv6:x]>",
        "<a@[IPv6:fe80::1%eth0]>", "<a@[x]>", "<a@[1.2.3.4>", "<@a:>", "<@a c@d>", "<@a b:c@d>",
        "<<a@b>>", "<a@b>,<c@d>", "<a,b@c>", "<a@b/c>", "<xn---@xn--->",
        f"<@{'r' * 600}:a@b>",
    ],
)  # fmt: skip
def test_no_addresses(text):
    """What RFC 5321 does not allow is no address: blanks, controls, 8-bit, halves, excess."""
    assert parse_path(text) is None


def test_domain_of():
    """The domain stands behind the last @."""
    assert domain_of("a@b.example") == "b.example"
    assert domain_of('"a@x"@b.example') == "b.example"
    assert domain_of("postmaster") == domain_of("") == ""


@pytest.mark.parametrize(
    ("text", "path", "rest"),
    [
        ("<a@b> SIZE=1", "<a@b>", " SIZE=1"),
        ('<"a> b"@c> X', '<"a> b"@c>', " X"),
        ('<"a\\"> b"@c>', '<"a\\"> b"@c>', ""),
        ("a@b SIZE=1", "a@b SIZE=1", ""),
        ('<"a> SIZE=1', '<"a> SIZE=1', ""),
    ],
)
def test_split_path(text, path, rest):
    """A bracket inside quotes does not end a path."""
    assert split_path(text) == (path, rest)


@given(st.text('<>@".\\ab:,-[]6IPv', max_size=30) | st.text(max_size=30))
def test_what_is_read_can_be_said(text):
    """An address that we read prints on one line, fits, and is read again as itself."""
    address = parse_path(text)

    if address:
        assert address.isascii()
        assert address.isprintable()
        assert len(address) <= ADDRESS_BYTES_MAX
        assert parse_path(f"<{address}>") == address
        assert split_path(f"<{address}> X") == (f"<{address}>", " X")
