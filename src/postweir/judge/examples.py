"""For every rule: facts of which it is true, of which it is false, and which it decides."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from postweir.judge.probing import Finding, Probe, Seen, Tried
from postweir.policy.bundle import Bundle
from postweir.policy.facts import Facts
from postweir.policy.generate import Cases

SEARCH_S = 2.0  # for facts that a rule decides; it takes 0.2 s for 200 ordinary rules
ROUNDS_MAX = 8  # of naming one more earlier rule that must not be true
NEAR_MAX = 24  # facts at and beside the constants of one rule
TRUE_MAX = 2  # facts of which a rule is true, and of which all rules are asked
TOLD_EACH = 20  # rules somebody is told how far it is
NAMED_MAX = 3  # rules in one sentence

Told = Callable[[int, int], None]  # how much is done, and of how much


@dataclass(slots=True)
class Of:
    """What was found for one rule."""

    true: list[Facts] = field(default_factory=list)
    false: list[Facts] = field(default_factory=list)
    decides: list[Facts] = field(default_factory=list)
    never_true: bool = False
    never_decides: bool = False
    before: set[int] = field(default_factory=set)  # rules that were true of all it was true of


class Examples:
    """The facts that were found for a policy, and what all rules come to on them."""

    def __init__(self, bundle: Bundle, cases: Cases, probe: Probe) -> None:
        self._rules, self._cases, self._probe = bundle.rules, cases, probe
        self.of = [Of() for _ in bundle.rules]
        self.errors: dict[int, tuple[str, Facts]] = {}  # of each rule the first
        self.seen: list[tuple[Facts, Seen]] = []  # on which all rules were asked

    def run(self, told: Told) -> Tried:
        """Look for them all."""
        for place in range(len(self._rules)):
            self._look(place)
            if not place % TOLD_EACH:
                told(place, len(self._rules))
        self._decide()
        return self._result()

    def note(self, place: int, what: str, facts: Facts) -> None:
        """Remember that a rule failed on these facts."""
        self.errors.setdefault(place, (what, facts))

    def _look(self, place: int) -> None:
        """Find facts that a rule is true of, or false, by what it asks."""
        here = self.of[place]
        true, false = self._cases.find(place, True), self._cases.find(place, False)
        here.never_true = true.surely_none
        tests = [dict(test.facts) for test in self._rules[place].tests]
        near = list(self._cases.near(place, true.facts[0] if true.facts else {}))[:NEAR_MAX]
        wanted = [*true.facts, *false.facts, *tests, *near, {}]
        for facts, said in zip(wanted, self._probe.one(place, wanted), strict=True):
            if place in said.errors:
                self.note(place, said.errors[place], facts)
            else:
                (here.true if place in said.true else here.false).append(facts)

    def _decide(self) -> None:
        """Find facts that each rule decides: of which it is true, and none before it."""
        tried = [(place, facts) for place, here in enumerate(self.of)
                 for facts in here.true[:TRUE_MAX]]  # fmt: skip
        until = 0.0
        for _ in range(ROUNDS_MAX):
            seen = self._probe.all([facts for _, facts in tried])
            for (place, facts), said in zip(tried, seen, strict=True):
                self._take(place, facts, said)
            until = until or time.monotonic() + SEARCH_S
            tried = []
            for place, here in enumerate(self.of):
                if time.monotonic() > until:
                    return
                if here.true and not here.decides and not here.never_decides:
                    found = self._cases.find(place, True, sorted(here.before))
                    here.never_decides = found.surely_none
                    tried += [(place, facts) for facts in found.facts[:TRUE_MAX]]
            if not tried:
                return

    def _take(self, place: int, facts: Facts, said: Seen) -> None:
        here = self.of[place]
        self.seen.append((facts, said))
        if place not in said.true:
            return
        earlier = {
            other for other in said.true if other < place and self._rules[other].mode == "enforce"
        }
        if earlier:
            here.before.add(min(earlier))
        else:
            here.decides.append(facts)

    def _result(self) -> Tried:
        tried = Tried()
        counts = [0, 0, 0]
        for place, here in enumerate(self.of):
            for at, found in enumerate((here.true, here.false, here.decides)):
                counts[at] += bool(found)
            if self._rules[place].mode == "off":
                continue
            fault, notice = self._findings(place, here)
            tried.faults += fault
            tried.notices += notice
        total = len(self.of)
        tried.said = (
            f"of {total} rules {counts[0]} seen true, {counts[1]} false, {counts[2]} deciding"
        )
        return tried

    def _findings(self, place: int, here: Of) -> tuple[Sequence[Finding], Sequence[Finding]]:
        """Return what is wrong with a rule for sure, and what only may be."""
        rule = self._rules[place].id
        if not here.true:
            if here.never_true:
                return [Finding(rule, "can never be true", 'parts of its condition exclude each other; to switch it off, write mode = "off"')], ()  # fmt: skip  # noqa: E501
            return (), [Finding(rule, "no message was found of which it is true", "write a [[rule.test]] with facts of which it is")]  # fmt: skip  # noqa: E501
        if here.decides:
            return (), ()
        names = self._named(here)
        if here.never_decides:
            what = f"is never reached: whenever it is true, a rule before it is too: {names}"
            return [Finding(rule, what, "move it before them, or make their conditions narrower")], ()  # fmt: skip  # noqa: E501
        what = f"no message was found that it decides: rules before it were true too: {names}"
        return (), [Finding(rule, what, "see whether it stands in the right place")]

    def _named(self, here: Of) -> str:
        names = [self._rules[other].id for other in sorted(here.before)]
        more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
        return ", ".join(names[:NAMED_MAX]) + more
