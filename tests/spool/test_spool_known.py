"""What becomes of accepts in flight when their shard dies: known, where it can be known."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.spool.given import accept, name, until
from tests.spool.puppet import Pair, Puppet

from postweir.spool.client import SILENCE_S, Shards
from postweir.spool.known import TELL_S, WAIT_S_MAX
from postweir.spool.ports import Read, Safe, Unknown, Unsafe

TAKEN, NOT_TAKEN = 1, 2


class Scene:
    """A client with two accepts in flight at one shard: one is committed, nothing is said."""

    def __init__(self, client: Shards, shard: Puppet) -> None:
        self.client, self.shard = client, shard
        shard.answer = None
        shard.taken = {name(TAKEN)}
        self.tasks = {n: asyncio.create_task(client.accept(accept(n), shard=1)) for n in (1, 2)}

    async def outcome(self, n: int) -> str:
        """Return the reason, "safe", or "unknown"."""
        try:
            answer = await self.tasks[n]
        except Unknown:
            return "unknown"
        return answer.reason if isinstance(answer, Unsafe) else "safe"

    async def outcomes(self) -> tuple[str, str]:
        return await self.outcome(TAKEN), await self.outcome(NOT_TAKEN)


@pytest.fixture
async def pair(tmp_path) -> AsyncIterator[Pair]:
    one = Pair(tmp_path)
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def scene(pair) -> AsyncIterator[Scene]:
    one = Scene(pair.client, pair.puppets[0])
    await until(lambda: len(one.shard.accepts()) == 2)
    yield one
    for task in one.tasks.values():
        task.cancel()
    await asyncio.gather(*one.tasks.values(), return_exceptions=True)


async def test_a_new_process_says_what_the_dead_one_had_committed(scene, pair):
    """Committed is safe, the rest was surely not taken; neither is ever sent again."""
    await scene.shard.die()
    assert not any(task.done() for task in scene.tasks.values())
    await scene.shard.start()

    assert await scene.outcomes() == ("safe", "failed")
    assert len(scene.shard.accepts()) == 2
    assert pair.puppets[1].accepts() == []
    answers = [task.result() for task in scene.tasks.values()]
    assert len({answer.ask for answer in answers}) == 2
    assert scene.client._shards[0].doubtful == {}


async def test_the_same_process_is_believed_only_when_it_has_it(scene):
    """It lost the link alone, and may still commit what it has not committed yet."""
    await scene.shard.die(anew=False)
    await scene.shard.start()

    assert await scene.outcomes() == ("safe", "unknown")


async def test_a_process_that_does_not_say_who_it_is_is_not_believed(scene):
    """An older one has no incarnation in its health, and no such question."""
    scene.shard.telling = False
    await scene.shard.die()
    scene.shard.incarnation = 0
    await scene.shard.start()

    assert await scene.outcomes() == ("unknown", "unknown")


async def test_nobody_comes_back(scene):
    """It is unknown TELL_S after the loss, not sooner, and the wait stays below two seconds."""
    loop = asyncio.get_running_loop()
    await scene.shard.die()
    began = loop.time()

    assert await scene.outcomes() == ("unknown", "unknown")
    assert TELL_S - 0.2 <= loop.time() - began <= TELL_S + 0.4 < 2.0


async def test_one_that_comes_back_and_says_nothing(scene):
    """The same bound."""
    loop = asyncio.get_running_loop()
    scene.shard.telling = False
    await scene.shard.die()
    began = loop.time()
    await scene.shard.start()

    assert await scene.outcomes() == ("unknown", "unknown")
    assert loop.time() - began <= TELL_S + 0.4


async def test_one_that_dies_again_before_it_says_so(scene):
    """The third is asked, and knows what the first had committed."""
    scene.shard.telling = False
    await scene.shard.die()
    await scene.shard.start()
    await until(lambda: [f for f in scene.shard.heard if isinstance(f, Read)])
    await scene.shard.die()
    scene.shard.telling = True
    await scene.shard.start()

    assert await scene.outcomes() == ("safe", "failed")


async def test_one_that_was_silent_before_it_died(scene):
    """A second of silence counts: the wait in all stays below two seconds."""
    loop = asyncio.get_running_loop()
    scene.shard.beating, began = False, loop.time()
    await until(lambda: loop.time() - began > 1.0)
    await scene.shard.die()

    assert await scene.outcomes() == ("unknown", "unknown")
    assert SILENCE_S < loop.time() - began < WAIT_S_MAX + 0.2


async def test_new_mail_goes_to_the_new_process_meanwhile(scene):
    """What is in doubt holds up nobody else, and its answers are not mixed up."""
    scene.shard.telling = False
    await scene.shard.die()
    await until(lambda: scene.client._shards[0].doubtful)
    scene.shard.answer = lambda a: Safe(a.ask)
    await scene.shard.start()
    await until(lambda: scene.client._shards[0].health)

    assert isinstance(await scene.client.accept(accept(3), shard=1), Safe)
    assert not any(task.done() for task in scene.tasks.values())


async def test_a_client_that_left_while_it_was_in_doubt(scene):
    """It leaves nothing behind; the other one is told."""
    await scene.shard.die()
    scene.tasks[TAKEN].cancel()
    await asyncio.gather(scene.tasks[TAKEN], return_exceptions=True)
    await scene.shard.start()

    assert await scene.outcome(NOT_TAKEN) == "failed"
    assert scene.client._shards[0].doubtful == {}


async def test_many_are_asked_about_in_pages(pair):
    """More than one question holds."""
    shard = pair.puppets[0]
    shard.answer = None
    shard.taken = {name(n) for n in range(0, 2500, 2)}
    tasks = [asyncio.create_task(pair.client.accept(accept(n), shard=1)) for n in range(2500)]
    await until(lambda: len(shard.accepts()) == 2500)
    await shard.die()
    await shard.start()
    answers = await asyncio.gather(*tasks)

    assert [isinstance(a, Safe) for a in answers] == [n % 2 == 0 for n in range(2500)]
