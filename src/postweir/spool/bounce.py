"""Bounces of our own: for whom there is one, and the message it is."""

import hashlib

from postweir.identity.sender import Sender
from postweir.mail.envelope import Envelope
from postweir.mail.reply import Reply
from postweir.mail.reports import Failure, dsn
from postweir.policy.verdict import Verdict
from postweir.runtime.frames import Value
from postweir.spool.ports import Accept

ACCOUNT = "-"  # the ledger's line for what we send ourselves
LIFETIME_S = 48 * 3600  # a bounce nobody takes for two days tells nobody anything
HOUR_US = 3600 * 1_000_000
HEADER_BYTES_MAX = 64 * 1024  # of the original, read for the report; the report bounds it again


class Original(Value, frozen=True):
    """What a bounce must know of the message it is about."""

    message: str
    origin: str
    account: str
    mail_from: str
    return_path: str
    accepted_at_us: int
    bounces_1h_max: int


def bounce_to(original: Original) -> str:
    """Return who is told, "" when nobody may be: a null sender, or a bounce of our own."""
    if original.origin == "dsn" or not original.mail_from:
        return ""
    return original.return_path or original.mail_from


def failure(address: str, reply: Reply, peer: str) -> Failure:
    """Return one recipient's line of the report."""
    return Failure(address, reply.status or f"{reply.code // 100}.0.0", str(reply), peer)


def bounce(
    original: Original,
    failures: list[Failure],
    *,
    id: str,
    hostname: str,
    at_us: int,
    header: bytes,
) -> Accept:
    """Return the bounce as a message that we accept from ourselves: never judged, no bounce."""
    to = bounce_to(original)
    assert to
    body = dsn(
        id=id,
        hostname=hostname,
        to=to,
        original_id=original.message,
        arrived_at_s=original.accepted_at_us / 1e6,
        at_s=at_us / 1e6,
        failures=failures,
        original_header=header,
    )
    return Accept(
        ask=0,
        message=id,
        by_ns=0,
        origin="dsn",
        envelope=Envelope("", (to,), hostname),
        sender=Sender(ACCOUNT, "dsn", hostname),
        client="",
        tls=False,
        added=b"",
        body=body,
        body_file=None,
        length=len(body),
        check=hashlib.blake2b(body, digest_size=16).digest(),
        verdict=Verdict("accept"),
        reason="",
        facts=b"",
        lifetime_s=LIFETIME_S,
        bounces_1h_max=0,
    )
