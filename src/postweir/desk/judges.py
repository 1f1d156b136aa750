"""What each judge says of itself, and how long it takes until all of them say something."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from postweir.desk import service
from postweir.desk.ports import Office
from postweir.runtime import frames
from postweir.runtime.frames import Struct
from postweir.runtime.metrics import asked

ASK_S = 0.5
LOOK_S = 0.03
SILENT_S = 2.0  # a judge that is started anew is back by then
WAIT_S = 12.0  # a worker may take 10 s to load a policy, on a machine that is busy

RUNS, REFUSES, WAITS, SILENT, DOWN = "runs", "refuses", "waits", "silent", "down"

Health = Mapping[str, Any]


class State(Struct, frozen=True):
    """Where one judge stands with what was asked of it."""

    judge: int
    state: str  # runs, refuses, waits (not done in time), silent, down (no judge runs at all)
    policy: str = ""
    why: str = ""


async def healths(office: Office) -> dict[int, Health | None]:
    """Return each judge's own words, None for one that says nothing."""
    indexes = range(1, office.settings.judge.workers + 1)
    said = await asyncio.gather(*(asyncio.to_thread(_ask, office, index) for index in indexes))
    return dict(zip(indexes, said, strict=True))


async def until(
    office: Office, judged: Callable[[Health], tuple[str, str]], wait_s: float | None = None
) -> list[State]:
    """Return each judge's state once none of them has to be waited for, or after a while.

    `judged` says of a judge's words which state that is, and why.
    """
    most_s = WAIT_S if wait_s is None else wait_s
    began = time.monotonic()
    while True:
        found = await healths(office)
        if not any(found.values()) and not _runs(office):
            return [State(index, DOWN) for index in found]
        states = [_state(index, said, judged) for index, said in found.items()]
        took_s = time.monotonic() - began
        waiting = {one.state for one in states} & {WAITS, SILENT}
        if not waiting or took_s > (SILENT_S if waiting == {SILENT} else most_s):
            return states
        await asyncio.sleep(LOOK_S)


def _state(index: int, said: Health | None, judged: Callable[[Health], tuple[str, str]]) -> State:
    if said is None:
        return State(index, SILENT, why="it does not answer; it follows once it does")
    state, why = judged(said)
    return State(index, state, str(said.get("policy", "")), why)


def _runs(office: Office) -> bool:
    try:
        return service.supervisor(office.settings.run) is not None
    except PermissionError:
        return True  # another user's


def _ask(office: Office, index: int) -> Health | None:
    body = asked(office.settings.run / f"judge-{index}.port", "/health", ASK_S)
    try:
        found = frames.from_json(body or b"", dict[str, Any])
    except frames.Torn:
        return None
    # Whoever has the port of a judge that is gone is no judge.
    return found if found.get("process") == f"judge {index}" else None
