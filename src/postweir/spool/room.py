"""Whether a shard takes mail now, and why not: decided from what waits and what the disk says."""

from postweir.runtime.settings import Spool
from postweir.spool.ports import Accept

ACCEPTS_WAITING_MAX = 20_000  # more than two seconds of the disk: refuse fast instead
BYTES_WAITING_MAX = 256 * 1024 * 1024
RECORDS_WAITING_MAX = 20_000  # of what was refused: a record, not a promise, never piles up


class Room:
    """What one shard has room for; kept on its event loop."""

    def __init__(self) -> None:
        self.state = "starting"  # "" while it runs, then draining
        self.free_bytes, self.wrong, self.queued = 0, "", 0
        self._accepts, self._bytes = 0, 0  # on their way to the disk
        self._records = 0
        self.records_lost = 0
        self._unseen = 0  # recipients accepted since the store last said how many

    def reason(self, spool: Spool) -> str:
        """Return why no mail is taken now, or ""."""
        if self.state or self.wrong:
            return self.state or self.wrong
        if self.free_bytes < spool.free_bytes_min:
            return "full"
        if self.queued + self._unseen >= spool.queued_max:
            return "full"
        if self._accepts >= ACCEPTS_WAITING_MAX or self._bytes >= BYTES_WAITING_MAX:
            return "busy"
        return ""

    def offered(self, accept: Accept) -> None:
        """It goes to the disk."""
        self._accepts += 1
        self._bytes += len(accept.body or b"")

    def ended(self, accept: Accept, *, taken: bool) -> None:
        """It is there, or was not taken."""
        self._accepts -= 1
        self._bytes -= len(accept.body or b"")
        if taken:
            self._unseen += len(accept.envelope.recipients)

    def records(self) -> bool:
        """True when there is room for one more record of a refusal; else it is lost, counted."""
        room = self._records < RECORDS_WAITING_MAX
        self._records += room
        self.records_lost += not room
        return room

    def recorded(self) -> None:
        """One of them is on the disk, or was lost with it."""
        self._records -= 1

    def seen(self, free_bytes: int, wrong: str, queued: int) -> None:
        """Take what the store says."""
        self.free_bytes, self.wrong, self.queued = free_bytes, wrong, queued
        self._unseen = 0
