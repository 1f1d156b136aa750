"""Checks a policy where it does no harm: its conditions are compiled in a worker of their own."""

import os
import socket
import subprocess
import time
from collections.abc import Sequence

from postweir.judge.engine import WORKER
from postweir.policy.bundle import Bundle
from postweir.policy.check import faults_of
from postweir.policy.document import Fault, Source, Wrong, parse
from postweir.policy.evaluation import Load, Loaded, PolicyFrame
from postweir.runtime.frames import Frame, Splitter, Torn, encode

CHECK_S = 10.0  # 500 rules take about 0.1 s, and the machine may be busy

__all__ = ["Fault", "check", "parse"]


def check(text: str, name: str, *, command: Sequence[str] = WORKER) -> list[Fault]:
    """Return all that is wrong with a policy text; nothing: it can be loaded."""
    try:
        bundle = parse(text, name)
    except Wrong as wrong:
        return list(wrong.faults)
    return faults_of(Source(name, text), bundle.rules, _compiled(bundle, command))


def _compiled(bundle: Bundle, command: Sequence[str]) -> Loaded | None:
    """Return what a worker says of a bundle, None when it says nothing in time."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            words = [*command, str(theirs.fileno()), str(os.getpid())]
            worker = subprocess.Popen(
                words, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
        try:
            ours.settimeout(CHECK_S)
            ours.sendall(encode([Load(bundle.canonical, bundle.schema)]))
            return _first(ours, time.monotonic() + CHECK_S)
        except (OSError, Torn):
            return None
        finally:
            worker.kill()
            worker.wait()


def _first(connection: socket.socket, until: float) -> Loaded | None:
    splitter: Splitter[Frame] = Splitter(PolicyFrame)
    while (left_s := until - time.monotonic()) > 0:
        connection.settimeout(left_s)
        data = connection.recv(65536)
        if not data:
            return None
        for frame in splitter.feed(data):
            if isinstance(frame, Loaded):
                return frame
    return None
