"""More and fewer shards than before, with mail in them: each file keeps an owner."""

import pytest
from tests.harness import free_port, letter, scene

pytestmark = pytest.mark.real
WAITING = 40


def send(on, tokens):
    """Send so that both shards have some: an edge takes them in turn."""
    with on.connect() as smtp:
        for token in tokens:
            smtp.mail("joe@customer.example")
            smtp.rcpt("kim@fine.example")
            assert smtp.data(letter(token))[0] == 250


def again(on, shards):
    """Stop, and start with so many shards."""
    assert on.here.stop() == 0
    text = on.here.config.read_text()
    before = next(line for line in text.splitlines() if line.startswith("shards ="))
    on.here.config.write_text(text.replace(before, f"shards = {shards}"))
    on.here.start()


def test_more_and_fewer_shards():
    """What waits in three shards is delivered with one, and with four: nothing lost, or doubled."""
    later = free_port()
    with scene(
        route={"*": f"127.0.0.1:{later}"}, judge={"wait_ms": 5000}, spool={"shards": 3}
    ) as on:
        send(on, (f"three-{n}" for n in range(WAITING)))
        used = {row["shard"] for row in on.here.json("queue", "ls")}
        again(on, 1)
        send(on, (f"one-{n}" for n in range(WAITING)))
        where = {row["id"]: row["shard"] for row in on.here.json("queue", "ls")}
        again(on, 4)
        send(on, (f"four-{n}" for n in range(WAITING)))
        on.sink.open(later)
        ledger = on.settled(30)

        assert used == {1, 2, 3}
        assert len(where) == 2 * WAITING  # none is out of sight while its shard takes no more
        assert ledger["delivered"] == ledger["accepted"] == 3 * WAITING
        assert set(on.arrived().values()) == {1}
