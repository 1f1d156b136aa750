"""What a client hears at each bound, who makes room, and that every count comes back to nothing."""

import asyncio
import socket
import time
import types

import pytest
from tests.edge.stand import KEY, plain, stand, until

from postweir.edge import counts, flight, gate, intake, pressure, standing
from postweir.edge.counts import Anteroom
from postweir.identity.credentials import generate
from postweir.identity.sender import Account

SMALL = b"Subject: hi\r\n\r\nHello.\r\n"
LARGE = b"Subject: large\r\n\r\n" + b"line\r\n" * 40_000


def refused(on):
    """Return how often each bound said no."""
    found = {}
    for metric in on.worker.meters.refused.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total") and sample.value:
                found[sample.labels["reason"]] = int(sample.value)
    return found


async def second_account(on, **fields):
    """Make one more account; return how to log in to it."""
    made, secret = generate("other", KEY, created_us=2)
    mine = on.tables.found.accounts["acme"]
    on.change(
        mine, Account(name="other", **fields),
        credentials=(made, *on.tables.found.credentials.values()),
    )  # fmt: skip
    await on.worker.directory.again(5)

    async def login():
        client = await on.call()
        await client.ask("EHLO x")
        assert (await client.ask(f"AUTH PLAIN {plain(made.username, secret)}"))[:3] == "235"
        return client

    return login


async def test_an_account_does_not_fill_all_memory(tmp_path):
    """With half of the memory an account's next message waits, and another account's does not."""
    async with stand(tmp_path, memory_bytes_max=30_000) as on:
        login_other = await second_account(on)
        first, second = await on.login(), await on.login()
        other = await login_other()
        await first.begin()
        first.say(b"Subject: " + b"x" * 16_000)
        await until(lambda: on.worker.counts.bytes_of("acme") > 15_000)
        assert (await second.begin()).startswith("452 4.3.1 Your messages")
        assert (await other.send(SMALL))[:3] == "250"
        first.say(b"\r\n\r\n.\r\n")
        assert (await first.hear())[:3] == "250"
        assert (await second.ask("DATA"))[:3] == "354"
        second.say(SMALL + b".\r\n")
        assert (await second.hear())[:3] == "250"
        assert refused(on) == {"account_memory": 1}
        for client in (first, second, other):
            await client.hang_up()


async def test_the_size_announced_must_fit_the_disk(tmp_path):
    """MAIL hears 452 for what the disk has no room for, with what else is under way; no error."""
    async with stand(tmp_path, errors_max=3) as on:
        first, second = await on.login(), await on.login()
        keep = on.worker.settings.spool.free_bytes_min
        on.shards.free = keep + 1_000_000
        said = await first.ask("MAIL FROM:<a@b> SIZE=1000001")
        assert said.startswith("452 4.3.1 No room for a message of that size")
        # What was sent with it is no error of theirs, however much it was.
        codes = [(await first.ask(f"RCPT TO:<r{n}@b>"))[:3] for n in range(50)]
        assert set(codes) == {"503"}
        assert (await first.ask("MAIL FROM:<a@b> SIZE=600000"))[:3] == "250"
        assert (await first.ask("RCPT TO:<r@b>"))[:3] == "250"
        assert (await first.ask("DATA"))[:3] == "354"
        assert on.worker.counts.bytes_claimed == 600_000
        assert (await second.ask("MAIL FROM:<a@b> SIZE=600000"))[:3] == "452"
        first.say(SMALL + b".\r\n")
        assert (await first.hear())[:3] == "250"
        assert (await second.ask("MAIL FROM:<a@b> SIZE=600000"))[:3] == "250"
        on.shards.free = keep
        await second.ask("RCPT TO:<r@b>")
        assert (await second.ask("DATA"))[:3] == "452", "less is free than when it was announced"
        assert refused(on) == {"disk": 3}
        for client in (first, second):
            await client.hang_up()


async def test_a_message_that_does_not_say_its_size_claims_as_it_grows(tmp_path):
    """A large body claims its room on disk while it comes, and gives it back."""
    async with stand(tmp_path) as on:
        client = await on.login()
        await client.begin()
        client.say(LARGE)
        await until(lambda: on.worker.counts.bytes_claimed > len(LARGE))
        client.say(b".\r\n")
        assert (await client.hear())[:3] == "250"
        assert on.worker.counts.bytes_claimed == 0
        await client.hang_up()


async def test_work_in_flight_is_bounded(tmp_path):
    """With every place taken the next waits a moment, and then hears 451; or has a free one."""
    async with stand(tmp_path, in_flight_max=2) as on:
        on.shards.go.clear()
        clients = [await on.login() for _ in range(5)]
        for client in clients[:2]:
            await client.begin()
            client.say(SMALL + b".\r\n")
        await until(lambda: len(on.judge.asks) == 2)
        began = time.monotonic()
        assert (await clients[2].begin()).startswith("451 4.3.2 Busy with other messages")
        assert time.monotonic() - began < 2
        assert (await clients[2].ask("NOOP"))[:3] == "250"
        waits = asyncio.create_task(clients[3].begin())
        await until(lambda: on.worker.flights.waiting.total == 1)
        on.shards.go.set()
        assert (await waits)[:3] in {"354", "451"}
        for client in clients:
            await client.hang_up()


async def test_a_flood_waits_behind_itself(tmp_path, monkeypatch):
    """Who has least in flight is served next, and the flood's own hear no."""
    monkeypatch.setattr(flight, "WAIT_S", 5.0)
    async with stand(tmp_path, in_flight_max=2) as on:
        login_other = await second_account(on)
        on.shards.go.clear()
        flood = [await on.login() for _ in range(5)]
        other = await login_other()
        for client in flood[:2]:
            await client.begin()
            client.say(SMALL + b".\r\n")
        await until(lambda: len(on.judge.asks) == 2)
        late = [asyncio.create_task(client.begin()) for client in flood[2:4]]
        await until(lambda: on.worker.flights.waiting.total == 2)
        assert (await flood[4].begin()).startswith("451 4.3.2 Busy with your messages")
        mine = asyncio.create_task(other.begin())
        await until(lambda: on.worker.flights.waiting.of("other") == 1)
        await until(lambda: late[1].done())  # the flood's last made room
        assert late[1].result().startswith("451 4.3.2")
        on.shards.go.set()
        assert (await mine)[:3] == "354"
        assert (await late[0])[:3] == "354"
        for client in (*flood, other):
            await client.hang_up()


async def test_a_slow_message_holds_no_place(tmp_path):
    """Who stops in the middle of a message leaves its place to others, and has one at the dot."""
    async with stand(tmp_path, in_flight_max=1) as on:
        slow, quick = await on.login(), await on.login()
        await slow.begin()
        slow.say(b"Subject: slow\r\n")
        assert on.worker.flights.held.total == 1
        await until(lambda: on.worker.flights.held.total == 0)
        assert (await quick.send(SMALL))[:3] == "250"
        slow.say(b"\r\n.\r\n")
        assert (await slow.hear())[:3] == "250"
        for client in (slow, quick):
            await client.hang_up()


async def test_nobody_speaks_while_waiting_for_a_place(tmp_path, monkeypatch):
    """What comes before our 354 ends the talk, also where the 354 had to wait; no place is lost."""
    monkeypatch.setattr(flight, "WAIT_S", 5.0)
    async with stand(tmp_path, in_flight_max=1) as on:
        on.shards.go.clear()
        first, second = await on.login(), await on.login()
        await first.begin()
        first.say(SMALL + b".\r\n")
        await until(lambda: on.judge.asks)
        waits = asyncio.create_task(second.begin())
        await until(lambda: on.worker.flights.waiting.total == 1)
        second.say(SMALL + b".\r\n")
        (talk,) = [c for c in on.sweeper.connections if c._transaction._waiting]
        await until(lambda: talk._session.buffered)  # it is there, behind DATA
        on.shards.go.set()
        assert (await first.hear())[:3] == "250"
        assert (await waits).startswith("554 5.5.0")
        assert await second.hear() == ""
        assert len(on.shards.accepted) == 1
        for client in (first, second):
            await client.hang_up()


async def test_who_vanishes_while_waiting_waits_no_more(tmp_path, monkeypatch):
    """A client that hangs up while it waits for a place is out of the queue at once."""
    monkeypatch.setattr(flight, "WAIT_S", 60.0)
    async with stand(tmp_path, in_flight_max=1) as on:
        holder, client = await on.login(), await on.login()
        await holder.begin()
        await client.ask("MAIL FROM:<a@b>")
        await client.ask("RCPT TO:<a@b>")
        client.say(b"DATA\r\n")
        await until(lambda: on.worker.flights.waiting.total)
        await client.hang_up()
        await until(lambda: not on.worker.flights.waiting.total)
        assert on.worker.flights.held.total == 1
        await holder.hang_up()


async def test_a_message_has_its_own_deadline(tmp_path):
    """From our 354 on it is `data_s` that counts, not the time for a command."""
    async with stand(tmp_path, data_s=0.3, command_s=300) as on:
        client = await on.login()
        await client.begin()
        assert (await client.hear()).startswith("421 4.4.2")
        await client.hang_up()
        assert on.worker.meters.timeouts.labels("data")._value.get() == 1


async def test_newcomers_make_room_for_newcomers(tmp_path, monkeypatch):
    """Who does not log in makes room, once it had its moment; who has logged in is left alone."""
    async with stand(tmp_path, connections_max=8) as on:
        good = await on.login()
        silent = [await on.call() for _ in range(4)]  # half of all
        assert len(on.worker.counts.unknown) == 4
        turned_away = await on.call()
        assert turned_away.greeting.startswith("421 4.3.2 Too many who have not logged in")
        monkeypatch.setattr(counts, "GRACE_S", 0.0)
        late = await on.login()
        assert (await silent[0].hear()).startswith("421 4.3.2 Too many who have not logged in")
        assert await silent[0].hear() == ""
        assert (await late.send(SMALL))[:3] == "250"
        assert (await good.send(SMALL))[:3] == "250"
        assert refused(on) == {"unknown": 1}
        for client in (good, late, turned_away, *silent):
            await client.hang_up()


async def test_a_network_is_no_newcomer(tmp_path):
    """Who is known by address is never counted among those who have not logged in."""
    account = Account(name="acme", networks=("127.0.0.0/8",))
    async with stand(tmp_path, account=account, login_s=0.3, connections_max=8) as on:
        clients = [await on.call() for _ in range(7)]
        assert len(on.worker.counts.unknown) == 0
        await asyncio.sleep(0.8)
        for client in clients:
            await client.ask("EHLO x")
            assert (await client.send(SMALL))[:3] == "250"
            await client.hang_up()


@pytest.mark.parametrize("port", ["port", "port_tls"])
async def test_handshakes_are_bounded(tmp_path, server_tls, client_tls, monkeypatch, port):
    """Half-open TLS takes a fifth of all at most; the oldest makes room for one who means it."""
    async with stand(tmp_path, tls=server_tls, connections_max=10) as on:
        half = [socket.create_connection(("127.0.0.1", on.port_tls)) for _ in range(2)]
        await until(lambda: len(on.worker.counts.handshakes) == 2)
        if port == "port":
            client = await on.call()
            await client.ask("EHLO x")
            assert (await client.ask("STARTTLS")).startswith("454 4.7.0 Too many TLS handshakes")
            monkeypatch.setattr(counts, "GRACE_S", 0.0)
            assert (await client.ask("STARTTLS"))[:3] == "220"
            await client.upgrade(client_tls)
            assert (await client.ask("EHLO x"))[:3] == "250"
        else:
            third = socket.create_connection(("127.0.0.1", on.port_tls))
            await until(lambda: refused(on) == {"handshakes": 1})
            third.close()
            monkeypatch.setattr(counts, "GRACE_S", 0.0)
            client = await on.call(port=on.port_tls, tls=client_tls)
            assert client.greeting[:3] == "220"
        assert len(on.worker.counts.handshakes) == 1
        for one in half:
            one.close()
        await client.hang_up()


class Idler:
    """A connection that waits for a next message."""

    def __init__(self, holder, idle_since):
        self.holder, self.idle_since = holder, idle_since


def test_the_longest_idle_go_first():
    """Of who is above the share as many as that, the longest idle first; of others none."""
    held = counts.Counts()
    idlers = [Idler("flood", since) for since in (5.0, 3.0, None, 4.0, 9.9, 1.0)]
    idlers += [Idler("shop", 0.0), Idler("shop", 0.5)]
    for idler in idlers:
        held.enter("a", idler.holder)
    worker = types.SimpleNamespace(counts=held, share=4)

    found = pressure.surplus(worker, idlers, 10.0)
    assert [idler.idle_since for idler in found] == [1.0, 3.0]
    worker.share = 1
    found = pressure.surplus(worker, idlers, 10.0)
    assert [idler.idle_since for idler in found] == [0.0, 1.0, 3.0, 4.0, 5.0]


def test_the_oldest_makes_room():
    """An anteroom never holds more than it may, and turns nobody out before their moment."""

    class One:
        def make_room(self):
            room.leave(self)

    room, ones = Anteroom(), [One() for _ in range(5)]
    for n, one in enumerate(ones[:3]):
        assert room.admits(most=3, now=float(n))
        room.enter(one, float(n))
    assert not room.admits(most=3, now=counts.GRACE_S - 0.1)
    assert room.admits(most=3, now=counts.GRACE_S)
    assert list(room._since) == ones[1:3]
    assert room.admits(most=1, now=100.0), "a tighter bound is reached by those who come"
    assert list(room._since) == []
    room.leave(ones[0])
    room.leave(ones[0])


@pytest.mark.parametrize("drips", ["command", "auth"])
async def test_a_login_takes_a_minute_at_most(tmp_path, drips):
    """Who goes on without showing who they are ends at `login_s`, whatever is said meanwhile."""
    async with stand(tmp_path, login_s=0.6, command_s=300) as on:
        client = await on.call()
        async with asyncio.timeout(5):
            while True:
                client.say(b"EHLO x\r\n" if drips == "command" else b"AUTH LOGIN\r\n")
                said = await client.hear()
                if said.startswith("421"):
                    break
                if drips == "auth":
                    client.say(b"*\r\n")
                    await client.hear()
                await asyncio.sleep(0.1)
        assert said.startswith("421 4.4.2")
        await client.hang_up()


async def test_a_session_without_mail_ends(tmp_path):
    """Who only talks is shown out at `session_s`; each accepted message renews it."""
    async with stand(tmp_path, session_s=0.8) as on:
        idle, useful = await on.login(), await on.login()
        talk = asyncio.create_task(idle.hear())
        async with asyncio.timeout(5):
            while not talk.done():
                assert (await useful.send(SMALL))[:3] == "250"
                await asyncio.sleep(0.1)
        assert talk.result().startswith("421 4.4.2")
        assert (await useful.send(SMALL))[:3] == "250"
        for client in (idle, useful):
            await client.hang_up()


async def test_stress_tightens_and_says_so(tmp_path, monkeypatch):
    """Near a bound deadlines and caps shrink, in one line of the log; then they come back."""
    lines = []
    monkeypatch.setattr("postweir.edge.limits.CALM_S", 0.3)
    async with stand(tmp_path, connections_max=10) as on:
        on.worker.log = Lines(lines)
        clients = [await on.login() for _ in range(9)]
        await until(lambda: on.worker.stress.on)
        assert on.worker.limits.command_s == 10
        assert on.worker.limits.errors_max == 3
        for _ in range(3):
            said = await clients[0].ask("NONSENSE")
        assert said.startswith("421 4.7.0")
        for client in clients:
            await client.hang_up()
        await until(lambda: not on.worker.stress.on)
        assert on.worker.limits.command_s == 300
        assert [(event, on) for event, on in lines if event == "edge.stress"] == [
            ("edge.stress", True), ("edge.stress", False),
        ]  # fmt: skip


class Lines:
    """A log that keeps what it is told."""

    def __init__(self, lines):
        self._lines = lines

    def warning(self, event, **fields):
        self._lines.append((event, fields.get("on")))

    info = error = warning


async def test_who_holds_most_makes_room(tmp_path, monkeypatch):
    """In the last tenth, as many idle connections of who is above the share end as it takes."""
    monkeypatch.setattr(pressure, "IDLE_S", 0.2)
    async with stand(tmp_path, connections_max=20) as on:
        login_other = await second_account(on)
        others = [await login_other() for _ in range(4)]
        flood = [await on.login() for _ in range(14)]  # 18 of 20: the share is 14
        await until(lambda: on.worker.share == 14)
        assert not on.worker.meters.shed._value.get()
        others += [await login_other() for _ in range(1)]
        await until(lambda: on.worker.meters.shed._value.get() == 1)
        hearing = [asyncio.create_task(client.hear()) for client in flood]
        (told,), rest = await asyncio.wait(hearing, timeout=5, return_when="FIRST_COMPLETED")
        assert told.result().startswith("421 4.3.2 Others need your connections")
        for task in rest:
            task.cancel()
        assert on.worker.counts.holders.of("acme") == 13
        for client in (*others, *flood):
            await client.hang_up()


async def test_who_is_over_the_share_goes_at_the_next_message(tmp_path):
    """A busy connection above the share is not cut off, but its next MAIL hears 421."""
    async with stand(tmp_path, connections_max=20) as on:
        client = await on.login()
        more = [await on.login() for _ in range(17)]
        on.worker.share = 5
        said = await client.ask("MAIL FROM:<a@b>")
        assert said.startswith("421 4.3.2 Others need your connections")
        assert await client.hear() == ""
        assert refused(on) == {"share": 1}
        for one in (client, *more):
            await one.hang_up()


@pytest.mark.parametrize("stuck", ["disk", "shard"])
async def test_an_answer_has_a_total_bound(tmp_path, monkeypatch, stuck):
    """When disk or shard hang after the dot, the client hears 451, and nothing is taken for it."""
    monkeypatch.setattr(intake, "ANSWER_S", 0.3)
    monkeypatch.setattr(intake, "CLEAR_S", 0.1)
    async with stand(tmp_path) as on:
        client = await on.login()
        if stuck == "disk":
            await client.begin()
            client.say(LARGE)
            await until(on.files)
            spill = only(on)._transaction.arriving.spill
            go = asyncio.Event()
            thread = spill._on_thread

            async def hangs(work):
                await go.wait()
                await thread(work)

            spill._on_thread = hangs
            client.say(LARGE + b".\r\n")
        else:
            on.shards.go.clear()
            await client.begin()
            client.say(SMALL + b".\r\n")
        assert (await client.hear()).startswith("451 4.3.0")
        assert on.worker.flights.held.total == 0
        if stuck == "disk":
            assert on.judge.asks == []
            assert on.worker.counts.bytes_held > 0, "it is still in memory, and counted"
            go.set()
            await until(lambda: not on.worker.clearing)
            assert on.files() == []
        else:
            assert on.judge.uncounted == [on.judge.asks[0].message]
            on.shards.go.set()
        assert on.shards.accepted == []
        assert (await client.send(SMALL))[:3] == "250"
        await client.hang_up()


def only(on):
    (connection,) = on.sweeper.connections
    return connection


async def test_every_exit_gives_everything_back(tmp_path, server_tls, monkeypatch):
    """Wherever a session ends, and by whom, no count stays: `stand` looks at all of them."""
    monkeypatch.setattr(flight, "WAIT_S", 5.0)  # who waits is ended by its client, not by us
    async with stand(tmp_path, tls=server_tls, in_flight_max=1, message_bytes_max=300_000) as on:
        for end in ("hang_up", "abort", "quit"):
            for stage in STAGES:
                client = await stage(on)
                if end == "abort":
                    client.writer.transport.abort()
                elif end == "quit":
                    client.say(b"QUIT\r\n")
                await client.hang_up()
                await on.quiet()
        on.worker.stopping = True
        late = await on.call()
        assert late.greeting[:3] == "421"
        await late.hang_up()


async def greeted(on):
    return await on.call()


async def logged_in(on):
    return await on.login()


async def garbled(on):
    client = await on.login()
    client.say(b"NONSENSE\nEHLO\r\n")
    return client


async def in_auth(on):
    client = await on.call()
    await client.ask("EHLO x")
    assert (await client.ask("AUTH LOGIN"))[:3] == "334"
    return client


async def in_handshake(on):
    client = await on.call()
    await client.ask("EHLO x")
    assert (await client.ask("STARTTLS"))[:3] == "220"
    client.say(b"\x16\x03\x01")
    return client


async def in_mail(on):
    client = await on.login()
    assert (await client.ask("MAIL FROM:<a@b> SIZE=1000"))[:3] == "250"
    return client


async def in_header(on):
    client = await on.login()
    await client.begin()
    client.say(b"Subject: ")
    return client


async def in_body(on):
    client = await on.login()
    await client.begin()
    client.say(LARGE[:200_000])
    return client


async def too_large(on):
    client = await on.login()
    await client.begin()
    client.say(LARGE + LARGE + b".\r\n")
    return client


async def at_dot(on):
    client = await on.login()
    await client.begin()
    client.say(LARGE + b".\r\n")
    return client


async def waiting(on):
    holder = await on.login()
    await holder.begin()
    client = await on.login()
    await client.ask("MAIL FROM:<a@b>")
    await client.ask("RCPT TO:<a@b>")
    client.say(b"DATA\r\n")
    await until(lambda: on.worker.flights.waiting.total)
    await holder.hang_up()
    return client


STAGES = (
    greeted, logged_in, garbled, in_auth, in_handshake, in_mail, in_header, in_body, too_large,
    at_dot, waiting,
)  # fmt: skip


def test_each_reason_is_a_label_once():
    """The metric's labels are the gate's reasons and `spool`: a bounded set."""
    assert {no.reason for no in gate.REASONS} >= {"memory", "disk", "in_flight", "share"}


async def test_who_is_shunned_is_told_before_anything_is_built(tmp_path):
    """A place that is shunned gets its 421 at the door, counted; a known network never does."""
    async with stand(tmp_path) as on:
        now = asyncio.get_running_loop().time()
        peer = ("::ffff:127.0.0.9", 1, 0, 0)
        assert standing.shunned(on.worker, peer, now) is None
        on.worker.guessing.shown_out("127.0.0.9", now)
        assert standing.shunned(on.worker, peer, now) is gate.GUESSING
        assert standing.shunned(on.worker, ("127.0.0.8", 1), now) is None
        assert refused(on) == {"guessing": 1}
        on.change(Account(name="acme", networks=("127.0.0.9/32",)))
        await on.worker.directory.again(5)
        assert standing.shunned(on.worker, peer, now) is None
