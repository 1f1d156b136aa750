"""Which policy this judge runs: what was deployed last, or what an operator killed it back to.

Rules of this file:

* Two threads look, each at one thing: the tables, and `policy/kill.toml`. One that hangs on its
  file hangs alone, and the event loop only swaps.
* What cannot be loaded is not taken: what judged before judges on, health and log say why, and it
  is tried again now and then.
* The disk follows the engine: a policy becomes the promoted one on this disk once it judges. What
  was killed back to is read from this disk, and changes nothing on it.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

from postweir.judge.bundles import OPERATOR, Bundles
from postweir.judge.killing import KillFile
from postweir.judge.kills import Kills
from postweir.judge.ports import Deployment, Deployments, Loadable, Promoting
from postweir.runtime.frames import Value
from postweir.runtime.log import Log

LOOK_S = 0.2  # a deployment or a kill takes effect within a second
FIRST_LOOK_S = 2.0  # how long a start waits for tables that are slow
RETRY_S = 10.0  # a policy that could not be loaded: the machine may have been short of something


class Wanted(Value, frozen=True):
    """The policy that this judge should run, and who says so."""

    policy: str
    deployment: int = 0  # 0: none, it is the one on this judge's disk
    back: bool = False  # an operator went back to it, from what was the promoted one until then
    killed: bool = False  # it is what was killed back to

    def same(self, other: "Wanted") -> bool:
        """True when nothing is to be done that is not done for the other."""
        return (self.policy, self.deployment, self.killed) == (
            other.policy, other.deployment, other.killed)  # fmt: skip


class Promotions:
    """What one judge runs, and why not another."""

    def __init__(
        self, deployments: Deployments, bundles: Bundles, kill_file: KillFile, log: Log
    ) -> None:
        self._deployments, self._bundles, self._log = deployments, bundles, log
        self._kill_file = kill_file
        self._engine: Promoting | None = None
        self._latest: Deployment | None = None
        self._stored: Loadable | None = None  # the policy of the latest deployment
        self._first = ""  # what stood on the disk at the start
        self.done = Wanted("")  # what was taken last, or refused
        self.refused = ""  # why it was not taken
        self._reachable = True
        self._attempt: asyncio.Task[None] | None = None
        self._attempted = Wanted("")
        self._applied = ("", Kills())  # as `KillFile.state`: the engine has it
        self._looked, self._closing = threading.Event(), threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = [
            threading.Thread(target=self._keep, args=(look,), name=name, daemon=True)
            for name, look in (("deployments", self._look), ("kills", kill_file.look))
        ]

    def begin(self, default: Loadable) -> list[Loadable]:
        """Return what to judge with, best first; in a thread. Waits a bounded time for tables."""
        found = self._bundles.begin(default)
        self._first = found[0].policy
        self._kill_file.begin()
        for thread in self._threads:
            thread.start()
        self._looked.wait(FIRST_LOOK_S)
        deployed, latest = self._stored, self._latest
        if deployed is not None and latest is not None and deployed.policy == latest.policy:
            found = _first_of(found, deployed)
        to = self._kill_file.now.to
        return sorted(found, key=lambda one: one.policy != to)  # stable: only that one moves

    def follow(self, engine: Promoting) -> None:
        """From now on have the engine run what it should."""
        self._engine, self._loop = engine, asyncio.get_running_loop()
        self._turn()

    async def close(self) -> None:
        """Follow no more."""
        self._closing.set()
        self._loop = None
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.gather(self._attempt, return_exceptions=True)

    @property
    def kills(self) -> Kills:
        """What is killed here."""
        return self._kill_file.now

    @property
    def kill_fault(self) -> str:
        """Why `kill.toml` does not count; "" when it does."""
        return self._kill_file.fault

    def told(self) -> dict[str, Any]:
        """Return what health says; on any thread."""
        wanted, (name, now) = self.done, self._applied
        return {
            "deployment": wanted.deployment,
            "wanted": wanted.policy,
            "refused": self.refused or self._gone_back(wanted),
            "killed": {
                "file": name, "rules": now.rules, "engine_off": now.engine_off, "to": now.to,
                "fault": self.kill_fault,
            },
        }  # fmt: skip

    def _gone_back(self, wanted: Wanted) -> str:
        """Return what is to be said when the engine left a policy by itself."""
        running = self._engine.policy if self._engine is not None else ""
        if not running or running == wanted.policy or self._busy:
            return ""
        return "it was loaded, and then did not answer; the one before it judges"

    @property
    def _busy(self) -> bool:
        return self._attempt is not None and not self._attempt.done()

    def _keep(self, look: Callable[[], bool]) -> None:
        while not self._closing.is_set():
            if look():
                self._tell()
            self._closing.wait(LOOK_S)

    def _tell(self) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody judges
                loop.call_soon_threadsafe(self._turn)

    def _look(self) -> bool:
        """Look for a new deployment in the tables; True when there is one."""
        try:
            last = self._deployments.last()
            new = last is not None and last != self._latest
            if last is not None and new:
                self._stored = self._deployments.loadable(last.policy)
        except Exception as fault:  # noqa: BLE001 - whatever storage meets, what judges judges on
            if self._reachable:
                self._log.warning("policy.tables_unreachable", fault=repr(fault))
            self._reachable = False
            return False
        finally:
            self._looked.set()
        self._reachable = True
        if new:
            self._latest = last
        return new

    def _wanted(self) -> Wanted:
        to, latest = self.kills.to, self._latest
        number = latest.number if latest is not None else 0
        if to:
            return Wanted(to, number, killed=True)
        if latest is None:
            return Wanted(self._first)
        return Wanted(latest.policy, number, latest.verb == "rollback")

    def _turn(self) -> None:
        """See what should be in force now; on the loop."""
        if self._engine is None or self._loop is None:
            return
        name, now = self._kill_file.state
        if now != self._applied[1]:  # at once, whatever is being loaded
            self._engine.mask(now.rules, now.engine_off)
        self._applied = (name, now)
        wanted = self._wanted()
        if wanted.same(self._attempted) and (self._busy or not self.refused):
            return
        before = self._attempt
        if before is not None:
            before.cancel()
        self._attempted = wanted
        self._attempt = self._loop.create_task(self._take(wanted, before))

    async def _take(self, wanted: Wanted, before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        try:
            why = await self._try(wanted)
        except Exception as fault:  # noqa: BLE001 - whatever it was, it is told and tried again
            why = repr(fault)
        self._conclude(wanted, why)

    async def _try(self, wanted: Wanted) -> str:
        """Have the engine run it, and then keep it; "", or why that does not work."""
        assert self._engine is not None
        policies, why = await asyncio.to_thread(self._found, wanted)
        why = why or await self._engine.promote(policies)
        if not why and wanted.deployment and not wanted.killed:
            await asyncio.to_thread(self._save, policies[0], wanted.back)
        return why

    def _found(self, wanted: Wanted) -> tuple[list[Loadable], str]:
        """Return it and what to fall back to in turn, or why it is not there; in a thread."""
        kept = self._bundles.whole()
        stored = [self._stored] if self._stored is not None else []
        policy = next((one for one in (*kept, *stored) if one.policy == wanted.policy), None)
        if policy is None:
            return [], _missing(wanted, kept)
        if wanted.back:
            kept = [*kept[1:], *kept[:1]]
        return _first_of(kept, policy), ""

    def _save(self, policy: Loadable, back: bool) -> None:
        """Make it the promoted one on this disk; without that, a restart finds it in the tables."""
        try:
            self._bundles.promote(policy, OPERATOR, back=back)
        except OSError as fault:
            self._log.error("policy.unsaved", policy=policy.policy, fault=str(fault))

    def _conclude(self, wanted: Wanted, why: str) -> None:
        if why and (wanted.policy, why) != (self.done.policy, self.refused):
            self._log.error("policy.refused", policy=wanted.policy, why=why)
        self.done, self.refused = wanted, why
        if why and self._loop is not None:
            self._loop.call_later(RETRY_S, self._turn)


def _first_of(kept: Sequence[Loadable], policy: Loadable) -> list[Loadable]:
    return [policy, *(one for one in kept if one.policy != policy.policy)]


def _missing(wanted: Wanted, kept: Sequence[Loadable]) -> str:
    if wanted.killed:
        names = ", ".join(one.policy for one in kept)
        return f"it is not whole on this judge's disk; there are: {names or 'none'}"
    return "it is not whole in the tables"
