"""Which recorded facts stay when they are more than may be kept: a fair sample.

A ladder, climbed only as far as the bound asks. What a rule objected to goes later than what was
accepted; the latest of each sender go last of all, the more recent the later. What is beyond them
is thinned evenly, half of it with each step, by a hash of the row: so a step takes from what the
step below it had left, and rows that went leave no pattern.

Whoever reads knows what is missing, for the messages' own rows stay: a message that has its facts
stands for those of its sender before it that have none (`SqliteReader.recorded`).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from postweir.runtime.settings import Spool
from postweir.storage.spool_schema import rows
from postweir.storage.sqlite import Connection

LATEST = 50  # of each sender: enough to see what a rule would do to it
HALVINGS = 16  # of what is thinned evenly: one in 65,536 is as good as none
AHEAD = 4  # steps by which what was objected to goes later: sixteen times as much of it stays
NEVER = HALVINGS + AHEAD + LATEST.bit_length()  # no step takes a sender's last: only the bound
THIN_TO = 7 / 8  # of the bound: so the next time is some way off
BATCH_ROWS = 500  # a few milliseconds of the writer
SENDERS_MAX = 1_000_000  # that are told apart: some 100 MB, while a round lasts

# A packed verdict begins with its length and its verb.
_LOOK = """
SELECT f.id, length(f.data), coalesce(m.sender, r.sender, ''),
       m.id IS NULL OR (m.verdict IS NOT NULL AND substr(m.verdict, 2, 7) <> X'a6616363657074')
FROM (SELECT id, data FROM facts WHERE id < ? ORDER BY id DESC LIMIT ?) f
LEFT JOIN msg m ON m.id = f.id LEFT JOIN refusal r ON r.id = f.id ORDER BY f.id DESC
"""


def goes_at(rank: int, objects: bool, number: int) -> int:
    """Return the step at which a row goes: `rank` is its place from its sender's latest, 1."""
    if rank <= LATEST:
        return NEVER + 1 - rank.bit_length()
    even = min(_zeros(number), HALVINGS - 1) + 1
    return even + AHEAD if objects else even


def _zeros(number: int) -> int:
    """Return how many zeros a hash of this number ends in: n or more once in 2**n."""
    mixed = number * 0x9E3779B97F4A7C15 & (1 << 64) - 1  # splitmix64's finish
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & (1 << 64) - 1
    mixed ^= mixed >> 31
    return (mixed & -mixed).bit_length() - 1 if mixed else 64


class Sampling:
    """Keeps the facts of one shard's file within their bound, a piece at each call.

    Two rounds over the facts, newest first: one measures what each step of the ladder would free,
    one deletes what the step that suffices leaves out. Both are needed again only when so much
    has been added that the bound may be passed.
    """

    def __init__(self, connection: Connection) -> None:
        self._db = connection
        self._bytes: int | None = None  # of all facts, at most; None: not measured yet
        self._added = 0  # since the round began
        self._begin(deleting=False)

    def _begin(self, *, deleting: bool, step: int = 0) -> None:
        self._at = 1 << 62  # rows below it have not been looked at in this round
        self._deleting, self._step = deleting, step
        self._going = [0] * (NEVER + 1)  # bytes, by the step at which they go
        self._seen: Counter[str] = Counter()  # rows of each sender
        self._kept = 0

    def added(self, count: int) -> None:
        """Note that so many bytes of facts were committed."""
        self._added += count
        if self._bytes is not None:
            self._bytes += count

    def removed(self, count: int) -> None:
        """Note that so many bytes of facts went by their age; a round counts for itself."""
        if self._bytes is not None and not self._deleting:
            self._bytes -= count

    def start_over(self) -> None:
        """Measure anew: what the last call did was rolled back."""
        self._bytes = None
        self._begin(deleting=False)

    def work(self, settings: Spool) -> bool:
        """Do one piece of what the bound asks; True when more is left."""
        most = settings.facts_bytes_max
        if self._bytes is not None and not self._deleting:
            if self._bytes <= most:
                return False
            self.start_over()
        found = rows(self._db, _LOOK, (self._at, BATCH_ROWS))
        if self._at == 1 << 62:
            self._added = 0  # from here on what comes is above the round
        gone = [row[0] for row in found if self._goes(row, most)]
        if gone:
            self._db.executemany("DELETE FROM facts WHERE id = ?", [(n,) for n in gone])
        if len(found) == BATCH_ROWS:
            self._at = found[-1][0]
            return True
        return self._end_round(most)

    def _goes(self, row: Sequence[Any], most: int) -> bool:
        number, size, sender, objects = row
        if sender in self._seen or len(self._seen) < SENDERS_MAX:
            self._seen[sender] += 1
        step = goes_at(self._seen[sender] or LATEST + 1, bool(objects), number)
        if not self._deleting:
            self._going[step] += size
            return False
        # The bound counts more than any sender; the oldest are the ones to go then.
        if step <= self._step or self._kept + size > most * THIN_TO:
            return True
        self._kept += size
        return False

    def _end_round(self, most: int) -> bool:
        if self._deleting:
            self._bytes = self._kept + self._added
            self._begin(deleting=False)
            return self._bytes > most
        total = sum(self._going)
        self._bytes = total + self._added
        if self._bytes <= most:
            self._begin(deleting=False)
            return False
        step, freed = 0, 0
        while step < NEVER - 1 and total - freed > most * THIN_TO:
            step += 1
            freed += self._going[step]
        self._begin(deleting=True, step=step)
        return True
