"""When to try again, and when to stop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.delivery.retry import next_wait_s

WAITS_S = (300.0, 600.0, 1200.0, 2400.0, 4800.0, 9600.0, 14400.0)


def wait(tries, age_s, *, lifetime_s=48 * 3600, may_expire=True, jitter=0.0):
    return next_wait_s(
        WAITS_S, tries=tries, age_s=age_s, lifetime_s=lifetime_s, may_expire=may_expire,
        jitter=jitter,
    )  # fmt: skip


@given(st.integers(0, 10_000), st.floats(0, 1e7), st.floats(0, 0.99), st.integers(0, 10**6))
def test_bounds(tries, age_s, jitter, lifetime_s):
    """A wait is the schedule's, lengthened by a tenth at most, and never past the lifetime."""
    found = wait(tries, age_s, jitter=jitter, lifetime_s=lifetime_s)

    planned = WAITS_S[min(tries, 6)]
    if age_s >= lifetime_s:
        assert found is None
    else:
        assert found is not None
        assert min(planned, lifetime_s - age_s) <= found <= planned * 1.1
        assert age_s + found <= lifetime_s + 1e-6


def test_a_life():
    """A message nobody takes is tried ever more slowly, a last time at its end, then bounces."""
    age_s, waits = 0.0, []
    while (found := wait(len(waits), age_s)) is not None:
        waits.append(found)
        age_s += found

    assert waits[:7] == list(WAITS_S)
    assert set(waits[7:-1]) == {14400.0}
    assert age_s == 48 * 3600


@pytest.mark.parametrize("age_s", [48 * 3600, 1e9])
def test_nothing_ends_after_a_clock_step(age_s):
    """While the clock is in doubt, the schedule goes on past the lifetime."""
    assert wait(3, age_s, may_expire=False) == 2400
