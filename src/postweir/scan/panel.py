"""Asks every scanner about a message, with one deadline for all of them.

A scanner that fails, or is silent when time is up, is a finding `unavailable`: what that means is
for the policy to say. Small messages are looked at where we stand, larger ones in a thread.
"""

import asyncio
import contextlib
import math
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from postweir.mail.message import Message, read
from postweir.runtime.log import Log
from postweir.scan.finding import Finding, Scanner
from postweir.scan.turns import Turns

INLINE_BYTES_MAX = 32 * 1024  # 0.3 ms of ordinary mail with links, 20 ms of the worst
BODY_BYTES_MAX = 100 * 1024 * 1024  # what the MIME parser takes; the rest is not looked at
HUGE_BYTES = 16 * 1024 * 1024  # one such body at a time: reading takes about three copies of it
THREADS = 4


@dataclass(slots=True)
class Examined:
    """What came of looking: the message, once it was read, and what was found so far."""

    message: Message | None = None
    findings: list[Finding] = field(default_factory=list)
    done: set[str] = field(default_factory=set)  # scanners that answered
    size: int = 0
    begun: bool = False  # False: no thread had time for it
    cut: bool = False  # time was up before all had looked


class Panel:
    """All scanners of this installation."""

    def __init__(self, scanners: Sequence[Scanner], log: Log) -> None:
        self._scanners = tuple(scanners)
        self._log = log
        self._instant = all(scanner.instant for scanner in scanners)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="scan")
        self._turns = Turns(THREADS)
        self._huge = threading.Lock()
        self._ailing: set[str] = set()  # one line in the log for a change, not for a message

    def close(self) -> None:
        """Wait for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def may_look_now(self, body: bytes) -> bool:
        """True when looking at this body holds up nobody."""
        return self._instant and len(body) <= INLINE_BYTES_MAX

    def look_now(self, body: bytes) -> Examined:
        """Return what is known of a small message: all, for it is little work."""
        found = Examined()
        self._look(found, body, math.inf)
        return self._closed(found)

    async def examine(self, body: bytes | Path, wait_s: float, whose: str = "") -> Examined:
        """Return what is known of any message after at most `wait_s`. Raises OSError.

        `whose` it is: nobody's slow messages take all threads.
        """
        until = time.monotonic() + wait_s
        found = Examined(cut=True)
        if not await self._turns.take(whose, wait_s):
            return self._closed(found)
        found.cut = False
        job = self._begin(found, body, until, whose)
        done, _ = await asyncio.wait([job], timeout=until - time.monotonic())
        if done:
            job.result()  # raises what the file did
            return self._closed(found)
        job.add_done_callback(_forget)
        # The thread may still add to `found`; what is judged is what is there now.
        return self._closed(
            Examined(
                found.message, list(found.findings), set(found.done), found.size, found.begun,
                cut=True,
            )
        )  # fmt: skip

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
        size = len(body) if isinstance(body, bytes) else os.lstat(body).st_size
        if size <= HUGE_BYTES:
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
        data = body if isinstance(body, bytes) else _read_file(body)
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
                self._ail(scanner.name, repr(fault))
                continue
            found.findings += seen
            found.done.add(scanner.name)
            self._ailing.discard(scanner.name)

    def _closed(self, found: Examined) -> Examined:
        for scanner in self._scanners:
            if scanner.name not in found.done:
                found.findings.append(
                    Finding(scanner.name, "unavailable", "", 1.0, scanner.version)
                )
        return found

    def _ail(self, name: str, fault: str) -> None:
        if name not in self._ailing:
            self._ailing.add(name)
            self._log.warning("scan.unavailable", scanner=name, fault=fault)


def _read_file(path: Path) -> bytes:
    """Return a body's bytes; the file must be one, and not a link to elsewhere."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(BODY_BYTES_MAX)


def _forget(job: "asyncio.Future[None]") -> None:
    if not job.cancelled():
        job.exception()  # nobody waits for it any more
