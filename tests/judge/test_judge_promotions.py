"""A judge runs what was deployed last, unless it was killed, or cannot be loaded."""

import asyncio
import threading

import pytest

from postweir.judge import promotions
from postweir.judge.bundles import OPERATOR, Bundles
from postweir.judge.killing import KillFile
from postweir.judge.kills import Kill, Kills
from postweir.judge.ports import Deployment, Loadable
from postweir.judge.promotions import Promotions
from postweir.policy.bundle import Bundle, Rule
from postweir.runtime.log import quiet


def policy(name):
    return Loadable(Bundle((Rule(name, "true", "hold"),)))


SHIPPED, A, B, C = (policy(name) for name in ("shipped", "a", "b", "c"))


class Tables:
    """Deployments that can be out of reach, or hang."""

    def __init__(self):
        self.made, self.kept = [], {}
        self.fault = None
        self.free = threading.Event()
        self.free.set()

    def put(self, one, verb="deploy", keep=True):
        if keep:
            self.kept[one.policy] = one
        self.made.append(Deployment(len(self.made) + 1, verb, one.policy, 1, "op"))

    def last(self):
        assert self.free.wait(10)
        if self.fault:
            raise self.fault
        return self.made[-1] if self.made else None

    def loadable(self, name):
        return self.kept.get(name)


class Engine:
    """Runs what it is told; refuses what is in `bad`, and hangs on what is in `slow`."""

    def __init__(self, start):
        self.policy = start[0].policy
        self.policies = start
        self.bad, self.slow = {}, set()
        self.masks, self.cancelled = [], 0

    async def promote(self, policies):
        name = policies[0].policy
        if name in self.slow:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if name in self.bad:
            return self.bad[name]
        self.policy, self.policies = name, policies
        return ""

    def mask(self, rules, off):
        self.masks.append((list(rules), off))


class Judge:
    """One judge's promotions, on a folder, with tables and an engine."""

    def __init__(self, folder):
        self.folder, self.tables = folder, Tables()
        self.kill_toml = folder / "kill.toml"

    def begin(self):
        ours = self.folder / "1"
        self.bundles = Bundles(ours, quiet())
        kill_file = KillFile(self.kill_toml, ours / "killed", quiet())
        self.promotions = Promotions(self.tables, self.bundles, kill_file, quiet())
        return self.promotions.begin(SHIPPED)

    async def start(self):
        start = await asyncio.to_thread(self.begin)
        self.engine = Engine(start)
        self.promotions.follow(self.engine)
        await self.until(lambda: not self.promotions._busy)

    def kill(self, *kills):
        self.kill_toml.write_text(Kills(kills).text)

    @property
    def told(self):
        return self.promotions.told()

    async def until(self, holds):
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 - threads look at files; no event tells
                await asyncio.sleep(0.002)

    async def runs(self, one):
        await self.until(lambda: self.engine.policy == one.policy and not self.promotions._busy)


@pytest.fixture
async def judge(tmp_path, monkeypatch):
    monkeypatch.setattr(promotions, "LOOK_S", 0.005)
    made = Judge(tmp_path)
    yield made
    made.tables.free.set()
    await made.promotions.close()


async def test_without_deployments_the_shipped_policy_judges(judge):
    """Nothing is to be done, and health has nothing to complain about."""
    await judge.start()

    assert judge.engine.policy == SHIPPED.policy
    assert judge.told["refused"] == ""
    assert judge.told["deployment"] == 0


async def test_a_deployment_is_taken_and_kept(judge):
    """It judges, then it is the promoted one on the disk, with those before it to fall back to."""
    await judge.start()
    judge.tables.put(A)
    await judge.runs(A)
    judge.tables.put(B)
    await judge.runs(B)

    assert judge.told["deployment"] == 2
    assert [one.policy for one in judge.engine.policies] == [
        B.policy, A.policy, SHIPPED.policy]  # fmt: skip
    assert judge.bundles.whole() == [B, A, SHIPPED]


async def test_what_cannot_be_loaded_changes_nothing(judge):
    """Health says why; the disk keeps what judges; the next one is taken."""
    await judge.start()
    judge.engine.bad[A.policy] = "rule a: there is no fact x"
    judge.tables.put(A)
    await judge.until(lambda: judge.told["refused"])

    assert judge.told["refused"] == "rule a: there is no fact x"
    assert judge.told["deployment"] == 1
    assert judge.engine.policy == SHIPPED.policy
    assert judge.bundles.whole() == [SHIPPED]
    judge.tables.put(B)
    await judge.runs(B)
    assert judge.told["refused"] == ""


async def test_what_could_not_be_loaded_is_tried_again(judge, monkeypatch):
    """The machine may have been short of memory."""
    monkeypatch.setattr(promotions, "RETRY_S", 0.01)
    await judge.start()
    judge.engine.bad[A.policy] = "not loaded within 10 s"
    judge.tables.put(A)
    await judge.until(lambda: judge.told["refused"])
    judge.engine.bad.clear()
    await judge.runs(A)

    assert (judge.engine.policy, judge.told["refused"]) == (A.policy, "")


async def test_one_whose_sets_are_gone_is_refused(judge):
    """The tables name it and do not have it: it is told, and what judged judges on."""
    await judge.start()
    judge.tables.put(A, keep=False)
    await judge.until(lambda: judge.told["refused"])

    assert "not whole in the tables" in judge.told["refused"]
    assert judge.engine.policy == SHIPPED.policy


async def test_a_restart_without_tables_goes_on(judge, tmp_path, monkeypatch):
    """Tables that are dead, or hang: the disk says what was promoted."""
    judge.tables.put(A)
    await judge.start()
    await judge.promotions.close()
    monkeypatch.setattr(promotions, "FIRST_LOOK_S", 0.05)
    judge.tables.fault = OSError("disk I/O error")
    await judge.start()
    assert judge.engine.policy == A.policy
    await judge.promotions.close()
    judge.tables.free.clear()
    await judge.start()

    assert judge.engine.policy == A.policy


async def test_what_was_deployed_while_nothing_ran_is_there_from_the_start(judge):
    """Not a moment of the old one: the tables are looked at before anything judges."""
    judge.tables.put(A)
    judge.tables.free.clear()
    threading.Timer(0.05, judge.tables.free.set).start()
    start = await asyncio.to_thread(judge.begin)

    assert start == [A, SHIPPED]


async def test_a_rule_is_killed_at_once_while_a_policy_hangs_in_loading(judge):
    """What is in a hurry does not queue behind what is slow."""
    await judge.start()
    judge.engine.slow.add(A.policy)
    judge.tables.put(A)
    await judge.until(lambda: judge.promotions._busy)
    judge.kill(Kill(rule="spam"), Kill(engine_off=True))
    await judge.until(lambda: judge.engine.masks)

    assert judge.engine.masks == [(["spam"], True)]
    assert judge.told["killed"]["rules"] == ["spam"]
    judge.kill(Kill(rule="spam"))
    await judge.until(lambda: judge.engine.masks[-1] == (["spam"], False))


async def test_killed_back_to_a_policy_of_this_disk(judge):
    """At once, with the tables dead, whatever is being loaded; the disk stays as it is."""
    await judge.start()
    for one in (A, B):
        judge.tables.put(one)
        await judge.runs(one)
    judge.engine.slow.add(C.policy)
    judge.tables.put(C)
    await judge.until(lambda: judge.promotions._busy)
    judge.tables.fault = OSError("dead")
    judge.kill(Kill(to=A.policy))
    await judge.runs(A)

    assert judge.engine.cancelled == 1
    assert judge.bundles.whole()[0] == B
    judge.tables.put(B)  # what comes while it is killed waits
    judge.tables.fault = None
    await judge.until(lambda: judge.told["deployment"] == 4)
    assert judge.engine.policy == A.policy
    judge.kill_toml.unlink()
    await judge.runs(B)


async def test_killed_back_to_what_is_not_here(judge):
    """It says so, and what there is."""
    await judge.start()
    judge.kill(Kill(to=A.policy))
    await judge.until(lambda: judge.told["refused"])

    assert SHIPPED.policy in judge.told["refused"]
    assert judge.engine.policy == SHIPPED.policy


async def test_a_restart_stays_killed(judge):
    """Rules, and the policy gone back to, from the first message on."""
    judge.tables.put(A)
    await judge.start()
    judge.tables.put(B)
    await judge.runs(B)
    await judge.promotions.close()
    judge.kill(Kill(rule="spam"), Kill(to=A.policy))
    start = await asyncio.to_thread(judge.begin)
    engine = Engine(start)
    judge.promotions.follow(engine)

    assert engine.policy == A.policy
    assert engine.masks == [(["spam"], False)]


async def test_what_was_gone_back_from_is_the_last_resort(judge):
    """On the disk and in the engine: nobody falls back to what was thrown out."""
    await judge.start()
    for one, verb in ((A, "deploy"), (B, "deploy"), (A, "rollback")):
        judge.tables.put(one, verb)
        await judge.runs(one)
        await judge.until(lambda: judge.told["deployment"] == len(judge.tables.made))

    assert judge.bundles.whole() == [A, SHIPPED, B]
    assert [one.policy for one in judge.engine.policies] == [
        A.policy, SHIPPED.policy, B.policy]  # fmt: skip


async def test_killed_back_first_and_rolled_back_then(judge):
    """The quick way and then the proper one: what was thrown out stays the last resort."""
    await judge.start()
    for one in (A, B):
        judge.tables.put(one)
        await judge.runs(one)
    judge.kill(Kill(to=A.policy))
    await judge.runs(A)
    judge.tables.put(A, "rollback")
    await judge.until(lambda: judge.told["deployment"] == 3)
    judge.kill_toml.unlink()
    await judge.until(lambda: not judge.promotions.done.killed)

    assert judge.bundles.whole() == [A, SHIPPED, B]


async def test_a_fault_of_ours_is_told_and_tried_again(judge, monkeypatch):
    """Nothing that goes wrong on the way to a policy keeps a judge from trying."""
    monkeypatch.setattr(promotions, "RETRY_S", 0.01)
    await judge.start()
    whole, faults = judge.bundles.whole, [OSError("Input/output error"), RuntimeError("odd")]
    monkeypatch.setattr(judge.bundles, "whole",
                        lambda: whole() if not faults else _raise(faults.pop()))  # fmt: skip
    judge.tables.put(A)
    await judge.runs(A)

    assert faults == []
    assert judge.told["refused"] == ""


def _raise(fault):
    raise fault


async def test_an_engine_that_went_back_by_itself_is_told(judge):
    """A policy that was loaded and then answered nothing."""
    await judge.start()
    judge.tables.put(A)
    await judge.runs(A)
    judge.engine.policy = SHIPPED.policy

    assert "the one before it judges" in judge.told["refused"]


async def test_a_disk_that_cannot_be_written_keeps_nobody_from_judging(judge, monkeypatch):
    """The policy judges; a restart would find it in the tables."""
    await judge.start()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(judge.bundles, "promote", full)
    judge.tables.put(A)
    await judge.runs(A)

    assert judge.told["refused"] == ""


async def test_the_shipped_policy_deployed_is_kept_as_the_operators(judge):
    """It runs already, and from now on no release replaces it."""
    await judge.start()
    judge.tables.put(SHIPPED)
    await judge.until(lambda: judge.told["deployment"] == 1)

    assert b"operator" in (judge.folder / "1" / "history").read_bytes()
    assert OPERATOR == "operator"


async def test_health_tells_of_a_kill_only_once_the_engine_has_it(judge):
    """Who waits for it, sends a message next: what a thread has read is not in force yet."""
    await judge.start()
    judge.kill(Kill(rule="spam"))
    while not judge.promotions.kills.rules:  # the thread reads it, and the loop gets no turn
        threading.Event().wait(0.001)

    assert judge.told["killed"]["rules"] == []
    assert judge.engine.masks == []
    await judge.until(lambda: judge.told["killed"]["rules"] == ["spam"])
    assert judge.engine.masks == [(["spam"], False)]
