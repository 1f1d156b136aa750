"""What a judge reads of a shard to know its levels again: messages that count, and their ends.

Two cursors: the steps, for what was taken and what became of it, and the refusals. A message that
was pending counts at the step that judged it, so that a cursor never passes it too early.
"""

from collections.abc import Callable, Sequence
from typing import Any

from postweir.judge.ports import Used
from postweir.mail.address import domain_of
from postweir.runtime.frames import Torn, from_json, unpack
from postweir.spool.ports import Reached, Refusal
from postweir.spool.states import recipients_of
from postweir.storage.spool_schema import first, rows
from postweir.storage.sqlite import Connection

ADDRESSES_MAX = 100  # of a message, as many as judges look at (judge/counters.py)
Before = Callable[[str, str, int], int]  # (table, column of time, since_us): a row before all those

_ENDS = "'delivered', 'bounced'"
_ALL = f"'accepted', 'judged', {_ENDS}"
_COLUMNS = (
    "s.at, s.msg, s.kind, s.detail, m.name, m.accepted_at, m.account, m.sender, m.recipients,"
    " m.size, m.mail_from"
)


def usage(
    db: Connection, before: Before, *, since_us: int, whole: bool, after: int, count_max: int
) -> list[Reached | Used]:
    """Return where it was read to, and what these steps say; not `whole`: only of ends."""
    last = _last(db, "step")
    if after == 0 or after > last:
        after = min(before("step", "at", since_us), last)
    found = first(
        db,
        "SELECT max(id) FROM (SELECT id FROM step WHERE id > ? ORDER BY id LIMIT ?)",
        (after, count_max),
    )
    until = found[0] if found and found[0] is not None else after
    steps = rows(
        db,
        f"SELECT {_COLUMNS} FROM step s CROSS JOIN msg m ON m.id = s.msg"  # noqa: S608
        " WHERE s.id > ? AND s.id <= ? AND m.origin = 'smtp'"
        f" AND s.kind IN ({_ALL if whole else _ENDS}) ORDER BY s.id",
        (after, until),
    )
    told = (_used(db, row, from_json(row[3], dict[str, Any])) for row in steps)
    return [Reached(until, last), *(one for one in told if one is not None)]


def turned(
    db: Connection, before: Before, *, since_us: int, whole: bool, after: int, count_max: int
) -> list[Reached | Used]:
    """Return where it was read to, and messages that were judged and refused."""
    last = _last(db, "refusal")
    if not whole:
        return [Reached(last, last)]
    if after == 0 or after > last:
        after = min(before("refusal", "at", since_us), last)
    found = rows(
        db,
        "SELECT id, at, counted, data FROM refusal WHERE id > ? ORDER BY id LIMIT ?",
        (after, count_max),
    )
    until = found[-1][0] if found else after
    told = (
        _refused(db, number, at_us, unpack(data, Refusal))
        for number, at_us, counted, data in found
        if counted
    )
    return [Reached(until, last), *(one for one in told if one is not None)]


def _used(db: Connection, row: Sequence[Any], detail: dict[str, Any]) -> Used | None:
    at_us, number, kind, _, name, accepted_at, account, sender, recipients, size, mail_from = row
    if kind == "delivered":
        return Used(kind, at_us, account, sender, name)
    if kind == "bounced":
        said = str(detail.get("reply", ""))
        if not said.startswith("5"):  # its time was over, or nobody answered
            return None
        unknown = said.split(" ", 2)[1:2] == ["5.1.1"]
        return Used("unknown" if unknown else kind, at_us, account, sender, name)
    if kind == "accepted" and detail.get("state") == "pending":
        return None  # it counts when it is judged
    addresses = rows(
        db, "SELECT address FROM rcpt WHERE id BETWEEN ? AND ? LIMIT ?",
        (*recipients_of(number), ADDRESSES_MAX),
    )  # fmt: skip
    mail = "held" not in (detail.get("state"), detail.get("to"))  # else it says nothing of domains
    return Used(
        "accepted", accepted_at, account, sender, name, recipients or len(addresses), size,
        [address for (address,) in addresses],
        str(_facts(db, number, b"").get("header.from_domain", "")) if mail else "",
        domain_of(mail_from) if mail else "",
    )  # fmt: skip


def _refused(db: Connection, number: int, at_us: int, r: Refusal) -> Used | None:
    if r.stage != "verdict" or r.verdict is None or r.verdict.verb != "refuse":
        return None  # never judged; or put off: it was taken off the levels, and comes again
    to, size = r.envelope.recipients, _facts(db, number, r.facts).get("body.bytes", 0)
    return Used(
        "refused", at_us, r.sender.account, r.sender.key, r.message, len(to),
        size if isinstance(size, int) else 0, list(to[:ADDRESSES_MAX]),
    )  # fmt: skip


def _facts(db: Connection, number: int, inline: bytes) -> dict[str, Any]:
    """Return what a verdict was made of, while that is kept."""
    found = None if inline else first(db, "SELECT data FROM facts WHERE id = ?", (number,))
    try:
        kept = unpack(inline or (found[0] if found else b"\x80"), dict[str, Any])
    except Torn:
        return {}
    facts = kept.get("facts")
    return facts if isinstance(facts, dict) else {}


def _last(db: Connection, table: str) -> int:
    found = first(db, f"SELECT max(id) FROM {table}")  # noqa: S608
    return found[0] or 0 if found else 0
