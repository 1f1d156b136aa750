"""Asks every scanner about a message, with one deadline for all of them.

A scanner that fails, or is silent when time is up, is a finding `unavailable`: what that means is
for the policy to say. Small messages are looked at where we stand, larger ones in a thread; those
scanners that are other programs are asked meanwhile.
"""

import asyncio
import contextlib
import math
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from postweir.mail.message import Message, read
from postweir.runtime.log import Log
from postweir.scan.bodies import read_file, size_of
from postweir.scan.finding import Finding, Measure, Scanner, Seen
from postweir.scan.remote import About, Asked, Remote
from postweir.scan.turns import Turns

INLINE_BYTES_MAX = 32 * 1024  # 1 ms of a newsletter, 0.3 ms of a letter, 20 ms of the worst
INLINE_WORDS_MAX = 500  # encoded ones (RFC 2047): reading costs their square, 30 ms of 8,000
HUGE_BYTES = 16 * 1024 * 1024  # one such body at a time: reading takes about three copies of it
THREADS = 4


@dataclass(slots=True)
class Examined:
    """What came of looking: the message, once it was read, and what was found so far."""

    message: Message | None = None
    findings: list[Finding] = field(default_factory=list)
    done: set[str] = field(default_factory=set)  # scanners that answered
    measures: dict[str, Measure] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)
    size: int = 0
    begun: bool = False  # False: no thread had time for it
    cut: bool = False  # time was up before all had looked

    def add(self, name: str, seen: Seen) -> None:
        """Take what one scanner saw."""
        self.findings += seen.findings
        self.measures |= seen.measures
        self.texts |= seen.texts
        self.keys |= seen.keys
        self.done.add(name)

    def so_far(self) -> "Examined":
        """Return what is there now, of one to which a thread may still add."""
        return Examined(
            self.message, list(self.findings), set(self.done), dict(self.measures),
            dict(self.texts), dict(self.keys), self.size, self.begun, cut=True,
        )  # fmt: skip


class Panel:
    """All scanners of this installation."""

    def __init__(
        self, scanners: Sequence[Scanner], log: Log, remotes: Sequence[Remote] = ()
    ) -> None:
        self._scanners = tuple(scanners)
        self._remotes = [Asked(remote, log) for remote in remotes]
        self._log = log
        self._instant = all(scanner.instant for scanner in scanners)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="scan")
        self._turns = Turns(THREADS)
        self._huge = threading.Lock()
        self._ailing: set[str] = set()  # one line in the log for a change, not for a message

    def close(self) -> None:
        """Wait for nobody."""
        for remote in self._remotes:
            remote.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def may_look_now(self, body: bytes) -> bool:
        """True when looking at this body holds up nobody."""
        if not self._instant or len(body) > INLINE_BYTES_MAX:
            return False
        # One octet is counted in a third of the time of two.
        plain = body.count(b"?") <= INLINE_WORDS_MAX or body.count(b"=?") <= INLINE_WORDS_MAX
        return plain and not any(remote.lives for remote in self._remotes)

    def look_now(self, body: bytes) -> Examined:
        """Return what is known of a small message: all, for it is little work."""
        found = Examined()
        self._look(found, body, math.inf)
        return self._closed(found)

    async def examine(
        self, body: bytes | Path, wait_s: float, whose: str = "", about: About | None = None
    ) -> Examined:
        """Return what is known of any message after at most `wait_s`. Raises OSError.

        `whose` it is: nobody's slow messages take all threads.
        """
        loop = asyncio.get_running_loop()
        asked = {
            remote.name: loop.create_task(remote.ask(body, about or About(), wait_s))
            for remote in self._remotes
        }
        try:
            found = await self._examine_here(body, wait_s, whose)
            for name, task in asked.items():
                seen = await task
                if seen is not None:
                    found.add(name, seen)
        finally:
            for task in asked.values():
                task.cancel()
        return self._closed(found)

    async def _examine_here(self, body: bytes | Path, wait_s: float, whose: str) -> Examined:
        """Return what our own scanners saw, looking in a thread."""
        until = time.monotonic() + wait_s
        found = Examined(cut=True)
        if not await self._turns.take(whose, wait_s):
            return found
        found.cut = False
        job = self._begin(found, body, until, whose)
        done, _ = await asyncio.wait([job], timeout=until - time.monotonic())
        if done:
            job.result()  # raises what the file did
            return found
        job.add_done_callback(_forget)
        # The thread may still add to `found`; what is judged is what is there now.
        return found.so_far()

    def _begin(
        self, found: Examined, body: bytes | Path, until: float, whose: str
    ) -> "asyncio.Future[None]":
        """Have a thread look; the turn ends when the thread does, whoever still waits for it."""
        loop = asyncio.get_running_loop()

        def ended(_: "Future[None]") -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody needs turns
                loop.call_soon_threadsafe(self._turns.give_back, whose)

        job = self._threads.submit(self._look_in_turn, found, body, until)
        job.add_done_callback(ended)
        return asyncio.wrap_future(job)

    def _look_in_turn(self, found: Examined, body: bytes | Path, until: float) -> None:
        if size_of(body) <= HUGE_BYTES:
            return self._look(found, body, until)
        if not self._huge.acquire(timeout=max(0.0, until - time.monotonic())):
            found.cut = True
            return None
        try:
            return self._look(found, body, until)
        finally:
            self._huge.release()

    def _look(self, found: Examined, body: bytes | Path, until: float) -> None:
        found.begun = True
        data = body if isinstance(body, bytes) else read_file(body)
        found.size = len(data)
        message = read(data)
        found.message = message
        for scanner in self._scanners:
            if time.monotonic() >= until:
                found.cut = True
                return
            try:
                seen = scanner.scan(message)
            except Exception as fault:  # noqa: BLE001 - a scanner's fault is never the message's
                self._ail(scanner.name, _where(fault))
                continue
            found.add(scanner.name, seen)
            if scanner.name in self._ailing:
                self._ailing.discard(scanner.name)
                self._log.info("scan.available", scanner=scanner.name, version=scanner.version)

    def _closed(self, found: Examined) -> Examined:
        everyone: list[Scanner | Asked] = [*self._scanners, *self._remotes]
        for scanner in everyone:
            if scanner.name not in found.done:
                found.findings.append(
                    Finding(scanner.name, "unavailable", "", 1.0, scanner.version)
                )
        return found

    def _ail(self, name: str, fault: str) -> None:
        if name not in self._ailing:
            self._ailing.add(name)
            self._log.warning("scan.unavailable", scanner=name, fault=fault)


def _where(fault: Exception) -> str:
    """Return what a fault is and where it came from; what it says may quote the message."""
    at = traceback.extract_tb(fault.__traceback__)[-1]
    return f"{type(fault).__name__} at {Path(at.filename).name}:{at.lineno}"


def _forget(job: "asyncio.Future[None]") -> None:
    if not job.cancelled():
        job.exception()  # nobody waits for it any more
