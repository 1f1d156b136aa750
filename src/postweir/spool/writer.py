"""The one thread that owns the store: it commits all that waits, then hands the answers back.

The latch: it begins closed, closes whenever the store finds no room, and counts as closed while
the thread is held up at the disk. While it is closed new mail is turned away, and nothing is
handed out: a delivered message whose outcome cannot be recorded would be sent twice. It opens by
one thing only, a write that the store has proven.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from postweir.runtime import clock
from postweir.spool.ports import Accept, Change, Done, Full, Quarantine, Refusal, Store

RECIPIENTS_MAX = 20_000  # in one commit: some 200 ms of the disk, so that answers keep coming
BYTES_MAX = 64 * 1024 * 1024  # of inline bodies in one commit
LOOK_S = 0.25  # how long a quiet writer sleeps; how often it says how much room there is
KEEP_S = 0.1  # how often a busy one does a piece of what retention asks: a tenth of its time
HELD_UP_S = 2.0  # ten times the largest commit; past it the disk hangs, and nobody should wait

S = TypeVar("S", bound="RoomyStore")
Token = Any  # what the loop gave with a change and gets back with its answer
OnRoom = Callable[[int, str, int, Sequence[tuple[int, int, int]], Sequence[Quarantine]], None]
OnDone = Callable[[Sequence[tuple[Change, Token, Done]]], None]


class RoomyStore(Store, Protocol):
    """A store that can say how much room it has."""

    def prove(self) -> None:
        """Show that what is committed stays: a write and a sync of their own.

        The first time all that was found at the start is brought to safety before. Raises Full:
        not now; else as `commit`.
        """
        ...

    def room(self) -> tuple[int, str]:
        """Return free bytes and what is wrong with the place, or "". Raises OSError."""
        ...

    def unparked(self) -> Sequence[tuple[int, int, int]]:
        """Return (bucket, lane, due_us) of what upkeep made due since the last call."""
        ...

    def quarantined(self) -> Sequence[Quarantine]:
        """Return what was found damaged and is held now, since the last call."""
        ...

    def clock_us(self) -> int | None:
        """Return wall minus monotonic time as it was before any step that is remembered."""
        ...

    def forget_file(self, name: str) -> bool:
        """Remove a body file that no row names; True when it was one."""
        ...


class Writer(Generic[S]):
    """Commits in the order in which changes were put; answers come back in that order too."""

    def __init__(
        self,
        open_store: Callable[[], S],
        *,
        on_done: OnDone,
        on_room: OnRoom,
        on_fault: Callable[[BaseException], None],
        on_commit: Callable[[float, int], None] = lambda _, __: None,
    ) -> None:
        self._open_store = open_store
        self._on_done, self._on_room, self._on_fault = on_done, on_room, on_fault
        self._on_commit = on_commit
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._waiting: list[tuple[Change, Token]] = []
        self._calls: list[tuple[Callable[[S], Any], Callable[[Any], None]]] = []
        self._closing = False
        self._latch = "unproven"  # why nothing is taken or handed out, "" while it is open
        self.obstacle = ""  # what stood in the way of the last proof
        self._prove_at_ns = 0  # when to try the latch again
        self._recipients_max = RECIPIENTS_MAX  # fewer while there is room for few only
        self._began_ns = 0  # when the thread went to work, 0 while it waits
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    @property
    def latch(self) -> str:
        """Why nothing may be promised or handed out now: unproven, full, held up; "": open."""
        if self._latch:
            return self._latch
        began_ns = self._began_ns  # the thread's; it may change between two looks
        held_up = began_ns and clock.monotonic_ns() - began_ns > HELD_UP_S * 1e9
        return "held up" if held_up else ""

    def start(self) -> None:
        """Open the store on the thread and begin."""
        self._thread.start()

    def put(self, changes: Sequence[tuple[Change, Token]]) -> None:
        """Commit these; the answers come through `on_done`, on the loop."""
        self._inbox.put(changes)

    def call(self, ask: Callable[[S], Any], then: Callable[[Any], None]) -> None:
        """Ask the store something between two commits; `then` gets the answer, on the loop."""
        self._inbox.put((ask, then))

    async def ask(self, ask: Callable[[S], Any]) -> Any:
        """Ask the store something and wait for the answer."""
        answer: asyncio.Future[Any] = self._loop.create_future()

        def then(value: Any) -> None:
            if not answer.done():
                answer.set_result(value)

        self.call(ask, then)
        return await answer

    async def close(self) -> None:
        """Commit what waits and close the store."""
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        # Whatever goes wrong in here, nobody may be told Safe any more: the process ends.
        try:
            self._work(self._open_store())
        except BaseException as fault:  # noqa: BLE001
            self._on_fault(fault)

    def _work(self, store: S) -> None:
        looked_ns, kept_ns, more = 0, 0, True
        while True:
            self._began_ns = 0
            self._gather(0.0 if more or self._may_go() else LOOK_S)
            now_ns = self._began_ns = clock.monotonic_ns()
            busy = self._serve(store, now_ns)
            if self._closing and not self._waiting and self._inbox.empty():
                break
            if not self._latch and (not busy or now_ns - kept_ns > KEEP_S * 1e9):
                more, kept_ns = self._keep(store), now_ns
            more = more and not self._latch
            if now_ns - looked_ns > LOOK_S * 1e9:
                looked_ns = now_ns
                self._look(store)
        store.close()

    def _serve(self, store: S, now_ns: int) -> bool:
        """Do what others wait for; False when there was nothing."""
        if self._latch and now_ns >= self._prove_at_ns:
            self._prove(store)
        busy = self._commit(store) or bool(self._calls)
        for ask, then in self._take_calls():
            self._began_ns = clock.monotonic_ns()  # many of them are no disk that hangs
            self._post(then, ask(store))
        return busy

    def _look(self, store: S) -> None:
        """Say how things stand."""
        free_bytes, wrong = store.room()
        self._post(
            self._on_room, free_bytes, wrong, store.queued(), store.unparked(), store.quarantined()
        )

    def _prove(self, store: S) -> None:
        """Open the latch if a write can be shown to last."""
        try:
            store.prove()
        except Full as full:
            self.obstacle = str(full)
            self._shut()
        else:
            self._latch = ""

    def _shut(self, wait_s: float = LOOK_S) -> None:
        self._latch = self._latch or "full"
        self._prove_at_ns = clock.monotonic_ns() + int(wait_s * 1e9)

    def _may_go(self) -> bool:
        if self._latch:
            return clock.monotonic_ns() >= self._prove_at_ns
        return bool(self._waiting)

    def _gather(self, wait_s: float) -> None:
        """Take all that was put; wait a little when there is nothing."""
        try:
            item = self._inbox.get(timeout=wait_s) if wait_s else self._inbox.get_nowait()
            while True:
                if item is None:
                    self._closing = True
                elif isinstance(item, tuple):
                    self._calls.append(item)
                else:
                    self._waiting += item
                item = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _take_calls(self) -> list[tuple[Callable[[S], Any], Callable[[Any], None]]]:
        calls, self._calls = self._calls, []
        return calls

    def _commit(self, store: S) -> bool:
        """Commit the next batch of what waits; False when there was nothing."""
        batch = self._next_batch()
        if not batch:
            return False
        now_ns = clock.monotonic_ns()
        done: list[tuple[Change, Token, Done]] = []
        fit: list[tuple[Change, Token]] = []
        for change, token in batch:
            # Whoever waited for it has answered 451 by now: it must not become ours as well.
            if isinstance(change, Accept) and change.by_ns and change.by_ns < now_ns:
                done.append((change, token, Done("late")))
            else:
                fit.append((change, token))
        try:
            if self._latch:
                raise Full
            answers = store.commit([change for change, _ in fit]) if fit else []
        except Full:
            self._no_room(fit, done)
        else:
            if not self._waiting:
                self._recipients_max = RECIPIENTS_MAX
            done += [(c, t, a) for (c, t), a in zip(fit, answers, strict=True)]
            if fit:
                self._on_commit((clock.monotonic_ns() - now_ns) / 1e9, len(fit))
        self._post(self._on_done, done)
        return bool(done)

    def _no_room(
        self, fit: list[tuple[Change, Token]], done: list[tuple[Change, Token, Done]]
    ) -> None:
        """New mail is turned away; outcomes wait, for delivery keeps them too."""
        why = "failed" if self._latch == "unproven" else "full"
        kept: list[tuple[Change, Token]] = []
        for change, token in fit:
            if isinstance(change, Accept | Refusal):
                done.append((change, token, Done(why)))
            else:
                kept.append((change, token))
        if not self._latch:
            # What filled it may just have been turned away: then the rest goes at once.
            self._shut(0.0 if len(kept) < len(fit) else LOOK_S)
            self._recipients_max = max(1, len(kept) // 2)
        self._waiting = kept + self._waiting
        if self._closing:
            self._waiting = []

    def _next_batch(self) -> list[tuple[Change, Token]]:
        if self._latch:  # all of it: new mail behind what is kept must hear so, too
            batch, self._waiting = self._waiting, []
            return batch
        recipients = size = at = 0
        for at, (change, _) in enumerate(self._waiting, 1):  # noqa: B007
            if isinstance(change, Accept):
                recipients += len(change.envelope.recipients)
                size += len(change.body or b"")
            else:
                recipients += 1
            if recipients >= self._recipients_max or size >= BYTES_MAX:
                break
        batch, self._waiting = self._waiting[:at], self._waiting[at:]
        return batch

    def _keep(self, store: S) -> bool:
        try:
            return store.upkeep()
        except Full:
            self._shut()
            return False

    def _post(self, tell: Callable[..., None], *words: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(tell, *words)
        except RuntimeError:  # the loop has ended: nobody is left to be told anything
            self._closing = True
