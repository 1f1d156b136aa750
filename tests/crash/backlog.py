"""`python -m tests.crash.backlog [--messages N]`: how soon it is at work with so many queued."""

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import smtplib
import threading
import time
from pathlib import Path
from typing import Any

from tests.harness import Scene, letter, scene, wait_for

from postweir.identity.sender import Sender
from postweir.mail.envelope import Envelope, message_id
from postweir.policy.verdict import Verdict
from postweir.spool.ports import Accept
from postweir.storage.sqlite_spool import SqliteStore

SHARDS = 2
BATCH = 2000
SENDERS, DOMAINS = 3000, 2000
ACCEPT = Verdict("accept", policy="pol_test")
WAIT_S = 120.0  # for what is to be there in 2 and 10 s, so that a failure has a figure


def message(shard: int, n: int) -> Accept:
    """Return the n-th of the messages that wait in a shard."""
    body = letter(f"backlog-{shard}-{n}", "x" * 1000)
    name = message_id(at_ms=1_790_000_000_000 + n, incarnation=shard, counter=n & 0xFFFF)
    return Accept(
        ask=n, message=name, by_ns=0, origin="smtp",
        envelope=Envelope("joe@customer.example", (f"kim@d{n % DOMAINS}.example",), "mail"),
        sender=Sender("acme", "sasl", f"s{n % SENDERS}@customer.example"), client="192.0.2.1",
        tls=True, added=b"X-Postweir-Id: " + name.encode() + b"\r\n", body=body, body_file=None,
        length=len(body), check=hashlib.blake2b(body, digest_size=16).digest(), verdict=ACCEPT,
        reason="", facts=b"", lifetime_s=48 * 3600,
    )  # fmt: skip


def fill(spool: Path, shard: int, count: int) -> None:
    """Queue so many messages in one shard's file, by the code that serves."""
    bodies = spool / f"bodies-{shard}"
    bodies.mkdir(parents=True, exist_ok=True)
    store = SqliteStore(spool / f"shard-{shard}.db", bodies, incarnation=shard)
    for first in range(0, count, BATCH):
        store.commit([message(shard, n) for n in range(first, min(first + BATCH, count))])
    store.close()


def start_with(messages: int) -> dict[str, Any]:
    """Return what a start took with so many queued, and one after kill -9 of everything."""
    with scene(start=False, spool={"shards": SHARDS}) as on:
        on.here.start()  # accounts are known, the folders are made
        assert on.here.stop() == 0
        spool = on.here.folder / "var" / "spool"
        each = [multiprocessing.Process(target=fill, args=(spool, k, messages // SHARDS))
                for k in range(1, SHARDS + 1)]  # fmt: skip
        began = time.monotonic()
        for one in each:
            one.start()
        for one in each:
            one.join()
            assert one.exitcode == 0
        filled_s = time.monotonic() - began
        found = {"messages": messages, "filled_s": round(filled_s, 1), **timed(on)}
        assert on.audit()["residual"] == 0
        on.here.stop(signal.SIGKILL)
        return {**found, "after_kill_9": timed(on)}


def timed(on: Scene) -> dict[str, Any]:
    """Start; return when the first 250 was said and when the first message arrived, in seconds."""
    accepted: list[float] = []
    before, began = waited(on), time.monotonic()
    client = threading.Thread(target=knock, args=(on, began, accepted), daemon=True)
    client.start()
    ready_s = on.here.start(WAIT_S)
    wait_for(lambda: accepted, WAIT_S, "the first 250")
    wait_for(lambda: waited(on) > before, WAIT_S, "the first delivery of what waited")
    delivered_s = time.monotonic() - began
    memory = sum(resident(on.here.process("spool", k)) for k in range(1, SHARDS + 1))
    return {
        "ready_s": round(ready_s, 2), "first_accept_s": round(accepted[0], 2),
        "first_delivery_s": round(delivered_s, 2), "shards_mib": memory // 2**20,
    }  # fmt: skip


def knock(on: Scene, began: float, accepted: list[float]) -> None:
    """Try until a message is taken."""
    while time.monotonic() - began < WAIT_S:
        with contextlib.suppress(OSError, smtplib.SMTPException), on.connect() as smtp:
            smtp.sendmail("joe@customer.example", ["kim@fine.example"], letter("knock"))
            accepted.append(time.monotonic() - began)
            return
        time.sleep(0.02)


def waited(on: Scene) -> int:
    """Return how many of those that were queued have arrived."""
    return sum(token.startswith("backlog-") for token in on.arrived())


def resident(process: int) -> int:
    """Return the bytes of memory that a process has."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    print(json.dumps(start_with(parser.parse_args().messages)))


if __name__ == "__main__":
    main()
