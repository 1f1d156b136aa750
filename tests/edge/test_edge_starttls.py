"""STARTTLS as the server: nothing said in clear is read or remembered inside."""

import asyncio

import pytest
from tests.edge.stand import plain, stand
from tests.edge.test_edge_tls import Peer

SMALL = b"Subject: hi\r\n\r\nHello.\r\n"
INJECTED = [
    b"MAIL FROM:<evil@b>\r\n",
    b"\r\n",
    b"NOOP\r\n",
    b"EHLO evil\r\nMAIL FROM:<evil@b>\r\nRCPT TO:<v@b>\r\nDATA\r\nx\r\n.\r\n",
    b"x",
    b"\x16\x03\x01",
]


async def ends(client):
    """Return what is still said; the connection must end."""
    async with asyncio.timeout(5):
        try:
            return await client.reader.read()
        except ConnectionError:
            return b""


@pytest.mark.parametrize("rest", INJECTED)
async def test_words_in_the_same_segment(tmp_path, server_tls, rest):
    """Plaintext behind STARTTLS in one packet: 554 5.5.0, the end, and none of it is answered."""
    async with stand(tmp_path, tls=server_tls) as on:
        client = await on.call()
        await client.ask("EHLO x")
        client.say(b"STARTTLS\r\n" + rest)
        said = await ends(client)
        await client.hang_up()

        assert said.startswith(b"554 5.5.0 ")
        assert said.count(b"\r\n") == 1
        assert on.judge.asks == on.shards.accepted == []


@pytest.mark.parametrize("rest", [rest for rest in INJECTED if not rest.startswith(b"\x16")])
async def test_words_between_consent_and_handshake(tmp_path, server_tls, rest):
    """Plaintext after our 220 is read as TLS, which it is not: the connection ends unanswered."""
    async with stand(tmp_path, tls=server_tls, handshake_s=0.5) as on:
        client = await on.call()
        await client.ask("EHLO x")
        assert (await client.ask("STARTTLS"))[:3] == "220"
        client.say(rest)
        said = await ends(client)
        await client.hang_up()

        assert said == b"" or said[:1] == b"\x15"  # an alert of TLS, and no reply of SMTP
        assert on.judge.asks == on.shards.accepted == []


async def test_words_before_a_true_handshake(tmp_path, server_tls, client_tls):
    """A man in the middle who writes before the client's handshake breaks it, and gains nothing."""
    async with stand(tmp_path, tls=server_tls) as on:
        client = await on.call()
        await client.ask("EHLO x")
        assert (await client.ask("STARTTLS"))[:3] == "220"
        client.say(b"EHLO evil\r\n" + Peer(client_tls).turn())
        said = await ends(client)
        await client.hang_up()

        assert said == b"" or said[:1] == b"\x15"


async def test_everything_is_forgotten(tmp_path, server_tls, client_tls):
    """EHLO, AUTH and the offers are new inside TLS: what was shown in clear is nothing."""
    async with stand(tmp_path, tls=server_tls) as on:
        client = await on.login()
        assert (await client.ask("STARTTLS"))[:3] == "220"
        await client.upgrade(client_tls)
        assert (await client.ask("MAIL FROM:<a@b>"))[:3] == "503"
        assert (await client.ask(f"AUTH PLAIN {plain(on.username, on.secret)}"))[:3] == "503"
        offered = await client.ask("EHLO inside")
        assert "STARTTLS" not in offered
        assert "AUTH PLAIN LOGIN" in offered
        assert (await client.ask("MAIL FROM:<a@b>"))[:3] == "530"
        assert (await client.ask("STARTTLS"))[:3] == "503"
        assert (await client.ask(f"AUTH PLAIN {plain(on.username, on.secret)}"))[:3] == "235"
        assert (await client.ask(f"AUTH PLAIN {plain(on.username, on.secret)}"))[:3] == "503"
        assert (await client.send(SMALL))[:3] == "250"
        await client.hang_up()

        accept = on.shards.accepted[0]
        assert accept.envelope.helo == "inside"
        assert accept.log["protocol"] == "ESMTPSA"


async def test_wrong_secrets_stay_counted(tmp_path, server_tls, client_tls):
    """TLS is no way to guess on: the third wrong secret ends the connection, here or inside."""
    async with stand(tmp_path, tls=server_tls) as on:
        client = await on.call()
        await client.ask("EHLO x")
        for n in range(2):
            assert (await client.ask(f"AUTH PLAIN {plain('nobody', f'x{n}')}"))[:3] == "535"
        assert (await client.ask("STARTTLS"))[:3] == "220"
        await client.upgrade(client_tls)
        await client.ask("EHLO x")
        assert (await client.ask(f"AUTH PLAIN {plain('nobody', 'x3')}"))[:3] == "421"
        assert await client.hear() == ""
        await client.hang_up()


async def test_a_transaction_that_is_open(tmp_path, server_tls):
    """STARTTLS in a transaction is out of turn: nothing of it is carried inside."""
    async with stand(tmp_path, tls=server_tls) as on:
        client = await on.login()
        assert (await client.ask("MAIL FROM:<a@b>"))[:3] == "250"
        assert (await client.ask("STARTTLS"))[:3] == "503"
        await client.hang_up()


async def test_auth_while_an_answer_is_awaited(tmp_path, server_tls):
    """STARTTLS as an answer to AUTH is no answer: TLS does not begin, and nobody is known."""
    async with stand(tmp_path, tls=server_tls) as on:
        client = await on.call()
        await client.ask("EHLO x")
        assert (await client.ask("AUTH LOGIN"))[:3] == "334"
        assert (await client.ask("STARTTLS"))[:1] in ("3", "5")
        await client.hang_up()
