"""Now: wall time for the record, monotonic time for waits."""

import time

STEP_S = 60.0  # wall and monotonic apart by more than this: the clock was set
STEP_REMEMBERED_S = 3600.0  # for so long nothing expires afterwards (borders.md)


def wall_us() -> int:
    """UTC in microseconds: what is stored and shown."""
    return time.time_ns() // 1000


def monotonic_ns() -> int:
    """CLOCK_MONOTONIC in nanoseconds: the same for all processes of this host."""
    return time.monotonic_ns()


def offset_us() -> int:
    """Wall time minus monotonic time: it changes when the wall clock is set."""
    return wall_us() - monotonic_ns() // 1000


class StepWatch:
    """Notices that the wall clock was set: look at it now and then.

    `before_us` is the offset as an earlier process of this boot knew it.
    """

    def __init__(self, before_us: int | None = None) -> None:
        self._offset_us = offset_us() if before_us is None else before_us
        self._stepped_at_ns: int | None = None
        self.steps = 0  # how many were seen

    def look(self) -> bool:
        """True while a step of more than a minute lies less than an hour back."""
        now_us = offset_us()
        if abs(now_us - self._offset_us) > STEP_S * 1e6:
            self._stepped_at_ns = monotonic_ns()
            self.steps += 1
        self._offset_us = now_us
        if self._stepped_at_ns is None:
            return False
        return (monotonic_ns() - self._stepped_at_ns) / 1e9 < STEP_REMEMBERED_S
