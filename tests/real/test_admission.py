"""The retry flood after an outage: everybody comes at once, and is taken in smoothly or told no."""

import asyncio
import base64
import contextlib
import itertools
import resource
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest
import uvloop
from tests.harness import letter, scene

pytestmark = pytest.mark.real

CONNECTIONS = 1000  # at once; descriptors for both ends are in two processes
BIG = ("big0", "big1")
IN_FLIGHT = 100  # so few that some hear no, however quick the machine is
MESSAGES, OF_SMALL = 2000, 50  # that wait at the customers, of the big ones and of a small one
RETRY_S = 0.5  # until a client that heard no comes again, then twice that; in life it is minutes
BUCKET_S = 0.1


@dataclass
class Flood:
    """Customers who all have mail waiting, and what they heard."""

    port: int
    backlog: dict[str, list[int]] = field(default_factory=dict)  # by account: numbers to send
    accepted_at: list[float] = field(default_factory=list)
    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)  # by what was asked
    began: float = 0.0

    async def ask(self, reader, writer, what, data):
        """Say something; returns the last line of the reply."""
        began = time.monotonic()
        if data:
            writer.write(data)
        while (line := await reader.readline())[3:4] == b"-":
            pass
        took_s = time.monotonic() - began
        kind = what if line[:1] in b"23" else f"{what} refused"
        self.slowest[kind] = max(self.slowest.get(kind, 0.0), took_s)
        if line[:1] not in b"23":
            self.refused[line.decode().partition(" ref=")[0].rstrip() or f"closed: {what}"] += 1
        return line

    async def customer(self, account, login):
        """Send of the account's backlog over one connection, as long as there is any."""
        wait_s = RETRY_S
        while self.backlog[account]:
            with contextlib.suppress(OSError):
                await self.session(account, login)
            if self.backlog[account]:
                await asyncio.sleep(wait_s)
                wait_s *= 2

    async def session(self, account, login):
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        took_s = time.monotonic() - began
        self.slowest["connect"] = max(self.slowest.get("connect", 0.0), took_s)
        try:
            for what, data in (
                ("greeting", b""), ("ehlo", b"EHLO x\r\n"), ("auth", b"AUTH PLAIN %s\r\n" % login),
            ):  # fmt: skip
                if (await self.ask(reader, writer, what, data))[:1] != b"2":
                    return
            while self.backlog[account]:
                number = self.backlog[account].pop()
                if not await self.message(reader, writer, account, number):
                    self.backlog[account].append(number)
                    return
        finally:
            writer.close()

    async def message(self, reader, writer, account, number):
        envelope = b"MAIL FROM:<joe@customer.example>\r\nRCPT TO:<kim@fine.example>\r\nDATA\r\n"
        for what, data in (("mail", envelope), ("rcpt", b""), ("data", b"")):
            if (await self.ask(reader, writer, what, data))[:1] not in b"23":
                return False
        content = letter(f"{account}-{number}", "x" * 2000) + b".\r\n"
        if (await self.ask(reader, writer, "dot", content))[:3] != b"250":
            return False
        self.accepted_at.append(time.monotonic())
        self.accepted[account] += 1
        return True

    def rate(self):
        """Return how many were accepted in each tenth of a second, from the first to the last."""
        found = Counter(int((at - self.began) / BUCKET_S) for at in self.accepted_at)
        return [found[n] for n in range(min(found), max(found) + 1)]


def login_of(username, secret):
    return base64.b64encode(f"\0{username}\0{secret}".encode())


@pytest.fixture
def descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 500
    if hard != resource.RLIM_INFINITY and hard < 2 * wanted:
        pytest.skip(f"needs {wanted} open files, and may have {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def storm(flood, logins):
    flood.began = time.monotonic()
    small = asyncio.create_task(flood.customer("small", logins["small"]))
    crowd = [
        flood.customer(account, logins[account])
        for n in range(CONNECTIONS)
        for account in [BIG[n % len(BIG)]]
    ]
    async with asyncio.timeout(60):
        await asyncio.gather(small, *crowd)


def test_a_retry_flood_is_admitted_smoothly(descriptors, capsys):
    """A thousand at once: mail flows all the time, noes are fast, the small come through."""
    edge = {"connections_per_client_max": 10_000, "in_flight_max": IN_FLIGHT}
    with scene(edge=edge, delivery={"in_hand_max": 128}) as on:
        flood, logins = Flood(on.here.port), {"small": login_of(on.username, on.secret)}
        flood.backlog["small"] = list(range(OF_SMALL))
        for name in BIG:
            logins[name] = login_of(*on.here.customer(name, "sender_messages_1h=1000000"))
            flood.backlog[name] = list(range(MESSAGES // len(BIG)))
        uvloop.run(storm(flood, logins))
        rate = flood.rate()
        gaps = longest_gap(flood.accepted_at)
        with capsys.disabled():
            print(
                f"\n  {sum(rate)} accepted in {len(rate) * BUCKET_S:.1f} s, by tenths: {rate}"
                f"\n  longest gap {gaps * 1000:.0f} ms; refused {dict(flood.refused)}"
                f"\n  slowest: { {k: round(v, 3) for k, v in sorted(flood.slowest.items())} }"
            )

        assert flood.accepted.total() == MESSAGES + OF_SMALL
        assert flood.accepted["small"] == OF_SMALL
        assert gaps < 2.0, "mail flows in bursts"
        assert flood.slowest["dot"] < 5
        assert flood.refused, "nobody heard no: this shows nothing"
        assert all(s < 5 for what, s in flood.slowest.items() if what.endswith("refused"))
        ledger = on.audit()
        assert ledger["accepted"] == MESSAGES + OF_SMALL
        assert ledger["residual"] == 0


def longest_gap(times):
    return max(b - a for a, b in itertools.pairwise(times))
