"""Asks the judge, and goes on without it: whatever it does, an answer comes in time.

Each judge has a breaker. It opens when nothing was heard for 100 ms, and closes at the next sign
of life; so a stopped judge costs a few messages those 100 ms and the rest nothing. Silence is
counted in looks of our own loop, between each of which it reads what has arrived: a loop that is
late itself takes nobody for dead.
"""

import asyncio
import contextlib
import zlib
from pathlib import Path

from postweir.judge.ports import Alive, Answer, Ask, Asked, JudgeFrame, Uncount
from postweir.runtime.link import Line, Link
from postweir.runtime.log import Log

LOOK_S = 0.025
SILENT_LOOKS = 4  # 100 ms; the judge shows that it lives every 50 ms
BODY_BYTES_MAX = 4 * 1024 * 1024  # half a frame; larger bodies come as files
OPEN_MAX = 10_000  # asks without an answer at one judge; more wait for nothing


class _One:
    """One judge, as seen from here."""

    def __init__(self, path: Path, name: str, log: Log) -> None:
        self._name, self._log = name, log
        self._loop = asyncio.get_running_loop()
        self._open: dict[int, asyncio.Future[Asked]] = {}
        self._numbers = 0
        self._heard = False
        self._looks = SILENT_LOOKS  # in silence; a judge that has said nothing yet counts as silent
        self.policy = ""
        self._line = Line(
            path, JudgeFrame, on_link=_nothing, on_frames=self._on_frames, on_lost=self._on_lost
        )

    @property
    def reason(self) -> str:
        """Why it is not asked now; "" when it is."""
        if self._line.link is None:
            return "down"
        return "breaker" if self._looks >= SILENT_LOOKS else ""

    async def ask(self, ask: Ask, wait_s: float) -> Asked:
        reason = self.reason or ("busy" if len(self._open) >= OPEN_MAX else "")
        if reason or wait_s <= 0:
            return Asked(None, reason or "late")
        self._numbers += 1
        number = self._numbers
        answer: asyncio.Future[Asked] = self._loop.create_future()
        self._open[number] = answer
        timer = self._loop.call_later(wait_s, self._give_up, number, "late")
        try:
            self._line.send(_numbered(ask, number))
            return await answer
        finally:
            timer.cancel()
            self._open.pop(number, None)

    def uncount(self, message: str) -> None:
        if not self.reason:
            self._line.send(Uncount(message))

    def look(self) -> None:
        """Count silence; called every LOOK_S."""
        self._looks = 0 if self._heard else min(self._looks + 1, SILENT_LOOKS)
        self._heard = False
        if self._looks == SILENT_LOOKS and self._open:
            self._log.warning("judge.silent", judge=self._name, open=len(self._open))
            self._give_up_all("silent")

    async def close(self) -> None:
        await self._line.close()
        self._give_up_all("down")

    def _on_frames(self, _: Link, frames: list[Answer | Alive]) -> None:
        self._heard = True
        self._looks = 0
        for frame in frames:
            if isinstance(frame, Alive):
                self.policy = frame.policy
            elif isinstance(frame, Answer):
                answer = self._open.get(frame.ask)
                if answer is not None and not answer.done():
                    answer.set_result(Asked(frame.verdict, frame.reason, frame.facts))

    def _on_lost(self, _: Link) -> None:
        self._looks = SILENT_LOOKS
        self._give_up_all("down")

    def _give_up(self, number: int, reason: str) -> None:
        answer = self._open.get(number)
        if answer is not None and not answer.done():
            answer.set_result(Asked(None, reason))

    def _give_up_all(self, reason: str) -> None:
        for number in list(self._open):
            self._give_up(number, reason)


class Judges:
    """All judges of this host; an account is always asked about at the same one."""

    def __init__(self, run: Path, *, count: int, log: Log) -> None:
        self._judges = [
            _One(run / f"judge-{index}.sock", f"judge {index}", log)
            for index in range(1, count + 1)
        ]
        self._task = asyncio.get_running_loop().create_task(self._look())

    async def ask(self, ask: Ask, wait_s: float) -> Asked:
        """Return within `wait_s`, whatever the judge does; never raises."""
        if ask.body is not None and len(ask.body) > BODY_BYTES_MAX:
            return Asked(None, "large")
        return await self._of(ask.sender.account).ask(ask, wait_s)

    def uncount(self, account: str, message: str) -> None:
        """Take a message off the counters; a hint, may be lost with the judge."""
        self._of(account).uncount(message)

    def reason(self, account: str) -> str:
        """Return why this account's judge is not asked now, "" when it is."""
        return self._of(account).reason

    def policy(self) -> str:
        """Return the policy that a judge said last to judge by, "" before one did."""
        return next((judge.policy for judge in self._judges if judge.policy), "")

    async def close(self) -> None:
        """Ask no more; what is open is pending."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        for judge in self._judges:
            await judge.close()

    def _of(self, account: str) -> _One:
        return self._judges[zlib.crc32(account.encode()) % len(self._judges)]

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for judge in self._judges:
                judge.look()


def _numbered(ask: Ask, number: int) -> Ask:
    """Return the ask under a number that is ours: callers number theirs each for themselves."""
    rest = [getattr(ask, name) for name in Ask.__struct_fields__[1:]]
    return Ask(number, *rest)


def _nothing(_: Link) -> None:
    return None
