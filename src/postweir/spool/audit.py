"""The ledger of all shards together: does every recipient we accepted have an end, or a place?"""

from collections.abc import Sequence

from postweir.runtime.frames import Value
from postweir.spool.ports import Ledger

COLUMNS = ("accepted", "delivered", "bounced", "refused", "dropped", "held", "queued", "pending")
CLOSES, OPEN, UNREAD = 0, 1, 2  # exit statuses of `postweir audit`


class Audit(Value, frozen=True):
    """What was found. `off` are lines that do not close: (shard, line)."""

    lines: list[Ledger]  # one an account, over all shards
    total: Ledger
    off: list[tuple[int, Ledger]]
    unread: list[int]  # shards that could not be read

    @property
    def status(self) -> int:
        """Return the exit status: 0 it closes, 1 it does not, 2 not all could be read."""
        if self.unread:
            return UNREAD
        return OPEN if self.off else CLOSES

    @property
    def residual(self) -> int:
        """Return what is missing in all; what is missing here and too much there both count."""
        return sum(abs(line.residual) for _, line in self.off)


def audit(shards: dict[int, Sequence[Ledger] | None]) -> Audit:
    """Add up the lines of every shard; None is a shard that could not be read.

    Each line must close in its own shard: two errors that cancel out are two errors.
    """
    unread = sorted(k for k, lines in shards.items() if lines is None)
    read = [(k, line) for k, lines in sorted(shards.items()) for line in lines or ()]
    found: dict[str, list[Ledger]] = {}
    for _, line in read:
        found.setdefault(line.account, []).append(line)
    by_account = [_sum(account, lines) for account, lines in sorted(found.items())]
    return Audit(
        lines=by_account,
        total=_sum("", by_account),
        off=[(k, line) for k, line in read if line.residual],
        unread=unread,
    )


def _sum(account: str, lines: Sequence[Ledger]) -> Ledger:
    return Ledger(account, *(sum(getattr(line, column) for line in lines) for column in COLUMNS))
