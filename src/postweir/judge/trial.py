"""A policy worker of one's own: asked one thing after the other, and killed when it is late."""

import os
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from postweir.judge.engine import WORKER
from postweir.judge.workers import environment
from postweir.policy.bundle import Bundle
from postweir.policy.evaluation import Evaluate, Evaluated, Loaded, Mask, PolicyFrame, loading
from postweir.runtime.frames import Frame, Splitter, Torn, encode

LOAD_S = 10.0  # 500 rules take about 0.1 s, and the machine may be busy
ASKED_MAX = 64  # in one go: both sides' socket buffers hold as many, so neither waits for room


class Trial:
    """One real worker, for who checks a policy and not for mail."""

    def __init__(self, command: Sequence[str] = WORKER, memory_bytes: int = 0) -> None:
        self._ours, theirs = socket.socketpair()
        with theirs:
            words = [*command, str(theirs.fileno()), str(os.getpid()), str(memory_bytes)]
            self._worker = subprocess.Popen(
                words, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, env=environment(os.environ),
            )  # fmt: skip
        self._splitter: Splitter[Frame] = Splitter(PolicyFrame)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._worker.kill()
        self._worker.wait()
        self._ours.close()

    def load(
        self, bundle: Bundle, sets: Mapping[str, bytes], wait_s: float | None = None
    ) -> Loaded | None:
        """Return what the worker says of a bundle; None: nothing in time, or it died."""
        said = self._ask(list(loading(bundle.canonical, bundle.schema, sets)), 1, wait_s or LOAD_S)
        return said[0] if said and isinstance(said[0], Loaded) else None

    def mask(self, rules: Iterable[str]) -> None:
        """Leave these rules out from here on, and no others."""
        self._ask([Mask(list(rules))], 0, LOAD_S)

    def evaluate(self, asks: Sequence[Evaluate], wait_s: float) -> list[Evaluated]:
        """Return the answers in order: fewer than were asked when it died, or was late."""
        answers: list[Evaluated] = []
        for at in range(0, len(asks), ASKED_MAX):
            some = asks[at : at + ASKED_MAX]
            said = self._ask(some, len(some), wait_s)
            answers += [frame for frame in said if isinstance(frame, Evaluated)]
            if len(said) < len(some):
                break
        return answers

    def _ask(self, frames: Sequence[Frame], count: int, wait_s: float) -> list[Frame]:
        until = time.monotonic() + wait_s
        said: list[Frame] = []
        try:
            self._ours.settimeout(wait_s)
            self._ours.sendall(encode(frames))
            while len(said) < count and (left_s := until - time.monotonic()) > 0:
                self._ours.settimeout(left_s)
                data = self._ours.recv(65536)
                if not data:
                    break
                said += self._splitter.feed(data)
        except (OSError, Torn):
            pass  # it died, is late, or talks nonsense: what was said until then counts
        return said
