"""What every process does at its start and end: settings, beat, signals, metrics, drain.

A process file gives `run` an async function that gets a `Ground`: it builds its objects out of
the rooms, calls `ground.up()` when it serves, waits for `ground.stopping`, and drains. Its beat
is a time that its event loop writes into memory shared with the supervisor; a loop that hangs
stops beating and is killed. So everything slow runs on a thread.
"""

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from postweir.runtime import clock, files, frames, metrics, settings
from postweir.runtime.log import Journal, Log, open_log
from postweir.runtime.title import set_title

BEAT_S = 0.05
SLOT = struct.Struct("<QQ16s")  # beat (monotonic ns), state, settings hash
STARTING, UP = 0, 1
PR_SET_PDEATHSIG = 1
# Connections that wait for accept(2); the kernel cuts it to net.core.somaxconn. In a storm of them
# one that does not fit is tried again by its kernel after 1 s, then 3 s: nobody is told why.
BACKLOG_MAX = 4096
TAKEN_S, TAKEN_PAUSE_S = 2.0, 0.02  # for an address that somebody still has


class Ground:
    """What one process stands on."""

    def __init__(self, kind: str, index: int, now: settings.Settings, journal: Journal) -> None:
        self.kind, self.index = kind, index
        self.settings = now
        self.journal = journal
        self.log: Log = journal.log
        self.metrics = metrics.Metrics()
        self.incarnation = 0  # 16 bits, new at each start of any process
        self.listeners: list[tuple[socket.socket, bool]] = []  # edge only; True: implicit TLS
        self.stopping = asyncio.Event()  # SIGTERM came: drain within settings.supervisor.drain_s
        self.on_reload: list[Callable[[settings.Settings], None]] = []
        self.health: Callable[[], dict[str, Any]] = dict  # what the health answer adds
        self._beat: mmap.mmap | None = None
        self._beat_at = 0
        self._state = STARTING
        self._beaten_ns = clock.monotonic_ns()

    @property
    def name(self) -> str:
        """Such as `edge 1`."""
        return f"{self.kind} {self.index}"

    @property
    def run(self) -> Path:
        """The folder of sockets: `judge-1.sock`, `shard-2.sock`."""
        return self.settings.run

    @property
    def of(self) -> int:
        """How many processes of this kind there are."""
        now = self.settings
        return {
            "edge": now.edge.workers,
            "judge": now.judge.workers,
            "spool": shards_total(now),
            "delivery": now.delivery.workers,
        }.get(self.kind, 1)

    def up(self) -> None:
        """Say that this process serves."""
        self._state = UP
        self._write_beat()
        self.log.info("process.up", settings=self.settings.hash)

    def fail(self, event: str, **fields: Any) -> None:
        """End this process now, without drain: what it promised is on disk."""
        self.log.error(event, **fields)
        os._exit(70)  # EX_SOFTWARE; the supervisor starts it again

    def share_beat(self, descriptor: int, slot: int) -> None:
        self._beat = mmap.mmap(descriptor, 0)
        self._beat_at = slot * SLOT.size
        os.close(descriptor)

    def report(self) -> dict[str, Any]:
        """Return the health answer; called on another thread."""
        late_s = (clock.monotonic_ns() - self._beaten_ns) / 1e9
        return {
            "ok": self._state == UP and late_s < 1.0,
            "process": self.name,
            "up": self._state == UP,
            "settings": self.settings.hash,
            "loop_late_s": round(max(late_s - BEAT_S, 0.0), 3),
            **self.health(),
        }

    async def beat(self) -> None:
        while True:
            self._write_beat()
            await asyncio.sleep(BEAT_S)

    def reload(self) -> None:
        """SIGHUP: open the log anew, take the settings the supervisor checked and wrote."""
        self.journal.reopen()
        try:
            found = read_current(self.run)
        except (OSError, frames.Torn) as fault:
            self.log.error("settings.unreadable", fault=str(fault))
            return
        self.settings = found
        for take in self.on_reload:
            take(found)
        self._write_beat()
        self.log.info("settings.taken", settings=found.hash)

    def _write_beat(self) -> None:
        self._beaten_ns = clock.monotonic_ns()
        if self._beat is not None:
            packed = SLOT.pack(self._beaten_ns, self._state, self.settings.hash.encode())
            self._beat[self._beat_at : self._beat_at + SLOT.size] = packed


def write_current(now: settings.Settings) -> None:
    """Write the settings by hash and make them current. Raises OSError."""
    path = now.run / f"settings-{now.hash}.json"
    files.replace(path, frames.json(now))
    fresh = now.run / "settings.new"
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    fresh.symlink_to(path.name)
    fresh.rename(now.run / "settings.json")


def read_current(run: Path) -> settings.Settings:
    """Return the settings in force. Raises OSError; Torn when they are not those of their name."""
    path = run / os.readlink(run / "settings.json")
    found = frames.from_json(files.read(path, settings.FILE_BYTES_MAX), settings.Settings)
    assert isinstance(found, settings.Settings)
    if path.name != f"settings-{found.hash}.json":
        raise frames.Torn(f"{path}: its bytes are not those it is named after")
    return found


def keep_current(now: settings.Settings) -> bool:
    """Write the settings anew where they are gone or damaged; True when they were."""
    try:
        if read_current(now.run) == now:
            return False
    except (OSError, frames.Torn):
        pass
    write_current(now)
    return True


def shards_total(now: settings.Settings) -> int:
    """Return how many shards there are: a file above `spool.shards` is still owned, and drained."""
    numbers = [path.stem.removeprefix("shard-") for path in (now.data / "spool").glob("shard-*.db")]
    return max([now.spool.shards, *(int(n) for n in numbers if n.isdecimal())])


def next_incarnation(run: Path) -> int:
    """Return a 16-bit number that no process of this host had lately. Raises OSError."""
    with (run / "incarnation").open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read(16).strip()
        number = (int(text) + 1) & 0xFFFF if text.isdigit() else clock.wall_us() // 1000 & 0xFFFF
        file.seek(0)
        file.truncate()
        file.write(b"%d\n" % number)
        file.flush()
        os.fsync(file.fileno())
    return number


def run(kind: str, index: int, path: Path, serve: Callable[[Ground], Awaitable[None]]) -> int:
    """Be one process until it is told to stop; returns its exit status.

    Under the supervisor POSTWEIR_SUPERVISED holds what it hands down; alone (systemd, a shell)
    the settings are read from `path`.
    """
    handed = frames.from_json(os.environ.pop("POSTWEIR_SUPERVISED", "{}").encode(), dict[str, Any])
    if handed:
        # Die with the supervisor, even when it is killed: two owners of one file never live.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != handed["parent"]:
            return 1
        now = read_current(Path(handed["run"]))
    else:
        try:
            now = settings.read(path)
        except settings.Wrong as wrong:
            print(wrong, file=sys.stderr)
            return 2
        now.run.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_current(now)
    set_title(f"{kind} {index}")
    journal = open_log(f"{kind} {index}", path=now.log.file, level=now.log.level)
    uvloop.run(_live(Ground(kind, index, now, journal), handed, serve))
    return 0


async def _live(
    ground: Ground, handed: dict[str, Any], serve: Callable[[Ground], Awaitable[None]]
) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ground.stopping.set)
    loop.add_signal_handler(signal.SIGINT, ground.stopping.set)
    loop.add_signal_handler(signal.SIGHUP, ground.reload)
    loop.set_exception_handler(lambda _, context: _note(ground.log, context))
    if handed:
        ground.share_beat(handed["beat"], handed["slot"])
        ground.listeners = [(socket.socket(fileno=fd), tls) for fd, tls in handed["listeners"]]
        ground.incarnation = handed["incarnation"]
    else:
        ground.incarnation = await asyncio.to_thread(next_incarnation, ground.run)
        if ground.kind == "edge":
            ground.listeners = open_listeners(ground.settings)
    beat = asyncio.create_task(ground.beat())
    port_file = ground.run / f"{ground.kind}-{ground.index}.port"
    metrics.publish(ground.metrics, ground.report, port_file)
    try:
        await serve(ground)
    except Exception as fault:
        ground.log.error("process.failed", fault=repr(fault), exc_info=fault)
        raise
    finally:
        beat.cancel()
        ground.log.info("process.stopped")


def _note(log: Log, context: dict[str, Any]) -> None:
    fault = context.get("exception")
    log.error("loop.trouble", what=context.get("message", ""), exc_info=fault or False)


def open_listeners(now: settings.Settings) -> list[tuple[socket.socket, bool]]:
    """Open the edge's listening sockets. Raises OSError with the address in it."""
    opened: list[tuple[socket.socket, bool]] = []
    for text, tls in [(t, False) for t in now.edge.listen] + [
        (t, True) for t in now.edge.listen_tls
    ]:
        try:
            opened.append((_open_listener(*settings.address(text)), tls))
        except OSError as fault:
            for other, _ in opened:
                other.close()
            raise OSError(fault.errno, f"{text}: {fault.strerror}") from None
    return opened


def _open_listener(host: str, port: int) -> socket.socket:
    """Listen there. The edge workers of a supervisor that was killed die a moment after it, and
    have the address until then: so one that is taken is tried for TAKEN_S. Raises OSError.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    until_s = time.monotonic() + TAKEN_S
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            try:
                listener.bind((host, port))
                listener.listen(BACKLOG_MAX)
                break
            except OSError as fault:
                if fault.errno != errno.EADDRINUSE or time.monotonic() > until_s:
                    raise
            time.sleep(TAKEN_PAUSE_S)
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
