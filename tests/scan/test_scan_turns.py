"""Turns are handed out in order, within each one's share, and none is ever lost."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from postweir.scan.turns import Turns


async def test_nobody_has_more_than_half():
    """The third of one account waits while another's goes ahead; a turn given back is the third's.

    Who gives up is not handed a turn later.
    """
    turns = Turns(4)
    assert await turns.take("a", 0.0)
    assert await turns.take("a", 0.0)
    third = asyncio.create_task(turns.take("a", 5.0))
    gone = asyncio.create_task(turns.take("a", 5.0))
    await asyncio.sleep(0)
    assert await turns.take("b", 0.0)
    assert not third.done()
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert len(turns) == 1

    turns.give_back("a")

    assert await third
    assert not await turns.take("a", 0.0)
    assert len(turns) == 0


async def test_cancelled_at_the_moment_it_is_handed_out():
    """The turn goes to the next, or two threads of four would be gone for ever."""
    turns = Turns(1)
    assert await turns.take("a", 0.0)
    unlucky = asyncio.create_task(turns.take("a", 5.0))
    after = asyncio.create_task(turns.take("b", 5.0))
    await asyncio.sleep(0)
    turns.give_back("a")
    unlucky.cancel()
    await asyncio.gather(unlucky, return_exceptions=True)

    assert await after


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_shares_hold_whatever_comes_and_goes(steps):
    """Never more than four out, never more than two of one, and at the end all four are free."""

    async def play() -> None:
        turns = Turns(4)
        out: list[str] = []
        for key, takes in steps:
            if takes:
                if await turns.take(key, 0.0):
                    out.append(key)
            elif key in out:
                out.remove(key)
                turns.give_back(key)
            assert len(out) <= 4
            assert all(out.count(k) <= 2 for k in "abc")
        for key in out:
            turns.give_back(key)
        assert await turns.take("a", 0)
        assert await turns.take("a", 0)
        assert await turns.take("b", 0)
        assert await turns.take("c", 0)

    asyncio.run(play())
