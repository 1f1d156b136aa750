"""The edge process: mail comes in on the inherited listeners, and is promised by a shard."""

import asyncio
import contextlib
import math
import resource
import socket
import ssl
from pathlib import Path
from typing import Any

from postweir.edge import pressure
from postweir.edge.accepting import Acceptor
from postweir.edge.bodies import Disks, Folders
from postweir.edge.doubting import Doubting, DoubtsFile
from postweir.edge.meters import Meters
from postweir.edge.names import Names
from postweir.edge.smtp import Connection
from postweir.edge.standing import shunned
from postweir.edge.sweeper import Sweeper
from postweir.edge.worker import Worker
from postweir.identity.credentials import server_secret
from postweir.identity.directory import Watched
from postweir.judge.asking import Judges
from postweir.processes.child import Ground
from postweir.runtime.certificates import ServerTls, forget
from postweir.runtime.log import Log
from postweir.runtime.settings import Settings
from postweir.spool.client import Shards
from postweir.spool.ports import Hello
from postweir.storage.sqlite_tables import SqliteTables

FILES_OTHER = 256  # descriptors beside those of clients: links, listeners, log, tables
LOOK_S = 1.0  # at the certificate's files and the spool's folders
DISK_THREADS = 8  # large bodies being written at once to one shard; more would only queue there
PROTOCOL_VERSION = 1


async def serve(ground: Ground) -> None:
    """Serve until told to stop, then let what was begun end."""
    now = ground.settings
    loop = asyncio.get_running_loop()
    secret = await asyncio.to_thread(server_secret, now.data)
    certificate = Certificate(
        now, ground.log, kept=ground.run / "tls.kept", saves=ground.index == 1
    )
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
    with Disks(DISK_THREADS) as disks:
        worker = Worker(
            settings=now, directory=directory, shards=shards, judge=judges,
            folders=Folders(now.data / "spool"), names=Names(ground.incarnation),
            meters=Meters(ground.metrics), log=ground.log, secret=secret, disks=disks,
            tls=lambda: certificate.context, room=room_for(now.edge.connections_max),
        )  # fmt: skip
        worker.doubting = Doubting(secret, DoubtsFile(now.data / "edge", ground.index, ground.log))
        await worker.doubting.read()
        if worker.room < now.edge.connections_max:
            ground.log.warning("edge.few_descriptors", connections_max=worker.room)
        _watch(ground, worker, certificate)
        sweeper = Sweeper()
        kept = [
            loop.create_task(
                sweeper.run(lambda now: pressure.look(worker, sweeper.connections, now))
            ),
            loop.create_task(_look(worker, certificate)),
            loop.create_task(worker.doubting.run()),
        ]
        for task in kept:
            task.add_done_callback(lambda ended: _must_go_on(ground, ended))
        acceptors = [
            acceptor_of(worker, sweeper, listener, implicit_tls=implicit)
            for listener, implicit in ground.listeners
        ]
        ground.up()
        await ground.stopping.wait()
        await _drain(ground, worker, sweeper, acceptors)
        for task in kept:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await worker.doubting.write()
    await shards.close()
    await judges.close()
    directory.close()


def acceptor_of(
    worker: Worker, sweeper: Sweeper, listener: socket.socket, *, implicit_tls: bool
) -> Acceptor:
    """Have a listener's clients talk to this worker."""
    now = asyncio.get_running_loop().time

    def shuns(peer: object) -> bytes | None:
        no = shunned(worker, peer, now())
        # Without a handshake a TLS client cannot read a word.
        return None if no is None else b"" if implicit_tls else bytes(no.reply)

    return Acceptor(
        listener,
        lambda: Connection(worker, sweeper, implicit_tls=implicit_tls),
        sweeper.keep, worker.log, shuns,
    )  # fmt: skip


def _watch(ground: Ground, worker: Worker, certificate: "Certificate") -> None:
    """Show and reload what can be shown and reloaded."""
    counts, meters = worker.counts, worker.meters
    meters.certificate_expires_s.set_function(lambda: certificate.expires_s)
    meters.certificate_refused.set_function(lambda: int(certificate.refused))
    worker.meters.connections.set_function(lambda: counts.connections)
    worker.meters.bytes_held.set_function(lambda: counts.bytes_held)
    worker.meters.bytes_claimed.set_function(lambda: counts.bytes_claimed)
    worker.meters.unknown.set_function(lambda: len(counts.unknown))
    worker.meters.handshakes.set_function(lambda: len(counts.handshakes))
    worker.meters.in_flight.set_function(lambda: worker.flights.held.total)
    worker.meters.places.set_function(lambda: worker.pace.places)
    worker.meters.waiting.set_function(lambda: worker.flights.waiting.total)
    worker.meters.stress.set_function(lambda: worker.stress.on)
    worker.meters.share.set_function(lambda: worker.share)

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
    """The certificate in force, wherever the settings have it now; none: no TLS is offered.

    `kept` is the copy of what is in force, for a worker that starts while the files are bad; one
    worker saves it.
    """

    def __init__(
        self, now: Settings, log: Log, *, kept: Path | None = None, saves: bool = False
    ) -> None:
        self._log, self._kept, self._saves = log, kept, saves
        self._tls = now.tls
        self._refused = False  # what the settings name, with nothing else to serve with
        self._server = self._read(now, None) if now.tls.key else None

    @property
    def context(self) -> ssl.SSLContext | None:
        return self._server.context if self._server else None

    @property
    def expires_s(self) -> float:
        """When it expires, on the wall clock; not a number where there is none, or nobody knows."""
        found = self._server.ends_s if self._server else None
        return math.nan if found is None else found

    @property
    def refused(self) -> bool:
        """True while the files hold what was not taken."""
        return self._refused or bool(self._server and self._server.fault)

    def look(self, now: Settings) -> None:
        """Take files that changed, or others if a reload named them; keeps the old on bad ones."""
        if now.tls == self._tls:
            if self._server is not None:
                self._server.look()
            return
        self._tls = now.tls  # tried once where there is no old: a change of settings tries again
        self._refused = False
        if not now.tls.certificate:
            self._server = None
            if self._kept is not None and self._saves:
                forget(self._kept)
            return
        try:
            self._server = self._read(now, self._server)
        except (OSError, ValueError):  # it was told
            self._refused = True

    def _read(self, now: Settings, before: ServerTls | None) -> ServerTls:
        return ServerTls(
            now.tls.certificate, now.tls.key, self._log,
            kept=self._kept, saves=self._saves, before=before,
        )  # fmt: skip


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
    ground: Ground, worker: Worker, sweeper: Sweeper, acceptors: list[Acceptor]
) -> None:
    """Take nobody new; let open transactions end."""
    worker.stopping = True
    for acceptor in acceptors:
        acceptor.close()
    in_time = await sweeper.drain(worker.settings.supervisor.drain_s)
    ground.log.info("edge.drained", in_time=in_time)
