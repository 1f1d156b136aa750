"""What is wrong with a policy, said for the person who wrote it: where, what, and what to do."""

import difflib

from postweir.policy.bundle import Fault, Rule, Source
from postweir.policy.evaluation import Loaded
from postweir.policy.facts import SCHEMA

_UNKNOWN = "undeclared reference to '"


def faults_of(source: Source, rules: tuple[Rule, ...], loaded: Loaded | None) -> list[Fault]:
    """Return the faults that the engine found; None: it did not answer in time."""
    if loaded is None:
        what = "the conditions could not be compiled in time"
        return [Fault(source.name, "", what, "make them fewer or shorter")]
    if loaded.fault and not loaded.faults:
        return [Fault(source.name, "", loaded.fault, "write the policy for these facts")]
    place = {rule.id: index for index, rule in enumerate(rules)}
    faults = []
    for found in loaded.faults:
        index = place.get(found.rule, -1)
        line = source.condition_line(index) if index >= 0 else 0
        where = f"{source.name}:{line + found.line - 1}" if line else source.name
        what, do = told(found.what)
        if index >= 0:
            what = f"in the condition, column {found.column}: {what}"
        faults.append(Fault(where, found.rule, what, do))
    return faults


def told(said: str) -> tuple[str, str]:
    """Return what is wrong, and what to do about it."""
    if " not taken" in said:  # the dialect's own words have both
        what, _, do = said.partition(": ")
        return what, do or "leave it out"
    return said, _advice(said)


def _advice(what: str) -> str:
    if _UNKNOWN in what:
        name = what.partition(_UNKNOWN)[2].partition("'")[0]
        near = difflib.get_close_matches(name[:80], SCHEMA, n=1, cutoff=0.6)
        if near:
            return f"did you mean {near[0]}?"
        room = name.partition(".")[0]
        here = [known for known in SCHEMA if known.partition(".")[0] == room]
        rooms = sorted({known.partition(".")[0] for known in SCHEMA})
        return "there is no such fact; there are " + ", ".join(here or rooms)
    if "no matching overload" in what:
        return _of_types(what)
    if "Syntax error" in what:
        return "correct the condition; it is a CEL expression"
    if "no question" in what:
        return "compare it with something, or write true"
    return "make the condition smaller, or two rules of it"


def _of_types(what: str) -> str:
    """Say which types a comparison needs: `1` is an int, `1.0` a double, `"1"` a string."""
    pair = what.rpartition("(")[2].partition(")")[0]
    if "double" in pair and "int" in pair:
        return "a double is compared with a double: write 0.5 or 3.0, not 3"
    if "string" in pair and "int" in pair:
        return "numbers have no quotes, and texts have"
    return f"these types ({pair}) do not go together"
