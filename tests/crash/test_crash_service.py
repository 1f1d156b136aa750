"""Bugs planted in a whole service are caught by its attack; without one it finds none."""

import time

import pytest
from tests.crash import calls, service
from tests.crash.life import Unfit

pytestmark = pytest.mark.real

CAUGHT_S = 60.0  # what the attack may take to catch a bug, on a machine that does other things too


@pytest.mark.parametrize("plant", ["lease-forgotten", "settle-early"])
def test_a_planted_bug_is_caught(plant):
    """Of a worker that was killed what it had is lost: for ever due, or settled before its time."""
    began_s = time.monotonic()
    caught = next((life for life in service.attack(1, CAUGHT_S, plant) if not life.good), None)

    assert caught is not None
    assert caught.lost, caught
    assert time.monotonic() - began_s < CAUGHT_S + 20


def test_a_plant_nobody_knows_is_no_proof():
    """A name that plants nothing would show that nothing is caught."""
    with pytest.raises(Unfit, match="knows no bug"):
        next(service.attack(1, 1.0, "nothing"))


def test_seeds_go_through_all_calls_before_the_next_k():
    """One after another they rise k, and each is the same whenever it is asked."""
    count = len(calls.TARGETS)
    firsts = [calls.target(seed) for seed in range(count)]
    seconds = [calls.target(seed) for seed in range(count, 2 * count)]

    assert {(kind, call) for kind, _, call, _ in firsts} == set(calls.TARGETS)
    assert {k for *_, k in firsts} == {1}
    assert {k for *_, k in seconds} == {2}
    assert firsts == [calls.target(seed) for seed in range(count)]
