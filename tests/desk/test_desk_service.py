"""Is it set up well, does it run, and does it take its settings anew."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys

import pytest
from tests.desk.office import NOW_US

from postweir.desk import service
from postweir.desk.ports import Missing, Unreadable
from postweir.runtime import frames


@pytest.fixture
def supervised(office):
    """This test process plays the supervisor: it notes SIGHUP and answers as it is told to."""
    run = office.settings.run
    run.mkdir()
    (run / "supervisor.pid").write_text(f"{os.getpid()}\n")
    lock = (run / "supervisor.lock").open("a")
    fcntl.flock(lock, fcntl.LOCK_EX)
    answers = []

    def hear(*_):
        if answers:
            (run / "reload.json").write_bytes(frames.json(answers.pop(0)))

    before = signal.signal(signal.SIGHUP, hear)
    yield answers
    signal.signal(signal.SIGHUP, before)
    lock.close()


async def test_the_supervisors_answer_is_told(office, supervised):
    """Taken, with what waits for a restart; or refused, with the faults."""
    supervised += [
        {"at_us": NOW_US, "hash": "abc", "taken": True, "faults": [],
         "restart_needed": ["edge.workers"]},
        {"at_us": NOW_US + 1, "hash": "abc", "taken": False, "faults": ["x:1: wrong"],
         "restart_needed": []},
    ]  # fmt: skip
    first = await service.reload(office)
    (office.settings.run / "reload.json").unlink()
    second = await service.reload(office)

    assert (first.taken, first.hash, first.restart_needed) == (True, "abc", ["edge.workers"])
    assert (second.taken, second.faults) == (False, ["x:1: wrong"])


async def test_an_old_answer_is_no_answer(office, supervised, monkeypatch):
    """What stood there before the question was asked is not taken for the answer."""
    monkeypatch.setattr(service, "ANSWER_S", 0.1)
    supervised.append({"at_us": NOW_US - 1, "hash": "old", "taken": True})

    with pytest.raises(Unreadable, match="did not answer"):
        await service.reload(office)


async def test_a_service_that_does_not_run_is_told(office):
    """No pid file, a stale one, a torn one: all mean that nobody is there."""
    with pytest.raises(Missing):
        await service.reload(office)
    office.settings.run.mkdir()
    for text in ("", "no number", str(os.getpid())):
        (office.settings.run / "supervisor.pid").write_text(text)
        assert service.supervisor(office.settings.run) is None


def test_a_number_left_by_a_power_loss_is_nobody(office):
    """It is another process's by now: SIGHUP would end it. Only who holds the lock is hung up."""
    office.settings.run.mkdir()
    (office.settings.run / "supervisor.lock").touch()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as innocent:
        (office.settings.run / "supervisor.pid").write_text(f"{innocent.pid}\n")
        with pytest.raises(Missing):
            asyncio.run(service.reload(office))
        innocent.communicate(b"\n")

    assert innocent.returncode == 0


def test_check_tells_all_faults_or_the_hash(tmp_path):
    """Good settings have a name; wrong ones a list."""
    path = tmp_path / "postweir.toml"
    path.write_text('[edge]\nlisten = ["127.0.0.1:0"]\n[metrics]\nlisten = "127.0.0.1:0"\n')
    assert service.check(path).ok
    path.write_text("[edge]\nworkers = 0\nnope = 1\n")
    found = service.check(path)

    assert (found.ok, found.hash, len(found.faults)) == (False, "", 2)
