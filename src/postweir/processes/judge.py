"""The judge process: one question, one answer, in time."""

import asyncio
import gc
import sys
from typing import Any

from postweir.identity.directory import Watched
from postweir.judge.bundles import Bundles, shipped_whole
from postweir.judge.engine import Engine
from postweir.judge.keeping import Keeping
from postweir.judge.killing import KillFile
from postweir.judge.levels import Levels
from postweir.judge.meters import Meters
from postweir.judge.promotions import Promotions
from postweir.judge.service import Service
from postweir.mail.domains import Domains
from postweir.processes.child import Ground
from postweir.runtime.settings import Settings
from postweir.scan.attachments import Attachments
from postweir.scan.content import Content
from postweir.scan.header import Header
from postweir.scan.links import Links
from postweir.scan.panel import Panel
from postweir.scan.rspamd import Rspamd
from postweir.scan.text import Text
from postweir.spool.client import Shards
from postweir.spool.ports import Hello
from postweir.storage.sqlite_policies import SqlitePolicies
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
    promotions = _promotions(ground)
    start_with = await asyncio.to_thread(lambda: promotions.begin(shipped_whole()))
    domains = Domains()
    links = Links(now.judge.url_hosts, ground.log, domains)
    await asyncio.to_thread(links.load, now.judge.url_hosts)
    rspamd = Rspamd(now.judge.rspamd, user=now.judge.rspamd_user) if now.judge.rspamd else None
    # The list of scanners, written out: what is not here does not look.
    panel = Panel(
        [Header(domains), Content(), Text(), links, Attachments()],
        ground.log,
        [rspamd] if rspamd else [],
    )
    meters = Meters(ground.metrics, lambda: service.open_asks)
    meters.watch(promotions)
    engine = Engine(
        start_with, evaluate_s=now.judge.evaluate_ms / 1000, log=ground.log, on_death=meters.died,
        on_policy=meters.judges_by,
    )  # fmt: skip
    hello = Hello(PROTOCOL_VERSION, "judge", ground.index, ground.of, ground.incarnation, now.hash)
    shards = Shards(ground.run, count=now.spool.shards, hello=hello, log=ground.log)
    keeping = Keeping(
        now.data / "judge" / str(ground.index), judge=ground.index, of=ground.of, log=ground.log
    )
    levels = Levels(
        shards, keeping, await asyncio.to_thread(keeping.load), log=ground.log,
        judge=ground.index, of=ground.of,
    )  # fmt: skip
    meters.follow(levels)
    service = Service(
        evaluator=engine, panel=panel, levels=levels, directory=lambda: directory.now,
        hostname=now.edge.hostname, scan_s=now.judge.scan_ms / 1000,
        settings=lambda: ground.settings.hash, log=ground.log, meters=meters,
    )  # fmt: skip
    _reload(ground, engine, service, links)
    ground.health = lambda: _health(engine, service, promotions)
    await engine.start(now.supervisor.ready_s / 2)
    promotions.follow(engine)
    _collect_seldom()
    await service.start(ground.run / f"judge-{ground.index}.sock")
    ground.up()
    await ground.stopping.wait()
    await service.close()
    await promotions.close()
    await engine.close()
    await shards.close()
    panel.close()
    if rspamd is not None:
        await rspamd.close()
    directory.close()


def _collect_seldom() -> None:
    """Look for garbage seldom, and never in what is there now.

    No message leaves a circle behind (tests/scan see to it), so there is next to none to find; and
    what is remembered of a hundred thousand messages is not to be gone through all the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _promotions(ground: Ground) -> Promotions:
    """Return what will say which policy to run."""
    folder = ground.settings.data / "policy"
    ours = folder / str(ground.index)
    return Promotions(
        SqlitePolicies(SqliteTables(ground.settings.data / "tables.db")),
        Bundles(ours, ground.log),
        KillFile(folder / "kill.toml", ours / "killed", ground.log),
        ground.log,
    )


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


def _health(engine: Engine, service: Service, promotions: Promotions) -> dict[str, Any]:
    return {
        "policy": engine.policy,
        **promotions.told(),
        "open_asks": service.open_asks,
        "usage_known": service.usage_known,
    }
