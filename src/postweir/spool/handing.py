"""Delivery's side of the shards: what it has in hand, what it has been promised, what it owes.

Rules of this file:

* What is in hand (handed out, and not yet known to be committed) or may come at any moment
  (credit) is never more than `in_hand_max`, over all shards: it is what may be doubled when this
  process is killed. Each (shard, bucket) owns a small share of that, so that none is ever
  starved; the rest is a pool for those that are busy, and none gets more than a quarter. Credit
  that lies unused after a burst is asked back when others find the pool empty.
* An outcome is kept, and said again on each new connection, until the shard says Settled.
* A message's content is kept until the last of its recipients here is Settled, not merely
  settled: the shard counts on it until then.
* The link comes and goes; what is in hand stays, and is named in each Hello.
* A shard that cannot record an outcome, or has not been heard for UNHEARD_S, gets its mail back
  instead of outcomes: what has begun ends, and nothing more of it is sent (`may_send`).
* At an orderly end all that no host can have is given back, so that it is not taken for what a
  killed worker may have sent.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from postweir.mail.address import domain_of
from postweir.runtime.frames import Frame
from postweir.runtime.link import Line, Link
from postweir.runtime.log import Log
from postweir.spool.ports import (
    BUCKETS,
    Content,
    Credit,
    Health,
    Hello,
    Out,
    Settle,
    Settled,
    ShardFrame,
    Sited,
)
from postweir.spool.states import bucket_of

BASE_MAX = 8  # a bucket's own share: enough that a quiet one never waits for more
AHEAD_MAX = 64  # credit lying at a shard; it is refreshed within a turn of two event loops
UNHEARD_S = 2.0  # a shard that was killed is back by then; it takes such a worker for dead, too
RECALL_S = 0.5  # credit lies unused for so long: several turns of any loop that is not stopped
REPEAT_S = 5.0  # an outcome unconfirmed for so long is said again
UNSETTLED_IN_HELLO_MAX = 4000  # at about 1 KiB each, half of a frame; the rest follow singly


@dataclass(slots=True, eq=False)
class Bucket:
    """What one shard has been granted for one bucket."""

    number: int
    granted: int = 0  # credit the shard has not used yet
    held: int = 0  # recipients out and not Settled
    ahead: int = 1  # how much credit to keep lying there
    used_s: float = 0.0  # when credit was last used; event loop's clock

    @property
    def used(self) -> int:
        return self.granted + self.held


@dataclass(slots=True, eq=False)
class Handed:
    """One recipient in hand, with the message it is a recipient of."""

    shard: "Desk"
    bucket: Bucket
    out: Out
    content: Content
    at_s: float  # event loop's clock
    settle: Settle | None = None  # the outcome, once known
    said_s: float = 0.0
    doubtful: bool = False  # cut off when a host may have had it

    @property
    def sender(self) -> str:
        """Whom to be fair between."""
        return self.out.sender

    @property
    def message(self) -> tuple[int, str]:
        """The message; a name may be in two shards when an outcome was unknown."""
        return (self.shard.number, self.out.message)

    @property
    def accepted_at_us(self) -> int:
        """When the shard took it."""
        return self.out.accepted_at_us

    def age_s(self, now_s: float) -> float:
        """How long the message has been ours."""
        return self.out.age_s + now_s - self.at_s


@dataclass(slots=True, eq=False)
class Kept:
    """A message's content, and for how many recipients it is needed."""

    content: Content
    needed: int = 0


@dataclass(slots=True, eq=False)
class Desk:
    """All that one shard and we have between us."""

    number: int
    buckets: dict[int, Bucket]
    line: Line | None = None
    records: bool = True  # it can commit outcomes, by its last word
    heard_s: float = 0.0  # when that was
    contents: dict[str, Kept] = field(default_factory=dict)
    in_hand: dict[int, Handed] = field(default_factory=dict)  # by recipient
    owed: OrderedDict[int, Handed] = field(default_factory=OrderedDict)  # of these: with outcome


OnHanded = Callable[[list[Handed]], None]


class Handing:
    """What is due comes in through `on_handed`; `settle` sends each outcome back until it holds."""

    def __init__(
        self,
        run: Path,
        *,
        count: int,
        hello: Callable[[], Hello],
        in_hand_max: int,
        on_handed: OnHanded,
        log: Log,
    ) -> None:
        self._run, self._hello, self._on_handed, self._log = run, hello, on_handed, log
        first = hello()
        mine = [b for b in range(BUCKETS) if b % first.of == first.index - 1]
        self._desks = [Desk(k, {b: Bucket(b) for b in mine}) for k in range(1, count + 1)]
        self._base = self._pool = self._pool_used = self._bucket_max = 0
        self.bound(in_hand_max)
        self._starved: OrderedDict[tuple[int, int], tuple[Desk, Bucket]] = OrderedDict()
        self._idle: asyncio.Event = asyncio.Event()
        self._granting = True
        self._recalled_s = 0.0
        self._repeater: asyncio.Task[None] | None = None

    def bound(self, in_hand_max: int) -> None:
        """Have no more than this in hand (but one for each bucket, or some would never move)."""
        buckets = [bucket for desk in self._desks for bucket in desk.buckets.values()]
        self._base = max(1, min(BASE_MAX, in_hand_max // (2 * len(buckets))))
        self._pool = max(0, in_hand_max - self._base * len(buckets))
        self._bucket_max = max(self._base, in_hand_max // 4 // len(self._desks))
        self._pool_used = sum(max(0, bucket.used - self._base) for bucket in buckets)
        for bucket in buckets:
            bucket.ahead = self._base

    def start(self) -> None:
        """Call the shards."""
        for desk in self._desks:
            desk.heard_s = asyncio.get_running_loop().time()
            desk.line = Line(
                self._run / f"shard-{desk.number}.sock",
                ShardFrame,
                on_link=partial(self._up, desk),
                on_frames=partial(self._heard, desk),
                on_lost=partial(self._lost, desk),
            )
        self._repeater = asyncio.get_running_loop().create_task(self._repeat())

    async def close(self) -> None:
        """Give back what is in hand and no host can have, and hang up."""
        if self._repeater is not None:
            self._repeater.cancel()
            await asyncio.gather(self._repeater, return_exceptions=True)
        for desk in self._desks:
            for n, handed in enumerate(list(desk.in_hand.values())):
                if n % 1000 == 999:
                    await asyncio.sleep(0)  # the hand may be large, and we still beat
                if handed.settle is None and not handed.doubtful:
                    self.hand_on(handed, domain_of(handed.out.address))
            if desk.line is not None:
                await desk.line.close()

    @property
    def in_hand(self) -> int:
        """How many recipients are out and not known to be committed."""
        return sum(len(desk.in_hand) for desk in self._desks)

    @property
    def unsettled(self) -> int:
        """How many outcomes no shard has confirmed yet."""
        return sum(len(desk.owed) for desk in self._desks)

    @property
    def connected(self) -> int:
        """How many shards we have a line to."""
        return sum(1 for d in self._desks if d.line is not None and d.line.link is not None)

    def oldest_s(self, now_s: float) -> float:
        """How long the oldest recipient has been in hand. Safe on another thread."""
        firsts = (next(iter(list(desk.in_hand.values())), None) for desk in self._desks)
        return max((now_s - first.at_s for first in firsts if first is not None), default=0.0)

    def stop(self) -> None:
        """Grant nothing more: what comes now was on its way already."""
        self._granting = False

    def settle(self, handed: Handed, settle: Settle) -> None:
        """Say what became of it, and keep that until it is committed."""
        desk = handed.shard
        assert desk.in_hand.get(settle.recipient) is handed, "settled what is not in hand"
        assert handed.settle is None, "settled twice"
        handed.settle = settle
        handed.said_s = asyncio.get_running_loop().time()
        desk.owed[settle.recipient] = handed
        self._say(desk, settle)

    def may_send(self, handed: Handed) -> bool:
        """True when the shard can record what becomes of it; else it would be sent again."""
        desk, now_s = handed.shard, asyncio.get_running_loop().time()
        if desk.line is not None and desk.line.link is not None:
            desk.heard_s = max(desk.heard_s, desk.line.link.heard_at)
        return desk.records and now_s - desk.heard_s <= UNHEARD_S

    def hand_on(self, handed: Handed, site: str) -> None:
        """Give it back: its site is another worker's. If this is lost, it comes to us again."""
        self._say(handed.shard, Sited(handed.out.recipient, handed.out.attempt, site))
        self._forget(handed)

    def is_mine(self, bucket: int) -> bool:
        """True when this worker owns the bucket."""
        return bucket in self._desks[0].buckets

    async def confirmed(self) -> None:
        """Return once every outcome is committed."""
        while self.unsettled:
            self._idle.clear()
            await self._idle.wait()

    def _say(self, desk: Desk, frame: Frame) -> None:
        if desk.line is not None:
            desk.line.send(frame)

    def _up(self, desk: Desk, link: Link) -> None:
        """Say who we are and what we have; credit starts anew."""
        owed = list(desk.owed.values())
        first, rest = owed[:UNSETTLED_IN_HELLO_MAX], owed[UNSETTLED_IN_HELLO_MAX:]
        told = {handed.out.recipient for handed in first}
        hello = self._hello()
        link.send(
            Hello(
                hello.version, hello.process, hello.index, hello.of, hello.incarnation,
                hello.settings,
                [(r, h.out.attempt) for r, h in desk.in_hand.items() if r not in told],
                [handed.settle for handed in first if handed.settle is not None],
            )
        )  # fmt: skip
        for handed in rest:
            if handed.settle is not None:
                link.send(handed.settle)
        for bucket in desk.buckets.values():
            self._count(bucket, granted=-bucket.granted)
        for bucket in desk.buckets.values():
            self._grant(desk, bucket, link)
        self._log.info("delivery.shard", shard=desk.number, in_hand=len(desk.in_hand),
                       unsettled=len(owed))  # fmt: skip

    def _lost(self, desk: Desk, _: Link) -> None:
        for bucket in desk.buckets.values():
            self._count(bucket, granted=-bucket.granted)
        self._feed()

    def _heard(self, desk: Desk, _: Link, frames: Sequence[Frame]) -> None:
        handed: list[Handed] = []
        now_s = asyncio.get_running_loop().time()
        for frame in frames:
            match frame:
                case Out():
                    one = self._take(desk, frame, now_s)
                    if one is not None:
                        handed.append(one)
                case Content():
                    kept = desk.contents.get(frame.message)
                    if kept is None:
                        desk.contents[frame.message] = Kept(frame)
                    else:
                        kept.content = frame
                case Settled():
                    self._settled(desk, frame)
                case Credit() if frame.more < 0 and frame.bucket in desk.buckets:
                    self._returned(desk, desk.buckets[frame.bucket], -frame.more)
                case Health():
                    self._told(desk, frame)
                case _:
                    pass
        if handed:
            self._renew(desk, handed)
            self._on_handed(handed)

    def _renew(self, desk: Desk, handed: Sequence[Handed]) -> None:
        """Grant those buckets more whose credit was used; all of it used: twice as much."""
        touched = {id(one.bucket): one.bucket for one in handed}
        for bucket in touched.values():
            if bucket.granted == 0:
                bucket.ahead = min(bucket.ahead * 2, AHEAD_MAX)
            self._grant(desk, bucket)

    def _told(self, desk: Desk, health: Health) -> None:
        if health.records != desk.records:
            desk.records = health.records
            self._log.warning("delivery.shard_records", shard=desk.number, records=health.records,
                              reason=health.reason, unsettled=len(desk.owed))  # fmt: skip

    def _take(self, desk: Desk, out: Out, now_s: float) -> Handed | None:
        bucket = self._bucket(desk, out)
        bucket.used_s = now_s
        if bucket.granted > 0:
            self._count(bucket, granted=-1)
        kept = desk.contents.get(out.message)
        if kept is None:
            # A shard that sends no content is broken; a new Hello makes it start anew.
            self._log.error("delivery.no_content", message=out.message, shard=desk.number)
            if desk.line is not None:
                desk.line.hang_up()
            return None
        old = desk.in_hand.get(out.recipient)
        if old is not None:
            self._again(desk, old, out)
            return None
        one = Handed(desk, bucket, out, kept.content, now_s)
        kept.needed += 1
        desk.in_hand[out.recipient] = one
        self._count(bucket, held=1)
        return one

    def _again(self, desk: Desk, old: Handed, out: Out) -> None:
        """Handed out again while we have it: the shard started anew and did not wait for us.

        Two at once would double it, so the one attempt goes on, under the new number.
        """
        self._log.warning("delivery.twice", message=out.message, shard=desk.number)
        old.out = out
        if old.settle is not None:
            s = old.settle
            old.settle = Settle(s.recipient, out.attempt, s.at_us, s.outcome, s.retry_in_s, s.reply,
                                s.source, s.peer, s.tls, s.site)  # fmt: skip
            self._say(desk, old.settle)

    def _bucket(self, desk: Desk, out: Out) -> Bucket:
        """Return the bucket whose credit it took."""
        named = desk.buckets.get(out.bucket)
        mine = named or desk.buckets.get(bucket_of(domain_of(out.address)))
        # Neither: it was moved here by its site, and the shard did not say to which bucket. The
        # one with most credit bears it; the next connection counts anew.
        return mine or max(desk.buckets.values(), key=lambda b: b.granted)

    def _settled(self, desk: Desk, frame: Settled) -> None:
        for recipient, attempt in frame.done:
            handed = desk.owed.get(recipient)
            if handed is not None and handed.out.attempt == attempt:
                del desk.owed[recipient]
                self._forget(handed)
        if not self.unsettled:
            self._idle.set()

    def _forget(self, handed: Handed) -> None:
        desk, out, bucket = handed.shard, handed.out, handed.bucket
        del desk.in_hand[out.recipient]
        kept = desk.contents[out.message]
        kept.needed -= 1
        if kept.needed == 0:
            del desk.contents[out.message]
        self._count(bucket, held=-1)
        if bucket.held == 0:
            bucket.ahead = self._base
        self._grant(desk, bucket)
        self._feed()

    def _count(self, bucket: Bucket, *, granted: int = 0, held: int = 0) -> None:
        """Change what a bucket uses, and with it what is taken of the pool."""
        before = max(0, bucket.used - self._base)
        bucket.granted += granted
        bucket.held += held
        self._pool_used += max(0, bucket.used - self._base) - before

    def _grant(self, desk: Desk, bucket: Bucket, link: Link | None = None) -> None:
        """Give a bucket credit up to what it should have lying there, as far as there is room."""
        to = link or (desk.line.link if desk.line is not None else None)
        if to is None or not self._granting or bucket.granted > bucket.ahead // 2:
            return
        own = max(0, self._base - bucket.used)
        room = own + max(0, self._pool - self._pool_used)
        more = min(bucket.ahead - bucket.granted, room, self._bucket_max - bucket.used)
        if more <= 0:
            if bucket.used < self._bucket_max:
                self._starved[(desk.number, bucket.number)] = (desk, bucket)
                self._recall()
            return
        self._count(bucket, granted=more)
        to.send(Credit(bucket.number, more))

    def _feed(self) -> None:
        """Let those that found the pool empty have what has come free, in turn."""
        while self._starved and self._pool_used < self._pool:
            _, (desk, bucket) = self._starved.popitem(last=False)
            self._grant(desk, bucket)

    def _recall(self) -> None:
        """Ask back what lies unused, now that others could use it.

        After a burst to many buckets all of the pool may lie with those that have nothing left
        to send, and one that has much would get on with its own small share.
        """
        now_s = asyncio.get_running_loop().time()
        if now_s - self._recalled_s < RECALL_S:
            return
        self._recalled_s = now_s
        for desk in self._desks:
            for bucket in desk.buckets.values():
                if bucket.granted > self._base and now_s - bucket.used_s > RECALL_S:
                    bucket.ahead = self._base
                    self._say(desk, Credit(bucket.number, self._base - bucket.granted))

    def _returned(self, desk: Desk, bucket: Bucket, count: int) -> None:
        """Take back credit that the shard will not use."""
        self._count(bucket, granted=-min(count, bucket.granted))
        self._grant(desk, bucket)  # its own share, if it was asked twice
        self._feed()

    async def _repeat(self) -> None:
        """Say again what was not confirmed: committing it twice is harmless."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(REPEAT_S / 5)
            if self._starved:
                self._recall()
            late_s = loop.time() - REPEAT_S
            for desk in self._desks:
                for handed in desk.owed.values():
                    if handed.said_s <= late_s and handed.settle is not None:
                        handed.said_s = loop.time()
                        self._say(desk, handed.settle)
