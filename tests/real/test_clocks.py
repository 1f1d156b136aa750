"""The wall clock is set back and forth under mail that waits, and nobody pays for it."""

import os
import signal

import pytest
from tests.harness import free_port, letter, scene, wait_for

pytestmark = pytest.mark.real
WAITING = 30


# What a started Python runs first: wall time, as all of Postweir reads it, is off by so much.
WRONG_CLOCK = """
import os, pathlib, time
offset, right, right_ns = pathlib.Path(os.environ["WALL_OFFSET_S"]), time.time, time.time_ns
time.time = lambda: right() + int(offset.read_text())
time.time_ns = lambda: right_ns() + int(offset.read_text()) * 10**9
"""


@pytest.fixture
def wall(tmp_path, monkeypatch):
    """Set the clock of all that is started from here on; monotonic time stays as it is."""
    offset = tmp_path / "offset"

    def set_clock(hours):
        aside = offset.with_suffix(".new")
        aside.write_text(str(hours * 3600))
        aside.replace(offset)

    set_clock(0)
    (tmp_path / "sitecustomize.py").write_text(WRONG_CLOCK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("WALL_OFFSET_S", str(offset))
    return set_clock


def send(on, tokens):
    with on.connect() as smtp:
        for token in tokens:
            smtp.mail("joe@customer.example")
            smtp.rcpt("kim@fine.example")
            assert smtp.data(letter(token))[0] == 250


def tries(on):
    """Return the fewest failed attempts that any waiting recipient has behind it."""
    return min(row["tries"] for row in on.here.json("queue", "ls"))


@pytest.mark.parametrize("restart", [False, True])
def test_a_clock_that_jumps(wall, restart):
    """Steps of +49 h (past every lifetime) and ± 2 h bounce, lose and double nothing."""
    later = free_port()
    with scene(
        route={"*": f"127.0.0.1:{later}"}, judge={"wait_ms": 5000}, spool={"shards": 1}
    ) as on:
        send(on, (f"before-{n}" for n in range(WAITING)))
        wait_for(lambda: tries(on) >= 1, 20, "a first attempt at each")
        for hours in (49, -2, 2, 49):
            wall(hours)
            if restart:
                shard = on.here.process("spool")
                os.kill(shard, signal.SIGKILL)
                wait_for(lambda s=shard: runs(on) not in (None, s), 10, "the shard again")
            seen = tries(on)
            wait_for(lambda s=seen: tries(on) > s, 20, f"an attempt after {hours:+d} h")
        send(on, ["during"])
        on.sink.open(later)
        ledger = on.settled(30)

        assert ledger["bounced"] == 0
        assert ledger["delivered"] == ledger["accepted"] == WAITING + 1
        assert set(on.arrived().values()) == {1}


def runs(on):
    """Return the shard's process number, None while there is none."""
    try:
        return on.here.process("spool")
    except LookupError:
        return None
