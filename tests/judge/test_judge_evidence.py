"""From an ask and what was seen to facts, whatever the message is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.judge.serving import ask, every_scanner

from postweir.judge.evidence import gather, record
from postweir.mail.message import read
from postweir.mail.received import loop_trace
from postweir.policy.evaluation import Evaluated
from postweir.policy.facts import SCHEMA, telling, total
from postweir.runtime import frames
from postweir.runtime.log import quiet
from postweir.scan.finding import Finding
from postweir.scan.panel import Examined, Panel
from postweir.scan.rspamd import Rspamd

BODY = (
    b'From: "Joe <x@evil.example>" <joe@Example.COM>\r\nSubject: hello\r\nMessage-ID: <1@x>\r\n'
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b\r\n"
    b"Content-Disposition: attachment; filename=a.pdf\r\n\r\nx\r\n--b--\r\n"
)


SCANNERS = every_scanner(quiet())
PANEL = Panel(SCANNERS, quiet())
FINDINGS = (
    Finding("content", "spam", "x", 0.7, "1"), Finding("links", "unavailable", "", 1.0, ""),
    Finding("rspamd", "phishing", "x", 0.5, "1"), Finding("rspamd", "virus", "x", 1.0, "1"),
)  # fmt: skip


def facts(body: bytes = BODY, findings=FINDINGS, **more):
    examined = PANEL.look_now(body)
    examined.findings += findings
    return total(gather(ask(**more), examined, hostname="relay.example.net"))


def test_what_is_known_is_said():
    """Envelope, header, body and findings."""
    found = facts(recipients=("a@x.example", "b@x.example", "c@y.example"))

    want = {
        "connection.client": "192.0.2.1", "connection.tls": True,
        "envelope.recipients": 3, "envelope.recipient_domains": ["x.example", "y.example"],
        "envelope.from_domain": "example.com", "header.from_domain": "example.com",
        "header.from_count": 1, "header.subject_bytes": 5, "header.date_present": False,
        "header.message_id_present": True, "body.known": True, "body.bytes": len(BODY),
        "body.parts": 3, "body.attachments": 1, "findings.spam": 0.7, "findings.unavailable": 1,
        "findings.phishing": 0.5, "findings.virus": True, "message.loops": 0,
        "header.from_is_envelope": True, "header.name_has_address": True, "text.known": True,
        "text.words": 1, "urls.known": True, "attachments.known": True,
        "attachments.extensions": ["pdf"],
    }  # fmt: skip
    assert {name: found[name] for name in want} == want
    assert found.keys() == SCHEMA.keys()


def test_loops_are_seen_in_the_message_itself():
    """A message judged later comes without the edge's count."""
    assert facts(loop_trace("relay.example.net", "id") + BODY)["message.loops"] == 1
    assert facts(loop_trace("other.example.net", "id") + BODY)["message.loops"] == 0


def test_a_message_that_could_not_be_read_has_neutral_facts():
    """Then `body.known` is false, and no rule about header or body objects."""
    found = total(gather(ask(), Examined(), hostname="x"))

    assert found["body.known"] is False
    assert found["header.message_id_present"] is True


def test_the_record_is_enough_to_judge_again():
    """What is kept is small, and becomes all the facts again."""
    found = facts()
    evaluated = Evaluated(1, None, {"set.a": True}, ["r1: no"], 5, ["r2"])
    packed = record(
        telling(found), [Finding("content", "spam", "x", 0.7, "1")], evaluated, policy="pol_x",
        killed={"r3"},
    )  # fmt: skip

    kept = frames.unpack(packed, dict)
    assert total(kept["facts"]) == found
    assert kept["findings"] == [["content", "spam", "x", 0.7, "1"]]
    assert (kept["errors"], kept["shadow"], kept["killed"]) == (["r1: no"], ["r2"], ["r3"])
    assert (kept["derived"], kept["policy"]) == ({"set.a": True}, "pol_x")
    assert "engine" not in kept
    assert len(packed) < 1000
    for off, engine in ((True, "off"), (False, "silent")):
        kept = frames.unpack(record({}, [], None, policy="", off=off), dict)
        assert kept["engine"] == engine


@given(st.binary(max_size=300), st.text(max_size=40))
def test_any_message(data, name):
    """No bytes make it fail: facts are typed and total."""
    found = facts(b"From: " + data, identity=name, mail_from=name)

    assert found.keys() == SCHEMA.keys()


OF_SCANNERS = ("header.", "text.", "urls.", "attachments.", "rspamd.")
KINDS = {"bool": bool, "int": int, "double": float, "string": str, "list": list}


def test_each_measure_is_a_fact():
    """What scanners declare are facts of that type, each of one scanner, and none is left out."""
    declared = [item for one in (*SCANNERS, Rspamd) for item in one.facts.items()]

    assert all(KINDS[SCHEMA[name].type] is kind for name, kind in declared)
    names = [name for name, _ in declared]
    assert len(names) == len(set(names))
    assert set(names) == {
        name for name in SCHEMA if name.startswith(OF_SCANNERS)
    } - {"header.from_is_envelope"} | {"body.known"}  # fmt: skip


@given(st.binary(max_size=300))
def test_scanners_keep_to_what_they_declare(data):
    """Each gives all of its measures, whatever the message, and each of the type it said."""
    for body in (data, b"From: " + data, b"Content-Type: text/html\r\n\r\n" + data):
        message = read(body)
        for scanner in SCANNERS:
            seen = scanner.scan(message)
            assert {name: type(value) for name, value in seen.measures.items()} == scanner.facts


@pytest.mark.parametrize(
    ("domain", "envelope", "agree"),
    [("example.com", "example.com", True), ("mail.example.com", "example.com", True),
     ("example.com", "bounce.example.com", True), ("example.com", "badexample.com", False),
     ("example.com", "example.org", False)],
)  # fmt: skip
def test_from_and_envelope(domain, envelope, agree):
    """The same, or above or below; with no sender in the envelope there is nothing to agree on."""
    body = f"From: joe@{domain}\r\n\r\n".encode()

    assert facts(body, mail_from=f"x@{envelope}")["header.from_is_envelope"] is agree
    assert facts(body, mail_from="")["header.from_is_envelope"] is False


def test_a_header_that_nobody_looked_at_in_time():
    """Then `body.known` is false, though the message was read: no rule objects to 0 From fields."""
    examined = Examined(read(BODY))
    found = total(gather(ask(), examined, hostname="x"))

    assert not found.get("body.known")
    assert found["body.bytes"] == len(BODY)
