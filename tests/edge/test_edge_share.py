"""Shares: who holds what, who holds most, and where the fair level is."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from postweir.edge.share import Tally, level

NAMES = st.sampled_from("abcdef")


@given(st.lists(st.tuples(NAMES, st.booleans()), max_size=200))
def test_a_tally_is_a_count(steps):
    """Whatever enters and leaves: sums, the most, and who holds it are those of a plain count."""
    tally, plain = Tally(), Counter()
    for name, enters in steps:
        if enters:
            tally.enter(name)
            plain[name] += 1
        elif plain[name]:
            tally.leave(name)
            plain[name] -= 1
        held = +plain
        assert (tally.total, len(tally)) == (held.total(), len(held))
        assert tally.most == max(held.values(), default=0)
        assert not held or held[tally.largest()] == tally.most
        assert all(tally.of(name) == plain[name] for name in "abcdef")

    for name, count in plain.items():
        for _ in range(count):
            tally.leave(name)
    assert tally._held == tally._with == {}
    assert tally.most == tally.total == 0


@given(st.lists(st.integers(1, 200), max_size=30), st.integers(1, 2000))
def test_a_level_is_max_min_fair(held, capacity):
    """Cut to it all fit; one more for those who are cut would not; who holds less keeps it all."""
    found = level(Counter(held).items(), capacity)

    assert found >= 1
    if found > 1:
        assert sum(min(n, found) for n in held) <= capacity
    if any(n > found for n in held):
        assert sum(min(n, found + 1) for n in held) > capacity


def test_alone_one_may_have_all():
    """Nobody is cut while all fit, and one alone is cut to all there is."""
    tally = Tally()
    for _ in range(90):
        tally.enter("flood")
    assert tally.level(100) >= 90
    assert tally.level(80) == 80
    for name in "abcd":
        for _ in range(10):
            tally.enter(name)

    assert tally.level(80) == 40
    assert tally.level(40) == 8
