"""One message: what became of it, and what an operator may do to it."""

import asyncio
import time

from postweir.desk import names, reading, requests
from postweir.desk.ports import Missing, Misused, Office, Unreadable
from postweir.outcomes import journal
from postweir.outcomes.journal import Timeline
from postweir.runtime.frames import Struct
from postweir.spool.ports import MessageRow, Step

FRESH_S = 5.0  # a refusal is written after its reply: a young id is looked for again
PATIENCE_S = 1.0
LOOK_S = 0.1
Found = tuple[MessageRow, list[Step]]
OPEN = ("queued", "held", "pending")


class Changed(Struct, frozen=True):
    """What a verb does, or would do, to one message."""

    id: str
    verb: str
    recipients: int  # that it concerns
    dry_run: bool = False
    number: int = 0  # of the request
    waiting: list[int] = []  # shards that have not done it yet


async def show(office: Office, id: str) -> Timeline:
    """Return a message's life. Raises Missing, Misused, Unreadable."""
    row, steps = await find(office, id)
    return journal.timeline(row, steps, hold_days=office.settings.spool.hold_days)


async def find(office: Office, id: str) -> Found:
    """Return a message's row and steps, whichever shard has it.

    Raises Missing, Misused; Unreadable when it may be in a shard that cannot be read.
    """
    names.message_id(id)
    until = time.monotonic() + (PATIENCE_S if _fresh(office, id) else 0.0)
    while True:
        found = await asyncio.gather(
            *(_look(office, shard, id) for shard in office.shards.numbers), return_exceptions=True
        )
        for one in found:
            if one is not None and not isinstance(one, BaseException):
                return one
        for one in found:
            if isinstance(one, BaseException):
                raise one
        if time.monotonic() >= until:
            days = office.settings.spool.journal_days
            raise Missing(f"there is no message {id}; the record goes back {days} days")
        await asyncio.sleep(LOOK_S)


async def change(
    office: Office, verb: str, id: str, *, reason: str, dry_run: bool = False
) -> Changed:
    """Release, retry or drop one message. Raises Missing, Misused, Unreadable."""
    row = await _before(office, id)
    concerned = [r for r in row.recipients if r.state in OPEN] if row else []
    if row is not None:
        _fitting(verb, row, len(concerned))
    if verb == "drop" and not dry_run:
        why(reason)
    if dry_run:
        return Changed(id, verb, len(concerned), dry_run=True)
    done = await requests.put(office, verb, id, reason)
    return Changed(id, verb, len(concerned), number=done.number, waiting=done.waiting)


def why(reason: str) -> None:
    """Raise Misused when what destroys comes without a reason."""
    if not reason:
        raise Misused("say why with --reason TEXT: this cannot be undone")


async def _before(office: Office, id: str) -> MessageRow | None:
    """Return the row; None when it may be in a shard that cannot be read: the request waits."""
    try:
        row, _ = await find(office, id)
    except Unreadable:
        return None
    return row


def _fitting(verb: str, row: MessageRow, count: int) -> None:
    if row.state == "refused":
        raise Missing(f"{row.id} was refused: it was never ours, and its sender knows")
    if verb == "release" and row.state != "held":
        raise Missing(f"{row.id} is not held but {row.state}")
    if not count:
        raise Missing(f"{row.id} has ended for all its recipients")


async def _look(office: Office, shard: int, id: str) -> Found | None:
    """Return what one shard knows: the message comes first, then its steps."""
    row: MessageRow | None = None
    steps: list[Step] = []
    async for packed in reading.packed(office, shard, "message", id):
        if row is None:
            row = reading.opened(shard, packed, MessageRow)
        else:
            steps.append(reading.opened(shard, packed, Step))
    return None if row is None else (row, steps)


def _fresh(office: Office, id: str) -> bool:
    """True for an id made a moment ago: its time stands in it."""
    at_ms = int(id, 32) >> 32
    return abs(office.now_us() // 1000 - at_ms) < FRESH_S * 1000
