"""One client's connection: who may relay, TLS, deadlines, limits, and clients that vanish."""

import asyncio
import base64
import contextlib
import socket
import struct
from itertools import pairwise

import pytest
from tests.edge.stand import KEY, plain, stand, until

from postweir.identity.credentials import generate
from postweir.identity.sender import Account

SMALL = b"Subject: hi\r\n\r\nHello.\r\n"
LARGE = b"Subject: large\r\n\r\n" + b"line\r\n" * 40_000


async def test_nobody_else_relays(tmp_path):
    """Who is nobody's customer gets no further than MAIL, whoever they say they are."""
    async with stand(tmp_path) as on:
        for line in ("MAIL FROM:<a@fine.example>", "MAIL FROM:<>", "MAIL FROM:<root@relay.test>"):
            client = await on.call()
            await client.ask("EHLO relay.test")
            assert (await client.ask(line)).startswith("530 5.7.0")
            for other in ("b@far.example", "b%far.example@relay.test", "postmaster"):
                assert (await client.ask(f"RCPT TO:<{other}>"))[:1] == "5"
            assert (await client.ask("DATA"))[:1] == "5"
            await client.hang_up()
        client = await on.call()
        await client.ask("EHLO x")
        wrong = await client.ask(f"AUTH PLAIN {plain(on.username, on.secret + 'x')}")
        assert wrong.startswith("535 5.7.8")
        assert (await client.ask("MAIL FROM:<a@b>")).startswith("530 5.7.0")
        await client.hang_up()

        assert on.shards.accepted == []


async def test_a_network_is_bound_to_an_account(tmp_path):
    """Mail from a trusted range is its account's, without AUTH, until the range is taken away."""
    account = Account(name="acme", networks=("127.0.0.0/8",))
    async with stand(tmp_path, account=account) as on:
        client = await on.call()
        await client.ask("EHLO x")
        assert (await client.send(SMALL))[:3] == "250"
        assert on.shards.accepted[0].sender.key == "acme|account|127.0.0.1"
        assert not on.judge.asks[0].authenticated
        on.change(Account(name="acme"))
        await on.worker.directory.again(5)
        assert (await client.ask("MAIL FROM:<a@b>")).startswith("530 5.7.0")
        await client.hang_up()


async def test_login_and_plain(tmp_path):
    """AUTH LOGIN and PLAIN, with an initial response and without."""
    async with stand(tmp_path) as on:
        name = base64.b64encode(on.username.encode()).decode()
        secret = base64.b64encode(on.secret.encode()).decode()
        both = plain(on.username, on.secret)
        for lines in (
            ["AUTH LOGIN", name, secret], [f"AUTH LOGIN {name}", secret],
            ["AUTH PLAIN", both], [f"auth plain {both}"],
        ):  # fmt: skip
            client = await on.call()
            await client.ask("EHLO x")
            said = [await client.ask(line) for line in lines]
            assert [s[:3] for s in said] == ["334"] * (len(lines) - 1) + ["235"]
            await client.hang_up()
        client = await on.call()
        await client.ask("EHLO x")
        assert (await client.ask("AUTH PLAIN AAAA"))[:3] == "501"
        assert (await client.ask("AUTH LOGIN"))[:3] == "334"
        assert (await client.ask("*"))[:3] == "501"
        await client.hang_up()


async def test_guessing_ends_the_connection(tmp_path):
    """The third wrong secret is the last."""
    async with stand(tmp_path) as on:
        client = await on.call()
        await client.ask("EHLO x")
        codes = [(await client.ask(f"AUTH PLAIN {plain('nobody', 'x')}"))[:3] for _ in range(3)]
        assert codes == ["535", "535", "421"]
        assert await client.hear() == ""
        await client.hang_up()


async def test_a_credential_made_just_now(tmp_path):
    """A credential that is newer than our picture is looked for before anyone is refused."""
    async with stand(tmp_path) as on:
        made, secret = generate("acme", KEY, created_us=2)
        client = await on.call()
        await client.ask("EHLO x")
        on.change(credentials=(made,))
        assert (await client.ask(f"AUTH PLAIN {plain(made.username, secret)}"))[:3] == "235"
        await client.hang_up()


async def test_sessions_outlive_no_credential(tmp_path):
    """A revoked credential, and a suspended account, end at the next MAIL of an open session."""
    async with stand(tmp_path) as on:
        client = await on.login()
        assert (await client.send(SMALL))[:3] == "250"
        on.change(Account(name="acme", suspended=True))
        await on.worker.directory.again(5)
        said = await client.ask("MAIL FROM:<joe@b>")
        assert said.startswith("550 5.7.1 [ESA]")
        refusal = on.shards.refused[0]
        assert f"ref={refusal.message}" in said
        assert (refusal.stage, refusal.envelope.mail_from) == ("mail", "joe@b")
        on.change(Account(name="acme"))
        await on.worker.directory.again(5)
        assert (await client.send(SMALL))[:3] == "250"
        on.change(credentials=())
        await on.worker.directory.again(5)
        assert (await client.ask("MAIL FROM:<joe@b>")).startswith("530 5.7.0")
        await client.hang_up()


async def test_nothing_known_is_a_temporary_no(tmp_path):
    """While neither tables nor picture can be read nobody is told that a secret is wrong."""
    async with stand(tmp_path) as on:
        on.worker.directory.known = False
        client = await on.call()
        await client.ask("EHLO x")
        assert (await client.ask(f"AUTH PLAIN {plain('who', 'x')}")).startswith("454 4.7.0")
        await client.hang_up()


async def test_pipelining(tmp_path):
    """Commands sent together are answered in order, and their replies leave in one write."""
    async with stand(tmp_path) as on:
        client = await on.login()
        client.say(
            b"MAIL FROM:<joe@b>\r\nRCPT TO:<a@c>\r\nRCPT TO:<nonsense\r\nRCPT TO:<b@c>\r\nDATA\r\n"
        )
        async with asyncio.timeout(5):
            first = await client.reader.read(65536)
        codes = [line[:3] for line in first.split(b"\r\n") if line]
        assert codes == [b"250", b"250", b"501", b"250", b"354"]
        client.say(SMALL + b".\r\nMAIL FROM:<>\r\nRSET\r\nQUIT\r\n")
        assert [(await client.hear())[:3] for _ in range(4)] == ["250", "250", "250", "221"]
        assert await client.hear() == ""
        await client.hang_up()

        assert on.shards.accepted[0].envelope.recipients == ("a@c", "b@c")


async def test_too_many_recipients(tmp_path):
    """One recipient too many waits for the next message; one named twice is one."""
    async with stand(tmp_path, recipients_max=2) as on:
        client = await on.login()
        await client.ask("MAIL FROM:<a@b>")
        said = [await client.ask(f"RCPT TO:<{r}@b>") for r in ("x", "y", "z", "x")]
        assert [s[:9] for s in said] == ["250 2.1.5", "250 2.1.5", "452 4.5.3", "250 2.1.5"]
        await client.ask("DATA")
        client.say(SMALL + b".\r\n")
        await client.hear()
        await client.hang_up()

        assert on.shards.accepted[0].envelope.recipients == ("x@b", "y@b")


async def test_auth_needs_tls(tmp_path, server_tls, client_tls):
    """In clear AUTH is not offered nor taken; under STARTTLS it is, and the message says so."""
    async with stand(tmp_path, tls=server_tls, auth_without_tls_on_loopback=False) as on:
        client = await on.call()
        offered = await client.ask("EHLO x")
        assert "STARTTLS" in offered
        assert "AUTH" not in offered
        assert (await client.ask(f"AUTH PLAIN {plain(on.username, on.secret)}"))[:3] == "538"
        assert (await client.ask("STARTTLS"))[:3] == "220"
        await client.upgrade(client_tls)
        assert (await client.ask("MAIL FROM:<a@b>"))[:3] == "503"
        offered = await client.ask("EHLO x")
        assert "STARTTLS" not in offered
        assert "AUTH PLAIN LOGIN" in offered
        assert (await client.ask(f"AUTH PLAIN {plain(on.username, on.secret)}"))[:3] == "235"
        assert (await client.send(LARGE))[:3] == "250"
        assert (await client.ask("QUIT"))[:3] == "221"
        await client.hang_up()

        accept = on.shards.accepted[0]
        assert accept.tls
        assert b"with ESMTPSA id" in accept.added
        assert b"(TLSv1.3 " in accept.added


async def test_implicit_tls(tmp_path, server_tls, client_tls):
    """On the TLS port the handshake comes first."""
    async with stand(tmp_path, tls=server_tls, auth_without_tls_on_loopback=False) as on:
        client = await on.call(port=on.port_tls, tls=client_tls)
        assert client.greeting == "220 relay.test ESMTP Postweir"
        await client.ask("EHLO x")
        assert (await client.ask(f"AUTH PLAIN {plain(on.username, on.secret)}"))[:3] == "235"
        assert (await client.send(SMALL))[:3] == "250"
        await client.hang_up()


async def test_plaintext_is_not_slipped_under_tls(tmp_path, server_tls):
    """Commands that ride along with STARTTLS end the talk; none of them is ever answered."""
    async with stand(tmp_path, tls=server_tls) as on:
        client = await on.call()
        await client.ask("EHLO x")
        client.say(b"STARTTLS\r\nMAIL FROM:<evil@b>\r\n")
        assert (await client.hear())[:3] == "554"
        assert await client.hear() == ""
        await client.hang_up()


async def test_nothing_said_before_tls_counts(tmp_path, server_tls, client_tls):
    """AUTH before STARTTLS is forgotten with all else that was said in clear."""
    async with stand(tmp_path, tls=server_tls) as on:
        client = await on.login()
        assert (await client.ask("STARTTLS"))[:3] == "220"
        await client.upgrade(client_tls)
        await client.ask("EHLO x")
        assert (await client.ask("MAIL FROM:<a@b>"))[:3] == "530"
        await client.hang_up()


async def test_no_handshake(tmp_path, server_tls):
    """Who says nothing, or nonsense, instead of a handshake is gone after its time."""
    async with stand(tmp_path, tls=server_tls, handshake_s=0.2) as on:
        silent = socket.create_connection(("127.0.0.1", on.port_tls))
        _, writer = await asyncio.open_connection("127.0.0.1", on.port_tls)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        client = await on.call()
        await client.ask("EHLO x")
        assert (await client.ask("STARTTLS"))[:3] == "220"
        await on.quiet()
        silent.close()
        writer.close()
        await client.hang_up()


@pytest.mark.parametrize("port", ["port", "port_tls"])
async def test_turned_away_at_once(tmp_path, server_tls, port):
    """When the house is full, or one address has enough, the next hears so at once."""
    async with stand(tmp_path, tls=server_tls, connections_per_client_max=1) as on:
        first = await on.call()
        reader, writer = await asyncio.open_connection("127.0.0.1", getattr(on, port))
        async with asyncio.timeout(5):
            said = await reader.read()
        assert said == (
            b"421 4.3.2 Too many connections from your address\r\n" if port == "port" else b""
        )
        writer.close()
        await first.hang_up()


async def test_memory_is_bounded(tmp_path):
    """With the memory for messages used up, new messages and connections are refused fast."""
    async with stand(tmp_path, memory_bytes_max=10_000) as on:
        first, second = await on.login(), await on.login()
        await first.begin()
        first.say(b"Subject: " + b"x" * 15_000)
        await until(lambda: on.worker.counts.bytes_held > 10_000)
        assert (await second.begin()).startswith("452 4.3.1")
        third = await on.call()
        assert third.greeting.startswith("421 4.3.2")
        first.say(b"\r\n\r\n" + b"x" * 30_000 + b"\r\n")
        await until(on.files)  # to disk with it, small as it is
        first.say(b".\r\n")
        assert (await first.hear())[:3] == "250"
        for client in (first, second, third):
            await client.hang_up()


async def test_headers_alone_do_not_fill_memory(tmp_path):
    """A header that is still coming cannot go to disk: at twice the memory it ends, for now."""
    async with stand(tmp_path, memory_bytes_max=10_000) as on:
        client = await on.login()
        await client.begin()
        client.say(b"Subject: " + b"x" * 25_000)
        (connection,) = on.sweeper._connections
        await until(lambda: connection._transaction.arriving.received > 25_000)
        assert on.worker.counts.bytes_held == 0
        client.say(b"\r\n\r\n.\r\n")
        assert (await client.hear()).startswith("452 4.3.1 No memory")
        assert (await client.send(SMALL))[:3] == "250"
        await client.hang_up()


async def test_a_byte_a_packet_costs_no_more(tmp_path):
    """A body that comes in tiny pieces takes the memory of its bytes, not of its pieces."""
    async with stand(tmp_path) as on:
        client = await on.login()
        await client.begin()
        client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.say(b"Subject: a\r\n\r\n")
        for _ in range(500):
            client.say(b"x")
            await asyncio.sleep(0)
        (connection,) = on.sweeper._connections
        await until(lambda: on.worker.counts.bytes_held == 514)

        assert len(connection._transaction.arriving._kept) == 1
        client.say(b"\r\n.\r\n")
        assert (await client.hear())[:3] == "250"
        await client.hang_up()


async def test_errors_and_idling_are_bounded(tmp_path):
    """A client that only errs, or only idles, is shown out."""
    async with stand(tmp_path, errors_max=3) as on:
        client = await on.call()
        codes = [(await client.ask("NONSENSE"))[:3] for _ in range(3)]
        assert codes == ["500", "500", "421"]
        assert await client.hear() == ""
        await client.hang_up()
        client = await on.call()
        client.say(b"NOOP\r\n" * 150)
        said = [await client.hear() for _ in range(102)]
        assert said[99] == "250 2.0.0 Ok"
        assert said[100].startswith("421 4.7.0")
        assert said[101] == ""
        await client.hang_up()


async def test_errors_are_forgiven_by_a_message(tmp_path):
    """A connection that lives long may err now and then: each message clears the count."""
    async with stand(tmp_path, errors_max=3) as on:
        client = await on.login()
        for _ in range(4):
            assert [(await client.ask("NONSENSE"))[:3] for _ in range(2)] == ["500", "500"]
            assert (await client.send(SMALL))[:3] == "250"
        await client.hang_up()


async def test_a_suspended_account_is_shown_out(tmp_path):
    """Each refusal of a suspended account is on record; who goes on trying writes no thousands."""
    async with stand(tmp_path, account=Account(name="acme", suspended=True), errors_max=5) as on:
        client = await on.login()
        client.say(b"MAIL FROM:<a@b>\r\n" * 50)
        said = [await client.hear() for _ in range(6)]
        await client.hang_up()

        assert [s[:3] for s in said] == ["550"] * 4 + ["421", ""]
        assert "[ESA]" in said[0]
        assert 4 <= len(on.shards.refused) <= 5


async def test_surplus_recipients_are_bounded(tmp_path):
    """Recipients past the limit, or named again and again, are told so, but not for ever."""
    for address in ("new{}@b", "same@b"):
        async with stand(tmp_path / address, recipients_max=10) as on:
            client = await on.login()
            await client.ask("MAIL FROM:<a@b>")
            for n in range(1200):
                client.say(f"RCPT TO:<{address.format(n)}>\r\n".encode())
            said = [(await client.hear())[:3] for _ in range(1012)]
            await client.hang_up()

            assert said.count("452" if "{}" in address else "250") >= 1000
            assert "421" in said


async def test_data_that_cannot_begin_is_bounded(tmp_path):
    """A client that asks for a 354 again and again while there is none is shown out."""
    async with stand(tmp_path) as on:
        client = await on.login()
        await client.begin()
        client.say(SMALL + b".\r\n")
        await client.hear()
        on.shards.why = "down"
        assert (await client.begin())[:3] == "451"
        said = [(await client.ask("DATA"))[:3] for _ in range(100)]
        await client.hang_up()

        assert said[:98] == ["451"] * 98
        assert "421" in said


async def test_stalls_end(tmp_path):
    """A client that stalls, in a command or in its data, is told so and shown out."""
    async with stand(tmp_path, command_s=0.3, data_s=0.3) as on:
        silent = await on.call()
        half = await on.call()
        half.say(b"EHLO ")
        stuck = await on.login()
        await stuck.begin()
        stuck.say(b"Subject: a\r\n\r\nhello")
        spilling = await on.login()
        await spilling.begin()
        spilling.say(LARGE)
        for client in (silent, half, stuck, spilling):
            assert (await client.hear()).startswith("421 4.4.2")
            assert await client.hear() == ""
            await client.hang_up()
        await on.quiet()

        assert on.files() == []


@pytest.mark.parametrize("where", ["command", "data"])
async def test_dripping_prolongs_nothing(tmp_path, where):
    """A byte now and then, of a command or of data, does not hold a place."""
    async with stand(tmp_path, command_s=0.4, data_s=0.4) as on:
        client = await on.login()
        if where == "data":
            await client.begin()
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                while on.worker.counts.connections and not client.reader.at_eof():
                    client.say(b"x")
                    await client.writer.drain()
                    await asyncio.sleep(0.02)
        assert asyncio.get_running_loop().time() - began < 3
        await client.hang_up()
        await on.quiet()


async def test_a_client_that_does_not_read(tmp_path):
    """Replies nobody reads pile up only so far, and then the connection ends."""
    async with stand(tmp_path, command_s=0.3, errors_max=10**9) as on:
        reader, writer = await asyncio.open_connection("127.0.0.1", on.port, limit=1024)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        writer.write(b"NONSENSE\r\n" * 150_000)
        await until(lambda: on.worker.counts.connections == 1)
        await on.quiet()
        writer.transport.abort()
        del reader


DIALOGUE = (
    b"EHLO x\r\nAUTH PLAIN %s\r\nMAIL FROM:<joe@b>\r\nRCPT TO:<kim@fine.example>\r\nDATA\r\n"
    b"Subject: hi\r\n\r\nHello.\r\n.\r\nQUIT\r\n"
)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_client_that_vanishes_at_any_byte(tmp_path, reset):
    """Wherever the dialogue ends, no connection, task, file or byte in memory is left."""
    async with stand(tmp_path) as on:
        wire = DIALOGUE % plain(on.username, on.secret).encode()
        # AUTH and DATA wait for their answer; so the wire is cut where the client would wait.
        stops = [0, wire.index(b"AUTH"), wire.index(b"MAIL"), wire.index(b"Subject"), len(wire)]
        for end in range(len(wire)):
            client = await on.call()
            for start, stop in pairwise(stops):
                client.say(wire[start : min(stop, end)])
                if stop > end:
                    break
                for _ in range(wire[start:stop].count(b"\r\n") if stop < len(wire) else 0):
                    await client.hear()
            if reset:
                client.writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            await client.hang_up()
        await on.quiet()

        assert on.files() == []
        assert {a.length for a in on.shards.accepted} <= {len(b"Subject: hi\r\n\r\nHello.\r\n")}


async def test_vanishing_in_a_large_body(tmp_path):
    """A client that vanishes while its body is on the way to disk leaves no file."""
    async with stand(tmp_path) as on:
        for share in (0.3, 0.6, 0.99):
            client = await on.login()
            await client.begin()
            client.say(LARGE[: int(len(LARGE) * share)])
            await until(lambda: on.worker.counts.bytes_held or on.files())
            await client.hang_up()
        await on.quiet()

        assert on.files() == []


async def test_a_bug_of_ours_is_a_451(tmp_path):
    """When our own code fails the client hears 451, and the connection goes on."""
    async with stand(tmp_path) as on:
        client = await on.login()
        ask, on.judge.ask = on.judge.ask, None
        assert (await client.send(SMALL)).startswith("451 4.3.0")
        on.judge.ask = ask
        assert (await client.send(SMALL))[:3] == "250"
        await client.hang_up()


async def test_draining(tmp_path):
    """A worker that stops turns idle clients away and lets a transaction end."""
    async with stand(tmp_path) as on:
        idle, waiting, sending = await on.login(), await on.login(), await on.login()
        await sending.begin()
        await waiting.begin()
        on.judge.go.clear()
        waiting.say(SMALL + b".\r\n")
        await until(lambda: on.judge.asks)
        on.worker.stopping = True
        draining = asyncio.create_task(on.sweeper.drain(5))
        assert (await idle.hear()).startswith("421 4.3.2")
        sending.say(SMALL + b".\r\n")
        on.judge.go.set()
        for client in (sending, waiting):
            assert (await client.hear())[:3] == "250"
            assert (await client.hear()).startswith("421 4.3.2")
            assert await client.hear() == ""
        assert await draining
        late = await on.call()
        assert late.greeting.startswith("421 4.3.2")
        for client in (idle, waiting, sending, late):
            await client.hang_up()

        assert len(on.shards.accepted) == 2


async def test_a_drain_is_bounded(tmp_path):
    """What does not end in time is cut off; a file that a shard may have named stays."""
    async with stand(tmp_path) as on:
        on.shards.go.clear()
        stuck, slow = await on.login(), await on.login()
        await slow.begin()
        await stuck.begin()
        stuck.say(LARGE + b".\r\n")
        await until(lambda: on.judge.asks)
        await until(on.files)
        on.worker.stopping = True
        assert not await on.sweeper.drain(0.2)
        assert await slow.hear() == ""
        await stuck.hang_up()
        await slow.hang_up()
        assert on.files() == [on.judge.asks[0].message]
