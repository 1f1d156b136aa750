"""The two tables: what is in them, and that nothing else happens."""

import pytest

from postweir.mail.address import domain_of
from postweir.policy.verdict import VERBS, Verdict
from postweir.spool.ports import BUCKETS, LANES
from postweir.spool.states import (
    ENDS,
    MESSAGE,
    RECIPIENT,
    MessageState,
    RecipientState,
    bucket_of,
    lane_of,
    message_after,
    on_arrival,
    on_late_verdict,
    recipient_after,
    recipients_of,
)


@pytest.mark.parametrize("cause", RECIPIENT)
def test_a_recipient_that_ended_stays_so(cause):
    """No cause leaves an end."""
    for state in RecipientState:
        after = recipient_after(cause, state)
        assert (after is not None) == (state is RecipientState.QUEUED)


def test_every_end_has_its_counter():
    """One counter for each end, none for what goes on."""
    counters = dict(RECIPIENT.values())

    assert counters.pop(RecipientState.QUEUED) == ""
    assert set(counters.values()) == set(ENDS)
    assert set(counters) == set(RecipientState) - {RecipientState.QUEUED}


@pytest.mark.parametrize("cause", MESSAGE)
def test_a_settled_message_stays_so(cause):
    """And nothing makes a message pending again: it is judged once."""
    assert message_after(cause, MessageState.SETTLED) is None
    assert MESSAGE[cause][1] is not MessageState.PENDING


def test_pending_mail_is_only_let_go_by_a_verdict():
    """Of all causes that may find a pending message, one makes it leave, and that is judging."""
    leaving = [c for c in MESSAGE if message_after(c, MessageState.PENDING) is MessageState.JUDGED]

    assert leaving == ["judged"]


@pytest.mark.parametrize("verb", VERBS)
def test_what_takes_mail_on_arrival(verb):
    """Only accept, tag and route let it leave; hold keeps it; the rest is not ours."""
    state = on_arrival(Verdict(verb))

    expected = {"hold": MessageState.HELD, "defer": None, "throttle": None, "refuse": None}
    assert state is expected.get(verb, MessageState.JUDGED)
    assert on_arrival(None) is MessageState.PENDING


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("late_refusal", ["hold", "bounce"])
def test_a_late_refusal_is_never_silent(verb, late_refusal):
    """It is held, or refused with a word to the sender; what defers stays pending."""
    cause = on_late_verdict(Verdict(verb), late_refusal=late_refusal)

    if verb in ("defer", "throttle"):
        assert cause == ""
    elif verb == "refuse":
        assert cause == {"hold": "held", "bounce": "refused"}[late_refusal]
    else:
        assert cause == ("held" if verb == "hold" else "judged")


def test_slices_are_stable():
    """Files hold them, so they never change: crc32 of the name."""
    assert (bucket_of("far.example"), lane_of("acme|sasl|joe")) == (15, 7)
    assert {bucket_of(str(n)) for n in range(2000)} == set(range(BUCKETS))
    assert {lane_of(str(n)) for n in range(9000)} == set(range(LANES))


def test_parts_of_an_address():
    """The domain is what stands after the last @."""
    assert domain_of("joe@b.example") == "b.example"
    assert domain_of('"a@b"@c.example') == "c.example"
    assert domain_of("postmaster") == ""


def test_a_message_has_room_for_all_its_recipients():
    """Rows of two messages never meet."""
    assert recipients_of(1)[1] < recipients_of(2)[0]
    assert recipients_of(1)[1] - recipients_of(1)[0] + 1 >= 1000
