"""What is remembered of one sender or account: its windows and history, and whom it wrote to."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from postweir.judge.history import HALF_HOUR_S, Domains, History, Usual
from postweir.judge.windows import DAY_S, HOUR_S, MINUTE_S, Window
from postweir.runtime.frames import Struct, made

HOUR_SLOT_S, MINUTE_SLOT_S = 60.0, 5.0  # a window is up to one slot longer than its name

DELIVERED, BOUNCED, UNKNOWN = "delivered", "bounced", "unknown"
_OUTCOME = {
    DELIVERED: (0, 0, 0, 0, 1),
    BOUNCED: (0, 0, 0, 0, 0, 1),
    UNKNOWN: (0, 0, 0, 0, 0, 1, 1),  # it bounced, too
}
_NOTHING = (0, 0, 0)


class Level(NamedTuple):
    """What one key sent and what came of it, the latest message included."""

    messages_1m: int = 0
    messages_1h: int = 0
    recipients_1m: int = 0
    recipients_1h: int = 0
    messages_1d: int = 0
    recipients_1d: int = 0
    bytes_1h: int = 0
    bytes_1d: int = 0
    new_recipients_1h: int = 0
    new_recipients_1d: int = 0
    unique_recipients_1h: int = 0
    delivered_1d: int = 0
    bounced_1d: int = 0
    unknown_1d: int = 0


class Key(Struct, gc=False):
    """One sender or account."""

    account: str
    name: str  # of an account, as `account`
    number: int  # as pairs with recipients are hashed
    first_s: float  # when it was first seen
    closed: int = 0  # days before this one are in the history
    tick: int = -1  # when it was slid last
    marked: int = 0  # the last snapshot it was written to
    minute: Window | None = None  # made when there is something in it
    hour: Window | None = None
    day: Window = made(default_factory=lambda: Window(DAY_S, HALF_HOUR_S, 7))
    history: History | None = None
    # Recipients of the last hour: in how many messages, times two, and one more when it counts
    # as new.
    recent: dict[int, int] | None = None

    def __post_init__(self) -> None:
        self.closed = int(self.first_s // DAY_S)

    def add(self, at_s: float, now_s: float, amounts: tuple[int, int, int, int]) -> None:
        """Count messages, recipients, bytes and new recipients."""
        self.slide(now_s)
        age_s = now_s - at_s
        if age_s < MINUTE_S:
            if self.minute is None:
                self.minute = minute_window()
            self.minute.add(at_s, amounts[:2])
        if age_s < HOUR_S:
            if self.hour is None:
                self.hour = hour_window()
            self.hour.add(at_s, amounts)
        if age_s < DAY_S:
            self.day.add(at_s, amounts)
        else:
            self._history().note(int(at_s // DAY_S), amounts, int(now_s // DAY_S))
        self.saw(at_s)

    def take_off(self, at_s: float, recipients: int, size: int, new: int) -> None:
        """Count a message no more."""
        if self.minute is not None:
            self.minute.take_off(at_s, (1, recipients))
        if self.hour is not None:
            self.hour.take_off(at_s, (1, recipients, size, new))
        self.day.take_off(at_s, (1, recipients, size, new))

    def came_of(self, kind: str, at_s: float, now_s: float) -> None:
        """Count what became of a recipient."""
        self.slide(now_s)
        if now_s - at_s < DAY_S:
            self.day.add(at_s, _OUTCOME[kind])
            self.saw(at_s)

    def saw(self, at_s: float) -> None:
        """Note a time it was seen at; one of a day that was closed opens that again."""
        self.first_s = min(self.first_s, at_s)
        if at_s < self.closed * DAY_S:
            self.closed, self.tick = int(at_s // DAY_S), -1

    def slide(self, now_s: float) -> None:
        """Close the days that are over, and forget what has left the windows."""
        tick = int(now_s // MINUTE_SLOT_S)  # between two of them nothing leaves any window
        if tick == self.tick:
            return
        self.tick = tick
        today = int(now_s // DAY_S)
        if self.closed < today:
            if self.day:
                self._history().close(self.day.each(), today)
            self.closed = today
        self.day.slide(now_s)
        if self.hour is not None:
            self.hour.slide(now_s)
            if not self.hour:
                self.hour = None
        if self.minute is not None:
            self.minute.slide(now_s)
            if not self.minute:
                self.minute = None

    def level(self) -> Level:
        """Return its level, after `slide`."""
        minute = self.minute.sums if self.minute is not None else _NOTHING
        hour = self.hour.sums if self.hour is not None else (0, 0, 0, 0)
        day = self.day.sums
        return Level(
            minute[0], hour[0], minute[1], hour[1], day[0], day[1], hour[2], day[2], hour[3],
            day[3], len(self.recent) if self.recent else 0, day[4], day[5], day[6],
        )  # fmt: skip

    def usual(self, now_s: float) -> Usual:
        """Return what is usual of it, after `slide`."""
        return self.history.usual(int(now_s // DAY_S)) if self.history is not None else Usual()

    def _history(self) -> History:
        if self.history is None:
            self.history = History()
        return self.history


class AccountKey(Key, gc=False):
    """One account, with its senders and domains."""

    senders: OrderedDict[str, Key] = made(default_factory=OrderedDict)
    from_domains: Domains = made(default_factory=Domains)
    envelope_domains: Domains = made(default_factory=Domains)


def minute_window() -> Window:
    """Return a window of messages and recipients."""
    return Window(MINUTE_S, MINUTE_SLOT_S, 2)


def hour_window() -> Window:
    """Return a window of messages, recipients, bytes and new recipients."""
    return Window(HOUR_S, HOUR_SLOT_S, 4)


def put(key: Key | None, met: Iterable[int], new: Iterable[int]) -> None:
    """Have a message's recipients in the hour of a key."""
    if key is None or not met:
        return
    recent = key.recent
    if recent is None:
        recent = key.recent = {}
    for one in met:
        recent[one] = recent.get(one, 0) + 2
    for one in new:
        recent[one] |= 1


def drop(key: Key, met: Iterable[int], new: Iterable[int]) -> None:
    """Take a message's recipients out of the hour; those it made new are so no more."""
    recent = key.recent
    if recent is None:
        return
    for one in new:
        if one in recent:
            recent[one] &= ~1
    for one in met:
        left = recent.get(one, 0) - 2
        if left < 2:
            recent.pop(one, None)
        else:
            recent[one] = left
    if not recent:
        key.recent = None
