"""A storm: what goes wrong in one life, drawn from its seed, until it is calm."""

import random

from tests.simulation.loop import World
from tests.simulation.machine import Machine
from tests.simulation.net import DELAY_S

from postweir.spool.ports import Request

STORM_S = 2.5


class Storm:
    """Faults at any time, and faults that are aimed at the moments when something is under way."""

    def __init__(self, world: World, machine: Machine, chance: random.Random) -> None:
        self.world, self.machine, self.chance = world, machine, chance
        self.oracle = machine.oracle
        self.until_s = world.now_s + STORM_S
        self.aimed = 0  # faults left that are aimed

    def aim(self, within_s: float) -> None:
        """Most of what can go wrong goes wrong in the few milliseconds when something happens."""
        if self.aimed and self.world.now_s < self.until_s and self.chance.random() < 0.3:
            self.aimed -= 1
            what = self.chance.choice(
                (self._kill, self._kill, self._cut, self._cut_edge, self._power, self._break_commit,
                 self._stop_long, self._pause_unheard, self._set_clock)
            )  # fmt: skip
            self.world.after(self.chance.random() * within_s, what)

    def begin(self) -> None:
        """Draw what goes wrong, and when."""
        faults = (
            self._kill, self._kill, self._kill, self._power, self._stop, self._stop, self._cut,
            self._cut, self._slow_link, self._break_commit, self._fill, self._set_clock,
            self._take_judge_away, self._take_site_away, self._slow_disk, self._stagger,
        )  # fmt: skip
        for _ in range(self.chance.choice((0, 1, 2, 3, 4, 6, 9))):
            self.world.after(self.chance.random() * STORM_S, self.chance.choice(faults))
            self.aimed = self.chance.choice((0, 0, 1, 2, 3))
        for _ in range(self.chance.choice((0, 0, 1, 2, 4))):
            self.world.after(self.chance.random() * STORM_S, self._wish)

    def _some(self) -> str:
        kind = self.chance.choice(("shard", "shard", "delivery", "edge"))
        return f"{kind} {self.chance.randint(1, 2)}"

    def _kill(self) -> None:
        name, wait_s = self._some(), self.chance.choice((0.02, 0.1, 0.4, 2.2))
        self.machine.kill(name, again_s=wait_s)
        if self.chance.random() < 0.3:  # and again, while it recovers
            again_s = wait_s + self.chance.random() * 0.3
            self.world.after(again_s, lambda: self.machine.kill(name, again_s=0.1))

    def _power(self) -> None:
        self.world.note("MACHINE", "loses power")
        for name in list(self.machine.processes):
            self.machine.kill(name, again_s=0.2 + self.chance.random() * 0.5)

    def _stop(self) -> None:
        for_s = self.chance.choice((0.05, 0.3, 1.0, 1.7, 2.3))
        self.machine.stop(self._some(), for_s, killed=self.chance.random() < 0.4)

    def _stop_long(self) -> None:
        """Long enough that what was not confirmed is said again, and that a link is given up."""
        kind = self.chance.choice(("shard", "delivery", "delivery"))
        self.machine.stop(f"{kind} {self.chance.randint(1, 2)}", 2.5, killed=False)

    def stop_unconfirmed(self) -> None:
        """Stop a worker just when its outcome is committed, and it has not heard so."""
        if self.aimed and self.world.now_s < self.until_s and self.chance.random() < 0.1:
            self.aimed -= 1
            self.machine.stop(f"delivery {self.chance.randint(1, 2)}", 2.5, killed=False)

    def _stagger(self) -> None:
        """A slow process: it runs, but seldom."""
        name = self._some()
        for n in range(8):
            self.world.after(n * 0.12, lambda: self.machine.stop(name, 0.1, killed=False))

    def _cut_edge(self) -> None:
        self._cut("edge")

    def _cut(self, who: str = "") -> None:
        pairs = [pair for pair in self.machine.net.alive() if pair[0].loop.name.startswith(who)]
        if pairs:
            a, b = self.chance.choice(pairs)
            self.world.note("MACHINE", f"breaks the link {a.loop.name} to {b.loop.name}")
            a.cut()
            b.cut()

    def _slow_link(self) -> None:
        pairs = self.machine.net.alive()
        if pairs:
            slow_s = self.chance.choice((0.02, 0.2, 0.7))
            for end in self.chance.choice(pairs):
                end.delay_s = slow_s

    def _break_commit(self) -> None:
        self.chance.choice(self.machine.disks).breaks = self.chance.choice(("before", "after"))

    def _fill(self) -> None:
        disk = self.chance.choice(self.machine.disks)
        disk.full = True
        self.world.note("MACHINE", f"disk {disk.number} is full")
        for_s = self.chance.choice((0.1, 0.5, 2.0))
        self.world.after(for_s, lambda: setattr(disk, "full", False))
        if self.chance.random() < 0.5:  # what waits for room outlives the link it came on
            self.world.after(self.chance.random() * for_s, self._cut, "delivery")

    def _slow_disk(self) -> None:
        disk = self.chance.choice(self.machine.disks)
        disk.slow = self.chance.choice((10.0, 100.0))
        self.world.note("MACHINE", f"disk {disk.number} is slow")
        self.world.after(self.chance.random() * 2, lambda: setattr(disk, "slow", 1.0))

    def _set_clock(self) -> None:
        hours = self.chance.choice((2, -2, 49))
        self.world.note("MACHINE", f"clock is set by {hours} h")
        self.world.wall_us_0 += hours * 3_600_000_000
        self.oracle.stepped = True

    def _take_judge_away(self) -> None:
        self.machine.judge_away = True
        self.world.after(self.chance.random() * 3, self._bring_judge_back)

    def _bring_judge_back(self) -> None:
        self.machine.judge_away = False

    def _take_site_away(self) -> None:
        site = self.chance.choice(("shared.example", "d0.example", "d1.example", "d2.example"))
        self.machine.outside.away.add(site)
        self.world.after(self.chance.random() * 3, self.machine.outside.away.discard, site)

    def _pause_unheard(self) -> None:
        """What is suspended while a shard is down must be known before it hands out."""
        disk = self.chance.choice(self.machine.disks)
        waiting = [row for row in disk.store._messages.values() if row.open]
        if waiting:
            self.machine.kill(f"shard {disk.number}", again_s=0.1)
            self.world.slow_until_s = self.world.now_s + 0.5
            account = self.chance.choice(waiting).accept.sender.account
            self.world.after(0.05, self._suspend, f"account={account}")

    def _suspend(self, scope: str) -> None:
        self.ask_for("suspend", scope)
        self.world.after(self.chance.random() * 3, self.ask_for, "resume", scope)

    def _wish(self) -> None:
        """An operator wants something; the hint that says so may be lost."""
        letter = self.chance.choice(self.oracle.letters)
        verb = self.chance.choice(("suspend", "suspend", "drop", "release", "retry"))
        if verb == "suspend":
            self._suspend(
                self.chance.choice(
                    (f"account={letter.account}", f"domain=d{self.chance.randrange(5)}.example",
                     f"sender={letter.account}|sasl|{letter.identity}")
                )
            )  # fmt: skip
        else:
            self.ask_for(verb, letter.acked or "0" * 16)

    def ask_for(self, verb: str, scope: str) -> None:
        table = self.oracle.table
        self.world.note("operator", f"{len(table) + 1}: {verb} {scope}")
        table.append(Request(len(table) + 1, verb, scope, "", "op", self.world.wall_us()))
        for shard in self.machine.alive("shard"):
            if self.chance.random() < 0.5 and shard.service is not None:
                shard.loop.call_soon(shard.service._obeying.wake)

    def end(self) -> None:
        """All that is broken is whole again, or will be in a few seconds."""
        self.world.note("MACHINE", "is calm")
        machine = self.machine
        machine.judge_away = False
        machine.outside.away.clear()
        machine.outside.good = True
        for disk in machine.disks:
            disk.full, disk.slow, disk.breaks = False, 1.0, ""
        for a, b in machine.net.alive():
            a.delay_s = b.delay_s = DELAY_S
