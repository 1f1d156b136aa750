"""What the judge counts, for whoever watches."""

from postweir.judge.meters import RULES_MAX, Meters
from postweir.policy.evaluation import Evaluated
from postweir.policy.verdict import Verdict
from postweir.runtime.metrics import Metrics


def page(*answers: Evaluated, policies: tuple[str, ...] = ()) -> list[str]:
    metrics = Metrics()
    meters = Meters(metrics, lambda: 0)
    for answer in answers:
        meters.evaluated(answer)
    for policy in policies:
        meters.judges_by(policy)
    return metrics.page().decode().splitlines()


def test_rules_are_counted_by_what_they_did():
    """Those that decided, those on trial that matched, and those that failed."""
    lines = page(
        Evaluated(1, Verdict("hold", rule="a"), {}, ["c: no"], 5, ["b"]),
        Evaluated(2, Verdict("accept"), {}, ["c: no"], 5, ["b"]),
    )

    assert 'postweir_judge_rule_matches_total{mode="enforce",rule="a"} 1.0' in lines
    assert 'postweir_judge_rule_matches_total{mode="shadow",rule="b"} 2.0' in lines
    assert 'postweir_judge_rule_errors_total{rule="c"} 2.0' in lines
    assert "postweir_judge_evaluate_seconds_count 2.0" in lines


def test_many_policies_are_no_flood_of_series():
    """Beyond as many rules as a policy may have, others are counted together."""
    lines = page(*(
        Evaluated(i, Verdict("hold", rule=f"r{i}"), {}, [], 5) for i in range(RULES_MAX + 7)
    ))  # fmt: skip

    series = [line for line in lines if line.startswith("postweir_judge_rule_matches_total{")]
    assert len(series) == RULES_MAX + 1
    assert 'postweir_judge_rule_matches_total{mode="enforce",rule="other"} 7.0' in lines


def test_one_policy_judges():
    """The one before is told of no more."""
    lines = page(policies=("pol_a", "pol_b"))

    said = [line for line in lines if line.startswith("postweir_judge_policy{")]
    assert said == ['postweir_judge_policy{policy="pol_b"} 1.0']
