"""The first rule that matches decides; an error is never a match."""

from hypothesis import given
from hypothesis import strategies as st

from postweir.policy.bundle import Bundle, Rule
from postweir.policy.decide import ERRORS_MAX, decide

RULES = tuple(
    Rule(f"r{i}", "true", "refuse", "SS", f"Rule {i}.", mode=mode, on_error=on_error)
    for i, (mode, on_error) in enumerate(
        [("enforce", "skip"), ("off", "skip"), ("enforce", "hold"), ("enforce", "skip")]
    )
)


@given(st.lists(st.one_of(st.booleans(), st.just("divide by zero")), min_size=4, max_size=4))
def test_first_match(said):
    """Whatever the conditions come to, the verdict is that of the first that counts."""
    verdict, errors = decide(Bundle(RULES), "pol_x", said.__getitem__)

    want = "accept"
    for index, rule in enumerate(RULES):
        if rule.mode == "off":
            continue
        if said[index] is True:
            want = f"refuse {rule.id}"
            break
        if said[index] == "divide by zero" and rule.on_error == "hold":
            want = f"hold {rule.id}"
            break
    assert f"{verdict.verb} {verdict.rule}".strip() == want
    assert verdict.policy == "pol_x"
    assert len(errors) <= sum(isinstance(s, str) for s in said)


def test_errors_are_bounded():
    """Five hundred broken rules say so twenty times, briefly."""
    rules = tuple(Rule(f"r{i}", "x", "hold") for i in range(500))

    verdict, errors = decide(Bundle(rules), "p", lambda _: "e" * 5000)

    assert verdict.verb == "accept"
    assert len(errors) == ERRORS_MAX
    assert max(map(len, errors)) < 300
