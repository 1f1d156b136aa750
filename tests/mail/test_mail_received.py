"""The trace that we leave, and loops."""

from email import message_from_bytes, policy
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.mail.headers import fields
from postweir.mail.received import date, hops, loop_trace, loops, received

PLAIN = {
    "helo": "shop.example", "client": "192.0.2.7", "rdns": "out.shop.example",
    "by": "relay.example.net", "protocol": "ESMTPSA", "id": "0123456789abcdef",
    "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384", "at_s": 1_795_000_000.9, "recipients": 1,
}  # fmt: skip


def test_received():
    """The field is the RFC's, folded, and our own reader unfolds it."""
    assert received(**PLAIN) == (
        b"Received: from shop.example (out.shop.example [192.0.2.7])\r\n"
        b"\tby relay.example.net (Postweir) with ESMTPSA id 0123456789abcdef\r\n"
        b"\t(TLSv1.3 TLS_AES_256_GCM_SHA384);\r\n"
        b"\tWed, 18 Nov 2026 11:06:40 +0000\r\n"
    )


def test_received_with_less():
    """A client that stays unnamed, IPv6, and several recipients, who are counted only."""
    unnamed = received(**PLAIN | {"client": "", "rdns": "", "tls": "", "recipients": 3})
    six = received(**PLAIN | {"client": "2001:DB8::7", "rdns": ""})
    hashed = received(**PLAIN | {"client": "c-0a1b2c", "rdns": ""})

    assert unnamed.startswith(b"Received: from shop.example\r\n\tby")
    assert b"(for 3 recipients);" in unnamed
    assert b"from shop.example ([IPv6:2001:db8::7])" in six
    assert b"from shop.example (c-0a1b2c)" in hashed


@pytest.mark.parametrize("name", ["client", "rdns"])
def test_a_name_is_one_word(name):
    """Who names his own host cannot say in our comment that somebody logged in (by the fuzzer)."""
    made = received(**PLAIN | {"client": "", "rdns": "", name: "authenticated sender: \\)"})

    assert b"(authenticated?sender:???)" in made


ANY = st.text(max_size=300)


@given(ANY, ANY, ANY, ANY)
def test_nothing_leaves_its_place(helo, client, rdns, tls):
    """Whatever a client calls itself, the result is one field, ASCII, with our date at its end."""
    made = received(**PLAIN | {"helo": helo, "client": client, "rdns": rdns, "tls": tls})
    (field,) = fields(made)

    assert made.isascii()
    assert field.name == "received"
    assert field.end == len(made)
    assert all(len(line) <= 998 for line in made.split(b"\r\n"))
    assert field.value.count(";") == 1
    assert field.value.rpartition(";")[2].strip() == date(PLAIN["at_s"])
    assert field.value.count("(") == field.value.count(")")


@given(st.floats(0, 4e9))
def test_dates(at_s):
    """A date is the one that the standard library reads back, to the second."""
    assert parsedate_to_datetime(date(at_s)).timestamp() == int(at_s)


def test_loops():
    """Only our own trace, whole and in any case, counts as a loop; every Received is a hop."""
    header = (
        loop_trace("Relay.Example.NET", "x") + loop_trace("other.example", "y")
        + loop_trace("relay.example.net.evil", "z") + received(**PLAIN) * 3
        + loop_trace("relay.example.net", "w")
    )  # fmt: skip
    found = fields(header)

    assert loops(found, "relay.example.net") == 2
    assert hops(found) == 3
    assert len(message_from_bytes(header, policy=policy.default).keys()) == 7
