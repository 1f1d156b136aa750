"""Many lives side by side, on all cores."""

import gc
import multiprocessing
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from tests.simulation.lives import Story, life

CHUNK = 10  # lives between two collections of garbage: none may fall into a life
FAULTY_MAX = 20  # after so many there is enough to read


@dataclass(slots=True)
class Tally:
    """What many lives came to."""

    lives: int = 0
    acked: int = 0
    took_s: float = 0.0
    faulty: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rate = self.lives / self.took_s * 60 if self.took_s else 0.0
        said = f"{self.lives} lives, {self.acked} letters acknowledged, {len(self.faulty)} faulty; "
        lines = [f"{said}{self.took_s:.1f} s, {rate:.0f} lives a minute"]
        return "\n".join(lines + self.faults)


def run(seeds: Iterable[int], *, jobs: int = 1, plant: str = "") -> Tally:
    """Live them all, or until there are faults enough."""
    tally, began_s = Tally(), time.monotonic()
    for story in stories(seeds, jobs=jobs, plant=plant):
        tally.lives += 1
        tally.acked += story.acked
        if story.faults:
            tally.faulty.append(story.seed)
            tally.faults += [f"seed {story.seed}: {fault}" for fault in story.faults[:2]]
            if len(tally.faulty) >= FAULTY_MAX:
                break
    tally.took_s = time.monotonic() - began_s
    return tally


def stories(seeds: Iterable[int], *, jobs: int = 1, plant: str = "") -> Iterator[Story]:
    """Give one story after the other, in order of the seeds."""
    chunks = _chunks(seeds, plant)
    if jobs == 1:
        gc.freeze()
        try:
            for chunk in chunks:
                yield from _live(chunk)
        finally:
            gc.unfreeze()
        return
    # What is loaded is frozen, so that only what lives leave is looked through for garbage.
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=gc.freeze) as pool:
        for some in pool.imap(_live, chunks):
            yield from some


def _chunks(seeds: Iterable[int], plant: str) -> Iterator[tuple[list[int], str]]:
    left = iter(seeds)
    while some := list(islice(left, CHUNK)):
        yield some, plant


def _live(chunk: tuple[list[int], str]) -> list[Story]:
    seeds, plant = chunk
    was_on = gc.isenabled()
    gc.disable()
    try:
        return [life(seed, plant=plant) for seed in seeds]
    finally:
        gc.collect()
        if was_on:
            gc.enable()
