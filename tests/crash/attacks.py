"""All attacks, by name: where each is, and how much of the time is its."""

import importlib
from dataclasses import dataclass

from tests.crash.life import Attack


@dataclass(frozen=True, slots=True)
class Entry:
    """One attack; loaded only where it runs, for a fork copies all that is loaded."""

    place: str  # module:function
    weight: float  # its share of the time, next to the others'

    def load(self) -> Attack:
        module, _, function = self.place.partition(":")
        attack: Attack = getattr(importlib.import_module(module), function)
        return attack


ATTACKS = {
    # of a shard alone: tens of milliseconds a life
    "kill": Entry("tests.crash.kill:lives", 3),  # SIGKILL, at any moment and at any point
    "cut": Entry("tests.crash.cut:lives", 2),  # power loss as we make it up, without root
    "power": Entry("tests.crash.power:lives", 2),  # power loss of ext4 and xfs
    # of a whole installation, simulated: some ten milliseconds a life
    "simulation": Entry("tests.simulation.lives:attack", 1),
    # of a whole installation
    "service": Entry("tests.crash.service:attack", 3),  # SIGKILL of any process, at any moment
    "calls": Entry("tests.crash.calls:attack", 2),  # at every k-th system call
    "stops": Entry("tests.crash.stops:attack", 2),  # SIGSTOP, for a while
}
