"""What a message and a recipient may become: two tables, and every change is in them.

A message is ours from the commit before its 250 until each of its recipients has ended. It is
one of

    JUDGED   its queued recipients are due, each at its own time
    PENDING  accepted and safe, not judged yet: nothing of it is delivered
    HELD     an operator (or the end of hold_days) decides: nothing of it is delivered
    SETTLED  every recipient has ended; only the record is left

and each recipient is QUEUED until it is DELIVERED, BOUNCED, REFUSED or DROPPED, and then never
again anything else. "Being sent" is no state: it is memory of the shard, lost with it, so that a
recipient whose worker or shard died is simply due again.

Rules of this file:

* A change that is not in a table does not happen. Both stores ask here before they write, and
  assert that the row they wrote was in the state they had asked about.
* Whoever is late finds an end and changes nothing: an outcome for a recipient that was dropped
  meanwhile, a verdict for a message that was dropped, the same outcome a second time. So every
  change can be done twice.
* `accepted = delivered + bounced + refused + dropped + held + queued + pending` holds because a
  recipient enters by one counter, in the commit of the accept, and leaves by one counter, in the
  commit that makes it end. Between the two it is counted as a row, under its message's state.
"""

import zlib
from enum import IntEnum

from postweir.policy.verdict import Verdict
from postweir.spool.ports import BUCKETS, LANES


class MessageState(IntEnum):
    """The numbers stand in the files: never renumber."""

    JUDGED = 0
    PENDING = 1
    HELD = 2
    SETTLED = 3


class RecipientState(IntEnum):
    """The numbers stand in the files: never renumber."""

    QUEUED = 0
    DELIVERED = 1
    BOUNCED = 2
    REFUSED = 3
    DROPPED = 4


_J, _P, _H, _S = MessageState

# cause: (states it may find, state it leaves)
MESSAGE: dict[str, tuple[frozenset[MessageState], MessageState]] = {
    "judged": (frozenset({_P}), _J),  # a late verdict that takes the mail
    "held": (frozenset({_P}), _H),  # a late verdict: hold, or refuse where refused mail is held
    "released": (frozenset({_H}), _J),  # by an operator
    "quarantined": (frozenset({_J, _P}), _H),  # its body is not what we had accepted
    # Its last recipient has ended. From HELD too: what was in hand when a message was quarantined
    # may still be delivered, and pending or held mail may be dropped or refused.
    "settled": (frozenset({_J, _P, _H}), _S),
}

# cause: (state it leaves, counter of the ledger or "")
RECIPIENT: dict[str, tuple[RecipientState, str]] = {
    "delivered": (RecipientState.DELIVERED, "delivered"),
    "deferred": (RecipientState.QUEUED, ""),
    "failed": (RecipientState.BOUNCED, "bounced"),
    "refused": (RecipientState.REFUSED, "refused"),  # a late verdict, or a hold that expired
    "dropped": (RecipientState.DROPPED, "dropped"),  # by an operator
}
ENDS = ("delivered", "bounced", "refused", "dropped")  # the ledger's counters, beside `accepted`

# A verdict's own times, held to what an operator may set: a worker that errs binds nobody for ever.
LIFETIME_S_MIN, LIFETIME_S_MAX = 60, 30 * 86_400  # as an account may have
HOLD_S_MAX = 30 * 86_400
POOL_CHARS_MAX = 64


def message_after(cause: str, state: MessageState) -> MessageState | None:
    """Return what the message becomes, or None: nothing happens."""
    found, left = MESSAGE[cause]
    return left if state in found else None


def recipient_after(cause: str, state: RecipientState) -> RecipientState | None:
    """Return what the recipient becomes, or None: it has ended, nothing happens."""
    return RECIPIENT[cause][0] if state is RecipientState.QUEUED else None


def on_arrival(verdict: Verdict | None) -> MessageState | None:
    """Return the state a new message enters in; None: this verdict does not take mail."""
    if verdict is None:
        return MessageState.PENDING
    if not verdict.takes_mail:
        return None
    return MessageState.HELD if verdict.verb == "hold" else MessageState.JUDGED


def on_late_verdict(verdict: Verdict, *, late_refusal: str) -> str:
    """Return the cause: judged, held, refused (its recipients), or "": it stays pending.

    The sender was told 250, so a refusal is held for the operator, or bounced where the setting
    says so; it is never silently dropped.
    """
    if verdict.takes_mail:
        return "held" if verdict.verb == "hold" else "judged"
    if verdict.verb == "refuse":
        return "refused" if late_refusal == "bounce" else "held"
    return ""


def lifetime_of(verdict: Verdict | None, account_s: int) -> int:
    """Return how long each recipient is tried: as the verdict says, else as the account's is."""
    wanted_s = verdict.lifetime_s if verdict is not None else 0
    return min(max(wanted_s, LIFETIME_S_MIN), LIFETIME_S_MAX) if wanted_s > 0 else account_s


def pool_of(verdict: Verdict | None) -> str:
    """Return the pool of our addresses it is to leave by; "": any."""
    return verdict.pool[:POOL_CHARS_MAX] if verdict is not None else ""


def hold_s_of(verdict: Verdict | None) -> int:
    """Return after how long this hold expires by its verdict; 0: as the setting says."""
    if verdict is None or verdict.verb != "hold":
        return 0
    return min(max(verdict.hold_s, 0), HOLD_S_MAX)


def bucket_of(domain: str) -> int:
    """Return the slice of sites that a domain (or a site's name) belongs to."""
    return zlib.crc32(domain.encode()) % BUCKETS


def lane_of(sender_key: str) -> int:
    """Return the slice of senders: the backlog is read lane by lane, or one sender's goes first."""
    return zlib.crc32(sender_key.encode()) % LANES


RECIPIENT_BITS = 10  # 1,000 recipients a message at most; the row of one is message << 10 | n


def message_of(recipient: int) -> int:
    """Return the row of a recipient's message."""
    return recipient >> RECIPIENT_BITS


def recipients_of(message: int) -> tuple[int, int]:
    """Return the first and last row that a message's recipients may have."""
    return message << RECIPIENT_BITS, (message + 1 << RECIPIENT_BITS) - 1
