"""The gates that a policy which compiles has to pass: it is tried out in real workers."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from postweir.judge import ordeal
from postweir.judge.engine import WORKER
from postweir.judge.examples import Examples
from postweir.judge.probing import Finding, Gone, Probe, Tried, loaded
from postweir.judge.trial import Trial
from postweir.policy.bundle import Bundle
from postweir.policy.generate import Cases
from postweir.policy.matching import memory_bytes

EVALUATE_S = 0.025  # as `judge.evaluate_ms` has it unless set

# What is tried now, how much of it is done, and of how much.
Progress = Callable[[str, int, int], None]

__all__ = ["Finding", "Gate", "Gates", "Progress", "run"]


@dataclass(frozen=True, slots=True)
class Gate:
    """What one gate says: faults keep the policy out, notices are for who wrote it."""

    name: str
    took_s: float
    said: str = ""  # what was tried, with figures: one line
    faults: tuple[Finding, ...] = ()
    notices: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """True when nothing speaks against the policy."""
        return not self.faults


@dataclass(frozen=True, slots=True)
class Gates:
    """What all gates say, in the order they were passed."""

    results: tuple[Gate, ...]

    @property
    def ok(self) -> bool:
        """True when every gate is passed."""
        return all(gate.ok for gate in self.results)


def run(
    bundle: Bundle,
    sets: Mapping[str, bytes],  # by set_<sha256>, as `Load` carries them
    *,
    command: Sequence[str] = WORKER,
    evaluate_s: float = EVALUATE_S,
    progress: Progress | None = None,
) -> Gates:
    """Try out a bundle that compiles: never raises for what a policy does."""
    passing = _Passing(progress or _nobody)
    try:
        with (
            Probe(bundle, sets, command) as probe,
            Trial(command, memory_bytes(bundle, sets)) as trial,
        ):
            loaded(trial, bundle, sets)
            cases = Cases(bundle)
            examples = Examples(bundle, cases, probe)
            passing.through("examples", examples.run)
            passing.through("neutral facts", lambda _: ordeal.neutral(bundle, probe))
            passing.through(
                "worst facts", lambda told: ordeal.extremes(bundle, cases, examples, probe, told)
            )
            passing.through("kills", lambda told: ordeal.masks(bundle, examples, trial, told))
            passing.through("self-test", lambda told: ordeal.self_test(
                bundle, sets, ordeal.generated(bundle, cases, examples, probe), trial,
                evaluate_s=evaluate_s, told=told,
            ))  # fmt: skip
    except Gone as gone:
        passing.ended(gone)
    return Gates(tuple(passing.results))


class _Passing:
    """One gate after the other, each with its time."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._name, self._began = "", time.monotonic()
        self.results: list[Gate] = []

    def through(self, name: str, gate: Callable[[ordeal.Told], Tried]) -> None:
        """Pass a gate."""
        self._name, self._began = name, time.monotonic()
        self._add(gate(lambda done, of: self._progress(name, done, of)))

    def ended(self, gone: Gone) -> None:
        """The worker is gone in the midst of a gate."""
        where = f" among the {self._name}{ordeal.shown(gone.facts)}" if self._name else ""
        what = f"{gone}{where}"
        do = "make conditions simpler; when it stays so, please report it"
        self._add(Tried("", [Finding("", what, do)]))

    def _add(self, tried: Tried) -> None:
        took_s = time.monotonic() - self._began
        self.results.append(
            Gate(
                self._name or "load", took_s, tried.said, tuple(tried.faults), tuple(tried.notices)
            )
        )


def _nobody(_: str, __: int, ___: int) -> None:
    return None
