"""Workers die, hang and come back; those who ask have their answer in time all the same."""

import asyncio
import os
import signal
import sys
import textwrap
import time

import pytest

from postweir.judge import engine as engines
from postweir.judge import workers
from postweir.judge.engine import WORKER, Engine
from postweir.policy.bundle import Bundle, Rule
from postweir.policy.facts import total
from postweir.runtime.log import quiet

pytestmark = pytest.mark.real

BIG = Bundle((Rule("big", "body.bytes > 1000", "hold"),))
# The real worker, but for messages of 666 bytes: it does what `deed` says.
FAULTY = """
import os, sys, time
from postweir.policy import worker
real = worker.Engine.evaluate
def spin():
    while True: pass
def crash(): os._exit(1)
def sleep(): time.sleep(60)
def evaluate(self, ask):
    if ask.facts.get("body.bytes") == 666: {deed}()
    return real(self, ask)
worker.Engine.evaluate = evaluate
worker.main(sys.argv[1:])
"""


def faulty(deed: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-c", textwrap.dedent(FAULTY).format(deed=deed))


class Running:
    """An engine with two workers, and what it lost."""

    def __init__(self, *bundles: Bundle, evaluate_s: float, command) -> None:
        self.deaths: list[str] = []
        self.engine = Engine(
            bundles or [BIG], evaluate_s=evaluate_s, log=quiet(), on_death=self.deaths.append,
            command=command,
        )  # fmt: skip

    async def __aenter__(self):
        assert await self.engine.start()
        await self.two()
        return self

    async def __aexit__(self, *_):
        await self.engine.close()

    async def two(self) -> list[int]:
        async with asyncio.timeout(10):
            while len(self.engine.pids) < 2:  # noqa: ASYNC110 - a process loads; no event tells
                await asyncio.sleep(0.005)
        return self.engine.pids

    async def lost(self, count: int) -> None:
        """Wait: who asked has its answer at the deadline, the worker may live a moment longer."""
        async with asyncio.timeout(10):
            while len(self.deaths) < count:  # noqa: ASYNC110 - a process ends; as above
                await asyncio.sleep(0.005)

    async def verb(self, message: str, size: int, wait_s: float = 10.0) -> str:
        said = await self.engine.submit(message, total({"body.bytes": size}), wait_s)
        return said.verdict.verb if said else "none"


def running(*bundles: Bundle, evaluate_s: float = 0.1, command=WORKER) -> Running:
    return Running(*bundles, evaluate_s=evaluate_s, command=command)


async def test_it_answers():
    """The promoted policy says what it says, and a thousand at once are no reason to die."""
    async with running(evaluate_s=0.2) as run:
        assert await run.verb("m1", 10) == "accept"
        assert await run.verb("m2", 2000) == "hold"
        many = await asyncio.gather(*(run.verb(f"n{i}", i) for i in range(2000)))
        assert many.count("hold") == 999
        assert run.deaths == []


async def test_a_killed_worker_is_replaced_at_once():
    """What it had in hand goes to the spare; another spare is started."""
    async with running() as run:
        os.kill(run.engine.pids[0], signal.SIGKILL)
        answers = await asyncio.gather(*(run.verb(f"m{i}", 10) for i in range(50)))

        assert answers.count("accept") >= 49  # one may have been begun
        await run.two()
        assert run.deaths == ["died"]


@pytest.mark.parametrize(
    ("deed", "cause"), [("spin", "deadline"), ("sleep", "deadline"), ("crash", "died")]
)
async def test_a_poisonous_message_costs_two_workers_and_no_more(deed, cause, monkeypatch):
    """Those behind it are answered by the spare; the third time it is known."""
    monkeypatch.setattr(workers, "RAN_SHARE", 0.05)  # the machine may be busy with other tests
    async with running(command=faulty(deed)) as run:
        first, *others = await asyncio.gather(
            run.verb("bad", 666), *(run.verb(f"m{i}", 10) for i in range(20))
        )

        assert first == "none"
        assert others == ["accept"] * 20
        await run.lost(1)
        assert not run.engine.poison("bad")
        await run.two()
        assert await run.verb("bad", 666) == "none"
        await run.lost(2)
        assert run.engine.poison("bad")
        assert run.deaths == [cause, cause]
        await run.two()
        assert await run.verb("m99", 10) == "accept"  # the policy itself is never barred


async def test_a_stopped_worker_is_no_fault_of_the_message():
    """SIGSTOP: the one it had is pending, the rest go to the spare, nobody is blamed."""
    async with running() as run:
        os.kill(run.engine.pids[0], signal.SIGSTOP)
        for attempt in range(2):
            assert await run.verb("m1", 10) == ("none", "accept")[attempt]
        assert await run.verb("m2", 2000) == "hold"

        assert run.deaths == ["stopped"]
        assert not run.engine.poison("m1")


async def test_a_worker_without_a_processor_gets_four_deadlines(monkeypatch):
    """Runnable and not run: it is the machine that is late, and no message is to blame."""
    monkeypatch.setattr(workers, "_state", lambda _: "R")
    monkeypatch.setattr(workers, "_cpu_s", lambda _: 0.0)
    async with running(evaluate_s=0.05) as run:
        os.kill(run.engine.pids[0], signal.SIGSTOP)
        began = time.monotonic()

        assert await run.verb("m1", 10) == "none"
        answered_s = time.monotonic() - began
        assert await run.verb("m2", 10) == "accept"
        await run.lost(1)
        assert run.deaths == ["starved"]
        assert time.monotonic() - began >= 0.2
        assert answered_s >= 0.05
        assert run.engine._deaths == {}


async def test_who_asked_waits_no_longer_than_it_said():
    """With both workers stopped, the answer None comes in time."""
    async with running(evaluate_s=5.0) as run:
        for pid in run.engine.pids:
            os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()

        assert await run.verb("m1", 10, wait_s=0.05) == "none"
        assert time.monotonic() - began < 2.0


async def test_a_policy_that_cannot_be_loaded_gives_way_to_the_one_before():
    """With an alarm; and where there is none before, nothing is answered, at once."""
    broken = Bundle((Rule("bad", "no.fact > 1", "hold"),))
    async with running(broken, BIG) as run:
        assert run.engine.policy == BIG.hash
        assert await run.verb("m1", 2000) == "hold"

    alone = Engine([broken], evaluate_s=1.0, log=quiet())
    assert not await alone.start(0.5)
    assert alone.policy == ""
    assert await alone.submit("m1", total({}), 0.05) is None
    await alone.close()


async def test_a_policy_that_answers_nothing_gives_way(monkeypatch):
    """Five seconds and five messages without one answer: the one before it judges."""
    monkeypatch.setattr(engines, "SILENT_S", 0.0)
    monkeypatch.setattr(engines, "SILENT_MIN", 3)
    other = Bundle((Rule("other", "body.bytes > 5", "hold"),))
    async with running(BIG, other, command=faulty("crash")) as run:
        for i in range(3):
            await run.two()
            assert await run.verb(f"bad{i}", 666) == "none"
            await run.lost(i + 1)

        async with asyncio.timeout(10):
            while run.engine.policy != other.hash:  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.005)
        assert await run.verb("m1", 10) == "hold"


async def test_nothing_is_left_behind():
    """After close no worker lives."""
    async with running() as run:
        pids = run.engine.pids

    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_worker_that_is_killed_while_it_loads_says_nothing_of_the_policy(monkeypatch):
    """The promoted policy stays; only when one after the other ends does the one before judge."""
    other = Bundle((Rule("other", "body.bytes > 5", "hold"),))
    once = """
    import os, sys
    from postweir.policy import worker
    real = worker.load
    def load(frame):
        if {when}: os._exit(1)
        return real(frame)
    worker.load = load
    worker.main(sys.argv[1:])
    """

    def command(when: str) -> tuple[str, ...]:
        return (sys.executable, "-P", "-c", textwrap.dedent(once).format(when=when))

    marker = f"/tmp/{os.getpid()}.loaded"
    unlucky = command(f"not os.path.exists({marker!r}) and not open({marker!r}, 'w').close()")
    try:
        async with running(BIG, other, command=unlucky) as run:
            assert run.deaths == ["died"]
            assert run.engine.policy == BIG.hash
    finally:
        os.unlink(marker)

    lethal = command(f"{BIG.hash[4:]!r} in worker.name_of(frame.bundle)")
    async with running(BIG, other, command=lethal) as run:
        assert run.engine.policy == other.hash
        assert run.deaths == ["died"] * engines.LOADS_FAILED_MAX


async def test_a_worker_with_a_policy_we_went_back_from_is_not_taken():
    """It began to load before; to take it would bring back what was given up."""
    other = Bundle((Rule("other", "body.bytes > 5", "hold"),))
    async with running(BIG, other) as run:
        run.engine._active.kill("died")  # another begins to load BIG
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        run.engine._go_back("a test says so")

        async with asyncio.timeout(10):
            while len(run.engine.pids) < 2:  # noqa: ASYNC110 - a process loads; no event tells
                await asyncio.sleep(0.005)
        assert run.engine.policy == other.hash
        assert await run.verb("m1", 10) == "hold"
        assert {w.policy for w in (run.engine._active, run.engine._spare)} == {other.hash}


async def test_workers_end_with_a_judge_that_is_killed(tmp_path):
    """SIGKILL of who started them leaves none behind, even one that spins, is stopped or starts."""
    program = f"""
    import asyncio, sys
    from postweir.judge.engine import Engine
    from postweir.judge.bundles import shipped
    from postweir.runtime.log import quiet
    from postweir.policy.facts import total
    async def main():
        engine = Engine([shipped()], evaluate_s=60, log=quiet(), command={faulty("spin")!r})
        await engine.start()
        while len(engine.pids) < 2:
            await asyncio.sleep(0.01)
        engine.submit("m1", total({{"body.bytes": 666}}), 60)
        await asyncio.sleep(0)
        print(*engine.pids, flush=True)
        await asyncio.sleep(60)
    asyncio.run(main())
    """
    judge = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(program), stdout=asyncio.subprocess.PIPE
    )
    pids = [int(pid) for pid in (await judge.stdout.readline()).split()]
    os.kill(pids[1], signal.SIGSTOP)

    judge.kill()
    await judge.wait()

    assert len(pids) == 2
    async with asyncio.timeout(5):
        while any(lives(pid) for pid in pids):  # noqa: ASYNC110 - processes of nobody's end
            await asyncio.sleep(0.005)


def lives(pid: int) -> bool:
    """True until a process has ended; whoever inherits it may be slow to collect it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] not in (b"Z", b"X")
    except OSError:
        return False
