"""What all attacks came to, by revision: one line a stretch of lives, in `.crash/tally.jsonl`."""

import json
import os
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from tests.crash.life import Life

FILE = Path(".crash/tally.jsonl")
HEAD = "| revision | attack | lives | acknowledged | lost | torn | doubled | seconds | seeds |"


@dataclass(slots=True)
class Stretch:
    """Some lives of one attack, one after the other."""

    revision: str
    attack: str
    next_seed: int
    lives: int = 0
    acked: int = 0
    lost: int = 0
    torn: int = 0
    doubled: int = 0
    seconds: float = 0.0
    failing: list[int] = field(default_factory=list)

    def add(self, life: Life) -> None:
        """Count one more."""
        self.lives += 1
        self.acked += life.acked
        self.lost += life.lost
        self.torn += life.torn
        self.doubled += life.doubled
        self.next_seed = max(self.next_seed, life.seed + 1)
        if not life.good:
            self.failing.append(life.seed)


def revision() -> str:
    """Return what is attacked: the commit, and whether the source differs from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    commit = git("rev-parse", "--short=10", "HEAD") or "unknown"
    return commit + ("+dirty" if git("status", "--porcelain", "--", "src") else "")


def append(path: Path, stretch: Stretch) -> None:
    """Add a line; it is on disk when this returns, whatever becomes of us."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(-min(1, file.tell()), os.SEEK_END)
        torn = file.read() not in (b"", b"\n")  # the last one was killed while it wrote
        file.write(b"\n" * torn + json.dumps(asdict(stretch)).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[Stretch]:
    """Return all stretches; a line that was cut off is none."""
    if not path.exists():
        return []
    known = {one.name for one in fields(Stretch)}
    found: list[Stretch] = []
    for line in path.read_bytes().split(b"\n"):
        try:
            values = json.loads(line)
        except ValueError:  # torn by a kill
            continue
        found.append(Stretch(**{key: values[key] for key in known & values.keys()}))
    return found


def next_seed(stretches: Iterable[Stretch], revision: str, attack: str) -> int:
    """Return where that attack left off at that revision."""
    mine = (s.next_seed for s in stretches if (s.revision, s.attack) == (revision, attack))
    return max(mine, default=1)


def totals(stretches: Iterable[Stretch]) -> list[Stretch]:
    """Return one line a revision and attack, in the order in which they began."""
    found: dict[tuple[str, str], Stretch] = {}
    for one in stretches:
        total = found.setdefault((one.revision, one.attack), Stretch(one.revision, one.attack, 1))
        for name in ("lives", "acked", "lost", "torn", "doubled", "seconds"):
            setattr(total, name, getattr(total, name) + getattr(one, name))
        total.failing += one.failing
        total.next_seed = max(total.next_seed, one.next_seed)
    return list(found.values())


def table(stretches: Iterable[Stretch]) -> str:
    """Return the totals in Markdown."""
    lines = [HEAD, "|---|---|" + "--:|" * 6 + "---|"]
    lines += (
        f"| `{t.revision}` | {t.attack} | {t.lives:,} | {t.acked:,} | {t.lost} | {t.torn}"
        f" | {t.doubled} | {t.seconds:,.0f} | {', '.join(map(str, t.failing)) or '–'} |"
        for t in totals(stretches)
    )
    return "\n".join(lines)
