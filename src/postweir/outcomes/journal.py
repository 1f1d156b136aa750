"""One message's whole life, told from its row and its steps."""

import datetime
from collections.abc import Iterator, Sequence
from typing import Any

from postweir.mail.headers import written
from postweir.policy.verdict import Verdict
from postweir.runtime import frames
from postweir.runtime.frames import Struct
from postweir.spool.ports import MessageRow, RecipientRow, Step

Detail = dict[str, Any]
DAY_US = 86_400 * 1_000_000
_OURS = ("at", "step", "recipient")  # what a step's own detail may not replace


class RecipientShown(Struct, frozen=True):
    """A recipient as `message show` gives it."""

    address: str
    state: str
    next_attempt_at: str | None
    reply: str
    tries: int = 0
    in_hand: bool = False


class FindingShown(Struct, frozen=True):
    """What a scanner saw, as `message show` gives it; each is "" or 0 when it was not recorded."""

    scanner: str
    kind: str
    what: str
    certainty: float
    version: str


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
    findings: list[FindingShown] = []
    facts: dict[str, Any] = {}
    header: str = ""  # the field that a verdict put before it
    pool: str = ""  # which of our addresses it leaves by; "": any
    lifetime_s: int = 0  # how long each recipient is tried; 0 for a refusal
    expires_at: str | None = None  # when it is refused, if it is held until then


def utc(at_us: int | None) -> str | None:
    """Return a time as ISO 8601 with microseconds, None for none."""
    if at_us is None:
        return None
    seconds, microseconds = divmod(at_us, 1_000_000)
    at = datetime.datetime.fromtimestamp(seconds, datetime.UTC).replace(microsecond=microseconds)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def timeline(row: MessageRow, steps: Sequence[Step], *, hold_days: int = 0) -> Timeline:
    """Return a message's life from its row and its steps, oldest first.

    `hold_days` is how long what no verdict says more of is held; 0: nobody knows.
    """
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
        header=(written(verdict.header) or b"").decode().rstrip() if verdict.header else "",
        pool=row.pool,
        lifetime_s=row.lifetime_s,
        expires_at=utc(_expires_at_us(row, hold_days)),
    )


def _expires_at_us(row: MessageRow, hold_days: int) -> int | None:
    if row.hold_until_us is not None or row.held_at_us is None or not hold_days:
        return row.hold_until_us
    return row.held_at_us + hold_days * DAY_US


def observed(packed: bytes) -> tuple[dict[str, Any], list[FindingShown]]:
    """Return the facts and findings a verdict was made of; empty once they were deleted."""
    if not packed:
        return {}, []
    try:
        found = frames.unpack(packed, dict[str, Any])
    except frames.Torn:
        return {}, []
    facts, findings = found.get("facts"), found.get("findings")
    derived = found.get("derived", {})  # what the policy's own sets and patterns said
    return (
        {**facts, **derived} if isinstance(facts, dict) else {},
        named(findings) if isinstance(findings, list) else [],
    )


def named(findings: Sequence[Any]) -> list[FindingShown]:
    """Return findings as they were recorded, with names; a form we do not know, as one text."""
    return [_named(one) for one in findings]


def _named(finding: Any) -> FindingShown:
    match finding:
        case [str(scanner), str(kind), str(what), int() | float() as certainty, str(version)]:
            return FindingShown(scanner, kind, what, certainty, version)
        case list():
            words = " ".join(str(part) for part in finding if part != "")
            return FindingShown("", "", words, 0.0, "")
        case _:
            return FindingShown("", "", str(finding), 0.0, "")


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
