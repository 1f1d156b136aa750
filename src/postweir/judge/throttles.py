"""Rates that are measured: how long until there is room, for each key of each throttle.

Pure; GCRA, the token bucket that is one number a key: the time at which the bucket is full again.
All in whole nanoseconds times the rate, so that nothing is lost in rounding.

* Never more than `burst + rate * t` is let through in any time t. One message that is larger than
  the burst would wait for ever; it is let through when the bucket is full, and then the bucket
  is in debt until all of it is paid. So in place of the burst there may be that one message.
* What is given back within GIVE_BACK_S leaves the bucket as if it had never been taken. What the
  bucket would have lost by being full meanwhile is lost: for that it remembers how low its debt
  was at each take since (the lowest, then the lowest after that, and so on).
* A throttle is known by its id and all its parameters: a policy that leaves it as it was leaves its
  buckets as they are, another one begins with full buckets.
* Who is forgotten had a full bucket, if any such is found among those silent for longest.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping

from postweir.policy.bundle import Throttle
from postweir.policy.facts import NUMBER_MAX

BUCKETS_MAX = 100_000  # 35 MB
LOOKS_MAX = 16
LOWS_MAX = 32  # of a bucket; beyond it the two oldest count as the lower of them
HELD_MAX = 100_000  # messages whose tokens can be given back
GIVE_BACK_S = 600.0
PACKED_MAX = 1000  # in one go: half a millisecond
NS = 1_000_000_000

Costs = Mapping[str, int]  # what a message costs each key: several recipients' domains, else one
# What a snapshot keeps: when each key is full, in words, for it may have 90 bits.
Packed = tuple[Throttle, list[tuple[str, str]]]
_Held = list[tuple[Throttle, str, int, int]]


class _Bucket:
    """One key of one throttle."""

    __slots__ = ("full_at", "lows")

    def __init__(self, full_at: int = 0) -> None:
        self.full_at = full_at  # nanoseconds times rate
        # (number of a take, the debt it found), both rising: the lowest debt since any take.
        self.lows: list[tuple[int, int]] = []

    def take(self, number: int, now: int, cost: int) -> None:
        debt, lows = max(0, self.full_at - now), self.lows
        while lows and lows[-1][1] >= debt:
            lows.pop()
        lows.append((number, debt))
        if len(lows) > LOWS_MAX:
            lows[:2] = [(lows[1][0], lows[0][1])]
        self.full_at = max(self.full_at, now) + cost

    def give_back(self, number: int, now: int, cost: int) -> None:
        debt, lows = self.full_at - now, self.lows
        since = bisect_right(lows, number, key=lambda low: low[0])
        if since < len(lows):
            debt = min(debt, lows[since][1])
        given = max(0, min(cost, debt))
        self.full_at -= given
        after = [(n, low - given) for n, low in lows[since:]]  # what they would have found
        if after:
            lows[since:] = []
            while lows and lows[-1][1] >= after[0][1]:
                lows.pop()
            lows += after


class Throttles:
    """The buckets of one judge."""

    def __init__(self, *, buckets_max: int = BUCKETS_MAX, held_max: int = HELD_MAX) -> None:
        self._tables: dict[Throttle, OrderedDict[str, _Bucket]] = {}
        self._held: OrderedDict[str, tuple[float, _Held]] = OrderedDict()
        self._buckets_max, self._held_max = buckets_max, held_max
        self._takes = 0

    def wait_s(self, throttle: Throttle, costs: Costs, now_s: float) -> int:
        """Return whole seconds until there is room for all of this, 0: there is. Takes nothing."""
        table, wait = self._tables.get(throttle), 0
        if table is None:
            return 0  # all are full
        now = _scaled(throttle, now_s)
        for key, cost in costs.items():
            bucket = table.get(key)
            if bucket is not None:
                room = (throttle.burst - min(cost, throttle.burst)) * throttle.per_s * NS
                wait = max(wait, bucket.full_at - now - room)
        return min(-(-wait // (NS * throttle.rate)), NUMBER_MAX)

    def take(self, message: str, wanted: Iterable[tuple[Throttle, Costs]], now_s: float) -> None:
        """Take what a message costs; a second time for the same message takes nothing."""
        if message in self._held:
            return
        taken: _Held = []
        for throttle, costs in wanted:
            for key, cost in costs.items():
                self._takes += 1
                self._bucket(throttle, key, now_s).take(
                    self._takes, _scaled(throttle, now_s), cost * throttle.per_s * NS
                )
                taken.append((throttle, key, cost, self._takes))
        if taken:
            self._held[message] = now_s, taken
            self._let_go(now_s, 2)

    def held(self, message: str) -> bool:
        """True when this message was let through, and what it took could be given back."""
        return message in self._held

    def give_back(self, message: str, now_s: float) -> None:
        """Give back what a message took."""
        _, taken = self._held.pop(message, (0.0, []))
        for throttle, key, cost, number in taken:
            table = self._tables.get(throttle)
            bucket = table.get(key) if table is not None else None
            if bucket is not None:  # else it is forgotten, and full
                scaled = cost * throttle.per_s * NS
                bucket.give_back(number, _scaled(throttle, now_s), scaled)

    def tidy(self, now_s: float, count_max: int = 200) -> None:
        """Forget some that are full: to forget them changes nothing."""
        self._let_go(now_s, count_max)
        for throttle, table in list(self._tables.items()):
            now = _scaled(throttle, now_s)
            for _ in range(count_max):
                key, bucket = next(iter(table.items()), ("", None))
                if bucket is None:
                    del self._tables[throttle]
                    break
                if bucket.full_at > now:
                    table.move_to_end(key)
                    break
                del table[key]

    def packed(self, count_max: int = PACKED_MAX) -> Iterator[Packed]:
        """Yield all buckets that are in use, some at a time, each as it is by then: for `restored`.

        What is taken meanwhile is in it or is not: nothing would tell of it after a restart.
        """
        for throttle, table in list(self._tables.items()):
            # As of a dict, a millisecond for all; in the order of their last use it takes twenty.
            keys = list(dict.keys(table))
            for at in range(0, len(keys), count_max):
                some = ((key, table.get(key)) for key in keys[at : at + count_max])
                yield throttle, [(key, str(bucket.full_at)) for key, bucket in some if bucket]

    def restored(self, packed: Iterable[Packed]) -> None:
        """Take what `packed` gave. Raises ValueError: that is no number."""
        for throttle, buckets in packed:
            table = self._tables.setdefault(throttle, OrderedDict())
            for key, full_at in buckets[: self._buckets_max - len(self)]:
                table[key] = _Bucket(int(full_at))

    def __len__(self) -> int:
        return sum(map(len, self._tables.values()))

    def _bucket(self, throttle: Throttle, key: str, now_s: float) -> _Bucket:
        table = self._tables.setdefault(throttle, OrderedDict())
        bucket = table.get(key)
        if bucket is None:
            if len(self) >= self._buckets_max:
                self._forget(now_s)
            bucket = table[key] = _Bucket()
        else:
            table.move_to_end(key)
        return bucket

    def _let_go(self, now_s: float, count_max: int) -> None:
        """Forget what can be given back no more."""
        for _ in range(count_max):
            at_s, _taken = next(iter(self._held.values()), (now_s, None))
            if now_s - at_s < GIVE_BACK_S and len(self._held) <= self._held_max:
                return
            self._held.popitem(last=False)

    def _forget(self, now_s: float) -> None:
        """Forget one of the largest table: a full one, or the fullest of some that were silent."""
        throttle, table = max(self._tables.items(), key=lambda each: len(each[1]))
        now = _scaled(throttle, now_s)
        fullest, least = "", -1
        for looks, (key, bucket) in enumerate(table.items(), 1):
            debt = max(0, bucket.full_at - now)
            if least < 0 or debt < least:
                fullest, least = key, debt
            if not debt or looks == LOOKS_MAX:
                break
        del table[fullest]


def _scaled(throttle: Throttle, at_s: float) -> int:
    return int(at_s * NS) * throttle.rate
