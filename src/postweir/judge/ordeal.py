"""What a policy must endure: nothing known, the worst facts, rules killed, and its deadline."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from postweir.judge.examples import TOLD_EACH, Examples
from postweir.judge.probing import Finding, Probe, Seen, Tried, asked, walk
from postweir.judge.trial import Trial
from postweir.policy.bundle import Bundle
from postweir.policy.evaluation import Evaluated
from postweir.policy.facts import Facts
from postweir.policy.generate import Cases
from postweir.scan.text import TEXT_CHARS_MAX

SELF_TEST = 1000  # facts
BATCH = 250  # of them before somebody is told how far it is
AGAIN = 3  # times that a late answer is asked for again: the machine may have been busy
MASK_FACTS_MAX = 2  # that a rule decides, asked with it killed
OTHER_MAX = 10  # verdicts told that should have been others
SHOWN_MAX = 3  # facts in one sentence
SHOWN_CHARS_MAX = 40
PATTERN_TEXTS = ("a", "aaaaaaab", "A a", "é", "\U0001f600", "0.0,", "<a href=", "\n", "=?")
OBJECTS = ("throttle", "defer", "hold", "refuse")

Told = Callable[[int, int], None]  # how much is done, and of how much


def neutral(bundle: Bundle, probe: Probe) -> Tried:
    """Nothing is known of a message: no rule objects to it, but one that asks just that."""
    tried = Tried("no rule objects to a message of which nothing is known")
    (seen,) = probe.all([{}])
    for place in sorted(seen.true):
        rule = bundle.rules[place]
        if rule.verb not in OBJECTS or rule.mode == "off":
            continue
        # To hold what could not be looked at is a decision; to refuse it would be our own fault.
        if rule.verb != "refuse" and ".known" in rule.when:
            continue
        what = "objects to a message of which nothing is known"
        do = "ask for more, or for a flag .known first: a look-up that fails must not cost mail"
        found = Finding(rule.id, what, do)
        (tried.notices if rule.mode == "shadow" else tried.faults).append(found)
    return tried


def extremes(
    bundle: Bundle, cases: Cases, examples: Examples, probe: Probe, told: Told
) -> Tried:  # fmt: skip
    """The worst facts there are: no rule fails on them."""
    whole = list(cases.extremes())
    count = len(whole)
    for facts, seen in zip(whole, probe.all(whole), strict=True):
        for place, what in seen.errors.items():
            examples.note(place, what, facts)
    for place in range(len(bundle.rules)):
        some = _worst(cases, examples, place)
        count += len(some)
        for facts, seen in zip(some, probe.one(place, some), strict=True):
            if place in seen.errors:
                examples.note(place, seen.errors[place], facts)
        if not place % TOLD_EACH:
            told(place, len(bundle.rules))
    tried = Tried(f"{count} facts at their worst, no rule fails")
    for place, (said_so, facts) in sorted(examples.errors.items()):
        told_of = {name: facts[name] for name in cases.named[place] & facts.keys()}
        what = f"fails on some messages: {_plain(said_so)}{shown(told_of)}"
        tried.faults.append(Finding(bundle.rules[place].id, what, _instead(said_so)))
    if tried.faults:
        tried.said = f"{count} facts at their worst"
    return tried


def masks(bundle: Bundle, examples: Examples, trial: Trial, told: Told) -> Tried:
    """Kill each rule alone, and all: what is left decides as if they had never been."""
    tried = Tried()
    rules, known = bundle.rules, examples.seen
    shared = known[:: max(1, len(known) // MASK_FACTS_MAX)][:MASK_FACTS_MAX]
    own: dict[int, list[tuple[Facts, Seen]]] = {}
    for facts, seen in known:
        decides, _ = walk(rules, seen)
        if decides is not None and len(own.setdefault(decides, [])) < MASK_FACTS_MAX:
            own[decides].append((facts, seen))
    for place, rule in enumerate(rules):
        trial.mask([rule.id])
        tried.faults += _differing(bundle, trial, (*own.get(place, ()), *shared), {rule.id})
        if not place % TOLD_EACH:
            told(place, len(rules))
    everything = {rule.id for rule in rules}
    trial.mask(everything)
    tried.faults += _differing(bundle, trial, known[:BATCH], everything)
    trial.mask(())
    tried.said = f"{len(rules)} rules killed one by one, then all"
    return tried


def generated(
    bundle: Bundle, cases: Cases, examples: Examples, probe: Probe
) -> list[tuple[Facts, Seen]]:  # fmt: skip
    """Return the facts of the self-test: what was found for rules, the worst, and mixtures."""
    some = examples.seen[:SELF_TEST]
    more = list(cases.extremes())
    bases = [facts for facts, _ in some] + [
        facts for here in examples.of for facts in here.false[:1]
    ]
    more += cases.mixed(bases, bundle.hash, max(0, SELF_TEST - len(some) - len(more)))
    return some + list(zip(more, probe.all(more), strict=True))


def self_test(
    bundle: Bundle, sets: Mapping[str, bytes], some: Sequence[tuple[Facts, Seen]], trial: Trial, *,
    evaluate_s: float, told: Told,
) -> Tried:  # fmt: skip
    """Generated facts as mail would bring them: the verdict of the first true rule, in time."""
    tried = Tried("", list(_sets_hold(bundle, sets, trial)))
    worst_us = max(_patterns_took_us(bundle, trial), default=0)
    bound_us = int(evaluate_s * 1_000_000)
    for at in range(0, len(some), BATCH):
        part = some[at : at + BATCH]
        answers = asked(trial, [facts for facts, _ in part])
        for (facts, seen), answer in zip(part, answers, strict=True):
            took_us = answer.took_us
            if took_us > bound_us // 2:
                took_us = min(took_us, *_again(trial, facts))
            worst_us = max(worst_us, took_us)
            tried.faults += _other(bundle, seen, answer, ())
        told(at + len(part), len(some))
        if tried.faults:
            tried.faults = list(dict.fromkeys(tried.faults))[:OTHER_MAX]
            break
    tried.said = f"{len(some)} generated facts, the worst in {worst_us} µs"
    if worst_us > bound_us:
        what = f"takes {worst_us / 1000:.1f} ms on some message, {bound_us / 1000:g} are allowed"
        tried.faults.append(Finding("", what, "make conditions smaller, or rules fewer"))
    return tried


def _sets_hold(bundle: Bundle, sets: Mapping[str, bytes], trial: Trial) -> Iterator[Finding]:
    """Yield a finding for each set that does not know its own first and last key."""
    for one in bundle.sets:
        keys = sets.get(one.hash, b"").decode().splitlines()
        for key in dict.fromkeys((*keys[:1], *keys[-1:])):
            (answer,) = asked(trial, [{}], keys={one.of: [key]})
            if answer.derived.get(f"set.{one.id}") is not True:
                what = f"set {one.id} does not know its own key"
                yield Finding("", what, "write the file anew")


def _patterns_took_us(bundle: Bundle, trial: Trial) -> Iterator[int]:
    """Yield how long the patterns take on long texts that are nearly what they look for."""
    for text in PATTERN_TEXTS if bundle.patterns else ():
        texts = {one.of: (text * TEXT_CHARS_MAX)[:TEXT_CHARS_MAX] for one in bundle.patterns}
        yield min(asked(trial, [{}], texts=texts)[0].took_us for _ in range(AGAIN))


def _worst(cases: Cases, examples: Examples, place: int) -> list[Facts]:
    bases: list[Facts] = [{}, *examples.of[place].true[:1]]
    return [facts for base in bases for facts in cases.worst(place, base)]


def _again(trial: Trial, facts: Facts) -> Iterator[int]:
    for _ in range(AGAIN):
        yield asked(trial, [facts])[0].took_us


def _differing(
    bundle: Bundle, trial: Trial, some: Sequence[tuple[Facts, Seen]], killed: Iterable[str]
) -> list[Finding]:
    answers = asked(trial, [facts for facts, _ in some])
    return [
        found
        for (_, seen), answer in zip(some, answers, strict=True)
        for found in _other(bundle, seen, answer, tuple(killed))
    ][:1]


def _other(
    bundle: Bundle, seen: Seen, answer: Evaluated, killed: Sequence[str]
) -> list[Finding]:  # fmt: skip
    """Return a finding when the verdict is not that of the first rule that is true."""
    if seen.errors or answer.verdict is None:
        return []  # what fails is told of elsewhere
    place, shadow = walk(bundle.rules, seen, frozenset(killed))
    rule = bundle.rules[place] if place is not None else None
    should = (rule.verb, rule.id) if rule is not None else ("accept", "")
    verdict = answer.verdict
    if (verdict.verb, verdict.rule) == should and answer.shadow == shadow[: len(answer.shadow)]:
        return []
    without = f" with {', '.join(sorted(killed)[:SHOWN_MAX])} killed" if killed else ""
    what = f"{verdict.rule or 'no rule'} decides{without} where {should[1] or 'no rule'} should"
    return [Finding(verdict.rule or should[1], what, "this is a fault of ours: please report it")]


def _plain(what: str) -> str:
    """Return what the engine says of an error, without its own words for where."""
    return what.rpartition("INVALID_ARGUMENT: ")[2].rpartition("OUT_OF_RANGE: ")[2].strip(" .")


def _instead(what: str) -> str:
    said = what.lower()
    if "zero" in said:
        return "ask first whether what it divides by is 0: usage.recipients_1d > 0 && ..."
    if "overflow" in said:
        return "calculate with fractions: double(...) * 2.0"
    if "index" in said or "bound" in said:
        return "ask with exists, or for size(...) first"
    return "ask first for what makes it fail"


def shown(facts: Mapping[str, object]) -> str:
    """Return the words for some facts."""
    if not facts:
        return ", when nothing is known"
    some = sorted(facts.items())[:SHOWN_MAX]
    return ", with " + ", ".join(f"{name} = {_short(value)}" for name, value in some)


def _short(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "..."
