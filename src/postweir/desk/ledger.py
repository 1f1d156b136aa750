"""The audit: is everything we promised accounted for?"""

import asyncio
from collections.abc import Sequence

from postweir.desk import reading
from postweir.desk.ports import Office, Unreadable
from postweir.runtime.frames import Struct
from postweir.spool import audit as auditing
from postweir.spool.ports import Ledger


class Line(Struct, frozen=True):
    """A line of the ledger, in recipients."""

    accepted: int
    delivered: int
    bounced: int
    refused: int  # accepted first, then refused
    dropped: int
    held: int
    queued: int
    pending: int
    residual: int  # 0 or somebody is paged


class Audit(Line, frozen=True):
    """The ledger of all shards that could be read."""

    accounts: dict[str, Line]  # "-" are our own bounces
    unreadable: list[int]  # shards
    why: list[str]  # of the unreadable ones, and of the lines that do not close
    status: int  # the exit status: 0 it closes, 1 it does not, 2 not all could be read


async def audit(office: Office) -> Audit:
    """Return the ledger; what cannot be read is named, and the rest shown."""
    shards = list(office.shards.numbers)
    found = await asyncio.gather(*(_of(office, shard) for shard in shards))
    read = {s: None if isinstance(one, str) else one for s, one in zip(shards, found, strict=True)}
    made = auditing.audit(read)
    return Audit(
        **_counts(made.total),
        residual=made.residual,
        accounts={one.account: Line(**_counts(one), residual=one.residual) for one in made.lines},
        unreadable=made.unread,
        why=[
            *(one for one in found if isinstance(one, str)),
            *(f"shard {s}, account {o.account}: residual {o.residual}" for s, o in made.off),
        ],
        status=made.status,
    )


def _counts(line: Ledger) -> dict[str, int]:
    return {column: getattr(line, column) for column in auditing.COLUMNS}


async def _of(office: Office, shard: int) -> Sequence[Ledger] | str:
    try:
        return [line async for line in reading.rows(office, shard, "ledger", "", Ledger)]
    except Unreadable as fault:
        return str(fault)
