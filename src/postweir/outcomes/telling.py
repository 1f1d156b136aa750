"""A message's life in sentences, for a person who asks what became of it."""

from collections.abc import Collection, Iterator
from typing import Any

from postweir.outcomes.journal import Detail, FindingShown, Timeline

Line = tuple[str, str]  # when, what
FINDINGS_MAX = 20  # the rest is in --json
DETAIL = "  "  # a line that begins so says more of the one above it
PENDING = {  # why there is no verdict yet
    "late": "the judge did not answer within judge.wait_ms",
    "busy": "the judge had too much to do",
    "scan": "not all of it could be looked at within judge.scan_ms",
    "engine": "no policy worker answered in time",
    "loading": "the policy was being loaded",
    "off": "an operator had switched the engine off",
    "gone": "its body could not be read by the judge",
    "breaker": "the judge had shown no sign of life, and was not asked",
    "silent": "the judge showed no sign of life",
    "down": "no judge ran",
    "large": "it is too large to be judged while the sender waits",
}
_GREETING = ("helo",)  # of a connection, what stands in its first line


def heading(told: Timeline) -> list[tuple[str, str]]:
    """Return what stands above the story: names and values."""
    found = [
        ("message", told.id),
        ("state", told.state + _for_now(told)),
        ("account", told.account),
        ("sender", told.sender),
        ("from", f"<{told.mail_from}>"),
    ]
    if told.state != "refused":  # of a refusal no body is kept
        found.append(("size", f"{told.bytes} bytes"))
    if told.header:
        found.append(("header", told.header))
    if told.pool:
        found.append(("pool", told.pool))
    if told.lifetime_s:
        found.append(("lifetime", span(told.lifetime_s)))
    if told.expires_at:
        found.append(("expires at", f"{moment(told.expires_at)}: refused, unless it is released"))
    if told.origin not in ("", "smtp"):
        found.insert(2, ("origin", told.origin))
    return found


def story(told: Timeline) -> list[Line]:
    """Return the lines of the timeline, in the order things happened."""
    first = told.steps[0]["at"] if told.steps else told.accepted_at
    lines = [(clock(first), text) for text in _before(told)]
    for step in told.steps:
        lines += [(clock(step["at"]), text) for text in _sentences(told, step)]
    return lines


def clock(at: Any) -> str:
    """Return an ISO time as people read it, to the millisecond; Z says that it is UTC."""
    return f"{str(at)[:23].replace('T', ' ')}Z" if at else ""


def moment(at: Any) -> str:
    """Return an ISO time as people read it, to the second."""
    return f"{str(at)[:19].replace('T', ' ')}Z" if at else ""


def span(seconds: int) -> str:
    """Return a time as people say it: in the largest unit that it is a whole number of."""
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size} {unit}" + ("s" if seconds != size else "")
    return f"{seconds} s"


def _for_now(told: Timeline) -> str:
    """Say of a 4xx that it is not the last word."""
    return ", for now: its server tries again" if told.reply.startswith("4") else ""


def _before(told: Timeline) -> Iterator[str]:
    """Yield what was known before the message was taken or refused."""
    if told.client:
        yield f"connection from {told.client}" + _connection(told.connection, _GREETING)
        rest = [key for key in told.connection if key not in _GREETING]
        if more := _connection(told.connection, rest):
            yield DETAIL + more.removeprefix(", ")
    yield f"sender {told.sender}"
    for source, said in told.evidence:
        yield f"{DETAIL}{source} said {said!r}" if said else DETAIL + source
    for finding in told.findings[:FINDINGS_MAX]:
        yield f"finding {describe(finding)}"
    if len(told.findings) > FINDINGS_MAX:
        yield f"  and {len(told.findings) - FINDINGS_MAX} findings more"
    if told.verdict and not any(step["step"] == "judged" for step in told.steps):
        yield _verdict(told)


def _connection(log: dict[str, str], keys: Collection[str]) -> str:
    return "".join(f", {key} {log[key]}" for key in keys if log.get(key))


def _verdict(told: Timeline) -> str:
    words = f"verdict {told.verdict}"
    if told.rule:
        words += f" by rule {told.rule}"
    if told.policy:
        words += f" of {told.policy[:16]}"
    if told.code or told.text:
        words += f": {f'[{told.code}] ' if told.code else ''}{told.text}"
    return words.rstrip()


def describe(finding: FindingShown) -> str:
    """Return one finding as words; a form this version does not know, as it was recorded."""
    if not finding.kind:
        return finding.what
    by = f"{finding.scanner} {finding.version}".strip()
    return f"{finding.kind}: {finding.what} ({by}, certainty {finding.certainty:g})"


def _sentences(told: Timeline, step: Detail) -> Iterator[str]:
    kind = step["step"]
    match kind:
        case "accepted":
            yield f"accepted for {_count(step)}: safe in shard {told.shard}, {step.get('state')}"
            if told.reason:
                yield f"  {PENDING.get(told.reason, told.reason)}"
            if step.get("expires_at"):
                yield f"  until {moment(step['expires_at'])}, unless it is released"
            if step.get("possible_duplicate_of"):
                yield f"  possible duplicate: it came before as {step['possible_duplicate_of']}"
        case "refused" if "stage" in step:
            yield f"refused at {step['stage']}: {step.get('reply', '')}"
        case "attempt" | "delivered" | "bounced" | "deferred":
            yield _attempt(step)
            yield from _circumstances(step)
        case "judged":
            yield _judged(step)
        case "bounce_sent":
            yield f"the sender was told, in message {step.get('bounce', '')}"
        case "bounce_capped":
            yield f"no bounce: the account's {step.get('cap')} of this hour are used up"
        case _:
            yield _other(step)


def _count(step: Detail) -> str:
    count = step.get("recipients", 0)
    return "1 recipient" if count == 1 else f"{count} recipients"


def _attempt(step: Detail) -> str:
    fate = {"attempt": "not yet delivered to", "deferred": "not yet delivered to",
            "delivered": "delivered to", "bounced": "bounced for"}  # fmt: skip
    number = f" (attempt {step['attempt']})" if "attempt" in step else ""
    late = f", but it had ended before: {step['late']}" if "late" in step else ""
    return f"{fate[step['step']]} {step.get('recipient', '')}{number}{late}"


def _circumstances(step: Detail) -> Iterator[str]:
    route = [f"{word} {step[key]}" for word, key in (("from", "source"), ("to", "peer"))
             if step.get(key)]  # fmt: skip
    if route:
        # Without a source of ours nobody was reached, and TLS is no question.
        tls = f", {step.get('tls') or 'no TLS'}" if step.get("source") else ""
        yield f"  {' '.join(route)}{tls}"
    if step.get("reply"):
        yield f"  {step['reply']}"
    if step.get("next_at"):
        yield f"  next attempt {moment(step['next_at'])}"
    if step.get("possible_duplicate"):
        yield "  possible duplicate"


def _judged(step: Detail) -> str:
    rule = f" by rule {step['rule']}" if step.get("rule") else ""
    to = {"judged": "queued"}.get(step.get("to", ""), step.get("to", ""))
    policy = f" of {str(step['policy'])[:16]}" if step.get("policy") else ""
    more = "".join(f", {word} {step[word]}" for word in ("header", "pool") if step.get(word))
    if step.get("expires_at"):
        more += f" until {moment(step['expires_at'])}"
    return f"judged late: {step.get('verb', '')}{rule}{policy}; {to}{more}".rstrip("; ")


def _other(step: Detail) -> str:
    known = ("at", "step", "recipient", "by", "reason", "request")
    words = str(step["step"])
    if step.get("recipient"):
        words += f" {step['recipient']}"
    if step.get("by"):
        words += f" by {step['by']}"
    if step.get("reason"):
        words += f": {step['reason']}"
    rest = " ".join(f"{k}={v}" for k, v in step.items() if k not in known and v != "")
    return f"{words} ({rest})" if rest else words
