"""Asks one scanner that is another program: in time, so many at once, and not while it is dead.

Whatever such a program does (silence, a fault, an answer that is none) is `None` here, a finding
`unavailable` in the panel, and one line in the log when it begins and when it ends.
"""

import asyncio
import math
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Protocol

from postweir.runtime.frames import Value
from postweir.runtime.log import Log
from postweir.scan.bodies import read_file, size_of
from postweir.scan.finding import KINDS, Finding, Measure, Seen, tame
from postweir.scan.turns import Turns

AT_ONCE = 32  # messages at one scanner: rspamd has a worker a core, and a queue of its own
FILES_AT_ONCE = 4  # bodies that are read for it from a file
FINDINGS_MAX = 20  # of one answer
FAULTS_TO_OPEN = 5  # in a row; one message that is too much for a scanner is no dead scanner
OPEN_S_FIRST, OPEN_S_MAX = 1.0, 30.0  # then one message tries again
SHARE_TO_BLAME = (
    0.5  # of its time; one that got less, for it had to wait for its turn, proves little
)


class About(Value, frozen=True):
    """What is known of a message besides its bytes."""

    client: str = ""  # address of the server that relayed it to us
    helo: str = ""
    mail_from: str = ""
    recipients: tuple[str, ...] = ()
    account: str = ""
    sender: str = ""  # who it says it is: a login, an address, a script
    tls: bool = False
    message: str = ""  # our name for it


class Remote(Protocol):
    """A scanner that is another program. Its names and measures are declared as a scanner's are."""

    name: str
    bytes_max: int  # larger messages it is not asked about
    facts: Mapping[str, type]

    @property
    def version(self) -> str:
        """Return what it looks with, as far as it has said; "" before."""
        ...

    async def look(self, body: bytes, about: About, wait_s: float) -> Seen:
        """Return what it saw; late or raising, it was unavailable. It is cancelled when late."""
        ...


class Asked:
    """One remote scanner, as the panel asks it. `ask` is never late, and raises nothing."""

    def __init__(self, remote: Remote, log: Log) -> None:
        self._remote, self._log = remote, log
        self._turns, self._files = Turns(AT_ONCE), Turns(FILES_AT_ONCE)
        self._faults = 0  # in a row
        self._open_s = 0.0
        self._shut_until = -math.inf  # while the breaker is open
        self._tries = False  # a message is out to see whether it lives
        self._looks: set[asyncio.Task[Seen | None]] = set()

    @property
    def name(self) -> str:
        """The scanner's name."""
        return self._remote.name

    @property
    def version(self) -> str:
        """What it looks with."""
        return self._remote.version

    def close(self) -> None:
        """End what is still asked."""
        for look in self._looks:
            look.cancel()

    @property
    def lives(self) -> bool:
        """False while it is known to be dead: then asking it costs nothing."""
        return not self._tries and asyncio.get_running_loop().time() >= self._shut_until

    async def ask(self, body: bytes | Path, about: About, wait_s: float) -> Seen | None:
        """Return what it saw, or None after at most `wait_s`."""
        if not self.lives:
            return None
        until = asyncio.get_running_loop().time() + wait_s
        turns = self._turns if isinstance(body, bytes) else self._files
        # Nobody's messages take more than half of the turns, as with threads.
        if not await turns.take(about.account, wait_s):
            return None
        if not self.lives:  # it died while we waited
            turns.give_back(about.account)
            return None
        left_s = until - asyncio.get_running_loop().time()
        look = self._begin(self._look(body, about, until), turns, about.account)
        tries = self._tries = self._open_s > 0
        try:
            await asyncio.wait([look], timeout=left_s)
        except asyncio.CancelledError:
            look.cancel()
            raise
        finally:
            self._tries = self._tries and not tries
        if look.done():
            return self._answered(look)
        look.cancel()  # its turn ends when it does, should it not listen
        if left_s >= SHARE_TO_BLAME * wait_s:
            self._failed("late")
        return None

    async def _look(self, body: bytes | Path, about: About, until: float) -> Seen | None:
        if isinstance(body, Path):
            try:
                if await asyncio.to_thread(size_of, body) > self._remote.bytes_max:
                    return None
                body = await asyncio.to_thread(read_file, body)
            except OSError:
                return None  # no fault of the scanner; who else reads it will say so
        if len(body) > self._remote.bytes_max:
            return None
        left_s = max(0.0, until - asyncio.get_running_loop().time())
        return sound(await self._remote.look(body, about, left_s), self._remote)

    def _begin(
        self, work: Coroutine[None, None, Seen | None], turns: Turns, key: str
    ) -> "asyncio.Task[Seen | None]":
        look = asyncio.get_running_loop().create_task(work)
        self._looks.add(look)

        def ended(task: "asyncio.Task[Seen | None]") -> None:
            self._looks.discard(task)
            turns.give_back(key)
            if not task.cancelled():
                task.exception()  # one that was late: nobody waits for it any more

        look.add_done_callback(ended)
        return look

    def _answered(self, look: "asyncio.Task[Seen | None]") -> Seen | None:
        try:
            seen = look.result()
        except asyncio.CancelledError:
            self._failed("cancelled")
            return None
        except Exception as fault:  # noqa: BLE001 - a scanner's fault is never the message's
            # Not repr(): that of an HTTP client's has all that was sent, recipients too.
            self._failed(f"{type(fault).__name__}: {fault}")
            return None
        if seen is None:
            return None
        if self._open_s:
            self._log.info("scan.available", scanner=self.name, version=self.version)
        self._faults, self._open_s, self._shut_until = 0, 0.0, -math.inf
        return seen

    def _failed(self, fault: str) -> None:
        self._faults += 1
        now = asyncio.get_running_loop().time()
        if self._faults < FAULTS_TO_OPEN or now < self._shut_until:  # one that was still out
            return
        if not self._open_s:
            self._log.warning("scan.unavailable", scanner=self.name, fault=tame(fault))
        self._open_s = min(self._open_s * 2, OPEN_S_MAX) or OPEN_S_FIRST
        self._shut_until = now + self._open_s


class Unsound(Exception):
    """What a scanner said is not what it may say."""


def sound(seen: Seen, remote: Remote) -> Seen:
    """Return an answer as it may be used, bounded; what stands in it came from elsewhere."""
    if type(seen) is not Seen:
        raise Unsound(f"a {type(seen).__name__}")
    for name, value in seen.measures.items():
        if not _is(value, remote.facts.get(name)):
            raise Unsound(f"{tame(str(name))} is a {type(value).__name__}")
    findings = [_sound(finding, remote.name) for finding in seen.findings[:FINDINGS_MAX]]
    return Seen(findings, seen.measures)


def _is(value: Measure, kind: type | None) -> bool:
    if kind is None or type(value) is not kind:
        return False
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, list) or all(type(item) is str for item in value)


def _sound(finding: Finding, scanner: str) -> Finding:
    certainty = finding.certainty
    if finding.kind not in KINDS or not (type(certainty) is float and 0.0 <= certainty <= 1.0):
        raise Unsound("a finding of no kind, or not of any certainty from 0 to 1")
    what, version = tame(str(finding.what)), tame(str(finding.version))
    return Finding(scanner, finding.kind, what, certainty, version)
