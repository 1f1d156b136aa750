"""What is wrong with a policy, said for the person who wrote it: where, what, and what to do."""

from collections.abc import Iterable, Iterator, Sequence

from postweir.policy.advice import told
from postweir.policy.bundle import Pattern, Set
from postweir.policy.document import Fault, Parsed
from postweir.policy.evaluation import Loaded, RuleFault
from postweir.policy.facts import SCHEMA
from postweir.policy.source import fault_of

_PATTERNS = "patterns are RE2's: https://github.com/google/re2/wiki/Syntax"


def faults_of(parsed: Parsed, loaded: Loaded | None) -> list[Fault]:
    """Return the faults that the engine found; None: it did not answer in time."""
    source = parsed.source
    if loaded is None:
        what = "the conditions could not be compiled in time"
        return [Fault(source.name, "", what, "make them fewer or shorter")]
    if loaded.fault and not loaded.faults:
        return [Fault(source.name, "", loaded.fault, "write the policy for these facts")]
    return [_fault(parsed, found) for found in _first_ones(loaded.faults)]


def _fault(parsed: Parsed, found: RuleFault) -> Fault:
    source, rules = parsed.source, parsed.bundle.rules
    index = next((n for n, rule in enumerate(rules) if rule.id == found.rule), -1)
    if index < 0:
        return _of_measure(parsed, found.what)
    line = source.condition_line(index)
    where = f"{source.name}:{line + found.line - 1}" if line else source.name
    facts = [*SCHEMA, *(fact.name for fact in parsed.bundle.own_facts())]
    what, do = told(
        found.what, condition=rules[index].when, line=found.line, column=found.column, facts=facts
    )
    return Fault(where, found.rule, f"in the condition, column {found.column}: {what}", do)


def _of_measure(parsed: Parsed, said: str) -> Fault:
    """Return what is wrong with a pattern or a set ("pattern gift: what"), or with all rules."""
    subject, colon, what = said.partition(": ")
    kind, _, name = subject.partition(" ")
    things: Sequence[Pattern | Set] = ()
    if kind in ("pattern", "set"):
        things = parsed.bundle.patterns if kind == "pattern" else parsed.bundle.sets
    index = next((n for n, thing in enumerate(things) if colon and thing.id == name), -1)
    if index < 0:
        return Fault(parsed.source.name, "", said, "make conditions smaller, or rules fewer")
    where = parsed.source.where(index, kind, table=kind)
    return fault_of(subject, where, what, _PATTERNS if kind == "pattern" else "check it again")


def _first_ones(faults: Iterable[RuleFault]) -> Iterator[RuleFault]:
    """Yield those that tell something: what follows from another comes when that one is gone."""
    told_of: set[str] = set()
    for fault in faults:
        follows = fault.what.startswith(("Syntax error", "may cost"))
        if (follows and fault.rule in told_of) or (
            not fault.rule and told_of and "all rules" in fault.what
        ):
            continue
        told_of.add(fault.rule)
        yield fault
