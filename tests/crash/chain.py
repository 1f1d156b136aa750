"""Lives that follow one another on one file: born by fork, ended by violence, checked, kept."""

import contextlib
import gc
import os
import select
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.crash import plants, points, shard, telling
from tests.crash.life import Life
from tests.crash.oracle import Found, Oracle
from tests.crash.scratch import scratch
from tests.crash.telling import Told
from tests.crash.work import Work

LIFE_S_MAX = 20.0  # a life that takes longer hangs
LIVES = 25  # of one file
KEPT = Path(".crash/kept")


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """How a life ends: `prepare` runs in it before it begins, `end` in the parent at its time."""

    what: str
    after_s: float = LIFE_S_MAX
    prepare: Callable[[], None] = nothing
    end: Callable[[int], None] = lambda pid: os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Ended:
    """What a life told, and how long it took over all its work; 0 when it was ended before."""

    told: list[Told]
    fault: str
    full_s: float


def one_life(folder: Path, work: Work, death: Death, plant: Callable[[], None]) -> Ended:
    """Bear it, wait for its end, and return what it told."""
    ear, mouth = telling.pipe()
    gc.freeze()  # or the child's first collection copies all of our pages
    pid = os.fork()
    if pid == 0:
        os.close(ear)

        def prepare() -> None:
            plant()
            death.prepare()

        shard.live(folder, work, mouth, prepare)
    os.close(mouth)
    try:
        if not _ends(pid, death.after_s):
            death.end(pid)
            _ends(pid, LIFE_S_MAX)
    finally:
        os.kill(pid, signal.SIGKILL)  # nobody else has waited for it, so it is still this one
        os.waitpid(pid, 0)
        told, fault = telling.listen(ear)
        os.close(ear)
    full_us = max((one.number for one in told if one.kind == telling.END), default=0)
    return Ended(told, fault, full_us / 1e6)


def _ends(pid: int, within_s: float) -> bool:
    """Wait for the end of a child; leave it to be reaped."""
    descriptor = os.pidfd_open(pid)
    try:
        return bool(select.select([descriptor], [], [], within_s)[0])
    finally:
        os.close(descriptor)


class Pace:
    """How long a life takes that is let alone, as far as it was seen."""

    def __init__(self) -> None:
        self.full_s = 0.1

    def seen(self, full_s: float) -> None:
        """Take what one life took; 0 when it was cut short: then it may take longer."""
        self.full_s = self.full_s * 0.9 + full_s * 0.1 if full_s else self.full_s * 1.02


class Chain:
    """One file and its lives."""

    def __init__(
        self, attack: str, folder: Path, first: int, plant: Callable[[], None] = nothing
    ) -> None:
        self.folder = folder
        self._attack, self._first, self._plant = attack, first, plant
        self._oracle = Oracle(folder)

    def live(
        self, work: Work, death: Death, pace: Pace, *, back: Callable[[], None] = nothing,
        last: bool = False, faults: bool = False,
    ) -> Life:  # fmt: skip
        """Live one life and check it; after the `last` one check all. `back`: before any check.

        With `faults` the product may find that its disk is gone: then it has to end, no more.
        """
        self._oracle.begins(work)
        ended = one_life(self.folder, work, death, self._plant)
        pace.seen(ended.full_s)
        back()
        acked = sum(one.kind == telling.SAFE for one in ended.told)
        found = self._check(ended, last=last)
        if ended.fault and not faults:
            found.lost.append(ended.fault)
        life = Life(
            seed=work.seed, acked=acked, lost=len(found.lost), torn=len(found.torn),
            doubled=len(found.doubled), what=death.what,
        )  # fmt: skip
        return life if life.good else self._kept(life, found)

    def _check(self, ended: Ended, *, last: bool) -> Found:
        try:
            found = self._oracle.check(ended.told)
            if last and found.good:
                found = self._oracle.whole()
        except Exception as fault:  # a file that cannot be read has lost everything
            return Found(lost=[repr(fault)])
        return found

    def _kept(self, life: Life, found: Found) -> Life:
        kept = KEPT / f"{self._attack}-{life.seed}"
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        if self.folder.exists():
            shutil.copytree(self.folder, kept)
        replay = f"python -m tests.crash --only {self._attack} --seed {self._first}"
        return replace(life, what=f"{life.what}: {found}; kept in {kept}; replay: {replay}")


def chains(
    attack: str,
    seed: int,
    seconds: float,
    plant: str,
    *,
    place: Callable[[int], AbstractContextManager[Path]],
    live: Callable[..., Life],
) -> Iterator[Life]:
    """Live chain after chain for so long, each on a file of its own."""
    planted = plants.plant(plant)
    points.install()
    until, pace = time.monotonic() + seconds, Pace()
    while time.monotonic() < until:
        with place(seed) as folder:
            chain, last = Chain(attack, folder, seed, planted), False
            while not last:
                last = (seed + 1) % LIVES == 0 or time.monotonic() > until
                life = live(chain, seed, pace, last=last)
                seed += 1
                yield life
                if not life.good:
                    break


@contextlib.contextmanager
def place(seed: int) -> Iterator[Path]:
    """Where one spool will be. SIGKILL leaves the kernel's memory whole, so that is disk enough.

    One in eight is on a real disk, whose syncs take their time.
    """
    with scratch(in_memory=seed // LIVES % 8 != 7) as folder:
        yield folder / "spool"
