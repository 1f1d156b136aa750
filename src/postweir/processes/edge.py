"""The edge process: mail comes in on the inherited listeners, and is promised by a shard."""

import asyncio
import contextlib
import resource
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from postweir.edge.bodies import Folders
from postweir.edge.meters import Meters
from postweir.edge.names import Names
from postweir.edge.smtp import Connection
from postweir.edge.sweeper import Sweeper
from postweir.edge.worker import Worker
from postweir.identity.credentials import server_secret
from postweir.identity.directory import Watched
from postweir.judge.asking import Judges
from postweir.processes.child import Ground
from postweir.runtime.log import Log
from postweir.runtime.net import ServerTls
from postweir.runtime.settings import Settings
from postweir.spool.client import Shards
from postweir.spool.ports import Hello
from postweir.storage.sqlite_tables import SqliteTables

BACKLOG = 1024  # connections that wait for accept(2); asyncio's own would shrink it to 100
FILES_OTHER = 256  # descriptors beside those of clients: links, listeners, log, tables
LOOK_S = 1.0  # at the certificate's files and the spool's folders
DISK_THREADS = 8  # large bodies being written at once; more would only queue at the disk
PROTOCOL_VERSION = 1


async def serve(ground: Ground) -> None:
    """Serve until told to stop, then let what was begun end."""
    now = ground.settings
    loop = asyncio.get_running_loop()
    secret = await asyncio.to_thread(server_secret, now.data)
    certificate = Certificate(now, ground.log)
    directory = Watched(
        SqliteTables(now.data / "tables.db"),
        picture=ground.run / "directory.picture",
        log=ground.log,
        saves=ground.index == 1,
    )
    await asyncio.to_thread(directory.start)
    hello = Hello(PROTOCOL_VERSION, "edge", ground.index, ground.of, ground.incarnation, now.hash)
    shards = Shards(ground.run, count=now.spool.shards, hello=hello, log=ground.log)
    judges = Judges(ground.run, count=now.judge.workers, log=ground.log)
    with ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="bodies") as pool:
        worker = Worker(
            settings=now, directory=directory, shards=shards, judge=judges,
            folders=Folders(now.data / "spool"), names=Names(ground.incarnation),
            meters=Meters(ground.metrics), log=ground.log, secret=secret, pool=pool,
            tls=lambda: certificate.context, room=room_for(now.edge.connections_max),
        )  # fmt: skip
        if worker.room < now.edge.connections_max:
            ground.log.warning("edge.few_descriptors", connections_max=worker.room)
        _watch(ground, worker)
        sweeper = Sweeper()
        kept = [loop.create_task(sweeper.run()), loop.create_task(_look(worker, certificate))]
        for task in kept:
            task.add_done_callback(lambda ended: _must_go_on(ground, ended))
        servers = [
            await loop.create_server(
                lambda implicit=implicit: Connection(worker, sweeper, implicit_tls=implicit),  # type: ignore[misc]
                sock=listener,
                backlog=BACKLOG,
            )
            for listener, implicit in ground.listeners
        ]
        ground.up()
        await ground.stopping.wait()
        await _drain(ground, worker, sweeper, servers)
        for task in kept:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    await shards.close()
    await judges.close()
    directory.close()


def _watch(ground: Ground, worker: Worker) -> None:
    """Show and reload what can be shown and reloaded."""
    counts = worker.counts
    worker.meters.connections.set_function(lambda: counts.connections)
    worker.meters.bytes_held.set_function(lambda: counts.bytes_held)

    def take(found: Settings) -> None:
        worker.settings = found
        worker.room = room_for(found.edge.connections_max)

    def health() -> dict[str, Any]:
        return {
            "connections": counts.connections,
            "shards": worker.shards.reason() or "accept",
            "directory": worker.directory.now.version,
        }

    ground.on_reload.append(take)
    ground.health = health


class Certificate:
    """The certificate in force, wherever the settings have it now; none: no TLS is offered."""

    def __init__(self, now: Settings, log: Log) -> None:
        self._log, self._tls = log, now.tls
        self._server = ServerTls(now.tls.certificate, now.tls.key, log) if now.tls.key else None

    @property
    def context(self) -> ssl.SSLContext | None:
        return self._server.context if self._server else None

    def look(self, now: Settings) -> None:
        """Take files that changed, or others if a reload named them; keeps the old on bad ones."""
        if now.tls == self._tls:
            if self._server is not None:
                self._server.look()
            return
        self._tls = now.tls  # tried once: if they are bad, the next change of settings tries again
        if not now.tls.certificate:
            self._server = None
            return
        try:
            self._server = ServerTls(now.tls.certificate, now.tls.key, self._log)
        except (OSError, ValueError) as fault:
            self._log.error("tls.refused", certificate=now.tls.certificate, fault=str(fault))
        else:
            self._log.info("tls.taken", certificate=now.tls.certificate)


async def _look(worker: Worker, certificate: Certificate) -> None:
    """Look, on a thread, at files that others may have changed."""
    while True:
        await asyncio.to_thread(worker.folders.look)
        await asyncio.to_thread(certificate.look, worker.settings)
        await asyncio.sleep(LOOK_S)


def room_for(connections_max: int) -> int:
    """Take the descriptors that so many connections need, a file each; return how many they do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections_max + FILES_OTHER
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    soft = connections_max * 2 + FILES_OTHER if soft == resource.RLIM_INFINITY else soft
    return max(1, (soft - FILES_OTHER) // 2)


def _must_go_on(ground: Ground, task: asyncio.Task[None]) -> None:
    """Without deadlines, or with files nobody looks at, this process is better started anew."""
    if not task.cancelled() and (fault := task.exception()) is not None:
        ground.fail("edge.failed", fault=repr(fault), exc_info=fault)


async def _drain(
    ground: Ground, worker: Worker, sweeper: Sweeper, servers: list[asyncio.Server]
) -> None:
    """Take nobody new; let open transactions end."""
    worker.stopping = True
    for server in servers:
        server.close()
    in_time = await sweeper.drain(worker.settings.supervisor.drain_s)
    ground.log.info("edge.drained", in_time=in_time)
