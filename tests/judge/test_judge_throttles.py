"""Throttles let through what they say, and forget what was given back."""

import math

from hypothesis import given
from hypothesis import strategies as st

from postweir.judge.throttles import Throttles
from postweir.policy.bundle import Throttle

T = 1_700_000_000.0
ONE = Throttle("young", "sender", "recipients", rate=100, per_s=3600, burst=50)

throttles = st.builds(
    Throttle, st.just("t"), st.just("sender"), st.just("recipients"),
    rate=st.integers(1, 1000), per_s=st.integers(1, 86400), burst=st.integers(1, 100),
)  # fmt: skip


def test_a_burst_and_then_the_rate():
    """Fifty at once, then one every 36 seconds; the wait is said in whole seconds."""
    on = Throttles()
    assert on.wait_s(ONE, {"joe": 50}, T) == 0
    on.take("m1", [(ONE, {"joe": 50})], T)

    assert on.wait_s(ONE, {"joe": 1}, T) == 36
    assert on.wait_s(ONE, {"joe": 1}, T + 35.5) == 1
    assert on.wait_s(ONE, {"joe": 1}, T + 36) == 0
    assert on.wait_s(ONE, {"joe": 10}, T) == 360
    assert on.wait_s(ONE, {"kim": 50}, T) == 0


def test_to_look_takes_nothing_and_a_message_takes_once():
    """A repeated question about what was let through costs no more."""
    on = Throttles()
    for _ in range(9):
        assert on.wait_s(ONE, {"joe": 50}, T) == 0
    on.take("m1", [(ONE, {"joe": 40})], T)
    on.take("m1", [(ONE, {"joe": 40})], T)

    assert on.held("m1")
    assert on.wait_s(ONE, {"joe": 10}, T) == 0
    assert on.wait_s(ONE, {"joe": 11}, T) == 36


def test_a_message_larger_than_the_burst_waits_for_a_full_bucket():
    """It is let through then, and all of it is owed."""
    on = Throttles()
    on.take("m1", [(ONE, {"joe": 1})], T)
    assert on.wait_s(ONE, {"joe": 500}, T) == 36
    assert on.wait_s(ONE, {"joe": 500}, T + 36) == 0
    on.take("m2", [(ONE, {"joe": 500})], T + 36)

    assert on.wait_s(ONE, {"joe": 1}, T + 36) == (500 - 49) * 36


def test_the_worst_of_several_keys_counts():
    """A message to two domains waits for the one with less room."""
    on = Throttles()
    on.take("m1", [(ONE, {"a.example": 50, "b.example": 10})], T)

    assert on.wait_s(ONE, {"b.example": 40}, T) == 0
    assert on.wait_s(ONE, {"a.example": 1, "b.example": 1}, T) == 36


def test_changed_parameters_are_another_throttle():
    """One that stays as it is keeps its buckets, whatever else is new in the policy."""
    on = Throttles()
    on.take("m1", [(ONE, {"joe": 50})], T)
    same = Throttle("young", "sender", "recipients", 100, 3600, 50)
    other = Throttle("young", "sender", "recipients", 100, 3600, 51)

    assert on.wait_s(same, {"joe": 1}, T) == 36
    assert on.wait_s(other, {"joe": 1}, T) == 0


def test_who_is_forgotten_had_a_full_bucket():
    """Among those silent for longest one that is full goes before one that is not."""
    on = Throttles(buckets_max=3)
    on.take("m1", [(ONE, {"busy": 50})], T)
    on.take("m2", [(ONE, {"idle": 1})], T)
    on.take("m3", [(ONE, {"kim": 1})], T + 30)
    on.take("m4", [(ONE, {"new": 1})], T + 40)

    assert len(on) == 3
    assert on.wait_s(ONE, {"busy": 10}, T + 40) > 0
    on.tidy(T + 100)
    on.tidy(T + 100)
    assert len(on) == 1  # the two that are full are forgotten


def test_a_snapshot_holds_all_buckets():
    """Packed and restored, each key waits as long as before."""
    on, again = Throttles(), Throttles()
    on.take("m1", [(ONE, {"joe": 50, "kim": 7})], T)
    again.restored(on.packed(1))

    for key in ("joe", "kim", "lee"):
        costs = {key: 45}
        assert again.wait_s(ONE, costs, T + 1) == on.wait_s(ONE, costs, T + 1)


def test_a_snapshot_is_made_while_mail_flows():
    """Between its pieces buckets come and go: those that stay are all in it."""
    on, again = Throttles(), Throttles()
    for n in range(10):
        on.take(f"m{n}", [(ONE, {f"key{n}": 50})], T)
    packing = on.packed(3)
    first = next(packing)
    on.take("m10", [(ONE, {"new": 50})], T)
    on.give_back("m5", T)
    for _ in range(20):
        on.tidy(T)
    again.restored([first, *packing])

    assert on.wait_s(ONE, {"key5": 45}, T) == again.wait_s(ONE, {"key5": 45}, T) == 0
    for n in (0, 1, 4, 6, 9):
        costs = {f"key{n}": 45}
        assert again.wait_s(ONE, costs, T) == on.wait_s(ONE, costs, T) > 0


@given(throttles, st.lists(st.tuples(st.integers(0, 200_000), st.integers(1, 120)), max_size=40))
def test_never_more_than_burst_and_rate(throttle, tries):
    """In any stretch of time: burst + rate * t, or one larger message in place of the burst."""
    on, now, passed = Throttles(), T, []
    for n, (wait_ms, cost) in enumerate(tries):
        now += wait_ms / 1000
        if not on.wait_s(throttle, {"k": cost}, now):
            on.take(f"m{n}", [(throttle, {"k": cost})], now)
            passed.append((now, cost))

    for first in range(len(passed)):
        total = largest = 0
        for at, cost in passed[first:]:
            total, largest = total + cost, max(largest, cost)
            most = (
                max(throttle.burst, largest)
                + throttle.rate * (at - passed[first][0]) / throttle.per_s
            )
            assert total <= most + 1e-6 * throttle.rate


@given(
    throttles,
    st.lists(st.tuples(st.integers(0, 100_000), st.integers(1, 60), st.booleans()), max_size=25),
)
def test_what_is_given_back_was_never_taken(throttle, events):
    """Whatever was taken meanwhile, the bucket is as if this message had not been there."""
    on, without, now = Throttles(), Throttles(), T
    back = []
    for n, (wait_ms, cost, stays) in enumerate(events):
        now += wait_ms / 1000
        on.take(f"m{n}", [(throttle, {"k": cost})], now)
        if stays:
            without.take(f"m{n}", [(throttle, {"k": cost})], now)
        else:
            back.append(f"m{n}")
        if len(back) > 2:
            on.give_back(back.pop(1), now)
    if now - T < 600:
        for message in back:
            on.give_back(message, now)
        for cost in (1, 7, throttle.burst):
            assert on.wait_s(throttle, {"k": cost}, now) == without.wait_s(
                throttle, {"k": cost}, now
            )


def test_the_wait_ends_when_there_is_room():
    """After the seconds that were said there is room: no retry comes in vain."""
    on = Throttles()
    on.take("m1", [(ONE, {"joe": 50})], T + 0.3)
    wait_s = on.wait_s(ONE, {"joe": 3}, T + 1.7)

    assert on.wait_s(ONE, {"joe": 3}, T + 1.7 + wait_s) == 0
    assert math.ceil(wait_s) == wait_s
