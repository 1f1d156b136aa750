"""What would have changed a verdict: true, near, and told in a person's numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.policy import flip, tree, wording
from postweir.policy.bundle import Bundle, Pattern, Rule
from postweir.policy.evaluation import Evaluate
from postweir.policy.worker import Engine


def rule(id, when, verb="refuse", **more):
    return Rule(id, when, verb, "CS", "No.", **more)


def flips(facts, *rules, **own):
    """Return the verdict, and (facts that change, verb, rule) of each flip."""
    bundle = Bundle(tuple(rules), **own)
    engine = Engine(bundle, "pol_x", {})
    assert engine.faults == []
    asked = []

    def judge(trials):
        asked.append(len(trials))
        return [engine.evaluate(Evaluate(0, trial)).verdict for trial in trials]

    now = judge([facts])[0]
    found = flip.nearest(bundle, facts, now, judge)
    for one in found:  # each is true
        turned = {**facts, **{each.fact: each.would for each in one.changes}}
        said = judge([turned])[0]
        assert (said.verb, said.rule) == (one.verb, one.rule)
        assert said.verb != now.verb
    assert sum(asked) < 2 * flip.TRIALS_MAX + 3000
    told = [(tuple((c.fact, c.would) for c in one.changes), one.verb, one.rule) for one in found]
    return now, told


def test_the_boundary_of_a_number():
    """One message less, found although the limit is another fact times three."""
    now, found = flips(
        {"usage.messages_1h": 5000, "history.peak_messages_1h": 100},
        rule("r", "usage.messages_1h > 3 * history.peak_messages_1h + 7"),
    )

    assert now.rule == "r"
    assert ((("usage.messages_1h", 307),), "accept", "") in found
    assert ((("history.peak_messages_1h", 1665),), "accept", "") in found


def test_a_fraction_is_told_in_thousandths():
    """And not in digits of a machine."""
    _, found = flips({"findings.spam": 0.95}, rule("spam", "findings.spam >= 0.9"))

    assert found == [((("findings.spam", 0.899),), "accept", "")]


def test_bools_texts_and_lists():
    """Turned round, emptied, without one of their items."""
    _, found = flips(
        {"usage.known": True, "sender.state": "stopped", "urls.hosts": ["a.example", "b.example"]},
        rule("r", 'usage.known && sender.state == "stopped" && "b.example" in urls.hosts'),
    )  # fmt: skip

    assert {changes[0][0] for changes, _, _ in found} == {
        "usage.known", "sender.state", "urls.hosts",
    }  # fmt: skip
    assert ((("sender.state", ""),), "accept", "") in found


def test_it_says_which_rule_decides_then():
    """Undoing one rule is no acceptance when the next one holds the message."""
    _, found = flips(
        {"findings.spam": 1.0, "urls.count": 5},
        rule("spam", "findings.spam > 0.9"), rule("links", "urls.count > 3", "hold"),
    )  # fmt: skip

    assert found == [((("findings.spam", 0.9),), "hold", "links")]


def test_an_earlier_rule_may_decide_instead():
    """What stands above the rule that decided could have come first."""
    _, found = flips({"urls.count": 5}, rule("friend", 'sender.state == "allowed"', "accept"),
                     rule("links", "urls.count > 3"))  # fmt: skip

    assert ((("sender.state", "allowed"),), "accept", "friend") in found
    assert ((("urls.count", 3),), "accept", "") in found


def test_two_facts_where_one_is_not_enough():
    """Either side of an or holds: both must go, each no further than needed."""
    _, found = flips({"urls.count": 50, "body.parts": 90},
                     rule("r", "urls.count > 10 || body.parts > 20"))  # fmt: skip

    assert found == [((("urls.count", 10), ("body.parts", 20)), "accept", "")]


def test_what_an_accepted_message_was_near_to():
    """Each rule that two facts would have made match."""
    now, found = flips(
        {"usage.messages_1h": 990},
        rule("burst", "usage.known && usage.messages_1h > 1000"),
        rule("virus", "findings.virus"), rule("off", "text.html", mode="off"),
    )  # fmt: skip

    assert now.verb == "accept"
    assert found == [
        ((("findings.virus", True),), "refuse", "virus"),
        ((("usage.known", True), ("usage.messages_1h", 1001)), "refuse", "burst"),
    ]


def test_own_facts_count_and_limits_are_no_facts_of_a_message():
    """A pattern may be turned; a number that the policy says is not what anybody sent."""
    _, found = flips({"pattern.p": True, "urls.count": 9},
                     rule("r", "pattern.p && urls.count > limit.links"),
                     patterns=(Pattern("p", "text", "x"),), limits={"links": 3})  # fmt: skip

    assert {changes[0][0] for changes, _, _ in found} == {"pattern.p", "urls.count"}


def test_what_cannot_be_changed_says_so():
    """A rule that always matches has no other side."""
    assert flips({}, rule("r", "true"))[1] == []


CONDITIONS = [
    'usage.known && (usage.messages_1h > 3 || !text.html) && sender.state != "al\\"lowed"',
    "urls.count - (body.parts - 3) > -2 * 5 % 3", "double(urls.count) / 2.0 > 1e-05",
    'urls.hosts.exists(h, h.endsWith(".x") && h != "a\\n")',
    "connection.tls ? urls.count > 3 : false",
    '"cut" in body.anomalies || size(urls.hosts) == 0', 'body.anomalies[0] == "x"',
    "!(text.html == text.hidden)", "(urls.count > 3) == true",
    'urls.hosts in [["a"], ["b"]]', "(connection.tls ? 1 : 2) + urls.count > 2",
]  # fmt: skip


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_said_again_is_the_same(condition):
    """What is shown as a part of a condition is what the engine is asked."""
    read = tree.read(condition)

    assert tree.read(wording.said(read)) == read


@given(st.text(max_size=20))
def test_a_text_said_again_is_the_same(text):
    """Quotes, lines and whatever else stands in it."""
    node = tree.Const(text)

    assert tree.read(wording.said(node)) == node
    assert wording.said(node).isprintable()


def test_the_parts_of_a_condition():
    """Those at the top, each to be asked by itself."""
    assert wording.parts("a.b && (c.d || e.f) && !g.h") == ("&&", ["a.b", "c.d || e.f", "!g.h"])
    assert wording.parts("a.b || c.d && e.f") == ("||", ["a.b", "c.d && e.f"])
    assert wording.parts("a.b > 3") == ("", ["a.b > 3"])
    assert flip.used("urls.count > 1 && urls.hosts.exists(h, h == header.from_domain) && text.html",
                     flip.declared(Bundle(()))) == [
        "urls.count", "urls.hosts", "header.from_domain", "text.html"]  # fmt: skip
