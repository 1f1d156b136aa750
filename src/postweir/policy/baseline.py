"""The dozen checks that need no engine: they may refuse or hold, and never say accept."""

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


def _has(facts: Mapping[str, Fact], name: str, item: str) -> bool:
    value = facts[name]
    return isinstance(value, list) and item in value


# Only what is wrong whatever the policy says; all else waits for it.
CHECKS = (
    Check("sender-stopped", "refuse", "ESA", "This sender has been stopped.",
          lambda f: f["sender.state"] == "stopped"),
    Check("mail-loop", "refuse", "LOOP", "This message has been here before.",
          lambda f: _over(f, "message.loops", 2)),
    Check("spam-for-sure", "refuse", "SS", "This message is spam.",
          lambda f: isinstance(f["findings.spam"], float) and f["findings.spam"] >= 1.0),
    Check("attachment-dangerous", "refuse", "CS", "An attachment is a program.",
          lambda f: f["findings.attachment_dangerous"] is True),
    Check("url-listed", "hold", "RBL", "A link leads to a listed host.",
          lambda f: f["findings.url_listed"] is True),
    Check("form-unreadable", "hold", "CS", "The form of the message cannot be read.",
          lambda f: _has(f, "body.anomalies", "bound")),
    Check("from-many", "hold", "CS", "The message has more than one From field.",
          lambda f: _over(f, "header.from_count", 1)),
    Check("bounce-to-many", "hold", "CS", "A bounce has one recipient.",
          lambda f: f["envelope.null_sender"] is True and _over(f, "envelope.recipients", 1)),
    Check("recipients-flood", "hold", "STF", "Far too many recipients within a minute.",
          lambda f: f["usage.known"] is True and _over(f, "usage.recipients_1m", 5000)),
    Check("messages-flood", "hold", "STF", "Far too many messages within a minute.",
          lambda f: f["usage.known"] is True and _over(f, "usage.messages_1m", 2000)),
    Check("locked-flood", "hold", "CS", "Locked attachments to many recipients.",
          lambda f: f["findings.attachment_encrypted"] is True
          and _over(f, "envelope.recipients", 100)),
    Check("account-flood", "hold", "STF", "Far too many recipients of one account in a minute.",
          lambda f: f["usage.known"] is True and _over(f, "usage.account_recipients_1m", 50_000)),
)  # fmt: skip


def judge(facts: Facts) -> Verdict | None:
    """Return an objection, or None: nobody can say yet."""
    for check in CHECKS:
        if check.objects(facts):
            return Verdict(
                check.verb, rule=check.rule, policy=POLICY, code=check.code, text=check.text
            )
    return None
