"""What the judge and its policy workers say to each other."""

from postweir.policy.verdict import Fact, Verdict
from postweir.runtime.frames import Frame, Value


class RuleFault(Value, frozen=True):
    """What is wrong with one rule's condition, as the engine or the dialect sees it."""

    rule: str
    line: int  # within the condition, from 1
    column: int
    what: str


class Load(Frame, frozen=True):
    """Compile this bundle, once, before anything else."""

    bundle: bytes  # canonical, as bundle.py writes it
    schema: str  # the facts it was written for


class Loaded(Frame, frozen=True):
    """The bundle is compiled, or why it cannot be."""

    policy: str
    fault: str | None
    faults: list[RuleFault] = []


class Evaluate(Frame, frozen=True):
    """Apply the bundle to these facts; those left out are neutral."""

    ask: int
    facts: dict[str, Fact]
    texts: dict[str, str] = {}  # for patterns and sets of a bundle, in a later version
    keys: dict[str, list[str]] = {}


class Evaluated(Frame, frozen=True):
    """The verdict, with what went wrong on the way to it."""

    ask: int
    verdict: Verdict | None
    derived: dict[str, Fact]
    errors: list[str]  # "rule: what the engine said", bounded
    took_us: int


PolicyFrame = Load | Loaded | Evaluate | Evaluated
