"""The delivery process: takes what is due from every shard, and brings it to its site."""

import asyncio
import random
import resource
from collections.abc import Iterable

from postweir.delivery.meters import Meters
from postweir.delivery.route import Router
from postweir.delivery.worker import Worker
from postweir.processes.child import Ground, shards_total
from postweir.runtime import settings
from postweir.runtime.dns import Resolver
from postweir.runtime.net import client_context
from postweir.spool.handing import Handing
from postweir.spool.ports import Hello

VERSION = 1  # of what is said to a shard
FILES_OTHER = 256  # descriptors for all that is no connection to a remote host
CONNECTIONS_MAX = 5000  # at about 50 KB each with TLS, 250 MB
CONFIRM_S = 1.0  # at the end, for the shards to commit the last outcomes


async def serve(ground: Ground) -> None:
    """Serve until told to stop, then finish what is being sent."""
    now = ground.settings
    resolver = Resolver(now.delivery.resolvers, ground.metrics)
    meters = Meters(ground.metrics)
    worker = Worker(
        now.delivery, router=router(now, resolver), hostname=hostname(now),
        context=client_context(), own_ports=frozenset(ports(now.edge.listen + now.edge.listen_tls)),
        connections_max=connections_max(), chance=random.random, meters=meters, log=ground.log,
    )  # fmt: skip
    handing = Handing(
        ground.run,
        count=shards_total(now),
        hello=lambda: hello(ground),
        in_hand_max=now.delivery.in_hand_max,
        on_handed=worker.take,
        log=ground.log,
    )

    def take(new: settings.Settings) -> None:
        resolver.ask(new.delivery.resolvers)
        worker.configure(new.delivery, router(new, resolver), hostname(new))
        handing.bound(new.delivery.in_hand_max)

    ground.on_reload.append(take)
    measure(meters, handing)
    ground.health = lambda: {"in_hand": handing.in_hand, "shards": handing.connected}
    worker.begin(handing)
    handing.start()
    ground.up()
    await ground.stopping.wait()
    handing.stop()
    await worker.drain(max(0.0, now.supervisor.drain_s - CONFIRM_S))
    try:
        await asyncio.wait_for(handing.confirmed(), CONFIRM_S)
    except TimeoutError:
        ground.log.warning("delivery.unconfirmed", outcomes=handing.unsettled)
    await handing.close()
    await resolver.close()


def hello(ground: Ground) -> Hello:
    """Return who we are; `spool.handing` adds what it has in hand."""
    return Hello(
        VERSION, "delivery", ground.index, ground.of, ground.incarnation, ground.settings.hash
    )


def hostname(now: settings.Settings) -> str:
    """Return the name we give ourselves."""
    return now.delivery.hostname or now.edge.hostname


def router(now: settings.Settings, resolver: Resolver) -> Router:
    """Return who finds the way by these settings."""
    return Router(
        resolver, table=now.delivery.route, port=now.delivery.port,
        private_networks=now.delivery.private_networks,
        hostnames=(hostname(now), now.edge.hostname), chance=random.random,
    )  # fmt: skip


def measure(meters: Meters, handing: Handing) -> None:
    """Let the metrics page read what is in hand. Called on its thread: plain reads only."""
    loop = asyncio.get_running_loop()
    meters.in_hand.set_function(lambda: handing.in_hand)
    meters.unsettled.set_function(lambda: handing.unsettled)
    meters.oldest_s.set_function(lambda: handing.oldest_s(loop.time()))


def ports(listen: Iterable[str]) -> Iterable[int]:
    """Return the ports we listen on: a route to them on our own address is a circle."""
    return (settings.address(text)[1] for text in listen)


def connections_max() -> int:
    """Take all the descriptors we may have; return how many connections they are enough for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > soft:
        soft = CONNECTIONS_MAX + FILES_OTHER if hard == resource.RLIM_INFINITY else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(16, min(CONNECTIONS_MAX, soft - FILES_OTHER))
