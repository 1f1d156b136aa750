"""Is it set up well, does it run, and let it take its settings anew."""

import asyncio
import fcntl
import os
import signal
import time
from pathlib import Path

from postweir.desk import standing
from postweir.desk.ports import Missing, Office, Unreadable
from postweir.runtime import frames, settings
from postweir.runtime.frames import Struct

ANSWER_S = 2.0  # the supervisor looks twenty times a second
LOOK_S = 0.02


class Checked(Struct, frozen=True):
    """What is wrong with a settings file and what it names; `hash` names good settings."""

    ok: bool
    hash: str
    faults: list[settings.Fault]
    warnings: list[settings.Fault] = []  # what keeps nobody from starting


class Reloaded(Struct, frozen=True):
    """The supervisor's answer to a reload."""

    taken: bool
    hash: str = ""
    faults: list[str] = []
    restart_needed: list[str] = []
    at_us: int = 0


def check(path: Path) -> Checked:
    """Check a settings file whole, and what `up` would stumble over."""
    try:
        found = settings.read(path)
    except settings.Wrong as wrong:
        return Checked(False, "", wrong.faults)
    try:
        running = supervisor(found.run) is not None
    except PermissionError:
        running = True  # nobody can say; that it is another user's is said below
    faults = standing.faults(path, found, running=running)
    return Checked(not faults, "" if faults else found.hash, faults, standing.warnings(path, found))


def supervisor(run: Path) -> int | None:
    """Return the process number of the running supervisor, or None.

    It holds a lock as long as it lives: after a power loss the number that it left may be any
    process's, and nobody wants to hang that one up.
    """
    try:
        pid = int((run / "supervisor.pid").read_text())
        with (run / "supervisor.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return pid
    except (FileNotFoundError, ValueError):
        return None
    return None


async def reload(office: Office) -> Reloaded:
    """Let the running service take the settings. Raises Missing: it does not run; OSError."""
    pid = supervisor(office.settings.run)
    if pid is None:
        raise Missing("the service does not run here; start it with `postweir up`")
    answer = office.settings.run / "reload.json"
    asked_us = office.now_us()
    try:
        os.kill(pid, signal.SIGHUP)
    except PermissionError:
        raise Unreadable(f"process {pid} is another user's; run this as that user") from None
    until = time.monotonic() + ANSWER_S
    while time.monotonic() < until:
        found = _answer(answer)
        if found is not None and found.at_us >= asked_us:
            return found
        await asyncio.sleep(LOOK_S)
    raise Unreadable(f"the supervisor (process {pid}) did not answer within {ANSWER_S:.0f} s")


def _answer(path: Path) -> Reloaded | None:
    try:
        found = frames.from_json(path.read_bytes(), Reloaded)
    except (OSError, frames.Torn):
        return None
    assert isinstance(found, Reloaded)
    return found
