"""Four times a second: how full is the worker, who holds most, and who has to make room?"""

from collections.abc import Iterable

from postweir.edge.gate import CROWDED_SHARE
from postweir.edge.limits import limits
from postweir.edge.sweeper import Swept
from postweir.edge.worker import Worker

IDLE_S = 1.0  # a client with more to send says so within a second


def look(worker: Worker, guests: Iterable[Swept], now: float) -> None:
    """Tighten or loosen what is in force, and end what idles where it is crowded."""
    edge, counts = worker.settings.edge, worker.counts
    most = min(edge.connections_max, worker.room)
    judge_s = worker.settings.judge.wait_ms / 1000
    worker.pace.look(edge.in_flight_max, since_s=now - worker.looked_at, judge_s=judge_s)
    worker.looked_at = now
    taken = {
        "connections": counts.connections / most,
        "memory": counts.bytes_held / edge.memory_bytes_max,
        "in_flight": worker.flights.held.total / worker.pace.places,
    }
    scarcest = max(taken, key=taken.__getitem__)
    if worker.stress.look(now, taken[scarcest]):
        worker.log.warning(
            "edge.stress", on=worker.stress.on, scarcest=scarcest,
            taken=round(taken[scarcest], 3), connections=counts.connections,
            bytes_held=counts.bytes_held, in_flight=worker.flights.held.total,
        )  # fmt: skip
    worker.limits = limits(edge, room=worker.room, stressed=worker.stress.on)
    if counts.connections < most * CROWDED_SHARE:
        worker.share = most
        return
    worker.share = counts.holders.level(int(most * CROWDED_SHARE))
    for guest in surplus(worker, guests, now):
        guest.make_room()


def surplus(worker: Worker, guests: Iterable[Swept], now: float) -> list[Swept]:
    """Return who idles above the share of its holder, the longest idle first."""
    held, share = worker.counts.holders, worker.share
    idle = []
    for guest in guests:
        since = guest.idle_since
        if since is not None and now - since >= IDLE_S and held.of(guest.holder) > share:
            idle.append((since, guest))
    idle.sort(key=lambda pair: pair[0])
    over = {holder: held.of(holder) - share for holder in {g.holder for _, g in idle}}
    chosen = []
    for _, guest in idle:
        if over[guest.holder] > 0:
            over[guest.holder] -= 1
            chosen.append(guest)
    return chosen
