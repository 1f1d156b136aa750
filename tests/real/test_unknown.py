"""What a customer is told when a shard dies with its message in hand is so."""

import contextlib
import os
import signal
import smtplib

import pytest
from tests.harness import Load, letter, scene, wait_for

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


def test_what_comes_again_after_an_unknown_outcome_is_marked():
    """A message that was answered 451 because nobody knows is delivered when it comes again.

    Its timeline says that it is a possible duplicate, and of what: also when every edge worker
    was killed meanwhile, and whichever takes it. Another message is not marked.
    """
    with scene(
        edge={"workers": 2}, spool={"shards": 1}, supervisor={"silence_s": 30.0}
    ) as on:  # a shard that the supervisor does not end is one that nobody can ask
        smtp, shard = on.connect(), on.here.process("spool")
        smtp.mail("joe@customer.example")
        smtp.rcpt("kim@fine.example")
        assert smtp.docmd("DATA")[0] == 354
        os.kill(shard, signal.SIGSTOP)
        try:
            smtp.send(letter("again") + b".\r\n")
            code, said = smtp.getreply()
        finally:
            os.kill(shard, signal.SIGCONT)
        assert code == 451
        name = said.decode().partition("ref=")[2].split()[0]
        smtp.close()
        for worker in (1, 2):
            os.kill(on.here.process("edge", worker), signal.SIGKILL)
        ids = {token: sent(on, token) for token in ("again", "other")}
        told = {token: on.here.json("message", "show", id) for token, id in ids.items()}
        story = on.here.run("message", "show", ids["again"])
        on.settled(30)

        first = {token: one["steps"][0] for token, one in told.items()}
        assert first["again"]["possible_duplicate_of"] == name
        assert "possible_duplicate_of" not in first["other"]
        assert f"possible duplicate: it came before as {name}" in story
        assert f"event=edge.possible_duplicate message={ids['again']}" in on.here.log.read_text()
        assert on.arrived()["again"] in (1, 2)
        assert on.arrived()["other"] == 1


def sent(on, token, seconds=15):
    """Send a message until it is taken; return its name."""
    found = []

    def taken():
        with contextlib.suppress(OSError, smtplib.SMTPException):
            smtp = on.connect()
            smtp.mail("joe@customer.example")
            smtp.rcpt("kim@fine.example")
            code, said = smtp.data(letter(token))
            smtp.close()
            if code == 250:
                found.append(said.decode().rpartition(" ")[2])
        return found

    wait_for(taken, seconds, f"{token} is taken")
    return found[0]
