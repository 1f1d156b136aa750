"""One message's whole life, told from its row and its steps."""

import datetime
from collections.abc import Iterator, Sequence
from typing import Any

from postweir.policy.verdict import Verdict
from postweir.runtime import frames
from postweir.runtime.frames import Struct
from postweir.spool.ports import MessageRow, RecipientRow, Step

Detail = dict[str, Any]
_OURS = ("at", "step", "recipient")  # what a step's own detail may not replace


class RecipientShown(Struct, frozen=True):
    """A recipient as `message show` gives it."""

    address: str
    state: str
    next_attempt_at: str | None
    reply: str
    tries: int = 0
    in_hand: bool = False


class Timeline(Struct, frozen=True):
    """A message as `message show --json` gives it: add fields, never rename one."""

    id: str
    account: str
    sender: str
    verdict: str  # "" while nobody has judged it
    rule: str
    policy: str
    state: str  # queued, pending, held, settled; refused: it was never ours
    recipients: list[RecipientShown]
    steps: list[Detail]
    accepted_at: str = ""
    origin: str = ""
    mail_from: str = ""
    client: str = ""
    bytes: int = 0
    shard: int = 0
    code: str = ""
    reason: str = ""
    text: str = ""
    stage: str = ""  # of a refusal
    reply: str = ""  # of a refusal
    evidence: list[tuple[str, str]] = []
    connection: dict[str, str] = {}
    findings: list[Any] = []
    facts: dict[str, Any] = {}


def utc(at_us: int | None) -> str | None:
    """Return a time as ISO 8601 with microseconds, None for none."""
    if at_us is None:
        return None
    seconds, microseconds = divmod(at_us, 1_000_000)
    at = datetime.datetime.fromtimestamp(seconds, datetime.UTC).replace(microsecond=microseconds)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def timeline(row: MessageRow, steps: Sequence[Step]) -> Timeline:
    """Return a message's life from its row and its steps, oldest first."""
    verdict = row.verdict or Verdict("")
    facts, findings = observed(row.facts)
    return Timeline(
        id=row.id,
        account=row.account,
        sender=row.sender.key,
        verdict=verdict.verb,
        rule=verdict.rule,
        policy=verdict.policy,
        state=row.state,
        recipients=[_recipient(one) for one in row.recipients],
        steps=[*_steps(row, steps)],
        accepted_at=utc(row.accepted_at_us) or "",
        origin=row.origin,
        mail_from=row.mail_from,
        client=row.client,
        bytes=row.bytes,
        shard=row.shard,
        code=verdict.code,
        reason=row.reason,
        text=verdict.text,
        stage=row.stage,
        reply=row.reply,
        evidence=list(row.sender.evidence),
        connection=dict(row.log),
        findings=findings,
        facts=facts,
    )


def observed(packed: bytes) -> tuple[dict[str, Any], list[Any]]:
    """Return the facts and findings a verdict was made of; empty once they were deleted."""
    if not packed:
        return {}, []
    try:
        found = frames.unpack(packed, dict[str, Any])
    except frames.Torn:
        return {}, []
    facts, findings = found.get("facts"), found.get("findings")
    return (
        facts if isinstance(facts, dict) else {},
        findings if isinstance(findings, list) else [],
    )


def _recipient(row: RecipientRow) -> RecipientShown:
    due = row.next_attempt_at_us if row.state == "queued" else None
    return RecipientShown(row.address, row.state, utc(due), row.reply, row.tries, row.in_hand)


def _steps(row: MessageRow, steps: Sequence[Step]) -> Iterator[Detail]:
    """Yield the steps flat, each with when, what, and of which recipient."""
    names = {one.recipient: one.address for one in row.recipients}
    if row.state == "refused" and not steps:
        yield {"at": utc(row.accepted_at_us), "step": "refused", "stage": row.stage,
               "reply": row.reply}  # fmt: skip
    for step in sorted(steps, key=lambda s: s.number):
        shown: Detail = {"at": utc(step.at_us), "step": step.step}
        if step.recipient:
            shown["recipient"] = names.get(step.recipient, str(step.recipient))
        for key, value in step.detail.items():
            if key in _OURS or value is None:
                continue
            if key.endswith("_at_us"):
                shown[key.removesuffix("_us")] = utc(int(value))
            elif key != "at_us":  # the worker's clock; `at` is the commit's
                shown[key] = value
        yield shown
