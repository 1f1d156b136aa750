"""What a replay costs: python -m tests.measure.replaying [--messages 100000]

Facts of so many made-up messages in two shards' files, a policy of twenty rules, and another that
differs in one: the whole replay with its workers, in a scratch directory.
"""

import argparse
import asyncio
import random
import resource
import tempfile
import time
from pathlib import Path

from tests.desk.office import NOW_US, accept
from tests.desk.office import office as open_office

from postweir.desk import replaying
from postweir.identity.sender import Sender
from postweir.mail.envelope import message_id
from postweir.policy.facts import SCHEMA, SCHEMA_HASH
from postweir.policy.verdict import Fact, Verdict
from postweir.runtime import frames

AGO_US = 3_600_000_000
BATCH = 500
RULE = """[[rule]]
id = "r{n}"
when = 'usage.messages_1h > {most} && body.parts > {n} && header.from_domain != "x{n}.example"'
then = {{ verb = "hold" }}
"""


def policy(path: Path, rules: int, *, last: int) -> Path:
    """Write a policy whose last rule only may be true."""
    mosts = [5000] * (rules - 1) + [last]
    path.write_text("".join(RULE.format(n=n, most=most) for n, most in enumerate(mosts)))
    return path


def facts(n: int, chance: random.Random) -> dict[str, Fact]:
    """Return what an ordinary message has, about 2 kB packed."""
    some: dict[str, Fact] = {
        fact.name: chance.randrange(1, 2000)
        for fact in SCHEMA.values()
        if fact.type == "int" and fact.name.startswith(("usage.", "history."))
    }
    return some | {
        "account.name": f"acme{n % 20}", "sender.key": f"acme{n % 20}|sasl|joe{n % 2000}",
        "sender.type": "sasl", "sender.identity": f"joe{n % 2000}", "usage.known": True,
        "header.from_domain": "customer.example", "body.known": True, "body.parts": 25,
        "envelope.recipients": 1, "envelope.recipient_domains": ["far.example"],
        "urls.known": True, "urls.hosts": ["www.customer.example", "cdn.example"],
        "text.known": True, "text.chars": 3000, "text.words": 500, "findings.spam": 0.2,
    }  # fmt: skip


def fill(office: object, messages: int) -> None:
    """Have both shards keep the facts of these messages."""
    chance = random.Random(1)
    for shard, store in office.shards.stores.items():  # type: ignore[attr-defined]
        store._now_us = lambda: NOW_US - AGO_US
        for at in range(0, messages // 2, BATCH):
            store.commit([
                accept(
                    1, account=f"acme{n % 20}",
                    sender=Sender(f"acme{n % 20}", "sasl", f"joe{n % 2000}"),
                    message=message_id(
                        at_ms=(NOW_US - AGO_US) // 1000 + n, incarnation=shard, counter=n & 0xFFFF
                    ),
                    verdict=Verdict("accept", policy="pol_before"),
                    facts=frames.pack({"schema": SCHEMA_HASH, "facts": facts(n, chance)}),
                )
                for n in range(at, min(at + BATCH, messages // 2))
            ])  # fmt: skip


def spent_s() -> float:
    """Return the processor time of this process and of those that ended."""
    return sum(
        sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def main() -> None:
    """Print the figures."""
    reader = argparse.ArgumentParser(prog="python -m tests.measure.replaying", description=__doc__)
    reader.add_argument("--messages", type=int, default=100_000)
    reader.add_argument("--rules", type=int, default=20)
    asked = reader.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        office = open_office(folder / "data")
        fill(office, asked.messages)
        wanted = replaying.Wanted(
            str(policy(folder / "new.toml", asked.rules, last=1000)),
            against=str(policy(folder / "old.toml", asked.rules, last=1200)),
        )
        began, before_s = time.monotonic(), spent_s()
        done = asyncio.run(replaying.replay(office, wanted))
        took_s, cost_s = time.monotonic() - began, spent_s() - before_s
        office.shards.close()
    print(f"{done.diff.messages} pairs of {asked.rules} rules in {took_s:.1f} s, processor time "
          f"{cost_s:.1f} s in all: {done.diff.messages / cost_s:.0f} pairs a second a core, "
          f"{done.diff.changed} changed")  # fmt: skip


if __name__ == "__main__":
    main()
