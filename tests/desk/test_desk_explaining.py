"""Why a message got its verdict: from what was recorded, judged again by the real engine."""

import pytest
from tests.desk.office import accept, name, refusal
from tests.desk.recorded import POLICY, Past

from postweir.desk import explaining
from postweir.desk.ports import Missing
from postweir.policy.verdict import Verdict
from postweir.runtime import frames


@pytest.fixture
def past(office):
    return Past(office)


def turned(found):
    return [([(c.fact, c.would) for c in one.changes], one.verb) for one in found.flips]


async def test_a_refusal_is_explained_from_what_was_recorded(office, past):
    """Rule, place, condition, facts with values, help; and the same verdict, byte for byte."""
    id = past.came({"urls.hosts": ["www.bad.example"], "body.parts": 2},
                   keys={"url_hosts": ["bad.example"]})  # fmt: skip
    found = await explaining.why(office, id)

    assert (found.state, found.verdict.verb, found.rule) == ("refused", "refuse", "listed")
    assert found.same is True
    assert (found.place, found.places, found.condition) == (2, 4, "set.bad")
    assert found.help == "Take the link out."
    assert [(u.fact, u.value) for u in found.facts] == [("set.bad", True)]
    assert "1 keys, looked up by url_hosts" in found.facts[0].detail
    assert turned(found) == [([("set.bad", False)], "accept")]
    assert found.shadow == ["trial"]
    assert [(one.scanner, one.kind, one.what) for one in found.findings] == [
        ("content", "spam", "x")
    ]  # fmt: skip
    assert found.note == ""


async def test_a_hold_is_explained_by_its_parts(office, past):
    """Each part of the condition as the engine sees it, and the nearest number that flips it."""
    id = past.came({"urls.count": 900})
    found = await explaining.why(office, id)

    assert (found.state, found.rule, found.joined) == ("held", "links", "&&")
    assert [(p.text, p.holds) for p in found.parts] == [
        ("urls.count > limit.links", True), ("!connection.tls", True),
    ]  # fmt: skip
    assert [(u.fact, u.value, u.unit) for u in found.facts] == [
        ("urls.count", 900, "links"), ("limit.links", 3, ""), ("connection.tls", False, ""),
    ]  # fmt: skip
    assert ([("urls.count", 3)], "accept") in turned(found)
    assert ([("connection.tls", True)], "accept") in turned(found)


async def test_an_accepted_message_is_told_what_it_was_near_to(office, past):
    """No rule matched; these would have, with one fact or two."""
    found = await explaining.why(office, past.came({}))

    assert (found.verdict.verb, found.rule, found.same, found.facts) == ("accept", "", True, [])
    assert {one.rule for one in found.flips} == {"listed", "links", "cards"}
    assert [len(one.changes) for one in found.flips] == [1, 1, 1]


async def test_what_another_policy_would_have_done(office, past, tmp_path):
    """From a file, on the same facts; what it asks that was not kept is named."""
    id = past.came({"urls.count": 4})
    path = tmp_path / "new.toml"
    path.write_text(POLICY.replace("links = 3", "links = 4").replace("gift ?cards?", "lottery"))
    found = await explaining.why(office, id, str(path))

    assert (found.then.verb, found.verdict.verb, found.same) == ("hold", "accept", None)
    assert found.policy != found.then.policy
    assert found.unknown == ["pattern.cards"]


async def test_a_verdict_that_cannot_be_repeated_is_not_called_the_same(office, past):
    """Should the engine or the record ever be otherwise, it is said."""
    id = past.came({"urls.count": 900}, verdict=Verdict("hold", "links", past.policy.policy, "CS",
                                                         "Something else."))  # fmt: skip

    assert (await explaining.why(office, id)).same is False


async def test_rules_that_were_killed_then_are_left_out_again(office, past):
    """The verdict is repeated as it was made: without them."""
    id = past.came({"urls.count": 900}, more={"killed": ["links"]})
    found = await explaining.why(office, id)

    assert (found.same, found.verdict.verb, found.killed) == (True, "accept", ["links"])


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        ({"verdict": None, "reason": "late", "facts": b""}, "did not answer within judge.wait_ms"),
        ({"facts": b""}, "o facts of it are kept: they stay 72 hours"),
        ({"verdict": Verdict("hold", "poison", "pol_x")}, "two workers died of it"),
        ({"verdict": Verdict("hold", "virus", "baseline")}, "no policy answered"),
        ({"verdict": Verdict("hold", "r", "pol_" + "e" * 64)}, "no longer kept"),
    ],
)  # fmt: skip
async def test_what_nobody_can_explain_any_more(office, changed, note):
    """Pending, forgotten, poison, baseline or an unknown policy: what can be said is."""
    facts = frames.pack({"facts": {"urls.count": 9}})
    office.shards.stores[1].commit([accept(1, **{"facts": facts, **changed})])
    found = await explaining.why(office, name(1))

    assert note in found.note
    assert found.verdict is None
    assert found.recorded == ({"urls.count": 9} if changed.get("facts", facts) else {})


async def test_what_was_refused_before_it_was_judged(office):
    """At RCPT there are no facts: the reply is the reason."""
    office.shards.stores[1].commit([refusal(1, stage="rcpt", verdict=None, facts=b"")])

    assert "before it was judged, at rcpt: 550" in (await explaining.why(office, name(1))).note


async def test_a_message_that_is_not_there(office):
    """As with every other command."""
    with pytest.raises(Missing):
        await explaining.why(office, name(9))


async def test_what_the_engine_did_not_say_is_not_put_in_its_mouth(office, past):
    """With the engine off nothing was derived: its sets and patterns are unknown, not false."""
    packed = frames.pack({"facts": {"urls.count": 9}, "policy": past.policy.policy,
                          "engine": "off"})  # fmt: skip
    office.shards.stores[1].commit(
        [accept(1, facts=packed, verdict=Verdict("hold", "virus", "baseline"))]
    )
    found = await explaining.why(office, name(1))
    asked = await explaining.why(office, name(1), past.policy.policy)

    assert "had turned the engine off" in found.note
    assert found.verdict is None
    assert (asked.verdict.verb, asked.unknown) == ("hold", ["pattern.cards"])
