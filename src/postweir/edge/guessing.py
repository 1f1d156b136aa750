"""Who guesses secrets: what is remembered of failed AUTH, and who waits for it.

A secret of ours is 128 bits of chance: nobody guesses it, so nothing here is needed to keep it
safe. This keeps the guesser from costing others anything, keeps a list of leaked secrets from
being tried out quickly, and must never keep a good customer out. Rules of this file:

* A **guess** is a claim that was not refused before. Who says the same wrong thing again is a
  program with an old secret, not a guesser: it hears no, at once and for sure, and no more.
* Guesses are counted by (neighbourhood, name), and more patiently by neighbourhood and by name.
  Counts run down by themselves, and a guess that was not looked at adds nothing to them: no
  back-off lasts longer than its own time, whoever goes on.
* Where a name was right lately it is always let in; and the count of a name alone never stops
  who is right. So nobody is locked out from where they usually come, and from elsewhere only by
  what their own neighbours do.
* A name is what was claimed, known here or not: what we do tells nobody which names exist.
* Names and secrets are remembered as keyed hashes, under a key that dies with the process.
* Every table is bounded and forgets what was longest out of use; only who was right, with a name
  that exists, can make the table of those who were right forget.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from postweir.edge.sasl import Claim

NAMES_MAX = 20_000  # in each table: some 3 MB
CLIENTS_MAX = 64  # where one name was right lately: a customer's servers
LATELY_S = 7 * 86_400.0  # so long a right secret from there opens always: servers rest at weekends
PAIR_MAX, PAIR_S = 5, 30.0  # guesses at one name from one client, and until one is forgiven
CLIENT_MAX, CLIENT_S = 20, 10.0  # at any name from one client: a house of users behind one address
NAME_MAX, NAME_S = 50, 5.0  # at one name from anywhere: many hosts that guess together
NOES_MAX, NOES_S = 10, 1.0  # noes to one client, new or old ones, before its answers are held back
ALL_NOES_MAX, ALL_NOES_S = 200, 0.02  # noes to everybody: above it nobody's no is hurried
SHUNNED_S = 5.0  # who guesses faster than noes can be held back is not let in for so long
LINES_MAX, LINES_S = 100, 0.1  # lines in the log: ten a second go on, metrics count the rest


@dataclass(frozen=True, slots=True)
class Guess:
    """One claim, as it is remembered."""

    client: str  # gate.neighbourhood: an IPv4 address, or an IPv6 /64
    name: bytes
    both: bytes  # name and secret


class Levels:
    """Counts by name that run down by one in `forgiven_s`. Bounded."""

    __slots__ = ("_allowed", "_forgiven_s", "_levels")

    def __init__(self, allowed: int, forgiven_s: float) -> None:
        self._allowed, self._forgiven_s = allowed, forgiven_s
        self._levels: OrderedDict[object, tuple[float, float]] = OrderedDict()  # level, when

    def __len__(self) -> int:
        return len(self._levels)

    def over(self, name: object, now_s: float) -> bool:
        """True when no more is allowed, until a whole one is forgiven."""
        return self._level(name, now_s) > self._allowed - 1

    def add(self, name: object, now_s: float) -> None:
        """Count one more; never more than is allowed, so that one is forgiven in its time."""
        level = min(self._level(name, now_s) + 1, self._allowed)
        self._levels[name] = (level, now_s)
        self._levels.move_to_end(name)
        if len(self._levels) > NAMES_MAX:
            self._levels.popitem(last=False)

    def _level(self, name: object, now_s: float) -> float:
        level, at_s = self._levels.get(name, (0.0, now_s))
        return max(0.0, level - (now_s - at_s) / self._forgiven_s)


class Guessing:
    """All that one edge worker remembers; times are the loop's, given by who asks."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._wrong: OrderedDict[bytes, tuple[int, float]] = OrderedDict()  # version, when looked
        self._right: OrderedDict[bytes, OrderedDict[str, float]] = OrderedDict()
        self._right_clients: OrderedDict[str, float] = OrderedDict()  # whoever was right there
        self._shunned: OrderedDict[str, float] = OrderedDict()
        self._pairs = Levels(PAIR_MAX, PAIR_S)
        self._clients = Levels(CLIENT_MAX, CLIENT_S)
        self._names = Levels(NAME_MAX, NAME_S)
        self._noes = Levels(NOES_MAX, NOES_S)
        self._all_noes = Levels(ALL_NOES_MAX, ALL_NOES_S)
        self._lines = Levels(LINES_MAX, LINES_S)
        self.held = 0  # answers that are held back now

    def guess(self, client: str, claim: Claim) -> Guess:
        """Return a claim as it may be remembered."""
        name, secret = claim.username.encode(), claim.secret.encode()
        return Guess(client, self._hash(b"name", name), self._hash(b"both", name, secret))

    def _hash(self, kind: bytes, *words: bytes) -> bytes:
        hashed = hashlib.blake2b(key=self._key, person=kind, digest_size=12)
        for word in words:
            hashed.update(len(word).to_bytes(4, "big") + word)
        return hashed.digest()

    # What it comes to.

    def bars(self, guess: Guess, now_s: float) -> bool:
        """True when not even a right secret opens here now."""
        guesses = self._pairs.over((guess.client, guess.name), now_s) or self._clients.over(
            guess.client, now_s
        )
        return guesses and not self.usual(guess, now_s)

    def backs_off(self, guess: Guess, now_s: float) -> bool:
        """True when a wrong secret is not looked at again now."""
        return (
            self._pairs.over((guess.client, guess.name), now_s)
            or self._clients.over(guess.client, now_s)
            or self._names.over(guess.name, now_s)
        )

    def usual(self, guess: Guess, now_s: float) -> bool:
        """True when this name was right from this client lately."""
        clients = self._right.get(guess.name)
        at_s = clients.get(guess.client) if clients is not None else None
        return at_s is not None and now_s - at_s < LATELY_S

    def was_wrong(self, guess: Guess, version: int, since_s: float) -> bool:
        """True when it was found wrong by these tables, and that not longer ago."""
        found = self._wrong.get(guess.both)
        return found is not None and found[0] == version and found[1] >= since_s

    def wants_patience(self, guess: Guess, now_s: float) -> bool:
        """True when a no to this client should come late; counts it as said."""
        late = self._noes.over(guess.client, now_s) or self._all_noes.over(None, now_s)
        self._noes.add(guess.client, now_s)
        self._all_noes.add(None, now_s)
        return late

    def shuns_any(self, now_s: float) -> bool:
        """True when there is a client that may be shunned."""
        latest_s = next(reversed(self._shunned.values()), None)
        return latest_s is not None and now_s - latest_s <= SHUNNED_S

    def shuns(self, client: str, now_s: float) -> bool:
        """True when nobody from this client is even asked: it guesses, and nobody else is there."""
        at_s = self._shunned.get(client)
        if at_s is None or now_s - at_s > SHUNNED_S:
            return False
        right_s = self._right_clients.get(client)
        return right_s is None or now_s - right_s >= LATELY_S

    # What happened.

    def shown_out(self, client: str, now_s: float) -> None:
        """There are more noes to hold back than may be, and this client had one of them."""
        _remember(self._shunned, client, now_s)

    def right(self, guess: Guess, now_s: float) -> None:
        """It was right, and was let in."""
        _remember(self._right_clients, guess.client, now_s)
        clients = self._right.setdefault(guess.name, OrderedDict())
        clients[guess.client] = now_s
        clients.move_to_end(guess.client)
        self._right.move_to_end(guess.name)
        if len(clients) > CLIENTS_MAX:
            clients.popitem(last=False)
        if len(self._right) > NAMES_MAX:
            self._right.popitem(last=False)

    def wrong(self, guess: Guess, version: int, now_s: float) -> bool:
        """The tables of this version, looked at just now, do not know it.

        True when there is no more patience now, and was until now.
        """
        patient = not self.backs_off(guess, now_s)
        if guess.both not in self._wrong:
            self._pairs.add((guess.client, guess.name), now_s)
            self._clients.add(guess.client, now_s)
            self._names.add(guess.name, now_s)
        self._wrong[guess.both] = (version, now_s)
        self._wrong.move_to_end(guess.both)
        if len(self._wrong) > NAMES_MAX:
            self._wrong.popitem(last=False)
        return patient and self.backs_off(guess, now_s)

    def worth_a_line(self, now_s: float) -> bool:
        """True when the log has room for another line about who guesses; counts it as written."""
        if self._lines.over(None, now_s):
            return False
        self._lines.add(None, now_s)
        return True


def _remember(table: OrderedDict[str, float], name: str, now_s: float) -> None:
    table[name] = now_s
    table.move_to_end(name)
    if len(table) > NAMES_MAX:
        table.popitem(last=False)
