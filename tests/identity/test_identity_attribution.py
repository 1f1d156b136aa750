"""Who sent a message: every source, every order, and what leaves the header."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.identity.attribution import attribute, normal
from postweir.identity.sender import IDENTITY_BYTES_MAX, Account
from postweir.mail.headers import fields, without

ACME = Account(name="acme")
POSTFIX = (
    "from laptop (host7.example.net [203.0.113.7]) (using TLSv1.3 with cipher X)"
    " (Authenticated sender: joe@Example.com) by mail.acme.example (Postfix) with ESMTPSA"
    " id 4XYZ12; Tue, 24 Nov 2026 10:00:00 +0000"
)
SUBMITTED = POSTFIX.replace("(Authenticated sender: joe@Example.com) ", "")
PICKED_UP = "by mail.acme.example (Postfix, from userid 33) id 9A; Tue, 24 Nov 2026 10:00:00 +0000"
FROM_WORLD = "from mx.far (mx.far [198.51.100.9]) by mail.acme.example with ESMTP id 7; Tue"
INSIDE = "from in (in.acme [10.0.0.4]) by out.acme.example (Postfix) with ESMTP id B7; Tue"


def told(*headers: str, account: Account = ACME, auth: str = "", mail_from: str = "a@b"):
    header = "".join(f"{h}\r\n" for h in headers).encode() + b"\r\n"
    return attribute(
        account,
        auth_username=auth,
        fields=fields(header),
        client="192.0.2.1",
        mail_from=mail_from,
    )


@pytest.mark.parametrize(
    ("headers", "auth", "key"),
    [
        (["X-AuthUser: joe"], "acme-x", "acme|x-authuser|joe"),
        (["X-Authenticated-Sender: Joe@EXAMPLE.com"], "", "acme|x-authsender|joe@example.com"),
        (["Received: " + POSTFIX], "acme-x", "acme|received|joe@example.com"),
        (["X-PHP-Originating-Script: 33:mail.php"], "", "acme|script|33:mail.php"),
        (["Subject: hi"], "acme-x", "acme|sasl|acme-x"),
        (["Subject: hi"], "", "acme|account|192.0.2.1"),
        (["Received: " + PICKED_UP], "", "acme|account|192.0.2.1"),
        (["Received: " + FROM_WORLD], "", "acme|forwarded|198.51.100.9"),
        (["Received: " + FROM_WORLD], "acme-x", "acme|forwarded|198.51.100.9"),
        (["Received: " + INSIDE, "Received: " + FROM_WORLD], "", "acme|forwarded|198.51.100.9"),
        (["Received: " + SUBMITTED], "acme-x", "acme|sasl|acme-x"),
        # Below the line of a script anything may be invented.
        (["Received: " + PICKED_UP, "Received: " + FROM_WORLD], "acme-x", "acme|sasl|acme-x"),
        # A comment in another server's line says nothing about this customer's users.
        (["Received: " + INSIDE, "Received: " + POSTFIX], "acme-x", "acme|sasl|acme-x"),
        (["X-AuthUser:  "], "acme-x", "acme|sasl|acme-x"),
        (["Resent-From: <me@b>"], "", "acme|forwarded|192.0.2.1"),
        (["x-authuser : joe", "X-PHP-Originating-Script: s"], "", "acme|x-authuser|joe"),
    ],
)
def test_each_source(headers, auth, key):
    """Every source names the sender when none before it does."""
    assert told(*headers, auth=auth).sender.key == key


def test_the_account_sets_the_order():
    """The first source in the account's order wins; one that is not in it never does."""
    mail = ["X-AuthUser: joe", "X-PHP-Originating-Script: s.php", "Received: " + FROM_WORLD]

    def sender(*order):
        return told(*mail, auth="u", account=Account(name="acme", identity_order=order)).sender

    assert sender("sasl", "x-authuser").key == "acme|sasl|u"
    assert sender("x-php-originating-script").key == "acme|script|s.php"
    assert sender("forwarded", "x-authuser").key == "acme|forwarded|198.51.100.9"
    assert sender("received").key == "acme|forwarded|198.51.100.9"


def test_evidence_keeps_what_lost():
    """What each source said is kept, in the order it was found, doubts too."""
    found = told(
        "Received: " + POSTFIX, "X-AuthUser: joe", "X-AuthUser: ann", "X-AuthUser: eve", auth="u"
    )

    assert found.sender.key == "acme|x-authuser|joe"
    assert found.sender.evidence == (
        ("x-authuser", "joe"),
        ("x-authuser repeated", "ann"),
        ("received", "joe@example.com"),
        ("sasl", "u"),
    )
    assert found.customer_id == "4XYZ12"


def test_all_identity_headers_go():
    """Whoever wins, headers that name a sender, and those that only we write, do not leave."""
    header = (
        b"Subject: hi\r\nX-AuthUser: joe\r\nX-PHP-Originating-Script: 1:a\r\n b\r\nTo: x\r\n"
        b"X-Authenticated-Sender: e\r\nX-Postweir-Id: fake\r\nX-Postweir-Loop: kept\r\n\r\n"
    )
    found = attribute(ACME, auth_username="u", fields=fields(header), client="::1", mail_from="a@b")

    kept = without(header, found.strip)
    assert kept == b"Subject: hi\r\nTo: x\r\nX-Postweir-Loop: kept\r\n\r\n"


def test_spelling_makes_no_second_sender():
    """Who logs in as JOE is joe: limits do not multiply with the ways to write a name."""
    keys = {told(f"X-AuthUser: {name}").sender.key for name in ("joe@a.b", "JOE@a.B", " jOe@a.b ")}

    assert keys == {"acme|x-authuser|joe@a.b"}


@pytest.mark.parametrize(
    "field",
    [
        b"X-AuthUser : eve\r\n",
        b"X-AuthUser\t \t: eve\r\n",
        b"X-AUTHUSER:eve\r\n",
        b"X-AuthUser\r\n : eve\r\n",
        b"X-AuthUser\r\n\t\r\n : eve\r\n",
        b"X-AuthUser:\r\n eve\r\n",
        b"X-AuthUser" + b" " * 300 + b": eve\r\n",
        b"nonsense\r\nX-AuthUser: eve\r\n",
        b"\xffX: y\r\nX-AuthUser: eve\r\n",
    ],
)
def test_no_spelling_hides_a_field(field):
    """However an identity field is dressed, it is read and goes."""
    header = b"Subject: hi\r\n" + field + b"To: x\r\n\r\n"
    found = attribute(ACME, auth_username="", fields=fields(header), client="::1", mail_from="a@b")

    assert found.sender.identity == "eve"
    assert b"eve" not in without(header, found.strip)


def test_bounces_are_apart():
    """A bounce that nobody wrote does not count against whoever the client's address is."""
    assert told("Subject: failure", mail_from="").sender.key == "acme|account|<>"
    assert told("X-AuthUser: joe", mail_from="").sender.key == "acme|x-authuser|joe"


def test_a_forged_comment_does_not_win():
    """A comment that a stranger smuggled into an honest line stands before the server's own."""
    found = told("Received: " + POSTFIX.replace("laptop", "x(Authenticated sender: boss@acme)"))

    assert found.sender.identity == "joe@example.com"
    assert ("received repeated", "2") in found.sender.evidence


def test_utf8_identity():
    """An identity in UTF-8 (RFC 6532) reads as what it is."""
    assert told("X-AuthUser: jörg@Example.com").sender.identity == "jörg@example.com"


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=600))
def test_an_identity_is_bounded_and_printable(text):
    """However hostile the value, an identity is printable, bounded and stable."""
    identity = normal(text)

    assert len(identity.encode()) <= IDENTITY_BYTES_MAX
    assert identity.isprintable()
    assert normal(identity) == identity or "~" in identity


def test_long_identities_stay_apart():
    """Two long values that begin alike are two senders."""
    assert normal("x" * 400 + "a") != normal("x" * 400 + "b")
    assert normal("a\x00b") != normal("a\x01b")


@given(st.binary(max_size=400), st.text(max_size=20))
def test_any_header_has_a_sender(noise, auth):
    """Whatever the header holds, somebody answers for it, and what is stripped are its fields."""
    header = b"Received: " + noise + b"\r\nX-AuthUser: " + noise + b"\r\n\r\n"
    found = attribute(
        ACME, auth_username=auth, fields=fields(header), client="192.0.2.1", mail_from="a@b"
    )

    assert found.sender.identity
    starts = {f.start for f in fields(header)}
    assert set(found.strip) <= starts
    assert all(len(value.encode()) <= IDENTITY_BYTES_MAX for _, value in found.sender.evidence)
