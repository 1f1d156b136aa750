"""TLS as bytes: cut anywhere, ended politely or not, never more in memory than came in."""

import asyncio
import contextlib
import ssl

import pytest
from tests.edge.stand import plain, stand, until

from postweir.edge.tls import Tls

SMALL = b"Subject: hi\r\n\r\nHello.\r\n"


class Peer:
    """A client's TLS without a socket."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self._in, self._out, server_hostname="localhost")

    def turn(self, said: bytes = b"") -> bytes:
        """Take what the server said, go on with the handshake, return what to send."""
        self._in.write(said)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.object.do_handshake()
        return self._out.read()

    def say(self, data: bytes) -> bytes:
        self.object.write(data)
        return self._out.read()

    def hear(self, said: bytes) -> bytes:
        self._in.write(said)
        pieces = []
        try:
            while piece := self.object.read(65536):
                pieces.append(piece)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return b"".join(pieces)

    def goodbye(self) -> bytes:
        with contextlib.suppress(ssl.SSLError):
            self.object.unwrap()
        return self._out.read()


def talk(server_tls, client_tls, *, step: int = 1 << 20) -> tuple[Tls, Peer]:
    """Shake hands, in pieces of `step` bytes."""
    layer, peer = Tls(server_tls), Peer(client_tls)
    said = b""
    for _ in range(6):
        wire = peer.turn(said)
        for at in range(0, len(wire), step):
            assert layer.receive(wire[at : at + step]) == b""
        said = layer.unsent()
        if layer.standing:
            break
    peer.hear(said)
    assert layer.standing
    return layer, peer


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_records_come_in_pieces(server_tls, client_tls, step):
    """However records are cut, what they say comes whole and in order, and no earlier."""
    layer, peer = talk(server_tls, client_tls, step=step)
    wire = peer.say(b"EHLO x\r\n") + peer.say(b"y" * 40_000)
    heard = [layer.receive(wire[at : at + step]) for at in range(0, len(wire), step)]

    assert b"".join(heard) == b"EHLO x\r\n" + b"y" * 40_000
    assert step > 1 or heard[0] == b""


def test_a_large_answer_is_whole(server_tls, client_tls):
    """What we say is sent whole, though no record holds it."""
    layer, peer = talk(server_tls, client_tls)
    layer.send(b"z" * 300_000)

    assert peer.hear(layer.unsent()) == b"z" * 300_000


def test_goodbye_with_last_words(server_tls, client_tls):
    """A close_notify that rides with data ends what is said, not what was said before it."""
    layer, peer = talk(server_tls, client_tls)
    wire = peer.say(b"QUIT\r\n") + peer.goodbye()

    assert layer.receive(wire) == b"QUIT\r\n"
    assert layer.closed
    layer.send(b"221\r\n")
    layer.say_goodbye()
    assert peer.hear(layer.unsent()) == b"221\r\n"


def test_a_spoilt_record_is_an_error(server_tls, client_tls):
    """Bytes changed on the way are an OSError and an alert, never text."""
    layer, peer = talk(server_tls, client_tls)
    wire = bytearray(peer.say(b"MAIL FROM:<>\r\n"))
    wire[-1] ^= 1

    with pytest.raises(OSError, match=r"(?i)mac|record"):
        layer.receive(bytes(wire))
    assert layer.unsent()


def test_an_endless_record_is_refused(server_tls, client_tls):
    """A record that claims more than TLS allows does not make us wait for it."""
    layer, _ = talk(server_tls, client_tls)

    with pytest.raises(OSError, match=r"(?i)record|length"):
        layer.receive(b"\x17\x03\x03\xff\xff" + b"x" * 65_535)


@pytest.mark.parametrize("cut", [0, 1, 5, 100, -1])
async def test_a_peer_that_vanishes_in_its_handshake(tmp_path, server_tls, client_tls, cut):
    """Wherever the handshake breaks off, nothing is left of it, by hang-up or by deadline."""
    async with stand(tmp_path, tls=server_tls, handshake_s=0.3) as on:
        hello = Peer(client_tls).turn()
        for hangs_up in (True, False):
            _, writer = await asyncio.open_connection("127.0.0.1", on.port_tls)
            writer.write(hello[:cut])
            await until(lambda: on.worker.counts.connections)
            if hangs_up:
                writer.transport.abort()
            await until(lambda: not on.worker.counts.connections)
            writer.close()


async def test_dripping_a_handshake_prolongs_nothing(tmp_path, server_tls, client_tls):
    """A byte of a handshake now and then does not hold a place."""
    async with stand(tmp_path, tls=server_tls, handshake_s=0.3) as on:
        _, writer = await asyncio.open_connection("127.0.0.1", on.port_tls)
        await until(lambda: on.worker.counts.connections)
        hello = Peer(client_tls).turn()
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(5):
            for byte in hello * 100:
                if not on.worker.counts.connections:
                    break
                writer.write(bytes([byte]))
                await asyncio.sleep(0.01)
        assert asyncio.get_running_loop().time() - began < 3
        writer.close()


async def test_goodbye_behind_the_dot(tmp_path, server_tls, client_tls):
    """Who says goodbye without waiting for our 250 gets none, and holds no place."""
    async with stand(tmp_path, tls=server_tls) as on:
        on.judge.go.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", on.port_tls)
        peer, said = Peer(client_tls), b""
        while not said or writer.is_closing():
            writer.write(peer.turn(said))
            said = await reader.read(65536)
        writer.write(peer.turn(said))
        heard = b""

        async def ask(data: bytes, code: bytes) -> None:
            nonlocal heard
            writer.write(peer.say(data) if data else b"")
            async with asyncio.timeout(5):
                while code not in heard:
                    heard += peer.hear(await reader.read(65536))
            heard = b""

        await ask(b"", b"220 ")
        await ask(b"EHLO x\r\n", b"250 ")
        await ask(f"AUTH PLAIN {plain(on.username, on.secret)}\r\n".encode(), b"235 ")
        await ask(b"MAIL FROM:<a@b>\r\n", b"250 ")
        await ask(b"RCPT TO:<c@d>\r\n", b"250 ")
        await ask(b"DATA\r\n", b"354 ")
        writer.write(peer.say(SMALL + b".\r\n") + peer.goodbye())
        await until(lambda: on.judge.asks)
        await until(lambda: not on.worker.counts.connections)
        on.judge.go.set()
        await on.quiet()
        writer.close()

        assert on.shards.accepted == []
        assert on.judge.uncounted == [on.judge.asks[0].message]


async def test_a_certificate_that_was_taken_away(tmp_path, server_tls):
    """STARTTLS that was offered and is gone is 454, and the talk goes on in clear."""
    async with stand(tmp_path, tls=server_tls) as on:
        client = await on.call()
        assert "STARTTLS" in await client.ask("EHLO x")
        on.worker.tls = lambda: None
        assert (await client.ask("STARTTLS")).startswith("454 4.7.0")
        assert "STARTTLS" not in await client.ask("EHLO x")
        await client.hang_up()
        reader, writer = await asyncio.open_connection("127.0.0.1", on.port_tls)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
