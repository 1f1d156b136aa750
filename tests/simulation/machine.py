"""One host: two shards, two delivery workers and two edges, each a process that can die or stop.

What runs in them is the product's own: the service, the writer's decisions, the hand-out, the
worker, both clients. Only what they stand on is simulated: loop, sockets, disk, remote hosts.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.simulation import disk
from tests.simulation.disk import Disk, SimReader, SimStore, SimWriter
from tests.simulation.loop import Loop, World
from tests.simulation.net import Net, SharedSplitter
from tests.simulation.oracle import Oracle
from tests.simulation.remote import Outside, SimReacher, SimRouter

from postweir.delivery.meters import Meters
from postweir.delivery.worker import Worker
from postweir.judge.ports import Ask, Asked
from postweir.policy.verdict import Verdict
from postweir.runtime import clock, link
from postweir.runtime.link import Link
from postweir.runtime.settings import Delivery, Spool
from postweir.spool import client, handing, later, obeying, reading, service, shard, states
from postweir.spool.client import Shards
from postweir.spool.handing import Handing
from postweir.spool.ports import Hello, Out, Request
from postweir.spool.service import Service
from postweir.spool.shard import Outgoing

RUN = Path("/run")
VERDICTS = {
    "accept": Verdict("accept"),
    "hold": Verdict("hold", rule="r"),
    "refuse": Verdict("refuse", rule="r", code="CS", text="No."),
}
EXPECTED = {"spool.fault", "spool.latched"}  # errors that a storm is made of


class Meter:
    """Counts nothing."""

    def labels(self, *_: Any) -> "Meter":
        return self

    def nothing(self, *_: Any) -> None:
        return None

    inc = dec = set = observe = nothing


class NoMetrics:
    """Declares nothing."""

    def counter(self, *_: Any, **__: Any) -> Meter:
        return METER

    gauge = histogram = counter


METER = Meter()


class NoPool:
    """Where a pool of threads would be."""

    def __init__(self, *_: Any) -> None:
        return

    def shutdown(self, **_: Any) -> None:
        return


class SimLog:
    """Lines become history; an error that no storm explains is a fault."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self._name = world, name

    def info(self, event: str, **words: Any) -> None:
        if self._world.traced:
            told = " ".join(f"{k}={v}" for k, v in words.items() if v not in ("", None))
            self._world.note(self._name, f"{event} {told}")

    debug = info

    def warning(self, event: str, **words: Any) -> None:
        self.info(event, **words)
        if event == "delivery.twice":  # the worker knows better, but the shard had asked
            self._world.fault(f"{self._name} is handed {words} again")

    def error(self, event: str, **words: Any) -> None:
        self.info(event, **words)
        if event not in EXPECTED:
            self._world.fault(f"{self._name} logs {event} {words}")


class Minds:
    """The judge, as pending mail meets it."""

    def __init__(self, machine: "Machine") -> None:
        self._machine = machine

    async def ask(self, ask: Ask, wait_s: float) -> Asked:
        machine = self._machine
        await asyncio.sleep(machine.world.chance.random() * 0.02)
        if machine.judge_away:
            return Asked(None, "down")
        return Asked(VERDICTS[machine.oracle.by_name[ask.message].late])

    def uncount(self, account: str, message: str) -> None:
        raise AssertionError("the shard never uncounts")


class Wishes:
    """The table of requests."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle

    def after(self, number: int) -> Sequence[Request]:
        return [r for r in self._oracle.table if r.number > number]


class Process:
    """One process: its loop and what was built in it."""

    def __init__(self, machine: "Machine", kind: str, index: int, incarnation: int) -> None:
        self.kind, self.index, self.incarnation = kind, index, incarnation
        self.name = f"{kind} {index}"
        self.loop = Loop(machine.world, f"{self.name}.{incarnation}")
        self.loop.net = machine.net
        self.log: Any = SimLog(machine.world, self.loop.name)
        self.service: Service | None = None
        self.worker: Worker | None = None
        self.handing: Handing | None = None
        self.shards: Shards | None = None


class Machine:
    """Starts, stops and kills."""

    def __init__(self, world: World, seed: int, *, in_hand_max: int, late_refusal: str) -> None:
        self.world, self.seed = world, seed
        self.net = Net(world, seed)
        spool = Spool(late_refusal=late_refusal, hold_days=1)  # less than the clock is set by
        self.disks = [Disk(world, k, spool) for k in (1, 2)]
        self.oracle = Oracle(world, self.disks)
        for one in self.disks:
            one.on_commit = self._committed(one)
        self.outside = Outside(
            world, {"d3.example": "shared.example", "d4.example": "shared.example"}
        )
        self.outside.on_taken = self.oracle.delivered
        self.outside.on_doubt = self.oracle.doubtful
        self.settings: Any = SimpleNamespace(spool=spool, hash="")  # a real one's hash is costly
        self.delivery = Delivery(
            workers=2, in_hand_max=in_hand_max, connections_per_site_max=4, connect_s=2.0,
            reply_s=4.0, final_reply_s=4.0, idle_s=0.5, retry_s=(0.3, 0.6, 1.2),
        )  # fmt: skip
        self.judge_away = False
        self.processes: dict[str, Process] = {}
        self.incarnations = 0

    def _committed(self, disk: Disk) -> Callable[..., None]:
        return lambda changes: self.oracle.committed(disk, changes)

    # Life and death

    def start(self, kind: str, index: int) -> None:
        name = f"{kind} {index}"
        old = self.processes.get(name)
        if old is not None and not old.loop.dead:
            return
        self.incarnations += 1
        self.started_s = self.world.now_s
        process = self.processes[name] = Process(self, kind, index, self.incarnations)
        self.world.note(name, f"starts as {self.incarnations}")
        build = {"shard": self._shard, "delivery": self._delivery, "edge": self._edge}[kind]
        process.loop.create_task(build(process))

    def kill(self, name: str, *, again_s: float) -> None:
        """It is gone at once; the supervisor starts another."""
        process = self.processes.get(name)
        if process is None or process.loop.dead:
            return
        self.world.note(name, "is killed")
        if process.handing is not None:
            known = {
                (one.index, recipient)
                for one in self.alive("shard") if one.service is not None
                for recipient, given in one.service._outgoing.out.items()
                if given.worker == process.index
            }  # fmt: skip
            self.oracle.worker_died(self.in_hand(process), self.delivery.in_hand_max, known)
        process.loop.dead = True
        for end in process.loop.ends:
            end.died()
        self.world.after(again_s, self.start, process.kind, process.index)

    def stop(self, name: str, for_s: float, *, killed: bool) -> None:
        """SIGSTOP; then it goes on, or is killed for its silence."""
        process = self.processes.get(name)
        if process is None or process.loop.dead or process.loop.stopped:
            return
        self.world.note(name, f"is stopped for {for_s:.2f} s")
        process.loop.stop_here()
        self.world.after(for_s, self._go_on, process, killed)

    def _go_on(self, process: Process, killed: bool) -> None:
        if process.loop.dead:
            return
        if killed:
            self.kill(process.name, again_s=0.05 + self.world.chance.random() * 0.3)
        else:
            self.world.note(process.name, "goes on")
            process.loop.go_on()

    def in_hand(self, process: Process) -> list[tuple[int, int, int, str, str]]:
        assert process.handing is not None
        return [
            (desk.number, one.out.recipient, one.out.attempt, one.out.message, one.out.address)
            for desk in process.handing._desks
            for one in desk.in_hand.values()
        ]

    def alive(self, kind: str) -> list[Process]:
        return [
            p for p in self.processes.values()
            if p.kind == kind and not p.loop.dead and not p.loop.stopped
        ]  # fmt: skip

    def whole(self) -> bool:
        """True when all run, know each other, and nothing is on its way between them."""
        if any(p.loop.dead or p.loop.stopped for p in self.processes.values()):
            return False
        if any(end.sending for pair in self.net.alive() for end in pair):
            return False
        workers = [p.handing for p in self.processes.values() if p.kind == "delivery"]
        return self.world.now_s > self.started_s + 0.5 and all(
            w is not None and w.connected == 2 and not w.in_hand for w in workers
        )

    # What runs

    async def _shard(self, process: Process) -> None:
        disk = self.disks[process.index - 1]
        self.oracle.shard_started(process.index, process.incarnation)

        def fail(event: str, **words: Any) -> None:
            process.log.error(event, **words)
            self.kill(process.name, again_s=0.05 + self.world.chance.random() * 0.2)

        made = Service(
            process.index,
            run=RUN,
            bodies=Path("/bodies"),
            settings=self.settings,
            open_store=lambda: SimStore(disk),  # type: ignore[arg-type]
            open_reader=lambda _: SimReader(disk),  # type: ignore[arg-type, return-value]
            requests=Wishes(self.oracle),
            judge=Minds(self),
            log=process.log,
            metrics=NoMetrics(),  # type: ignore[arg-type]
            fail=fail,
            incarnation=process.incarnation,
        )
        made._writer.watch = self._heard  # type: ignore[attr-defined]
        made._outgoing.watch = self._handed_out(process)  # type: ignore[attr-defined]
        process.service = made
        await made.start()

    def _heard(self, disk: Disk, tell: Callable[..., None], words: tuple[Any, ...]) -> None:
        if getattr(tell, "__name__", "") == "_on_done":
            for change, _, _ in words[0]:
                if isinstance(change, Request):
                    self.oracle.heard(disk.number, change)

    def _handed_out(self, process: Process) -> Callable[[Out], None]:
        return lambda out: self.oracle.handed_out(process.index, out)

    async def _delivery(self, process: Process) -> None:
        router: Any = SimRouter(self.outside)
        process.worker = Worker(
            self.delivery, router=router, hostname="out.example", context=None,
            own_ports=frozenset(), connections_max=50, chance=self.world.chance.random,
            meters=Meters(NoMetrics()), log=process.log,
        )  # type: ignore[arg-type]  # fmt: skip
        process.worker._reacher = SimReacher(self.outside, process.loop)  # type: ignore[assignment]
        process.worker.configure(self.delivery, router, "out.example")
        process.handing = Handing(
            RUN, count=2,
            hello=lambda: Hello(1, "delivery", process.index, 2, process.incarnation, ""),
            in_hand_max=self.delivery.in_hand_max, on_handed=process.worker.take, log=process.log,
        )  # fmt: skip
        process.worker.begin(process.handing)
        process.handing.start()

    async def _edge(self, process: Process) -> None:
        hello = Hello(1, "edge", process.index, 2, process.incarnation, "")
        process.shards = Shards(RUN, count=2, hello=hello, log=process.log)


class WatchedOutgoing(Outgoing):
    """The product's own, and somebody sees what leaves it."""

    watch: Callable[[Out], None]

    def take(self, now_s: float, *, may_expire: bool) -> Any:
        batches = super().take(now_s, may_expire=may_expire)
        for _, frames in batches:
            for frame in frames:
                if isinstance(frame, Out):
                    self.watch(frame)
        return batches


async def serve(path: Path, family: Any, on_link: Any, on_frames: Any, on_lost: Any) -> Any:
    """`link.serve` without a file system."""
    return await asyncio.get_running_loop().create_unix_server(
        lambda: Link(family, on_link, on_frames, on_lost), str(path)
    )


@contextlib.contextmanager
def simulated(world: World, seed: int) -> Iterator[None]:
    """Let the product stand on a simulated host."""
    changes: list[tuple[Any, str, Any]] = [
        (clock, "wall_us", world.wall_us),
        (clock, "monotonic_ns", world.monotonic_ns),
        (link, "serve", serve),
        (link, "Splitter", SharedSplitter),
        (service, "Writer", SimWriter),
        (service, "Outgoing", WatchedOutgoing),
        (service, "orphans", lambda _: []),
        (service, "ThreadPoolExecutor", NoPool),
        (reading, "ThreadPoolExecutor", NoPool),
        # Fewer slices: each new connection grants credit for all.
        (handing, "BUCKETS", 8),
        (shard, "BUCKETS", 8),
        (states, "BUCKETS", 8),
        # Everything that only looks whether something is to do looks less often: a life is cheap.
        (service, "BEAT_S", 0.6),
        (client, "LOOK_S", 0.4),
        (client, "DOUBT_S", 1.3),
        (obeying, "LOOK_S", 1.0),
        (later, "LOOK_S", 1.0),
        (disk, "LOOK_S", 0.5),
        (handing, "REPEAT_S", 2.0),
    ]
    state = random.getstate()
    random.seed(seed)
    saved = [(module, name, getattr(module, name)) for module, name, _ in changes]
    try:
        for module, name, value in changes:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in saved:
            setattr(module, name, value)
        random.setstate(state)
