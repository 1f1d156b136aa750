"""Whatever a message is made of, those who ask about others have their answer in time."""

import asyncio
import gc
import os
import sys
import tarfile
from pathlib import Path

import pytest
from tests.judge.bombs import bombs
from tests.judge.serving import WORKER, ask, asking, every_scanner, judging

from postweir.processes.judge import SWITCH_S
from postweir.runtime.log import quiet
from postweir.scan.links import HostSet, Links
from postweir.scan.panel import Panel

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpora" / "mime.tar.xz"
MIB = 1024 * 1024
pytestmark = pytest.mark.real


@pytest.fixture
def quick_turns():
    """Threads give way to the loop as often as in a judge."""
    normal = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    yield
    sys.setswitchinterval(normal)


def scanners() -> list:
    found = every_scanner(quiet())
    for links in found:
        if isinstance(links, Links):
            links._set = HostSet(frozenset({"listed.example"}), "test")
    return found


async def watched(judges, hostile: list[asyncio.Task]) -> tuple[int, list[str]]:
    """Ask about small messages of another account until the hostile ones are answered."""
    asked, unanswered = 0, []
    while not all(task.done() for task in hostile):
        answer = await judges.ask(ask(f"small{asked}", account="quiet", wait_s=1.0), 1.0)
        asked += 1
        if answer.verdict is None:
            unanswered.append(answer.reason)
        await asyncio.sleep(0.01)
    return asked, unanswered


@pytest.mark.usefixtures("quick_turns")
async def test_bombs_hold_up_nobody(tmp_path):
    """Three dozen of 16 MiB, eight at a time: small ones have a verdict, the bombs an answer.

    At 4 MiB one of them held the interpreter for 0.6 s, another took a thread for 75 s.
    """
    room = asyncio.Semaphore(8)

    async with (
        judging(tmp_path, scanners=scanners(), command=WORKER, scan_s=0.05) as judge,
        asking(tmp_path) as judges,
    ):

        async def one(number: int, body: bytes, late: bool):
            path = tmp_path / f"body{number}"
            async with room:
                await asyncio.to_thread(path.write_bytes, body)
                answer = await judges.ask(
                    ask(f"b{number}", body=None, body_file=str(path), late=late, wait_s=5.0), 5.0
                )
                path.unlink()
            return answer

        hostile = [
            asyncio.create_task(one(2 * number + late, body, late))
            for number, (_, body) in enumerate(bombs(16 * MIB))
            for late in (False, True)
        ]
        asked, unanswered = await watched(judges, hostile)

        assert asked > 20
        assert unanswered == [], f"of {asked}"
        answers = [task.result() for task in hostile]
        reasons = {a.reason for a in answers if a.verdict is None}
        assert reasons <= {"scan", "busy"}
        assert judge.service.open_asks == 0


@pytest.mark.usefixtures("quick_turns")
async def test_small_bombs_and_the_worst_of_three_projects(tmp_path):
    """Inline bodies of up to 64 KiB, and the malformed mail that others collected."""
    bodies = [body for size in (2000, 30_000, 64 * 1024) for _, body in bombs(size)]
    if CORPUS.exists():
        with tarfile.open(CORPUS) as tar:
            bodies += [tar.extractfile(m).read() for m in tar if m.isfile()]  # type: ignore[union-attr]
    async with (
        judging(tmp_path, scanners=scanners(), command=WORKER) as judge,
        asking(tmp_path) as judges,
    ):
        hostile = [
            asyncio.create_task(judges.ask(ask(f"b{n}", body=body, wait_s=60), 60.0))
            for n, body in enumerate(bodies)
        ]
        _, unanswered = await watched(judges, hostile)

        assert unanswered == []
        answers = [task.result() for task in hostile]
        assert {a.reason for a in answers if a.verdict is None} <= {"scan"}
        assert judge.service.open_asks == 0


def test_twenty_thousand_hostile_messages_leave_nothing_behind():
    """Memory after the last is what it was after the first thousand, but for 30 MB."""
    panel = Panel(scanners(), quiet())
    messages = [body for size in (300, 2000) for _, body in bombs(size)]

    def look(count: int) -> int:
        for number in range(count):
            panel.look_now(messages[number % len(messages)])
        gc.collect()
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = look(1000)
    grown = look(20_000) - before
    panel.close()

    assert grown < 30 * MIB
