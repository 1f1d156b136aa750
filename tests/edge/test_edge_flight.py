"""Places in flight: fair, never long, and each given back once."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from postweir.edge.flight import PLACES_MIN, SLOW_S, WAIT_S, Flights, Pace

ACCOUNTS = st.sampled_from(["flood", "shop", "club", "bank"])


class Clock:
    """A loop's timers, and a time that moves when told."""

    def __init__(self):
        self.now = 0.0
        self.timers = []

    def later(self, wait_s, call):
        timer = Timer(self.now + wait_s, call, self)
        self.timers.append(timer)
        return timer

    def move(self, by_s):
        end = self.now + by_s
        while due := [t for t in self.timers if t.at <= end]:
            timer = min(due, key=lambda t: t.at)
            self.now = timer.at
            self.timers.remove(timer)
            timer.call()
        self.now = end


class Timer:
    def __init__(self, at, call, clock):
        self.at, self.call, self.clock = at, call, clock

    def cancel(self):
        if self in self.clock.timers:
            self.clock.timers.remove(self)


class Client:
    """One who asks for a place."""

    def __init__(self, account, asked_at):
        self.account, self.asked_at = account, asked_at
        self.heard = None  # True, False, or None: waits
        self.waiting = None


class Admission(RuleBasedStateMachine):
    """Any order of coming, leaving, vanishing and waiting."""

    @initialize(places=st.integers(1, 6))
    def begin(self, places):
        self.clock = Clock()
        self.places = places
        self.flights = Flights(lambda: self.places, self.clock.later)
        self.clients = []

    def mine(self, heard):
        return [c for c in self.clients if c.heard is heard]

    @rule(account=ACCOUNTS, gives_back=st.booleans())
    def ask(self, account, gives_back):
        """Gives back: its talk turns out to be over when it hears yes."""
        client = Client(account, self.clock.now)
        if self.flights.take(account):
            client.heard = True
        else:

            def hear(given):
                assert client.heard is None
                if given and gives_back:
                    self.clients.remove(client)
                    self.flights.leave(account)
                    return
                if given:
                    self.check_turn(client)
                client.heard = given
                client.heard_at = self.clock.now

            client.waiting = self.flights.wait(account, hear)
            if client.waiting is None:
                client.heard, client.heard_at = False, self.clock.now
        self.clients.append(client)

    def check_turn(self, client):
        """Nobody who holds fewer waits while this one is served."""
        holds = self.flights.held.of(client.account) - 1
        for other in self.mine(None):
            if other is not client:
                assert self.flights.held.of(other.account) >= holds or other.account == (
                    client.account
                )

    @precondition(lambda self: self.mine(True))
    @rule(data=st.data())
    def leave(self, data):
        client = data.draw(st.sampled_from(self.mine(True)))
        self.clients.remove(client)
        self.flights.leave(client.account)

    @precondition(lambda self: self.mine(None))
    @rule(data=st.data())
    def vanish(self, data):
        client = data.draw(st.sampled_from(self.mine(None)))
        self.clients.remove(client)
        self.flights.forget(client.waiting)

    @precondition(lambda self: self.mine(True))
    @rule(data=st.data())
    def step_aside_and_back(self, data):
        client = data.draw(st.sampled_from(self.mine(True)))
        self.flights.leave(client.account)
        if not self.flights.take_again(client.account):
            self.clients.remove(client)

    @rule(by_s=st.sampled_from([0.01, 0.05, 0.09, 0.2]))
    def time_passes(self, by_s):
        self.clock.move(by_s)

    @rule(places=st.integers(1, 6))
    def reload(self, places):
        self.places = places

    @invariant()
    def nothing_leaks(self):
        if not hasattr(self, "flights"):
            return
        waits, flies = self.mine(None), self.mine(True)
        assert self.flights.held.total == len(flies)
        assert self.flights.waiting.total == len(waits) == len(self.clock.timers)
        assert sum(map(len, self.flights._queues.values())) == len(waits)
        assert all(self.flights._queues.values())
        assert all(self.clock.now - c.asked_at <= WAIT_S for c in waits)
        assert len(flies) <= 2 * 6 + 1

    def teardown(self):
        for client in self.mine(True) if hasattr(self, "clients") else []:
            self.flights.leave(client.account)
        if hasattr(self, "clients"):
            self.clock.move(1)
            for client in self.mine(True):  # served by those who left
                if client in self.clients and self.flights.held.of(client.account):
                    self.flights.leave(client.account)
            assert self.flights.held.total == self.flights.waiting.total == 0


TestAdmission = Admission.TestCase
TestAdmission.settings = hypothesis_settings(max_examples=150, stateful_step_count=40)


def flights_of(places):
    clock = Clock()
    return Flights(lambda: places, clock.later), clock


def test_alone_one_uses_all_places():
    """Without others an account has every place."""
    flights, _ = flights_of(10)

    assert [flights.take("flood") for _ in range(11)] == [True] * 10 + [False]


def test_who_comes_late_is_next():
    """A newcomer is served by the first place that comes free, whatever waits before it."""
    flights, _ = flights_of(10)
    heard = []
    for _ in range(10):
        flights.take("flood")
    for n in range(10):
        flights.wait("flood", lambda given, n=n: heard.append(("flood", n, given)))
    # The queue is full of the flood's: its last makes room.
    assert flights.wait("shop", lambda given: heard.append(("shop", 0, given)))
    assert heard == [("flood", 9, False)]
    flights.leave("flood")

    assert heard[1] == ("shop", 0, True)


def test_shares_even_out():
    """Two who ask all the time end with half each, however much one had before."""
    flights, clock = flights_of(10)
    for _ in range(10):
        flights.take("flood")
    served = {"flood": 0, "shop": 0}
    flying = ["flood"] * 10

    def hear(account):
        def answer(given):
            served[account] += given
            if given:
                flying.append(account)

        return answer

    for _ in range(100):
        for account in served:
            while flights.waiting.of(account) < 4:
                flights.wait(account, hear(account))
        flights.leave(flying.pop(0))
        clock.move(0.001)

    assert flights.held.of("flood") == flights.held.of("shop") == 5
    assert abs(served["flood"] - served["shop"]) <= 10


def test_nobody_waits_longer_than_promised():
    """When no place comes free the answer is no, after WAIT_S and not later."""
    flights, clock = flights_of(1)
    flights.take("a")
    heard = []
    flights.wait("b", lambda given: heard.append((given, clock.now)))
    clock.move(WAIT_S / 2)
    assert heard == []
    clock.move(10)

    assert heard == [(False, WAIT_S)]
    assert flights.waiting.total == 0


def test_too_many_who_come_back_are_turned_away():
    """Slow messages step aside, and come back at their dot: up to twice the places, no more."""
    flights, _ = flights_of(2)

    assert [flights.take_again("a") for _ in range(5)] == [True] * 4 + [False]


def test_a_chain_of_places_is_no_recursion():
    """A thousand who each give their place back at once are heard one after the other."""
    flights, _ = flights_of(2000)
    for _ in range(2000):
        flights.take("a")
    for _ in range(1999):
        flights.wait("a", lambda given: flights.leave("a") if given else None)
    flights.leave("a")

    assert flights.held.total == 1999
    assert flights.waiting.total == 0


def test_an_answer_that_fails_costs_nobody_else():
    """A bug in one answer comes out where it was called, and the places stay right."""
    flights, _ = flights_of(1)
    flights.take("a")

    def bad(_):
        raise RuntimeError("odd")

    flights.wait("b", bad)
    with pytest.raises(RuntimeError):
        flights.leave("a")
    assert flights.held.of("b") == 1
    flights.leave("b")
    assert flights.take("c")


PLACES_MOST = 1000


def answered_at(pace, per_s, *, seconds, demand=10**6):
    """Play a spool that answers so many a second; what waits in flight is answered in turn."""
    held = 0
    for _ in range(int(seconds * 4)):
        held = min(demand, pace.places)
        answered = min(int(per_s / 4), held)
        for _ in range(answered):
            pace.answered(held / per_s)
        pace.look(PLACES_MOST, since_s=0.25, judge_s=0.1)
    return held / per_s


def test_a_slow_spool_has_fewer_places_and_a_quick_one_all():
    """At 200 a second answers come in good time again, and so many more are turned away before."""
    pace = Pace(PLACES_MOST)
    assert answered_at(pace, 200, seconds=10) < 2 * SLOW_S
    assert PLACES_MIN <= pace.places < 300
    assert answered_at(pace, 5000, seconds=10) < SLOW_S
    assert pace.places == PLACES_MOST


def test_idle_is_not_slow():
    """With nothing to answer, or little, nothing is taken away."""
    pace = Pace(PLACES_MOST)
    answered_at(pace, 1000, seconds=5, demand=3)
    for _ in range(20):
        pace.look(PLACES_MOST, since_s=0.25, judge_s=0.1)
    assert pace.places == PLACES_MOST


def test_a_reload_may_want_fewer_or_more():
    """The setting is the most there is, at the next look or soon after."""
    pace = Pace(PLACES_MOST)
    pace.look(100, since_s=0.25, judge_s=0.1)
    assert pace.places == 100
    for _ in range(40):
        pace.look(PLACES_MOST, since_s=0.25, judge_s=0.1)
    assert pace.places == PLACES_MOST


@given(
    st.lists(st.tuples(st.integers(0, 500), st.floats(0, 60)), max_size=100), st.integers(1, 2000)
)
def test_there_is_always_a_place(looks, most):
    """Whatever happens there is at least one place, and never more than the setting says."""
    pace = Pace(most)
    for answered, took_s in looks:
        for _ in range(answered):
            pace.answered(took_s)
        pace.look(most, since_s=0.25, judge_s=0.0)
        assert min(PLACES_MIN, most) <= pace.places <= most
