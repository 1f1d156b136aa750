"""Tries a policy on the mail of the past: promoted and candidate on the same recorded facts.

Facts are read from all shards, oldest first and a page at a time, and each batch is judged by both
policies, each in a worker of its own. So however long the window, memory and the shards are spared.
"""

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from postweir.desk import bundled, names, reading
from postweir.desk.evaluating import Evaluator
from postweir.desk.ports import Missing, Misused, Office
from postweir.judge.ports import Loadable
from postweir.outcomes.journal import utc
from postweir.policy.bundle import Bundle
from postweir.policy.evaluation import Evaluate, Evaluated
from postweir.policy.facts import Facts
from postweir.policy.recall import Question, Recall, Record, opened
from postweir.policy.replay import Diff, Mail, Tally
from postweir.policy.simulation import Simulation
from postweir.policy.verdict import Verdict
from postweir.runtime.frames import Struct
from postweir.spool.ports import Recorded

BATCH = 1000  # messages judged at once: a page of one shard
SENDERS_MAX = 100_000  # whose messages without facts wait for one that has them
BUDGET = 0.005  # of all mail: more that changes wants somebody to look at it
_UNITS = {"m": 60, "h": 3600, "d": 86_400}

Tell = Callable[[int, float], None]  # messages done, and which share of the window


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to replay, and against what."""

    candidate: str  # a file, or a policy that is kept
    against: str = bundled.PROMOTED
    since_s: int = 24 * 3600
    account: str = ""
    limit: int = 0  # messages, the oldest of the window; 0: all
    budget: float = BUDGET


class Replayed(Struct, frozen=True):
    """What a replay came to."""

    within: bool  # the budget
    budget: float
    candidate: str
    against: str
    since_at: str | None
    until_at: str | None  # the last message
    account: str
    limited: bool  # there is more mail than was asked for
    not_replayable: int  # messages whose verdict hangs on what was not kept
    why_not: dict[str, int]  # facts nobody has any more; "facts": none were kept
    unlike: int  # judged by `against` then, and otherwise than it does now
    simulated: list[str]  # throttles, begun empty
    seconds: float
    pairs_s: int
    diff: Diff


def seconds(text: str) -> int:
    """Return how long `24h`, `90m` or `3d` is. Raises Misused."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isdecimal() or not 0 < int(number) <= 100_000:
        raise Misused(f"{text!r} is no time: write 24h, 90m or 3d")
    return int(number) * _UNITS[unit]


def share(text: str) -> float:
    """Return what `0.5%` is. Raises Misused."""
    try:
        found = float(text.removesuffix("%")) / 100
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise Misused(f"{text!r} is no share: write it as in 0.5%")
    return found


async def replay(office: Office, wanted: Wanted, tell: Tell = lambda _, __: None) -> Replayed:
    """Try a policy on what was recorded. Raises Misused, Missing, Unreadable, OSError."""
    if wanted.account:
        names.account_name(wanted.account)
    before = await bundled.find(office, wanted.against)
    after = await bundled.find(office, wanted.candidate)
    began = time.monotonic()
    async with Evaluator(before) as judges, Evaluator(after) as candidate:
        run = _Run(office, _Side(judges), _Side(candidate))
        run.alike = run.before.recall.joined(run.after.recall)
        await run.all(wanted, tell)
    if not run.seen:
        raise Missing("of that time no facts were recorded: there is nothing to try it on")
    return run.replayed(wanted, time.monotonic() - began)


class _One(Struct, frozen=True, gc=False):
    """One message under way, and what it stands for."""

    row: Recorded
    record: Record
    stands_for: int


class _Side:
    """One of the two policies."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self.policy: Loadable = evaluator.policy
        self.recall = Recall(self.policy.bundle)
        self.simulation = Simulation(self.policy.bundle)

    async def verdicts(
        self, batch: Sequence[_One], questions: Sequence[Question]
    ) -> list[Evaluated | None]:
        """Return what it says to each; None: that hangs on what is unknown, or nothing."""
        if not self.simulation.throttles:
            return await self._ask(questions)
        # A level hangs on what was taken before it, so on verdicts. Say that all were; judge; where
        # that proves wrong, judge again those whose levels change. Each round settles one at least.
        mail = [(one.row.at_us, one.stands_for, one.record.facts) for one in batch]
        taken = [True] * len(batch)
        levels: list[Facts | None] = [None] * len(batch)
        found: list[Evaluated | None] = [None] * len(batch)
        for _ in range(len(batch) + 1):
            now = self.simulation.levels(mail, taken)
            changed = [n for n in range(len(batch)) if now[n] != levels[n]]
            if not changed:
                break
            levels[:] = now
            said = await self._ask([questions[n].at(now[n]) for n in changed])
            for n, one in zip(changed, said, strict=True):
                found[n] = one
                taken[n] = one is not None and one.verdict is not None and one.verdict.takes_mail
        self.simulation.take(mail, taken)
        return found

    async def _ask(self, questions: Sequence[Question]) -> list[Evaluated | None]:
        if not any(question.unknown for question in questions):
            asks = [Evaluate(0, one.facts, {}, one.keys) for one in questions]
            return await self._evaluator.evaluate(asks)
        ways = [[*one.ways()] for one in questions]
        asks = [Evaluate(0, facts, {}, one.keys)
                for one, some in zip(questions, ways, strict=True) for facts in some]  # fmt: skip
        answers = iter(await self._evaluator.evaluate(asks))
        return [_agreed([next(answers) for _ in some]) for some in ways]


@dataclass(slots=True)
class _Run:
    """One replay under way."""

    office: Office
    before: _Side
    after: _Side
    tally: Tally = field(default_factory=Tally)
    why_not: Counter[str] = field(default_factory=Counter)
    not_replayable: int = 0
    unlike: int = 0
    seen: int = 0
    since_us: int = 0
    until_us: int | None = None
    limited: bool = False
    alike: bool = False
    unkept: dict[tuple[str, bool], int] = field(default_factory=dict)
    bundles: dict[str, Bundle | None] = field(default_factory=dict)

    async def all(self, wanted: Wanted, tell: Tell) -> None:
        now_us = self.office.now_us()
        self.since_us = now_us - wanted.since_s * 1_000_000
        batch: list[_One] = []
        async with aclosing(_recorded(self.office, self.since_us, wanted.account)) as rows:
            async for row in rows:
                if wanted.limit and self.seen >= wanted.limit:
                    self.limited = True
                    break
                if (one := self._take(row)) is not None:
                    batch.append(one)
                if len(batch) >= BATCH:
                    await self._judge(batch)
                    batch = []
                    tell(self.seen, (row.at_us - self.since_us) / (wanted.since_s * 1e6))
        await self._judge(batch)
        lost = sum(self.unkept.values())  # with nothing after them to stand for them
        if lost:
            self._cannot("facts", lost)

    def _take(self, row: Recorded) -> _One | None:
        """Return a message to judge; None: it only says how many were not kept."""
        whose = (row.sender, row.objected)
        stands_for = self.unkept.pop(whose, 0) + row.unkept
        record = opened(row.facts)
        if record is None or row.verdict is None:
            # Facts that are there and cannot be read are as good as not kept.
            stands_for += bool(row.facts)
            if len(self.unkept) < SENDERS_MAX:
                self.unkept[whose] = stands_for
            else:
                self._cannot("facts", stands_for)
            return None
        self.seen += 1
        self.until_us = row.at_us
        return _One(row, record, 1 + stands_for)

    async def _judge(self, batch: list[_One]) -> None:
        if not batch:
            return
        await self._learn({_judged_by(one) for one in batch})
        questions = [[*self._questions(self.before, batch)]]
        # What either looks at is asked of both, where none has facts of its own: half the work.
        questions += questions if self.alike else [[*self._questions(self.after, batch)]]
        before, after = await asyncio.gather(
            self.before.verdicts(batch, questions[0]), self.after.verdicts(batch, questions[1])
        )
        for n, one in enumerate(batch):
            old, new = before[n], after[n]
            if old is None or new is None or old.verdict is None or new.verdict is None:
                unknown = {*questions[0][n].unknown, *questions[1][n].unknown}
                self._cannot_tell(unknown or {"evaluation"})
                continue
            self.tally.times_before.add(old.took_us)
            self.tally.times.add(new.took_us)
            self._count(one, old, new)

    def _questions(self, side: _Side, batch: list[_One]) -> Iterator[Question]:
        for one in batch:
            yield side.recall.question(one.record, _judged_by(one), self.bundles.get)

    def _count(self, one: _One, old: Evaluated, new: Evaluated) -> None:
        row, before, after = one.row, old.verdict, new.verdict
        assert before is not None
        assert after is not None
        if old.errors:
            self.tally.failed(old.errors, before=True)
        if new.errors:
            self.tally.failed(new.errors, before=False)
        self.tally.add(Mail(row.message, row.account, row.sender, one.stands_for), before, after)
        if row.verdict is not None and self._was_unlike(one, row.verdict, before):
            self.unlike += 1

    def _was_unlike(self, one: _One, then: Verdict, now: Verdict) -> bool:
        """True when the same policy said something else then, with no throttle or kill in it."""
        plain = not (self.before.simulation.throttles or one.record.killed)
        return plain and then.policy == now.policy and then != now

    def _cannot(self, why: str, count: int) -> None:
        self.not_replayable += count
        self.why_not[why] += count

    def _cannot_tell(self, unknown: set[str]) -> None:
        self.not_replayable += 1
        self.why_not.update(unknown)

    async def _learn(self, policies: set[str]) -> None:
        """Find the policies that judged then: what their sets and patterns are."""
        for side in (self.before, self.after):
            self.bundles[side.policy.policy] = side.policy.bundle
        for name in policies - self.bundles.keys() - {""}:
            found = await bundled.by_hash(self.office, name)
            self.bundles[name] = found.bundle if found else None

    def replayed(self, wanted: Wanted, took_s: float) -> Replayed:
        diff = self.tally.diff()
        return Replayed(
            within=diff.share <= wanted.budget,
            budget=wanted.budget,
            candidate=self.after.policy.policy,
            against=self.before.policy.policy,
            since_at=utc(self.since_us),
            until_at=utc(self.until_us),
            account=wanted.account,
            limited=self.limited,
            not_replayable=self.not_replayable,
            why_not=dict(self.why_not.most_common()),
            unlike=self.unlike,
            simulated=sorted({one.id for side in (self.before, self.after)
                              for one in side.simulation.throttles}),
            seconds=round(took_s, 3),
            pairs_s=round(self.seen / took_s) if took_s else 0,
            diff=diff,
        )  # fmt: skip


def _judged_by(one: _One) -> str:
    return one.record.derived_by(one.row.verdict.policy if one.row.verdict else "")


def _agreed(said: list[Evaluated | None]) -> Evaluated | None:
    """Return the answer, when it is the same whichever way the unknown was."""
    if not said or any(one is None or one.verdict != said[0].verdict for one in said if said[0]):
        return None
    return said[0]


async def _recorded(office: Office, since_us: int, account: str) -> AsyncGenerator[Recorded, None]:
    """Yield what all shards recorded, oldest first."""
    argument = f"since={since_us}" + (f" account={account}" if account else "")
    streams = {
        shard: reading.rows(office, shard, "facts", argument, Recorded)
        for shard in office.shards.numbers
    }
    first: list[tuple[int, int, Recorded]] = []
    for shard, stream in streams.items():
        if (row := await anext(stream, None)) is not None:
            first.append((row.at_us, shard, row))
    heapq.heapify(first)
    while first:
        _, shard, row = first[0]
        yield row
        if (row_next := await anext(streams[shard], None)) is not None:
            heapq.heapreplace(first, (row_next.at_us, shard, row_next))
        else:
            heapq.heappop(first)
