"""What a customer is told when a shard dies with its message in hand is so."""

import os
import signal

import pytest
from tests.harness import Load, scene, wait_for

pytestmark = pytest.mark.real

KILLS = 5


def test_what_a_killed_shard_had_in_hand_is_known():
    """kill -9 of a shard: nothing answered 4xx is delivered, nothing promised is lost or doubled.

    What was answered 451 and delivered all the same would come again, and arrive twice.
    """
    with scene() as on:
        with Load(on, threads=8) as load:
            for _ in range(KILLS):
                load.reach(len(load.promised) + 50)
                victim = on.here.process("spool")
                os.kill(victim, signal.SIGKILL)
                wait_for(lambda v=victim: accepts_again(on, v), 15, "another shard takes mail")
            load.reach(len(load.promised) + 50)
        ledger = on.settled(60)
        arrived, log = on.arrived(), on.here.log.read_text()

        assert "event=spool.told" in log, "nothing was in flight at any kill: this proves nothing"
        assert {t: code for t, code in load.turned_away.items() if t in arrived} == {}
        assert [token for token, times in arrived.items() if times != 1] == []
        missing = [token for token in load.promised if token not in arrived]
        assert len(missing) <= ledger["held"]  # by the baseline's check against floods


def accepts_again(on, victim):
    """True when a new process owns the shard and has taken mail."""
    try:
        process = on.here.process("spool")
    except LookupError:
        return False
    marks = (f'process="spool 1[{process}]"', "event=spool.accepted")
    return process != victim and any(
        all(mark in line for mark in marks) for line in on.here.tail(2000).splitlines()
    )
