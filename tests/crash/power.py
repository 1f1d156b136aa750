"""Power loss of ext4 and xfs by their shutdown ioctl: what has not reached the device is gone.

It cannot show a disk that lies about its cache, nor one that tears a sector.

Nobody may go on after the cut: ext4 can call an fsync good that the cut has broken (31 of 300
lives of a plain loop of append and fdatasync, on Linux 6.18). So a life is stopped before; a thread
that is within a sync then stays there, and ends without a word.
"""

import contextlib
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.crash import images, points
from tests.crash.chain import LIVES, Chain, Death, Pace, chains
from tests.crash.images import LOG_FLUSH, NO_LOG_FLUSH, Image
from tests.crash.kill import POINTS
from tests.crash.life import Life, Unfit
from tests.crash.telling import Teller
from tests.crash.work import work

KINDS = ("ext4", "xfs")
AT_A_POINT = 0.4


def lives(seed: int, seconds: float, plant: str) -> Iterator[Life]:
    """Cut the power for so long, of each kind in turn."""
    images.alone()
    return Power().lives(seed, seconds, plant)


class Power:
    """The image that is mounted now, and the lives on it."""

    def __init__(self) -> None:
        self._image: Image | None = None
        self._unfit: dict[str, str] = {}

    def lives(self, seed: int, seconds: float, plant: str) -> Iterator[Life]:
        return chains("power", seed, seconds, plant, place=self._place, live=self._live)

    @contextlib.contextmanager
    def _place(self, seed: int) -> Iterator[Path]:
        turn = seed // LIVES % len(KINDS)
        for kind in (*KINDS[turn:], *KINDS[:turn]):
            if kind in self._unfit:
                continue
            with contextlib.ExitStack() as stack:
                try:
                    self._image = stack.enter_context(images.images(kind))
                except Unfit as fault:
                    print(f"power: no {kind}: {fault}", flush=True)
                    self._unfit[kind] = str(fault)
                    continue
                yield self._image.folder / "spool"
                return
        raise Unfit("; ".join(self._unfit.values()))

    def _live(self, chain: Chain, seed: int, pace: Pace, *, last: bool) -> Life:
        """One life, from its seed: at a moment of it, or at a point, the power goes."""
        assert self._image is not None
        image, chance = self._image, random.Random(-seed - 1)
        flags = chance.choice((LOG_FLUSH, NO_LOG_FLUSH))
        at = chance.randint(1, POINTS) if chance.random() < AT_A_POINT else 0
        after_s = 3 * pace.full_s if at else chance.uniform(0, 1.1) * pace.full_s
        mounted = image.open()

        def prepare() -> None:
            if at:
                points.lay(Unplug(mounted, flags, at, chance), chain.folder)

        def end(pid: int) -> None:
            os.kill(pid, signal.SIGSTOP)
            images.cut(mounted, flags)
            os.kill(pid, signal.SIGKILL)

        def back() -> None:
            with contextlib.suppress(OSError):
                images.cut(mounted, flags)  # of a life that ended by itself
            os.close(mounted)
            image.umount()
            image.mount()

        when = f"at point {at}" if at else f"after {after_s * 1000:.1f} ms"
        what = f"power cut {when}, flags {flags}"
        death = Death(what=what, after_s=after_s, prepare=prepare, end=end)
        return chain.live(work(seed), death, pace, back=back, last=last, faults=True)


class Unplug(points.Deadly):
    """Cuts the power from inside, at a point; what comes after it fails, until we are killed."""

    def __init__(self, mounted: int, flags: int, at: int, chance: random.Random) -> None:
        super().__init__(at, chance)
        self._mounted, self._flags = mounted, flags

    def die(self) -> None:
        Teller.hushed = True  # the other threads run on until we are dead
        images.cut(self._mounted, self._flags)
        points.die()
