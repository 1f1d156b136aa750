"""What all connections of one edge worker share."""

import ssl
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from postweir.edge.bodies import Folders
from postweir.edge.gate import Counts
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
    pool: Executor  # for disks
    tls: Callable[[], ssl.SSLContext | None]  # the certificate in force; None: no TLS
    counts: Counts = field(default_factory=Counts)
    room: int = 1_000_000  # connections that our file descriptors are enough for
    stopping: bool = False
