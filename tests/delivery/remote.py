"""Remote hosts on loopback that do as they are told, and a shard's side that only takes notes."""

import asyncio
import contextlib
import hashlib
import ssl
import subprocess
from dataclasses import dataclass, field

from postweir.delivery.meters import Meters
from postweir.delivery.route import Router
from postweir.delivery.worker import Worker
from postweir.runtime.dns import Resolver
from postweir.runtime.log import quiet
from postweir.runtime.metrics import Metrics
from postweir.runtime.net import client_context
from postweir.runtime.settings import Delivery
from postweir.spool.handing import Bucket, Desk, Handed
from postweir.spool.ports import Content, Out

HANG, DROP = object(), object()  # instead of a reply: say nothing more; end the connection

OK = {
    "GREET": b"220 mx.example ESMTP\r\n",
    "EHLO": b"250-mx.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n",
    "MAIL": b"250 2.1.0 Ok\r\n",
    "RCPT": b"250 2.1.5 Ok\r\n",
    "DATA": b"354 Go on\r\n",
    "DOT": b"250 2.0.0 Taken\r\n",
    "RSET": b"250 2.0.0 Ok\r\n",
    "QUIT": b"221 2.0.0 Bye\r\n",
    "STARTTLS": b"220 2.0.0 Go on\r\n",
}


@dataclass
class Got:
    """One message as it arrived."""

    mail_from: str
    recipients: list[str]
    data: bytes
    connection: int


@dataclass
class Remote:
    """One host. `says` replaces a reply: bytes, HANG, DROP, or a function of the command line."""

    says: dict[str, object] = field(default_factory=dict)
    context: ssl.SSLContext | None = None
    got: list[Got] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    host: str = "127.0.0.1"

    async def __aenter__(self):
        self._tasks = set()
        self.called, self.taken, self.goodbye = (asyncio.Event() for _ in range(3))
        self._server = await asyncio.start_server(self._accept, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        self.connections += 1
        self.called.set()
        try:
            await self._talk(reader, writer, self.connections)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _say(self, writer, what, line=""):
        """Say it; True to go on, False to end the connection."""
        reply = self.says.get(what, OK.get(what, b"500 5.5.1 What?\r\n"))
        if callable(reply):
            reply = reply(line)
        if asyncio.iscoroutine(reply):
            reply = await reply
        if reply is HANG:
            await asyncio.Event().wait()
        if reply is DROP:
            return False
        if isinstance(reply, list):  # a drip: piece by piece
            for piece in reply:
                if piece is DROP:
                    return False
                if isinstance(piece, asyncio.Event):
                    await piece.wait()
                    continue
                writer.write(piece)
                await asyncio.sleep(0.02)
            return True
        writer.write(reply)
        await writer.drain()
        return not reply.endswith(b"!\r\n")  # "!" at the end: and hang up

    async def _talk(self, reader, writer, number):
        if not await self._say(writer, "GREET"):
            return
        mail_from, recipients = "", []
        while line := (await reader.readline()).decode().strip():
            verb = line.split(" ")[0].split(":")[0].upper()
            self.commands.append(line)
            if verb == "MAIL":
                mail_from, recipients = line.split("<")[1].split(">")[0], []
            if verb == "DATA":
                if not await self._data(reader, writer, number, mail_from, recipients):
                    return
                continue
            said = self.says.get(verb)
            if not await self._say(writer, verb, line):
                return
            if verb == "RCPT" and not (callable(said) and not said(line).startswith(b"2")):
                recipients.append(line.split("<")[1].split(">")[0])
            if verb == "STARTTLS" and self.context is not None:
                await writer.start_tls(self.context)
            if verb == "QUIT":
                self.goodbye.set()
                return

    async def _data(self, reader, writer, number, mail_from, recipients):
        if not await self._say(writer, "DATA"):
            return False
        if not self.says.get("DATA", b"3").startswith(b"3"):
            return True
        if "CONTENT" in self.says and not await self._say(writer, "CONTENT"):
            return False
        data = b"\r\n"
        while not data.endswith(b"\r\n.\r\n"):
            piece = await reader.read(1 << 16)
            if not piece:
                return False
            data += piece
        data = data[:-3].replace(b"\r\n.", b"\r\n")[2:]
        if recipients:  # else it is the lone dot of one who had none accepted (RFC 2920 3.1)
            self.got.append(Got(mail_from, list(recipients), data, number))
        self.taken.set()
        return await self._say(writer, "DOT")


class Hands:
    """A shard's side: notes what is settled."""

    def __init__(self, mine=lambda _: True):
        self.settles = []
        self.handed_on = []
        self.records = True
        self.is_mine = mine
        self._more = asyncio.Event()
        self.passed = asyncio.Event()

    def settle(self, handed, settle):
        assert handed.settle is None, "settled twice"
        handed.settle = settle
        self.settles.append(settle)
        self._more.set()

    def may_send(self, handed):
        return self.records

    def hand_on(self, handed, site):
        self.handed_on.append((handed.out.recipient, site))
        self.passed.set()

    async def until(self, count, within_s=5.0):
        """Wait for that many outcomes; return them by recipient."""
        async with asyncio.timeout(within_s):
            while len(self.settles) < count:
                self._more.clear()
                await self._more.wait()
        return {settle.recipient: settle for settle in self.settles}


DESK = Desk(1, {})


def message(name, *addresses, first=1, body=b"Hello\r\n", added=b"X: 1\r\n\r\n", sender="a|s|x",
            body_file=None, accepted_at_us=0, pool="", **out):  # fmt: skip
    """Return one message in hand, for these recipients."""
    content = Content(
        name, "from@here.example", added, None if body_file else body, body_file, len(body),
        hashlib.blake2b(body, digest_size=16).digest(), pool=pool,
    )  # fmt: skip
    defaults = {"age_s": 1.0, "tries": 0, "lifetime_s": 1000} | out
    return [
        Handed(
            DESK, Bucket(0),
            Out(first + n, 1, name, sender, address, accepted_at_us, **defaults),
            content, asyncio.get_running_loop().time(),
        )
        for n, address in enumerate(addresses)
    ]  # fmt: skip


@contextlib.asynccontextmanager
async def delivering(route, *, hands=None, tls=False, names=None, log=None, own_ports=frozenset(),
                     connections_max=100, **changes):  # fmt: skip
    """A worker at work: yields it and its hands."""
    quick = {"connect_s": 1.0, "reply_s": 1.0, "final_reply_s": 1.0, "idle_s": 0.2,
             "tls": "opportunistic" if tls else "off"}  # fmt: skip
    now = Delivery(**(quick | changes))
    metrics = Metrics()
    resolver = Resolver(("127.0.0.1:9",), metrics)
    router = Router(
        names or resolver, table=route, port=now.port, private_networks=now.private_networks,
        hostnames=("relay.example",), chance=lambda: 0.5,
    )  # fmt: skip
    worker = Worker(
        now, router=router, hostname="relay.example", context=client_context(),
        own_ports=own_ports, connections_max=connections_max, chance=lambda: 0.5,
        meters=Meters(metrics), log=log or quiet(),
    )  # fmt: skip
    hands = hands or Hands()
    worker.begin(hands)
    try:
        yield worker, hands
    finally:
        await worker.drain(0.5)
        await resolver.close()


def certificate(folder, name="one"):
    """Return the files of a self-signed certificate and its key."""
    key, cert = folder / f"{name}.key", folder / f"{name}.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
         "-days", "2", "-subj", f"/CN={name}.example"],
        check=True, capture_output=True,
    )  # fmt: skip
    return str(cert), str(key)
