"""Lives by the thousand: python -m tests.simulation [--seeds N] [--first S] [--seed S]."""

import argparse
import os
import sys

from tests.simulation.lives import life
from tests.simulation.plants import PLANTS
from tests.simulation.running import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many lives")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="one life, with its history")
    parser.add_argument("--plant", default="", choices=["", *PLANTS], help="with this bug in it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    if asked.seed is not None:
        return tell(asked.seed, asked.plant)
    tally = run(range(asked.first, asked.first + asked.seeds), jobs=asked.jobs, plant=asked.plant)
    print(tally)
    return tell(tally.faulty[0], asked.plant) if tally.faulty else 0


def tell(seed: int, plant: str) -> int:
    """Show one life, readably, and what was wrong with it."""
    story = life(seed, traced=True, plant=plant)
    print(*story.history, sep="\n")
    for fault in story.faults:
        print(f"seed {seed}: {fault}")
    if not story.faults:
        print(f"seed {seed}: {story.acked} letters were acknowledged, and all is well")
    return 1 if story.faults else 0


if __name__ == "__main__":
    sys.exit(main())
