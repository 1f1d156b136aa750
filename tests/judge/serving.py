"""A real judge in a test's own loop: for tests of any room.

    async with judging(run) as judge, asking(run) as judges:     # answers on run/judge-1.sock
        answer = await judges.ask(ask("m1"), 5.0)

Its policy is evaluated in this process; with `command=WORKER` by real policy workers, as in an
installation. `policy` is TOML text (the shipped policy without it); `judge.service`,
`judge.evaluator` and `judge.counters` are its parts.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postweir.identity.sender import Directory, Sender
from postweir.judge.asking import Judges
from postweir.judge.bundles import shipped_whole
from postweir.judge.counters import Counters
from postweir.judge.engine import NOTHING, WORKER, Engine
from postweir.judge.keeping import Keeping
from postweir.judge.levels import Levels
from postweir.judge.ports import Ask, Fed, Loadable, Used
from postweir.judge.service import Service
from postweir.mail.domains import Domains
from postweir.mail.envelope import Envelope
from postweir.policy.document import parse
from postweir.policy.evaluation import Evaluate, Evaluated, Load
from postweir.policy.facts import Facts
from postweir.policy.worker import load
from postweir.runtime import clock
from postweir.runtime.log import Log, quiet
from postweir.scan.attachments import Attachments
from postweir.scan.content import Content
from postweir.scan.finding import Scanner
from postweir.scan.header import Header
from postweir.scan.links import Links
from postweir.scan.panel import Panel
from postweir.scan.text import Text

__all__ = [
    "HAM", "WORKER", "Feed", "Inside", "Judging", "ask", "asking", "every_scanner", "judging",
]  # fmt: skip

DOMAINS = Domains()
HAM = b"From: a@example.com\r\nMessage-ID: <1@x>\r\nDate: x\r\nSubject: hi\r\n\r\nhello\r\n"


class Inside:
    """The policy without a process: the worker's own code, called where we stand."""

    def __init__(self, policy: Loadable) -> None:
        made, loaded = load(Load(policy.canonical, policy.bundle.schema, policy.sets))
        assert made is not None, loaded
        self._made, self.policy, self.bundle = made, loaded.policy, policy.bundle
        self.killed: frozenset[str] = frozenset()
        self.off = False
        self.poisonous: set[str] = set()
        self.dead = False  # then it answers nothing, like an engine without workers
        self.held: list[asyncio.Future[Evaluated | None]] | None = None  # a list: answers wait

    def poison(self, message: str) -> bool:
        return message in self.poisonous

    def mask(self, rules: Sequence[str], off: bool) -> None:
        self.killed, self.off = frozenset(rules), off
        self._made.mask(self.killed)

    def submit(
        self,
        message: str,
        facts: Facts,
        wait_s: float,
        texts: Mapping[str, str] = NOTHING,
        keys: Mapping[str, list[str]] = NOTHING,
    ) -> "asyncio.Future[Evaluated | None]":
        answer: asyncio.Future[Evaluated | None] = asyncio.get_running_loop().create_future()
        if self.held is not None:
            self.held.append(answer)
        elif self.dead or self.off:
            answer.set_result(None)
        else:
            answer.set_result(self._made.evaluate(Evaluate(1, facts, dict(texts), dict(keys))))
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

    def __init__(self, rows: Sequence[Used] = (), *, down: int = 0) -> None:
        self.rows, self.down = list(rows), down

    async def after(self, cursors: Mapping[str, int], since_us: int, *, whole: bool) -> Fed:
        if self.down:
            self.down -= 1
            return Fed([], {}, False, ["1"])
        after = cursors.get("1.usage", 0)
        some = self.rows[after : after + 1000]
        ends = ("delivered", "bounced", "unknown")
        told = [r for r in some if (whole or r.kind in ends) and (after or r.at_us >= since_us)]
        more = after + len(some) < len(self.rows)
        return Fed(told, {"1.usage": after + len(some)}, more, ["1"] if more else [])


def every_scanner(log: Log) -> list[Scanner]:
    """Return the scanners of a judge, as `processes.judge` lists them."""
    return [Header(DOMAINS), Content(), Text(), Links("", log, DOMAINS), Attachments()]


@contextlib.asynccontextmanager
async def judging(
    run: Path,
    *,
    index: int = 1,
    policy: str = "",
    directory: Directory | None = None,
    feed: Feed | None = None,
    folder: Path | None = None,
    scanners: Sequence[Scanner] | None = None,
    evaluate_s: float = 1.0,
    scan_s: float = 2.0,
    command: Sequence[str] = (),
) -> AsyncIterator[Judging]:
    """Run a judge until the block ends. Its deadlines are wide: tests share the machine."""
    log = quiet()
    loadable = shipped_whole()
    if policy:
        parsed = parse(policy, "test.toml")
        loadable = Loadable(parsed.bundle, parsed.sets)
    evaluator: Any = Inside(loadable)
    if command:
        evaluator = Engine([loadable], evaluate_s=evaluate_s, log=log, command=command)
    panel = Panel(scanners or every_scanner(log), log)
    keeping = Keeping(folder, judge=index, of=1, log=log, words=1024)
    levels = Levels(feed or Feed(), keeping, keeping.load(), log=log)
    service = Service(
        evaluator=evaluator, panel=panel, levels=levels, hostname="relay.example.net",
        directory=lambda: directory or Directory(version=0), scan_s=scan_s,
        settings=lambda: "test", log=log,
    )  # fmt: skip
    assert await evaluator.start()
    await service.start(run / f"judge-{index}.sock")
    try:
        yield Judging(service, evaluator, levels.counters)
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
