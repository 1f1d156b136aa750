"""Stress begins at once, ends with hysteresis, and tightens everything."""

import itertools
from dataclasses import astuple, fields

from hypothesis import given
from hypothesis import strategies as st

from postweir.edge.limits import CALM_S, ENTER, LEAVE, Limits, Stress, limits
from postweir.runtime.settings import Edge

TIGHTER_IS_MORE = {"data_rate_min"}


def test_stress_tightens_everything_it_names():
    """Under stress nothing is looser, and what a flood uses is tighter."""
    calm, stress = (limits(Edge(), room=10_000, stressed=on) for on in (False, True))
    tightened = set()
    for field, before, after in zip(fields(Limits), astuple(calm), astuple(stress), strict=True):
        if field.name in TIGHTER_IS_MORE:
            before, after = -before, -after
        assert after <= before
        if after < before:
            tightened.add(field.name)

    assert tightened == {field.name for field in fields(Limits)} - {"session_s", "message_s"}


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.booleans())
def test_some_always_get_in(connections_max, room, stressed):
    """However small an installation is, one newcomer and one handshake have room."""
    found = limits(Edge(connections_max=connections_max), room=room, stressed=stressed)

    assert found.handshakes_max >= 1
    assert 1 <= found.unknown_max <= max(1, min(connections_max, room))


def test_stress_has_hysteresis():
    """It begins at ENTER, survives anything above LEAVE, and ends after CALM_S below it."""
    stress = Stress()
    assert not stress.look(0.0, ENTER - 0.01)
    assert stress.look(1.0, ENTER)
    assert stress.on
    assert not stress.look(2.0, LEAVE)
    assert not stress.look(3.0, LEAVE - 0.01)
    assert not stress.look(3.0 + CALM_S - 0.1, 0.0)
    assert not stress.look(3.0 + CALM_S - 0.05, LEAVE)  # not calm after all
    assert not stress.look(3.0 + CALM_S, 0.0)
    assert stress.on
    assert stress.look(3.0 + 2 * CALM_S, 0.0)
    assert not stress.on


@given(st.lists(st.floats(0, 1.2), max_size=200))
def test_stress_does_not_flutter(levels):
    """Whatever the load does, it changes at most once in CALM_S after it began."""
    stress, changes = Stress(), []
    for n, taken in enumerate(levels):
        if stress.look(n * 0.25, taken):
            changes.append((n * 0.25, stress.on))

    assert [on for _, on in changes] == [n % 2 == 0 for n in range(len(changes))]
    assert all(off - began >= CALM_S for (began, on), (off, _) in itertools.pairwise(changes) if on)
