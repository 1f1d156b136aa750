"""Who a message says it is from, and what in its header disagrees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.mail.domains import Domains
from postweir.mail.message import read
from postweir.scan.header import Header

SCANNER = Header(Domains())


def seen(*lines: str):
    return SCANNER.scan(read("".join(f"{line}\r\n" for line in lines).encode() + b"\r\nhello\r\n"))


def measure(name: str, *lines: str):
    return seen(*lines).measures[f"header.{name}"]


def test_an_ordinary_header():
    """Domains, counts, and what wrote it."""
    found = seen(
        "From: Joe <joe@Mail.Example.com>", "Sender: <s@other.example>",
        "Subject: =?utf-8?q?H=C3=AF?=",
        "Reply-To: joe@example.com", "Message-ID: <1@host.example.com>", "Date: x", "X-Mailer: M 1",
        "Received: a", "Received: b", "List-Unsubscribe: <x>", "Auto-Submitted: auto-generated",
    )  # fmt: skip

    want = {
        "from_domain": "mail.example.com", "from_count": 1, "from_addresses": 1,
        "sender_domain": "other.example", "reply_to_domain": "example.com",
        "reply_to_differs": False, "message_id_domain": "host.example.com", "mailer": "M 1",
        "message_id_present": True, "date_present": True, "subject_bytes": 19,
        "received_count": 2, "fields": 11, "list_unsubscribe": True, "auto_submitted": True,
        "name_has_address": False,
    }  # fmt: skip
    assert {name: found.measures[f"header.{name}"] for name in want} == want
    assert found.texts == {"subject": "Hï", "from_name": "Joe", "mailer": "M 1"}
    assert found.keys == {"from_domain": ["mail.example.com"], "reply_to_domain": ["example.com"]}


@pytest.mark.parametrize(
    "line",
    [
        'From: "service@paypal.example" <x@evil.example>',
        "From: service@paypal.com <x@evil.example>",
        "From: =?utf-8?b?c2VydmljZUBwYXlwYWwuY29t?= <x@evil.example>",
        "From: <service@paypal.com> <x@evil.example>",
        "From: x@evil.example (service@paypal.com)",
        "From: service＠paypal.com <x@evil.example>",
        'From: "PayPal <service@paypal.com>" <x@evil.example>',
    ],
)  # fmt: skip
def test_a_name_that_shows_another_address(line):
    """However it is written: quoted, encoded, in brackets, as a comment."""
    assert measure("name_has_address", line) is True
    assert measure("from_domain", line) == "evil.example"


@pytest.mark.parametrize(
    "line",
    ["From: joe@example.com <joe@example.com>", "From: joe@mail.example.com <x@example.com>",
     "From: Joe @ Work <joe@example.com>", "From: x@2.0 <joe@example.com>", "From: a@b",
     "From: <joe@example.com>", "From:"],
)  # fmt: skip
def test_a_name_that_does_not(line):
    """The sender's own address, also of another host of theirs, and what is none."""
    assert measure("name_has_address", line) is False


def test_replies_elsewhere():
    """To another registered domain; with neither known, there is nothing to compare."""
    joe = "From: joe@a.example.co.uk"

    assert measure("reply_to_differs", joe, "Reply-To: x@gmail.com") is True
    assert measure("reply_to_differs", joe, "Reply-To: x@b.example.co.uk") is False
    assert measure("reply_to_differs", joe, "Reply-To: nobody") is False
    assert measure("reply_to_differs", joe) is False


def test_of_a_field_that_comes_again_the_first():
    """Two From fields are counted; addresses in the first are."""
    lines = ("From: a@one.example, b@two.example", "From: c@three.example")

    assert measure("from_domain", *lines) == "one.example"
    assert measure("from_count", *lines) == 2
    assert measure("from_addresses", *lines) == 2
    assert measure("from_domain", "From: nonsense") == ""
    assert measure("auto_submitted", "Auto-Submitted: no") is False


@given(st.binary(max_size=200))
def test_any_header(data):
    """Nothing raises, and domains are such."""
    for name in (b"From: ", b"Reply-To: ", b"Subject: ", b"Message-ID: <", b"X-Mailer: "):
        found = SCANNER.scan(read(name + data)).measures
        for domain in ("from_domain", "reply_to_domain", "message_id_domain"):
            assert "@" not in found[f"header.{domain}"]
            assert " " not in found[f"header.{domain}"]
