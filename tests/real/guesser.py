"""Who guesses: wrong AUTH as fast as one core makes it. Prints what it came to, as JSON.

    guesser.py PORT MODE SECONDS NET

MODE is `new` (a connection a guess) or `reused` (as many guesses as a connection takes). It comes
from eight addresses in 127.0.NET.0/24, and waits for an answer no longer than WAIT_S: one that is
made to wait hangs up and comes again.
"""

import asyncio
import base64
import json
import os
import sys
import time
from collections import Counter

import uvloop

AT_ONCE = 64
WAIT_S = 0.05  # for the answer to a guess
ADDRESSES = 8


class Guesser(asyncio.Protocol):
    """One connection."""

    def __init__(self, counts: Counter, reuse: bool) -> None:
        self.counts, self.reuse = counts, reuse
        self.done = asyncio.get_running_loop().create_future()
        self.number = 0
        self.heard = b""
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.counts["connections"] += 1

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if not self.heard.endswith(b"\r\n"):
            return
        last = self.heard.split(b"\r\n")[-2]
        self.heard = b""
        if last[3:4] == b"-":
            return
        code = last[:3].decode()
        if self.timer is not None:
            self.timer.cancel()
        if code == "220":
            self.transport.write(b"EHLO guesser.example\r\n")
        elif code == "250":
            self.guess()
        else:
            self.counts[code] += 1
            if self.reuse and code in ("535", "454"):
                self.guess()
            else:
                self.transport.abort()

    def guess(self) -> None:
        self.counts["guesses"] += 1
        secret = base64.b32encode(os.urandom(16)).decode()
        words = base64.b64encode(f"\0acme-{self.counts['guesses'] % 50}\0{secret}".encode())
        self.transport.write(b"AUTH PLAIN " + words + b"\r\n")
        self.timer = asyncio.get_running_loop().call_later(WAIT_S, self.give_up)

    def give_up(self) -> None:
        self.counts["unanswered"] += 1
        self.transport.abort()

    def connection_lost(self, _) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if not self.done.done():
            self.done.set_result(None)


async def keep_on(port: int, mode: str, until: float, counts: Counter, source: str) -> None:
    loop = asyncio.get_running_loop()
    while time.monotonic() < until:
        try:
            transport, guesser = await loop.create_connection(
                lambda: Guesser(counts, mode == "reused"),
                "127.0.0.1",
                port,
                local_addr=(source, 0),
            )
        except OSError:
            counts["unconnected"] += 1
            await asyncio.sleep(0.01)
            continue
        await guesser.done
        transport.abort()


async def main(port: int, mode: str, seconds: float, net: int) -> None:
    counts = Counter()
    began, used = time.monotonic(), time.process_time()
    until = began + seconds
    await asyncio.gather(
        *(
            keep_on(port, mode, until, counts, f"127.0.{net}.{1 + n % ADDRESSES}")
            for n in range(AT_ONCE)
        )
    )
    took = time.monotonic() - began
    print(json.dumps({**counts, "seconds": took, "core": (time.process_time() - used) / took}))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
