"""The files in which a judge's levels outlive it; judge K alone reads and writes them.

    judge/K/levels        the last snapshot (snapshot.py)
    judge/K/met           the filter of who was written to: large, so written seldom; the snapshot
                          has the pairs that were met since
    judge/K/*.aside       what could not be used: damaged, of another version, of other judges

Whoever finds no snapshot begins anew: the shards' last day gives the levels back, a week of
watching what is usual (`counters.WATCHED_S`).
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from postweir.judge import snapshot
from postweir.judge.counters import Counters
from postweir.judge.met import GENERATION_S, SECRET_BYTES, WORDS, Hashes, Met
from postweir.judge.snapshot import BYTES_MAX, Head, Snapshot
from postweir.judge.throttles import Throttles
from postweir.runtime import clock, files
from postweir.runtime.frames import Torn
from postweir.runtime.log import Log

MET_MAGIC = b"postweir met 1\n"
MET_S = 600.0  # so often the filter is written, if anybody new was met
MET_PAIRS = 250_000  # or as soon as a snapshot would have to hold so many: 2 MB
PART_BYTES = 1 << 20  # copied in one go: 0.2 ms, while another thread may add to it
_HEAD_BYTES = len(MET_MAGIC) + SECRET_BYTES


@dataclass
class Kept:
    """What a judge begins with."""

    counters: Counters
    throttles: Throttles = field(default_factory=Throttles)
    cursors: Mapping[str, int] = field(default_factory=dict)
    clock_s: float = 0.0


@dataclass
class Making:
    """What is about to be saved."""

    levels: Snapshot
    met: dict[int, memoryview] | None  # None: its file is fresh enough
    logged: int  # pairs in the log of the filter when this began
    secret: bytes

    def step(self) -> bool:
        """Pack some; False when all is packed."""
        return self.levels.step()

    def end(self) -> None:
        """Be told no more of what changes."""
        self.levels.end()


class Keeping:
    """Loads and saves; `folder` None: neither. `load` and `save` are for a thread."""

    def __init__(
        self, folder: Path | None, *, judge: int, of: int, log: Log, words: int = WORDS
    ) -> None:
        self._folder, self._judge, self._of, self._log = folder, judge, of, log
        self._words = words
        self._boot = _boot()
        self._met_at_ns = clock.monotonic_ns()
        self.saved_us = 0  # when a snapshot was written last; 0: not yet
        self.bytes = 0

    def load(self) -> Kept:
        """Return what was kept, or what one begins with who knows nothing."""
        kept = self._snapshot()
        if kept is not None:
            return kept
        wall_s = clock.wall_us() / 1e6
        met, secret = self._met(b"", wall_s)
        counters = Counters(Hashes(secret or os.urandom(SECRET_BYTES)), met, since_s=wall_s)
        return Kept(counters, clock_s=wall_s)

    def begin(
        self, counters: Counters, throttles: Throttles, cursors: Mapping[str, int], now_s: float
    ) -> Making | None:
        """Begin a snapshot of this instant."""
        if self._folder is None:
            return None
        log = counters.met.log
        head = Head(
            self._judge, self._of, self._boot, clock.monotonic_ns() / 1e9, clock.wall_us(), now_s,
            counters.since_s, counters.hashes.secret, dict(cursors), log.tobytes(),
        )  # fmt: skip
        old = clock.monotonic_ns() - self._met_at_ns >= MET_S * 1e9
        due = len(log) >= MET_PAIRS or (old and len(log) > 0)
        met = counters.met.generations() if due else None
        return Making(Snapshot(head, counters, throttles), met, len(log), head.secret)

    def save(self, making: Making) -> None:
        """Write it. Raises OSError."""
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if making.met is not None:
            parts = _met_parts(making.secret, making.met)
            files.replace_in_parts(self._folder / "met", files.sealed_parts(parts))
        files.replace_in_parts(self._folder / "levels", files.sealed_parts(making.levels.parts))

    def saved(self, making: Making, met: Met) -> None:
        """Note that it is written: the filter's file has all that was met until it began."""
        self.saved_us, self.bytes = clock.wall_us(), sum(map(len, making.levels.parts))
        if making.met is not None:
            self._met_at_ns = clock.monotonic_ns()
            del met.log[: making.logged]

    def _snapshot(self) -> Kept | None:
        data = self._read("levels", BYTES_MAX)
        if data is None:
            return None
        try:
            head, rest = snapshot.head_of(data)
            if (head.judge, head.of) != (self._judge, self._of):
                raise Torn(f"of judge {head.judge} of {head.of}, who had other accounts")
            age_s = self._age_s(head)
            met, _ = self._met(head.secret, head.clock_s + age_s)
            counters = Counters(Hashes(head.secret), met, since_s=head.since_s)
            kept = Kept(counters, Throttles(), head.cursors, head.clock_s + age_s)
            met.restored_log(head.met, kept.clock_s)
            snapshot.restore(rest, counters, kept.throttles)
        except (Torn, ValueError) as fault:
            self._aside("levels", fault)
            return None
        self._log.info("judge.levels_loaded", age_s=round(age_s, 1), messages=len(counters),
                       senders=counters.senders_total)  # fmt: skip
        return kept

    def _age_s(self, head: Head) -> float:
        """Return how old a snapshot is; never less than nothing."""
        if head.boot and head.boot == self._boot:
            return max(0.0, clock.monotonic_ns() / 1e9 - head.monotonic_s)
        return max(0.0, (clock.wall_us() - head.wall_us) / 1e6)

    def _met(self, secret: bytes, now_s: float) -> tuple[Met, bytes]:
        """Return the filter that was hashed with this secret, or whatever secret it has."""
        met = Met(words=self._words)
        data = self._read("met", 5 * 8 * self._words)
        if data is None:
            return met, secret
        try:
            text = files.unsealed_parts(data)
            if not text.startswith(MET_MAGIC) or len(text) < _HEAD_BYTES:
                raise Torn("of another version, or no filter")
            had = text[len(MET_MAGIC) : _HEAD_BYTES]
            if secret and had != secret:
                raise Torn("of other levels")
            step = 8 + 8 * self._words
            for at in range(_HEAD_BYTES, len(text), step):
                number = int.from_bytes(text[at : at + 8], "little")
                if number <= now_s // GENERATION_S:  # else a clock was wrong
                    met.restored(number, text[at + 8 : at + step])
        except (Torn, ValueError) as fault:
            self._aside("met", fault)
            return Met(words=self._words), secret
        return met, had

    def _read(self, name: str, bytes_max: int) -> bytes | None:
        if self._folder is None:
            return None
        try:
            return files.read(self._folder / name, bytes_max)
        except FileNotFoundError:
            return None
        except (OSError, Torn) as fault:
            self._aside(name, fault)
            return None

    def _aside(self, name: str, fault: Exception) -> None:
        self._log.warning("judge.levels_unusable", file=name, fault=str(fault))
        if self._folder is not None:
            with contextlib.suppress(OSError):
                (self._folder / name).rename(self._folder / f"{name}.aside")


def _met_parts(secret: bytes, met: Mapping[int, memoryview]) -> Iterator[bytes]:
    yield MET_MAGIC + secret
    for number, words in met.items():
        yield number.to_bytes(8, "little")
        octets = words.cast("B")
        for at in range(0, len(octets), PART_BYTES):
            yield bytes(octets[at : at + PART_BYTES])


def _boot() -> str:
    """Return a name of this boot of the host, "" where nobody says."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
