"""SIGKILL of a process of a whole installation at its k-th system call of a kind, by strace.

strace delivers the signal as the call is entered, so the call is not made: what came before it is
the state of the disk and of the neighbours. It counts for each thread by itself; the first thread
to come to its k-th ends the process. The seed says process, call and k, so that seeds one after
another go through all calls with k = 1, then 2, 3, …

What these processes really use (strace -c under load): mail, frames and log lines leave by
write(2), never by writev or send; SQLite writes by pwrite64 and syncs by fdatasync; bodies by write
and fsync. io_uring is used by libuv for epoll_ctl alone, in batches: no bytes pass through it, so
nothing is missed by looking at the calls below.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from tests.crash.life import Life, Unfit
from tests.crash.siege import AGAIN_S, Siege, sieges, wait_for
from tests.peers.unpacked import environment, program

TARGETS = (
    ("edge", "write"), ("edge", "fsync"), ("edge", "openat"),
    ("judge", "write"),
    ("spool", "pwrite64"), ("spool", "fdatasync"), ("spool", "write"), ("spool", "unlink"),
    ("delivery", "write"), ("delivery", "connect"),
    ("supervisor", "write"), ("supervisor", "fsync"), ("supervisor", "rename"),
    ("supervisor", "unlink"),
)  # fmt: skip
K_MAX = 60  # of one thread: a second of a shard's; then it begins anew with other luck
STIRRED_K_MAX = 6  # of a supervisor, which does nothing until it is stirred
REACH_S = 2.5  # for the k-th call; then it is killed where it is
STIR_S = 0.5  # between two stirs of a supervisor


def attack(seed: int, seconds: float, plant: str = "") -> Iterator[Life]:
    """Kill at one system call after another; a life for each. Raises Unfit."""
    strace = program("strace")
    if strace is None:
        raise Unfit("strace is not there: .ci/peers unpacks it")
    _try(strace)
    seeds = iter(range(seed, sys.maxsize))
    return sieges(seed, seconds, lambda siege, _: _strike(siege, strace, next(seeds)), plant)


def target(seed: int) -> tuple[str, int, str, int]:
    """Return kind, index, system call and k of a seed."""
    kind, call = TARGETS[seed % len(TARGETS)]
    turn = seed // len(TARGETS)
    k_max = STIRRED_K_MAX if kind == "supervisor" else K_MAX
    index = 1 + random.Random(seed).randrange(2) if kind in ("edge", "spool") else 1
    return kind, index, call, 1 + turn % k_max


def _strike(siege: Siege, strace: str, seed: int) -> str:
    kind, index, call, k = target(seed)
    name = "supervisor" if kind == "supervisor" else f"{kind} {index}"
    wait_for(lambda: name in siege.living(), AGAIN_S, f"{name} runs")
    # What it does at its start is done: the calls of its work are meant.
    siege.load.reach(len(siege.load.promised) + 3, AGAIN_S)
    pid = siege.living().get(name)
    if pid is None:
        return f"{name} was gone"
    with siege.dying(name):
        reached = _kill_at(strace, pid, call, k, stir=_stirring(siege, name))
    return f"killed {name} at {call} {k}" + ("" if reached else ", which did not come")


def _kill_at(strace: str, pid: int, call: str, k: int, *, stir: Callable[[], None]) -> bool:
    """Have a process killed as one of its threads enters its k-th such call; True when it was."""
    tracer = _attach(strace, pid, "-e", f"inject={call}:signal=SIGKILL:when={k}", call=call)
    try:
        until_s, stir_s = time.monotonic() + REACH_S, 0.0
        while _lives(pid):
            now_s = time.monotonic()
            if now_s > until_s:
                os.kill(pid, signal.SIGKILL)
                return False
            if now_s > stir_s:
                stir()
                stir_s = now_s + STIR_S
            time.sleep(0.01)
        return True
    finally:
        _end(tracer)


def _stirring(siege: Siege, name: str) -> Callable[[], None]:
    """Return what makes a supervisor do something: a reload, and a child to start."""
    if name != "supervisor":
        return lambda: None

    def stir() -> None:
        with contextlib.suppress(ProcessLookupError, KeyError, OSError):
            living = siege.living()
            os.kill(living["supervisor"], signal.SIGHUP)
            os.kill(living["watch 1"], signal.SIGKILL)

    return stir


def _attach(strace: str, pid: int, *words: str, call: str) -> subprocess.Popen[str]:
    """Trace a process and all its threads; returns once they are. Raises Unfit."""
    tracer = subprocess.Popen(
        [strace, "-f", "-o", os.devnull, "-e", f"trace={call}", *words, "-p", str(pid)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert tracer.stderr is not None
    said = tracer.stderr.readline()  # "strace: Process 17 attached with 9 threads", or why not
    if "attached" not in said and _lives(pid):
        _end(tracer)
        raise Unfit(f"strace may not trace here: {said.strip()}")
    return tracer


def _end(tracer: subprocess.Popen[str]) -> None:
    # Not politely: an strace whose process is dead may wait for ever, and keep the zombie from
    # its parent. Whom it still traces goes on.
    tracer.kill()
    tracer.communicate()


def _lives(pid: int) -> bool:
    """True while a process is there and no zombie."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def _try(strace: str) -> None:
    """Trace something of our own. Raises Unfit."""
    with subprocess.Popen(["sleep", "60"]) as one:
        try:
            _end(_attach(strace, one.pid, call="write"))
        finally:
            one.kill()
