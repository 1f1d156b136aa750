"""What the judge and its policy workers say to each other."""

from collections.abc import Iterator, Mapping

from postweir.policy.verdict import Fact, Verdict
from postweir.runtime.frames import Frame, Value

PIECE_BYTES = 4 * 1024 * 1024  # of a set in one frame: half of what a frame may carry


class RuleFault(Value, frozen=True):
    """What is wrong with one rule's condition, as the engine or the dialect sees it."""

    rule: str
    line: int  # within the condition, from 1
    column: int
    what: str


class Keys(Frame, frozen=True):
    """A piece of a set that the bundle to come looks into; the next one follows it."""

    set: str  # set_<sha256>
    data: bytes


class Load(Frame, frozen=True):
    """Compile this bundle, once, before anything else is asked."""

    bundle: bytes  # canonical, as bundle.py writes it
    schema: str  # the facts it was written for
    sets: dict[str, bytes] = {}  # by set_<sha256>: keys, one a line; large ones came as `Keys`


class Loaded(Frame, frozen=True):
    """The bundle is compiled, or why it cannot be."""

    policy: str
    fault: str | None
    faults: list[RuleFault] = []
    cost: int = 0  # steps of all rules at worst, of dialect.COST_TOTAL_MAX


class Mask(Frame, frozen=True):
    """From here on leave these rules out, and no others: an operator killed them."""

    rules: list[str]


class Evaluate(Frame, frozen=True):
    """Apply the bundle to these facts; those left out are neutral."""

    ask: int
    facts: dict[str, Fact]  # with the levels of throttles. Who says set.ID here is believed
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


PolicyFrame = Keys | Load | Loaded | Mask | Evaluate | Evaluated


def loading(canonical: bytes, schema: str, sets: Mapping[str, bytes]) -> Iterator[Frame]:
    """Yield what a worker has to hear to load a bundle, no frame too large."""
    for name, data in sets.items():
        for at in range(0, max(len(data), 1), PIECE_BYTES):
            yield Keys(name, data[at : at + PIECE_BYTES])
    yield Load(canonical, schema)
