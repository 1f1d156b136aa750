"""Checks a policy where it does no harm: its form, a real worker, its own tests, the gates."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from postweir.judge import beside, gates, owntests
from postweir.judge.engine import WORKER
from postweir.judge.owntests import Tested
from postweir.judge.probing import Finding, Gone
from postweir.judge.trial import Trial
from postweir.policy.check import faults_of
from postweir.policy.document import Fault, Files, Parsed, Wrong, no_files, parse
from postweir.policy.matching import memory_bytes

__all__ = ["Fault", "Passed", "Report", "check", "check_file", "parse"]


@dataclass(frozen=True, slots=True)
class Passed:
    """One step of the check that found nothing against the policy."""

    name: str
    took_s: float
    said: str = ""  # what was tried, with figures


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a check: without faults the policy may be deployed."""

    parsed: Parsed | None = None  # None: the text is no policy
    faults: tuple[Fault, ...] = ()
    notices: tuple[Fault, ...] = ()  # what its author should know, and may leave as it is
    passed: tuple[Passed, ...] = ()
    tests: tuple[Tested, ...] = ()
    cost: int = 0  # steps of all rules at worst, of dialect.COST_TOTAL_MAX

    @property
    def ok(self) -> bool:
        """True when nothing speaks against the policy."""
        return not self.faults


def check_file(path: Path, *, gated: bool = True, progress: gates.Progress | None = None) -> Report:
    """Return what is wrong with the policy in a file. Raises OSError."""
    try:
        text = beside.text_of(path)
    except Wrong as wrong:
        return Report(faults=wrong.faults)
    return check(text, str(path), files=beside.files(path), gated=gated, progress=progress)


def check(
    text: str,
    name: str,
    *,
    files: Files = no_files,
    gated: bool = True,  # not: only form, conditions and own tests
    command: Sequence[str] = WORKER,
    progress: gates.Progress | None = None,
) -> Report:
    """Return what is wrong with a policy text, and what was tried."""
    steps = _Steps()
    try:
        parsed = parse(text, name, files)
    except Wrong as wrong:
        return Report(faults=wrong.faults)
    steps.passed("form", f"{len(parsed.bundle.rules)} rules")
    with Trial(command, memory_bytes(parsed.bundle, parsed.sets)) as trial:
        loaded = trial.load(parsed.bundle, parsed.sets)
    faults = faults_of(parsed, loaded)
    if faults or loaded is None:
        return Report(parsed, tuple(faults), parsed.notices, steps.done)
    steps.passed("conditions", f"{loaded.cost} steps at worst")
    try:
        tested = owntests.run(parsed, command)
    except Gone as gone:
        lost = Fault(name, "", f"its own tests: {gone}", "make its conditions simpler")
        return Report(parsed, (lost,), parsed.notices, steps.done, (), loaded.cost)
    faults = [owntests.fault(one) for one in tested if not one.ok]
    if faults or not gated:
        return Report(parsed, tuple(faults), parsed.notices, steps.done, tuple(tested), loaded.cost)
    steps.passed("own tests", f"{len(tested)} tests")
    through = gates.run(parsed.bundle, parsed.sets, command=command, progress=progress)
    notices = list(parsed.notices)
    for gate in through.results:
        faults += [_placed(parsed, found) for found in gate.faults]
        notices += [_placed(parsed, found) for found in gate.notices]
        if gate.ok:
            steps.done += (Passed(gate.name, gate.took_s, gate.said),)
    return Report(parsed, tuple(faults), tuple(notices), steps.done, tuple(tested), loaded.cost)


class _Steps:
    """What was passed so far, each with its time."""

    def __init__(self) -> None:
        self.done: tuple[Passed, ...] = ()
        self._began = time.monotonic()

    def passed(self, name: str, said: str) -> None:
        now = time.monotonic()
        self.done += (Passed(name, now - self._began, said),)
        self._began = now


def _placed(parsed: Parsed, found: Finding) -> Fault:
    """Return what a gate found, with the line of its rule."""
    rules = parsed.bundle.rules
    index = next((n for n, rule in enumerate(rules) if rule.id == found.rule), -1)
    return Fault(parsed.source.where(index), found.rule, found.what, found.do)
