"""What a policy of today is asked about a message of yesterday."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.judge.throttles import Throttles
from postweir.policy.bundle import Bundle, Pattern, Rule, Set, Throttle, set_bytes, set_name
from postweir.policy.recall import Recall, Record, opened
from postweir.policy.simulation import Simulation, costs
from postweir.runtime import frames

KEYS = set_bytes(frozenset({"bad.example"}))
BAD = Set("bad", "url_hosts", set_name(KEYS), 1)
CARDS = Pattern("cards", "subject", "gift ?cards?")


def bundle(when, **own):
    return Bundle((Rule("r", when, "refuse", "CS", "No."),), **own)


def ask(wanted, record, then=None):
    return Recall(wanted).question(record, "pol_then", lambda _: then)


def test_only_what_is_looked_at_is_asked():
    """The rest costs time and changes nothing."""
    record = Record({"body.bytes": 5, "urls.count": 3, "usage.known": True})

    assert ask(bundle("body.bytes > 3"), record).facts == {"body.bytes": 5}


def test_a_set_is_looked_up_anew_by_recorded_keys():
    """The hosts are kept, and those above each count too; the set may be another than then."""
    question = ask(bundle("set.bad", sets=(BAD,)), Record({"urls.hosts": ["www.bad.example"]}))

    assert question.keys == {"url_hosts": ["www.bad.example", "bad.example"]}
    assert question.unknown == ()


def test_a_list_that_was_cut_is_no_proof():
    """With 64 hosts there may have been more: nobody can say that none is in the set."""
    record = Record({"urls.hosts": [f"h{n}.example" for n in range(64)]})

    assert ask(bundle("set.bad", sets=(BAD,)), record).unknown == ("set.bad",)


def test_keys_that_were_not_kept_are_unknown():
    """Addresses of recipients are not recorded."""
    people = Set("people", "recipients", set_name(KEYS), 1)

    assert ask(bundle("set.people", sets=(people,)), Record({})).unknown == ("set.people",)


def test_a_pattern_is_what_the_same_pattern_said_then():
    """Whatever it was called; text is not kept, so another pattern is unknown."""
    then = bundle("pattern.old", patterns=(Pattern("old", CARDS.of, CARDS.pattern),))
    now = bundle("pattern.cards && pattern.other",
                 patterns=(CARDS, Pattern("other", "text", "x")))  # fmt: skip
    question = ask(now, Record({}, derived={"pattern.old": True}), then)

    assert question.facts == {"pattern.cards": True}
    assert question.unknown == ("pattern.other",)
    assert ask(now, Record({}), then).facts == {"pattern.cards": False}
    assert ask(now, Record({}), None).unknown == ("pattern.cards", "pattern.other")


def test_what_is_unknown_is_tried_each_way():
    """Up to three facts: eight questions; the message is replayable when all agree."""
    now = bundle("pattern.cards", patterns=(CARDS,))

    assert [*ask(now, Record({})).ways()] == [{"pattern.cards": False}, {"pattern.cards": True}]


@pytest.mark.parametrize("packed", [b"", b"facts", b"\xc1", frames.pack({"findings": []}),
                                    frames.pack({"facts": {"a": {"b": 1}}})])  # fmt: skip
def test_what_cannot_be_read_was_not_recorded(packed):
    """A record of another form is none, and no error."""
    assert opened(packed) is None


def test_what_a_newer_judge_records_besides_is_left_aside():
    """Keys are added to records; those we do not know are no reason to lose one."""
    found = opened(frames.pack({"facts": {"a": 1}, "schema": "fs_x", "novel": [1]}))

    assert found is not None
    assert (found.facts, found.schema) == ({"a": 1}, "fs_x")


RATES = st.builds(
    Throttle, st.just("t"), st.sampled_from(["sender", "account", "recipient_domain"]),
    st.sampled_from(["messages", "recipients", "bytes"]), st.integers(1, 50), st.integers(1, 60),
    st.integers(1, 40),
)  # fmt: skip
MAIL = st.lists(
    st.tuples(st.integers(0, 20_000_000), st.sampled_from("ab"), st.integers(1, 60), st.booleans()),
    max_size=40,
)  # fmt: skip


@given(RATES, MAIL)
def test_a_simulated_throttle_is_the_judges(throttle, mail):
    """Levels are the same to the second, whatever was taken: one algorithm, written twice."""
    judge, simulation = Throttles(), Simulation(Bundle((), throttles=(throttle,)))
    at_us = 1_790_000_000_000_000
    for n, (more_us, who, count, taken) in enumerate(mail):
        at_us += more_us
        facts = {"sender.key": who, "account.name": who, "envelope.recipients": count,
                 "envelope.recipient_domains": ["x.example", who], "body.bytes": count}  # fmt: skip
        asked = costs(throttle, facts)
        one = [(at_us, 1, facts)]

        assert simulation.levels(one, [taken]) == [
            {"throttle.t": judge.wait_s(throttle, asked, at_us / 1e6)}
        ]
        simulation.take(one, [taken])
        if taken:
            judge.take(str(n), [(throttle, asked)], at_us / 1e6)


def test_what_was_not_kept_takes_its_tokens_too():
    """A message that stands for nine others empties the bucket as all ten did."""
    throttle = Throttle("t", "sender", "messages", 1, 60, 10)
    simulation = Simulation(Bundle((), throttles=(throttle,)))
    mail = [(60_000_000, 10, {"sender.key": "a"}), (60_000_000, 1, {"sender.key": "a"})]

    assert simulation.levels(mail, [True, True]) == [{"throttle.t": 0}, {"throttle.t": 60}]
