"""The checks without an engine may object; they never accept."""

import pytest

from postweir.policy.baseline import CHECKS, judge
from postweir.policy.facts import total


def test_no_objection_is_no_verdict():
    """Neutral facts, and ordinary ones, are for the policy: nobody can say yet."""
    assert judge(total({})) is None
    ordinary = {"header.from_count": 1, "body.bytes": 4000, "usage.known": True}
    assert judge(total({**ordinary, "message.loops": 2})) is None
    assert judge(total({**ordinary, "usage.messages_1h": 900})) is None
    assert judge(total({**ordinary, "findings.spam": 0.99, "findings.phishing": 0.99})) is None


def test_a_flood_is_pending_not_held():
    """Nothing pending is delivered: an operator must not clean up because our engine was late."""
    assert judge(total({"usage.known": True, "usage.messages_1m": 100_000})) is None


@pytest.mark.parametrize(
    ("facts", "rule"),
    [
        ({"sender.state": "stopped"}, "refuse sender-stopped"),
        ({"message.loops": 3}, "refuse mail-loop"),
        ({"findings.spam": 1.0}, "refuse spam-for-sure"),
        ({"findings.phishing": 1.0}, "refuse phishing-for-sure"),
        ({"findings.virus": True}, "refuse virus"),
        ({"findings.attachment_dangerous": True}, "refuse attachment-dangerous"),
        ({"findings.url_listed": True}, "hold url-listed"),
    ],
)
def test_each_objection(facts, rule):
    """Each check objects to what it is for, as `baseline`."""
    verdict = judge(total(facts))

    assert f"{verdict.verb} {verdict.rule}" == rule
    assert verdict.policy == "baseline"


def test_they_only_object():
    """None of them lets a message go, and a refusal has a code and a text."""
    for check in CHECKS:
        assert check.verb in ("refuse", "hold")
        assert check.code
        assert check.text
