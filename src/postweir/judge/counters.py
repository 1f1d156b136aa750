"""How much each sender and account sent lately: a minute and an hour, messages and recipients.

Pure: times come in as arguments, in seconds of one steadily growing clock. A message is counted
once, by its id, which is remembered for as long as it counts.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

HOUR_S, MINUTE_S = 3600.0, 60.0
HOUR_SLOT_S, MINUTE_SLOT_S = 60.0, 5.0  # a window is up to one slot longer than its name
SENDERS_MAX = 100_000  # who was silent longest is forgotten: 60 MB, 260 if all send all the time
ACCOUNTS_MAX = 20_000
IDS_MAX = 200_000  # 50 MB; beyond it a late question about an old message counts it again


class Level(NamedTuple):
    """What one key sent, the latest message included."""

    messages_1m: int = 0
    messages_1h: int = 0
    recipients_1m: int = 0
    recipients_1h: int = 0


class Entry(NamedTuple):
    """One message that counts."""

    at_s: float
    account: str
    sender: str
    recipients: int


class _Window:
    """Sums over the last `span_s`, in slots."""

    __slots__ = ("_slot_s", "_slots", "_span_s", "messages", "recipients")

    def __init__(self, span_s: float, slot_s: float) -> None:
        self._span_s, self._slot_s = span_s, slot_s
        # Slot, messages, recipients; and so on, oldest first: 24 bytes a slot, not 150.
        self._slots = array("q")
        self.messages = self.recipients = 0

    def add(self, at_s: float, messages: int, recipients: int) -> None:
        """Add to the slot of that time; negative numbers take off, never below nothing."""
        slots, slot = self._slots, int(at_s // self._slot_s)
        place = len(slots)
        while place and slots[place - 3] > slot:  # mostly the last one
            place -= 3
        if not place or slots[place - 3] != slot:
            if messages < 0:
                return  # it has left the window
            slots[place:place] = array("q", (slot, 0, 0))
            place += 3
        messages = max(messages, -slots[place - 2])
        recipients = max(recipients, -slots[place - 1])
        slots[place - 2] += messages
        slots[place - 1] += recipients
        self.messages += messages
        self.recipients += recipients

    def slide(self, now_s: float) -> None:
        """Forget what has left the window."""
        slots, oldest = self._slots, (now_s - self._span_s) // self._slot_s
        gone = 0
        while gone < len(slots) and slots[gone] < oldest:
            self.messages -= slots[gone + 1]
            self.recipients -= slots[gone + 2]
            gone += 3
        if gone:
            del slots[:gone]


class _Key:
    """One sender or account."""

    __slots__ = ("hour", "minute")

    def __init__(self) -> None:
        self.hour = _Window(HOUR_S, HOUR_SLOT_S)
        self.minute = _Window(MINUTE_S, MINUTE_SLOT_S)

    def add(self, at_s: float, now_s: float, messages: int, recipients: int) -> None:
        self.slide(now_s)
        self.hour.add(at_s, messages, recipients)
        if now_s - at_s < MINUTE_S or messages < 0:
            self.minute.add(at_s, messages, recipients)

    def slide(self, now_s: float) -> None:
        self.hour.slide(now_s)
        self.minute.slide(now_s)

    def level(self) -> Level:
        return Level(
            self.minute.messages, self.hour.messages, self.minute.recipients, self.hour.recipients
        )


class Counters:
    """The levels of all senders and accounts that one judge answers for."""

    def __init__(
        self,
        *,
        senders_max: int = SENDERS_MAX,
        accounts_max: int = ACCOUNTS_MAX,
        ids_max: int = IDS_MAX,
    ) -> None:
        self._senders: OrderedDict[str, _Key] = OrderedDict()
        self._accounts: OrderedDict[str, _Key] = OrderedDict()
        self._ids: OrderedDict[str, Entry] = OrderedDict()
        self._senders_max, self._accounts_max, self._ids_max = senders_max, accounts_max, ids_max

    def count(self, message: str, entry: Entry, now_s: float) -> bool:
        """Count a message; False when its id was counted before, or it is too old to count."""
        self._forget(now_s)
        if message in self._ids or now_s - entry.at_s >= HOUR_S:
            return False
        self._ids[message] = entry
        self._add(entry, now_s, 1)
        return True

    def uncount(self, message: str, now_s: float) -> bool:
        """Take a message off again; False when it is not remembered."""
        entry = self._ids.pop(message, None)
        if entry is None:
            return False
        self._add(entry, now_s, -1)
        return True

    def counted(self, message: str) -> bool:
        """True when this id was counted and is remembered."""
        return message in self._ids

    def restore(self, lately: Iterable[tuple[str, Entry]], now_s: float) -> int:
        """Count what others remember of the last hour; returns how many were new."""
        return sum(self.count(message, entry, now_s) for message, entry in lately)

    def sender(self, key: str, now_s: float) -> Level:
        """Return a sender's level."""
        return _level(self._senders, key, now_s)

    def account(self, name: str, now_s: float) -> Level:
        """Return an account's level."""
        return _level(self._accounts, name, now_s)

    def __len__(self) -> int:
        return len(self._ids)

    def _add(self, entry: Entry, now_s: float, sign: int) -> None:
        for keys, key, most in (
            (self._senders, entry.sender, self._senders_max),
            (self._accounts, entry.account, self._accounts_max),
        ):
            found = keys.get(key)
            if found is None:
                if sign < 0:
                    continue
                found = keys[key] = _Key()
                if len(keys) > most:
                    keys.popitem(last=False)
            else:
                keys.move_to_end(key)
            found.add(entry.at_s, now_s, sign, sign * entry.recipients)

    def _forget(self, now_s: float) -> None:
        """Drop ids that count no more; a few at each call, for they come about in order."""
        for _ in range(2):
            if not self._ids:
                return
            oldest = next(iter(self._ids))
            if now_s - self._ids[oldest].at_s < HOUR_S and len(self._ids) < self._ids_max:
                return
            del self._ids[oldest]


def _level(keys: "OrderedDict[str, _Key]", key: str, now_s: float) -> Level:
    found = keys.get(key)
    if found is None:
        return Level()
    found.slide(now_s)
    return found.level()
