"""Pools of our own addresses: who leaves by which, and what is kept apart."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.delivery.remote import Remote, delivering, message

from postweir.delivery import worker as worker_module
from postweir.delivery.meters import Meters
from postweir.delivery.route import Hop
from postweir.delivery.sources import ANY, Pools
from postweir.runtime.metrics import Metrics
from postweir.runtime.net import bound, is_ours
from postweir.runtime.settings import Delivery

TWO = {"bulk": ["127.0.0.2", "127.0.0.3"], "own": ["127.0.0.4"]}
SENDERS = [f"acme|sasl|user{n}" for n in range(200)]


class Lines:
    """A log that keeps what it is told."""

    def __init__(self):
        self.said = []

    def __getattr__(self, level):
        return lambda event, **fields: self.said.append((event, fields.get("what", "")))


def pools(of, log=None):
    return Pools(of, meters=Meters(Metrics()), log=log or Lines())


def to(remote, host="127.0.0.1"):
    return {"*": f"{host}:{remote.port}"}


def test_a_sender_keeps_its_address_and_all_are_used():
    """What is tried again comes from where it came from; the load is shared."""
    made = pools(TWO)
    first = {sender: made.sources("bulk", sender).addresses[0] for sender in SENDERS}

    assert first == {s: pools(TWO).sources("bulk", s).addresses[0] for s in SENDERS}
    counts = [list(first.values()).count(address) for address in TWO["bulk"]]
    assert min(counts) > len(SENDERS) / 4


@given(
    st.lists(st.ip_addresses(v=4).map(str), max_size=5, unique=True),
    st.lists(st.ip_addresses(v=6).map(str), max_size=5, unique=True),
    st.text(max_size=9),
)
def test_all_addresses_of_the_peers_kind_are_tried(four, six, sender):
    """The sender's own first, then the rest; never one of the other kind."""
    if not four and not six:
        return
    found = pools({"p": [*four, *six]}).sources("p", sender)

    assert sorted(found.facing("192.0.2.1")) == sorted(four)
    assert sorted(found.facing("2001:db8::1")) == sorted(six)


def test_mail_without_a_pool_leaves_by_any():
    """Nothing is counted and nothing said of what is as it always was."""
    log = Lines()

    assert pools(TWO, log).sources("", "s") == ANY
    assert log.said == []


def test_a_pool_that_is_not_there_is_told_once():
    """A policy may name what the settings have not: each recipient counts, the log says it once."""
    log = Lines()
    made = pools(TWO, log)

    assert [made.sources(p, "s") for p in ("new", "new", "other")] == [ANY] * 3
    assert log.said == [("delivery.pool_unknown", "new"), ("delivery.pool_unknown", "other")]
    assert made._meters.pool_unknown._value.get() == 3


def test_a_socket_has_the_address_and_no_port_yet():
    """So that each peer has all the ports there are."""
    with bound("127.0.0.2") as made:
        assert made.getsockname() == ("127.0.0.2", 0)
        assert made.getblocking() is False
    with pytest.raises(OSError, match="assign"):
        bound("192.0.2.1")
    assert (is_ours("127.0.0.1"), is_ours("::1"), is_ours("192.0.2.1")) == (True, True, False)


async def test_two_pools_leave_by_their_own_addresses():
    """Each recipient's outcome says by which; a pool's mail never uses another's connection."""
    async with Remote() as remote, delivering(to(remote), pools=TWO, idle_s=5) as (worker, hands):
        for n, pool in enumerate(("own", "bulk", "", "own", "bulk", ""), 1):
            worker.take(message(f"m{n}", "a@b.example", first=n, pool=pool))
            found = await hands.until(n)

        assert {s.outcome for s in found.values()} == {"delivered"}
        assert [found[n].source for n in (1, 4)] == ["127.0.0.4"] * 2
        assert {found[n].source for n in (2, 5)} <= set(TWO["bulk"])
        assert [found[n].source for n in (3, 6)] == ["127.0.0.1"] * 2
        assert {s.site for s in found.values()} == {found[1].site}
        assert remote.connections == 3  # each is used again by its own
        of = {n: got.connection for n, got in enumerate(remote.got, 1)}
        assert [of[4], of[5], of[6]] == [of[1], of[2], of[3]]


async def test_senders_share_a_pool(monkeypatch):
    """The addresses of a pool are all used, and a sender's mail has one of them; none waits."""
    monkeypatch.setattr(worker_module, "LOOK_S", 1000.0)  # else what nobody began is begun then
    async with Remote() as remote, delivering(to(remote), pools=TWO) as (worker, hands):
        for n, sender in enumerate(SENDERS[:20] * 2, 1):
            worker.take(message(f"m{n}", "a@b.example", first=n, pool="bulk", sender=sender))
        found = await hands.until(40)

        assert {s.source for s in found.values()} == set(TWO["bulk"])
        assert all(found[n].source == found[n + 20].source for n in range(1, 21))


@pytest.mark.parametrize(
    ("pool", "source", "said"),
    [
        ("unknown", "127.0.0.1", ["delivery.pool_unknown"]),
        ("gone", "127.0.0.1", ["delivery.source_unusable", "delivery.pool_unusable"]),
        ("half", "127.0.0.5", None),
        ("six", "127.0.0.1", ["delivery.pool_unusable"]),
    ],
)
async def test_mail_is_never_stuck_for_want_of_an_address(pool, source, said):
    """Not of the settings, not of this host, not of the peer's kind: it leaves, and it is told."""
    log = Lines()
    has = {"gone": ["192.0.2.1"], "half": ["192.0.2.1", "127.0.0.5"], "six": ["::1"]}
    async with Remote() as remote, delivering(to(remote), pools=has, log=log) as (worker, hands):
        for n in (1, 2):
            worker.take(message(f"m{n}", "a@b.example", first=n, pool=pool))
            found = await hands.until(n)

        assert {(s.outcome, s.source) for s in found.values()} == {("delivered", source)}
        told = [event for event, _ in log.said if "_un" in event and "unreached" not in event]
        assert told == said or said is None


async def test_a_host_of_two_kinds_is_reached_by_the_one_that_the_pool_has():
    """A pool of IPv6 alone passes the IPv4 address of a host over."""
    async with Remote() as four, Remote(host="::1", port=four.port) as six:
        hops = [Hop("mx.example", address, four.port) for address in ("127.0.0.1", "::1")]
        async with delivering({}, pools={"six": ["::1"]}) as (worker, _):
            session = await worker._reacher.reach(hops, worker._pools.sources("six", "s"))
            session.close()

        assert session.source == "::1"
        assert (four.connections, six.connections) == (0, 1)


async def test_a_reload_may_change_a_pool():
    """What is queued from then on leaves by the new addresses."""
    async with Remote() as remote, delivering(to(remote), pools=TWO, idle_s=5) as (worker, hands):
        worker.take(message("m1", "a@b.example", pool="own"))
        await hands.until(1)
        worker.configure(Delivery(tls="off", idle_s=5, pools={"own": ("127.0.0.6",)}),
                         worker._ways._router, "relay.example")  # fmt: skip
        worker.take(message("m2", "a@b.example", first=2, pool="own"))
        found = await hands.until(2)

        assert [found[n].source for n in (1, 2)] == ["127.0.0.4", "127.0.0.6"]


async def test_a_listener_of_our_own_is_known_from_any_address():
    """Who comes from a pool meets another address of ours than the one it has bound."""
    async with Remote() as remote:
        ours = frozenset({remote.port})
        async with delivering(to(remote), pools=TWO, own_ports=ours) as (worker, hands):
            worker.take(message("m1", "a@b.example", pool="own"))
            settle = (await hands.until(1))[1]

        assert settle.reply.status == "4.4.6"
        assert remote.got == []


async def test_no_socket_is_left_when_nobody_answers():
    """A connection that fails takes its socket with it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with delivering({"*": f"127.0.0.1:{port}"}, pools=TWO) as (worker, hands):
        worker.take(message("m1", "a@b.example", pool="own"))
        settle = (await hands.until(1))[1]

        assert (settle.outcome, settle.reply.status) == ("deferred", "4.4.1")
