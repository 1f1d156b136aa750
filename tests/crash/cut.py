"""Power loss as we make it up: a life on a disk that forgets what was not synced. Needs no root."""

import random
import threading
from collections.abc import Iterator

from tests.crash import points
from tests.crash.chain import Chain, Death, Pace, chains, place
from tests.crash.forgetful import Forgetful
from tests.crash.kill import POINTS
from tests.crash.life import Life
from tests.crash.work import work


def lives(seed: int, seconds: float, plant: str) -> Iterator[Life]:
    """Cut the power for so long."""
    return chains("cut", seed, seconds, plant, place=place, live=live)


def live(chain: Chain, seed: int, pace: Pace, *, last: bool) -> Life:
    """One life, from its seed: cut at a point, or at any moment."""
    chance = random.Random(-seed - 1)
    at = chance.randint(1, POINTS) if chance.random() < 0.5 else 0
    after_s = chance.uniform(0, 1.1) * pace.full_s

    def prepare() -> None:
        disk = Forgetful(chain.folder, at, chance)
        points.lay(disk, chain.folder)
        # The last moment for all that reach no point; the parent waits as long again.
        threading.Thread(
            target=_cut_after, args=(disk, 2 * pace.full_s if at else after_s), daemon=True
        ).start()

    what = f"cut at point {at}" if at else f"cut after {after_s * 1000:.1f} ms"
    return chain.live(work(seed), Death(what=what, prepare=prepare), pace, last=last)


def _cut_after(disk: Forgetful, after_s: float) -> None:
    threading.Event().wait(after_s)
    disk.cut()
