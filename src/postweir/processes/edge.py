"""The edge process: mail comes in on the inherited listeners, and is promised by a shard."""

import asyncio
import contextlib
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
from postweir.runtime.net import ServerTls
from postweir.runtime.settings import Settings
from postweir.spool.client import Shards
from postweir.spool.ports import Hello
from postweir.storage.sqlite_tables import SqliteTables

LOOK_S = 1.0  # at the certificate's files and the spool's folders
DISK_THREADS = 8  # large bodies being written at once; more would only queue at the disk
PROTOCOL_VERSION = 1


async def serve(ground: Ground) -> None:
    """Serve until told to stop, then let what was begun end."""
    now = ground.settings
    loop = asyncio.get_running_loop()
    secret = await asyncio.to_thread(server_secret, now.data)
    tls = ServerTls(now.tls.certificate, now.tls.key, ground.log) if now.tls.certificate else None
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
            tls=lambda: tls.context if tls else None,
        )  # fmt: skip
        _watch(ground, worker)
        sweeper = Sweeper()
        kept = [loop.create_task(sweeper.run()), loop.create_task(_look(worker, tls))]
        servers = [
            await loop.create_server(
                lambda implicit=implicit: Connection(worker, sweeper, implicit_tls=implicit),  # type: ignore[misc]
                sock=listener,
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

    def health() -> dict[str, Any]:
        return {
            "connections": counts.connections,
            "shards": worker.shards.reason() or "accept",
            "directory": worker.directory.now.version,
        }

    ground.on_reload.append(take)
    ground.health = health


async def _look(worker: Worker, tls: ServerTls | None) -> None:
    """Look, on a thread, at files that others may have changed."""
    while True:
        await asyncio.to_thread(worker.folders.look)
        if tls is not None:
            await asyncio.to_thread(tls.look)
        await asyncio.sleep(LOOK_S)


async def _drain(
    ground: Ground, worker: Worker, sweeper: Sweeper, servers: list[asyncio.Server]
) -> None:
    """Take nobody new; let open transactions end."""
    worker.stopping = True
    for server in servers:
        server.close()
    in_time = await sweeper.drain(worker.settings.supervisor.drain_s)
    ground.log.info("edge.drained", in_time=in_time)
