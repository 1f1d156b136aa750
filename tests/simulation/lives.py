"""One life a seed: clients, a storm of faults, calm, and the judgement."""

import gc
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.crash import life as crash
from tests.simulation.clients import Clients
from tests.simulation.loop import START_S, World
from tests.simulation.machine import Machine, simulated
from tests.simulation.plants import PLANTS, planted
from tests.simulation.storm import STORM_S, Storm

from postweir.spool.states import MessageState, RecipientState

CALM_S = 12.0  # after the storm all that is due is gone: stops, lost workers and waits take most
FLOOD_S = 16.0
FLOOD_EVERY = 25  # lives: one in so many has no storm but a flood, and asks who must wait
COLLECT_EVERY = 10  # lives, of garbage


@dataclass(frozen=True, slots=True)
class Story:
    """What one life came to."""

    seed: int
    acked: int
    faults: tuple[str, ...]
    history: tuple[str, ...]
    ended_s: float


class Life:
    """What happens in one life, drawn from its seed."""

    def __init__(self, seed: int, *, traced: bool = False) -> None:
        chance = random.Random(seed ^ 0x5EED)  # ours; what the product draws never changes it
        self.flooded = seed % FLOOD_EVERY == 0
        self.world = World(seed, traced=traced)
        self.machine = Machine(
            self.world,
            seed,
            in_hand_max=chance.choice((10, 24, 100)),
            late_refusal=chance.choice(("hold", "bounce")),
        )
        self.oracle = self.machine.oracle
        self.clients = Clients(self.world, self.machine, chance)
        self.storm = Storm(self.world, self.machine, chance)
        self.chance = chance
        self.clients.on_offer = lambda: self.storm.aim(0.008)
        self.machine.outside.on_asked = lambda: self.storm.aim(0.03)
        self.oracle.on_deferred = self.storm.stop_unconfirmed

    def live(self) -> None:
        for kind in ("shard", "delivery", "edge"):
            for index in (1, 2):
                self.world.after(self.chance.random() * 0.3, self.machine.start, kind, index)
        if self.flooded:
            self.clients.flood()
        else:
            self.clients.letters(STORM_S)
            self.storm.begin()
        self.world.run(START_S + STORM_S)
        self.storm.end()
        until_s = self.world.now_s + (FLOOD_S if self.flooded else CALM_S)
        while not self.world.faults and not self._all_done():
            if self.world.now_s > until_s:
                break
            self.world.run(self.world.now_s + 0.25)
        if not self.world.faults:
            self.world.note("MACHINE", "is done")
            self.oracle.at_the_end()
            self.world.run(self.world.now_s + 0.05)  # the last words arrive
            if self._all_done():
                self._nothing_leaks()

    def _all_done(self) -> bool:
        if self.clients.waiting:
            return False
        for disk in self.machine.disks:
            for row in disk.store._messages.values():
                if row.state is MessageState.PENDING:
                    return False
                if row.state is MessageState.JUDGED and any(
                    r.state is RecipientState.QUEUED and not self.oracle.excused(r)
                    for r in row.recipients.values()
                ):
                    return False
        return self.machine.whole()

    def _nothing_leaks(self) -> None:
        """What the shards think is out is in hand, and the credit is the same on both sides."""
        workers = {p.index: p for p in self.machine.alive("delivery")}
        for shard in self.machine.alive("shard"):
            assert shard.service is not None
            outgoing = shard.service._outgoing
            if self.oracle.stepped:
                continue  # what never leaves may be on its way just now
            if outgoing.out or outgoing.known:
                self.world.fault(f"{shard.name} thinks that {len(outgoing.out)} are out")
            for index, mate in outgoing._workers.items():
                handing = workers[index].handing
                assert handing is not None
                for bucket in handing._desks[shard.index - 1].buckets.values():
                    if mate.credit[bucket.number] != bucket.granted or not bucket.granted:
                        self.world.fault(
                            f"{shard.name} has credit {mate.credit[bucket.number]} of delivery"
                            f" {index} for bucket {bucket.number}; granted is {bucket.granted}"
                        )


def life(seed: int, *, traced: bool = False, plant: str = "") -> Story:
    """Live one life and judge it."""
    one = Life(seed, traced=traced)
    world = one.world
    with simulated(world, seed), planted(plant):
        try:
            one.live()
        finally:
            world.end()
    acked = sum(bool(letter.acked) for letter in one.oracle.letters)
    return Story(seed, acked, tuple(world.faults), tuple(world.history), world.now_s - START_S)


def attack(seed: int, seconds: float, plant: str) -> Iterator[crash.Life]:
    """Live from that seed on, for so long: an attack as `tests.crash` makes them."""
    if plant and plant not in PLANTS:
        raise crash.Unfit(f"it knows no bug {plant!r}")
    until_s = time.monotonic() + seconds
    gc.freeze()
    gc.disable()  # none may fall into a life
    while time.monotonic() < until_s:
        yield told(life(seed, plant=plant))
        seed += 1
        if seed % COLLECT_EVERY == 0:
            gc.collect()


def told(story: Story) -> crash.Life:
    """Return a story as the tally counts it."""
    fault = story.faults[0] if story.faults else ""
    doubled = int(" times to " in fault or "doubled" in fault)
    lost = int(bool(fault)) - doubled  # or stuck, or late, or delivered against somebody's word
    return crash.Life(
        seed=story.seed, acked=story.acked, lost=lost, doubled=doubled,
        what=fault or "a storm, and calm",
    )  # fmt: skip
