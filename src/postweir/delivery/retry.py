"""When to try again, and when to stop: pure, so two days of retries test in a moment."""

from collections.abc import Sequence

from postweir.runtime.settings import Delivery

JITTER = 0.1  # of a wait, at most


def longest_wait_s(settings: Delivery) -> float:
    """Return more than anyone is ever told to wait, by a minute in which a clock is steered."""
    return max(settings.retry_s) * (1 + JITTER) + 60.0


def next_wait_s(
    waits_s: Sequence[float],
    *,
    tries: int,
    age_s: float,
    lifetime_s: float,
    may_expire: bool,
    jitter: float,
) -> float | None:
    """Return the wait after a failed attempt, or None when the lifetime is over.

    `tries` counts the attempts that failed before this one. The last wait of the schedule
    repeats; the last attempt is at the lifetime's end, never past it.
    """
    assert tries >= 0
    assert 0 <= jitter < 1

    left_s = lifetime_s - age_s
    if left_s <= 0 and may_expire:
        return None
    wait_s = waits_s[min(tries, len(waits_s) - 1)]
    # Jitter only lengthens a wait, by a tenth at most: after an outage the herd spreads out
    # instead of coming back early and together.
    wait_s *= 1 + jitter * JITTER
    # After a clock step nothing expires for a while: then the schedule alone decides.
    return min(wait_s, left_s) if left_s > 0 else wait_s
