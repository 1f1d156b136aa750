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
    sets: dict[str, bytes] = {}  # by set_<sha256>: keys, one a line


class Loaded(Frame, frozen=True):
    """The bundle is compiled, or why it cannot be."""

    policy: str
    fault: str | None
    faults: list[RuleFault] = []


class Mask(Frame, frozen=True):
    """From here on, leave these rules out: an operator killed them."""

    rules: list[str]


class Evaluate(Frame, frozen=True):
    """Apply the bundle to these facts; those left out are neutral."""

    ask: int
    facts: dict[str, Fact]  # throttle.ID too: their levels are the judge's
    texts: dict[str, str] = {}  # bundle.TEXTS that its patterns read, bounded; never kept
    keys: dict[str, list[str]] = {}  # bundle.KEYS that its sets are looked up by, bounded


class Evaluated(Frame, frozen=True):
    """The verdict, with what went wrong on the way to it."""

    ask: int
    verdict: Verdict | None
    derived: dict[str, Fact]  # set.ID and pattern.ID that are true: kept with the facts
    errors: list[str]  # "rule: what the engine said", bounded
    took_us: int
    shadow: list[str] = []  # rules on trial that matched before the verdict, bounded


PolicyFrame = Load | Loaded | Mask | Evaluate | Evaluated
