"""A policy in a worker of its own, asked in batches: what a rule does wrong, it does there."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from postweir.desk.ports import Unusable
from postweir.judge.engine import WORKER
from postweir.judge.ports import Loadable
from postweir.judge.workers import environment
from postweir.policy.evaluation import Evaluate, Evaluated, Loaded, Mask, PolicyFrame, loading
from postweir.policy.matching import memory_bytes
from postweir.runtime import frames
from postweir.runtime.frames import Frame, Splitter

LOAD_S = 20.0  # 500 rules and a million keys, on a machine that judges mail too
SILENT_S = 2.0  # no answer for so long, and the message at hand is what it hangs on
DEATHS_MAX = 10  # of one policy: more say nothing new, and each costs two seconds
READ_BYTES = 256 * 1024


class Evaluator:
    """One policy, evaluated elsewhere. Use it as a context."""

    def __init__(
        self, policy: Loadable, *, killed: Sequence[str] = (), command: Sequence[str] = WORKER
    ) -> None:
        self.policy = policy
        self._killed = list(killed)
        self.deaths = 0
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._socket: socket.socket | None = None
        self._splitter: Splitter[Frame] = Splitter(PolicyFrame)

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await self._end()

    async def evaluate(self, asks: Sequence[Evaluate]) -> list[Evaluated | None]:
        """Return an answer for each; None where the worker died of it, or said nothing in time.

        Raises Unusable when that happens again and again.
        """
        answers: list[Evaluated | None] = []
        some = len(asks)
        while len(answers) < len(asks):
            part = asks[len(answers) : len(answers) + some]
            said = await self._ask(part)
            answers += said
            if len(said) == len(part):
                continue
            # What it said last may have died with it: whose fault it is, is found one by one.
            if some == 1:
                answers.append(None)
            some = 1
            await self._start_again()
        return answers

    async def _start_again(self) -> None:
        self.deaths += 1
        if self.deaths > DEATHS_MAX:
            raise Unusable(
                f"{self.policy.policy[:16]}: its evaluation hung or died {self.deaths} times"
            )
        await self._end()
        await self._start()

    async def _start(self) -> None:
        """Start a worker and have it load the policy. Raises Unusable, OSError."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._socket, self._splitter = ours, Splitter(PolicyFrame)
        with theirs:
            need = memory_bytes(self.policy.bundle, self.policy.sets)
            words = [*self._command, str(theirs.fileno()), str(os.getpid()), str(need)]
            self._process = await asyncio.create_subprocess_exec(
                *words, pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL, env=environment(os.environ),
            )  # fmt: skip
        said = await self._hear(
            [*loading(self.policy.canonical, self.policy.bundle.schema, self.policy.sets)],
            1,
            LOAD_S,
        )
        loaded = said[0] if said else None
        if not isinstance(loaded, Loaded) or loaded.fault is not None:
            why = loaded.fault if isinstance(loaded, Loaded) else "its worker does not answer"
            await self._end()
            raise Unusable(f"{self.policy.policy[:16]} cannot be used: {why}")
        if self._killed:
            await self._send(asyncio.get_running_loop(), [Mask(self._killed)])

    async def _ask(self, asks: Sequence[Evaluate]) -> list[Evaluated | None]:
        said = await self._hear(asks, len(asks), SILENT_S)
        return [one for one in said if isinstance(one, Evaluated)]

    async def _hear(self, asks: Sequence[Frame], count: int, silent_s: float) -> list[Frame]:
        """Return what it says to these: less than `count` when it died or fell silent."""
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        sending = loop.create_task(self._send(loop, asks))
        said: list[Frame] = []
        try:
            while len(said) < count:
                async with asyncio.timeout(silent_s):
                    data = await loop.sock_recv(self._socket, READ_BYTES)
                if not data:
                    break
                said += self._splitter.feed(data)
        except (OSError, TimeoutError, frames.Torn):
            pass  # it died, hangs, or talks nonsense: what it said before counts
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sending
        return said

    async def _send(self, loop: asyncio.AbstractEventLoop, asks: Sequence[Frame]) -> None:
        assert self._socket is not None
        for one in (asks,) if all(isinstance(a, Evaluate) for a in asks) else ([a] for a in asks):
            await loop.sock_sendall(self._socket, frames.encode(one))

    async def _end(self) -> None:
        if self._process is not None:
            # Before it hears that we hung up: whoever finds it gone would take its status, too.
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
            self._process = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
