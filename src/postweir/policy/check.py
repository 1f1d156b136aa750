"""What is wrong with a policy, said for the person who wrote it: where, what, and what to do."""

from collections.abc import Iterable, Iterator

from postweir.policy.advice import told
from postweir.policy.bundle import Rule
from postweir.policy.document import Fault, Source
from postweir.policy.evaluation import Loaded, RuleFault


def faults_of(source: Source, rules: tuple[Rule, ...], loaded: Loaded | None) -> list[Fault]:
    """Return the faults that the engine found; None: it did not answer in time."""
    if loaded is None:
        what = "the conditions could not be compiled in time"
        return [Fault(source.name, "", what, "make them fewer or shorter")]
    if loaded.fault and not loaded.faults:
        return [Fault(source.name, "", loaded.fault, "write the policy for these facts")]
    place = {rule.id: index for index, rule in enumerate(rules)}
    return [_fault(source, rules, place.get(f.rule, -1), f) for f in _first_ones(loaded.faults)]


def _fault(source: Source, rules: tuple[Rule, ...], index: int, found: RuleFault) -> Fault:
    if index < 0:
        return Fault(source.name, "", found.what, "make conditions smaller, or rules fewer")
    line = source.condition_line(index)
    where = f"{source.name}:{line + found.line - 1}" if line else source.name
    what, do = told(
        found.what, condition=rules[index].when, line=found.line, column=found.column
    )  # fmt: skip
    return Fault(where, found.rule, f"in the condition, column {found.column}: {what}", do)


def _first_ones(faults: Iterable[RuleFault]) -> Iterator[RuleFault]:
    """Yield those that tell something: what follows from another comes when that one is gone."""
    told_of: set[str] = set()
    for fault in faults:
        follows = fault.what.startswith(("Syntax error", "may cost"))
        if (follows and fault.rule in told_of) or (not fault.rule and told_of):
            continue
        told_of.add(fault.rule)
        yield fault
