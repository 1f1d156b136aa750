"""What the author of a policy should know, and may leave as it is."""

from collections.abc import Iterator, Sequence

from postweir.policy import order
from postweir.policy.bundle import Bundle
from postweir.policy.source import Fault, Source, fault_of

NAMED_MAX = 5  # of many rules; the rest are counted
_ANSWERED = ("throttle", "defer", "refuse")  # verbs that a sender hears of


def of(bundle: Bundle, source: Source) -> tuple[Fault, ...]:
    """Return the notices on a policy that is well formed."""
    return (*_unused(bundle, source), *_unsaid(bundle, source))


def _unused(bundle: Bundle, source: Source) -> Iterator[Fault]:
    used = order.used(bundle)
    if used is None:
        return
    declared = {
        "set": [one.id for one in bundle.sets],
        "pattern": [one.id for one in bundle.patterns],
        "throttle": [one.id for one in bundle.throttles],
    }
    for kind, ids in declared.items():
        for index, name in enumerate(ids):
            if f"{kind}.{name}" not in used:
                where = source.where(index, table=kind)
                do = f"use it in a condition, as {kind}.{name}, or leave it out"
                yield fault_of(f"{kind} {name}", where, "no rule looks at it", do)
    for name in bundle.limits:
        if f"limit.{name}" not in used:
            do = f"use it in a condition, as limit.{name}, or leave it out"
            where = source.where(0, name, table="limits")
            yield fault_of(f"limit {name}", where, "no rule looks at it", do)


def _unsaid(bundle: Bundle, source: Source) -> Iterator[Fault]:
    """Say once which rules leave out what people will ask for."""
    numbered = list(enumerate(bundle.rules))
    for one in (one for one in bundle.sets if not one.size):
        where = source.where(bundle.sets.index(one), table="set")
        yield fault_of(f"set {one.id}", where, "is empty", "its fact is false for every message")
    owners = [n for n, rule in numbered if not rule.owner]
    helps = [n for n, rule in numbered if not rule.help and rule.verb in _ANSWERED]
    tests = [n for n, rule in numbered if not rule.tests]
    yield from _of_many(bundle, source, owners, "no owner", 'say whom to ask: owner = "..."')
    yield from _of_many(bundle, source, helps, "no help", "say what the person refused can do")
    yield from _of_many(bundle, source, tests, "no test", "show what it is for: [[rule.test]]")


def _of_many(
    bundle: Bundle, source: Source, places: Sequence[int], what: str, do: str
) -> Iterator[Fault]:
    if len(places) == 1:
        yield Fault(source.where(places[0]), bundle.rules[places[0]].id, f"has {what}", do)
    elif places:
        names = [bundle.rules[place].id for place in places[:NAMED_MAX]]
        last = f"{len(places) - NAMED_MAX} more" if len(places) > NAMED_MAX else names.pop()
        yield Fault(source.where(places[0]), "", f"{', '.join(names)} and {last} have {what}", do)
