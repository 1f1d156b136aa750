"""An edge worker on loopback with a judge and shards of our own, and a client to talk to it."""

import asyncio
import base64
import inspect
import socket
import ssl
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from postweir.edge import pressure
from postweir.edge.bodies import Disks, Folders
from postweir.edge.meters import Meters
from postweir.edge.names import Names
from postweir.edge.ports import Shards
from postweir.edge.sweeper import Sweeper
from postweir.edge.worker import Worker
from postweir.identity.credentials import generate
from postweir.identity.directory import Watched
from postweir.identity.sender import Account, Credential, Directory
from postweir.judge.ports import Ask, Asked, Judge
from postweir.policy.verdict import Verdict
from postweir.processes.edge import acceptor_of
from postweir.runtime.log import quiet
from postweir.runtime.metrics import Metrics
from postweir.runtime.settings import Edge, Settings, Spool
from postweir.runtime.settings import Judge as JudgeSection
from postweir.spool.ports import Accept, Refusal, Safe, Unknown, Unsafe

KEY = b"k" * 32
ACCEPT = Verdict(verb="accept", policy="pol_1")


def implements(fake: type, port: type) -> bool:
    """True when the fake has every method of the port, with the same signature."""
    wanted = {n: m for n, m in vars(port).items() if inspect.isfunction(m) and n[0] != "_"}
    return all(
        list(inspect.signature(method).parameters.values())
        == list(inspect.signature(getattr(fake, name, len)).parameters.values())
        and inspect.iscoroutinefunction(method)
        == inspect.iscoroutinefunction(getattr(fake, name, len))
        for name, method in wanted.items()
    )


class FakeJudge:
    """Answers what `asked` says, or not at all within the time."""

    def __init__(self) -> None:
        self.asked: Asked | None = Asked(ACCEPT, facts=b"facts")  # None: silent
        self.asks: list[Ask] = []
        self.bodies: list[bytes] = []
        self.uncounted: list[str] = []
        self.go = asyncio.Event()
        self.go.set()

    async def ask(self, ask: Ask, wait_s: float) -> Asked:
        """Keep the promise of the port: an answer within `wait_s`."""
        self.asks.append(ask)
        if ask.body_file is not None:
            self.bodies.append(await asyncio.to_thread(Path(ask.body_file).read_bytes))
        else:
            assert ask.body is not None
            self.bodies.append(ask.body)
        await self.go.wait()
        if self.asked is None:
            await asyncio.sleep(wait_s)
            return Asked(None, "silent")
        return self.asked

    def uncount(self, account: str, message: str) -> None:
        self.uncounted.append(message)


class FakeShards:
    """Keeps what it was given, or does what a shard in trouble does."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self.accepted: list[Accept] = []
        self.bodies: list[bytes] = []
        self.refused: list[Refusal] = []
        self.why = ""
        self.answer: str = "safe"  # or unknown, or the reason of Unsafe
        self.chooses = True
        self.free = 2**40
        self.go = asyncio.Event()
        self.go.set()

    def reason(self) -> str:
        return self.why

    def free_bytes(self) -> int:
        return self.free

    def choose(self, avoid: AbstractSet[int] = frozenset()) -> int:
        found = [shard for shard in (2, 1) if shard not in avoid]
        if not self.chooses or not found:
            raise Unknown
        return found[0]

    async def accept(self, accept: Accept, *, shard: int | None = None) -> Safe | Unsafe:
        body = accept.body
        if accept.body_file is not None:
            path = self._spool / f"bodies-{shard}" / accept.body_file
            body = await asyncio.to_thread(path.read_bytes)
        assert body is not None
        await self.go.wait()
        if self.answer == "unknown":
            raise Unknown
        if self.answer != "safe":
            return Unsafe(accept.ask, self.answer)
        self.accepted.append(accept)
        self.bodies.append(body)
        return Safe(accept.ask)

    def refuse(self, refusal: Refusal) -> None:
        self.refused.append(refusal)


class FakeTables:
    """Tables in memory."""

    def __init__(self, found: Directory) -> None:
        self.found = found

    def directory(self, newer_than: int) -> Directory | None:
        return self.found if self.found.version != newer_than else None


assert implements(FakeJudge, Judge)
assert implements(FakeShards, Shards)


@dataclass
class Stand:
    """All of it."""

    worker: Worker
    sweeper: Sweeper
    judge: FakeJudge
    shards: FakeShards
    tables: FakeTables
    spool: Path
    port: int
    port_tls: int
    username: str
    secret: str

    async def call(self, *, port: int | None = None, tls: ssl.SSLContext | None = None) -> "Client":
        """Connect, and hear the greeting."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port or self.port, ssl=tls, server_hostname="localhost" if tls else None
        )
        client = Client(reader, writer)
        client.greeting = await client.hear()
        return client

    async def login(self) -> "Client":
        """Connect as the customer."""
        client = await self.call()
        assert (await client.ask("EHLO mail.customer.example"))[:3] == "250"
        assert (await client.ask(f"AUTH PLAIN {plain(self.username, self.secret)}"))[:3] == "235"
        return client

    def left(self) -> dict[str, object]:
        """What is still counted though nobody is there: must be nothing."""
        counts, flights = self.worker.counts, self.worker.flights
        found = {
            "clients": counts.clients.total, "holders": counts.holders.total,
            "unknown": len(counts.unknown), "handshakes": len(counts.handshakes),
            "bytes_of": counts._bytes_of, "bytes_claimed": counts.bytes_claimed,
            "in_flight": flights.held.total, "waiting": flights.waiting.total,
            "queues": flights._queues, "clearing": self.worker.clearing,
        }  # fmt: skip
        return {name: value for name, value in found.items() if value}

    def files(self) -> list[str]:
        """Names of the bodies on disk."""
        return sorted(p.name for p in self.spool.glob("bodies-*/*"))

    async def quiet(self) -> None:
        """Wait until no connection and no task is left."""
        await until(lambda: self.sweeper.idle)
        assert self.worker.counts.connections == 0
        assert self.worker.counts.bytes_held == 0
        assert self.left() == {}

    def change(self, *accounts: Account, credentials: tuple[Credential, ...] | None = None) -> None:
        """Write the tables anew, and wait for nobody to notice."""
        old = self.tables.found
        self.tables.found = Directory(
            version=old.version + 1,
            accounts={a.name: a for a in accounts} or old.accounts,
            credentials=(
                old.credentials if credentials is None else {c.username: c for c in credentials}
            ),
        )


class Client:
    """A mail server, or who poses as one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.greeting = ""

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def hear(self) -> str:
        """Return one reply; "" at the end."""
        lines = []
        async with asyncio.timeout(10):
            while True:
                try:
                    line = (await self.reader.readline()).decode()
                except (ConnectionError, ssl.SSLError):
                    return ""
                lines.append(line.rstrip("\r\n"))
                if line[3:4] != "-":
                    return "\n".join(lines)

    async def ask(self, line: str) -> str:
        self.say(line.encode() + b"\r\n")
        return await self.hear()

    async def begin(self, *recipients: str, mail_from: str = "joe@customer.example") -> str:
        """Come as far as the answer to DATA."""
        assert (await self.ask(f"MAIL FROM:<{mail_from}>"))[:3] == "250"
        for recipient in recipients or ("kim@fine.example",):
            assert (await self.ask(f"RCPT TO:<{recipient}>"))[:3] == "250"
        return await self.ask("DATA")

    async def send(self, content: bytes, *recipients: str) -> str:
        """Send one message; returns the reply to its dot."""
        assert await self.begin(*recipients) == "354 End with a lone dot"
        self.say(content + b".\r\n")
        return await self.hear()

    async def upgrade(self, context: ssl.SSLContext) -> None:
        await self.writer.start_tls(context, server_hostname="localhost")

    async def hang_up(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            return


async def until(claim: Callable[[], object]) -> None:
    """Wait, for a bounded time, until a claim is true."""
    async with asyncio.timeout(5):
        while not claim():  # noqa: ASYNC110 - a claim has no event
            await asyncio.sleep(0.002)


def plain(username: str, secret: str) -> str:
    return base64.b64encode(f"\0{username}\0{secret}".encode()).decode()


def settings(tmp_path: Path, **edge: object) -> Settings:
    return Settings(
        edge=Edge(**{"hostname": "relay.test", "auth_without_tls_on_loopback": True, **edge}),
        spool=Spool(inline_bytes_max=64 * 1024),
        judge=JudgeSection(wait_ms=100),
    )


@asynccontextmanager
async def stand(tmp_path: Path, *, tls: ssl.SSLContext | None = None, account=None, **edge):
    """Give a worker that serves on loopback, and look that nothing is left of its clients."""
    spool = tmp_path / "spool"
    for shard in (1, 2):
        (spool / f"bodies-{shard}").mkdir(parents=True)
    account = account or Account(name="acme")
    credential, secret = generate("acme", KEY, created_us=1)
    tables = FakeTables(
        Directory(
            version=1,
            accounts={"acme": account},
            credentials={credential.username: credential},
        )
    )
    directory = Watched(tables, picture=None, log=quiet())
    directory.start()
    judge, shards = FakeJudge(), FakeShards(spool)
    sweeper = Sweeper()
    with Disks(2) as disks:
        worker = Worker(
            settings=settings(tmp_path, **edge), directory=directory, shards=shards, judge=judge,
            folders=Folders(spool), names=Names(7), meters=Meters(Metrics()), log=quiet(),
            secret=KEY, disks=disks, tls=lambda: tls,
        )  # fmt: skip
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        for listener in listeners:
            listener.setblocking(False)
        acceptors = [
            acceptor_of(worker, sweeper, listener, implicit_tls=implicit)
            for listener, implicit in zip(listeners, (False, True), strict=True)
        ]
        ports = [listener.getsockname()[1] for listener in listeners]
        sweeping = asyncio.create_task(
            sweeper.run(lambda now: pressure.look(worker, sweeper.connections, now))
        )
        on = Stand(
            worker, sweeper, judge, shards, tables, spool, *ports, credential.username, secret,
        )  # fmt: skip
        try:
            yield on
            await on.quiet()
        finally:
            for acceptor in acceptors:
                acceptor.close()
            for listener in listeners:
                listener.close()
            await sweeper.drain(0)
            sweeping.cancel()
            directory.close()
