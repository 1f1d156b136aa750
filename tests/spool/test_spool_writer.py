"""The one thread that writes: what it does between commits, and when there is no room."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.spool.given import accept, settle, until

from postweir.runtime import clock
from postweir.spool import writer as writer_module
from postweir.spool.ports import Accept, Done, Full
from postweir.spool.writer import RECIPIENTS_MAX, Writer


class Slate:
    """A store that notes what it was asked to do."""

    def __init__(self) -> None:
        self.commits: list[list[Any]] = []
        self.kept = self.proofs = 0
        self.unproven: BaseException | None = None
        self.fault: BaseException | None = None
        self.closed = False

    def commit(self, changes: list[Any]) -> list[Done]:
        if self.fault is not None:
            raise self.fault
        self.commits.append(list(changes))
        return [Done() for _ in changes]

    def prove(self) -> None:
        self.proofs += 1
        if self.unproven is not None:
            raise self.unproven

    def upkeep(self) -> bool:
        self.kept += 1
        return False

    def room(self) -> tuple[int, str]:
        return 1, ""

    def queued(self) -> int:
        return 0

    def unparked(self) -> list[Any]:
        return []

    quarantined = unparked

    def close(self) -> None:
        self.closed = True


class Bench:
    """A writer over a slate."""

    def __init__(self) -> None:
        self.slate = Slate()
        self.done: list[tuple[Any, Any, Done]] = []
        self.faults: list[BaseException] = []
        self.writer: Writer[Any] = Writer(
            lambda: self.slate,
            on_done=self.done.extend,
            on_room=lambda *_: None,
            on_fault=self.faults.append,
        )


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    one = Bench()
    yield one
    if one.writer._thread.is_alive():
        await one.writer.close()


async def test_old_things_are_looked_after_under_load(bench):
    """A writer that always has something to commit still does a piece now and then."""
    bench.writer.start()
    ends = asyncio.get_running_loop().time() + 0.6
    while asyncio.get_running_loop().time() < ends:
        bench.writer.put([(settle(1), None)])
        await asyncio.sleep(0.002)
    kept = bench.slate.kept

    assert 4 <= kept <= 30  # at the start, and each tenth of a second


async def test_answers_come_in_the_order_of_the_changes(bench):
    """In one batch when they came together, and a batch has a bound."""
    many = [f"r{n}@far.example" for n in range(1000)]
    bench.writer.put([(accept(n, *many), n) for n in range(45)])
    bench.writer.start()
    await until(lambda: len(bench.done) == 45)

    assert [token for _, token, _ in bench.done] == list(range(45))
    assert max(len(batch) for batch in bench.slate.commits) == RECIPIENTS_MAX // 1000


async def test_a_late_accept_is_not_begun(bench):
    """Its answer keeps nothing of the batch back."""
    bench.writer.put([(accept(1, by_ns=clock.monotonic_ns() - 1), 1), (accept(2), 2)])
    bench.writer.start()
    await until(lambda: len(bench.done) == 2)

    assert {token: answer.reason for _, token, answer in bench.done} == {1: "late", 2: ""}
    assert [a.message for batch in bench.slate.commits for a in batch] == [accept(2).message]


async def test_without_room_mail_is_turned_away_and_outcomes_wait(bench):
    """What delivery has done is committed as soon as there is room."""
    bench.slate.fault = Full("no room")
    bench.writer.put([(accept(1), 1), (settle(5), 2)])
    bench.writer.start()
    await until(lambda: bench.done)

    assert [(token, answer.reason) for _, token, answer in bench.done] == [(1, "full")]
    bench.slate.fault = None
    await until(lambda: len(bench.done) == 2)
    assert bench.faults == []


async def test_any_other_fault_ends_it(bench):
    """Nothing is said of what was in the batch: nobody knows."""
    bench.slate.fault = AssertionError("planted")
    bench.writer.put([(accept(1), 1)])
    bench.writer.start()
    await until(lambda: bench.faults)

    assert bench.done == []


async def test_closing_commits_what_waits(bench):
    """And leaves the file tidy."""
    bench.writer.put([(accept(n), n) for n in range(10)])
    bench.writer.start()
    await bench.writer.close()

    assert len(bench.done) == 10
    assert bench.slate.closed


async def test_nothing_is_promised_before_a_write_is_proven(bench):
    """It begins latched; what comes meanwhile is surely not taken, and outcomes wait."""
    bench.slate.unproven = Full("no room")
    bench.writer.put([(accept(1), 1), (settle(5), 2)])
    bench.writer.start()
    await until(lambda: bench.done and bench.slate.proofs >= 2)

    assert [(token, answer.reason) for _, token, answer in bench.done] == [(1, "failed")]
    assert bench.writer.latch == "unproven"
    assert bench.slate.commits == []
    assert bench.slate.kept == 0
    bench.slate.unproven = None
    await until(lambda: len(bench.done) == 2)
    assert bench.writer.latch == ""


async def test_a_proof_that_fails_ends_it(bench):
    """A disk that cannot sync is not opened by waiting."""
    bench.slate.unproven = OSError(5, "planted")
    bench.writer.put([(accept(1), 1)])
    bench.writer.start()
    await until(lambda: bench.faults)

    assert bench.done == []
    assert bench.slate.proofs == 1
    assert bench.writer.latch == "unproven"


async def test_only_a_proven_write_opens_the_latch(bench):
    """Not time: while the proof fails the outcome waits, and mail behind it is turned away."""
    bench.writer.start()
    await until(lambda: bench.writer.latch == "")
    bench.slate.fault = bench.slate.unproven = Full("no room")
    before = bench.slate.proofs
    bench.writer.put([(settle(n), n) for n in range(5)])
    await until(lambda: bench.slate.proofs >= before + 3)
    bench.slate.fault = None
    bench.writer.put([(accept(1), "mail")])
    await until(lambda: bench.done)

    assert bench.writer.latch == "full"
    assert [(token, answer.reason) for _, token, answer in bench.done] == [("mail", "full")]
    bench.slate.unproven = None
    await until(lambda: len(bench.done) == 6)
    assert bench.writer.latch == ""
    assert [token for _, token, _ in bench.done[1:]] == list(range(5))


async def test_outcomes_go_on_when_it_was_new_mail_that_did_not_fit(bench):
    """Once that is turned away they are committed at once, not after a pause."""

    def commit(changes):
        if any(isinstance(change, Accept) for change in changes):
            raise Full("no room")
        return [Done() for _ in changes]

    bench.slate.commit = commit
    bench.writer.start()
    await until(lambda: bench.writer.latch == "")
    bench.slate.unproven, before = None, bench.slate.proofs
    bench.writer.put([(accept(1), 1), (settle(5), 2)])
    await until(lambda: len(bench.done) == 2)

    assert bench.slate.proofs == before + 1


async def test_fewer_at_a_time_while_there_is_room_for_few(bench):
    """What is too much for the room that is left goes in pieces."""
    sizes = []

    def commit(changes):
        sizes.append(len(changes))
        if len(changes) > 10:
            raise Full("no room")
        return [Done() for _ in changes]

    bench.slate.commit = commit
    bench.writer.put([(settle(n), n) for n in range(60)])
    bench.writer.start()
    await until(lambda: len(bench.done) == 60)

    assert [token for _, token, _ in bench.done] == list(range(60))
    assert len([size for size in sizes if size > 10]) <= 3


async def test_a_disk_that_hangs_shows(bench, monkeypatch):
    """While the thread is held up nothing may be promised; when it is back, all goes on."""
    monkeypatch.setattr(writer_module, "HELD_UP_S", 0.05)
    go = threading.Event()
    real = bench.slate.commit
    bench.slate.commit = lambda changes: go.wait(10) and real(changes)
    bench.writer.start()
    await until(lambda: bench.writer.latch == "")
    bench.writer.put([(settle(1), 1)])
    try:
        await until(lambda: bench.writer.latch == "held up")
    finally:
        go.set()
    await until(lambda: bench.done and bench.writer.latch == "")

    assert [token for _, token, _ in bench.done] == [1]
