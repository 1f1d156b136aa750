"""Who was written to before: a filter that forgets after thirty days.

Pure. A pair (a sender or an account, and a recipient) is a number of 64 bits, hashed with a secret
that is kept with the filter, so that nobody outside can choose pairs that collide. The filter may
take a new pair for an old one, never the other way round until it forgets:

    4 generations of 10 days   what was met is remembered for 30 to 40 days
    8 MiB each, made when used 32 MiB at most for one judge
    4 bits in one word a pair  with 2,000,000 pairs in a generation one in 1,500 new pairs passes
                               for met in it, with 4,000,000 one in 200; a message to one recipient
                               is two pairs

Beyond that it takes more and more for met: rules about new recipients become milder, never wrong
about a good sender. `share` says how full it is.
"""

import hashlib
from array import array

GENERATIONS = 4
GENERATION_S = 10 * 86_400.0
WORDS = 1 << 20  # of 64 bits
SECRET_BYTES = 16

_PAIR = (1 << 64) - 1
_ODD = 0x9E3779B97F4A7C15  # multiplying by it moves every bit into the upper ones
# Two different bits for each of 4,096 numbers: four bits are two look-ups.
_BITS = tuple(1 << (n & 63) | 1 << ((n & 63) + 1 + (n >> 6) % 63) % 64 for n in range(4096))


class Hashes:
    """Turns recipients and keys into numbers that only who has the secret can foresee."""

    def __init__(self, secret: bytes) -> None:
        assert len(secret) == SECRET_BYTES
        self.secret = secret
        self._empty = hashlib.blake2b(key=secret, digest_size=8)

    def of(self, text: str) -> int:
        """Return the number of a recipient or of a key."""
        made = self._empty.copy()
        made.update(text.encode("utf-8", "surrogatepass"))
        return int.from_bytes(made.digest(), "little")


def pair(whose: int, recipient: int) -> int:
    """Return the number of a sender or account together with a recipient."""
    mixed = ((whose ^ recipient) * _ODD) & _PAIR
    return mixed ^ (mixed >> 29)


class Met:
    """The pairs of the last thirty days, more or less."""

    def __init__(self, *, words: int = WORDS) -> None:
        self._words = words
        self._made: dict[int, array[int]] = {}  # by number of the generation
        self.log = array("Q")  # pairs added that the filter's file may not have: see keeping.py

    def __contains__(self, pair: int) -> bool:
        word, mask = pair % self._words, _mask(pair)
        for made in self._made.values():  # noqa: SIM110 - `any` takes twice as long
            if made[word] & mask == mask:
                return True
        return False

    def add(self, pair: int, now_s: float) -> None:
        """Remember a pair from now on."""
        made = self._made.get(int(now_s // GENERATION_S))
        if made is None:
            made = self._begin(int(now_s // GENERATION_S))
        word, mask = pair % self._words, _mask(pair)
        if made[word] & mask != mask:
            made[word] |= mask
            self.log.append(pair)

    def forget(self, now_s: float) -> None:
        """Let go of generations that are too old."""
        oldest = int(now_s // GENERATION_S) - GENERATIONS + 1
        for number in [n for n in self._made if n < oldest]:
            del self._made[number]

    def share(self, now_s: float) -> float:
        """Return how much of this generation is used, from 0 to 1, by a look at some of it."""
        made = self._made.get(int(now_s // GENERATION_S))
        if made is None:
            return 0.0
        some = made[:: max(1, self._words // 1024)]
        return sum(word.bit_count() for word in some) / (64 * len(some))

    def generations(self) -> dict[int, memoryview]:
        """Return what is to be kept. Another thread may read it: bits are only ever added."""
        return {number: memoryview(made) for number, made in self._made.items()}

    def restored(self, number: int, packed: bytes) -> None:
        """Take a generation that was kept. Raises ValueError: it is of another size."""
        made = array("Q")
        made.frombytes(packed)
        if len(made) != self._words:
            raise ValueError("a filter of another size")
        self._made[number] = made

    def restored_log(self, packed: bytes, now_s: float) -> None:
        """Take pairs that a log held. Raises ValueError."""
        pairs = array("Q")
        pairs.frombytes(packed)
        for pair in pairs:
            self.add(pair, now_s)

    def _begin(self, number: int) -> "array[int]":
        made = self._made[number] = array("Q", bytes(8 * self._words))
        for old in sorted(self._made)[:-GENERATIONS]:
            del self._made[old]
        return made


def _mask(pair: int) -> int:
    return _BITS[pair >> 52] | _BITS[pair >> 40 & 4095]
