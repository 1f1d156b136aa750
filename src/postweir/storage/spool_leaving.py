"""What of a shard's file is due, pending or leaving; read on the writer's own connection."""

import contextlib
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePath
from typing import Any

from postweir.identity.sender import Sender
from postweir.mail.address import domain_of
from postweir.mail.envelope import Envelope
from postweir.runtime.frames import from_json, json, unpack
from postweir.spool.ports import LANES, Accept, Away, Content, Out, Quarantine
from postweir.spool.states import recipients_of
from postweir.storage.spool_place import Place
from postweir.storage.spool_schema import first, rows
from postweir.storage.spool_seal import (
    OF_MESSAGE,
    address_sound,
    chosen,
    envelope_sound,
    headers_sound,
)
from postweir.storage.spool_values import Pauses
from postweir.storage.sqlite import Connection

LOOK_ROWS_MAX = 5000  # suspended ones passed over in one look at a lane: some 20 ms of the writer
DUE = (
    "SELECT id FROM rcpt INDEXED BY rcpt_due WHERE state = 0 AND waits = 0"
    " AND bucket = ? AND lane = ? AND due"
)
CONTENT = f"""
SELECT m.mail_from, b.added, b.data, m.body_file, m.size, m.digest, m.eight_bit, m.origin, m.pool,
       m.verdict_lifetime_s, m.seal, {OF_MESSAGE}
FROM msg m LEFT JOIN body b ON b.id = m.id WHERE m.name = ?
"""  # noqa: S608


@dataclass(slots=True)
class Due:
    """One look at a lane."""

    outs: list[Out] = field(default_factory=list)
    paused: list[int] = field(default_factory=list)  # recipients to be taken out of what is due
    damaged: list[Quarantine] = field(default_factory=list)  # found with these recipients
    more: bool = False  # so many were suspended that the look ended early


class Leaving:
    """Reads for one store.

    Due times are wall time, and nobody is told to wait longer than `longest_wait_us`: what is due
    later than that from now was put off while the clock stood wrong, and is due at once.
    """

    def __init__(
        self,
        connection: Connection,
        place: Place,
        pauses: Pauses,
        now_us: Callable[[], int],
        longest_wait_us: Callable[[], int],
    ) -> None:
        self._db, self._place, self._pauses, self._now_us = connection, place, pauses, now_us
        self._longest_wait_us = longest_wait_us

    def due(
        self, bucket: int, lane: int, until_us: int, out: AbstractSet[int], count_max: int
    ) -> Due:
        """Return recipients of this bucket and lane due by then and not in `out`, oldest first."""
        found = Due()
        misled_us = self._now_us() + self._longest_wait_us()
        waiting = (
            int(str(r))
            for comparison, at_us in ((" <= ? ORDER BY due", until_us), (" > ?", misled_us))
            for (r,) in self._db.execute(DUE + comparison, (bucket, lane, at_us))
            if r not in out
        )
        while wanted := list(islice(waiting, count_max - len(found.outs))):
            self._sort(wanted, found)
            if len(found.paused) >= LOOK_ROWS_MAX:
                found.more = True
                break
        waiting.close()
        return found

    def _sort(self, wanted: list[int], found: Due) -> None:
        now_us = self._now_us()
        for row in rows(
            self._db,
            "SELECT r.id, r.tries, m.name, m.sender, r.address, m.accepted_at, m.lifetime_s,"
            " m.verdict_lifetime_s, m.account, m.seal, r.seal"
            " FROM json_each(?) j CROSS JOIN rcpt r ON r.id = j.value"
            " CROSS JOIN msg m ON m.id = r.id >> 10",
            (json(wanted).decode(),),
        ):
            (recipient, tries, message, sender, address, accepted_at, lifetime_s, chosen_s, account,
             sealed, seal) = row  # fmt: skip
            if not address_sound(sealed, recipient, address, seal):
                found.damaged.append(Quarantine(message, "address"))
                continue
            if self._pauses.hold(account, sender, domain_of(address), now_us):
                found.paused.append(recipient)
                continue
            found.outs.append(
                Out(
                    recipient=recipient,
                    attempt=tries + 1,
                    message=message,
                    sender=sender,
                    address=address,
                    accepted_at_us=accepted_at,
                    age_s=max(0.0, (now_us - accepted_at) / 1e6),
                    tries=tries,
                    lifetime_s=chosen_s or lifetime_s,
                )
            )

    def next_due(self, bucket: int, lane: int, after_us: int) -> int | None:
        """Return when to look into this lane again: when its next one is due."""
        row = first(
            self._db,
            "SELECT due FROM rcpt INDEXED BY rcpt_due WHERE state = 0 AND waits = 0"
            " AND bucket = ? AND lane = ? AND due > ? ORDER BY due LIMIT 1",
            (bucket, lane, after_us),
        )
        return min(row[0], after_us + self._longest_wait_us()) if row else None

    def earliest(self) -> list[tuple[int, int, int]]:
        """Return the first due of every lane that has any, skipping from one to the next."""
        now_us = self._now_us()
        misled_us = now_us + self._longest_wait_us()
        found: list[tuple[int, int, int]] = []
        bucket, lane = 0, -1
        while True:
            row = first(
                self._db,
                "SELECT bucket, lane, due FROM rcpt INDEXED BY rcpt_due"
                " WHERE state = 0 AND waits = 0 AND (bucket, lane) > (?, ?)"
                " ORDER BY bucket, lane, due LIMIT 1",
                (bucket, lane),
            )
            if row is None:
                return found
            found.append((row[0], row[1], row[2] if row[2] <= misled_us else now_us))
            bucket, lane = row[0], row[1]
            assert lane < LANES

    def content(self, message: str) -> Content | Quarantine | None:
        """Return what leaves, or what is wrong with it; None: no such message. Raises Away."""
        row = first(
            self._db,
            CONTENT,
            (message,),
        )
        if row is None:
            return None
        (mail_from, added, data, name, size, digest, eight_bit, origin, pool, lifetime_s, seal,
         *sealed) = row  # fmt: skip
        wrong = self._place.damage(data, name, size, digest) if added is not None else "missing"
        way_out = chosen(pool, lifetime_s)
        if not wrong and not (envelope_sound(sealed, seal) and headers_sound(added, seal, way_out)):
            wrong = "envelope"
        if wrong:
            return Quarantine(message, wrong)
        return Content(
            message=message,
            mail_from=mail_from,
            added=added,
            body=data,
            body_file=str(self._place.file(name)) if name else None,
            length=size,
            check=digest,
            eight_bit=bool(eight_bit),
            origin=origin,
            pool=pool,
        )

    def pending(self, after: int, count_max: int) -> list[Accept]:
        """Return messages not yet judged, oldest first; `ask` is the row, to go on after.

        Their bodies may be damaged: see `damaged`.
        """
        found = rows(
            self._db,
            "SELECT m.id, m.name, m.origin, m.mail_from, m.helo, m.eight_bit, m.who, m.client,"
            " m.tls, b.added, b.data, m.body_file, m.size, m.digest, m.lifetime_s, m.log,"
            " m.bounces_1h_max, m.return_path, m.reason, m.authenticated, m.loops"
            " FROM msg m INDEXED BY msg_pending LEFT JOIN body b ON b.id = m.id"
            " WHERE m.state = 1 AND m.id > ? ORDER BY m.id LIMIT ?",
            (after, count_max),
        )
        return [self._pending_one(row) for row in found]

    def damaged(self, accept: Accept) -> Quarantine | None:
        """Return what is wrong with the body of a message that is pending, if anything is."""
        name = PurePath(accept.body_file).name if accept.body_file else None
        with contextlib.suppress(Away):
            wrong = self._place.damage(accept.body, name, accept.length, accept.check)
            return Quarantine(accept.message, wrong) if wrong else None
        return None

    def _pending_one(self, row: tuple[Any, ...]) -> Accept:
        (number, name, origin, mail_from, helo, eight_bit, who, client, tls, added, data, body_file,
         size, digest, lifetime_s, log, bounces_1h_max, return_path, reason, authenticated,
         loops) = row  # fmt: skip
        open_ = rows(
            self._db,
            "SELECT address FROM rcpt WHERE id BETWEEN ? AND ? AND state = 0",
            recipients_of(number),
        )
        return Accept(
            number, name, 0, origin,
            Envelope(mail_from, tuple(a for (a,) in open_), helo, bool(eight_bit)),
            unpack(who, Sender), client, bool(tls), added or b"", data,
            str(self._place.file(body_file)) if body_file else None,
            size, digest, None, reason, b"", lifetime_s,
            from_json(log, dict[str, str]), bounces_1h_max, return_path, bool(eight_bit),
            bool(authenticated), loops,
        )  # fmt: skip
