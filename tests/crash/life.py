"""What one life under attack came to, and what an attack is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """From one start to one violent end, and what was found after it.

    `lost`, `torn` and `doubled` are judged by what clients and sinks were told and given, outside
    the product. `doubled` counts only what goes beyond what was promised (docs/spool.md).
    """

    seed: int  # replays it, as far as luck allows
    acked: int  # messages that were answered 250
    lost: int = 0
    torn: int = 0  # delivered, or found, with other bytes than were accepted
    doubled: int = 0
    what: str = ""  # how it ended, and of a fault what was found

    @property
    def good(self) -> bool:
        """True when the promise held."""
        return not (self.lost or self.torn or self.doubled)


# Lives for so many seconds, from this seed on; `plant` names a bug to plant, "" none.
Attack = Callable[[int, float, str], Iterator[Life]]


class Unfit(Exception):
    """This machine cannot make this attack; the text says why."""
