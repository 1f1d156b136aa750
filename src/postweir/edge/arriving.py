"""One message as it streams in: its header read once, its body kept or spilled, all bounded.

Bytes that break a limit are counted and dropped to the end of the message, so that the client
hears a clear reply at its dot instead of a closed connection. As soon as the header is whole the
sender is known, and the identity fields are gone from what is kept.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from postweir.edge import gate
from postweir.edge.bodies import Spill, add
from postweir.edge.doubts import named
from postweir.edge.replies import (
    BARE_NEWLINE,
    HEADER_TOO_LARGE,
    LOOP,
    NUL,
    TOO_LARGE,
    of_storage,
)
from postweir.edge.worker import Worker
from postweir.identity.attribution import Attribution, attribute
from postweir.identity.sender import Account
from postweir.judge.ports import Asked
from postweir.mail.envelope import Envelope
from postweir.mail.headers import fields, header_end, is_crowded, without
from postweir.mail.received import HOPS_MAX, hops, loops
from postweir.mail.reply import Reply
from postweir.spool.ports import Unknown

CLAIM_BYTES = 1024 * 1024  # on disk, ahead of a large message that did not say its size
LOOPS_MAX = 3  # our own customers forward to each other: twice through us is honest, four is a loop


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who speaks to us, when a message begins."""

    client: str  # address without port
    auth_username: str  # "" when known by the network only
    tls: str  # "TLSv1.3 TLS_AES_256_GCM_SHA384", or ""
    protocol: str  # SMTP, ESMTPSA, ...: RFC 3848


class Arriving:
    """Feed it the message; then `intake.take_in` decides about it."""

    def __init__(
        self,
        worker: Worker,
        visitor: Visitor,
        account: Account,
        envelope: Envelope,
        on_room: Callable[[], None],
        *,
        announced: int = 0,
    ) -> None:
        self.worker, self.visitor = worker, visitor
        self.account, self.envelope = account, envelope
        self.id = worker.names.next()
        self.fault: Reply | None = None  # why it will not be taken, whatever follows
        self.gone = False  # nobody waits for our reply any more
        self.task: asyncio.Task[Any] | None = None  # that takes it in
        self.late = False  # it takes too long
        self.by_ns = 0  # when it must be answered, once it is whole
        self.asked: Asked | None = None  # what the judge said
        self.handed_over = False  # to a shard: the file is not ours to remove
        self.received = 0  # bytes that came
        self.attribution: Attribution | None = None  # once the header is whole
        self.loops = 0
        self.name = b""  # what its header says it is: doubts.named
        self.spill: Spill | None = None
        self.shard: int | None = None  # whose folder holds the spill
        self._on_room = on_room  # the disk caught up: the socket may be read again
        self._head: bytearray | None = bytearray()  # until the header is whole
        self._kept: list[bytes] = []
        self._held = 0  # bytes of ours in worker.counts
        self._claimed = 0  # bytes on disk, there too
        self._placed = True  # whoever made us took a place for us
        self._claim(announced)

    @property
    def crowded(self) -> bool:
        """True while the socket should not be read: the disk is behind, or all memory is taken."""
        spill = self.spill
        return spill is not None and (spill.crowded or (spill.writing and self._memory_is_full))

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the message."""
        self.received += len(data)
        if self.fault is not None:
            return
        if self.received > self.worker.settings.edge.message_bytes_max:
            self.fail(TOO_LARGE)
            return
        self._hold(len(data))
        if self._head is not None:
            self._read_header(data)
        elif self.spill is not None:
            self.spill.write(data)
            if self.received > self._claimed:
                self._claim(self.received + CLAIM_BYTES)
        else:
            add(self._kept, data)
        if self._memory_is_full:
            self._make_room()
        elif self._held > self.worker.settings.spool.inline_bytes_max:
            self._begin_spill()

    def end(self, *, bare_newline: bool, nul: bool) -> None:
        """The lone dot came."""
        if self._head is not None and self.fault is None:
            self._take_header(bytes(self._head))
        if self.fault is None and (bare_newline or nul):
            self.fail(BARE_NEWLINE if bare_newline else NUL)

    def body(self) -> bytes:
        """Return the message as it is kept, when it was not spilled."""
        assert self.spill is None
        if len(self._kept) != 1:
            self._kept = [b"".join(self._kept)]
        return self._kept[0]

    def fail(self, reply: Reply) -> None:
        """It will be refused: keep nothing more of it."""
        self.fault = reply
        self._kept, self._head = [], None
        if self.spill is None:
            self._hold(-self._held)

    def step_aside(self) -> None:
        """Its bytes come slowly: leave the place to others until the dot."""
        if self._placed:
            self._placed = False
            self.worker.flights.leave(self.account.name)

    def step_back(self) -> None:
        """The dot came: take a place again, unless too many do."""
        if not self._placed:
            self._placed = self.worker.flights.take_again(self.account.name)
            if not self._placed and self.fault is None:
                self.worker.refused(gate.IN_FLIGHT.reason)
                self.fail(gate.IN_FLIGHT.reply)

    def let_go(self) -> None:
        """Forget what is in memory."""
        self.step_aside()
        self._kept, self._head = [], None
        self._hold(-self._held)
        self._claim(0)

    @property
    def _memory_is_full(self) -> bool:
        counts, edge = self.worker.counts, self.worker.settings.edge
        return counts.bytes_held >= edge.memory_bytes_max

    def _make_room(self) -> None:
        """All memory for messages is taken: to disk with what can go there, else an end."""
        self._begin_spill()
        if self.spill is not None:
            self.spill.flush()
        elif self.fault is None:
            no = gate.go_on(self.worker.settings.edge, bytes_held=self.worker.counts.bytes_held)
            if no is not None:
                self.worker.refused(no.reason)
                self.fail(no.reply)

    def _hold(self, size: int) -> None:
        self._held += size
        self.worker.counts.hold(self.account.name, size)

    def _claim(self, size: int) -> None:
        self.worker.counts.bytes_claimed += size - self._claimed
        self._claimed = size

    def _read_header(self, data: bytes) -> None:
        assert self._head is not None
        at = max(len(self._head) - 3, 0)  # the blank line may have come in two pieces
        self._head += data
        whole = self._head.find(b"\r\n\r\n", at) >= 0 or self._head.startswith(b"\r\n")
        if whole:
            self._take_header(bytes(self._head))
        elif len(self._head) > self.worker.settings.edge.header_bytes_max:
            self.fail(HEADER_TOO_LARGE)

    def _take_header(self, data: bytes) -> None:
        """Find the sender, take off what does not leave, look for loops."""
        self._head = None
        end = header_end(data)
        header = data[:end]
        found = fields(header)
        # Fields beyond those that are read could hide an identity: no honest header has so many.
        if end > self.worker.settings.edge.header_bytes_max or is_crowded(header):
            self.fail(HEADER_TOO_LARGE)
            return
        self.attribution = attribute(
            self.account,
            auth_username=self.visitor.auth_username,
            fields=found,
            client=self.visitor.client,
            mail_from=self.envelope.mail_from,
        )
        self.name = named(found)
        self.loops = loops(found, self.worker.settings.edge.hostname)
        if hops(found) > HOPS_MAX or self.loops > LOOPS_MAX:
            self.fail(LOOP)
            return
        strip = self.attribution.strip
        self._kept = [without(header, strip) + data[end:] if strip else data]

    def _begin_spill(self) -> None:
        if self.spill is not None or self._head is not None or self.fault is not None:
            return
        try:
            self.shard = self.worker.shards.choose(self.worker.disks.hanging)
        except Unknown:
            self.fail(of_storage(self.worker.shards.reason()))
            return
        if self.received > self._claimed:
            self._claim(self.received + CLAIM_BYTES)
        self.spill = Spill(
            self.worker.folders.path(self.shard, self.id),
            self.worker.disks.of(self.shard),
            on_written=self._written,
        )
        kept, self._kept = self._kept, []
        # What was stripped is no longer held.
        self._hold(sum(map(len, kept)) - self._held)
        for piece in kept:
            self.spill.write(piece)

    def _written(self, size: int) -> None:
        self._hold(-size)
        self._on_room()
