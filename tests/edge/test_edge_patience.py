"""Deadlines with a clock of our own: whoever drips, stalls or idles ends at an absolute bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.edge.limits import DATA_RATE_MIN, limits
from postweir.edge.patience import CLOSING_S, WORK_S, Patience
from postweir.runtime.settings import Edge

EDGE = Edge(command_s=300, data_s=180, handshake_s=30, login_s=60, message_s=3600, session_s=1800)
CALM = limits(EDGE, room=10_000, stressed=False)
STRESS = limits(EDGE, room=10_000, stressed=True)


def drive(act, in_force, *, known, step_s):
    """Play a client that acts every `step_s`; return when it ended, and at what."""
    patience = Patience(0.0)
    patience.known = known
    now, turn = 0.0, act(patience)
    next(turn)
    while now < 10**6:
        now += 0.25  # the sweeper's step
        if late := patience.late(now, in_force):
            return now, late
        if now % step_s < 0.25:
            turn.send(now)
    raise AssertionError("it never ended")


def silent(patience):
    """Says nothing that makes us speak: half a command, half an AUTH line, half a TLS record."""
    while True:
        yield


def polite(patience):
    """Makes us answer again and again: one RCPT, NOOP or AUTH line at a time."""
    while True:
        now = yield
        if now is not None:
            patience.at("command", now)


def handshake(patience):
    patience.at("handshake", 0.0)
    while True:
        yield


def drip(size):
    """Sends so many bytes of a message at a time, a header as well as a body."""

    def act(patience):
        patience.at("data", 0.0)
        received = 0
        while True:
            now = yield
            if now is not None:
                received += size
                patience.received(received, now)

    return act


def deaf(patience):
    """Does not read what we say."""
    patience.at("unread", 0.0)
    while True:
        yield


def stage(name):
    def act(patience):
        patience.at(name, 0.0)
        while True:
            yield

    return act


@pytest.mark.parametrize(
    ("act", "known", "step_s", "calm", "stress"),
    [
        (silent, True, 1, (300, "command"), (10, "command")),
        (silent, False, 1, (60, "login"), (10, "command")),
        (polite, False, 5, (60, "login"), (10, "login")),
        (polite, True, 5, (1800, "session"), (1800, "session")),
        (polite, True, 299, (1800, "session"), (10, "command")),
        (handshake, True, 1, (30, "handshake"), (5, "handshake")),
        (handshake, False, 1, (30, "handshake"), (5, "handshake")),
        (drip(1), True, 1, (180, "data"), (20, "data")),
        (drip(1), True, 179, (180, "data"), (20, "data")),
        (drip(DATA_RATE_MIN - 50), True, 1, (1791, "data"), (22.25, "data")),
        (drip(10**6), True, 1, (3600, "data"), (3600, "data")),
        (drip(10**6), True, 178, (3600, "data"), (20, "data")),
        (deaf, True, 1, (300, "unread"), (10, "unread")),
        (stage("closing"), True, 1, (CLOSING_S, "closing"), (CLOSING_S, "closing")),
        (stage("work"), False, 1, (WORK_S, "work"), (WORK_S, "work")),
    ],
)
def test_every_way_to_waste_time_ends(act, known, step_s, calm, stress):
    """In calm and under stress each ends at its bound, to the sweeper's step."""
    for in_force, (ends_at, at) in ((CALM, calm), (STRESS, stress)):
        ended, late = drive(act, in_force, known=known, step_s=step_s)
        assert late == at
        assert ends_at <= ended <= ends_at + 0.5


@given(
    st.lists(
        st.tuples(st.sampled_from(["command", "handshake", "data", "unread"]), st.integers(1, 500)),
        max_size=200,
    )
)
def test_without_a_message_no_session_is_endless(steps):
    """Whatever a client does, session_s, and then one message at most, is all it has."""
    patience, now, ended = Patience(0.0), 0.0, None
    patience.known = True
    most = CALM.session_s + CALM.message_s + CALM.command_s
    for what, wait_s in [*steps, ("command", 10**6)]:
        if patience._at == "data" and what != "data":
            patience.at("command", now)  # refused: nothing was accepted
        if not patience.late(now, CALM):
            patience.at(what, now)
        now += wait_s
        if patience.late(now, CALM):
            ended = now
            break

    assert ended is not None
    assert patience.late(most + CALM.message_s, CALM)


def test_a_session_that_brings_mail_goes_on():
    """Each accepted message gives it another `session_s`."""
    patience = Patience(0.0)
    patience.known = True
    for hour in range(1, 10):
        now = hour * 1700.0
        patience.at("command", now)
        assert patience.late(now, CALM) == ""
        patience.accepted(now)
    assert patience.late(now + 299, CALM) == ""
    assert patience.late(now + 300, CALM) == "command"


@given(st.floats(0, 10_000), st.integers(0, 10**8), st.sampled_from(["command", "data", "work"]))
def test_stress_only_shortens(now, received, what):
    """Whoever is late in calm is late under stress."""
    patience = Patience(0.0)
    patience.at(what, 0.0)
    patience.received(received, 0.0)

    assert not patience.late(now, CALM) or patience.late(now, STRESS)
