"""STARTTLS as the client: hosts that speak too early, stall, hang up, or answer with garbage."""

import asyncio
import contextlib
import ssl
from contextlib import asynccontextmanager

import pytest
from tests.delivery.remote import Remote, certificate, delivering, message
from tests.delivery.test_delivery_worker import to

from postweir.delivery.route import Hop
from postweir.delivery.session import Limits, Unreached, open_session
from postweir.runtime.net import client_context, server_context

EHLO = b"250-mx\r\n250-PIPELINING\r\n250-SIZE 99\r\n250 STARTTLS\r\n"
PROMPT = Limits(0.4, 0.4, 0.4)


@asynccontextmanager
async def host(talk):
    """A host that does as `talk(reader, writer)` says, after greeting and EHLO."""
    tasks = set()

    async def accept(reader, writer):
        tasks.add(asyncio.current_task())
        writer.write(b"220 mx\r\n")
        try:
            if await reader.readline():
                writer.write(EHLO)
                await reader.readline()
                await talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield Hop("mx.example", "127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # both ends hear of it


async def fails(talk, limits=PROMPT):
    """Return how a connection to such a host ends."""
    async with host(talk) as hop, asyncio.timeout(5):
        with pytest.raises(Unreached) as found:
            await open_session(hop, "relay.example", context=client_context(), limits=limits)
    assert found.value.reply.transient
    return found.value


async def settled(talk):
    """Return what becomes of a message to such a host, by the worker."""
    async with host(talk) as hop:
        quick = {"connect_s": 0.4, "reply_s": 0.4}
        route = {"*": f"{hop.address}:{hop.port}"}
        async with delivering(route, tls=True, **quick) as (worker, hands):
            worker.take(message("m1", "a@b.example"))
            return (await hands.until(1))[1]


@pytest.mark.parametrize("pieces", [[b"250 "], [b"250 Ok\r\n"], [b"\r\n"], [b"x", b"y"]])
@pytest.mark.parametrize("apart", [False, True])
async def test_words_between_consent_and_handshake(pieces, apart):
    """What a host says after its 220 and before the handshake ends the attempt: it is deferred.

    Those words may be somebody else's, to be taken for the host's own inside TLS; and who can
    write them must not gain that we come again without TLS.
    """

    async def talk(_, writer):
        writer.write(b"220 Go\r\n" + (b"" if apart else pieces[0]))
        for piece in pieces[0 if apart else 1 :]:
            writer.write(piece)
        await asyncio.sleep(1)

    fault = await fails(talk)
    assert not fault.tls_failed or apart  # apart: it may come when we shake hands already
    if not apart:
        assert fault.reply.status == "4.5.0"
        assert (await settled(talk)).outcome == "deferred"


async def test_words_that_come_before_we_shake_hands(monkeypatch):
    """The same words in a packet of their own, which is read before our handshake begins."""
    spoken = asyncio.Event()

    async def talk(_, writer):
        writer.write(b"220 Go\r\n")
        await spoken.wait()

    from postweir.delivery.session import Session

    secure = Session._secure

    async def later(self, context):
        self.data_received(b"250 injected\r\n")
        self.connection_lost(None)  # as the loop does after our abort
        await secure(self, context)

    monkeypatch.setattr(Session, "_secure", later)
    fault = await fails(talk)

    assert not fault.tls_failed
    assert "plaintext" in fault.reply.text


async def test_a_host_that_hangs_up_before_the_handshake_has_no_tls():
    """To hang up after consent is a failure of TLS: it is told from a breach of the protocol."""

    async def talk(_, writer):
        writer.write(b"220 Go\r\n")
        writer.close()

    assert (await fails(talk)).tls_failed


@pytest.mark.parametrize(
    "answer", [b"What?\r\n", b"2", b"999 x\r\n", b"250-a\r\n220 b\r\n", b"334 \r\n", b"\x00" * 999]
)
async def test_garbage_for_an_answer(answer):
    """An answer to STARTTLS that is none ends the attempt, in time, and the message waits."""

    async def talk(reader, writer):
        writer.write(answer)
        await reader.read()

    assert not (await fails(talk)).tls_failed
    assert (await settled(talk)).outcome == "deferred"


async def test_a_handshake_that_stalls_or_drips():
    """A handshake has one deadline, whatever drips in; then it counts as TLS that failed."""

    async def silent(reader, writer):
        writer.write(b"220 Go\r\n")
        await reader.read()

    async def drips(reader, writer):
        writer.write(b"220 Go\r\n")
        await reader.read(1)
        for byte in b"\x16\x03\x03\x40\x00" + b"x" * 999:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)

    for talk in (silent, drips):
        assert (await fails(talk)).tls_failed
        assert (await settled(talk)).outcome == "deferred"  # without TLS it does not speak either


async def test_what_a_host_offers_in_clear_counts_for_nothing(tmp_path):
    """Inside TLS the host's offers are heard anew: none of those in clear is used."""
    server = server_context(*certificate(tmp_path))
    heard = []

    async def talk(reader, writer):
        writer.write(b"220 Go\r\n")
        await writer.drain()
        await writer.start_tls(server)
        heard.append(await reader.readline())
        writer.write(b"250-mx\r\n250 8BITMIME\r\n")
        await reader.read()

    async with host(talk) as hop, asyncio.timeout(5):
        session = await open_session(
            hop, "relay.example", context=client_context(), limits=Limits(5, 5, 5)
        )
        assert heard == [b"EHLO relay.example\r\n"]
        assert session.tls
        assert dict(session._smtp.extensions) == {"8BITMIME": ""}
        session.close()


async def test_words_inside_tls_that_nobody_asked_for(tmp_path):
    """A host that speaks first inside TLS breaks the protocol: deferred, and not without TLS."""
    server = server_context(*certificate(tmp_path))

    async def talk(reader, writer):
        writer.write(b"220 Go\r\n")
        await writer.drain()
        with contextlib.suppress(ssl.SSLError):
            await writer.start_tls(server)
            writer.write(b"250 injected\r\n250 injected\r\n")
            await reader.read()

    fault = await fails(talk, Limits(5, 5, 5))
    assert not fault.tls_failed


async def test_tls_that_fails_falls_back_once(tmp_path):
    """Garbage in place of the handshake: one more connection, in clear, and the mail arrives."""
    said = {"EHLO": b"250-mx\r\n250 STARTTLS\r\n", "STARTTLS": b"220 Go on\r\n"}
    async with Remote(said) as remote, delivering(to(remote), tls=True) as (worker, hands):
        worker.take(message("m1", "a@b.example"))
        settle = (await hands.until(1))[1]

        assert (settle.outcome, settle.tls, remote.connections) == ("delivered", "", 2)
        assert [c.split(" ")[0] for c in remote.commands].count("STARTTLS") == 1
