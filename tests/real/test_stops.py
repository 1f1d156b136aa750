"""Kill or stop any one process under load: nothing is lost, and nobody else waits."""

import os
import signal
import time

import pytest
from tests.harness import Load, scene, wait_for

pytestmark = pytest.mark.real

IN_HAND_MAX = 200


def check(on, load, *, doubles_max, unsure=False):
    """Nothing promised is missing, nothing doubled beyond the bound, and the ledger closes.

    `unsure`: a shard that was stopped in the middle of a commit and went on later may have taken
    what was answered 451 meanwhile (borders.md: outcome unknown).
    """
    on.settled(90)
    arrived = on.arrived()
    lost = [token for token in load.promised if token not in arrived]
    doubled = [token for token, times in arrived.items() if times > 1]
    assert not lost, f"{len(lost)} of {len(load.promised)} lost: {lost[:5]}"
    assert len(doubled) <= doubles_max, f"{len(doubled)} doubled"
    # What arrived without a 250 was never answered: its commit was made, its reply not.
    unanswered = load.unknown | {
        t for t, code in load.turned_away.items() if unsure and code == 451
    }
    assert set(arrived) - set(load.promised) <= unanswered


@pytest.mark.parametrize(
    ("kind", "doubles_max"),
    [("edge", 0), ("judge", 0), ("spool", 0), ("delivery", IN_HAND_MAX), ("watch", 0)],
)
def test_kill_9(kind, doubles_max):
    """kill -9 of any one process under load loses nothing; only delivery's death may double."""
    with scene(delivery={"in_hand_max": IN_HAND_MAX}, edge={"workers": 2}) as on:
        with Load(on) as load:
            for _ in range(3):
                load.reach(len(load.promised) + 150)
                victim = on.here.process(kind)
                os.kill(victim, signal.SIGKILL)
                wait_for(lambda v=victim: alive(on, kind) not in (None, v), 10, f"{kind} again")
            load.reach(len(load.promised) + 150)

        check(on, load, doubles_max=3 * doubles_max)


def alive(on, kind):
    """Return the process number, or None while it is being started."""
    try:
        return on.here.process(kind)
    except LookupError:
        return None


@pytest.mark.parametrize("kind", ["judge", "delivery", "watch"])
def test_stopped_and_the_edge_does_not_wait(kind):
    """SIGSTOP of judge, delivery or watch delays no reply by more than its budget."""
    with scene(supervisor={"silence_s": 60}) as on:
        with Load(on) as load:
            load.reach(100)
            victim = on.here.process(kind)
            os.kill(victim, signal.SIGSTOP)
            began, before = time.monotonic(), len(load.promised)
            load.slowest_s = 0.0
            wait_for(lambda: time.monotonic() - began > 3, 10, "three seconds")
            during, slowest_s = len(load.promised) - before, load.slowest_s
            pending = on.audit()["pending"]
            os.kill(victim, signal.SIGCONT)
            load.reach(len(load.promised) + 50)

        # 100 ms for the judge's deadline, the rest for two busy cores: four senders on loopback.
        assert slowest_s < 0.5, f"{slowest_s} s"
        assert during > 100
        assert (pending > 0) == (kind == "judge")
        check(on, load, doubles_max=0)


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
        check(on, load, doubles_max=0)


@pytest.mark.parametrize(("kind", "count"), [("edge", {"edge": {"workers": 2}}), ("spool", {})])
def test_one_of_two_stopped(kind, count):
    """What a stopped edge worker or shard held ends within 2 s; all else goes on."""
    with scene(supervisor={"silence_s": 60}, **count) as on:
        with Load(on, threads=6) as load:
            load.reach(100)
            victim = on.here.process(kind, 2)
            os.kill(victim, signal.SIGSTOP)
            began, before = time.monotonic(), len(load.promised)
            load.slowest_s = 0.0
            wait_for(lambda: time.monotonic() - began > 4, 10, "four seconds")
            during, slowest_s = len(load.promised) - before, load.slowest_s
            os.kill(victim, signal.SIGCONT)
            load.reach(len(load.promised) + 50)

        assert during > 100
        if kind == "spool":
            assert slowest_s < 2.2, f"{slowest_s} s"
        check(on, load, doubles_max=0, unsure=kind == "spool")


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
        check(on, load, doubles_max=0)


def test_everything_killed_at_once():
    """kill -9 of the supervisor takes all with it; a new start loses nothing."""
    with scene(delivery={"in_hand_max": IN_HAND_MAX}) as on:
        with Load(on) as load:
            load.reach(200)
            on.here.stop(signal.SIGKILL)
            on.here.start()
            load.reach(len(load.promised) + 50)

        check(on, load, doubles_max=IN_HAND_MAX)


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

        check(on, load, doubles_max=0)
