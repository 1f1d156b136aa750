"""The one thread that owns the store: it commits all that waits, then hands the answers back."""

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

S = TypeVar("S", bound="RoomyStore")
Token = Any  # what the loop gave with a change and gets back with its answer
OnRoom = Callable[[int, str, int, Sequence[tuple[int, int, int]], Sequence[Quarantine]], None]
OnDone = Callable[[Sequence[tuple[Change, Token, Done]]], None]


class RoomyStore(Store, Protocol):
    """A store that can say how much room it has."""

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
        self._full = False  # there was no room: what waits is tried again after a pause
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

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
            self._gather(0.0 if more or self._waiting_may_go() else LOOK_S)
            busy = self._commit(store) or bool(self._calls)
            for ask, then in self._take_calls():
                self._post(then, ask(store))
            if self._closing and not self._waiting and self._inbox.empty():
                break
            now_ns = clock.monotonic_ns()
            if not busy or now_ns - kept_ns > KEEP_S * 1e9:
                more, kept_ns = self._keep(store), now_ns
            if now_ns - looked_ns > LOOK_S * 1e9:
                looked_ns = now_ns
                free_bytes, wrong = store.room()
                self._post(
                    self._on_room,
                    free_bytes,
                    wrong,
                    store.queued(),
                    store.unparked(),
                    store.quarantined(),
                )
        store.close()

    def _waiting_may_go(self) -> bool:
        return bool(self._waiting) and not self._full

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
            answers = store.commit([change for change, _ in fit]) if fit else []
        except Full:
            self._no_room(fit, done)
        else:
            self._full = False
            done += [(c, t, a) for (c, t), a in zip(fit, answers, strict=True)]
        if fit:
            self._on_commit((clock.monotonic_ns() - now_ns) / 1e9, len(fit))
        self._post(self._on_done, done)
        return True

    def _no_room(
        self, fit: list[tuple[Change, Token]], done: list[tuple[Change, Token, Done]]
    ) -> None:
        """New mail is turned away; outcomes wait, for delivery keeps them too."""
        self._full = True
        kept: list[tuple[Change, Token]] = []
        for change, token in fit:
            if isinstance(change, Accept | Refusal):
                done.append((change, token, Done("full")))
            else:
                kept.append((change, token))
        self._waiting = kept + self._waiting
        if self._closing:
            self._waiting = []

    def _next_batch(self) -> list[tuple[Change, Token]]:
        recipients = size = at = 0
        for at, (change, _) in enumerate(self._waiting, 1):  # noqa: B007
            if isinstance(change, Accept):
                recipients += len(change.envelope.recipients)
                size += len(change.body or b"")
            else:
                recipients += 1
            if recipients >= RECIPIENTS_MAX or size >= BYTES_MAX:
                break
        batch, self._waiting = self._waiting[:at], self._waiting[at:]
        return batch

    def _keep(self, store: S) -> bool:
        try:
            return store.upkeep()
        except Full:
            return False

    def _post(self, tell: Callable[..., None], *words: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(tell, *words)
        except RuntimeError:  # the loop has ended: nobody is left to be told anything
            self._closing = True
