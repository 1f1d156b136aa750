"""What a customer is told when a shard dies with its message in hand is so."""

import os
import signal

import pytest
from tests.harness import Load, scene, wait_for

pytestmark = pytest.mark.real

KILLS = 5


def test_what_a_killed_shard_had_in_hand_is_known():
    """kill -9 of a shard: nothing that was answered 4xx is delivered, and nothing promised is lost.

    Else the customer sends it again, and it arrives twice.
    """
    with scene() as on:
        with Load(on, threads=8) as load:
            for _ in range(KILLS):
                load.reach(len(load.promised) + 100)
                victim = on.here.process("spool")
                os.kill(victim, signal.SIGKILL)
                wait_for(lambda v=victim: is_another(on, v), 10, "another shard")
            load.reach(len(load.promised) + 100)
        on.settled(60)
        arrived = on.arrived()
        told = [line for line in on.here.tail(100_000).splitlines() if "spool.told" in line]
        print(f"{len(load.promised)} promised, {load.turned_away} turned away, {told}")

        import shutil
        shutil.copy(on.here.log, "/tmp/bench/log")
        for token, name in load.promised.items():
            if arrived[token] != 1:
                print("ODD", token, arrived[token], name)
        assert told, "no accept was in flight at any of the kills: the test proves nothing"
        assert {token: code for token, code in load.turned_away.items() if token in arrived} == {}
        assert [token for token in load.promised if arrived[token] != 1] == []


def is_another(on, victim):
    """True when a new process owns the shard."""
    try:
        return on.here.process("spool") != victim
    except LookupError:
        return False
