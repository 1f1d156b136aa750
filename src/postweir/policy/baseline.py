"""The checks that need no engine: they may refuse or hold, and never say accept."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from postweir.policy.facts import Facts
from postweir.policy.verdict import Fact, Verdict

POLICY = "baseline"


class Check(NamedTuple):
    """One objection."""

    rule: str
    verb: str  # refuse or hold
    code: str
    text: str
    objects: Callable[[Mapping[str, Fact]], bool]


def _over(facts: Mapping[str, Fact], name: str, limit: int) -> bool:
    value = facts[name]
    return isinstance(value, int) and value > limit


def _sure(facts: Mapping[str, Fact], name: str) -> bool:
    value = facts[name]
    return isinstance(value, float) and value >= 1.0


# Only what is wrong whatever the policy says. Without an objection the message is pending: safe,
# not delivered, and judged by the promoted policy once it answers. So a check for floods or odd
# forms would protect nobody, and make work for an operator because our engine was late.
CHECKS = (
    Check("sender-stopped", "refuse", "ESA", "This sender has been stopped.",
          lambda f: f["sender.state"] == "stopped"),
    Check("mail-loop", "refuse", "LOOP", "This message has been here before.",
          lambda f: _over(f, "message.loops", 2)),
    Check("spam-for-sure", "refuse", "SS", "This message is spam.",
          lambda f: _sure(f, "findings.spam")),
    Check("phishing-for-sure", "refuse", "SS", "This message is phishing.",
          lambda f: _sure(f, "findings.phishing")),
    Check("virus", "refuse", "CS", "A scanner found malware in this message.",
          lambda f: f["findings.virus"] is True),
    Check("attachment-dangerous", "refuse", "CS", "An attachment is a program.",
          lambda f: f["findings.attachment_dangerous"] is True),
    Check("url-listed", "hold", "RBL", "A link leads to a listed host.",
          lambda f: f["findings.url_listed"] is True),
)  # fmt: skip


def judge(facts: Facts) -> Verdict | None:
    """Return an objection, or None: nobody can say yet."""
    for check in CHECKS:
        if check.objects(facts):
            return Verdict(
                check.verb, rule=check.rule, policy=POLICY, code=check.code, text=check.text
            )
    return None
