"""What judging costs: python -m tests.measure.judging [--messages 20000]

A real installation in a scratch directory, on loopback; nothing is sent. Figures for
docs/performance.md: the processor time of asker, judge and policy workers for 1,000 messages, how
long an evaluation takes, and what one costs that is asked of a worker among many.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvloop
from demo.installation import Installation
from tests.judge.serving import every_scanner

from postweir.identity.sender import Sender
from postweir.judge.asking import Judges
from postweir.judge.ports import Ask
from postweir.judge.trial import Trial
from postweir.mail.envelope import Envelope
from postweir.mail.message import read
from postweir.policy.bundle import Bundle, Rule
from postweir.policy.evaluation import Evaluate
from postweir.policy.verdict import Fact
from postweir.policy.worker import Engine
from postweir.runtime import clock, frames
from postweir.runtime.log import quiet
from postweir.scan.panel import Panel

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
AT_ONCE = (1, 20, 200)
CONDITIONS = (
    'sender.state == "stopped"',
    "message.loops > 2",
    "findings.spam >= 0.9",
    "findings.url_listed",
    "findings.attachment_dangerous",
    'body.anomalies.exists(a, a == "bound")',
    '"cut" in body.anomalies && sender.state != "allowed"',
    "usage.known && usage.messages_1h > limit.sender_messages_1h",
    "sender.known && sender.age_days < 7 && usage.recipients_1h > 100000",
    "history.known && usage.recipients_1h > history.peak_recipients_1h + 100000",
    "usage.account_unknown_1d > usage.account_delivered_1d + 50",
    "header.from_count > 1 && body.bytes > 100000",
    'envelope.recipient_domains.exists(d, d.endsWith(".invalid"))',
    'urls.hosts.exists(h, h.contains("xn--")) && urls.mismatch',
    'attachments.extensions.exists(e, e == "exe" || e == "scr")',
    "header.reply_to_differs && header.name_has_address",
    "text.words < 5 && urls.count > 20 && sender.age_days < 3",
    "rspamd.known && rspamd.score > 15.0",
    'envelope.recipients > 200 && sender.state != "allowed"',
    'connection.helo.startsWith("evil") || header.mailer.contains("bulk")',
)


def policy(rules: int) -> Bundle:
    """Return a policy of so many rules that ordinary mail is looked at by all of."""
    dear = [c for c in CONDITIONS if "exists" not in c]  # two hundred loops are refused
    some = [*CONDITIONS, *(dear * (rules // len(dear) + 1))][:rules]
    return Bundle(tuple(Rule(f"r{i}", when, "hold") for i, when in enumerate(some)))


def letter(number: int) -> bytes:
    """Return an ordinary message of about 4 KiB, with text, HTML and links."""
    words = " ".join(f"word{(number * 31 + i) % 977}" for i in range(200))
    link = f"https://www.shop{number % 50}.example/order/{number}"
    return (
        f"From: Shop {number % 50} <news@shop{number % 50}.example>\r\n"
        f"To: customer{number}@example.org\r\nSubject: Your order {number}\r\n"
        f"Message-ID: <{number}@shop.example>\r\nDate: Tue, 24 Nov 2026 12:00:00 +0000\r\n"
        "MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n"
        f"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{words}\r\n{link}\r\n"
        f"--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html><body><p>{words}</p>"
        f'<a href="{link}">your order</a></body></html>\r\n--b--\r\n'
    ).encode()


def ask(number: int) -> Ask:
    """Return a question about one of a thousand senders' messages."""
    shop, message = number % 1000, f"{clock.wall_us() // 1000 << 32 | number:x}"
    sender = Sender(f"account{shop % 10}", "sasl", f"joe{shop}@shop{shop % 50}.example")
    recipients = tuple(f"customer{number + i}@example{i}.org" for i in range(1 + number % 2))
    return Ask(
        ask=0, message=message, by_ns=clock.monotonic_ns() + 10**10, late=False,
        envelope=Envelope(sender.identity, recipients, "mail.example.com"), sender=sender,
        client="192.0.2.1", tls=True, body=letter(number), body_file=None,
    )  # fmt: skip


def cpu_s(pid: int) -> tuple[float, float]:
    """Return how long a process has run, and how long those of its children that ended."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) * TICK_S, (int(stat[13]) + int(stat[14])) * TICK_S


def ran(judge: int) -> dict[str, float]:
    """Return how long each kind of process has run."""
    own_s, workers_s = cpu_s(judge)
    for word in Path(f"/proc/{judge}/task/{judge}/children").read_text().split():
        with suppress(FileNotFoundError):  # it ends just now
            workers_s += cpu_s(int(word))[0]
    return {"asker": time.process_time(), "judge": own_s, "workers": workers_s}


@contextmanager
def spent(judge: int) -> Iterator[dict[str, float]]:
    """Fill in, at the end of the block, how long each kind of process ran meanwhile."""
    before, took = ran(judge), {}
    yield took
    took.update({kind: s - before[kind] for kind, s in ran(judge).items()})


async def judged(run: Path, messages: int, judge: int) -> list[dict[str, Fact]]:
    """Print what it costs to have messages judged; return the facts of some of them."""
    judges = Judges(run, count=1, log=quiet())
    while judges.reason("account0"):  # noqa: ASYNC110 - it shows life every 50 ms
        await asyncio.sleep(0.01)
    kept: list[dict[str, Fact]] = []
    unanswered = 0  # on a machine that does other work beside
    numbers = iter(range(1, 10**9))

    async def one(number: int) -> None:
        nonlocal unanswered
        asked = await judges.ask(ask(number), 10.0)
        while asked.verdict is None:
            unanswered += 1
            await asyncio.sleep(0.05)  # its breaker is open for about as long
            asked = await judges.ask(ask(number), 10.0)
        if len(kept) < 1000:
            kept.append(frames.unpack(asked.facts, dict)["facts"])

    async def some(count: int) -> None:
        for _ in range(count):
            await one(next(numbers))

    await some(200)
    print("processor time for 1,000 messages judged, in ms, and how many a second")
    for at_once in AT_ONCE:
        count = messages if at_once > 1 else messages // 4
        for number in range(200):  # what making the questions costs is not theirs
            ask(number)
        began = time.process_time()
        for number in range(1000):
            ask(number)
        making_s = (time.process_time() - began) * count / 1000
        began = time.monotonic()
        with spent(judge) as took:
            await asyncio.gather(*(some(count // at_once) for _ in range(at_once)))
        wall_s = time.monotonic() - began
        took["asker"] -= making_s
        each = "  ".join(f"{kind} {s / count * 1e6:6.0f}" for kind, s in took.items())
        total = sum(took.values()) / count * 1e6
        print(f"  {at_once:4} at once:  {each}  all {total:6.0f}   {count / wall_s:6.0f}/s")
    print(f"  asked again, without an answer: {unanswered}")
    await judges.close()
    return kept


def best_us(work: Callable[[], object], times: int) -> float:
    """Return the shortest of five averages."""
    took = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(times):
            work()
        took.append((time.process_time() - began) / times)
    return min(took) * 1e6


def evaluated(facts: list[dict[str, Fact]]) -> None:
    """Print how long one evaluation takes, in the worker."""
    print("one evaluation, in µs")
    for rules in (20, 200):
        engine = Engine(policy(rules), "pol_measured")
        assert not engine.faults, engine.faults
        asks = [Evaluate(number, each) for number, each in enumerate(facts)]
        us = best_us(lambda: [engine.evaluate(one) for one in asks], 1) / len(asks)  # noqa: B023
        print(f"  {rules:4} rules: {us:6.1f}")


def looked() -> None:
    """Print how much of the judge's time is spent on reading messages."""
    bodies = [letter(number) for number in range(1000)]
    panel = Panel(every_scanner(quiet()), quiet())
    us = best_us(lambda: [panel.look_now(body) for body in bodies], 1) / len(bodies)
    parsed = best_us(lambda: [read(body) for body in bodies], 1) / len(bodies)
    print(f"looking at one message, in µs: {us:.0f}, of which into parts {parsed:.0f}")
    panel.close()


def asked(facts: list[dict[str, Fact]]) -> None:
    """Print what an evaluation costs that is asked of a worker: both sides, link and all."""
    print("one evaluation of 20 rules asked of a worker, in µs of processor time")
    for at_once in (1, 64):
        with Trial() as trial:
            loaded = trial.load(policy(20), {})
            assert loaded is not None
            assert not loaded.fault, loaded
            worker, count = trial._worker.pid, 0
            theirs_s, ours_s = cpu_s(worker)[0], time.process_time()
            while count < 20_000:
                some = [Evaluate(n, facts[(count + n) % len(facts)]) for n in range(at_once)]
                count += len(trial.evaluate(some, 10.0))
            theirs_s, ours_s = cpu_s(worker)[0] - theirs_s, time.process_time() - ours_s
        each = f"worker {theirs_s / count * 1e6:5.1f}  who asks {ours_s / count * 1e6:5.1f}"
        print(f"  {at_once:4} at once:  {each}")


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        changes = {"judge": {"wait_ms": 1000}}
        with Installation(Path(name), route={"*": "127.0.0.1:1"}, **changes) as installation:
            installation.start()
            judge = installation.process("judge")
            run = Path(name) / "var" / "run"
            facts = uvloop.run(judged(run, given.messages, judge))
    looked()
    evaluated(facts)
    asked(facts)


if __name__ == "__main__":
    main()
