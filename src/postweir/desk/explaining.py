"""Why a message got its verdict: the rule and its facts, judged again, and what would change it."""

import asyncio
from collections.abc import Sequence

from postweir.desk import bundled, messages
from postweir.desk.evaluating import Evaluator
from postweir.desk.ports import Office
from postweir.judge.ports import Loadable
from postweir.outcomes import journal, telling
from postweir.outcomes.journal import FindingShown
from postweir.policy import flip, wording
from postweir.policy.bundle import Bundle, Pattern, Rule, Set, Throttle
from postweir.policy.evaluation import Evaluate, Evaluated
from postweir.policy.facts import Declared, Facts
from postweir.policy.flip import Flip
from postweir.policy.recall import KEPT, Question, Recall, Record, opened
from postweir.policy.verdict import Fact, Verdict
from postweir.runtime import frames
from postweir.runtime.frames import Struct
from postweir.spool.ports import MessageRow

KEYS_SHOWN_MAX = 5  # of a message, that a set has
BASELINE, POISON = "baseline", "poison"


class Said(Struct, frozen=True):
    """A verdict, as words."""

    verb: str
    rule: str
    policy: str
    code: str
    text: str
    retry_after_s: int = 0
    header: str = ""
    pool: str = ""


class Part(Struct, frozen=True):
    """A part of a condition, and what it came to."""

    text: str
    holds: bool | None  # None: nobody can say


class Used(Struct, frozen=True):
    """A fact that the rule looked at."""

    fact: str
    value: Fact
    unit: str
    meaning: str
    neutral: bool  # it is as if nothing were known
    unknown: bool = False  # it was not kept, and is taken for neutral
    detail: str = ""  # of a policy's own fact: what it is


class Why(Struct, frozen=True):
    """What `message why` says."""

    id: str
    state: str
    then: Said | None  # the verdict it got; None: pending
    note: str  # what has to be said first, "" when nothing has
    policy: str  # that is explained here
    verdict: Said | None  # that this policy comes to now; None: it cannot be asked
    same: bool | None  # as then, byte for byte; None: it is another policy, or cannot be asked
    rule: str
    place: int  # of the rule, from 1
    places: int
    condition: str
    joined: str  # how the parts are joined
    parts: list[Part]
    help: str
    owner: str
    severity: str
    facts: list[Used]
    flips: list[Flip]
    shadow: list[str]
    errors: list[str]
    killed: list[str]
    unknown: list[str]  # facts the policy looks at that were not kept
    findings: list[FindingShown]
    recorded: Facts  # all that was recorded and is not neutral


async def why(office: Office, id: str, policy: str = "") -> Why:
    """Explain a message's verdict, or what `policy` would have done. Raises as `messages.find`."""
    row, _ = await messages.find(office, id)
    record = opened(row.facts)
    judged_by = row.verdict.policy if row.verdict else ""
    then = await bundled.by_hash(office, judged_by) if judged_by else None
    asked = await bundled.find(office, policy) if policy else then
    if record is not None and record.engine:
        asked = asked if policy else None  # it was not that policy which decided
    note = _note(office, row, record, asked, asked_for=bool(policy))
    if asked is None or record is None:
        return _from_row(row, record, note)
    source = record.derived_by(judged_by)
    if source != judged_by:
        then = await bundled.by_hash(office, source) if source else None
    return await _explained(row, record, asked, then, note)


def _note(
    office: Office, row: MessageRow, record: Record | None, asked: Loadable | None, *,
    asked_for: bool,
) -> str:  # fmt: skip
    """Return what has to be said first: why there is no verdict, or no explanation."""
    verdict = row.verdict
    if verdict is None:
        if row.state == "refused":
            return f"it was refused before it was judged, at {row.stage}: {row.reply}"
        why = telling.PENDING.get(row.reason, row.reason)
        note = f"it is pending: {why}. It is judged later, and not delivered before"
    elif row.reason == "corrupt":
        note = "it is held because it is damaged; its verdict has nothing to do with that"
    elif verdict.rule == POISON:
        note = "two workers died of it: it was held, so that a person looks at it"
    elif verdict.policy == BASELINE:
        off = record is not None and record.engine == "off"
        note = "an operator had turned the engine off" if off else "no policy answered in time"
        note += ": a check without an engine decided (docs/policy.md)"
    elif asked is None and verdict.policy:
        note = f"the policy {verdict.policy} is no longer kept: only what was recorded is told"
    else:
        note = ""
    if record is None and (asked_for or verdict is not None):
        hours = office.settings.spool.facts_hours
        kept = f"no facts of it are kept: they stay {hours} hours, or fewer under their bound"
        note = f"{note}. {kept[0].upper()}{kept[1:]}" if note else kept
    return note


async def _explained(
    row: MessageRow, record: Record, policy: Loadable, then: Loadable | None, note: str
) -> Why:
    ours = row.verdict is not None and row.verdict.policy == policy.policy
    question = _question(record, policy.bundle, then.bundle if then else None, ours=ours)
    async with Evaluator(policy, killed=record.killed if ours else ()) as evaluator:
        said = (await evaluator.evaluate([_ask(question)]))[0]
        if said is None or said.verdict is None:
            return _from_row(row, record, note or "the policy gave no answer on these facts")
        flips = await _flips(evaluator, question, said.verdict)
    rule = next((one for one in policy.bundle.rules if one.id == said.verdict.rule), None)
    parts = await _parts(policy, question, rule) if rule else ("", [])
    return _told(row, record, policy, question, said=said, rule=rule, parts=parts, flips=flips,
                 note=note, ours=ours)  # fmt: skip


def _question(record: Record, bundle: Bundle, then: Bundle | None, *, ours: bool) -> Question:
    """Return what to ask: with the levels of throttles as they were, where they are the same."""
    found = Recall(bundle, all_facts=True).question(record, "", lambda _: then)
    was = {_rate(one): f"throttle.{one.id}" for one in then.throttles} if then else {}
    levels: Facts = {}
    unknown = list(found.unknown)
    for one in bundle.throttles:
        name = f"throttle.{one.id}"
        before = name if ours else was.get(_rate(one), "")
        if before:
            levels[name] = record.facts.get(before, 0)
        else:
            unknown.append(name)
    return Question(found.facts | levels, found.keys, tuple(unknown))


async def _flips(evaluator: Evaluator, question: Question, now: Verdict) -> list[Flip]:
    """Search on a thread, so that the search itself is plain; the worker is asked from here."""
    loop = asyncio.get_running_loop()

    def judge(trials: Sequence[Facts]) -> list[Verdict | None]:
        asks = [Evaluate(0, facts, {}, question.keys) for facts in trials]
        said = asyncio.run_coroutine_threadsafe(evaluator.evaluate(asks), loop).result()
        return [one.verdict if one is not None else None for one in said]

    bundle = evaluator.policy.bundle
    return await asyncio.to_thread(flip.nearest, bundle, question.facts, now, judge)


async def _parts(policy: Loadable, question: Question, rule: Rule) -> tuple[str, list[Part]]:
    """Ask the engine what each part of a condition comes to: as rules on trial of their own."""
    joined, texts = wording.parts(rule.when)
    rules = tuple(Rule(str(n), text, "accept", mode="shadow") for n, text in enumerate(texts))
    async with Evaluator(Loadable(policy.bundle.with_rules(rules), policy.sets)) as evaluator:
        said = (await evaluator.evaluate([_ask(question)]))[0]
    failed = {error.partition(":")[0] for error in said.errors} if said else set()
    return joined, [
        Part(text, None if said is None or str(n) in failed else str(n) in said.shadow)
        for n, text in enumerate(texts)
    ]


def _told(
    row: MessageRow, record: Record, policy: Loadable, question: Question, *, said: Evaluated,
    rule: Rule | None, parts: tuple[str, list[Part]], flips: list[Flip], note: str, ours: bool,
) -> Why:  # fmt: skip
    bundle, verdict = policy.bundle, said.verdict
    assert verdict is not None
    declared = flip.declared(bundle)
    looked_at = flip.used(rule.when, declared) if rule else []
    facts = question.facts | said.derived
    return Why(
        id=row.id,
        state=row.state,
        then=_said(row.verdict),
        note=note,
        policy=policy.policy,
        verdict=_said(verdict),
        same=frames.pack(verdict) == frames.pack(row.verdict) if ours else None,
        rule=verdict.rule,
        place=bundle.rules.index(rule) + 1 if rule else 0,
        places=len(bundle.rules),
        condition=rule.when if rule else "",
        joined=parts[0],
        parts=parts[1],
        help=rule.help if rule else "",
        owner=rule.owner if rule else "",
        severity=rule.severity if rule else "",
        facts=[_used(declared[name], facts, question, policy) for name in looked_at],
        flips=flips,
        shadow=said.shadow,
        errors=said.errors,
        killed=list(record.killed),
        unknown=list(question.unknown),
        findings=journal.named(record.findings),
        recorded=record.facts,
    )


def _from_row(row: MessageRow, record: Record | None, note: str) -> Why:
    """Return what can be said without asking a policy."""
    then = row.verdict
    return Why(
        id=row.id, state=row.state, then=_said(then), note=note,
        policy=then.policy if then else "", verdict=None, same=None,
        rule=then.rule if then else "", place=0, places=0, condition="", joined="", parts=[],
        help="", owner="", severity="", facts=[], flips=[],
        shadow=list(record.shadow) if record else [], errors=list(record.errors) if record else [],
        killed=list(record.killed) if record else [], unknown=[],
        findings=journal.named(record.findings) if record else [],
        recorded=record.facts if record else {},
    )  # fmt: skip


def _used(one: Declared, facts: Facts, question: Question, policy: Loadable) -> Used:
    value = facts.get(one.name, one.neutral)
    return Used(
        one.name, value, one.unit, one.sentence, value == one.neutral,
        unknown=one.name in question.unknown, detail=_detail(one.name, facts, question, policy),
    )  # fmt: skip


def _detail(name: str, facts: Facts, question: Question, policy: Loadable) -> str:
    """Return what a policy's own fact is made of."""
    kind, _, id = name.partition(".")
    tables: dict[str, Sequence[Set | Pattern | Throttle]] = {
        "set": policy.bundle.sets, "pattern": policy.bundle.patterns,
        "throttle": policy.bundle.throttles,
    }  # fmt: skip
    one = next((each for each in tables.get(kind, ()) if each.id == id), None)
    match one:
        case Set():
            found = _in_set(one, question, policy) if facts.get(name) else []
            of = f"{one.size} keys, looked up by {one.of}"
            return f"{of}; it has {', '.join(found)}" if found else of
        case Pattern():
            return f"{one.pattern} in {one.of}"
        case Throttle():
            return f"{one.rate} {one.of} in {one.per_s} s, {one.burst} at once, by {one.key}"
    return ""


def _in_set(one: Set, question: Question, policy: Loadable) -> list[str]:
    """Return some keys of the message that a set has, as far as they are kept."""
    mine = question.keys.get(one.of, [])
    if not mine and one.of in KEPT:
        value = question.facts.get(KEPT[one.of], "")
        mine = value if isinstance(value, list) else [str(value)]
    keys = frozenset(policy.sets.get(one.hash, b"").decode("utf-8", "replace").splitlines())
    return [key for key in mine if key in keys][:KEYS_SHOWN_MAX]


def _said(verdict: Verdict | None) -> Said | None:
    if verdict is None:
        return None
    return Said(verdict.verb, verdict.rule, verdict.policy, verdict.code, verdict.text,
                verdict.retry_after_s, verdict.header, verdict.pool)  # fmt: skip


def _ask(question: Question) -> Evaluate:
    return Evaluate(0, question.facts, {}, question.keys)


def _rate(one: Throttle) -> tuple[str, str, int, int, int]:
    return (one.key, one.of, one.rate, one.per_s, one.burst)
