"""SIGSTOP of any process of a whole installation under load, for a while, then SIGCONT.

Half of the stops are longer than `supervisor.silence_s` is by default. Whether the supervisor then
kills the stopped process is the seed's choice: half of the time it must not, so that a process
comes back that does not know it was away. Beside the records, it is timed what the customer felt:

* what a stopped edge worker or shard held (connections; accepts in its hands or sent there before
  its silence was noticed) ends within 2 s, for an edge worker only where a supervisor kills it;
* nothing else waits more than 100 ms longer than the same load waits without a stop.

Both are budgets of an idle machine: `Felt.late` allows for a noisy one, and the figures are in
each life's words.
"""

import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.crash.life import Life
from tests.crash.record import Timed, letting
from tests.crash.siege import Siege, sieges

SOON_S, STOP_S, AFTER_S = (0.3, 1.0), (0.3, 4.0), 0.5
NEVER_S = 60.0  # a supervisor's patience that no stop here outlasts
PATIENCES = (NEVER_S, 1.0)
HELD_S = 2.0  # until what a stopped process held has ended
NOTICED_S = 0.3  # after a stop its silence is noticed: what was sent before may be held
LONGER_S = 0.1  # that others may wait
NOISE_S = 0.6  # what a busy machine adds by itself
KINDS = ("edge", "judge", "spool", "delivery", "watch", "supervisor", "worker")


@dataclass(frozen=True, slots=True)
class Felt:
    """How long the customer's transactions took: all before, and during one stop by whose fault."""

    before_p99_s: float
    before_max_s: float
    others_p99_s: float
    others_max_s: float
    held: int
    held_max_s: float  # from the stop to their end
    others: int

    def late(self, *, noise_s: float = NOISE_S, held_s: float | None = HELD_S) -> str:
        """Return what waited too long, or "". `held_s` None: nobody ends what is held."""
        if self.others_max_s > self.before_max_s + LONGER_S + noise_s:
            return f"another waited {self.others_max_s:.2f} s"
        if held_s is not None and self.held_max_s > held_s + noise_s:
            return f"what was held waited {self.held_max_s:.2f} s"
        return ""

    def __str__(self) -> str:
        return (
            f"others p99 {self.others_p99_s * 1000:.0f} ms, slowest {self.others_max_s * 1000:.0f}"
            f" of {self.others} (before {self.before_p99_s * 1000:.0f}, "
            f"{self.before_max_s * 1000:.0f}); {self.held} held, the last {self.held_max_s:.2f} s"
        )


def attack(seed: int, seconds: float, plant: str = "") -> Iterator[Life]:
    """Stop one process after another; a life for each stop."""
    end_s, half_s = time.monotonic() + seconds, seconds / len(PATIENCES)
    for n, silence_s in enumerate(PATIENCES):
        left_s = end_s - time.monotonic() if n else half_s
        for life in sieges(
            seed, left_s, Stopping(silence_s), plant, supervisor={"silence_s": silence_s}
        ):
            seed = life.seed + 1
            yield life


class Stopping:
    """A blow that stops a process; `felt` is what that came to."""

    def __init__(self, silence_s: float, kinds: Iterator[str] | None = None) -> None:
        self._silence_s = silence_s
        self._kinds = kinds  # one after another; None: as chance has it
        self._stops: list[tuple[float, float]] = []
        self.late: list[str] = []

    def __call__(self, siege: Siege, chance: random.Random) -> str:
        letting(chance.uniform(*SOON_S))
        living = siege.living()
        kind = next(self._kinds) if self._kinds is not None else chance.choice(KINDS)
        names = sorted(name for name in living if name.split()[0] == kind)
        if not names:
            return f"no {kind} to stop"
        name, seconds = chance.choice(names), chance.uniform(*STOP_S)
        stop_s, ports, killed = self._stop(siege, name, living[name], seconds)
        letting(AFTER_S)
        self._stops.append((stop_s, time.monotonic()))
        timed = [one for one in list(siege.load.timed) if not self._earlier(one)]
        felt = feel(timed, name, ports, stop_s, stop_s + seconds)
        # A worker that nobody kills keeps its connections until it goes on.
        ends = kind != "edge" or (killed and seconds > self._silence_s)
        late = felt.late(held_s=HELD_S if ends else None)
        words = f"stopped {name} {seconds:.1f} s{' (killed)' if killed else ''}: {felt}"
        if late:
            self.late.append(f"LATE {late}: {words}")
        return f"LATE {late}: {words}" if late else words

    def _earlier(self, one: Timed) -> bool:
        """True when it was under way in an earlier stop, which says nothing of this one."""
        end_s = one.began_s + one.took_s
        return any(one.began_s < on_s and end_s > off_s for off_s, on_s in self._stops[:-1])

    def _stop(
        self, siege: Siege, name: str, pid: int, seconds: float
    ) -> tuple[float, set[int], bool]:
        """Stop it for so long; returns since when, whose connections it had, and its end."""
        killed = False
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        stop_s = time.monotonic()
        ports = ports_held(pid, siege.here.port) if name.startswith("edge") else set()
        until_s = stop_s + seconds
        while not killed and time.monotonic() < until_s:
            time.sleep(0.01)
            killed = siege.living().get(name, pid) != pid if _gone(pid) else False
        letting(max(0.0, until_s - time.monotonic()))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        return stop_s, ports, killed or _gone(pid)


def feel(timed: Sequence[Timed], name: str, ports: set[int], stop_s: float, on_s: float) -> Felt:
    """Sort what was felt into before the stop, held by it, and all others."""
    before: list[float] = []
    others: list[float] = []
    held: list[float] = []
    for one in timed:
        end_s = one.began_s + one.took_s
        if end_s < stop_s:
            before.append(one.took_s)
        elif one.began_s > on_s:
            continue
        elif one.port in ports or (name.startswith("spool") and one.began_s < stop_s + NOTICED_S):
            held.append(end_s - stop_s)
        else:
            others.append(one.took_s)
    return Felt(
        p99(before), max(before, default=0.0), p99(others), max(others, default=0.0),
        len(held), max(held, default=0.0), len(others),
    )  # fmt: skip


def p99(times: Sequence[float]) -> float:
    """Return the time that one in a hundred exceeds."""
    return sorted(times)[len(times) * 99 // 100] if times else 0.0


def ports_held(pid: int, port: int) -> set[int]:
    """Return the client ports of the connections to `port` that a process has open."""
    sockets = set()
    for path in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            sockets.add(os.readlink(path).removeprefix("socket:[").removesuffix("]"))
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if int(words[1].partition(":")[2], 16) == port and words[9] in sockets:
            found.add(int(words[2].partition(":")[2], 16))
    return found


def _gone(pid: int) -> bool:
    """True when a process is no more."""
    with suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state in ("Z", "X")
    return True
