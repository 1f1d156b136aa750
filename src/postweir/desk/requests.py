"""An operator's wish: written as a numbered row, seen by every shard within a second."""

import asyncio
import time

from postweir.desk import names
from postweir.desk.ports import Misused, Office
from postweir.runtime import frames
from postweir.runtime.frames import Struct
from postweir.spool.ports import ShardStatus

SEEN_S = 1.0  # how long a command waits to see its effect
LOOK_S = 0.05


class Done(Struct, frozen=True):
    """What became of a request so far."""

    number: int
    verb: str
    scope: str
    waiting: list[int] = []  # shards that have not done it yet


def scope_of(*, account: str = "", sender: str = "", domain: str = "") -> str:
    """Return the one scope that was named. Raises Misused."""
    given = [(k, v) for k, v in (("account", account), ("sender", sender), ("domain", domain)) if v]
    if len(given) != 1:
        raise Misused("name exactly one of --account, --sender, --domain")
    kind, value = given[0]
    checked = {
        "account": names.account_name, "sender": names.sender_key, "domain": names.domain,
    }[kind](value)  # fmt: skip
    return f"{kind}={checked}"


async def put(
    office: Office, verb: str, scope: str, reason: str, *, until_us: int | None = None
) -> Done:
    """Write a request, wake the shards, and wait a second at most to see it done."""
    note = office.note(f"request {verb}", scope, names.reason(reason))
    number = await asyncio.to_thread(office.tables.request, verb, scope, note, until_us)
    await office.shards.wake()
    down: list[int] = []
    waiting = list(office.shards.numbers)
    until = time.monotonic() + SEEN_S
    while True:
        seen = await asyncio.gather(*(_done(office, shard) for shard in waiting))
        answers = list(zip(waiting, seen, strict=True))
        down += [shard for shard, done in answers if done is None]
        waiting = [shard for shard, done in answers if done is not None and done < number]
        if not waiting or time.monotonic() > until:
            return Done(number, verb, scope, sorted(down + waiting))
        await asyncio.sleep(LOOK_S)


async def _done(office: Office, shard: int) -> int | None:
    """Return the last request a living shard has done; None: it is down, so it will wait."""
    try:
        found = await office.shards.read(shard, "status", "", 0, 1)
        return frames.unpack(found.rows[0], ShardStatus).request_done
    except (ConnectionError, IndexError, frames.Torn):
        return None
