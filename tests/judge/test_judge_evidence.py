"""From an ask and what was seen to facts, whatever the message is."""

from hypothesis import given
from hypothesis import strategies as st
from tests.judge.serving import ask

from postweir.identity.sender import Account, Directory, SenderRecord
from postweir.judge.counters import Level
from postweir.judge.evidence import gather, record
from postweir.mail.message import read
from postweir.mail.received import loop_trace
from postweir.policy.facts import SCHEMA, telling, total
from postweir.runtime import frames
from postweir.scan.finding import Finding
from postweir.scan.panel import Examined

BODY = (
    b'From: "Joe <x@evil.example>" <joe@Example.COM>\r\nSubject: hello\r\nMessage-ID: <1@x>\r\n'
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b\r\n"
    b"Content-Disposition: attachment; filename=a.pdf\r\n\r\nx\r\n--b--\r\n"
)


def facts(body: bytes = BODY, directory: Directory | None = None, **more):
    message = read(body)
    return gather(
        ask(**more), Examined(message, [Finding("content", "spam", "x", 0.7, "1"),
                                        Finding("links", "unavailable", "", 1.0, "")]),
        directory=directory or Directory(version=1), sender=Level(1, 2, 3, 4),
        account=Level(5, 6, 7, 8), known=True, hostname="relay.example.net",
    )  # fmt: skip


def test_what_is_known_is_said():
    """Envelope, sender, account, levels, header, body and findings."""
    directory = Directory(
        version=1,
        accounts={"acme": Account("acme", sender_messages_1h=77)},
        senders={"acme|sasl|joe@example.com": SenderRecord(
            "acme|sasl|joe@example.com", "stopped", "", "op", 1)},
    )  # fmt: skip
    found = facts(directory=directory, recipients=("a@x.example", "b@x.example", "c@y.example"))

    want = {
        "connection.client": "192.0.2.1", "connection.tls": True, "account.name": "acme",
        "sender.key": "acme|sasl|joe@example.com", "sender.state": "stopped",
        "limit.sender_messages_1h": 77, "usage.known": True, "usage.messages_1m": 1,
        "usage.messages_1h": 2, "usage.recipients_1m": 3, "usage.recipients_1h": 4,
        "usage.account_messages_1h": 6, "usage.account_recipients_1h": 8,
        "envelope.recipients": 3, "envelope.recipient_domains": ["x.example", "y.example"],
        "envelope.from_domain": "example.com", "header.from_domain": "example.com",
        "header.from_count": 1, "header.subject_bytes": 5, "header.date_present": False,
        "header.message_id_present": True, "body.known": True, "body.bytes": len(BODY),
        "body.parts": 3, "body.attachments": 1, "findings.spam": 0.7, "findings.unavailable": 1,
        "message.loops": 0,
    }  # fmt: skip
    assert {name: found[name] for name in want} == want
    assert found.keys() == SCHEMA.keys()


def test_loops_are_seen_in_the_message_itself():
    """A message judged later comes without the edge's count."""
    assert facts(loop_trace("relay.example.net", "id") + BODY)["message.loops"] == 1
    assert facts(loop_trace("other.example.net", "id") + BODY)["message.loops"] == 0


def test_a_message_that_could_not_be_read_has_neutral_facts():
    """Then `body.known` is false, and no rule about header or body objects."""
    found = gather(
        ask(), Examined(), directory=Directory(version=0), sender=Level(), account=Level(),
        known=False, hostname="x",
    )  # fmt: skip

    assert found["body.known"] is False
    assert found["header.message_id_present"] is True


def test_the_record_is_enough_to_judge_again():
    """What is kept is small, and becomes all the facts again."""
    found = facts()
    packed = record(telling(found), [Finding("content", "spam", "x", 0.7, "1")], ["r1: no"])

    kept = frames.unpack(packed, dict)
    assert total(kept["facts"]) == found
    assert kept["findings"] == [["content", "spam", "x", 0.7, "1"]]
    assert kept["errors"] == ["r1: no"]
    assert len(packed) < 1000


@given(st.binary(max_size=300), st.text(max_size=40))
def test_any_message(data, name):
    """No bytes make it fail: facts are typed and total."""
    found = facts(b"From: " + data, identity=name, mail_from=name)

    assert found.keys() == SCHEMA.keys()
