"""Promoted, baseline, pending: no rung of ours refuses, and none lets go."""

from postweir.judge.ladder import climb
from postweir.policy.evaluation import Evaluated
from postweir.policy.facts import total
from postweir.policy.verdict import Verdict

SAID = Evaluated(1, Verdict("accept", policy="pol_x"), {}, [], 10)


def test_the_promoted_policy_decides():
    """What it says stands, even where the baseline would object."""
    stopped = total({"sender.state": "stopped"})

    assert climb(SAID, stopped, policy="pol_x", poison=False) == (SAID.verdict, "")


def test_without_it_the_baseline_may_object():
    """A stopped sender stays stopped with the engine dead."""
    verdict, reason = climb(None, total({"sender.state": "stopped"}), policy="pol_x", poison=False)

    assert (verdict.verb, verdict.policy, reason) == ("refuse", "baseline", "")


def test_the_baseline_looks_past_what_is_the_policys_own():
    """The level of a throttle is a fact of that policy's alone: it keeps no stopped sender in."""
    facts = {"sender.state": "stopped", "throttle.young": 60}

    assert climb(None, facts, policy="pol_x", poison=False)[0].verb == "refuse"


def test_without_objection_it_is_pending():
    """Never accepted by a failure; the reason says which."""
    assert climb(None, total({}), policy="pol_x", poison=False) == (None, "engine")
    assert climb(None, total({}), policy="", poison=False) == (None, "loading")


def test_with_the_engine_off_it_is_pending_for_that():
    """Who reads why must not look for a fault of ours."""
    assert climb(None, total({}), policy="pol_x", poison=False, off=True) == (None, "off")
    stopped = total({"sender.state": "stopped"})
    assert climb(None, stopped, policy="pol_x", poison=False, off=True)[0].policy == "baseline"


def test_poison_is_held():
    """What has cost two workers is for a person."""
    verdict, _ = climb(None, total({}), policy="pol_x", poison=True)

    assert (verdict.verb, verdict.rule) == ("hold", "poison")


def test_what_was_not_looked_at_is_not_let_go():
    """Our own lateness is no filter with a hole: refused when that much is clear, else pending."""
    hold, refuse = (Evaluated(1, Verdict(verb, rule="r"), {}, [], 5) for verb in ("hold", "refuse"))

    assert climb(SAID, total({}), policy="pol_x", poison=False, unseen=True) == (None, "scan")
    assert climb(hold, total({}), policy="pol_x", poison=False, unseen=True) == (None, "scan")
    found = climb(refuse, total({}), policy="pol_x", poison=False, unseen=True)
    assert found == (refuse.verdict, "")
