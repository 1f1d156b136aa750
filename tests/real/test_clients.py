"""Other people's clients send through us, by every door; the world gets exactly their bytes."""

import smtplib
import ssl
from collections import defaultdict

import pytest
from tests.harness import scene, wait_for
from tests.peers.clients import CLIENTS, Letter, Way, skip_what_is_missing
from tests.peers.postfix import Postfix, common_ground, missing

__all__ = ["common_ground"]

pytestmark = pytest.mark.real

DOORS, PROOFS = ("starttls", "implicit"), ("PLAIN", "LOGIN", "address")
OURS = (b"received: ", b"x-postweir-")  # header fields that stand before what was sent
KINDS = ("eight", "long", "dots", "large", "many", "null", "empty")
BODIES = {
    "eight": "Grüße, 你好\r\n".encode() + bytes(range(128, 256)) + b"\r\n",
    "long": b"x" * 60_000 + b"\r\n" + b"." * 5_000 + b"\r\n",
    "dots": b".\r\n..\r\n.a\r\n\r\n.\r\n. \r\n...\r\nMAIL FROM:<>\r\n.\r\n",
    "large": (b"." + b"0123456789abcde" * 4 + b"\r\n") * 50_000,  # 3 MB: by way of a file
    "empty": b"",
}


@pytest.fixture(scope="module")
def on():
    """One installation that takes AUTH under TLS only; 127.0.0.2 is a customer's server."""
    edge = {"auth_without_tls_on_loopback": False}
    with scene(start=False, edge=edge, judge={"wait_ms": 5000}) as made:
        made.here.run("account", "add", "servers", "networks=127.0.0.2/32")
        made.here.start()
        yield made


def letter(token, kind):
    """Return a letter of that kind."""
    recipients = ["kim@fine.example"]
    if kind == "many":
        recipients = [f"r{number}@d{number % 3}.example" for number in range(90)]
    header = (
        f"From: <joe@customer.example>\r\nSubject: {token}\r\nX-Token: {token}\r\n"
        f"Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{token}@customer.example>\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    )
    body = BODIES.get(kind, b"Hello.\r\n")
    sender = "" if kind == "null" else "joe@customer.example"
    return Letter(token, sender, tuple(recipients), header.encode() + body)


def way(on, door, proof):
    """Return how to come in there."""
    port = on.here.port if door == "starttls" else on.here.port_tls
    return Way(door, proof, port, on.username, on.secret, on.here.folder / "relay.crt")


def copies_of(on, letters):
    """Wait until each of these letters reached all of its recipients; returns their copies."""
    wanted = {one.token: set(one.recipients) for one in letters}
    found = {}

    def all_there():
        found.clear()
        found.update({token: [] for token in wanted})
        for copy in list(on.world.arrived):
            token = copy.content.partition(b"X-Token: ")[2].partition(b"\r\n")[0].decode()
            if token in wanted:
                found[token].append(copy)
        reached = {t: {r for c in copies for r in c.recipients} for t, copies in found.items()}
        return reached == wanted

    wait_for(all_there, 30, f"{len(wanted)} letters")
    return found


def check(on, one, copies, *, protocol):
    """The bytes are the sender's, behind header fields of ours; nobody got it twice."""
    reached = defaultdict(int)
    for copy in copies:
        assert copy.mail_from == one.sender
        assert copy.content.endswith(one.content), one.token
        added = copy.content[: -len(one.content)].decode()
        assert f" with {protocol} id " in added, added
        for field in added.replace("\r\n\t", " ").split("\r\n")[:-1]:
            assert field.lower().encode().startswith(OURS), field
        for recipient in copy.recipients:
            reached[recipient] += 1
    assert reached == dict.fromkeys(one.recipients, 1)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_by_every_way(client, on, tmp_path):
    """STARTTLS and implicit TLS, PLAIN, LOGIN and by address: every kind of letter, unharmed."""
    skip_what_is_missing(client)
    ways = [way(on, door, proof) for door in DOORS for proof in PROOFS]
    step = 3 if client.endswith("smtplib") else len(ways)  # the others are a process a letter
    sent = []
    for number, one in enumerate(ways):
        kinds = KINDS[number % step :: step]
        letters = [letter(f"{client}-{one.door}-{one.proof}-{kind}", kind) for kind in kinds]
        CLIENTS[client](one, letters, tmp_path)
        sent += [(one, made) for made in letters]
    copies = copies_of(on, [made for _, made in sent])

    assert {made.token.rpartition("-")[2] for _, made in sent} == set(KINDS)
    for one, made in sent:
        protocol = "ESMTPS" if one.proof == "address" else "ESMTPSA"
        check(on, made, copies[made.token], protocol=protocol)


@pytest.mark.parametrize("proof", ["user", "address"])
def test_postfix_by_implicit_tls(proof, on, common_ground):
    """Postfix with smtp_tls_wrappermode hands over every kind of letter, unharmed."""
    if reason := missing():
        pytest.skip(reason)
    extra = ["smtp_tls_wrappermode = yes"]
    if proof == "address":
        extra += ["smtp_sasl_auth_enable = no", "smtp_bind_address = 127.0.0.2"]
    postfix = Postfix(
        common_ground / "customer", relay_port=on.here.port_tls, username=on.username,
        secret=on.secret, extra=extra,
    )  # fmt: skip
    try:
        wait_for(lambda: greets(postfix.port), 20, "postfix answers")
        letters = [letter(f"postfix-{proof}-{kind}", kind) for kind in KINDS]
        with smtplib.SMTP("127.0.0.1", postfix.port, timeout=30) as smtp:
            for one in letters:
                words = ["BODY=8BITMIME"]
                assert smtp.sendmail(one.sender, one.recipients, one.content, words) == {}
        copies = copies_of(on, letters)
    except AssertionError:
        print(postfix.log()[-3000:])
        raise
    finally:
        postfix.stop()

    protocol = "ESMTPS" if proof == "address" else "ESMTPSA"
    for one in letters:
        for copy in copies[one.token]:
            assert copy.mail_from == one.sender
            # Postfix puts its own Received line before what it was given.
            assert copy.content.endswith(one.content)
            assert f" with {protocol} id ".encode() in copy.content


def greets(port):
    """True when a server greets there."""
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=5):
            return True
    except (OSError, smtplib.SMTPException):
        return False


def test_chunks_are_not_offered(on):
    """EHLO offers no CHUNKING; who sends BDAT all the same is told so and hears no more."""
    context = ssl.create_default_context(cafile=str(on.here.folder / "relay.crt"))
    with smtplib.SMTP_SSL("127.0.0.1", on.here.port_tls, context=context, timeout=20) as smtp:
        smtp.login(on.username, on.secret)
        smtp.ehlo()
        offered = set(smtp.esmtp_features)
        smtp.mail("joe@customer.example")
        smtp.rcpt("kim@fine.example")
        smtp.send(b"BDAT 29 LAST\r\nMAIL FROM:<evil@far.example>\r\n")
        answered = smtp.getreply()
        with pytest.raises(smtplib.SMTPServerDisconnected):
            smtp.getreply()

    assert offered == {"pipelining", "size", "8bitmime", "enhancedstatuscodes", "help"}
    assert answered == (502, b"5.5.1 BDAT is not offered")
