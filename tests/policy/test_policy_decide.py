"""The first rule that matches decides; an error is never a match."""

from hypothesis import given
from hypothesis import strategies as st

from postweir.policy.bundle import Rule
from postweir.policy.decide import ERRORS_MAX, SHADOW_MAX, decide

RULES = tuple(
    Rule(f"r{i}", "true", "refuse", "SS", f"Rule {i}.", mode=mode, on_error=on_error)
    for i, (mode, on_error) in enumerate(
        [("enforce", "skip"), ("shadow", "hold"), ("enforce", "hold"), ("enforce", "skip")]
    )
)
OUTCOMES = st.one_of(st.booleans(), st.just("divide by zero"))


@given(st.lists(OUTCOMES, min_size=4, max_size=4))
def test_first_match(said):
    """Whatever the conditions come to, the verdict is that of the first that counts."""
    verdict, errors, shadow = decide("pol_x", zip(RULES, said, strict=True), {})

    want, tried = "accept", []
    for rule, outcome in zip(RULES, said, strict=True):
        if rule.mode == "shadow":
            tried += [rule.id] if outcome is True else []
        elif outcome is True:
            want = f"refuse {rule.id}"
            break
        elif outcome is not False and rule.on_error == "hold":
            want = f"hold {rule.id}"
            break
    assert f"{verdict.verb} {verdict.rule}".strip() == want
    assert verdict.policy == "pol_x"
    assert shadow == tried
    assert len(errors) <= sum(isinstance(s, str) for s in said)


@given(st.lists(OUTCOMES, min_size=4, max_size=4))
def test_what_is_plainly_false_may_be_left_out(said):
    """Who asks several at once names only the others."""
    every = list(zip(RULES, said, strict=True))

    assert decide("p", every, {}) == decide("p", [e for e in every if e[1] is not False], {})


def test_nothing_behind_the_verdict_is_asked():
    """The first match ends the walk."""
    walk = iter(zip(RULES, (False, False, True, True), strict=True))

    assert decide("p", walk, {}).verdict.rule == "r2"
    assert [rule.id for rule, _ in walk] == ["r3"]


def test_errors_and_trials_are_bounded():
    """Five hundred broken rules say so twenty times, briefly; as many on trial likewise."""
    rules = [Rule(f"r{i}", "x", "hold") for i in range(500)]
    trials = [Rule(f"r{i}", "x", "hold", mode="shadow") for i in range(500)]

    verdict, errors, _ = decide("p", ((rule, "e" * 5000) for rule in rules), {})
    assert verdict.verb == "accept"
    assert len(errors) == ERRORS_MAX
    assert max(map(len, errors)) < 300
    verdict, _, shadow = decide("p", ((rule, True) for rule in trials), {})
    assert verdict.verb == "accept"
    assert len(shadow) == SHADOW_MAX


def test_a_throttle_says_when_there_is_room():
    """The wait is what the throttle measured, and never nothing."""
    rule = Rule("a", "true", "throttle", "STF", "Slower.", throttle="young")

    waits = [
        decide("p", [(rule, True)], facts).verdict.retry_after_s
        for facts in ({"throttle.young": 60}, {"throttle.young": 0}, {}, {"throttle.young": "x"})
    ]
    assert waits == [60, 1, 1, 1]


def test_all_that_a_rule_says_is_in_the_verdict():
    """Header, pool, the time of a hold and of delivery go with it."""
    rule = Rule("a", "true", "tag", header="X-A: b", pool="bulk", hold_s=5, lifetime_s=7)

    said = decide("p", [(rule, True)], {}).verdict
    assert (said.header, said.pool, said.hold_s, said.lifetime_s) == ("X-A: b", "bulk", 5, 7)
