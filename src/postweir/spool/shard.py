"""What leaves a shard next, and in whose hands it is: decided in memory, without I/O.

A recipient that is queued on disk is, in memory, one of four things: unknown (its lane has a mark
that says when to look), ready (read or just accepted, waiting for credit), out (a delivery worker
has it), or nothing of these because it is not due. Nothing is written when it goes out: what a
crash forgets is due again.

Rules of this file:

* A recipient that is ready or out is `known`, and is never read again from disk. The writer
  answers in the order of its commits, so what it read before a commit arrives before it.
* A bucket has one owner, so what a lost worker had cannot go to another; it waits for that
  worker's next Hello. That Hello says what is still in hand. What is missing in it is due again:
  unmarked when the worker lives (it never got it), as a possible duplicate when it is a new one
  (nobody knows what the old one did). A worker that is gone for LOST_S is treated as dead.
* After a start of the shard, workers may hold what it has forgotten: nothing goes out until each
  has said Hello, or START_S have passed.
* Marks are lower bounds in wall time, as the due times on disk are. When the wall clock is set
  forward, mail is tried early; set back, late; it is never bounced by it, because then nothing
  may expire for an hour (`runtime.clock.StepWatch`, `Out.may_expire`).
* Fairness: a bucket's lanes (slices of senders) take turns, one recipient each, ready or read.
* Memory is bounded: past READY_MAX or READY_BYTES_MAX a fresh message is left on disk and read
  back like any backlog.
"""

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from postweir.spool.ports import BUCKETS, LANES, Content, Hello, Out

READY_MAX = 20_000  # recipients; some 20 MB without bodies
READY_BYTES_MAX = 64 * 1024 * 1024  # of inline bodies; what delivery drains in about a second
FETCH_MAX = 50  # rows of one lane in one read: a millisecond of the writer
FETCHES_MAX = 64  # reads asked of the writer at a time
CALENDAR_MAX = 4 * BUCKETS * LANES  # a lane has one mark that counts
CREDIT_MAX = 1_000_000
LOST_S = 2.0
START_S = 2.0


@dataclass(slots=True)
class Ready:
    """One recipient in memory, waiting for credit."""

    out: Out
    content: Content
    bucket: int
    lane: int
    due_us: int
    since_s: float  # monotonic, when `out.age_s` was true
    bytes: int  # its share of an inline body


@dataclass(slots=True)
class Given:
    """One recipient in a worker's hands. `lane` is -1 when only the worker told us of it."""

    attempt: int
    worker: int
    bucket: int = -1
    lane: int = -1


@dataclass(slots=True)
class Worker:
    """One delivery worker and its connection; `link` is whatever the caller sends to."""

    index: int
    of: int
    incarnation: int
    link: object
    credit: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    lost_at_s: float | None = None

    @property
    def buckets(self) -> range:
        return range(self.index - 1, BUCKETS, self.of)


@dataclass(slots=True)
class Bucket:
    """One slice of sites."""

    lanes: dict[int, deque[Ready]] = field(default_factory=dict)
    ring: deque[int] = field(default_factory=deque)  # lanes with something ready, in turn
    awake: dict[int, None] = field(default_factory=dict)  # lanes whose mark has come, in turn
    fetching: dict[int, int] = field(default_factory=dict)  # lane: how many were asked for
    ready: int = 0


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask the writer for what is due in one lane."""

    bucket: int
    lane: int
    until_us: int
    count_max: int


class Outgoing:
    """The memory of one shard."""

    def __init__(self, now_s: float) -> None:
        self.known: set[int] = set()  # ready or out; the writer's thread only looks in it
        self.out: dict[int, Given] = {}
        self.possible_duplicates = 0
        self.to_check: list[Content] = []  # body files to be verified before they leave
        self.reload_wanted = False  # marks are missing: read the calendar again
        self._ready: dict[int, Ready] = {}
        self._buckets = [Bucket() for _ in range(BUCKETS)]
        self._workers: dict[int, Worker] = {}
        self._suspects: dict[int, int] = {}  # recipient: incarnation that may have delivered it
        self._marks: dict[int, int] = {}  # bucket * LANES + lane: due_us
        self._calendar: list[tuple[int, int]] = []
        self._checking: dict[str, list[Ready]] = {}  # by message; known, but not in a lane yet
        self._bytes = 0
        self._fetches = 0
        self._awake = 0  # lanes that are, in all buckets: mostly none, and then nobody looks
        self._started_s = now_s
        self._open = False

    # What there is

    @property
    def ready(self) -> int:
        """Return how many recipients wait in memory for credit."""
        return len(self._ready)

    def mark(self, bucket: int, lane: int, due_us: int) -> None:
        """Look into this lane at that time."""
        key = bucket * LANES + lane
        if self._marks.get(key, due_us + 1) > due_us:
            self._marks[key] = due_us
            heapq.heappush(self._calendar, (due_us, key))
            if len(self._calendar) > CALENDAR_MAX:  # entries of marks that were taken or lowered
                self._calendar = [(due_us, key) for key, due_us in self._marks.items()]
                heapq.heapify(self._calendar)

    def fresh(
        self, outs: Sequence[tuple[Out, int, int]], content: Content, *, due_us: int, now_s: float
    ) -> None:
        """Take a message that was just committed; (out, bucket, lane) for each recipient."""
        share = len(content.body or b"") // max(1, len(outs))
        for out, bucket, lane in outs:
            full = len(self._ready) >= READY_MAX or self._bytes + share > READY_BYTES_MAX
            # Behind its own backlog it waits its turn: else a flood is served newest first.
            behind = lane in self._buckets[bucket].fetching or (
                self._marks.get(bucket * LANES + lane, due_us + 1) <= due_us
            )
            if full or behind:
                self.mark(bucket, lane, due_us)
            else:
                self._push(Ready(out, content, bucket, lane, due_us, now_s, share))

    def fetches(self, now_us: int) -> list[Fetch]:
        """Return what to read: lanes whose time has come, where an owner has credit."""
        while self._calendar and self._calendar[0][0] <= now_us:
            due_us, key = heapq.heappop(self._calendar)
            if self._marks.get(key) == due_us:
                bucket = self._buckets[key // LANES]
                self._awake += key % LANES not in bucket.awake
                bucket.awake[key % LANES] = None
        wanted: list[Fetch] = []
        if not self._open or not self._awake:
            return wanted
        for worker in self._connected():
            for b in worker.buckets:
                bucket = self._buckets[b]
                if bucket.awake:
                    spare = worker.credit[b] - bucket.ready - sum(bucket.fetching.values())
                    wanted += self._fetches_of(b, bucket, spare, now_us)
        return wanted

    def fetched(
        self,
        fetch: Fetch,
        found: Iterable[tuple[Out, Content]],
        next_due_us: int | None,
        now_s: float,
    ) -> None:
        """Take what was read; `next_due_us` is when to look into the lane again."""
        self._buckets[fetch.bucket].fetching.pop(fetch.lane, None)
        self._fetches -= 1
        for out, content in found:
            if out.recipient not in self.known:
                bytes_ = len(content.body or b"")
                self._push(
                    Ready(out, content, fetch.bucket, fetch.lane, fetch.until_us, now_s, bytes_)
                )
        if next_due_us is not None:
            self.mark(fetch.bucket, fetch.lane, next_due_us)

    def checked(self, message: str, *, good: bool = False, again_us: int | None = None) -> None:
        """A body file was read: let its recipients go, or drop them (it will be quarantined).

        With `again_us` nobody could read it now: look again then.
        """
        for ready in self._checking.pop(message, ()):
            if self._ready.get(ready.out.recipient) is ready:
                if good:
                    self._line_up(ready)
                    continue
                self._drop_ready(ready.out.recipient)
                if again_us is not None:
                    self.mark(ready.bucket, ready.lane, again_us)

    def forget(self, recipients: Iterable[int]) -> None:
        """These are not queued to leave any more (or are read again): what is ready goes."""
        for recipient in recipients:
            self._drop_ready(recipient)

    def forget_ready(self) -> None:
        """Leave all that waits in memory to the disk again: an operator changed what may go."""
        for ready in list(self._ready.values()):
            self._drop_ready(ready.out.recipient)
            self.mark(ready.bucket, ready.lane, ready.due_us)

    # Who has it

    def hello(self, hello: Hello, link: object) -> object | None:
        """Take a worker's word for what it has; returns its older connection, to be closed."""
        old = self._workers.get(hello.index)
        same = old is not None and old.incarnation == hello.incarnation
        worker = Worker(hello.index, max(1, hello.of), hello.incarnation, link)
        self._workers[hello.index] = worker
        listed = dict(hello.in_hand) | {s.recipient: s.attempt for s in hello.unsettled}
        for recipient, incarnation in list(self._suspects.items()):
            if incarnation == hello.incarnation:  # back after all: it never got these
                del self._suspects[recipient]
        for recipient, given in list(self.out.items()):
            if given.worker == hello.index and recipient not in listed:
                if not same and old is not None:
                    self._suspects[recipient] = old.incarnation
                self._again(recipient, given)
        for recipient, attempt in listed.items():
            self._drop_ready(recipient)
            before = self.out.get(recipient)
            bucket, lane = (before.bucket, before.lane) if before else (-1, -1)
            self.out[recipient] = Given(attempt, hello.index, bucket, lane)
            self.known.add(recipient)
            self._suspects.pop(recipient, None)
        return old.link if old is not None and old.lost_at_s is None else None

    def lost(self, link: object, now_s: float) -> None:
        """A connection ended. What it had stays out: the worker may come back with it."""
        for worker in self._workers.values():
            if worker.link is link and worker.lost_at_s is None:
                worker.lost_at_s = now_s

    def credit(self, link: object, bucket: int, more: int) -> int:
        """This connection takes `more` recipients of this bucket; returns by how many it changed.

        Below 0 it takes so many fewer, as far as they are not out already.
        """
        worker = self._by_link(link)
        if worker is None or not 0 <= bucket < BUCKETS:
            return 0
        before = worker.credit[bucket]
        worker.credit[bucket] = max(0, min(before + more, CREDIT_MAX))
        return worker.credit[bucket] - before

    def settled(self, recipient: int, attempt: int, *, changed: bool = True) -> None:
        """That attempt's outcome is committed: nobody has the recipient now.

        When it had changed nothing (a repeat), its row may be due and was passed over meanwhile.
        """
        given = self.out.get(recipient)
        if given is None or given.attempt != attempt:
            return
        if changed:
            del self.out[recipient]
            self.known.discard(recipient)
        else:
            self._again(recipient, given)

    def handed_on(
        self, recipient: int, attempt: int, link: object, *, changed: bool = True
    ) -> None:
        """It was given back over this link, and that is committed.

        Its attempt does not rise by that. So a word that waited long for its commit may be about
        an earlier time it was out; what is in other hands now, or given anew, stays there.
        """
        given = self.out.get(recipient)
        if given is None or given.attempt != attempt:
            return
        if self._workers[given.worker].link is link:
            self.settled(recipient, attempt, changed=changed)
        else:
            given.lane = -1  # its row may have moved: when it is due again, all marks are read

    def tick(self, now_s: float) -> None:
        """Open the gate after a start; give up on workers that do not come back."""
        here = [w for w in self._workers.values() if w.lost_at_s is None]
        if not self._open:
            said = bool(here) and len(here) >= max(w.of for w in here)
            self._open = said or now_s - self._started_s >= START_S
        for worker in self._workers.values():
            if worker.lost_at_s is None or now_s - worker.lost_at_s < LOST_S:
                continue
            for recipient, given in list(self.out.items()):
                if given.worker == worker.index:
                    self._suspects[recipient] = worker.incarnation
                    self._again(recipient, given)

    def take(self, now_s: float, *, may_expire: bool) -> list[tuple[object, list[Content | Out]]]:
        """Return what goes out now, for each connection: a content before its recipients."""
        if not self._open or not self._ready:
            return []
        batches: list[tuple[object, list[Content | Out]]] = []
        for worker in self._connected():
            frames: list[Content | Out] = []
            sent: set[str] = set()
            for b in worker.buckets:
                bucket = self._buckets[b]
                while worker.credit[b] > 0 and bucket.ring:
                    ready = self._next(bucket)
                    if ready is None:
                        break
                    worker.credit[b] -= 1
                    if ready.content.message not in sent:
                        sent.add(ready.content.message)
                        frames.append(ready.content)
                    frames.append(self._give(ready, worker, now_s, may_expire=may_expire))
            if frames:
                batches.append((worker.link, frames))
        return batches

    # What they lean on

    def _fetches_of(self, b: int, bucket: Bucket, spare: int, now_us: int) -> Iterator[Fetch]:
        for lane in list(bucket.awake):
            if spare <= 0 or self._fetches >= FETCHES_MAX or len(self._ready) >= READY_MAX:
                return
            if lane in bucket.fetching:
                continue
            del bucket.awake[lane]
            self._awake -= 1
            count = min(FETCH_MAX, max(1, spare // (len(bucket.awake) + 1)))
            bucket.fetching[lane] = count
            # The mark is taken: whoever marks the lane while it is read is heard afterwards.
            self._marks.pop(b * LANES + lane, None)
            self._fetches += 1
            spare -= count
            yield Fetch(b, lane, now_us, count)

    def _push(self, ready: Ready) -> None:
        recipient = ready.out.recipient
        assert recipient not in self.known
        self.known.add(recipient)
        self._ready[recipient] = ready
        self._bytes += ready.bytes
        self._buckets[ready.bucket].ready += 1
        if ready.content.body_file is None:
            self._line_up(ready)
            return
        message = ready.content.message
        if message not in self._checking:
            self._checking[message] = []
            self.to_check.append(ready.content)
        self._checking[message].append(ready)

    def _line_up(self, ready: Ready) -> None:
        bucket = self._buckets[ready.bucket]
        lane = bucket.lanes.get(ready.lane)
        if lane is None:
            lane = bucket.lanes[ready.lane] = deque()
            bucket.ring.append(ready.lane)
        lane.append(ready)

    def _next(self, bucket: Bucket) -> Ready | None:
        """Return the next recipient of the next lane; what was dropped meanwhile is passed over."""
        while bucket.ring:
            number = bucket.ring[0]
            lane = bucket.lanes[number]
            ready = lane.popleft()
            if lane:
                bucket.ring.rotate(-1)
            else:
                bucket.ring.popleft()
                del bucket.lanes[number]
            if self._ready.get(ready.out.recipient) is ready:
                return ready
        return None

    def _drop_ready(self, recipient: int) -> None:
        ready = self._ready.pop(recipient, None)
        if ready is not None:
            self.known.discard(recipient)
            self._bytes -= ready.bytes
            self._buckets[ready.bucket].ready -= 1

    def _give(self, ready: Ready, worker: Worker, now_s: float, *, may_expire: bool) -> Out:
        out = ready.out
        self._drop_ready(out.recipient)
        self.known.add(out.recipient)
        self.out[out.recipient] = Given(out.attempt, worker.index, ready.bucket, ready.lane)
        duplicate = self._suspects.pop(out.recipient, None) is not None
        self.possible_duplicates += duplicate
        return Out(
            recipient=out.recipient,
            attempt=out.attempt,
            message=out.message,
            sender=out.sender,
            address=out.address,
            accepted_at_us=out.accepted_at_us,
            age_s=out.age_s + max(0.0, now_s - ready.since_s),
            tries=out.tries,
            lifetime_s=out.lifetime_s,
            may_expire=may_expire,
            possible_duplicate=duplicate,
            bucket=ready.bucket,
        )

    def _again(self, recipient: int, given: Given) -> None:
        del self.out[recipient]
        self.known.discard(recipient)
        if given.lane < 0:
            self.reload_wanted = True
        else:
            self.mark(given.bucket, given.lane, 0)

    def _connected(self) -> list[Worker]:
        return [w for w in self._workers.values() if w.lost_at_s is None]

    def _by_link(self, link: object) -> Worker | None:
        return next((w for w in self._connected() if w.link is link), None)
