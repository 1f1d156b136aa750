"""AUTH under attack, on a connection: what is said, how soon, and what it costs the tables."""

import asyncio
import threading

import pytest
from tests.edge.stand import KEY, plain, stand, until

from postweir.edge import guessing, login
from postweir.edge.guessing import Levels
from postweir.identity.credentials import generate
from postweir.identity.sender import Account


async def guess(on, name, secret, client=None):
    """Try one secret; returns the reply and the connection."""
    if client is None:
        client = await on.call()
        await client.ask("EHLO x")
    return await client.ask(f"AUTH PLAIN {plain(name, secret)}"), client


async def guesses(on, name, count, first=0):
    """Try so many wrong secrets, two a connection; returns the codes."""
    codes = []
    client = None
    for n in range(count):
        said, client = await guess(on, name, f"wrong{first + n}", client if n % 2 else None)
        codes.append(said[:3])
        if n % 2:
            await client.hang_up()
    await client.hang_up()
    return codes


def failures(on):
    """Return how often AUTH was answered no, by reason."""
    found = {}
    for metric in on.worker.meters.auth_failures.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total") and sample.value:
                found[sample.labels["reason"]] = int(sample.value)
    return found


@pytest.fixture
def prompt(monkeypatch):
    """Nobody's answer is held back for long."""
    monkeypatch.setattr(login, "HELD_S", 0.01)


async def test_after_some_guesses_nobody_says_whether_it_is_right(tmp_path, prompt):
    """A client that guesses hears 454, for the right secret too: but not where it was right."""
    async with stand(tmp_path) as on:
        made, secret = generate("acme", KEY, created_us=2)
        on.change(credentials=(made, *on.tables.found.credentials.values()))
        await on.worker.directory.again(5)
        codes = await guesses(on, made.username, 8)
        assert codes == ["535"] * guessing.PAIR_MAX + ["454"] * (8 - guessing.PAIR_MAX)
        said, client = await guess(on, made.username, secret)
        assert said.startswith("454 4.7.0 Too many wrong secrets")
        assert (await client.ask("MAIL FROM:<a@b>"))[:3] == "530"
        await client.hang_up()
        said, client = await guess(on, on.username, on.secret)
        assert said[:3] == "235", "another name from here"
        await client.hang_up()
        await guesses(on, on.username, 8)
        said, client = await guess(on, on.username, on.secret)
        assert said[:3] == "235", "it was right from here lately"
        await client.hang_up()

        assert failures(on) == {"wrong": 10, "backed_off": 7}


async def test_the_same_wrong_secret_again_costs_nothing(tmp_path, prompt):
    """An old secret hears 535 each time, for sure, and is looked up in the tables once."""
    async with stand(tmp_path) as on:
        looks = on.worker.directory.again
        asked = []

        async def counted(wait_s):
            asked.append(wait_s)
            return await looks(wait_s)

        on.worker.directory.again = counted
        for n in range(10):
            said, client = await guess(on, on.username, "old")
            assert said[:3] == "535", n
            await client.hang_up()
        said, client = await guess(on, on.username, on.secret)
        assert said[:3] == "235"
        await client.hang_up()

        assert len(asked) == 1
        assert failures(on) == {"wrong": 1, "repeated": 9}


async def test_tables_out_of_reach_are_a_temporary_no(tmp_path):
    """With an old picture only, what is right opens and nothing is told that it is wrong."""
    async with stand(tmp_path) as on:
        kept = on.tables.directory

        def away(newer_than):
            raise OSError("away")

        on.tables.directory = away
        said, client = await guess(on, on.username, "wrong")
        assert said.startswith("454 4.7.0 That cannot be looked up")
        said, client = await guess(on, on.username, on.secret, client)
        assert said[:3] == "235"
        await client.hang_up()
        on.tables.directory = kept
        said, client = await guess(on, on.username, "wrong")
        assert said[:3] == "535"
        await client.hang_up()

        assert failures(on) == {"unsure": 1, "wrong": 1}


async def test_what_was_wrong_is_looked_up_anew_when_it_is_old(tmp_path, prompt, monkeypatch):
    """A no of the past is no no for ever: with tables away it becomes 454 again."""
    async with stand(tmp_path) as on:
        said, client = await guess(on, on.username, "old")
        assert said[:3] == "535"
        monkeypatch.setattr(login, "SURE_S", -1.0)

        def away(newer_than):
            raise OSError("away")

        on.tables.directory = away
        said, client = await guess(on, on.username, "old", client)
        assert said[:3] == "454"
        await client.hang_up()


async def test_all_who_ask_share_a_look(tmp_path):
    """A hundred wrong secrets at once cost the tables a look or two, not a hundred."""
    async with stand(tmp_path) as on:
        on.worker.guessing._clients = Levels(10**6, 1.0)
        on.worker.guessing._noes = on.worker.guessing._all_noes = Levels(10**6, 1.0)
        kept, looks = on.tables.directory, []

        def counted(newer_than):
            looks.append(newer_than)
            return kept(newer_than)

        clients = [await on.call() for _ in range(100)]
        for client in clients:
            await client.ask("EHLO x")
        on.tables.directory = counted
        for n, client in enumerate(clients):
            client.say(f"AUTH PLAIN {plain(f'name{n}', 'x')}\r\n".encode())
        codes = {(await client.hear())[:3] for client in clients}
        took = len(looks)
        for client in clients:
            await client.hang_up()

        assert codes == {"535"}
        assert took <= 5


async def test_noes_are_held_back_for_who_guesses_alone(tmp_path, monkeypatch):
    """Past some noes a client waits for each; a right secret from there does not."""
    monkeypatch.setattr(login, "HELD_S", 60.0)
    async with stand(tmp_path) as on:
        said, client = await guess(on, on.username, on.secret)
        await client.hang_up()
        on.worker.guessing._noes = Levels(2, 1e9)
        assert await guesses(on, "nobody", 2) == ["535", "535"]
        waiting = await on.call()
        await waiting.ask("EHLO x")
        waiting.say(f"AUTH PLAIN {plain('nobody', 'x9')}\r\n".encode())
        await until(lambda: on.worker.guessing.held == 1)
        said, client = await guess(on, on.username, on.secret)
        assert said[:3] == "235"
        await client.hang_up()
        await waiting.hang_up()
        await until(lambda: not on.worker.counts.connections)

        assert on.worker.guessing.held == 1, "who hangs up makes no room for the next guess"
        await on.sweeper.drain(0)
        await until(lambda: on.worker.guessing.held == 0)


async def test_a_bounded_number_is_held_back(tmp_path, monkeypatch):
    """When too many noes wait already, the next is shown out at once."""
    monkeypatch.setattr(login, "HELD_S", 60.0)
    async with stand(tmp_path, connections_max=20) as on:  # two may wait
        on.worker.guessing._noes = Levels(0, 1.0)
        waiting = []
        for n in range(2):
            client = await on.call()
            await client.ask("EHLO x")
            client.say(f"AUTH PLAIN {plain('nobody', f'x{n}')}\r\n".encode())
            waiting.append(client)
            await until(lambda n=n: on.worker.guessing.held == n + 1)
        said, client = await guess(on, "nobody", "x3")
        assert said.startswith("421 4.7.0")
        assert await client.hear() == ""
        again = await on.call()
        assert again.greeting == "421 4.7.0 Too many errors"  # it is not even asked
        for one in (client, again, *waiting):
            await one.hang_up()
        await until(lambda: not on.worker.counts.connections)
        await on.sweeper.drain(0)

        assert failures(on) == {"shown_out": 1}


async def test_a_drain_waits_for_no_guesser(tmp_path, monkeypatch):
    """A no that is held back ends with the drain."""
    monkeypatch.setattr(login, "HELD_S", 60.0)
    async with stand(tmp_path) as on:
        on.worker.guessing._noes = Levels(0, 1.0)
        client = await on.call()
        await client.ask("EHLO x")
        client.say(f"AUTH PLAIN {plain('nobody', 'x')}\r\n".encode())
        await until(lambda: on.worker.guessing.held)
        await on.sweeper.drain(0.05)
        assert on.worker.guessing.held == 0
        await client.hang_up()


async def test_the_log_does_not_grow_with_the_attack(tmp_path, prompt, monkeypatch):
    """A bounded number of lines tells of guesses, and no line has a name that does not exist."""
    lines = []

    class Log:
        def info(self, event, **fields):
            lines.append((event, fields))

        warning = error = info

    async with stand(tmp_path) as on:
        monkeypatch.setattr(on.worker, "log", Log())
        on.worker.guessing._lines = Levels(3, 1e9)
        on.worker.guessing._clients = Levels(10**6, 1.0)
        for n in range(6):
            _, client = await guess(on, f"a-secret-in-the-wrong-place-{n}", "x")
            await client.hang_up()

        told = [fields for event, fields in lines if event.startswith("edge.auth")]
        assert [fields["username"] for fields in told] == ["?"] * 3


async def test_a_revoked_credential_is_wrong(tmp_path, prompt):
    """What was right lately and is revoked opens nothing, and is told that it is wrong."""
    async with stand(tmp_path) as on:
        said, client = await guess(on, on.username, on.secret)
        assert said[:3] == "235"
        await client.hang_up()
        on.change(Account(name="acme"), credentials=())
        await on.worker.directory.again(5)
        said, client = await guess(on, on.username, on.secret)
        assert said[:3] == "535"
        await client.hang_up()


async def test_auth_twice(tmp_path):
    """Who is known need not say so again: 503, and stays known."""
    async with stand(tmp_path) as on:
        client = await on.login()
        said, _ = await guess(on, "nobody", "x", client)
        assert said.startswith("503 5.5.1")
        assert (await client.ask("MAIL FROM:<a@b>"))[:3] == "250"
        await client.hang_up()

        assert failures(on) == {}


async def test_concurrent_looks_are_answered_in_time(tmp_path):
    """Tables that hang cost a guess AGAIN_S and a 454, and others nothing."""
    async with stand(tmp_path) as on:
        go, kept = threading.Event(), on.tables.directory

        def hangs(newer_than):
            go.wait(10)
            return kept(newer_than)

        on.tables.directory = hangs
        async with asyncio.timeout(5):
            said, client = await guess(on, on.username, "x")
        assert said[:3] == "454"
        said, client = await guess(on, on.username, on.secret, client)
        assert said[:3] == "235"
        await client.hang_up()
        go.set()
