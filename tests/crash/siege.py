"""An installation under load that is struck again and again, and held to its word after it.

A start costs seconds, so one installation takes many blows. After a stretch of them the load
ends, all that was promised must arrive, and three records are compared: the customer's, the
world's, and the ledger. The log only tells what else is known of a doubt or a death.
"""

import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from demo.installation import wait_for
from tests.crash.life import Life, Unfit
from tests.crash.record import (
    REPLY_S,
    Customers,
    Death,
    Found,
    Hosts,
    Reckoning,
    Witness,
)
from tests.harness import Scene, field_of, scene, unsure

IN_HAND_MAX = 300
BLOWS = 12  # in one stretch: about what a settlement costs, so that half the time is blows
SETTLE_S = 6.0  # kept of the time for the settlement at the end
QUIET_S = 25.0  # when nothing has come for so long, it does not come; a back-off is 5 s at most
PLANTED_QUIET_S = 8.0
CLOSE_S = 20.0  # for the ledger, when all has arrived
AGAIN_S = 30.0  # for the service to take mail again
PLANTS = ("lease-forgotten", "settle-early")
PLANTED = Path(__file__).parent / "planted"
EXPECTED = {"supervisor.ended", "supervisor.silent"}  # errors that our own blows make it log
CHANGES = {
    "edge": {"workers": 2},
    "spool": {"shards": 2, "inline_bytes_max": 8192},
    "delivery": {"in_hand_max": IN_HAND_MAX, "connections_per_site_max": 40, "retry_s": [0.2]},
}

Blow = Callable[["Siege", random.Random], str]


class Siege:
    """One installation, who sends to it, and what is known of it."""

    def __init__(self, on: Scene, witness: Witness, *, quiet_s: float = QUIET_S) -> None:
        self.on, self.here = on, on.here
        self.load = Customers(on)
        self._witness, self._quiet_s = witness, quiet_s
        self._deaths: list[Death] = []
        self._reckoning = Reckoning(witness.came, in_hand_max=IN_HAND_MAX)
        self._log_at = self.here.log.stat().st_size
        self._wall_s = time.time() - time.monotonic()
        self._stretches = 0

    def stretch(
        self, seed: int, blow: Blow, until_s: float, *, blows: int = BLOWS
    ) -> Iterator[Life]:
        """Strike until enough, then settle and look; gives a life for each blow."""
        self._stretches += 1
        self.load = Customers(self.on, threads=5, name=f"s{self._stretches}-", seed=seed)
        struck: list[Life] = []
        with self.load as load:
            load.reach(20, AGAIN_S)
            before = 0
            for n in range(blows):
                what = blow(self, random.Random(seed + n))
                count = len(load.promised)
                struck.append(Life(seed=seed + n, acked=count - before, what=what))
                before = count
                if time.monotonic() > until_s - SETTLE_S:
                    break
            load.reach(len(load.promised) + 20, AGAIN_S)
        found = self._settle()
        struck[-1] = replace(
            struck[-1],
            acked=struck[-1].acked + len(load.promised) - before,
            lost=found.lost,
            torn=found.torn,
            doubled=found.doubled,
            what="; ".join([struck[-1].what, *found.notes]),
        )
        yield from struck

    # Who there is.

    @property
    def supervisor(self) -> int:
        """The process number of the supervisor."""
        return int((self.here.folder / "var" / "run" / "supervisor.pid").read_text())

    def living(self) -> dict[str, int]:
        """Return its processes by name, such as `edge 2`; a judge's workers are `worker 1`, …"""
        parent = self.supervisor
        found, workers = {"supervisor": parent}, []
        parents = dict(_parents())
        for pid, ppid in parents.items():
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ").decode()
                if ppid == parent and title.startswith("postweir: "):
                    found[title.removeprefix("postweir: ")] = pid
                elif parents.get(ppid) == parent:
                    workers.append(pid)
        return found | {f"worker {n}": pid for n, pid in enumerate(workers, 1)}

    # What is done to it.

    def kill(self, name: str, pid: int) -> None:
        """Kill one of its processes; a supervisor is started again."""
        with self.dying(name), contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def dying(self, name: str) -> Iterator[None]:
        """Within this one of its processes dies; what that allows is written down."""
        from_s = time.monotonic()
        try:
            yield
        finally:
            if name == "supervisor":
                self.here.stop(signal.SIGKILL)
                self.here.start(AGAIN_S)
            if name == "supervisor" or name.startswith("delivery"):
                self._deaths.append(Death(from_s, time.monotonic()))

    # What is found.

    def _settle(self) -> Found:
        """Wait for all that was promised, then compare the records."""
        found, load, reckoning = Found(), self.load, self._reckoning
        seen, moved_s = -1, time.monotonic()
        while True:
            count = len(self._witness.came)
            reckoning.take(load.sent)
            if not reckoning.missing(load.promised):
                break
            if count != seen:
                seen, moved_s = count, time.monotonic()
            if time.monotonic() - moved_s > self._quiet_s:
                break
            time.sleep(0.05)
        unsure = self._read_log(found)
        self._close(found)
        reckoning.take(load.sent)
        reckoning.judge(load, self._deaths, found)
        uninvited = reckoning.uninvited(load)
        sure = sum(n for code, n in uninvited.items() if code not in (0, 451))
        if sure or uninvited[451] > unsure:
            found.note(f"delivered without 250: {dict(uninvited)}, in doubt {unsure}",
                       doubled=sure + max(0, uninvited[451] - unsure))  # fmt: skip
        self._deaths.clear()
        self._witness.tried.clear()
        if found.lost or found.torn or found.doubled:
            found.note(f"log kept in {self._keep()}")
        return found

    def _close(self, found: Found) -> None:
        """Wait until nothing is queued; then the ledger says what the world says."""
        ledger = self.on.audit()
        until_s = time.monotonic() + CLOSE_S
        while ledger["queued"] or ledger["pending"] or ledger["unreadable"]:
            if time.monotonic() > until_s or self._reckoning.missing(self.load.promised):
                break
            time.sleep(0.3)
            ledger = self.on.audit()
        self._reckoning.take(self.load.sent)
        if ledger["residual"]:
            found.note(f"the ledger does not close: {ledger}", lost=abs(ledger["residual"]))
        if ledger["held"]:
            found.note(f"held: {ledger['held']}", torn=ledger["held"])
        if ledger["queued"] or ledger["pending"] or ledger["unreadable"]:
            found.note(f"does not settle: {ledger}", lost=1)
        # Each of ours was a row once: the customer's recipients, and a bounce for a dead one.
        acme = ledger["accounts"].get("acme", {"accepted": 0, "bounced": 0})
        taken = acme["accepted"] - acme["bounced"] + ledger["delivered"]
        taken -= acme.get("delivered", 0)  # what is left of the delivered are bounces
        if not found.lost and taken != self._reckoning.recipients:
            off = taken - self._reckoning.recipients
            found.note(f"the ledger has {off} more recipients than the world: {ledger}",
                       lost=abs(off))  # fmt: skip

    def _read_log(self, found: Found) -> int:
        """Return how many accepts it says nobody knows about; notes deaths and errors of its."""
        with self.here.log.open("rb") as file:
            file.seek(self._log_at)
            text = file.read()
            self._log_at += len(text)
        said = text.decode(errors="replace")
        for line in said.splitlines():
            event = field_of(line, "event")
            if event == "supervisor.ended":
                self._note_end(line, found)
            elif field_of(line, "level") == "error" and event not in EXPECTED:
                found.note(f"log: {line[:300]}")
        return unsure(said)

    def _note_end(self, line: str, found: Found) -> None:
        """A death that we did not cause is one all the same; and one that was no kill is told."""
        at_s = datetime.fromisoformat(field_of(line, "at")).timestamp() - self._wall_s
        if 'child="delivery ' in line:
            self._deaths.append(Death(at_s - 1.0, at_s))
        if field_of(line, "status") != "-9":
            found.note(f"log: {line[:300]}")

    def _keep(self) -> str:
        folder = Path(tempfile.mkdtemp(prefix="pw-kept-"))
        shutil.copy(self.here.log, folder)
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(
                self.here.folder / "var", folder / "var",
                ignore=shutil.ignore_patterns("*.sock"),
            )  # fmt: skip
        return str(folder)


@contextlib.contextmanager
def besieged(plant: str = "", **changes: dict[str, object]) -> Iterator[Siege]:
    """Give an installation to strike; `plant` names a bug that its processes have."""
    if plant and plant not in PLANTS:
        raise Unfit(f"a whole service knows no bug {plant!r}, only {', '.join(PLANTS)}")
    environment = {}
    if plant:
        paths = [str(PLANTED), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {"PYTHONPATH": os.pathsep.join(paths), "POSTWEIR_PLANT": plant}
    witness = Witness(pause_s=REPLY_S)
    together = {k: {**CHANGES.get(k, {}), **changes.get(k, {})} for k in {*CHANGES, *changes}}
    with scene(sink=Hosts(witness), environment=environment, **together) as on:
        on.here.run("account", "set", "acme", "bounces_1h_max=1000000")
        yield Siege(on, witness, quiet_s=PLANTED_QUIET_S if plant else QUIET_S)


def sieges(
    seed: int, seconds: float, blow: Blow, plant: str = "", **changes: dict[str, object]
) -> Iterator[Life]:
    """Strike for so long; where the promise was broken, with a new installation."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        with besieged(plant, **changes) as siege:
            good = True
            while good and time.monotonic() < until_s:
                for life in siege.stretch(seed, blow, until_s):
                    good = good and life.good
                    seed += 1
                    yield life


def _parents() -> Iterator[tuple[int, int]]:
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield int(path.name), int((path / "stat").read_text().rpartition(")")[2].split()[1])


__all__ = ["Siege", "besieged", "sieges", "wait_for"]
