"""The judge process: one question, one answer, in time."""

import asyncio
import sys
from typing import Any

from postweir.identity.directory import Watched
from postweir.judge.bundles import Bundles, shipped
from postweir.judge.counters import Counters
from postweir.judge.engine import Engine
from postweir.judge.meters import Meters
from postweir.judge.service import Service
from postweir.processes.child import Ground
from postweir.runtime.settings import Settings
from postweir.scan.attachments import Attachments
from postweir.scan.content import Content
from postweir.scan.links import Links
from postweir.scan.panel import Panel
from postweir.spool.client import Shards
from postweir.spool.ports import Hello
from postweir.storage.sqlite_tables import SqliteTables

PROTOCOL_VERSION = 1
SWITCH_S = 0.001  # threads that read large messages give way to the loop five times as often


async def serve(ground: Ground) -> None:
    """Serve until told to stop."""
    sys.setswitchinterval(SWITCH_S)
    now = ground.settings
    directory = Watched(
        SqliteTables(now.data / "tables.db"),
        picture=ground.run / "directory.picture",
        log=ground.log,
        saves=False,
    )
    await asyncio.to_thread(directory.start)
    bundles = Bundles(now.data / "policy" / str(ground.index), ground.log)
    promoted = await asyncio.to_thread(lambda: bundles.begin(shipped()))
    links = Links(now.judge.url_hosts, ground.log)
    await asyncio.to_thread(links.load, now.judge.url_hosts)
    # The list of scanners, written out: what is not here does not look.
    panel = Panel([Content(), links, Attachments()], ground.log)
    meters = Meters(ground.metrics, lambda: service.open_asks)
    engine = Engine(
        promoted, evaluate_s=now.judge.evaluate_ms / 1000, log=ground.log, on_death=meters.died
    )
    hello = Hello(PROTOCOL_VERSION, "judge", ground.index, ground.of, ground.incarnation, now.hash)
    shards = Shards(ground.run, count=now.spool.shards, hello=hello, log=ground.log)
    service = Service(
        evaluator=engine, panel=panel, counters=Counters(), directory=lambda: directory.now,
        hostname=now.edge.hostname, scan_s=now.judge.scan_ms / 1000,
        settings=lambda: ground.settings.hash, log=ground.log, meters=meters, feed=shards,
    )  # fmt: skip
    _reload(ground, engine, service, links)
    ground.health = lambda: _health(engine, service)
    await engine.start(now.supervisor.ready_s / 2)
    await service.start(ground.run / f"judge-{ground.index}.sock")
    ground.up()
    await ground.stopping.wait()
    await service.close()
    await engine.close()
    await shards.close()
    panel.close()
    directory.close()


def _reload(ground: Ground, engine: Engine, service: Service, links: Links) -> None:
    """Take what a reload may change."""
    kept: set[asyncio.Task[None]] = set()

    def take(found: Settings) -> None:
        engine.evaluate_s = found.judge.evaluate_ms / 1000
        service.scan_s = found.judge.scan_ms / 1000
        task = asyncio.create_task(asyncio.to_thread(links.load, found.judge.url_hosts))
        kept.add(task)
        task.add_done_callback(kept.discard)

    ground.on_reload.append(take)


def _health(engine: Engine, service: Service) -> dict[str, Any]:
    return {
        "policy": engine.policy,
        "open_asks": service.open_asks,
        "usage_known": service.usage_known,
    }
