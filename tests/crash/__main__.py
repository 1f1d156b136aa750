"""`python -m tests.crash`: attack the promise behind a 250, for so long, and count.

Each attack runs in a process of its own for its share of the time, from where it left off at this
revision. A stretch that ends, or is ended, adds a line to the tally. The exit status is 1 when
anything was lost, torn or doubled.
"""

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from tests.crash import tally
from tests.crash.attacks import ATTACKS
from tests.crash.life import Life, Unfit
from tests.crash.tally import Stretch

COUNT_S = 10.0  # what is lost of the tally when all of us are killed
STRETCH_S_MAX = 60.0  # then the next attack has its turn
UNFIT = 3  # exit status of a stretch


def main(arguments: list[str]) -> int:
    """Attack, or report; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long, in all (60)")
    parser.add_argument("--only", default="", help=f"NAME,... of {', '.join(ATTACKS)}")
    parser.add_argument("--seed", type=int, help="the first life's; else where it left off")
    parser.add_argument("--plant", default="", help="a bug to plant: nothing is added to the tally")
    parser.add_argument("--tally", type=Path, default=tally.FILE)
    parser.add_argument("--report", action="store_true", help="only print the totals")
    parser.add_argument("--stretch", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.stretch:
        return stretch(chosen.stretch, chosen.seed, chosen.seconds, chosen.plant)
    if chosen.report:
        print(tally.table(tally.read(chosen.tally)))
        return 0
    names = chosen.only.split(",") if chosen.only else list(ATTACKS)
    if unknown := [name for name in names if name not in ATTACKS]:
        parser.error(f"no such attack: {', '.join(unknown)}")
    run = Run(names, tally.revision(), chosen.tally, seed=chosen.seed, plant=chosen.plant)
    return run.run(chosen.seconds)


class Run:
    """Attacks in turn, until the time is over or one finds a fault."""

    def __init__(
        self, names: list[str], revision: str, path: Path, *, seed: int | None, plant: str
    ) -> None:
        self._names, self._revision, self._path = names, revision, path
        self._seed, self._plant = seed, plant
        self._done: list[Stretch] = []

    def run(self, seconds: float) -> int:
        """Return the exit status."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        until, good = time.monotonic() + seconds, True
        names = list(self._names)
        try:
            while good and names and (left_s := until - time.monotonic()) > 0.5:
                for name, share_s in _shares(names, left_s):
                    fit, good = self._attack(name, share_s)
                    if not fit:
                        names.remove(name)
                    if not good:
                        break
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print(tally.table(self._done))
        if not self._done:
            print("nothing here can be attacked")
        return 0 if good and self._done else 1

    def _attack(self, name: str, seconds: float) -> tuple[bool, bool]:
        """Run one attack for so long; return whether it could, and whether all was good."""
        seed = self._seed
        if seed is None or any(one.attack == name for one in self._done):
            before = [] if self._plant else tally.read(self._path)
            seed = tally.next_seed([*before, *self._done], self._revision, name)
        process = _begin(name, seed, seconds, self._plant)
        good = True
        with self._counting(name, seed) as add:
            try:
                for life in _lives(process):
                    add(life)
                    if not life.good:
                        good = False
                        print(f"{name}: life {life.seed} has a fault: {life.what}", flush=True)
                        break
            finally:
                status = _end(process)
        if good and status not in (0, UNFIT):
            print(f"{name}: the attack itself failed, with {status}", flush=True)
            good = False
        return status != UNFIT, good

    @contextlib.contextmanager
    def _counting(self, name: str, seed: int) -> Iterator[Callable[[Life], None]]:
        """Give what adds a life, and write the tally now and then."""
        begun = counted = time.monotonic()
        count = Stretch(self._revision, name, seed)
        shown = len(self._done)

        def write() -> None:
            nonlocal count, counted
            now = time.monotonic()
            count.seconds = round(now - counted, 1)
            if count.lives:
                self._done.append(count)
                if not self._plant:
                    tally.append(self._path, count)
                (total,) = tally.totals(self._done[shown:])
                _say(total, now - begun)
            elif shown == len(self._done):
                print(f"{name}: no life in {now - begun:.0f} s", flush=True)
            count, counted = Stretch(self._revision, name, count.next_seed), now

        def add(life: Life) -> None:
            count.add(life)
            if time.monotonic() - counted > COUNT_S:
                write()

        try:
            yield add
        finally:
            write()


def _shares(names: list[str], left_s: float) -> Iterator[tuple[str, float]]:
    """Return who has its turn for how long in this round."""
    weight = sum(ATTACKS[name].weight for name in names)
    longest = max(ATTACKS[name].weight for name in names)
    round_s = min(left_s, STRETCH_S_MAX * weight / longest)
    for name in list(names):
        yield name, round_s * ATTACKS[name].weight / weight


def _say(count: Stretch, seconds: float) -> None:
    print(
        f"{count.attack}: {count.lives} lives, {count.acked:,} acknowledged, {count.lost} lost,"
        f" {count.torn} torn, {count.doubled} doubled in {seconds:.0f} s",
        flush=True,
    )


def _begin(name: str, seed: int, seconds: float, plant: str) -> subprocess.Popen[str]:
    words = ["--stretch", name, "--seed", str(seed), "--seconds", str(seconds), "--plant", plant]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.crash", *words], stdout=subprocess.PIPE, text=True
    )


def _lives(process: subprocess.Popen[str]) -> Iterator[Life]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            yield Life(**json.loads(line))
        else:
            print(line, end="", flush=True)


def _end(process: subprocess.Popen[str]) -> int:
    """Let a stretch tidy up; return its status."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    process.stdout.close()
    try:
        return process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def stretch(name: str, seed: int, seconds: float, plant: str) -> int:
    """In a process of its own: one attack, a line a life. Told to stop, it ends with this life."""
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: told.append(number))
    lives = ATTACKS[name].load()(seed, seconds, plant)
    try:
        for life in lives:
            print(json.dumps(asdict(life)), flush=True)
            if told:
                break
    except Unfit as fault:
        print(f"{name}: skipped, {fault}", flush=True)
        return UNFIT
    except BrokenPipeError:  # nobody counts any more
        sys.stdout = None  # type: ignore[assignment]
    finally:
        lives.close()  # type: ignore[attr-defined]
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
