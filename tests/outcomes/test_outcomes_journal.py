"""A message's life: the shape scripts rely on, and the words people read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.identity.sender import Sender
from postweir.outcomes import journal, telling
from postweir.policy.verdict import Verdict
from postweir.runtime import frames
from postweir.spool.ports import MessageRow, RecipientRow, Step

AT = 1_764_000_000_000_000  # 2025-11-24 16:00:00 UTC
POLICY = "pol_" + "97c987612bf6" + "0" * 52
FACTS = frames.pack({
    "facts": {"message.size": 25, "findings.spam": 0.7},
    "findings": [["content", "spam", "GTUBE", 0.7, "1"]],
})  # fmt: skip


def row(**changes):
    """Return a message with one delivered and one bounced recipient."""
    values = {
        "shard": 2, "id": "0q3v0e0000g00001", "accepted_at_us": AT, "origin": "smtp",
        "account": "acme",
        "sender": Sender("acme", "x-authuser", "joe@customer.example",
                         (("x-authuser", "joe@customer.example"), ("sasl", "acme-k3v9qa"))),
        "client": "192.0.2.1", "mail_from": "joe@customer.example", "state": "settled",
        "verdict": Verdict("accept", "", POLICY), "reason": "", "facts": FACTS, "bytes": 1234,
        "recipients": [
            RecipientRow(1024, "kim@fine.example", "delivered", None, 2, "250 2.0.0 Taken"),
            RecipientRow(1025, "dead@fine.example", "bounced", AT, 1, "550 5.1.1 No such user"),
        ],
        "log": {"helo": "mail.customer.example", "tls": "TLSv1.3"},
    }  # fmt: skip
    return MessageRow(**{**values, **changes})


def attempt(number, at_s, recipient, step, reply, **more):
    detail = {"attempt": 1, "at_us": AT, "reply": reply, "source": "198.51.100.7",
              "peer": "mx.fine.example[203.0.113.5]:25", "tls": "TLSv1.3", **more}  # fmt: skip
    return Step(number, AT + int(at_s * 1e6), "0q3v0e0000g00001", recipient, step, detail)


STEPS = [
    Step(1, AT + 2000, "0q3v0e0000g00001", 0, "accepted",
         {"state": "queued", "recipients": 2, "bytes": 1234}),
    attempt(2, 0.1, 1024, "attempt", "451 4.7.1 Greylisted", next_at_us=AT + 300_000_000),
    attempt(3, 0.1, 1025, "bounced", "550 5.1.1 No such user"),
    Step(4, AT + 100_000, "0q3v0e0000g00001", 0, "bounce_sent", {"bounce": "0q3v0e0000g00002"}),
    attempt(5, 300, 1024, "delivered", "250 2.0.0 Taken", attempt=2),
]  # fmt: skip

TOLD = """\
2025-11-24 16:00:00.002Z  connection from 192.0.2.1, helo mail.customer.example
2025-11-24 16:00:00.002Z    tls TLSv1.3
2025-11-24 16:00:00.002Z  sender acme|x-authuser|joe@customer.example
2025-11-24 16:00:00.002Z    x-authuser said 'joe@customer.example'
2025-11-24 16:00:00.002Z    sasl said 'acme-k3v9qa'
2025-11-24 16:00:00.002Z  finding spam: GTUBE (content 1, certainty 0.7)
2025-11-24 16:00:00.002Z  verdict accept of pol_97c987612bf6
2025-11-24 16:00:00.002Z  accepted for 2 recipients: safe in shard 2, queued
2025-11-24 16:00:00.100Z  not yet delivered to kim@fine.example (attempt 1)
2025-11-24 16:00:00.100Z    from 198.51.100.7 to mx.fine.example[203.0.113.5]:25, TLSv1.3
2025-11-24 16:00:00.100Z    451 4.7.1 Greylisted
2025-11-24 16:00:00.100Z    next attempt 2025-11-24 16:05:00Z
2025-11-24 16:00:00.100Z  bounced for dead@fine.example (attempt 1)
2025-11-24 16:00:00.100Z    from 198.51.100.7 to mx.fine.example[203.0.113.5]:25, TLSv1.3
2025-11-24 16:00:00.100Z    550 5.1.1 No such user
2025-11-24 16:00:00.100Z  the sender was told, in message 0q3v0e0000g00002
2025-11-24 16:05:00.000Z  delivered to kim@fine.example (attempt 2)
2025-11-24 16:05:00.000Z    from 198.51.100.7 to mx.fine.example[203.0.113.5]:25, TLSv1.3
2025-11-24 16:05:00.000Z    250 2.0.0 Taken"""


def test_the_story_is_told_in_order():
    """Connection, sender and evidence, findings, verdict, commit, each attempt, the bounce."""
    told = journal.timeline(row(), STEPS)

    assert "\n".join(f"{at}  {what}" for at, what in telling.story(told)) == TOLD


def test_the_order_is_the_commits_and_not_the_readers():
    """Steps that come in any order are told in one."""
    assert journal.timeline(row(), STEPS[::-1]) == journal.timeline(row(), STEPS)


def test_the_shape_scripts_rely_on():
    """Design section 8: these keys, these kinds."""
    shown = frames.from_json(frames.json(journal.timeline(row(), STEPS)), dict)

    wanted = (
        "id",
        "account",
        "sender",
        "verdict",
        "rule",
        "policy",
        "state",
        "recipients",
        "steps",
    )
    assert [key for key in wanted if key not in shown] == []
    assert (shown["verdict"], shown["rule"], shown["policy"]) == ("accept", "", POLICY)
    assert shown["recipients"][1] == {
        "address": "dead@fine.example", "state": "bounced", "next_attempt_at": None,
        "reply": "550 5.1.1 No such user", "tries": 1, "in_hand": False,
    }  # fmt: skip
    assert shown["steps"][0] == {
        "at": "2025-11-24T16:00:00.002000Z", "step": "accepted", "state": "queued",
        "recipients": 2, "bytes": 1234,
    }  # fmt: skip
    assert shown["steps"][1]["next_at"] == "2025-11-24T16:05:00.000000Z"
    assert shown["steps"][1]["recipient"] == "kim@fine.example"


def test_a_queued_recipient_says_when_it_is_tried_next():
    """A time only where there is a next attempt."""
    waiting = row(state="queued", recipients=[RecipientRow(1024, "a@x", "queued", AT, 0, "")])

    (shown,) = journal.timeline(waiting, []).recipients
    assert shown.next_attempt_at == "2025-11-24T16:00:00.000000Z"


def test_pending_mail_has_no_verdict_and_says_why():
    """Nobody judged it: that is no accept."""
    told = journal.timeline(row(verdict=None, state="pending", reason="breaker"), STEPS[:1])
    lines = [what for _, what in telling.story(told)]

    assert told.verdict == ""
    assert not any("verdict" in line for line in lines)
    assert any("the judge had shown no sign of life" in line for line in lines)


def test_a_late_verdict_stands_where_it_fell():
    """Accepted first, judged later: told in that order."""
    late = Step(2, AT + 9_000_000, "m", 0, "judged",
                {"verb": "hold", "rule": "new-sender", "to": "held", "policy": POLICY})  # fmt: skip
    told = journal.timeline(row(verdict=Verdict("hold", "new-sender", POLICY)), [STEPS[0], late])
    lines = [what for _, what in telling.story(told)]

    assert lines[-1] == "judged late: hold by rule new-sender of pol_97c987612bf6; held"
    assert sum("verdict" in line or "judged" in line for line in lines) == 1


def test_an_operators_wish_is_told_with_who_and_why():
    """Who dropped it, and the reason."""
    steps = [STEPS[0], Step(2, AT, "m", 1024, "dropped",
                            {"by": "op", "reason": "wrong list", "request": 7})]  # fmt: skip
    lines = [what for _, what in telling.story(journal.timeline(row(), steps))]

    assert lines[-1] == "dropped kim@fine.example by op: wrong list"


def test_what_a_verdict_chose_is_shown():
    """Its header, the pool, the lifetime: above the story, and for scripts."""
    verdict = Verdict("tag", "bulk", POLICY, header="X-Class: bulk ", pool="bulk")
    told = journal.timeline(row(verdict=verdict, pool="bulk", lifetime_s=3600), STEPS)
    heading = dict(telling.heading(told))

    assert (told.header, told.pool, told.lifetime_s) == ("X-Class: bulk", "bulk", 3600)
    assert (heading["header"], heading["pool"]) == ("X-Class: bulk", "bulk")
    assert heading["lifetime"] == "1 hour"
    assert told.expires_at is None
    assert "expires at" not in heading


def test_a_header_that_was_left_out_is_not_shown():
    """It is not before the message, so it is not told."""
    verdict = Verdict("tag", header="X-A: b\r\nBcc: c")

    assert journal.timeline(row(verdict=verdict), STEPS).header == ""


@pytest.mark.parametrize(
    ("until_us", "hold_days", "shown"),
    [
        (AT + 60_000_000, 14, "2025-11-24T16:01:00.000000Z"),
        (None, 14, "2025-12-08T16:00:00.000000Z"),
        (None, 0, None),
    ],
)
def test_a_hold_says_when_it_expires(until_us, hold_days, shown):
    """By its verdict, or by the setting."""
    held = row(state="held", verdict=Verdict("hold"), held_at_us=AT, hold_until_us=until_us)
    told = journal.timeline(held, STEPS, hold_days=hold_days)

    assert told.expires_at == shown
    assert ("expires at" in dict(telling.heading(told))) == (shown is not None)


def test_a_late_verdict_tells_what_it_chose():
    """Its header and pool, and until when it is held."""
    details = (
        {"verb": "tag", "rule": "r", "to": "judged", "header": "X-A: b", "pool": "bulk"},
        {"verb": "hold", "rule": "r", "to": "held", "expires_at_us": AT},
    )
    steps = [STEPS[0], *(Step(n, AT, "m", 0, "judged", one) for n, one in enumerate(details, 2))]
    lines = [what for _, what in telling.story(journal.timeline(row(), steps))]

    assert lines[-2:] == [
        "judged late: tag by rule r; queued, header X-A: b, pool bulk",
        "judged late: hold by rule r; held until 2025-11-24 16:00:00Z",
    ]


def test_a_refusal_is_told_with_its_stage_and_reply():
    """What the sender was told, and when."""
    refused = row(state="refused", stage="verdict", reply="550 5.7.1 [SS] Spam. ref=x",
                  verdict=Verdict("refuse", "spam", POLICY, "SS", "Spam."), recipients=[],
                  )  # fmt: skip
    lines = [what for _, what in telling.story(journal.timeline(refused, []))]

    assert "verdict refuse by rule spam of pol_97c987612bf6: [SS] Spam." in lines
    assert lines[-1] == "refused at verdict: 550 5.7.1 [SS] Spam. ref=x"


def test_facts_that_were_deleted_or_torn_leave_the_rest():
    """After 72 hours the facts are gone; the timeline is not."""
    for packed in (b"", b"\xc1", frames.pack([1]), frames.pack({"facts": 3, "findings": "x"})):
        told = journal.timeline(row(facts=packed), STEPS)
        assert (told.facts, told.findings) == ({}, [])
        assert told.steps


def test_findings_have_names():
    """What a scanner saw, by name; a form that we do not know is told as it was recorded."""
    known, other = ["content", "spam", "GTUBE", 0.7, "1"], ["new", "kind", "", 1]
    packed = frames.pack({"facts": {}, "findings": [known, other, "word"]})
    first, *others = journal.timeline(row(facts=packed), STEPS).findings

    assert first == journal.FindingShown("content", "spam", "GTUBE", 0.7, "1")
    assert telling.describe(first) == "spam: GTUBE (content 1, certainty 0.7)"
    assert [telling.describe(one) for one in others] == ["new kind 1", "word"]


def test_a_refusal_for_now_is_told_as_one():
    """Who was put off comes again; who was refused does not."""
    for reply, state in (
        ("450 4.7.1 [STF] x", "refused, for now: its server tries again"),
        ("550 5.7.1 [SS] x", "refused"),
    ):  # fmt: skip
        told = journal.timeline(row(state="refused", stage="verdict", reply=reply), [])
        assert dict(telling.heading(told))["state"] == state


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(172_800, "2 days"), (86_400, "1 day"), (5400, "90 minutes"), (61, "61 s"), (0, "0 s")],
)
def test_a_span_is_told_in_its_largest_whole_unit(seconds, said):
    """Nobody knows 172800 seconds by sight."""
    assert telling.span(seconds) == said


def test_a_step_cannot_lie_about_its_time_or_kind():
    """What stands in a detail never replaces what the shard wrote."""
    step = Step(1, AT, "m", 1024, "attempt", {"at": "never", "step": "delivered", "recipient": "x"})
    (shown,) = journal.timeline(row(), [step]).steps

    assert shown == {
        "at": "2025-11-24T16:00:00.000000Z", "step": "attempt", "recipient": "kim@fine.example",
    }  # fmt: skip


@given(
    st.text(max_size=20),
    st.dictionaries(st.text(max_size=12), st.none() | st.booleans() | st.integers(0, 2**40)
                    | st.text(max_size=20), max_size=6),
)  # fmt: skip
def test_a_step_nobody_here_knows_is_still_told(kind, detail):
    """A newer shard may write steps this version has no sentence for."""
    told = journal.timeline(row(), [Step(1, AT, "m", 9, kind, detail)])

    assert len(telling.story(told)) >= 1
    assert frames.json(told)
