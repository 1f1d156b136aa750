"""SIGKILL of any process of a whole installation under load, at random moments."""

import random
from collections.abc import Iterator

from tests.crash.life import Life
from tests.crash.record import letting
from tests.crash.siege import Siege, sieges

PAUSE_S = (0.1, 0.9)  # a process that was killed is back in half a second: some die starting
TWICE_SHARE = 0.15  # of the blows kill two at once
WEIGHTS = {"supervisor": 1, "edge": 3, "judge": 2, "spool": 4, "delivery": 4, "watch": 1,
           "worker": 1}  # fmt: skip


def attack(seed: int, seconds: float, plant: str = "") -> Iterator[Life]:
    """Kill one process after another; a life for each kill."""
    return sieges(seed, seconds, _kill, plant)


def _kill(siege: Siege, chance: random.Random) -> str:
    letting(chance.uniform(*PAUSE_S))
    killed: list[str] = []
    for _ in range(2 if chance.random() < TWICE_SHARE else 1):
        living = siege.living()
        names = sorted(living)
        weights = [WEIGHTS.get(name.split()[0], 0) for name in names]
        name = chance.choices(names, weights)[0]
        siege.kill(name, living[name])
        killed.append(name)
    return f"killed {' and '.join(killed)}"
