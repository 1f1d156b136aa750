"""SIGKILL of a shard, at any moment and at any of its writes and syncs; many lives a file."""

import random
from collections.abc import Iterator
from pathlib import Path

from tests.crash import points
from tests.crash.chain import Chain, Death, Pace, chains, place
from tests.crash.life import Life
from tests.crash.work import work

POINTS = 1450  # about what a life passes that is let alone
AT_A_POINT = 0.35  # of the lives; the others end between any two instructions


def lives(seed: int, seconds: float, plant: str) -> Iterator[Life]:
    """Kill shards for so long."""
    return chains("kill", seed, seconds, plant, place=place, live=live)


def live(chain: Chain, seed: int, pace: Pace, *, last: bool) -> Life:
    """One life, from its seed."""
    chance = random.Random(-seed - 1)
    at_a_point = chance.random() < AT_A_POINT
    death = killed_at(chain.folder, chance, pace) if at_a_point else killed_after(chance, pace)
    return chain.live(work(seed), death, pace, last=last)


def killed_after(chance: random.Random, pace: Pace) -> Death:
    """Killed by its parent, at any moment of it."""
    after_s = chance.uniform(0, 1.1) * pace.full_s
    return Death(what=f"killed after {after_s * 1000:.1f} ms", after_s=after_s)


def killed_at(folder: Path, chance: random.Random, pace: Pace) -> Death:
    """Killed by itself, at one of its points."""
    at = chance.randint(1, POINTS)

    def prepare() -> None:
        points.lay(points.Deadly(at, chance), folder)

    return Death(what=f"killed at point {at}", after_s=3 * pace.full_s, prepare=prepare)
