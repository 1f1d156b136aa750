"""Names for messages: sorted by time, and never the same twice."""

from collections.abc import Callable

from postweir.mail.envelope import message_id
from postweir.runtime import clock

COUNTER_MAX = 0xFFFF  # 16 bits


class Names:
    """Gives one worker's messages their names.

    The time in a name never goes back while the worker lives, also when the clock does; and a
    worker that starts again has another incarnation. So no name is given twice.
    """

    def __init__(self, incarnation: int, now_us: Callable[[], int] = clock.wall_us) -> None:
        self._incarnation, self._now_us = incarnation, now_us
        self._ms = 0
        self._counter = 0

    def next(self) -> str:
        """Return a new name."""
        now_ms = self._now_us() // 1000
        if now_ms > self._ms:
            self._ms, self._counter = now_ms, 0
        elif self._counter < COUNTER_MAX:
            self._counter += 1
        else:
            self._ms, self._counter = self._ms + 1, 0
        return message_id(at_ms=self._ms, incarnation=self._incarnation, counter=self._counter)
