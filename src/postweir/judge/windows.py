"""Sums over the last minute, hour or day, in slots: a few numbers for each slot with something in.

Pure: times come in as arguments, in seconds of one steadily growing clock. What a slot held can be
taken off again, so a sum is always that of what still counts.
"""

from array import array
from collections.abc import Iterator, Sequence

from postweir.runtime.frames import Struct

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86_400.0
_NONE = array("q")  # replaced, never added to


class Window(Struct, gc=False):
    """Sums over the last `span_s`, and up to one slot longer.

    One array for all slots, oldest first: slot number, then its amounts. A quiet sender costs a
    hundred bytes here, where a dict of slots would cost a thousand. And nothing of it is looked at
    by the collector of cycles, which would stop all for half a second with 100,000 senders.
    """

    span_s: float
    slot_s: float
    width: int  # amounts of a slot
    sums: "array[int]" = _NONE
    _slots: "array[int]" = _NONE

    def __post_init__(self) -> None:
        self.sums, self._slots = array("q", bytes(8 * self.width)), array("q")

    def add(self, at_s: float, amounts: Sequence[int]) -> None:
        """Add to the slot of that time; amounts that are left out are 0."""
        slots, step = self._slots, self.width + 1
        slot = int(at_s // self.slot_s)
        at = len(slots) - step
        if at < 0 or slots[at] != slot:  # mostly it is the last one
            at = self._place(slot, step)
        sums = self.sums
        for n, amount in enumerate(amounts):
            at += 1
            if amount:
                slots[at] += amount
                sums[n] += amount

    def take_off(self, at_s: float, amounts: Sequence[int]) -> None:
        """Take off the slot of that time what was added to it; nothing when it is gone."""
        slots, step = self._slots, self.width + 1
        slot = int(at_s // self.slot_s)
        at = len(slots) - step
        while at >= 0 and slots[at] > slot:
            at -= step
        if at < 0 or slots[at] != slot:
            return
        for n, amount in enumerate(amounts):
            less = min(amount, slots[at + n + 1])
            slots[at + n + 1] -= less
            self.sums[n] -= less
        if not any(slots[at + 1 : at + step]):
            del slots[at : at + step]

    def slide(self, now_s: float) -> None:
        """Forget what has left the window."""
        slots = self._slots
        if not slots:
            return
        oldest = (now_s - self.span_s) // self.slot_s
        if slots[0] >= oldest:
            return
        step, gone = self.width + 1, 0
        while gone < len(slots) and slots[gone] < oldest:
            for n in range(1, step):
                self.sums[n - 1] -= slots[gone + n]
            gone += step
        # Not `del`: what an array had of memory it keeps, and most senders had one busy hour.
        self._slots = slots[gone:]

    def __bool__(self) -> bool:
        return bool(self._slots)

    def each(self) -> Iterator[tuple[int, Sequence[int]]]:
        """Yield each slot's number and amounts, oldest first."""
        step = self.width + 1
        for at in range(0, len(self._slots), step):
            yield self._slots[at], self._slots[at + 1 : at + step]

    def packed(self) -> bytes:
        """Return all of it, for `restored`."""
        return self._slots.tobytes()

    def restored(self, packed: bytes) -> None:
        """Take what `packed` gave. Raises ValueError: it was not this window's."""
        slots, step = array("q"), self.width + 1
        slots.frombytes(packed)
        if len(slots) % step:
            raise ValueError("a window of another width")
        self._slots = slots
        self.sums = array("q", [sum(slots[n::step]) for n in range(1, step)])

    def _place(self, slot: int, step: int) -> int:
        """Return where this slot stands, made if it is not there."""
        slots = self._slots
        at = len(slots)
        while at and slots[at - step] > slot:
            at -= step
        if at and slots[at - step] == slot:
            return at - step
        slots[at:at] = array("q", (slot, *[0] * (step - 1)))
        return at
