"""Any one process is stopped under load, or all are: nothing is lost, and nobody else waits.

Kills, at random and at each system call, are `tests/crash/service.py` and `calls.py`.
"""

import os
import signal
import time

import pytest
from tests.crash import stops
from tests.crash.siege import besieged
from tests.crash.stops import Stopping
from tests.harness import Load, scene, wait_for

pytestmark = pytest.mark.real


def check(on, load):
    """Nothing promised is missing, nothing doubled, and the ledger closes."""
    on.settled(90)
    arrived = on.arrived()
    lost = [token for token in load.promised if token not in arrived]
    doubled = [token for token, times in arrived.items() if times > 1]
    assert not lost, f"{len(lost)} of {len(load.promised)} lost: {lost[:5]}"
    assert not doubled, f"{len(doubled)} doubled"
    # What arrived without a 250 was never answered: its commit was made, its reply not.
    assert set(arrived) - set(load.promised) <= load.unknown


def alive(on, kind):
    """Return the process number, or None while it is being started."""
    try:
        return on.here.process(kind)
    except LookupError:
        return None


STOPPED = {  # by the supervisor's patience: it kills nobody here, or whoever is silent for 1 s
    stops.NEVER_S: ("judge", "delivery", "spool", "edge", "watch"),
    1.0: ("edge", "spool", "delivery"),
}


@pytest.mark.parametrize("silence_s", STOPPED)
def test_stopped_and_nobody_else_waits(silence_s):
    """SIGSTOP of one after another: what it held ends in time, all else goes on, all arrives."""
    kinds = STOPPED[silence_s]
    blow = Stopping(silence_s, iter(kinds))
    with besieged(supervisor={"silence_s": silence_s}) as siege:
        lives = list(siege.stretch(1, blow, float("inf"), blows=len(kinds)))

    print("\n".join(life.what for life in lives))
    assert all(life.good for life in lives)
    # The budget is 100 ms longer than without a stop on an idle machine; here two busy cores
    # add their own: `stops.NOISE_S`.
    assert not blow.late


def test_judge_stopped_and_killed_by_its_supervisor():
    """A judge that hangs is killed after a second; what became pending is judged and delivered."""
    with scene() as on:
        with Load(on) as load:
            load.reach(50)
            victim = on.here.process("judge")
            os.kill(victim, signal.SIGSTOP)
            took_s = wait_for(lambda: alive(on, "judge") not in (None, victim), 5, "a new judge")
            load.reach(len(load.promised) + 100)

        assert took_s < 3
        check(on, load)


def test_drain():
    """SIGTERM under load: what was promised stays promised over a restart."""
    with scene() as on:
        with Load(on) as load:
            load.reach(200)
            began = time.monotonic()
            assert on.here.stop() == 0
            took_s = time.monotonic() - began
            on.here.start()
            load.reach(len(load.promised) + 50)

        assert took_s < 12
        check(on, load)


def test_the_folder_of_promises_cannot_be_written():
    """A spool without room means 452 before 354, never a promise."""
    with scene(spool={"free_bytes_min": 1 << 50}) as on:
        smtp = on.connect()
        smtp.mail("joe@customer.example")
        smtp.rcpt("kim@fine.example")

        def turned_away():
            return smtp.docmd("DATA")[0]

        code = turned_away()
        assert code == 452
        smtp.close()
        assert on.audit()["accepted"] == 0


def test_the_folder_of_promises_is_gone():
    """Without its folder a shard takes nothing: 451 before 354; when it is back, so is the mail."""
    with scene(supervisor={"silence_s": 60}) as on:
        spool = on.here.folder / "var" / "spool"

        def asked():
            smtp = on.connect()
            smtp.mail("joe@customer.example")
            smtp.rcpt("kim@fine.example")
            code, _ = smtp.docmd("DATA")
            smtp.close()
            return code

        assert asked() == 354
        spool.rename(spool.with_name("elsewhere"))
        wait_for(lambda: asked() == 451, 5, "451 before 354")
        spool.with_name("elsewhere").rename(spool)
        wait_for(lambda: asked() == 354, 10, "it takes mail again")
        with Load(on) as load:
            load.reach(20)

        check(on, load)
