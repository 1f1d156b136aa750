"""The spool process: builds one shard out of its file, its requests and its judge."""

from postweir.judge.asking import Judges
from postweir.processes.child import Ground
from postweir.runtime.settings import Settings
from postweir.spool.service import Service
from postweir.storage.spool_reader import SqliteReader
from postweir.storage.sqlite_spool import SqliteStore
from postweir.storage.sqlite_tables import SqliteTables


async def serve(ground: Ground) -> None:
    """Own one shard's file until told to stop."""
    now = ground.settings
    folder = now.data / "spool"
    path, bodies = folder / f"shard-{ground.index}.db", folder / f"bodies-{ground.index}"
    stores: list[SqliteStore] = []

    def open_store() -> SqliteStore:
        store = SqliteStore(
            path,
            bodies,
            hostname=now.delivery.hostname or now.edge.hostname,
            settings=now.spool,
            incarnation=ground.incarnation,
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
        fail=ground.fail,
        incarnation=ground.incarnation,
    )

    def take(found: Settings) -> None:
        service.settings = found
        for store in stores:
            store.settings = found.spool

    ground.on_reload.append(take)
    ground.health = service.health
    await service.start()
    ground.up()
    await ground.stopping.wait()
    await service.close()
    await judges.close()
