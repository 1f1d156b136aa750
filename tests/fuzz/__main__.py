"""`python -m tests.fuzz NAME|all [--seconds N] [--seed S]`: look for an input that breaks a parser.

With atheris installed it is guided by coverage, and goes on where it stopped: what it has learned
lies in .fuzz/NAME. Without, inputs are changed by chance. What breaks is written to
fuzz-NAME.bin, and the exit status is 1; `--input fuzz-NAME.bin` does it again.
"""

import argparse
import importlib.util
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.mutate import LENGTH_MAX, inputs

Target = Callable[[bytes], None]

BATCH = 500
LEARNED = Path(".fuzz")
HANG_S = 20  # for one input: the slowest takes milliseconds
MEMORY_MB_MAX = 1024


def main(arguments: list[str]) -> int:
    """Fuzz one target, or each for so long; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--input", type=Path, help="try this one input only")
    chosen = parser.parse_args(arguments)
    is_guided = importlib.util.find_spec("atheris") is not None and chosen.input is None
    if is_guided and chosen.name != "all":
        instrument()
    from tests.fuzz.targets import SEEDS, TARGETS

    if chosen.name == "all":
        return each(sorted(TARGETS), arguments)
    if chosen.name not in TARGETS:
        parser.error(f"there are: all, {', '.join(sorted(TARGETS))}")
    target = TARGETS[chosen.name]
    if chosen.input is not None:
        target(chosen.input.read_bytes())
        return 0
    run = guided if is_guided else by_chance
    seeds = [*SEEDS[target], *foreign_seeds(chosen.name)]
    return run(target, chosen.name, seeds, seconds=chosen.seconds, seed=chosen.seed)


def each(names: list[str], arguments: list[str]) -> int:
    """Give each target a process of its own, one after the other; return how many broke."""
    words = [word for word in arguments if word != "all"]
    commands = [[sys.executable, "-m", "tests.fuzz", name, *words] for name in names]
    return sum(subprocess.run(command, check=False).returncode != 0 for command in commands)


def foreign_seeds(name: str) -> list[bytes]:
    """Return what other servers' fuzzers found worth keeping, where it is at hand."""
    if name != "smtp_server":
        return []
    from tests.fuzz.corpora import conversations

    return list(conversations())


def by_chance(target: Target, name: str, seeds: list[bytes], *, seconds: float, seed: int) -> int:
    until, tried = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        for data in inputs(seed, seeds, BATCH):
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


def instrument() -> None:
    """Import the product so that atheris sees which branches an input takes."""
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(include=["postweir"], enable_loader_override=False):
        import tests.fuzz.targets  # noqa: F401


def guided(target: Target, name: str, seeds: list[bytes], *, seconds: float, seed: int) -> int:
    """Let libFuzzer run; it ends the process itself, with 0 or not."""
    import atheris
    from tests.fuzz.corpora import dictionary, learn

    folder = LEARNED / name
    learn(folder, seeds)
    words = LEARNED / f"{name}.dict"
    words.write_text(dictionary())
    options = [
        f"-max_total_time={int(seconds)}", f"-seed={seed}", f"-max_len={LENGTH_MAX}",
        f"-timeout={HANG_S}", f"-rss_limit_mb={MEMORY_MB_MAX}", f"-dict={words}",
        f"-exact_artifact_path=fuzz-{name}.bin", "-print_final_stats=1", "-verbosity=1",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(folder)], target)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
