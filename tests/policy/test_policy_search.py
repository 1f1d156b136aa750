"""Facts that are looked for: what is found is so, and what is surely none never is."""

import pytest
from hypothesis import given, settings
from tests.effort import THOROUGH
from tests.policy.conditions import conditions, some_facts

from postweir.policy import search
from postweir.policy.bundle import Bundle, Rule
from postweir.policy.evaluation import Evaluate
from postweir.policy.facts import SCHEMA, total
from postweir.policy.search import Search
from postweir.policy.tree import read
from postweir.policy.worker import Engine


def says(engine: Engine, facts: dict) -> bool:
    said = engine.evaluate(Evaluate(1, facts))
    assert said.errors == []
    return said.verdict.verb == "hold"


@settings(max_examples=500 if THOROUGH else 60, deadline=None)
@given(conditions, some_facts)
def test_what_is_found_is_so(condition, facts):
    """The engine agrees with all that was found, and meets nothing that was surely none.

    Of `exists_one` some are wrong: it is not gone into whether two equal items are one.
    """
    engine = Engine(Bundle((Rule("r", condition, "hold"),)), "p")
    if engine.faults:
        return
    for truth in (True, False):
        found = Search(SCHEMA).find([(read(condition), truth)], 6)

        if "exists_one" not in condition:
            assert [says(engine, one) for one in found.facts] == [truth] * len(found.facts)
        if found.surely_none:
            assert says(engine, facts) is not truth
        for one in found.facts:
            assert set(one) <= set(total(one))


@pytest.mark.parametrize(
    "condition",
    [
        "usage.known && usage.messages_1h > limit.sender_messages_1h",
        "usage.recipients_1h > (connection.tls ? 300 : 30)",
        "usage.recipients_1h * 10 > usage.recipients_1d * 8 && usage.recipients_1d > 50",
        "double(usage.recipients_1h) / double(usage.recipients_1d) > 0.3",
        "usage.messages_1h > history.peak_messages_1h * 3 + 10",
        "envelope.recipient_domains.exists(d, d.endsWith('.ru'))"
        " && !('a.example' in envelope.recipient_domains) && size(envelope.recipient_domains) > 3",
        "envelope.recipient_domains.all(d, d != header.from_domain) && header.from_domain != ''",
        "envelope.from_domain.endsWith(header.from_domain) && size(header.from_domain) > 5",
        "['a', 'b'].exists(x, envelope.recipient_domains.exists(d, d.startsWith(x)))",
        "['x', 'y'].exists_one(k, k in urls.hosts)",
        "urls.hosts[1] == 'x.example'",
        "urls.hosts == ['a', 'b']",
        "size(urls.hosts) + 1 > urls.count && urls.count > 2",
        "connection.client.startsWith('10.') && size(connection.client) == 12",
        "header.mailer > 'M' && header.mailer < 'N'",
        "header.subject_bytes % 7 == 3",
    ],
)
def test_what_people_write_is_solved(condition):
    """For each kind of condition there are facts that make it true and facts that do not."""
    engine = Engine(Bundle((Rule("r", condition, "hold"),)), "p")
    engine.faults.clear()
    for truth in (True, False):
        found = Search(SCHEMA).find([(read(condition), truth)], 6)
        said = [engine.evaluate(Evaluate(1, one)) for one in found.facts]

        assert said
        if not engine._rows:  # the dialect refused it
            continue
        assert all((one.verdict.verb == "hold") is truth for one in said)


@pytest.mark.parametrize(
    "condition",
    [
        "usage.messages_1h > 5 && usage.messages_1h < 6",
        "usage.messages_1h > 5 && !(usage.messages_1h >= 4)",
        "findings.spam > 1.0",
        "sender.state == 'a' && sender.state in ['b', 'c']",
        "sender.state.startsWith('a') && sender.state.startsWith('b')",
        "body.known && !body.known",
        "size(sender.state) > 256",
        "size(urls.hosts) > 64",
        "urls.hosts.all(h, h == 'a') && 'b' in urls.hosts",
        "urls.hosts.exists(h, h == 'a' && h == 'b')",
        "size(urls.hosts) < 1 && 'a' in urls.hosts",
        "1 > 2 || 'a' == 'b'",
    ],
)
def test_contradictions_are_seen(condition):
    """What can never be true is known to be so, and its opposite is found."""
    tree = read(condition)

    assert Search(SCHEMA).find([(tree, True)], 3).surely_none
    assert Search(SCHEMA).find([(tree, False)], 3).facts


def test_the_bound_of_a_search_says_nothing(monkeypatch):
    """A search that is cut short, or that meets what it does not know, proves nothing."""
    monkeypatch.setattr(search, "STEPS_MAX", 3)
    many = " && ".join(f"(usage.messages_1h == {n} || usage.messages_1d == {n})" for n in range(40))
    cut = Search(SCHEMA).find([(read(many), True)], 1)
    odd = Search(SCHEMA).find([(read("urls.hosts.exists_one(h, odd(h))"), True)], 1)

    assert (cut.facts, cut.surely_none) == ([], False)
    assert (odd.facts, odd.surely_none) == ([], False)


def test_several_goals_at_once():
    """A rule true, and those before it not: or surely impossible."""
    looking = Search(SCHEMA)
    early, late = read("usage.messages_1h > 10"), read("usage.messages_1h > 5")

    assert looking.find([(late, True), (early, False)], 3).facts
    assert looking.find([(early, True), (late, False)], 3).surely_none
