"""How much each sender and account sent lately, to whom, what became of it, and what is usual.

Pure: times come in as arguments, in seconds of one steadily growing clock that is about UTC
(`levels.py` has it). A message is counted once, by its id, which is remembered for as long as it
counts to the hour; until then all of it can be taken off again: messages, recipients, bytes,
different and new recipients.

New is a recipient to whom nobody of this sender (or account) wrote before. While a message is in
its hour its recipients stand in the sender's and the account's own table; then they go into the
filter of `met.py`. So what is put off and comes again finds its recipients as new as before.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from postweir.judge.history import Usual
from postweir.judge.keys import AccountKey, Key, Level, drop, put
from postweir.judge.met import Hashes, Met, pair
from postweir.judge.windows import DAY_S, HOUR_S
from postweir.runtime.frames import Value

# Who was silent longest is forgotten. Measured: a sender costs 0.9 KB with a message a day, 2 KB
# with ten, 5 KB when it sends all the time; so 100 to 200 MB in practice.
SENDERS_MAX = 100_000
ACCOUNTS_MAX = 20_000
SHARE_MAX = 10  # an account with a tenth of all senders forgets its own, not those of others
IDS_MAX = 200_000  # 60 MB; beyond it a late question about an old message counts it again
GONE_MAX = 10_000  # that were taken off, and still stand in line for their end
LOOKED_AT_MAX = 100  # recipients of a message, for different and new ones: 0.4 ms
RECIPIENTS_MAX = 500_000  # of the last hour in all tables: 70 MB; beyond it the oldest go first
WATCHED_S = 7 * DAY_S  # after so long of watching, who was not seen is new, and what is not usual


class Entry(NamedTuple):
    """One message that counts."""

    at_s: float
    account: str
    sender: str
    recipients: int
    bytes: int = 0
    addresses: Sequence[str] = ()  # of recipients; the first LOOKED_AT_MAX are looked at


class Kept(Value, frozen=True):
    """What is remembered of a counted message, to take it off again."""

    at_s: float
    account: str
    sender: str
    recipients: int
    bytes: int
    met: tuple[int, ...]  # its recipients, hashed, each once
    new_sender: tuple[int, ...]  # those of them that it made count as new
    new_account: tuple[int, ...]


class Standing(NamedTuple):
    """What is known of one key when a question is asked."""

    level: Level
    usual: Usual
    first_s: float  # when it was first seen


class Counters:
    """The levels of all senders and accounts that one judge answers for."""

    def __init__(
        self,
        hashes: Hashes,
        met: Met | None = None,
        *,
        since_s: float = 0.0,
        senders_max: int = SENDERS_MAX,
        accounts_max: int = ACCOUNTS_MAX,
        ids_max: int = IDS_MAX,
        recipients_max: int = RECIPIENTS_MAX,
    ) -> None:
        self.hashes, self.met = hashes, met if met is not None else Met()
        self.since_s = since_s  # since when we watch
        self.accounts: OrderedDict[str, AccountKey] = OrderedDict()
        self.senders_total = 0
        # In the order they were counted, which is that in which they end; but for those that were
        # judged late, whose ends stand in a heap. (No OrderedDict: to copy it for a snapshot takes
        # fifteen times as long.)
        self.ids: dict[str, Kept] = {}
        self._order: deque[str] = deque()  # of `ids`, with some that were taken off
        self._last_s = 0.0
        self.late: dict[str, tuple[float, Kept]] = {}  # with its end
        self._ends: list[tuple[float, str]] = []
        self._recipients = 0  # in all that is remembered
        self._senders_max, self._accounts_max = senders_max, accounts_max
        self._ids_max, self._recipients_max = ids_max, recipients_max
        # While snapshot `mark` is written it is told before a key changes, to take it as it was.
        self.before: Callable[[Key], None] | None = None
        self.mark = 0

    def count(self, message: str, entry: Entry, now_s: float, *, again: bool = True) -> bool:
        """Count a message; False when its id was counted before, or it is too old to count.

        Without `again` it is read back: nobody will ask about it, so an old one need not be
        remembered, and one older than a day counts as usual for its day.
        """
        self._expire(now_s, 1)  # one comes, one goes; `tidy` sees to the rest
        age_s = now_s - entry.at_s
        if message in self.ids or message in self.late or (again and age_s >= DAY_S):
            return False
        account = self.account_key(entry.account, entry.at_s)
        sender = self._sender(account, entry.sender, entry.at_s)
        met = self._hashed(entry.addresses)
        kept = Kept(
            entry.at_s, entry.account, entry.sender, entry.recipients, entry.bytes, met,
            self._new(sender, met), self._new(account, met),
        )  # fmt: skip
        for key, new in ((sender, kept.new_sender), (account, kept.new_account)):
            key.add(entry.at_s, now_s, (1, entry.recipients, entry.bytes, len(new)))
        if age_s < HOUR_S:
            self.remember(message, kept, entry.at_s + HOUR_S)
        else:
            self._meet(kept, sender, account, now_s)
            if again:
                self.remember(message, _old(kept), now_s + HOUR_S)
        return True

    def uncount(self, message: str) -> bool:
        """Take a message off again; False when it is not remembered."""
        kept = self.ids.pop(message, None)
        if kept is None:
            _, kept = self.late.pop(message, (0.0, None))
        if kept is None:
            return False
        if self._order and self._order[-1] == message:  # mostly what was just put off
            self._order.pop()
        elif len(self._order) > 2 * len(self.ids) + GONE_MAX:
            self._order = deque(one for one in self._order if one in self.ids)
        self._recipients -= len(kept.met)
        account, sender = self._found(kept)
        for key, new in ((account, kept.new_account), (sender, kept.new_sender)):
            if key is not None:
                self._changes(key)
                key.take_off(kept.at_s, kept.recipients, kept.bytes, len(new))
                drop(key, kept.met, new)
        return True

    def counted(self, message: str) -> bool:
        """True when this id was counted and is remembered."""
        return message in self.ids or message in self.late

    def came_of(self, kind: str, account: str, sender: str, at_s: float, now_s: float) -> None:
        """Count what became of one recipient: delivered, bounced, or unknown."""
        if now_s - at_s >= DAY_S:
            return
        owner = self.account_key(account, at_s)
        for key in (owner, self._sender(owner, sender, at_s)):
            key.came_of(kind, at_s, now_s)

    def took(self, account: str, from_domain: str, envelope_domain: str, now_s: float) -> None:
        """Note the domains of a message that was taken."""
        found = self.accounts.get(account)
        if found is None:
            return
        today = int(now_s // DAY_S)
        for domains, domain in (
            (found.from_domains, from_domain),
            (found.envelope_domains, envelope_domain),
        ):
            if domain:
                self._changes(found)
                domains.add(domain, today)

    def standing(self, account: str, sender: str, now_s: float) -> tuple[Standing, Standing]:
        """Return what is known of a sender and of its account."""
        owner = self.accounts.get(account)
        key = owner.senders.get(sender) if owner is not None else None
        return _standing(key, now_s), _standing(owner, now_s)

    def sender(self, key: str, now_s: float) -> Level:
        """Return a sender's level."""
        return self.standing(key.partition("|")[0], key, now_s)[0].level

    def account(self, name: str, now_s: float) -> Level:
        """Return an account's level."""
        return _standing(self.accounts.get(name), now_s).level

    def domains(self, account: str) -> AccountKey | None:
        """Return the account, for what it is known to send with."""
        return self.accounts.get(account)

    def watched(self, now_s: float) -> bool:
        """True when we watch for long enough to say what is usual."""
        return now_s - self.since_s >= WATCHED_S

    def age_known(self, first_s: float, now_s: float) -> bool:
        """True when a key's first time is its first, or so long ago that it does not matter."""
        return first_s - self.since_s >= WATCHED_S or now_s - first_s >= WATCHED_S

    def tidy(self, now_s: float, count_max: int = 200) -> bool:
        """End some of what has left the hour; True when more is left."""
        self.met.forget(now_s)
        return self._expire(now_s, count_max)

    def remember(self, message: str, kept: Kept, end_s: float) -> None:
        """Remember a counted message until then, and its recipients."""
        if kept.at_s < self._last_s or end_s > kept.at_s + HOUR_S:
            self.late[message] = end_s, kept
            heapq.heappush(self._ends, (end_s, message))
        else:
            self.ids[message], self._last_s = kept, kept.at_s
            self._order.append(message)
        self._recipients += len(kept.met)
        account, sender = self._found(kept)
        put(account, kept.met, kept.new_account)
        put(sender, kept.met, kept.new_sender)

    def __len__(self) -> int:
        return len(self.ids) + len(self.late)

    def _hashed(self, addresses: Sequence[str]) -> tuple[int, ...]:
        if len(addresses) == 1:
            return (self.hashes.of(addresses[0]),)
        return tuple({self.hashes.of(address) for address in addresses[:LOOKED_AT_MAX]})

    def _new(self, key: Key, met: Iterable[int]) -> tuple[int, ...]:
        recent, number = key.recent, key.number
        if recent:
            met = [one for one in met if not recent.get(one, 0) & 1]
        return tuple([one for one in met if pair(number, one) not in self.met])

    def account_key(self, name: str, at_s: float) -> AccountKey:
        """Return an account, made if it is not there; it is used now."""
        found = self.accounts.get(name)
        if found is None:
            found = self.accounts[name] = AccountKey(name, name, self.hashes.of(name), at_s)
            self._begins(found)
            if len(self.accounts) > self._accounts_max:
                _, gone = self.accounts.popitem(last=False)
                self.senders_total -= len(gone.senders)
        else:
            self.accounts.move_to_end(name)
            self._changes(found)
        return found

    def sender_key(self, name: str, key: str, at_s: float) -> Key:
        """Return a sender of an account, made if it is not there; both are used now."""
        return self._sender(self.account_key(name, at_s), key, at_s)

    def _sender(self, account: AccountKey, key: str, at_s: float) -> Key:
        found = account.senders.get(key)
        if found is not None:
            account.senders.move_to_end(key)
            self._changes(found)
            return found
        found = account.senders[key] = Key(account.name, key, self.hashes.of(key), at_s)
        self._begins(found)
        self.senders_total += 1
        if self.senders_total > self._senders_max:
            # Who makes up senders loses its own. Else the account that was silent longest does.
            loser = account
            if len(account.senders) <= self._senders_max // SHARE_MAX:
                loser = next((a for a in self.accounts.values() if a.senders), account)
            loser.senders.popitem(last=False)
            self.senders_total -= 1
        return found

    def _begins(self, key: Key) -> None:
        key.marked = self.mark  # it was not there when this snapshot began

    def _changes(self, key: Key) -> None:
        if self.before is not None and key.marked != self.mark:
            self.before(key)

    def _found(self, kept: Kept) -> tuple[AccountKey | None, Key | None]:
        """Return whom a message counts for, as far as they are remembered."""
        account = self.accounts.get(kept.account)
        return account, account.senders.get(kept.sender) if account is not None else None

    def _expire(self, now_s: float, count_max: int) -> bool:
        """End messages that left their hour, or for which there is no room; oldest first."""
        for _ in range(count_max):
            kept = self._next_end(now_s)
            if kept is None:
                return False
            self._recipients -= len(kept.met)
            account, sender = self._found(kept)
            for key in (account, sender):
                if key is not None:
                    drop(key, kept.met, ())
            self._meet(kept, sender, account, now_s)
        return True

    def _next_end(self, now_s: float) -> Kept | None:
        ids, late = self.ids, self.late
        full = len(ids) + len(late) >= self._ids_max or self._recipients >= self._recipients_max
        while late and (full or self._ends[0][0] <= now_s):
            end_s, message = heapq.heappop(self._ends)
            if late.get(message, (0.0,))[0] == end_s:  # else it was taken off since
                return late.pop(message)[1]
        if not late:
            self._ends.clear()  # of what was taken off
        order = self._order
        while order and order[0] not in ids:
            order.popleft()
        if order and (full or ids[order[0]].at_s + HOUR_S <= now_s):
            return ids.pop(order.popleft())
        return None

    def _meet(self, kept: Kept, sender: Key | None, account: Key | None, now_s: float) -> None:
        for key in (sender, account):
            if key is not None:
                for one in kept.met:
                    self.met.add(pair(key.number, one), now_s)


def _old(kept: Kept) -> Kept:
    """Return what is remembered of a message whose recipients have left their hour."""
    return Kept(kept.at_s, kept.account, kept.sender, kept.recipients, kept.bytes, (),
                kept.new_sender, kept.new_account)  # fmt: skip


def _standing(key: Key | None, now_s: float) -> Standing:
    if key is None:
        return Standing(Level(), Usual(), now_s)
    key.slide(now_s)
    return Standing(key.level(), key.usual(now_s), key.first_s)
