"""What is usual: the days with mail and the busiest hour of the last fortnight, and the domains.

Pure. A day's busiest hour is worked out of the half hours of the day's window once the day is
over, so that what was taken off again is not in it, and a restart finds the same. An hour begins
here at :00 or :30.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from postweir.judge.windows import DAY_S
from postweir.runtime.frames import Struct

DAYS = 14
HALF_HOUR_S = 1800.0
_HALVES = int(DAY_S // HALF_HOUR_S)
_PEAKS = 4  # messages, recipients, bytes, new recipients
_STEP = 1 + _PEAKS
_NONE = array("q")  # replaced, never added to
DOMAINS_MAX = 5000  # of an account: 600 KB; a reseller has some hundreds


class Usual(NamedTuple):
    """What one key did on the days before today."""

    days: int = 0
    peak_messages_1h: int = 0
    peak_recipients_1h: int = 0
    peak_bytes_1h: int = 0
    peak_new_recipients_1h: int = 0


class History(Struct, gc=False):
    """The days with mail of one sender or account, oldest first."""

    _days: "array[int]" = _NONE  # day, and its busiest hour; 40 bytes a day with mail
    _usual: Usual = Usual()
    _usual_of: int = -1  # as seen from that day

    def close(self, halves: Iterable[tuple[int, Sequence[int]]], today: int) -> None:
        """Take in what half hours say of days before today; as often as it is told."""
        last, before = -1, (0,) * _PEAKS
        for half, amounts in halves:
            day = half // _HALVES
            if day >= today:
                break
            if not amounts[0]:  # outcomes of earlier mail, and none sent
                continue
            some = tuple(amounts[:_PEAKS])
            # The hour that began half an hour before counts for the day it ends in.
            hour = [a + b for a, b in zip(some, before, strict=True)] if half == last + 1 else some
            self._raise(day, hour)
            last, before = half, some
        self._forget(today)

    def note(self, day: int, amounts: Sequence[int], today: int) -> None:
        """Take in one message of a day that the window has no half hours of any more."""
        if today - DAYS <= day < today:
            self._raise(day, amounts)

    def usual(self, today: int) -> Usual:
        """Return what is usual, seen from that day."""
        if self._usual_of != today:
            self._forget(today)
            days = self._days
            peaks = [max(days[n::_STEP], default=0) for n in range(1, _STEP)]
            self._usual, self._usual_of = Usual(len(days) // _STEP, *peaks), today
        return self._usual

    def packed(self) -> bytes:
        """Return all of it, for `restored`."""
        return self._days.tobytes()

    def restored(self, packed: bytes) -> None:
        """Take what `packed` gave. Raises ValueError."""
        days = array("q")
        days.frombytes(packed)
        if len(days) % _STEP:
            raise ValueError("days of another width")
        self._days, self._usual_of = days, -1

    def __bool__(self) -> bool:
        return bool(self._days)

    def _raise(self, day: int, amounts: Sequence[int]) -> None:
        days = self._days = self._days or array("q")
        at = len(days)
        while at and days[at - _STEP] > day:
            at -= _STEP
        if at and days[at - _STEP] == day:
            at -= _STEP
        else:
            days[at:at] = array("q", (day, *[0] * _PEAKS))
        for n, amount in enumerate(amounts, at + 1):
            days[n] = max(days[n], amount)
        self._usual_of = -1

    def _forget(self, today: int) -> None:
        days, gone = self._days, 0
        while gone < len(days) and days[gone] < today - DAYS:
            gone += _STEP
        if gone:
            self._days = days[gone:]
            self._usual_of = -1


class Domains:
    """The domains an account sends with: the day each was first seen; the least used goes first."""

    __slots__ = ("_first",)

    def __init__(self) -> None:
        self._first: OrderedDict[str, int] = OrderedDict()

    def add(self, domain: str, today: int) -> None:
        """Note that mail with this domain was taken today."""
        if domain in self._first:
            self._first.move_to_end(domain)
            return
        self._first[domain] = today
        if len(self._first) > DOMAINS_MAX:
            self._first.popitem(last=False)

    def known(self, domain: str, today: int) -> bool:
        """True when it was seen before today."""
        return self._first.get(domain, today) < today

    def __len__(self) -> int:
        return len(self._first)

    def packed(self) -> list[tuple[str, int]]:
        """Return all of it, for `restored`."""
        return list(self._first.items())

    def restored(self, packed: Iterable[tuple[str, int]]) -> None:
        """Take what `packed` gave."""
        self._first = OrderedDict(packed)
