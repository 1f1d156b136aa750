"""From one question and what the scanners saw to the facts that rules look at."""

from collections.abc import Collection, Sequence

from postweir.judge.ports import Ask
from postweir.mail.address import domain_of
from postweir.mail.message import Message
from postweir.mail.received import loops
from postweir.policy.evaluation import Evaluated
from postweir.policy.facts import SCHEMA_HASH, Facts, said
from postweir.policy.verdict import Fact
from postweir.runtime import frames
from postweir.scan.finding import Finding
from postweir.scan.panel import Examined


def gather(ask: Ask, examined: Examined, *, hostname: str) -> Facts:
    """Return what is known of a message but of who sent it, which `standing` has.

    What is neutral is left out: most of it, for most messages.
    """
    facts: dict[str, Fact] = {
        "connection.client": ask.client,
        "connection.helo": ask.envelope.helo,
        "connection.tls": ask.tls,
        "connection.authenticated": ask.authenticated,
        "message.loops": ask.loops,
    }
    facts |= _of_envelope(ask)
    facts |= _of_findings(examined.findings)
    facts |= examined.measures
    from_domain, envelope = facts.get("header.from_domain"), facts["envelope.from_domain"]
    if isinstance(from_domain, str) and isinstance(envelope, str):
        facts["header.from_is_envelope"] = _is_envelope(from_domain, envelope)
    if examined.message is not None:
        facts |= _of_message(examined.message)
        # A message that is judged later comes without the edge's count.
        facts["message.loops"] = max(ask.loops, loops(examined.message.fields, hostname))
    return said(facts)


def record(
    telling: Facts,
    findings: Sequence[Finding],
    evaluated: Evaluated | None,
    *,
    policy: str,
    killed: Collection[str] = (),
    off: bool = False,
) -> bytes:
    """Return what the verdict can be repeated from, packed: the facts that say something.

    Those left out were neutral in the schema that is named. `policy` was asked, or would have been.
    """
    kept: dict[str, object] = {
        "schema": SCHEMA_HASH, "facts": telling, "findings": findings, "policy": policy,
    }  # fmt: skip
    if evaluated is not None:
        for name in ("derived", "errors", "shadow"):
            if found := getattr(evaluated, name):
                kept[name] = found
    else:
        kept["engine"] = "off" if off else "silent"
    if killed:
        kept["killed"] = sorted(killed)
    return frames.pack(kept)


def _of_envelope(ask: Ask) -> dict[str, Fact]:
    envelope = ask.envelope
    return {
        "envelope.recipients": len(envelope.recipients),
        "envelope.recipient_domains": list(dict.fromkeys(map(domain_of, envelope.recipients))),
        "envelope.null_sender": not envelope.mail_from,
        "envelope.from_domain": domain_of(envelope.mail_from),
    }


def _of_findings(findings: Sequence[Finding]) -> dict[str, Fact]:
    if not findings:
        return {}
    sure = {"spam": 0.0, "phishing": 0.0}
    kinds = set()
    for finding in findings:
        kinds.add(finding.kind)
        if finding.kind in sure:
            sure[finding.kind] = max(sure[finding.kind], finding.certainty)
    return {
        "findings.spam": sure["spam"],
        "findings.phishing": sure["phishing"],
        "findings.virus": "virus" in kinds,
        "findings.url_listed": "url_listed" in kinds,
        "findings.attachment_dangerous": "attachment_dangerous" in kinds,
        "findings.attachment_encrypted": "attachment_encrypted" in kinds,
        "findings.unavailable": sum(finding.kind == "unavailable" for finding in findings),
    }


def _of_message(message: Message) -> dict[str, Fact]:
    return {
        "body.bytes": len(message.data),
        "body.parts": len(message.parts),
        "body.attachments": sum(
            not part.container and (bool(part.names) or part.disposition == "attachment")
            for part in message.parts
        ),
        "body.anomalies": list(message.anomalies),
    }


def _is_envelope(from_domain: str, envelope: str) -> bool:
    """True when the domain in From is the envelope's, or above or below it."""
    if not from_domain or not envelope:
        return False
    return (
        from_domain == envelope
        or from_domain.endswith("." + envelope)
        or envelope.endswith("." + from_domain)
    )
