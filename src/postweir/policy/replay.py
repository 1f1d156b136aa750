"""What another policy would have done: two verdicts on each message, counted by who and why.

Each message counts once in counts, and in shares as often as it stands for: with facts above their
bound only a sample of them is kept.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import NamedTuple

from postweir.policy.verdict import Verdict
from postweir.runtime.frames import Struct

NAMES_MAX = 100_000  # senders that are told apart, some 40 MB; the rest are one line
REST = "(all others)"
SHOWN_MAX = 20  # lines of each list, what changed most first
EXAMPLES_EACH = 3  # of each change: from this rule to that one
EXAMPLES_MAX = 60
NO_RULE = "-"  # where no rule decided
TOOK_LONGEST_US = 100_000  # what takes longer is counted as this

# What a verdict does; two that agree in it are the same to the sender and to the mail.
_EFFECT = attrgetter("verb", "pool", "header", "lifetime_s")


class Mail(NamedTuple):
    """One message, and how many it stands for."""

    id: str
    account: str
    sender: str
    stands_for: int


class Example(Struct, frozen=True):
    """A message that another policy would have treated otherwise."""

    id: str
    sender: str
    before: str  # the verb
    before_rule: str
    after: str
    after_rule: str


class RuleLine(Struct, frozen=True):
    """What one rule decided, before and after."""

    rule: str
    before: int  # messages it decided in the policy compared with
    after: int  # in the candidate
    came: int  # decided otherwise before, by it now
    went: int  # decided by it before, otherwise now


class Line(Struct, frozen=True):
    """What changes for one account, or one sender."""

    name: str
    messages: int
    changed: int
    share: float  # of its mail, with what was not kept
    refused: int  # taken before, refused now
    never_before: bool = False  # nothing of it was refused before


class Took(Struct, frozen=True):
    """How long one policy's evaluations took, in its worker, in microseconds."""

    p50_us: int
    p99_us: int
    max_us: int


class Moved(Struct, frozen=True):
    """How many messages went from one verdict to another."""

    before: str
    after: str
    messages: int
    share: float  # of all mail


class Diff(Struct, frozen=True):
    """All that a replay found out."""

    messages: int  # compared
    stand_for: int  # with what was not kept
    changed: int
    share: float  # of all mail
    refused: int  # taken before, refused now
    refused_share: float
    by_other_rule: int  # the same is done, and another rule says so
    verdicts: list[Moved]
    rules: list[RuleLine]
    accounts: list[Line]
    senders: list[Line]
    newly_refused: list[Line]  # senders of whom nothing was refused before
    newly_refused_count: int
    examples: list[Example]
    errors: dict[str, int]  # of the candidate: rule, messages it failed on
    errors_before: dict[str, int]
    took: Took
    took_before: Took


class _Whose:
    """The count of one account or sender."""

    __slots__ = ("changed", "changed_for", "messages", "objected", "refused", "stand_for")

    def __init__(self) -> None:
        self.messages = self.stand_for = self.changed = self.changed_for = 0
        self.refused = self.objected = 0


class Times:
    """Evaluation times, in a histogram of microseconds."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._all = 0

    def add(self, took_us: int) -> None:
        self._counts[min(took_us, TOOK_LONGEST_US)] += 1
        self._all += 1

    def took(self) -> Took:
        """Return the figures."""
        return Took(self._at(0.5), self._at(0.99), max(self._counts, default=0))

    def _at(self, share: float) -> int:
        seen = 0
        for took_us, count in sorted(self._counts.items()):
            seen += count
            if seen >= self._all * share:
                return took_us
        return 0


class Tally:
    """Takes pair after pair, and says in the end what they come to."""

    def __init__(self) -> None:
        self._verbs: Counter[tuple[str, str]] = Counter()  # by what they stand for
        self._verbs_seen: Counter[tuple[str, str]] = Counter()
        self._rules: Counter[tuple[str, str]] = Counter()
        self._accounts: defaultdict[str, _Whose] = defaultdict(_Whose)
        self._senders: defaultdict[str, _Whose] = defaultdict(_Whose)
        self._examples: defaultdict[tuple[str, str, str, str], list[Example]] = defaultdict(list)
        self._errors: Counter[str] = Counter()
        self._errors_before: Counter[str] = Counter()
        self._all = _Whose()
        self._other_rule = 0
        self.times, self.times_before = Times(), Times()

    def add(self, mail: Mail, before: Verdict, after: Verdict) -> None:
        """Count one message."""
        stand_for = mail.stands_for
        self._verbs[before.verb, after.verb] += stand_for
        self._verbs_seen[before.verb, after.verb] += 1
        self._rules[before.rule, after.rule] += 1
        changed = _EFFECT(before) != _EFFECT(after)
        refused = after.verb == "refuse" and before.takes_mail
        for one in (
            self._all, self._whose(self._accounts, mail.account),
            self._whose(self._senders, mail.sender),
        ):  # fmt: skip
            one.messages += 1
            one.stand_for += stand_for
            one.objected += before.verb == "refuse"
            if changed:
                one.changed += 1
                one.changed_for += stand_for
                one.refused += refused
        if changed:
            self._example(mail, before, after)
        elif before.rule != after.rule:
            self._other_rule += 1

    def failed(self, errors: Iterable[str], *, before: bool) -> None:
        """Count what an evaluation said went wrong: `rule: what`."""
        rules = {error.partition(":")[0] for error in errors}
        (self._errors_before if before else self._errors).update(rules)

    def diff(self) -> Diff:
        """Return what it all came to."""
        total = max(self._all.stand_for, 1)
        refused_for = sum(
            count for (before, after), count in self._verbs.items()
            if after == "refuse" and before in ("accept", "tag", "route", "hold")
        )  # fmt: skip
        new = [line for line in _lines(self._senders) if line.refused and line.never_before]
        new.sort(key=lambda line: -line.refused)
        return Diff(
            messages=self._all.messages,
            stand_for=self._all.stand_for,
            changed=self._all.changed,
            share=self._all.changed_for / total,
            refused=self._all.refused,
            refused_share=refused_for / total,
            by_other_rule=self._other_rule,
            verdicts=[
                Moved(before, after, self._verbs_seen[before, after], count / total)
                for (before, after), count in self._verbs.most_common()
            ],
            rules=_rules(self._rules),
            accounts=_most_changed(self._accounts),
            senders=_most_changed(self._senders),
            newly_refused=new[:SHOWN_MAX],
            newly_refused_count=len(new),
            examples=[one for some in self._examples.values() for one in some],
            errors=dict(self._errors.most_common(SHOWN_MAX)),
            errors_before=dict(self._errors_before.most_common(SHOWN_MAX)),
            took=self.times.took(),
            took_before=self.times_before.took(),
        )

    @staticmethod
    def _whose(counts: defaultdict[str, _Whose], name: str) -> _Whose:
        return counts[name if name in counts or len(counts) < NAMES_MAX else REST]

    def _example(self, mail: Mail, before: Verdict, after: Verdict) -> None:
        key = (before.verb, before.rule, after.verb, after.rule)
        if key not in self._examples and len(self._examples) >= EXAMPLES_MAX // EXAMPLES_EACH:
            return
        if len(self._examples[key]) < EXAMPLES_EACH:
            rules = (before.rule or NO_RULE, after.rule or NO_RULE)
            self._examples[key].append(
                Example(mail.id, mail.sender, before.verb, rules[0], after.verb, rules[1])
            )


def _lines(counts: Mapping[str, _Whose]) -> list[Line]:
    return [
        Line(name, one.messages, one.changed, one.changed_for / max(one.stand_for, 1), one.refused,
             never_before=not one.objected)
        for name, one in counts.items() if one.changed
    ]  # fmt: skip


def _most_changed(counts: Mapping[str, _Whose]) -> list[Line]:
    return sorted(_lines(counts), key=lambda line: (-line.changed, line.name))[:SHOWN_MAX]


def _rules(counts: Mapping[tuple[str, str], int]) -> list[RuleLine]:
    """Return what each rule decided, those first of which most came or went."""
    lines: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for (before, after), count in counts.items():
        lines[before][0] += count
        lines[after][1] += count
        if before != after:
            lines[after][2] += count
            lines[before][3] += count
    found = [RuleLine(rule or NO_RULE, *line) for rule, line in lines.items()]
    return sorted(found, key=lambda line: (-(line.came + line.went), line.rule))
