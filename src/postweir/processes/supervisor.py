"""`postweir up`: opens the listening sockets, starts every process, and keeps them alive.

It does no mail and knows no rooms: it looks, twenty times a second, at who has ended and whose
beat has stopped. Rules of this file:

* The listening sockets are opened here once and inherited by edge workers only, so no restart
  closes them and no connection in their backlog is lost.
* A child that is up and silent for `supervisor.silence_s` is killed and started again; silence
  does not count while the supervisor itself was late, or a stopped host would kill them all.
* A child dies with its supervisor (`processes.child`), so two processes never own one file.
* It alone checks settings on a reload and writes them by hash for all to take.
"""

import contextlib
import fcntl
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

from postweir.processes import child
from postweir.runtime import clock, frames, settings
from postweir.runtime.log import Journal, open_log

LOOK_S = 0.05
LATE_S = 0.25  # a look this late says more about us than about the children
BACKOFF_S_FIRST, BACKOFF_S_MAX = 0.1, 5.0
AT_ONCE = 3  # ends in a row, each soon, that cost no wait: kills; more of them are a loop
START_S_MAX = 30.0  # a child that is not up and shows nothing for so long hangs
TELL_S = 1.0  # between two reminders that there are other settings now
STEADY_S = 10.0  # a child that lived so long has not failed
KILL_S = 2.0  # after a drain's bound, how long a killed child may take to be gone
DRAIN_ORDER = (("edge",), ("delivery",), ("judge", "watch"), ("spool",))
AWAITED = ("edge", "judge", "spool")  # what `ready` waits for


class Child:
    """One process that should be running."""

    def __init__(self, kind: str, index: int, slot: int) -> None:
        self.kind, self.index, self.slot = kind, index, slot
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.start_at = 0.0  # when to start (again)
        self.failures = 0
        self.told_at = 0.0  # when it was last told to take the settings

    @property
    def name(self) -> str:
        return f"{self.kind} {self.index}"


class Supervisor:
    """Keeps the children of one data directory running until it is told to stop."""

    def __init__(self, path: Path, now: settings.Settings, journal: Journal) -> None:
        self._path, self._settings, self._journal = path, now, journal
        self._log = journal.log
        self._listeners: list[tuple[socket.socket, bool]] = []
        self._children = [Child(k, i, slot) for slot, (k, i) in enumerate(wanted(now))]
        self._beats = os.memfd_create("postweir-beats")
        os.ftruncate(self._beats, max(1, len(self._children)) * child.SLOT.size)
        self._memory = mmap.mmap(self._beats, 0)
        self._forgive_until = 0.0  # silence before this does not count
        self._signals: set[int] = set()
        self._ready = False

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; returns the exit status."""
        self._listeners = child.open_listeners(self._settings)
        wake = self._hear_signals()
        began = looked = time.monotonic()
        try:
            while not self._signals & {signal.SIGTERM, signal.SIGINT}:
                select.select([wake], [], [], LOOK_S)
                with contextlib.suppress(BlockingIOError):
                    wake.recv(1024)
                now = time.monotonic()
                if now - looked > LATE_S:
                    self._forgive_until = now + self._settings.supervisor.silence_s
                looked = now
                if signal.SIGHUP in self._signals:
                    self._signals.discard(signal.SIGHUP)
                    self._reload()
                for one in self._children:
                    self._look(one, now)
                self._say_ready(now - began)
            self._drain()
        finally:
            self._kill(self._children)
            for listener, _ in self._listeners:
                listener.close()
        return 0

    def _hear_signals(self) -> socket.socket:
        wake, wakes = socket.socketpair()
        wake.setblocking(False)
        wakes.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        self._wakes = wakes  # kept open: the signals write to it

        def note(number: int, _: FrameType | None) -> None:
            self._signals.add(number)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, note)
        return wake

    def _look(self, one: Child, now: float) -> None:
        if one.process is None:
            if now >= one.start_at:
                self._start(one, now)
            return
        status = one.process.poll()
        if status is not None:
            self._note_end(one, now, status)
            return
        beat_ns, state, runs = self._beat(one)
        silent_s = min(now - one.started_at, (clock.monotonic_ns() - beat_ns) / 1e9)
        bound_s = self._settings.supervisor.silence_s if state == child.UP else START_S_MAX
        if silent_s > bound_s and now > self._forgive_until:
            self._log.error("supervisor.silent", child=one.name, silent_s=round(silent_s, 2))
            one.process.kill()
        elif state == child.UP and runs != self._settings.hash and now - one.told_at > TELL_S:
            # It was starting while the others were told.
            one.told_at = now
            one.process.send_signal(signal.SIGHUP)

    def _note_end(self, one: Child, now: float, status: int) -> None:
        lived_s = now - one.started_at
        one.process = None
        one.failures = 0 if lived_s > STEADY_S else one.failures + 1
        one.start_at = now + back_off_s(one.failures)
        self._log.error(
            "supervisor.ended", child=one.name, status=status, lived_s=round(lived_s, 2)
        )
        if one.start_at <= now:
            self._start(one, now)

    def _start(self, one: Child, now: float) -> None:
        """Start a child; what stands in the way (no memory, no disk) is tried again later."""
        try:
            one.process = self._spawn(one)
        except OSError as fault:
            one.failures += 1
            one.start_at = now + BACKOFF_S_MAX
            self._log.error("supervisor.cannot_start", child=one.name, fault=str(fault))
        one.started_at = now

    def _spawn(self, one: Child) -> subprocess.Popen[bytes]:
        if child.keep_current(self._settings):
            self._log.error("settings.damaged", made_anew=self._settings.hash)
        at = one.slot * child.SLOT.size
        self._memory[at : at + child.SLOT.size] = child.SLOT.pack(0, child.STARTING, b"")
        listeners = self._listeners if one.kind == "edge" else []
        handed = {
            "parent": os.getpid(),
            "run": str(self._settings.run),
            "beat": self._beats,
            "slot": one.slot,
            "incarnation": child.next_incarnation(self._settings.run),
            "listeners": [(listener.fileno(), tls) for listener, tls in listeners],
        }
        words = [sys.executable, "-m", "postweir", one.kind, "--index", str(one.index)]
        # Popen from this, the main thread: PDEATHSIG fires when the thread that spawned ends.
        return subprocess.Popen(
            [*words, "-c", str(self._path)],
            stdin=subprocess.DEVNULL,
            pass_fds=[self._beats, *(listener.fileno() for listener, _ in listeners)],
            env={**os.environ, "POSTWEIR_SUPERVISED": frames.json(handed).decode()},
            start_new_session=True,  # a terminal's ^C is for us; we stop them in order
        )

    def _beat(self, one: Child) -> tuple[int, int, str]:
        beat_ns, state, runs = child.SLOT.unpack_from(self._memory, one.slot * child.SLOT.size)
        return beat_ns, state, runs.rstrip(b"\0").decode("ascii", "replace")

    def _say_ready(self, waited_s: float) -> None:
        if self._ready:
            return
        missing = [
            one.name
            for one in self._children
            if one.kind in AWAITED and self._beat(one)[1] != child.UP
        ]
        if missing and waited_s < self._settings.supervisor.ready_s:
            return
        if any(name.startswith("edge") for name in missing):
            return  # nobody would answer: not ready, however long it takes
        self._ready = True
        if missing:
            print(f"not up yet: {', '.join(missing)}", flush=True)
        print("ready", flush=True)
        self._log.info("supervisor.ready", missing=",".join(missing), took_s=round(waited_s, 2))

    def _reload(self) -> None:
        """Check the settings whole; take them or keep the old ones; say which."""
        self._journal.reopen()
        answer = {"at_us": clock.wall_us(), "taken": False, "faults": [], "restart_needed": []}
        try:
            found = settings.read(self._path)
        except settings.Wrong as wrong:
            answer["faults"] = [str(fault) for fault in wrong.faults]
            self._log.error("settings.refused", faults=len(wrong.faults))
        else:
            waiting = [
                k for k in settings.differing(self._settings, found) if k in settings.RESTART
            ]
            self._settings = kept(self._settings, found, waiting)
            answer |= {"taken": True, "restart_needed": waiting}
            self._log.info("settings.checked", settings=self._settings.hash)
        answer["hash"] = self._settings.hash
        try:
            child.write_current(self._settings)
            fresh = self._settings.run / "reload.new"
            fresh.write_bytes(frames.json(answer))
            fresh.rename(self._settings.run / "reload.json")
        except OSError as fault:
            self._log.error("settings.unwritten", fault=str(fault))
        for one in self._children:  # also to open their logs anew
            if one.process is not None and self._beat(one)[1] == child.UP:
                one.told_at = time.monotonic()
                one.process.send_signal(signal.SIGHUP)

    def _drain(self) -> None:
        """Stop in the order of the mail: no new mail, nothing in hand, then the promises."""
        self._log.info("supervisor.stopping")
        until = time.monotonic() + self._settings.supervisor.drain_s
        self._signals.clear()
        for kinds in DRAIN_ORDER:
            stage = [one for one in self._children if one.kind in kinds and one.process]
            for one in stage:
                if one.process is not None:
                    one.process.terminate()
            # The shards get a moment of their own: a drain that ran out must not cut them short.
            bound = max(until, time.monotonic() + 1.0)
            while any(one.process and one.process.poll() is None for one in stage):
                if time.monotonic() > bound or self._signals & {signal.SIGTERM, signal.SIGINT}:
                    self._log.warning("supervisor.drain_cut", kinds=",".join(kinds))
                    break
                time.sleep(0.01)
            self._kill(stage)

    def _kill(self, children: Iterable[Child]) -> None:
        for one in children:
            if one.process is not None and one.process.poll() is None:
                one.process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    one.process.wait(KILL_S)


def back_off_s(failures: int) -> float:
    """Return how long to wait before a child starts again that ended soon so many times."""
    late = failures - AT_ONCE
    return min(BACKOFF_S_FIRST * 2.0 ** min(late - 1, 10), BACKOFF_S_MAX) if late > 0 else 0.0


def wanted(now: settings.Settings) -> list[tuple[str, int]]:
    """Return (kind, index) of every process these settings ask for."""
    counts = (
        ("spool", child.shards_total(now)),
        ("judge", now.judge.workers),
        ("edge", now.edge.workers),
        ("delivery", now.delivery.workers),
        ("watch", 1),
    )
    return [(kind, index) for kind, count in counts for index in range(1, count + 1)]


def kept(old: settings.Settings, new: settings.Settings, keys: Iterable[str]) -> settings.Settings:
    """Return `new` with the values of `old` in these keys."""
    plain, before = frames.plain(new), frames.plain(old)
    for key in keys:
        section, name = key.split(".")
        plain[section][name] = before[section][name]
    found = frames.convert(plain, settings.Settings)
    assert isinstance(found, settings.Settings)
    return found


def run(path: Path) -> int:
    """Supervise until told to stop; returns the exit status. Prints what is wrong."""
    try:
        now = settings.read(path)
    except settings.Wrong as wrong:
        print(wrong, file=sys.stderr)
        return 2
    if os.geteuid() == 0 and now.data.exists() and now.data.stat().st_uid != 0:
        owner = now.data.owner()
        print(f"{now.data} belongs to {owner}: run this as {owner}, not as root", file=sys.stderr)
        return 2
    try:
        now.run.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (now.run / "supervisor.lock").open("a")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        number = "on its way out"
        with contextlib.suppress(OSError):
            number = (now.run / "supervisor.pid").read_text().strip()
        print(f"{now.data}: already running (process {number}); stop it first", file=sys.stderr)
        return 2
    except OSError as fault:
        print(f"{fault.filename}: {fault.strerror}; storage.data must be writable", file=sys.stderr)
        return 2
    (now.run / "supervisor.pid").write_text(f"{os.getpid()}\n")
    child.write_current(now)
    journal = open_log("supervisor", path=now.log.file, level=now.log.level)
    try:
        return Supervisor(path, now, journal).run()
    except OSError as fault:
        print(f"cannot listen on {fault.strerror}", file=sys.stderr)
        return 2
    finally:
        (now.run / "supervisor.pid").unlink(missing_ok=True)
