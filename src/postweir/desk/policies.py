"""Policies in files: write the default one, check one, run its own tests."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from postweir.desk.ports import Misused
from postweir.judge import bundles, checking
from postweir.judge.checking import Report
from postweir.judge.gates import Progress
from postweir.policy import document
from postweir.policy.bundle import Bundle
from postweir.policy.dialect import COST_TOTAL_MAX
from postweir.policy.verdict import VERBS, Fact
from postweir.runtime.frames import Struct


class Fault(Struct, frozen=True):
    """One thing wrong with a policy."""

    where: str
    rule: str
    what: str
    do: str


class Passed(Struct, frozen=True):
    """One step of the check that found nothing against the policy."""

    name: str
    took_ms: int
    said: str


class Summary(Struct, frozen=True):
    """What a policy consists of, and how much of the budget it takes."""

    rules: int = 0
    verbs: dict[str, int] = {}  # how many rules of each
    shadow: list[str] = []  # rules on trial
    off: list[str] = []  # rules that are not looked at
    sets: dict[str, int] = {}  # keys of each
    patterns: list[str] = []
    throttles: list[str] = []
    limits: dict[str, int] = {}
    tests: int = 0
    cost: int = 0  # steps of all rules at worst
    cost_max: int = COST_TOTAL_MAX


class Checked(Struct, frozen=True):
    """What came of a check."""

    ok: bool
    file: str
    policy: str  # its name, "" when it has faults
    faults: list[Fault]
    notices: list[Fault] = []  # what its author should know, and may leave as it is
    passed: list[Passed] = []
    summary: Summary = Summary()


class Part(Struct, frozen=True):
    """A part of a condition, and what it came to: true, false, or what the engine said."""

    text: str
    came: str


class Test(Struct, frozen=True):
    """One of a policy's own tests, and what came of it."""

    rule: str
    number: int  # of the rule's tests, from 1
    name: str
    where: str
    ok: bool
    expected: bool
    came: str  # true, false, or what the engine said
    facts: dict[str, Fact]
    parts: list[Part]  # of one that failed: each part of the condition
    texts: dict[str, str]  # that its patterns were given
    keys: dict[str, list[str]]  # that its sets were given


class Tests(Struct, frozen=True):
    """What came of a policy's own tests."""

    ok: bool
    file: str
    tests: list[Test]
    faults: list[Fault]  # with any but of the tests, none was run


def new(path: Path) -> Path:
    """Write the default policy into a new file. Raises Misused, OSError."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(bundles.shipped_text())
    except FileExistsError:
        raise Misused(f"{path} is there already; choose another name") from None
    return path


def check(path: Path, tell: Progress | None = None) -> Checked:
    """Check a policy file; `tell` hears how far it is. Raises OSError."""
    return checked(path, checking.check_file(path, progress=tell))


def checked(path: Path, report: Report) -> Checked:
    """Return what a check found, as people and scripts are told it."""
    bundle = report.parsed.bundle if report.parsed else None
    return Checked(
        ok=report.ok,
        file=str(path),
        policy=bundle.hash if bundle and report.ok else "",
        faults=_faults(report.faults),
        notices=_faults(report.notices),
        passed=[Passed(one.name, round(one.took_s * 1000), one.said) for one in report.passed],
        summary=_summary(bundle, report) if bundle else Summary(),
    )


def run_tests(path: Path) -> Tests:
    """Run a policy's own tests. Raises OSError."""
    report = checking.check_file(path, gated=False)
    tests = [
        Test(
            one.rule, one.number, one.test.name, one.where, one.ok, one.test.matches, one.came,
            one.test.facts, [Part(text, came) for text, came in one.parts],
            one.test.texts, one.test.keys,
        )
        for one in report.tests
    ]  # fmt: skip
    return Tests(report.ok, str(path), tests, _faults(report.faults))


def _faults(faults: Iterable[document.Fault]) -> list[Fault]:
    return [Fault(one.where, one.rule, one.what, one.do) for one in faults]


def _summary(bundle: Bundle, report: Report) -> Summary:
    verbs = Counter(rule.verb for rule in bundle.rules)
    return Summary(
        rules=len(bundle.rules),
        verbs={verb: verbs[verb] for verb in VERBS if verbs[verb]},
        shadow=[rule.id for rule in bundle.rules if rule.mode == "shadow"],
        off=[rule.id for rule in bundle.rules if rule.mode == "off"],
        sets={one.id: one.size for one in bundle.sets},
        patterns=[one.id for one in bundle.patterns],
        throttles=[one.id for one in bundle.throttles],
        limits=dict(bundle.limits),
        tests=sum(len(rule.tests) for rule in bundle.rules),
        cost=report.cost,
    )
