"""A real judge in a test's own loop: for tests of any room.

    async with judging(run) as judge, asking(run) as judges:     # answers on run/judge-1.sock
        answer = await judges.ask(ask("m1"), 5.0)

Its policy is evaluated in this process; with `command=WORKER` by real policy workers, as in an
installation. `policy` is TOML text (the shipped policy without it); `judge.service`,
`judge.evaluator` and `judge.counters` are its parts.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postweir.identity.sender import Directory, Sender
from postweir.judge.asking import Judges
from postweir.judge.bundles import shipped
from postweir.judge.counters import Counters
from postweir.judge.engine import WORKER, Engine
from postweir.judge.ports import Ask, Counted
from postweir.judge.service import Service
from postweir.mail.envelope import Envelope
from postweir.policy.bundle import Bundle
from postweir.policy.document import parse
from postweir.policy.evaluation import Evaluate, Evaluated, Load
from postweir.policy.facts import Facts
from postweir.policy.worker import load
from postweir.runtime import clock
from postweir.runtime.log import quiet
from postweir.scan.attachments import Attachments
from postweir.scan.content import Content
from postweir.scan.finding import Scanner
from postweir.scan.links import Links
from postweir.scan.panel import Panel

__all__ = ["HAM", "WORKER", "Feed", "Inside", "Judging", "ask", "asking", "judging"]

HAM = b"From: a@example.com\r\nMessage-ID: <1@x>\r\nDate: x\r\nSubject: hi\r\n\r\nhello\r\n"


class Inside:
    """The policy without a process: the worker's own code, called where we stand."""

    def __init__(self, bundle: Bundle) -> None:
        made, loaded = load(Load(bundle.canonical, bundle.schema))
        assert made is not None, loaded
        self._made, self.policy = made, loaded.policy
        self.poisonous: set[str] = set()
        self.dead = False  # then it answers nothing, like an engine without workers
        self.held: list[asyncio.Future[Evaluated | None]] | None = None  # a list: answers wait

    def poison(self, message: str) -> bool:
        return message in self.poisonous

    def submit(
        self, message: str, facts: Facts, wait_s: float
    ) -> "asyncio.Future[Evaluated | None]":
        answer: asyncio.Future[Evaluated | None] = asyncio.get_running_loop().create_future()
        if self.held is not None:
            self.held.append(answer)
        else:
            answer.set_result(None if self.dead else self._made.evaluate(Evaluate(1, facts)))
        return answer

    async def start(self) -> bool:
        return True

    async def close(self) -> None:
        return None


@dataclass
class Judging:
    service: Service
    evaluator: Any  # Inside, or an Engine
    counters: Counters


class Feed:
    """What shards would tell; `down` for as many questions."""

    def __init__(self, counted: Sequence[Counted] = (), *, down: int = 0) -> None:
        self._counted, self.down = counted, down

    async def counted(self, since_us: int) -> Sequence[Counted]:
        if self.down:
            self.down -= 1
            raise ConnectionError("shard 1 is down")
        return [c for c in self._counted if c.at_us >= since_us]


@contextlib.asynccontextmanager
async def judging(
    run: Path,
    *,
    index: int = 1,
    policy: str = "",
    directory: Directory | None = None,
    feed: Feed | None = None,
    scanners: Sequence[Scanner] | None = None,
    evaluate_s: float = 1.0,
    scan_s: float = 2.0,
    command: Sequence[str] = (),
) -> AsyncIterator[Judging]:
    """Run a judge until the block ends. Its deadlines are wide: tests share the machine."""
    log = quiet()
    bundle = parse(policy, "test.toml") if policy else shipped()
    evaluator: Any = Inside(bundle)
    if command:
        evaluator = Engine([bundle], evaluate_s=evaluate_s, log=log, command=command)
    panel = Panel(scanners or [Content(), Links("", log), Attachments()], log)
    counters = Counters()
    service = Service(
        evaluator=evaluator, panel=panel, counters=counters, hostname="relay.example.net",
        directory=lambda: directory or Directory(version=0), scan_s=scan_s,
        settings=lambda: "test", log=log, feed=feed or Feed(),
    )  # fmt: skip
    assert await evaluator.start()
    await service.start(run / f"judge-{index}.sock")
    try:
        yield Judging(service, evaluator, counters)
    finally:
        await service.close()
        await evaluator.close()
        panel.close()


@contextlib.asynccontextmanager
async def asking(run: Path, count: int = 1) -> AsyncIterator[Judges]:
    """Judges that are heard already."""
    judges = Judges(run, count=count, log=quiet())
    try:
        async with asyncio.timeout(10):
            # The judge shows that it lives every 50 ms; nobody could set an event for us.
            while any(judges.reason(account) for account in ("acme", "a", "b", "c")):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        yield judges
    finally:
        await judges.close()


def ask(
    message: str = "m1",
    *,
    body: bytes | None = HAM,
    wait_s: float = 10.0,
    account: str = "acme",
    identity: str = "joe@example.com",
    recipients: Sequence[str] = ("kim@example.org",),
    late: bool = False,
    body_file: str | None = None,
    mail_from: str = "joe@example.com",
) -> Ask:
    """Return an ask about an ordinary message."""
    return Ask(
        ask=1, message=message, by_ns=clock.monotonic_ns() + int(wait_s * 1e9), late=late,
        envelope=Envelope(mail_from, tuple(recipients), "mail.example.com"),
        sender=Sender(account, "sasl", identity), client="192.0.2.1", tls=True,
        body=body, body_file=body_file,
    )  # fmt: skip
