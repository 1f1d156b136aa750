"""Bugs to plant in the product: a simulation that cannot find them proves nothing."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from postweir.runtime.clock import StepWatch
from postweir.spool.client import Shards
from postweir.spool.handing import Handing
from postweir.spool.known import Known
from postweir.spool.obeying import Obeying
from postweir.spool.ports import Hello, Out, Safe, Unknown
from postweir.spool.service import BEAT_S, Service
from postweir.spool.shard import Outgoing
from postweir.spool.states import message_of
from postweir.storage import memory
from postweir.storage.memory import MemoryStore

Change = tuple[Any, str, Callable[[Any], Any]]  # whose, what, and what it becomes


def _answer_first(take: Any) -> Any:
    def bad(self: Service, one: Any, accept: Any, changes: Any) -> None:
        one.send(Safe(accept.ask))
        take(self, one, accept, changes)

    return bad


def _unheard(hello: Any) -> Any:
    def bad(self: Outgoing, said: Hello, link: object) -> Any:
        bare = Hello(said.version, said.process, said.index, said.of, said.incarnation, "")
        return hello(self, bare, link)

    return bad


def _forgetful(settle: Any) -> Any:
    def bad(self: Handing, handed: Any, outcome: Any) -> None:
        settle(self, handed, outcome)
        del handed.shard.owed[outcome.recipient]
        self._forget(handed)

    return bad


def _to_another(accept: Any) -> Any:
    async def bad(self: Shards, message: Any, *, shard: int | None = None) -> Any:
        shard = shard or self.choose()
        try:
            return await accept(self, message, shard=shard)
        except Unknown:
            return await accept(self, message, shard=3 - shard)

    return bad


def _once_a_beat(may_expire: Any) -> Any:
    asked: dict[int, tuple[float, bool]] = {}

    def bad(self: Service) -> bool:
        now_s = self._loop.time()
        at_s, answer = asked.get(id(self), (0.0, True))
        if now_s - at_s >= BEAT_S or at_s > now_s:
            at_s, answer = now_s, may_expire(self)
            asked[id(self)] = at_s, answer
        return answer

    return bad


def _credit_kept(up: Any) -> Any:
    def bad(self: Handing, desk: Any, link: Any) -> None:
        count, self._count = self._count, lambda *_, **__: None  # type: ignore[method-assign]
        up(self, desk, link)
        self._count = count  # type: ignore[method-assign]

    return bad


def _unmarked(give: Any) -> Any:
    def bad(self: Outgoing, *args: Any, **words: Any) -> Out:
        self._suspects.clear()
        out: Out = give(self, *args, **words)
        return out

    return bad


def _no_next(fetched: Any) -> Any:
    def bad(self: Outgoing, fetch: Any, found: Any, next_due_us: Any, now_s: float) -> None:
        fetched(self, fetch, found, None, now_s)

    return bad


def _believing(tell: Any) -> Any:
    async def bad(self: Known, incarnation: int) -> None:
        await tell(self, incarnation + 1_000_000)

    return bad


def _any_attempt(settle: Any) -> Any:
    def bad(self: MemoryStore, s: Any, failures: Any) -> Any:
        message = self._messages.get(message_of(s.recipient))
        row = message.recipients.get(s.recipient) if message else None
        if row is not None:
            row.tries = s.attempt - 1
        return settle(self, s, failures)

    return bad


def _whatever(settled: Any) -> Any:
    def bad(self: Outgoing, recipient: int, attempt: int, *, changed: bool = True) -> None:
        given = self.out.get(recipient)
        settled(self, recipient, given.attempt if given else attempt, changed=changed)

    return bad


def _ends_again(_: Any) -> Any:
    return lambda cause, _: memory.RECIPIENT[cause][0]


def _greedy(_: Any) -> Any:
    def bad(self: Outgoing, bucket: Any) -> Any:
        ring = bucket.ring
        if not ring:
            return None
        number = min(ring, key=lambda n: min(r.since_s for r in bucket.lanes[n]))
        ready = bucket.lanes[number].popleft()
        if not bucket.lanes[number]:
            ring.remove(number)
            del bucket.lanes[number]
        return ready if self._ready.get(ready.out.recipient) is ready else bad(self, bucket)

    return bad


def _never(*_: Any, **__: Any) -> bool:
    return False


def _nothing(*_: Any, **__: Any) -> None:
    return None


PLANTS: dict[str, tuple[str, list[Change]]] = {
    "answer": ("250 is answered before the commit", [(Service, "_take", _answer_first)]),
    "lease": (
        "what a dead worker had is never due again",
        [(Outgoing, "_again", lambda _: _nothing)],
    ),
    "attempt": (
        "an outcome ends what is in hand, whatever its attempt",
        [(Outgoing, "settled", _whatever)],
    ),
    "state": (
        "what has ended ends again",
        [(memory, "recipient_after", _ends_again), (MemoryStore, "_settle", _any_attempt)],
    ),
    "hello": (
        "a shard hands out without hearing what a worker has",
        [(Outgoing, "hello", _unheard)],
    ),
    "forget": ("an outcome is forgotten before it is confirmed", [(Handing, "settle", _forgetful)]),
    "another": ("an accept is sent to a second shard", [(Shards, "accept", _to_another)]),
    "clock": ("a step of the clock is not noticed", [(StepWatch, "look", lambda _: _never)]),
    "beat": (
        "a step of the clock is noticed at the next beat",
        [(Service, "_may_expire", _once_a_beat)],
    ),
    "credit": (
        "credit outlives the connection it was given on",
        [(Handing, "_up", _credit_kept), (Handing, "_lost", lambda _: _nothing)],
    ),
    "suspend": (
        "what is ready goes out, suspended or not",
        [(Outgoing, "forget_ready", lambda _: _nothing)],
    ),
    "requests": ("mail leaves before the requests are read", [(Obeying, "may_go", lambda _: True)]),
    "mark": ("a possible duplicate is not marked", [(Outgoing, "_give", _unmarked)]),
    "wake": ("a lane is looked into once", [(Outgoing, "fetched", _no_next)]),
    "fair": (
        "a sender's lane is emptied before the next has a turn",
        [(Outgoing, "_next", _greedy)],
    ),
    "believe": ("a shard that only lost its link is believed", [(Known, "_tell", _believing)]),
}


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """Let the product have this bug; "" none."""
    changes = PLANTS[name][1] if name else []
    saved = [(owner, what, owner.__dict__[what]) for owner, what, _ in changes]
    try:
        for (owner, what, make), (_, _, old) in zip(changes, saved, strict=True):
            setattr(owner, what, make(old))
        yield
    finally:
        for owner, what, old in saved:
            setattr(owner, what, old)
