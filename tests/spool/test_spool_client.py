"""The edge's side of the shards, against shards that misbehave."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.spool.given import REFUSE, START_US, accept, settle, until
from tests.spool.puppet import Pair

from postweir.spool.client import DOUBT_S, LOOK_S, SILENCE_S
from postweir.spool.ports import Refusal, Safe, Unknown, Unsafe


@pytest.fixture
async def pair(tmp_path) -> AsyncIterator[Pair]:
    one = Pair(tmp_path)
    await one.start()
    yield one
    await one.stop()


async def test_both_take_their_share(pair):
    """In turn, when both are well."""
    for n in range(1, 11):
        await pair.client.accept(accept(n))

    assert [len(p.accepts()) for p in pair.puppets] == [5, 5]


async def test_a_closed_connection_leaves_the_outcome_unknown(pair):
    """And the message goes to no second shard."""
    pair.puppets[0].answer = None
    waiting = asyncio.create_task(pair.client.accept(accept(1), shard=1))
    await until(pair.puppets[0].accepts)
    pair.puppets[0].links[0].abort()

    with pytest.raises(Unknown):
        await waiting
    assert pair.puppets[1].accepts() == []


async def test_a_silent_shard_is_given_up(pair):
    """Its accept is unknown after SILENCE_S, not before; new mail goes to the other."""
    silent, well = pair.puppets
    silent.answer, loop = None, asyncio.get_running_loop()
    waiting = asyncio.create_task(pair.client.accept(accept(1), shard=1))
    await until(silent.accepts)
    silent.beating, began = False, loop.time()
    await until(lambda: not pair.client._lives(pair.client._shards[0]))
    for n in range(2, 12):
        await pair.client.accept(accept(n))

    assert (len(silent.accepts()), len(well.accepts())) == (1, 10)
    with pytest.raises(Unknown):
        await waiting
    assert SILENCE_S - 0.1 <= loop.time() - began <= SILENCE_S + 1


async def test_a_slow_shard_that_lives_is_waited_for(pair):
    """It beats, so it is not given up."""
    slow = pair.puppets[0]
    slow.answer, loop = None, asyncio.get_running_loop()
    waiting = asyncio.create_task(pair.client.accept(accept(1), shard=1))
    await until(slow.accepts)
    until_s = loop.time() + SILENCE_S + 0.3
    await until(lambda: loop.time() > until_s)

    assert not waiting.done()
    slow.links[0].send(Safe(slow.accepts()[0].ask))
    assert isinstance(await waiting, Safe)


async def test_our_own_lateness_is_no_silence(pair):
    """A turn of this loop that took long leaves what a shard said unread; it is not down."""
    client = pair.client
    one = client._shards[0]
    await until(lambda: one.health is not None)
    one.line.link.heard_at -= DOUBT_S + 0.1
    client._forgive_until = 0.0
    silent = client._lives(one)
    client._looked_at -= LOOK_S + 0.12

    assert not silent
    assert client._lives(one)


async def test_why_nobody_takes_mail(pair):
    """One that does is enough; else the reason of those that live."""
    pair.puppets[0].wrong = "full"
    await until(lambda: not pair.client._shards[0].health.accepts)

    assert pair.client.reason() == ""
    assert {pair.client.choose() for _ in range(4)} == {2}
    pair.puppets[1].wrong = "draining"
    await until(pair.client.reason)
    assert pair.client.reason() == "full"
    with pytest.raises(Unknown):
        pair.client.choose()


async def test_every_accept_carries_a_deadline(pair):
    """A shard that revives after we gave up must not begin it."""
    await pair.client.accept(accept(1, by_ns=0), shard=1)
    await pair.client.accept(accept(2, by_ns=77), shard=1)

    first, second = pair.puppets[0].accepts()
    assert first.by_ns > 0
    assert second.by_ns == 77


async def test_unsafe_is_handed_on(pair):
    """With its reason."""
    pair.puppets[0].answer = lambda a: Unsafe(a.ask, "full")

    assert (await pair.client.accept(accept(1), shard=1)).reason == "full"


async def test_a_cancelled_accept_leaves_nothing_behind(pair):
    """The client's connection ended; an answer that comes later is passed over."""
    pair.puppets[0].answer = None
    waiting = asyncio.create_task(pair.client.accept(accept(1), shard=1))
    await until(pair.puppets[0].accepts)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    pair.puppets[0].links[0].send(Safe(pair.puppets[0].accepts()[0].ask))
    pair.puppets[0].answer = lambda a: Safe(a.ask)

    assert isinstance(await pair.client.accept(accept(2), shard=1), Safe)
    assert pair.client._shards[0].accepts == {}


async def test_refusals_never_wait(pair):
    """They go to a living shard; with none they are lost, and counted."""
    a = accept(1)
    refusal = Refusal(a.message, START_US, "data", a.sender, a.envelope, "",
                      settle(1, "failed").reply, REFUSE, b"")  # fmt: skip
    pair.client.refuse(refusal)
    await until(lambda: [f for p in pair.puppets for f in p.heard if isinstance(f, Refusal)])
    for puppet in pair.puppets:
        await puppet.stop()
    await until(lambda: pair.client.reason() == "down")
    pair.client.refuse(refusal)

    assert pair.client.refusals_lost == 1
