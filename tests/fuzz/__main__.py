"""`python -m tests.fuzz NAME [--seconds N] [--seed S]`: look for an input that breaks a parser.

With atheris installed it is guided by coverage; without, inputs are changed by chance. What breaks
is written to fuzz-NAME.bin, and the exit status is 1.
"""

import argparse
import importlib.util
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.mutate import inputs
from tests.fuzz.targets import SEEDS, TARGETS

BATCH = 500


def main(arguments: list[str]) -> int:
    """Fuzz one target; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("name", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    target = TARGETS[chosen.name]
    if importlib.util.find_spec("atheris"):
        return guided(target, seconds=chosen.seconds, seed=chosen.seed)
    return by_chance(target, chosen.name, seconds=chosen.seconds, seed=chosen.seed)


def by_chance(target: Callable[[bytes], None], name: str, *, seconds: float, seed: int) -> int:
    until, tried = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        for data in inputs(seed, SEEDS[target], BATCH):
            try:
                target(data)
            except Exception:
                found = Path(f"fuzz-{name}.bin")
                found.write_bytes(data)
                traceback.print_exc()
                print(f"{name}: broken by {found} (seed {seed}): {data[:200]!r}")
                return 1
            tried += 1
        seed += 1
    print(f"{name}: {tried} inputs, none broke it; the next seed is {seed}")
    return 0


def guided(target: Callable[[bytes], None], *, seconds: float, seed: int) -> int:
    import atheris  # type: ignore[import-not-found]

    atheris.instrument_all()
    words = [sys.argv[0], f"-max_total_time={int(seconds)}", f"-seed={seed}"]
    atheris.Setup(words, target)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
