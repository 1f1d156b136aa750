"""The spool process: builds one shard out of its file, its requests and its judge."""

import asyncio
import threading
from pathlib import Path
from typing import Any

from postweir.delivery.retry import longest_wait_s
from postweir.judge.asking import Judges
from postweir.processes.child import Ground
from postweir.runtime.settings import Settings
from postweir.spool.service import Service
from postweir.storage.spool_reader import SqliteReader
from postweir.storage.spool_recovery import Recovery, note
from postweir.storage.sqlite_spool import SqliteStore
from postweir.storage.sqlite_tables import SqliteTables


async def serve(ground: Ground) -> None:
    """Own one shard's file until told to stop."""
    now = ground.settings
    folder = now.data / "spool"
    path, bodies = folder / f"shard-{ground.index}.db", folder / f"bodies-{ground.index}"
    stores: list[SqliteStore] = []
    if not await _prepared(ground, path, bodies):
        return

    def open_store() -> SqliteStore:
        store = SqliteStore(
            path,
            bodies,
            hostname=now.delivery.hostname or now.edge.hostname,
            settings=now.spool,
            incarnation=ground.incarnation,
            longest_wait_s=longest_wait_s(now.delivery),
        )
        stores.append(store)
        return store

    judges = Judges(ground.run, count=now.judge.workers, log=ground.log)
    service = Service(
        ground.index,
        run=ground.run,
        bodies=bodies,
        settings=now,
        open_store=open_store,
        open_reader=lambda out: SqliteReader(path, shard=ground.index, in_hand=out),
        requests=SqliteTables(now.data / "tables.db"),
        judge=judges,
        log=ground.log,
        metrics=ground.metrics,
        fail=lambda event, **fields: _fail(ground, path, event, **fields),
        incarnation=ground.incarnation,
    )

    def take(found: Settings) -> None:
        service.settings = found
        for store in stores:
            store.settings = found.spool
            store.longest_wait_s = longest_wait_s(found.delivery)

    ground.on_reload.append(take)
    ground.health = service.health
    await service.start()
    ground.up()
    await ground.stopping.wait()
    await service.close()
    await judges.close()


async def _prepared(ground: Ground, path: Path, bodies: Path) -> bool:
    """Look the file over, and salvage it when it is damaged; False: told to stop meanwhile."""
    stop = threading.Event()
    recovery = Recovery(path, bodies, log=ground.log, stop=stop)
    ground.health = lambda: {"accepts": False, "reason": recovery.doing}
    work = asyncio.create_task(asyncio.to_thread(recovery.until_prepared))
    told = asyncio.create_task(ground.stopping.wait())
    await asyncio.wait((work, told), return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    told.cancel()
    return await work


def _fail(ground: Ground, path: Path, event: str, **fields: Any) -> None:
    """End, with a word for the next process where the file itself is in doubt."""
    if event == "spool.damaged" or fields.get("ours"):
        note(path, str(fields["fault"]), proven=event == "spool.damaged")
    ground.fail(event, **fields)
