"""From one question and what the scanners saw to the facts that rules look at."""

from collections.abc import Sequence

from postweir.identity.sender import Account, Directory
from postweir.judge.counters import Level
from postweir.judge.ports import Ask
from postweir.mail.address import domain_of
from postweir.mail.message import Message
from postweir.mail.received import loops
from postweir.policy.facts import NUMBER_MAX, SCHEMA_HASH, Facts, total
from postweir.policy.verdict import Fact
from postweir.runtime import frames
from postweir.scan.finding import Finding
from postweir.scan.panel import Examined


def gather(
    ask: Ask,
    examined: Examined,
    *,
    directory: Directory,
    sender: Level,
    account: Level,
    known: bool,
    hostname: str,
) -> Facts:
    """Return all facts about a message."""
    facts: dict[str, Fact] = {
        "connection.client": ask.client,
        "connection.helo": ask.envelope.helo,
        "connection.tls": ask.tls,
        "connection.authenticated": ask.authenticated,
        "message.loops": ask.loops,
    }
    facts |= _of_envelope(ask)
    facts |= _of_sender(ask, directory)
    facts |= _of_usage(sender, account, known)
    facts |= _of_findings(examined.findings)
    if examined.message is not None:
        facts |= _of_message(examined.message)
        # A message that is judged later comes without the edge's count.
        facts["message.loops"] = max(ask.loops, loops(examined.message.fields, hostname))
    return total(facts)


def record(telling: Facts, findings: Sequence[Finding], errors: Sequence[str]) -> bytes:
    """Return what the verdict can be repeated from, packed: the facts that say something.

    Those left out were neutral in the schema that is named.
    """
    kept: dict[str, object] = {"schema": SCHEMA_HASH, "facts": telling}
    kept["findings"] = list(findings)
    if errors:
        kept["errors"] = list(errors)
    return frames.pack(kept)


def _of_envelope(ask: Ask) -> dict[str, Fact]:
    envelope = ask.envelope
    return {
        "envelope.recipients": len(envelope.recipients),
        "envelope.recipient_domains": list(dict.fromkeys(map(domain_of, envelope.recipients))),
        "envelope.null_sender": not envelope.mail_from,
        "envelope.from_domain": domain_of(envelope.mail_from),
    }


def _of_sender(ask: Ask, directory: Directory) -> dict[str, Fact]:
    decided = directory.senders.get(ask.sender.key)
    account = directory.accounts.get(ask.sender.account)
    return {
        "account.name": ask.sender.account,
        "sender.key": ask.sender.key,
        "sender.type": ask.sender.type,
        "sender.identity": ask.sender.identity,
        "sender.forwarded": ask.sender.type == "forwarded",
        "sender.state": decided.state if decided else "",
        "limit.sender_messages_1h": _limit(account),
    }


def _limit(account: Account | None) -> int:
    return account.sender_messages_1h if account else NUMBER_MAX


def _of_usage(sender: Level, account: Level, known: bool) -> dict[str, Fact]:
    levels: dict[str, Fact] = {"usage.known": known}
    for prefix, level in (("usage.", sender), ("usage.account_", account)):
        levels |= {prefix + name: value for name, value in level._asdict().items()}
    return levels


def _of_findings(findings: Sequence[Finding]) -> dict[str, Fact]:
    kinds = {finding.kind for finding in findings}
    return {
        "findings.spam": max((f.certainty for f in findings if f.kind == "spam"), default=0.0),
        "findings.url_listed": "url_listed" in kinds,
        "findings.attachment_dangerous": "attachment_dangerous" in kinds,
        "findings.attachment_encrypted": "attachment_encrypted" in kinds,
        "findings.unavailable": sum(f.kind == "unavailable" for f in findings),
    }


def _of_message(message: Message) -> dict[str, Fact]:
    named = {"from": 0, "subject": 0, "message-id": 0, "date": 0}
    values: dict[str, str] = {}
    for field in message.fields:
        if field.name in named:
            named[field.name] += 1
            values.setdefault(field.name, field.value)
    leaves = [part for part in message.parts if not part.container]
    return {
        "header.from_domain": _from_domain(values.get("from", "")),
        "header.from_count": named["from"],
        "header.subject_bytes": len(values.get("subject", "")),
        "header.message_id_present": bool(named["message-id"]),
        "header.date_present": bool(named["date"]),
        "body.known": True,
        "body.bytes": len(message.data),
        "body.parts": len(message.parts),
        "body.attachments": sum(bool(p.names) or p.disposition == "attachment" for p in leaves),
        "body.anomalies": list(message.anomalies),
    }


def _from_domain(value: str) -> str:
    """Return the domain of the last address in a From field, "" when there is none."""
    inner, found, _ = value.rpartition(">")
    address = inner.rpartition("<")[2] if found else value
    domain = address.rpartition("@")[2].strip(" \t.").lower() if "@" in address else ""
    good = all(c.isalnum() or c in "-._" for c in domain) and domain.isascii()
    return domain if good else ""
