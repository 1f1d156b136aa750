"""What all connections of one edge worker share."""

import asyncio
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from postweir.edge.bodies import Disks, Folders
from postweir.edge.counts import Counts
from postweir.edge.doubting import Doubting
from postweir.edge.flight import Flights, Pace
from postweir.edge.guessing import Guessing
from postweir.edge.limits import Limits, Stress, limits
from postweir.edge.meters import Meters
from postweir.edge.names import Names
from postweir.edge.ports import Shards
from postweir.identity.directory import Watched
from postweir.judge.ports import Judge
from postweir.runtime.log import Log
from postweir.runtime.settings import Settings


@dataclass(slots=True, kw_only=True)
class Worker:
    """Built once by processes.edge; `settings` alone is replaced, by a reload."""

    settings: Settings
    directory: Watched
    shards: Shards
    judge: Judge
    folders: Folders
    names: Names
    meters: Meters
    log: Log
    secret: bytes  # the server secret: hashes credentials and sender names
    disks: Disks
    tls: Callable[[], ssl.SSLContext | None]  # the certificate in force; None: no TLS
    counts: Counts = field(default_factory=Counts)
    guessing: Guessing = field(default_factory=lambda: Guessing(os.urandom(32)))
    room: int = 1_000_000  # connections that our file descriptors are enough for
    stopping: bool = False
    doubting: Doubting = field(init=False)  # known here alone, until processes.edge gives a file
    flights: Flights = field(init=False)
    pace: Pace = field(init=False)
    looked_at: float = 0.0
    stress: Stress = field(default_factory=Stress)
    limits: Limits = field(init=False)  # in force: set anew four times a second
    share: int = 1_000_000  # connections one account may have, when it is crowded
    clearing: set[asyncio.Task[None]] = field(default_factory=set)  # files on slow disks

    def __post_init__(self) -> None:
        """Begin calm, with every place free."""
        self.doubting = Doubting(self.secret)
        self.pace = Pace(self.settings.edge.in_flight_max)
        later = asyncio.get_running_loop().call_later
        self.flights = Flights(lambda: self.pace.places, later)
        self.limits = limits(self.settings.edge, room=self.room, stressed=False)

    def refused(self, reason: str) -> None:
        """Count a refusal before anything was taken; `reason` is one of a bounded set."""
        self.meters.refused.labels(reason).inc()
