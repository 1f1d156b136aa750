"""One sender's thousands of messages that do not move delay nobody else's."""

import smtplib
import threading
import time

import pytest
from demo.sink import Sink, World
from tests.harness import free_port, letter, scene, wait_for

pytestmark = pytest.mark.real

EACH = 3000  # messages to either site, far more than may be in hand
THREADS = 3


def test_a_flood_to_dead_and_slow_sites_delays_nobody():
    """3,000 to a closed port, 3,000 to a slow host: another's mail is there within seconds.

    To a good domain it is delivered as if there were no flood; to the slow host itself it takes
    its sender's turn, not its place behind the 3,000.
    """
    good, slow = Sink(World()), Sink(World(pause_s=1.0))
    ports = [free_port() for _ in range(3)]
    good.open(ports[0])
    slow.open(ports[1])
    route = {
        "good.example": f"127.0.0.1:{ports[0]}",
        "slow.example": f"127.0.0.1:{ports[1]}",
        "*": f"127.0.0.1:{ports[2]}",  # nobody listens
    }
    try:
        with scene(route=route, delivery={"retry_s": [5.0]}) as on:
            flood(on)
            username, secret = on.here.customer("other")
            with smtplib.SMTP("127.0.0.1", on.here.port, timeout=30) as smtp:
                smtp.login(username, secret)
                began = time.monotonic()
                for domain in ("good.example", "slow.example"):
                    smtp.sendmail("o@other.example", [f"kim@{domain}"], letter(f"o-{domain}"))
            wait_for(lambda: "o-good.example" in tokens(good), 10, "the good domain has it")
            good_s = time.monotonic() - began
            wait_for(lambda: "o-slow.example" in tokens(slow), 20, "the slow domain has it")
            slow_s = time.monotonic() - began
            ledger = on.audit()

            assert good_s < 3, f"{good_s:.1f} s"
            assert slow_s < 10, f"{slow_s:.1f} s"
            assert ledger["queued"] > EACH, ledger  # the flood is still there
            assert ledger["residual"] == 0, ledger
    finally:
        good.close()
        slow.close()


def flood(on):
    """Send to a domain whose port is closed and to a slow one, by turns."""

    def send(number):
        with on.connect() as smtp:
            for n in range(number, EACH, THREADS):
                for domain in ("dead.example", "slow.example"):
                    smtp.sendmail("joe@customer.example", [f"u{n}@{domain}"], letter(f"{n}"))

    threads = [threading.Thread(target=send, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def tokens(sink):
    return {one.content.partition(b"X-Token: ")[2].partition(b"\r\n")[0].decode()
            for one in list(sink.world.arrived)}  # fmt: skip
