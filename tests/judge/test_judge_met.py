"""The filter of who was written to remembers for weeks, and is seldom wrong."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.judge.met import GENERATION_S, GENERATIONS, Hashes, Met, pair

T = 100 * GENERATION_S


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.floats(0, 5e6)), max_size=40))
def test_what_was_met_is_met(pairs):
    """For thirty days nothing is forgotten."""
    met = Met(words=256)
    for one, at in pairs:
        met.add(one, T + at)
    now = T + 5e6
    met.forget(now)

    for one, at in pairs:
        if T + at > now - (GENERATIONS - 1) * GENERATION_S:
            assert one in met


def test_it_forgets():
    """After forty days at the latest."""
    met = Met(words=1024)
    met.add(7, T)
    met.forget(T + GENERATIONS * GENERATION_S)

    assert 7 not in met


@pytest.mark.parametrize(("each_word", "wrong_most"), [(2, 0.002), (4, 0.01)])
def test_how_often_it_is_wrong(each_word, wrong_most):
    """The rates that its first lines name: a new pair that passes for met."""
    hashes, met, words = Hashes(b"s" * 16), Met(words=1 << 13), 1 << 13
    whose = hashes.of("acme|sasl|joe")
    for n in range(each_word * words):
        met.add(pair(whose, hashes.of(f"u{n}@example.org")), T)

    wrong = sum(pair(whose, hashes.of(f"n{n}@example.org")) in met for n in range(20_000))
    print(f"{each_word} pairs a word: {wrong / 20_000:.4f} wrong, {met.share(T):.2f} full")
    assert wrong / 20_000 < wrong_most


def test_without_the_secret_nobody_can_tell():
    """Another secret gives other numbers; pairs of two senders are not alike."""
    one, two = Hashes(b"1" * 16), Hashes(b"2" * 16)

    assert one.of("a@x") != two.of("a@x")
    assert one.of("a@x") == Hashes(b"1" * 16).of("a@x")
    assert pair(one.of("joe"), one.of("a@x")) != pair(one.of("kim"), one.of("a@x"))


def test_generations_are_kept_and_taken():
    """What `generations` gives becomes the same filter again."""
    met, again, chance = Met(words=512), Met(words=512), random.Random(1)
    some = [chance.getrandbits(64) for _ in range(300)]
    for n, one in enumerate(some):
        met.add(one, T + n * 10_000)
    for number, words in met.generations().items():
        again.restored(number, bytes(words))

    assert all(one in again for one in some)
    with pytest.raises(ValueError, match="size"):
        again.restored(1, bytes(8))
