"""Whoever sends a flood waits behind itself, and everyone's own order is kept."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from postweir.judge.fair import Fair


def test_a_flood_does_not_hold_up_the_next():
    """A thousand of one, and one of another: that one is second."""
    fair: Fair[str] = Fair(5000)
    for n in range(1000):
        fair.push("flood", f"f{n}")
    fair.push("other", "o")

    assert [fair.pop() for _ in range(3)] == ["f0", "o", "f1"]


def test_one_account_has_its_bound():
    """Beyond it there is room for others only."""
    fair: Fair[int] = Fair(2)

    assert [fair.push("a", n) for n in range(3)] == [True, True, False]
    assert fair.push("b", 1)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())))
def test_each_order_is_kept_and_nothing_is_lost(steps):
    """However pushes and pops mix."""
    fair: Fair[tuple[str, int]] = Fair(1000)
    put, got = defaultdict(list), defaultdict(list)
    for number, (key, pushes) in enumerate(steps):
        if pushes:
            fair.push(key, (key, number))
            put[key].append(number)
        elif fair:
            whose, which = fair.pop()
            got[whose].append(which)
    while fair:
        whose, which = fair.pop()
        got[whose].append(which)

    assert got == put
