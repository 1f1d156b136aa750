"""What patterns and sets look at is gathered when wanted, bounded, and spelt as sets spell it."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.judge.serving import ask, every_scanner

from postweir.judge.wanted import TEXT_CHARS_MAX, about, keys, of_patterns, of_sets, texts
from postweir.policy.bundle import KEYS, TEXTS, Bundle, Pattern, Set
from postweir.runtime import frames
from postweir.runtime.log import quiet
from postweir.scan.panel import Examined, Panel

PANEL = Panel(every_scanner(quiet()), quiet())
BODY = (
    b"From: =?utf-8?q?J=C3=B6?= <joe@Mail.Example.com>\r\nReply-To: x@other.example\r\n"
    b"Subject: =?utf-8?q?Gift=20cards?=\r\nX-Mailer: M\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n"
    b"<p>see <a href='http://www.a.bad.example/x'>this</a>\r\n--b\r\n"
    b"Content-Disposition: attachment; filename=Invoice.PDF\r\n\r\nx\r\n--b--\r\n"
)
EXAMINED = PANEL.look_now(BODY)


def test_texts():
    """As a person reads them."""
    found = texts(EXAMINED, TEXTS)

    assert found.keys() == set(TEXTS)
    assert found["subject"] == "Gift cards"
    assert found["from_name"] == "Jö"
    assert found["text"] == "see this"
    assert found["html"].startswith("<p>see <a href")
    assert found["attachment_names"] == "Invoice.PDF"
    assert found["mailer"] == "M"


@pytest.mark.parametrize(
    ("of", "found"),
    [
        ("url_hosts", ["www.a.bad.example", "a.bad.example", "bad.example"]),
        ("recipients", ["kim@x.example", "lee@x.example"]),
        ("recipient_domains", ["x.example"]), ("from_domain", ["mail.example.com", "example.com"]),
        ("envelope_domain", ["bounce.example.com", "example.com"]),
        ("reply_to_domain", ["other.example"]), ("client", ["192.0.2.1"]),
        ("sender", ["acme|sasl|joe@example.com"]), ("account", ["acme"]),
        ("attachment_names", ["invoice.pdf"]),
        ("attachment_hashes", [hashlib.sha256(b"x").hexdigest()]),
    ],
)  # fmt: skip
def test_keys(of, found):
    """In one spelling, each once, and of a host those above it too."""
    one = ask(recipients=("Kim@X.example", "kim@x.example", "lee@x.example"),
              mail_from="joe@bounce.example.com")  # fmt: skip

    assert keys(one, EXAMINED, [of]) == {of: found}


def test_only_what_is_wanted():
    """A policy without patterns and sets costs nothing; what nobody saw is not there."""
    bundle = Bundle((), sets=(Set("a", "client", "", 0),), patterns=(Pattern("b", "subject", "x"),))

    assert (of_patterns(bundle), of_sets(bundle)) == ({"subject"}, {"client"})
    assert texts(EXAMINED, ()) == keys(ask(), EXAMINED, ()) == {}
    assert texts(Examined(), TEXTS) == {}
    assert keys(ask(), Examined(), KEYS)["url_hosts"] == []


def test_bounds():
    """A thousand recipients, and of a text 64 Ki characters."""
    examined = Examined(texts={"text": "x" * 100_000})
    one = ask(recipients=[f"a{n}@x.example" for n in range(5000)])

    assert len(texts(examined, ["text"])["text"]) == TEXT_CHARS_MAX
    assert len(keys(one, examined, ["recipients"])["recipients"]) == 1000


def test_what_other_programs_hear():
    """Who sent it, from where, to whom."""
    told = about(ask(recipients=("kim@x.example",)))

    assert (told.client, told.helo, told.account) == ("192.0.2.1", "mail.example.com", "acme")
    assert (told.sender, told.recipients) == ("joe@example.com", ("kim@x.example",))
    assert told.mail_from == "joe@example.com"


@given(st.binary(max_size=300), st.text(max_size=30))
def test_any_message(data, name):
    """Whatever it is made of, it can be sent to the worker."""
    for body in (b"Subject: " + data, b"Content-Type: text/plain; charset=utf-7\r\n\r\n" + data):
        examined = PANEL.look_now(body)
        one = ask(recipients=(name,), mail_from=name, identity=name)
        read, looked_up = texts(examined, TEXTS), keys(one, examined, KEYS)
        assert frames.unpack(frames.pack([read, looked_up]), list) == [read, looked_up]
        assert set(read) <= set(TEXTS)
        assert set(looked_up) <= set(KEYS)
