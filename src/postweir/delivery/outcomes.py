"""What one attempt at one recipient came to: the outcome that the shard commits."""

from collections.abc import Sequence

from postweir.delivery.retry import next_wait_s
from postweir.mail.reply import Reply
from postweir.spool.handing import Handed
from postweir.spool.ports import Settle

REPLY_CHARS_MAX = 1000  # kept of a remote's reply; the longest honest ones have about 500


def outcome(
    handed: Handed,
    reply: Reply,
    *,
    waits_s: Sequence[float],
    now_s: float,
    at_us: int,
    jitter: float,
    source: str,
    peer: str,
    tls: str,
    site: str,
) -> Settle:
    """Judge a reply by its first digit, and a refusal that may pass by the time that is left."""
    out = handed.out
    what, retry_in_s, told = "failed", None, short(reply)
    if reply.accepted:
        what = "delivered"
    elif reply.transient:
        retry_in_s = next_wait_s(
            waits_s, tries=out.tries, age_s=handed.age_s(now_s), lifetime_s=out.lifetime_s,
            may_expire=out.may_expire, jitter=jitter,
        )  # fmt: skip
        if retry_in_s is None:
            told = expired(reply, out.lifetime_s)
        else:
            what = "deferred"
    return Settle(
        out.recipient, out.attempt, at_us, what, retry_in_s, told, source, peer, tls, site
    )


def expired(last: Reply, lifetime_s: int) -> Reply:
    """Return what is told when the lifetime is over: RFC 3463 4.4.7, with the last reply."""
    hours = lifetime_s / 3600
    told = f"{hours:.0f} hours" if hours >= 1 else f"{lifetime_s} seconds"
    words = f"Not delivered within {told}; the last answer was: {short(last)}"
    return short(Reply(451, "4.4.7", words))


def short(reply: Reply) -> Reply:
    """Return a reply of bounded length on one line."""
    text = reply.text.replace("\n", " ")
    if text == reply.text and len(text) <= REPLY_CHARS_MAX:
        return reply
    return Reply(reply.code, reply.status, text[:REPLY_CHARS_MAX])
