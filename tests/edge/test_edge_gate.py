"""Limits before anyone is known, names, and the steps of AUTH."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.edge.stand import FakeJudge, FakeShards, implements

from postweir.edge import gate
from postweir.edge.counts import Counts
from postweir.edge.names import COUNTER_MAX, Names
from postweir.edge.ports import Shards
from postweir.edge.sasl import Challenge, Claim, Garbled, Sasl
from postweir.judge.ports import Judge
from postweir.mail.envelope import is_message_id
from postweir.runtime.settings import Edge

LIMITS = Edge(connections_max=10, connections_per_client_max=3, memory_bytes_max=100)


@pytest.mark.parametrize(
    ("now", "answer"),
    [
        ({"connections": 8, "of_client": 2, "bytes_held": 99}, None),
        ({"connections": 10}, gate.FULL),
        ({"connections": 7, "room": 7}, gate.FULL),
        ({"connections": 3, "of_client": 3}, gate.CROWDED),
        ({"connections": 8, "of_holder": 5, "share": 5}, None),
        ({"connections": 9, "of_holder": 5, "share": 5}, gate.OVER_SHARE),
        ({"connections": 9, "of_holder": 4, "share": 5}, None),
        ({"bytes_held": 100}, gate.BUSY),
        ({"stopping": True}, gate.STOPPING),
    ],
)
def test_who_gets_in(now, answer):
    """Each limit turns away exactly when it is reached, with 421 4.3.2."""
    calm = {
        "room": 100, "connections": 0, "of_client": 0, "of_holder": 0, "share": 10,
        "bytes_held": 0, "stopping": False,
    }  # fmt: skip
    said = gate.connect(LIMITS, **calm | now)

    assert said == answer
    assert said is None or str(said.reply).startswith("421 4.3.2")


def test_who_may_stay():
    """In the last tenth of connections an account above the share goes; at its share it stays."""
    crowded = {"room": 100, "connections": 9, "share": 5}

    assert gate.stay(LIMITS, **crowded, of_holder=6) == gate.OVER_SHARE
    assert gate.stay(LIMITS, **crowded, of_holder=5) is None
    assert gate.stay(LIMITS, **crowded | {"connections": 8}, of_holder=8) is None


@pytest.mark.parametrize(
    ("client", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("", ""),
    ],
)
def test_who_counts_as_one_client(client, counted):
    """Whoever has an IPv6 address has 2^64 of them: they count as one."""
    assert gate.neighbourhood(client) == counted


def test_a_message_needs_memory():
    """No message begins when what is held is at its bound, or its account holds half of that."""
    assert gate.begin(LIMITS, bytes_held=99, of_account=49) is None
    assert gate.begin(LIMITS, bytes_held=100, of_account=0) == gate.MEMORY
    assert gate.begin(LIMITS, bytes_held=60, of_account=50) == gate.OWN_MEMORY
    assert gate.go_on(LIMITS, bytes_held=199) is None
    assert gate.go_on(LIMITS, bytes_held=200) == gate.MEMORY


def test_a_message_needs_disk():
    """What is free, less what others were promised, must leave the least that stays free."""
    room = {"free_bytes": 1000, "free_bytes_min": 300, "claimed": 200}

    assert gate.fits(**room, size=500) is None
    assert gate.fits(**room, size=501) == gate.DISK


def test_reasons_are_a_bounded_set():
    """Every bound has a reason for the metric, and what it says is temporary."""
    assert all(no.reply.transient for no in gate.REASONS)
    assert len({no.reason for no in gate.REASONS}) == len(gate.REASONS) - 1  # memory: 421 and 452


def test_counts_forget():
    """Nothing is remembered of an address that has no connection."""
    counts = Counts()
    for client in ("a", "a", "b"):
        counts.enter(client, f"?{client}")
    assert (counts.connections, counts.of_client("a"), counts.of_client("c")) == (3, 2, 0)
    for client in ("a", "b", "a"):
        counts.leave(client, f"?{client}")

    assert counts.connections == 0
    assert counts.clients._held == counts.clients._with == {}
    assert counts.holders._held == counts.holders._with == {}


@given(st.lists(st.integers(-5000, 5000), min_size=1, max_size=200), st.integers(0, 0xFFFF))
def test_names_sort_and_never_repeat(steps_us, incarnation):
    """Whatever the clock does, each name is greater than the one before."""
    at = 1_800_000_000_000_000
    times = []
    for step in steps_us:
        at += step * 1000
        times.append(at)
    clock = iter(times)
    names = Names(incarnation, lambda: next(clock))
    given_names = [names.next() for _ in times]

    assert given_names == sorted(set(given_names))
    assert all(is_message_id(name) for name in given_names)


def test_names_outlast_a_millisecond():
    """More names than a counter holds, in a clock that stands still, are all different."""
    names = Names(1, lambda: 1_800_000_000_000_000)
    given_names = [names.next() for _ in range(COUNTER_MAX + 10)]

    assert len(set(given_names)) == COUNTER_MAX + 10
    assert given_names == sorted(given_names)


@pytest.mark.parametrize(
    ("answer", "step"),
    [
        (b"\0joe\0secret", Claim("joe", "secret")),
        (b"joe\0joe\0secret", Claim("joe", "secret")),
        (b"boss\0joe\0secret", Garbled()),
        (b"\0joe\0sec\0ret", Garbled()),
        (b"\0\0secret", Garbled()),
        (b"joe", Garbled()),
        (b"\xff\0a\0b", Garbled()),
        (b"", Garbled()),
        (None, Garbled()),
    ],
)
def test_plain(answer, step):
    """PLAIN is three words, and nobody acts for another."""
    sasl = Sasl("PLAIN")
    assert sasl.begin(None) == Challenge("")
    assert sasl.answer(answer) == step


def test_login():
    """LOGIN asks twice; a name may come with the command."""
    sasl = Sasl("LOGIN")
    assert isinstance(sasl.begin(None), Challenge)
    assert isinstance(sasl.answer(b"joe"), Challenge)
    assert sasl.answer(b"secret") == Claim("joe", "secret")
    assert isinstance(Sasl("LOGIN").begin(b"joe"), Challenge)
    assert Sasl("LOGIN").answer(None) == Garbled()


def test_the_fakes_are_what_the_ports_ask_for():
    """A fake that drifts from its port would prove nothing."""
    assert implements(FakeJudge, Judge)
    assert implements(FakeShards, Shards)
    assert not implements(FakeJudge, Shards)
