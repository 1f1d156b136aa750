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
from postweir.spool import questions
from postweir.spool.later import Later
from postweir.spool.leaving import (
    damage_of_file,
    forget_file,
    orphans,
    outs_of,
    read_lane,
    sound,
)
from postweir.spool.meters import SpoolMetrics
from postweir.spool.ports import (
    Accept,
    Change,
    Content,
    Credit,
    Done,
    Health,
    Hello,
    Out,
    Page,
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
from postweir.spool.shard import Fetch, Outgoing
from postweir.spool.states import RECIPIENT
from postweir.spool.writer import RoomyStore, Writer

BEAT_S = 0.05
ACCEPTS_WAITING_MAX = 20_000  # more than two seconds of the disk: refuse fast instead
BYTES_WAITING_MAX = 256 * 1024 * 1024
READS_WAITING_MAX = 64  # of one neighbour; commands ask a page at a time
REQUESTS_S = 0.25
REQUESTS_WAIT_S = 10.0  # for the first look at what operators asked, before anything goes out
SWEEP_S = 600.0
SETTLED_MAX = 10_000  # in one frame


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
    ) -> None:
        self._index, self._path, self._bodies = index, run / f"shard-{index}.sock", bodies
        self.settings = settings
        self._log, self._fail = log, fail
        self._metrics = SpoolMetrics(metrics)
        self._loop = asyncio.get_running_loop()
        self._outgoing = Outgoing(self._loop.time())
        self._open_reader = open_reader
        self._requests, self._judge = requests, judge
        self._writer: Writer[RoomyStore] = Writer(
            open_store,
            on_done=self._on_done,
            on_room=self._on_room,
            on_fault=self._on_fault,
            on_commit=self._on_commit,
        )
        self._links: set[Link] = set()
        self._reads: dict[Link, int] = {}
        self._started_s = self._loop.time()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: asyncio.AbstractServer | None = None
        self._reading = ThreadPoolExecutor(1, "reader")
        self._checking = ThreadPoolExecutor(1, "check")
        self._asking = ThreadPoolExecutor(1, "requests")
        self._reader: Reader | None = None
        self._steps = clock.StepWatch()
        self._may_expire = True
        self._state = "starting"
        self._free_bytes, self._wrong, self._queued = 0, "", 0
        self._accepts, self._bytes = 0, 0
        self._accepts_unseen = 0  # recipients accepted since the store last said how many
        self._pushing = False
        self._woken = asyncio.Event()
        self._requests_read = False

    async def start(self) -> None:
        """Open the file, read what is due when, and answer on the socket."""
        self._writer.start()
        await self._read_calendar()
        self._free_bytes, self._wrong, self._queued = await self._writer.ask(
            lambda store: (*store.room(), store.queued())
        )
        self._state = ""
        self._server = await link.serve(
            self._path, ShardFrame, self._on_link, self._on_frames, self._on_lost
        )
        done = await self._writer.ask(lambda store: store.request_done())
        self._tasks = [
            asyncio.create_task(self._beat()),
            asyncio.create_task(self._obey(done)),
            asyncio.create_task(self._sweep()),
            asyncio.create_task(
                Later(
                    self._judge, fetch=self._pending, judged=self.change, log=self._log
                ).run()
            ),
        ]  # fmt: skip
        for task in self._tasks:
            task.add_done_callback(self._on_task_end)

    async def close(self) -> None:
        """Take no more mail, commit what waits, leave the file tidy."""
        self._state = "draining"
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        await self._writer.close()
        await asyncio.sleep(0)  # the last answers are on their way to the loop
        for one in list(self._links):
            one.close()
        if self._reader is not None:
            await self._loop.run_in_executor(self._reading, self._reader.close)
        for pool in (self._reading, self._checking, self._asking):
            pool.shutdown(wait=False, cancel_futures=True)

    def health(self) -> dict[str, Any]:
        """Return what the health answer adds."""
        reason = self._reason()
        return {"accepts": not reason, "reason": reason, "queued": self._queued}

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
                case Settle() if frame.outcome in RECIPIENT and one.state.process == "delivery":
                    changes.append((frame, one))
                case Credit():
                    self._outgoing.credit(one, frame.bucket, frame.more)
                case Sited() | Refusal() | Quarantine():
                    changes.append((frame, None))
                case Read():
                    self._read(one, frame)
                case Wake():
                    self._woken.set()
                case _:
                    pass
        if changes:
            self._writer.put(changes)
        self._push_soon()

    def _greet(self, one: Link, hello: Hello, changes: list[tuple[Change, object]]) -> bool:
        if hello.version < 1 or (hello.process == "delivery" and not 1 <= hello.index <= hello.of):
            return False
        one.state = hello
        if hello.process == "delivery":
            old = self._outgoing.hello(hello, one)
            if isinstance(old, Link):
                old.abort()
            changes += [(settle, one) for settle in hello.unsettled if settle.outcome in RECIPIENT]
            self._log.info(
                "spool.delivery",
                index=hello.index,
                in_hand=len(hello.in_hand),
                unsettled=len(hello.unsettled),
            )
        one.send(self._health())
        return True

    def _take(self, one: Link, accept: Accept, changes: list[tuple[Change, object]]) -> None:
        reason = self._reason() or ("" if sound(accept) else "corrupt")
        if reason:
            self._metrics.accepts.labels(reason).inc()
            one.send(Unsafe(accept.ask, reason))
            return
        self._accepts += 1
        self._bytes += len(accept.body or b"")
        changes.append((accept, one))

    def _read(self, one: Link, read: Read) -> None:
        waiting = self._reads.get(one, 0)
        if waiting >= READS_WAITING_MAX:
            one.abort()
            return
        self._reads[one] = waiting + 1
        job = self._loop.run_in_executor(self._reading, self._answer, read)
        job.add_done_callback(lambda done: self._reply(one, done))

    def _answer(self, read: Read) -> Page:
        if self._reader is None:
            self._reader = self._open_reader(self._outgoing.out.keys())
        return questions.answer(self._reader, read)

    def _reply(self, one: Link, done: "asyncio.Future[Page]") -> None:
        left = self._reads.get(one, 1) - 1
        if left > 0:
            self._reads[one] = left
        else:
            self._reads.pop(one, None)
        if done.cancelled():
            return
        fault = done.exception()
        if fault is not None:
            # Whoever asked hears a closed connection, not an empty answer.
            self._log.error("spool.read_failed", fault=str(fault))
            one.abort()
            return
        one.send(done.result())

    # What was committed

    def _on_commit(self, took_s: float, count: int) -> None:
        self._metrics.commit_s.observe(took_s)
        self._metrics.commit_changes.observe(count)

    def _on_room(
        self, free_bytes: int, wrong: str, queued: int, due: Sequence[tuple[int, int, int]]
    ) -> None:
        self._free_bytes, self._queued, self._accepts_unseen = free_bytes, queued, 0
        if wrong and not self._wrong:
            self._log.error("spool.place", wrong=wrong)
        self._wrong = wrong
        for bucket, lane, due_us in due:
            self._outgoing.mark(bucket, lane, due_us)
        self._push_soon()

    def _on_fault(self, fault: BaseException) -> None:
        """On the writer's thread: nothing more may be said to be safe, so it ends here."""
        self._fail("spool.fault", shard=self._index, fault=repr(fault))

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
                case Settle() | Sited():
                    changed = bool(answer.due or answer.ended)
                    self._outgoing.settled(change.recipient, change.attempt, changed=changed)
                    if isinstance(change, Settle):
                        settled[token].append((change.recipient, change.attempt))
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
        self._push_soon()

    def _accepted(self, accept: Accept, one: Link, answer: Done, now_us: int, now_s: float) -> None:
        self._accepts -= 1
        self._bytes -= len(accept.body or b"")
        self._metrics.accepts.labels(answer.reason or "safe").inc()
        if answer.reason:
            self._log.warning("spool.not_taken", message=accept.message, reason=answer.reason)
            one.send(Unsafe(accept.ask, answer.reason))
            return
        one.send(Safe(accept.ask))
        self._accepts_unseen += len(accept.envelope.recipients)
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
        if isinstance(change, Request):
            self._log.info(
                "spool.request", number=change.number, verb=change.verb, scope=change.scope
            )

    # What goes out

    def _push_soon(self) -> None:
        if not self._pushing:
            self._pushing = True
            self._loop.call_soon(self._push)

    def _push(self) -> None:
        self._pushing = False
        now_s = self._loop.time()
        for one, frames in self._outgoing.take(now_s, may_expire=self._may_expire):
            assert isinstance(one, Link)
            for frame in frames:
                self._send(one, frame)
        known = self._outgoing.known
        for fetch in self._outgoing.fetches(clock.wall_us()):
            self._fetch(fetch, known)
        checks, self._outgoing.to_check = self._outgoing.to_check, []
        for content in checks:
            self._check(content)
        if self._outgoing.reload_wanted:
            self._outgoing.reload_wanted = False
            self._writer.call(lambda store: store.earliest(), self._calendar)

    def _send(self, one: Link, frame: Content | Out) -> None:
        one.send(frame)
        if isinstance(frame, Out) and frame.possible_duplicate:
            self._log.warning(
                "spool.possible_duplicate", message=frame.message, recipient=frame.recipient
            )

    def _fetch(self, fetch: Fetch, known: set[int]) -> None:
        def then(found: tuple[list[tuple[Out, Content]], int | None]) -> None:
            self._outgoing.fetched(fetch, *found, self._loop.time())
            self._push_soon()

        self._writer.call(lambda store: read_lane(store, fetch, known), then)

    def _check(self, content: Content) -> None:
        job = self._loop.run_in_executor(self._checking, damage_of_file, content)

        def then(done: "asyncio.Future[str]") -> None:
            if done.cancelled():
                return
            wrong = "missing" if done.exception() else done.result()
            self._outgoing.checked(content.message, good=not wrong)
            if wrong:
                self._writer.put([(Quarantine(content.message, wrong), None)])
            self._push_soon()

        job.add_done_callback(then)

    async def _read_calendar(self) -> None:
        self._calendar(await self._writer.ask(lambda store: store.earliest()))

    def _calendar(self, lanes: Sequence[tuple[int, int, int]]) -> None:
        for bucket, lane, due_us in lanes:
            self._outgoing.mark(bucket, lane, due_us)
        self._push_soon()

    # What it does by itself

    def _reason(self) -> str:
        """Return why no mail is taken now, or ""."""
        spool = self.settings.spool
        if self._state or self._wrong:
            return self._state or self._wrong
        if self._free_bytes < spool.free_bytes_min:
            return "full"
        if self._queued + self._accepts_unseen >= spool.queued_max:
            return "full"
        if self._accepts >= ACCEPTS_WAITING_MAX or self._bytes >= BYTES_WAITING_MAX:
            return "busy"
        return ""

    def _health(self) -> Health:
        reason = self._reason()
        return Health(self.settings.hash, not reason, reason, self._free_bytes, self._queued)

    async def _beat(self) -> None:
        while True:
            now_s = self._loop.time()
            health = self._health()
            for one in self._links:
                if one.state is not None:
                    one.send(health)
            if self._requests_read or now_s - self._started_s > REQUESTS_WAIT_S:
                self._outgoing.tick(now_s)
            self._may_expire = not self._steps.look()
            self._metrics.queued.set(self._queued)
            self._metrics.ready.set(self._outgoing.ready)
            self._metrics.in_hand.set(len(self._outgoing.out))
            self._metrics.free.set(self._free_bytes)
            self._metrics.possible_duplicates.set(self._outgoing.possible_duplicates)
            self._push_soon()
            await asyncio.sleep(BEAT_S)

    async def _obey(self, done: int) -> None:
        """Look for operators' requests and do them one after the other."""
        faulty = False
        while True:
            self._woken.clear()
            try:
                found = await self._loop.run_in_executor(self._asking, self._requests.after, done)
                faulty, self._requests_read = False, True
            except OSError as fault:
                if not faulty:
                    self._log.error("spool.requests_unreadable", fault=str(fault))
                faulty, found = True, []
            for request in found:
                while (await self.change(request)).more:
                    pass
                done = request.number
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), REQUESTS_S)

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
