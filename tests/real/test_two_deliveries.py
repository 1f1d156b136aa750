"""Two delivery workers share the sites: each recipient once, and no site more than it may have."""

import asyncio
import contextlib
import json
import os
import signal
import threading
from collections import Counter

import pytest
from demo.sink import Sink, Site, World
from tests.harness import free_port, letter, scene, token_of, wait_for
from tests.runtime.nameserver import Nameserver

from postweir.runtime.metrics import asked

pytestmark = pytest.mark.real

DOMAINS, PROVIDERS = 30, 3
MESSAGES = 300
PER_SITE_MAX = 4
IN_HAND_MAX = 2000


class Counted(Site):
    """One connection to a host that counts how many it has at once."""

    def __init__(self, host):
        super().__init__(host.world)
        self._host = host

    def connection_made(self, transport):
        self._host.open_now += 1
        self._host.open_most = max(self._host.open_most, self._host.open_now)
        super().connection_made(transport)

    def connection_lost(self, _):
        self._host.open_now -= 1


class Host(Sink):
    """One provider's only mail host."""

    def __init__(self, address, port):
        super().__init__(World(pause_s=0.02))
        self.open_now = self.open_most = 0
        made = self._loop.create_server(lambda: Counted(self), address, port)
        self._servers[port] = asyncio.run_coroutine_threadsafe(made, self._loop).result(10)


@contextlib.contextmanager
def answering(zone):
    """A name server on a thread of its own; gives its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = Nameserver(zone)

    def do(what):
        asyncio.run_coroutine_threadsafe(what, loop).result(10)

    do(server.__aenter__())
    try:
        yield server.address
    finally:
        do(server.__aexit__())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def domain(n):
    return f"d{n % DOMAINS}.example"


def zone():
    """Many domains, in many buckets, on few providers: the sites belong to either worker."""
    found = {
        (domain(n), "MX"): [f"10 mx.p{n % PROVIDERS}.example."] for n in range(DOMAINS)
    }  # fmt: skip
    return found | {
        (f"mx.p{n}.example", "A"): [f"127.0.0.{n + 2}"] for n in range(PROVIDERS)
    }  # fmt: skip


def test_kill_9_of_one_of_two_workers():
    """Nothing is lost, what comes twice is marked, and both keep to a site's connections."""
    port = free_port()
    hosts = [Host(f"127.0.0.{n + 2}", port) for n in range(PROVIDERS)]
    with contextlib.ExitStack() as stack:
        for host in hosts:
            stack.callback(host.close)
        delivery = {
            "workers": 2, "port": port, "private_networks": True, "retry_s": [1.0],
            "resolvers": [stack.enter_context(answering(zone()))],
            "connections_per_site_max": PER_SITE_MAX,
        }  # fmt: skip
        on = stack.enter_context(scene(route={}, delivery=delivery))
        with on.connect() as smtp:
            for n in range(MESSAGES):
                to = [f"u{n}@{domain(n)}", f"v{n}@{domain(n * 7 + 1)}"]
                smtp.sendmail("joe@customer.example", to, letter(f"m{n}"))
                if n in (MESSAGES // 3, MESSAGES // 2):
                    os.kill(on.here.process("delivery", 1 + n // (MESSAGES // 2)), signal.SIGKILL)
        ledger = on.settled(60)
        marked = on.here.log.read_text().count("spool.possible_duplicate")

        arrived = Counter(
            (token_of(one.content), recipient)
            for host in hosts
            for one in list(host.world.arrived)
            for recipient in one.recipients
        )
        assert len(arrived) == 2 * MESSAGES
        assert arrived.total() - 2 * MESSAGES <= marked
        assert ledger["delivered"] == 2 * MESSAGES
        assert all(0 < host.open_most <= PER_SITE_MAX for host in hosts), [
            host.open_most for host in hosts
        ]


def test_a_restart_with_much_in_hand_marks_and_doubles_nothing():
    """SIGTERM of a worker with a full hand: what it had not begun is given back, not suspected."""
    port = free_port()
    slow = Host("127.0.0.1", port)
    slow.world.pause_s = 0.3
    with contextlib.ExitStack() as stack:
        stack.callback(slow.close)
        route = {"*": f"127.0.0.1:{port}"}
        delivery = {
            "in_hand_max": IN_HAND_MAX,
            "retry_s": [1.0],
            "connections_per_site_max": PER_SITE_MAX,
        }
        on = stack.enter_context(scene(route=route, delivery=delivery))
        with on.connect() as smtp:
            for n in range(MESSAGES):
                to = [f"r{n}-{k}@d{(n * 10 + k) % 200}.example" for k in range(10)]
                smtp.sendmail("joe@customer.example", to, letter(f"m{n}"))
        seen = []
        wait_for(
            lambda: seen.append(in_hand(on)) or seen[-1] > 0.6 * IN_HAND_MAX, 20, "a full hand"
        )
        slow.world.pause_s = 0.0
        victim = on.here.process("delivery")
        os.kill(victim, signal.SIGTERM)
        ledger = on.settled(60)

        arrived = Counter(
            (token_of(one.content), recipient)
            for one in list(slow.world.arrived)
            for recipient in one.recipients
        )
        assert max(seen) <= IN_HAND_MAX
        assert victim != on.here.process("delivery")
        assert set(arrived.values()) == {1}
        assert len(arrived) == ledger["delivered"] == 10 * MESSAGES
        assert "possible_duplicate" not in on.here.log.read_text()


def in_hand(on):
    """Return how many recipients delivery has in hand, as it says itself."""
    said = asked(on.here.folder / "var" / "run" / "delivery-1.port", "/health", 1.0)
    return json.loads(said)["in_hand"] if said else 0
