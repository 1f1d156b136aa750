"""One shard as others meet it: its socket, its writer, and what it hands out."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from postweir.judge.ports import Judge
from postweir.runtime import clock, link
from postweir.runtime.link import Link
from postweir.runtime.log import Log
from postweir.runtime.metrics import Metrics
from postweir.runtime.settings import Settings
from postweir.spool.giving import Giving
from postweir.spool.later import Later
from postweir.spool.leaving import forget_file, orphans, outs_of, sound
from postweir.spool.meters import SpoolMetrics
from postweir.spool.obeying import Obeying
from postweir.spool.ports import (
    Accept,
    Change,
    Credit,
    Damaged,
    Done,
    Health,
    Hello,
    Judged,
    Quarantine,
    Read,
    Reader,
    Refusal,
    Request,
    Requests,
    Safe,
    Settle,
    Settled,
    ShardFrame,
    Sited,
    Unsafe,
    Wake,
)
from postweir.spool.reading import Reading
from postweir.spool.room import Room
from postweir.spool.shard import Outgoing
from postweir.spool.states import RECIPIENT
from postweir.spool.writer import RoomyStore, Writer

BEAT_S = 0.05
SWEEP_S = 600.0
SETTLED_MAX = 10_000  # in one frame
IN_DOUBT_MAX = 1000  # a question an edge at each of its links: some dozen
UNPROVEN_S = 2.0  # a start that takes no mail for so long says why
HANG_UP_S = 1.0  # at a drain, for the last answers to be read


class Service:
    """One shard. Built on the loop; `start` opens the file and the socket."""

    def __init__(
        self,
        index: int,
        *,
        run: Path,
        bodies: Path,
        settings: Settings,
        open_store: Callable[[], RoomyStore],
        open_reader: Callable[[AbstractSet[int]], Reader],
        requests: Requests,
        judge: Judge,
        log: Log,
        metrics: Metrics,
        fail: Callable[..., None],
        incarnation: int = 0,
    ) -> None:
        self._index, self._path, self._bodies = index, run / f"shard-{index}.sock", bodies
        self.settings = settings
        self._log, self._fail = log, fail
        self._metrics = SpoolMetrics(metrics)
        self._loop = asyncio.get_running_loop()
        self._incarnation = incarnation
        self._outgoing = Outgoing(self._loop.time())
        self._room = Room()
        self._writer: Writer[RoomyStore] = Writer(
            open_store,
            on_done=self._on_done,
            on_room=self._on_room,
            on_fault=self._on_fault,
            on_commit=self._on_commit,
        )
        self._links: set[Link] = set()
        self._alone = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: asyncio.AbstractServer | None = None
        self._checking = ThreadPoolExecutor(1, "check")
        self._asking = ThreadPoolExecutor(1, "requests")
        self._reading = Reading(
            lambda: open_reader(self._outgoing.out.keys()), log, on_damage=self._on_fault
        )
        self._giving = Giving(
            self._outgoing,
            self._writer,
            checking=self._checking,
            log=log,
            may_expire=self._may_expire,
        )
        self._obeying = Obeying(requests, change=self.change, pool=self._asking, log=log)
        self._later = Later(judge, fetch=self._pending, judged=self.change, log=log)
        self._steps = clock.StepWatch()
        self._latch = "unproven"  # as it was last said
        self._latched_s = self._loop.time()
        self._latch_told = False
        self._owed: dict[tuple[int, int], Link] = {}  # outcomes on their way to the disk: for whom
        self._in_doubt: list[tuple[Link, Read]] = []  # asked before what is in the file was proven

    async def start(self) -> None:
        """Open the file, read what is due when, and answer on the socket."""
        self._writer.start()
        await self._giving.read_calendar()
        self._room.seen(*await self._writer.ask(lambda store: (*store.room(), store.queued())))
        self._steps = clock.StepWatch(await self._writer.ask(lambda store: store.clock_us()))
        self._room.state = ""
        self._server = await link.serve(
            self._path, ShardFrame, self._on_link, self._on_frames, self._on_lost
        )
        done = await self._writer.ask(lambda store: store.request_done())
        works = (self._beat(), self._obeying.run(done), self._sweep(), self._later.run())
        self._tasks = [asyncio.create_task(work) for work in works]
        for task in self._tasks:
            task.add_done_callback(self._on_task_end)

    async def close(self) -> None:
        """Take no more mail, commit what waits and answer it, leave the file tidy."""
        self._room.state = "draining"
        self._say_health()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        await self._reading.let_go()  # else our own readers keep the log from going
        await self._writer.close()  # and what it had to say has been said: it came before this
        await self._hang_up()
        await self._reading.close()
        for pool in (self._checking, self._asking):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _hang_up(self) -> None:
        """Close all links once their last answers are out: each is a 250 or a 451 of somebody."""
        for one in list(self._links):
            one.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HANG_UP_S):
                while self._links:
                    self._alone.clear()
                    await self._alone.wait()

    def health(self) -> dict[str, Any]:
        """Return what the health answer adds."""
        reason = self._reason()
        return {"accepts": not reason, "reason": reason, "queued": self._room.queued}

    async def change(self, change: Change) -> Done:
        """Commit one change and return what came of it."""
        answer: asyncio.Future[Done] = self._loop.create_future()
        self._writer.put([(change, answer)])
        return await answer

    # What arrives

    def _on_link(self, one: Link) -> None:
        self._links.add(one)

    def _on_lost(self, one: Link) -> None:
        self._links.discard(one)
        self._outgoing.lost(one, self._loop.time())
        if not self._links:
            self._alone.set()

    def _on_frames(self, one: Link, frames: Sequence[Any]) -> None:
        changes: list[tuple[Change, object]] = []
        for frame in frames:
            if not isinstance(one.state, Hello):
                if not isinstance(frame, Hello) or not self._greet(one, frame, changes):
                    one.abort()
                    break
                continue
            match frame:
                case Accept():
                    self._take(one, frame, changes)
                case Settle() if one.state.process == "delivery":
                    self._settle(one, frame, changes)
                case Credit() | Read() | Wake():
                    self._heed(one, frame)
                case Sited() if one.state.process == "delivery":
                    changes.append((frame, one))
                case Refusal() if self._room.records():
                    changes.append((frame, None))
                case _:
                    pass
        if changes:
            self._writer.put(changes)
        self._giving.soon()

    def _greet(self, one: Link, hello: Hello, changes: list[tuple[Change, object]]) -> bool:
        if hello.version < 1 or (hello.process == "delivery" and not 1 <= hello.index <= hello.of):
            return False
        one.state = hello
        if hello.process == "delivery":
            old = self._outgoing.hello(hello, one)
            if isinstance(old, Link):
                old.abort()
            for settle in hello.unsettled:
                self._settle(one, settle, changes)
            self._log.info(
                "spool.delivery",
                index=hello.index,
                in_hand=len(hello.in_hand),
                unsettled=len(hello.unsettled),
            )
        one.send(self._health())
        return True

    def _heed(self, one: Link, frame: Credit | Read | Wake) -> None:
        """What changes nothing that is kept."""
        match frame:
            case Credit():
                changed = self._outgoing.credit(one, frame.bucket, frame.more)
                if frame.more < 0:
                    one.send(Credit(frame.bucket, changed))
            case Read():
                self._ask(one, frame)
            case Wake():
                self._obeying.wake()

    def _settle(self, one: Link, settle: Settle, changes: list[tuple[Change, object]]) -> None:
        """Delivery says it until it is answered; while there is no room that would pile up."""
        named = (settle.recipient, settle.attempt)
        if settle.outcome in RECIPIENT:
            if named not in self._owed:
                changes.append((settle, one))
            self._owed[named] = one  # who said it last is there to be answered

    def _ask(self, one: Link, read: Read) -> None:
        """Answer from the file; what was committed, once it is known to last."""
        if read.question == "committed" and self._writer.latch == "unproven":
            if len(self._in_doubt) < IN_DOUBT_MAX:
                self._in_doubt.append((one, read))
            return
        self._reading.ask(one, read)

    def _take(self, one: Link, accept: Accept, changes: list[tuple[Change, object]]) -> None:
        reason = self._reason() or ("" if sound(accept) else "corrupt")
        if reason:
            self._metrics.accepts.labels(reason).inc()
            one.send(Unsafe(accept.ask, reason))
            return
        self._room.offered(accept)
        changes.append((accept, one))

    # What was committed

    def _on_commit(self, took_s: float, count: int) -> None:
        self._metrics.commit_s.observe(took_s)
        self._metrics.commit_changes.observe(count)

    def _on_room(
        self,
        free_bytes: int,
        wrong: str,
        queued: int,
        due: Sequence[tuple[int, int, int]],
        damaged: Sequence[Quarantine],
    ) -> None:
        for found in damaged:
            self._metrics.changes.labels("corrupt").inc()
            self._log.error("spool.corrupt", message=found.message, what=found.what)
        if wrong and not self._room.wrong:
            self._log.error("spool.place", wrong=wrong, path=str(self._bodies.parent))
        elif self._room.wrong and not wrong:
            self._log.info("spool.place", wrong="")
        self._room.seen(free_bytes, wrong, queued)
        self._giving.marked(due)

    def _on_fault(self, fault: BaseException) -> None:
        """On the writer's thread: nothing more may be said to be safe, so it ends here."""
        event = "spool.damaged" if isinstance(fault, Damaged) else "spool.fault"
        ours = not isinstance(fault, OSError)  # nobody foresaw it: the file is looked over
        self._fail(event, shard=self._index, fault=repr(fault), ours=ours)

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        # A shard that no longer beats, obeys or judges later is not half alive: it starts anew.
        if not task.cancelled() and task.exception() is not None:
            self._fail("spool.task", shard=self._index, fault=repr(task.exception()))

    def _on_done(self, done: Sequence[tuple[Change, Any, Done]]) -> None:
        now_us, now_s = clock.wall_us(), self._loop.time()
        settled: dict[Link, list[tuple[int, int]]] = defaultdict(list)
        suspended = False
        for change, token, answer in done:
            match change:
                case Accept():
                    self._accepted(change, token, answer, now_us, now_s)
                case Settle():
                    named, changed = (change.recipient, change.attempt), _has_changed(answer)
                    self._outgoing.settled(*named, changed=changed)
                    settled[self._owed.pop(named, token)].append(named)
                case Sited():
                    changed = _has_changed(answer)
                    self._outgoing.handed_on(
                        change.recipient, change.attempt, token, changed=changed
                    )
                case Refusal():
                    self._room.recorded()
                case Request(verb="suspend"):
                    suspended = True
                case _:
                    pass
            self._outgoing.forget(answer.ended)
            for bucket, lane, due_us in answer.due:
                self._outgoing.mark(bucket, lane, due_us)
            self._note(change, answer)
            if isinstance(token, asyncio.Future) and not token.done():
                token.set_result(answer)
        if suspended:  # last, for what was accepted in the same commit did not know of it
            self._outgoing.forget_ready()
        for one, pairs in settled.items():
            for at in range(0, len(pairs), SETTLED_MAX):
                one.send(Settled(pairs[at : at + SETTLED_MAX]))
        self._giving.soon()

    def _accepted(self, accept: Accept, one: Link, answer: Done, now_us: int, now_s: float) -> None:
        self._room.ended(accept, taken=not answer.reason)
        self._metrics.accepts.labels(answer.reason or "safe").inc()
        if answer.reason:
            self._log.warning("spool.not_taken", message=accept.message, reason=answer.reason)
            one.send(Unsafe(accept.ask, answer.reason))
            return
        one.send(Safe(accept.ask))
        self._log.info(
            "spool.accepted",
            message=accept.message,
            sender=accept.sender.key,
            bytes=accept.length,
            verb=accept.verdict.verb if accept.verdict else "pending",
        )
        if answer.ready:
            outs, content = outs_of(accept, answer, self._bodies, now_us)
            self._outgoing.fresh(outs, content, due_us=now_us, now_s=now_s)

    def _note(self, change: Change, answer: Done) -> None:
        for kind in answer.noted:
            self._metrics.changes.labels(kind).inc()
        if "corrupt" in answer.noted:
            assert isinstance(change, Quarantine)
            self._log.error("spool.corrupt", message=change.message, what=change.what)
        elif "bounce_capped" in answer.noted:
            self._log.warning("spool.bounce_capped", change=type(change).__name__)
        elif "header_dropped" in answer.noted:
            assert isinstance(change, Judged)
            self._log.warning(
                "spool.header_dropped", message=change.message, rule=change.verdict.rule
            )
        if isinstance(change, Request):
            self._log.info(
                "spool.request", number=change.number, verb=change.verb, scope=change.scope
            )

    # What it does by itself

    def _reason(self) -> str:
        """Return why no mail is taken now, or ""."""
        return self._room.reason(self.settings.spool) or self._writer.latch

    def _health(self) -> Health:
        reason, room = self._reason(), self._room
        return Health(self.settings.hash, not reason, reason, room.free_bytes, room.queued,
                      self._incarnation, not self._writer.latch)  # fmt: skip

    def _say_health(self) -> None:
        health = self._health()
        for one in self._links:
            if one.state is not None:
                one.send(health)

    def _look_at_latch(self) -> None:
        """Say when it closes and opens; answer what had to wait for it."""
        latch, now_s = self._writer.latch, self._loop.time()
        self._metrics.latched.set(bool(latch))
        self._metrics.outcomes_waiting.set(len(self._owed))
        if latch == self._latch:
            if (
                latch == "unproven"
                and not self._latch_told
                and now_s - self._latched_s > UNPROVEN_S
            ):
                self._latch_told = True
                self._log.error("spool.latched", reason=latch, why=self._writer.obstacle)
            return
        if latch:
            self._latched_s = now_s
            self._log.error("spool.latched", reason=latch, outcomes_waiting=len(self._owed))
        else:
            self._log.info(
                "spool.unlatched", reason=self._latch, after_s=round(now_s - self._latched_s, 2)
            )
        self._latch = latch
        if latch != "unproven":
            in_doubt, self._in_doubt = self._in_doubt, []
            for one, read in in_doubt:
                if one in self._links:
                    self._reading.ask(one, read)

    async def _beat(self) -> None:
        while True:
            self._look_at_latch()
            self._say_health()
            if self._obeying.may_go:
                self._outgoing.tick(self._loop.time())
            self._may_expire()
            self._metrics.queued.set(self._room.queued)
            self._metrics.ready.set(self._outgoing.ready)
            self._metrics.in_hand.set(len(self._outgoing.out))
            self._metrics.free.set(self._room.free_bytes)
            self._metrics.possible_duplicates.set(self._outgoing.possible_duplicates)
            self._metrics.records_lost.set(self._room.records_lost)
            self._giving.soon()
            await asyncio.sleep(BEAT_S)

    def _may_expire(self) -> bool:
        """Look at the clock; False for an hour after it was set (borders.md)."""
        seen = self._steps.steps
        stepped = self._steps.look()
        if self._steps.steps > seen:
            self._log.warning("spool.clock_set", expiry="off for an hour")
            self._outgoing.reload_wanted = True  # our calendar was made by the other clock
        return not stepped

    async def _sweep(self) -> None:
        """Remove body files that no row names: of accepts that were never sent."""
        while True:
            try:
                names = await self._loop.run_in_executor(self._checking, orphans, self._bodies)
            except OSError as fault:
                self._log.error("spool.sweep_failed", fault=str(fault))
                names = []
            removed = 0
            for name in names:
                removed += await self._writer.ask(forget_file(name))
            if removed:
                self._log.info("spool.swept", files=removed)
            await asyncio.sleep(SWEEP_S)

    async def _pending(self, after: int, count_max: int) -> Sequence[Accept]:
        found: Sequence[Accept] = await self._writer.ask(
            lambda store: store.pending(after, count_max)
        )
        return found


def _has_changed(answer: Done) -> bool:
    """True when an outcome was taken; a repeat changes nothing."""
    return bool(answer.due or answer.ended)
