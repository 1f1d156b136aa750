"""A judge's levels as a file: taken as they were at one instant, though they go on changing.

    magic, frames (a head, accounts, senders, messages of the last hour, buckets), hash of all

A key that is about to change before it was written is written first, as it still is. So a snapshot
is that of the instant at which it began, and the shards' cursors in it fit; whoever asks waits for
a few hundred keys at most.
"""

import itertools
from collections.abc import Iterator, Sequence

from postweir.judge.counters import Counters, Kept
from postweir.judge.history import History
from postweir.judge.keys import AccountKey, Key, hour_window, minute_window
from postweir.judge.throttles import Throttles
from postweir.judge.windows import HOUR_S
from postweir.policy.bundle import Throttle
from postweir.runtime import files, frames
from postweir.runtime.frames import Frame, Torn, Value

MAGIC = b"postweir levels 1\n"
BYTES_MAX = 1 << 30  # 100,000 senders that all send all the time
STEP_KEYS = 100  # packed in one go: half a millisecond
STEP_MESSAGES = 1000


class Head(Frame, frozen=True):
    """Whose levels these are, and of which instant."""

    judge: int
    of: int  # judges: with another number each answers for other accounts
    boot: str  # of the host: while it is the same, `monotonic_s` tells how old this is
    monotonic_s: float
    wall_us: int
    clock_s: float  # what the levels' own clock said
    since_s: float  # on it, when we began to watch
    secret: bytes  # that recipients are hashed with
    cursors: dict[str, int]
    met: bytes  # pairs that the filter's own file may not have yet


class State(Value, frozen=True):
    """One key's levels."""

    first_s: float
    closed: int
    day: bytes
    hour: bytes = b""
    minute: bytes = b""
    history: bytes = b""


class AccountState(Frame, frozen=True):
    """One account."""

    name: str
    state: State
    from_domains: list[tuple[str, int]]
    envelope_domains: list[tuple[str, int]]


class SenderState(Frame, frozen=True):
    """One sender."""

    account: str
    key: str
    state: State


class Messages(Frame, frozen=True):
    """Some that were counted in the last hour: message, until when, what it counts for."""

    some: list[tuple[str, float, Kept]]


class Buckets(Frame, frozen=True):
    """Some keys of a throttle."""

    throttle: Throttle
    some: list[tuple[str, str]]  # the number in words: it may have 90 bits


SnapshotFrame = Head | AccountState | SenderState | Messages | Buckets


class Snapshot:
    """One snapshot in the making: call `step` until it says that nothing is left."""

    def __init__(self, head: Head, counters: Counters, throttles: Throttles) -> None:
        self._counters = counters
        counters.mark += 1
        counters.before = self._take
        self._marked = counters.mark
        self._now_s = head.clock_s
        self._frames: list[Frame] = [head]
        self.parts: list[bytes] = [MAGIC]
        self._accounts = list(counters.accounts.values())
        # References only: what a message counts for never changes.
        # (No list of pairs: 200,000 new objects wake the collector of cycles.)
        self._ids, self._late = counters.ids.copy(), counters.late.copy()
        self._buckets = throttles.packed()
        self._rest = self._each()

    def step(self) -> bool:
        """Pack some; False when all is packed, and `parts` is the file but for its hash."""
        more = next(self._rest, None) is not None
        if self._frames:
            self.parts.append(frames.encode(self._frames))
            self._frames = []
        if not more:
            self.end()
        return more

    def end(self) -> None:
        """Be told no more."""
        if self._counters.before == self._take:
            self._counters.before = None

    def _each(self) -> Iterator[bool]:
        for account in self._accounts:
            # A look at each key now and then also lets go of windows with nothing in them.
            account.slide(self._now_s)
            self._take(account)
            for n, sender in enumerate(list(account.senders.values()), 1):
                sender.slide(self._now_s)
                self._take(sender)
                if n % STEP_KEYS == 0:
                    yield True
            if len(self._frames) >= STEP_KEYS:
                yield True
        in_time = ((m, k.at_s + HOUR_S, k) for m, k in self._ids.items())
        late = ((m, end_s, k) for m, (end_s, k) in self._late.items())
        for messages in (in_time, late):
            while piece := list(itertools.islice(messages, STEP_MESSAGES)):
                self._frames.append(Messages(piece))
                yield True
        for throttle, some in self._buckets:
            self._frames.append(Buckets(throttle, some))
            yield True

    def _take(self, key: Key) -> None:
        if key.marked == self._marked:
            return
        key.marked = self._marked
        state = _state(key)
        if isinstance(key, AccountKey):
            frame: Frame = AccountState(
                key.name, state, key.from_domains.packed(), key.envelope_domains.packed()
            )
        else:
            frame = SenderState(key.account, key.name, state)
        self._frames.append(frame)


def head_of(data: bytes) -> tuple[Head, list[SnapshotFrame]]:
    """Return what a file holds. Raises Torn: it is not whole, or of another version."""
    text = files.unsealed_parts(data)
    if not text.startswith(MAGIC):
        raise Torn("of another version, or no snapshot")
    found = frames.Splitter[SnapshotFrame](SnapshotFrame).feed(text[len(MAGIC) :])
    if not found or not isinstance(found[0], Head):
        raise Torn("it has no head")
    return found[0], found[1:]


def restore(rest: Sequence[SnapshotFrame], counters: Counters, throttles: Throttles) -> None:
    """Put all of a snapshot into counters and throttles that are empty. Raises Torn."""
    try:
        for frame in rest:
            match frame:
                case AccountState():
                    account = counters.account_key(frame.name, frame.state.first_s)
                    _restore(account, frame.state)
                    account.from_domains.restored(frame.from_domains)
                    account.envelope_domains.restored(frame.envelope_domains)
                case SenderState():
                    key = counters.sender_key(frame.account, frame.key, frame.state.first_s)
                    _restore(key, frame.state)
                case Messages():
                    for message, end_s, kept in frame.some:
                        counters.remember(message, kept, end_s)
                case Buckets():
                    throttles.restored([(frame.throttle, frame.some)])
                case _:
                    pass
    except ValueError as fault:
        raise Torn(str(fault)) from None


def _state(key: Key) -> State:
    return State(
        key.first_s, key.closed, key.day.packed(),
        key.hour.packed() if key.hour is not None else b"",
        key.minute.packed() if key.minute is not None else b"",
        key.history.packed() if key.history is not None else b"",
    )  # fmt: skip


def _restore(key: Key, state: State) -> None:
    key.first_s, key.closed = state.first_s, state.closed
    key.day.restored(state.day)
    if state.hour:
        key.hour = hour_window()
        key.hour.restored(state.hour)
    if state.minute:
        key.minute = minute_window()
        key.minute.restored(state.minute)
    if state.history:
        key.history = History()
        key.history.restored(state.history)
